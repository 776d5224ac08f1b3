//! Verified bytes of a blob: the places from its home core, the bytes through this core's own devices.

use std::ops::Range;

use anvil_model::format::{
    Encryption, ExtentName, LARGE_PAYLOAD_OFFSET, Origin, RecordHeader, Subject, UNIT_BYTES, extent_offset, in_units,
};
use anvil_model::geometry::{self, WINDOWS_MAX};
use anvil_model::ids::{BlobId, CellId, DiskId};
use anvil_model::io::{Device, DeviceError, Reserve, World};
use anvil_model::limits::{CHECKSUM_BLOCK_BYTES, RECORD_HEADER_BYTES_MAX};
use anvil_model::profile::Profile;
use tokio::sync::oneshot;

use crate::index::Place;
use crate::mail::Message;
use crate::store::{Disk, Inner, Store};

/// Payload in front of the wanted blocks that is read along with the header, rather than reading twice.
const SKIP_BYTES_MAX: usize = 2 * CHECKSUM_BLOCK_BYTES;

/// Places that a read tries, at most. A record moves once in many minutes.
const PLACES_MAX: usize = 8;

/// The cells of one window of a blob that are on the disks of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The blob.
    pub blob: BlobId,
    /// How it is spread.
    pub profile: Profile,
    /// The window; it begins at [`geometry::window_start`].
    pub window: u32,
    /// By their shards, at least one. A shard that is not among them is on none of the disks that are here.
    pub cells: Vec<LocatedCell>,
    /// Other records have these bytes too, and nobody has said yet which count ([`Store::settle`]).
    pub contested: bool,
}

/// A record of a shard that could not be read, or may not be readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubtful {
    /// How its blob is spread by it.
    pub profile: Profile,
    /// Which shard.
    pub shard: u8,
    /// Where it is.
    pub disk: DiskId,
}

/// Where a cell lies at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocatedCell {
    /// Of which shard.
    pub shard: u8,
    /// On which disk.
    pub disk: DiskId,
    /// Bytes of the cell.
    pub bytes: usize,
    pub(crate) place: Place,
    pub(crate) incarnation: u64,
}

/// Verified bytes of a blob: `buffer[range]`.
#[derive(Debug)]
pub struct Piece<B> {
    /// Holds the bytes.
    pub buffer: B,
    /// Which of them.
    pub range: Range<usize>,
}

/// Verified bytes of a cell, as they are on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellBytes {
    /// Where they are in the buffer.
    pub range: Range<usize>,
    /// How they are encrypted, if they are.
    pub encryption: Option<Encryption>,
}

/// Why a cell could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CellError {
    /// No disk that is here has it.
    #[error("{0} is not on this node's disks")]
    Missing(CellId),
    /// Its checksum or identity is wrong.
    #[error("{0} is damaged on disk")]
    Corrupt(CellId),
    /// The device failed.
    #[error("{cell} on disk {disk}: {source}")]
    Device {
        /// What was read.
        cell: CellId,
        /// Where.
        disk: DiskId,
        /// What happened.
        source: DeviceError,
    },
    /// The core that knows the places is shutting down.
    #[error("the store is closing")]
    Closing,
}

/// Why bytes could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No record of this blob covers the offset.
    #[error("blob {0} has no record at this offset")]
    Missing(BlobId),
    /// The record's checksum or identity is wrong.
    #[error("blob {0} is damaged on disk")]
    Corrupt(BlobId),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The core that knows the places is shutting down.
    #[error("the store is closing")]
    Closing,
}

impl From<CellError> for ReadError {
    fn from(error: CellError) -> Self {
        match error {
            CellError::Missing(cell) => Self::Missing(cell.blob),
            CellError::Corrupt(cell) => Self::Corrupt(cell.blob),
            CellError::Device { source, .. } => Self::Device(source),
            CellError::Closing => Self::Closing,
        }
    }
}

impl Located {
    /// Its records.
    pub fn records(&self) -> impl Iterator<Item = Doubtful> {
        self.cells.iter().map(|cell| Doubtful { profile: self.profile, shard: cell.shard, disk: cell.disk })
    }

    /// The cell of a shard, if it is here.
    #[must_use]
    pub fn cell(&self, shard: u8) -> Option<&LocatedCell> {
        self.cells.iter().find(|cell| cell.shard == shard)
    }
}

impl LocatedCell {
    /// Bytes that a buffer or view must have for [`Store::read_cell`]: a large cell and the room of its header; a packed
    /// one in the units that it shares with its neighbours.
    #[must_use]
    pub fn room_bytes(&self) -> usize {
        if u32::from(self.place.payload_offset) == LARGE_PAYLOAD_OFFSET {
            return in_units(RECORD_HEADER_BYTES_MAX + self.bytes);
        }
        let into_unit = self.place.offset as usize % UNIT_BYTES;
        in_units(into_unit + usize::from(self.place.payload_offset) + self.bytes)
    }
}

