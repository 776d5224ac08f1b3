//! An orderly stop leaves nothing open: the next start reads footers alone, goes on where the last one ended, and a crash of
//! that life loses nothing.

use anvil_model::format::UNIT_BYTES;
use anvil_model::ids::BlobId;
use anvil_sim::{Random, SimDisk};
use anvil_store::extent_bytes;

use crate::harness::{Disks, MIB, Node};

const CAPACITY: u64 = 64 * MIB;
const LENGTHS: [usize; 4] = [100, 5_000, 70_000, 900_000];

fn used_bytes(node: &Node) -> u64 {
    node.stores.iter().flat_map(|store| store.stats().disks).filter_map(|disk| disk.space).map(|s| s.used_bytes).sum()
}

fn put_all(node: &Node, cores: u16, blobs: &mut Vec<(BlobId, usize)>) {
    for core in 0..cores {
        blobs.extend(LENGTHS.map(|length| (node.put(core, length), length)));
    }
}

#[track_caller]
fn assert_all(node: &Node, blobs: &[(BlobId, usize)], what: &str) {
    for &(blob, length) in blobs {
        assert_eq!(node.get(0, blob, length), Ok(()), "{what}: blob {blob} of {length} bytes");
    }
}

#[test]
fn a_start_after_an_orderly_stop_reads_no_extent_whole() {
    let mut disks = Disks::new(21, 2, CAPACITY);
    let mut blobs = Vec::new();
    let mut next = 0;
    for (life, cores) in [3, 1, 2, 4].into_iter().enumerate() {
        let mut node = disks.start(cores);
        let report = &node.report;
        assert_eq!((report.extents_scanned, report.scanned_bytes), (0, 0), "life {life}");
        assert_eq!(node.log.as_ref().unwrap().len() as u64, next, "life {life}");
        assert_all(&node, &blobs, &format!("life {life}"));
        let writer = node.log_writer(0);
        let first = node.next_number;
        drop(node.log(writer, 0, first..first + 5));
        next += 5;
        put_all(&node, cores, &mut blobs);
        node.close();
    }
    let node = disks.start(2);
    assert!(node.report.clean && node.report.extents_scanned == 0, "{:?}", node.report);
    assert_all(&node, &blobs, "at the end");
    // A life that wrote nothing leaves it as it was.
    node.kill();
    assert_eq!(disks.start(2).report.extents_scanned, 0);
}

/// Extents are filled on over all the stops and crashes, so that many lives cost no more space than one.
#[test]
fn what_a_stop_left_is_filled_on_and_a_crash_in_it_loses_nothing() {
    let mut disks = Disks::new(22, 1, CAPACITY);
    let mut random = Random::new(22);
    let mut blobs = Vec::new();
    let mut used = Vec::new();
    for life in 0..40 {
        let node = disks.start(2);
        assert_all(&node, &blobs, &format!("life {life}"));
        for core in 0..2 {
            blobs.push((node.put(core, 5_000), 5_000));
        }
        used.push(used_bytes(&node));
        match random.index(4) {
            0 => node.power_cut(),
            1 => node.kill(),
            _ => node.close(),
        }
    }
    let extent = extent_bytes(CAPACITY);
    assert!(used[39] <= 4 * extent, "40 lives with 2 blobs of 5 kB each took {} extents", used[39] / extent);
}

/// The write that takes a footer away is lost, and so the footer is there that knows nothing of what came behind: it is
/// not believed.
#[test]
fn a_footer_that_comes_back_hides_nothing() {
    // Small ones, which another one follows in the same extent.
    for length in [100, 5_000, 60_000] {
        let mut disks = Disks::new(23, 1, CAPACITY);
        let node = disks.start(1);
        let before = node.put(0, length);
        node.close();
        let footers = footers(disks.disk());
        assert!(!footers.is_empty());
        let node = disks.start(1);
        let after = node.put(0, length);
        node.power_cut();
        let is_gone = |(at, bytes): &&(u64, Vec<u8>)| disks.disk().bytes(*at, UNIT_BYTES) != *bytes;
        let gone: Vec<_> = footers.iter().filter(is_gone).collect();
        assert!(!gone.is_empty(), "all footers are still there");
        for (at, bytes) in gone {
            disks.disk().overwrite(*at, bytes);
        }
        let node = disks.start(1);
        assert!(node.report.extents_scanned > 0);
        assert_all(&node, &[(before, length), (after, length)], "with an old footer");
    }
}

/// The last units of the extents that are not blank.
fn footers(disk: &SimDisk) -> Vec<(u64, Vec<u8>)> {
    let extent = extent_bytes(CAPACITY);
    let first = anvil_model::format::EXTENTS_OFFSET + extent - UNIT_BYTES as u64;
    let ends = (first..disk.size_bytes()).step_by(usize::try_from(extent).unwrap());
    let units = ends.map(|at| (at, disk.bytes(at, UNIT_BYTES)));
    units.filter(|(_, unit)| unit.iter().any(|&byte| byte != 0)).collect()
}
