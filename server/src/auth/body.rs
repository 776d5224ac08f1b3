//! A request's body held to what its head promised.

use std::ops::Range;

use anvil_digest::Digest;
use anvil_node::body::{Body, Span, Trailer, digest_now};
use anvil_runtime::Buffer;
use subtle::ConstantTimeEq;

use super::Payload;
use super::chunked::{ChunkError, Chunked, Next};
use super::hash;
use crate::http::{Incoming, ReceiveError};

/// The payload of a verified request, without its framing.
///
/// A plain body goes from the connection straight into the caller's buffers. Of an `aws-chunked` body only the framing
/// and what came with it is copied; the data of a chunk is received in place.
pub struct VerifiedBody<'a, I> {
    incoming: &'a mut I,
    length: u64,
    form: Form,
}

enum Form {
    Plain { received: u64, promised: Option<Promised> },
    Chunked { decoder: Chunked, pending: Vec<u8>, position: usize },
}

/// The hash of a whole payload.
struct Promised {
    value: [u8; 32],
    /// `None` while it is lent.
    hash: Option<Digest>,
    /// Payload bytes that it has taken, or was lent for.
    digested: u64,
}

/// Why the payload did not come, or is not what was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The connection failed.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// Fewer bytes than declared.
    #[error("You did not provide the number of bytes specified by the Content-Length HTTP header.")]
    Incomplete,
    /// No length was declared.
    #[error("You must provide the Content-Length HTTP header.")]
    MissingLength,
    /// The SHA-256 of the payload is not the signed one.
    #[error("The provided 'x-amz-content-sha256' header does not match what was computed.")]
    PayloadHash,
    /// The framing or a signature in it is wrong.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

impl BodyError {
    /// S3's name for it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Receive(ReceiveError::TimedOut) => "RequestTimeout",
            Self::Receive(_) | Self::Incomplete | Self::Chunk(ChunkError::Malformed | ChunkError::Length) => {
                "IncompleteBody"
            }
            Self::MissingLength => "MissingContentLength",
            Self::PayloadHash => "XAmzContentSHA256Mismatch",
            Self::Chunk(ChunkError::Signature) => "SignatureDoesNotMatch",
            Self::Chunk(ChunkError::Trailer) => "MalformedTrailerError",
        }
    }

    /// The status that goes with [`Self::code`].
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Chunk(ChunkError::Signature) => 403,
            Self::MissingLength => 411,
            _ => 400,
        }
    }
}

impl<'a, I: Incoming> VerifiedBody<'a, I> {
    /// Holds `incoming` to `payload`. Reads nothing yet.
    ///
    /// # Errors
    /// [`BodyError::MissingLength`] when nobody said how long the payload is.
    pub fn new(incoming: &'a mut I, payload: Payload) -> Result<Self, BodyError> {
        let (length, form) = match payload {
            Payload::Streaming(streaming) => {
                let decoder = Chunked::new(streaming);
                (decoder.owed(), Form::Chunked { decoder, pending: Vec::new(), position: 0 })
            }
            plain => {
                let length = incoming.length().ok_or(BodyError::MissingLength)?;
                let promised = match plain {
                    Payload::Signed(value) => {
                        Some(Promised { value, hash: Some(hash::sha256_of_nothing()), digested: 0 })
                    }
                    _ => None,
                };
                (length, Form::Plain { received: 0, promised })
            }
        };
        Ok(Self { incoming, length, form })
    }

    /// Reads what is left of the payload and gives all of it, at most `bytes_max`: for requests whose body is a
    /// document. The signature of the payload is verified too.
    ///
    /// # Errors
    /// As [`Body::fill`] and [`Body::finish`]; `Ok(None)` when the payload is longer than `bytes_max`.
    pub async fn document(&mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, BodyError> {
        if self.length > bytes_max as u64 {
            return Ok(None);
        }
        let bytes = self.collect().await?;
        digest_now(self, 0, &bytes)?;
        self.finish().await?;
        Ok(Some(bytes))
    }
}

impl<I: Incoming> Body<Buffer> for VerifiedBody<'_, I> {
    type Error = BodyError;

    fn length(&self) -> u64 {
        self.length
    }

