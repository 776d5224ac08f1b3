//! Four disks with 2+2, of which any two fail in every way that this machine can make: all objects are read under load, writes
//! go on, the disks are named with the reason, and the next start does without them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::four::{Four, Load, Objects, check, disk_metric};
use crate::loop_disk::{FileSystem, LoopDisk};
use crate::support::content::Random;
use crate::support::node::Node;
use crate::throttle::Throttle;

/// How a disk fails, and how it comes back.
struct Fault {
    name: &'static str,
    file_system: FileSystem,
    /// Those that fail, one after the other.
    disks: [usize; 2],
    fail: fn(&Four, usize),
    /// What the node says of such a disk.
    reason: &'static str,
    /// Whether it is whole again when it is mounted anew.
    comes_back: bool,
}

#[test]
fn two_disks_are_unmounted() {
    survives(&Fault {
        name: "unmounted",
        file_system: FileSystem::Xfs,
        disks: [1, 3],
        fail: |four, disk| four.disks[disk].unmount(&["--lazy"]).unwrap(),
        reason: "the disk is gone",
        comes_back: true,
    });
}

/// Every operation answers EIO.
#[test]
fn two_disks_fail_every_operation() {
    survives(&Fault {
        name: "shut down",
        file_system: FileSystem::Xfs,
        disks: [0, 1],
        fail: |four, disk| four.disks[disk].shut_down(),
        reason: "(os error 5)",
        comes_back: true,
    });
}

#[test]
fn two_disks_become_read_only() {
    survives(&Fault {
        name: "read-only",
        file_system: FileSystem::Ext4,
        disks: [2, 3],
        fail: |four, disk| four.disks[disk].become_read_only(),
        reason: "(os error 30)",
        comes_back: true,
    });
}

#[test]
fn the_files_of_two_disks_are_cut_short() {
    survives(&Fault {
        name: "cut short",
        file_system: FileSystem::Xfs,
        disks: [0, 2],
        fail: |four, disk| File::options().write(true).open(four.file(disk)).unwrap().set_len(3 << 20).unwrap(),
        reason: "the disk is gone",
        comes_back: false,
    });
}

#[test]
fn the_directories_of_two_disks_are_removed() {
    survives(&Fault {
        name: "removed",
        file_system: FileSystem::Xfs,
        disks: [3, 0],
        fail: |four, disk| fs::remove_dir_all(four.path(disk)).unwrap(),
        reason: "the disk is gone",
        comes_back: false,
    });
}

fn survives(fault: &Fault) {
    let Some(four) = Four::make(fault.file_system) else { return };
    let node = four.start(&[]);
    let objects = Objects::put_all(&node);
    let [read, written, refused] = Load::during(&node, &objects, |load| {
        load.wait_for(10);
        for disk in fault.disks {
            (fault.fail)(&four, disk);
            let told = four.wait_until_offline(&node, disk);
            let error = told.error.unwrap_or_default();
            assert!(error.contains(fault.reason), "{}: {error:?}", fault.name);
            load.wait_for(20);
        }
    });
    println!("{}: {read} objects read, {written} written and {refused} refused while two disks failed", fault.name);
    // Those that were under way when a disk failed with too few shards left.
    assert!(refused <= 10, "{refused} writes were refused");
    let states = |node: &Node| -> Vec<String> { four.told(node).into_iter().map(|told| told.state).collect() };
    assert_eq!(states(&node).iter().filter(|state| *state == "online").count(), 2);
    objects.check(&node, "after the load");
    let (status, log) = node.terminate();
    assert!(status.success(), "the node ended with {status}");
    assert!(log.contains(fault.reason), "the log does not say why");

    let node = four.start(&[]);
    for disk in 0..4 {
        let away = fault.disks.contains(&disk);
        let missing = disk_metric(&node, "anvil_disk_missing", &four.path(disk));
        assert_eq!(missing.is_some_and(|missing| missing > 0.5), away, "{}: disk {disk}", fault.name);
        assert_eq!(four.told_of(&node, disk).state, if away { "missing" } else { "online" }, "{}", fault.name);
    }
    objects.check(&node, "with two missing");
    assert_eq!(objects.put(&mut node.client()), 200);
    node.stop();

    if !fault.comes_back {
        return;
    }
    for disk in fault.disks {
        four.disks[disk].unmount(&[]).ok();
        four.disks[disk].mount(&[]).unwrap();
    }
    let node = four.start(&[]);
    assert_eq!(states(&node), ["online"; 4], "{}", fault.name);
    objects.check(&node, "with all of them again");
    node.stop();
}

