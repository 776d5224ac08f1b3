//! Which disks hold the shards of a new blob, and which one takes a shard that is made anew. Pure: chance comes in as a
//! stream of numbers.
//!
//! Each disk gets shards in proportion to its free space, so that disks of unequal size, or one that was exchanged, fill
//! up together. Never two shards of a blob on one disk.

use crate::geometry;
use crate::ids::DiskId;
use crate::profile::Profile;

/// A disk that takes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub disk: DiskId,
    /// What blobs can still take there.
    pub free_bytes: u64,
}

/// Where a blob goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// As asked for, or narrower.
    pub profile: Profile,
    /// One per shard, all different.
    pub disks: Vec<DiskId>,
}

/// Shards of a blob that must be durable before anybody is told that it is: one more than it is read from, so that it
/// survives a loss before it is repaired; all where there are no more.
#[must_use]
pub const fn shards_needed(profile: Profile) -> u8 {
    if profile.parity == 0 { profile.data } else { profile.data + 1 }
}

/// Fewer disks take writes than a blob needs that survives the loss of one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too few disks take writes")]
pub struct TooFewDisks;

/// Chooses a disk for each shard of a blob of so many bytes: as copies when it is small, and narrower than `profile` when
/// too few disks have room ([`geometry::stored_as`], [`geometry::narrowed`]). `random` gives 64 unpredictable bits.
///
/// What is known of free space is seldom exact. So when all that is missing is room, disks are tried that seem to be full:
/// the append says.
///
/// # Errors
/// When there are too few candidates.
///
/// # Panics
/// When the blob is empty.
pub fn place(
    candidates: &[Candidate],
    profile: Profile,
    length: u64,
    random: impl FnMut() -> u64,
) -> Result<Placement, TooFewDisks> {
    let (profile, mut disks) = with_room(candidates, profile, length)
        .or_else(|| Some((geometry::narrowed(profile, candidates.len())?, candidates.to_vec())))
        .ok_or(TooFewDisks)?;
    let profile = geometry::stored_as(profile, length);
    Ok(Placement { profile, disks: draw(&mut disks, profile.shards().into(), random) })
}

/// The disks with room for a shard, and the profile that they allow. A narrower one has larger shards, for which again
/// fewer disks may have room.
fn with_room(candidates: &[Candidate], wanted: Profile, length: u64) -> Option<(Profile, Vec<Candidate>)> {
    let mut profile = wanted;
    loop {
        let bytes = geometry::shard_bytes(geometry::stored_as(profile, length), length);
        let disks: Vec<_> = candidates.iter().filter(|disk| disk.free_bytes >= bytes).copied().collect();
        let narrowed = geometry::narrowed(profile, disks.len())?;
        if narrowed == profile {
            return Some((profile, disks));
        }
        profile = narrowed;
    }
}

/// Chooses a disk for one shard of `shard_bytes`, none of those that are `taken` by others of its blob.
#[must_use]
pub fn place_one(
    candidates: &[Candidate],
    taken: &[DiskId],
    shard_bytes: u64,
    random: impl FnMut() -> u64,
) -> Option<DiskId> {
    let fits = |disk: &&Candidate| disk.free_bytes >= shard_bytes && !taken.contains(&disk.disk);
    let mut free: Vec<_> = candidates.iter().filter(fits).copied().collect();
    if free.is_empty() { None } else { draw(&mut free, 1, random).pop() }
}

/// `count` of the disks, each with a chance in proportion to its free space, in a random order.
///
/// Drawn systematically: the disks are laid behind one another on a line, as long as their weights, in an order that is
/// random; `count` points at equal distances with a random start hit one disk each. A disk that weighs more than the
/// distance would be hit twice: it is chosen for certain and leaves the line. So each disk is hit exactly as often as
/// it weighs, which drawing one after the other does not give.
fn draw(disks: &mut Vec<Candidate>, count: usize, mut random: impl FnMut() -> u64) -> Vec<DiskId> {
    assert!((1..=disks.len()).contains(&count), "{count} of {} disks", disks.len());
    shuffle(disks, &mut random);
    let mut chosen = Vec::with_capacity(count);
    loop {
        let left = (count - chosen.len()) as u128;
        let total: u128 = disks.iter().map(weight).sum();
        if left == 0 {
            break;
        }
        // Taken for certain: at least as heavy as the distance between two points.
        match disks.iter().position(|disk| weight(disk) * left >= total) {
            Some(heavy) => chosen.push(disks.remove(heavy).disk),
            None => {
                let start = below(total, random());
                let mut passed = 0;
                let mut hits = 0;
                for disk in disks.iter() {
                    // The point of number `hits` lies at (start + hits * total) / left.
                    passed += weight(disk) * left;
                    if passed > start + hits * total && hits < left {
                        chosen.push(disk.disk);
                        hits += 1;
                    }
                }
                break;
            }
        }
    }
    assert_eq!(chosen.len(), count, "as many as asked for");
    shuffle(&mut chosen, &mut random);
    chosen
}

