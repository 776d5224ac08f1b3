//! Where the bytes of a blob lie in its shards. Decided by profile and length alone; `docs/adr/0005-shards.md` says why so.
//!
//! A blob of profile k+m is cut into **windows**. Data cell *i* of a window of length L is its bytes from `i * c` on,
//! where c is [`cell_bytes`] of L, with zeros up to c; the m parity cells are c bytes too. Shard *s* is the *s*-th cell
//! of all windows.

use std::ops::Range;

use crate::limits::{
    BUFFER_ALIGNMENT, CHECKSUM_BLOCK_BYTES, PART_BYTES_MAX, RECORD_PAYLOAD_BYTES_MAX, SMALL_BLOB_BYTES_MAX,
};
use crate::profile::Profile;

/// Cells begin and end on these in a full window, so that their columns tile whatever a kernel or a disk works in.
const CELL_GRAIN_BYTES: usize = 16 << 10;
/// What one write to a disk is rounded up to.
const UNIT_BYTES: usize = BUFFER_ALIGNMENT;
/// Windows of a blob, at most: their numbers fit in [`WINDOW_BITS`] bits.
pub const WINDOWS_MAX: u32 = 1 << WINDOW_BITS;
/// See [`WINDOWS_MAX`].
pub const WINDOW_BITS: u32 = 20;

/// Bytes of a cell in every window but a blob's last: the largest multiple of 16 KiB of which k+m fit into a record's
/// payload.
///
/// # Panics
/// When the profile is not valid, here and in all functions of this module.
#[must_use]
pub const fn cell_bytes_full(profile: Profile) -> usize {
    assert!(profile.is_valid(), "a profile is from 1+0 to 16+4");
    RECORD_PAYLOAD_BYTES_MAX / profile.shards() as usize / CELL_GRAIN_BYTES * CELL_GRAIN_BYTES
}

/// Bytes of the blob in every window but the last.
#[must_use]
pub const fn window_bytes(profile: Profile) -> usize {
    cell_bytes_full(profile) * profile.data as usize
}

/// Windows of a blob of so many bytes; none for an empty one.
///
/// # Panics
/// When a blob cannot be so long.
#[must_use]
pub fn window_count(profile: Profile, length: u64) -> u32 {
    let count = length.div_ceil(window_bytes(profile) as u64);
    u32::try_from(count).ok().filter(|&count| count <= WINDOWS_MAX).expect("a blob is at most as long as a part")
}

/// Where a window begins in its blob.
#[must_use]
pub const fn window_start(profile: Profile, window: u32) -> u64 {
    window as u64 * window_bytes(profile) as u64
}

/// The window that holds a byte of a blob.
#[must_use]
pub fn window_at(profile: Profile, offset: u64) -> u32 {
    u32::try_from(offset / window_bytes(profile) as u64).expect("a blob is at most as long as a part")
}

/// Bytes of the blob in a window of it.
///
/// # Panics
/// When the blob does not have the window.
#[must_use]
pub fn window_length(profile: Profile, blob_length: u64, window: u32) -> usize {
    assert!(window < window_count(profile, blob_length), "a blob of {blob_length} bytes has no window {window}");
    let rest = blob_length - window_start(profile, window);
    usize::try_from(rest).unwrap_or(usize::MAX).min(window_bytes(profile))
}

/// Bytes of every cell of a window of `window_length` bytes, data and parity.
///
/// # Panics
/// When no window is so long.
#[must_use]
pub const fn cell_bytes(profile: Profile, window_length: usize) -> usize {
    assert!(window_length >= 1 && window_length <= window_bytes(profile), "a window has 1 byte to window_bytes");
    window_length.div_ceil(profile.data as usize)
}

/// The bytes of the window that data cell `cell` holds; those behind them in the cell are zeros. Empty for the last cells
/// of a window that is shorter than it has cells.
///
/// # Panics
/// When it is no data cell.
#[must_use]
pub fn cell_range(profile: Profile, window_length: usize, cell: u8) -> Range<usize> {
    assert!(cell < profile.data, "cell {cell} of {profile} holds no data");
    let bytes = cell_bytes(profile, window_length);
    let at = |cell: usize| (cell * bytes).min(window_length);
    at(cell.into())..at(usize::from(cell) + 1)
}

