//! The metadata log: numbered batches in extents of their own, one at a time, each on several disks.
//!
//! Every disk of the log has extents of its own, and a batch has the same number and bytes on each. A number is given to
//! one batch only, whatever becomes of it: the numbers of a start lie above those of all starts before it, also above
//! what those may have written to disks that are not here now. So copies are told by their number alone, and a disk that
//! comes back with an older end of the log adds nothing that anybody could mistake for what came later.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use anvil_model::format::{
    ExtentName, Extras, FooterEntry, RecordHeader, Subject, UNIT_BYTES, extent_offset, in_units, record_header_bytes,
};
use anvil_model::ids::DiskId;
use anvil_model::io::{Device, DeviceError, Reserve, World};
use anvil_model::limits::RECORD_PAYLOAD_BYTES_MAX;
use anvil_model::time::Moment;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;

use crate::append::AppendError;
use crate::index::Place;
use crate::space::{Lane, Partial};
use crate::store::Store;

/// Payload bytes of one log record, at most.
pub const LOG_PAYLOAD_BYTES_MAX: usize = RECORD_PAYLOAD_BYTES_MAX;

/// Batches that are copied between two flushes.
const REFILLED_AT_ONCE: usize = 256;
/// A disk of the log that takes so many times as long as the slowest of the others is slow.
const SLOW_TIMES: u32 = 16;
/// In one batch it is waited for at least so long.
const PATIENCE_MIN: Duration = Duration::from_millis(100);
/// What takes less is never slow.
const SLOW_MIN: Duration = Duration::from_millis(2);
/// So many batches in a row, less those in time, a disk may be slow at.
const SLOW_BATCHES_MAX: u32 = 32;
/// For so long a slow disk gets no batches where others do.
const SLOW_TIME: Duration = Duration::from_secs(600);
/// Numbers that a start may give to batches before they reach into those of the next one.
const NUMBER_BITS: u32 = 38;
/// The last start that has numbers of its own: numbers fit 63 bits, since an SQL integer has a sign.
const STARTS_MAX: u64 = (1 << (63 - NUMBER_BITS)) - 1;

/// The first number of the batches of a start.
pub(crate) fn first_number(start: u64) -> u64 {
    start.min(STARTS_MAX) << NUMBER_BITS
}

/// The start that gave a batch its number; 0 when that was before starts were counted.
pub(crate) fn start_of(number: u64) -> u64 {
    number >> NUMBER_BITS
}

/// The metadata log as recovery found it.
pub struct RecoveredLog<W: World> {
    world: W,
    devices: Vec<(DiskId, W::Device)>,
    extent_bytes: Vec<u32>,
    /// The copies of each number: whole ones, or, when there is none, those that should be.
    records: BTreeMap<u64, Vec<LogEntry>>,
    torn: Option<u64>,
    sequence: u64,
    next: u64,
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
    /// `start` is the one that reads this.
    pub(crate) fn new(
        world: W,
        devices: Vec<(DiskId, W::Device)>,
        extent_bytes: Vec<u32>,
        mut entries: Vec<LogEntry>,
        sequence: u64,
        start: u64,
    ) -> Self {
        entries.sort_unstable_by_key(|entry| (entry.sequence, entry.place.offset));
        let (whole, damaged): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.whole);
        let mut records: BTreeMap<u64, Vec<LogEntry>> = BTreeMap::new();
        for entry in whole {
            let copies = records.entry(entry.number).or_default();
            if start_of(entry.number) == 0 {
                // A number could be given again after an error: the later one counts.
                copies.clear();
            }
            copies.push(entry);
        }
        let last = records.last_key_value().map(|(&number, _)| number);
        let torn = damaged.iter().map(|entry| entry.number).filter(|&number| Some(number) > last).max();
        for entry in damaged.into_iter().filter(|entry| Some(entry.number) < last) {
            // It must be there: whether it still is damaged, its reader finds out.
            let copies = records.entry(entry.number).or_default();
            if copies.iter().all(|copy| !copy.whole) {
                copies.push(entry);
            }
        }
        let next = first_number(start).max(last.map_or(1, |last| last + 1));
        Self { world, devices, extent_bytes, records, torn, sequence, next }
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