impl<W: World> Store<W> {
    /// Where the cells of the window lie that holds byte `offset` of a blob; `None` when none of them is here. Asks the
    /// blob's home core, once, when that is another one.
    ///
    /// # Errors
    /// When that core is shutting down.
    pub async fn locate(&self, blob: BlobId, offset: u64) -> Result<Option<Located>, CellError> {
        self.inner.locate(blob, offset, Vec::new()).await
    }

    /// As [`Self::locate`]; of a contested blob rather with other records than the doubtful ones.
    ///
    /// # Errors
    /// As for [`Self::locate`].
    pub async fn locate_otherwise(
        &self,
        blob: BlobId,
        offset: u64,
        doubtful: Vec<Doubtful>,
    ) -> Result<Option<Located>, CellError> {
        self.inner.locate(blob, offset, doubtful).await
    }

    /// Reads bytes `range` of a cell into `buffer`, verified against its checksums, only the blocks that it touches. Gives
    /// the buffer back, with the place of the bytes in it, so that several cells can be read side by side into the views
    /// of one buffer and joined again. A large cell's byte n comes to `RECORD_HEADER_BYTES_MAX + n`. Looks the place up
    /// again when the record has moved meanwhile.
    ///
    /// # Errors
    /// When the cell is missing, damaged or unreadable; never wrong bytes.
    ///
    /// # Panics
    /// When the range is empty or not within a cell that is there, or the buffer shorter than
    /// [`LocatedCell::room_bytes`].
    pub async fn read_cell(
        &self,
        located: &Located,
        shard: u8,
        range: Range<usize>,
        mut buffer: W::Buffer,
    ) -> (Result<CellBytes, CellError>, W::Buffer) {
        let inner = &self.inner;
        let Located { blob, profile, window, .. } = *located;
        let cell = CellId { blob, shard, window };
        let Some(mut found) = located.cell(shard).copied() else {
            return (Err(CellError::Missing(cell)), buffer);
        };
        assert!(range.start < range.end && range.end <= found.bytes, "bytes {range:?} of {} of {cell}", found.bytes);
        let mut read_again = false;
        for _ in 0..PLACES_MAX {
            let LocatedCell { place, incarnation, disk, .. } = found;
            if buffer.len() < found.room_bytes() {
                assert!(found != *located.cell(shard).expect("found"), "{} bytes for {cell}", buffer.len());
                // It was moved among others, whose units take more room than it has.
                break;
            }
            let subject = Subject::Blob { blob, profile, shard, window };
            let record = Record { disk: inner.disk(place.disk), place, incarnation, subject };
            let (read, used) = record.read(buffer, range.clone()).await;
            buffer = used;
            match read {
                Ok(Some(bytes)) => return (Ok(bytes), buffer),
                Ok(None) => {}
                Err(source) => return (Err(CellError::Device { cell, disk, source }), buffer),
            }
            // It was moved and its extent used again; or it was damaged on the way, and is whole when it is read again;
            // or it is damaged on disk.
            let now = match inner.locate(blob, geometry::window_start(profile, window), Vec::new()).await {
                // Another spread of the blob has cells of other bytes.
                Ok(now) => now.filter(|now| now.profile == profile).and_then(|now| now.cell(shard).copied()),
                Err(error) => return (Err(error), buffer),
            };
            let Some(now) = now.filter(|now| now.bytes == found.bytes) else {
                return (Err(CellError::Missing(cell)), buffer);
            };
            if now == found && std::mem::replace(&mut read_again, true) {
                break;
            }
            read_again &= now == found;
            found = now;
        }
        (Err(CellError::Corrupt(cell)), buffer)
    }

    /// Where a blob was first put, by the first record of a shard of it that says so; `None` when none does, or `located` is
    /// not its first window. For whoever has no metadata.
    pub async fn origin(&self, located: &Located) -> Option<Origin> {
        let Located { blob, profile, window, ref cells, .. } = *located;
        let mut buffer = self.inner.world.buffer(Reserve::Foreground).await;
        for LocatedCell { shard, place, incarnation, .. } in cells {
            let subject = Subject::Blob { blob, profile, shard: *shard, window };
            let disk = self.inner.disk(place.disk);
            let record = Record { disk, place: *place, incarnation: *incarnation, subject };
            let (origin, used) = record.read_origin(buffer).await;
            if origin.is_some() {
                return origin;
            }
            buffer = used;
        }
        None
    }

