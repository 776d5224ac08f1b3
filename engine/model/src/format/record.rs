//! A record: one self-describing append, a cell of a blob or a batch of the metadata log.

use super::encryption::{ENCRYPTION_BYTES_MAX, Encryption, encryption_bytes};
use super::fields::{Reader, Writer};
use super::{Damage, EXTENT_BYTES_MAX, ExtentName, UNIT_BYTES, checksum, in_units};
use crate::geometry::{self, WINDOWS_MAX, cell_bytes, frames};
use crate::ids::{BlobId, CellId, DiskId, TenantId, UploadId};
use crate::limits::{
    CHECKSUM_BLOCK_BYTES, KEY_BYTES_MAX, RECORD_HEADER_BYTES_MAX, RECORD_PAYLOAD_BYTES_MAX, SMALL_BLOB_BYTES_MAX,
};
use crate::profile::Profile;
use crate::time::WallTime;

/// The first bytes of every record. Records begin at multiples of `RECORD_ALIGNMENT`, so a search for one steps by it.
pub const RECORD_MAGIC: [u8; 4] = *b"AnvR";
/// Where the payload of a large record begins, from the record's beginning: payload blocks lie on units.
pub const LARGE_PAYLOAD_OFFSET: u32 = RECORD_HEADER_BYTES_MAX as u32;

const RECORD_ALIGNMENT: usize = 8;
const CHECKSUMS_MAX: usize = RECORD_PAYLOAD_BYTES_MAX / CHECKSUM_BLOCK_BYTES;
const FIXED_BYTES: usize = 88;
const CHECKSUM_OFFSET: usize = FIXED_BYTES - 8;
const ORIGIN_FIXED_BYTES: usize = 8 + 8 + 2 + 2;
/// What stands behind the key, at most: kind, length, upload and number.
const ORIGIN_PAYLOAD_BYTES_MAX: usize = 1 + 8 + 16 + 2;
const BUCKET_BYTES_MAX: usize = 255;
const ORIGIN_BYTES_MAX: usize = ORIGIN_FIXED_BYTES + BUCKET_BYTES_MAX + KEY_BYTES_MAX + ORIGIN_PAYLOAD_BYTES_MAX;
const HEADER_BYTES_MAX: usize =
    (FIXED_BYTES + CHECKSUMS_MAX * 8 + ENCRYPTION_BYTES_MAX + ORIGIN_BYTES_MAX).next_multiple_of(RECORD_ALIGNMENT);

/// A record of a small blob with everything around it, at most: in whole units.
pub const SMALL_RECORD_BYTES_MAX: usize = in_units(HEADER_BYTES_MAX + SMALL_BLOB_BYTES_MAX);

const _: () = assert!(HEADER_BYTES_MAX <= RECORD_HEADER_BYTES_MAX, "every header fits the room that is kept for it");

/// Whose bytes a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A cell of a blob.
    Blob {
        /// Which blob.
        blob: BlobId,
        /// How the blob is spread; says how long its windows and cells are.
        profile: Profile,
        /// Of which shard the cell is, 0 to k+m-1.
        shard: u8,
        /// Of which window.
        window: u32,
    },
    /// The metadata log's.
    Log {
        /// The batch's number.
        number: u64,
        /// That of its extent, see [`ExtentKind`](super::ExtentKind).
        sequence: u64,
    },
}

impl Subject {
    /// The cell that it is; `None` for the metadata log.
    #[must_use]
    pub const fn cell(self) -> Option<CellId> {
        match self {
            Self::Blob { blob, shard, window, .. } => Some(CellId { blob, shard, window }),
            Self::Log { .. } => None,
        }
    }

    /// The profile of its blob; that of one copy for the metadata log.
    #[must_use]
    pub const fn profile(self) -> Profile {
        match self {
            Self::Blob { profile, .. } => profile,
            Self::Log { .. } => Profile::SINGLE,
        }
    }

    /// Kind and id, as they stand in records and footers.
    pub(super) fn to_fields(self) -> (u8, [u8; 16]) {
        match self {
            Self::Blob { blob, .. } => (1, blob.to_bytes()),
            Self::Log { number, sequence } => {
                let mut id = [0; 16];
                Writer::new(&mut id).u64(number).u64(sequence);
                (2, id)
            }
        }
    }

