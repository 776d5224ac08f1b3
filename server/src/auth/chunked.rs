//! `aws-chunked` framing without I/O: knows what comes next, never holds payload.
//!
//! The hashes of signed chunks are lent to whoever has the payload ([`Chunked::undigested`]); a chunk is verified when its
//! hash is back and complete. Short chunks, and those of a body that has very many, are hashed as they pass.
//!
//! ```text
//! <hex size>[;chunk-signature=<64 hex>]\r\n <size bytes> \r\n     any number of times, size > 0
//! 0[;chunk-signature=<64 hex>]\r\n                                the last chunk
//! [<name>:<value>\r\n ...] [x-amz-trailer-signature:<64 hex>\r\n] \r\n
//! ```
//! (S3 API reference, "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks",
//! with and without trailing headers.)

use std::collections::VecDeque;
use std::ops::Range;

use anvil_digest::{Digest, sha256};
use anvil_model::object::{Checksum, ChecksumAlgorithm, ChecksumType};
use anvil_node::body::Span;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Streaming;
use super::hash;
use super::request::trailer_name;
use super::sigv4::{ChunkSigner, Link, Mismatch, parse_hex32};

/// Reads the framing of one body.
#[derive(Debug)]
pub(super) struct Chunked {
    signer: Option<ChunkSigner>,
    /// Payload bytes that came, and that are still to come, as declared.
    given: u64,
    owed: u64,
    state: State,
    /// The chunks whose signatures are not verified yet, up to the current one. Empty when chunks are not signed.
    unverified: VecDeque<SignedChunk>,
    /// `Some` when trailers may follow; which checksum they must bring.
    trailer: Option<Option<ChecksumAlgorithm>>,
    trailer_bytes: usize,
    checksum: Option<Vec<u8>>,
    trailer_signed: bool,
}

/// A chunk between its size line and the check of its signature.
#[derive(Debug)]
struct SignedChunk {
    link: Link,
    /// `None` while it is lent.
    hash: Option<Digest>,
    /// Its payload that the hash is owed; always empty when `as_it_passes`.
    undigested: Range<u64>,
    /// The hash takes the payload at once.
    as_it_passes: bool,
    complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At a chunk's size line.
    Header,
    /// In a chunk's data, with this many bytes to come.
    Data(u64),
    /// At the line end behind a chunk's data.
    DataEnd,
    /// Behind the last chunk's size line.
    Trailer,
    Done,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More framing: at least one byte is needed.
    Framing,
    /// This many payload bytes, to be given to [`Chunked::payload`].
    Payload(u64),
    /// Nothing: all signatures held.
    End,
}

/// Why a framed body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Not the framing that was announced.
    #[error("the aws-chunked framing of the body is malformed")]
    Malformed,
    /// A chunk or the trailers are not what was signed.
    #[error("the signature of a chunk does not match")]
    Signature,
    /// More or fewer payload bytes than `x-amz-decoded-content-length`.
    #[error("the body does not have as many bytes as x-amz-decoded-content-length says")]
    Length,
    /// Trailers other than announced, or unreadable.
    #[error("the trailing headers are malformed or not those that x-amz-trailer announced")]
    Trailer,
}

impl From<Mismatch> for ChunkError {
    fn from(_: Mismatch) -> Self {
        Self::Signature
    }
}

impl Chunked {
    pub(super) fn new(streaming: Streaming) -> Self {
        let Streaming { signer, decoded_bytes, trailer } = streaming;
        Self {
            signer,
            given: 0,
            owed: decoded_bytes,
            state: State::Header,
            unverified: VecDeque::new(),
            trailer,
            trailer_bytes: 0,
            checksum: None,
            trailer_signed: false,
        }
    }

    /// Takes framing from the front of `input` and says how many bytes it took and what comes next.
    pub(super) fn framing(&mut self, input: &[u8]) -> Result<(usize, Next), ChunkError> {
        let mut taken = 0;
        loop {
            let (bytes, next) = match self.state {
                State::Data(left) => return Ok((taken, Next::Payload(left))),
                State::Done => return Ok((taken, Next::End)),
                State::Header => self.header(&input[taken..])?,
                State::DataEnd => self.data_end(&input[taken..])?,
                State::Trailer => self.trailer(&input[taken..])?,
            };
            taken += bytes;
            if next == Wants::More {
                return Ok((taken, Next::Framing));
            }
        }
    }

    /// Counts payload bytes, at most as many as [`Next::Payload`] said. They stay where they are until what is
    /// [undigested](Self::undigested) was asked for.
    pub(super) fn payload(&mut self, bytes: &[u8]) -> Result<(), ChunkError> {
        let State::Data(left) = self.state else { panic!("payload is taken only where the framing says so") };
        let left = left.checked_sub(bytes.len() as u64).expect("no more payload than the chunk has");
        self.owed -= bytes.len() as u64;
        self.given += bytes.len() as u64;
        if let Some(chunk) = self.unverified.back_mut() {
            chunk.take(bytes, self.given);
            chunk.complete = left == 0;
        }
        self.state = State::Data(left);
        if left == 0 {
            self.state = State::DataEnd;
            self.verify_complete()?;
        }
        Ok(())
    }

