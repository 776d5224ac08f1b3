//! What is written is read back, and nothing else is: round trips, flipped bits, arbitrary bytes.

use proptest::prelude::*;

use super::*;
use crate::geometry::{WINDOWS_MAX, cell_bytes, cell_bytes_full, frames};
use crate::ids::{BlobId, Incarnation, KeyId, NodeId, TenantId, UploadId};
use crate::limits::{KEY_BYTES_MAX, RECORD_PAYLOAD_BYTES_MAX, ROSTER_DISKS_MAX};
use crate::profile::Profile;
use crate::time::WallTime;

fn names() -> impl Strategy<Value = ExtentName> {
    (any::<u128>(), any::<u32>(), 1..=u64::MAX).prop_map(|(disk, extent, incarnation)| ExtentName {
        disk: DiskId(disk),
        extent,
        incarnation,
    })
}

fn headers() -> impl Strategy<Value = ExtentHeader> {
    let kinds = prop_oneof![Just(ExtentKind::Data), any::<u64>().prop_map(|sequence| ExtentKind::Log { sequence })];
    (names(), kinds, any::<u64>()).prop_map(|(name, kind, unix_ms)| ExtentHeader {
        name,
        kind,
        begun_at: WallTime { unix_ms },
    })
}

fn subjects() -> impl Strategy<Value = Subject> {
    prop_oneof![
        any::<(u64, u64)>().prop_map(|(number, sequence)| Subject::Log { number, sequence }),
        (any::<[u8; 16]>(), profiles(), any::<prop::sample::Index>(), 0..WINDOWS_MAX).prop_map(
            |(id, profile, shard, window)| {
                let shard = shard.index(profile.shards().into()) as u8;
                Subject::Blob { blob: BlobId::from_bytes(id), profile, shard, window }
            }
        ),
    ]
}

/// One copy, which is written as ever, as often as all others.
fn profiles() -> impl Strategy<Value = Profile> {
    prop_oneof![Just(Profile::SINGLE), (1..=16_u8, 0..=4_u8).prop_map(|(data, parity)| Profile { data, parity })]
}

fn origins() -> impl Strategy<Value = Option<Origin>> {
    let payload = prop_oneof![
        Just(OriginPayload::Unsaid),
        any::<u64>().prop_map(|length| OriginPayload::Object { length }),
        (any::<u64>(), any::<u128>(), any::<u16>()).prop_map(|(length, upload, number)| OriginPayload::Part {
            length,
            upload: UploadId(upload),
            number
        }),
    ];
    let origin = (any::<u64>(), "[a-z]{3,63}", "\\PC{1,40}", any::<u64>(), payload).prop_map(
        |(tenant, bucket, key, unix_ms, payload)| Origin {
            tenant: TenantId(tenant),
            bucket,
            key,
            at: WallTime { unix_ms },
            payload,
        },
    );
    proptest::option::of(origin)
}

fn wrapped_keys() -> impl Strategy<Value = WrappedKey> {
    let halves = (any::<[u8; 24]>(), any::<[u8; 24]>());
    (1..=u64::MAX, any::<u32>(), any::<[u8; 16]>(), any::<[u8; 12]>(), halves).prop_map(
        |(id, generation, secret_name, nonce, halves)| {
            let mut wrapped = [0; 48];
            wrapped[..24].copy_from_slice(&halves.0);
            wrapped[24..].copy_from_slice(&halves.1);
            WrappedKey { id: KeyId(id), generation, secret_name, nonce, wrapped }
        },
    )
}

fn key_rings() -> impl Strategy<Value = KeyRing> {
    proptest::collection::vec(wrapped_keys(), 0..=KEYS_MAX).prop_map(|keys| {
        let mut ring = KeyRing::default();
        keys.into_iter().for_each(|key| ring.insert(key).unwrap());
        ring
    })
}

/// Of a window whose cells are so long.
fn encryption(profile: Profile, cell_bytes: usize, salt: u8) -> Encryption {
    let tags = (0..frames(profile, cell_bytes)).map(|frame| [salt ^ frame as u8; TAG_BYTES]).collect();
    Encryption { key: KeyId(u64::from(salt) << 40 | 1), salt: [salt; SALT_BYTES], tags }
}

