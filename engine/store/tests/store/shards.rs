//! Blobs that are spread over disks: every cell is found and read by itself, whatever happens to the others.
//!
//! What the cells hold is nobody's business here: each has bytes of its own, and nothing is decoded.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use anvil_model::format::{FEATURE_SHARDS, RecordHeader, Superblock, UNIT_BYTES};
use anvil_model::geometry::{cell_bytes, is_packed, stored_as, window_count, window_length, window_start};
use anvil_model::ids::{BlobId, CellId, DiskId};
use anvil_model::io::{Buffer, DeviceError, Reserve, World};
use anvil_model::limits::{BUFFER_BYTES, RECORD_HEADER_BYTES_MAX};
use anvil_model::profile::Profile;
use anvil_sim::{Operation, Random, SimDisk, SimWorld};
use anvil_store::{AppendError, Cell, CellBytes, CellError, DiskState, Inspection, Located, SmallCopy, Store};

use crate::harness::{Disks, MIB, Node, bytes, origin};

const CAPACITY: u64 = 64 * MIB;

fn profile(text: &str) -> Profile {
    text.parse().unwrap()
}

/// The bytes of a cell; copies are equal.
fn cell_of(profile: Profile, cell: CellId, length: usize) -> Vec<u8> {
    let shard = if profile.data == 1 { 0 } else { usize::from(cell.shard) };
    bytes(cell.blob, shard * 777_767 + cell.window as usize * 10_007, length)
}

/// Appends a cell, durable or not.
async fn append_cell(
    world: &SimWorld,
    store: &Store<SimWorld>,
    disk: DiskId,
    profile: Profile,
    length: u64,
    cell: CellId,
) -> Result<(), AppendError> {
    let CellId { blob, shard, window } = cell;
    let origin = origin(blob);
    let window_length = window_length(profile, length, window);
    let payload = cell_of(profile, cell, cell_bytes(profile, window_length));
    if is_packed(profile, length) {
        return store
            .append_small(
                disk,
                Some(&origin),
                SmallCopy { blob, profile, shard, payload: Rc::new(payload), encryption: None },
            )
            .await;
    }
    let mut buffer = world.buffer(Reserve::Foreground).await;
    let mut view = buffer.split_to((RECORD_HEADER_BYTES_MAX + payload.len()).next_multiple_of(UNIT_BYTES));
    view[RECORD_HEADER_BYTES_MAX..][..payload.len()].copy_from_slice(&payload);
    let cell = Cell { blob, profile, shard, window, window_length, encryption: None, buffer: view };
    store.append(disk, (window == 0).then_some(&origin), cell).await
}

/// Appends all cells of a blob, shard s to the s-th disk behind the first.
async fn spread(
    world: &SimWorld,
    store: &Store<SimWorld>,
    disks: &[DiskId],
    profile: Profile,
    blob: BlobId,
    length: u64,
) -> Result<(), AppendError> {
    for window in 0..window_count(profile, length) {
        for shard in 0..profile.shards() {
            let cell = CellId { blob, shard, window };
            append_cell(world, store, disks[usize::from(shard)], profile, length, cell).await?;
        }
    }
    Ok(())
}

/// Reads a part of a cell and compares it. Wrong bytes panic.
async fn check_cell(
    world: &SimWorld,
    store: &Store<SimWorld>,
    profile: Profile,
    length: u64,
    cell: CellId,
    part: Range<usize>,
) -> Result<DiskId, CellError> {
    let CellId { blob, shard, window } = cell;
    let at = window_start(profile, window);
    let located = store.locate(blob, at).await?.ok_or(CellError::Missing(cell))?;
    assert_eq!((located.profile, located.window), (profile, window));
    let bytes_expected = cell_bytes(profile, window_length(profile, length, window));
    let mut rest = world.buffer(Reserve::Foreground).await;
    let room = located.cell(shard).map_or(UNIT_BYTES, |cell| cell.room_bytes());
    let view = rest.split_to(room);
    let (read, view) = store.read_cell(&located, shard, part.clone(), view).await;
    let range = read?.range;
    assert_eq!(located.cell(shard).unwrap().bytes, bytes_expected);
    assert!(view[range] == cell_of(profile, cell, bytes_expected)[part], "wrong bytes of {cell}");
    assert_eq!(view.unsplit(rest).len(), BUFFER_BYTES);
    Ok(located.cell(shard).unwrap().disk)
}

