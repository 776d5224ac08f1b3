//! Goal: the index can be made again from any survivor of the log, and is row by row what it was. Method: the binary with
//! four disks under random work; disks, data directory and rows are taken away or changed between its lives.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;
use serde_json::Value;

use crate::place::{Place, complaint, text, told};
use crate::support::content::{Content, Random};
use crate::support::node::{self, Node};
use crate::support::s3::{Body, Client};

const OPERATIONS: u64 = 2_000;
const KEYS: u64 = 60;
const PART_BYTES: u64 = 5 << 20;

/// What a key holds; its tag is what the server said.
type Objects = BTreeMap<String, (Content, String)>;

/// Changes of all kinds, most of them small.
fn work(client: &mut Client, random: &mut Random, objects: &mut Objects, operations: u64) {
    for seed in 0..operations {
        let key = format!("/bucket/key-{:02}", random.below(KEYS));
        let seed = random.next() ^ seed;
        match random.below(100) {
            0..55 => {
                let length = [0, 1, 700, 5_000, 60_000][random.below(5) as usize];
                put(client, objects, key, Content { seed, length });
            }
            55..58 => put(client, objects, key, Content { seed, length: 1_500_000 + random.below(1_000_000) }),
            58..75 => {
                client.delete(&key).unwrap().succeeded();
                objects.remove(&key);
            }
            75..90 => copy(client, random, objects, key),
            90..96 => leave_upload(client, random, &key, seed),
            96..97 => {
                let content = Content { seed, length: PART_BYTES + 100_000 };
                let answer = client.put_in_parts(&key, content, PART_BYTES).unwrap().succeeded();
                let tag = answer.elements("ETag").pop().unwrap().trim_matches('"').to_owned();
                objects.insert(key, (content, tag));
            }
            _ => {
                let bucket = format!("/bucket-{}", random.below(5));
                let made = client.put(&bucket, b"").unwrap().status();
                if made == 409 {
                    client.delete(&bucket).unwrap().succeeded();
                }
            }
        }
    }
}

fn put(client: &mut Client, objects: &mut Objects, key: String, content: Content) {
    let stored = client.put(&key, &content.bytes()).unwrap().succeeded();
    objects.insert(key, (content, stored.head.etag().to_owned()));
}

fn copy(client: &mut Client, random: &mut Random, objects: &mut Objects, key: String) {
    let from: Vec<_> = objects.keys().cloned().collect();
    if from.is_empty() {
        return;
    }
    let from = &from[random.below(from.len() as u64) as usize];
    if *from == key {
        return;
    }
    let answer = client.request("PUT", &key, &[], &[("x-amz-copy-source", from)], Body::Signed(b"")).unwrap();
    let tag = answer.succeeded().elements("ETag").pop().unwrap().trim_matches('"').to_owned();
    let (content, _) = objects[from];
    objects.insert(key, (content, tag));
}

/// An upload with parts, which stays or is aborted.
fn leave_upload(client: &mut Client, random: &mut Random, key: &str, seed: u64) {
    let created = client.request("POST", key, &[("uploads", "")], &[], Body::Signed(b"")).unwrap().succeeded();
    let upload = created.elements("UploadId").pop().unwrap();
    for number in 1..=1 + random.below(3) {
        let content = Content { seed: seed ^ number, length: random.below(20_000) };
        client.put_part(key, &upload, number, Body::Signed(&content.bytes())).unwrap().succeeded();
    }
    if random.below(2) == 0 {
        client.request("DELETE", key, &[("uploadId", &upload)], &[], Body::Signed(b"")).unwrap().succeeded();
    }
}

fn verify(node: &Node, objects: &Objects) {
    let mut client = node.client();
    let mut listed: Vec<_> = client.list("bucket").unwrap();
    listed.sort();
    let expected: Vec<_> =
        objects.iter().map(|(key, (_, tag))| (key.strip_prefix("/bucket/").unwrap().to_owned(), tag.clone())).collect();
    assert_eq!(listed, expected);
    for (key, (content, _)) in objects {
        assert!(client.get(key).unwrap().succeeded().body == content.bytes(), "{key} has other bytes");
    }
}

