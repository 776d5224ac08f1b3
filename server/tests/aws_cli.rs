//! Goal: the AWS CLI stores and gets back a tree of real files. Method: the installed `aws` against the real binary,
//! every file compared byte for byte.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::Stdio;

use support::clients::{aws, run, run_to_fail};
use support::content::Content;
use support::node::{Node, scratch};
use support::tree::{assert_same, files, write};

/// Sizes at the edges of units, small blobs, windows and the CLI's multipart threshold of 8 MiB.
const SIZES: [(&str, u64); 18] = [
    ("empty", 0),
    ("one", 1),
    ("deep/er/and/deeper/511", 511),
    ("deep/er/4096", 4096),
    ("deep/4097", 4097),
    ("small/64KiB-1", (64 << 10) - 1),
    ("small/64KiB", 64 << 10),
    ("small/64KiB+1", (64 << 10) + 1),
    ("window/1MiB-1", (1 << 20) - 1),
    ("window/1MiB", 1 << 20),
    ("window/1MiB+1", (1 << 20) + 1),
    ("multipart/8MiB-1", (8 << 20) - 1),
    ("multipart/8MiB", 8 << 20),
    ("multipart/8MiB+1", (8 << 20) + 1),
    ("multipart/25MB", 25_000_000),
    ("multipart/100MiB", 100 << 20),
    ("names/with space, Üml@ut & 'quote' + 100% #1?.txt", 777),
    ("names/日本語/ファイル=é;:!*(~).bin", 4242),
];

#[test]
fn a_tree_goes_up_and_comes_back_byte_for_byte() {
    let scratch = scratch();
    let (tree, back, again) = (scratch.path().join("tree"), scratch.path().join("back"), scratch.path().join("again"));
    for ((name, length), seed) in SIZES.into_iter().zip(1..) {
        write(&tree, name, Content { seed, length });
    }
    let node = Node::start(&scratch.path().join("data"));
    run(aws(&node).args(["s3", "mb", "s3://tree"]));

    // cp --recursive both ways.
    run(aws(&node).args(["s3", "cp", "--recursive", "--only-show-errors"]).arg(&tree).arg("s3://tree/cp"));
    run(aws(&node).args(["s3", "cp", "--recursive", "--only-show-errors", "s3://tree/cp"]).arg(&back));
    assert_same(&tree, &back);

    // sync both ways; a second sync finds nothing to do; a change and a deletion are carried over.
    run(aws(&node).args(["s3", "sync", "--only-show-errors"]).arg(&tree).arg("s3://tree/sync"));
    assert_eq!(run(aws(&node).args(["s3", "sync"]).arg(&tree).arg("s3://tree/sync")), "", "nothing has changed");
    run(aws(&node).args(["s3", "sync", "--only-show-errors", "s3://tree/sync"]).arg(&again));
    assert_same(&tree, &again);
    write(&tree, "window/1MiB", Content { seed: 99, length: 1 << 19 });
    fs::remove_file(tree.join("one")).unwrap();
    run(aws(&node).args(["s3", "sync", "--delete", "--only-show-errors"]).arg(&tree).arg("s3://tree/sync"));
    run(aws(&node).args(["s3", "sync", "--delete", "--only-show-errors", "s3://tree/sync"]).arg(&again));
    assert_same(&tree, &again);

    // What ls says is what is there.
    let listing = run(aws(&node).args(["s3", "ls", "--recursive", "s3://tree/sync/"]));
    let listed: BTreeMap<String, u64> = listing.lines().map(listed_line).collect();
    let expected: BTreeMap<String, u64> = files(&tree).map(|(name, length)| (format!("sync/{name}"), length)).collect();
    assert_eq!(listed, expected);
    let top = run(aws(&node).args(["s3", "ls", "s3://tree"]));
    assert_eq!(top.split_whitespace().collect::<Vec<_>>(), ["PRE", "cp/", "PRE", "sync/"]);

    // After an orderly stop and a start, bytes and credentials are still there.
    let credentials = node.credentials.clone();
    node.stop();
    let node = Node::start(&scratch.path().join("data"));
    assert_eq!(node.credentials, credentials);
    fs::remove_dir_all(&again).unwrap();
    run(aws(&node).args(["s3", "sync", "--only-show-errors", "s3://tree/sync"]).arg(&again));
    assert_same(&tree, &again);

    // A bucket with objects stays; without them it goes.
    assert!(run_to_fail(aws(&node).args(["s3", "rb", "s3://tree"])).contains("BucketNotEmpty"));
    run(aws(&node).args(["s3", "rm", "--recursive", "--only-show-errors", "s3://tree/cp"]));
    assert_eq!(
        run(aws(&node).args(["s3", "ls", "s3://tree"])).split_whitespace().collect::<Vec<_>>(),
        ["PRE", "sync/"]
    );
    run(aws(&node).args(["s3", "rm", "--recursive", "--only-show-errors", "s3://tree"]));
    run(aws(&node).args(["s3", "rb", "s3://tree"]));
    assert_eq!(run(aws(&node).args(["s3", "ls"])), "");
    node.stop();
}

#[test]
fn a_pipe_goes_up_and_comes_down() {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    run(aws(&node).args(["s3", "mb", "s3://pipes"]));
    let content = Content { seed: 7, length: (20 << 20) + 5 }.bytes();
    let mut upload =
        aws(&node).args(["s3", "cp", "-", "s3://pipes/stream"]).stdin(Stdio::piped()).spawn().expect("aws starts");
    upload.stdin.take().expect("piped").write_all(&content).unwrap();
    assert!(upload.wait().unwrap().success());
    let download = aws(&node).args(["s3", "cp", "s3://pipes/stream", "-"]).output().expect("aws starts");
    assert!(download.status.success(), "{}", String::from_utf8_lossy(&download.stderr));
    assert!(download.stdout == content, "the stream came back changed");
    assert!(run_to_fail(aws(&node).args(["s3", "cp", "s3://pipes/missing", "-"])).contains("404"));
    assert!(run_to_fail(aws(&node).args(["s3", "ls", "s3://missing"])).contains("NoSuchBucket"));
}

fn listed_line(line: &str) -> (String, u64) {
    // Date, time, size, and the key, which may hold spaces.
    let mut words = line.trim_start().splitn(3, char::is_whitespace);
    let rest = words.nth(2).expect("a size and a key").trim_start();
    let (length, key) = rest.split_once(' ').expect("a key");
    (key.to_owned(), length.parse().expect("a size"))
}
