//! Goal: a node with 10^5 objects is soon back after a crash, with all of them. Method: small objects over many
//! connections, SIGKILL, the time until `/ready`, every entity tag from the listing and a sample of the bytes.

mod support;

use std::thread;
use std::time::{Duration, Instant};

use anvil_digest::md5;
use support::content::Content;
use support::node::{Node, scratch};

const OBJECT_COUNT: u64 = 100_000;
const CONNECTION_COUNT: u64 = 32;
const RESTART_TIME_MAX: Duration = Duration::from_secs(30);

#[test]
fn a_hundred_thousand_objects_are_soon_back() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let node = Node::start(&data);
    node.client().put("/many", b"").unwrap().succeeded();
    let begun = Instant::now();
    on_all_connections(&node, |client, number| {
        client.put(&path(number), &content(number).bytes()).unwrap().succeeded();
    });
    let time = begun.elapsed();
    println!("{OBJECT_COUNT} PUTs of 1 KiB over {CONNECTION_COUNT} connections: {time:.1?}");
    node.kill();

    let node = Node::start(&data);
    println!("read by the start: {}", node.recovered());
    println!("restart after SIGKILL with {OBJECT_COUNT} objects: ready after {:.1?}", node.start_time);
    assert!(node.start_time < RESTART_TIME_MAX, "the restart took {:?}", node.start_time);
    let listed = node.client().list("many").unwrap();
    assert_eq!(listed.len() as u64, OBJECT_COUNT);
    for ((key, tag), number) in listed.iter().zip(0..) {
        assert_eq!(*key, format!("object-{number:06}"));
        assert_eq!(*tag, hex::encode(md5(&content(number).bytes())), "{key}");
    }
    on_all_connections(&node, |client, number| {
        if number % 10 == 0 {
            let answer = client.get(&path(number)).unwrap().succeeded();
            assert!(answer.body == content(number).bytes(), "object {number} came back changed");
        }
    });
    let per_entry = node.metric("anvil_store_index_bytes") / node.metric("anvil_store_index_entries");
    println!("memory of the store's index: {per_entry:.1} bytes per record");
    assert!(per_entry < 128.0, "the index takes {per_entry:.0} bytes per record");
    node.stop();

    let node = Node::start(&data);
    println!("restart after SIGTERM with {OBJECT_COUNT} objects: ready after {:.1?}", node.start_time);
    // An orderly stop leaves nothing that has to be read whole.
    let read = node.recovered();
    println!("read by the start: {read}");
    assert!(read.contains("clean=true") && read.contains("extents_scanned=0 "), "{read}");
    assert!(node.start_time < RESTART_TIME_MAX, "the restart took {:?}", node.start_time);
    node.stop();
}

fn on_all_connections(node: &Node, work: impl Fn(&mut support::s3::Client, u64) + Sync) {
    thread::scope(|scope| {
        for connection in 0..CONNECTION_COUNT {
            let (mut client, work) = (node.client(), &work);
            scope.spawn(move || {
                for number in (connection..OBJECT_COUNT).step_by(usize::try_from(CONNECTION_COUNT).expect("small")) {
                    work(&mut client, number);
                }
            });
        }
    });
}

fn path(number: u64) -> String {
    format!("/many/object-{number:06}")
}

fn content(number: u64) -> Content {
    Content { seed: number, length: 1024 }
}
