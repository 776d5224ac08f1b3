//! Floor 0: the values and decisions that every other crate shares.
//!
//! Nothing here performs I/O, reads a clock or holds `unsafe` code. [`io`] is the seam: the store and the
//! stories are written against it, `runtime` makes it real, `sim` makes it false.
#![forbid(unsafe_code)]

pub mod access;
pub mod format;
pub mod geometry;
pub mod ids;
pub mod io;
pub mod latency;
pub mod limits;
pub mod object;
pub mod placement;
pub mod profile;
pub mod time;
