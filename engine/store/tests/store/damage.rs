//! Bytes that go wrong: whatever it is, it is detected and named, the rest is there, and nothing is ever wrong.

use anvil_model::format::{
    EXTENTS_OFFSET, ExtentHeader, FooterTrailer, RecordHeader, SUPERBLOCK_OFFSETS, Subject, UNIT_BYTES, extent_offset,
};
use anvil_model::ids::BlobId;
use anvil_model::io::{DeviceError, World};
use anvil_model::profile::Profile;
use anvil_sim::{Faults, Operation, Random, SimDisk};
use anvil_store::{AppendError, ReadError, RecoverError, extent_bytes};

use crate::harness::{Disks, MIB, Node, check, write};

const CAPACITY: u64 = 64 * MIB;

/// Blobs of all kinds with their lengths, durable on one disk.
fn filled(seed: u64) -> (Disks, Vec<(BlobId, usize)>) {
    let mut disks = Disks::new(seed, 1, CAPACITY);
    let node = disks.start(2);
    let lengths = [100, 70_000, 3000, 2_200_000, 65_536, 20, 1_048_576, 5000, 900_000, 40_000];
    let blobs = lengths.iter().zip(0..).map(|(&length, at)| (node.put(at % 2, length), length)).collect();
    // Footers are under way: let them end.
    node.life.run_for(std::time::Duration::from_secs(5));
    // Not in order: extents that are open stay without.
    node.kill();
    (disks, blobs)
}

/// How many of them read back; the others must fail by name.
fn readable(node: &Node, blobs: &[(BlobId, usize)]) -> usize {
    let read = |&&(blob, length): &&(BlobId, usize)| match node.get(0, blob, length) {
        Ok(()) => true,
        Err(ReadError::Missing(named) | ReadError::Corrupt(named)) => {
            assert_eq!(named, blob);
            false
        }
        Err(error) => panic!("{error}"),
    };
    blobs.iter().filter(read).count()
}

/// All units that hold something: where, and what is in them.
fn used_units(disk: &SimDisk) -> Vec<(u64, Vec<u8>)> {
    let units = (0..disk.size_bytes() / UNIT_BYTES as u64).map(|unit| unit * UNIT_BYTES as u64);
    let with_bytes = units.map(|at| (at, disk.bytes(at, UNIT_BYTES)));
    with_bytes.filter(|(_, bytes)| bytes.iter().any(|&byte| byte != 0)).collect()
}

/// True for units behind the superblocks that are no footer: these hold few entries here, and one that a crash tore is
/// written again.
fn is_for_records(at: u64) -> bool {
    let extent_bytes = extent_bytes(CAPACITY);
    at >= EXTENTS_OFFSET && (at - EXTENTS_OFFSET) % extent_bytes != extent_bytes - UNIT_BYTES as u64
}

/// One bit of one unit, while the node runs: at most the record that it lies in is lost, and only as corrupt.
#[test]
fn a_flipped_bit_costs_one_blob_at_most_and_is_named() {
    let (mut disks, blobs) = filled(1);
    let mut random = Random::new(5);
    let units = used_units(disks.disk());
    for _ in 0..60 {
        let (at, bytes) = &units[random.index(units.len())];
        let set: Vec<_> = (0..UNIT_BYTES).filter(|&at| bytes[at] != 0).collect();
        let (offset, bit) = (at + set[random.index(set.len())] as u64, random.below(8) as u8);
        let running = disks.start(1);
        disks.disk().flip_bit(offset, bit);
        assert!(readable(&running, &blobs) + 1 >= blobs.len(), "a flip at {offset} while running");
        running.power_cut();
        // And found at the next start, which must not fail because of it.
        let node = disks.start(1);
        assert!(readable(&node, &blobs) + 1 >= blobs.len(), "a flip at {offset} before a start");
        // What is written now goes nowhere near what is damaged.
        let fresh = node.put(0, 3_000);
        assert_eq!(node.get(0, fresh, 3_000), Ok(()));
        node.power_cut();
        disks.disk().flip_bit(offset, bit);
        // A start rewrites the superblocks, so that there the flip back is a flip: which the other copy outlives.
        let node = disks.start(2);
        assert_eq!(readable(&node, &blobs), blobs.len(), "all is whole again after the flip at {offset}");
        assert_eq!(node.get(1, fresh, 3_000), Ok(()));
        node.power_cut();
    }
}