fn superblocks() -> impl Strategy<Value = Superblock> {
    let sizes = (EXTENT_BYTES_MIN / 4096..=EXTENT_BYTES_MAX / 4096).prop_map(|units| units * 4096);
    let time = || proptest::option::of((1..=u64::MAX).prop_map(|unix_ms| WallTime { unix_ms }));
    let scrub = (time(), time(), any::<u32>()).prop_map(|(pass_began, pass_ended, next_extent)| ScrubMark {
        pass_began,
        pass_ended,
        next_extent,
    });
    let fields = (any::<(u64, u64, u64, u64)>(), any::<(u128, u128, u128)>(), any::<(u32, bool, u64, u64)>());
    (fields, sizes, scrub, key_rings()).prop_map(
        |((features, ids, (extents_prepared, clean, unix_ms, start)), extent_bytes, scrub, keys)| Superblock {
            format_version: FORMAT_VERSION,
            features_compatible: features.0,
            features_read_only: features.1,
            features_incompatible: if keys.is_empty() { features.2 } else { features.2 | FEATURE_ENCRYPTED },
            generation: features.3,
            disk: DiskId(ids.0),
            cluster: ids.1,
            extent_bytes,
            extents_prepared,
            clean,
            formatted_at: WallTime { unix_ms },
            scrub,
            start,
            start_id: ids.2,
            keys,
        },
    )
}