    /// `spread` is profile, shard and window.
    pub(super) fn from_fields(kind: u8, id: [u8; 16], spread: (Profile, u8, u32)) -> Option<Self> {
        match (kind, spread) {
            (1, (profile, shard, window)) => {
                let possible = profile.is_valid() && shard < profile.shards() && window < WINDOWS_MAX;
                possible.then_some(Self::Blob { blob: BlobId::from_bytes(id), profile, shard, window })
            }
            (2, (Profile::SINGLE, 0, 0)) => {
                let mut reader = Reader::new(&id);
                Some(Self::Log { number: reader.u64()?, sequence: reader.u64()? })
            }
            _ => None,
        }
    }
}

/// Where a blob was first put: enough to salvage plain PUTs when all metadata is lost. Decides nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whose.
    pub tenant: TenantId,
    /// In which bucket; at most 255 bytes.
    pub bucket: String,
    /// Under which key; at most [`KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// When, by the clock on the wall.
    pub at: WallTime,
    /// As what.
    pub payload: OriginPayload,
}

/// What the bytes of a blob were when it was first put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginPayload {
    /// Not said: written by a program that did not, or by a later one that says more than this one knows.
    Unsaid,
    /// All bytes of an object.
    Object {
        /// How many; the blob is whole only with all of them.
        length: u64,
    },
    /// A part of an upload.
    Part {
        /// How many bytes; likewise.
        length: u64,
        /// Which upload.
        upload: UploadId,
        /// Its number in the upload.
        number: u16,
    },
}

/// The beginning of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// In which extent.
    pub name: ExtentName,
    /// Where in that extent, in bytes from its beginning.
    pub offset: u32,
    /// Whose bytes.
    pub subject: Subject,
    /// Where the payload begins, in bytes from the record's beginning.
    pub payload_offset: u32,
    /// How long it is, 1 to [`RECORD_PAYLOAD_BYTES_MAX`].
    pub payload_bytes: u32,
    /// Bytes of the blob in the window that this is a cell of. What is not spread: the payload's.
    pub window_bytes: u32,
    checksums: [u64; CHECKSUMS_MAX],
    header_bytes: u16,
    origin_bytes: u16,
    encryption_bytes: u16,
}

/// What a header says beside what every header says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    /// Where the blob was first put.
    pub origin: Option<&'a Origin>,
    /// How the payload's window is encrypted, when it is.
    pub encryption: Option<&'a Encryption>,
}

/// Bytes of the header of a record with this payload and these extras: the `payload_offset` of a record that is packed.
#[must_use]
pub fn record_header_bytes(payload_bytes: usize, extras: Extras<'_>) -> usize {
    let origin_bytes = extras.origin.map_or(0, Origin::encoded_bytes);
    let encryption_bytes = extras.encryption.map_or(0, Encryption::encoded_bytes);
    (FIXED_BYTES + block_count(payload_bytes) * 8 + encryption_bytes + origin_bytes).next_multiple_of(RECORD_ALIGNMENT)
}

impl RecordHeader {
    /// Describes this payload at this place. For a cell of a window that is not as long as its k data cells, say so with
    /// [`Self::of_window`].
    ///
    /// # Panics
    /// When the payload is empty or too long, or the place is none for a record.
    #[must_use]
    pub fn new(name: ExtentName, offset: u32, subject: Subject, payload_offset: u32, payload: &[u8]) -> Self {
        let length_allowed = (1..=RECORD_PAYLOAD_BYTES_MAX).contains(&payload.len());
        assert!(length_allowed, "a payload of {} bytes", payload.len());
        assert!((offset as usize).is_multiple_of(RECORD_ALIGNMENT) && offset < EXTENT_BYTES_MAX);
        let mut checksums = [0; CHECKSUMS_MAX];
        for (sum, block) in checksums.iter_mut().zip(payload.chunks(CHECKSUM_BLOCK_BYTES)) {
            *sum = checksum(block);
        }
        let payload_bytes = u32::try_from(payload.len()).expect("asserted to be a window at most");
        let window_bytes = payload_bytes * u32::from(subject.profile().data);
        Self {
            name,
            offset,
            subject,
            payload_offset,
            payload_bytes,
            window_bytes,
            checksums,
            header_bytes: 0,
            origin_bytes: 0,
            encryption_bytes: 0,
        }
    }

