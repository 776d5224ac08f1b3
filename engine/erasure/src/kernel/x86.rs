//! The vector instructions of x86-64. How many registers a step takes follows from how many there are: 16 with AVX2, 32
//! with AVX-512; sums, inputs and tables of a step all stay in them.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::Kernel;
use super::sweep::{Lanes, sweep};
use crate::combine::Run;
use crate::field::{BIT_MATRICES, NIBBLES};

/// Runs a kernel that is available.
pub(super) fn run(kernel: Kernel, run: &Run<'_, '_>, outputs: &mut [&mut [u8]]) {
    debug_assert!(kernel.is_available());
    // SAFETY: a `Code` holds only kernels that it found available, so that the CPU has these instructions.
    unsafe {
        match kernel {
            Kernel::Avx2 => avx2(run, outputs),
            Kernel::Avx512 => avx512(run, outputs),
            Kernel::Avx2Gfni => avx2_gfni(run, outputs),
            Kernel::Avx512Gfni => avx512_gfni(run, outputs),
            Kernel::Naive => unreachable!("the naive kernel needs no instructions"),
        }
    }
}

/// Takes the sweep for as many outputs as there are, with so many registers a step for one, two, three and four.
macro_rules! by_outputs {
    ($lanes:ty, $run:expr, $outputs:expr, [$one:literal, $two:literal, $three:literal, $four:literal]) => {{
        let (run, outputs) = ($run, $outputs);
        // SAFETY: the caller has the instructions, `combine` gives all cells of a run the same length, and the
        // number of outputs is what is matched on.
        unsafe {
            match (outputs.len(), run.is_sum(0)) {
                (1, true) => sweep::<$lanes, 1, $one, true>(run, outputs),
                (1, false) => sweep::<$lanes, 1, $one, false>(run, outputs),
                (2, true) => sweep::<$lanes, 2, $two, true>(run, outputs),
                (2, false) => sweep::<$lanes, 2, $two, false>(run, outputs),
                (3, true) => sweep::<$lanes, 3, $three, true>(run, outputs),
                (3, false) => sweep::<$lanes, 3, $three, false>(run, outputs),
                (4, true) => sweep::<$lanes, 4, $four, true>(run, outputs),
                (4, false) => sweep::<$lanes, 4, $four, false>(run, outputs),
                (count, _) => unreachable!("{count} outputs"),
            }
        }
    }};
}

#[target_feature(enable = "avx2")]
fn avx2(run: &Run<'_, '_>, outputs: &mut [&mut [u8]]) {
    by_outputs!(Avx2, run, outputs, [4, 2, 2, 2]);
}

#[target_feature(enable = "avx512f,avx512bw")]
fn avx512(run: &Run<'_, '_>, outputs: &mut [&mut [u8]]) {
    by_outputs!(Avx512, run, outputs, [4, 4, 4, 4]);
}

#[target_feature(enable = "avx2,gfni")]
fn avx2_gfni(run: &Run<'_, '_>, outputs: &mut [&mut [u8]]) {
    by_outputs!(Avx2Gfni, run, outputs, [4, 4, 2, 2]);
}

#[target_feature(enable = "avx512f,avx512bw,gfni")]
fn avx512_gfni(run: &Run<'_, '_>, outputs: &mut [&mut [u8]]) {
    by_outputs!(Avx512Gfni, run, outputs, [4, 4, 4, 4]);
}

/// AVX2: the two halves of each byte look up their products in a table of 16 (`VPSHUFB`).
struct Avx2;

// SAFETY: every function is made of instructions of AVX2 alone.
unsafe impl Lanes for Avx2 {
    const BYTES: usize = 32;
    type Word = __m256i;
    /// The low and the high halves of the bytes.
    type Operand = (__m256i, __m256i);
    /// The tables for the low and the high half.
    type Factor = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: the caller has AVX2, and 32 bytes there.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, word: __m256i) {
        // SAFETY: the caller has AVX2, and room for 32 bytes there.
        unsafe { _mm256_storeu_si256(to.cast(), word) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_xor_si256(a, b) }
    }

    #[inline(always)]
    unsafe fn operand(word: __m256i) -> (__m256i, __m256i) {
        // SAFETY: the caller has AVX2.
        unsafe {
            let low = _mm256_set1_epi8(0x0f);
            (_mm256_and_si256(word, low), _mm256_and_si256(_mm256_srli_epi16::<4>(word), low))
        }
    }

    #[inline(always)]
    unsafe fn factor(factor: u8) -> (__m256i, __m256i) {
        let tables = NIBBLES.0[usize::from(factor)].as_ptr().cast::<__m128i>();
        // SAFETY: the caller has AVX2; the tables of a factor are 32 bytes.
        unsafe {
            let (low, high) = (_mm_loadu_si128(tables), _mm_loadu_si128(tables.add(1)));
            (_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(high))
        }
    }

    #[inline(always)]
    unsafe fn add_product(sum: __m256i, factor: (__m256i, __m256i), operand: (__m256i, __m256i)) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe {
            let low = _mm256_shuffle_epi8(factor.0, operand.0);
            let high = _mm256_shuffle_epi8(factor.1, operand.1);
            _mm256_xor_si256(sum, _mm256_xor_si256(low, high))
        }
    }
}

