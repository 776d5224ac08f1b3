//! Goal: what was overwritten or deleted gives its room back, on a disk that holds a small part of all that is written, before
//! a write is refused. Method: a node with a small disk and no delay; overwrites, deletions, a kill, and a disk that is filled on purpose.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anvil_digest::md5;
use support::content::Content;
use support::node::{Node, Options, scratch};
use support::s3::Client;

const DISK: &str = "160MiB";
const OBJECT_BYTES: u64 = 6 << 20;
/// Room comes back within seconds; the machine may be busy with other tests.
const ROOM_TIME_MAX: Duration = Duration::from_secs(120);

fn start(data: &std::path::Path) -> Node {
    let disk = format!("{}:{DISK}", data.join("disk").display());
    let arguments = ["--reclaim-delay", "0", "--cores", "2", "--disk", &disk].map(str::to_owned).to_vec();
    Node::start_with(data, &Options { arguments, ..Options::default() })
}

fn content(seed: u64) -> Content {
    Content { seed, length: OBJECT_BYTES }
}

/// Puts once: there is room, or there will be soon.
fn put(client: &mut Client, path: &str, content: Content) {
    client.put(path, &content.bytes()).unwrap().succeeded();
}

/// Puts until there is room for it.
fn put_patiently(client: &mut Client, path: &str, content: Content) {
    let bytes = content.bytes();
    let begun = Instant::now();
    loop {
        let answer = client.put(path, &bytes).unwrap();
        match answer.status() {
            200 => return,
            status => assert!(status == 507 || status == 503, "{}", answer.text()),
        }
        assert!(begun.elapsed() < ROOM_TIME_MAX, "there is no room, although most of the disk is garbage");
        thread::sleep(Duration::from_millis(100));
    }
}

fn assert_is(client: &mut Client, path: &str, content: Content) {
    let answer = client.get(path).unwrap().succeeded();
    assert!(answer.body == content.bytes(), "{path} came back changed");
}

/// 2 GiB, which is 13 times the disk, and not one is refused.
#[test]
fn a_small_disk_takes_many_times_its_size() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let mut node = start(&data);
    node.client().put("/bucket", b"").unwrap().succeeded();
    let empty = used_bytes(&node);
    for round in 0..3 {
        let mut client = node.client();
        let stop = AtomicBool::new(false);
        let read = thread::scope(|scope| {
            let reader = scope.spawn(|| read_on(&node, &stop));
            overwrite(&mut client, round);
            stop.store(true, Ordering::Relaxed);
            reader.join().unwrap()
        });
        let of_moves = write_amplification(&node);
        let of_all = node.metric("anvil_disk_written_bytes_total") / node.metric("anvil_request_received_bytes_total");
        println!(
            "round {round}: the disk wrote {of_all:.3} bytes for each of a client's (zeroing what is new of the disk included), \
             reclaim made of each append {of_moves:.3}; {read} objects were read meanwhile"
        );
        assert!(of_moves < 1.5 && of_all < 2.0 && read > 0);
        let mut client = node.client();
        for number in 114..120 {
            assert_is(&mut client, &format!("/bucket/{}", number % 6), content(round * 1000 + number));
        }
        if round < 2 {
            node.kill();
            node = start(&data);
        }
        let mut client = node.client();
        for number in 114..120 {
            assert_is(&mut client, &format!("/bucket/{}", number % 6), content(round * 1000 + number));
        }
    }
    let mut client = node.client();
    for number in 0..6 {
        client.delete(&format!("/bucket/{number}")).unwrap().succeeded();
    }
    let capacity = node.metric("anvil_disk_capacity_bytes");
    let begun = Instant::now();
    while used_bytes(&node) - empty > 0.05 * capacity {
        let left = (used_bytes(&node) - empty) / capacity * 100.0;
        assert!(begun.elapsed() < ROOM_TIME_MAX, "{left:.1} % of the disk are still used when all is deleted");
        thread::sleep(Duration::from_millis(100));
    }
    println!("empty again after {:.1?}", begun.elapsed());
    node.stop();
}

/// 720 MB of overwrites and deletions, of which 36 MB are needed at any time.
fn overwrite(client: &mut Client, round: u64) {
    for number in 0..120 {
        let seed = round * 1000 + number;
        let path = format!("/bucket/{}", number % 6);
        if number % 7 == 6 {
            client.delete(&path).unwrap().succeeded();
        }
        put(client, &path, content(seed));
    }
}

/// Reads objects while they change: each answer is one of the values that were put, or breaks off, because nothing is kept
/// for those who read it. How many were read.
fn read_on(node: &Node, stop: &AtomicBool) -> u64 {
    let mut client = node.client();
    let (mut read, mut number) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        // Another one after one that broke off.
        number += 1;
        let Ok(answer) = client.get(&format!("/bucket/{}", number % 6)) else { continue };
        match answer.status() {
            200 => {
                assert_eq!(hex::encode(md5(&answer.body)), answer.head.etag(), "other bytes come back");
                read += 1;
            }
            status => assert_eq!(status, 404, "{}", answer.text()),
        }
    }
    read
}

/// Of the disk, the metadata log included.
fn used_bytes(node: &Node) -> f64 {
    node.metric("anvil_disk_used_bytes")
}

/// Bytes written by appends to those that were not moves, since the node's start.
fn write_amplification(node: &Node) -> f64 {
    let appended = node.metric("anvil_store_appended_bytes_total");
    appended / (appended - node.metric("anvil_store_reclaim_moved_bytes_total"))
}

#[test]
fn a_full_disk_takes_deletions_and_then_writes_again() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let node = start(&data);
    let mut client = node.client();
    client.put("/bucket", b"").unwrap().succeeded();
    let mut stored = 0;
    loop {
        let answer = client.put(&format!("/bucket/{stored}"), &content(stored).bytes()).unwrap();
        if answer.status() != 200 {
            assert_eq!(answer.status(), 507, "{}", answer.text());
            break;
        }
        stored += 1;
        assert!(stored < 100, "the disk is larger than it should be");
    }
    assert!(stored >= 10, "the disk is full with {stored} objects of {OBJECT_BYTES} bytes");
    for number in 0..stored {
        assert_is(&mut client, &format!("/bucket/{number}"), content(number));
    }
    for number in 0..stored / 2 {
        client.delete(&format!("/bucket/{number}")).unwrap().succeeded();
    }
    for number in 0..stored / 4 {
        put_patiently(&mut client, &format!("/bucket/new-{number}"), content(5000 + number));
    }
    for number in stored / 2..stored {
        assert_is(&mut client, &format!("/bucket/{number}"), content(number));
    }
    for number in 0..stored / 4 {
        assert_is(&mut client, &format!("/bucket/new-{number}"), content(5000 + number));
    }
    node.stop();
}
