//! Bytes in the pieces in which they came, read as if they were in one.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Bytes in order. What came in large pieces is kept as it came; small pieces are copied together, because each would
/// keep the memory of the read that it came with.
#[derive(Clone, Debug, Default)]
pub struct Rope {
    /// None is empty.
    pieces: VecDeque<Bytes>,
    /// Behind the pieces.
    tail: BytesMut,
    length: usize,
}

/// Shorter pieces are copied.
const COPIED_BYTES_MAX: usize = 4096;

impl Rope {
    /// Appends what came next.
    pub fn push(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        if bytes.len() <= COPIED_BYTES_MAX {
            self.tail.extend_from_slice(&bytes);
        } else {
            self.seal();
            self.pieces.push_back(bytes);
        }
    }

    /// The first `N` bytes, when there are so many.
    #[must_use]
    pub fn first<const N: usize>(&self) -> Option<[u8; N]> {
        let mut all = self.pieces.iter().flatten().chain(&self.tail);
        (self.length >= N).then(|| std::array::from_fn(|_| *all.next().expect("there are so many")))
    }

    /// Takes the first `count` bytes off.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn split_to(&mut self, count: usize) -> Self {
        assert!(count <= self.length, "takes what is there");
        self.seal();
        let mut taken = Self::default();
        while taken.length < count {
            let piece = self.pieces.front_mut().expect("there are so many");
            let part = piece.split_to(piece.len().min(count - taken.length));
            taken.length += part.len();
            taken.pieces.push_back(part);
            self.drop_empty();
        }
        self.length -= count;
        taken
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &piece[..]).chain([&self.tail[..]])
    }

    /// What was copied together becomes a piece.
    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    fn drop_empty(&mut self) {
        if self.pieces.front().is_some_and(Bytes::is_empty) {
            self.pieces.pop_front();
        }
    }
}

impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&self.tail, |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.length, "goes over what is there");
        self.length -= count;
        while count > 0 {
            match self.pieces.front_mut() {
                Some(piece) => {
                    let some = piece.len().min(count);
                    piece.advance(some);
                    count -= some;
                    self.drop_empty();
                }
                None => {
                    self.tail.advance(count);
                    return;
                }
            }
        }
    }

    /// Copies only what lies in several pieces.
    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        let mut taken = self.split_to(count);
        if taken.pieces.len() <= 1 {
            return taken.pieces.pop_front().unwrap_or_default();
        }
        let mut bytes = BytesMut::with_capacity(count);
        taken.pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_rope_is_its_bytes(
            pieces in proptest::collection::vec((any::<u8>(), prop_oneof![0..10_usize, 4000..9000_usize]), 0..8),
            cuts in proptest::collection::vec((0..3_u8, 0..9000_usize), 0..12)
        ) {
            let mut rope = Rope::default();
            let mut expected = Vec::new();
            for (first, length) in pieces {
                let piece: Vec<u8> = (0..length).map(|at| first.wrapping_add(at as u8)).collect();
                expected.extend_from_slice(&piece);
                rope.push(piece.into());
            }
            let mut expected = expected.as_slice();
            for (how, cut) in cuts {
                let cut = cut.min(expected.len());
                prop_assert_eq!(rope.remaining(), expected.len());
                let first = rope.first::<5>();
                prop_assert_eq!(first.as_ref().map(|first| &first[..]), expected.get(..5));
                let (taken, left) = expected.split_at(cut);
                match how {
                    0 => rope.advance(cut),
                    1 => prop_assert_eq!(&rope.copy_to_bytes(cut)[..], taken),
                    _ => {
                        let mut part = rope.split_to(cut);
                        let mut bytes = vec![0; cut];
                        part.copy_to_slice(&mut bytes);
                        prop_assert_eq!(&bytes[..], taken);
                    }
                }
                expected = left;
            }
            prop_assert_eq!(&rope.copy_to_bytes(expected.len())[..], expected);
        }
    }

    #[test]
    fn a_large_piece_is_not_copied() {
        let piece = Bytes::from(vec![7; 100_000]);
        let mut rope = Rope::default();
        rope.push(Bytes::from_static(b"head"));
        rope.push(piece.clone());
        rope.advance(10);
        assert_eq!(rope.copy_to_bytes(50_000).as_ptr(), piece[6..].as_ptr());
    }
}