/// Flips one bit of the covered bytes and demands that this is noticed.
fn assert_flips_are_seen<T: std::fmt::Debug>(
    bytes: &mut [u8],
    covered: usize,
    bit: prop::sample::Index,
    decode: fn(&[u8]) -> Result<T, Damage>,
) {
    let bit = bit.index(covered * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    decode(bytes).expect_err("a flipped bit was not seen");
}

proptest! {
    #[test]
    fn a_superblock_survives_and_every_flip_is_seen(superblock in superblocks(), bit: prop::sample::Index) {
        let mut unit = vec![0xaa; UNIT_BYTES];
        superblock.encode(&mut unit);
        prop_assert_eq!(Superblock::decode(&unit), Ok(superblock));
        prop_assert!(unit[512..].iter().all(|&byte| byte == 0), "it lies within a sector");
        assert_flips_are_seen(&mut unit, 512, bit, Superblock::decode);
    }

    #[test]
    fn an_extent_header_survives_and_every_flip_is_seen(header in headers(), bit: prop::sample::Index) {
        let mut unit = vec![0xaa; UNIT_BYTES];
        header.encode(&mut unit);
        prop_assert_eq!(ExtentHeader::decode(&unit), Ok(header));
        prop_assert!(unit[512..].iter().all(|&byte| byte == 0), "it lies within a sector");
        assert_flips_are_seen(&mut unit, 512, bit, ExtentHeader::decode);
    }

    #[test]
    fn a_record_header_survives_and_every_flip_is_seen(
        name in names(), place in 512..100_000_u32, subject in subjects(), origin in origins(),
        length in 1..200_000_usize, short in 0..16_usize, salt: u8, large: bool, encrypted: bool,
        bit: prop::sample::Index,
    ) {
        let profile = subject.profile();
        let length = length.min(cell_bytes_full(profile));
        // A window that ends within its last data cell, or before it.
        let window_bytes = (length * usize::from(profile.data)).saturating_sub(short.min(usize::from(profile.data) - 1)).max(1);
        prop_assert_eq!(cell_bytes(profile, window_bytes), length);
        let payload: Vec<u8> = (0..length).map(|at| (at % 251) as u8 ^ salt).collect();
        let encrypted = encrypted && subject.cell().is_some();
        let encryption = encrypted.then(|| encryption(profile, length, salt));
        let extras = Extras { origin: origin.as_ref(), encryption: encryption.as_ref() };
        let header_bytes = record_header_bytes(payload.len(), extras);
        let payload_offset = if large { LARGE_PAYLOAD_OFFSET } else { header_bytes as u32 };
        let header = RecordHeader::new(name, place * 8, subject, payload_offset, &payload).of_window(window_bytes);
        let mut bytes = vec![0xaa; payload_offset as usize];
        header.encode(extras, &mut bytes);
        let mut found = RecordHeader::decode(&bytes).unwrap();
        prop_assert_eq!(found.is_encrypted(), encrypted);
        prop_assert_eq!(found.encryption(&bytes), encryption);
        prop_assert_eq!(found.origin(&bytes), origin);
        prop_assert!(found.verifies_all(&payload));
        prop_assert!(found.record_bytes() >= payload_offset as usize + payload.len());
        prop_assert_eq!(
            (found.name, found.offset, found.subject, found.payload_offset, found.payload_bytes),
            (name, place * 8, subject, payload_offset, payload.len() as u32)
        );
        prop_assert_eq!(found.window_bytes as usize, window_bytes);
        if profile == Profile::SINGLE && !encrypted {
            prop_assert_eq!(&bytes[70..80], &[0; 10], "as before there were shards");
        }
        let mut damaged = payload.clone();
        let at = bit.index(payload.len());
        damaged[at] ^= 1;
        prop_assert!(!found.verifies_all(&damaged));
        prop_assert!(!found.verifies_all(&payload[1..]));
        found.name.incarnation ^= 1;
        prop_assert_ne!(found.name, name);
        assert_flips_are_seen(&mut bytes, header_bytes, bit, RecordHeader::decode);
    }

    #[test]
    fn a_footer_survives(
        header in headers(),
        fields in proptest::collection::vec((subjects(), 4096..u32::MAX, 1..=4096_u32, 1..=1_u32 << 20, any::<bool>()), 0..300),
        tail in (0_u32..1 << 18).prop_map(|units| units * UNIT_BYTES as u32),
    ) {
        let entries: Vec<_> = fields
            .into_iter()
            .map(|(subject, offset, payload_offset, payload_bytes, damaged)| {
                FooterEntry { subject, offset, payload_offset, payload_bytes, damaged }
            })
            .collect();
        let bytes = encode_footer(&header, &entries, tail);
        prop_assert_eq!(bytes.len(), footer_bytes(entries.len()));
        let trailer = FooterTrailer::decode(&bytes[bytes.len() - UNIT_BYTES..]).unwrap();
        prop_assert_eq!(trailer.header, header);
        prop_assert_eq!((trailer.entry_count as usize, trailer.tail), (entries.len(), tail));
        prop_assert_eq!(trailer.entries_checksum, checksum(&bytes[..trailer.covered_bytes()]));
        let found: Result<Vec<_>, _> =
            bytes.chunks(FOOTER_ENTRY_BYTES).take(entries.len()).map(FooterEntry::decode).collect();
        prop_assert_eq!(found, Ok(entries));
    }

    #[test]
    fn decoding_takes_any_bytes(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..5000), magic in 0..5_usize,
    ) {
        let magics: [&[u8]; 5] = [b"", b"AnvilDsk", b"AnvilExt", b"AnvR", b"AnvilFtr"];
        let length = magics[magic].len().min(bytes.len());
        bytes[..length].copy_from_slice(&magics[magic][..length]);
        prop_assert!(Superblock::decode(&bytes).is_err());
        prop_assert!(ExtentHeader::decode(&bytes).is_err());
        prop_assert!(RecordHeader::decode(&bytes).is_err());
        prop_assert!(FooterTrailer::decode(&bytes).is_err());
        let _ = FooterEntry::decode(&bytes);
    }

    /// As above with a right checksum, which an attacker can compute too.
    #[test]
    fn decoding_takes_any_fields(fields in proptest::collection::vec(any::<u8>(), 512), length in 88..500_u16) {
        let mut record = fields.clone();
        record[..4].copy_from_slice(b"AnvR");
        record[6..8].copy_from_slice(&length.to_le_bytes());
        record[80..88].fill(0);
        let sum = checksum(&record[..usize::from(length)]);
        record[80..88].copy_from_slice(&sum.to_le_bytes());
        if let Ok(header) = RecordHeader::decode(&record) {
            prop_assert!(header.record_bytes() <= UNIT_BYTES + RECORD_PAYLOAD_BYTES_MAX);
            let _ = (header.origin(&record), header.encryption(&record));
        }
        for (magic, covered) in [(b"AnvilDsk", 504), (b"AnvilExt", 504), (b"AnvilFtr", 120)] {
            let mut bytes = fields.clone();
            let at = if magic == b"AnvilFtr" { bytes.len() - 128 } else { 0 };
            bytes[at..at + 8].copy_from_slice(magic);
            let sum = checksum(&bytes[at..at + covered]);
            bytes[at + covered..at + covered + 8].copy_from_slice(&sum.to_le_bytes());
            let _ = (Superblock::decode(&bytes), ExtentHeader::decode(&bytes));
            if let Ok(trailer) = FooterTrailer::decode(&bytes) {
                let _ = trailer.covered_bytes();
            }
        }
    }
}