/// Each unit in turn is lost to zeros, to garbage, or to what belongs elsewhere.
#[test]
fn a_unit_with_other_bytes_is_never_taken_for_right() {
    let (mut disks, blobs) = filled(2);
    let units = used_units(disks.disk());
    let mut random = Random::new(6);
    for round in 0..60 {
        let (at, bytes) = &units[random.index(units.len())];
        let other = match round % 3 {
            0 => vec![0; UNIT_BYTES],
            1 => (0..UNIT_BYTES).map(|_| random.next() as u8).collect(),
            // A write that went to the wrong place, whole.
            _ => units[random.index(units.len())].1.clone(),
        };
        disks.disk().overwrite(*at, &other);
        let node = disks.start(1);
        let left = readable(&node, &blobs);
        // A unit of a pack may hold a few small blobs.
        assert!(left + 5 >= blobs.len(), "round {round}: {left} of {} are left", blobs.len());
        node.power_cut();
        disks.disk().overwrite(*at, bytes);
    }
    let node = disks.start(1);
    assert_eq!(readable(&node, &blobs), blobs.len(), "nothing was overwritten meanwhile");
}

/// A whole record, header and payload, in the place of another one of the same size: right in itself, and not the blob
/// that was asked for. While the node runs, and at its next start.
#[test]
fn a_whole_record_in_the_wrong_place_is_not_the_blob() {
    for length in [3_000, 300_000] {
        let mut disks = Disks::new(12, 1, CAPACITY);
        let node = disks.start(1);
        let (first, second) = (node.put(0, length), node.put(0, length));
        let record_of = |blob: BlobId| {
            let subject = Subject::Blob { blob, profile: Profile::SINGLE, shard: 0, window: 0 };
            let units = used_units(disks.disk()).into_iter();
            let mut records = units.filter_map(|(at, unit)| Some((at, RecordHeader::decode(&unit).ok()?)));
            let (at, header) = records.find(|(_, header)| header.subject == subject).unwrap();
            (at, disks.disk().bytes(at, header.record_bytes()))
        };
        let ((from, _), (_, other)) = (record_of(first), record_of(second));
        disks.disk().overwrite(from, &other);
        assert_eq!(node.get(0, first, length), Err(ReadError::Corrupt(first)));
        assert_eq!(node.get(0, second, length), Ok(()));
        node.power_cut();
        let node = disks.start(1);
        assert_eq!(node.get(0, first, length), Err(ReadError::Missing(first)));
        assert_eq!(node.get(0, second, length), Ok(()));
    }
}

#[test]
fn either_superblock_may_be_lost_and_both_may_not() {
    let (mut disks, blobs) = filled(3);
    for lost in SUPERBLOCK_OFFSETS {
        disks.disk().overwrite(lost, &[0; UNIT_BYTES]);
        let node = disks.start(1);
        assert_eq!(readable(&node, &blobs), blobs.len());
        node.close();
        assert!(disks.disk().bytes(lost, UNIT_BYTES).iter().any(|&byte| byte != 0), "the copy is written again");
    }
    for lost in SUPERBLOCK_OFFSETS {
        disks.disk().overwrite(lost + 60, &[0xaa; 8]);
    }
    let refused = disks.try_start(1, &[]).map(|_| ());
    assert!(matches!(refused, Err(RecoverError::Identify { .. })), "{refused:?}");
}

/// An old copy of the superblock that comes back does not know of all extents that are in use.
#[test]
fn the_superblock_that_is_older_does_not_count() {
    let mut disks = Disks::new(4, 1, CAPACITY);
    let old = disks.disk().bytes(0, UNIT_BYTES);
    let node = disks.start(1);
    let blob = node.put(0, 3_000_000);
    node.close();
    disks.disk().overwrite(0, &old);
    assert_eq!(disks.start(1).get(0, blob, 3_000_000), Ok(()));
}