/// Reads every cell of a blob on a core: where each was found, in the order of windows and shards.
fn check_all(node: &Node, core: u16, profile: Profile, blob: BlobId, length: u64) -> Vec<Result<DiskId, CellError>> {
    let store = node.stores[usize::from(core)].clone();
    node.life.block_on(core, move |world| async move {
        let mut found = Vec::new();
        for window in 0..window_count(profile, length) {
            let bytes = cell_bytes(profile, window_length(profile, length, window));
            for shard in 0..profile.shards() {
                let cell = CellId { blob, shard, window };
                let whole = check_cell(&world, &store, profile, length, cell, 0..bytes).await;
                if whole.is_ok() && bytes > 2 {
                    let part = bytes / 3..bytes / 3 * 2;
                    assert_eq!(check_cell(&world, &store, profile, length, cell, part).await, whole);
                }
                found.push(whole);
            }
        }
        found
    })
}

/// Writes a blob and makes it durable.
fn put(node: &Node, disks: &[DiskId], profile: Profile, length: u64) -> BlobId {
    let store = node.stores[0].clone();
    let disks = disks.to_vec();
    node.life.block_on(0, move |world| async move {
        let blob = store.new_blob();
        spread(&world, &store, &disks, profile, blob, length).await.unwrap();
        store.flush(&disks).await.unwrap();
        blob
    })
}

fn ids(disks: &Disks) -> Vec<DiskId> {
    disks.all.iter().map(|(id, _)| *id).collect()
}

/// Where the record of a cell begins on its disk, and its header.
fn record_of(disk: &SimDisk, cell: CellId) -> (u64, RecordHeader) {
    let image = disk.bytes(0, usize::try_from(disk.size_bytes()).unwrap());
    let mut records = (0..image.len()).step_by(UNIT_BYTES).filter_map(|at| {
        let header = RecordHeader::decode(&image[at..at + UNIT_BYTES]).ok()?;
        Some((at as u64, header))
    });
    records.find(|(_, header)| header.subject.cell() == Some(cell)).expect("the cell is on the disk")
}

fn features(disk: &SimDisk) -> u64 {
    Superblock::decode(&disk.bytes(0, UNIT_BYTES)).unwrap().features_incompatible
}

/// Cells of every kind of profile, small and long, are found on their own disks and read whole and in part: from the core
/// that wrote them, from another one, and after starts with other numbers of cores.
#[test]
fn every_cell_is_read_by_itself() {
    let mut disks = Disks::new(1, 20, 2 * CAPACITY);
    let all = ids(&disks);
    let mut blobs = Vec::new();
    let node = disks.start(3);
    for text in ["1+0", "1+2", "2+1", "2+2", "4+2", "16+4"] {
        for length in [1, 5_000, 70_000, 1_400_000] {
            let profile = stored_as(profile(text), length);
            blobs.push((profile, put(&node, &all, profile, length), length));
        }
    }
    let check = |node: &Node, core| {
        for &(profile, blob, length) in &blobs {
            for (found, at) in check_all(node, core, profile, blob, length).into_iter().zip(0..) {
                assert_eq!(found, Ok(all[at % usize::from(profile.shards())]), "{profile}, {length} bytes");
            }
        }
    };
    check(&node, 0);
    check(&node, 2);
    node.power_cut();
    let node = disks.start(2);
    check(&node, 1);
    node.close();
    let wanted: Vec<_> = blobs.iter().map(|&(profile, blob, length)| (blob, profile, length)).collect();
    let node = disks.try_start_asking(1, &wanted).unwrap();
    check(&node, 0);
    assert_eq!(node.held.len(), wanted.len());
}

