//! SHA-256 under way, as a digest that may be lent.

use anvil_digest::{Algorithm, Digest};

pub(super) fn sha256_of_nothing() -> Digest {
    Digest::new(Algorithm::Sha256)
}

/// The value of a SHA-256.
pub(super) fn value(digest: Digest) -> [u8; 32] {
    digest.finish()[..].try_into().expect("a SHA-256 has 32 bytes")
}
