//! Requests and frames that must not be: one clear refusal each, and the next client is served.

use std::time::Duration;

use anvil::http1::Settings;

use crate::client::*;
use crate::harness::{Server, patient};

#[track_caller]
fn assert_served(server: &Server) {
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask(&request("GET", "/bytes?1"), b"").answer(), (200, "x".to_owned()));
}

#[test]
fn what_is_no_request_for_s3_is_told_so_and_the_connection_goes_on() {
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    let long = format!("/{}", "a".repeat(9000));
    let many: Vec<(&str, &str)> = vec![("x-a", "1"); 101];
    let with = |fields: &[(&'static str, &'static str)]| [&request("PUT", "/echo")[..], fields].concat();
    for (fields, status, code) in [
        (vec![(":method", "GET"), (":scheme", "http"), (":path", "/")], 400, "BadRequest"),
        (with(&[("host", "other")]), 400, "BadRequest"),
        (with(&[("host", "Example:1"), ("host", "Example:1")]), 400, "BadRequest"),
        (with(&[("content-length", "1"), ("content-length", "1")]), 400, "BadRequest"),
        (with(&[("expect", "wonders")]), 417, "ExpectationFailed"),
        (request("OPTIONS", "*"), 400, "InvalidURI"),
        (request("GET", &long), 414, "InvalidURI"),
        (vec![(":method", "CONNECT"), (":authority", "Example:1")], 405, "MethodNotAllowed"),
        ([request("GET", "/"), many].concat(), 431, "RequestHeaderSectionTooLarge"),
    ] {
        // Not ended, so that a length has something to be the length of.
        let stream = client.begin(&fields, false);
        let (got, text) = client.outcome(stream).answer();
        assert!(got == status && text.starts_with(code), "{fields:?}: {got} {text}");
    }
    assert_eq!(client.ask(&request("GET", "/bytes?1"), b"").answer().0, 200);
}

/// What HTTP/2 itself forbids is a stream that is broken off (RFC 9113, 8.1.1).
#[test]
fn malformed_requests_are_reset() {
    let server = Server::start(patient());
    let with = |fields: &[(&'static str, &'static str)]| [&request("PUT", "/echo")[..], fields].concat();
    let without = |name: &str| request("GET", "/").into_iter().filter(|field| field.0 != name).collect::<Vec<_>>();
    for fields in [
        with(&[("X-Upper", "1")]),
        with(&[("connection", "close")]),
        with(&[("keep-alive", "1")]),
        with(&[("proxy-connection", "close")]),
        with(&[("upgrade", "h2c")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("te", "gzip")]),
        with(&[("content-length", "1"), ("content-length", "2")]),
        with(&[("content-length", "-1")]),
        with(&[("content-length", "0x1")]),
        with(&[("content-length", "99999999999999999999")]),
        with(&[(":path", "/twice")]),
        with(&[(":unknown", "1")]),
        with(&[(":status", "200")]),
        without(":method"),
        without(":scheme"),
        without(":path"),
        request("GET", ""),
        request("GET", "/a b"),
        request("G ET", "/"),
    ] {
        let mut client = Client::connect(server.address);
        let stream = client.begin(&fields, false);
        let outcome = client.outcome(stream);
        assert!(
            matches!(outcome, Outcome::Reset(PROTOCOL_ERROR) | Outcome::GoneAway(PROTOCOL_ERROR)),
            "{fields:?}: {outcome:?}"
        );
    }
    // A target that is no path never reaches the service.
    for path in ["echo", "http://a/echo", "//a/../..", "\\", "?x"] {
        let mut client = Client::connect(server.address);
        match client.ask(&request("GET", path), b"") {
            Outcome::Answer { status, .. } => assert!(status == 400 || status == 404, "{path}: {status}"),
            outcome => assert_eq!(outcome, Outcome::Reset(PROTOCOL_ERROR), "{path}"),
        }
    }
    assert_served(&server);
}

#[test]
fn a_body_of_another_length_than_was_said_is_none() {
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    for (length, body) in [("5", "abc"), ("2", "abc"), ("0", "abc")] {
        let stream = client.begin(&[&request("PUT", "/echo")[..], &[("content-length", length)]].concat(), false);
        client.data(stream, body.as_bytes(), true);
        assert_eq!(client.outcome(stream), Outcome::Reset(PROTOCOL_ERROR), "{length} {body}");
    }
    let stream = client.begin(&[&request("PUT", "/echo")[..], &[("content-length", "5")]].concat(), true);
    assert_eq!(client.outcome(stream), Outcome::Reset(PROTOCOL_ERROR), "no body at all");
    assert_eq!(client.ask(&request("PUT", "/echo"), b"abc").answer(), (200, "abc".to_owned()));
}