/// The cells of a window are read side by side into the views of one buffer, and one that fails says which it is and gives
/// its view back.
#[test]
fn a_window_is_read_into_one_buffer() {
    let mut disks = Disks::new(2, 3, CAPACITY);
    let all = ids(&disks);
    let node = disks.start(1);
    let profile = profile("2+1");
    let blob = put(&node, &all, profile, 500_000);
    let lost = CellId { blob, shard: 1, window: 0 };
    let (at, _) = record_of(&disks.all[1].1, lost);
    disks.all[1].1.flip_bit(at + 200_000, 3);
    let store = node.stores[0].clone();
    node.life.block_on(0, move |world| async move {
        let Located { cells, .. } = store.locate(blob, 0).await.unwrap().unwrap();
        let located = store.locate(blob, 499_999).await.unwrap().unwrap();
        assert_eq!((located.window, &located.cells), (0, &cells), "one window");
        let mut rest = world.buffer(Reserve::Foreground).await;
        let views: Vec<_> = (0..3).map(|shard| rest.split_to(located.cell(shard).unwrap().room_bytes())).collect();
        let reads = views.into_iter().zip(0..).map(|(view, shard)| store.read_cell(&located, shard, 0..250_000, view));
        let mut joined = None;
        for ((read, view), shard) in futures_util::future::join_all(reads).await.into_iter().zip(0..) {
            let cell = CellId { blob, shard, window: 0 };
            match read {
                Ok(CellBytes { range, encryption }) => {
                    assert_eq!(encryption, None);
                    assert_eq!(range, RECORD_HEADER_BYTES_MAX..RECORD_HEADER_BYTES_MAX + 250_000);
                    assert!(view[range] == cell_of(profile, cell, 250_000));
                }
                Err(error) => assert_eq!((error, cell), (CellError::Corrupt(lost), lost)),
            }
            joined = Some(match joined {
                None => view,
                Some(before) => Buffer::unsplit(before, view),
            });
        }
        assert_eq!(joined.unwrap().unsplit(rest).len(), BUFFER_BYTES);
        // Blocks that the flipped bit is not in are still to be had.
        assert!(check_cell(&world, &store, profile, 500_000, lost, 0..65_536).await.is_ok());
    });
    // The disks grow ahead of need.
    node.life.run_for(std::time::Duration::from_secs(1));
    assert_eq!(node.life.buffers_out(), 0);
}

/// A blob counts at a start when k cells of each window are whole, and not with fewer: torn, missing or of another length.
#[test]
fn a_blob_is_held_by_any_k_cells() {
    let profile = profile("2+1");
    let length = 1_000_000;
    for lost in [vec![], vec![0], vec![2], vec![0, 2]] {
        for how in ["missing", "torn"] {
            let mut disks = Disks::new(3, 3, CAPACITY);
            let all = ids(&disks);
            let node = disks.start(1);
            let store = node.stores[0].clone();
            let (missing, disks_of) = (if how == "missing" { lost.clone() } else { Vec::new() }, all.clone());
            let blob = node.life.block_on(0, move |world| async move {
                let blob = store.new_blob();
                for (window, shard) in (0..2).flat_map(|window| (0..3).map(move |shard| (window, shard))) {
                    let cell = CellId { blob, shard, window };
                    if window == 0 || !missing.contains(&shard) {
                        let disk = disks_of[usize::from(shard)];
                        append_cell(&world, &store, disk, profile, length, cell).await.unwrap();
                    }
                }
                store.flush(&disks_of).await.unwrap();
                blob
            });
            node.power_cut();
            for &shard in lost.iter().filter(|_| how == "torn") {
                let disk = &disks.all[usize::from(shard)].1;
                let (at, _) = record_of(disk, CellId { blob, shard, window: 1 });
                disk.flip_bit(at + 5_000, 1);
            }
            let wanted =
                [(blob, profile, length), (blob, profile, length + 400_000), (blob, self::profile("2+2"), length)];
            let node = disks.try_start_asking(2, &wanted).unwrap();
            assert_eq!(node.held, if lost.len() < 2 { vec![blob] } else { vec![] }, "{lost:?} {how}");
            for (found, at) in check_all(&node, 1, profile, blob, length).into_iter().zip(0_u8..) {
                let cell = CellId { blob, shard: at % 3, window: u32::from(at / 3) };
                let expected = match (cell.window == 1 && lost.contains(&cell.shard), how) {
                    (false, _) => Ok(all[usize::from(cell.shard)]),
                    (true, "missing") => Err(CellError::Missing(cell)),
                    (true, _) => Err(CellError::Corrupt(cell)),
                };
                assert_eq!(found, expected, "{lost:?} {how}");
            }
        }
    }
}

