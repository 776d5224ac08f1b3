//! What rots is found before somebody asks for it: by scrub while the node runs, and by an inspection while it does not.

use std::time::Duration;

use anvil_model::format::Subject;
use anvil_model::ids::BlobId;
use anvil_sim::Faults;
use anvil_store::{BadRecord, Chore, ExtentState, ExtentVerdict, Inspection, Rate, ScrubOptions, Scrubbed};

use crate::harness::{Disks, MIB, Node, payload_at};

const FAST: ScrubOptions =
    ScrubOptions { rate: Rate { bytes_per_second: 1 << 30, burst_bytes: 1 << 20 }, every: Duration::from_secs(60) };

fn scrubbed(node: &Node) -> Scrubbed {
    node.stores[0].stats().disks[0].space.unwrap().scrubbed
}

/// Turns a bit of a window over on the disk.
fn flip(disks: &Disks, blob: BlobId, window: u32) {
    let at = payload_at(disks.disk(), blob, window);
    disks.disk().flip_bit(at + 100, 5);
}

fn of(record: &BadRecord) -> (BlobId, u32) {
    match record.subject {
        Subject::Blob { blob, window, .. } => (blob, window),
        Subject::Log { .. } => panic!("{record:?}"),
    }
}

#[test]
fn scrub_names_what_rots_and_nothing_else() {
    let mut disks = Disks::new(1, 1, 64 * MIB);
    let mut node = disks.start(2);
    let writer = node.log_writer(1);
    let writer = node.log(writer, 1, 1..30);
    let large = node.put(0, 5_000_000);
    let small: Vec<_> = (0..60).map(|n| node.put(n % 2, 30_000)).collect();
    let released = node.put(0, 2_000_000);
    node.stores[0].release(released);
    node.stores.iter().for_each(|store| store.start_scrub(FAST, &Chore::default()));
    node.life.run_for(Duration::from_secs(30));
    let first = scrubbed(&node);
    // Five windows, the small ones, and what is sealed of the log.
    assert!(first.passes == 1 && first.records >= 65 && first.bytes > 6_000_000, "{first:?}");
    assert_eq!((first.bad_records, first.unclear_extents), (0, 0));
    flip(&disks, large, 2);
    flip(&disks, small[3], 0);
    flip(&disks, *small.last().unwrap(), 0);
    flip(&disks, released, 1);
    disks.disk().set_faults(Faults { read_bit_flip: 5_000, ..Faults::default() });
    node.life.run_for(Duration::from_secs(60));
    disks.disk().set_faults(Faults::default());
    let second = scrubbed(&node);
    assert!(second.passes == 2 && second.pass_ended >= second.pass_began, "{second:?}");
    let mut named: Vec<_> = node.stores[0].bad_records(100).iter().map(of).collect();
    named.sort();
    let mut expected = vec![(large, 2), (small[3], 0), (*small.last().unwrap(), 0)];
    expected.sort();
    assert_eq!(named, expected);
    drop(writer);
    node.close();
}

#[test]
fn scrub_keeps_its_rate() {
    let mut disks = Disks::new(2, 1, 64 * MIB);
    let node = disks.start(1);
    for _ in 0..20 {
        node.put(0, 1_000_000);
    }
    let rate = Rate { bytes_per_second: 1_000_000, burst_bytes: 1_000_000 };
    node.stores[0].start_scrub(ScrubOptions { rate, every: Duration::from_secs(1) }, &Chore::default());
    node.life.run_for(Duration::from_secs(10));
    let bytes = scrubbed(&node).bytes;
    assert!((9_000_000..=12_500_000).contains(&bytes), "{bytes} bytes in 10 s");
}