    /// How many batches are there, damaged ones included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.records.len()
    }

    /// The disks of this node that were read.
    pub fn disks(&self) -> impl Iterator<Item = DiskId> {
        self.devices.iter().map(|(disk, _)| *disk)
    }

    /// The number for the first batch of this start: above all that any start before may have given, seen or not.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// A record behind the last one that is there but damaged. The crash tore it, if nobody was ever told of it;
    /// otherwise the disk has damaged it.
    #[must_use]
    pub fn torn(&self) -> Option<u64> {
        self.torn
    }

    /// The disks that hold a batch whole, as far as recovery has seen.
    #[must_use]
    pub fn holders(&self, number: u64) -> Vec<DiskId> {
        let copies = self.records.get(&number).into_iter().flatten().filter(|copy| copy.whole);
        let disks: BTreeSet<DiskId> = copies.map(|copy| self.devices[usize::from(copy.place.disk)].0).collect();
        disks.into_iter().collect()
    }

    /// Copies the batches that are on fewer disks than they should be to others, and says how many it copied: since they
    /// were written disks were lost, or the node has got more. Takes as long as it takes; for the background.
    pub async fn refill(self, store: &Store<W>, copies: usize) -> u64 {
        let short: Vec<u64> =
            self.records.keys().copied().filter(|&number| self.holders(number).len() < copies).collect();
        let mut refilled = 0;
        let mut unflushed = BTreeSet::new();
        for (count, number) in (1..).zip(short.iter().copied()) {
            refilled += u64::from(self.refill_one(store, number, copies, &mut unflushed).await);
            if count % REFILLED_AT_ONCE == 0 || count == short.len() {
                for disk in std::mem::take(&mut unflushed) {
                    // What is not durable is copied again at the next start.
                    let _ = store.flush(&[disk]).await;
                }
            }
        }
        refilled
    }

    /// True when the batch has all its copies now, durable or not.
    async fn refill_one(&self, store: &Store<W>, number: u64, copies: usize, unflushed: &mut BTreeSet<DiskId>) -> bool {
        let payload = match self.payload(number).await {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(%error, "a batch of the metadata log cannot be copied");
                return false;
            }
        };
        let mut holders = self.holders(number);
        let inner = &store.inner;
        for disk in inner.disks_by_room().into_iter().map(|disk| inner.disk(disk)) {
            let takes = disk.failed.get().is_none() && !holders.contains(&disk.id);
            if holders.len() < copies && takes && append_to(store, disk.id, number, &payload).await.is_ok() {
                unflushed.insert(disk.id);
                holders.push(disk.id);
            }
        }
        holders.len() >= copies
    }

    /// Reads what is there from number `from` on, in order. Numbers that were never given look like numbers that are
    /// gone: which must be there, the batches say themselves.
    #[must_use]
    pub fn read(&self, from: u64) -> LogReader<'_, W> {
        LogReader { log: self, next: self.at_or_behind(from) }
    }

    fn at_or_behind(&self, number: u64) -> Option<u64> {
        self.records.range(number..).next().map(|(&number, _)| number)
    }

    /// The bytes of a batch, from the first copy that verifies.
    async fn payload(&self, number: u64) -> Result<Vec<u8>, LogError> {
        let mut failure = LogError::Damaged(number);
        for copy in &self.records[&number] {
            // What was damaged on the way is whole when it is read again.
            for _ in 0..2 {
                match self.payload_once(copy).await {
                    Ok(Some(payload)) => return Ok(payload),
                    Ok(None) => {}
                    Err(error) => failure = error.into(),
                }
            }
        }
        Err(failure)
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
    /// When no copy of a record can be read; the one behind it may be asked for.
    pub async fn next(&mut self) -> Option<Result<LogRecord, LogError>> {
        let number = self.next?;
        self.next = self.log.at_or_behind(number + 1);
        Some(self.log.payload(number).await.map(|payload| LogRecord { number, payload }))
    }
}

/// Where the log goes on. Sent to the core that writes it.
#[derive(Debug)]
pub struct LogTail {
    last: Option<u64>,
    /// The disks that hold the last batch.
    holders: Vec<DiskId>,
    sequence: u64,
    /// The extents that it goes on in, with the places of their disks; one of each disk.
    open: Vec<(u16, Partial)>,
}

impl LogTail {
    pub(crate) fn new<W: World>(log: &RecoveredLog<W>, open: Vec<(u16, Partial)>) -> Self {
        let last = log.last();
        let holders = last.map(|last| log.holders(last)).unwrap_or_default();
        Self { last, holders, sequence: log.sequence, open }
    }
}

