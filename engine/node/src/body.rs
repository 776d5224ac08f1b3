//! Where the bytes of a write come from.

use std::ops::Range;

/// The payload of a PUT, decoded: what a protocol wraps around it is the protocol's business.
///
/// The implementation verifies what belongs to the protocol (payload hash, chunk signatures, trailers) in
/// [`Self::finish`]; the story verifies what belongs to the object (length, MD5, checksums).
pub trait Body<B> {
    /// Why the bytes did not come: the client left, was too slow, lied about a signature.
    type Error;

    /// Payload bytes in all, as declared. S3 demands that a client says so beforehand.
    fn length(&self) -> u64;

    /// Fills `buffer[range]` with the next payload bytes. Fewer than asked only at the end of the payload.
    fn fill(&mut self, buffer: B, range: Range<usize>) -> impl Future<Output = (Result<usize, Self::Error>, B)>;

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
