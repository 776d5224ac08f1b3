//! The metadata log on several disks: any of them that has the last batches opens it.

use std::collections::BTreeSet;
use std::time::Duration;

use anvil_model::ids::DiskId;
use anvil_model::io::{DeviceError, World};
use anvil_sim::{Faults, Operation};
use anvil_store::{AppendError, LogWriter, RecoverError};

use crate::harness::{Disks, MIB, Node, batch};

const CAPACITY: u64 = 64 * MIB;

/// Commits so many batches with three copies each; gives their numbers and the writer.
fn commit(node: &mut Node, count: u64) -> (Vec<u64>, LogWriter<anvil_sim::SimWorld>) {
    let writer = node.log_writer_of(0, 3);
    let numbers: Vec<u64> = (node.next_number..).take(usize::try_from(count).unwrap()).collect();
    commit_with(node, writer, numbers)
}

fn commit_with(
    node: &Node,
    mut writer: LogWriter<anvil_sim::SimWorld>,
    numbers: Vec<u64>,
) -> (Vec<u64>, LogWriter<anvil_sim::SimWorld>) {
    node.life.block_on(0, move |_| async move {
        for &number in &numbers {
            assert_eq!(writer.commit(number, &batch(number), &[]).await, Ok(Vec::new()));
        }
        (numbers, writer)
    })
}

/// Starts with some of the disks.
fn start_with(disks: &mut Disks, there: &[usize]) -> Result<Node, RecoverError> {
    let all = disks.all.clone();
    disks.all = there.iter().map(|&index| all[index].clone()).collect();
    let node = disks.try_start(1, &[]);
    disks.all = all;
    node
}

fn numbers(node: &Node) -> Vec<u64> {
    let log = node.log.as_ref().unwrap();
    log.iter().for_each(|record| assert_eq!(record.payload, batch(record.number)));
    log.iter().map(|record| record.number).collect()
}

/// Goal: with three copies any two of four disks may be lost. Method: lose each pair, with power lost at the end.
#[test]
fn any_two_disks_may_be_lost() {
    for (seed, [one, other]) in (0..).zip([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]) {
        let mut disks = Disks::new(700 + seed, 4, CAPACITY);
        let mut node = disks.start(1);
        let (committed, writer) = commit(&mut node, 20);
        assert_eq!(writer.disks().len(), 3);
        drop(writer);
        node.power_cut();
        let mut node = start_with(&mut disks, &[one, other]).unwrap();
        assert_eq!(numbers(&node), committed, "with {one} and {other}");
        // And it goes on with the two that are left.
        let (more, writer) = commit(&mut node, 20);
        assert_eq!(writer.disks().len(), 2);
        drop(writer);
        node.power_cut();
        assert_eq!(numbers(&start_with(&mut disks, &[one]).unwrap()), [committed, more].concat());
    }
}

/// A record that has rotted on one disk is read from another; when all copies have, it is named.
#[test]
fn a_damaged_copy_is_read_elsewhere() {
    let mut disks = Disks::new(710, 3, CAPACITY);
    let mut node = disks.start(1);
    let (committed, writer) = commit(&mut node, 20);
    drop(writer);
    node.close();
    for disk in 0..3 {
        let (at, disk) = (committed[5 + disk], &disks.all[disk].1);
        spoil(disk, at);
    }
    assert_eq!(numbers(&disks.start(1)), committed);
    for (_, disk) in &disks.all[..2] {
        spoil(disk, committed[10]);
    }
    assert_eq!(numbers(&disks.start(1)), committed);
    spoil(&disks.all[2].1, committed[10]);
    assert_eq!(disks.start(1).log, Err(anvil_store::LogError::Damaged(committed[10])));
}

