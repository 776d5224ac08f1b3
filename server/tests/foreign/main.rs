//! Goal: the tools that people use with S3 work against Anvil as they come. Method: each installed client against the
//! real binary, with its own commands; what it stored is compared with what it was given.

#[path = "../support/mod.rs"]
mod support;

mod mc;
mod pyarrow;
mod rclone;
mod s3cmd;
mod warp;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::content::Content;
use support::node::Node;
use support::tree::write;

/// Some files with difficult names, of sizes on both sides of 5 MiB parts.
fn make_tree(tree: &Path) {
    let sizes = [
        ("empty", 0),
        ("small/one byte", 1),
        ("small/64 KiB + 1", (64 << 10) + 1),
        ("names/Üml@ut & 'quote' + 100% #1.txt", 777),
        ("names/日本語=é;!(~).bin", 4242),
        ("large/5 MiB", 5 << 20),
        ("large/12 MB", 12_000_000),
    ];
    for ((name, length), seed) in sizes.into_iter().zip(1..) {
        write(tree, name, Content { seed, length });
    }
}

/// Head and body of the answer to a GET without credentials.
fn plain_get(node: &Node, target: &str) -> String {
    let mut stream = TcpStream::connect(node.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", node.address).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// What a plain GET of a presigned URL gives, without any credentials.
fn fetch(url: &str) -> Vec<u8> {
    let script = "import sys, urllib.request as u
opener = u.build_opener(u.ProxyHandler({}))
sys.stdout.buffer.write(opener.open(sys.argv[1], timeout=30).read())";
    let output = Command::new("python3").args(["-c", script, url]).output().expect("python3 starts");
    assert!(output.status.success(), "GET {url}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