    /// The same for a cell of a window of so many bytes.
    ///
    /// # Panics
    /// When the cells of such a window have another length.
    #[must_use]
    pub fn of_window(self, window_bytes: usize) -> Self {
        assert_eq!(
            cell_bytes(self.subject.profile(), window_bytes),
            self.payload_bytes as usize,
            "all cells are as long"
        );
        Self { window_bytes: u32::try_from(window_bytes).expect("a window is at most a record"), ..self }
    }

    /// Fills `bytes` up to the payload, padding included.
    ///
    /// # Panics
    /// When `bytes` does not end where the payload begins, the header does not fit, or the window has another number of
    /// frames.
    pub fn encode(&self, extras: Extras<'_>, bytes: &mut [u8]) {
        let Extras { origin, encryption } = extras;
        let header_bytes = record_header_bytes(self.payload_bytes as usize, extras);
        let has_all_tags = |encryption: &Encryption| Some(encryption.tags.len()) == self.frames();
        assert!(encryption.is_none_or(has_all_tags), "every frame of a window has a tag");
        assert!(bytes.len() == self.payload_offset as usize && header_bytes <= bytes.len(), "a header and its padding");
        bytes.fill(0);
        let origin_bytes = origin.map_or(0, Origin::encoded_bytes);
        let encryption_bytes = encryption.map_or(0, Encryption::encoded_bytes);
        let short = |length: usize| u16::try_from(length).expect("a header is shorter than a unit");
        let (kind, id) = self.subject.to_fields();
        // A record of one copy says so by zeros, as all records did before there were shards.
        let (window, data, parity, shard, window_bytes) = match self.subject {
            Subject::Blob { profile: Profile::SINGLE, window, .. } => (window, 0, 0, 0, 0),
            Subject::Blob { profile, shard, window, .. } => {
                (window, profile.data, profile.parity, shard, self.window_bytes)
            }
            Subject::Log { .. } => (0, 0, 0, 0, 0),
        };
        let mut writer = Writer::new(bytes);
        writer
            .put(&RECORD_MAGIC)
            .u8(kind)
            .u8(0)
            .u16(short(header_bytes))
            .u128(self.name.disk.0)
            .u64(self.name.incarnation)
            .u32(self.name.extent)
            .u32(self.offset)
            .put(&id)
            .u32(window)
            .u32(self.payload_offset)
            .u32(self.payload_bytes)
            .u16(short(origin_bytes))
            .u8(data)
            .u8(parity)
            .u8(shard)
            .u8(0)
            .u32(window_bytes)
            .u16(short(encryption_bytes))
            .u64(0);
        debug_assert_eq!(writer.at(), FIXED_BYTES);
        for sum in &self.checksums[..block_count(self.payload_bytes as usize)] {
            writer.u64(*sum);
        }
        if let Some(encryption) = encryption {
            encryption.encode(&mut writer);
        }
        if let Some(origin) = origin {
            origin.encode(&mut writer);
        }
        // The checksum covers itself as zero.
        let sum = checksum(&bytes[..header_bytes]);
        Writer::new(&mut bytes[CHECKSUM_OFFSET..]).u64(sum);
    }

