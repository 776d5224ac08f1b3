//! A client that sees and makes every frame (RFC 9113). Its header blocks use no table and no Huffman code; of the
//! server's it reads the status.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags: of SETTINGS and PING, and of DATA and HEADERS.
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

/// Error codes (RFC 9113, 7).
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const COMPRESSION_ERROR: u32 = 9;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

pub(crate) trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// The other end of a connection.
pub(crate) struct Client {
    wire: Box<dyn Wire>,
    input: Vec<u8>,
    streams: BTreeMap<u32, Received>,
    /// What the last GOAWAY said.
    pub(crate) gone_away: Option<u32>,
    /// What the server lets this client send, on the connection (0) and on streams, beyond the initial windows.
    pub(crate) granted: BTreeMap<u32, u64>,
    /// Lets the server send on.
    pub(crate) grants: bool,
    next_stream: u32,
}

#[derive(Clone, Debug, Default)]
struct Received {
    /// Informational ones too, in their order.
    statuses: Vec<u16>,
    body: Vec<u8>,
    ended: bool,
    reset: Option<u32>,
}

/// What became of a request, or of its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answer { status: u16, body: Vec<u8> },
    Reset(u32),
    GoneAway(u32),
    Closed,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn answer(self) -> (u16, String) {
        match self {
            Self::Answer { status, body } => (status, String::from_utf8_lossy(&body).into_owned()),
            other => panic!("no answer: {other:?}"),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literals (RFC 7541, 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541, 5.1).
fn length(block: &mut Vec<u8>, mut number: usize) {
    if number < 127 {
        return block.push(u8::try_from(number).unwrap());
    }
    block.push(127);
    number -= 127;
    while number >= 128 {
        block.push(u8::try_from(number % 128).unwrap() | 128);
        number /= 128;
    }
    block.push(u8::try_from(number).unwrap());
}

/// The four fields that a request begins with.
pub(crate) fn request<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "Example:1")]
}

