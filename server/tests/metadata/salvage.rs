//! Goal: with the log lost on every disk, each plain PUT comes back byte for byte, and what cannot is named. Method: the
//! binary with four disks; the extents of the log are overwritten with zeros and the data directory is removed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::place::{Place, complaint, told};
use crate::support::content::Content;
use crate::support::node::Node;
use crate::support::s3::{Body, Client};

const PART_BYTES: u64 = 5 << 20;

/// A plain PUT as its client knows it.
#[derive(Debug)]
struct Known {
    content: Content,
    etag: String,
    last_modified: String,
}

fn put(client: &mut Client, objects: &mut BTreeMap<String, Known>, key: &str, content: Content) {
    let stored = client.put(key, &content.bytes()).unwrap().succeeded();
    let etag = stored.head.etag().to_owned();
    let seen = client.get(key).unwrap().succeeded();
    let last_modified = seen.head.header("last-modified").unwrap().to_owned();
    objects.insert(key.to_owned(), Known { content, etag, last_modified });
}

fn verify(node: &Node, objects: &BTreeMap<String, Known>) {
    let mut client = node.client();
    for (key, known) in objects {
        let seen = client.get(key).unwrap().succeeded();
        assert!(seen.body == known.content.bytes(), "{key} has other bytes");
        assert_eq!(seen.head.etag(), known.etag, "{key}");
        let seconds = |date: &str| date.split(' ').nth(4).unwrap().to_owned();
        let (then, now) = (seconds(&known.last_modified), seconds(seen.head.header("last-modified").unwrap()));
        assert!(apart(&then, &now) <= 2, "{key} was written at {then} and is said to be at {now}");
    }
}

/// Seconds between two times of a day.
fn apart(one: &str, other: &str) -> u64 {
    let seconds = |time: &str| time.split(':').fold(0, |sum, part| sum * 60 + part.parse::<u64>().unwrap());
    let (one, other): (u64, u64) = (seconds(one), seconds(other));
    one.abs_diff(other).min(24 * 3600 - one.abs_diff(other))
}

/// Everything that a salvage may meet; gives the plain PUTs that must come back, and those that come back because nobody
/// knows that they were deleted.
fn fill(place: &Place) -> (BTreeMap<String, Known>, BTreeMap<String, Known>) {
    let (mut objects, mut deleted) = (BTreeMap::new(), BTreeMap::new());
    let node = place.start();
    let mut client = node.client();
    for bucket in ["/bucket", "/other", "/empty"] {
        client.put(bucket, b"").unwrap().succeeded();
    }
    for (number, length) in [1, 700, 12_000, 65_536, 300_000, 1_000_000, 5_000_000].into_iter().enumerate() {
        put(&mut client, &mut objects, &format!("/bucket/a b/ü-{number}"), Content { seed: length, length });
    }
    // Enough of them that each disk has copies of some.
    for number in 0..10 {
        put(
            &mut client,
            &mut objects,
            &format!("/bucket/small-{number}"),
            Content { seed: number, length: 100 + number },
        );
    }
    put(&mut client, &mut deleted, "/other/deleted", Content { seed: 3, length: 4_000 });
    client.delete("/other/deleted").unwrap().succeeded();
    client.put("/bucket/nothing", b"").unwrap().succeeded();
    node.kill();

    // A second life, in which keys are overwritten.
    let node = place.start();
    let mut client = node.client();
    for length in [900, 2_000_000] {
        let key = format!("/other/overwritten-{length}");
        put(&mut client, &mut objects, &key, Content { seed: length, length });
        thread::sleep(Duration::from_millis(5));
        put(&mut client, &mut objects, &key, Content { seed: length + 1, length: length + 10 });
    }
    let parts = Content { seed: 5, length: 2 * PART_BYTES + 1_000 };
    client.put_in_parts("/bucket/parts", parts, PART_BYTES).unwrap().succeeded();
    cut_short(&node, &client);
    node.kill();
    (objects, deleted)
}

/// A PUT whose first windows are on the disks, and of which nobody was told.
fn cut_short(node: &Node, client: &Client) {
    let written = || -> f64 {
        let page = node.metrics();
        let samples = page.lines().filter(|line| line.starts_with("anvil_store_appends_total{"));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    // Let the figures, which are up to a second old, hold what was written so far.
    thread::sleep(Duration::from_millis(1_500));
    let before = written();
    let bytes = Content { seed: 9, length: 8 << 20 }.bytes();
    let head = client.head_of("PUT", "/bucket/cut", &[], Body::Signed(&bytes));
    let mut connection = TcpStream::connect(node.address).unwrap();
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(&bytes[..bytes.len() / 2]).unwrap();
    let begun = Instant::now();
    while written() < before + 12.0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "half a PUT is not written");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The lines of the list that have this field.
fn listed<'l>(list: &'l [Value], field: &str) -> Vec<&'l Value> {
    list.iter().filter(|line| !line[field].is_null()).collect()
}