    /// Reads what [`Self::encode`] wrote. Whether it belongs where it was found, the caller compares.
    ///
    /// # Errors
    /// When no whole record header begins here.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        if !bytes.starts_with(&RECORD_MAGIC) {
            return Err(Damage::Absent);
        }
        let header_bytes = Reader::new(bytes.get(6..).unwrap_or(&[])).u16().map_or(0, usize::from);
        if !(FIXED_BYTES..=RECORD_HEADER_BYTES_MAX).contains(&header_bytes) {
            return Err(Damage::Checksum);
        }
        let mut covered = [0; RECORD_HEADER_BYTES_MAX];
        let covered = &mut covered[..header_bytes];
        covered.copy_from_slice(bytes.get(..header_bytes).ok_or(Damage::Checksum)?);
        let stored = Reader::new(&covered[CHECKSUM_OFFSET..]).u64();
        covered[CHECKSUM_OFFSET..FIXED_BYTES].fill(0);
        if stored != Some(checksum(covered)) {
            return Err(Damage::Checksum);
        }
        Self::fields(covered).ok_or(Damage::Impossible)
    }

    /// The header of the same payload at another place: what is copied there needs no new checksums.
    #[must_use]
    pub fn moved_to(&self, name: ExtentName, offset: u32) -> Self {
        assert!((offset as usize).is_multiple_of(RECORD_ALIGNMENT) && offset < EXTENT_BYTES_MAX);
        Self { name, offset, ..*self }
    }

    /// Where the first blob was put, when this record says so. `bytes` are those given to [`Self::decode`].
    #[must_use]
    pub fn origin(&self, bytes: &[u8]) -> Option<Origin> {
        let start = self.extras_at() + usize::from(self.encryption_bytes);
        let origin = bytes.get(start..start + usize::from(self.origin_bytes))?;
        Origin::decode(origin)
    }

    /// How the payload's window is encrypted, when it is. `bytes` are those given to [`Self::decode`].
    #[must_use]
    pub fn encryption(&self, bytes: &[u8]) -> Option<Encryption> {
        if self.encryption_bytes == 0 {
            return None;
        }
        let start = self.extras_at();
        Encryption::decode(bytes.get(start..start + usize::from(self.encryption_bytes))?)
    }

    /// True when the payload is encrypted.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.encryption_bytes > 0
    }

    fn extras_at(&self) -> usize {
        FIXED_BYTES + block_count(self.payload_bytes as usize) * 8
    }

    /// Of the window that the payload is a cell of; the metadata log is not encrypted.
    fn frames(&self) -> Option<usize> {
        match self.subject {
            Subject::Blob { profile, .. } => Some(frames(profile, self.payload_bytes as usize)),
            Subject::Log { .. } => None,
        }
    }

    /// Bytes from this record's beginning to where the next may begin.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        (self.payload_offset as usize + self.payload_bytes as usize).next_multiple_of(RECORD_ALIGNMENT)
    }

    /// True when these are the bytes of checksum block `index` of the payload, whole.
    #[must_use]
    pub fn verifies(&self, index: usize, block: &[u8]) -> bool {
        let start = index * CHECKSUM_BLOCK_BYTES;
        let length = (self.payload_bytes as usize).saturating_sub(start).min(CHECKSUM_BLOCK_BYTES);
        block.len() == length && length > 0 && checksum(block) == self.checksums[index]
    }

    /// True when these are the bytes of the payload.
    #[must_use]
    pub fn verifies_all(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes as usize
            && payload.chunks(CHECKSUM_BLOCK_BYTES).enumerate().all(|(index, block)| self.verifies(index, block))
    }

    fn fields(covered: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(covered);
        reader.take(RECORD_MAGIC.len())?;
        let kind = reader.u8()?;
        let flags = reader.u8()?;
        let header_bytes = reader.u16()?;
        let disk = DiskId(reader.u128()?);
        let name = ExtentName { disk, incarnation: reader.u64()?, extent: reader.u32()? };
        let offset = reader.u32()?;
        let id = reader.array()?;
        let window = reader.u32()?;
        let payload_offset = reader.u32()?;
        let payload_bytes = reader.u32()?;
        let origin_bytes = reader.u16()?;
        let (data, parity, shard) = (reader.u8()?, reader.u8()?, reader.u8()?);
        reader.u8()?;
        let spread_bytes = reader.u32()?;
        let encryption_length = reader.u16()?;
        reader.u64()?;
        let single = (data, parity, shard, spread_bytes) == (0, 0, 0, 0);
        let profile = if single { Profile::SINGLE } else { Profile { data, parity } };
        let subject = Subject::from_fields(kind, id, (profile, shard, window))?;
        let window_bytes = if single { payload_bytes } else { spread_bytes };
        let cell_is_as_long = |window: usize| {
            (1..=geometry::window_bytes(profile)).contains(&window)
                && cell_bytes(profile, window) == payload_bytes as usize
        };
        let blocks = block_count(payload_bytes as usize);
        let mut checksums = [0; CHECKSUMS_MAX];
        for sum in checksums.get_mut(..blocks)? {
            *sum = reader.u64()?;
        }
        let length = FIXED_BYTES + blocks * 8 + usize::from(encryption_length) + usize::from(origin_bytes);
        let has_all_tags = || match subject {
            Subject::Blob { .. } => {
                usize::from(encryption_length) == encryption_bytes(frames(profile, payload_bytes as usize))
            }
            Subject::Log { .. } => false,
        };
        let possible = flags == 0
            && (encryption_length == 0 || has_all_tags())
            && payload_bytes > 0
            && (single || cell_is_as_long(window_bytes as usize))
            && length.next_multiple_of(RECORD_ALIGNMENT) == usize::from(header_bytes)
            && (u32::from(header_bytes)..=LARGE_PAYLOAD_OFFSET).contains(&payload_offset)
            && (payload_offset as usize).is_multiple_of(RECORD_ALIGNMENT)
            && (offset as usize).is_multiple_of(RECORD_ALIGNMENT);
        let header = Self {
            name,
            offset,
            subject,
            payload_offset,
            payload_bytes,
            window_bytes,
            checksums,
            header_bytes,
            origin_bytes,
            encryption_bytes: encryption_length,
        };
        possible.then_some(header)
    }
}