/// Frames of a data cell: the checksum blocks of it, each of which is encrypted by itself.
#[must_use]
pub const fn frames_per_cell(cell_bytes: usize) -> usize {
    cell_bytes.div_ceil(CHECKSUM_BLOCK_BYTES)
}

/// Frames of a window whose cells are so long: those of its k data cells.
#[must_use]
pub const fn frames(profile: Profile, cell_bytes: usize) -> usize {
    profile.data as usize * frames_per_cell(cell_bytes)
}

/// Frames of a window, at most, whatever the profile.
pub const FRAMES_MAX: usize = {
    let mut most = 0;
    let mut data = 1;
    while data <= Profile::DATA_SHARDS_MAX {
        let mut parity = 0;
        while parity <= Profile::PARITY_SHARDS_MAX {
            let profile = Profile { data, parity };
            let frames = frames(profile, cell_bytes_full(profile));
            if frames > most {
                most = frames;
            }
            parity += 1;
        }
        data += 1;
    }
    most
};

/// A run of a blob's bytes that lies in one data cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Of the blob.
    pub window: u32,
    /// Of the window: 0 to k-1.
    pub cell: u8,
    /// Bytes of the cell, not empty.
    pub columns: Range<usize>,
}

/// Where the bytes of `range` of a blob lie, in order.
///
/// # Panics
/// When the range is not within the blob.
pub fn parts(profile: Profile, blob_length: u64, range: Range<u64>) -> impl Iterator<Item = Part> {
    assert!(range.end <= blob_length, "bytes {range:?} of a blob of {blob_length}");
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let window = window_at(profile, at);
        let length = window_length(profile, blob_length, window);
        let bytes = cell_bytes(profile, length);
        let begin = usize::try_from(at - window_start(profile, window)).expect("within a window");
        let cell = u8::try_from(begin / bytes).expect("a window has at most 16 data cells");
        let held = cell_range(profile, length, cell);
        let wanted = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(held.end - begin);
        at += wanted as u64;
        let column = begin - held.start;
        Some(Part { window, cell, columns: column..column + wanted })
    })
}

/// The profile that a blob of so many bytes is stored with where `profile` is asked for: small ones as 1+m, which is m+1
/// copies, when those take no more units on disk than k+m cells, each with a header, would.
#[must_use]
pub fn stored_as(profile: Profile, length: u64) -> Profile {
    let copies = Profile { data: 1, parity: profile.parity };
    let Some(length) = usize::try_from(length).ok().filter(|&length| (1..=window_bytes(copies)).contains(&length))
    else {
        return profile;
    };
    if profile.data == 1 || length > window_bytes(profile) {
        return profile;
    }
    let units =
        |profile: Profile| usize::from(profile.shards()) * (1 + cell_bytes(profile, length).div_ceil(UNIT_BYTES));
    if units(copies) <= units(profile) { copies } else { profile }
}

/// What each shard of a blob takes on its disk, about: its cells, each with a header and in whole units.
///
/// # Panics
/// When the blob is empty.
#[must_use]
pub fn shard_bytes(profile: Profile, length: u64) -> u64 {
    let last = window_count(profile, length).checked_sub(1).expect("an empty blob has no shards");
    let record = |cell: usize| (UNIT_BYTES + cell.next_multiple_of(UNIT_BYTES)) as u64;
    let last_bytes = record(cell_bytes(profile, window_length(profile, length, last)));
    u64::from(last) * record(cell_bytes_full(profile)) + last_bytes
}

/// True when the cells of such a blob are packed with others rather than written by themselves: it is stored as copies
/// (or as 1+0) and small.
#[must_use]
pub const fn is_packed(stored_as: Profile, length: u64) -> bool {
    stored_as.data == 1 && length <= SMALL_BLOB_BYTES_MAX as u64
}