    /// Lends the hashes that are owed payload, with the payload that each is owed.
    pub(super) fn undigested(&mut self) -> Vec<Span> {
        let owed = self.unverified.iter_mut().filter(|chunk| !chunk.undigested.is_empty());
        owed.map(SignedChunk::lend).collect()
    }

    /// Takes back what [`Self::undigested`] lent, and verifies the chunks that are complete.
    pub(super) fn digested(&mut self, spans: Vec<Span>) -> Result<(), ChunkError> {
        let mut lent = self.unverified.iter_mut().filter(|chunk| chunk.hash.is_none());
        for span in spans {
            let chunk = lent.next().expect("no more comes back than was lent");
            chunk.hash = Some(span.digest);
        }
        assert!(lent.next().is_none(), "all that was lent comes back at once");
        self.verify_complete()
    }

    /// Whether the current chunk, if any, is unfinished or more is expected.
    pub(super) fn owed(&self) -> u64 {
        self.owed
    }

    /// The checksum of the trailers, after [`Next::End`].
    pub(super) fn checksum(&self) -> Option<Checksum> {
        assert_eq!(self.state, State::Done, "trailers are believed only when all signatures held");
        let algorithm = self.trailer.flatten()?;
        let value = self.checksum.clone()?;
        Some(Checksum { algorithm, of: ChecksumType::FullObject, value })
    }

    /// Whether the trailers come without a signature.
    pub(super) fn has_unsigned_trailers(&self) -> bool {
        self.signer.is_none() && self.trailer.is_some()
    }

    fn header(&mut self, input: &[u8]) -> Result<(usize, Wants), ChunkError> {
        let Some(line) = complete_line(input, HEADER_BYTES_MAX).map_err(|_| ChunkError::Malformed)? else {
            return Ok((0, Wants::More));
        };
        let text = line.strict().ok_or(ChunkError::Malformed)?;
        let (size, extension) = text.split_once(';').unwrap_or((text, ""));
        let size = parse_size(size).ok_or(ChunkError::Malformed)?;
        let link = match &mut self.signer {
            Some(signer) => Some(signer.link(parse_chunk_signature(extension).ok_or(ChunkError::Malformed)?)),
            None => None,
        };
        if size > self.owed || (size == 0 && self.owed > 0) {
            return Err(ChunkError::Length);
        }
        self.unverified.extend(link.map(|link| SignedChunk {
            link,
            hash: Some(hash::sha256_of_nothing()),
            undigested: self.given..self.given,
            as_it_passes: size < LENT_BYTES_MIN || self.unverified.len() >= UNVERIFIED_MAX,
            complete: size == 0,
        }));
        self.state = State::Data(size);
        if size == 0 {
            self.state = State::Trailer;
            self.verify_complete()?;
            assert!(self.unverified.is_empty(), "all hashes are back before the end of the body is asked for");
        }
        Ok((line.bytes, Wants::Nothing))
    }

    /// Verifies the chunks that are complete and wholly hashed.
    fn verify_complete(&mut self) -> Result<(), ChunkError> {
        let Some(signer) = &self.signer else { return Ok(()) };
        // The last one first: it may have been hashed as it passed, and then nothing of it need be kept.
        while let Some(last) = self.unverified.pop_back_if(|chunk| chunk.is_hashed()) {
            last.verify(signer)?;
        }
        while let Some(first) = self.unverified.pop_front_if(|chunk| chunk.is_hashed()) {
            first.verify(signer)?;
        }
        Ok(())
    }

    fn data_end(&mut self, input: &[u8]) -> Result<(usize, Wants), ChunkError> {
        match input {
            [] | [b'\r'] => Ok((0, Wants::More)),
            [b'\r', b'\n', ..] => {
                self.state = State::Header;
                Ok((2, Wants::Nothing))
            }
            _ => Err(ChunkError::Malformed),
        }
    }

    fn trailer(&mut self, input: &[u8]) -> Result<(usize, Wants), ChunkError> {
        let room = TRAILER_BYTES_MAX - self.trailer_bytes;
        let Some(line) = complete_line(input, room).map_err(|_| ChunkError::Trailer)? else {
            return Ok((0, Wants::More));
        };
        self.trailer_bytes += line.bytes;
        let text = line.lenient().ok_or(ChunkError::Trailer)?;
        match text.split_once(':') {
            // AWS's own example separates the trailers from their signature by an empty line.
            None if text.is_empty() && self.awaits_trailer_signature() => {}
            None if text.is_empty() => self.end()?,
            None => return Err(ChunkError::Trailer),
            Some((name, value)) => self.trailing_header(&name.to_ascii_lowercase(), value.trim())?,
        }
        Ok((line.bytes, Wants::Nothing))
    }

