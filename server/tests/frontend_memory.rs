//! The memory of the frontend does not grow with the size of bodies, nor with what hostile clients send. A process of
//! its own, because the peak is the process's.

#[allow(dead_code)]
#[path = "frontend/harness.rs"]
mod harness;

use anvil::http1::LARGE_HEADS_MAX;
use harness::{Client, Server, patient};

/// The peak of this process's resident memory in bytes (proc_pid_status(5)).
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn memory_is_bounded_whatever_comes() {
    const BODY: u64 = 256 << 20;
    let server = Server::start(patient());
    let mut client = server.connect();
    let block = vec![b'x'; 1 << 20];
    let mut exchange = |length: u64| {
        for framing in [format!("Content-Length: {length}"), "Transfer-Encoding: chunked".to_owned()] {
            client.send(format!("PUT /sum HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n"));
            for _ in 0..length / block.len() as u64 {
                if framing.starts_with('T') {
                    client.send("100000\r\n");
                }
                client.send(&block);
                if framing.starts_with('T') {
                    client.send("\r\n");
                }
            }
            if framing.starts_with('T') {
                client.send("0\r\n\r\n");
            }
            assert!(client.answer().text().starts_with(&format!("{length} ")));
        }
        client.send(format!("GET /object?{length} HTTP/1.1\r\nHost: h\r\n\r\n"));
        client.head();
        for _ in 0..length / block.len() as u64 {
            client.bytes(block.len());
        }
    };
    // What every exchange needs once: the pool, the sockets' buffers, the client's own.
    exchange(8 << 20);
    let before = peak();
    exchange(BODY);
    let grown = peak() - before;
    assert!(grown < 16 << 20, "{grown} bytes more for a body of {BODY}");

    // Heads that do not end: each may hold its limit, in memory of up to twice that. The answers here, which repeat
    // the head, take as much again.
    const CLIENTS: u64 = LARGE_HEADS_MAX as u64;
    let before = peak();
    let mut head = b"GET /show HTTP/1.1\r\nHost: h\r\nA: ".to_vec();
    head.resize(60 << 10, b'a');
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = server.connect();
            client.send(&head);
            client
        })
        .collect();
    // Served now, they were all held in memory until now.
    for client in &mut clients {
        client.send("\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    let grown = peak() - before;
    assert!(grown < CLIENTS * (384 << 10), "{grown} bytes more for {CLIENTS} clients");
    drop(clients);
    server.wait_until("all are gone", |server| server.counters.connections() == 1);
}
