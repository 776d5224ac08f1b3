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
    /// The entity tag, quoted.
    pub(super) etag: Option<String>,
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
            let body_bytes = match head.length {
                _ if is_head || matches!(head.status, 204 | 304) => 0,
                Length::Known(length) => self.pass_on(length, sink)?,
                Length::Chunked => self.pass_on_chunks(sink)?,
            };
            return Ok(Answer {
                status: head.status,
                first_byte: first_byte.unwrap_or_else(Instant::now),
                body_bytes,
                keep_alive: head.keep_alive,
                etag: head.etag,
            });
        }
    }

    fn holds_head(&self) -> bool {
        self.buffer[self.received.clone()].windows(4).any(|window| window == b"\r\n\r\n")
    }

    /// The chunked coding (RFC 9112, section 7.1); trailers are dropped.
    fn pass_on_chunks(&mut self, sink: &mut dyn FnMut(&[u8])) -> io::Result<u64> {
        let mut all = 0;
        loop {
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length = u64::from_str_radix(digits, 16).map_err(|_| invalid("a chunk of the answer has no length"))?;
            if length == 0 {
                while !self.line()?.is_empty() {}
                return Ok(all);
            }
            all += self.pass_on(length, sink)?;
            if !self.line()?.is_empty() {
                return Err(invalid("a chunk of the answer is longer than it says"));
            }
        }
    }

    /// The next line, without its end.
    fn line(&mut self) -> io::Result<String> {
        loop {
            let bytes = &self.buffer[self.received.clone()];
            if let Some(length) = bytes.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&bytes[..length]).into_owned();
                self.received.start += length + 2;
                return Ok(line);
            }
            if bytes.len() > LINE_BYTES_MAX {
                return Err(invalid("a line in the body of an answer is too long"));
            }
            self.receive()?;
        }
    }

    fn pass_on(&mut self, length: u64, sink: &mut dyn FnMut(&[u8])) -> io::Result<u64> {
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
        Ok(length)
    }

    fn receive(&mut self) -> io::Result<()> {
        if self.received.is_empty() {
            self.received = 0..0;
        } else if self.received.end == self.buffer.len() {
            self.buffer.copy_within(self.received.clone(), 0);
            self.received = 0..self.received.len();
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
    length: Length,
    keep_alive: bool,
    etag: Option<String>,
}

/// Of a body.
enum Length {
    Known(u64),
    Chunked,
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
    let length = match value("transfer-encoding") {
        Some(coding) if coding.eq_ignore_ascii_case("chunked") => Length::Chunked,
        Some(_) => return Err(invalid("the answer has a transfer coding that is not understood")),
        None => {
            let length = value("content-length").map_or(Ok(0), str::parse);
            Length::Known(length.map_err(|_| invalid("Content-Length is no number"))?)
        }
    };
    let keep_alive = !value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let etag = value("etag").map(str::to_owned);
    Ok((head_bytes, Head { status: response.code.unwrap_or(0), length, keep_alive, etag }))
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
/// The line in front of a chunk, or a trailer.
const LINE_BYTES_MAX: usize = 8 << 10;