    fn trailing_header(&mut self, name: &str, value: &str) -> Result<(), ChunkError> {
        if name == "x-amz-trailer-signature" && self.awaits_trailer_signature() {
            let signature = parse_hex32(value).ok_or(ChunkError::Trailer)?;
            let hash = sha256(self.canonical_trailers().as_bytes());
            let signer = self.signer.as_mut().expect("only signed forms await one");
            let link = signer.link(signature);
            signer.verify_trailer(&link, &hash)?;
            self.trailer_signed = true;
            return Ok(());
        }
        let algorithm = self.trailer.flatten().filter(|&algorithm| trailer_name(algorithm) == name);
        let algorithm = algorithm.filter(|_| self.checksum.is_none()).ok_or(ChunkError::Trailer)?;
        let decoded = STANDARD.decode(value).ok().filter(|decoded| decoded.len() == algorithm.value_bytes());
        self.checksum = Some(decoded.ok_or(ChunkError::Trailer)?);
        Ok(())
    }

    fn awaits_trailer_signature(&self) -> bool {
        self.signer.is_some() && self.trailer.is_some() && !self.trailer_signed
    }

    /// The trailers as they are signed.
    fn canonical_trailers(&self) -> String {
        match (self.trailer.flatten(), &self.checksum) {
            (Some(algorithm), Some(value)) => format!("{}:{}\n", trailer_name(algorithm), STANDARD.encode(value)),
            _ => String::new(),
        }
    }

    fn end(&mut self) -> Result<(), ChunkError> {
        let announced = self.trailer.flatten().is_some();
        if announced != self.checksum.is_some() {
            return Err(ChunkError::Trailer);
        }
        self.state = State::Done;
        Ok(())
    }
}

impl SignedChunk {
    /// Takes payload that ends `end` bytes into the body's.
    fn take(&mut self, bytes: &[u8], end: u64) {
        match &mut self.hash {
            Some(hash) if self.as_it_passes => {
                hash.update(bytes);
                self.undigested = end..end;
            }
            _ => self.undigested.end = end,
        }
    }

    fn lend(&mut self) -> Span {
        let Range { start, end } = self.undigested.clone();
        self.undigested.start = end;
        let digest = self.hash.take().expect("what was lent is back before more is");
        Span { start, length: end - start, digest }
    }

    fn is_hashed(&self) -> bool {
        self.complete && self.undigested.is_empty() && self.hash.is_some()
    }

    fn verify(self, signer: &ChunkSigner) -> Result<(), Mismatch> {
        signer.verify_chunk(&self.link, &hash::value(self.hash.expect("it is back")))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    More,
    Nothing,
}

struct Line<'a> {
    /// With its line end.
    bytes: usize,
    /// Without `\n`.
    content: &'a [u8],
}

impl Line<'_> {
    /// The text of a line that ends with `\r\n` and has no other control character.
    fn strict(&self) -> Option<&str> {
        self.content.strip_suffix(b"\r").and_then(visible)
    }

    /// The text of a line that ends with `\r\n` or `\n`: AWS's own example has both in its trailers.
    fn lenient(&self) -> Option<&str> {
        visible(self.content.strip_suffix(b"\r").unwrap_or(self.content))
    }
}

fn visible(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()).then_some(text)
}

/// The line went on for too long.
struct TooLong;

fn complete_line(input: &[u8], bytes_max: usize) -> Result<Option<Line<'_>>, TooLong> {
    let window = &input[..input.len().min(bytes_max)];
    match window.iter().position(|&byte| byte == b'\n') {
        Some(end) => Ok(Some(Line { bytes: end + 1, content: &input[..end] })),
        None if window.len() == bytes_max => Err(TooLong),
        None => Ok(None),
    }
}

/// 1 to 16 hexadecimal digits.
fn parse_size(text: &str) -> Option<u64> {
    let digits = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if digits { u64::from_str_radix(text, 16).ok() } else { None }
}

fn parse_chunk_signature(extension: &str) -> Option<[u8; 32]> {
    parse_hex32(extension.trim().strip_prefix("chunk-signature=")?)
}

/// A size line: 16 digits, `;chunk-signature=`, 64 digits, line end, and some room.
const HEADER_BYTES_MAX: usize = 128;
/// All trailers together.
const TRAILER_BYTES_MAX: usize = 1024;
/// Shorter chunks are hashed as they pass: to lend their hashes would cost as much.
const LENT_BYTES_MIN: u64 = 4 << 10;
/// Hashes that a body may have under way: those of a window of chunks of 8 KiB, the shortest that clients send. A body
/// of more has the others hashed as they pass.
const UNVERIFIED_MAX: usize = 160;
