//! Goal: the rows say where each shard is, and the disks come to agree with them, whatever happened while a disk was away or
//! how it fails. Method: disks that leave and return, are emptied, or cannot be read.

use std::time::Duration;

use anvil_node::repair::RepairFigures;
use anvil_store::Stats;

use crate::harness::{Machine, Running, disk_id, failing, set_gone};
use crate::{check_all, check_without, put_all, sets};

fn stats(running: &Running) -> Vec<Stats> {
    running.nodes.iter().map(|node| node.store().stats()).collect()
}

fn contested(running: &Running) -> u64 {
    stats(running).iter().map(|stats| stats.contested_blobs).sum()
}

/// Bytes of records on a disk in extents that take no more.
fn live_bytes(running: &Running, disk: usize) -> u64 {
    let disks = stats(running).into_iter().flat_map(|stats| stats.disks);
    disks
        .filter(|stats| stats.disk == disk_id(disk))
        .filter_map(|stats| stats.space)
        .map(|space| space.live_bytes)
        .sum()
}

/// A disk comes back whose shards were made again elsewhere while it was away: what the rows name counts, and the disk gets
/// its space back, although its records may be in later extents than those that replaced them.
#[test]
fn a_disk_that_returns_gives_up_what_was_repaired() {
    for seed in 20..22 {
        let machine = Machine::new(seed, 6, "2+2");
        let running = machine.start();
        put_all(&running);
        let held = running.shards_on(disk_id(1));
        assert!(held > 0);
        drop(running.nodes);
        running.life.power_cut();

        let running = machine.start_without(&[1]);
        running.lost.set([disk_id(1)].into());
        let upkeep = running.keep();
        running.until("the disk is emptied", |running| running.shards_on(disk_id(1)) == 0 && running.debt() == 0);
        drop(upkeep);
        check_all(&running);
        drop(running.nodes);
        running.life.power_cut();

        let running = machine.start();
        assert!(contested(&running) > 0, "seed {seed}: nothing of the disk is there twice");
        // Any of the two records may be read before the rows are asked.
        check_all(&running);
        let upkeep = running.keep();
        running.until("the rows were asked", |running| contested(running) == 0);
        assert_eq!(running.misplaced(), 0, "seed {seed}");
        assert_eq!(running.debt(), 0, "a disk that returns is no debt");
        let settled: u64 = running.nodes.iter().map(|node| node.upkeep_figures().settled).sum();
        assert!(settled >= held as u64, "seed {seed}: {settled} records were given up for {held} shards");
        running.nodes.iter().for_each(|node| node.store().start_reclaim(anvil_store::ReclaimOptions::default()));
        running.until("the disk has its space back", |running| live_bytes(running, 1) == 0);
        drop(upkeep);
        check_without(&machine, &running, sets(6, 2).into_iter().step_by(3));
        drop(running.nodes);
        running.life.power_cut();

        // What is left of it, in extents that were open, is given up again.
        let running = machine.start();
        let upkeep = running.keep();
        running.until("the rows were asked again", |running| contested(running) == 0);
        assert_eq!((running.misplaced(), running.debt()), (0, 0), "seed {seed}");
        drop(upkeep);
    }
}

/// The disk that a shard was moved to is away when the old one returns: what is there is read, and nothing is decided before
/// its time.
#[test]
fn either_disk_of_a_moved_shard_may_be_away() {
    let machine = Machine::new(23, 5, "2+2");
    let running = machine.start();
    put_all(&running);
    drop(running.nodes);
    running.life.power_cut();

    let running = machine.start_without(&[1]);
    running.lost.set([disk_id(1)].into());
    let upkeep = running.keep();
    running.until("the disk is emptied", |running| running.shards_on(disk_id(1)) == 0 && running.debt() == 0);
    drop(upkeep);
    drop(running.nodes);
    running.life.power_cut();

    for away in [[0, 2], [3, 4], [1, 2]] {
        let running = machine.start_without(&away);
        check_all(&running);
        let upkeep = running.keep();
        running.until("the rows were asked", |running| contested(running) == 0);
        running.settle();
        check_all(&running);
        assert_eq!(running.debt(), 0, "disks that are away are no debt");
        drop(upkeep);
        drop(running.nodes);
        running.life.power_cut();
    }
    let running = machine.start();
    let upkeep = running.keep();
    running.until("all is where it should be", |running| contested(running) == 0 && running.misplaced() == 0);
    drop(upkeep);
    check_all(&running);
}

