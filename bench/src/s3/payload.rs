//! What is put: the same bytes in every object, digested and framed once, so that the client's share of the CPU is small
//! and a GET can be compared.

use std::ops::Range;
use std::sync::Arc;

use anvil_digest::{Algorithm, Digest, sha256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::sign::Chain;
use crate::load::{Sizes, random_bytes};

/// What a PUT promises of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Promise {
    /// The SHA-256 of the body, in the signature: the server computes it too
    Signed,
    /// Nothing (UNSIGNED-PAYLOAD)
    Unsigned,
    /// A CRC64NVME behind the body (STREAMING-UNSIGNED-PAYLOAD-TRAILER), as newer AWS SDKs send it over TLS
    Trailer,
    /// A signature of each 64 KiB (STREAMING-AWS4-HMAC-SHA256-PAYLOAD), as minio-go and warp send it without TLS
    SignedChunks,
    /// Both of these (STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER), as newer AWS SDKs send it without TLS
    SignedTrailer,
}

/// A body with what its request says of it.
#[derive(Clone, Debug)]
pub(super) struct Payload {
    content: Arc<[u8]>,
    range: Range<usize>,
    framing: Framing,
    /// The value of `x-amz-content-sha256`.
    pub(super) content_sha256: String,
    /// More headers to sign.
    pub(super) headers: Vec<(&'static str, String)>,
    /// Of the body as it goes over the wire.
    pub(super) wire_bytes: usize,
}

/// How the bytes go over the wire.
#[derive(Clone, Debug)]
enum Framing {
    /// As they are.
    None,
    /// In chunks that are the same in every request.
    Fixed(Arc<[u8]>),
    /// In chunks with signatures, of which each request has its own.
    Signed { chunks: Vec<String>, trailer: Option<Trailer> },
}

/// A line behind the body, and its SHA-256 as the signature takes it.
#[derive(Clone, Debug)]
struct Trailer {
    line: String,
    sha256: String,
}

impl Payload {
    /// These bytes of `content`.
    pub(super) fn new(content: &Arc<[u8]>, range: Range<usize>, promise: Promise) -> Self {
        let bytes = &content[range.clone()];
        let chunked = |with_trailer: bool| {
            let mut headers = vec![
                ("content-encoding", "aws-chunked".to_owned()),
                ("x-amz-decoded-content-length", bytes.len().to_string()),
            ];
            if with_trailer {
                headers.push(("x-amz-trailer", TRAILER.to_owned()));
            }
            headers
        };
        let sha256_of = |bytes: &[u8]| hex::encode(sha256(bytes));
        let signed = |with_trailer: bool| {
            let trailer = with_trailer.then(|| {
                let line = trailer_line(bytes);
                let sha256 = sha256_of(format!("{line}\n").as_bytes());
                Trailer { line, sha256 }
            });
            Framing::Signed { chunks: bytes.chunks(CHUNK_BYTES).map(sha256_of).collect(), trailer }
        };
        let (framing, content_sha256, headers) = match promise {
            Promise::Signed => (Framing::None, sha256_of(bytes), Vec::new()),
            Promise::Unsigned => (Framing::None, "UNSIGNED-PAYLOAD".to_owned(), Vec::new()),
            Promise::Trailer => {
                (Framing::Fixed(frame(bytes).into()), "STREAMING-UNSIGNED-PAYLOAD-TRAILER".to_owned(), chunked(true))
            }
            Promise::SignedChunks => (signed(false), "STREAMING-AWS4-HMAC-SHA256-PAYLOAD".to_owned(), chunked(false)),
            Promise::SignedTrailer => {
                (signed(true), "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER".to_owned(), chunked(true))
            }
        };
        let wire_bytes = framing.wire_bytes(bytes.len());
        Self { content: Arc::clone(content), range, framing, content_sha256, headers, wire_bytes }
    }

    /// A small body of its own, with its SHA-256 in the signature.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        Self::new(&bytes.into(), 0..length, Promise::Signed)
    }

    /// The object's bytes.
    pub(super) fn content(&self) -> &[u8] {
        &self.content[self.range.clone()]
    }

    /// As it goes over the wire, in `scratch` where each request has other bytes.
    pub(super) fn wire<'a>(&'a self, chain: &mut Chain, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        match &self.framing {
            Framing::None => self.content(),
            Framing::Fixed(framed) => framed,
            Framing::Signed { chunks, trailer } => {
                scratch.clear();
                scratch.reserve(self.wire_bytes);
                for (chunk, sha256) in self.content().chunks(CHUNK_BYTES).zip(chunks) {
                    let signature = chain.chunk(sha256);
                    scratch.extend_from_slice(format!("{:x}{SIGNATURE}{signature}\r\n", chunk.len()).as_bytes());
                    scratch.extend_from_slice(chunk);
                    scratch.extend_from_slice(b"\r\n");
                }
                let signature = chain.chunk(super::sign::NOTHING_SHA256);
                scratch.extend_from_slice(format!("0{SIGNATURE}{signature}\r\n").as_bytes());
                if let Some(Trailer { line, sha256 }) = trailer {
                    let signature = chain.trailer(sha256);
                    scratch.extend_from_slice(format!("{line}\r\n{TRAILER_SIGNATURE}{signature}\r\n").as_bytes());
                }
                scratch.extend_from_slice(b"\r\n");
                debug_assert_eq!(scratch.len(), self.wire_bytes);
                scratch
            }
        }
    }
}