    async fn fill(&mut self, buffer: Buffer, range: Range<usize>) -> (Result<usize, BodyError>, Buffer) {
        match &mut self.form {
            Form::Plain { received, .. } => {
                let left = usize::try_from(self.length - *received).unwrap_or(usize::MAX);
                let wanted = range.len().min(left);
                if wanted == 0 {
                    return (Ok(0), buffer);
                }
                let (result, buffer) = self.incoming.fill(buffer, range.start..range.start + wanted).await;
                let count = match result {
                    Ok(count) => count,
                    Err(error) => return (Err(error.into()), buffer),
                };
                *received += count as u64;
                (Ok(count), buffer)
            }
            Form::Chunked { decoder, pending, position } => {
                let mut framed = Framed { incoming: self.incoming, decoder, pending, position };
                let mut buffer = Some(buffer);
                let result = framed.fill(&mut buffer, range).await;
                (result, buffer.expect("the buffer comes back from every receive"))
            }
        }
    }

    async fn read(&mut self, into: &mut Vec<u8>, max: usize) -> Result<usize, BodyError> {
        match &mut self.form {
            Form::Plain { received, .. } => {
                let left = usize::try_from(self.length - *received).unwrap_or(usize::MAX);
                let count = self.incoming.read(into, max.min(left)).await?;
                if count == 0 {
                    return Err(BodyError::Incomplete);
                }
                *received += count as u64;
                Ok(count)
            }
            Form::Chunked { decoder, pending, position } => {
                Framed { incoming: self.incoming, decoder, pending, position }.read(into, max).await
            }
        }
    }

    async fn collect(&mut self) -> Result<Vec<u8>, BodyError> {
        let length = usize::try_from(self.length).map_err(|_| BodyError::Incomplete)?;
        let mut payload = Vec::with_capacity(length.min(COLLECT_RESERVE_BYTES));
        while payload.len() < length {
            let left = length - payload.len();
            self.read(&mut payload, left).await?;
        }
        Ok(payload)
    }

    fn undigested(&mut self) -> Vec<Span> {
        match &mut self.form {
            Form::Plain { promised: None, .. } => Vec::new(),
            Form::Plain { received, promised: Some(Promised { digested, .. }) } if received == digested => Vec::new(),
            Form::Plain { received, promised: Some(Promised { hash, digested, .. }) } => {
                let start = std::mem::replace(digested, *received);
                let digest = hash.take().expect("what was lent is back before more is");
                vec![Span { start, length: *received - start, digest }]
            }
            Form::Chunked { decoder, .. } => decoder.undigested(),
        }
    }

    fn digested(&mut self, spans: Vec<Span>) -> Result<(), BodyError> {
        match &mut self.form {
            Form::Plain { promised, .. } => {
                for span in spans {
                    promised.as_mut().expect("only a hash was lent").hash = Some(span.digest);
                }
                Ok(())
            }
            Form::Chunked { decoder, .. } => Ok(decoder.digested(spans)?),
        }
    }

    async fn finish(&mut self) -> Result<Trailer, BodyError> {
        match &mut self.form {
            Form::Plain { received, promised } => {
                if *received != self.length {
                    return Err(BodyError::Incomplete);
                }
                let Some(Promised { value, hash, digested }) = promised.take() else { return Ok(Trailer::default()) };
                assert_eq!(digested, self.length, "every byte was digested before the end is asked for");
                let hash = hash::value(hash.expect("what was lent is back before the end is asked for"));
                if !bool::from(hash.ct_eq(&value)) {
                    return Err(BodyError::PayloadHash);
                }
                Ok(Trailer::default())
            }
            Form::Chunked { decoder, pending, position } => {
                Framed { incoming: self.incoming, decoder, pending, position }.finish().await
            }
        }
    }
}

/// The parts of a chunked body while bytes are moved.
struct Framed<'a, I> {
    incoming: &'a mut I,
    decoder: &'a mut Chunked,
    /// Received and not yet taken: `pending[position..]`.
    pending: &'a mut Vec<u8>,
    position: &'a mut usize,
}

