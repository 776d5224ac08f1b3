//! Clients that behave: requests side by side, bodies and their windows, answers of every kind, and the end.

use std::time::Duration;

use anvil::http1::Settings;
use anvil::http2::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};

use crate::client::*;
use crate::harness::{Server, TOO_LONG, patient, pattern, weighted};

#[test]
fn requests_of_a_connection_run_side_by_side() {
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    let waiting = client.get("/gate");
    let echoed = client.begin(&request("PUT", "/echo"), false);
    client.data(echoed, b"first, ", false);
    let padded = [&[3][..], b"second", &[0; 3]].concat();
    client.send(frame(DATA, PADDED, echoed, &padded));
    client.data(echoed, b"", true);
    assert_eq!(client.outcome(echoed).answer(), (200, "first, second".to_owned()));
    server.wait_until("the other request runs", |server| *server.at_gate.borrow() == 1);
    server.gate.notify_one();
    assert_eq!(client.outcome(waiting).answer(), (200, "open".to_owned()));
    // The same port, another protocol.
    assert_eq!(server.ask("GET /show HTTP/1.1\r\nHost: h\r\n\r\n").status, 200);
}

#[test]
fn a_head_reaches_the_service_as_it_came() {
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    let fields = [&request("GET", "/show?a=%2f?b")[..], &[("x-amz-meta-a", "1 2"), ("te", "trailers")]].concat();
    let (status, shown) = client.ask(&fields, b"").answer();
    assert_eq!(
        (status, shown.as_str()),
        (200, "GET /show Some(\"a=%2f?b\") x-amz-meta-a=1 2&te=trailers&host=Example:1")
    );
    let no_authority = [(":method", "GET"), (":scheme", "https"), (":path", "/show"), ("host", "b")];
    assert!(client.ask(&no_authority, b"").answer().1.ends_with("host=b"));
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    for (method, path, status) in [
        ("GET", "/status?204", 204),
        ("GET", "/status?304", 304),
        ("GET", "/status?412", 412),
        ("HEAD", "/announced?123", 200),
        ("HEAD", "/object?5000", 200),
        ("HEAD", "/bytes?5", 200),
        ("GET", "/bytes?0", 200),
        ("GET", "/object?0", 200),
    ] {
        let outcome = client.ask(&request(method, path), b"");
        assert_eq!(outcome, Outcome::Answer { status, body: Vec::new() }, "{method} {path}");
    }
    // What announces a body and has none is broken off.
    assert_eq!(client.ask(&request("GET", "/announced?123"), b""), Outcome::Reset(INTERNAL_ERROR));
}

#[test]
fn an_object_comes_whole_through_a_small_window_or_visibly_not() {
    const LENGTH: u64 = (3 << 20) + 5;
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    let stream = client.get(&format!("/object?{LENGTH}"));
    let Outcome::Answer { status: 200, body } = client.outcome(stream) else { panic!("no answer") };
    assert_eq!(body.len() as u64, LENGTH);
    assert!((0..).zip(&body).all(|(at, &byte)| byte == pattern(at)));
    for path in ["/broken?3000000", "/failing?3000000"] {
        let stream = client.get(path);
        assert_eq!(client.outcome(stream), Outcome::Reset(INTERNAL_ERROR), "{path}");
        // What waits to be sent is not sent any more.
        assert!(client.body(stream).len() <= 1_500_000, "{path}");
    }
    // Bytes that cannot be had at all are an error like any other.
    assert_eq!(client.ask(&request("GET", "/failing?1"), b"").answer().0, 500);
}

#[test]
fn a_body_larger_than_every_window_arrives() {
    const LENGTH: usize = 9 << 20;
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    let body: Vec<u8> = (0..LENGTH as u64).map(pattern).collect();
    let length = LENGTH.to_string();
    let fields = [&request("PUT", "/sum")[..], &[("content-length", length.as_str())]].concat();
    let stream = client.begin(&fields, false);
    client.ping();
    let (mut sent, frame_bytes) = (0, 16_000);
    while sent < LENGTH {
        let count = frame_bytes.min(LENGTH - sent);
        let may = |granted: Option<&u64>, initial: u32| granted.copied().unwrap_or(0) + u64::from(initial);
        // What SETTINGS and the first WINDOW_UPDATE grant came before the ping's answer.
        while may(client.granted.get(&stream), STREAM_WINDOW_BYTES) < (sent + count) as u64
            || may(client.granted.get(&0), 65535) < (sent + count) as u64
        {
            assert!(client.next().is_some());
        }
        client.data(stream, &body[sent..sent + count], sent + count == LENGTH);
        sent += count;
    }
    let sum = weighted(&body, 0);
    assert_eq!(client.outcome(stream).answer(), (200, format!("{LENGTH} {sum}")));
}

