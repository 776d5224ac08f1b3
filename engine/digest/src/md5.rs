//! MD5 (RFC 1321), one stream at a time.

use crate::Value;
use crate::blocks::{Block, Stream};
use crate::lanes::settled;

/// An MD5 under way.
pub(crate) type Md5 = Stream<4>;

/// RFC 1321, 3.3.
pub(crate) const BEGIN: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

pub(crate) fn finish(md5: Md5) -> Value {
    let words = md5.finish(u64::to_le_bytes, compress);
    Value::new(words.map(u32::to_le_bytes).as_flattened())
}

/// Every step waits for the one before it, so what counts is the way from one `b` to the next. What does not
/// need the newest word is added first, in round 2 also half of its function, and stays so: settled.
pub(crate) fn compress(words: &mut [u32; 4], blocks: &[Block]) {
    let [mut a, mut b, mut c, mut d] = *words;
    for block in blocks {
        let (fields, _) = block.as_chunks::<4>();
        let x: [u32; 16] = std::array::from_fn(|word| u32::from_le_bytes(fields[word]));
        let before = [a, b, c, d];

        macro_rules! step {
            ($sum:expr, $a:ident, $b:ident, $rotation:literal) => {
                $a = ($sum).rotate_left($rotation).wrapping_add($b);
            };
        }
        macro_rules! f {
            ($a:ident $b:ident $c:ident $d:ident, $step:expr, $rotation:literal) => {
                let sum = settled($a.wrapping_add(x[($step) % 16]).wrapping_add(CONSTANTS[$step]));
                step!(sum.wrapping_add($d ^ ($b & ($c ^ $d))), $a, $b, $rotation);
            };
        }
        macro_rules! g {
            ($a:ident $b:ident $c:ident $d:ident, $step:expr, $rotation:literal) => {
                let sum = $a.wrapping_add(x[(5 * ($step) + 1) % 16]).wrapping_add(CONSTANTS[$step]);
                // The two halves have no bit in common.
                let sum = settled(sum.wrapping_add($c & !$d));
                step!(sum.wrapping_add($b & $d), $a, $b, $rotation);
            };
        }
        macro_rules! h {
            ($a:ident $b:ident $c:ident $d:ident, $step:expr, $rotation:literal) => {
                let sum = settled($a.wrapping_add(x[(3 * ($step) + 5) % 16]).wrapping_add(CONSTANTS[$step]));
                step!(sum.wrapping_add(settled($c ^ $d) ^ $b), $a, $b, $rotation);
            };
        }
        macro_rules! i {
            ($a:ident $b:ident $c:ident $d:ident, $step:expr, $rotation:literal) => {
                let sum = settled($a.wrapping_add(x[7 * ($step) % 16]).wrapping_add(CONSTANTS[$step]));
                step!(sum.wrapping_add($c ^ ($b | !$d)), $a, $b, $rotation);
            };
        }
        macro_rules! four {
            ($round:ident, $first:expr, $r0:literal $r1:literal $r2:literal $r3:literal) => {
                $round!(a b c d, $first, $r0);
                $round!(d a b c, $first + 1, $r1);
                $round!(c d a b, $first + 2, $r2);
                $round!(b c d a, $first + 3, $r3);
            };
        }
        macro_rules! sixteen {
            ($round:ident, $first:literal, $($rotation:literal)*) => {
                four!($round, $first, $($rotation)*);
                four!($round, $first + 4, $($rotation)*);
                four!($round, $first + 8, $($rotation)*);
                four!($round, $first + 12, $($rotation)*);
            };
        }
        sixteen!(f, 0, 7 12 17 22);
        sixteen!(g, 16, 5 9 14 20);
        sixteen!(h, 32, 4 11 16 23);
        sixteen!(i, 48, 6 10 15 21);

        a = a.wrapping_add(before[0]);
        b = b.wrapping_add(before[1]);
        c = c.wrapping_add(before[2]);
        d = d.wrapping_add(before[3]);
    }
    *words = [a, b, c, d];
}

/// The integer part of 2^32 times |sin(step + 1)| (RFC 1321, 3.4).
#[rustfmt::skip]
pub(crate) const CONSTANTS: [u32; 64] = [
    0xd76a_a478, 0xe8c7_b756, 0x2420_70db, 0xc1bd_ceee, 0xf57c_0faf, 0x4787_c62a, 0xa830_4613, 0xfd46_9501,
    0x6980_98d8, 0x8b44_f7af, 0xffff_5bb1, 0x895c_d7be, 0x6b90_1122, 0xfd98_7193, 0xa679_438e, 0x49b4_0821,
    0xf61e_2562, 0xc040_b340, 0x265e_5a51, 0xe9b6_c7aa, 0xd62f_105d, 0x0244_1453, 0xd8a1_e681, 0xe7d3_fbc8,
    0x21e1_cde6, 0xc337_07d6, 0xf4d5_0d87, 0x455a_14ed, 0xa9e3_e905, 0xfcef_a3f8, 0x676f_02d9, 0x8d2a_4c8a,
    0xfffa_3942, 0x8771_f681, 0x6d9d_6122, 0xfde5_380c, 0xa4be_ea44, 0x4bde_cfa9, 0xf6bb_4b60, 0xbebf_bc70,
    0x289b_7ec6, 0xeaa1_27fa, 0xd4ef_3085, 0x0488_1d05, 0xd9d4_d039, 0xe6db_99e5, 0x1fa2_7cf8, 0xc4ac_5665,
    0xf429_2244, 0x432a_ff97, 0xab94_23a7, 0xfc93_a039, 0x655b_59c3, 0x8f0c_cc92, 0xffef_f47d, 0x8584_5dd1,
    0x6fa8_7e4f, 0xfe2c_e6e0, 0xa301_4314, 0x4e08_11a1, 0xf753_7e82, 0xbd3a_f235, 0x2ad7_d2bb, 0xeb86_d391,
];
