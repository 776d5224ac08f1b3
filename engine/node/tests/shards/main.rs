//! Goal: what was acknowledged is there as long as no more disks are lost than the profile bears, and comes back to full
//! strength. Method: a whole node on simulated disks, of which the test takes some.

mod debt;
mod encrypted;
mod harness;
mod joining;
mod narrow;

use anvil_model::io::DeviceError;
use anvil_node::put::PutError;
use anvil_store::{Chore, Rate, ScrubOptions};
use harness::{Machine, Running, disk_id, failing, random, set_gone};

/// From nothing over copies and short last windows to many windows.
const LENGTHS: [usize; 11] = [0, 1, 4096, 12 << 10, 13_000, 65_536, 65_537, 333_333, 1 << 20, (1 << 20) + 1, 2_600_007];

fn name(length: usize) -> String {
    format!("k-{length}")
}

fn put_all(running: &Running) {
    for (at, length) in LENGTHS.into_iter().enumerate() {
        running.put(at % 2, &name(length), length).unwrap();
    }
}

fn check_all(running: &Running) {
    LENGTHS.into_iter().for_each(|length| running.check(&name(length), length));
}

/// All sets of `lost` disks out of `count`.
fn sets(count: usize, lost: usize) -> Vec<Vec<usize>> {
    let all = 0..1_u32 << count;
    let of = |set: u32| (0..count).filter(|&disk| set & 1 << disk != 0).collect();
    all.filter(|set| set.count_ones() as usize == lost).map(of).collect()
}

/// Reads everything without the disks of each set.
fn check_without(machine: &Machine, running: &Running, sets: impl IntoIterator<Item: AsRef<[usize]>>) {
    for set in sets {
        let set = set.as_ref();
        set.iter().for_each(|&disk| set_gone(&machine.disks[disk], true));
        check_all(running);
        set.iter().for_each(|&disk| set_gone(&machine.disks[disk], false));
    }
}

/// Any m disks are lost, in the life that wrote and in a later one.
#[test]
fn everything_reads_without_any_m_disks() {
    for (disks, profile, lost) in [(2, "1+1", 1), (3, "1+2", 2), (3, "2+1", 1), (4, "2+2", 2), (6, "4+2", 2)] {
        let machine = Machine::new(1, disks, profile);
        let running = machine.start();
        put_all(&running);
        check_all(&running);
        assert_eq!(running.debt(), 0);
        let sets = sets(disks, lost);
        check_without(&machine, &running, &sets);
        running.nodes.iter().for_each(drop);
        drop(running.nodes);
        running.life.power_cut();

        let running = machine.start();
        let set = &sets[sets.len() / 2];
        set.iter().for_each(|&disk| set_gone(&machine.disks[disk], true));
        check_all(&running);
    }
}

/// One more than m disks are lost: an error for what needs them, and never other bytes.
#[test]
fn beyond_m_disks_the_loss_is_named() {
    let machine = Machine::new(2, 4, "2+2");
    let running = machine.start();
    put_all(&running);
    (0..3).for_each(|disk| set_gone(&machine.disks[disk], true));
    for length in LENGTHS.into_iter().filter(|&length| length > 13_000) {
        let read = running.read(0, &name(length), 0..length as u64);
        assert!(read.is_err(), "{length} bytes are read from one disk");
    }
}

/// A disk that fails while it is written to, or when it is flushed, costs its shards and nothing else; they are made again on
/// a fifth disk, so that two others may be lost then.
#[test]
fn a_disk_that_fails_on_the_way_leaves_debt_and_is_repaired() {
    for flush in [false, true] {
        // One machine in five has no shard on its way to the disk.
        let repaired: u64 = (3..6).map(|seed| fails_on_the_way(seed, flush)).sum();
        assert!(repaired > 0, "flush {flush}: nothing was repaired");
    }
}

