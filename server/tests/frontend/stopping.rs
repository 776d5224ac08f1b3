//! The end of a node as its clients see it.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anvil::http1::Settings;

use crate::harness::{Server, TOO_LONG, patient};

#[test]
fn a_stopping_node_closes_idle_connections_and_finishes_running_requests() {
    let server = Server::start(Settings { stop_timeout: TOO_LONG, ..patient() });
    let mut idle = server.connect();
    idle.send("GET /status?200 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(idle.answer().status, 200);
    let mut silent = server.connect();
    let mut running = server.connect();
    running.send("GET /gate HTTP/1.1\r\nHost: h\r\n\r\n");
    server.wait_until("the request runs", |server| *server.at_gate.borrow() == 1);
    server.wait_until("all are there", |server| server.counters.connections() == 3);

    server.stop();
    idle.assert_closed();
    silent.assert_closed();
    server.wait_until("nobody listens", |server| TcpStream::connect(server.address).is_err());
    server.gate.notify_one();
    let answer = running.answer();
    assert!(answer.text() == "open" && answer.closes(), "{answer:?}");
    running.shutdown();
    running.assert_closed();
    server.join();
}

#[test]
fn a_request_that_does_not_finish_does_not_keep_the_node() {
    let server = Server::start(Settings { stop_timeout: Duration::from_millis(50), ..patient() });
    let mut running = server.connect();
    running.send("GET /gate HTTP/1.1\r\nHost: h\r\n\r\n");
    server.wait_until("the request runs", |server| *server.at_gate.borrow() == 1);
    let began = Instant::now();
    server.stop();
    assert_eq!(running.discard(), 0);
    assert!(began.elapsed() >= Duration::from_millis(50));
    assert_eq!(server.counters.connections(), 0);
    server.join();
}
