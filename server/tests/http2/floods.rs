//! Clients that send or hold more than they should.

use std::time::Duration;

use anvil::http1::Settings;
use anvil::http2::STREAMS_MAX;

use crate::client::*;
use crate::harness::{Server, patient, pattern};

#[track_caller]
fn assert_served(server: &Server) {
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask(&request("GET", "/bytes?1"), b"").answer(), (200, "x".to_owned()));
}

/// SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW: u16 = 4;

/// CVE-2023-44487.
#[test]
fn requests_that_are_taken_back_by_the_thousand_end_the_connection() {
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    let head = block(&request("GET", "/gate"));
    for batch in 0..500_u32 {
        let pairs = (0..100).map(|at| 1 + 2 * (batch * 100 + at)).flat_map(|stream| {
            let head = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head);
            [head, frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
        });
        if !client.try_send(pairs.collect::<Vec<u8>>()) {
            break;
        }
    }
    assert_eq!(client.rest(), Some(ENHANCE_YOUR_CALM));
    assert_served(&server);
    server.wait_until("none runs", |server| server.metrics.render().contains("anvil_requests_in_flight 0.0\n"));
}

#[test]
fn a_head_without_an_end_ends_the_connection() {
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    client.send(frame(HEADERS, END_STREAM, 1, &block(&request("GET", "/"))));
    let piece = block(&[("x-a", &"a".repeat(1000))]).repeat(15);
    let mut sent = 0;
    while client.try_send(frame(CONTINUATION, 0, 1, &piece)) {
        sent += piece.len();
        assert!(sent < 64 << 20, "a head of {sent} bytes is still read");
    }
    assert!(client.rest().is_none_or(|code| code == ENHANCE_YOUR_CALM || code == COMPRESSION_ERROR));
    // The same with frames of nothing.
    let mut client = Client::connect(server.address);
    client.send(frame(HEADERS, END_STREAM, 1, &block(&request("GET", "/"))));
    let empty = frame(CONTINUATION, 0, 1, &[]).repeat(1000);
    let mut sent = 0;
    while client.try_send(&empty) {
        sent += 1000;
        assert!(sent < 10_000_000, "{sent} empty frames, and the head is still waited for");
    }
    assert_served(&server);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    let value = "a".repeat(10_000);
    let fields = [&request("GET", "/bytes?1")[..], &[("x-a", value.as_str()); 8]].concat();
    let whole = block(&fields);
    let mut pieces = whole.chunks(16 << 10);
    client.send(frame(HEADERS, END_STREAM, 1, pieces.next().unwrap()));
    let count = pieces.len();
    for (at, piece) in pieces.enumerate() {
        client.send(frame(CONTINUATION, if at + 1 == count { END_HEADERS } else { 0 }, 1, piece));
    }
    match client.outcome(1) {
        Outcome::Answer { status, .. } => assert_eq!(status, 431),
        outcome => panic!("{outcome:?}"),
    }
    assert_served(&server);
}

#[test]
fn questions_without_end_are_answered_and_cost_nobody_else() {
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    for kind in [PING, SETTINGS] {
        let payload: &[u8] = if kind == PING { &[0; 8] } else { &[] };
        for _ in 0..50 {
            client.send(frame(kind, 0, 0, payload).repeat(100));
            let mut acknowledged = 0;
            while acknowledged < 100 {
                let frame = client.next().expect("the connection stands");
                acknowledged += usize::from(frame.kind == kind && frame.flags == ACK);
            }
        }
    }
    assert_eq!(client.ask(&request("GET", "/bytes?1"), b"").answer().0, 200);
}

/// Who asks and never reads the answers is not answered for ever.
#[test]
fn a_client_that_reads_nothing_is_closed() {
    let server = Server::start(Settings {
        send_grace: Duration::from_millis(300),
        send_bytes_per_second_min: 1 << 20,
        ..patient()
    });
    let mut client = Client::connect(server.address);
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(1000);
    while client.try_send(&pings) {}
    server.wait_until("it is gone", |server| server.counters.connections() == 0);
    assert_served(&server);
}

#[test]
fn bodies_in_crumbs_end_the_connection() {
    let server = Server::start(patient());
    for crumb in [&b"x"[..], b""] {
        let mut client = Client::connect(server.address);
        let stream = client.begin(&request("PUT", "/gate"), false);
        let crumbs = frame(DATA, 0, stream, crumb).repeat(1000);
        let mut sent = 0;
        // A window of 1 MiB would hold a million of them.
        while sent < 200_000 && client.try_send(&crumbs) {
            sent += 1000;
        }
        assert_eq!(client.rest(), Some(ENHANCE_YOUR_CALM), "{crumb:?}");
    }
    assert_served(&server);
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    client.ping();
    for _ in 0..STREAMS_MAX {
        client.get("/gate");
    }
    let beyond = client.get("/bytes?1");
    assert_eq!(client.outcome(beyond), Outcome::Reset(REFUSED_STREAM));
    server.wait_until("the others run", |server| *server.at_gate.borrow() == STREAMS_MAX as usize);
    client.reset(1);
    client.ping();
    assert_eq!(client.ask(&request("GET", "/bytes?1"), b"").answer().0, 200, "one ended, so there is room for one");
}

/// Readers that take nothing hold no buffer of the pool, of which there are four here, and are not waited for for ever.
#[test]
fn readers_that_take_nothing_cost_nobody_else() {
    let server = Server::start(Settings { send_grace: Duration::from_secs(3), ..patient() });
    let mut stalled = Client::connect_with(server.address, &[(INITIAL_WINDOW, 0)]);
    let streams: Vec<u32> = (0..STREAMS_MAX - 4).map(|_| stalled.get("/object?3000000")).collect();
    for &stream in &streams {
        assert_eq!(stalled.statuses(stream), [200]);
    }
    let mut client = Client::connect(server.address);
    let stream = client.get("/object?3000000");
    let Outcome::Answer { status: 200, body } = client.outcome(stream) else { panic!("no answer") };
    assert!(body.len() == 3_000_000 && (0..).zip(&body).all(|(at, &byte)| byte == pattern(at)));
    // They are cut off in the end.
    for &stream in &streams {
        assert!(matches!(stalled.outcome(stream), Outcome::Reset(_)), "{stream}");
    }
    server.wait_until("none runs", |server| server.metrics.render().contains("anvil_requests_in_flight 0.0\n"));
}
