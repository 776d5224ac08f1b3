//! Goal: what `anvil-bench bare` takes really goes to the disk and comes back, or it would be a cheap thing to compare with.
//! Method: the real binary, a client of plain sockets.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn bytes_come_back_and_nothing_stays() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_anvil-bench"))
        .arg("bare")
        .arg(directory.path())
        .args(["--listen", "127.0.0.1:0", "--space", "64MiB", "--duration", "10m"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap();
    let mut client = TcpStream::connect(address).unwrap();

    // Sizes around a window, and the space goes round.
    for size in [0_usize, 1, 5000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 20 << 20, 30 << 20, 17_000_000] {
        let bytes: Vec<u8> = (0..size).map(|at| u8::try_from((at * 7 + size + (at >> 9)) % 251).unwrap()).collect();
        write!(client, "PUT /bucket/{size} HTTP/1.1\r\nHost: bare\r\nContent-Length: {size}\r\n\r\n").unwrap();
        client.write_all(&bytes).unwrap();
        assert_eq!(answer(&mut client, false), ("HTTP/1.1 200 OK".to_owned(), Vec::new()));
        write!(client, "HEAD /bucket/{size} HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(answer(&mut client, true), ("HTTP/1.1 200 OK".to_owned(), Vec::new()));
        write!(client, "GET /bucket/{size} HTTP/1.1\r\n\r\n").unwrap();
        let (status, body) = answer(&mut client, false);
        assert!(status == "HTTP/1.1 200 OK" && body == bytes, "{size} bytes come back as {} of {status}", body.len());
    }
    write!(client, "DELETE /bucket/5000 HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(answer(&mut client, false).0, "HTTP/1.1 204 No Content");
    write!(client, "GET /bucket/5000 HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(answer(&mut client, false).0, "HTTP/1.1 501 Not Implemented");

    kill(Pid::from_raw(i32::try_from(server.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// The status line and the body.
fn answer(client: &mut TcpStream, is_head: bool) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; if is_head { 0 } else { length }];
    client.read_exact(&mut body).unwrap();
    (head.lines().next().unwrap().to_owned(), body)
}
