//! No room: refused with 507, while reads and deletions go on; and writes go on by themselves when there is room.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::loop_disk::LoopDisk;
use crate::support::content::Content;
use crate::support::node::{Node, Options, scratch};
use crate::support::s3::Client;

const DISK_BYTES: u64 = 2 << 30;
const OBJECT_BYTES: u64 = 4 << 20;
/// More objects than the disk can hold.
const OBJECT_COUNT_MAX: u64 = DISK_BYTES / OBJECT_BYTES;
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(120);

/// Somebody else fills the file system, and empties it again.
#[test]
fn a_file_system_filled_by_others_refuses_writes_until_there_is_room() {
    let scratch = scratch();
    let Some(mounted) = LoopDisk::make(scratch.path(), DISK_BYTES) else { return };
    let node = start(scratch.path(), &mounted.path().join("disk").display().to_string());
    let mut client = node.client();
    client.put("/bucket", b"").unwrap().succeeded();
    for number in 0..5 {
        client.put(&path(number), &content(number).bytes()).unwrap().succeeded();
    }
    let filler = mounted.path().join("filler");
    fill(&filler);
    let stored = fill_with_objects(&mut client, 5);
    check(&mut client, 0..stored);
    client.delete(&path(0)).unwrap().succeeded();
    assert_eq!(client.get(&path(0)).unwrap().status(), 404);

    fs::remove_file(&filler).unwrap();
    wait_for_room(&mut client);
    check(&mut client, 1..stored);
    node.stop();
    let node = start(scratch.path(), &mounted.path().join("disk").display().to_string());
    check(&mut node.client(), 1..stored);
    node.stop();
}

/// The node's own share of a disk is full; what is deleted makes room.
#[test]
fn a_full_disk_takes_writes_again_after_deletions() {
    let scratch = scratch();
    let disk = format!("{}:1GiB", scratch.path().join("disk").display());
    let node = start(scratch.path(), &disk);
    let mut client = node.client();
    client.put("/bucket", b"").unwrap().succeeded();
    let stored = fill_with_objects(&mut client, 0);
    let percent = stored * OBJECT_BYTES * 100 / (1 << 30);
    println!("one connection, so one core of two: {stored} objects of 4 MiB on a disk of 1 GiB: {percent} %");
    assert!(percent >= 95, "only {stored} objects found room");
    check(&mut client, 0..stored);
    // Every fourth stays, so that what stays has to be moved.
    for number in (0..stored).filter(|number| number % 4 != 0) {
        client.delete(&path(number)).unwrap().succeeded();
    }
    wait_for_room(&mut client);
    for number in (1..stored / 2).filter(|number| number % 4 != 0) {
        put_when_there_is_room(&mut client, number);
    }
    let expected = |number: &u64| number.is_multiple_of(4) || *number < stored / 2;
    check(&mut client, (0..stored).filter(expected));
    node.kill();
    let node = start(scratch.path(), &disk);
    check(&mut node.client(), (0..stored).filter(expected));
    node.stop();
}

fn start(scratch: &Path, disk: &str) -> Node {
    let arguments = ["--disk", disk, "--cores", "2"].map(String::from).to_vec();
    Node::start_with(&scratch.join("data"), &Options { arguments, ..Options::default() })
}

fn path(number: u64) -> String {
    format!("/bucket/object-{number:04}")
}

fn content(number: u64) -> Content {
    Content { seed: number + 1, length: OBJECT_BYTES }
}

/// Takes all the room that is left, to the last MiB.
fn fill(file: &Path) {
    let mut length: u64 = 0;
    for step in [256 << 20, 32 << 20, 4 << 20, 1 << 20] {
        while Command::new("fallocate")
            .args(["-l", &(length + step).to_string()])
            .arg(file)
            .stderr(std::process::Stdio::null())
            .status()
            .expect("fallocate of util-linux")
            .success()
        {
            length += step;
        }
    }
}

/// Stores objects until the node refuses one; gives the number of the first that was not stored.
fn fill_with_objects(client: &mut Client, first: u64) -> u64 {
    for number in first..first + OBJECT_COUNT_MAX {
        let answer = client.put(&path(number), &content(number).bytes()).unwrap();
        if answer.status() != 200 {
            assert_eq!((answer.status(), answer.elements("Code")), (507, vec!["InsufficientStorage".to_owned()]));
            assert_eq!(client.get(&path(number)).unwrap().status(), 404, "what was refused is not there");
            return number;
        }
    }
    panic!("the disk holds more than it has room for");
}

fn check(client: &mut Client, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let answer = client.get(&path(number)).unwrap().succeeded();
        assert!(answer.body == content(number).bytes(), "object {number} changed");
    }
}

fn wait_for_room(client: &mut Client) {
    let begun = Instant::now();
    put_when_there_is_room(client, 9999);
    println!("writes went on after {:.1?}", begun.elapsed());
}

fn put_when_there_is_room(client: &mut Client, number: u64) {
    let begun = Instant::now();
    loop {
        let answer = client.put(&path(number), &content(number).bytes()).unwrap();
        if answer.status() == 200 {
            return;
        }
        assert_eq!(answer.status(), 507, "{}", answer.text());
        assert!(begun.elapsed() < RECOVERY_TIME_MAX, "still no room after {RECOVERY_TIME_MAX:?}");
        thread::sleep(Duration::from_millis(100));
    }
}