#[test]
fn the_largest_header_fits_its_room() {
    let origin = Origin {
        tenant: TenantId(u64::MAX),
        bucket: "b".repeat(255),
        key: "k".repeat(KEY_BYTES_MAX),
        at: WallTime { unix_ms: u64::MAX },
        payload: OriginPayload::Part { length: u64::MAX, upload: UploadId(u128::MAX), number: u16::MAX },
    };
    let name = ExtentName { disk: DiskId(1), extent: 2, incarnation: 3 };
    let blob = BlobId { node: NodeId(1), incarnation: Incarnation(2), sequence: 3 };
    let payload = vec![7; RECORD_PAYLOAD_BYTES_MAX];
    let header = RecordHeader::new(
        name,
        4096,
        Subject::Blob { blob, profile: Profile::SINGLE, shard: 0, window: 0 },
        LARGE_PAYLOAD_OFFSET,
        &payload,
    );
    let mut bytes = vec![0; UNIT_BYTES];
    let encryption = encryption(Profile::SINGLE, payload.len(), 5);
    header.encode(Extras { origin: Some(&origin), encryption: Some(&encryption) }, &mut bytes);
    let found = RecordHeader::decode(&bytes).unwrap();
    assert_eq!((found.origin(&bytes), found.encryption(&bytes)), (Some(origin), Some(encryption)));
    assert_eq!(found.record_bytes(), UNIT_BYTES + RECORD_PAYLOAD_BYTES_MAX);
}

fn rosters() -> impl Strategy<Value = Roster> {
    let disks = || proptest::collection::vec(any::<u128>().prop_map(DiskId), 0..=ROSTER_DISKS_MAX);
    (1..=u64::MAX, disks(), disks()).prop_map(|(generation, disks, lost)| Roster { generation, disks, lost })
}

proptest! {
    #[test]
    fn a_roster_survives_beside_its_superblock_and_every_flip_is_seen(
        superblock in superblocks(),
        roster in rosters(),
        bit: prop::sample::Index,
    ) {
        let mut unit = vec![0xaa; UNIT_BYTES];
        superblock.encode(&mut unit);
        prop_assert_eq!(Roster::decode(&unit), Ok(Roster::default()), "an older program leaves none");
        roster.encode(&mut unit);
        prop_assert_eq!(Superblock::decode(&unit), Ok(superblock));
        prop_assert_eq!(Roster::decode(&unit), Ok(roster));
        let bit = 512 * 8 + bit.index((UNIT_BYTES - 512) * 8);
        unit[bit / 8] ^= 1 << (bit % 8);
        Roster::decode(&unit).expect_err("a flipped bit was not seen");
        prop_assert_eq!(Superblock::decode(&unit), Ok(superblock));
    }

    #[test]
    fn a_roster_of_any_bytes_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64), magic: bool) {
        let mut unit = vec![0; UNIT_BYTES];
        let at = if magic { 520 } else { 512 };
        unit[at..at + bytes.len()].copy_from_slice(&bytes);
        if magic {
            unit[512..520].copy_from_slice(b"AnvilRos");
        }
        let sum = checksum(&unit[512..UNIT_BYTES - 8]);
        unit[UNIT_BYTES - 8..].copy_from_slice(&sum.to_le_bytes());
        if let Ok(roster) = Roster::decode(&unit) {
            prop_assert!(roster.disks.len().max(roster.lost.len()) <= ROSTER_DISKS_MAX);
        }
    }
}

#[test]
fn a_newer_superblock_is_read_so_that_it_can_be_refused() {
    let newer = Superblock {
        format_version: FORMAT_VERSION + 1,
        features_compatible: 0,
        features_read_only: 0,
        features_incompatible: 0,
        generation: 1,
        disk: DiskId(1),
        cluster: 2,
        extent_bytes: 5,
        extents_prepared: 0,
        clean: false,
        formatted_at: WallTime { unix_ms: 0 },
        scrub: ScrubMark::default(),
        start: 0,
        start_id: 0,
        keys: KeyRing::default(),
    };
    let mut unit = vec![0; UNIT_BYTES];
    newer.encode(&mut unit);
    assert_eq!(Superblock::decode(&unit), Ok(newer));
}

