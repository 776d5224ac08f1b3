//! MD5 and SHA-256 of many streams at once, eight or sixteen in lanes, and few of SHA-256 by the CPU's own instructions.
//!
//! A *lane* is one stream's place in a register of 256 bits: each register holds the same word of eight streams, and each
//! instruction takes the same step for all of them. The steps are written once, over [`Words`]; what differs is how a
//! register computes.
#![allow(unsafe_code)]

mod md5;
mod portable;
mod sha256;
#[cfg(target_arch = "x86_64")]
mod sha_ni;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use md5::Md5Lanes;
pub(crate) use sha256::Sha256Lanes;

use crate::blocks::Block;

/// One kind of register.
#[derive(Clone, Copy)]
pub(crate) struct Registers {
    pub(crate) name: &'static str,
    pub(crate) md5: Md5Lanes,
    pub(crate) sha256: Sha256Lanes,
}

/// What every CPU has.
pub(crate) const PORTABLE: Registers =
    Registers { name: "portable", md5: Md5Lanes::PORTABLE, sha256: Sha256Lanes::PORTABLE };

/// What this CPU has beside that, the best last.
pub(crate) fn registers() -> Vec<Registers> {
    #[cfg(target_arch = "x86_64")]
    return x86::registers();
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

/// Takes blocks into the words of so many streams, from each equally many.
pub(crate) type Beside<const STREAMS: usize> = fn(&mut [[u32; 8]; STREAMS], &[&[Block]; STREAMS]);

/// SHA-256 of a few streams beside each other by the CPU's own instructions.
#[derive(Clone, Copy)]
pub(crate) struct Sha256Beside {
    pub(crate) two: Beside<2>,
    pub(crate) three: Beside<3>,
}

/// What this CPU has of it.
pub(crate) fn sha256_beside() -> Option<Sha256Beside> {
    #[cfg(target_arch = "x86_64")]
    return sha_ni::beside();
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// The same word, computed before it is added to anything else: what [`Words::settled`] is to lanes.
#[inline(always)]
pub(crate) fn settled(word: u32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        let mut word = word;
        // SAFETY: nothing is done: the register is what it was.
        unsafe { std::arch::asm!("/* {:e} */", inout(reg) word, options(pure, nomem, nostack, preserves_flags)) };
        word
    }
    #[cfg(not(target_arch = "x86_64"))]
    word
}

/// Streams in a register.
pub(crate) const LANES: usize = 8;

/// The blocks of each lane: equally many.
pub(crate) type Blocks<'a> = [&'a [Block]; LANES];

/// One word of each lane.
///
/// A value is the proof that the CPU computes with such registers: only [`Self::load`] makes one of nothing.
pub(crate) trait Words: Copy {
    /// # Safety
    /// The CPU has the features that the implementation names.
    unsafe fn load(words: &[u32; LANES]) -> Self;
    fn store(self) -> [u32; LANES];
    /// The same word in every lane.
    fn splat(self, word: u32) -> Self;
    fn add(self, other: Self) -> Self;
    /// The same, computed before it is added to anything else. Without this word the compiler sorts the terms of a sum as it
    /// likes, and puts a constant last, into the chain that each step of MD5 waits for.
    fn settled(self) -> Self;
    /// `RIGHT` is 32 - `LEFT`.
    fn rotate_left<const LEFT: i32, const RIGHT: i32>(self) -> Self;
    fn shift_right<const BITS: i32>(self) -> Self;
    /// For each bit: `a` where this is one, else `b`.
    fn choose(self, a: Self, b: Self) -> Self;
    /// The exclusive or of all three.
    fn xor3(self, b: Self, c: Self) -> Self;
    /// `c ^ (self | !d)`: the function of the last round of MD5.
    fn md5_i(self, c: Self, d: Self) -> Self;
    /// For each bit what at least two have.
    fn majority(self, b: Self, c: Self) -> Self;
    /// Word `i` of each lane's block in register `i`.
    fn transpose<const BIG_ENDIAN: bool>(self, blocks: [&Block; LANES]) -> [Self; 16];
}

/// The words of eight states by their place in the state.
fn by_word<const WORDS: usize>(states: &[[u32; WORDS]; LANES]) -> [[u32; LANES]; WORDS] {
    std::array::from_fn(|word| std::array::from_fn(|lane| states[lane][word]))
}

fn by_lane<const WORDS: usize>(words: &[[u32; LANES]; WORDS]) -> [[u32; WORDS]; LANES] {
    std::array::from_fn(|lane| std::array::from_fn(|word| words[word][lane]))
}

/// How many blocks each lane has.
fn block_count(groups: &[Blocks<'_>]) -> usize {
    let count = groups[0][0].len();
    assert!(groups.iter().flatten().all(|blocks| blocks.len() == count), "lanes end together");
    count
}
