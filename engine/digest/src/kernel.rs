//! Which code computes many digests at once.

use crate::{Algorithm, Digest};

/// The code that [`update_many`] uses. All of it gives the same values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(());

impl Kernel {
    /// The fastest that this CPU has.
    #[must_use]
    pub fn detect() -> Self {
        Self(())
    }

    /// How many digests of an algorithm go in step: 1 where one alone is as fast.
    #[must_use]
    pub fn lanes(self, _algorithm: Algorithm) -> usize {
        1
    }
}

/// Gives each digest its bytes, as [`Digest::update`] does, as many at once as the kernel can.
pub fn update_many(_kernel: Kernel, updates: &mut [(&mut Digest, &[u8])]) {
    for (digest, bytes) in updates {
        digest.update(bytes);
    }
}
