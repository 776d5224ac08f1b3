use anvil_model::ids::{BlobId, BucketId, DiskId, Incarnation, NodeId, TenantId, UploadId, WriteId};
use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, ChecksumType, Etag, Headers, Key, WriteConditions};
use anvil_model::profile::Profile;

use super::*;
use crate::metadata::mutation::{BlobClaim, BlobSpread, BucketRef, Change, CopySource, NewCopy, NewObject, NewPart};
use crate::metadata::mutation::{Completed, LostShard, Outcome, Written};
use crate::metadata::rows::{
    BlobRow, BlobState, BucketRow, BucketState, CompletedUpload, Content, GarbageRow, LockDefault, Ownership, PartRow,
    PublicAccessBlock, Retention, RetentionMode, SegmentPart, SegmentRow, Slice, StorageClass, UploadRow, VersionRow,
    Versioning, WriteRow, WriterRow,
};
use crate::metadata::taken::TakenRow;
use crate::metadata::usage::{Quota, Usage, UsageOf};
use crate::multipart::PartName;

/// One of each kind of field: what is frozen here is how it lies on disk.
fn sample() -> Batch {
    let bucket = BucketRef { id: BucketId(2), tenant: TenantId(1), generation: Generation(2) };
    let blob = BlobId { node: NodeId(1), incarnation: Incarnation(3), sequence: 300 };
    let object = NewObject {
        etag: Etag("d41d8cd98f00b204e9800998ecf8427e".to_owned()),
        size: 5,
        checksum: Checksum {
            algorithm: ChecksumAlgorithm::Crc64Nvme,
            of: ChecksumType::FullObject,
            value: vec![1, 2, 3, 4, 5, 6, 7, 8],
        },
        crc64nvme: 0x0102_0304_0506_0708,
        headers: Headers { content_type: Some("text/plain".to_owned()), ..Headers::default() },
        tags: vec![],
        storage_class: StorageClass::Standard,
        blob: Some(BlobClaim { blob, profile: Profile::SINGLE, length: 5, places: vec![DiskId(7)] }),
    };
    let key = Key::new(b"k".to_vec()).unwrap();
    let put = Change::PutObject {
        bucket,
        key: key.clone(),
        object: Box::new(object),
        conditions: WriteConditions { absent: true, ..WriteConditions::default() },
    };
    let complete = Change::CompleteUpload {
        bucket,
        key,
        upload: UploadId(9),
        parts: vec![PartName { number: 1, etag: Etag("x".to_owned()), checksum: None }],
        checksum: None,
        conditions: WriteConditions::default(),
    };
    Batch {
        header: Header {
            lineage: 0xaa,
            number: 4,
            durable_through: 2,
            at: WallTime { unix_ms: 1_700_000_000_000 },
            first: Generation(17),
        },
        mutations: vec![Mutation { write: WriteId(1), change: put }, Mutation { write: WriteId(2), change: complete }],
    }
}

fn encoded(batch: &Batch) -> Vec<u8> {
    let mutations: Vec<_> = batch.mutations.iter().map(encode_mutation).collect();
    encode(&batch.header, mutations.iter().map(Vec::as_slice))
}

/// Goal: what version 1 wrote is read for ever. Method: bytes kept from the day it was written.
#[test]
fn version_1_is_frozen() {
    let frozen: Vec<u8> =
        include_str!("v1.hex").split_ascii_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    assert_eq!(decode(&frozen), Ok(sample()));
    assert_eq!(encoded(&sample()), frozen, "the same bytes are still written");
}