/// A write that went to another disk, to where another shard of the same blob lies, is seen by both.
#[test]
fn a_cell_on_another_disk_is_not_taken_for_one_of_that_disk() {
    let mut disks = Disks::new(4, 3, CAPACITY);
    let all = ids(&disks);
    let node = disks.start(1);
    let profile = profile("2+1");
    let blob = put(&node, &all, profile, 400_000);
    let cell = |shard| CellId { blob, shard, window: 0 };
    let (from, header) = record_of(&disks.all[0].1, cell(0));
    let (to, _) = record_of(&disks.all[1].1, cell(1));
    let record = disks.all[0].1.bytes(from, header.record_bytes());
    disks.all[1].1.overwrite(to, &record);
    let found = check_all(&node, 0, profile, blob, 400_000);
    assert_eq!(found, [Ok(all[0]), Err(CellError::Corrupt(cell(1))), Ok(all[2])]);
    node.power_cut();
    let node = disks.start(2);
    let found = check_all(&node, 1, profile, blob, 400_000);
    assert_eq!(found, [Ok(all[0]), Err(CellError::Missing(cell(1))), Ok(all[2])]);
}

/// A bad cell is appended again, elsewhere or there; from then on, and after starts, the new one is read, and when the blob
/// is released all of it goes.
#[test]
fn a_cell_that_is_appended_again_replaces_the_bad_one() {
    let mut disks = Disks::new(5, 4, CAPACITY);
    let all = ids(&disks);
    let mut node = disks.start(2);
    let profile = profile("2+1");
    let length = 900_000;
    let blob = put(&node, &all, profile, length);
    let bad = CellId { blob, shard: 1, window: 0 };
    let (at, _) = record_of(&disks.all[1].1, bad);
    disks.all[1].1.flip_bit(at + 100_000, 3);
    for home in [all[3], all[1]] {
        let store = node.stores[0].clone();
        node.life.run_for(std::time::Duration::from_secs(1));
        node.life.block_on(0, move |world| async move {
            append_cell(&world, &store, home, profile, length, bad).await.unwrap();
            store.flush(&[home]).await.unwrap();
        });
        assert_eq!(check_all(&node, 1, profile, blob, length)[1], Ok(home));
    }
    // With footers nobody reads the bad record at the start.
    node.close();
    node = disks.start(2);
    let found = check_all(&node, 0, profile, blob, length);
    assert!(found.iter().all(Result::is_ok), "{found:?}");
    let store = node.stores[0].clone();
    node.life.block_on(0, move |_| async move {
        let known = store.blobs(None, 10);
        assert_eq!((known.len(), known[0].blob, known[0].profile), (1, blob, profile));
        assert!((length..length + 2).contains(&known[0].length), "{known:?}");
        store.release(blob);
        assert_eq!(store.locate(blob, 0).await, Ok(None));
    });
}

/// The superblock says that a disk holds shards before the first of their records is on it, whatever the crash leaves, and
/// not when there is none: a node of one copy can go back to an older program.
#[test]
fn a_disk_with_shards_says_so() {
    let mut with_records = 0;
    for seed in 0..40 {
        let mut disks = Disks::new(seed, 3, CAPACITY);
        let node = disks.start(2);
        node.put(0, 1_500_000);
        node.put(1, 3_000);
        assert_eq!(disks.all.iter().map(|(_, disk)| features(disk)).max(), Some(0));
        let all = ids(&disks);
        for core in [0, 1] {
            let (store, all) = (node.stores[core].clone(), all.clone());
            let (text, length) = if seed % 2 == 0 { ("2+1", 100_000) } else { ("1+2", 3_000) };
            let _ = node.life.spawn(core as u16, move |world| async move {
                let blob = store.new_blob();
                let _ = spread(&world, &store, &all, profile(text), blob, length).await;
                let _ = store.flush(&all).await;
            });
        }
        node.life.run_for(std::time::Duration::from_micros(150 * (seed + 1)));
        node.power_cut();
        for (_, disk) in &disks.all {
            let image = disk.bytes(0, usize::try_from(disk.size_bytes()).unwrap());
            let spread = image.chunks_exact(8).zip((0..).step_by(8)).any(|(word, at)| {
                word.starts_with(b"AnvR")
                    && RecordHeader::decode(&image[at..(at + UNIT_BYTES).min(image.len())])
                        .is_ok_and(|header| header.subject.profile() != Profile::SINGLE)
            });
            with_records += usize::from(spread);
            assert!(!spread || features(disk) == FEATURE_SHARDS, "seed {seed}");
        }
        let node = disks.start(1);
        let blob = put(&node, &all, profile("2+1"), 200_000);
        node.close();
        assert!(disks.all.iter().all(|(_, disk)| features(disk) == FEATURE_SHARDS), "seed {seed}");
        let node = disks.start(1);
        assert!(check_all(&node, 0, profile("2+1"), blob, 200_000).iter().all(Result::is_ok));
    }
    assert!(with_records > 20, "{with_records} disks had records of shards");
}