#[test]
fn a_body_that_nobody_reads_holds_up_its_own_stream_only() {
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    // After the answer both ends know of the server's windows.
    client.ping();
    let unread = client.begin(&request("PUT", "/gate"), false);
    let block = vec![b'x'; 16 << 10];
    for _ in 0..STREAM_WINDOW_BYTES as usize / block.len() {
        client.data(unread, &block, false);
    }
    let other = client.ask(&request("PUT", "/sum"), &block);
    assert!(other.answer().1.starts_with("16384 "));
    assert_eq!(client.granted.get(&unread), None, "nothing was taken, so nothing more may come");
    assert!(client.granted[&0] < u64::from(CONNECTION_WINDOW_BYTES), "the connection's window is not given back");
    client.data(unread, b"!", false);
    assert_eq!(client.outcome(unread), Outcome::Reset(FLOW_CONTROL_ERROR));
    assert!(client.ask(&request("PUT", "/sum"), b"abc").answer().1.starts_with("3 "));
}

#[test]
fn a_client_that_waits_for_100_is_told_to_go_on_and_one_that_is_refused_is_not() {
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    let put = |path| [&request("PUT", path)[..], &[("expect", "100-continue"), ("content-length", "3")]].concat();
    let stream = client.begin(&put("/echo"), false);
    assert_eq!(client.statuses(stream), [100]);
    client.data(stream, b"abc", true);
    assert_eq!(client.outcome(stream).answer(), (200, "abc".to_owned()));
    let refused = client.begin(&put("/nowhere"), false);
    assert_eq!(client.outcome(refused).answer().0, 404);
    assert_eq!(client.statuses(refused), [404]);
    // An answer that comes before the body does not wait for it.
    let unread = client.begin(&request("PUT", "/unread"), false);
    assert_eq!(client.outcome(unread).answer(), (200, "unread".to_owned()));
    // Nor is the body turned away while the client may still be sending it.
    client.ping();
    assert!(!client.is_reset(unread), "there are clients that throw the answer away then");
    client.data(unread, b"late", true);
    assert_eq!(client.ask(&request("GET", "/bytes?1"), b"").answer(), (200, "x".to_owned()));
}

#[test]
fn a_request_that_is_taken_back_is_dropped_at_once() {
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    let waiting = client.get("/gate");
    let slow = client.begin(&request("PUT", "/sum"), false);
    client.data(slow, b"abc", false);
    let in_flight = |server: &Server, count: u32| {
        server.metrics.render().contains(&format!("anvil_requests_in_flight {count}.0\n"))
    };
    server.wait_until("both run", |server| in_flight(server, 2));
    client.reset(waiting);
    client.reset(slow);
    server.wait_until("none runs", |server| in_flight(server, 0));
    assert_eq!(client.ask(&request("GET", "/bytes?1"), b"").answer().0, 200);
    // So is everything that runs on a connection that is closed.
    client.get("/gate");
    server.wait_until("one runs", |server| in_flight(server, 1));
    drop(client);
    server.wait_until("none runs", |server| in_flight(server, 0));
}

#[test]
fn grpc_is_refused_in_its_own_words() {
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    let call = [&request("POST", "/a.B/C")[..], &[("content-type", "application/grpc+proto"), ("te", "trailers")]];
    // The rest of the head is looked at by a real client, in `protocols.rs`.
    assert_eq!(client.ask(&call.concat(), &[0; 5]), Outcome::Answer { status: 200, body: Vec::new() });
}

#[test]
fn a_stopping_node_says_goodbye_and_finishes_running_requests() {
    let server = Server::start(Settings { stop_timeout: TOO_LONG, ..patient() });
    let mut idle = Client::connect(server.address);
    assert_eq!(idle.ask(&request("GET", "/bytes?1"), b"").answer().0, 200);
    let mut client = Client::connect(server.address);
    let running = client.get("/gate");
    server.wait_until("the request runs", |server| *server.at_gate.borrow() == 1);
    server.stop();
    assert_eq!(idle.rest(), Some(NO_ERROR));
    while client.gone_away.is_none() {
        assert!(client.next().is_some());
    }
    server.gate.notify_one();
    assert_eq!(client.outcome(running).answer(), (200, "open".to_owned()));
    assert_eq!(client.rest(), Some(NO_ERROR));
    drop((idle, client));
    server.join();
}

#[test]
fn an_idle_connection_is_closed_in_good_order() {
    let server = Server::start(Settings { idle_timeout: Duration::from_millis(200), ..patient() });
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask(&request("GET", "/bytes?1"), b"").answer().0, 200);
    assert_eq!(client.rest(), Some(NO_ERROR));
}
