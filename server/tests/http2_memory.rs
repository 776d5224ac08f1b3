//! What HTTP/2 clients send and nobody takes is bounded by the windows of a core, and is given back. A process of its
//! own, because the peak is the process's.

#[allow(dead_code)]
#[path = "http2/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "frontend/harness.rs"]
mod harness;

use anvil::http2::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, WINDOW_BYTES_PER_CORE};
use client::{Client, Outcome, request};
use harness::{Server, patient};

/// The peak of this process's resident memory in bytes (proc_pid_status(5)).
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// A client that fills every window that it is given, with bodies that nobody reads. The first ones are given large
/// windows, the others those that the protocol begins with.
fn fill(server: &Server, is_large: bool) -> Client {
    let mut client = Client::connect(server.address);
    client.ping();
    let block = vec![b'x'; 16 << 10];
    let streams = CONNECTION_WINDOW_BYTES / STREAM_WINDOW_BYTES;
    for _ in 0..if is_large { streams } else { 1 } {
        let stream = client.begin(&request("PUT", "/gate"), false);
        let blocks = if is_large { STREAM_WINDOW_BYTES as usize / block.len() } else { 3 };
        for _ in 0..blocks {
            client.data(stream, &block, false);
        }
    }
    client.ping();
    client
}

#[test]
fn what_nobody_takes_is_bounded_and_given_back() {
    const LARGE: usize = WINDOW_BYTES_PER_CORE / CONNECTION_WINDOW_BYTES as usize;
    let server = Server::start(patient());
    let round = || {
        let clients: Vec<Client> = (0..LARGE + 50).map(|at| fill(&server, at < LARGE)).collect();
        let mut guest = Client::connect(server.address);
        let object = guest.ask(&request("GET", "/object?3000000"), b"");
        assert!(matches!(object, Outcome::Answer { status: 200, body } if body.len() == 3_000_000));
        drop((clients, guest));
        server.wait_until("all are gone", |server| server.counters.connections() == 0);
    };
    let before = peak();
    round();
    let first = peak();
    let windows = WINDOW_BYTES_PER_CORE as u64;
    assert!(first - before > windows / 2, "the bodies were held: {}", first - before);
    assert!(first - before < windows + (64 << 20), "{} bytes for windows of {windows}", first - before);
    round();
    assert!(peak() - first < 32 << 20, "{} bytes more in the second round", peak() - first);
}
