//! Floor 0: the erasure code. Makes m parity cells from k data cells, so that any k of the k+m cells give the others.
//!
//! A Reed-Solomon code over GF(2^8) with a Cauchy matrix (`docs/FORMAT.md`, "Erasure code"). It works byte by byte: byte n
//! of a parity cell depends on byte n of the data cells only, so that any range of columns can be encoded or rebuilt
//! alone. Knows no disk, no blob and no checksum; performs no I/O, allocates nothing.
#![deny(unsafe_code)]

mod code;
mod combine;
mod field;
mod kernel;

pub use code::Code;
pub use kernel::Kernel;

/// The most data cells that a stripe has.
pub const DATA_MAX: usize = 16;
/// The most parity cells that a stripe has.
pub const PARITY_MAX: usize = 4;

#[cfg(test)]
mod tests;