/// Sealed extents without their footers, headers lost, and both: everything is found by its records.
#[test]
fn footers_and_headers_may_be_lost() {
    for (headers, footers) in [(false, true), (true, false), (true, true)] {
        let (mut disks, blobs) = filled(5);
        let bytes = extent_bytes(CAPACITY) as u32;
        let (mut lost_headers, mut lost_footers) = (0, 0);
        for extent in 0..8 {
            let start = extent_offset(extent, bytes);
            let last = start + u64::from(bytes) - UNIT_BYTES as u64;
            let in_use = ExtentHeader::decode(&disks.disk().bytes(start, UNIT_BYTES)).is_ok();
            let sealed = FooterTrailer::decode(&disks.disk().bytes(last, UNIT_BYTES)).is_ok();
            if headers && in_use {
                lost_headers += 1;
                disks.disk().overwrite(start, &[0; UNIT_BYTES]);
            }
            if footers && sealed {
                lost_footers += 1;
                disks.disk().overwrite(last, &[0; UNIT_BYTES]);
            }
        }
        assert!(!headers || lost_headers > 2, "{lost_headers} headers");
        assert!(!footers || lost_footers > 1, "{lost_footers} footers");
        let node = disks.start(3);
        assert_eq!(readable(&node, &blobs), blobs.len());
        assert_eq!(node.report.extents_rescued, lost_headers);
        node.life.run_for(std::time::Duration::from_secs(5));
        node.close();
        let node = disks.start(1);
        assert_eq!((node.report.extents_rescued, readable(&node, &blobs)), (0, blobs.len()));
    }
}

/// Records of a former life of an extent lie behind those of its present one, whole and in their places.
#[test]
fn a_former_life_of_an_extent_is_not_seen() {
    let (mut disks, blobs) = filled(6);
    let bytes = extent_bytes(CAPACITY) as u32;
    // The extent of the first small blob, put to use again under another life: only its header and first unit are new.
    let disk = disks.disk().clone();
    let mut extents = 0..8;
    let small = extents
        .find(|&extent| {
            let unit = disk.bytes(extent_offset(extent, bytes) + UNIT_BYTES as u64, UNIT_BYTES);
            RecordHeader::decode(&unit).is_ok_and(|record| record.payload_bytes == 100)
        })
        .unwrap();
    let start = extent_offset(small, bytes);
    let mut unit = disk.bytes(start, UNIT_BYTES);
    let mut header = ExtentHeader::decode(&unit).unwrap();
    header.name.incarnation ^= 1;
    header.encode(&mut unit);
    disk.overwrite(start, &unit);
    let node = disks.start(1);
    let (blob, length) = blobs[0];
    assert_eq!(node.get(0, blob, length), Err(ReadError::Missing(blob)), "a small blob of the former life");
    assert_eq!(node.report.records_damaged, 0);
    // And appends go on only where nothing was.
    let before = used_units(&disk);
    node.put(0, 100);
    node.put(0, 60_000);
    for (at, bytes) in before.iter().filter(|(at, _)| is_for_records(*at)) {
        assert!(disk.bytes(*at, UNIT_BYTES) == *bytes, "the unit at {at} was written again");
    }
}

/// No unit with a record in it is ever written again, whatever happens in between.
#[test]
fn written_units_stay_as_they_are() {
    let mut disks = Disks::new(7, 1, CAPACITY);
    let mut before: Vec<(u64, Vec<u8>)> = Vec::new();
    for life in 0..8 {
        let node = disks.start(1 + life % 3);
        for length in [100, 5_000, 70_000, 1_500_000] {
            node.put(0, length);
        }
        if life % 2 == 0 {
            node.power_cut()
        } else {
            node.close()
        }
        for (at, bytes) in &before {
            assert!(disks.disk().bytes(*at, UNIT_BYTES) == *bytes, "the unit at {at} was written again");
        }
        before = used_units(disks.disk()).into_iter().filter(|(at, _)| is_for_records(*at)).collect();
    }
}

#[test]
fn a_failed_write_fails_its_append_and_the_next_one_works() {
    let mut disks = Disks::new(8, 1, CAPACITY);
    let node = disks.start(1);
    let before = node.put(0, 1000);
    // The disk grows ahead of need; that is not the write that is to fail.
    node.life.run_for(std::time::Duration::from_secs(1));
    let store = node.stores[0].clone();
    let disk = disks.disk().clone();
    let (lost, kept) = node.life.block_on(0, move |world| async move {
        let mut blobs = [store.new_blob(), store.new_blob()];
        blobs.sort();
        let place = store.place();
        disk.fail_next(Operation::Write, DeviceError::Io(5));
        let failed = write(&world, &store, place, blobs[0], 1000).await;
        assert_eq!(failed, Err(AppendError::Device(DeviceError::Io(5))));
        write(&world, &store, place, blobs[1], 1000).await.unwrap();
        store.flush(&[place]).await.unwrap();
        (blobs[0], blobs[1])
    });
    assert_eq!(node.get(0, lost, 1000), Err(ReadError::Missing(lost)));
    assert_eq!((node.get(0, before, 1000), node.get(0, kept, 1000)), (Ok(()), Ok(())));
    node.power_cut();
    let node = disks.start(1);
    assert_eq!((node.get(0, before, 1000), node.get(0, kept, 1000)), (Ok(()), Ok(())));
}

