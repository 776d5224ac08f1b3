//! Goal: who floods a connection with calls that nobody means costs nobody else, and what a client took back is let go of at once.
//! Method: frames as no library sends them, against the real binary; its metrics say what is under way.

use std::time::{Duration, Instant};

use crate::frames::*;
use crate::support::node::{Node, scratch};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
/// One message, which says that the node serves.
const SERVING: [u8; 7] = [0, 0, 0, 0, 2, 8, 1];
/// Longer than anything takes that works.
const TOO_LONG: Duration = Duration::from_secs(60);

fn call(path: &str) -> Vec<(&str, &str)> {
    [&request("POST", path)[..], &[("content-type", "application/grpc"), ("te", "trailers")]].concat()
}

fn with_node(test: impl FnOnce(&Node)) {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    test(&node);
    assert_served(&node);
    idles(&node);
    node.stop();
}

#[track_caller]
fn assert_served(node: &Node) {
    let mut client = Client::connect(node.address);
    let answer = client.ask(&call(CHECK), &[0; 5]);
    assert_eq!(answer, Outcome::Answer { status: 200, body: SERVING.to_vec() });
}

/// Waits until nothing is under way but the question for it.
#[track_caller]
fn idles(node: &Node) {
    let began = Instant::now();
    while node.metric("anvil_requests_in_flight") > 1.0 {
        assert!(began.elapsed() < TOO_LONG, "calls are under way that nobody waits for");
    }
}

/// Begins a call that is answered for as long as its client likes, and waits for its first message.
fn watch(client: &mut Client) -> u32 {
    let stream = client.begin(&call(WATCH), false);
    client.data(stream, &[0; 5], true);
    stream
}

fn await_serving(client: &mut Client, stream: u32) {
    while client.body(stream) != SERVING {
        client.next().expect("the connection stands");
    }
}

/// CVE-2023-44487, with calls.
#[test]
fn calls_that_are_taken_back_by_the_thousand_end_the_connection() {
    with_node(|node| {
        let mut client = Client::connect(node.address);
        let head = block(&call(WATCH));
        for batch in 0..500_u32 {
            let calls = (0..100).map(|at| 1 + 2 * (batch * 100 + at)).flat_map(|stream| {
                let begin = [frame(HEADERS, END_HEADERS, stream, &head), frame(DATA, END_STREAM, stream, &[0; 5])];
                [&begin.concat()[..], &frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
            });
            if !client.try_send(calls.collect::<Vec<u8>>()) {
                break;
            }
        }
        assert_eq!(client.rest(), Some(ENHANCE_YOUR_CALM));
    });
}

#[test]
fn the_head_of_a_call_without_an_end_ends_the_connection() {
    with_node(|node| {
        let mut client = Client::connect(node.address);
        let running = watch(&mut client);
        await_serving(&mut client, running);
        client.send(frame(HEADERS, 0, running + 2, &block(&call(CHECK))));
        let piece = block(&[("x-a-bin", &"a".repeat(1000))]).repeat(15);
        let mut sent = 0;
        while client.try_send(frame(CONTINUATION, 0, running + 2, &piece)) {
            sent += piece.len();
            assert!(sent < 64 << 20, "a head of {sent} bytes is still read");
        }
        assert!(client.rest().is_none_or(|code| code == ENHANCE_YOUR_CALM || code == COMPRESSION_ERROR));
    });
}

#[test]
fn questions_without_end_disturb_no_call() {
    with_node(|node| {
        let mut client = Client::connect(node.address);
        let running = watch(&mut client);
        await_serving(&mut client, running);
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
        let answer = client.ask(&call(CHECK), &[0; 5]);
        assert_eq!(answer, Outcome::Answer { status: 200, body: SERVING.to_vec() });
        assert!(!client.is_reset(running), "the other call goes on");
    });
}

#[test]
fn what_a_client_takes_back_is_let_go_of_at_once() {
    const CALLS: u32 = 60;
    with_node(|node| {
        let mut client = Client::connect(node.address);
        let streams: Vec<u32> = (0..CALLS).map(|_| watch(&mut client)).collect();
        streams.iter().for_each(|&stream| await_serving(&mut client, stream));
        assert!(node.metric("anvil_requests_in_flight") >= f64::from(CALLS), "all are under way");
        streams.iter().for_each(|&stream| client.reset(stream));
        client.ping();
        idles(node);
        // The same when the connection breaks.
        let streams: Vec<u32> = (0..CALLS).map(|_| watch(&mut client)).collect();
        streams.iter().for_each(|&stream| await_serving(&mut client, stream));
        assert!(node.metric("anvil_requests_in_flight") >= f64::from(CALLS), "all are under way");
        drop(client);
        idles(node);
    });
}
