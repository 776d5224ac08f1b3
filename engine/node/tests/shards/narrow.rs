//! Goal: what was written while disks were missing gets all the shards that its class wants when they are back, and reads byte for
//! byte at every moment of that. Method: take disks out of use while objects are written; end lives in the middle.

use std::time::Duration;

use anvil_model::geometry::stored_as;

use crate::harness::{Machine, Running, disk_id};
use crate::{check_all, check_without, put_all, sets};

pub(crate) fn set_out_of_use(running: &Running, disks: &[usize], out: bool) {
    for (node, &disk) in running.nodes.iter().flat_map(|node| disks.iter().map(move |disk| (node, disk))) {
        if out {
            node.store().set_offline(disk_id(disk));
        } else {
            node.store().set_online(disk_id(disk)).unwrap();
        }
    }
}

pub(crate) fn is_as_wanted(running: &Running, profile: &str) -> bool {
    let wanted = profile.parse().unwrap();
    running.narrow() == 0
        && running.blobs().iter().all(|row| {
            row.profile == stored_as(wanted, row.length) && row.places.len() == usize::from(row.profile.shards())
        })
}

/// With one, two or three disks away, to all their shards.
#[test]
fn narrow_blobs_are_spread_anew() {
    for (seed, disks, profile, away) in
        [(40, 4, "2+2", vec![3]), (41, 4, "2+2", vec![0, 2]), (42, 6, "4+2", vec![1, 4, 5])]
    {
        let machine = Machine::new(seed, disks, profile);
        let running = machine.start();
        set_out_of_use(&running, &away, true);
        put_all(&running);
        let narrow = running.narrow();
        assert!(narrow > 5, "{profile}: only {narrow} are narrow");
        let upkeep = running.keep();
        running.settle();
        let waiting: u64 = running.nodes.iter().map(|node| node.repair_figures().narrow).sum();
        assert_eq!((waiting, running.narrow()), (narrow as u64, narrow), "there are too few disks");
        check_all(&running);
        set_out_of_use(&running, &away, false);
        for _ in 0..20 {
            running.life.run_for(Duration::from_millis(100));
            check_all(&running);
        }
        running.until("all are as wide as they should be", |running| is_as_wanted(running, profile));
        running.until("the rest is counted", |running| {
            let of = |read: fn(&anvil_node::repair::RepairFigures) -> u64| {
                running.nodes.iter().map(|node| read(&node.repair_figures())).sum::<u64>()
            };
            (of(|figures| figures.narrow), of(|figures| figures.respread)) == (0, narrow as u64)
        });
        drop(upkeep);
        assert_eq!((running.debt(), running.misplaced()), (0, 0), "{profile}");
        check_without(&machine, &running, sets(disks, 2));
        drop(running.nodes);
        running.life.power_cut();
        let running = machine.start();
        check_all(&running);
        let upkeep = running.keep();
        running.until("what was narrow is given up", |running| running.misplaced() == 0);
        drop(upkeep);
        check_all(&running);
    }
}

/// A life that ends anywhere in between leaves each blob as it was or as it should be.
#[test]
fn a_crash_while_blobs_are_spread_anew_loses_nothing() {
    let machine = Machine::new(43, 4, "2+2");
    let running = machine.start();
    set_out_of_use(&running, &[1, 2], true);
    put_all(&running);
    drop(running.nodes);
    running.life.power_cut();
    let mut lives = 0;
    loop {
        let running = machine.start();
        check_all(&running);
        let upkeep = running.keep();
        running.life.run_for(Duration::from_millis(4 * (1 + lives)));
        check_all(&running);
        let done = is_as_wanted(&running, "2+2");
        drop(upkeep);
        drop(running.nodes);
        running.life.power_cut();
        if done {
            break;
        }
        lives += 1;
        assert!(lives < 100, "it does not come to an end");
    }
    assert!(lives > 3, "only {lives} lives ended in the middle");
    let running = machine.start();
    let upkeep = running.keep();
    running.until("all is where it should be", |running| running.misplaced() == 0);
    drop(upkeep);
    check_without(&machine, &running, sets(4, 2));
}

/// Changes of rows that never arrive, arrive when everybody has given up, or whose answers get lost: whatever the row says in the
/// end is there.
#[test]
fn a_bad_line_to_the_metadata_loses_nothing() {
    for seed in 44..47 {
        let machine = Machine::new(seed, 5, "2+2");
        let running = machine.start();
        set_out_of_use(&running, &[1, 2], true);
        put_all(&running);
        set_out_of_use(&running, &[1, 2], false);
        machine.line.set_share(600_000);
        let upkeep = running.keep();
        for _ in 0..60 {
            running.life.run_for(Duration::from_secs(2));
            check_all(&running);
        }
        machine.line.set_share(0);
        running.until("all are as wide as they should be", |running| is_as_wanted(running, "2+2"));
        running.until("all is where it should be", |running| running.misplaced() == 0 && running.debt() == 0);
        drop(upkeep);
        check_without(&machine, &running, sets(5, 2));
    }
}
