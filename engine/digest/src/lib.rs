//! Floor 0: the digests that S3 speaks of. MD5 makes entity tags, SHA-256 signs requests, and the five checksum
//! algorithms protect bodies.
//!
//! Holds state and computes; knows no S3 type and performs no I/O. One stream is the business of [`Digest::update`]; many
//! at once, which for MD5 and SHA-256 cost hardly more than one, of [`update_many`]. The widest code that the CPU has is
//! chosen at run time, and all of it gives the same values.
#![deny(unsafe_code)]

mod blocks;
mod combine;
mod crc;
mod kernel;
mod lanes;
mod md5;
mod sha256;
mod stream;
mod value;

pub use combine::combine;
pub use crc::crc_kernel;
pub use kernel::{Kernel, update_many};
pub use stream::{Algorithm, Digest, hmac_sha256, md5, sha256};
pub use value::Value;

#[cfg(test)]
mod tests;
