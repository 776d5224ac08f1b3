//! Goal: what is encrypted reads as what is not, lies nowhere as it was sent, and is repaired without a key. Method: the
//! same node, with the operator's key or without.

use anvil_model::format::{EXTENTS_OFFSET, Extras, RecordHeader, UNIT_BYTES};
use anvil_model::ids::DiskId;
use anvil_node::encryption::OperatorKey;

use crate::harness::{Machine, Running, bytes_of, disk_id, set_gone};
use crate::narrow::{is_as_wanted, set_out_of_use};
use crate::{LENGTHS, check_all, check_without, name, put_all, sets};

fn key(byte: u8) -> OperatorKey {
    OperatorKey::new("", &[byte; 32])
}

fn encrypting(seed: u64, disks: usize, profile: &str) -> Machine {
    let mut machine = Machine::new(seed, disks, profile);
    machine.encryption = (vec![key(7)], true);
    machine
}

fn cut(running: Running) {
    drop(running.nodes);
    running.life.power_cut();
}

/// Ranges that begin and end at, before and behind frames, cells and windows.
fn check_borders(running: &Running, length: usize) {
    let expected = bytes_of(&name(length), length);
    let borders = [1, 65_535, 65_536, 65_537, 131_072, 163_840, 262_144, 524_288, 655_360, length - 1, length];
    for start in borders.into_iter().filter(|start| (1..=length).contains(start)) {
        for end in [start + 1, start + 65_536, start + 65_537, start + 300_000] {
            let (start, end) = (start - 1, end.min(length));
            let read = running.read(0, &name(length), start as u64..end as u64);
            assert!(read.as_deref() == Ok(&expected[start..end]), "bytes {start}..{end} of {length}");
        }
    }
}

/// Where 16 bytes of what was stored lie on a disk.
fn is_plain_somewhere(machine: &Machine) -> Option<String> {
    let samples: std::collections::BTreeMap<Vec<u8>, String> = LENGTHS
        .into_iter()
        .flat_map(|length| {
            let bytes = bytes_of(&name(length), length);
            let sample = move |at: usize| (bytes[at..at + 16].to_vec(), format!("byte {at} of {length}"));
            // One in each 4 KiB: the parity of copies and of 1+m shows them too.
            (0..length.saturating_sub(15)).step_by(4096).map(sample).collect::<Vec<_>>()
        })
        .collect();
    let mut heads = vec![false; 1 << 16];
    let head = |bytes: &[u8]| usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    samples.keys().for_each(|sample| heads[head(sample)] = true);
    machine.disks.iter().find_map(|disk| {
        let image = disk.bytes(0, usize::try_from(disk.size_bytes()).unwrap());
        let used = (0..image.len()).step_by(4096).filter(|&unit| image[unit..unit + 4096] != [0; 4096]);
        // Payload begins at a multiple of 8, and so do the samples in it.
        let mut places = used.flat_map(|unit| (unit..unit + 4096 - 16).step_by(8));
        places.find_map(|at| heads[head(&image[at..])].then(|| samples.get(&image[at..at + 16]).cloned()).flatten())
    })
}

/// What was written while disks were missing is spread anew as it was encrypted: it reads, without any two disks too, and
/// nothing lies plain.
#[test]
fn what_is_spread_anew_stays_encrypted() {
    let machine = encrypting(25, 4, "2+2");
    let running = machine.start();
    set_out_of_use(&running, &[1, 2], true);
    put_all(&running);
    assert!(running.narrow() > 5, "{} are narrow", running.narrow());
    set_out_of_use(&running, &[1, 2], false);
    let upkeep = running.keep();
    running.until("all are as wide as they should be", |running| is_as_wanted(running, "2+2"));
    LENGTHS.into_iter().filter(|&length| length > 0).for_each(|length| check_borders(&running, length));
    drop(upkeep);
    cut(running);
    assert_eq!(is_plain_somewhere(&machine), None);

    let running = machine.start();
    check_without(&machine, &running, sets(4, 2));
}

#[test]
fn everything_reads_and_nothing_lies_plain() {
    for (disks, profile, lost) in [(1, "1+0", 0), (2, "1+1", 1), (3, "2+1", 1), (4, "2+2", 2), (6, "4+2", 2)] {
        let machine = encrypting(20, disks, profile);
        let running = machine.start();
        put_all(&running);
        check_all(&running);
        LENGTHS.into_iter().filter(|&length| length > 0).for_each(|length| check_borders(&running, length));
        running.settle();
        cut(running);
        if matches!(disks, 1 | 4) {
            assert_eq!(is_plain_somewhere(&machine), None, "{profile}");
        }

        let running = machine.start();
        check_all(&running);
        check_without(&machine, &running, sets(disks, lost));
    }
    // The search finds what is there.
    let machine = Machine::new(20, 4, "2+2");
    let running = machine.start();
    put_all(&running);
    cut(running);
    assert!(is_plain_somewhere(&machine).is_some());
}

