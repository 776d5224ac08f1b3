//! Goal: what a record says of its encryption goes where the record goes, and the keys are wherever such a record is.
//! Method: the store alone, which knows no key: the bytes are any bytes, and so is what is said of them.

use std::rc::Rc;
use std::time::Duration;

use anvil_model::format::{
    Encryption, FEATURE_ENCRYPTED, KeyRing, RecordHeader, Roster, SALT_BYTES, Superblock, TAG_BYTES, UNIT_BYTES,
    WrappedKey,
};
use anvil_model::geometry::{cell_bytes, frames, is_packed, window_count, window_length, window_start};
use anvil_model::ids::{BlobId, DiskId, KeyId};
use anvil_model::io::{Reserve, World};
use anvil_model::limits::RECORD_HEADER_BYTES_MAX;
use anvil_model::profile::Profile;
use anvil_sim::{SimDisk, SimWorld};
use anvil_store::{AppendError, Cell, JoinError, ReclaimOptions, SmallCopy, Store};

use crate::harness::{Disks, MIB, Node, origin};

const PROFILES: [&str; 3] = ["1+0", "1+2", "2+1"];

fn key(id: u64, generation: u32) -> WrappedKey {
    WrappedKey { id: KeyId(id), generation, secret_name: [0; 16], nonce: [1; 12], wrapped: [generation as u8; 48] }
}

fn ring(keys: &[WrappedKey]) -> KeyRing {
    let mut ring = KeyRing::default();
    keys.iter().for_each(|key| ring.insert(*key).unwrap());
    ring
}

fn superblock(disk: &SimDisk) -> Superblock {
    Superblock::decode(&disk.bytes(0, UNIT_BYTES)).unwrap()
}

fn encryption_of(blob: BlobId, profile: Profile, window: u32, cell_bytes: usize) -> Encryption {
    let tags = (0..frames(profile, cell_bytes)).map(|frame| [frame as u8 ^ window as u8; TAG_BYTES]).collect();
    Encryption { key: KeyId(7), salt: [blob.sequence as u8; SALT_BYTES], tags }
}

fn fill(blob: BlobId, shard: u8) -> u8 {
    blob.sequence as u8 ^ shard << 6 | 1
}

async fn write(
    world: &SimWorld,
    store: &Store<SimWorld>,
    disks: &[DiskId],
    profile: Profile,
    length: u64,
) -> Result<BlobId, AppendError> {
    let blob = store.new_blob();
    let origin = origin(blob);
    for window in 0..window_count(profile, length) {
        let window_length = window_length(profile, length, window);
        let bytes = cell_bytes(profile, window_length);
        let encryption = Some(Rc::new(encryption_of(blob, profile, window, bytes)));
        for (shard, &disk) in (0..profile.shards()).zip(disks) {
            let encryption = encryption.clone();
            if is_packed(profile, length) {
                let payload = Rc::new(vec![fill(blob, shard); bytes]);
                let copy = SmallCopy { blob, profile, shard, payload, encryption };
                store.append_small(disk, Some(&origin), copy).await?;
                continue;
            }
            let mut buffer = world.buffer(Reserve::Foreground).await;
            buffer[RECORD_HEADER_BYTES_MAX..][..bytes].fill(fill(blob, shard));
            let cell = Cell { blob, profile, shard, window, window_length, encryption, buffer };
            store.append(disk, (window == 0).then_some(&origin), cell).await?;
        }
    }
    store.flush(disks).await?;
    Ok(blob)
}

fn put(node: &Node, disks: &Disks, profile: Profile, length: u64) -> BlobId {
    let (store, ids) = (node.stores[0].clone(), ids(disks));
    node.life.block_on(0, async move |world| write(&world, &store, &ids, profile, length).await.unwrap())
}

fn ids(disks: &Disks) -> Vec<DiskId> {
    disks.all.iter().map(|(id, _)| *id).collect()
}

