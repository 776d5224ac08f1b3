//! Floor 0: the digests that S3 speaks of. MD5 makes entity tags, SHA-256 signs requests, and the five checksum
//! algorithms protect bodies.
//!
//! Holds state and computes; knows no S3 type and performs no I/O. The widest kernel that the CPU has is chosen at run
//! time by the crates underneath, and every one of them gives the same value.
#![forbid(unsafe_code)]

mod crc;
mod kernel;
mod stream;
mod value;

pub use crc::{combine, crc_kernel};
pub use kernel::{Kernel, update_many};
pub use stream::{Algorithm, Digest, hmac_sha256, md5, sha256};
pub use value::Value;

#[cfg(test)]
mod tests;
