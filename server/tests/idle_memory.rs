//! Goal: clients that are connected, have asked for something and ask for nothing now, cost a node little.
//! Method: the resident memory of a real node before they come and while they are all there.

#[allow(dead_code)]
#[path = "http2/client.rs"]
mod client;
mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use client::{Client, Outcome, request};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::node::{Node, Options, scratch};

/// What [`CONNECTIONS`] may cost. Of one of HTTP/2 `h2` alone keeps three buffers, of which a page each was written to, and
/// tables: 17 KiB.
const HTTP1_BYTES_MAX: u64 = 200 << 20;
const HTTP2_BYTES_MAX: u64 = 200 << 20;
const CONNECTIONS: u64 = 10_000;
/// Of them, those that are opened side by side.
const SIDE_BY_SIDE: u64 = 50;
/// Longer than anything takes that works.
const TOO_LONG: Duration = Duration::from_secs(60);
/// Descriptors that a process needs for other things.
const OTHER_FILES: u64 = 1_000;

/// As many connections as can be had here, if 10,000 cannot: a process has so many descriptors, a core so many connections. Behind it
/// the descriptors that a node may have, for `prlimit`: few, unless it asks for more.
fn connections() -> (u64, String) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let files = hard.min(CONNECTIONS + OTHER_FILES);
    if soft < files {
        setrlimit(Resource::RLIMIT_NOFILE, files, hard).unwrap();
    }
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    (CONNECTIONS.min(files - OTHER_FILES).min(cores * 8_000), format!("--nofile=1024:{files}"))
}

fn has_huge_pages_everywhere() -> bool {
    let mode = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    mode.is_ok_and(|mode| mode.contains("[always]"))
}

/// The connections that the node has found to speak this.
fn speaking(node: &Node, protocol: &str) -> f64 {
    let page = node.metrics();
    let label = format!("protocol=\"{protocol}\"");
    let samples = page.lines().filter(|line| line.starts_with("anvil_connections{") && line.contains(&label));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Opens connections by `begin`, has each answered by `end`, and looks at what they cost while they are open.
fn check<C>(protocol: &str, bytes_max: u64, begin: impl Fn(SocketAddr) -> C, end: impl Fn(&mut C)) {
    let (count, files) = connections();
    let scratch = scratch();
    // Here 75 s may not be enough to open them all. What is given back goes at once: what a start leaves behind for a while would
    // count as there before, or not. Where all memory is of huge pages, whoever means it or not, a buffer costs what it has room for.
    let environment = [("ANVIL_IDLE_TIMEOUT", "1h"), ("MIMALLOC_PURGE_DELAY", "0"), ("MIMALLOC_ALLOW_THP", "0")];
    let environment = environment[..if has_huge_pages_everywhere() { 3 } else { 2 }].iter();
    let environment = environment.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let prefix = vec!["prlimit".to_owned(), files];
    let node = Node::start_with(&scratch.path().join("data"), &Options { prefix, environment, ..Options::default() });
    // What a node takes once, as soon as it serves.
    for _ in 0..20 {
        let mut guests: Vec<C> = (0..SIDE_BY_SIDE).map(|_| begin(node.address)).collect();
        guests.iter_mut().for_each(&end);
    }
    let before = node.memory_bytes("VmRSS");
    let mut open = Vec::new();
    while (open.len() as u64) < count {
        let batch = SIDE_BY_SIDE.min(count - open.len() as u64);
        let begun = open.len();
        open.extend((0..batch).map(|_| begin(node.address)));
        open[begun..].iter_mut().for_each(&end);
    }
    let grown = node.memory_bytes("VmRSS").saturating_sub(before);
    assert!(speaking(&node, protocol) >= count as f64, "all of them are there");
    println!("{count} idle connections of {protocol} take {} KiB, {} bytes each", grown >> 10, grown / count);
    assert!(grown < bytes_max * count / CONNECTIONS, "{grown} bytes for {count} idle connections of {protocol}");
    drop(open);
    node.stop();
}

/// One after the other: together they would need more descriptors than this process may have.
#[test]
fn idle_connections_cost_little() {
    of_http1();
    of_http2();
}

fn of_http2() {
    let begin = |address| {
        let mut client = Client::connect(address);
        let mut fields = request("POST", "/grpc.health.v1.Health/Check");
        fields.extend([("content-type", "application/grpc"), ("te", "trailers")]);
        let stream = client.begin(&fields, false);
        client.data(stream, &[0; 5], true);
        (client, stream)
    };
    check("http2", HTTP2_BYTES_MAX, begin, |(client, stream)| {
        let outcome = client.outcome(*stream);
        // One message, which says that it serves.
        assert_eq!(outcome, Outcome::Answer { status: 200, body: vec![0, 0, 0, 0, 2, 8, 1] });
    });
}

fn of_http1() {
    let begin = |address| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TOO_LONG)).unwrap();
        stream.write_all(b"GET /bucket/key HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        stream
    };
    check("http1", HTTP1_BYTES_MAX, begin, |stream| {
        let mut answer = Vec::new();
        while !answer.ends_with(b"</Error>") {
            let mut some = [0; 4096];
            let count = stream.read(&mut some).unwrap();
            assert!(count > 0, "the connection stays open");
            answer.extend_from_slice(&some[..count]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 403 "), "nobody reads without a name");
    });
}
