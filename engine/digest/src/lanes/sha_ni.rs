//! SHA-256 of two or three streams by the instructions that x86 has for it. Each of its rounds waits four cycles for the one
//! before, while a core begins one every two: two streams take the time of one (docs/PERFORMANCE.md).

use std::arch::x86_64::*;

use super::Sha256Beside;
use crate::blocks::Block;
use crate::sha256::CONSTANTS;

/// What this CPU has of it.
pub(super) fn beside() -> Option<Sha256Beside> {
    (is_x86_feature_detected!("sha") && is_x86_feature_detected!("avx")).then_some(SHA_NI)
}

/// Given out only by [`beside`].
const SHA_NI: Sha256Beside = Sha256Beside {
    // SAFETY: `beside` saw SHA and AVX before it gave this out, and a CPU does not lose them.
    two: |words, blocks| unsafe { compress(words, blocks) },
    // SAFETY: as above.
    three: |words, blocks| unsafe { compress(words, blocks) },
};

// AVX for instructions that leave what they read as it is.
#[target_feature(enable = "sha,avx")]
#[expect(clippy::needless_range_loop, reason = "each step is taken for every stream")]
fn compress<const STREAMS: usize>(words: &mut [[u32; 8]; STREAMS], blocks: &[&[Block]; STREAMS]) {
    let count = blocks[0].len();
    assert!(blocks.iter().all(|blocks| blocks.len() == count), "streams end together");
    let zero = _mm_setzero_si128();
    // The words of a stream as the instructions want them: from the highest on a, b, e, f and c, d, g, h.
    let (mut abef, mut cdgh) = ([zero; STREAMS], [zero; STREAMS]);
    for stream in 0..STREAMS {
        let [abcd, efgh] = load(&words[stream]);
        abef[stream] = _mm_unpackhi_epi64(efgh, abcd);
        cdgh[stream] = _mm_unpacklo_epi64(efgh, abcd);
    }
    for block in 0..count {
        let before = (abef, cdgh);
        let mut w = [[zero; 4]; STREAMS];
        for stream in 0..STREAMS {
            w[stream] = load_big_endian(&blocks[stream][block]);
        }

        macro_rules! four_steps {
            ($($four:literal)*) => {$(
                let constants = four_constants::<$four>();
                for stream in 0..STREAMS {
                    let input = _mm_add_epi32(w[stream][$four % 4], constants);
                    cdgh[stream] = _mm_sha256rnds2_epu32(cdgh[stream], abef[stream], input);
                    abef[stream] = _mm_sha256rnds2_epu32(abef[stream], cdgh[stream], _mm_unpackhi_epi64(input, input));
                }
                // The words of sixteen steps later, in the place of those that are needed no longer.
                if $four < 12 {
                    for stream in 0..STREAMS {
                        let [a, b] = [w[stream][$four % 4], w[stream][($four + 1) % 4]];
                        let [c, d] = [w[stream][($four + 2) % 4], w[stream][($four + 3) % 4]];
                        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(a, b), _mm_alignr_epi8::<4>(d, c));
                        w[stream][$four % 4] = _mm_sha256msg2_epu32(sum, d);
                    }
                }
            )*};
        }
        four_steps!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);

        for stream in 0..STREAMS {
            abef[stream] = _mm_add_epi32(abef[stream], before.0[stream]);
            cdgh[stream] = _mm_add_epi32(cdgh[stream], before.1[stream]);
        }
    }
    for stream in 0..STREAMS {
        let abcd = _mm_unpackhi_epi64(cdgh[stream], abef[stream]);
        let efgh = _mm_unpacklo_epi64(cdgh[stream], abef[stream]);
        store(&mut words[stream], [abcd, efgh]);
    }
}

/// Both halves, their first word highest.
#[inline]
#[target_feature(enable = "sse2")]
fn load(words: &[u32; 8]) -> [__m128i; 2] {
    let [a, b, c, d, e, f, g, h] = words.map(u32::cast_signed);
    [_mm_set_epi32(a, b, c, d), _mm_set_epi32(e, f, g, h)]
}

#[inline]
#[target_feature(enable = "sse2")]
fn store(words: &mut [u32; 8], halves: [__m128i; 2]) {
    for (words, half) in words.as_chunks_mut::<4>().0.iter_mut().zip(halves) {
        let highest_last = _mm_shuffle_epi32::<0b00_01_10_11>(half);
        // SAFETY: the array has the 16 bytes that are written, and no alignment is asked.
        unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), highest_last) };
    }
}

/// The sixteen words of a block, the first of each four lowest.
#[inline]
#[target_feature(enable = "ssse3")]
fn load_big_endian(block: &Block) -> [__m128i; 4] {
    let swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    let mut words = [_mm_setzero_si128(); 4];
    for (bytes, words) in block.as_chunks::<16>().0.iter().zip(&mut words) {
        // SAFETY: there are the 16 bytes that are read, and no alignment is asked.
        *words = _mm_shuffle_epi8(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }, swap);
    }
    words
}

#[inline]
#[target_feature(enable = "sse2")]
fn four_constants<const FOUR: usize>() -> __m128i {
    let constants = &CONSTANTS.as_chunks::<4>().0[FOUR];
    // SAFETY: there are the 16 bytes that are read, and no alignment is asked.
    unsafe { _mm_loadu_si128(constants.as_ptr().cast()) }
}
