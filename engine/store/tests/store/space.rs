//! Disks that fill up, and who still gets what.

use anvil_model::ids::DiskId;
use anvil_model::io::World;
use anvil_model::limits::BUFFER_BYTES;
use anvil_sim::{Operation, SimOptions};
use anvil_store::AppendError;

use crate::harness::{Disks, MIB, Node, write};

/// Puts blobs until the disk refuses one; what was put.
fn fill(node: &Node, core: u16, length: usize) -> Vec<(anvil_model::ids::BlobId, usize)> {
    let mut blobs = Vec::new();
    loop {
        let store = node.stores[usize::from(core)].clone();
        let put = node.life.block_on(core, move |world| async move {
            let blob = store.new_blob();
            let disk = store.place();
            let written = write(&world, &store, disk, blob, length).await;
            store.flush(&[disk]).await.unwrap();
            written.map(|()| blob)
        });
        match put {
            Ok(blob) => blobs.push((blob, length)),
            Err(error) => {
                assert_eq!(error, AppendError::Full);
                return blobs;
            }
        }
        assert!(blobs.len() < 1_000_000, "the disk never fills");
    }
}

#[test]
fn a_disk_is_full_only_when_it_is_full_and_the_log_still_works() {
    for length in [30_000, 1_048_576, 100_000] {
        let mut disks = Disks::new(1, 1, 64 * MIB);
        let mut node = disks.start(1);
        let writer = node.log_writer(0);
        let writer = node.log(writer, 0, 1..20);
        let blobs = fill(&node, 0, length);
        let bytes: usize = blobs.iter().map(|(_, length)| length).sum();
        // The first MiB, the log, the reserve, and the end of the last extent are not for blobs.
        let least = if length == 100_000 { 45 * MIB } else { 51 * MIB };
        assert!(bytes as u64 >= least, "{} blobs of {length} bytes are {} MiB", blobs.len(), bytes as u64 / MIB);
        drop(node.log(writer, 0, 20..400));
        for &(blob, length) in blobs.iter().step_by(7) {
            node.get(0, blob, length).unwrap();
        }
        node.power_cut();
        let mut node = disks.start(2);
        assert_eq!(node.log.as_ref().unwrap().len(), 399);
        for &(blob, length) in blobs.iter().step_by(5) {
            node.get(1, blob, length).unwrap();
        }
        let writer = node.log_writer(1);
        drop(node.log(writer, 1, 400..420));
        let more: usize = fill(&node, 0, length).iter().map(|(_, length)| length).sum();
        assert!((more as u64) < 3 * MIB, "a full disk took {more} bytes more");
    }
}

/// Open extents of a life that was cut are filled on, so that many lives cost no more space than one.
#[test]
fn crashes_waste_no_extents() {
    let mut disks = Disks::new(2, 1, 64 * MIB);
    let mut used = Vec::new();
    for life in 0..40 {
        let node = disks.start(2);
        node.put(0, 5_000);
        node.put(1, 5_000);
        node.life.run_for(std::time::Duration::from_secs(2));
        let stats = node.stores[0].stats();
        used.push(stats.disks[0].space.unwrap().used_bytes);
        if life % 2 == 0 { node.power_cut() } else { node.kill() }
    }
    let extent = anvil_store::extent_bytes(64 * MIB);
    assert!(used[39] <= 4 * extent, "40 lives with 2 blobs of 5 kB each took {} extents", used[39] / extent);
}

/// Someone else fills the file system: what is there is used up, and when there is room again, it is taken.
#[test]
fn a_file_system_that_fills_up_is_survived() {
    let mut disks = Disks::new(3, 1, 256 * MIB);
    let mut node = disks.start(1);
    disks.disk().set_space_bytes(40 * MIB);
    let writer = node.log_writer(0);
    let writer = node.log(writer, 0, 1..3);
    let blobs = fill(&node, 0, 500_000);
    let writer = node.log(writer, 0, 3..200);
    assert!(disks.disk().size_bytes() <= 40 * MIB && blobs.len() > 30, "{} blobs", blobs.len());
    disks.disk().set_space_bytes(256 * MIB);
    pass_a_minute(&node);
    let more = fill(&node, 0, 500_000);
    assert!(more.len() > 200, "{} blobs after there was room again", more.len());
    drop(writer);
    node.close();
}

