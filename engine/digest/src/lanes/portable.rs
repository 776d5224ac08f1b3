//! Lanes as an array: the twin that every other kind of register is compared with. Slow, because its operations stay calls:
//! unrolled into the rounds they would take a minute to compile.

use super::{LANES, Words};
use crate::blocks::Block;

#[derive(Clone, Copy)]
pub(super) struct Array([u32; LANES]);

impl Array {
    #[inline(always)]
    fn of(word: impl Fn(usize) -> u32) -> Self {
        Self(std::array::from_fn(word))
    }
}

impl Words for Array {
    #[inline(never)]
    unsafe fn load(words: &[u32; LANES]) -> Self {
        Self(*words)
    }

    #[inline(never)]
    fn store(self) -> [u32; LANES] {
        self.0
    }

    #[inline(never)]
    fn splat(self, word: u32) -> Self {
        Self([word; LANES])
    }

    #[inline(never)]
    fn add(self, other: Self) -> Self {
        Self::of(|lane| self.0[lane].wrapping_add(other.0[lane]))
    }

    #[inline(always)]
    fn settled(self) -> Self {
        self
    }

    #[inline(never)]
    fn rotate_left<const LEFT: i32, const RIGHT: i32>(self) -> Self {
        Self::of(|lane| self.0[lane].rotate_left(LEFT.unsigned_abs()))
    }

    #[inline(never)]
    fn shift_right<const BITS: i32>(self) -> Self {
        Self::of(|lane| self.0[lane] >> BITS)
    }

    #[inline(never)]
    fn choose(self, a: Self, b: Self) -> Self {
        Self::of(|lane| (self.0[lane] & a.0[lane]) | (!self.0[lane] & b.0[lane]))
    }

    #[inline(never)]
    fn xor3(self, b: Self, c: Self) -> Self {
        Self::of(|lane| self.0[lane] ^ b.0[lane] ^ c.0[lane])
    }

    #[inline(never)]
    fn md5_i(self, c: Self, d: Self) -> Self {
        Self::of(|lane| c.0[lane] ^ (self.0[lane] | !d.0[lane]))
    }

    #[inline(never)]
    fn majority(self, b: Self, c: Self) -> Self {
        Self::of(|lane| {
            let (a, b, c) = (self.0[lane], b.0[lane], c.0[lane]);
            (a & b) | (a & c) | (b & c)
        })
    }

    #[inline(never)]
    fn transpose<const BIG_ENDIAN: bool>(self, blocks: [&Block; LANES]) -> [Self; 16] {
        let read = if BIG_ENDIAN { u32::from_be_bytes } else { u32::from_le_bytes };
        std::array::from_fn(|word| Self::of(|lane| read(blocks[lane].as_chunks().0[word])))
    }
}
