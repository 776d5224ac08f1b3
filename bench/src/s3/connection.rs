//! One HTTP/1.1 connection that is kept alive: a request, its answer, the next.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
    /// Bytes in `buffer` that were received and not yet used.
    received: std::ops::Range<usize>,
}

/// What the server answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// When its first byte came.
    pub(super) first_byte: Instant,
    /// Bytes of the body, which went to the sink.
    pub(super) body_bytes: u64,
    /// Another request may be sent.
    pub(super) keep_alive: bool,
}

impl Connection {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, SILENCE_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES].into(), received: 0..0 })
    }

    /// Sends a request and gives the answer's body to `sink`, piece by piece. `is_head` says that none follows.
    ///
    /// # Errors
    /// When the connection breaks or the answer is no HTTP; the connection is then of no more use.
    pub(super) fn exchange(
        &mut self,
        head: &[u8],
        body: &[u8],
        is_head: bool,
        sink: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Answer> {
        if let Err(error) = self.send(head, body) {
            // A refusal may have come before the body was wanted.
            return self.answer(is_head, sink).map(|answer| Answer { keep_alive: false, ..answer }).map_err(|_| error);
        }
        self.answer(is_head, sink)
    }

    fn send(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        if body.len() <= COPIED_BYTES_MAX {
            return self.stream.write_all(&[head, body].concat());
        }
        self.stream.write_all(head)?;
        self.stream.write_all(body)
    }

    fn answer(&mut self, is_head: bool, sink: &mut dyn FnMut(&[u8])) -> io::Result<Answer> {
        let mut first_byte = None;
        loop {
            if !self.holds_head() {
                self.receive()?;
                first_byte.get_or_insert_with(Instant::now);
                continue;
            }
            let (head_bytes, head) = parse(&self.buffer[self.received.clone()])?;
            self.received.start += head_bytes;
            if head.status == 100 {
                continue;
            }
            let has_body = !is_head && !matches!(head.status, 204 | 304);
            let body_bytes = if has_body { head.length } else { 0 };
            self.pass_on(body_bytes, sink)?;
            return Ok(Answer {
                status: head.status,
                first_byte: first_byte.unwrap_or_else(Instant::now),
                body_bytes,
                keep_alive: head.keep_alive,
            });
        }
    }

    fn holds_head(&self) -> bool {
        self.buffer[self.received.clone()].windows(4).any(|window| window == b"\r\n\r\n")
    }

    fn pass_on(&mut self, length: u64, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            if self.received.is_empty() {
                self.receive()?;
            }
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(self.received.len());
            sink(&self.buffer[self.received.start..][..count]);
            self.received.start += count;
            left -= count as u64;
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        if self.received.is_empty() {
            self.received = 0..0;
        }
        let room = &mut self.buffer[self.received.end..];
        if room.is_empty() {
            return Err(invalid("the head of an answer is too long"));
        }
        match self.stream.read(room)? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
            count => {
                self.received.end += count;
                Ok(())
            }
        }
    }
}

struct Head {
    status: u16,
    length: u64,
    keep_alive: bool,
}

/// Parses a head that is there as a whole; with it, its length.
fn parse(bytes: &[u8]) -> io::Result<(usize, Head)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_bytes) =
        response.parse(bytes).map_err(|error| invalid(&format!("the answer is no HTTP/1.1: {error}")))?
    else {
        return Err(invalid("the head of an answer ends in its middle"));
    };
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    if value("transfer-encoding").is_some() {
        return Err(invalid("the answer has no Content-Length (chunked answers are not understood)"));
    }
    let length =
        value("content-length").map_or(Ok(0), str::parse).map_err(|_| invalid("Content-Length is no number"))?;
    let keep_alive = !value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok((head_bytes, Head { status: response.code.unwrap_or(0), length, keep_alive }))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// For how long nothing may be sent or received.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// One receive of a large answer.
const BUFFER_BYTES: usize = 256 << 10;
/// A body of at most this many bytes goes behind its head in one send.
const COPIED_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;
