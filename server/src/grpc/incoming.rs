//! The bytes of an object or part as a call brings them, as the body that a story takes.

use std::marker::PhantomData;
use std::ops::Range;

use anvil_digest::{Algorithm, combine};
use anvil_model::object::ChecksumAlgorithm;
use anvil_node::body::{Body, Trailer};
use anvil_proto::{Message, v1};
use anvil_runtime::Buffer;
use bytes::{Buf as _, BufMut as _, Bytes};

use super::call::{Call, Next, Wait, Wire, not_taken};
use super::chunk::{self, Chunk, crc32c_of};
use super::rope::Rope;
use super::status::{Code, Status};
use super::words;

/// A message of a call that brings bytes.
pub(super) trait Streamed: Message + Default {
    /// What the first message says.
    type Spec;

    fn part(self) -> Part<Self::Spec>;
}

/// What such a message is.
pub(super) enum Part<S> {
    Spec(S),
    Chunk(Chunk),
    Finish(v1::WriteFinish),
    Nothing,
}

impl From<v1::Chunk> for Chunk {
    fn from(v1::Chunk { content, crc32c }: v1::Chunk) -> Self {
        let mut pieces = Rope::default();
        pieces.push(content);
        Self { content: pieces, crc32c }
    }
}

/// What a message is. Most are chunks, which [`v1::Chunk`] would copy together.
pub(super) fn part_of<M: Streamed>(mut message: Rope) -> Result<Part<M::Spec>, Status> {
    if chunk::begins(&mut message) {
        return chunk::read(message).map(Part::Chunk).ok_or_else(not_taken);
    }
    M::decode(message).map(M::part).map_err(|_| not_taken())
}

impl Streamed for v1::WriteObjectRequest {
    type Spec = v1::WriteObjectSpec;

    fn part(self) -> Part<Self::Spec> {
        match self.part {
            Some(v1::write_object_request::Part::Spec(spec)) => Part::Spec(spec),
            Some(v1::write_object_request::Part::Chunk(chunk)) => Part::Chunk(chunk.into()),
            Some(v1::write_object_request::Part::Finish(finish)) => Part::Finish(finish),
            None => Part::Nothing,
        }
    }
}

impl Streamed for v1::UploadPartRequest {
    type Spec = v1::UploadPartSpec;

    fn part(self) -> Part<Self::Spec> {
        match self.part {
            Some(v1::upload_part_request::Part::Spec(spec)) => Part::Spec(spec),
            Some(v1::upload_part_request::Part::Chunk(chunk)) => Part::Chunk(chunk.into()),
            Some(v1::upload_part_request::Part::Finish(finish)) => Part::Finish(finish),
            None => Part::Nothing,
        }
    }
}

/// The first message of such a call.
pub(super) async fn spec<M: Streamed, W: Wire>(call: &mut Call<'_, W>) -> Result<M::Spec, Status> {
    match call.message::<M>().await?.map(M::part) {
        Some(Part::Spec(spec)) => Ok(spec),
        _ => Err(invalid("UNEXPECTED_MESSAGE", "the first message is the spec")),
    }
}

/// The chunks and the finish of a call, held to what its spec says.
pub(super) struct Incoming<'c, 'a, W, M> {
    call: &'c mut Call<'a, W>,
    length: u64,
    /// The checksum that the finish may bring.
    algorithm: Option<ChecksumAlgorithm>,
    /// Bytes that came.
    came: u64,
    /// Of all of them.
    crc32c: u32,
    /// Came, and was not taken yet.
    chunk: Rope,
    messages: PhantomData<M>,
}

impl<'c, 'a, W: Wire, M: Streamed> Incoming<'c, 'a, W, M> {
    pub(super) fn new(call: &'c mut Call<'a, W>, length: u64, algorithm: Option<ChecksumAlgorithm>) -> Self {
        Self { call, length, algorithm, came: 0, crc32c: 0, chunk: Rope::default(), messages: PhantomData }
    }

    /// Has the next bytes in `chunk`; false when they would have to be waited for.
    async fn chunk_ahead(&mut self, wait: Wait) -> Result<bool, Status> {
        while !self.chunk.has_remaining() {
            match self.call.next_bytes(wait).await? {
                Next::Message(message) => match part_of::<M>(message)? {
                    Part::Chunk(chunk) => self.take(chunk)?,
                    Part::Finish(_) => return Err(size_mismatch(self.length, self.came)),
                    Part::Spec(_) | Part::Nothing => return Err(out_of_order()),
                },
                Next::Later => return Ok(false),
                Next::End => return Err(unfinished()),
            }
        }
        Ok(true)
    }