/// AVX-512 with byte instructions: as [`Avx2`], twice as wide.
struct Avx512;

// SAFETY: every function is made of instructions of AVX-512 F and BW alone.
unsafe impl Lanes for Avx512 {
    const BYTES: usize = 64;
    type Word = __m512i;
    /// The low and the high halves of the bytes.
    type Operand = (__m512i, __m512i);
    /// The tables for the low and the high half.
    type Factor = (__m512i, __m512i);

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: the caller has AVX-512, and 64 bytes there.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, word: __m512i) {
        // SAFETY: the caller has AVX-512, and room for 64 bytes there.
        unsafe { _mm512_storeu_si512(to.cast(), word) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_xor_si512(a, b) }
    }

    #[inline(always)]
    unsafe fn operand(word: __m512i) -> (__m512i, __m512i) {
        // SAFETY: the caller has AVX-512.
        unsafe {
            let low = _mm512_set1_epi8(0x0f);
            (_mm512_and_si512(word, low), _mm512_and_si512(_mm512_srli_epi16::<4>(word), low))
        }
    }

    #[inline(always)]
    unsafe fn factor(factor: u8) -> (__m512i, __m512i) {
        let tables = NIBBLES.0[usize::from(factor)].as_ptr().cast::<__m128i>();
        // SAFETY: the caller has AVX-512; the tables of a factor are 32 bytes.
        unsafe {
            let (low, high) = (_mm_loadu_si128(tables), _mm_loadu_si128(tables.add(1)));
            (_mm512_broadcast_i32x4(low), _mm512_broadcast_i32x4(high))
        }
    }

    #[inline(always)]
    unsafe fn add_product(sum: __m512i, factor: (__m512i, __m512i), operand: (__m512i, __m512i)) -> __m512i {
        // SAFETY: the caller has AVX-512.
        unsafe {
            let low = _mm512_shuffle_epi8(factor.0, operand.0);
            let high = _mm512_shuffle_epi8(factor.1, operand.1);
            _mm512_ternarylogic_epi64::<0x96>(sum, low, high)
        }
    }
}

/// AVX2 and GFNI: a product is one multiplication by a matrix of 8x8 bits. (`GF2P8MULB` is for another polynomial.)
struct Avx2Gfni;

// SAFETY: every function is made of instructions of AVX2 and GFNI alone.
unsafe impl Lanes for Avx2Gfni {
    const BYTES: usize = 32;
    type Word = __m256i;
    type Operand = __m256i;
    type Factor = __m256i;

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { Avx2::zero() }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: the caller has AVX2, and 32 bytes there.
        unsafe { Avx2::load(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, word: __m256i) {
        // SAFETY: the caller has AVX2, and room for 32 bytes there.
        unsafe { Avx2::store(to, word) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { Avx2::add(a, b) }
    }

    #[inline(always)]
    unsafe fn operand(word: __m256i) -> __m256i {
        word
    }

    #[inline(always)]
    unsafe fn factor(factor: u8) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_set1_epi64x(BIT_MATRICES[usize::from(factor)].cast_signed()) }
    }

    #[inline(always)]
    unsafe fn add_product(sum: __m256i, factor: __m256i, operand: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2 and GFNI.
        unsafe { _mm256_xor_si256(sum, _mm256_gf2p8affine_epi64_epi8::<0>(operand, factor)) }
    }
}

/// AVX-512 and GFNI: as [`Avx2Gfni`], twice as wide.
struct Avx512Gfni;

// SAFETY: every function is made of instructions of AVX-512 F and BW, and GFNI, alone.
unsafe impl Lanes for Avx512Gfni {
    const BYTES: usize = 64;
    type Word = __m512i;
    type Operand = __m512i;
    type Factor = __m512i;

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: the caller has AVX-512.
        unsafe { Avx512::zero() }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: the caller has AVX-512, and 64 bytes there.
        unsafe { Avx512::load(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut u8, word: __m512i) {
        // SAFETY: the caller has AVX-512, and room for 64 bytes there.
        unsafe { Avx512::store(to, word) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller has AVX-512.
        unsafe { Avx512::add(a, b) }
    }

    #[inline(always)]
    unsafe fn operand(word: __m512i) -> __m512i {
        word
    }

    #[inline(always)]
    unsafe fn factor(factor: u8) -> __m512i {
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_set1_epi64(BIT_MATRICES[usize::from(factor)].cast_signed()) }
    }

    #[inline(always)]
    unsafe fn add_product(sum: __m512i, factor: __m512i, operand: __m512i) -> __m512i {
        // SAFETY: the caller has AVX-512 and GFNI.
        unsafe { _mm512_xor_si512(sum, _mm512_gf2p8affine_epi64_epi8::<0>(operand, factor)) }
    }
}
