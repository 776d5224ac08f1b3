//! Every maximum that more than one crate knows, in one place.

use crate::profile::Profile;

/// Payload bytes of one record, at most. A blob longer than this has several records.
pub const RECORD_PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Room kept before the payload of a window in its buffer, so that header and payload go to disk in one write.
/// A multiple of every alignment that a device may ask for.
pub const RECORD_HEADER_BYTES_MAX: usize = 4096;
/// One record with its header, at most: the longest write to a disk.
pub const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES_MAX + RECORD_PAYLOAD_BYTES_MAX;
/// Size of every pool buffer: all cells of one window, each with room for its record header.
pub const BUFFER_BYTES: usize = RECORD_PAYLOAD_BYTES_MAX + Profile::SHARDS_MAX * RECORD_HEADER_BYTES_MAX;
/// Alignment of every pool buffer in memory.
pub const BUFFER_ALIGNMENT: usize = 4096;
/// One checksum covers at most this many payload bytes; a range read verifies only the blocks it touches.
pub const CHECKSUM_BLOCK_BYTES: usize = 64 << 10;
/// A blob of at most this many bytes is small: it is packed with others into one write.
pub const SMALL_BLOB_BYTES_MAX: usize = 64 << 10;

/// Disks of one node, at most, and disks that it has given up and not yet forgotten: what a roster has room for.
pub const ROSTER_DISKS_MAX: usize = 64;

/// An S3 object, at most (50 TB since 2025-12; AWS "Amazon S3 objects" user guide; 10,000 parts of 5 GiB).
pub const OBJECT_BYTES_MAX: u64 = 10_000 * PART_BYTES_MAX;
/// One PUT or one part, at most (AWS "multipart upload limits").
pub const PART_BYTES_MAX: u64 = 5 << 30;
/// A copy of a whole object, at most (S3 API reference, CopyObject); larger ones are copied part by part.
pub const COPY_BYTES_MAX: u64 = 5 << 30;
/// Every part but the last, at least.
pub const PART_BYTES_MIN: u64 = 5 << 20;
/// Part numbers run from 1 to this.
pub const PART_NUMBER_MAX: u16 = 10_000;
/// A key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 1024;
/// All user metadata of an object: names and values together.
pub const USER_METADATA_BYTES_MAX: usize = 2048;
/// Keys of one page of a listing, and of one DeleteObjects request.
pub const PAGE_KEYS_MAX: usize = 1000;

const _: () = assert!(BUFFER_BYTES.is_multiple_of(BUFFER_ALIGNMENT), "slots lie behind one another in one region");
const _: () = assert!(RECORD_PAYLOAD_BYTES_MAX.is_multiple_of(CHECKSUM_BLOCK_BYTES), "checksums tile a window");
const _: () = assert!(SMALL_BLOB_BYTES_MAX <= CHECKSUM_BLOCK_BYTES, "a small blob has one checksum");