/// Flips a bit in the payload of a batch.
fn spoil(disk: &anvil_sim::SimDisk, number: u64) {
    let bytes = disk.bytes(0, usize::try_from(disk.size_bytes()).unwrap());
    let mut starts = (0..bytes.len()).step_by(8).filter(|&at| bytes[at..].starts_with(b"AnvR"));
    let found = starts.rfind(|&at| bytes[at + 40..at + 48] == number.to_le_bytes()).expect("it is there");
    let payload_offset = u32::from_le_bytes(bytes[found + 60..found + 64].try_into().unwrap());
    disk.flip_bit((found + payload_offset as usize) as u64, 3);
}

/// A disk of the log whose flush fails is left; the batch counts when another one has it.
#[test]
fn a_disk_that_fails_is_replaced_before_the_batch_counts() {
    for operation in [Operation::Flush, Operation::Write] {
        let mut disks = Disks::new(720, 4, CAPACITY);
        let mut node = disks.start(1);
        let (mut committed, writer) = commit(&mut node, 5);
        let before = writer.disks().to_vec();
        let failing = before[1];
        disks.all.iter().find(|(id, _)| *id == failing).unwrap().1.fail_next(operation, DeviceError::Io(5));
        let next = committed[4] + 1;
        let (more, writer) = commit_with(&node, writer, (next..next + 5).collect());
        assert!(!writer.disks().contains(&failing) && writer.disks().len() == 3, "{operation:?}: {:?}", writer.disks());
        committed.extend(more);
        drop(writer);
        node.power_cut();
        // Only the disk that came for it, which lacks what was before, and one of the others.
        let index = |id: &DiskId| disks.all.iter().position(|(other, _)| other == id).unwrap();
        let fresh = (0..4).find(|&at| !before.contains(&disks.all[at].0)).unwrap();
        let there = [fresh, index(&before[0])];
        assert_eq!(numbers(&start_with(&mut disks, &there).unwrap()), committed, "{operation:?}");
    }
}

/// Below two copies nothing is acknowledged; with two of three it goes on.
#[test]
fn one_copy_alone_does_not_count() {
    let mut disks = Disks::new(730, 3, CAPACITY);
    let mut node = disks.start(1);
    let (committed, mut writer) = commit(&mut node, 5);
    let next = committed[4] + 1;
    disks.all[0].1.set_gone(true);
    let outcome;
    (outcome, writer) =
        node.life.block_on(0, move |_| async move { (writer.commit(next, &batch(next), &[]).await, writer) });
    assert_eq!((outcome, writer.disks().len()), (Ok(Vec::new()), 2));
    disks.all[1].1.set_gone(true);
    let (outcome, _) =
        node.life.block_on(0, move |_| async move { (writer.commit(next + 1, &batch(next + 1), &[]).await, writer) });
    assert_eq!(outcome, Err(AppendError::Device(DeviceError::Gone)));
}

/// Goal: a disk that was away, with batches at its end that were never acknowledged, changes nothing when it comes back.
/// Method: let only that disk have a last batch, go on without it, and read with it again.
#[test]
fn a_stale_disk_does_not_win() {
    let mut disks = Disks::new(740, 3, CAPACITY);
    let mut node = disks.start(1);
    let (committed, writer) = commit(&mut node, 5);
    drop(writer);
    node.power_cut();
    let mut node = disks.start(1);
    let (alone, writer) = {
        let writer = node.log_writer_of(0, 1);
        let numbers = (node.next_number..node.next_number + 3).collect();
        commit_with(&node, writer, numbers)
    };
    let stale = disks.all.iter().position(|(id, _)| writer.disks() == [*id]).unwrap();
    drop(writer);
    node.power_cut();
    let others: Vec<usize> = (0..3).filter(|&disk| disk != stale).collect();
    let mut node = start_with(&mut disks, &others).unwrap();
    assert_eq!(numbers(&node), committed);
    assert!(node.next_number > alone[2], "a number is given once");
    let (more, writer) = commit(&mut node, 5);
    drop(writer);
    node.power_cut();
    // Which of them count the batches say themselves.
    assert_eq!(numbers(&disks.start(1)), [committed, alone, more].concat());
}

