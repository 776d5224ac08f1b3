//! The disk goes away under load: shut down, unmounted, removed.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::loop_disk::LoopDisk;
use crate::support::content::Random;
use crate::support::ledger::{BUCKET, Ledger, Outcome, ledgers, verify};
use crate::support::node::{Node, Options, scratch, start_to_fail};

const DISK_BYTES: u64 = 4 << 30;
const WRITER_COUNT: u64 = 8;
/// Operations that are acknowledged before the fault.
const TARGET: u64 = 400;
/// What each writer still tries after it.
const ATTEMPT_COUNT: usize = 10;

#[test]
fn a_file_system_that_shuts_down_loses_nothing_acknowledged() {
    survives("shut down", |disk| {
        disk.shut_down();
        None
    });
}

#[test]
fn a_file_system_that_is_unmounted_loses_nothing_acknowledged() {
    survives("unmounted", |disk| {
        disk.unmount(&["--lazy"]).unwrap();
        Some(())
    });
}

/// Writes to the unlinked file would still succeed.
#[test]
fn nothing_is_acknowledged_into_a_removed_directory() {
    let scratch = scratch();
    let disk = scratch.path().join("disk");
    let node = start(scratch.path(), &disk);
    node.client().put(&format!("/{BUCKET}"), b"").unwrap().succeeded();
    write_until(&node, &mut ledgers(WRITER_COUNT), || fs::remove_dir_all(&disk).unwrap());
    ends_in_order(node);
    let refusal = start_to_fail(&scratch.path().join("data"), &options(&disk));
    assert!(refusal.contains("disk"), "{refusal}");
}

#[test]
fn a_node_refuses_a_read_only_disk() {
    let scratch = scratch();
    let Some(mounted) = LoopDisk::make(scratch.path(), DISK_BYTES) else { return };
    let disk = mounted.path().join("disk");
    let node = start(scratch.path(), &disk);
    node.client().put("/bucket", b"").unwrap().succeeded();
    // While the node writes to it, the kernel does not let the file system become read-only.
    assert!(mounted.mount(&["-o", "remount,ro"]).is_err());
    node.client().put("/bucket/key", b"kept").unwrap().succeeded();
    node.stop();
    mounted.mount(&["-o", "remount,ro"]).unwrap();
    let refusal = start_to_fail(&scratch.path().join("data"), &options(&disk));
    assert!(refusal.to_lowercase().contains("read-only"), "{refusal}");
    mounted.mount(&["-o", "remount,rw"]).unwrap();
    let node = start(scratch.path(), &disk);
    assert_eq!(node.client().get("/bucket/key").unwrap().succeeded().body, b"kept");
    node.stop();
}

/// Takes the file system away under load; mounts it again and reads back everything that was acknowledged. The fault
/// says whether the file system is unmounted already.
fn survives(name: &str, fault: impl Fn(&LoopDisk) -> Option<()>) {
    let scratch = scratch();
    let Some(mounted) = LoopDisk::make(scratch.path(), DISK_BYTES) else { return };
    let disk = mounted.path().join("disk");
    let mut ledgers = ledgers(WRITER_COUNT);
    let mut node = start(scratch.path(), &disk);
    node.client().put(&format!("/{BUCKET}"), b"").unwrap().succeeded();
    for round in 1..=2 {
        let mut unmounted = None;
        let acknowledged = write_until(&node, &mut ledgers, || unmounted = fault(&mounted));
        ends_in_order(node);
        if unmounted.is_none() {
            mounted.unmount(&[]).unwrap();
        }
        mounted.mount(&[]).unwrap();
        node = start(scratch.path(), &disk);
        verify(&node, &mut ledgers);
        println!("round {round}: {name} after {acknowledged} acknowledged operations, all of them there afterwards");
    }
    node.stop();
}

fn options(disk: &Path) -> Options {
    let arguments = ["--disk".to_owned(), disk.display().to_string(), "--cores".to_owned(), "2".to_owned()];
    Options { arguments: arguments.to_vec(), ..Options::default() }
}

fn start(scratch: &Path, disk: &Path) -> Node {
    Node::start_with(&scratch.join("data"), &options(disk))
}

/// Lets all writers loose, and the fault after [`TARGET`] operations. What is begun when the fault is complete must not
/// be acknowledged. Gives how many operations were.
fn write_until(node: &Node, ledgers: &mut [Ledger], fault: impl FnOnce()) -> u64 {
    let (acknowledged, begun, complete) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let mut writers = Vec::new();
        for (ledger, seed) in ledgers.iter_mut().zip(acknowledged.load(Ordering::Relaxed)..) {
            let (mut client, mut random) = (node.client(), Random(seed));
            let (acknowledged, begun, complete) = (&acknowledged, &begun, &complete);
            writers.push(scope.spawn(move || {
                let mut attempts = 0;
                while attempts < ATTEMPT_COUNT {
                    let too_late = complete.load(Ordering::SeqCst);
                    attempts += usize::from(too_late);
                    match ledger.step(&mut client, &mut random) {
                        Outcome::Acknowledged { changed } => {
                            assert!(!(too_late && changed), "acknowledged, and there is no disk");
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                        }
                        Outcome::Refused { status, text } => {
                            let expected = if begun.load(Ordering::SeqCst) { 500..=507 } else { 503..=503 };
                            assert!(expected.contains(&status), "status {status}: {text}");
                        }
                        Outcome::Broken => {
                            assert!(begun.load(Ordering::SeqCst), "a connection broke while all was well");
                            thread::sleep(Duration::from_millis(10));
                        }
                    }
                }
            }));
        }
        while acknowledged.load(Ordering::Relaxed) < TARGET && !writers.iter().any(|writer| writer.is_finished()) {
            thread::sleep(Duration::from_micros(200));
        }
        begun.store(true, Ordering::SeqCst);
        fault();
        complete.store(true, Ordering::SeqCst);
    });
    acknowledged.into_inner()
}

/// By itself or by SIGTERM, but by an exit and not by a signal, and it has said what is wrong.
fn ends_in_order(node: Node) {
    let (status, log) = node.terminate();
    assert!(status.code().is_some(), "the node ended with {status}");
    let said = log.lines().filter(|line| line.contains("ERROR") || line.contains("WARN")).count();
    assert!(said > 0, "the log says nothing");
    println!("the node ended with {status}; {said} warnings and errors in its log");
}
