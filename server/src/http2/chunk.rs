//! Bytes of an answer on their way to the frames.

use std::ops::Range;
use std::rc::Rc;

use anvil_runtime::Buffer;
use anvil_store::Piece;
use bytes::{Buf, Bytes};

/// A part of an answer, in the buffer that the disk was read into, or on the heap. Nothing is copied before the frame is
/// written.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    memory: Memory,
    range: Range<usize>,
}

#[derive(Clone, Debug)]
enum Memory {
    Buffer(Rc<Buffer>),
    Heap(Bytes),
}

impl Chunk {
    /// Takes the first `count` bytes off.
    pub(super) fn split_to(&mut self, count: usize) -> Self {
        assert!(count <= self.range.len(), "takes what is there");
        let middle = self.range.start + count;
        let first = Self { memory: self.memory.clone(), range: self.range.start..middle };
        self.range.start = middle;
        first
    }

    /// Holds a buffer of the core's pool.
    pub(super) fn is_pooled(&self) -> bool {
        matches!(self.memory, Memory::Buffer(_))
    }

    /// Copies the bytes, so that the buffer goes back.
    pub(super) fn move_to_heap(&mut self) {
        *self = Self::from(self.chunk().to_vec());
    }
}

impl From<Piece<Buffer>> for Chunk {
    fn from(piece: Piece<Buffer>) -> Self {
        Self { memory: Memory::Buffer(Rc::new(piece.buffer)), range: piece.range }
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { memory: Memory::Heap(bytes.into()), range }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.range.len()
    }

    fn chunk(&self) -> &[u8] {
        let all: &[u8] = match &self.memory {
            Memory::Buffer(buffer) => buffer,
            Memory::Heap(bytes) => bytes,
        };
        &all[self.range.clone()]
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.range.len(), "goes over what is there");
        self.range.start += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_split_in_order() {
        let mut chunk = Chunk::from(b"abcdef".to_vec());
        let mut first = chunk.split_to(4);
        assert_eq!((first.chunk(), chunk.chunk(), chunk.remaining()), (&b"abcd"[..], &b"ef"[..], 2));
        first.advance(1);
        first.move_to_heap();
        assert_eq!((first.chunk(), first.remaining(), first.is_pooled()), (&b"bcd"[..], 3, false));
    }
}