/// Gives how many shards were repaired.
fn fails_on_the_way(seed: u64, flush: bool) -> u64 {
    let machine = Machine::new(seed, 5, "2+2");
    let running = machine.start();
    running.put(0, "before", 700_000).unwrap();
    // What the disks prepare by themselves is done: the next flush is that of a commit.
    running.settle();
    machine.disks[1].set_faults(failing(|faults| {
        if flush { faults.flush_error = 1_000_000 } else { faults.write_error = 1_000_000 }
    }));
    running.put(0, "on its way", 700_000).unwrap();
    put_all(&running);
    check_all(&running);
    running.check("on its way", 700_000);
    let on_it = running.shards_on(disk_id(1));
    assert!(on_it <= 1, "flush {flush}: {on_it} shards are said to be on a disk that failed, before it one was");
    let upkeep = running.keep();
    running.until("all debt is paid", |running| running.debt() == 0);
    drop(upkeep);

    machine.disks[1].set_faults(failing(|_| {}));
    check_without(&machine, &running, sets(5, 2).into_iter().filter(|set| !set.contains(&1)));
    running.nodes.iter().map(|node| node.repair_figures().shards).sum()
}

/// A crash finds the last write flushed by all disks but one: what is read of it is whole, and the start says which shard it
/// lacks, also where only a cell in the middle is not there.
#[test]
fn a_shard_that_a_crash_tore_is_debt_at_once() {
    for seed in 30..40 {
        let mut machine = Machine::new(seed, 4, "2+2");
        let running = machine.start();
        running.put(0, "before", 700_000).unwrap();
        machine.disks[1].set_flush_lies(true);
        running.put(0, "last", 5_000_000).unwrap();
        running.life.power_cut();
        machine.disks[1].set_flush_lies(false);
        machine.lose_index();

        let running = machine.start();
        assert_eq!(running.debt(), 1, "seed {seed}: one disk lost a cell or more of the last write");
        for disk in [0, 2, 3] {
            set_gone(&machine.disks[disk], true);
            running.check("before", 700_000);
            running.check("last", 5_000_000);
            set_gone(&machine.disks[disk], false);
        }
    }
}

/// A disk that was given up is emptied: what it held is made again on the others, byte for byte.
#[test]
fn a_lost_disk_is_emptied() {
    let machine = Machine::new(4, 6, "2+2");
    let running = machine.start();
    put_all(&running);
    let before = running.shards_on(disk_id(2));
    assert!(before > 0);
    set_gone(&machine.disks[2], true);
    // The node has to notice that it is gone before it can choose other disks.
    running.put(0, "notices", 1 << 20).unwrap();
    running.put(1, "notices too", 1 << 20).unwrap();
    running.lost.set([disk_id(2)].into());
    let upkeep = running.keep();
    running.until("the disk is empty", |running| running.shards_on(disk_id(2)) == 0 && running.debt() == 0);
    drop(upkeep);
    for row in running.blobs() {
        let mut places = row.places.clone();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), row.profile.shards().into(), "two shards are on one disk: {row:?}");
    }
    check_without(&machine, &running, sets(6, 2).into_iter().filter(|set| !set.contains(&2)));
}

/// A read that meets a damaged record answers right, and the record is made again.
#[test]
fn a_damaged_record_is_read_around_and_repaired() {
    let machine = Machine::new(5, 4, "2+2");
    let running = machine.start();
    put_all(&running);
    let disk = &machine.disks[3];
    let mut chance = random(6);
    // Behind the superblock and the first headers; every unit of what was written has a bit turned over.
    for unit in (8 << 20) / 4096..disk.size_bytes() / 4096 {
        disk.flip_bit(unit * 4096 + chance.below(4096), 3);
    }
    check_all(&running);
    // Parity is read by nobody but scrub.
    let whole =
        ScrubOptions { rate: Rate { bytes_per_second: 1 << 30, burst_bytes: 1 << 20 }, ..ScrubOptions::default() };
    running.nodes.iter().for_each(|node| node.store().start_scrub(whole, &Chore::default()));
    running.until("scrub has read everything", |running| {
        let disks = running.nodes.iter().flat_map(|node| node.store().stats().disks);
        disks.filter_map(|disk| disk.space).all(|space| space.scrubbed.passes > 0)
    });
    let upkeep = running.keep();
    let found = || running.nodes.iter().map(|node| node.repair_figures().shards).sum::<u64>();
    running.until("all debt is paid", |running| found() > 0 && running.debt() == 0);
    drop(upkeep);
    check_all(&running);
    check_without(&machine, &running, [[0, 1], [0, 2], [1, 2]]);
}