/// These are the bytes of version 1: a change of any of them is a new version.
#[test]
fn version_1_has_these_bytes() {
    let name = ExtentName { disk: DiskId(0x0102), extent: 3, incarnation: 4 };
    let header = ExtentHeader { name, kind: ExtentKind::Log { sequence: 5 }, begun_at: WallTime { unix_ms: 6 } };
    let mut unit = vec![0; UNIT_BYTES];
    let mut sums = Vec::new();
    header.encode(&mut unit);
    // Without the checksum at its end, behind which the checksum of anything is the same.
    sums.push(checksum(&unit[..504]));
    let blob = BlobId { node: NodeId(1), incarnation: Incarnation(2), sequence: 3 };
    let origin = Origin {
        tenant: TenantId(7),
        bucket: "bucket".into(),
        key: "key".into(),
        at: WallTime { unix_ms: 8 },
        payload: OriginPayload::Unsaid,
    };
    let subject = Subject::Blob { blob, profile: Profile::SINGLE, shard: 0, window: 9 };
    let record = RecordHeader::new(name, 4096, subject, LARGE_PAYLOAD_OFFSET, b"payload");
    record.encode(Extras { origin: Some(&origin), encryption: None }, &mut unit);
    sums.push(checksum(&unit));
    let batch = Subject::Log { number: 10, sequence: 5 };
    RecordHeader::new(name, 8192, batch, LARGE_PAYLOAD_OFFSET, b"batch").encode(Extras::default(), &mut unit);
    sums.push(checksum(&unit));
    sums.push(checksum(&encode_footer(&header, &[FooterEntry::of(&record)], 0)));
    let superblock = Superblock {
        format_version: 1,
        features_compatible: 2,
        features_read_only: 3,
        features_incompatible: 4,
        generation: 5,
        disk: DiskId(6),
        cluster: 7,
        extent_bytes: 64 << 20,
        extents_prepared: 9,
        clean: true,
        formatted_at: WallTime { unix_ms: 10 },
        scrub: ScrubMark::default(),
        start: 0,
        start_id: 0,
        keys: KeyRing::default(),
    };
    superblock.encode(&mut unit);
    sums.push(checksum(&unit[..504]));
    assert_eq!(
        sums,
        [
            12_819_920_414_424_961_127,
            15_287_017_384_749_673_124,
            14_032_920_628_051_484_622,
            3_500_676_326_431_187_110,
            16_035_422_562_162_795_300
        ]
    );
}

/// These are the bytes of a cell: a change of any of them is a new version.
#[test]
fn cells_have_these_bytes() {
    let name = ExtentName { disk: DiskId(0x0102), extent: 3, incarnation: 4 };
    let blob = BlobId { node: NodeId(1), incarnation: Incarnation(2), sequence: 3 };
    let subject = Subject::Blob { blob, profile: Profile { data: 4, parity: 2 }, shard: 5, window: 9 };
    let record = RecordHeader::new(name, 4096, subject, LARGE_PAYLOAD_OFFSET, b"payload").of_window(26);
    let mut unit = vec![0; UNIT_BYTES];
    record.encode(Extras::default(), &mut unit);
    assert_eq!(unit[56..60], 9_u32.to_le_bytes());
    assert_eq!(unit[70..80], [4, 2, 5, 0, 26, 0, 0, 0, 0, 0]);
    let header = ExtentHeader { name, kind: ExtentKind::Data, begun_at: WallTime { unix_ms: 6 } };
    let footer = encode_footer(&header, &[FooterEntry::of(&record)], 0);
    // 9 of the window, then 5 bits of the shard, 4 of k-1, 3 of m.
    assert_eq!(footer[16..20], (9_u32 | 5 << 20 | 3 << 25 | 2 << 29).to_le_bytes());
}

