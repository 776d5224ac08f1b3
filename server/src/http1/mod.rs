//! HTTP/1.1 (RFC 9112) on one connection: requests one after the other, answered in their order.
//!
//! Knows no S3: a request goes to a [`Service`](crate::http::Service). Called by the listener, which has looked at the
//! first bytes. Whatever two readers of the same bytes could understand differently is refused, and the connection
//! closed: conflicting lengths, bare line feeds, folded lines, unknown codings.
//!
//! Memory of one connection, at most: twice a head of [`HEAD_BYTES_MAX`] and what one receive brings on top, the same
//! head again as parsed text, and an answer's head. Bodies are received into, and sent from, the buffers of those who
//! read and write them. An idle connection keeps no more than [`IDLE_BYTES_MAX`], and of heads that need more a core has
//! [`LARGE_HEADS_MAX`] at a time.

mod answer;
mod body;
mod chunked;
mod connection;
pub(crate) mod fuzz;
pub(crate) mod head;
mod settings;
mod wire;

pub(crate) use connection::{FULL, refuse, serve};
pub(crate) use head::Refusal;
pub use settings::Settings;
pub(crate) use wire::{Patience, Wire, within};

/// A request's head, from its first byte to the empty line, at most.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Header fields of a head, at most.
pub const HEADERS_MAX: usize = 100;
/// The target of a request, at most. A key has at most 1 KiB, which may be 3 KiB percent-encoded.
pub const TARGET_BYTES_MAX: usize = 8 << 10;
/// What a connection keeps of its input memory while it waits for the next request.
pub const IDLE_BYTES_MAX: usize = 16 << 10;
/// Heads larger than [`IDLE_BYTES_MAX`] that a core reads and answers at once; about 25 MiB of memory. More are told to
/// come back.
pub const LARGE_HEADS_MAX: usize = 128;
