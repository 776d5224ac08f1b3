//! How a blob is spread: k data shards and m parity shards.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An erasure profile k+m, written `4+2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Profile {
    /// Data shards, 1 to 16.
    pub data: u8,
    /// Parity shards, 0 to 4.
    pub parity: u8,
}

impl Profile {
    /// One copy on one disk.
    pub const SINGLE: Self = Self { data: 1, parity: 0 };
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.data, self.parity)
    }
}
