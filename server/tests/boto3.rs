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

#[test]
fn copies() {
    check("copies");
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
