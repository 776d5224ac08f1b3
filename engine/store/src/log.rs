//! The metadata log: numbered batches in extents of their own, one at a time.

use std::collections::BTreeMap;
use std::iter;

use anvil_model::format::{
    ExtentName, FooterEntry, RecordHeader, Subject, UNIT_BYTES, extent_offset, in_units, record_header_bytes,
};
use anvil_model::ids::DiskId;
use anvil_model::io::{Device, DeviceError, Reserve, World};
use anvil_model::limits::RECORD_PAYLOAD_BYTES_MAX;

use crate::append::AppendError;
use crate::extent::{OpenExtent, Slot};
use crate::index::Place;
use crate::space::{Lane, Partial};
use crate::store::Store;

/// Payload bytes of one log record, at most.
pub const LOG_PAYLOAD_BYTES_MAX: usize = RECORD_PAYLOAD_BYTES_MAX;

/// The metadata log as recovery found it.
pub struct RecoveredLog<W: World> {
    world: W,
    devices: Vec<(DiskId, W::Device)>,
    extent_bytes: Vec<u32>,
    /// Of several records of one number the whole one that was written last.
    records: BTreeMap<u64, LogEntry>,
    torn: Option<u64>,
    sequence: u64,
}

/// A record of the log, as recovery found it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogEntry {
    pub(crate) number: u64,
    /// Of its extent in the log.
    pub(crate) sequence: u64,
    pub(crate) incarnation: u64,
    pub(crate) place: Place,
    pub(crate) whole: bool,
}

/// One batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Its number.
    pub number: u64,
    /// Its bytes, verified.
    pub payload: Vec<u8>,
}

/// Why the log cannot be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A record that must be there is damaged or gone.
    #[error("record {0} of the metadata log is damaged")]
    Damaged(u64),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Reads the log from one number on.
pub struct LogReader<'a, W: World> {
    log: &'a RecoveredLog<W>,
    next: Option<u64>,
}

impl<W: World> RecoveredLog<W> {
    pub(crate) fn new(
        world: W,
        devices: Vec<(DiskId, W::Device)>,
        extent_bytes: Vec<u32>,
        mut entries: Vec<LogEntry>,
        sequence: u64,
    ) -> Self {
        entries.sort_unstable_by_key(|entry| (entry.sequence, entry.place.offset));
        let (whole, damaged): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.whole);
        // Of equal numbers the later one stays.
        let mut records: BTreeMap<_, _> = whole.into_iter().map(|entry| (entry.number, entry)).collect();
        let last = records.last_key_value().map(|(&number, _)| number);
        let torn = damaged.iter().map(|entry| entry.number).filter(|&number| Some(number) > last).max();
        for entry in damaged.into_iter().filter(|entry| Some(entry.number) < last) {
            // It must be there: whether it still is damaged, its reader finds out.
            records.entry(entry.number).or_insert(entry);
        }
        Self { world, devices, extent_bytes, records, torn, sequence }
    }

    /// The oldest number that is there; `None` when the log is empty.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.records.first_key_value().map(|(&number, _)| number)
    }

    /// The newest number that is there; `None` when the log is empty.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.records.last_key_value().map(|(&number, _)| number)
    }

    /// A record behind the last one that is there but damaged. The crash tore it, if nobody was ever told of it;
    /// otherwise the disk has damaged it.
    #[must_use]
    pub fn torn(&self) -> Option<u64> {
        self.torn
    }

    /// Reads records from number `from` on, in order. One that is missing between two others, or between `from` and the
    /// first, is an error.
    #[must_use]
    pub fn read(&self, from: u64) -> LogReader<'_, W> {
        let any = self.last().is_some_and(|last| from <= last);
        LogReader { log: self, next: any.then_some(from) }
    }

    async fn payload(&self, entry: &LogEntry) -> Result<Vec<u8>, LogError> {
        // What was damaged on the way is whole when it is read again.
        match self.payload_once(entry).await? {
            Some(payload) => Ok(payload),
            None => self.payload_once(entry).await?.ok_or(LogError::Damaged(entry.number)),
        }
    }

    async fn payload_once(&self, entry: &LogEntry) -> Result<Option<Vec<u8>>, DeviceError> {
        let LogEntry { number, sequence, incarnation, place, .. } = *entry;
        let (disk, device) = &self.devices[usize::from(place.disk)];
        let extent_bytes = self.extent_bytes[usize::from(place.disk)];
        let start = usize::from(place.payload_offset);
        let end = start + place.payload_bytes as usize;
        let at = extent_offset(place.extent, extent_bytes) + u64::from(place.offset);
        let buffer = self.world.buffer(Reserve::Progress).await;
        let (read, buffer) = device.read(at, buffer, 0..in_units(end)).await;
        read?;
        let name = ExtentName { disk: *disk, extent: place.extent, incarnation };
        let mine = |header: &RecordHeader| {
            (header.name, header.offset, header.subject) == (name, place.offset, Subject::Log { number, sequence })
                && (header.payload_offset as usize, header.payload_bytes) == (start, place.payload_bytes)
        };
        let header = RecordHeader::decode(&buffer[..in_units(end).min(UNIT_BYTES)]).ok().filter(mine);
        let payload = &buffer[start..end];
        Ok(header.filter(|header| header.verifies_all(payload)).map(|_| payload.to_vec()))
    }
}