/// A disk that is 200 times slower than the others does not make reads slow for long, and is told of.
#[test]
fn a_slow_disk_is_read_around() {
    let mut latencies = [200_000; 4];
    latencies[2] = 40_000_000;
    let machine = Machine::with_latency(7, &latencies, "2+2");
    let running = machine.start();
    running.put(0, "k", 3 << 20).unwrap();
    let expected = harness::bytes_of("k", 3 << 20);
    let took = |running: &Running| {
        let began = anvil_model::io::World::now(&running.life.world(0));
        for _ in 0..20 {
            assert!(running.read(0, "k", 0..3 << 20).as_deref() == Ok(&expected[..]));
        }
        anvil_model::io::World::now(&running.life.world(0)).since(began)
    };
    took(&running);
    let settled = took(&running);
    assert!(settled.as_millis() < 400, "20 reads of 6 windows took {settled:?}");
    let slow: Vec<_> =
        running.nodes[0].disk_reads().into_iter().filter(|(_, reads)| reads.slow).map(|(disk, _)| disk).collect();
    assert_eq!(slow, [disk_id(2)]);
}

/// New writes are as wide as the disks that are left allow, survive one more failure, and are refused where they would not.
#[test]
fn writes_are_narrowed_and_refused_by_the_table() {
    let machine = Machine::new(8, 4, "2+2");
    let running = machine.start();
    let profile = |running: &Running, length| {
        let of_length: Vec<_> = running.blobs().into_iter().filter(|row| row.length == length).collect();
        assert_eq!(of_length.len(), 1);
        (of_length[0].profile.to_string(), of_length[0].places.iter().filter(|place| place.0 != 0).count())
    };
    running.put(0, "all", 900_001).unwrap();
    assert_eq!(profile(&running, 900_001), ("2+2".to_owned(), 4));
    set_gone(&machine.disks[3], true);
    running.put(0, "notices", 900_002).unwrap();
    assert_eq!(profile(&running, 900_002), ("2+2".to_owned(), 3), "it was on its way when the disk was lost");
    running.put(0, "three", 900_003).unwrap();
    assert_eq!(profile(&running, 900_003), ("1+2".to_owned(), 3));
    set_gone(&machine.disks[2], true);
    let first = running.put(0, "notices again", 900_004);
    assert_eq!(first, Ok(()), "two copies are left of three");
    running.put(0, "two", 900_005).unwrap();
    assert_eq!(profile(&running, 900_005), ("1+1".to_owned(), 2));
    for (name, length) in [("all", 900_001), ("notices", 900_002), ("three", 900_003), ("two", 900_005)] {
        running.check(name, length);
    }
    set_gone(&machine.disks[1], true);
    let refused = running.put(0, "one", 900_006);
    assert_eq!(refused, Err(PutError::Device(DeviceError::Gone)));
    assert!(matches!(running.put(0, "one", 900_006), Err(PutError::TooFewDisks(_))));
}

/// A write error of one disk in the middle of a blob does not let a shard count that lacks a window.
#[test]
fn a_shard_counts_only_when_it_is_whole() {
    let machine = Machine::new(9, 4, "2+2");
    let running = machine.start();
    running.put(0, "k", 1).unwrap();
    machine.disks[2].set_faults(failing(|faults| faults.write_error = 500_000));
    running.put(0, "k", 6 << 20).unwrap();
    let rows = running.blobs();
    let row = rows.iter().find(|row| row.length == 6 << 20).unwrap();
    assert_eq!(row.places.iter().filter(|place| place.0 == 0).count(), 1, "{:?}", row.places);
    running.check("k", 6 << 20);
}