/// A disk that takes no writes is named by its state and by its own flush; the others go on, and what it held is read.
#[test]
fn a_disk_that_fails_is_named_and_the_others_go_on() {
    let mut disks = Disks::new(6, 3, CAPACITY);
    let all = ids(&disks);
    let node = disks.start(2);
    let profile = profile("2+1");
    let before = put(&node, &all, profile, 700_000);
    node.life.run_for(std::time::Duration::from_secs(2));
    disks.all[1].1.fail_next(Operation::Flush, DeviceError::Io(30));
    let store = node.stores[0].clone();
    let disks_of = all.clone();
    node.life.block_on(0, move |world| async move {
        let blob = store.new_blob();
        spread(&world, &store, &disks_of, profile, blob, 100_000).await.unwrap();
        let read_only = Err(DeviceError::Io(30));
        assert_eq!(store.flush_each(&disks_of).await, [Ok(()), read_only, Ok(())]);
        assert_eq!(store.flush(&disks_of).await, read_only);
        let states: Vec<_> = store.disks().into_iter().map(|disk| (disk.id, disk.state)).collect();
        let failed = DiskState::Failed(DeviceError::Io(30));
        assert_eq!(states, [(disks_of[0], DiskState::Online), (disks_of[1], failed), (disks_of[2], DiskState::Online)]);
        assert!(store.disks().iter().all(|disk| disk.capacity_bytes == CAPACITY && disk.free_bytes > 0));
        let cell = CellId { blob, shard: 1, window: 0 };
        let refused = append_cell(&world, &store, disks_of[1], profile, 100_000, cell).await;
        assert_eq!(refused, Err(AppendError::Device(DeviceError::Io(30))));
        let fresh = store.new_blob();
        spread(&world, &store, &[disks_of[0], disks_of[2], disks_of[0]], profile, fresh, 100_000).await.unwrap();
        assert_eq!(store.flush(&[disks_of[0], disks_of[2]]).await, Ok(()));
    });
    assert_eq!(check_all(&node, 1, profile, before, 700_000)[..3], [Ok(all[0]), Ok(all[1]), Ok(all[2])]);
    disks.all[1].1.set_gone(true);
    let lost = CellId { blob: before, shard: 1, window: 0 };
    let gone = CellError::Device { cell: lost, disk: all[1], source: DeviceError::Gone };
    assert_eq!(check_all(&node, 1, profile, before, 700_000)[..3], [Ok(all[0]), Err(gone), Ok(all[2])]);
}

/// Looked at without a node, a disk says which shards it has, and names the bad cell by its shard.
#[test]
fn a_disk_that_is_looked_at_names_its_shards() {
    let mut disks = Disks::new(8, 3, CAPACITY);
    let all = ids(&disks);
    let node = disks.start(1);
    let profile = profile("2+1");
    let blob = put(&node, &all, profile, 1_000_000);
    node.close();
    let bad = CellId { blob, shard: 1, window: 1 };
    let (at, header) = record_of(&disks.all[1].1, bad);
    disks.all[1].1.flip_bit(at + 5_000, 3);
    let life = disks.sim.start(1);
    for ((_, disk), shard) in disks.all.iter().zip(0..) {
        let device = disk.open(&life.world(0));
        let (cells, named) = life.block_on(0, move |world| async move {
            let inspection = Inspection::open(&world, &device).await.unwrap();
            let mut cells = BTreeMap::new();
            let mut named = Vec::new();
            for extent in 0..inspection.identity().extents_prepared {
                let verdict = inspection.verify(extent).await.unwrap();
                cells.extend(verdict.report.cells);
                named.extend(verdict.bad.into_iter().chain(verdict.doubtful).map(|bad| bad.subject));
            }
            (cells, named)
        });
        assert_eq!(cells, BTreeMap::from([((profile, shard), 2)]));
        assert_eq!(named, if shard == 1 { vec![header.subject] } else { vec![] });
    }
}