/// Goal: copies are read for ever. Method: bytes kept from the day they were written.
#[test]
fn copies_are_frozen() {
    let bucket = BucketRef { id: BucketId(2), tenant: TenantId(1), generation: Generation(2) };
    let key = |text: &str| Key::new(text.as_bytes().to_vec()).unwrap();
    let source = |version| CopySource { bucket, key: key("s"), version };
    let checksum =
        Checksum { algorithm: ChecksumAlgorithm::Crc32, of: ChecksumType::FullObject, value: vec![1, 2, 3, 4] };
    let copy = NewCopy {
        source: source(None),
        headers: Some(Headers { content_type: Some("a/b".to_owned()), ..Headers::default() }),
        website_redirect_location: Some("/w".to_owned()),
        tags: Some(vec![("t".to_owned(), "v".to_owned())]),
        checksum: Some(checksum.clone()),
        storage_class: StorageClass::Standard,
    };
    let conditions = WriteConditions { etag: Some(Etag("e".to_owned())), ..WriteConditions::default() };
    let object = Change::CopyObject { bucket, key: key("k"), copy: Box::new(copy), conditions };
    let part = NewPart { number: 300, etag: Etag("p".to_owned()), size: 5, checksum, crc64nvme: 6, blob: None };
    let source = source(Some(Generation(9)));
    let part = Change::CopyPart { bucket, key: key("k"), upload: UploadId(9), part: Box::new(part), source, start: 7 };
    let hex = |change| {
        let bytes = encode_mutation(&Mutation { write: WriteId(1), change });
        assert_eq!(
            postcard::from_bytes::<Mutation>(&bytes).map(|mutation| encode_mutation(&mutation)),
            Ok(bytes.clone())
        );
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    assert_eq!(
        hex(object),
        "010b020102016b020102017300010103612f620000000000000001022f7701010174017601000004010203040000010165"
    );
    assert_eq!(hex(part), "010c020102016b09ac020170050000040102030406000201020173010907");
}

/// Goal: moves of shards are read for ever. Method: bytes kept from the day they were written.
#[test]
fn a_move_is_frozen() {
    let blob = BlobId { node: NodeId(1), incarnation: Incarnation(3), sequence: 300 };
    let change = Change::MoveShard { blob, shard: 5, from: DiskId(0x1ff), to: DiskId::NONE };
    let mutation = Mutation { write: WriteId(1), change };
    let bytes = encode_mutation(&mutation);
    assert_eq!(bytes, [0x01, 0x0d, 0x01, 0x03, 0xac, 0x02, 0x05, 0xff, 0x03, 0x00]);
    assert_eq!(postcard::from_bytes(&bytes), Ok(mutation));
}

#[test]
fn a_shard_that_is_lost_is_frozen() {
    let blob = BlobId { node: NodeId(1), incarnation: Incarnation(3), sequence: 300 };
    let lost = LostShard { blob, profile: Profile { data: 4, parity: 2 }, shard: 5, disk: DiskId(0x1ff) };
    let mutation = Mutation { write: WriteId(1), change: Change::LoseShard(lost) };
    let bytes = encode_mutation(&mutation);
    assert_eq!(bytes, [1, 23, 1, 3, 0xac, 2, 4, 2, 5, 0xff, 3]);
    assert_eq!(postcard::from_bytes(&bytes), Ok(mutation));
}

#[test]
fn a_blob_that_is_spread_anew_is_frozen() {
    let blob = BlobId { node: NodeId(1), incarnation: Incarnation(3), sequence: 300 };
    let spread = |data, parity, places: [u128; 4]| BlobSpread {
        profile: Profile { data, parity },
        places: places.map(DiskId).to_vec(),
    };
    let change = Change::SpreadAnew { blob, from: spread(1, 1, [5, 6, 0, 0]), to: spread(2, 2, [5, 6, 7, 8]) };
    let mutation = Mutation { write: WriteId(1), change };
    let bytes = encode_mutation(&mutation);
    assert_eq!(bytes, [1, 15, 1, 3, 0xac, 2, 1, 1, 4, 5, 6, 0, 0, 2, 2, 4, 5, 6, 7, 8]);
    assert_eq!(postcard::from_bytes(&bytes), Ok(mutation));
}

#[test]
fn storage_classes_are_frozen() {
    let bucket = BucketRef { id: BucketId(2), tenant: TenantId(1), generation: Generation(2) };
    let hex = |storage_class| {
        let change = Change::UpdateBucket { bucket, storage_class };
        let bytes = encode_mutation(&Mutation { write: WriteId(1), change });
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    assert_eq!(hex(StorageClass::Standard), "010e02010200");
    assert_eq!(hex("AB".parse().unwrap()), "010e0201020102".to_owned() + "4142");
}

#[test]
fn a_bucket_that_is_closed_is_frozen() {
    let bucket = BucketRef { id: BucketId(2), tenant: TenantId(1), generation: Generation(3) };
    let mutation = Mutation { write: WriteId(1), change: Change::CloseBucket { bucket } };
    let bytes = encode_mutation(&mutation);
    assert_eq!(bytes, [1, 16, 2, 1, 3]);
    assert_eq!(postcard::from_bytes(&bytes), Ok(mutation));
}

#[test]
fn quotas_are_frozen() {
    let bucket = BucketRef { id: BucketId(2), tenant: TenantId(1), generation: Generation(3) };
    let of_bucket = Change::SetBucketQuota { bucket, quota: Quota { bytes: Some(200), objects: None } };
    let of_tenant = Change::SetTenantQuota { tenant: TenantId(4), quota: Quota { bytes: None, objects: Some(5) } };
    for (change, expected) in
        [(of_bucket, [1, 19, 2, 1, 3, 1, 200, 1, 0].as_slice()), (of_tenant, [1, 20, 4, 0, 1, 5].as_slice())]
    {
        let mutation = Mutation { write: WriteId(1), change };
        let bytes = encode_mutation(&mutation);
        assert_eq!(bytes, expected);
        assert_eq!(postcard::from_bytes(&bytes), Ok(mutation));
    }
}

/// Goal: rows that were taken in are read for ever. Method: bytes kept from the day they were written, of every kind of row.
#[test]
fn rows_that_are_taken_in_are_frozen() {
    let blob = BlobId { node: NodeId(1), incarnation: Incarnation(3), sequence: 300 };
    let at = WallTime { unix_ms: 9 };
    let checksum = Checksum { algorithm: ChecksumAlgorithm::Crc32, of: ChecksumType::FullObject, value: vec![1, 2] };
    let (etag, slice) = (Etag("e".to_owned()), Slice { blob, offset: 1, length: 2 });
    let pairs = || vec![("t".to_owned(), "v".to_owned())];
    let written = Written { generation: Generation(8), last_modified: at };
    let result = Completed { etag: etag.clone(), checksum: checksum.clone(), size: 5, written };
    let version = VersionRow {
        generation: Generation(7),
        write: WriteId(6),
        null: true,
        delete_marker: false,
        owner: TenantId(1),
        etag: etag.clone(),
        size: 5,
        checksum: checksum.clone(),
        crc64nvme: 4,
        headers: Headers { content_type: Some("a".to_owned()), ..Headers::default() },
        tags: pairs(),
        last_modified: at,
        parts: Some(2),
        content: Content::Single(slice),
        storage_class: StorageClass::Standard,
        envelope: Some(vec![1]),
        retention: Some(Retention { mode: RetentionMode::Compliance, until: at }),
        legal_hold: true,
    };
    let bucket = BucketRow {
        id: BucketId(2),
        name: BucketName::new("abc").unwrap(),
        tenant: TenantId(1),
        region: "r".to_owned(),
        state: BucketState::Closed,
        generation: Generation(3),
        created_at: at,
        versioning: Versioning::Suspended,
        ownership: Ownership::ObjectWriter,
        public_access_block: PublicAccessBlock::ALL,
        object_lock: Some(LockDefault { mode: Some(RetentionMode::Governance), days: 1 }),
        encryption: Some(vec![2]),
        storage_class: StorageClass::Standard,
        quota: Quota { bytes: Some(1), objects: None },
    };
    let upload = UploadRow {
        upload: UploadId(9),
        bucket: BucketId(2),
        key: b"k".to_vec(),
        owner: TenantId(1),
        headers: Headers::default(),
        tags: pairs(),
        checksum: Some((ChecksumAlgorithm::Sha256, ChecksumType::Composite)),
        storage_class: StorageClass::Standard,
        envelope: None,
        initiated_at: at,
        completed: Some(CompletedUpload { list: [3; 16], result }),
    };
    let part = PartRow {
        number: 300,
        write: WriteId(6),
        size: 5,
        etag: etag.clone(),
        checksum: checksum.clone(),
        crc64nvme: 4,
        last_modified: at,
        slices: vec![slice],
        envelope: None,
    };
    let segment_part = SegmentPart { number: 1, size: 5, etag, checksum };
    let segment = SegmentRow { start: 4, slice: Some(slice), part: Some(segment_part) };
    let live = BlobRow {
        blob,
        profile: Profile { data: 2, parity: 1 },
        length: 5,
        places: vec![DiskId(7), DiskId::NONE],
        references: 1,
        state: BlobState::Live,
        envelope: None,
    };
    let outcome = Outcome::WriterOpened(Incarnation(3));
    let usage = Usage { objects: 1, object_bytes: -1, upload_bytes: 200 };
    let rows = vec![
        TakenRow::Writer(WriterRow { node: NodeId(1), incarnation: Incarnation(3), opened_at: at }),
        TakenRow::Write(Box::new(WriteRow { generation: Generation(7), write: WriteId(6), outcome })),
        TakenRow::Bucket(Box::new(bucket)),
        TakenRow::TenantQuota { tenant: TenantId(1), quota: Quota { bytes: None, objects: Some(5) } },
        TakenRow::Usage { of: UsageOf::Tenant(TenantId(1)), usage },
        TakenRow::Head { bucket: BucketId(2), key: b"k".to_vec(), version: Box::new(version) },
        TakenRow::Segment { bucket: BucketId(2), version: Generation(7), segment: Box::new(segment) },
        TakenRow::Blob(Box::new(live)),
        TakenRow::Garbage(GarbageRow { generation: Generation(7), blob, since: at }),
        TakenRow::Upload(Box::new(upload)),
        TakenRow::Part { upload: UploadId(9), part: Box::new(part) },
    ];
    let hex = |mutation: &Mutation| {
        let bytes = encode_mutation(mutation);
        assert_eq!(postcard::from_bytes(&bytes).as_ref(), Ok(mutation));
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let change = |change| Mutation { write: WriteId(1), change };
    let taken: Vec<String> = rows.into_iter().map(|row| hex(&change(Change::TakeIn { rows: vec![row] }))).collect();
    assert_eq!(taken, TAKEN_ROWS);
    assert_eq!(hex(&change(Change::BeginAt { generation: Generation(300) })), "0116ac02");
}

/// Each in a change of its own.
const TAKEN_ROWS: [&str; 11] = [
    "01150100010309",
    "0115010107060003",
    "0115010202036162630101720103090202010101010101000101010200010100",
    "0115010301000105",
    "01150104010102019003",
    "0115010502016b0706010001016505000002010204010161000000000000000101740176090102010103ac0201020001010101010901",
    "01150106020704010103ac02010201010501650000020102",
    "011501070103ac02020105020700010000",
    "01150108070103ac0209",
    "011501090902016b0100000000000000000101740176010401000009010303030303030303030303030303030301650000020102050809",
    "0115010a09ac020605016500000201020409010103ac02010200",
];

#[test]
fn a_newer_format_is_refused_by_name() {
    let mut bytes = encoded(&sample());
    bytes[0] = FORMAT_VERSION + 1;
    assert_eq!(decode(&bytes), Err(DecodeError::Newer(FORMAT_VERSION + 1)));
}

/// Goal: no cut and no flipped byte makes the decoder panic or read past the end. Method: try all of them.
#[test]
fn damage_is_an_error_or_another_batch_but_never_a_panic() {
    let bytes = encoded(&sample());
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "cut at {length}");
    }
    for index in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[index] ^= flip;
            let _ = decode(&damaged);
        }
    }
    assert!(decode(&[bytes, vec![0]].concat()).is_err(), "a byte too many");
}

