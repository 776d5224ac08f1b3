//! Goal: under the seccomp profile of `docs/deploy` a node does all that it does, with io_uring; and where a host forbids
//! io_uring it serves all the same. Method: the profile, loaded before the real binary, with and without those calls.

use std::fs;

use crate::daemon::repository;
use crate::support::clients::{aws, find, run};
use crate::support::content::Content;
use crate::support::node::{Node, Options, scratch};
use crate::support::tree::{assert_same, write};

fn serves(without: &str, driver: &str) {
    let scratch = scratch();
    let words = [
        find("python3").into_os_string().into_string().unwrap(),
        repository("server/tests/clients/with_seccomp.py").display().to_string(),
        repository("docs/deploy/seccomp.json").display().to_string(),
        without.to_owned(),
    ];
    let data = scratch.path().join("data");
    let directories: Vec<String> =
        (0..4).map(|n| scratch.path().join(format!("disk{n}")).display().to_string()).collect();
    directories.iter().for_each(|directory| fs::create_dir(directory).unwrap());
    let arguments: Vec<String> = directories.iter().flat_map(|path| ["--disk".to_owned(), path.clone()]).collect();
    let mut options = Options { prefix: words.to_vec(), arguments, ..Options::default() };
    if without == "-" {
        options.arguments.extend(["--io".to_owned(), "uring".to_owned()]);
    }
    let node = Node::start_with(&data, &options);
    assert!(
        node.metrics().lines().any(|line| line.contains(&format!("driver=\"{driver}\"")) && line.ends_with(" 1.0"))
    );
    let (tree, back) = (scratch.path().join("tree"), scratch.path().join("back"));
    for (name, length) in [("empty", 0), ("small", 4097), ("large", 20_000_000)] {
        write(&tree, name, Content { seed: length, length });
    }
    run(aws(&node).args(["s3", "mb", "s3://bucket"]));
    run(aws(&node).args(["s3", "cp", "--recursive", "--only-show-errors"]).arg(&tree).arg("s3://bucket"));
    node.stop();
    let node = Node::start_with(&data, &options);
    run(aws(&node).args(["s3", "sync", "--only-show-errors", "s3://bucket"]).arg(&back));
    assert_same(&tree, &back);
    run(aws(&node).args(["s3", "rm", "--recursive", "--only-show-errors", "s3://bucket"]));
    node.stop();
}

#[test]
fn a_node_serves_under_the_profile() {
    serves("-", "uring");
}

#[test]
fn a_node_serves_without_io_uring() {
    serves("io_uring", "blocking");
}