    /// Reads from `range.start` to the end of the data cell that holds it, or to `range.end` if that is nearer; as the bytes
    /// are on disk, encrypted or not. Of copies
    /// it takes the first that is whole; a lost cell of other profiles is an error, because here nothing is decoded.
    ///
    /// # Errors
    /// When the bytes are missing, damaged or unreadable; never wrong bytes.
    ///
    /// # Panics
    /// When the range is empty.
    pub async fn read(&self, blob: BlobId, range: Range<u64>) -> Result<Piece<W::Buffer>, ReadError> {
        assert!(range.start < range.end, "an empty range is not read");
        let located = self.locate(blob, range.start).await?.ok_or(ReadError::Missing(blob))?;
        let profile = located.profile;
        let bytes = located.cells[0].bytes;
        let start = range.start - geometry::window_start(profile, located.window);
        let start = usize::try_from(start).expect("within a window");
        let column = start % bytes;
        let Some(shard) = u8::try_from(start / bytes).ok().filter(|&shard| shard < profile.data) else {
            return Err(ReadError::Missing(blob));
        };
        let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(bytes - column);
        let copies = if profile.data == 1 { 0..profile.shards() } else { shard..shard + 1 };
        let mut buffer = self.inner.world.buffer(Reserve::Foreground).await;
        let mut refusal = None;
        for shard in copies {
            let (read, used) = self.read_cell(&located, shard, column..column + wanted, buffer).await;
            buffer = used;
            match read {
                Ok(CellBytes { range, .. }) => return Ok(Piece { buffer, range }),
                // A copy that is there says more than one that is not.
                Err(CellError::Missing(_)) if refusal.is_some() => {}
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.expect("there is a copy").into())
    }
}

impl<W: World> Inner<W> {
    /// Where the cells of a window of a blob that is at home here lie, unless the blob was released.
    pub(crate) fn find_live(&self, blob: BlobId, offset: u64, doubtful: &[Doubtful]) -> Option<Located> {
        if self.released.borrow().contains(blob) {
            return None;
        }
        let index = self.index.borrow();
        let profile = index.profile(blob)?;
        if !index.is_contested(blob) {
            return self.located(blob, profile, offset, |cell| index.find(cell));
        }
        // Until its row is asked, what is there more wholly counts. The bytes are the same.
        let is_good = |shard: u8, place: &Place| {
            let disk = self.disk(place.disk);
            let record = Doubtful { profile: place.profile, shard, disk: disk.id };
            disk.failed.get().is_none() && !doubtful.contains(&record)
        };
        let located = |profile| {
            let find = |cell: CellId| index.find_any(cell, profile, |place| is_good(cell.shard, place));
            let located = self.located(blob, profile, offset, find)?;
            let good = located.cells.iter().filter(|cell| is_good(cell.shard, &cell.place)).count();
            Some((good as isize - isize::from(profile.data), Located { contested: true, ..located }))
        };
        let spreads = index.profiles(blob).into_iter().filter_map(located);
        let best = spreads.reduce(|best, other| if other.0 > best.0 { other } else { best });
        best.map(|(_, located)| located)
    }

    fn located(
        &self,
        blob: BlobId,
        profile: Profile,
        offset: u64,
        find: impl Fn(CellId) -> Option<(Place, u64)>,
    ) -> Option<Located> {
        let window = offset / geometry::window_bytes(profile) as u64;
        let window = u32::try_from(window).ok().filter(|&window| window < WINDOWS_MAX)?;
        let cell = |shard| {
            let found = find(CellId { blob, shard, window });
            let (place, incarnation) = found.filter(|(place, _)| place.profile == profile)?;
            let (disk, bytes) = (self.disk(place.disk).id, place.payload_bytes as usize);
            Some(LocatedCell { shard, disk, bytes, place, incarnation })
        };
        let cells: Vec<_> = (0..profile.shards()).filter_map(cell).collect();
        (!cells.is_empty()).then_some(Located { blob, profile, window, cells, contested: false })
    }

    async fn locate(&self, blob: BlobId, offset: u64, doubtful: Vec<Doubtful>) -> Result<Option<Located>, CellError> {
        let home = blob.home(self.core_count);
        if home == self.core {
            return Ok(self.find_live(blob, offset, &doubtful));
        }
        let (reply, located) = oneshot::channel();
        let message = Message::Locate { blob, offset, doubtful, reply };
        self.addresses[usize::from(home.0)].send(message).await.map_err(|_| CellError::Closing)?;
        located.await.map_err(|_| CellError::Closing)
    }
}

/// A record that should be at a place.
struct Record<'a, W: World> {
    disk: &'a Disk<W>,
    place: Place,
    incarnation: u64,
    subject: Subject,
}

/// The bytes, or nothing when the record is not whole; and the buffer that they are in.
type Attempt<B> = (Result<Option<CellBytes>, DeviceError>, B);