/// Appends to the metadata log. There is one in a node.
pub struct LogWriter<W: World> {
    store: Store<W>,
    last: Option<u64>,
    /// On so many disks each batch should be.
    copies: usize,
    /// The disks that the last batch was written to.
    disks: Vec<DiskId>,
    /// Disks that failed in this life. They are used again only when nothing else is left.
    left: BTreeSet<DiskId>,
    /// Disks that were left because they are slow, and when. They are used when others do not suffice.
    slow: BTreeMap<DiskId, Moment>,
    /// What the disks of this batch took for it.
    took: BTreeMap<DiskId, Duration>,
    /// Grows by a batch that a disk was slow at, and shrinks by one in time.
    lateness: BTreeMap<DiskId, u32>,
    /// So many copies the last batch had when that was told.
    told: usize,
    one_is_enough: bool,
}

impl<W: World> LogWriter<W> {
    /// Goes on where the log ended, on the core of `store`, with so many copies of each batch.
    ///
    /// # Panics
    /// When the tail is not of the recovery that the store was opened from, or there are to be no copies.
    #[must_use]
    pub fn open(store: Store<W>, tail: LogTail, copies: usize) -> Self {
        assert!(copies > 0, "a log is somewhere");
        let LogTail { last, holders, sequence, open } = tail;
        let inner = &store.inner;
        let before = inner.log_sequence.replace(sequence);
        assert_eq!(before, 0, "there is one writer of the log");
        for (disk, partial) in open {
            inner.resume_extent(disk, Lane::Log, partial);
        }
        Self {
            store,
            last,
            copies,
            disks: holders,
            left: BTreeSet::new(),
            slow: BTreeMap::new(),
            took: BTreeMap::new(),
            lateness: BTreeMap::new(),
            told: copies,
            one_is_enough: false,
        }
    }

    /// Appends batch `number`, which is above that of every batch before. Completes when enough devices have written it;
    /// durable only after a flush of [`Self::disks`]. A number is used once, also when this fails: some disk may have
    /// written it. Uses space that is refused to blobs. A disk that is full or fails is left for another one, and so is one
    /// that takes much longer than the others, as long as there is another.
    ///
    /// # Errors
    /// When fewer disks take it than must: two, or one where there is to be one copy.
    ///
    /// # Panics
    /// When the payload is empty or longer than [`LOG_PAYLOAD_BYTES_MAX`], or the number is out of order.
    pub async fn append(&mut self, number: u64, payload: &[u8]) -> Result<(), AppendError> {
        assert!(self.last.is_none_or(|last| number > last), "batch {number} follows {:?}", self.last);
        let before = std::mem::take(&mut self.disks);
        self.took.clear();
        self.spread(number, payload, &before).await?;
        self.last = Some(number);
        Ok(())
    }

    /// Appends a batch and makes it durable, together with everything that was appended to the disks `data` before. Gives
    /// those of `data` whose flush failed: what was appended there since their last flush is not durable, and whether
    /// the batch counts all the same is for the caller to say, by what the next batch says of it.
    ///
    /// # Errors
    /// As [`Self::append`], also when too few flushes succeed.
    ///
    /// # Panics
    /// As [`Self::append`].
    pub async fn commit(
        &mut self,
        number: u64,
        payload: &[u8],
        data: &[DiskId],
    ) -> Result<Vec<(DiskId, DeviceError)>, AppendError> {
        self.append(number, payload).await?;
        let failed = self.flush(number, payload, data).await?;
        self.leave_the_late(data);
        Ok(failed)
    }

    /// Sees to it that the last batch that recovery found is durable on as many disks as there should be: perhaps only
    /// one had it, and the next batch will say that it counts.
    ///
    /// # Errors
    /// As [`Self::append`].
    ///
    /// # Panics
    /// When `number` is not that of the last batch.
    pub async fn secure(&mut self, number: u64, payload: &[u8]) -> Result<(), AppendError> {
        assert_eq!(self.last, Some(number), "the last batch is secured");
        self.spread(number, payload, &[]).await?;
        self.flush(number, payload, &[]).await.map(drop)
    }

    /// Flushes the disks of the last batch and those of `data`. A disk of the log whose flush fails is left: another one
    /// gets the batch in its place, before it counts.
    async fn flush(
        &mut self,
        number: u64,
        payload: &[u8],
        data: &[DiskId],
    ) -> Result<Vec<(DiskId, DeviceError)>, AppendError> {
        let mut failed = Vec::new();
        let mut due: BTreeSet<DiskId> = self.disks.iter().chain(data).copied().collect();
        while !due.is_empty() {
            let store = self.store.clone();
            let flush = async |disk| store.flush(&[disk]).await;
            let flushes = due.iter().map(|&disk| (disk, flush(disk))).collect();
            let outcomes = self.in_time(flushes, data, self.others(&self.disks.iter().copied().collect())).await;
            let flushed = self.disks.clone();
            for (disk, outcome) in outcomes {
                match outcome {
                    Some(Ok(())) => {}
                    Some(Err(error)) => {
                        if data.contains(&disk) {
                            failed.push((disk, error));
                        }
                        if self.disks.contains(&disk) {
                            self.leave(disk, error);
                        }
                    }
                    None => self.leave_slow(disk),
                }
            }
            if self.disks.len() < flushed.len() {
                self.spread(number, payload, &[]).await?;
            }
            due = self.disks.iter().copied().filter(|disk| !flushed.contains(disk)).collect();
        }
        Ok(failed)
    }