/// A disk that works and has lost its records, as one that was rolled back or emptied: they are debt, and made again.
#[test]
fn records_that_are_gone_are_made_again() {
    let machine = Machine::new(24, 5, "2+2");
    let blank = machine.disks[2].save();
    let running = machine.start();
    put_all(&running);
    let held = running.shards_on(disk_id(2));
    assert!(held > 0);
    drop(running.nodes);
    running.life.power_cut();
    machine.disks[2].restore(&blank);

    let running = machine.start();
    let misplaced = running.misplaced();
    assert!(misplaced >= held, "{misplaced} cells of {held} shards are gone");
    let upkeep = running.keep();
    running.until("they are made again", |running| running.debt() == 0 && running.misplaced() == 0);
    drop(upkeep);
    let lacking: u64 = running.nodes.iter().map(|node| node.upkeep_figures().lacking).sum();
    assert_eq!(lacking, held as u64, "each shard is debt once");
    check_without(&machine, &running, sets(5, 2));
}

/// What no disk takes, or nothing is left to make it of, is counted and not read again and again. When a disk comes that takes it, it
/// is made again at once.
#[test]
fn what_cannot_be_made_again_is_looked_at_seldom() {
    for (seed, disks, profile) in [(26, 4, "2+2"), (27, 2, "1+0")] {
        let mut machine = Machine::new(seed, disks, profile);
        let running = machine.start();
        put_all(&running);
        running.nodes.iter().for_each(|node| node.store().set_offline(disk_id(1)));
        running.lost.set([disk_id(1)].into());
        let held = running.shards_on(disk_id(1));
        let upkeep = running.keep();
        running.life.run_for(Duration::from_secs(600));
        let sum = |read: fn(&RepairFigures) -> u64| {
            running.nodes.iter().map(|node| read(&node.repair_figures())).sum::<u64>()
        };
        let left = sum(|figures| figures.remaining.iter().map(|of| of.shards).sum());
        assert!(left > 0, "{profile}: all of it found a place");
        assert_eq!(left + sum(|figures| figures.shards), held as u64, "{profile}: not all of it is counted");
        let rounds = sum(|figures| figures.rounds);
        assert!((4..50).contains(&rounds), "{profile}: {rounds} rounds in ten minutes on two cores");
        if profile == "2+2" {
            let new = machine.add_disk();
            running.join(&machine, new, true);
            running.settle();
            assert_eq!((running.shards_on(disk_id(1)), running.debt()), (0, 0), "{profile}: not made again at once");
            check_all(&running);
        }
        drop(upkeep);
    }
}

/// A disk that cannot be read, and does not say that it is gone, loses the shards that reads wanted.
#[test]
fn what_cannot_be_read_is_made_again() {
    let machine = Machine::new(25, 5, "2+2");
    let running = machine.start();
    put_all(&running);
    let upkeep = running.keep();
    running
        .until("the first sweep is over", |running| running.nodes.iter().all(|node| node.upkeep_figures().sweeps > 0));
    let held = running.shards_on(disk_id(1));
    machine.disks[1].set_faults(failing(|faults| faults.read_error = 1_000_000));
    check_all(&running);
    running.until("its shards are elsewhere", |running| running.shards_on(disk_id(1)) < held && running.debt() == 0);
    drop(upkeep);
    check_all(&running);
}

/// A disk that is gone loses nothing by what reads and the sweep miss of it: it may come back, and does.
#[test]
fn what_is_away_is_no_debt() {
    let machine = Machine::new(28, 5, "2+2");
    let running = machine.start();
    put_all(&running);
    let held = running.shards_on(disk_id(1));
    assert!(held > 0);
    let upkeep = running.keep();
    running.settle();
    set_gone(&machine.disks[1], true);
    for _ in 0..3 {
        check_all(&running);
        running.settle();
    }
    assert_eq!((running.shards_on(disk_id(1)), running.debt()), (held, 0), "the disk may come back");
    drop(upkeep);
    drop(running.nodes);
    running.life.power_cut();
    set_gone(&machine.disks[1], false);

    let running = machine.start();
    let upkeep = running.keep();
    running.settle();
    assert_eq!((running.misplaced(), running.debt()), (0, 0));
    drop(upkeep);
    check_all(&running);
}