    fn take(&mut self, Chunk { content, crc32c: promised }: Chunk) -> Result<(), Status> {
        if !content.has_remaining() {
            return Ok(());
        }
        let computed = crc32c_of(content.pieces());
        if promised.is_some_and(|promised| promised != computed) {
            let message = format!("the CRC32C of the chunk at {} is another one", self.came);
            return Err(invalid("CHECKSUM_MISMATCH", message));
        }
        let length = content.remaining() as u64;
        if self.came + length > self.length {
            return Err(size_mismatch(self.length, self.came + length));
        }
        self.crc32c = joined(self.crc32c, computed, length);
        self.came += length;
        self.chunk = content;
        Ok(())
    }

    fn check(&self, finish: v1::WriteFinish) -> Result<Trailer, Status> {
        if finish.size != self.length {
            return Err(size_mismatch(self.length, finish.size));
        }
        let Some(promised) = finish.crc32c else {
            return Err(invalid("CHECKSUM_MISSING", "the finish has the CRC32C of all bytes"));
        };
        if promised != self.crc32c {
            return Err(invalid("CHECKSUM_MISMATCH", "the CRC32C of all bytes is another one"));
        }
        let checksum = words::checksum(finish.checksum)?;
        if checksum.as_ref().is_some_and(|checksum| Some(checksum.algorithm) != self.algorithm) {
            return Err(invalid("INVALID_CHECKSUM", "the checksum is of an algorithm that was not named before"));
        }
        Ok(Trailer { checksum })
    }
}

impl<W: Wire, M: Streamed> Body<Buffer> for Incoming<'_, '_, W, M> {
    type Error = Status;

    fn length(&self) -> u64 {
        self.length
    }

    async fn fill(&mut self, mut buffer: Buffer, range: Range<usize>) -> (Result<usize, Status>, Buffer) {
        let mut at = range.start;
        // What was announced and is not taken yet.
        let mut owed = self.length - self.came + self.chunk.remaining() as u64;
        while at < range.end && owed > 0 {
            match self.chunk_ahead(Wait::Briefly).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(status) => return (Err(status), buffer),
            }
            let count = self.chunk.remaining().min(range.end - at);
            self.chunk.copy_to_slice(&mut buffer[at..at + count]);
            at += count;
            owed -= count as u64;
        }
        (Ok(at - range.start), buffer)
    }

    async fn read(&mut self, into: &mut Vec<u8>, max: usize) -> Result<usize, Status> {
        self.chunk_ahead(Wait::Patiently).await?;
        let count = self.chunk.remaining().min(max);
        into.put((&mut self.chunk).take(count));
        Ok(count)
    }

    async fn collect(&mut self) -> Result<Vec<u8>, Status> {
        let mut payload = Vec::new();
        while (payload.len() as u64) < self.length {
            self.read(&mut payload, usize::MAX).await?;
        }
        Ok(payload)
    }

    async fn finish(&mut self) -> Result<Trailer, Status> {
        let trailer = loop {
            match self.call.message::<M>().await?.map(M::part) {
                Some(Part::Finish(finish)) => break self.check(finish)?,
                Some(Part::Chunk(chunk)) if !chunk.content.has_remaining() => {}
                Some(Part::Chunk(chunk)) => {
                    return Err(size_mismatch(self.length, self.length + chunk.content.remaining() as u64));
                }
                Some(Part::Spec(_) | Part::Nothing) => return Err(out_of_order()),
                None => return Err(unfinished()),
            }
        };
        match self.call.message::<M>().await? {
            None => Ok(trailer),
            Some(_) => Err(out_of_order()),
        }
    }
}

/// The CRC32C of `length` bytes behind others.
fn joined(first: u32, second: u32, length: u64) -> u32 {
    let joined = combine(Algorithm::Crc32c, &first.to_be_bytes(), &second.to_be_bytes(), length);
    u32::from_be_bytes(joined[..].try_into().expect("a CRC32C has four bytes"))
}