/// A flush that fails is never followed by one that succeeds, on any core, until the next start.
#[test]
fn a_failed_flush_is_final_for_this_life() {
    let mut disks = Disks::new(9, 1, CAPACITY);
    let node = disks.start(2);
    node.put(0, 1000);
    node.life.run_for(std::time::Duration::from_secs(5));
    let place = disks.all[0].0;
    disks.disk().fail_next(Operation::Flush, DeviceError::Io(5));
    for core in [1, 0, 1] {
        let store = node.stores[usize::from(core)].clone();
        node.life.block_on(core, move |world| async move {
            assert_eq!(store.flush(&[place]).await, Err(DeviceError::Io(5)));
            let blob = store.new_blob();
            assert_eq!(write(&world, &store, place, blob, 10).await, Err(AppendError::Device(DeviceError::Io(5))));
            assert_eq!(store.stats().disks[0].failed, Some(DeviceError::Io(5)));
        });
    }
    node.close();
    let node = disks.start(1);
    assert!(!node.report.clean, "a failed disk is not closed cleanly");
    node.put(0, 1000);
}

#[test]
fn a_disk_that_goes_away_fails_everything_and_comes_back_whole() {
    let (mut disks, blobs) = filled(10);
    let node = disks.start(1);
    disks.disk().set_gone(true);
    let place = disks.all[0].0;
    let store = node.stores[0].clone();
    let (blob, length) = blobs[3];
    node.life.block_on(0, move |world| async move {
        let fresh = store.new_blob();
        let gone = Err(AppendError::Device(DeviceError::Gone));
        assert_eq!(write(&world, &store, place, fresh, 10).await, gone);
        assert_eq!(store.flush(&[place]).await, Err(DeviceError::Gone));
        let read = store.read(blob, 0..length as u64).await.map(|_| ());
        assert_eq!(read, Err(ReadError::Device(DeviceError::Gone)));
    });
    node.kill();
    disks.disk().set_gone(false);
    let node = disks.start(1);
    assert_eq!(readable(&node, &blobs), blobs.len());
}

/// Bits that are wrong only on the way are read again, by a start and by reads.
#[test]
fn a_bad_cable_costs_nothing() {
    let mut starts_with_losses = 0;
    for seed in 0..20 {
        let (mut disks, blobs) = filled(100 + seed);
        disks.disk().set_faults(Faults { read_bit_flip: 150_000, ..Faults::default() });
        let Ok(node) = disks.try_start(2, &[]) else { continue };
        disks.disk().set_faults(Faults::default());
        starts_with_losses += u32::from(readable(&node, &blobs) < blobs.len());
        node.put(0, 10_000);
        node.power_cut();
        let node = disks.start(1);
        assert_eq!(readable(&node, &blobs), blobs.len(), "seed {seed}: nothing was overwritten");
    }
    // A bit that is wrong both times is possible.
    assert!(starts_with_losses <= 1, "{starts_with_losses} of 20 starts did not find all");
}

/// A batch that failed may be on the disk, whole or not, and the one that was appended under its number counts.
#[test]
fn a_batch_that_is_appended_again_is_the_one_that_counts() {
    for seed in 0..20 {
        let mut disks = Disks::new(400 + seed, 1, CAPACITY);
        let mut node = disks.start(1);
        let mut writer = node.log_writer(0);
        let (store, disk) = (node.stores[0].clone(), disks.disk().clone());
        node.life.block_on(0, move |world| async move {
            writer.append(1, b"first").await.unwrap();
            for number in 2..5 {
                // The disk grows in the background: that is not meant to fail.
                world.sleep(std::time::Duration::from_secs(5)).await;
                disk.fail_next(Operation::Write, DeviceError::Io(5));
                let failed = writer.append(number, b"this fails").await;
                assert_eq!(failed, Err(AppendError::Device(DeviceError::Io(5))));
                writer.append(number, b"this counts").await.unwrap();
            }
            store.flush(writer.disks()).await.unwrap();
        });
        node.power_cut();
        let log = disks.start(1).log.clone().unwrap();
        let payloads: Vec<_> = log.iter().map(|record| record.payload.as_slice()).collect();
        let counts: &[u8] = b"this counts";
        assert_eq!(payloads, [b"first", counts, counts, counts], "seed {seed}");
    }
}

