//! Many digests at once: which code does it, and how streams of different lengths share its lanes.

use std::fmt;

use crate::blocks::{Block, Compress};
use crate::lanes::{self, Beside, Blocks, LANES, Md5Lanes, Registers, Sha256Beside, Sha256Lanes};
use crate::stream::State;
use crate::{Algorithm, Digest, md5, sha256};

/// The code that [`update_many`] uses. All of it gives the same values.
#[derive(Clone, Copy)]
pub struct Kernel {
    name: &'static str,
    /// Absent where one stream after the other is as fast.
    md5: Option<Md5Lanes>,
    sha256: Sha256Together,
}

/// How streams of SHA-256 go in step.
#[derive(Clone, Copy)]
enum Sha256Together {
    /// One after the other.
    No,
    Lanes(Sha256Lanes),
    Beside(Sha256Beside),
}

impl Kernel {
    /// One stream after the other.
    pub const SINGLE: Self = Self { name: "single", md5: None, sha256: Sha256Together::No };

    /// The fastest that this CPU has. Where it has instructions for SHA-256, two streams by them are faster than eight in
    /// lanes (docs/PERFORMANCE.md).
    #[must_use]
    pub fn detect() -> Self {
        let best = lanes::registers().pop().map_or(Self::SINGLE, Self::of);
        match lanes::sha256_beside() {
            Some(beside) => Self { sha256: Sha256Together::Beside(beside), ..best },
            None if has_sha_instructions() => Self { sha256: Sha256Together::No, ..best },
            None => best,
        }
    }

    /// Every kernel that this CPU runs: to compare them. Those with lanes have lanes for SHA-256 too, whatever is faster.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let lanes = [lanes::PORTABLE].into_iter().chain(lanes::registers()).map(Self::of);
        let beside = |beside| Self { name: "sha-ni", md5: None, sha256: Sha256Together::Beside(beside) };
        [Self::SINGLE].into_iter().chain(lanes).chain(lanes::sha256_beside().map(beside)).collect()
    }

    fn of(registers: Registers) -> Self {
        Self { name: registers.name, md5: Some(registers.md5), sha256: Sha256Together::Lanes(registers.sha256) }
    }

    /// What it is called, e.g. `avx512vl`. For people to read; not stable.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How many digests of an algorithm go in step: 1 where each goes alone.
    #[must_use]
    pub fn lanes(&self, algorithm: Algorithm) -> usize {
        match algorithm {
            Algorithm::Md5 if self.md5.is_some() => 2 * LANES,
            Algorithm::Sha256 => match self.sha256 {
                Sha256Together::No => 1,
                Sha256Together::Beside(_) => 2,
                Sha256Together::Lanes(_) => LANES,
            },
            _ => 1,
        }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel")
            .field("name", &self.name)
            .field("md5_lanes", &self.lanes(Algorithm::Md5))
            .field("sha256_lanes", &self.lanes(Algorithm::Sha256))
            .finish()
    }
}

/// Gives each digest its bytes, as [`Digest::update`] does; as many at once as the kernel can. Any number of them, of any
/// lengths.
pub fn update_many(kernel: &Kernel, updates: &mut [(&mut Digest, &[u8])]) {
    let mut md5s = Vec::new();
    let mut sha256s = Vec::new();
    for (digest, bytes) in updates {
        if kernel.lanes(digest.algorithm) == 1 {
            digest.update(bytes);
            continue;
        }
        match &mut digest.state {
            State::Md5(stream) => {
                let blocks = stream.admit(bytes, md5::compress);
                md5s.push(Lane { words: &mut stream.words, blocks });
            }
            State::Sha256(stream) => {
                let blocks = stream.admit(bytes, sha256::compress);
                sha256s.push(Lane { words: &mut stream.words, blocks });
            }
            State::Sha1(_) | State::Crc(_) => unreachable!("these have no lanes"),
        }
    }
    if let Some(lanes) = kernel.md5 {
        together(
            &mut md5s,
            md5::compress,
            |left| left.min(2 * LANES),
            |chosen, count| match chosen {
                [..] if chosen.len() <= LANES => one_group(chosen, count, lanes.eight),
                _ => two_groups(chosen, count, lanes.sixteen),
            },
        );
    }
    match kernel.sha256 {
        Sha256Together::No => {}
        Sha256Together::Lanes(lanes) => together(
            &mut sha256s,
            sha256::compress,
            |left| left.min(LANES),
            |chosen, count| one_group(chosen, count, |[states], [blocks]| (lanes.eight)(states, blocks)),
        ),
        Sha256Together::Beside(beside) => together(
            &mut sha256s,
            sha256::compress,
            // So that none of three goes alone.
            |left| if left == 3 { 3 } else { left.min(2) },
            |chosen, count| match chosen {
                [_, _, _] => side_by_side(chosen, count, beside.three),
                _ => side_by_side(chosen, count, beside.two),
            },
        ),
    }
}

