//! Bytes that say whose they are: every value has its own, so that a mix of two is seen.

use std::ops::Range;
use std::time::Duration;

use anvil_model::io::World;
use anvil_node::body::{Body, Trailer};

use super::record::Value;
use crate::random::split_mix;
use crate::world::{SimBuffer, SimWorld};

/// Fills `bytes` with those of the value from `offset` on.
pub(super) fn fill(value: Value, offset: u64, bytes: &mut [u8]) {
    let (head, rest) = bytes.split_at_mut(head_length(offset, bytes.len()));
    if !head.is_empty() {
        let start = usize::try_from(offset % 8).expect("within a word");
        head.copy_from_slice(&word(value, offset / 8).to_le_bytes()[start..start + head.len()]);
    }
    for (chunk, index) in rest.chunks_mut(8).zip(offset.div_ceil(8)..) {
        chunk.copy_from_slice(&word(value, index).to_le_bytes()[..chunk.len()]);
    }
}

/// How many bytes lie before the next whole word.
fn head_length(offset: u64, length: usize) -> usize {
    usize::try_from(offset.next_multiple_of(8) - offset).expect("within a word").min(length)
}

/// Whether `bytes` are those of the value from `offset` on.
pub(super) fn is(value: Value, offset: u64, bytes: &[u8]) -> bool {
    let mut expected = [0; 4096];
    bytes.chunks(expected.len()).zip((offset..).step_by(expected.len())).all(|(bytes, at)| {
        fill(value, at, &mut expected[..bytes.len()]);
        expected[..bytes.len()] == *bytes
    })
}

/// The MD5 of a range of the value's bytes.
pub(super) fn md5(value: Value, range: Range<u64>) -> [u8; 16] {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).expect("an object of a history is small")];
    fill(value, range.start, &mut bytes);
    anvil_digest::md5(&bytes)
}

fn word(value: Value, index: u64) -> u64 {
    let mut state = value.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ index;
    split_mix(&mut state)
}

/// The body of an upload: a range of a value's bytes, as a client sends them.
pub(super) struct Payload {
    pub(super) world: SimWorld,
    pub(super) value: Value,
    pub(super) range: Range<u64>,
    /// The client leaves after so many bytes.
    pub(super) leaves_after: Option<u64>,
    /// The client takes a break of up to so many nanoseconds between two windows.
    break_nanos: u64,
    sent: u64,
}

/// The client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left;

impl Payload {
    pub(super) fn new(world: SimWorld, value: Value, range: Range<u64>, leaves_after: Option<u64>) -> Self {
        Self { world, value, range, leaves_after, break_nanos: 2_000_000, sent: 0 }
    }

    /// The same from a client that is slow.
    pub(super) fn slowly(self, break_nanos: u64) -> Self {
        Self { break_nanos, ..self }
    }

    async fn send(&mut self, bytes: &mut [u8]) -> Result<(), Left> {
        if self.world.random().is_multiple_of(3) {
            self.world.sleep(Duration::from_nanos(self.world.random() % self.break_nanos)).await;
        }
        fill(self.value, self.range.start + self.sent, bytes);
        self.sent += bytes.len() as u64;
        if self.leaves_after.is_some_and(|limit| self.sent > limit) { Err(Left) } else { Ok(()) }
    }
}

impl Body<SimBuffer> for Payload {
    type Error = Left;

    fn length(&self) -> u64 {
        self.range.end - self.range.start
    }

    async fn fill(&mut self, mut buffer: SimBuffer, range: Range<usize>) -> (Result<usize, Left>, SimBuffer) {
        let left = usize::try_from(self.length() - self.sent).expect("an object of a history is small");
        let mut count = range.len().min(left);
        // A client that falls silent in the middle of a buffer.
        if self.world.random().is_multiple_of(4) {
            count = usize::try_from(self.world.random()).unwrap_or(usize::MAX) % (count + 1);
        }
        let sent = self.send(&mut buffer[range.start..range.start + count]).await;
        (sent.map(|()| count), buffer)
    }

    async fn read(&mut self, into: &mut Vec<u8>, max: usize) -> Result<usize, Left> {
        let left = usize::try_from(self.length() - self.sent).expect("an object of a history is small");
        let start = into.len();
        into.resize(start + max.min(left), 0);
        self.send(&mut into[start..]).await?;
        Ok(into.len() - start)
    }

    async fn collect(&mut self) -> Result<Vec<u8>, Left> {
        let mut bytes = vec![0; usize::try_from(self.length()).expect("a small body")];
        self.send(&mut bytes).await?;
        Ok(bytes)
    }

    async fn finish(&mut self) -> Result<Trailer, Left> {
        self.send(&mut []).await?;
        if self.leaves_after == Some(self.length()) { Err(Left) } else { Ok(Trailer::default()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_value_is_part_of_its_bytes() {
        let mut all = vec![0; 100];
        fill(7, 0, &mut all);
        for (start, end) in [(0, 100), (1, 9), (13, 50), (99, 100)] {
            assert!(is(7, start as u64, &all[start..end]));
            assert!(!is(8, start as u64, &all[start..end]));
        }
    }
}
