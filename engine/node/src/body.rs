//! The seam to the protocols: where the bytes of a PUT come from.
//!
//! `server` implements it over a connection, undoing `aws-chunked` framing and HTTP/2 frames and checking the
//! signatures of chunks; the simulator implements it over a script.

use std::future::Future;
use std::ops::Range;

/// A request body. Verifies itself against what the protocol promised (length, SHA-256, chunk signatures); the story
/// verifies what belongs to the object (length, MD5, checksums).
pub trait Body<B> {
    /// Why the bytes did not come: the client left, was too slow, lied about a signature.
    type Error;

    /// Payload bytes in all, as declared. S3 demands that a client says so beforehand.
    fn length(&self) -> u64;

    /// Fills `buffer[range]` with the next payload bytes. Gives fewer than asked when the payload ends, and when the
    /// rest does not come at once: a buffer is not kept waiting for a slow client. [`Self::read`] goes on then.
    fn fill(&mut self, buffer: B, range: Range<usize>) -> impl Future<Output = (Result<usize, Self::Error>, B)>;

    /// Appends the next payload bytes to `into`, at least 1 and at most `max`, as soon as there are any. Asked for only
    /// while payload is owed.
    fn read(&mut self, into: &mut Vec<u8>, max: usize) -> impl Future<Output = Result<usize, Self::Error>>;

    /// Reads the whole payload of a small body: [`Self::length`] bytes.
    fn collect(&mut self) -> impl Future<Output = Result<Vec<u8>, Self::Error>>;

    /// Reads what follows the payload and verifies what the protocol promised of it. Called once, after the last byte
    /// and before anything becomes visible.
    fn finish(&mut self) -> impl Future<Output = Result<Trailer, Self::Error>>;
}

/// What came after the payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trailer {
    /// A checksum that the client announced and sent behind the body.
    pub checksum: Option<anvil_model::object::Checksum>,
}
