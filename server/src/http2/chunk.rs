//! Bytes of an answer on their way to the frames.

use std::ops::Range;
use std::rc::Rc;

use anvil_runtime::Buffer;
use anvil_store::Piece;
use bytes::{Buf, Bytes};

use crate::transport::Lent;

/// A part of an answer, in the buffer that the disk was read into, or on the heap. Nothing is copied, and of
/// what lies in a buffer nothing is copied when the frame is written.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// Goes before the rest.
    head: Bytes,
    memory: Memory,
    range: Range<usize>,
}

#[derive(Clone, Debug)]
enum Memory {
    Buffer(Rc<Buffer>),
    Heap(Bytes),
}

impl Chunk {
    /// A piece, which is lent, with these bytes before it.
    pub(super) fn of(head: Vec<u8>, piece: Piece<Buffer>, lent: &Lent) -> Self {
        Self { head: head.into(), memory: Memory::Buffer(lent.lend(piece.buffer)), range: piece.range }
    }

    /// Takes the first `count` bytes off.
    pub(super) fn split_to(&mut self, count: usize) -> Self {
        assert!(count <= self.remaining(), "takes what is there");
        let head = self.head.split_to(count.min(self.head.len()));
        let middle = self.range.start + count - head.len();
        let first = Self { head, memory: self.memory.clone(), range: self.range.start..middle };
        self.range.start = middle;
        first
    }

    /// Holds a buffer of the core's pool.
    pub(super) fn is_pooled(&self) -> bool {
        matches!(self.memory, Memory::Buffer(_))
    }

    /// Copies the bytes, so that the buffer goes back.
    pub(super) fn move_to_heap(&mut self) {
        let bytes = self.memory()[self.range.clone()].to_vec();
        *self = Self { head: std::mem::take(&mut self.head), ..Self::from(bytes) };
    }

    fn memory(&self) -> &[u8] {
        match &self.memory {
            Memory::Buffer(buffer) => buffer,
            Memory::Heap(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { head: Bytes::new(), memory: Memory::Heap(bytes.into()), range }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.head.len() + self.range.len()
    }

    fn chunk(&self) -> &[u8] {
        if self.head.is_empty() { &self.memory()[self.range.clone()] } else { &self.head }
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining(), "goes over what is there");
        let of_head = count.min(self.head.len());
        self.head.advance(of_head);
        self.range.start += count - of_head;
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

    #[test]
    fn a_head_goes_before_the_rest() {
        let mut chunk = Chunk { head: Bytes::from_static(b"head"), ..Chunk::from(b"abcdef".to_vec()) };
        let (first, mut second) = (chunk.split_to(2), chunk.split_to(4));
        assert_eq!((first.chunk(), first.remaining()), (&b"he"[..], 2));
        assert_eq!((second.chunk(), second.remaining()), (&b"ad"[..], 4));
        second.move_to_heap();
        second.advance(3);
        assert_eq!((second.chunk(), second.remaining()), (&b"b"[..], 1));
        assert_eq!((chunk.chunk(), chunk.remaining()), (&b"cdef"[..], 4));
    }
}
