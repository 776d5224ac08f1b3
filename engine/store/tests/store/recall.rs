//! Open extents do not keep a disk full: neither their garbage, nor the room in those of cores that do nothing.

use std::time::Duration;

use anvil_model::ids::BlobId;
use anvil_sim::{Sim, SimOptions, SimWorld};
use anvil_store::{AppendError, ReclaimOptions, Store, extent_bytes};

use crate::harness::{Disks, MIB, Node, write};

const CORES: u16 = 4;

fn start_reclaim(node: &Node) {
    node.stores.iter().for_each(|store| store.start_reclaim(ReclaimOptions::default()));
}

fn used_bytes(node: &Node) -> u64 {
    node.stores.iter().flat_map(|store| store.stats().disks).filter_map(|disk| disk.space).map(|s| s.used_bytes).sum()
}

async fn put(world: SimWorld, store: Store<SimWorld>, length: usize) -> Result<BlobId, AppendError> {
    let blob = store.new_blob();
    let disk = store.place();
    let written = write(&world, &store, disk, blob, length).await;
    if written.is_err() {
        store.release(blob);
    }
    store.flush(&[disk]).await.unwrap();
    written.map(|()| blob)
}

/// Puts on all cores in turn until each has been refused once.
fn fill(node: &Node, lengths: &[usize]) -> Vec<(BlobId, usize)> {
    let mut blobs = Vec::new();
    let mut refused = vec![false; node.stores.len()];
    for turn in 0..100_000 {
        let core = turn % node.stores.len();
        let length = lengths[turn % lengths.len()];
        let store = node.stores[core].clone();
        match node.life.block_on(core as u16, move |world| put(world, store, length)) {
            Ok(blob) => blobs.push((blob, length)),
            Err(error) => {
                assert_eq!(error, AppendError::Full);
                refused[core] = true;
            }
        }
        if refused.iter().all(|refused| *refused) {
            return blobs;
        }
    }
    panic!("the disk never fills");
}

fn release(node: &Node, blobs: &[(BlobId, usize)]) {
    let cores = node.stores.len() as u16;
    blobs.iter().for_each(|(blob, _)| node.stores[usize::from(blob.home(cores).0)].release(*blob));
}

/// A disk of few extents under many cores is filled and everything is deleted, again and again: each time it takes as
/// much as before, at once, and when nothing more comes it is empty.
#[test]
fn a_small_disk_under_many_cores_is_empty_when_all_is_deleted() {
    let capacity_bytes = 24 * MIB;
    let mut disks = Disks::new(11, 1, capacity_bytes);
    let node = disks.start(CORES);
    start_reclaim(&node);
    let mut first = None;
    for round in 0..6 {
        let blobs = fill(&node, &[1 << 20, 3_000, 200_000, 40_000, 1 << 20]);
        let bytes: usize = blobs.iter().map(|(_, length)| length).sum();
        let first = *first.get_or_insert(bytes);
        assert!(bytes * 10 >= first * 9, "round {round}: {bytes} bytes, and {first} at first");
        for &(blob, length) in blobs.iter().step_by(5) {
            node.get(1, blob, length).unwrap();
        }
        release(&node, &blobs);
        if round % 2 == 1 {
            node.life.run_for(Duration::from_secs(60));
            let used = used_bytes(&node);
            assert!(used * 20 <= capacity_bytes, "round {round}: {used} bytes are still used");
        }
    }
    node.close();
    let node = disks.start(2);
    assert_eq!(used_bytes(&node), 0);
}

/// Every core has begun extents of both kinds, and only one goes on: it gets what the others do not use.
#[test]
fn one_busy_core_fills_the_disk() {
    let capacity_bytes = 384 * MIB;
    let options = SimOptions::default();
    for (length, least) in [(1 << 20, 95), (50_000, 90)] {
        let mut disks = Disks::with(Sim::new(12, options), 1, capacity_bytes);
        let node = disks.start(CORES);
        start_reclaim(&node);
        let begun: Vec<_> =
            (0..CORES).flat_map(|core| [3_000, 300_000].map(|length| (node.put(core, length), length))).collect();
        let mut bytes = begun.iter().map(|(_, length)| *length as u64).sum::<u64>();
        loop {
            let store = node.stores[2].clone();
            match node.life.block_on(2, move |world| put(world, store, length)) {
                Ok(_) => bytes += length as u64,
                Err(error) => break assert_eq!(error, AppendError::Full),
            }
        }
        let extents = capacity_bytes / extent_bytes(capacity_bytes);
        let percent = bytes * 100 / capacity_bytes;
        println!("blobs of {length} bytes by one core of {CORES}: {percent} % of {extents} extents");
        // Two extents are kept for the log and for moves; small blobs that come one by one take whole units.
        assert!(percent >= least, "{percent} % in blobs of {length} bytes");
        for (blob, length) in begun {
            node.get(0, blob, length).unwrap();
        }
        node.close();
    }
}