    /// Appends the batch to disks that do not have it, those of the batch `before` first, until it has its copies.
    async fn spread(&mut self, number: u64, payload: &[u8], before: &[DiskId]) -> Result<(), AppendError> {
        let mut refusal = AppendError::Full;
        let mut tried: BTreeSet<DiskId> = self.disks.iter().copied().collect();
        loop {
            let chosen = self.candidates(before, &tried);
            if chosen.is_empty() {
                break;
            }
            tried.extend(&chosen);
            let store = self.store.clone();
            let append = |disk| append_to(&store, disk, number, payload);
            let appends = chosen.iter().map(|&disk| (disk, append(disk))).collect();
            for (disk, outcome) in self.in_time(appends, &[], self.others(&tried)).await {
                match outcome {
                    Some(Ok(())) => self.disks.push(disk),
                    Some(Err(AppendError::Full)) => {}
                    Some(Err(AppendError::Device(error))) => {
                        refusal = error.into();
                        self.leave(disk, error);
                    }
                    None => self.leave_slow(disk),
                }
            }
        }
        if self.disks.len() != self.told {
            self.told = self.disks.len();
            let (copies, wanted) = (self.told, self.copies);
            if copies < wanted {
                tracing::error!(
                    copies,
                    wanted,
                    "the metadata log has fewer copies than it should: too few disks take it"
                );
            } else {
                tracing::info!(copies, "the metadata log has all its copies again");
            }
        }
        if self.disks.len() < self.copies_min() { Err(refusal) } else { Ok(()) }
    }

    /// Waits for what disks do. Of those that are not `needed`, up to `others` are given up (`None`) when they take much
    /// longer than the rest; what they do goes on by itself.
    async fn in_time<T>(
        &mut self,
        work: Vec<(DiskId, impl Future<Output = T>)>,
        needed: &[DiskId],
        others: usize,
    ) -> Vec<(DiskId, Option<T>)> {
        let world = self.store.inner.world.clone();
        let began = world.now();
        let mut waiting: BTreeSet<DiskId> = work.iter().map(|(disk, _)| *disk).collect();
        let mut running: FuturesUnordered<_> =
            work.into_iter().map(|(disk, work)| async move { (disk, work.await) }).collect();
        let mut outcomes = Vec::new();
        let mut elapsed = Duration::ZERO;
        while !waiting.is_empty() {
            let may_go = waiting.len() <= others
                && waiting.len() <= outcomes.len()
                && waiting.iter().all(|disk| !needed.contains(disk));
            let ended = if may_go {
                let patience =
                    elapsed.saturating_mul(SLOW_TIMES).max(PATIENCE_MIN).saturating_sub(world.now().since(began));
                match select(running.next(), pin!(world.sleep(patience))).await {
                    Either::Left((ended, _)) => ended,
                    Either::Right(_) => break,
                }
            } else {
                running.next().await
            };
            let (disk, outcome) = ended.expect("as many run as are waited for");
            elapsed = world.now().since(began);
            *self.took.entry(disk).or_default() += elapsed;
            waiting.remove(&disk);
            outcomes.push((disk, Some(outcome)));
        }
        outcomes.extend(waiting.into_iter().map(|disk| (disk, None)));
        outcomes
    }

    /// Disks that are slow again and again are left before they keep the next batch waiting. Those of `data` are waited for
    /// anyway, at this batch.
    fn leave_the_late(&mut self, data: &[DiskId]) {
        for disk in self.disks.clone() {
            let took = |disk| self.took.get(disk).copied().unwrap_or_default();
            let others = self.disks.iter().filter(|other| **other != disk).map(took).max();
            let late = others.is_some_and(|others| took(&disk) > others.saturating_mul(SLOW_TIMES).max(SLOW_MIN));
            let lateness = self.lateness.entry(disk).or_default();
            if !late || data.contains(&disk) {
                *lateness = lateness.saturating_sub(u32::from(!late));
                continue;
            }
            *lateness += 1;
            if *lateness > SLOW_BATCHES_MAX && self.others(&self.disks.iter().copied().collect()) > 0 {
                self.leave_slow(disk);
            }
        }
    }