/// A stream and the blocks that it still has to take.
struct Lane<'a, const WORDS: usize> {
    words: &'a mut [u32; WORDS],
    blocks: &'a [Block],
}

/// As many streams as `share` says of those that are left go in step until the shortest of them ends; then the others share
/// anew. The longest go first, so that few are left alone at the end.
fn together<const WORDS: usize>(
    streams: &mut [Lane<'_, WORDS>],
    alone: Compress<WORDS>,
    share: impl Fn(usize) -> usize,
    in_step: impl Fn(&mut [Lane<'_, WORDS>], usize),
) {
    loop {
        streams.sort_unstable_by_key(|stream| std::cmp::Reverse(stream.blocks.len()));
        let left = streams.iter().take_while(|stream| !stream.blocks.is_empty()).count();
        match &mut streams[..share(left)] {
            [] => return,
            [Lane { words, blocks }] => alone(words, std::mem::take(blocks)),
            chosen => {
                let count = chosen.last().expect("there are two at least").blocks.len();
                in_step(chosen, count);
                for stream in chosen {
                    stream.blocks = &stream.blocks[count..];
                }
            }
        }
    }
}

/// Takes `count` blocks of each stream, as many as there are.
fn side_by_side<const STREAMS: usize>(streams: &mut [Lane<'_, 8>], count: usize, compress: Beside<STREAMS>) {
    assert_eq!(streams.len(), STREAMS, "as many as the code takes");
    let mut states = std::array::from_fn(|stream| *streams[stream].words);
    let blocks = std::array::from_fn(|stream| &streams[stream].blocks[..count]);
    compress(&mut states, &blocks);
    for (stream, state) in streams.iter_mut().zip(states) {
        *stream.words = state;
    }
}

/// Takes `count` blocks of each of up to eight streams. Lanes without a stream repeat the first one's, for nobody.
fn one_group<const WORDS: usize>(
    streams: &mut [Lane<'_, WORDS>],
    count: usize,
    compress: impl Fn(&mut [[[u32; WORDS]; LANES]; 1], &[Blocks<'_>; 1]),
) {
    let (states, blocks) = group(streams, count);
    let mut states = [states];
    compress(&mut states, &[blocks]);
    give_back(streams, &states[0]);
}

/// The same for up to sixteen.
fn two_groups<const WORDS: usize>(
    streams: &mut [Lane<'_, WORDS>],
    count: usize,
    compress: impl Fn(&mut [[[u32; WORDS]; LANES]; 2], &[Blocks<'_>; 2]),
) {
    let (first, second) = streams.split_at_mut(LANES);
    let (states, blocks) = group(first, count);
    let (more_states, more_blocks) = group(second, count);
    let mut states = [states, more_states];
    compress(&mut states, &[blocks, more_blocks]);
    give_back(first, &states[0]);
    give_back(second, &states[1]);
}

fn group<'a, const WORDS: usize>(streams: &[Lane<'a, WORDS>], count: usize) -> ([[u32; WORDS]; LANES], Blocks<'a>) {
    let of_lane = |lane: usize| streams.get(lane).unwrap_or(&streams[0]);
    let states = std::array::from_fn(|lane| *of_lane(lane).words);
    let blocks = std::array::from_fn(|lane| &of_lane(lane).blocks[..count]);
    (states, blocks)
}

fn give_back<const WORDS: usize>(streams: &mut [Lane<'_, WORDS>], states: &[[u32; WORDS]; LANES]) {
    assert!(streams.len() <= LANES, "as many as there are lanes");
    for (stream, state) in streams.iter_mut().zip(states) {
        *stream.words = *state;
    }
}

fn has_sha_instructions() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("sha") && std::arch::is_x86_feature_detected!("sse4.1");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("sha2");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}