impl<W: World> LogReader<'_, W> {
    /// The next record; `None` after the last.
    ///
    /// # Errors
    /// When a record that must be there cannot be read; nothing follows.
    pub async fn next(&mut self) -> Option<Result<LogRecord, LogError>> {
        let number = self.next.take()?;
        let Some(entry) = self.log.records.get(&number) else {
            return Some(Err(LogError::Damaged(number)));
        };
        match self.log.payload(entry).await {
            Ok(payload) => {
                self.next = self.log.last().filter(|&last| last > number).map(|_| number + 1);
                Some(Ok(LogRecord { number, payload }))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// Where the log goes on. Sent to the core that writes it.
#[derive(Debug)]
pub struct LogTail {
    last: Option<u64>,
    sequence: u64,
    /// The extent that it goes on in, with the place of its disk.
    open: Option<(u16, Partial)>,
}

impl LogTail {
    pub(crate) fn new<W: World>(log: &RecoveredLog<W>, open: Option<(u16, Partial)>) -> Self {
        Self { last: log.last(), sequence: log.sequence, open }
    }
}

/// Appends to the metadata log. There is one in a node.
pub struct LogWriter<W: World> {
    store: Store<W>,
    last: Option<u64>,
    /// The disk that the log is on.
    disk: DiskId,
}

impl<W: World> LogWriter<W> {
    /// Goes on where the log ended, on the core of `store`.
    ///
    /// # Panics
    /// When the tail is not of the recovery that the store was opened from.
    #[must_use]
    pub fn open(store: Store<W>, tail: LogTail) -> Self {
        let LogTail { last, sequence, open } = tail;
        let inner = &store.inner;
        let before = inner.log_sequence.replace(sequence);
        assert_eq!(before, 0, "there is one writer of the log");
        let disk = match open {
            Some((disk, partial)) => {
                let extent = OpenExtent::resume(disk, Lane::Log, inner.disk(disk).extent_bytes, partial);
                inner.resume_extent(disk, Lane::Log, extent);
                inner.disk(disk).id
            }
            None => store.place(),
        };
        Self { store, last, disk }
    }

    /// Appends batch `number`: one more than the last that succeeded (any number when the log is empty). Completes
    /// when the device has written it; durable only after [`Store::flush`] of [`Self::disks`]. After an error the
    /// caller may append the same number again, with the same bytes or others; at recovery the later one counts,
    /// but the earlier one may be found when the later one is not. Uses space that is refused to blobs, and goes on on
    /// another disk when its own is full.
    ///
    /// # Errors
    /// When no disk has an extent left or the log's device fails; after a failed flush, until the next start.
    ///
    /// # Panics
    /// When the payload is empty or longer than [`LOG_PAYLOAD_BYTES_MAX`], or the number is out of order.
    pub async fn append(&mut self, number: u64, payload: &[u8]) -> Result<(), AppendError> {
        let length = payload.len();
        assert!((1..=LOG_PAYLOAD_BYTES_MAX).contains(&length), "a batch of {length} bytes");
        assert!(self.last.is_none_or(|last| number == last + 1), "batch {number} follows {:?}", self.last);
        let inner = &self.store.inner;
        let _busy = inner.begin()?;
        let header_bytes = record_header_bytes(length, None);
        let bytes = in_units(header_bytes + length);
        let (disk, slot) = self.reserve(bytes).await?;
        self.disk = inner.disk(disk).id;
        let mut buffer = inner.world.buffer(Reserve::Progress).await;
        let subject = Subject::Log { number, sequence: slot.log_sequence() };
        let payload_offset = u32::try_from(header_bytes).expect("within a unit");
        let header = RecordHeader::new(slot.name(), slot.offset, subject, payload_offset, payload);
        header.encode(None, &mut buffer[..header_bytes]);
        buffer[header_bytes..header_bytes + length].copy_from_slice(payload);
        buffer[header_bytes + length..bytes].fill(0);
        slot.write(buffer, vec![FooterEntry::of(&header)]).await?;
        self.last = Some(number);
        Ok(())
    }

    /// Room on the log's disk, or, when that is full, on another. A disk that failed is not left: a record on it that
    /// nobody can flush any more would be missing between its neighbours.
    async fn reserve(&self, bytes: usize) -> Result<(u16, Slot<W>), AppendError> {
        let inner = &self.store.inner;
        let own = inner.ordinal(self.disk);
        let others = inner.disks_by_room().into_iter().filter(|&disk| disk != own);
        let mut refusal = AppendError::Full;
        for disk in iter::once(own).chain(others) {
            match inner.reserve(disk, Lane::Log, bytes, 1).await {
                Ok(slot) => return Ok((disk, slot)),
                Err(AppendError::Full) => {}
                Err(error) if disk == own => return Err(error),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// The disks that the last append wrote to: those to flush.
    #[must_use]
    pub fn disks(&self) -> &[DiskId] {
        std::slice::from_ref(&self.disk)
    }

    /// The number of the newest record; `None` when the log is empty.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.last
    }
}
