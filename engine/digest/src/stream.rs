//! One stream of bytes, digested as it passes.

use hmac::{Hmac, KeyInit, Mac};
use sha1::{Digest as _, Sha1};

use crate::md5::{self, Md5};
use crate::sha256::{self, Sha256};
use crate::{Value, crc};

/// What to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// MD5 (RFC 1321), 16 bytes. Broken as a protection against people; S3 makes entity tags of it.
    Md5,
    /// CRC-32/ISO-HDLC, that of zlib and Ethernet; 4 bytes.
    Crc32,
    /// CRC-32/ISCSI, also called Castagnoli; 4 bytes.
    Crc32c,
    /// CRC-64/NVME; 8 bytes.
    Crc64Nvme,
    /// SHA-1 (FIPS 180-4), 20 bytes. Broken as a protection against people.
    Sha1,
    /// SHA-256 (FIPS 180-4), 32 bytes.
    Sha256,
}

impl Algorithm {
    /// Bytes of a value.
    #[must_use]
    pub const fn value_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

/// A digest under way: bytes go in through [`Self::update`] in any pieces, the value comes out of [`Self::finish`].
#[derive(Clone, Debug)]
pub struct Digest {
    pub(crate) algorithm: Algorithm,
    pub(crate) state: State,
}

impl Digest {
    /// The digest of nothing yet.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let state = match (algorithm, crc::parameters(algorithm)) {
            (_, Some(parameters)) => State::Crc(crc_fast::Digest::new(parameters)),
            (Algorithm::Md5, _) => State::Md5(Md5::new(md5::BEGIN)),
            (Algorithm::Sha1, _) => State::Sha1(Sha1::new()),
            (_, None) => State::Sha256(Sha256::new(sha256::BEGIN)),
        };
        Self { algorithm, state }
    }

    /// What it computes.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Takes the next bytes, any number of them.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Md5(stream) => stream.update(bytes, md5::compress),
            State::Sha1(sha1) => sha1.update(bytes),
            State::Sha256(stream) => stream.update(bytes, sha256::compress),
            State::Crc(crc) => crc.update(bytes),
        }
    }

    /// The value of all bytes taken.
    #[must_use]
    pub fn finish(self) -> Value {
        let value = match self.state {
            State::Md5(stream) => md5::finish(stream),
            State::Sha1(sha1) => Value::new(&sha1.finalize()),
            State::Sha256(stream) => sha256::finish(stream),
            State::Crc(crc) => crc::value(self.algorithm, crc.finalize()),
        };
        assert_eq!(value.len(), self.algorithm.value_bytes(), "each algorithm has one length");
        value
    }
}

/// Beside each other and not boxed: a PUT holds one to three of them, and the largest is some 300 bytes.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Md5(Md5),
    Sha1(Sha1),
    Sha256(Sha256),
    Crc(crc_fast::Digest),
}

/// SHA-256 of bytes that are all here.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    all(Algorithm::Sha256, bytes)
}

/// MD5 of bytes that are all here.
#[must_use]
pub fn md5(bytes: &[u8]) -> [u8; 16] {
    all(Algorithm::Md5, bytes)
}

fn all<const BYTES: usize>(algorithm: Algorithm, bytes: &[u8]) -> [u8; BYTES] {
    let mut digest = Digest::new(algorithm);
    digest.update(bytes);
    digest.finish()[..].try_into().expect("the algorithm's own length")
}

/// HMAC-SHA-256 (RFC 2104): proves that who made it knew `key`, which may have any length.
#[must_use]
pub fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(data);
    mac.finalize().into_bytes().into()
}
