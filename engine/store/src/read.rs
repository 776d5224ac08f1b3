//! Verified bytes of a blob: the place from its home core, the bytes through this core's own device.

use std::ops::Range;

use anvil_model::format::{
    ExtentName, LARGE_PAYLOAD_OFFSET, RecordHeader, Subject, UNIT_BYTES, extent_offset, in_units,
};
use anvil_model::ids::BlobId;
use anvil_model::io::{Device, DeviceError, Reserve, World};
use anvil_model::limits::{CHECKSUM_BLOCK_BYTES, RECORD_HEADER_BYTES_MAX, RECORD_PAYLOAD_BYTES_MAX};
use tokio::sync::oneshot;

use crate::index::Place;
use crate::mail::Message;
use crate::store::{Disk, Inner, Store};

/// Payload in front of the wanted blocks that is read along with the header, rather than reading twice.
const SKIP_BYTES_MAX: usize = 2 * CHECKSUM_BLOCK_BYTES;

/// Places that a read tries, at most. A record moves once in many minutes.
const PLACES_MAX: usize = 8;

/// Verified bytes of a blob: `buffer[range]`.
#[derive(Debug)]
pub struct Piece<B> {
    /// Holds the bytes.
    pub buffer: B,
    /// Which of them.
    pub range: Range<usize>,
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

impl<W: World> Store<W> {
    /// Reads from `range.start` to the end of the record that holds it, or to `range.end` if that is nearer, verified
    /// against its checksums. Records end at multiples of `RECORD_PAYLOAD_BYTES_MAX`, so a caller can ask for several
    /// pieces at once. Asks the blob's home core for the place when that is another one.
    ///
    /// # Errors
    /// When the bytes are missing, damaged or unreadable; never wrong bytes.
    ///
    /// # Panics
    /// When the range is empty.
    pub async fn read(&self, blob: BlobId, range: Range<u64>) -> Result<Piece<W::Buffer>, ReadError> {
        assert!(range.start < range.end, "an empty range is not read");
        let inner = &self.inner;
        let window_bytes = RECORD_PAYLOAD_BYTES_MAX as u64;
        let Ok(window) = u32::try_from(range.start / window_bytes) else {
            return Err(ReadError::Missing(blob));
        };
        let mut located = inner.locate(blob, window).await?.ok_or(ReadError::Missing(blob))?;
        let window_start = u64::from(window) * window_bytes;
        let within = |at: u64| usize::try_from((at - window_start).min(window_bytes)).expect("within a window");
        let wanted = within(range.start)..within(range.end).min(located.0.payload_bytes as usize);
        if wanted.is_empty() {
            return Err(ReadError::Missing(blob));
        }
        let mut buffer = inner.world.buffer(Reserve::Foreground).await;
        let mut read_again = false;
        for _ in 0..PLACES_MAX {
            let (place, incarnation) = located;
            let subject = Subject::Blob { blob, window };
            let record = Record { disk: inner.disk(place.disk), place, incarnation, subject };
            buffer = match record.read(buffer, wanted.clone()).await? {
                Verdict::Whole(piece) => return Ok(piece),
                Verdict::Damaged(buffer) => buffer,
            };
            // It was moved and its extent used again; or it was damaged on the way, and is whole when it is read again;
            // or it is damaged on disk.
            let now = inner.locate(blob, window).await?.ok_or(ReadError::Missing(blob))?;
            if now == located && std::mem::replace(&mut read_again, true) {
                break;
            }
            read_again &= now == located;
            located = now;
        }
        Err(ReadError::Corrupt(blob))
    }
}

impl<W: World> Inner<W> {
    /// Where a window of a blob that is at home here lies, unless the blob was released.
    pub(crate) fn find_live(&self, blob: BlobId, window: u32) -> Option<(Place, u64)> {
        if self.released.borrow().contains(blob) { None } else { self.index.borrow().find(blob, window) }
    }