/// Every cell is there and says of itself what was said of it.
fn check(node: &Node, core: u16, profile: Profile, blob: BlobId, length: u64) {
    let store = node.stores[usize::from(core)].clone();
    node.life.block_on(core, async move |world| {
        for window in 0..window_count(profile, length) {
            let located = store.locate(blob, window_start(profile, window)).await.unwrap().unwrap();
            let bytes = cell_bytes(profile, window_length(profile, length, window));
            for shard in 0..profile.shards() {
                let buffer = world.buffer(Reserve::Foreground).await;
                let (read, buffer) = store.read_cell(&located, shard, bytes / 2..bytes, buffer).await;
                let read = read.unwrap();
                assert!(buffer[read.range].iter().all(|&byte| byte == fill(blob, shard)), "{blob} of {profile}");
                assert_eq!(read.encryption, Some(encryption_of(blob, profile, window, bytes)), "{blob} of {profile}");
            }
        }
    });
}

/// Through restarts with footers and without, and through reclaim, which moves records.
#[test]
fn a_record_keeps_what_it_says() {
    let mut moved = 0;
    for length in [3_000, 60_000, 1_500_000] {
        let mut disks = Disks::new(1, 3, 64 * MIB);
        disks.keys = ring(&[key(7, 1)]);
        let node = disks.start(1);
        let mut kept = Vec::new();
        // Enough of them to fill extents, and few enough that are kept for a move to pay.
        for number in 0..24 * 1_500_000 / length.max(12_000) {
            let profile: Profile = PROFILES[number as usize % 3].parse().unwrap();
            let blob = put(&node, &disks, profile, length);
            if number % 8 == 7 {
                kept.push((blob, profile));
            } else {
                node.stores[0].release(blob);
            }
        }
        kept.iter().for_each(|&(blob, profile)| check(&node, 0, profile, blob, length));
        node.power_cut();
        let node = disks.start(2);
        kept.iter().for_each(|&(blob, profile)| check(&node, 1, profile, blob, length));
        node.close();

        let node = disks.start(1);
        let known = node.stores[0].blobs(None, usize::MAX);
        let is_kept = |blob: BlobId| kept.iter().any(|&(kept, _)| kept == blob);
        known.iter().filter(|known| !is_kept(known.blob)).for_each(|known| node.stores[0].release(known.blob));
        node.stores[0].start_reclaim(ReclaimOptions::default());
        node.life.run_for(Duration::from_secs(60));
        let spaces = node.stores[0].stats().disks.into_iter().filter_map(|disk| disk.space);
        moved += spaces.map(|space| space.reclaimed.moved_records).sum::<u64>();
        kept.iter().for_each(|&(blob, profile)| check(&node, 0, profile, blob, length));
        node.power_cut();
        let node = disks.start(1);
        kept.iter().for_each(|&(blob, profile)| check(&node, 0, profile, blob, length));
    }
    assert!(moved > 0, "nothing was moved");
}

/// The keys are on a disk before the first encrypted record is, whatever the crash leaves; and not before anybody has one:
/// a node that does not encrypt can go back to an older program.
#[test]
fn a_disk_keeps_the_keys_of_what_it_holds() {
    let mut with_records = 0;
    for seed in 0..40 {
        let mut disks = Disks::new(seed, 3, 64 * MIB);
        disks.start(2).close();
        assert!(disks.all.iter().all(|(_, disk)| superblock(disk).features_incompatible & FEATURE_ENCRYPTED == 0));
        disks.keys = ring(&[key(7, 1)]);
        let node = disks.start(2);
        for core in [0, 1] {
            let (store, all) = (node.stores[core].clone(), ids(&disks));
            let (text, length) = if seed % 2 == 0 { ("2+1", 100_000) } else { ("1+2", 3_000) };
            let profile = text.parse().unwrap();
            let _ = node.life.spawn(core as u16, move |world| async move {
                let _ = write(&world, &store, &all, profile, length).await;
            });
        }
        node.life.run_for(Duration::from_micros(150 * (seed + 1)));
        node.power_cut();
        for (_, disk) in &disks.all {
            let image = disk.bytes(0, usize::try_from(disk.size_bytes()).unwrap());
            let encrypted = image.chunks_exact(8).zip((0..).step_by(8)).any(|(word, at)| {
                word.starts_with(b"AnvR")
                    && RecordHeader::decode(&image[at..(at + UNIT_BYTES).min(image.len())])
                        .is_ok_and(|header| header.is_encrypted())
            });
            with_records += usize::from(encrypted);
            let superblock = superblock(disk);
            let keeps = superblock.features_incompatible & FEATURE_ENCRYPTED != 0 && superblock.keys == disks.keys;
            assert!(!encrypted || keeps, "seed {seed}: {superblock:?}");
        }
    }
    assert!(with_records > 20, "{with_records} disks had encrypted records");
}

