//! Disks of every released version of the format still open. `tests/data/v1/disk.txt` is one of version 1, `shards.txt` one
//! with the feature *shards*, in units of 4096 bytes that are not zero, as `<unit>+<count> <bytes>`: so many equal units from this one on. Bytes are in hex, a
//! run of equal ones as `<count>*<byte>`, and zeros at the end of a unit are left out.

use std::fmt::Write;
use std::rc::Rc;

use anvil_model::format::{FORMAT_VERSION, UNIT_BYTES};
use anvil_model::geometry::{cell_bytes, is_packed, window_count, window_length, window_start};
use anvil_model::ids::{BlobId, DiskId, Incarnation, NodeId};
use anvil_model::io::{Reserve, World};
use anvil_model::limits::{RECORD_HEADER_BYTES_MAX, RECORD_PAYLOAD_BYTES_MAX};
use anvil_model::profile::Profile;
use anvil_sim::SimDisk;
use anvil_store::{Cell, SmallCopy};

use crate::harness::{Disks, MIB, Node, origin};

const IMAGE: &str = include_str!("../data/v1/disk.txt");
/// The blobs on it: sequence, length, and the byte that fills it. The last one has two windows in two extents.
const BLOBS: [(u64, usize, u8); 5] =
    [(0, 1, 0x11), (1, 100, 0x22), (2, 5000, 0x33), (3, 70_000, 0x44), (4, 1_500_000, 0x55)];
const BATCHES: u64 = 5;

const SHARDS_IMAGE: &str = include_str!("../data/v1/shards.txt");
/// The blobs on that one, with all their shards: profile and length. What fills a cell, its shard and window say.
const SPREAD: [(Profile, usize); 3] = [
    (Profile { data: 1, parity: 2 }, 3_000),
    (Profile { data: 2, parity: 1 }, 1_000_001),
    (Profile { data: 16, parity: 4 }, 100_000),
];

fn fill(shard: u8, window: u32) -> u8 {
    0x80 | shard << 2 | window as u8
}

fn batch(number: u64) -> Vec<u8> {
    vec![number as u8; 10 * number as usize]
}

#[test]
fn a_disk_of_version_1_opens() {
    for cores in [1, 3] {
        let mut disks = Disks::new(1, 1, 64 * MIB);
        put_image(disks.disk(), IMAGE);
        let node = disks.start(cores);
        assert_eq!((node.report.records, node.report.records_damaged), (6 + BATCHES, 0), "{:?}", node.report);
        assert!(node.report.extents > node.report.extents_scanned, "a footer of version 1 is there and is read");
        let log = node.log.clone().unwrap();
        assert_eq!(log.len() as u64, BATCHES);
        for (record, number) in log.iter().zip(1..) {
            assert_eq!((record.number, &record.payload), (number, &batch(number)));
        }
        for (sequence, length, fill) in BLOBS {
            let store = node.stores[0].clone();
            let blob = BlobId { node: NodeId(1), incarnation: Incarnation(1), sequence };
            node.life.block_on(0, move |_| async move {
                let mut at = 0;
                while at < length {
                    let piece = store.read(blob, at as u64..length as u64).await.unwrap();
                    let bytes = &piece.buffer[piece.range];
                    assert!(bytes.iter().all(|&byte| byte == fill), "blob {blob}");
                    at += bytes.len();
                }
                assert!(store.read(blob, length as u64..length as u64 + 1).await.is_err(), "it ends where it ended");
            });
        }
    }
}

