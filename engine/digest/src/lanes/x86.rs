//! Lanes in the 256-bit registers of x86: with AVX2, and with the rotations and three-way functions that AVX-512VL adds
//! to them. Never 512 bits: they lower the clock of everything else on the core on some CPUs, and gain a tenth.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Blocks, LANES, Md5Lanes, Registers, Sha256Lanes, Words, md5, sha256};
use crate::blocks::Block;

/// Registers of a CPU with AVX2.
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256i);

/// Registers of a CPU with AVX2, AVX-512F and AVX-512VL.
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m256i);

/// Those that this CPU has.
pub(super) fn registers() -> Vec<Registers> {
    let mut registers = Vec::new();
    if is_x86_feature_detected!("avx2") {
        registers.push(AVX2);
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            registers.push(AVX512);
        }
    }
    registers
}

/// Given out only by [`registers`].
const AVX2: Registers = Registers {
    name: "avx2",
    md5: Md5Lanes {
        // SAFETY: `registers` saw AVX2 before it gave this out, and a CPU does not lose it.
        eight: |states, blocks| unsafe { md5_avx2(states, blocks) },
        // SAFETY: as above.
        sixteen: |states, blocks| unsafe { md5_avx2(states, blocks) },
    },
    sha256: Sha256Lanes {
        // SAFETY: as above.
        eight: |states, blocks| unsafe { sha256_avx2(states, blocks) },
    },
};

/// Given out only by [`registers`].
const AVX512: Registers = Registers {
    name: "avx512vl",
    md5: Md5Lanes {
        // SAFETY: `registers` saw AVX2, AVX-512F and AVX-512VL before it gave this out, and a CPU does not lose them.
        eight: |states, blocks| unsafe { md5_avx512(states, blocks) },
        // SAFETY: as above.
        sixteen: |states, blocks| unsafe { md5_avx512(states, blocks) },
    },
    sha256: Sha256Lanes {
        // SAFETY: as above.
        eight: |states, blocks| unsafe { sha256_avx512(states, blocks) },
    },
};

#[target_feature(enable = "avx2")]
fn md5_avx2<const GROUPS: usize>(states: &mut [[[u32; 4]; LANES]; GROUPS], blocks: &[Blocks<'_>; GROUPS]) {
    // SAFETY: this function has the feature that `Avx2` names.
    unsafe { md5::compress::<Avx2, GROUPS>(states, blocks) }
}

#[target_feature(enable = "avx2,avx512f,avx512vl")]
fn md5_avx512<const GROUPS: usize>(states: &mut [[[u32; 4]; LANES]; GROUPS], blocks: &[Blocks<'_>; GROUPS]) {
    // SAFETY: this function has the features that `Avx512` names.
    unsafe { md5::compress::<Avx512, GROUPS>(states, blocks) }
}

#[target_feature(enable = "avx2")]
fn sha256_avx2(states: &mut [[u32; 8]; LANES], blocks: &Blocks<'_>) {
    // SAFETY: this function has the feature that `Avx2` names.
    unsafe { sha256::compress::<Avx2>(states, blocks) }
}

#[target_feature(enable = "avx2,avx512f,avx512vl")]
fn sha256_avx512(states: &mut [[u32; 8]; LANES], blocks: &Blocks<'_>) {
    // SAFETY: this function has the features that `Avx512` names.
    unsafe { sha256::compress::<Avx512>(states, blocks) }
}

/// Computes with registers whose owner exists.
macro_rules! with {
    ($operation:expr) => {
        // SAFETY: a value of this type exists only where the CPU has the features that the type names, and these
        // operations touch no memory.
        unsafe { $operation }
    };
}

/// What both kinds do alike.
macro_rules! alike {
    () => {
        #[inline(always)]
        unsafe fn load(words: &[u32; LANES]) -> Self {
            // SAFETY: the caller vouches for AVX2; the array has the 32 bytes that are read, and no alignment is asked.
            Self(unsafe { _mm256_loadu_si256(words.as_ptr().cast()) })
        }

        #[inline(always)]
        fn store(self) -> [u32; LANES] {
            let mut words = [0; LANES];
            // SAFETY: this value exists only where the CPU has AVX2; the array has the 32 bytes that are written, and no
            // alignment is asked.
            unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), self.0) };
            words
        }

        #[inline(always)]
        fn splat(self, word: u32) -> Self {
            Self(with!(_mm256_set1_epi32(word.cast_signed())))
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Self(with!(_mm256_add_epi32(self.0, other.0)))
        }

        #[inline(always)]
        fn settled(self) -> Self {
            Self(with!(settled(self.0)))
        }

        #[inline(always)]
        fn shift_right<const BITS: i32>(self) -> Self {
            Self(with!(_mm256_srli_epi32::<BITS>(self.0)))
        }

        #[inline(always)]
        fn transpose<const BIG_ENDIAN: bool>(self, blocks: [&Block; LANES]) -> [Self; 16] {
            // SAFETY: this value exists only where the CPU has AVX2.
            unsafe { transpose::<BIG_ENDIAN>(blocks) }.map(Self)
        }
    };
}

