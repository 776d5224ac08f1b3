//! The seam to the protocols: where the bytes of a PUT come from.
//!
//! `server` implements it over a connection, undoing `aws-chunked` framing and HTTP/2 frames and checking the
//! signatures of chunks; the simulator implements it over a script.

use std::future::Future;
use std::ops::Range;

use anvil_digest::Digest;

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

    /// The digests that the protocol promised of payload that it has given since this was last asked: in order, none
    /// overlapping. They are lent: the story computes them beside its own, over bytes that are in cache, together with
    /// those of other requests, and gives them back to [`Self::digested`] before it asks again and before
    /// [`Self::finish`]. More payload may be asked for meanwhile.
    fn undigested(&mut self) -> Vec<Span> {
        Vec::new()
    }

    /// Takes back what [`Self::undigested`] lent, each having taken the bytes of its span; verifies what is complete.
    fn digested(&mut self, spans: Vec<Span>) -> Result<(), Self::Error> {
        assert!(spans.is_empty(), "a body that lends nothing gets nothing back");
        Ok(())
    }

    /// Reads what follows the payload and verifies what the protocol promised of it. Called once, after the last byte
    /// and before anything becomes visible.
    fn finish(&mut self) -> impl Future<Output = Result<Trailer, Self::Error>>;
}

/// A stretch of the payload, and a digest that is to take its bytes.
#[derive(Debug)]
pub struct Span {
    /// Payload bytes before it.
    pub start: u64,
    /// Bytes of it; at least one.
    pub length: u64,
    /// What has taken the bytes before them, if there are any.
    pub digest: Digest,
}

/// Digests at once what a body lent, over `bytes`, which begin `start` bytes into its payload: for documents, which
/// nothing else is computed of.
///
/// # Errors
/// What [`Body::digested`] says.
pub fn digest_now<B, T: Body<B>>(body: &mut T, start: u64, bytes: &[u8]) -> Result<(), T::Error> {
    let mut spans = body.undigested();
    for Span { start: at, length, digest } in &mut spans {
        let at = usize::try_from(*at - start).expect("the span lies in these bytes");
        let length = usize::try_from(*length).expect("the span lies in these bytes");
        digest.update(&bytes[at..][..length]);
    }
    body.digested(spans)
}

/// What came after the payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trailer {
    /// A checksum that the client announced and sent behind the body.
    pub checksum: Option<anvil_model::object::Checksum>,
}