impl Origin {
    fn encoded_bytes(&self) -> usize {
        assert!(self.bucket.len() <= BUCKET_BYTES_MAX, "a bucket's name of {} bytes", self.bucket.len());
        assert!(self.key.len() <= KEY_BYTES_MAX, "a key of {} bytes", self.key.len());
        ORIGIN_FIXED_BYTES + self.bucket.len() + self.key.len() + self.payload.encoded_bytes()
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        let short = |text: &str| u16::try_from(text.len()).expect("asserted to be short");
        writer
            .u64(self.tenant.0)
            .u64(self.at.unix_ms)
            .u16(short(&self.bucket))
            .u16(short(&self.key))
            .put(self.bucket.as_bytes())
            .put(self.key.as_bytes());
        self.payload.encode(writer);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let tenant = TenantId(reader.u64()?);
        let at = WallTime { unix_ms: reader.u64()? };
        let (bucket_bytes, key_bytes) = (reader.u16()?, reader.u16()?);
        let mut text = |length: u16| String::from_utf8(reader.take(length.into())?.to_vec()).ok();
        let (bucket, key) = (text(bucket_bytes)?, text(key_bytes)?);
        let payload = OriginPayload::decode(&mut reader).unwrap_or(OriginPayload::Unsaid);
        Some(Self { tenant, at, bucket, key, payload })
    }
}

impl OriginPayload {
    const fn encoded_bytes(self) -> usize {
        match self {
            Self::Unsaid => 0,
            Self::Object { .. } => 1 + 8,
            Self::Part { .. } => ORIGIN_PAYLOAD_BYTES_MAX,
        }
    }

    fn encode(self, writer: &mut Writer<'_>) {
        match self {
            Self::Unsaid => {}
            Self::Object { length } => {
                writer.u8(1).u64(length);
            }
            Self::Part { length, upload, number } => {
                writer.u8(2).u64(length).u128(upload.0).u16(number);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        match (reader.u8()?, reader.u64()?) {
            (1, length) => Some(Self::Object { length }),
            (2, length) => Some(Self::Part { length, upload: UploadId(reader.u128()?), number: reader.u16()? }),
            _ => None,
        }
    }
}

const fn block_count(payload_bytes: usize) -> usize {
    payload_bytes.div_ceil(CHECKSUM_BLOCK_BYTES)
}

const _: () = assert!(HEADER_BYTES_MAX <= UNIT_BYTES, "a header is read with one unit");