impl Words for Avx2 {
    alike!();

    #[inline(always)]
    fn rotate_left<const LEFT: i32, const RIGHT: i32>(self) -> Self {
        Self(with!(_mm256_or_si256(_mm256_slli_epi32::<LEFT>(self.0), _mm256_srli_epi32::<RIGHT>(self.0))))
    }

    #[inline(always)]
    fn choose(self, a: Self, b: Self) -> Self {
        Self(with!(_mm256_xor_si256(b.0, _mm256_and_si256(self.0, _mm256_xor_si256(a.0, b.0)))))
    }

    #[inline(always)]
    fn xor3(self, b: Self, c: Self) -> Self {
        Self(with!(_mm256_xor_si256(self.0, _mm256_xor_si256(b.0, c.0))))
    }

    #[inline(always)]
    fn md5_i(self, c: Self, d: Self) -> Self {
        let ones = self.splat(u32::MAX);
        Self(with!(_mm256_xor_si256(c.0, _mm256_or_si256(self.0, _mm256_xor_si256(d.0, ones.0)))))
    }

    #[inline(always)]
    fn majority(self, b: Self, c: Self) -> Self {
        let both = with!(_mm256_and_si256(b.0, c.0));
        Self(with!(_mm256_or_si256(both, _mm256_and_si256(self.0, _mm256_or_si256(b.0, c.0)))))
    }
}

/// The constants of `vpternlogd` are the tables of these functions: bit `4 a + 2 b + c` is their value.
impl Words for Avx512 {
    alike!();

    #[inline(always)]
    fn rotate_left<const LEFT: i32, const RIGHT: i32>(self) -> Self {
        Self(with!(_mm256_rol_epi32::<LEFT>(self.0)))
    }

    #[inline(always)]
    fn choose(self, a: Self, b: Self) -> Self {
        Self(with!(_mm256_ternarylogic_epi32::<0xca>(self.0, a.0, b.0)))
    }

    #[inline(always)]
    fn xor3(self, b: Self, c: Self) -> Self {
        Self(with!(_mm256_ternarylogic_epi32::<0x96>(self.0, b.0, c.0)))
    }

    #[inline(always)]
    fn md5_i(self, c: Self, d: Self) -> Self {
        Self(with!(_mm256_ternarylogic_epi32::<0x39>(self.0, c.0, d.0)))
    }

    #[inline(always)]
    fn majority(self, b: Self, c: Self) -> Self {
        Self(with!(_mm256_ternarylogic_epi32::<0xe8>(self.0, b.0, c.0)))
    }
}

/// No instruction, only a place that the compiler may not move a sum across.
#[inline]
#[target_feature(enable = "avx2")]
fn settled(mut words: __m256i) -> __m256i {
    // SAFETY: nothing is done: the register is what it was.
    unsafe { asm!("/* {} */", inout(ymm_reg) words, options(pure, nomem, nostack, preserves_flags)) };
    words
}

/// Four words of a block at a time: each register gets those of two lanes, and two rounds of unpacking bring the words of
/// all lanes together.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn transpose<const BIG_ENDIAN: bool>(blocks: [&Block; LANES]) -> [__m256i; 16] {
    // SAFETY: the caller vouches for AVX2. Every read takes 16 bytes of a block, at 0, 16, 32 or 48 of its 64, and asks
    // for no alignment.
    unsafe {
        let swap = _mm256_broadcastsi128_si256(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
        let mut words = [_mm256_setzero_si256(); 16];
        for quarter in 0..4 {
            let mut rows = [_mm256_setzero_si256(); 4];
            for (lane, row) in rows.iter_mut().enumerate() {
                let low = _mm_loadu_si128(blocks[lane].as_ptr().add(16 * quarter).cast());
                let high = _mm_loadu_si128(blocks[lane + 4].as_ptr().add(16 * quarter).cast());
                *row = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high);
                if BIG_ENDIAN {
                    *row = _mm256_shuffle_epi8(*row, swap);
                }
            }
            let (a, b) = (_mm256_unpacklo_epi32(rows[0], rows[1]), _mm256_unpackhi_epi32(rows[0], rows[1]));
            let (c, d) = (_mm256_unpacklo_epi32(rows[2], rows[3]), _mm256_unpackhi_epi32(rows[2], rows[3]));
            words[4 * quarter] = _mm256_unpacklo_epi64(a, c);
            words[4 * quarter + 1] = _mm256_unpackhi_epi64(a, c);
            words[4 * quarter + 2] = _mm256_unpacklo_epi64(b, d);
            words[4 * quarter + 3] = _mm256_unpackhi_epi64(b, d);
        }
        words
    }
}
