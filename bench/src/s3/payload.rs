//! What is put: the same bytes in every object, digested and framed once, so that the client's share of the CPU is small
//! and a GET can be compared.

use std::sync::Arc;

use anvil_digest::{Algorithm, Digest, sha256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

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
}

/// A body with what its request says of it.
#[derive(Clone, Debug)]
pub(super) struct Payload {
    /// The object's bytes.
    pub(super) content: Arc<[u8]>,
    /// As it goes over the wire; `None` when that is the content itself.
    framed: Option<Arc<[u8]>>,
    /// The value of `x-amz-content-sha256`.
    pub(super) content_sha256: String,
    /// More headers to sign, in order.
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Payload {
    pub(super) fn new(length: usize, promise: Promise) -> Self {
        let content: Arc<[u8]> = random_bytes(length).into();
        let (framed, content_sha256, headers) = match promise {
            Promise::Signed => (None, hex::encode(sha256(&content)), Vec::new()),
            Promise::Unsigned => (None, "UNSIGNED-PAYLOAD".to_owned(), Vec::new()),
            Promise::Trailer => (
                Some(frame(&content).into()),
                "STREAMING-UNSIGNED-PAYLOAD-TRAILER".to_owned(),
                vec![
                    ("content-encoding", "aws-chunked".to_owned()),
                    ("x-amz-decoded-content-length", length.to_string()),
                    ("x-amz-trailer", TRAILER.to_owned()),
                ],
            ),
        };
        Self { content, framed, content_sha256, headers }
    }

    pub(super) fn wire(&self) -> &[u8] {
        self.framed.as_deref().unwrap_or(&self.content)
    }
}

/// The framing of AWS's SDKs: chunks of this many bytes and a trailer.
const CHUNK_BYTES: usize = 64 << 10;
const TRAILER: &str = "x-amz-checksum-crc64nvme";

fn frame(content: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(content.len() + content.len() / CHUNK_BYTES * 16 + 128);
    for chunk in content.chunks(CHUNK_BYTES) {
        framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    let mut digest = Digest::new(Algorithm::Crc64Nvme);
    digest.update(content);
    framed.extend_from_slice(format!("0\r\n{TRAILER}:{}\r\n\r\n", STANDARD.encode(digest.finish())).as_bytes());
    framed
}

/// Bytes that no compression makes smaller and that are the same in every run.
fn random_bytes(length: usize) -> Vec<u8> {
    let mut random = Random::new(0);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// SplitMix64 (Steele, Lea, Flood 2014): good enough to choose keys with.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_framed_body_is_chunks_and_a_trailer() {
        let payload = Payload::new(CHUNK_BYTES + 1, Promise::Trailer);
        let wire = payload.wire();
        assert!(wire.starts_with(b"10000\r\n"));
        let behind = &wire[7 + CHUNK_BYTES..];
        assert!(behind.starts_with(b"\r\n1\r\n"));
        let end = String::from_utf8_lossy(&behind[6..]);
        assert!(end.starts_with("\r\n0\r\nx-amz-checksum-crc64nvme:") && end.ends_with("=\r\n\r\n"), "{end}");
    }

    #[test]
    fn content_does_not_depend_on_the_promise() {
        let (signed, unsigned) = (Payload::new(1001, Promise::Signed), Payload::new(1001, Promise::Unsigned));
        assert_eq!(signed.content, unsigned.content);
        assert_eq!(signed.wire().len(), 1001);
        assert_eq!(signed.content_sha256.len(), 64);
    }
}
