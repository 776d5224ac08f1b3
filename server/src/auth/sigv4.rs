//! The arithmetic of AWS Signature Version 4 (S3 API reference, "Authenticating Requests (AWS Signature Version 4)").

use std::fmt;

use anvil_digest::{hmac_sha256, sha256};
use subtle::ConstantTimeEq;

use super::credential::Secret;

/// The only algorithm.
pub(super) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The last word of every scope.
pub(super) const TERMINATOR: &str = "aws4_request";
/// The service that a scope names.
pub(super) const SERVICE: &str = "s3";

/// What signs the requests of one access key on one day.
#[derive(Clone)]
pub(super) struct SigningKey([u8; 32]);

/// The signature is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mismatch;

impl SigningKey {
    pub(super) fn derive(secret: &Secret, date: &str, region: &str) -> Self {
        let seed = format!("AWS4{}", secret.expose());
        let date = hmac_sha256(seed.as_bytes(), date.as_bytes());
        let region = hmac_sha256(&date, region.as_bytes());
        let service = hmac_sha256(&region, SERVICE.as_bytes());
        Self(hmac_sha256(&service, TERMINATOR.as_bytes()))
    }

    pub(super) fn sign(&self, string_to_sign: &str) -> [u8; 32] {
        hmac_sha256(&self.0, string_to_sign.as_bytes())
    }

    /// Takes as long for every wrong signature.
    pub(super) fn verify(&self, string_to_sign: &str, signature: &[u8; 32]) -> Result<(), Mismatch> {
        let equal = self.sign(string_to_sign).ct_eq(signature);
        if bool::from(equal) { Ok(()) } else { Err(Mismatch) }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(hidden)")
    }
}

/// What the signature of a request signs.
pub(super) fn string_to_sign(timestamp: &str, scope: &str, canonical_request_hash: &[u8; 32]) -> String {
    format!("{ALGORITHM}\n{timestamp}\n{scope}\n{}", hex::encode(canonical_request_hash))
}

/// Verifies the chunks of a body, each of which signs the one before it; the first signs the request.
///
/// A link names the signature before it as the client sent it. So links may be verified in any order, and the chain holds
/// when all of them did.
#[derive(Debug)]
pub(super) struct ChunkSigner {
    key: SigningKey,
    timestamp: String,
    scope: String,
    /// The last signature that the client sent.
    previous: [u8; 32],
}

/// A signature of a body's chain and the one before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    previous: [u8; 32],
    signature: [u8; 32],
}

impl ChunkSigner {
    /// `seed` is the signature of the request.
    pub(super) fn new(key: SigningKey, timestamp: String, scope: String, seed: [u8; 32]) -> Self {
        Self { key, timestamp, scope, previous: seed }
    }

    /// The next signature of the chain, to be verified.
    pub(super) fn link(&mut self, signature: [u8; 32]) -> Link {
        Link { previous: std::mem::replace(&mut self.previous, signature), signature }
    }

    /// Verifies a chunk, whose data has this hash.
    pub(super) fn verify_chunk(&self, link: &Link, data_hash: &[u8; 32]) -> Result<(), Mismatch> {
        self.key.verify(&self.chunk_string(&link.previous, data_hash), &link.signature)
    }

    /// Verifies the trailers: `name:value\n` for each, one behind the other, has this hash.
    pub(super) fn verify_trailer(&self, link: &Link, trailer_hash: &[u8; 32]) -> Result<(), Mismatch> {
        self.key.verify(&self.trailer_string(&link.previous, trailer_hash), &link.signature)
    }

    fn chunk_string(&self, previous: &[u8; 32], data_hash: &[u8; 32]) -> String {
        let Self { timestamp, scope, .. } = self;
        let (previous, nothing, data) = (hex::encode(previous), hex::encode(sha256(b"")), hex::encode(data_hash));
        format!("{ALGORITHM}-PAYLOAD\n{timestamp}\n{scope}\n{previous}\n{nothing}\n{data}")
    }

    fn trailer_string(&self, previous: &[u8; 32], trailer_hash: &[u8; 32]) -> String {
        let Self { timestamp, scope, .. } = self;
        let (previous, trailer) = (hex::encode(previous), hex::encode(trailer_hash));
        format!("{ALGORITHM}-TRAILER\n{timestamp}\n{scope}\n{previous}\n{trailer}")
    }

    /// Signs the next chunk as a client does.
    #[cfg(test)]
    pub(super) fn sign_chunk(&mut self, data: &[u8]) -> [u8; 32] {
        self.previous = self.key.sign(&self.chunk_string(&self.previous, &sha256(data)));
        self.previous
    }

    /// Signs the trailers as a client does.
    #[cfg(test)]
    pub(super) fn sign_trailer(&mut self, trailers: &[u8]) -> [u8; 32] {
        self.previous = self.key.sign(&self.trailer_string(&self.previous, &sha256(trailers)));
        self.previous
    }
}

/// Reads 64 hexadecimal digits.
pub(super) fn parse_hex32(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}