/// These are the bytes of an encrypted cell, and of a key in a superblock: a change of any of them is a new version.
#[test]
fn what_is_encrypted_has_these_bytes() {
    let name = ExtentName { disk: DiskId(0x0102), extent: 3, incarnation: 4 };
    let blob = BlobId { node: NodeId(1), incarnation: Incarnation(2), sequence: 3 };
    let profile = Profile { data: 2, parity: 2 };
    let subject = Subject::Blob { blob, profile, shard: 3, window: 9 };
    let record = RecordHeader::new(name, 4096, subject, LARGE_PAYLOAD_OFFSET, b"payload").of_window(14);
    let encryption = Encryption { key: KeyId(0x0506), salt: [7; 16], tags: vec![[8; 16], [9; 16]] };
    let mut unit = vec![0; UNIT_BYTES];
    record.encode(Extras { origin: None, encryption: Some(&encryption) }, &mut unit);
    assert_eq!(unit[78..80], 56_u16.to_le_bytes());
    assert_eq!(unit[96..104], 0x0506_u64.to_le_bytes());
    assert_eq!((&unit[104..120], &unit[120..136], &unit[136..152]), (&[7; 16][..], &[8; 16][..], &[9; 16][..]));
    assert_eq!(unit[6..8], 152_u16.to_le_bytes());

    let mut keys = KeyRing::default();
    let key = WrappedKey {
        id: KeyId(0x0a0b),
        generation: 2,
        secret_name: *b"of 2026\0\0\0\0\0\0\0\0\0",
        nonce: [3; 12],
        wrapped: [4; 48],
    };
    keys.insert(key).unwrap();
    let mut unit = vec![0; UNIT_BYTES];
    let superblock = Superblock {
        format_version: 1,
        features_compatible: 0,
        features_read_only: 0,
        features_incompatible: FEATURE_ENCRYPTED,
        generation: 5,
        disk: DiskId(6),
        cluster: 7,
        extent_bytes: 64 << 20,
        extents_prepared: 9,
        clean: true,
        formatted_at: WallTime { unix_ms: 10 },
        scrub: ScrubMark::default(),
        start: 0,
        start_id: 0,
        keys,
    };
    superblock.encode(&mut unit);
    assert_eq!(unit[216..224], 0x0a0b_u64.to_le_bytes());
    assert_eq!(unit[224..232], [2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((&unit[232..239], &unit[248..260], &unit[260..308]), (&b"of 2026"[..], &[3; 12][..], &[4; 48][..]));
    assert!(unit[308..504].iter().all(|&byte| byte == 0));
}

/// A key that was wrapped again replaces what it was, and never the other way round; a ring has an end.
#[test]
fn a_ring_keeps_the_latest_wrapping_of_each_key() {
    let key = |id, generation| WrappedKey {
        id: KeyId(id),
        generation,
        secret_name: [0; 16],
        nonce: [0; 12],
        wrapped: [generation as u8; 48],
    };
    let mut ring = KeyRing::default();
    assert!(ring.is_empty());
    for (id, generation) in [(9, 1), (4, 1), (9, 3), (9, 2), (4, 1)] {
        ring.insert(key(id, generation)).unwrap();
    }
    assert_eq!(ring.keys().copied().collect::<Vec<_>>(), [key(4, 1), key(9, 3)]);
    ring.insert(key(5, 1)).unwrap();
    assert_eq!(ring.insert(key(6, 1)), Err(TooManyKeys));
    let mut same = KeyRing::default();
    [key(5, 1), key(9, 3), key(4, 1)].into_iter().for_each(|key| same.insert(key).unwrap());
    assert_eq!(same, ring, "the order in which disks are read does not count");
}

/// No cell is longer or shorter than its window has it, and no shard is beyond its profile.
#[test]
fn an_impossible_cell_is_refused() {
    let name = ExtentName { disk: DiskId(1), extent: 3, incarnation: 4 };
    let blob = BlobId { node: NodeId(1), incarnation: Incarnation(2), sequence: 3 };
    let subject = Subject::Blob { blob, profile: Profile { data: 4, parity: 2 }, shard: 5, window: 9 };
    let mut whole = vec![0; UNIT_BYTES];
    RecordHeader::new(name, 4096, subject, LARGE_PAYLOAD_OFFSET, b"payload").encode(Extras::default(), &mut whole);
    let header_bytes = record_header_bytes(7, Extras::default());
    for (at, value) in [(70, 0), (70, 17), (71, 5), (72, 6), (74, 24), (74, 29), (58, 0x10), (78, 8)] {
        let mut bytes = whole.clone();
        bytes[at] = value;
        bytes[80..88].fill(0);
        let sum = checksum(&bytes[..header_bytes]);
        bytes[80..88].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(RecordHeader::decode(&bytes), Err(Damage::Impossible), "{value} at {at}");
    }
    assert!(RecordHeader::decode(&whole).is_ok());
}
