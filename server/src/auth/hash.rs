//! A SHA-256 under way, with a value of a fixed length.

use anvil_digest::{Algorithm, Digest};

#[derive(Clone, Debug)]
pub(super) struct Sha256(Digest);

impl Default for Sha256 {
    fn default() -> Self {
        Self(Digest::new(Algorithm::Sha256))
    }
}

impl Sha256 {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> [u8; 32] {
        self.0.finish()[..].try_into().expect("a SHA-256 has 32 bytes")
    }
}