/// What one disk missed, because it was not there, it hears from the others at the next start; of two wrappings the later one.
#[test]
fn disks_hear_of_keys_from_each_other() {
    let mut disks = Disks::new(5, 3, 64 * MIB);
    disks.keys = ring(&[key(7, 1)]);
    let node = disks.start(1);
    node.life.run_for(Duration::from_secs(1));
    node.close();
    assert!(disks.all.iter().all(|(_, disk)| superblock(disk).keys == disks.keys), "all disks, without any write");

    let away = disks.all.pop().unwrap();
    disks.keys = ring(&[key(7, 2), key(9, 1)]);
    let node = disks.start(1);
    node.life.run_for(Duration::from_secs(1));
    node.close();
    disks.all.insert(0, away);
    disks.keys = KeyRing::default();
    let expected = ring(&[key(7, 2), key(9, 1)]);
    disks.start(2).power_cut();
    assert!(disks.all.iter().all(|(_, disk)| superblock(disk).keys == expected));
}

fn join(node: &Node, (id, disk): &(DiskId, SimDisk)) -> Result<(), JoinError> {
    let (store, id, disk) = (node.stores[0].clone(), *id, disk.clone());
    node.life.block_on(0, move |world| async move {
        let device = disk.open(&world);
        let mut joining = store.prepare_disk(id, &device, Roster::default()).await?;
        store.add_disk(device, joining.pop().unwrap());
        store.enter_disk(id).await;
        store.open_disk(id);
        Ok(())
    })
}

/// A disk that joins keeps the keys at once, in case it is the only one that is left.
#[test]
fn a_disk_that_joins_is_given_the_keys() {
    let mut disks = Disks::new(6, 3, 64 * MIB);
    let new = disks.all.pop().unwrap();
    disks.keys = ring(&[key(7, 1)]);
    let node = disks.start(1);
    assert!(superblock(&new.1).keys.is_empty());
    join(&node, &new).unwrap();
    node.life.run_for(Duration::from_secs(1));
    assert_eq!(superblock(&new.1).keys, disks.keys);
    node.close();
    disks.all = vec![new];
    disks.keys = KeyRing::default();
    let node = disks.start(1);
    assert_eq!(node.keys, ring(&[key(7, 1)]));
    node.power_cut();
}

/// What is on a disk with another key could not be read by the node that runs: it is told so, and the disk is left alone.
#[test]
fn a_disk_with_another_key_does_not_join() {
    let mut disks = Disks::new(7, 2, 64 * MIB);
    disks.start(1).close();
    let away = disks.all.pop().unwrap();
    let others = std::mem::replace(&mut disks.all, vec![away]);
    disks.keys = ring(&[key(7, 1)]);
    let node = disks.start(1);
    node.life.run_for(Duration::from_secs(1));
    node.close();
    let away = std::mem::replace(&mut disks.all, others).pop().unwrap();
    let before = superblock(&away.1);
    assert!(!before.keys.is_empty());

    disks.keys = KeyRing::default();
    disks.start(1).close();
    let node = disks.start(1);
    assert_eq!(join(&node, &away), Err(JoinError::OtherKey { disk: away.0, key: KeyId(7) }));
    assert_eq!(superblock(&away.1), before);
    node.power_cut();
}