impl<I: Incoming> Framed<'_, I> {
    /// Reads framing until payload or the end comes.
    async fn advance(&mut self) -> Result<Next, BodyError> {
        loop {
            let (taken, next) = self.decoder.framing(&self.pending[*self.position..])?;
            *self.position += taken;
            match next {
                Next::Framing => self.receive(FRAMING_READ_BYTES).await?,
                next => return Ok(next),
            }
        }
    }

    async fn fill(&mut self, buffer: &mut Option<Buffer>, range: Range<usize>) -> Result<usize, BodyError> {
        let mut at = range.start;
        while at < range.end && self.decoder.owed() > 0 {
            let Some(left) = self.payload_soon().await? else { break };
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(range.end - at);
            let (count, stalled) = self.fill_once(buffer, at..at + wanted).await?;
            at += count;
            if stalled {
                break;
            }
        }
        Ok(at - range.start)
    }

    /// How much payload comes next; `None` when the framing in front of it would have to be waited for.
    async fn payload_soon(&mut self) -> Result<Option<u64>, BodyError> {
        loop {
            let (taken, next) = self.decoder.framing(&self.pending[*self.position..])?;
            *self.position += taken;
            match next {
                Next::Payload(left) => return Ok(Some(left)),
                Next::Framing if !self.incoming.comes_soon().await => return Ok(None),
                Next::Framing => self.receive(FRAMING_READ_BYTES).await?,
                Next::End => unreachable!("the decoder ends only when nothing is owed"),
            }
        }
    }

    /// Moves some payload of the current chunk into `buffer[range]`; also says whether more would have to be waited for.
    async fn fill_once(
        &mut self,
        buffer: &mut Option<Buffer>,
        range: Range<usize>,
    ) -> Result<(usize, bool), BodyError> {
        if self.pending.len() == *self.position && range.len() < IN_PLACE_BYTES_MIN {
            if !self.incoming.comes_soon().await {
                return Ok((0, true));
            }
            self.receive(range.len() + FRAMING_READ_BYTES).await?;
        }
        let ready = &self.pending[*self.position..];
        if !ready.is_empty() {
            let count = ready.len().min(range.len());
            let target = buffer.as_mut().expect("the buffer is back between receives");
            target[range.start..][..count].copy_from_slice(&ready[..count]);
            self.decoder.payload(&ready[..count])?;
            *self.position += count;
            return Ok((count, false));
        }
        let (result, back) = self.incoming.fill(buffer.take().expect("the buffer is back"), range.clone()).await;
        let back = buffer.insert(back);
        let count = result?;
        if count > 0 {
            self.decoder.payload(&back[range.start..][..count])?;
        }
        Ok((count, count < range.len()))
    }

    /// Appends some payload, at least one byte.
    async fn read(&mut self, payload: &mut Vec<u8>, max: usize) -> Result<usize, BodyError> {
        let Next::Payload(left) = self.advance().await? else {
            unreachable!("the decoder ends only when nothing is owed")
        };
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(max);
        if self.pending.len() == *self.position {
            self.receive(wanted.saturating_add(FRAMING_READ_BYTES).min(COLLECT_RESERVE_BYTES)).await?;
        }
        let ready = &self.pending[*self.position..];
        let count = ready.len().min(wanted);
        self.decoder.payload(&ready[..count])?;
        payload.extend_from_slice(&ready[..count]);
        *self.position += count;
        Ok(count)
    }

    async fn finish(&mut self) -> Result<Trailer, BodyError> {
        match self.advance().await? {
            Next::End => {}
            Next::Payload(_) | Next::Framing => return Err(BodyError::Incomplete),
        }
        self.expect_nothing_more().await?;
        Ok(Trailer { checksum: self.decoder.checksum() })
    }

    /// The end of the body, but for one more line end: minio-go ends unsigned trailers with two.
    async fn expect_nothing_more(&mut self) -> Result<(), BodyError> {
        let allowed: &[u8] = if self.decoder.has_unsigned_trailers() { b"\r\n" } else { b"" };
        while self.pending.len() - *self.position <= allowed.len() {
            if self.incoming.read(self.pending, allowed.len() + 1).await? == 0 {
                break;
            }
        }
        let behind_the_end = &self.pending[*self.position..];
        if behind_the_end.is_empty() || behind_the_end == allowed { Ok(()) } else { Err(ChunkError::Malformed.into()) }
    }

    /// Waits for at least one byte more.
    async fn receive(&mut self, bytes_max: usize) -> Result<(), BodyError> {
        self.pending.drain(..*self.position);
        *self.position = 0;
        match self.incoming.read(self.pending, bytes_max).await? {
            0 => Err(BodyError::Incomplete),
            _ => Ok(()),
        }
    }
}

/// A signed size line of a chunk below 1 MiB, with the line end of the chunk before it, has 90 bytes. What is received
/// beyond the framing is payload that must be copied, so little more is asked for.
const FRAMING_READ_BYTES: usize = 96;
/// Chunks shorter than this come together with their framing and are copied; one receive more would cost as much.
const IN_PLACE_BYTES_MIN: usize = 8 << 10;
/// What is reserved or received at once for a payload that is collected.
const COLLECT_RESERVE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests;
