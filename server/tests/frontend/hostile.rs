//! Clients that mean harm, or are broken: one clear refusal each, and the server lives.

use std::time::{Duration, Instant};

use anvil::http1::{HEAD_BYTES_MAX, HEADERS_MAX, IDLE_BYTES_MAX, LARGE_HEADS_MAX, Settings, TARGET_BYTES_MAX};

use crate::harness::{Server, patient};

/// Sends `request` with another one hidden behind it: the first is refused with `status`, and the second never read.
fn assert_refused(server: &Server, request: &str, status: u16) {
    let mut client = server.connect();
    client.send(request);
    client.send("GET /status?299 HTTP/1.1\r\nHost: h\r\n\r\n");
    client.shutdown();
    let answer = client.answer();
    assert!(answer.status == status && answer.closes(), "{request:?}: {answer:?}");
    let id = answer.header("x-amz-request-id").unwrap();
    assert!(answer.text().contains(id), "the body names the request too: {answer:?}");
    client.assert_closed();
}

#[test]
fn requests_that_two_readers_could_divide_differently_are_refused() {
    let server = Server::start(patient());
    let put = |lines: &str| format!("PUT /echo HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n");
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: 5a",
        "Content-Length: ",
        "Content-Length: 99999999999999999999",
        "Content-Length : 5",
        " Content-Length: 5",
        "A: b\r\n Content-Length: 5",
        "A: b\nContent-Length: 5",
        "A: b\rContent-Length: 5",
        "A: b\0c",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding:\r\n chunked",
        "A: b\r\n\tTransfer-Encoding: chunked",
        "A: b\r\r\nTransfer-Encoding: chunked",
        "Content-Length: -0",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5\r\nA: b\r\ncontent-length: 5",
        "Content-Length: \u{ff15}",
        "Content_Length\0: 5",
        ": 5",
        "Host: h",
    ] {
        assert_refused(&server, &put(lines), 400);
    }
    for lines in [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
    ] {
        assert_refused(&server, &put(lines), 501);
    }
    for request in [
        "PUT /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET /show HTTP/1.1\r\n\r\n",
        "GET http://other/show HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET show HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /show\r\n\r\n",
        "\x01\x02\x03\r\n\r\n",
        "PRI * HTTP/2.1\r\n\r\n",
    ] {
        let status = if request.contains("2.1") { 505 } else { 400 };
        assert_refused(&server, request, status);
    }
}