/// A pass goes on where it was, after a clean stop exactly there and after a crash a little before; and the next one
/// begins when it is due, however often the node starts meanwhile.
#[test]
fn a_pass_outlives_the_node_and_the_next_one_keeps_its_time() {
    let hour = Duration::from_secs(3600);
    let mut disks = Disks::new(9, 1, 64 * MIB);
    // A record of a MiB takes a hundred seconds.
    let rate = Rate { bytes_per_second: 10_000, burst_bytes: 10_000 };
    let slowly = ScrubOptions { rate, every: 10 * hour };
    let mut records = 0;
    let mut reached = 0;
    let mut began = None;
    for life in 0..3 {
        let node = disks.start(1 + life % 2);
        if life == 0 {
            for _ in 0..30 {
                node.put(0, 1_000_000);
            }
        } else {
            let found = scrubbed(&node);
            assert_eq!(found.pass_began, began, "it is the same pass");
            let least = if life == 1 { reached } else { reached - 8 };
            assert!(found.next_extent >= least, "{found:?} and {reached} were scrubbed");
        }
        node.stores.iter().for_each(|store| store.start_scrub(slowly, &Chore::default()));
        node.life.run_for(Duration::from_secs(1000));
        let now = scrubbed(&node);
        assert!(now.next_extent > reached && now.passes == 0, "{now:?}");
        (reached, began) = (now.next_extent, now.pass_began);
        records += now.records;
        if life == 0 { node.close() } else { node.power_cut() }
    }
    let node = disks.start(1);
    node.stores[0].start_scrub(slowly, &Chore::default());
    node.life.run_for(hour);
    let ended = scrubbed(&node);
    assert!(ended.passes == 1 && ended.next_extent == 0 && ended.pass_began == began, "{ended:?}");
    // A stop repeats the record that was under way, a crash what was done in the ten minutes before.
    assert!((30..45).contains(&(records + ended.records)), "{} records of 30", records + ended.records);
    node.power_cut();

    for _ in 0..4 {
        let node = disks.start(1);
        node.stores[0].start_scrub(slowly, &Chore::default());
        node.life.run_for(hour);
        let resting = scrubbed(&node);
        assert_eq!((resting.records, resting.pass_ended), (0, ended.pass_ended), "nothing is due");
        let due = resting.pass_due.unwrap().unix_ms - began.unwrap().unix_ms;
        assert_eq!(u128::from(due), slowly.every.as_millis());
        node.power_cut();
    }
    let node = disks.start(1);
    node.stores[0].start_scrub(slowly, &Chore::default());
    node.life.run_for(6 * hour);
    assert!(scrubbed(&node).passes == 1, "{:?}", scrubbed(&node));
}

fn inspect(disks: &mut Disks) -> Vec<ExtentVerdict> {
    let life = disks.sim.start(1);
    let device = disks.disk().open(&life.world(0));
    let before = disks.disk().counts().writes_begun;
    let verdicts = life.block_on(0, move |world| async move {
        let inspection = Inspection::open(&world, &device).await.unwrap();
        let mut verdicts = Vec::new();
        for extent in 0..inspection.identity().extents_prepared {
            let verdict = inspection.verify(extent).await.unwrap();
            assert_eq!(inspection.extent(extent).await.unwrap(), verdict.report);
            verdicts.push(verdict);
        }
        verdicts
    });
    assert_eq!(disks.disk().counts().writes_begun, before, "an inspection writes nothing");
    life.kill();
    verdicts
}

#[test]
fn an_inspection_finds_what_is_there_and_what_is_damaged() {
    let mut disks = Disks::new(3, 1, 64 * MIB);
    let mut node = disks.start(2);
    let writer = node.log_writer(1);
    let writer = node.log(writer, 1, 1..30);
    let large = node.put(0, 5_000_000);
    let small = node.put(1, 30_000);
    drop(writer);
    // Not in order: some extents are left open.
    node.life.run_for(Duration::from_secs(5));
    node.kill();
    let verdicts = inspect(&mut disks);
    let records: u64 = verdicts.iter().map(|verdict| verdict.report.records).sum();
    assert_eq!(records, 29 + 5 + 1);
    assert!(verdicts.iter().all(|verdict| verdict.bad.is_empty() && verdict.doubtful.is_empty()));
    let log: Vec<_> = verdicts.iter().filter_map(|verdict| verdict.report.log_numbers).collect();
    assert_eq!(log, [(1, 29)]);
    let count = |state| verdicts.iter().filter(|verdict| verdict.report.state == state).count();
    assert!(count(ExtentState::Sealed) >= 4 && count(ExtentState::Open) >= 2 && count(ExtentState::Free) >= 1);
    flip(&disks, large, 0);
    flip(&disks, small, 0);
    let verdicts = inspect(&mut disks);
    let bad: Vec<_> = verdicts.iter().flat_map(|verdict| &verdict.bad).map(of).collect();
    let doubtful: Vec<_> = verdicts.iter().flat_map(|verdict| &verdict.doubtful).map(of).collect();
    assert_eq!((bad, doubtful), (vec![(large, 0)], vec![(small, 0)]), "the small one's extent is open");
}
