//! MD5 over lanes. Two groups of eight hide each other's waits: a step of MD5 is a chain of four operations, and a core
//! can do two or three of them at a time.

use super::{Blocks, LANES, Words, block_count, by_lane, by_word};
use crate::md5::CONSTANTS;

/// Code that takes blocks into the words of eight and of sixteen streams.
#[derive(Clone, Copy)]
pub(crate) struct Md5Lanes {
    pub(crate) eight: fn(&mut [[[u32; 4]; LANES]; 1], &[Blocks<'_>; 1]),
    pub(crate) sixteen: fn(&mut [[[u32; 4]; LANES]; 2], &[Blocks<'_>; 2]),
}

impl Md5Lanes {
    pub(crate) const PORTABLE: Self = Self {
        // SAFETY: safe code in arrays asks nothing of the CPU.
        eight: |states, blocks| unsafe { compress::<super::portable::Array, 1>(states, blocks) },
        // SAFETY: as above.
        sixteen: |states, blocks| unsafe { compress::<super::portable::Array, 2>(states, blocks) },
    };
}

/// # Safety
/// The CPU has the features that `W` names.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "a block is taken from every lane")]
pub(super) unsafe fn compress<W: Words, const GROUPS: usize>(
    states: &mut [[[u32; 4]; LANES]; GROUPS],
    blocks: &[Blocks<'_>; GROUPS],
) {
    let count = block_count(blocks);
    let begin = states.map(|states| by_word(&states));
    // SAFETY: the caller vouches for the features.
    let load = |words: &[u32; LANES]| unsafe { W::load(words) };
    let mut a: [W; GROUPS] = std::array::from_fn(|group| load(&begin[group][0]));
    let mut b: [W; GROUPS] = std::array::from_fn(|group| load(&begin[group][1]));
    let mut c: [W; GROUPS] = std::array::from_fn(|group| load(&begin[group][2]));
    let mut d: [W; GROUPS] = std::array::from_fn(|group| load(&begin[group][3]));
    for block in 0..count {
        let mut x = [[a[0]; 16]; GROUPS];
        for (group, x) in x.iter_mut().enumerate() {
            *x = a[group].transpose::<false>(std::array::from_fn(|lane| &blocks[group][lane][block]));
        }
        let before = [a, b, c, d];

        macro_rules! step {
            ($function:ident, $a:ident $b:ident $c:ident $d:ident, $word:expr, $step:expr, $left:literal $right:literal) => {
                for group in 0..GROUPS {
                    let sum = $a[group].add($a[group].splat(CONSTANTS[$step])).add(x[group][$word % 16]).settled();
                    let sum = sum.add($function($b[group], $c[group], $d[group]));
                    $a[group] = sum.rotate_left::<$left, $right>().add($b[group]);
                }
            };
        }
        macro_rules! four {
            ($function:ident, $first:expr, $times:literal, $plus:literal, $l0:literal $r0:literal $l1:literal $r1:literal $l2:literal $r2:literal $l3:literal $r3:literal) => {
                step!($function, a b c d, $times * $first + $plus, $first, $l0 $r0);
                step!($function, d a b c, $times * ($first + 1) + $plus, $first + 1, $l1 $r1);
                step!($function, c d a b, $times * ($first + 2) + $plus, $first + 2, $l2 $r2);
                step!($function, b c d a, $times * ($first + 3) + $plus, $first + 3, $l3 $r3);
            };
        }
        macro_rules! round {
            ($function:ident, $first:literal, $times:literal, $plus:literal, $($rotation:literal)*) => {
                four!($function, $first, $times, $plus, $($rotation)*);
                four!($function, $first + 4, $times, $plus, $($rotation)*);
                four!($function, $first + 8, $times, $plus, $($rotation)*);
                four!($function, $first + 12, $times, $plus, $($rotation)*);
            };
        }
        round!(f, 0, 1, 0, 7 25 12 20 17 15 22 10);
        round!(g, 16, 5, 1, 5 27 9 23 14 18 20 12);
        round!(h, 32, 3, 5, 4 28 11 21 16 16 23 9);
        round!(i, 48, 7, 0, 6 26 10 22 15 17 21 11);

        for group in 0..GROUPS {
            a[group] = a[group].add(before[0][group]);
            b[group] = b[group].add(before[1][group]);
            c[group] = c[group].add(before[2][group]);
            d[group] = d[group].add(before[3][group]);
        }
    }
    for (group, states) in states.iter_mut().enumerate() {
        *states = by_lane(&[a[group].store(), b[group].store(), c[group].store(), d[group].store()]);
    }
}

// The functions of the four rounds (RFC 1321, 3.4). No closures: a closure does not get the features of the function that it
// is written in, and stays a call through memory.

#[inline(always)]
fn f<W: Words>(b: W, c: W, d: W) -> W {
    b.choose(c, d)
}

#[inline(always)]
fn g<W: Words>(b: W, c: W, d: W) -> W {
    d.choose(b, c)
}

#[inline(always)]
fn h<W: Words>(b: W, c: W, d: W) -> W {
    b.xor3(c, d)
}

#[inline(always)]
fn i<W: Words>(b: W, c: W, d: W) -> W {
    b.md5_i(c, d)
}
