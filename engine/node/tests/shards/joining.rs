//! Goal: a disk that comes while the node runs is as good as one of its start: a blank one takes the place of one that is
//! given up, and one that was away brings back what it holds. Method: as in `main`, and a cut of the life afterwards.

use crate::harness::{Machine, disk_id, set_gone};
use crate::{check_all, put_all};

#[test]
fn a_blank_disk_takes_the_place_of_a_lost_one() {
    let mut machine = Machine::new(21, 4, "2+2");
    let running = machine.start();
    put_all(&running);
    assert!(running.shards_on(disk_id(2)) > 0);
    set_gone(&machine.disks[2], true);
    running.put(0, "notices", 1 << 20).unwrap();
    running.put(1, "notices too", 1 << 20).unwrap();
    let new = machine.add_disk();
    running.join(&machine, new, true);
    running.lost.set([disk_id(2)].into());
    let upkeep = running.keep();
    running.until("the lost disk is empty", |running| running.shards_on(disk_id(2)) == 0 && running.debt() == 0);
    assert!(running.shards_on(disk_id(new)) > 0);
    assert_eq!(running.cleared(), [disk_id(2)].into());
    drop(upkeep);
    for others in [[0, 1], [1, 3], [0, 3]] {
        others.iter().for_each(|&disk| set_gone(&machine.disks[disk], true));
        check_all(&running);
        others.iter().for_each(|&disk| set_gone(&machine.disks[disk], false));
    }
    drop(running.nodes);
    running.life.power_cut();

    let running = machine.start_without(&[2]);
    [0, 1].iter().for_each(|&disk| set_gone(&machine.disks[disk], true));
    check_all(&running);
}

/// What was written, overwritten and deleted while it was away does no harm.
#[test]
fn a_disk_that_was_away_brings_back_what_it_holds() {
    let machine = Machine::new(22, 4, "2+2");
    let running = machine.start();
    put_all(&running);
    drop(running.nodes);
    running.life.power_cut();

    let running = machine.start_without(&[3]);
    running.put(0, "while away", 700_001).unwrap();
    let upkeep = running.keep();
    running.settle();
    running.join(&machine, 3, false);
    running.settle();
    running.put(1, "since", 700_002).unwrap();
    check_all(&running);
    drop(upkeep);
    // With two others gone, every byte of what was there before takes a shard of this disk.
    for others in [[0, 1], [1, 2], [0, 2]] {
        others.iter().for_each(|&disk| set_gone(&machine.disks[disk], true));
        check_all(&running);
        running.check("since", 700_002);
        others.iter().for_each(|&disk| set_gone(&machine.disks[disk], false));
    }
    running.check("while away", 700_001);
    drop(running.nodes);
    running.life.power_cut();

    let running = machine.start();
    check_all(&running);
    running.check("while away", 700_001);
    [0, 2].iter().for_each(|&disk| set_gone(&machine.disks[disk], true));
    check_all(&running);
    running.check("since", 700_002);
}