/// Two disks hold wrong bytes everywhere, and say nothing of it.
#[test]
fn two_disks_rot() {
    let Some(four) = Four::make(FileSystem::Xfs) else { return };
    let node = four.start(&["--scrub-rate", "off"]);
    let objects = Objects::put_all(&node);
    let [read, ..] = Load::during(&node, &objects, |load| {
        load.wait_for(10);
        for disk in [1, 2] {
            println!("{} bits flipped on disk {disk}", rot(&four.file(disk)));
            load.wait_for(60);
        }
    });
    objects.check(&node, "on rotten disks");
    let (status, log) = node.terminate();
    let named = log.lines().filter(|line| line.contains("is damaged")).count();
    println!("{read} objects read meanwhile; damage was named {named} times");
    assert!(status.success() && named > 0, "{log}");
}

/// Flips a bit in about every 16 KiB behind the superblocks; how many.
fn rot(file: &Path) -> u64 {
    let file = File::options().read(true).write(true).open(file).unwrap();
    let mut random = Random(7);
    let length = file.metadata().unwrap().len();
    let mut flipped = 0;
    let mut at = 1 << 20;
    while at < length {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        // Where nothing is, nothing rots: a new record would be written over it.
        if byte[0] != 0 {
            file.write_all_at(&[byte[0] ^ 1 << random.below(8)], at).unwrap();
            flipped += 1;
        }
        at += 1 + random.below(32 << 10);
    }
    // The node's direct writes go past the pages that these bits are in, of which the kernel tells with EIO.
    let synced = file.sync_all();
    assert!(synced.as_ref().map_or_else(|error| error.raw_os_error() == Some(5), |()| true), "{synced:?}");
    flipped
}

fn log_lines(four: &Four, words: &str) -> usize {
    four.log().lines().filter(|line| line.contains(words)).count()
}

/// The kernel lets the node read from one disk twenty times a second, which is a hundredth of what it does otherwise: reads
/// go around it.
#[test]
fn a_slow_disk_is_routed_around() {
    let Some(four) = Four::make(FileSystem::Xfs) else { return };
    let node = four.start(&["--scrub-rate", "off"]);
    let objects = Objects::put_all(&node);
    let mut client = node.client();
    for _ in 0..24 {
        assert_eq!(objects.put_of(&mut client, 1 << 20), 200);
    }
    let healthy = median_get(&node, &objects);
    let slow: &LoopDisk = &four.disks[1];
    let Some(throttle) = Throttle::reads(&node, slow.device_name(), 20) else { return };
    // The first reads find out.
    let first = median_get(&node, &objects);
    let routed = median_get(&node, &objects);
    let ratio = routed.as_secs_f64() / healthy.as_secs_f64();
    println!(
        "p50 of a GET of 1 MiB: {healthy:.1?}; with a disk of 20 reads per second {first:.1?}, then {routed:.1?}: {ratio:.2}"
    );
    assert!(ratio < 4.0, "reads wait for the slow disk: {ratio:.2} times as long");
    objects.check(&node, "with a slow disk");
    assert!(log_lines(&four, "much slower than the others") > 0, "nobody is told");
    node.stop();
    drop(throttle);
}

fn median_get(node: &Node, objects: &Objects) -> Duration {
    let mut client = node.client();
    let large: Vec<_> = objects.known().into_iter().filter(|(_, content)| content.length == 1 << 20).collect();
    let mut times: Vec<Duration> = (0..200)
        .map(|turn| {
            let (path, content) = &large[turn % large.len()];
            let begun = Instant::now();
            let answer = client.get(path).unwrap().succeeded();
            let took = begun.elapsed();
            assert_eq!(answer.body.len() as u64, content.length);
            took
        })
        .collect();
    let (path, content) = &large[0];
    check(&mut client, path, *content, "measured");
    times.sort_unstable();
    times[times.len() / 2]
}
