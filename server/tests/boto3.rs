//! Goal: Python programs find S3 as they know it. Method: `clients/boto3_checks.py` with the installed boto3 against the
//! real binary, one node per group of checks.

mod support;

use support::clients::{python, run};
use support::node::{Node, Options, scratch};

fn check(group: &str) {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    println!("{}", run(python(&node, "boto3_checks.py").arg(group)));
    node.stop();
}

#[test]
fn buckets() {
    check("buckets");
}

#[test]
fn objects() {
    check("objects");
}

#[test]
fn listing() {
    check("listing");
}

#[test]
fn multipart() {
    check("multipart");
}

#[test]
fn checksums() {
    check("checksums");
}

/// Copies are in the log as what was asked for: made anew from it, the index holds the same bytes under the same tags,
/// though their sources are gone.
#[test]
fn copies() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let node = Node::start(&data);
    println!("{}", run(python(&node, "boto3_checks.py").arg("copies")));
    let before = contents(&node);
    assert!(before.len() > 60, "{} objects", before.len());
    node.stop();
    for name in ["metadata.sqlite", "metadata.sqlite-wal", "metadata.sqlite-shm"] {
        let removed = std::fs::remove_file(data.join(name));
        assert!(removed.is_ok() || name != "metadata.sqlite", "{removed:?}");
    }
    let node = Node::start(&data);
    assert_eq!(contents(&node), before);
    node.stop();
}

/// Bucket, key, tag and the hash of the bytes of every object that the checks of copies leave.
fn contents(node: &Node) -> Vec<(&'static str, String, String, [u8; 32])> {
    let mut client = node.client();
    let mut found = Vec::new();
    for bucket in ["copies", "copies-2"] {
        for (key, tag) in client.list(bucket).unwrap() {
            let answer = client.get(&format!("/{bucket}/{key}")).unwrap().succeeded();
            found.push((bucket, key, tag, anvil_digest::sha256(&answer.body)));
        }
    }
    found
}

#[test]
fn virtual_hosts() {
    let scratch = scratch();
    let arguments = ["--domain", "s3.localhost,example.test"].map(str::to_owned).to_vec();
    let node = Node::start_with(&scratch.path().join("data"), &Options { arguments, ..Options::default() });
    println!("{}", run(python(&node, "boto3_checks.py").arg("virtualhosts")));
    node.stop();
}

/// Goal: every form of body is taken or refused by its name, and so is every way to authenticate. Method:
/// `clients/wire_checks.py`, which signs by itself over a socket.
#[test]
fn forms_of_bodies_and_of_authentication() {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    println!("{}", run(&mut python(&node, "wire_checks.py")));
    node.stop();
}

#[test]
fn refusals() {
    check("refusals");
}
