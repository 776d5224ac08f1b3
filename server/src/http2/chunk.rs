//! Bytes of an answer on their way to the frames.

use std::ops::Range;
use std::rc::Rc;

use anvil_runtime::Buffer;
use anvil_store::Piece;
use bytes::{Buf, Bytes};

use crate::transport::Lent;

/// A part of an answer: bytes on the heap, and behind them some in the buffer that the disk was read into. Nothing is copied,
/// and of what lies in a buffer nothing is copied when the frame is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    heap: Bytes,
    piece: Option<(Rc<Buffer>, Range<usize>)>,
}

impl Chunk {
    /// A piece, which is lent, with these bytes before it.
    pub(super) fn of(head: Vec<u8>, piece: Piece<Buffer>, lent: &Lent) -> Self {
        Self { heap: head.into(), piece: Some((lent.lend(piece.buffer), piece.range)) }
    }

    /// Takes the first `count` bytes off.
    pub(super) fn split_to(&mut self, count: usize) -> Self {
        assert!(count <= self.remaining(), "takes what is there");
        let heap = self.heap.split_to(count.min(self.heap.len()));
        let left = count - heap.len();
        let piece = self.piece.as_mut().filter(|_| left > 0).map(|(buffer, range)| {
            let first = range.start..range.start + left;
            range.start = first.end;
            (Rc::clone(buffer), first)
        });
        Self { heap, piece }
    }

    /// Holds a buffer of the core's pool.
    pub(super) fn is_pooled(&self) -> bool {
        self.piece.is_some()
    }

    /// Copies the bytes, so that the buffer goes back.
    pub(super) fn move_to_heap(&mut self) {
        let Some((buffer, range)) = self.piece.take() else { return };
        self.heap = [&self.heap, &buffer[range]].concat().into();
    }

    fn piece(&self) -> &[u8] {
        self.piece.as_ref().map_or(&[], |(buffer, range)| &buffer[range.clone()])
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Self {
        Self { heap: bytes.into(), piece: None }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.heap.len() + self.piece.as_ref().map_or(0, |(_, range)| range.len())
    }

    fn chunk(&self) -> &[u8] {
        if self.heap.is_empty() { self.piece() } else { &self.heap }
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining(), "goes over what is there");
        let of_heap = count.min(self.heap.len());
        self.heap.advance(of_heap);
        if let Some((_, range)) = &mut self.piece {
            range.start += count - of_heap;
        }
    }
}

#[cfg(test)]
mod tests {
    use anvil_model::io::{Reserve, World as _};
    use anvil_runtime::{Options, available_cpus, start};

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
    fn a_piece_goes_behind_what_is_on_the_heap() {
        let options = Options {
            cpus: vec![available_cpus()[0]],
            buffers_per_core: 2,
            progress_reserve: 1,
            abort_on_panic: false,
            ..Options::default()
        };
        let cores = start(options, |core| async move {
            let mut buffer = core.buffer(Reserve::Foreground).await;
            buffer[10..16].copy_from_slice(b"abcdef");
            let mut chunk = Chunk::of(b"head".to_vec(), Piece { buffer, range: 10..16 }, &Lent::default());
            let (first, mut second) = (chunk.split_to(2), chunk.split_to(4));
            assert_eq!((first.chunk(), first.remaining(), first.is_pooled()), (&b"he"[..], 2, false));
            assert_eq!((second.chunk(), second.remaining(), second.is_pooled()), (&b"ad"[..], 4, true));
            second.advance(3);
            assert_eq!((second.chunk(), second.remaining()), (&b"b"[..], 1));
            assert_eq!((chunk.chunk(), chunk.remaining(), chunk.is_pooled()), (&b"cdef"[..], 4, true));
            chunk.move_to_heap();
            chunk.advance(1);
            assert_eq!((chunk.chunk(), chunk.remaining(), chunk.is_pooled()), (&b"def"[..], 3, false));
        });
        cores.unwrap().join().unwrap();
    }
}
