//! Bodies in both directions: expected, chunked, large, left unread, broken off.

use std::time::Duration;

use anvil::http1::Settings;

use crate::harness::{Server, TOO_LONG, patient, pattern, weighted};

#[test]
fn a_client_that_waits_is_told_to_continue_when_its_body_is_read() {
    let server = Server::start(patient());
    let mut client = server.connect();
    for path in ["/echo", "/sum"] {
        client.send(format!("PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"));
        assert_eq!(client.head().head, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("abc");
        assert_eq!(client.answer().status, 200);
    }
    // Who sends at once has not waited, and needs no telling.
    client.send("PUT /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.bytes(3), b"abc");
    // A body of nothing is not waited for, but its client is told all the same: on success and on refusal.
    for (path, status) in [("/echo", 200), ("/missing", 404)] {
        client.send(format!("PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n"));
        assert_eq!(client.head().head, "HTTP/1.1 100 Continue\r\n\r\n");
        let answer = client.answer();
        assert!(answer.status == status && !answer.closes(), "{answer:?}");
    }
}

#[test]
fn a_client_that_waits_is_refused_without_a_word_of_its_body() {
    let server = Server::start(patient());
    let mut client = server.connect();
    client.send("PUT /missing HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    let answer = client.answer();
    assert!(answer.status == 404 && answer.closes(), "whether the body comes cannot be known: {answer:?}");
    client.shutdown();
    client.assert_closed();

    let answer = server.ask("PUT /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: tea\r\n\r\n");
    assert!(answer.status == 417 && answer.closes(), "{answer:?}");
}

#[test]
fn a_large_body_streams_up_through_a_pool_that_is_much_smaller() {
    const LENGTH: u64 = 64 << 20;
    let server = Server::start(patient());
    let body: Vec<u8> = (0..LENGTH).map(pattern).collect();
    let expected = format!("{LENGTH} {}", weighted(&body, 0));

    let mut plain = server.connect();
    plain.send(format!("PUT /sum HTTP/1.1\r\nHost: h\r\nContent-Length: {LENGTH}\r\n\r\n"));
    plain.send(&body);
    assert_eq!(plain.answer().text(), expected);

    // In chunks of every size, cut anew by the segments they travel in.
    plain.send("PUT /sum HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    let (mut left, mut size) = (&body[..], 1);
    while !left.is_empty() {
        let (chunk, rest) = left.split_at(size.min(left.len()));
        plain.send([format!("{:X}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
        (left, size) = (rest, (size * 3 + 1) % 3_000_000);
    }
    plain.send("0\r\n\r\n");
    assert_eq!(plain.answer().text(), expected);
}

#[test]
fn a_large_object_streams_down_through_a_pool_that_is_much_smaller() {
    const LENGTH: u64 = 64 << 20;
    let server = Server::start(patient());
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(format!("GET /object?{LENGTH} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let answer = client.head();
        assert_eq!(answer.header("content-length"), Some(LENGTH.to_string().as_str()));
        let mut at = 0;
        while at < LENGTH {
            let piece = client.bytes(usize::try_from(LENGTH - at).unwrap().min(1 << 20));
            assert!((at..).zip(&piece).all(|(at, &byte)| byte == pattern(at)), "wrong bytes behind {at}");
            at += piece.len() as u64;
        }
    }
    client.send("GET /bytes?1000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.answer().body.len(), 1_000_000);
}

#[test]
fn a_little_body_that_nobody_read_does_not_cost_the_connection() {
    let server = Server::start(patient());
    let mut client = server.connect();
    client.send("PUT /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n");
    assert!(!client.answer().closes());
    client.send(vec![b'x'; 200_000]);
    // A chunked body whose end is here already is not in the way either.
    client.send("PUT /unread HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert!(!client.answer().closes());
    client.send("GET /status?200 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_little_body_that_nobody_read_and_that_does_not_come_is_not_waited_for() {
    let server = Server::start(Settings { drain_timeout: Duration::from_millis(50), ..patient() });
    let mut client = server.connect();
    client.send("PUT /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(client.answer().text(), "unread");
    client.assert_closed();
}

#[test]
fn a_client_in_the_middle_of_a_large_body_sees_the_answer_and_not_a_reset() {
    let server = Server::start(patient());
    for framing in ["Content-Length: 8000000", "Transfer-Encoding: chunked"] {
        let mut client = server.connect();
        client.send(format!("PUT /missing HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n7A1200\r\n"));
        // More than both sockets hold: the server has to take it, although nobody wants it.
        client.send(vec![b'x'; 7_000_000]);
        let answer = client.answer();
        assert!(answer.status == 404 && answer.closes(), "{answer:?}");
        client.shutdown();
        client.assert_closed();
    }
}

#[test]
fn an_answer_that_breaks_off_breaks_the_connection() {
    let server = Server::start(patient());
    for path in ["/broken", "/failing"] {
        let mut client = server.connect();
        client.send(format!("GET {path}?4000000 HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(client.head().header("content-length"), Some("4000000"));
        assert_eq!(client.discard(), 2_000_000, "{path}");
    }
    assert!(server.metrics.render().contains("anvil_requests_incomplete_total 2.0\n"));
    // Before the head is sent there is still time to say so.
    for path in ["/broken", "/failing"] {
        let answer = server.ask(format!("GET {path}?1 HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert!(answer.status == 500 && answer.text().starts_with("InternalError "), "{answer:?}");
    }
}

#[test]
fn a_body_that_stops_coming_is_given_up() {
    let server = Server::start(Settings { body_grace: Duration::from_millis(50), ..patient() });
    for path in ["/echo", "/sum"] {
        let mut client = server.connect();
        client.send(format!("PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc"));
        let answer = client.answer();
        assert!(answer.status == 400 && answer.text().starts_with("TimedOut ") && answer.closes(), "{answer:?}");
    }
}

#[test]
fn a_body_that_is_cut_off_is_told_from_one_that_ended() {
    let server = Server::start(patient());
    for path in ["/echo", "/sum"] {
        for framing in [
            "Content-Length: 10\r\n\r\nabc",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ] {
            let mut client = server.connect();
            client.send(format!("PUT {path} HTTP/1.1\r\nHost: h\r\n{framing}"));
            client.shutdown();
            let answer = client.answer();
            assert!(answer.status == 400 && answer.text().starts_with("Disconnected "), "{answer:?}");
            client.assert_closed();
        }
    }
}

#[test]
fn a_client_that_does_not_take_its_answer_is_given_up() {
    let server = Server::start(Settings {
        send_grace: Duration::from_millis(50),
        send_bytes_per_second_min: 100 << 20,
        ..patient()
    });
    let mut client = server.connect();
    client.send("GET /object?1000000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    server.wait_until("the server gives up", |server| server.metrics.render().contains("incomplete_total 1.0\n"));
    assert!(client.discard() < 1_000_000_000);
}

#[test]
fn a_slow_client_keeps_no_buffer_from_others() {
    const LENGTH: usize = 12_000_000;
    let server = Server::start(Settings { body_grace: TOO_LONG, send_grace: TOO_LONG, ..patient() });
    // Three buffers are for requests here. More clients stop in the middle of their bodies, or do not read theirs.
    let start = |request: &str, body: &[u8]| {
        let mut client = server.connect();
        client.send(request);
        client.send(body);
        client
    };
    let plain = "PUT /sum HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n";
    let mut plain: Vec<_> = (0..4).map(|_| start(plain, &[1; 100_000])).collect();
    let chunked = "PUT /sum HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut chunked: Vec<_> = (0..4).map(|_| start(chunked, b"7\r\n\x01\x01\x01")).collect();
    let readers = format!("GET /object?{LENGTH} HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut readers: Vec<_> = (0..4).map(|_| start(&readers, b"")).collect();

    let mut fast = server.connect();
    for _ in 0..2 {
        fast.send("PUT /sum HTTP/1.1\r\nHost: h\r\nContent-Length: 1500000\r\n\r\n");
        fast.send(vec![1; 1_500_000]);
        assert!(fast.answer().text().starts_with("1500000 "));
        fast.send("GET /object?1500000 HTTP/1.1\r\nHost: h\r\n\r\n");
        fast.head();
        fast.bytes(1_500_000);
    }
    // They are slow, and not wrong: each gets what it came for.
    for client in &mut plain {
        client.send([1; 200_000]);
        assert_eq!(client.answer().text(), format!("300000 {}", weighted(&[1; 300_000], 0)));
    }
    for client in &mut chunked {
        client.send("\x01\x01\x01\x01\r\n0\r\n\r\n");
        assert_eq!(client.answer().text(), "7 28");
    }
    for client in &mut readers {
        client.head();
        let bytes = client.bytes(LENGTH);
        assert!((0..).zip(&bytes).all(|(at, &byte)| byte == pattern(at)), "bytes are lost, doubled or exchanged");
    }
}