/// The counts of a comparison: rows by the log, and how many differ.
fn compared(report: &str) -> BTreeMap<String, (u64, u64)> {
    let report: Value = serde_json::from_str(report).unwrap();
    let tables = report["compared"]["tables"].as_array().unwrap_or_else(|| panic!("{report}")).iter();
    let number = |table: &Value, name: &str| table[name].as_u64().unwrap();
    tables
        .map(|table| {
            let name = table["table"].as_str().unwrap().to_owned();
            (name, (number(table, "rows"), number(table, "differences")))
        })
        .collect()
}

#[test]
fn an_index_made_anew_is_row_by_row_what_it_was() {
    let place = Place::new();
    let mut random = Random(1);
    let mut objects = Objects::new();
    let node = place.start();
    let mut client = node.client();
    client.put("/bucket", b"").unwrap().succeeded();
    work(&mut client, &mut random, &mut objects, OPERATIONS);
    let parts = Content { seed: 7, length: PART_BYTES + 1 };
    let stored = client.put_in_parts("/bucket/parts", parts, PART_BYTES).unwrap().succeeded();
    let tag = stored.elements("ETag").pop().unwrap().trim_matches('"').to_owned();
    objects.insert("/bucket/parts".to_owned(), (parts, tag));

    let sentence = complaint(&place.metadata(&["rebuild"]), 1);
    assert!(sentence.contains("in use by another"), "{sentence}");
    let elsewhere = place.path("elsewhere");
    let words = ["rebuild", "--disk", place.disks[0].to_str().unwrap(), "--data-dir", elsewhere.to_str().unwrap()];
    let output = Command::new(node::anvil()).args(["admin", "metadata"]).args(words).output().unwrap();
    assert!(complaint(&output, 1).contains("in use"), "{}", text(&output.stderr));

    // A crash leaves an index that lags, and a last batch of which only a start says whether it counts.
    node.kill();
    let crashed = compared(&told(place.metadata(&["rebuild", "--json"])));
    let node = place.start();
    work(&mut node.client(), &mut random, &mut objects, OPERATIONS / 10);
    verify(&node, &objects);
    node.stop();
    let stopped = compared(&told(place.metadata(&["rebuild", "--json"])));
    for tables in [&crashed, &stopped] {
        for table in
            ["blobs", "buckets", "counters", "garbage", "heads", "parts", "segments", "uploads", "writers", "writes"]
        {
            assert!(tables[table].0 > 0, "{table}: {tables:?}");
        }
        assert!(tables.values().all(|(_, differ)| *differ == 0), "{tables:?}");
    }
    assert!(told(place.metadata(&["rebuild"])).contains("says what the log says"));

    // Rows that are not what the log says.
    let path = place.data.join("metadata.sqlite");
    let index = Connection::open(&path).unwrap();
    let changed: String = index
        .query_row("SELECT CAST(key AS TEXT) FROM heads WHERE bucket = 2 ORDER BY key LIMIT 1", [], |row| row.get(0))
        .unwrap();
    index.execute("UPDATE heads SET etag = 'forged', size = 77 WHERE CAST(key AS TEXT) = ?1", [&changed]).unwrap();
    index.execute("DELETE FROM blobs WHERE blob = (SELECT max(blob) FROM blobs)", []).unwrap();
    index.execute("INSERT INTO garbage VALUES (1, zeroblob(16), 5)", []).unwrap();
    drop(index);
    let output = place.metadata(&["rebuild"]);
    let report = text(&output.stdout);
    assert!(complaint(&output, 1).contains("3 rows"), "{report}");
    for told in [
        format!("differs: heads, bucket 2, key \"{changed}\": etag is \"forged\" and by the log \""),
        "; size is 77 and by the log ".to_owned(),
        "differs: blobs, blob 0x".to_owned(),
        "only the log has it".to_owned(),
        "differs: garbage, generation 1, blob 0x00000000000000000000000000000000: only the old index has it".to_owned(),
    ] {
        assert!(report.contains(&told), "{told} is not in\n{report}");
    }
    assert!(told(place.metadata(&["rebuild", "--replace"])).contains("the new index is in place"));
    assert!(place.data.join("metadata.sqlite.old").exists());
    assert!(compared(&told(place.metadata(&["rebuild", "--json"]))).values().all(|(_, differ)| *differ == 0));

    // One that is damaged.
    fs::write(&path, b"SQLite format 3\0 and nothing more").unwrap();
    assert!(complaint(&place.metadata(&["rebuild"]), 1).contains("cannot be read"));
    told(place.metadata(&["rebuild", "--replace"]));
    exported(&place, &objects);
    let node = place.start();
    verify(&node, &objects);
    node.stop();
}

