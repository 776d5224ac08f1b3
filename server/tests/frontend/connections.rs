//! Connections that are kept, shared by requests, closed, and the heads of their answers.

use std::time::Duration;

use anvil::http1::Settings;

use crate::harness::{Client, Server, patient};

#[test]
fn a_connection_is_kept_and_each_answer_has_its_own_request_id() {
    let server = Server::start(patient());
    let mut client = server.connect();
    let ids: Vec<String> = (0..3)
        .map(|i| {
            client.send(format!("PUT /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nbody{i}"));
            let answer = client.answer();
            assert_eq!((answer.status, answer.text()), (200, format!("body{i}").as_str()));
            assert_eq!(answer.header("server"), Some("Anvil"));
            assert_eq!(answer.header("x-amz-id-2"), Some("anvil"));
            assert_eq!(answer.header("x-test"), Some("yes"));
            assert!(answer.header("date").unwrap().ends_with(" GMT"));
            assert!(!answer.closes());
            answer.header("x-amz-request-id").unwrap().to_owned()
        })
        .collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0].len() == 16, "{ids:?}");
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let server = Server::start(patient());
    let mut client = server.connect();
    let requests: String = (0..50)
        .map(|i| match i % 3 {
            0 => format!("GET /show?{i} HTTP/1.1\r\nHost: h\r\n\r\n"),
            1 => format!("PUT /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{i:02}"),
            _ => format!("PUT /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{i:02}\r\n0\r\n\r\n"),
        })
        .collect();
    client.send(requests);
    for i in 0..50 {
        let answer = client.answer();
        let expected = if i % 3 == 0 { format!("GET /show Some(\"{i}\") host=h") } else { format!("{i:02}") };
        assert_eq!(answer.text(), expected);
    }
}

#[test]
fn any_division_of_requests_into_segments_is_read_the_same() {
    let server = Server::start(patient());
    let stream = b"PUT /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nt: 1\r\n\r\n\
                   PUT /sum HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n\x01\x01\x01\x01";
    for size in [1, 2, 3, 7, 20] {
        let mut client = server.connect();
        for segment in stream.chunks(size) {
            client.send(segment);
        }
        assert_eq!(client.answer().text(), "abcde");
        assert_eq!(client.answer().text(), "4 10");
    }
}

#[test]
fn http_1_0_and_connection_close_are_answered_once() {
    let server = Server::start(patient());
    for request in ["GET /show HTTP/1.0\r\n\r\n", "GET /show HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"] {
        let mut client = server.connect();
        client.send(request);
        let answer = client.answer();
        assert!(answer.status == 200 && answer.closes(), "{answer:?}");
        client.assert_closed();
    }
}

#[test]
fn an_absolute_target_is_read_as_its_path() {
    let server = Server::start(patient());
    let answer = server.ask("GET http://h:1/show?a HTTP/1.1\r\nHost: h:1\r\n\r\n");
    assert_eq!(answer.text(), "GET /show Some(\"a\") host=h:1");
}

#[test]
fn answers_without_a_body_have_none() {
    let server = Server::start(patient());
    let mut client = server.connect();
    let mut ask = |request: &str| {
        client.send(format!("{request} HTTP/1.1\r\nHost: h\r\n\r\n"));
        client.head()
    };
    assert_eq!(ask("HEAD /bytes?7").header("content-length"), Some("7"));
    assert_eq!(ask("HEAD /announced?12345678901").header("content-length"), Some("12345678901"));
    assert_eq!(ask("HEAD /object?99").header("content-length"), Some("99"));
    assert_eq!(ask("HEAD /nothing").status, 404);
    for status in ["204", "304"] {
        let answer = ask(&format!("GET /status?{status}"));
        assert_eq!((answer.status.to_string().as_str(), answer.header("content-length")), (status, None));
    }
    assert_eq!(ask("GET /status?200").header("content-length"), Some("0"));
    assert_eq!(ask("GET /object?0").header("content-length"), Some("0"));
    // All of them came over one connection: had one had a body, the next head would not have been one.
    assert_eq!(ask("GET /status?200").status, 200);
}

#[test]
fn a_silent_connection_is_closed() {
    let server = Server::start(Settings { idle_timeout: Duration::from_millis(50), ..patient() });
    let mut client = server.connect();
    client.send("GET /status?200 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    client.assert_closed();
}

#[test]
fn a_connection_that_never_speaks_is_closed() {
    let server = Server::start(Settings { head_timeout: Duration::from_millis(50), ..patient() });
    server.connect().assert_closed();
}

#[test]
fn beyond_the_limit_connections_are_told_to_slow_down() {
    let server = Server::start(Settings { connections_max: 2, ..patient() });
    let mut guests = [server.connect(), server.connect()];
    for guest in &mut guests {
        guest.send("GET /status?200 HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(guest.answer().status, 200);
    }
    let mut third = server.connect();
    third.send("GET /status?200 HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = third.answer();
    assert!(answer.status == 503 && answer.closes() && answer.text().starts_with("SlowDown "), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"));
    third.shutdown();
    third.assert_closed();

    let [first, mut second] = guests;
    drop(first);
    server.wait_until("a place is free", |server| server.counters.connections() == 1);
    let mut fourth = server.connect();
    for client in [&mut second, &mut fourth] {
        client.send("GET /status?200 HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    assert!(server.metrics.render().contains("anvil_connections_refused_total 1.0\n"));
}

#[test]
fn a_client_that_comes_with_tls_where_there_is_no_certificate_is_told() {
    let server = Server::start(patient());
    let answer = server.ask([&[0x16, 3, 1, 2, 0][..], &[1; 512]].concat());
    assert!(answer.status == 400 && answer.text().contains("plain HTTP"), "{answer:?}");
}

#[test]
fn every_address_that_is_bound_is_served() {
    let server = Server::start(patient());
    assert_ne!(server.address, server.other_address);
    for address in [server.address, server.other_address] {
        let mut client = Client::connect(address);
        client.send("GET /status?200 HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
}
