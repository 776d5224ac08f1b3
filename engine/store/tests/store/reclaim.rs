//! Space that comes back: blobs that are released, extents that are given back and used again.

use std::collections::BTreeMap;
use std::time::Duration;

use anvil_model::ids::BlobId;
use anvil_sim::{Random, Sim, SimOptions, SimWorld};
use anvil_store::{AppendError, ReadError, ReclaimOptions, Reclaimed, Store};

use crate::harness::{Disks, MIB, Node, check, write};

fn start_reclaim(node: &Node) {
    node.stores.iter().for_each(|store| store.start_reclaim(ReclaimOptions::default()));
}

/// Gives a blob up on its home core.
fn release(node: &Node, blob: BlobId) {
    let cores = u16::try_from(node.stores.len()).unwrap();
    node.stores[usize::from(blob.home(cores).0)].release(blob);
}

fn gone(node: &Node) -> Vec<BlobId> {
    node.stores.iter().flat_map(|store| store.gone(usize::MAX)).collect()
}

fn reclaimed(node: &Node) -> Reclaimed {
    let spaces = node.stores.iter().flat_map(|store| store.stats().disks).filter_map(|disk| disk.space);
    spaces.fold(Reclaimed::default(), |sum, space| Reclaimed {
        extents: sum.extents + space.reclaimed.extents,
        moved_records: sum.moved_records + space.reclaimed.moved_records,
        moved_bytes: sum.moved_bytes + space.reclaimed.moved_bytes,
        damaged_records: sum.damaged_records + space.reclaimed.damaged_records,
    })
}

fn pass(node: &Node, seconds: u64) {
    node.life.run_for(Duration::from_secs(seconds));
}

#[test]
fn what_is_released_is_missing_and_then_gone() {
    let mut disks = Disks::new(1, 1, 64 * MIB);
    let node = disks.start(2);
    let kept = node.put(1, 300_000);
    let large = node.put(0, 9_000_000);
    let small = node.put(1, 3_000);
    release(&node, large);
    release(&node, large);
    release(&node, small);
    for core in [0, 1] {
        assert_eq!(node.get(core, large, 9_000_000), Err(ReadError::Missing(large)));
        assert_eq!(node.get(core, small, 3_000), Err(ReadError::Missing(small)));
    }
    assert_eq!(gone(&node), [], "its bytes are there");
    start_reclaim(&node);
    // Sealed extents go at once; that of the small one is open and goes when it is full.
    node.put(0, 2_000_000);
    pass(&node, 2);
    assert!(reclaimed(&node).extents >= 7, "{:?}", reclaimed(&node));
    for _ in 0..100 {
        release(&node, node.put(1, 40_000));
    }
    pass(&node, 2);
    let gone = gone(&node);
    assert!(gone.contains(&large) && gone.contains(&small), "{gone:?}");
    assert_eq!(node.get(0, kept, 300_000), Ok(()));
    // What is not known is gone already.
    release(&node, large);
    assert_eq!(self::gone(&node), [large]);
    node.power_cut();
    let node = disks.start(3);
    assert_eq!(node.get(2, kept, 300_000), Ok(()));
    assert_eq!(node.get(2, large, 9_000_000), Err(ReadError::Missing(large)));
}

#[test]
fn the_blobs_of_a_core_are_listed_in_pages() {
    let mut disks = Disks::new(2, 1, 64 * MIB);
    let node = disks.start(2);
    let mut blobs: Vec<_> = (0..30).map(|n| (node.put(1, 1_000 + 90_000 * n), 1_000 + 90_000 * n as u64)).collect();
    release(&node, blobs[3].0);
    blobs.sort();
    let mut listed = Vec::new();
    loop {
        let page = node.stores[1].blobs(listed.last().map(|(blob, _)| *blob), 7);
        assert!(page.iter().all(|known| known.released == (known.blob == blobs[3].0)));
        if page.is_empty() {
            break;
        }
        listed.extend(page.into_iter().map(|known| (known.blob, known.length)));
    }
    assert_eq!(listed, blobs);
    assert_eq!(node.stores[0].blobs(None, 7), []);
}

/// A client that overwrites all the time: it keeps few blobs and gives up the others.
async fn overwrite(
    world: SimWorld,
    store: Store<SimWorld>,
    mut random: Random,
    total: u64,
    kept_max: usize,
) -> BTreeMap<BlobId, usize> {
    let mut live: Vec<(BlobId, usize)> = Vec::new();
    let mut written = 0;
    let mut kept_bytes = 0;
    while written < total {
        let length = match random.below(3) {
            0 => 1 + random.index(60_000),
            1 => 70_000 + random.index(1_000_000),
            _ => 1 + random.index(5_000_000),
        };
        let blob = store.new_blob();
        let disk = store.place();
        match write(&world, &store, disk, blob, length).await {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, AppendError::Full);
                panic!("full after {} MiB with {} MiB kept", written / MIB, kept_bytes / MIB as usize);
            }
        }
        store.flush(&[disk]).await.unwrap();
        written += length as u64;
        live.push((blob, length));
        kept_bytes += length;
        while kept_bytes > kept_max {
            let (blob, length) = live.swap_remove(random.index(live.len()));
            kept_bytes -= length;
            store.release(blob);
        }
        if random.one_in(10) {
            let (blob, length) = live[random.index(live.len())];
            assert_eq!(check(&store, blob, length).await, Ok(()));
        }
    }
    live.into_iter().collect()
}

#[test]
fn a_disk_takes_ten_times_its_capacity() {
    for (seed, cores, buffers) in [(1, 1, 8), (2, 2, 2)] {
        let options = SimOptions { buffers, buffers_reserved: 1, ..SimOptions::default() };
        let capacity_bytes = 24 * MIB;
        let mut disks = Disks::with(Sim::new(seed, options), 1, capacity_bytes);
        let node = disks.start(cores);
        start_reclaim(&node);
        let total = 10 * capacity_bytes / u64::from(cores);
        let kept_max = 8 * MIB as usize / usize::from(cores);
        let joins: Vec<_> = (0..cores)
            .map(|core| {
                let store = node.stores[usize::from(core)].clone();
                node.life.spawn(core, move |world| overwrite(world, store, Random::new(seed), total, kept_max))
            })
            .collect();
        node.life.run_while(|| joins.iter().any(|join| !join.is_done()));
        let live: Vec<_> = joins.into_iter().flat_map(|join| join.take().unwrap()).collect();
        let done = reclaimed(&node);
        assert!(done.moved_records > 0 && done.extents > 180, "{done:?}");
        let entries: u64 = node.stores.iter().map(|store| store.stats().index_entries).sum();
        assert!(entries < 3000, "{entries} entries for {} blobs", live.len());
        for &(blob, length) in &live {
            assert_eq!(node.get(0, blob, length), Ok(()));
        }
        node.power_cut();
        let node = disks.start(3);
        for &(blob, length) in &live {
            assert_eq!(node.get(1, blob, length), Ok(()), "seed {seed}");
        }
    }
}
