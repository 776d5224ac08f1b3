//! Space that comes back: blobs that are released, extents that are given back and used again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use anvil_model::format::{EXTENTS_OFFSET, ExtentHeader, ExtentKind, Subject, UNIT_BYTES};
use anvil_model::ids::BlobId;
use anvil_model::io::World;
use anvil_sim::{Random, Sim, SimOptions, SimWorld};
use anvil_store::{AppendError, ReadError, ReclaimOptions, Reclaimed, Store, extent_bytes};

use crate::harness::{Disks, MIB, Node, check, payload_at, write};

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
        if !live.is_empty() && random.one_in(10) {
            let (blob, length) = live[random.index(live.len())];
            assert_eq!(check(&store, blob, length).await, Ok(()));
        }
    }
    live.into_iter().collect()
}

#[test]
fn a_disk_takes_ten_times_its_capacity() {
    let mut moved = 0;
    for (seed, cores, buffers, kept_mib) in [(1, 1, 8, 8), (2, 2, 2, 2)] {
        let options = SimOptions { buffers, buffers_reserved: 1, ..SimOptions::default() };
        let capacity_bytes = 24 * MIB;
        let mut disks = Disks::with(Sim::new(seed, options), 1, capacity_bytes);
        let node = disks.start(cores);
        start_reclaim(&node);
        let total = 10 * capacity_bytes / u64::from(cores);
        let kept_max = kept_mib * MIB as usize;
        let joins: Vec<_> = (0..cores)
            .map(|core| {
                let store = node.stores[usize::from(core)].clone();
                node.life.spawn(core, move |world| overwrite(world, store, Random::new(seed), total, kept_max))
            })
            .collect();
        node.life.run_while(|| joins.iter().any(|join| !join.is_done()));
        let live: Vec<_> = joins.into_iter().flat_map(|join| join.take().unwrap()).collect();
        let done = reclaimed(&node);
        assert!(done.extents > 180, "{done:?}");
        moved += done.moved_records;
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
    assert!(moved > 0, "nothing had to be moved");
}

/// What a history knows of its blobs, over all its lives.
#[derive(Default)]
struct Known {
    live: BTreeMap<BlobId, usize>,
    /// Given up, and not gone as far as anybody was told.
    released: BTreeMap<BlobId, usize>,
    gone: BTreeSet<BlobId>,
}

type Shared = Rc<RefCell<Known>>;

/// Writes, gives up, reads, takes note of what is gone; until the life ends.
async fn churn(world: SimWorld, store: Store<SimWorld>, known: Shared, mut random: Random, kept_max: usize) {
    loop {
        let length = if random.one_in(2) { 1 + random.index(60_000) } else { 70_000 + random.index(1_500_000) };
        let blob = store.new_blob();
        let disk = store.place();
        match write(&world, &store, disk, blob, length).await {
            Ok(()) => store.flush(&[disk]).await.unwrap(),
            Err(error) => {
                assert_eq!(error, AppendError::Full);
                world.sleep(Duration::from_millis(5)).await;
                continue;
            }
        }
        known.borrow_mut().live.insert(blob, length);
        loop {
            let mut known = known.borrow_mut();
            if known.live.values().sum::<usize>() <= kept_max {
                break;
            }
            let own = known.live.keys().copied().filter(|blob| blob.home(world.core_count()) == world.core());
            let own: Vec<_> = own.collect();
            let Some(&victim) = own.get(random.index(own.len().max(1))) else { break };
            let length = known.live.remove(&victim).unwrap();
            known.released.insert(victim, length);
            store.release(victim);
        }
        let mut known = known.borrow_mut();
        for blob in store.gone(100) {
            known.released.remove(&blob);
            assert!(!known.live.contains_key(&blob), "blob {blob} is gone and was wanted");
            known.gone.insert(blob);
        }
    }
}

/// Reads what is live, whatever moves.
async fn reread(world: SimWorld, store: Store<SimWorld>, known: Shared, mut random: Random) {
    loop {
        let blobs: Vec<_> = known.borrow().live.iter().map(|(&blob, &length)| (blob, length)).collect();
        if blobs.is_empty() {
            world.sleep(Duration::from_millis(1)).await;
            continue;
        }
        let (blob, length) = blobs[random.index(blobs.len())];
        let read = check(&store, blob, length).await;
        let live = known.borrow().live.contains_key(&blob);
        assert!(read == Ok(()) || !live && read == Err(ReadError::Missing(blob)), "{blob} while it may move: {read:?}");
    }
}

impl Known {
    fn verify(&mut self, seed: u64, life: u64, node: &Node) {
        let cores = node.stores.len() as u64;
        for (&blob, &length) in &self.live {
            assert_eq!(node.get((blob.sequence % cores) as u16, blob, length), Ok(()), "seed {seed}, life {life}");
        }
        for (&blob, &length) in &self.released {
            let read = node.get(0, blob, length);
            let known = read == Ok(()) || read == Err(ReadError::Missing(blob));
            assert!(known, "seed {seed}, life {life}: {blob} was released: {read:?}");
            release(node, blob);
        }
        for &blob in &self.gone {
            assert_eq!(node.get(0, blob, 1), Err(ReadError::Missing(blob)), "seed {seed}, life {life}: it was gone");
        }
    }
}

/// Lives that are cut anywhere while extents are given back and records moved, with other numbers of cores.
fn cut_lives(seed: u64, lives: u64, options: SimOptions) -> Reclaimed {
    let mut random = Random::new(seed);
    let mut disks = Disks::with(Sim::new(seed, options), 1 + random.index(2), 20 * MIB);
    let kept_max = 5 * MIB as usize * disks.all.len();
    let known = Shared::default();
    let mut sum = Reclaimed::default();
    for life in 0..lives {
        let cores = u16::try_from(random.between(1, 4)).unwrap();
        let node = disks.start(cores);
        known.borrow_mut().verify(seed, life, &node);
        if life + 1 == lives {
            break;
        }
        start_reclaim(&node);
        let writes_max = if random.one_in(3) { 8 } else { 120 };
        let writes = random.below(writes_max);
        let cuts: Vec<_> = disks.all.iter().map(|(_, disk)| disk.counts().writes_begun + writes).collect();
        let clients: Vec<_> = (0..cores)
            .map(|core| {
                let (store, shared, random) = (node.stores[usize::from(core)].clone(), known.clone(), random.fork());
                node.life.spawn(core, move |world| churn(world, store, shared, random, kept_max))
            })
            .collect();
        let (store, shared, forked) = (node.stores[0].clone(), known.clone(), random.fork());
        let reader = node.life.spawn(0, move |world| reread(world, store, shared, forked));
        let steps_max = node.life.steps() + 30_000;
        node.life.run_while(|| {
            let reached = disks.all.iter().zip(&cuts).any(|((_, disk), &cut)| disk.counts().writes_begun >= cut);
            !reached && node.life.steps() < steps_max
        });
        let done = reclaimed(&node);
        sum.extents += done.extents;
        sum.moved_records += done.moved_records;
        drop((clients, reader));
        if random.one_in(4) { node.kill() } else { node.power_cut() }
    }
    sum
}

#[test]
fn live_bytes_survive_any_cut_of_reclaim() {
    let mut sum = Reclaimed::default();
    for seed in 0..3 {
        let options = if seed % 3 == 0 {
            SimOptions { buffers: 2, buffers_reserved: 1, ..SimOptions::default() }
        } else {
            SimOptions::default()
        };
        let done = cut_lives(seed, 16, options);
        sum.extents += done.extents;
        sum.moved_records += done.moved_records;
    }
    assert!(sum.extents > 100 && sum.moved_records > 100, "too little was reclaimed to prove anything: {sum:?}");
}

/// Overwrites a disk a few times and returns what is left on it.
fn overwritten(disks: &mut Disks, seed: u64) -> BTreeMap<BlobId, usize> {
    let node = disks.start(1);
    start_reclaim(&node);
    let store = node.stores[0].clone();
    let live =
        node.life.block_on(0, move |world| overwrite(world, store, Random::new(seed), 60 * MIB, 4 * MIB as usize));
    assert!(reclaimed(&node).extents > 20);
    node.power_cut();
    live
}

/// In an extent that is used again, the records of former lives are whole too; only a copy of the header tells them apart.
#[test]
fn headers_of_extents_that_are_used_again_may_be_lost() {
    let mut disks = Disks::new(5, 1, 20 * MIB);
    let live = overwritten(&mut disks, 5);
    let extent = extent_bytes(20 * MIB);
    for at in (EXTENTS_OFFSET..disks.disk().size_bytes()).step_by(usize::try_from(extent).unwrap()) {
        let unit = disks.disk().bytes(at, UNIT_BYTES);
        if ExtentHeader::decode(&unit).is_ok_and(|header| header.kind == ExtentKind::Data) {
            disks.disk().overwrite(at, &[0xa5; UNIT_BYTES]);
        }
    }
    let node = disks.start(2);
    assert!(node.report.extents_rescued > 5, "{:?}", node.report);
    for (&blob, &length) in &live {
        assert_eq!(node.get(0, blob, length), Ok(()));
    }
}

#[test]
fn a_full_disk_takes_writes_again_when_something_was_released() {
    let mut disks = Disks::new(6, 1, 32 * MIB);
    let mut node = disks.start(2);
    let writer = node.log_writer(1);
    start_reclaim(&node);
    let mut random = Random::new(6);
    let fill = |node: &Node, random: &mut Random| {
        let mut blobs = Vec::new();
        loop {
            let length = 1 + random.index(400_000);
            let store = node.stores[0].clone();
            let put = node.life.block_on(0, move |world| async move {
                let blob = store.new_blob();
                let disk = store.place();
                let written = write(&world, &store, disk, blob, length).await;
                store.flush(&[disk]).await.unwrap();
                written.map(|()| (blob, length))
            });
            match put {
                Ok(blob) => blobs.push(blob),
                Err(error) => {
                    assert_eq!(error, AppendError::Full);
                    return blobs;
                }
            }
        }
    };
    let bytes = |blobs: &[(BlobId, usize)]| blobs.iter().map(|(_, length)| *length as u64).sum::<u64>() / MIB;
    let mut blobs = fill(&node, &mut random);
    assert!(bytes(&blobs) > 22, "{} MiB", bytes(&blobs));
    // DELETE needs the log.
    let writer = node.log(writer, 1, 1..50);
    // Every other one, so that all extents are half dead.
    let mut at = 0;
    let (kept, released): (Vec<_>, Vec<_>) = blobs.drain(..).partition(|_| {
        at += 1;
        at % 2 == 0
    });
    released.iter().for_each(|(blob, _)| release(&node, *blob));
    let more = fill(&node, &mut random);
    assert!(bytes(&more) * 10 > bytes(&released) * 7, "{} MiB for {} MiB", bytes(&more), bytes(&released));
    for &(blob, length) in kept.iter().chain(&more) {
        assert_eq!(node.get(1, blob, length), Ok(()));
    }
    drop(writer);
}

/// A damaged record is not moved, whole ones beside it are, and its extent stays until nobody wants the blob.
#[test]
fn what_is_damaged_is_not_moved_and_keeps_its_extent() {
    let mut disks = Disks::new(7, 1, 20 * MIB);
    let node = disks.start(1);
    let blobs: Vec<_> = (0..60).map(|_| node.put(0, 50_000)).collect();
    disks.disk().flip_bit(payload_at(disks.disk(), blobs[1], 0) + 40, 3);
    blobs.iter().skip(4).for_each(|&blob| release(&node, blob));
    start_reclaim(&node);
    // The disk must be low for a quarter of an extent to be moved.
    let store = node.stores[0].clone();
    drop(node.life.block_on(0, move |world| overwrite(world, store, Random::new(7), 40 * MIB, 3 * MIB as usize)));
    let bad = node.stores[0].bad_records(100);
    assert!(!bad.is_empty() && reclaimed(&node).damaged_records > 0);
    for record in bad {
        assert!(matches!(record.subject, Subject::Blob { blob, window: 0, .. } if blob == blobs[1]), "{record:?}");
    }
    assert_eq!(node.get(0, blobs[1], 50_000), Err(ReadError::Corrupt(blobs[1])));
    for &blob in [&blobs[0], &blobs[2], &blobs[3]] {
        assert_eq!(node.get(0, blob, 50_000), Ok(()));
    }
    release(&node, blobs[1]);
    pass(&node, 2);
    assert!(gone(&node).contains(&blobs[1]), "its extent is given back once nobody wants it");
}