#[test]
fn a_broken_chunk_ends_the_body_and_the_connection() {
    let server = Server::start(patient());
    for chunks in [
        "x\r\n",
        "5\nabcde\n0\n\n",
        "-1\r\n",
        "0x5\r\nabcde\r\n",
        "5\r\nabcdef\r\n",
        "11111111111111111\r\n",
        "5 \r\nabcde\r\n",
        " 5\r\nabcde\r\n",
        "+5\r\nabcde\r\n",
        "5\r\nabcde0\r\n\r\n",
        "5\r\nabcde\n0\r\n\r\n",
        "5;a\nb\r\nabcde\r\n0\r\n\r\n",
        "5;\0\r\nabcde\r\n0\r\n\r\n",
        "0\r\n\n",
        "0\r\n Content-Length: 5\r\n\r\n",
        "0\r\n: a\r\n\r\n",
        "0\r\na: b\nGET /smuggled HTTP/1.1\r\n\r\n",
        "\r\n",
    ] {
        for path in ["/echo", "/sum"] {
            assert_refused(
                &server,
                &format!("PUT {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
                400,
            );
        }
    }
}

#[test]
fn heads_beyond_their_limits_are_refused() {
    let server = Server::start(patient());
    let get = |lines: String| format!("GET /show HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
    let fields: String = (0..HEADERS_MAX).map(|i| format!("a{i}: b\r\n")).collect();
    assert_refused(&server, &get(fields), 431);
    assert_refused(&server, &get(format!("A: {}\r\n", "b".repeat(HEAD_BYTES_MAX))), 431);
    assert_refused(&server, &format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(TARGET_BYTES_MAX)), 414);
    assert_refused(&server, &"a".repeat(2 * TARGET_BYTES_MAX), 414);
    let answer = server.ask(get(format!("A: {}\r\n", "b".repeat(HEAD_BYTES_MAX - 100))));
    assert_eq!(answer.status, 200, "a head within the limits is served");
}

#[test]
fn a_slow_head_has_its_time_from_the_first_byte() {
    let server = Server::start(Settings { head_timeout: Duration::from_millis(100), ..patient() });
    let mut client = server.connect();
    client.send("GET /status?200 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    let began = Instant::now();
    client.send("GET /status?200 HTTP/1.1\r\nHost: h\r\nA: ");
    let answer = client.answer();
    assert!(answer.status == 408 && answer.closes() && answer.text().starts_with("RequestTimeout "), "{answer:?}");
    assert!(began.elapsed() >= Duration::from_millis(100));

    // Bytes that trickle buy no time.
    let mut client = server.connect();
    client.stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let began = Instant::now();
    client.send("GET /");
    let mut byte = [0];
    while client.stream.peek(&mut byte).is_err() {
        client.send("a");
        assert!(began.elapsed() < Duration::from_secs(10), "a trickling head is served for ever");
    }
    assert_eq!(client.head().status, 408);
}

#[test]
fn connections_that_break_at_any_byte_leave_nothing_behind() {
    let server = Server::start(patient());
    let request = b"PUT /sum HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for end in 0..request.len() {
        server.connect().send(&request[..end]);
    }
    server.wait_until("all connections are gone", |server| server.counters.connections() == 0);
    assert_eq!(server.ask(request).text(), "3 590");
}

/// A small generator (Knuth's MMIX), so that a failure repeats.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

#[test]
fn bytes_gone_wrong_anywhere_do_no_harm() {
    let server = Server::start(patient());
    let streams = [
        &b"PUT /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /show HTTP/1.1\r\nHost: h\r\n\r\n"[..],
        b"PUT /sum HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabcHEAD /object?9 HTTP/1.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ];
    let mut dice = Dice(1);
    for _ in 0..300 {
        let mut stream = streams[dice.roll(streams.len())].to_vec();
        for _ in 0..=dice.roll(4) {
            let at = dice.roll(stream.len());
            match dice.roll(3) {
                0 => stream[at] = u8::try_from(dice.roll(256)).unwrap(),
                1 => drop(stream.remove(at)),
                _ => stream.insert(at, b"\r\n\0: 9"[dice.roll(6)]),
            }
        }
        let mut client = server.connect();
        client.send(&stream);
        client.shutdown();
        client.discard();
    }
    server.wait_until("all connections are gone", |server| server.counters.connections() == 0);
    assert_eq!(server.ask(streams[0]).text(), "abc");
}

#[test]
fn a_bug_that_a_request_meets_ends_that_request_and_nothing_else() {
    let server = Server::start(patient());
    let mut other = server.connect();
    for _ in 0..2 {
        let mut client = server.connect();
        client.send("PUT /bug HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
        let answer = client.answer();
        assert!(answer.status == 500 && answer.closes() && answer.text().starts_with("InternalError "), "{answer:?}");
        client.shutdown();
        client.assert_closed();
        other.send("GET /status?200 HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(other.answer().status, 200);
    }
    assert!(server.metrics.render().contains("anvil_requests_panicked_total 2.0\n"));
}

#[test]
fn so_many_large_heads_are_read_at_once_and_no_more() {
    let server = Server::start(patient());
    let begin = || {
        let mut client = server.connect();
        client.send(format!("GET /status?200 HTTP/1.1\r\nHost: h\r\nA: {}", "a".repeat(2 * IDLE_BYTES_MAX)));
        client
    };
    let mut large: Vec<_> = (0..LARGE_HEADS_MAX).map(|_| begin()).collect();
    // The last ones may be read before the first ones: whoever comes too late is told so, and the others are served.
    let mut late = begin();
    let answer = loop {
        for client in large.iter_mut().chain([&mut late]) {
            client.stream.set_nonblocking(true).unwrap();
        }
        let refused = large.iter_mut().chain([&mut late]).find(|client| client.stream.peek(&mut [0]).is_ok());
        if let Some(client) = refused {
            client.stream.set_nonblocking(false).unwrap();
            break client.answer();
        }
        std::thread::yield_now();
    };
    assert!(answer.status == 503 && answer.closes() && answer.text().starts_with("SlowDown "), "{answer:?}");
    // A head of the usual size is read all the same.
    assert_eq!(server.ask("GET /status?200 HTTP/1.1\r\nHost: h\r\n\r\n").status, 200);
    drop(large);
    drop(late);
    server.wait_until("all have gone", |server| server.counters.connections() == 0);
    let mut again = begin();
    again.send("\r\n\r\n");
    assert_eq!(again.answer().status, 200, "their places are free again");
}

#[test]
fn a_client_that_leaves_its_answer_is_noticed_at_once() {
    let server = Server::start(patient());
    for _ in 0..10 {
        let mut client = server.connect();
        client.send("GET /object?1000000000 HTTP/1.1\r\nHost: h\r\n\r\n");
        client.head();
    }
    let began = Instant::now();
    server.wait_until("all have been noticed", |server| server.counters.connections() == 0);
    assert!(began.elapsed() < Settings::default().send_grace, "only the time-out saw it");
}