/// Two halves that were in use without each other are not taken for one.
#[test]
fn halves_that_went_different_ways_are_refused() {
    let mut disks = Disks::new(750, 4, CAPACITY);
    let mut node = disks.start(1);
    drop(commit(&mut node, 5));
    node.power_cut();
    for half in [[0, 1], [2, 3]] {
        let mut node = start_with(&mut disks, &half).unwrap();
        let writer = node.log_writer_of(0, 2);
        let numbers = vec![node.next_number];
        drop(commit_with(&node, writer, numbers));
        node.power_cut();
    }
    let refused = disks.try_start(1, &[]).map(drop).unwrap_err();
    assert_eq!(refused, RecoverError::Apart { one: disks.all[0].0, other: disks.all[2].0 });
    assert!(start_with(&mut disks, &[0, 1]).is_ok() && start_with(&mut disks, &[2, 3]).is_ok());
}

/// A disk that cannot be read is left out when the node can do without it, and refused otherwise.
#[test]
fn a_disk_that_fails_at_the_start_is_left_out() {
    let mut disks = Disks::new(760, 3, CAPACITY);
    let mut node = disks.start(1);
    let (committed, writer) = commit(&mut node, 20);
    drop(writer);
    node.close();
    disks.all[1].1.set_gone(true);
    let failed = disks.all[1].0;
    assert!(matches!(disks.try_start(1, &[]).map(drop), Err(RecoverError::Device { disk, .. }) if disk == failed));
    let mut node = disks.try_start_without(1, &[], 1).unwrap();
    assert_eq!((numbers(&node), node.report.disks), (committed, 2));
    let (_, writer) = commit(&mut node, 5);
    assert!(!writer.disks().contains(&failed));
}

/// Goal: disks that are lost and exchanged one after another do not take the log with them. Method: let a start copy what
/// has too few copies after each loss, until no disk of the beginning is left.
#[test]
fn a_start_copies_what_has_too_few_copies() {
    let mut disks = Disks::new(770, 6, CAPACITY);
    let mut node = start_with(&mut disks, &[0, 1, 2]).unwrap();
    let (mut committed, writer) = commit(&mut node, 20);
    drop(writer);
    node.power_cut();
    for there in [[1, 2, 3], [2, 3, 4], [3, 4, 5]] {
        let mut node = start_with(&mut disks, &there).unwrap();
        assert_eq!(numbers(&node), committed, "{there:?}");
        let (more, writer) = commit(&mut node, 3);
        let (log, store) = (node.recovered_log.take().unwrap(), node.stores[0].clone());
        let refilled = node.life.block_on(0, move |_| async move { log.refill(&store, 3).await });
        assert_eq!(refilled, committed.len() as u64);
        committed.extend(more);
        drop(writer);
        node.power_cut();
    }
    assert_eq!(numbers(&start_with(&mut disks, &[5]).unwrap()), committed);
}

/// How long so many batches take, in the time of the simulation; and the writer.
fn timed(
    node: &Node,
    writer: LogWriter<anvil_sim::SimWorld>,
    numbers: Vec<u64>,
) -> (Duration, LogWriter<anvil_sim::SimWorld>) {
    let now = || node.life.world(0).now();
    let began = now();
    let (_, writer) = commit_with(node, writer, numbers);
    (now().since(began), writer)
}