/// Without the secret everything goes on but reading; it comes back with the secret, whatever was repaired meanwhile.
#[test]
fn repair_needs_no_key_and_the_secret_brings_everything_back() {
    let mut machine = encrypting(21, 6, "2+2");
    let running = machine.start();
    put_all(&running);
    cut(running);

    machine.encryption = (Vec::new(), false);
    let running = machine.start();
    for length in LENGTHS.into_iter().filter(|&length| length > 0) {
        let refused = running.read(0, &name(length), 0..length as u64).unwrap_err();
        assert!(refused.contains("encrypted with key"), "{refused}");
    }
    running.put(0, "plain", 700_000).unwrap();
    running.check("plain", 700_000);
    set_gone(&machine.disks[2], true);
    running.put(0, "notices", 1 << 20).unwrap();
    running.put(1, "notices too", 1 << 20).unwrap();
    running.lost.set([disk_id(2)].into());
    let upkeep = running.keep();
    running.until("the disk is empty", |running| running.shards_on(disk_id(2)) == 0 && running.debt() == 0);
    drop(upkeep);
    set_gone(&machine.disks[2], false);
    cut(running);
    // Only what was made again is left of what it held.
    let held = machine.disks[2].size_bytes() - EXTENTS_OFFSET;
    machine.disks[2].overwrite(EXTENTS_OFFSET, &vec![0; usize::try_from(held).unwrap()]);

    machine.encryption = (vec![key(8), key(7)], false);
    let running = machine.start();
    check_without(&machine, &running, sets(6, 2));
    running.check("plain", 700_000);
    running.settle();
    cut(running);

    // The disks keep the key as the first secret wrapped it anew; any of them has it.
    machine.encryption = (vec![key(8)], true);
    let running = machine.start();
    check_all(&running);
    running.put(0, "later", 700_000).unwrap();
    running.check("later", 700_000);
}

#[test]
fn a_disk_that_joins_takes_what_is_encrypted() {
    let mut machine = encrypting(23, 4, "2+2");
    let running = machine.start();
    put_all(&running);
    set_gone(&machine.disks[2], true);
    running.put(0, "notices", 1 << 20).unwrap();
    running.put(1, "notices too", 1 << 20).unwrap();
    let new = machine.add_disk();
    running.join(&machine, new, true);
    running.lost.set([disk_id(2)].into());
    let upkeep = running.keep();
    running.until("the lost disk is empty", |running| running.shards_on(disk_id(2)) == 0 && running.debt() == 0);
    drop(upkeep);
    cut(running);

    // The data directory knows nothing of keys: the disks that are left are enough, the new one among them.
    let running = machine.start_without(&[2]);
    for others in [[0, 1], [0, 3], [1, 3]] {
        others.iter().for_each(|&disk| set_gone(&machine.disks[disk], true));
        check_all(&running);
        others.iter().for_each(|&disk| set_gone(&machine.disks[disk], false));
    }
}

/// Every record of a shard, with where it lies.
fn records_of(machine: &Machine, disk: usize) -> Vec<(u64, Vec<u8>, RecordHeader)> {
    let image = machine.disks[disk].bytes(0, usize::try_from(machine.disks[disk].size_bytes()).unwrap());
    let starts = (usize::try_from(EXTENTS_OFFSET).unwrap()..image.len() - UNIT_BYTES).step_by(UNIT_BYTES);
    starts
        .filter_map(|at| {
            let header = RecordHeader::decode(&image[at..at + UNIT_BYTES]).ok()?;
            header.is_encrypted().then(|| (at as u64, image[at..at + UNIT_BYTES].to_vec(), header))
        })
        .collect()
}

/// Overwrites a record's tags, or its payload, and makes all checksums right again: what only the tags can notice.
fn forge(machine: &Machine, disk: usize, (at, unit, header): &(u64, Vec<u8>, RecordHeader), tags: bool) {
    let (origin, mut encryption) = (header.origin(unit), header.encryption(unit).unwrap());
    let (offset, length) = (header.payload_offset as usize, header.payload_bytes as usize);
    let mut payload = machine.disks[disk].bytes(at + offset as u64, length);
    if tags {
        encryption.tags.iter_mut().for_each(|tag| tag[3] ^= 4);
    } else {
        payload[length / 2] ^= 1;
    }
    let forged = RecordHeader::new(header.name, header.offset, header.subject, header.payload_offset, &payload)
        .of_window(header.window_bytes as usize);
    let mut head = vec![0; offset];
    forged.encode(Extras { origin: origin.as_ref(), encryption: Some(&encryption) }, &mut head);
    machine.disks[disk].overwrite(*at, &head);
    machine.disks[disk].overwrite(at + offset as u64, &payload);
}

/// A forgery of one shard is read around and made again; of too many, it is an error and never other bytes.
#[test]
fn what_only_a_tag_notices_is_damage() {
    for tags in [true, false] {
        let machine = encrypting(22, 4, "2+2");
        let running = machine.start();
        put_all(&running);
        let records = records_of(&machine, 1);
        assert!(records.len() > LENGTHS.len(), "{} records", records.len());
        records.iter().for_each(|record| forge(&machine, 1, record, tags));
        check_all(&running);
        let upkeep = running.keep();
        let repaired = |running: &Running| running.nodes.iter().map(|node| node.repair_figures().shards).sum::<u64>();
        running.until("what was read is repaired", |running| repaired(running) > 0 && running.debt() == 0);
        drop(upkeep);
        check_all(&running);
        assert_eq!(running.shards_on(DiskId::NONE), 0);

        for disk in [0, 2, 3] {
            records_of(&machine, disk).iter().for_each(|record| forge(&machine, disk, record, tags));
        }
        let mut refused = 0;
        for length in LENGTHS.into_iter().filter(|&length| length > 0) {
            match running.read(0, &name(length), 0..length as u64) {
                Ok(bytes) => assert!(bytes == bytes_of(&name(length), length), "wrong bytes of {length}"),
                Err(error) => {
                    assert!(error.contains("damaged"), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "forged shards were read");
    }
}