/// Sectors that cannot be read cost what lies in them, and the start goes on.
#[test]
fn unreadable_sectors_do_not_stop_a_start() {
    for seed in 0..10 {
        let (mut disks, blobs) = filled(200 + seed);
        disks.disk().set_faults(Faults { read_error: 20_000, ..Faults::default() });
        let node = disks.try_start(1, &[]);
        disks.disk().set_faults(Faults::default());
        if let Ok(node) = node {
            let left = readable(&node, &blobs);
            assert!(left + 3 >= blobs.len(), "seed {seed}: {left} are left");
            node.put(0, 10_000);
            node.power_cut();
        }
        assert_eq!(readable(&disks.start(1), &blobs), blobs.len(), "seed {seed}");
    }
}

/// Writes that say they succeeded and did something else: every read is right or names the blob.
#[test]
fn lying_writes_are_seen() {
    for seed in 0..30 {
        let mut disks = Disks::new(300 + seed, 1, CAPACITY);
        let node = disks.start(2);
        disks.disk().set_faults(Faults { misdirected_write: 30_000, write_bit_flip: 30_000, ..Faults::default() });
        let lengths = [100, 70_000, 3000, 1_200_000, 65_536, 20, 5000, 900_000];
        let blobs: Vec<_> =
            lengths.iter().cycle().take(24).zip(0..).map(|(&length, at)| (node.put(at % 2, length), length)).collect();
        disks.disk().set_faults(Faults::default());
        readable(&node, &blobs);
        node.power_cut();
        // Both superblocks may have been hit.
        if let Ok(node) = disks.try_start(1, &[]) {
            readable(&node, &blobs);
        }
    }
}

#[test]
fn a_shrunken_disk_is_refused() {
    let (mut disks, _) = filled(11);
    let size = disks.disk().size_bytes();
    let short = disks.sim.disk(anvil_sim::DiskOptions { capacity_bytes_max: CAPACITY, ..Default::default() });
    short.overwrite(0, &disks.disk().bytes(0, (size - MIB) as usize));
    disks.all[0].1 = short;
    let refused = disks.try_start(1, &[]).map(|_| ());
    assert!(matches!(refused, Err(RecoverError::Shrunk { .. })), "{refused:?}");
}

/// Out of use by order: what is there is read, nothing is written, and what was written before the order is durable once
/// it is back and flushed. A failure is stronger than the order.
#[test]
fn a_disk_out_of_use_is_read_and_comes_back_unless_it_failed() {
    let mut disks = Disks::new(77, 1, 64 * MIB);
    let node = disks.start(1);
    let before = node.put(0, 700_000);
    let store = node.stores[0].clone();
    let late = node.life.block_on(0, move |world| async move {
        let place = store.place();
        let late = store.new_blob();
        write(&world, &store, place, late, 200_000).await.unwrap();
        store.set_offline(place);
        let offline = DeviceError::Offline;
        assert_eq!(store.flush(&[place]).await, Err(offline));
        let refused = write(&world, &store, place, store.new_blob(), 300_000).await;
        assert_eq!(refused, Err(AppendError::Device(offline)));
        check(&store, before, 700_000).await.unwrap();
        store.set_online(place).unwrap();
        write(&world, &store, place, store.new_blob(), 300_000).await.unwrap();
        store.flush(&[place]).await.unwrap();
        late
    });
    node.power_cut();
    let node = disks.start(1);
    node.get(0, before, 700_000).unwrap();
    node.get(0, late, 200_000).unwrap();

    let (store, disk) = (node.stores[0].clone(), disks.disk().clone());
    node.life.block_on(0, move |world| async move {
        let place = store.place();
        disk.set_gone(true);
        write(&world, &store, place, store.new_blob(), 300_000).await.unwrap_err();
        assert!(store.flush(&[place]).await.is_err());
        disk.set_gone(false);
        store.set_offline(place);
        assert_eq!(store.set_online(place), Err(DeviceError::Gone), "what failed stays so until the next start");
    });
    node.kill();
}