impl Framing {
    /// Of a body of `length` bytes.
    fn wire_bytes(&self, length: usize) -> usize {
        match self {
            Self::None => length,
            Self::Fixed(framed) => framed.len(),
            Self::Signed { trailer, .. } => {
                let head = |length: usize| format!("{length:x}").len() + SIGNATURE.len() + SIGNATURE_DIGITS + 2;
                let (full, rest) = (length / CHUNK_BYTES, length % CHUNK_BYTES);
                let last = if rest > 0 { head(rest) + 2 } else { 0 };
                let trailer = trailer
                    .as_ref()
                    .map_or(0, |trailer| trailer.line.len() + 2 + TRAILER_SIGNATURE.len() + SIGNATURE_DIGITS + 2);
                length + full * (head(CHUNK_BYTES) + 2) + last + head(0) + trailer + 2
            }
        }
    }
}

/// All bodies of a load, and the parts of those that are put in parts.
#[derive(Clone, Debug)]
pub(super) struct Payloads {
    sizes: Sizes,
    bodies: Vec<Payload>,
    /// The parts of each body; empty where nothing is put in parts.
    parts: Vec<Vec<Payload>>,
}

impl Payloads {
    /// `part_bytes` where objects are put in parts.
    pub(super) fn new(sizes: &Sizes, promise: Promise, part_bytes: Option<u64>) -> anyhow::Result<Self> {
        let content: Arc<[u8]> = random_bytes(usize::try_from(sizes.bytes_max())?).into();
        let length_of = |bytes: u64| usize::try_from(bytes).expect("the largest of them fits");
        let choices = || sizes.choices().iter().map(|choice| length_of(choice.bytes));
        let bodies = choices().map(|length| Payload::new(&content, 0..length, promise)).collect();
        let parts = part_bytes.map(length_of).map_or_else(Vec::new, |part| {
            let starts = |length: usize| (0..length.max(1)).step_by(part);
            let one = |start: usize, length: usize| Payload::new(&content, start..(start + part).min(length), promise);
            choices().map(|length| starts(length).map(|start| one(start, length)).collect()).collect()
        });
        Ok(Self { sizes: sizes.clone(), bodies, parts })
    }

    /// Of object `number`.
    pub(super) fn body(&self, number: u64) -> &Payload {
        &self.bodies[self.sizes.index_of(number)]
    }

    /// Of object `number`, at least one.
    pub(super) fn parts(&self, number: u64) -> &[Payload] {
        &self.parts[self.sizes.index_of(number)]
    }
}

/// The framing of AWS's SDKs: chunks of this many bytes and a trailer.
const CHUNK_BYTES: usize = 64 << 10;
const TRAILER: &str = "x-amz-checksum-crc64nvme";
const SIGNATURE: &str = ";chunk-signature=";
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature:";
const SIGNATURE_DIGITS: usize = 64;

fn trailer_line(content: &[u8]) -> String {
    let mut digest = Digest::new(Algorithm::Crc64Nvme);
    digest.update(content);
    format!("{TRAILER}:{}", STANDARD.encode(digest.finish()))
}

fn frame(content: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(content.len() + content.len() / CHUNK_BYTES * 16 + 128);
    for chunk in content.chunks(CHUNK_BYTES) {
        framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(format!("0\r\n{}\r\n\r\n", trailer_line(content)).as_bytes());
    framed
}

#[cfg(test)]
mod tests {
    use super::super::sign::{AmzDate, Signer};
    use super::*;

    fn payload(length: usize, promise: Promise) -> Payload {
        Payload::new(&random_bytes(length).into(), 0..length, promise)
    }

    fn chain() -> Chain {
        let signer = Signer::new("a".to_owned(), "b".to_owned(), "c".to_owned());
        let headers = [("host", "h"), ("x-amz-content-sha256", "s"), ("x-amz-date", "d")];
        signer.sign("PUT", "/", "", &headers, &AmzDate::now()).1
    }

    #[test]
    fn a_framed_body_is_chunks_and_a_trailer() {
        let (payload, mut scratch) = (payload(CHUNK_BYTES + 1, Promise::Trailer), Vec::new());
        let wire = payload.wire(&mut chain(), &mut scratch);
        assert!(wire.starts_with(b"10000\r\n"));
        let behind = &wire[7 + CHUNK_BYTES..];
        assert!(behind.starts_with(b"\r\n1\r\n"));
        let end = String::from_utf8_lossy(&behind[6..]);
        assert!(end.starts_with("\r\n0\r\nx-amz-checksum-crc64nvme:") && end.ends_with("=\r\n\r\n"), "{end}");
    }

    #[test]
    fn a_signed_framing_is_as_long_as_it_says() {
        for promise in [Promise::SignedChunks, Promise::SignedTrailer] {
            for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 17] {
                let (payload, mut scratch) = (payload(length, promise), Vec::new());
                assert_eq!(payload.wire(&mut chain(), &mut scratch).len(), payload.wire_bytes, "{promise:?} {length}");
                assert!(scratch.ends_with(b"\r\n\r\n"));
            }
        }
    }

    #[test]
    fn content_does_not_depend_on_the_promise() {
        let (signed, unsigned) = (payload(1001, Promise::Signed), payload(1001, Promise::Unsigned));
        assert_eq!(signed.content(), unsigned.content());
        assert_eq!((signed.wire_bytes, signed.content_sha256.len()), (1001, 64));
    }

    #[test]
    fn parts_make_the_body() {
        let sizes: Sizes = "0=1,10=1,25=1".parse().unwrap();
        let payloads = Payloads::new(&sizes, Promise::Signed, Some(10)).unwrap();
        for number in 0..20 {
            let joined: Vec<u8> = payloads.parts(number).iter().flat_map(|part| part.content().to_vec()).collect();
            assert_eq!(joined, payloads.body(number).content());
            assert_eq!(payloads.parts(number).len(), joined.len().div_ceil(10).max(1));
        }
    }
}