/// HEADER_TABLE_SIZE 0, so that every status is spelled out.
const NO_TABLE: [u8; 6] = [0, 1, 0, 0, 0, 0];

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[])
    }

    /// With more settings: (identifier, value).
    pub(crate) fn connect_with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TOO_LONG)).unwrap();
        stream.set_write_timeout(Some(TOO_LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(Box::new(stream), settings)
    }

    pub(crate) fn over(wire: Box<dyn Wire>, settings: &[(u16, u32)]) -> Self {
        let mut client = Self {
            wire,
            input: Vec::new(),
            streams: BTreeMap::new(),
            gone_away: None,
            granted: BTreeMap::new(),
            grants: true,
            next_stream: 1,
        };
        let more = settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
        let settings: Vec<u8> = NO_TABLE.into_iter().chain(more).collect();
        client.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &settings)[..]].concat());
        client
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.write_all(bytes.as_ref()).unwrap();
        self.wire.flush().unwrap();
    }

    /// Sends what the server may not want to read; false when it has closed.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        match self.wire.write_all(bytes.as_ref()) {
            Ok(()) => true,
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
                false
            }
        }
    }

    /// Begins a request; a body follows unless it `ends`.
    pub(crate) fn begin(&mut self, fields: &[(&str, &str)], ends: bool) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.send(frame(HEADERS, flags, stream, &block(fields)));
        stream
    }

    pub(crate) fn get(&mut self, path: &str) -> u32 {
        self.begin(&request("GET", path), true)
    }

    pub(crate) fn data(&mut self, stream: u32, bytes: &[u8], ends: bool) {
        self.send(frame(DATA, u8::from(ends), stream, bytes));
    }

    pub(crate) fn reset(&mut self, stream: u32) {
        self.send(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }

    /// Waits for the end of a request.
    pub(crate) fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            if let Some(received) = self.streams.get(&stream) {
                if received.ended {
                    let status = *received.statuses.last().unwrap();
                    return Outcome::Answer { status, body: received.body.clone() };
                }
                if let Some(code) = received.reset {
                    return Outcome::Reset(code);
                }
            }
            if let Some(code) = self.gone_away.filter(|&code| code != NO_ERROR) {
                return Outcome::GoneAway(code);
            }
            if self.next().is_none() {
                return Outcome::Closed;
            }
        }
    }

    /// A request from its begin to its end.
    pub(crate) fn ask(&mut self, fields: &[(&str, &str)], body: &[u8]) -> Outcome {
        let stream = self.begin(fields, body.is_empty());
        if !body.is_empty() {
            self.data(stream, body, true);
        }
        self.outcome(stream)
    }

    /// Waits for a status of a stream, and gives all that came so far.
    pub(crate) fn statuses(&mut self, stream: u32) -> Vec<u16> {
        while self.streams.get(&stream).is_none_or(|received| received.statuses.is_empty()) {
            assert!(self.next().is_some(), "the connection ends");
        }
        self.streams[&stream].statuses.clone()
    }

    /// The server has broken a stream off, as far as this client has read.
    pub(crate) fn is_reset(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|received| received.reset.is_some())
    }

    /// The body of a stream so far.
    pub(crate) fn body(&self, stream: u32) -> &[u8] {
        self.streams.get(&stream).map_or(&[], |received| &received.body)
    }

    /// Reads until the connection ends; gives the error of the last GOAWAY.
    pub(crate) fn rest(&mut self) -> Option<u32> {
        while self.next().is_some() {}
        self.gone_away
    }

    /// Waits until everything that was sent before has been seen by the server.
    pub(crate) fn ping(&mut self) {
        self.send(frame(PING, 0, 0, b"are you?"));
        while !self.next().is_some_and(|frame| frame.kind == PING && frame.flags == ACK) {}
    }

    /// The next frame, `None` at the end of the connection. Answers what the protocol wants answered.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let head = self.take(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        let frame = Frame { kind: head[3], flags: head[4], stream, payload: self.take(length)? };
        self.note(&frame);
        Some(frame)
    }

    fn note(&mut self, received: &Frame) {
        let Frame { kind, flags, stream, payload } = received;
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        let state = self.streams.entry(*stream).or_default();
        match *kind {
            HEADERS => {
                assert_eq!(flags & END_HEADERS, END_HEADERS, "heads of answers are small");
                // Behind a status that is not informational come trailers.
                if !matches!(state.statuses.last(), Some(200..)) {
                    state.statuses.push(status(payload));
                }
                state.ended |= flags & END_STREAM != 0;
            }
            DATA => {
                state.body.extend_from_slice(payload);
                state.ended |= flags & END_STREAM != 0;
                if self.grants && !payload.is_empty() {
                    let count = u32::try_from(payload.len()).unwrap().to_be_bytes();
                    self.try_send(
                        [frame(WINDOW_UPDATE, 0, 0, &count), frame(WINDOW_UPDATE, 0, *stream, &count)].concat(),
                    );
                }
            }
            RST_STREAM => state.reset = Some(number(0)),
            SETTINGS if *flags == 0 => drop(self.try_send(frame(SETTINGS, ACK, 0, &[]))),
            PING if *flags == 0 => drop(self.try_send(frame(PING, ACK, 0, payload))),
            GOAWAY => self.gone_away = Some(number(4)),
            WINDOW_UPDATE => *self.granted.entry(*stream).or_default() += u64::from(number(0)),
            _ => {}
        }
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut buffer = [0; 64 << 10];
        while self.input.len() < count {
            match self.wire.read(&mut buffer) {
                Ok(0) => return None,
                Ok(some) => self.input.extend_from_slice(&buffer[..some]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                    return None;
                }
                Err(error) => panic!("{error}"),
            }
        }
        Some(self.input.drain(..count).collect())
    }
}

/// The status that a header block begins with: indexed, or spelled out, perhaps in the Huffman code (RFC 7541, A and B).
fn status(block: &[u8]) -> u16 {
    let block = match block {
        [0x20..=0x3f, rest @ ..] => rest,
        all => all,
    };
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [0x08 | 0x18 | 0x48, length, value @ ..] => {
            let text = &value[..usize::from(length & 0x7f)];
            if length & 0x80 == 0 { std::str::from_utf8(text).unwrap().parse().unwrap() } else { huffman_number(text) }
        }
        other => panic!("no status: {other:?}"),
    }
}

/// Digits below 3 have five bits, the others six.
fn huffman_number(text: &[u8]) -> u16 {
    let bits: Vec<u8> = text.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let value = |count: usize| bits[at..at + count].iter().fold(0, |value, bit| value * 2 + u16::from(*bit));
        let (digit, used) = if value(5) < 3 { (value(5), 5) } else { (value(6) - 0b01_1001 + 3, 6) };
        number = number * 10 + digit;
        at += used;
    }
    number
}

/// Longer than anything takes that works.
const TOO_LONG: Duration = Duration::from_secs(60);