/// What this program writes is what the image says, as long as the version is the same. With `ANVIL_STORE_IMAGE` set to
/// a path, the image is written there, which is how a new version's is made.
#[test]
fn version_1_is_written_as_ever() {
    let mut disks = Disks::new(1, 1, 64 * MIB);
    let mut node = disks.start(1);
    let store = node.stores[0].clone();
    let writer = node.log_writer(0);
    node.life.block_on(0, move |world| async move {
        for (sequence, length, fill) in BLOBS {
            let blob = store.new_blob();
            assert_eq!(blob.sequence, sequence);
            if length <= 65_536 {
                let payload = Rc::new(vec![fill; length]);
                let copy = SmallCopy { blob, profile: Profile::SINGLE, shard: 0, payload, encryption: None };
                store.append_small(DiskId(1), Some(&origin(blob)), copy).await.unwrap();
                continue;
            }
            for (window, offset) in (0..).zip((0..length).step_by(RECORD_PAYLOAD_BYTES_MAX)) {
                let mut buffer = world.buffer(Reserve::Foreground).await;
                let part = (length - offset).min(RECORD_PAYLOAD_BYTES_MAX);
                buffer[RECORD_HEADER_BYTES_MAX..][..part].fill(fill);
                let cell = Cell {
                    blob,
                    profile: Profile::SINGLE,
                    shard: 0,
                    window,
                    window_length: part,
                    encryption: None,
                    buffer,
                };
                store.append(DiskId(1), (offset == 0).then(|| origin(blob)).as_ref(), cell).await.unwrap();
            }
        }
        store.flush(&[DiskId(1)]).await.unwrap();
    });
    let store = node.stores[0].clone();
    node.life.block_on(0, move |_| async move {
        let mut writer = writer;
        for number in 1..=BATCHES {
            writer.append(number, &batch(number)).await.unwrap();
            store.flush(writer.disks()).await.unwrap();
        }
    });
    end_as_ever(node);
    let image = take_image(disks.disk());
    if let Some(path) = std::env::var_os("ANVIL_STORE_IMAGE") {
        std::fs::write(path, &image).unwrap();
    }
    assert_eq!(FORMAT_VERSION, 1, "a new version has an image of its own, and this one stays");
    let again = Disks::new(2, 1, 64 * MIB);
    put_image(again.disk(), &image);
    assert_eq!(take_image(again.disk()), image, "an image is taken and put without loss");
    assert_eq!(units(&image), units(IMAGE));
}

#[test]
fn a_disk_with_shards_opens() {
    let mut disks = Disks::new(1, 1, 64 * MIB);
    put_image(disks.disk(), SHARDS_IMAGE);
    let wanted: Vec<_> = (0..)
        .zip(SPREAD)
        .map(|(sequence, (profile, length))| (spread_blob(sequence), profile, length as u64))
        .collect();
    let node = disks.try_start_asking(2, &wanted).unwrap();
    assert_eq!((node.report.records, node.report.records_damaged, node.held.len()), (3 + 6 + 20, 0, 3));
    let store = node.stores[0].clone();
    node.life.block_on(0, move |world| async move {
        for (blob, profile, length) in wanted {
            for window in 0..window_count(profile, length) {
                let located = store.locate(blob, window_start(profile, window)).await.unwrap().unwrap();
                let bytes = cell_bytes(profile, window_length(profile, length, window));
                assert_eq!((located.profile, located.cells.len()), (profile, profile.shards().into()));
                for shard in 0..profile.shards() {
                    let buffer = world.buffer(Reserve::Foreground).await;
                    let (read, buffer) = store.read_cell(&located, shard, 0..bytes, buffer).await;
                    assert!(buffer[read.unwrap().range].iter().all(|&byte| byte == fill(shard, window)), "{blob}");
                }
            }
        }
    });
}