/// Goal: a disk that is much slower than the others does not hold up the log for long, however slow it is, and each batch has
/// all its copies. Method: slow one disk of the log down, a hundred times and without measure, and look at the time.
#[test]
fn the_log_leaves_a_slow_disk() {
    for (slow_times, bound) in [(100, Duration::from_secs(3)), (1_000_000, Duration::from_secs(1))] {
        let mut disks = Disks::new(780, 4, CAPACITY);
        let mut node = disks.start(1);
        let mut next = node.next_number;
        let mut numbers = |count: u64| {
            next += count;
            (next - count..next).collect::<Vec<_>>()
        };
        let writer = node.log_writer_of(0, 3);
        let (_, writer) = timed(&node, writer, numbers(5));
        let (usual, writer) = timed(&node, writer, numbers(50));
        let slow = writer.disks()[0];
        let disk = &disks.all.iter().find(|(id, _)| *id == slow).unwrap().1;
        disk.set_faults(Faults { slow_times, ..Faults::default() });
        let (took, writer) = timed(&node, writer, numbers(50));
        assert!(took < bound, "{slow_times} times slower: 50 batches took {took:?}, and {usual:?} before");
        assert!(!writer.disks().contains(&slow) && writer.disks().len() == 3, "{:?}", writer.disks());
        let (took, writer) = timed(&node, writer, numbers(50));
        assert!(took < usual * 3, "{slow_times} times slower: {took:?} after it was left, {usual:?} before");

        // Another one that fails is replaced although a slow one is all that is left.
        let failing = writer.disks()[0];
        disks.all.iter().find(|(id, _)| *id == failing).unwrap().1.set_gone(true);
        disk.set_faults(Faults { slow_times: 100, ..Faults::default() });
        let (_, writer) = timed(&node, writer, numbers(1));
        assert!(writer.disks().contains(&slow) && writer.disks().len() == 3, "{:?}", writer.disks());
        drop(writer);
        node.power_cut();
    }
}

/// Goal: where there is no other disk the slow one stays: copies count more than time.
#[test]
fn a_slow_disk_that_is_needed_stays() {
    let mut disks = Disks::new(781, 3, CAPACITY);
    let mut node = disks.start(1);
    let (committed, writer) = commit(&mut node, 5);
    disks.all[1].1.set_faults(Faults { slow_times: 1000, ..Faults::default() });
    let next = committed[4] + 1;
    let (more, writer) = commit_with(&node, writer, (next..next + 50).collect());
    assert_eq!(writer.disks().len(), 3);
    drop(writer);
    node.power_cut();
    assert_eq!(numbers(&start_with(&mut disks, &[1]).unwrap()), [committed, more].concat());
}

/// Goal: batches of before, of this life and of an earlier one, get their copies again while the node runs. Method: lose two
/// disks of the log one after the other, each time until the rest has been copied; then start with what came for them.
#[test]
fn old_batches_are_copied_while_the_node_runs() {
    for cores in [1, 2] {
        let mut disks = Disks::new(790, 5, CAPACITY);
        let mut node = disks.start(cores);
        let (mut committed, writer) = commit(&mut node, 20);
        drop(writer);
        node.power_cut();
        let mut node = disks.start(cores);
        let (more, mut writer) = commit(&mut node, 20);
        committed.extend(more);
        let (log, store) = (node.recovered_log.take().unwrap(), node.stores[0].clone());
        let keeping = node.life.world(0).spawn_background(async move {
            store.keep_log_copies(log, 3, BTreeSet::new).await;
        });
        let mut lost = Vec::new();
        for _ in 0..2 {
            let failing = writer.disks()[0];
            lost.push(failing);
            disks.all.iter().find(|(id, _)| *id == failing).unwrap().1.set_gone(true);
            let next = committed[committed.len() - 1] + 1;
            let more;
            (more, writer) = commit_with(&node, writer, (next..next + 20).collect());
            committed.extend(more);
            // Its disks are looked at every few seconds, and must have been the same for a while.
            node.life.run_for(Duration::from_secs(60));
        }
        drop((keeping, writer));
        node.power_cut();
        disks.all.iter().for_each(|(_, disk)| disk.set_gone(false));
        let left: Vec<usize> = (0..5).filter(|&at| !lost.contains(&disks.all[at].0)).collect();
        for alone in left {
            assert_eq!(numbers(&start_with(&mut disks, &[alone]).unwrap()), committed, "{cores} cores, disk {alone}");
        }
    }
}
