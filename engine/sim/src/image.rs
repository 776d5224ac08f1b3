//! The bytes of a disk, sparse: what was never written is zero.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use crate::random::Random;

const CHUNK_BYTES: usize = 16 << 10;

/// A clone shares its chunks until one of the two is written.
#[derive(Clone, Default)]
pub(crate) struct Image {
    chunks: BTreeMap<u64, Rc<Vec<u8>>>,
}

impl Image {
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) {
        for (chunk, start, range) in spans(offset, bytes.len()) {
            let target = &mut bytes[range];
            match self.chunks.get(&chunk) {
                Some(chunk) => target.copy_from_slice(&chunk[start..start + target.len()]),
                None => target.fill(0),
            }
        }
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (chunk, start, range) in spans(offset, bytes.len()) {
            let source = &bytes[range];
            if source.len() == CHUNK_BYTES {
                self.chunks.insert(chunk, Rc::new(source.to_vec()));
                continue;
            }
            let chunk = self.chunks.entry(chunk).or_insert_with(|| Rc::new(vec![0; CHUNK_BYTES]));
            Rc::make_mut(chunk)[start..start + source.len()].copy_from_slice(source);
        }
    }

    /// What was ever written, in whole chunks, as runs that do not touch.
    pub(crate) fn written(&self) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for start in self.chunks.keys().map(|chunk| chunk * CHUNK_BYTES as u64) {
            let end = start + CHUNK_BYTES as u64;
            match runs.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => runs.push(start..end),
            }
        }
        runs
    }

    /// Some byte of what was ever written.
    pub(crate) fn somewhere(&self, random: &mut Random) -> Option<u64> {
        let drawn = random.below(self.chunks.len().max(1) as u64);
        let chunk = self.chunks.keys().nth(usize::try_from(drawn).expect("an index"))?;
        Some(chunk * CHUNK_BYTES as u64 + random.below(CHUNK_BYTES as u64))
    }

    pub(crate) fn flip(&mut self, offset: u64, bit: u8) {
        let mut byte = [0];
        self.read(offset, &mut byte);
        self.write(offset, &[byte[0] ^ (1 << bit)]);
    }
}

/// The chunks that these bytes lie in: number, start within it, range of the bytes.
fn spans(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let start = usize::try_from(at % CHUNK_BYTES as u64).expect("within a chunk");
        let count = (CHUNK_BYTES - start).min(length - done);
        let range = done..done + count;
        done += count;
        Some((at / CHUNK_BYTES as u64, start, range))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_what_was_written_last_and_zero_elsewhere() {
        let mut image = Image::default();
        image.write(CHUNK_BYTES as u64 - 3, b"abcdef");
        let before = image.clone();
        image.write(CHUNK_BYTES as u64, b"X");
        let mut bytes = [9; 8];
        image.read(CHUNK_BYTES as u64 - 4, &mut bytes);
        assert_eq!(&bytes, b"\0abcXef\0");
        before.read(CHUNK_BYTES as u64 - 4, &mut bytes);
        assert_eq!(&bytes, b"\0abcdef\0", "a clone keeps its own bytes");
        image.write(9 * CHUNK_BYTES as u64, b"far away");
        let chunk = CHUNK_BYTES as u64;
        assert_eq!(image.written(), [0..2 * chunk, 9 * chunk..10 * chunk]);
    }
}
