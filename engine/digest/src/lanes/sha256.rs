//! SHA-256 over lanes. A step has enough operations beside each other to fill a core with one group of eight.

use super::{Blocks, LANES, Words, block_count, by_lane, by_word};
use crate::sha256::CONSTANTS;

/// Code that takes blocks into the words of eight streams.
#[derive(Clone, Copy)]
pub(crate) struct Sha256Lanes {
    pub(crate) eight: fn(&mut [[u32; 8]; LANES], &Blocks<'_>),
}

impl Sha256Lanes {
    pub(crate) const PORTABLE: Self = Self {
        // SAFETY: safe code in arrays asks nothing of the CPU.
        eight: |states, blocks| unsafe { compress::<super::portable::Array>(states, blocks) },
    };
}

/// # Safety
/// The CPU has the features that `W` names.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "a block is taken from every lane")]
pub(super) unsafe fn compress<W: Words>(states: &mut [[u32; 8]; LANES], blocks: &Blocks<'_>) {
    let count = block_count(std::slice::from_ref(blocks));
    let begin = by_word(states);
    // SAFETY: the caller vouches for the features.
    let mut words: [W; 8] = std::array::from_fn(|word| unsafe { W::load(&begin[word]) });
    for block in 0..count {
        let mut w = words[0].transpose::<true>(std::array::from_fn(|lane| &blocks[lane][block]));
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = words;

        macro_rules! step {
            ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident, $word:expr, $step:expr) => {
                let sum1 = $e.rotate_left::<26, 6>().xor3($e.rotate_left::<21, 11>(), $e.rotate_left::<7, 25>());
                let input = w[$word].add(w[$word].splat(CONSTANTS[$step]));
                let first = $h.add(input).add($e.choose($f, $g)).add(sum1);
                let sum0 = $a.rotate_left::<30, 2>().xor3($a.rotate_left::<19, 13>(), $a.rotate_left::<10, 22>());
                $d = $d.add(first);
                $h = first.add(sum0.add($a.majority($b, $c)));
            };
        }
        // The next word of the schedule, in the place of the one that is needed no longer.
        macro_rules! extend {
            ($word:expr) => {
                let (x, y) = (w[($word + 1) % 16], w[($word + 14) % 16]);
                let sigma0 = x.rotate_left::<25, 7>().xor3(x.rotate_left::<14, 18>(), x.shift_right::<3>());
                let sigma1 = y.rotate_left::<15, 17>().xor3(y.rotate_left::<13, 19>(), y.shift_right::<10>());
                w[$word] = w[$word].add(sigma0).add(w[($word + 9) % 16].add(sigma1));
            };
        }
        macro_rules! eight_steps {
            ($word:literal, $step:literal) => {
                step!(a b c d e f g h, $word, $step);
                step!(h a b c d e f g, $word + 1, $step + 1);
                step!(g h a b c d e f, $word + 2, $step + 2);
                step!(f g h a b c d e, $word + 3, $step + 3);
                step!(e f g h a b c d, $word + 4, $step + 4);
                step!(d e f g h a b c, $word + 5, $step + 5);
                step!(c d e f g h a b, $word + 6, $step + 6);
                step!(b c d e f g h a, $word + 7, $step + 7);
            };
        }
        macro_rules! eight_extended {
            ($word:literal, $step:literal) => {
                extend!($word);
                step!(a b c d e f g h, $word, $step);
                extend!($word + 1);
                step!(h a b c d e f g, $word + 1, $step + 1);
                extend!($word + 2);
                step!(g h a b c d e f, $word + 2, $step + 2);
                extend!($word + 3);
                step!(f g h a b c d e, $word + 3, $step + 3);
                extend!($word + 4);
                step!(e f g h a b c d, $word + 4, $step + 4);
                extend!($word + 5);
                step!(d e f g h a b c, $word + 5, $step + 5);
                extend!($word + 6);
                step!(c d e f g h a b, $word + 6, $step + 6);
                extend!($word + 7);
                step!(b c d e f g h a, $word + 7, $step + 7);
            };
        }
        eight_steps!(0, 0);
        eight_steps!(8, 8);
        eight_extended!(0, 16);
        eight_extended!(8, 24);
        eight_extended!(0, 32);
        eight_extended!(8, 40);
        eight_extended!(0, 48);
        eight_extended!(8, 56);

        let after = [a, b, c, d, e, f, g, h];
        for (word, after) in words.iter_mut().zip(after) {
            *word = word.add(after);
        }
    }
    *states = by_lane(&words.map(Words::store));
}
