//! Goal: a program in another language calls the services as its library does. Method: `clients/grpc_*.py`, grpcio with
//! code made from our .proto files (and boto3 beside it), and `clients/grpc_node.js`, which reads them as they are, against the
//! real binary.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::support::clients::{grpc_js, python, run};
use crate::support::node::{self, Node, Options, scratch};

#[test]
fn grpcio_administrates() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let arguments = ["--storage-class", "COLD=1+0", "--storage-class", "STANDARD=1+0"].map(str::to_owned).to_vec();
    let node = Node::start_with(&data, &Options { arguments, ..Options::default() });
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let mut command = python(&node, "grpc_checks.py");
    // grpcio looks for proxies by itself.
    command.arg(protos).arg(node.address.to_string()).arg(&data).env("GRPC_ENABLE_FORK_SUPPORT", "0");
    println!("{}", run(&mut command));
    node.stop();
}

#[test]
fn grpcio_stores_what_boto3_reads_and_reads_what_it_stores() {
    let scratch = scratch();
    let arguments = ["--storage-class", "STANDARD=2+1", "--buffer-memory", "64MiB"].map(str::to_owned);
    let disks = ["a", "b", "c"].map(|name| scratch.path().join(name).display().to_string());
    let disks = disks.iter().flat_map(|disk| ["--disk".to_owned(), disk.clone()]);
    let arguments = arguments.into_iter().chain(disks).collect();
    let node = Node::start_with(&scratch.path().join("data"), &Options { arguments, ..Options::default() });
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let mut command = python(&node, "grpc_objects.py");
    command.arg(protos).arg(node.address.to_string()).arg(node.pid().to_string()).env("GRPC_ENABLE_FORK_SUPPORT", "0");
    println!("{}", run(&mut command));
    node.stop();
}

#[test]
fn grpc_js_stores_and_reads() {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    match grpc_js(&node, "grpc_node.js") {
        Some(mut command) => println!("{}", run(command.arg(protos).arg(node.address.to_string()))),
        None => println!("LEFT OUT: Node.js or @grpc/grpc-js is not here."),
    }
    node.stop();
}

#[test]
fn a_write_goes_on_after_its_node_was_killed() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let state = scratch.path().join("begun.json");
    let script = |node: &Node, phase: &str| {
        let mut command = python(node, "grpc_resumable.py");
        command.arg(&protos).arg(node.address.to_string()).arg(phase).arg(&state);
        command.env("GRPC_ENABLE_FORK_SUPPORT", "0");
        command
    };
    let node = Node::start(&data);
    let mut writer = script(&node, "begin").stdout(Stdio::piped()).spawn().expect("python runs");
    let mut lines = BufReader::new(writer.stdout.take().expect("piped")).lines();
    let said = lines.next().and_then(Result::ok);
    if said.as_deref() == Some("acknowledged") {
        node.kill();
    }
    let ended = writer.wait().expect("it is our child");
    assert_eq!((said.as_deref(), ended.code()), (Some("acknowledged"), Some(0)));
    let node = Node::start(&data);
    println!("{}", run(&mut script(&node, "finish")));
    node.stop();
}

#[test]
fn apps_share_their_rights_and_lose_them_at_once() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let node = Node::start(&data);
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let mut command = python(&node, "grpc_access.py");
    command.arg(protos).arg(node.address.to_string()).arg(node::anvil()).arg(&data);
    println!("{}", run(command.env("GRPC_ENABLE_FORK_SUPPORT", "0")));
    node.stop();
}