    async fn locate(&self, blob: BlobId, window: u32) -> Result<Option<(Place, u64)>, ReadError> {
        let home = blob.home(self.core_count);
        if home == self.core {
            return Ok(self.find_live(blob, window));
        }
        let (reply, place) = oneshot::channel();
        let message = Message::Locate { blob, window, reply };
        self.addresses[usize::from(home.0)].send(message).await.map_err(|_| ReadError::Closing)?;
        place.await.map_err(|_| ReadError::Closing)
    }
}

/// A record that should be at a place.
struct Record<'a, W: World> {
    disk: &'a Disk<W>,
    place: Place,
    incarnation: u64,
    subject: Subject,
}

enum Verdict<B> {
    Whole(Piece<B>),
    Damaged(B),
}

impl<W: World> Record<'_, W> {
    /// Reads these bytes of the payload.
    async fn read(&self, buffer: W::Buffer, wanted: Range<usize>) -> Result<Verdict<W::Buffer>, DeviceError> {
        if u32::from(self.place.payload_offset) == LARGE_PAYLOAD_OFFSET {
            self.read_blocks(buffer, wanted).await
        } else {
            self.read_whole(buffer, wanted).await
        }
    }

    /// A large record: its header, and the checksum blocks that hold the wanted bytes. The buffer mirrors the record.
    async fn read_blocks(&self, buffer: W::Buffer, wanted: Range<usize>) -> Result<Verdict<W::Buffer>, DeviceError> {
        let payload_bytes = self.place.payload_bytes as usize;
        let blocks = wanted.start / CHECKSUM_BLOCK_BYTES..wanted.end.div_ceil(CHECKSUM_BLOCK_BYTES);
        let start = blocks.start * CHECKSUM_BLOCK_BYTES;
        let end = (blocks.end * CHECKSUM_BLOCK_BYTES).min(payload_bytes);
        let in_buffer = |at: usize| RECORD_HEADER_BYTES_MAX + at;
        let apart = start > SKIP_BYTES_MAX;
        let first_end = if apart { UNIT_BYTES } else { in_units(in_buffer(end)) };
        let (read, mut buffer) = self.disk.device.read(self.at(), buffer, 0..first_end).await;
        read?;
        let header = match RecordHeader::decode(&buffer[..UNIT_BYTES]) {
            Ok(header) if self.is_mine(&header) => header,
            Ok(_) | Err(_) => return Ok(Verdict::Damaged(buffer)),
        };
        if apart {
            let rest = in_buffer(start)..in_units(in_buffer(end));
            let (read, filled) = self.disk.device.read(self.at() + rest.start as u64, buffer, rest).await;
            read?;
            buffer = filled;
        }
        let whole = blocks.clone().all(|block| {
            let start = block * CHECKSUM_BLOCK_BYTES;
            let end = (start + CHECKSUM_BLOCK_BYTES).min(payload_bytes);
            header.verifies(block, &buffer[in_buffer(start)..in_buffer(end)])
        });
        let range = in_buffer(wanted.start)..in_buffer(wanted.end);
        Ok(if whole { Verdict::Whole(Piece { buffer, range }) } else { Verdict::Damaged(buffer) })
    }

    /// A packed record, which shares its units with its neighbours.
    async fn read_whole(&self, buffer: W::Buffer, wanted: Range<usize>) -> Result<Verdict<W::Buffer>, DeviceError> {
        let into_unit = self.place.offset as usize % UNIT_BYTES;
        let payload_start = into_unit + usize::from(self.place.payload_offset);
        let payload_end = payload_start + self.place.payload_bytes as usize;
        let at = self.at() - into_unit as u64;
        let (read, buffer) = self.disk.device.read(at, buffer, 0..in_units(payload_end)).await;
        read?;
        let whole = RecordHeader::decode(&buffer[into_unit..payload_end])
            .is_ok_and(|header| self.is_mine(&header) && header.verifies_all(&buffer[payload_start..payload_end]));
        let range = payload_start + wanted.start..payload_start + wanted.end;
        Ok(if whole { Verdict::Whole(Piece { buffer, range }) } else { Verdict::Damaged(buffer) })
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