/// A payload that is here.
pub(super) struct InMemory {
    length: u64,
    /// Not taken yet.
    rest: Rope,
}

impl From<Bytes> for InMemory {
    fn from(bytes: Bytes) -> Self {
        let mut rope = Rope::default();
        rope.push(bytes);
        rope.into()
    }
}

impl From<Rope> for InMemory {
    fn from(bytes: Rope) -> Self {
        Self { length: bytes.remaining() as u64, rest: bytes }
    }
}

impl Body<Buffer> for InMemory {
    type Error = Status;

    fn length(&self) -> u64 {
        self.length
    }

    async fn fill(&mut self, mut buffer: Buffer, range: Range<usize>) -> (Result<usize, Status>, Buffer) {
        let count = self.rest.remaining().min(range.len());
        self.rest.copy_to_slice(&mut buffer[range.start..range.start + count]);
        (Ok(count), buffer)
    }

    async fn read(&mut self, into: &mut Vec<u8>, max: usize) -> Result<usize, Status> {
        let count = self.rest.remaining().min(max);
        into.put((&mut self.rest).take(count));
        Ok(count)
    }

    async fn collect(&mut self) -> Result<Vec<u8>, Status> {
        let count = self.rest.remaining();
        Ok(self.rest.copy_to_bytes(count).into())
    }

    async fn finish(&mut self) -> Result<Trailer, Status> {
        Ok(Trailer::default())
    }
}

fn invalid(reason: &'static str, message: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, reason, message)
}

fn out_of_order() -> Status {
    invalid("UNEXPECTED_MESSAGE", "behind the spec come chunks, then the finish, and then nothing more")
}

fn unfinished() -> Status {
    invalid("UNFINISHED", "the call ended without a finish, so nothing was stored")
}

fn size_mismatch(announced: u64, came: u64) -> Status {
    invalid("SIZE_MISMATCH", format!("{announced} bytes were announced, and it is not as many that came"))
        .about("announced", announced)
        .about("came", came)
}

#[cfg(test)]
mod tests {
    use super::super::chunk::crc32c;
    use super::*;

    fn read(bytes: &[u8]) -> Option<(Vec<u8>, Option<u32>)> {
        let mut message = Rope::default();
        // As it comes off the socket: in pieces of any length, the small ones copied together.
        bytes.chunks(5000).for_each(|piece| message.push(Bytes::copy_from_slice(piece)));
        match part_of::<v1::WriteObjectRequest>(message) {
            Ok(Part::Chunk(Chunk { mut content, crc32c })) => {
                let length = content.remaining();
                Some((content.copy_to_bytes(length).into(), crc32c))
            }
            _ => None,
        }
    }

    #[test]
    fn what_others_write_is_read_by_hand() {
        for length in [0, 1, 5, 127, 128, 4999, 70_000] {
            for crc32c in [None, Some(0), Some(u32::MAX)] {
                let content = vec![7; length];
                let chunk = v1::Chunk { content: content.clone().into(), crc32c };
                let part = Some(v1::write_object_request::Part::Chunk(chunk));
                let mut bytes = v1::WriteObjectRequest { part }.encode_to_vec();
                assert_eq!(read(&bytes), Some((content, crc32c)));
                // A field that a later client knows, behind the chunk.
                bytes.extend_from_slice(&[15 << 3, 1]);
                assert_eq!(read(&bytes).map(|(content, _)| content.len()), Some(length));
                bytes.pop();
                assert_eq!(read(&bytes), None);
            }
        }
        // A chunk whose content says that it is longer than the chunk; one whose content is a number.
        assert_eq!(read(&[2 << 3 | 2, 6, 1 << 3 | 2, 9, 0, 0, 0, 0]), None);
        assert_eq!(read(&[2 << 3 | 2, 4, 1 << 3, 9, 1 << 3, 9]), None);
        // One with a field of its own that a later client knows.
        assert_eq!(read(&[2 << 3 | 2, 6, 9 << 3, 1, 1 << 3 | 2, 2, 5, 6]), Some((vec![5, 6], None)));
    }

    #[test]
    fn checksums_of_chunks_are_joined() {
        assert_eq!(joined(0, crc32c(b"1234"), 4), crc32c(b"1234"));
        assert_eq!(joined(crc32c(b"1234"), crc32c(b"56789"), 5), 0xe306_9283);
    }
}