    /// How many disks could take the place of one, beside those that were tried.
    fn others(&self, tried: &BTreeSet<DiskId>) -> usize {
        let inner = &self.store.inner;
        let disks = (0..inner.disk_count()).map(|disk| inner.disk(disk));
        let sound = disks.filter(|disk| disk.failed.get().is_none() && !self.left.contains(&disk.id));
        sound.filter(|disk| !tried.contains(&disk.id) && !self.is_slow(disk.id)).count()
    }

    fn is_slow(&self, disk: DiskId) -> bool {
        let now = self.store.inner.world.now();
        self.slow.get(&disk).is_some_and(|&since| now.since(since) < SLOW_TIME)
    }

    fn leave_slow(&mut self, disk: DiskId) {
        self.disks.retain(|&other| other != disk);
        self.lateness.remove(&disk);
        self.slow.insert(disk, self.store.inner.world.now());
        tracing::warn!(%disk, "the metadata log leaves a disk that is much slower than its others");
    }

    /// From now on one copy of a batch is enough, or no longer: for what nobody was told of.
    pub fn allow_one_copy(&mut self, allowed: bool) {
        self.one_is_enough = allowed;
    }

    /// So many copies a batch must have to count: one more failure is survived.
    fn copies_min(&self) -> usize {
        if self.one_is_enough { 1 } else { self.copies.min(2) }
    }

    /// Where the copies that are missing should go. Disks that failed are tried only for those that there must be.
    fn candidates(&self, before: &[DiskId], tried: &BTreeSet<DiskId>) -> Vec<DiskId> {
        let inner = &self.store.inner;
        let by_room = inner.disks_by_room().into_iter().map(|disk| inner.disk(disk));
        let (failed, sound): (Vec<_>, Vec<_>) =
            by_room.partition(|disk| disk.failed.get().is_some() || self.left.contains(&disk.id));
        let (slow, fast): (Vec<_>, Vec<_>) =
            sound.into_iter().map(|disk| disk.id).partition(|&disk| self.is_slow(disk));
        let sound: Vec<DiskId> = fast.into_iter().chain(slow).collect();
        let known = before.iter().copied().filter(|disk| sound.contains(disk) && !self.is_slow(*disk));
        let mut chosen: Vec<DiskId> = Vec::new();
        for disk in known.chain(sound.iter().copied()).filter(|disk| !tried.contains(disk)) {
            if self.disks.len() + chosen.len() < self.copies && !chosen.contains(&disk) {
                chosen.push(disk);
            }
        }
        for disk in failed.into_iter().map(|disk| disk.id).filter(|disk| !tried.contains(disk)) {
            if self.disks.len() + chosen.len() < self.copies_min() {
                chosen.push(disk);
            }
        }
        chosen
    }

    /// A disk that is out of use by order may come back, one that failed not in this life.
    fn leave(&mut self, disk: DiskId, error: DeviceError) {
        self.disks.retain(|&other| other != disk);
        if error != DeviceError::Offline && self.left.insert(disk) {
            tracing::warn!(%disk, %error, "the metadata log leaves a disk");
        }
    }

    /// The disks that the last batch was written to: those to flush.
    #[must_use]
    pub fn disks(&self) -> &[DiskId] {
        &self.disks
    }

    /// The number of the newest record; `None` when the log is empty.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.last
    }
}

/// Writes one copy of a batch.
async fn append_to<W: World>(store: &Store<W>, disk: DiskId, number: u64, payload: &[u8]) -> Result<(), AppendError> {
    let length = payload.len();
    assert!((1..=LOG_PAYLOAD_BYTES_MAX).contains(&length), "a batch of {length} bytes");
    let inner = &store.inner;
    let _busy = inner.begin()?;
    let header_bytes = record_header_bytes(length, Extras::default());
    let bytes = in_units(header_bytes + length);
    let slot = inner.reserve(inner.ordinal(disk), Lane::Log, bytes, 1).await?;
    let mut buffer = inner.world.buffer(Reserve::Progress).await;
    let subject = Subject::Log { number, sequence: slot.log_sequence() };
    let payload_offset = u32::try_from(header_bytes).expect("within a unit");
    let header = RecordHeader::new(slot.name(), slot.offset, subject, payload_offset, payload);
    header.encode(Extras::default(), &mut buffer[..header_bytes]);
    buffer[header_bytes..header_bytes + length].copy_from_slice(payload);
    buffer[header_bytes + length..bytes].fill(0);
    slot.write(buffer, vec![FooterEntry::of(&header)]).await
}