/// A disk without room for anything may still be all that there is.
fn weight(disk: &Candidate) -> u128 {
    u128::from(disk.free_bytes.max(1))
}

/// Which disk gets which shard is random too: parity is read less than data.
fn shuffle<T>(things: &mut [T], random: &mut impl FnMut() -> u64) {
    for last in (1..things.len()).rev() {
        let other = below(last as u128 + 1, random());
        things.swap(last, usize::try_from(other).expect("an index"));
    }
}

/// A number below `count`, which is below 2^80, from 64 random bits.
fn below(count: u128, random: u64) -> u128 {
    (count >> 16) * u128::from(random) / (1 << 48) + (((count & 0xffff) * u128::from(random)) >> 64)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// SplitMix64.
    fn stream(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
    }

    fn disks(free: &[u64]) -> Vec<Candidate> {
        (1..).zip(free).map(|(disk, &free_bytes)| Candidate { disk: DiskId(disk), free_bytes }).collect()
    }

    fn profile(data: u8, parity: u8) -> Profile {
        Profile { data, parity }
    }

    /// Writes blobs of one length until as many disks as one needs have no room; gives what is left on each disk.
    fn fill(free: &[u64], profile: Profile, length: u64, seed: u64) -> (u64, Vec<u64>) {
        let mut candidates = disks(free);
        let mut random = stream(seed);
        let bytes = geometry::shard_bytes(profile, length);
        for blobs in 0.. {
            let placement = place(&candidates, profile, length, &mut random).unwrap();
            assert_eq!(placement.profile.shards() as usize, placement.disks.len());
            let mut placed =
                placement.disks.into_iter().map(|disk| candidates.iter().position(|other| other.disk == disk));
            let placed: Vec<_> = placed.by_ref().map(Option::unwrap).collect();
            if placement.profile != profile || placed.iter().any(|&disk| candidates[disk].free_bytes < bytes) {
                return (blobs, candidates.iter().map(|disk| disk.free_bytes).collect());
            }
            placed.into_iter().for_each(|disk| candidates[disk].free_bytes -= bytes);
        }
        unreachable!("the disks end")
    }

    /// Goal: equal disks fill equally. Method: 30,000 blobs on six disks, at no moment more than a few percent apart.
    #[test]
    fn equal_disks_get_equal_shares() {
        let mut random = stream(1);
        let candidates = disks(&[1 << 40; 6]);
        let mut shards: BTreeMap<DiskId, u64> = BTreeMap::new();
        for _ in 0..30_000 {
            let placement = place(&candidates, profile(2, 2), 1 << 20, &mut random).unwrap();
            placement.disks.iter().for_each(|&disk| *shards.entry(disk).or_default() += 1);
        }
        assert!(shards.values().all(|&count| (19_600..=20_400).contains(&count)), "{shards:?}");
    }

    /// Goal: each shard number is on each disk equally often, because parity costs less to have. Method: count.
    #[test]
    fn no_disk_gets_only_parity() {
        let mut random = stream(2);
        let candidates = disks(&[1 << 40; 4]);
        let mut first: BTreeMap<DiskId, u64> = BTreeMap::new();
        for _ in 0..8_000 {
            let placement = place(&candidates, profile(2, 2), 1 << 20, &mut random).unwrap();
            *first.entry(placement.disks[0]).or_default() += 1;
        }
        assert!(first.values().all(|&count| (1_800..=2_200).contains(&count)), "{first:?}");
    }

    /// Goal: disks of unequal size are full at the same time, where none is so large that it must hold a shard of every
    /// blob and is not filled even so. Method: write until the first blob that gets less than it should.
    #[test]
    fn unequal_disks_fill_up_together() {
        let mib = 1 << 20;
        for (free, profile) in [
            (vec![8000, 4000, 4000, 2000, 6000], profile(2, 1)),
            (vec![2000, 2000, 2000, 2000, 2000, 2000, 1000, 1000], profile(4, 2)),
            (vec![200, 10_000, 10_000, 10_000], profile(1, 1)),
        ] {
            let free: Vec<u64> = free.into_iter().map(|mebibytes| mebibytes * mib).collect();
            let total: u64 = free.iter().sum();
            let (blobs, left) = fill(&free, profile, 4 * mib, 3);
            let wasted: u64 = left.iter().sum();
            assert!(wasted * 50 < total, "{free:?} with {profile}: {left:?} is left after {blobs} blobs");
        }
    }

    /// Goal: a disk that is much larger than the others does not make them fill earlier than they must.
    #[test]
    fn a_giant_holds_a_shard_of_every_blob() {
        let shard = geometry::shard_bytes(profile(1, 1), 1 << 20);
        let (blobs, left) = fill(&[1000 * shard, 1000 * shard, 1 << 50], profile(1, 1), 1 << 20, 4);
        assert_eq!(blobs, 2_000, "{left:?}");
    }

    #[test]
    fn a_blob_gets_what_the_disks_allow() {
        let (much, none) = (1 << 30, 0);
        let placed = |free: &[u64], asked: &str, length| {
            place(&disks(free), asked.parse().unwrap(), length, stream(5)).map(|placement| {
                let mut on: Vec<_> = placement.disks.iter().map(|disk| disk.0).collect();
                on.sort_unstable();
                (placement.profile.to_string(), on)
            })
        };
        let found = |profile: &str, on: &[u128]| Ok((profile.to_owned(), on.to_vec()));
        assert_eq!(placed(&[much; 4], "2+2", 1 << 20), found("2+2", &[1, 2, 3, 4]));
        assert_eq!(placed(&[much; 3], "2+2", 1 << 20), found("1+2", &[1, 2, 3]));
        assert_eq!(placed(&[much, none, much, none], "2+2", 1 << 20), found("1+1", &[1, 3]));
        assert_eq!(placed(&[much; 2], "4+2", 1), found("1+1", &[1, 2]));
        assert_eq!(placed(&[much], "2+2", 1), Err(TooFewDisks));
        assert_eq!(placed(&[], "1+0", 1), Err(TooFewDisks));
        assert_eq!(placed(&[none], "1+0", 1), found("1+0", &[1]), "it may have room in an open extent");
        assert_eq!(placed(&[none, none, much, none], "2+2", 1 << 20), found("2+2", &[1, 2, 3, 4]));
    }

    proptest! {
        /// Goal: shards are on different disks, and on those with room if that can be, whatever is free and whatever
        /// chance says.
        #[test]
        fn shards_are_on_different_disks_with_room(
            free in proptest::collection::vec(prop_oneof![Just(0), 1..1_000_000_u64, any::<u64>()], 1..24),
            data in 1..=16_u8,
            parity in 0..=4_u8,
            length in 1..10_000_000_u64,
            seed: u64,
        ) {
            let candidates = disks(&free);
            let wanted = profile(data, parity);
            let Ok(placement) = place(&candidates, wanted, length, stream(seed)) else {
                prop_assert!(free.len() < 2 && free.len() < wanted.shards().into());
                return Ok(());
            };
            let different: BTreeSet<_> = placement.disks.iter().collect();
            prop_assert_eq!(different.len(), usize::from(placement.profile.shards()));
            prop_assert_eq!(placement.disks.len(), different.len());
            let bytes = geometry::shard_bytes(placement.profile, length);
            let has_room = |disk: &DiskId| free[disk.0 as usize - 1] >= bytes;
            let room = candidates.iter().filter(|disk| has_room(&disk.disk)).count();
            if !placement.disks.iter().all(has_room) {
                let most = free.iter().filter(|&&free| free >= geometry::shard_bytes(profile(1, 4), length)).count();
                prop_assert!(most < 2 || parity == 0, "{most} disks have room for a copy");
            }
            let one = place_one(&candidates, &placement.disks, bytes, stream(seed));
            let taken = placement.disks.iter().filter(|disk| has_room(disk)).count();
            prop_assert_eq!(one.is_some(), room > taken);
            prop_assert!(one.is_none_or(|disk| !placement.disks.contains(&disk) && has_room(&disk)));
        }
    }
}