/// As for version 1; the variable is `ANVIL_STORE_SHARDS_IMAGE`.
#[test]
fn shards_are_written_as_ever() {
    let mut disks = Disks::new(1, 1, 64 * MIB);
    let node = disks.start(1);
    let store = node.stores[0].clone();
    node.life.block_on(0, move |world| async move {
        for (sequence, (profile, length)) in (0..).zip(SPREAD) {
            let blob = store.new_blob();
            assert_eq!(blob, spread_blob(sequence));
            let length = length as u64;
            for window in 0..window_count(profile, length) {
                let window_length = window_length(profile, length, window);
                for shard in 0..profile.shards() {
                    let bytes = cell_bytes(profile, window_length);
                    if is_packed(profile, length) {
                        let payload = Rc::new(vec![fill(shard, window); bytes]);
                        let copy = SmallCopy { blob, profile, shard, payload, encryption: None };
                        store.append_small(DiskId(1), Some(&origin(blob)), copy).await.unwrap();
                        continue;
                    }
                    let mut buffer = world.buffer(Reserve::Foreground).await;
                    buffer[RECORD_HEADER_BYTES_MAX..][..bytes].fill(fill(shard, window));
                    let cell = Cell { blob, profile, shard, window, window_length, encryption: None, buffer };
                    store.append(DiskId(1), (window == 0).then(|| origin(blob)).as_ref(), cell).await.unwrap();
                }
            }
        }
        store.flush(&[DiskId(1)]).await.unwrap();
    });
    end_as_ever(node);
    let image = take_image(disks.disk());
    if let Some(path) = std::env::var_os("ANVIL_STORE_SHARDS_IMAGE") {
        std::fs::write(path, &image).unwrap();
    }
    assert_eq!(units(&image), units(SHARDS_IMAGE));
}

fn spread_blob(sequence: u64) -> BlobId {
    BlobId { node: NodeId(1), incarnation: Incarnation(1), sequence }
}

/// Without the footers that extents which are open get at an orderly stop: the images are older.
fn end_as_ever(node: Node) {
    node.life.run_for(std::time::Duration::from_secs(5));
    node.kill();
}

/// Which units of an image are not zero: what is drawn by chance differs, where things lie does not.
fn units(image: &str) -> Vec<String> {
    image.lines().map(|line| line.split('+').next().unwrap_or_default().to_owned()).collect()
}

fn take_image(disk: &SimDisk) -> String {
    let mut image = String::new();
    let units = disk.size_bytes() / UNIT_BYTES as u64;
    let mut unit = 0;
    while unit < units {
        let begin = unit;
        let bytes = disk.bytes(unit * UNIT_BYTES as u64, UNIT_BYTES);
        while unit < units && disk.bytes(unit * UNIT_BYTES as u64, UNIT_BYTES) == bytes {
            unit += 1;
        }
        let Some(last) = bytes.iter().rposition(|&byte| byte != 0) else { continue };
        write!(image, "{begin}+{}", unit - begin).unwrap();
        let mut short = false;
        for run in bytes[..=last].chunk_by(|left, right| left == right) {
            if run.len() >= 4 {
                write!(image, " {}*{:02x}", run.len(), run[0]).unwrap();
                short = false;
                continue;
            }
            let hex: String = run.iter().map(|byte| format!("{byte:02x}")).collect();
            image.push_str(if short { "" } else { " " });
            image.push_str(&hex);
            short = true;
        }
        image.push('\n');
    }
    image
}

fn put_image(disk: &SimDisk, image: &str) {
    let byte = |hex: &str| u8::from_str_radix(hex, 16).unwrap();
    // The whole of the smallest prepared disk, so that zeros in it are there too.
    let size = disk.size_bytes().max(16 * MIB);
    disk.overwrite(size - 1, &[0]);
    for line in image.lines() {
        let mut words = line.split(' ');
        let (unit, count) = words.next().unwrap().split_once('+').unwrap();
        let mut bytes = Vec::new();
        for word in words {
            match word.split_once('*') {
                Some((count, fill)) => bytes.resize(bytes.len() + count.parse::<usize>().unwrap(), byte(fill)),
                None => bytes.extend((0..word.len()).step_by(2).map(|at| byte(&word[at..at + 2]))),
            }
        }
        bytes.resize(UNIT_BYTES, 0);
        let unit: u64 = unit.parse().unwrap();
        disk.overwrite(unit * UNIT_BYTES as u64, &bytes.repeat(count.parse().unwrap()));
    }
}