/// The profile of a node that was not told one, by the number of its disks.
///
/// # Panics
/// When there is no disk.
#[must_use]
pub const fn default_profile(disks: usize) -> Profile {
    let (data, parity) = match disks {
        0 => panic!("a node has disks"),
        1 => (1, 0),
        2 => (1, 1),
        3 => (2, 1),
        4 | 5 => (2, 2),
        _ => (4, 2),
    };
    Profile { data, parity }
}

/// The profile of a new blob of `profile` where so many disks take writes: the same, or the widest narrower one that
/// survives one more failure, with parity as near to what was asked for as can be. `None` when the write is refused.
#[must_use]
pub fn narrowed(profile: Profile, disks: usize) -> Option<Profile> {
    if usize::from(profile.shards()) <= disks {
        return Some(profile);
    }
    // Fewer than 20: there are less than the shards.
    let disks = u8::try_from(disks).expect("fewer than the shards of a profile");
    if disks < 2 {
        return None;
    }
    let parity = profile.parity.clamp(1, disks - 1);
    Some(Profile { data: profile.data.min(disks - parity), parity })
}

const _: () = assert!(
    PART_BYTES_MAX / window_bytes(Profile { data: 1, parity: Profile::PARITY_SHARDS_MAX }) as u64 <= WINDOWS_MAX as u64,
    "the longest blob with the shortest windows has few enough of them"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::{BUFFER_BYTES, RECORD_HEADER_BYTES_MAX};

    fn all_profiles() -> impl Iterator<Item = Profile> {
        (1..=16).flat_map(|data| (0..=4).map(move |parity| Profile { data, parity }))
    }

    fn any_profile() -> impl Strategy<Value = Profile> {
        (1..=16_u8, 0..=4_u8).prop_map(|(data, parity)| Profile { data, parity })
    }

    /// The table of the decision record, which is part of the format.
    #[test]
    fn cells_are_as_documented() {
        let kib = |text: &str| cell_bytes_full(text.parse().unwrap()) >> 10;
        let named = ["1+0", "1+1", "1+2", "2+1", "2+2", "4+2", "6+3", "8+3", "8+4", "12+4", "16+4"];
        assert_eq!(named.map(kib), [1024, 512, 336, 336, 256, 160, 112, 80, 80, 64, 48]);
        assert_eq!(window_bytes("4+2".parse().unwrap()), 640 << 10);
    }

    /// A pool buffer holds every stripe with the headers of all its records, on units.
    #[test]
    fn a_stripe_fits_into_a_buffer() {
        for profile in all_profiles() {
            let cell = cell_bytes_full(profile);
            assert!(cell >= CELL_GRAIN_BYTES && cell.is_multiple_of(UNIT_BYTES), "{profile}");
            let slice = RECORD_HEADER_BYTES_MAX + cell;
            assert!(usize::from(profile.shards()) * slice <= BUFFER_BYTES, "{profile}");
        }
    }

    #[test]
    fn small_blobs_are_copies() {
        for (asked, longest) in [("2+2", 12 << 10), ("4+2", 12 << 10), ("8+4", 12 << 10), ("16+4", 28 << 10)] {
            let profile: Profile = asked.parse().unwrap();
            let copies = Profile { data: 1, parity: profile.parity };
            assert_eq!(stored_as(profile, 1), copies);
            assert_eq!(stored_as(profile, longest), copies, "{asked}");
            assert_eq!(stored_as(profile, longest + 1), profile, "{asked}");
            assert_eq!(stored_as(profile, 5 << 30), profile);
        }
        let copies: Profile = "1+2".parse().unwrap();
        assert_eq!(stored_as(copies, 5 << 30), copies);
        assert_eq!(stored_as(Profile::SINGLE, 1 << 30), Profile::SINGLE);
        assert!(is_packed(copies, 65_536) && !is_packed(copies, 65_537));
        assert!(!is_packed("2+2".parse().unwrap(), 20_000));
    }

    /// Copies are never dearer than cells, and one window.
    #[test]
    fn copies_are_chosen_only_where_they_are_cheap() {
        let units = |profile: Profile, length: usize| {
            usize::from(profile.shards()) * (1 + length.div_ceil(profile.data.into()).div_ceil(4096))
        };
        for profile in all_profiles() {
            for length in (1..=2 << 20).step_by(1021) {
                let stored = stored_as(profile, length as u64);
                if stored != profile {
                    assert_eq!((stored.data, stored.parity), (1, profile.parity));
                    assert!(units(stored, length) <= units(profile, length));
                    assert_eq!(window_count(stored, length as u64), 1);
                }
            }
        }
    }

    #[test]
    fn a_node_has_a_profile_for_its_disks() {
        let named = [(1, "1+0"), (2, "1+1"), (3, "2+1"), (4, "2+2"), (5, "2+2"), (6, "4+2"), (40, "4+2")];
        for (disks, profile) in named {
            assert_eq!(default_profile(disks).to_string(), profile);
        }
    }

    #[test]
    fn a_profile_is_narrowed_to_the_disks_there_are() {
        let narrow = |text: &str, disks| narrowed(text.parse().unwrap(), disks).map(|profile| profile.to_string());
        let cases = [
            ("4+2", 7, "4+2"),
            ("4+2", 6, "4+2"),
            ("4+2", 5, "3+2"),
            ("4+2", 4, "2+2"),
            ("4+2", 3, "1+2"),
            ("4+2", 2, "1+1"),
            ("2+2", 3, "1+2"),
            ("16+4", 19, "15+4"),
            ("16+4", 4, "1+3"),
            ("1+0", 1, "1+0"),
            ("2+1", 2, "1+1"),
        ];
        for (profile, disks, expected) in cases {
            assert_eq!(narrow(profile, disks).as_deref(), Some(expected), "{profile} on {disks}");
        }
        assert_eq!((narrow("4+2", 1), narrow("1+1", 1), narrow("1+0", 0)), (None, None, None));
        for profile in all_profiles() {
            for disks in 2..20 {
                let narrow = narrowed(profile, disks).unwrap();
                assert!(narrow.is_valid() && usize::from(narrow.shards()) <= disks.max(profile.shards().into()));
                assert!(narrow == profile || (narrow.parity >= 1 && narrow.data <= profile.data));
            }
        }
    }

    proptest! {
        /// Windows tile the blob, cells tile the window.
        #[test]
        fn windows_and_cells_tile_a_blob(profile in any_profile(), length in 1..20_000_000_u64) {
            let count = window_count(profile, length);
            let windows: u64 = (0..count).map(|window| window_length(profile, length, window) as u64).sum();
            prop_assert_eq!(windows, length);
            let last = window_length(profile, length, count - 1);
            let mut at = 0;
            for cell in 0..profile.data {
                let held = cell_range(profile, last, cell);
                prop_assert_eq!(held.start, at);
                prop_assert!(held.len() <= cell_bytes(profile, last));
                at = held.end;
            }
            prop_assert_eq!(at, last);
        }

        /// The parts of a range are its bytes in order, each in the cell that holds it: compared byte by byte at their ends.
        #[test]
        fn parts_are_the_bytes_of_a_range(
            profile in any_profile(),
            length in 1..5_000_000_u64,
            from in 0.0..1.0,
            to in 0.0..=1.0,
        ) {
            let start = (length as f64 * from) as u64;
            let end = start + ((length - start) as f64 * to) as u64;
            let mut at = start;
            for part in parts(profile, length, start..end) {
                prop_assert!(!part.columns.is_empty());
                let window = window_length(profile, length, part.window);
                prop_assert!(part.columns.end <= cell_bytes(profile, window));
                let byte_of = |column: usize| {
                    window_start(profile, part.window) + (usize::from(part.cell) * cell_bytes(profile, window) + column) as u64
                };
                prop_assert_eq!(byte_of(part.columns.start), at);
                at = byte_of(part.columns.end - 1) + 1;
            }
            prop_assert_eq!(at, end);
        }
    }
}