#[test]
fn the_largest_header_fits_its_bound() {
    let header = Header {
        lineage: u128::MAX,
        number: u64::MAX,
        durable_through: u64::MAX,
        at: WallTime { unix_ms: u64::MAX },
        first: Generation(u64::MAX),
    };
    let bytes = postcard::to_stdvec(&(header, u32::MAX)).unwrap();
    assert_eq!(1 + bytes.len(), HEADER_BYTES_MAX);
}

/// Goal: the completion of the largest upload fits into one record. Method: 10,000 parts with the longest checksum.
#[test]
fn the_largest_completion_fits_a_record() {
    let part = |number| PartName {
        number,
        etag: Etag("d41d8cd98f00b204e9800998ecf8427e".to_owned()),
        checksum: Some(Checksum {
            algorithm: ChecksumAlgorithm::Sha256,
            of: ChecksumType::Composite,
            value: vec![0xff; 32],
        }),
    };
    let complete = Change::CompleteUpload {
        bucket: BucketRef { id: BucketId(u64::MAX), tenant: TenantId(u64::MAX), generation: Generation(u64::MAX) },
        key: Key::new(vec![b'k'; 1024]).unwrap(),
        upload: UploadId(u128::MAX),
        parts: (1..=10_000).map(part).collect(),
        checksum: None,
        conditions: WriteConditions::default(),
    };
    let bytes = encode_mutation(&Mutation { write: WriteId(u128::MAX), change: complete });
    assert!(bytes.len() + HEADER_BYTES_MAX <= anvil_store::LOG_PAYLOAD_BYTES_MAX, "{} bytes", bytes.len());
}
