//! `aws-chunked` framing without I/O: knows what comes next, never holds payload.
//!
//! ```text
//! <hex size>[;chunk-signature=<64 hex>]\r\n <size bytes> \r\n     any number of times, size > 0
//! 0[;chunk-signature=<64 hex>]\r\n                                the last chunk
//! [<name>:<value>\r\n ...] [x-amz-trailer-signature:<64 hex>\r\n] \r\n
//! ```
//! (S3 API reference, "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks",
//! with and without trailing headers.)

use anvil_digest::sha256;
use anvil_model::object::{Checksum, ChecksumAlgorithm, ChecksumType};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Streaming;
use super::hash::Sha256;
use super::request::trailer_name;
use super::sigv4::{ChunkSigner, Mismatch, parse_hex32};

/// Reads the framing of one body.
#[derive(Debug)]
pub(super) struct Chunked {
    signer: Option<ChunkSigner>,
    /// Payload bytes that are still to come, as declared.
    owed: u64,
    state: State,
    /// Hash of the current chunk so far; only kept when chunks are signed.
    hash: Sha256,
    /// Signature of the current chunk.
    signature: Option<[u8; 32]>,
    /// `Some` when trailers may follow; which checksum they must bring.
    trailer: Option<Option<ChecksumAlgorithm>>,
    trailer_bytes: usize,
    checksum: Option<Vec<u8>>,
    trailer_signed: bool,
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
            owed: decoded_bytes,
            state: State::Header,
            hash: Sha256::default(),
            signature: None,
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

    /// Counts and hashes payload bytes, at most as many as [`Next::Payload`] said.
    pub(super) fn payload(&mut self, bytes: &[u8]) -> Result<(), ChunkError> {
        let State::Data(left) = self.state else { panic!("payload is taken only where the framing says so") };
        let left = left.checked_sub(bytes.len() as u64).expect("no more payload than the chunk has");
        self.owed -= bytes.len() as u64;
        if self.signer.is_some() {
            self.hash.update(bytes);
        }
        self.state = State::Data(left);
        if left == 0 {
            self.state = State::DataEnd;
            self.verify_chunk()?;
        }
        Ok(())
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
        self.signature = match &self.signer {
            Some(_) => Some(parse_chunk_signature(extension).ok_or(ChunkError::Malformed)?),
            None => None,
        };
        if size > self.owed || (size == 0 && self.owed > 0) {
            return Err(ChunkError::Length);
        }
        self.state = State::Data(size);
        if size == 0 {
            self.state = State::Trailer;
            self.verify_chunk()?;
        }
        Ok((line.bytes, Wants::Nothing))
    }

    fn verify_chunk(&mut self) -> Result<(), ChunkError> {
        let Some(signer) = &mut self.signer else { return Ok(()) };
        let hash = std::mem::take(&mut self.hash).finish();
        let signature = self.signature.take().expect("a signed chunk's header holds its signature");
        Ok(signer.verify_chunk(&hash, &signature)?)
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
            self.signer.as_mut().expect("only signed forms await one").verify_trailer(&hash, &signature)?;
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