impl<W: World> Record<'_, W> {
    /// Reads these bytes of the payload.
    async fn read(&self, buffer: W::Buffer, wanted: Range<usize>) -> Attempt<W::Buffer> {
        if u32::from(self.place.payload_offset) == LARGE_PAYLOAD_OFFSET {
            self.read_blocks(buffer, wanted).await
        } else {
            self.read_whole(buffer, wanted).await
        }
    }

    /// A large record: its header, and the checksum blocks that hold the wanted bytes. The buffer mirrors the record.
    async fn read_blocks(&self, buffer: W::Buffer, wanted: Range<usize>) -> Attempt<W::Buffer> {
        let payload_bytes = self.place.payload_bytes as usize;
        let blocks = wanted.start / CHECKSUM_BLOCK_BYTES..wanted.end.div_ceil(CHECKSUM_BLOCK_BYTES);
        let start = blocks.start * CHECKSUM_BLOCK_BYTES;
        let end = (blocks.end * CHECKSUM_BLOCK_BYTES).min(payload_bytes);
        let in_buffer = |at: usize| RECORD_HEADER_BYTES_MAX + at;
        let apart = start > SKIP_BYTES_MAX;
        let first_end = if apart { UNIT_BYTES } else { in_units(in_buffer(end)) };
        let (read, mut buffer) = self.disk.device.read(self.at(), buffer, 0..first_end).await;
        if let Err(error) = read {
            return (Err(error), buffer);
        }
        let header = match RecordHeader::decode(&buffer[..UNIT_BYTES]) {
            Ok(header) if self.is_mine(&header) => header,
            Ok(_) | Err(_) => return (Ok(None), buffer),
        };
        if apart {
            let rest = in_buffer(start)..in_units(in_buffer(end));
            let (read, filled) = self.disk.device.read(self.at() + rest.start as u64, buffer, rest).await;
            buffer = filled;
            if let Err(error) = read {
                return (Err(error), buffer);
            }
        }
        let whole = blocks.clone().all(|block| {
            let start = block * CHECKSUM_BLOCK_BYTES;
            let end = (start + CHECKSUM_BLOCK_BYTES).min(payload_bytes);
            header.verifies(block, &buffer[in_buffer(start)..in_buffer(end)])
        });
        let bytes = whole.then(|| CellBytes {
            range: in_buffer(wanted.start)..in_buffer(wanted.end),
            encryption: header.encryption(&buffer[..UNIT_BYTES]),
        });
        (Ok(bytes), buffer)
    }

    /// A packed record, which shares its units with its neighbours.
    async fn read_whole(&self, buffer: W::Buffer, wanted: Range<usize>) -> Attempt<W::Buffer> {
        let into_unit = self.place.offset as usize % UNIT_BYTES;
        let payload_start = into_unit + usize::from(self.place.payload_offset);
        let payload_end = payload_start + self.place.payload_bytes as usize;
        let at = self.at() - into_unit as u64;
        let (read, buffer) = self.disk.device.read(at, buffer, 0..in_units(payload_end)).await;
        if let Err(error) = read {
            return (Err(error), buffer);
        }
        let record = &buffer[into_unit..payload_end];
        let whole = RecordHeader::decode(record)
            .ok()
            .filter(|header| self.is_mine(header) && header.verifies_all(&buffer[payload_start..payload_end]));
        let bytes = whole.map(|header| CellBytes {
            range: payload_start + wanted.start..payload_start + wanted.end,
            encryption: header.encryption(record),
        });
        (Ok(bytes), buffer)
    }

    /// What the header says of the blob's origin.
    async fn read_origin(&self, buffer: W::Buffer) -> (Option<Origin>, W::Buffer) {
        let into_unit = self.place.offset as usize % UNIT_BYTES;
        let end = in_units(into_unit + usize::from(self.place.payload_offset));
        let (read, buffer) = self.disk.device.read(self.at() - into_unit as u64, buffer, 0..end).await;
        let bytes = &buffer[into_unit..end];
        let header = read.ok().and_then(|()| RecordHeader::decode(bytes).ok());
        let origin = header.filter(|header| self.is_mine(header)).and_then(|header| header.origin(bytes));
        (origin, buffer)
    }

    fn at(&self) -> u64 {
        extent_offset(self.place.extent, self.disk.extent_bytes) + u64::from(self.place.offset)
    }

    fn is_mine(&self, header: &RecordHeader) -> bool {
        let Place { extent, offset, payload_offset, payload_bytes, .. } = self.place;
        let name = ExtentName { disk: self.disk.id, extent, incarnation: self.incarnation };
        (header.name, header.offset, header.subject) == (name, offset, self.subject)
            && (header.payload_offset, header.payload_bytes) == (payload_offset.into(), payload_bytes)
    }
}
