//! The bytes of an object or part as a call brings them, as the body that a story takes.

use std::marker::PhantomData;
use std::ops::Range;

use anvil_digest::{Algorithm, combine};
use anvil_model::object::ChecksumAlgorithm;
use anvil_node::body::{Body, Trailer};
use anvil_proto::{Message, v1};
use anvil_runtime::Buffer;
use bytes::{Buf as _, BufMut as _, Bytes};

use super::call::{Call, Next, Wait, Wire};
use super::chunk::crc32c;
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
    Chunk(v1::Chunk),
    Finish(v1::WriteFinish),
    Nothing,
}

impl Streamed for v1::WriteObjectRequest {
    type Spec = v1::WriteObjectSpec;

    fn part(self) -> Part<Self::Spec> {
        match self.part {
            Some(v1::write_object_request::Part::Spec(spec)) => Part::Spec(spec),
            Some(v1::write_object_request::Part::Chunk(chunk)) => Part::Chunk(chunk),
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
            Some(v1::upload_part_request::Part::Chunk(chunk)) => Part::Chunk(chunk),
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
    chunk: Bytes,
    messages: PhantomData<M>,
}

impl<'c, 'a, W: Wire, M: Streamed> Incoming<'c, 'a, W, M> {
    pub(super) fn new(call: &'c mut Call<'a, W>, length: u64, algorithm: Option<ChecksumAlgorithm>) -> Self {
        Self { call, length, algorithm, came: 0, crc32c: 0, chunk: Bytes::new(), messages: PhantomData }
    }

    /// Has the next bytes in `chunk`; false when they would have to be waited for.
    async fn chunk_ahead(&mut self, wait: Wait) -> Result<bool, Status> {
        while self.chunk.is_empty() {
            match self.call.next::<M>(wait).await? {
                Next::Message(message) => match message.part() {
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

    fn take(&mut self, v1::Chunk { content, crc32c: promised }: v1::Chunk) -> Result<(), Status> {
        if content.is_empty() {
            return Ok(());
        }
        let computed = crc32c(&content);
        if promised.is_some_and(|promised| promised != computed) {
            let message = format!("the CRC32C of the chunk at {} is another one", self.came);
            return Err(invalid("CHECKSUM_MISMATCH", message));
        }
        let length = content.len() as u64;
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
        let mut owed = self.length - self.came + self.chunk.len() as u64;
        while at < range.end && owed > 0 {
            match self.chunk_ahead(Wait::Briefly).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(status) => return (Err(status), buffer),
            }
            let count = self.chunk.len().min(range.end - at);
            self.chunk.copy_to_slice(&mut buffer[at..at + count]);
            at += count;
            owed -= count as u64;
        }
        (Ok(at - range.start), buffer)
    }

    async fn read(&mut self, into: &mut Vec<u8>, max: usize) -> Result<usize, Status> {
        self.chunk_ahead(Wait::Patiently).await?;
        let count = self.chunk.len().min(max);
        into.extend_from_slice(&self.chunk.split_to(count));
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
                Some(Part::Chunk(chunk)) if chunk.content.is_empty() => {}
                Some(Part::Chunk(chunk)) => {
                    return Err(size_mismatch(self.length, self.length + chunk.content.len() as u64));
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
    use super::*;

    #[test]
    fn checksums_of_chunks_are_joined() {
        assert_eq!(joined(0, crc32c(b"1234"), 4), crc32c(b"1234"));
        assert_eq!(joined(crc32c(b"1234"), crc32c(b"56789"), 5), 0xe306_9283);
    }
}
