//! Bytes that need no memory: any range of them can be made again from a seed.

/// Pseudo-random bytes, named by where they come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub seed: u64,
    pub length: u64,
}

impl Content {
    /// Fills `buffer` with the bytes from `offset` on, as far as there are any; gives how many.
    pub fn fill(&self, offset: u64, buffer: &mut [u8]) -> usize {
        assert_eq!(offset % 8, 0, "made in words of eight bytes");
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        for (index, chunk) in buffer[..count].chunks_mut(8).enumerate() {
            let word = mix(self.seed ^ mix(offset / 8 + index as u64)).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        count
    }

    /// All of it.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.length).expect("fits in memory")];
        self.fill(0, &mut bytes);
        bytes
    }
}

/// A stream of random numbers for choices that a seed should repeat.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// 0 to `end` less one.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