fn read_list(place: &Place) -> Vec<Value> {
    let list = fs::read_to_string(place.data.join("salvage-list.jsonl")).unwrap();
    list.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn plain_puts_come_back_without_the_log_and_parts_as_uploads() {
    let place = Place::new();
    let (objects, deleted) = fill(&place);
    let ask = |words: &[&str]| place.metadata_on(&[0, 1, 2, 3], words);

    let sentence = complaint(&ask(&["rebuild", "--salvage"]), 2);
    assert!(sentence.contains("knows more"), "{sentence}");
    place.lose_data_directory();
    let sentence = complaint(&ask(&["rebuild", "--salvage"]), 1);
    assert!(sentence.contains("--discard-log"), "{sentence}");

    let extents = place.log_extents();
    extents.iter().for_each(|extent| place.wipe(extent));
    // What nobody knows would be swept away.
    let sentence = place.refused();
    assert!(sentence.contains("--salvage --replace"), "{sentence}");
    place.lose_data_directory();
    let sentence = complaint(&ask(&["rebuild"]), 1);
    assert!(sentence.contains("no record of the metadata log"), "{sentence}");
    let report: Value = serde_json::from_str(&told(ask(&["rebuild", "--salvage", "--json"]))).unwrap();
    // With the one that the node keeps for itself, of which there were several, as of two others.
    assert_eq!(report["objects"], objects.len() + deleted.len() + 1, "{report}");
    assert_eq!(report["parts"], 3, "{report}");
    assert!(report["superseded"].as_u64().unwrap() >= 2, "{report}");
    assert_eq!((&report["left_out"], &report["refused"]), (&Value::from(1), &Value::from(0)), "{report}");

    let list = read_list(&place);
    assert!(listed(&list, "not_known").len() > 3);
    let parts = listed(&list, "part");
    assert_eq!(parts.len(), 3);
    assert!(parts.iter().all(|part| part["of"]["key"] == "parts"), "{parts:?}");
    let [cut] = &listed(&list, "left_out")[..] else { panic!("{list:?}") };
    assert_eq!((cut["was"]["key"].as_str(), cut["was"]["size"].as_u64()), (Some("cut"), Some(8 << 20)), "{cut}");
    assert!(cut["why"].as_str().unwrap().contains("cannot be read to its end"), "{cut}");
    let upload = parts[0]["upload"].as_str().unwrap();

    let node = place.start();
    verify(&node, &objects);
    verify(&node, &deleted);
    let mut client = node.client();
    assert_eq!(client.get("/bucket/parts").unwrap().status(), 404);
    assert_eq!(client.get("/bucket/nothing").unwrap().status(), 404);
    // Whoever knows the list completes the upload.
    let listed =
        client.request("GET", "/bucket/parts", &[("uploadId", upload)], &[], Body::Signed(b"")).unwrap().succeeded();
    let tags: Vec<_> = listed.elements("ETag").iter().map(|tag| tag.trim_matches('"').to_owned()).collect();
    client.complete("/bucket/parts", upload, &tags).unwrap().succeeded();
    let parts = Content { seed: 5, length: 2 * PART_BYTES + 1_000 };
    assert!(client.get("/bucket/parts").unwrap().succeeded().body == parts.bytes());
    // The node goes on as any other.
    client.put("/bucket/later", b"later").unwrap().succeeded();
    node.kill();
    place.lose_data_directory();
    let node = place.start();
    verify(&node, &objects);
    assert_eq!(node.client().get("/bucket/later").unwrap().succeeded().body, b"later");
    assert!(node.client().get("/bucket/parts").unwrap().succeeded().body == parts.bytes());
    node.stop();
    assert!(told(place.metadata(&["rebuild"])).contains("says what the log says"));
}

#[test]
fn what_one_disk_of_four_cannot_give_is_named_and_the_rest_is_back() {
    let mut place = Place::new();
    let (mut objects, deleted) = fill(&place);
    place.lose_data_directory();
    // It has a shard of each large object, and a copy of most small ones.
    let report = told(place.metadata_on(&[0], &["rebuild", "--salvage", "--discard-log", "--json"]));
    let report: Value = serde_json::from_str(&report).unwrap();
    let left_out = report["left_out"].as_u64().unwrap();
    assert!(left_out > 0, "{report}");
    let list = read_list(&place);
    let lost: Vec<&Value> = listed(&list, "left_out");
    assert_eq!(lost.len() as u64, left_out);
    assert!(lost.iter().all(|line| line["why"].as_str().unwrap().contains("cannot be read to its end")), "{lost:?}");
    let back: Vec<String> = listed(&list, "object")
        .iter()
        .map(|line| {
            format!("/{}/{}", line["object"]["bucket"].as_str().unwrap(), line["object"]["key"].as_str().unwrap())
        })
        .collect();
    // The copies of a newer version may all be on disks that are lost: then the older one is back.
    objects.retain(|key, _| back.contains(key) && !key.contains("overwritten"));
    let large: Vec<_> = objects.iter().filter(|(_, known)| known.content.length > 12_000).collect();
    assert!(large.is_empty(), "one disk has them wholly: {large:?}");
    assert!(!objects.is_empty(), "no copy is on the disk: {list:?}");
    place.disks.truncate(1);
    let node = place.start_narrow();
    verify(&node, &objects);
    verify(&node, &deleted.into_iter().filter(|(key, _)| back.contains(key)).collect());
    node.stop();
}

#[test]
fn a_node_does_not_start_over_half_a_salvage() {
    let place = Place::new();
    let (objects, _) = fill(&place);
    fs::write(place.data.join("salvage.json"), b"{\"version\":1}").unwrap();
    let sentence = place.refused();
    assert!(sentence.contains("cut short"), "{sentence}");
    assert!(complaint(&place.metadata(&["rebuild"]), 1).contains("cut short"));
    // The salvage itself goes over it, and takes what is there of a log for its own.
    told(place.metadata(&["rebuild", "--salvage", "--replace"]));
    let node = place.start();
    verify(&node, &objects);
    node.stop();
}