/// Cut at any moment, on disks that keep, drop or tear what no flush covered: of what was acknowledged every cell is there
/// at the next start, and nothing is ever another one's bytes.
#[test]
fn acknowledged_cells_survive_crashes() {
    type Known = Rc<RefCell<BTreeMap<BlobId, (Profile, u64, bool)>>>;
    let mut checked = 0;
    for seed in 0..25 {
        let mut disks = Disks::new(1_000 + seed, 4, CAPACITY);
        let all = ids(&disks);
        let mut random = Random::new(seed);
        let known = Known::default();
        for _ in 0..3 {
            let cores = random.between(1, 3) as u16;
            let wanted: Vec<_> =
                known.borrow().iter().map(|(blob, (profile, length, _))| (*blob, *profile, *length)).collect();
            let node = disks.try_start_asking(cores, &wanted).unwrap();
            for (blob, profile, length) in wanted {
                let acknowledged = known.borrow()[&blob].2;
                assert!(!acknowledged || node.held.contains(&blob), "seed {seed}: {blob} was acknowledged");
                let found = check_all(&node, random.below(cores.into()) as u16, profile, blob, length);
                checked += found.len();
                assert!(!acknowledged || found.iter().all(Result::is_ok), "seed {seed}, {blob}: {found:?}");
                if !node.held.contains(&blob) {
                    // It may never come back.
                    known.borrow_mut().remove(&blob);
                } else if found.iter().all(Result::is_ok) {
                    // The start has made it durable.
                    known.borrow_mut().get_mut(&blob).unwrap().2 = true;
                }
            }
            for client in 0..4 {
                let core = client % cores;
                let (store, known, all) = (node.stores[usize::from(core)].clone(), Rc::clone(&known), all.clone());
                let mut random = Random::new(random.next());
                let _ = node.life.spawn(core, move |world| async move {
                    loop {
                        let length =
                            if random.one_in(3) { random.between(1, 9_000) } else { random.between(1, 900_000) };
                        let asked = ["2+1", "2+2", "1+1", "1+3"][random.index(4)];
                        let profile = stored_as(profile(asked), length);
                        let blob = store.new_blob();
                        let mut disks = all.clone();
                        disks.rotate_left(random.index(4));
                        known.borrow_mut().insert(blob, (profile, length, false));
                        if spread(&world, &store, &disks, profile, blob, length).await.is_ok()
                            && store.flush(&disks[..usize::from(profile.shards())]).await.is_ok()
                        {
                            known.borrow_mut().get_mut(&blob).unwrap().2 = true;
                        } else {
                            world.sleep(std::time::Duration::from_millis(10)).await;
                        }
                    }
                });
            }
            node.life.run_for(std::time::Duration::from_micros(random.between(200, 30_000)));
            if random.one_in(2) { node.power_cut() } else { node.kill() }
        }
    }
    assert!(checked > 1_000, "only {checked} cells were checked");
}

/// Whatever is deleted, its space comes back on every disk, and what is moved meanwhile is still read.
#[test]
fn the_cells_that_stay_survive_reclaim() {
    let mut disks = Disks::new(7, 3, CAPACITY / 4);
    let all = ids(&disks);
    let node = disks.start(2);
    for store in &node.stores {
        store.start_reclaim(anvil_store::ReclaimOptions::default());
    }
    let profile = profile("2+1");
    let mut kept = Vec::new();
    for round in 0..60 {
        // Of which an extent holds two.
        let length = 1_000_000;
        let blob = put(&node, &all, profile, length);
        if round % 8 == 0 {
            kept.push((blob, length));
        } else {
            let store = node.stores[0].clone();
            node.life.block_on(0, move |_| async move { store.release(blob) });
        }
        // Each disk would be full after 30 of them without reclaim; let it come by.
        node.life.run_for(std::time::Duration::from_millis(500));
    }
    node.life.run_for(std::time::Duration::from_secs(60));
    let moved: u64 = node
        .stores
        .iter()
        .flat_map(|store| store.stats().disks)
        .filter_map(|disk| disk.space)
        .map(|space| space.reclaimed.moved_records)
        .sum();
    assert!(moved > 0, "something was moved");
    let gone: usize = node.life.block_on(0, {
        let store = node.stores[0].clone();
        move |_| async move { store.gone(1000).len() }
    });
    assert!(gone > 20, "{gone} blobs are gone");
    for &(blob, length) in &kept {
        assert!(check_all(&node, 1, profile, blob, length).iter().all(Result::is_ok));
    }
    node.power_cut();
    let node = disks.start(1);
    for (blob, length) in kept {
        assert!(check_all(&node, 0, profile, blob, length).iter().all(Result::is_ok));
    }
}
