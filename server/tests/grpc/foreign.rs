//! Goal: a program in another language calls AdminService as its library does. Method: `clients/grpc_checks.py`, grpcio
//! with code made from our .proto files, against the real binary.

use std::path::Path;

use crate::support::clients::{python, run};
use crate::support::node::{Node, Options, scratch};

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