/// What makes the two ends disagree about the connection ends it (RFC 9113, 5.4.1), with a reason: for a frame that it
/// cannot read at all, `h2` says PROTOCOL_ERROR.
#[test]
fn malformed_frames_end_the_connection_with_the_reason() {
    let server = Server::start(patient());
    let head = block(&request("GET", "/bytes?1"));
    let increment = |by: u32| by.to_be_bytes();
    let ended = END_HEADERS | END_STREAM;
    let mut wrong = Vec::new();
    for (what, bytes, code) in [
        ("a ping of seven bytes", frame(PING, 0, 0, &[0; 7]), PROTOCOL_ERROR),
        ("settings of seven bytes", frame(SETTINGS, 0, 0, &[0; 7]), PROTOCOL_ERROR),
        ("a frame of 1 MiB", frame(DATA, 0, 1, &vec![0; 1 << 20]), FRAME_SIZE_ERROR),
        ("settings on a stream", frame(SETTINGS, 0, 1, &[]), PROTOCOL_ERROR),
        ("data on the connection", frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        ("data on a stream that is not there", frame(DATA, 0, 5, b"x"), PROTOCOL_ERROR),
        ("a head on a stream of the server", frame(HEADERS, ended, 2, &head), PROTOCOL_ERROR),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &head), PROTOCOL_ERROR),
        ("padding beyond the frame", frame(HEADERS, ended | PADDED, 1, &[9, 0, 0]), PROTOCOL_ERROR),
        ("an index of no table", frame(HEADERS, ended, 1, &[0xff, 0xff, 0xff, 0x7f]), PROTOCOL_ERROR),
        ("an increment of nothing", frame(WINDOW_UPDATE, 0, 0, &increment(0)), PROTOCOL_ERROR),
        ("a window beyond 2^31", frame(WINDOW_UPDATE, 0, 0, &increment((1 << 31) - 1)), FLOW_CONTROL_ERROR),
        ("a window setting beyond 2^31", frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), PROTOCOL_ERROR),
        (
            "an interrupted head",
            [frame(HEADERS, END_STREAM, 1, &head), frame(PING, 0, 0, &[0; 8])].concat(),
            PROTOCOL_ERROR,
        ),
    ] {
        let mut client = Client::connect(server.address);
        client.ping();
        client.try_send(bytes);
        let said = client.rest();
        if said != Some(code) {
            wrong.push((what, said));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    // No HTTP/2 behind the preface at all.
    let mut client = Client::connect(server.address);
    client.try_send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(4));
    assert_ne!(client.rest(), Some(NO_ERROR));
    assert_served(&server);
}

#[test]
fn a_window_that_overflows_ends_its_stream() {
    let server = Server::start(patient());
    let mut client = Client::connect(server.address);
    let stream = client.get("/gate");
    client.send(frame(WINDOW_UPDATE, 0, stream, &((1_u32 << 31) - 1).to_be_bytes()));
    assert_eq!(client.outcome(stream), Outcome::Reset(FLOW_CONTROL_ERROR));
    assert_eq!(client.ask(&request("GET", "/bytes?1"), b"").answer().0, 200);
}

#[test]
fn a_slow_body_and_a_head_that_does_not_end_have_their_time() {
    let short = Duration::from_millis(200);
    let server = Server::start(Settings { body_grace: short, idle_timeout: short, ..patient() });
    let mut client = Client::connect(server.address);
    let stream = client.begin(&[&request("PUT", "/echo")[..], &[("content-length", "100")]].concat(), false);
    client.data(stream, b"x", false);
    assert_eq!(client.outcome(stream).answer().1.split(' ').next(), Some("TimedOut"));

    let mut client = Client::connect(server.address);
    client.send(frame(HEADERS, END_STREAM, 1, &block(&request("GET", "/bytes?1"))));
    assert!(client.rest().is_some());
    // Nor does a client that keeps on asking whether somebody is there keep its connection for ever.
    let mut client = Client::connect(server.address);
    while client.try_send(frame(PING, 0, 0, &[0; 8])) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_served(&server);
}