#[test]
fn growing_that_fails_once_is_tried_again() {
    let mut disks = Disks::new(4, 1, 64 * MIB);
    let node = disks.start(1);
    let first = node.put(0, 100);
    disks.disk().fail_next(Operation::Grow, anvil_model::io::DeviceError::Io(5));
    let refused = fill(&node, 0, 1_000_000);
    pass_a_minute(&node);
    let after = fill(&node, 0, 1_000_000);
    assert!(refused.len() + after.len() > 45, "{} and {}", refused.len(), after.len());
    node.get(0, first, 100).unwrap();
}

/// The log goes on on another disk when its own is full, and reads back as one.
#[test]
fn the_log_moves_to_another_disk() {
    let mut disks = Disks::new(5, 2, 16 * MIB);
    let mut node = disks.start(2);
    let writer = node.log_writer(0);
    let store = node.stores[0].clone();
    let (count, moved) = node.life.block_on(0, move |_| async move {
        let mut writer = writer;
        let payload = vec![7; 1 << 20];
        let mut disks = Vec::new();
        for number in 1.. {
            if writer.append(number, &payload).await.is_err() {
                return (number - 1, disks.len());
            }
            store.flush(writer.disks()).await.unwrap();
            disks.extend_from_slice(writer.disks());
            disks.dedup();
        }
        unreachable!()
    });
    assert!(moved >= 2 && count >= 20, "{count} batches of 1 MiB, {moved} disks");
    node.power_cut();
    let node = disks.start(1);
    assert_eq!(node.log.as_ref().unwrap().len() as u64, count);
}

#[test]
fn disks_are_filled_evenly() {
    let mut disks = Disks::new(6, 3, 128 * MIB);
    let node = disks.start(2);
    for number in 0..60 {
        node.put(number % 2, 1 << 20);
    }
    let written =
        |disk: usize| -> u64 { node.stores.iter().map(|store| store.stats().disks[disk].appended_bytes).sum() };
    for disk in 0..3 {
        assert!((15 * MIB..26 * MIB).contains(&written(disk)), "disk {disk} took {} MiB of 60", written(disk) / MIB);
    }
}

/// An append that is dropped in the middle leaves a hole and nothing else, and its buffer comes back.
#[test]
fn appends_may_be_dropped_at_every_await() {
    let options = SimOptions { buffers: 3, buffers_reserved: 1, ..SimOptions::default() };
    let sim = anvil_sim::Sim::new(7, options);
    let mut disks = Disks::with(sim, 1, 64 * MIB);
    let mut kept = Vec::new();
    for polls in 0..25 {
        let node = disks.start(1);
        for length in [3_000, 200_000] {
            let store = node.stores[0].clone();
            let blob = node.life.block_on(0, move |world| async move {
                let blob = store.new_blob();
                let append = write(&world, &store, DiskId(1), blob, length);
                give_up_after(polls, append).await;
                blob
            });
            // Whatever became of it: reads are right or say that it is missing.
            let _ = node.get(0, blob, length);
        }
        kept.push(node.put(0, 3_000));
        kept.push(node.put(0, 3_000));
        node.life.run_for(std::time::Duration::from_secs(5));
        assert_eq!(node.life.buffers_out(), 0, "after {polls} polls");
        node.power_cut();
    }
    let node = disks.start(2);
    for blob in kept {
        node.get(0, blob, 3_000).unwrap();
    }
    const { assert!(BUFFER_BYTES > 200_000) };
}

fn pass_a_minute(node: &Node) {
    node.life.block_on(0, |world| async move { world.sleep(std::time::Duration::from_secs(60)).await });
}

/// Polls a future so many times, then drops it.
async fn give_up_after(polls: usize, future: impl Future) {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(move |context| {
        if left == 0 || future.as_mut().poll(context).is_ready() {
            return std::task::Poll::Ready(());
        }
        left -= 1;
        std::task::Poll::Pending
    })
    .await;
}