/// The tasks of a node's disks.
const OWN_OBJECTS: usize = 1;

/// Every object has its line.
fn exported(place: &Place, objects: &Objects) {
    let lines = told(place.metadata(&["export"]));
    let mut lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let head = lines.next().unwrap();
    assert_eq!((head["format"].as_str(), head["version"].as_u64()), (Some("anvil metadata"), Some(1)), "{head}");
    let heads: BTreeMap<String, String> = lines
        .filter(|line| line["table"] == "heads")
        .map(|line| {
            let column = |name: &str| line["row"][name].as_str().unwrap().to_owned();
            (format!("/bucket/{}", column("key")), column("etag"))
        })
        .collect();
    // And what the node keeps for itself, in a bucket of its own.
    let (own, heads): (BTreeMap<_, _>, BTreeMap<_, _>) =
        heads.into_iter().partition(|(key, _)| key == "/bucket/tasks/queue.json");
    assert_eq!(own.len(), OWN_OBJECTS);
    assert_eq!(heads, objects.iter().map(|(key, (_, tag))| (key.clone(), tag.clone())).collect());
}

#[test]
fn two_disks_of_the_log_and_the_data_directory_are_lost_and_everything_reads() {
    let place = Place::new();
    let mut objects = Objects::new();
    let node = place.start();
    let mut client = node.client();
    client.put("/bucket", b"").unwrap().succeeded();
    work(&mut client, &mut Random(2), &mut objects, 300);
    // One disk alone cannot say whether the last batch counts: it is one that no object needs.
    client.put("/last", b"").unwrap().succeeded();
    node.kill();

    let mut holders: Vec<usize> = place.log_extents().iter().map(|extent| extent.disk).collect();
    holders.sort_unstable();
    holders.dedup();
    assert!(holders.len() >= 3, "the log is on m+1 disks: {holders:?}");
    let before = told(place.metadata(&["rebuild", "--json"]));
    for &disk in &holders[..2] {
        fs::remove_dir_all(&place.disks[disk]).unwrap();
    }
    place.lose_data_directory();

    // Any one survivor knows it all.
    let after = told(place.metadata_on(&holders[2..3], &["rebuild", "--json"]));
    let field = |report: &str, name: &str| serde_json::from_str::<Value>(report).unwrap()[name].clone();
    assert_eq!(field(&after, "in_place"), true);
    assert_eq!(field(&after, "history"), field(&before, "history"));
    assert_eq!(field(&after, "rows")["heads"], objects.len() + OWN_OBJECTS);

    // The two that are left are enough for the node; what is blank is not taken for new.
    for &disk in &holders[..2] {
        fs::create_dir(&place.disks[disk]).unwrap();
    }
    for index in ["made", "lost"] {
        if index == "lost" {
            place.lose_data_directory();
        }
        let node = place.start();
        verify(&node, &objects);
        node.kill();
    }
}

#[test]
fn an_interrupted_rebuild_leaves_everything_as_it_was() {
    let place = Place::new();
    let node = place.start();
    node.client().put("/bucket", b"").unwrap().succeeded();
    node.stop();
    let index = fs::read(place.data.join("metadata.sqlite")).unwrap();
    // What an earlier rebuild left that was killed is no obstacle, and does not stay.
    fs::write(place.data.join("metadata.sqlite.new"), b"half").unwrap();
    let mut rebuild = Command::new(node::anvil());
    rebuild.args(["admin", "metadata", "rebuild", "--replace", "--data-dir"]).arg(&place.data);
    let mut child = rebuild.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    let status = loop {
        // However far it has come.
        kill(pid, Signal::SIGINT).unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
    };
    // It may have been done before the first signal was heeded.
    if !status.success() {
        assert_eq!(fs::read(place.data.join("metadata.sqlite")).unwrap(), index);
    }
    place.start().stop();
    told(place.metadata(&["rebuild"]));
    let names: Vec<_> = fs::read_dir(&place.data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains(".new")), "{names:?}");
}
