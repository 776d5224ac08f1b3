//! Extents are given back: at once when all their records are dead, otherwise after the live rest was moved.
//!
//! One task per disk, on the disk's home core, does all of it, one extent at a time. So what it found to be dead stays
//! dead while it works, and what it moved to is not given back before the index knows of it.
//!
//! 1. The footer says which records there are, the index which of them are live.
//! 2. Each live one is read, verified and appended to an extent of the lane for what was moved. One that fails is named and
//!    keeps its extent.
//! 3. A flush; then the index is changed, unless the record died meanwhile.
//! 4. The extent's header is overwritten with a free one. A flush.
//! 5. All cores forget what they had there. Only now may the extent be put to use again.
//!
//! A crash leaves either copy or both: the same bytes, of which recovery takes one. A reader whose place is out of date
//! finds another life's incarnation and asks once more, so that nothing waits for readers.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use anvil_model::format::{
    ExtentHeader, ExtentKind, ExtentName, Extras, FooterEntry, LARGE_PAYLOAD_OFFSET, RecordHeader, Subject, UNIT_BYTES,
    extent_offset, in_units,
};
use anvil_model::ids::{BlobId, CellId, CoreId};
use anvil_model::io::{DeviceError, Reserve, World};
use futures_util::future::{Either, select};
use tokio::sync::oneshot;

use crate::account::{Account, Dead, Tally};
use crate::append::AppendError;
use crate::budget::{Budget, Rate};
use crate::index::{Move, Place};
use crate::mail::{LiveAnswer, LiveQuestion, Message};
use crate::scan::{Examined, ExtentPlace, examine};
use crate::space::{Lane, Sealed};
use crate::store::{Disk, Inner, Store};
use crate::walk::{Group, Walk, groups};

/// While there is room, extents are looked through at most so often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// An open extent with garbage is taken back when nothing happened for so long.
const QUIET: Duration = Duration::from_secs(1);

/// How reclaim goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReclaimOptions {
    /// What may be read and written per disk while nobody waits for room; otherwise it goes as fast as it can.
    pub rate: Rate,
}

impl Default for ReclaimOptions {
    fn default() -> Self {
        Self { rate: Rate { bytes_per_second: 64 << 20, burst_bytes: 64 << 20 } }
    }
}

/// Why an extent was not given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum ReclaimError {
    #[error("its footer and the index do not agree")]
    Unclear,
    #[error("records of it are damaged")]
    Damaged,
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("a core is closing")]
    Closing,
}

impl<W: World> Store<W> {
    /// Gives back, from now until [`Self::close`], extents of the disks whose home is here: those without live records
    /// at once, others when they are worth a move. Once, on every core.
    ///
    /// # Panics
    /// When it was begun before.
    pub fn start_reclaim(&self, options: ReclaimOptions) {
        let inner = &self.inner;
        inner.reclaim.set(Some(options));
        inner.disks_at_home().for_each(|disk| inner.keep_reclaiming(disk, options));
    }
}

impl<W: World> Inner<W> {
    pub(crate) fn keep_reclaiming(self: &Rc<Self>, disk: u16, options: ReclaimOptions) {
        let before = std::mem::replace(&mut self.space(disk).borrow_mut().reclaiming, true);
        assert!(!before, "one task reclaims a disk");
        self.start_background(Rc::clone(self).reclaim_disk(disk, options));
    }

    async fn reclaim_disk(self: Rc<Self>, disk: u16, options: ReclaimOptions) {
        let budget = Budget::new(options.rate);
        loop {
            let candidate = self.space(disk).borrow().candidate();
            let Some((extent, account)) = candidate.filter(|_| self.disk(disk).failed.get().is_none()) else {
                // Who waited for room that does not come is refused.
                self.serve_space(disk);
                if self.recall_garbage(disk).await {
                    continue;
                }
                // Much is released at once, and looking for what pays takes a while on a large disk. With little room, or
                // none on a disk that failed, serving those who wait rings again at once.
                let low = self.space(disk).borrow().is_low();
                self.world.sleep(if low { LOOK_AGAIN / 10 } else { LOOK_AGAIN }).await;
                continue;
            };
            let reclaimed = self.reclaim_extent(disk, extent, account, &budget).await;
            if let Err(error) = reclaimed {
                tracing::warn!(disk = %self.disk(disk).id, extent, %error, "an extent cannot be given back now");
                if let Some(account) = self.space(disk).borrow_mut().accounts.of(extent, account.incarnation) {
                    account.held_at = Some(account.dead.bytes);
                }
            }
            self.serve_space(disk);
        }
    }

    /// Waits until something was released or sealed. When nothing is for a while, an open extent with garbage is taken
    /// back; true then.
    async fn recall_garbage(self: &Rc<Self>, disk: u16) -> bool {
        let garbage = || {
            let space = self.space(disk).borrow();
            let may = self.disk(disk).failed.get().is_none() && !space.recalling;
            space.open_garbage().filter(|_| may)
        };
        let Some(before) = garbage() else {
            let wanted = pin!(self.disk(disk).reclaim_wanted());
            if self.space(disk).borrow().waiting() > 0 {
                // Who waits for room is refused in time.
                select(wanted, pin!(self.world.sleep(QUIET))).await;
            } else {
                wanted.await;
            }
            return false;
        };
        let (wanted, quiet) = (pin!(self.disk(disk).reclaim_wanted()), pin!(self.world.sleep(QUIET)));
        if matches!(select(wanted, quiet).await, Either::Left(_)) || garbage() != Some(before) {
            return false;
        }
        // Only this task moves records, so nothing is being moved into what it takes back.
        let _ = self.recall(disk, before.0).await;
        true
    }

    async fn reclaim_extent(
        self: &Rc<Self>,
        disk: u16,
        extent: u32,
        account: Account,
        budget: &Budget,
    ) -> Result<(), ReclaimError> {
        let name = ExtentName { disk: self.disk(disk).id, extent, incarnation: account.incarnation };
        let entries = self.records_of(disk, name).await?;
        if (entries.len() as u64) < account.written.records {
            return Err(ReclaimError::Unclear);
        }
        let (live, complete) = self.live_of(disk, name, &entries).await?;
        if !complete {
            return Err(ReclaimError::Unclear);
        }
        self.recount(disk, name, &entries, &live);
        if !live.is_empty() {
            let left = self.move_records(disk, name, &live, budget).await?;
            if left > 0 {
                return Err(ReclaimError::Damaged);
            }
        }
        self.free_extent(disk, name, &entries).await
    }

    /// All records of an extent, in the order of their offsets.
    async fn records_of(&self, disk: u16, name: ExtentName) -> Result<Vec<FooterEntry>, DeviceError> {
        match self.examine_extent(disk, name).await? {
            Examined::Used(found) if found.header.name == name => {
                let mut entries = found.entries;
                entries.sort_unstable_by_key(|entry| entry.offset);
                Ok(entries)
            }
            // Damaged, or read wrongly on the way.
            _ => Ok(Vec::new()),
        }
    }

    pub(crate) async fn examine_extent(&self, disk: u16, name: ExtentName) -> Result<Examined, DeviceError> {
        let Disk { id, device, extent_bytes, .. } = self.disk(disk);
        let place = ExtentPlace { disk: *id, extent: name.extent, extent_bytes: *extent_bytes };
        examine(&self.world, device, place).await
    }

    /// Those that the index needs, and whether it has no others in this extent.
    pub(crate) async fn live_of(
        &self,
        disk: u16,
        name: ExtentName,
        entries: &[FooterEntry],
    ) -> Result<(Vec<FooterEntry>, bool), LiveError> {
        let mut by_core: BTreeMap<CoreId, Vec<usize>> =
            (0..self.core_count).map(|core| (CoreId(core), Vec::new())).collect();
        let mut live = vec![false; entries.len()];
        let mut complete = true;
        for (at, entry) in entries.iter().enumerate() {
            if let Subject::Blob { blob, .. } = entry.subject {
                by_core.get_mut(&blob.home(self.core_count)).expect("one of the cores").push(at);
            }
        }
        for (core, indexes) in by_core {
            let record = |&at: &usize| {
                let cell = entries[at].subject.cell().expect("only blobs were chosen");
                (cell, entries[at].offset)
            };
            let records = indexes.iter().map(record).collect();
            let ExtentName { extent, incarnation, .. } = name;
            let answer = self.ask_live(core, LiveQuestion { disk, extent, incarnation, records }).await?;
            complete &= answer.complete;
            for (at, is_live) in indexes.into_iter().zip(answer.live) {
                live[at] = is_live;
            }
        }
        let live = entries.iter().zip(live).filter(|(_, live)| *live).map(|(entry, _)| *entry).collect();
        Ok((live, complete))
    }

    async fn ask_live(&self, core: CoreId, question: LiveQuestion) -> Result<LiveAnswer, LiveError> {
        if core == self.core {
            return Ok(self.answer_live(&question));
        }
        let (reply, answer) = oneshot::channel();
        let message = Message::Live { question, reply };
        self.addresses[usize::from(core.0)].send(message).await.map_err(|_| LiveError::Closing)?;
        answer.await.map_err(|_| LiveError::Closing)
    }

    /// Now that it is known how much is dead.
    fn recount(&self, disk: u16, name: ExtentName, entries: &[FooterEntry], live: &[FooterEntry]) {
        let tally = |entries: &[FooterEntry]| {
            let mut tally = Tally::default();
            entries.iter().for_each(|entry| tally.add(1, Place::of(disk, 0, entry).record_bytes()));
            tally
        };
        let (all, live) = (tally(entries), tally(live));
        if let Some(account) = self.space(disk).borrow_mut().accounts.of(name.extent, name.incarnation) {
            account.written = all;
            account.dead = Tally { records: all.records - live.records, bytes: all.bytes - live.bytes };
        }
    }

    /// Copies records and changes their places. How many had to stay because they are damaged.
    async fn move_records(
        self: &Rc<Self>,
        disk: u16,
        name: ExtentName,
        live: &[FooterEntry],
        budget: &Budget,
    ) -> Result<usize, ReclaimError> {
        let walk = Walk::<W> { device: &self.disk(disk).device, name, extent_bytes: self.disk(disk).extent_bytes };
        let mut moves = Vec::with_capacity(live.len());
        let mut failed = Ok(());
        for group in groups(live) {
            if !self.space(disk).borrow().is_low() {
                budget.spend(&self.world, 2 * group.length as u64).await;
            }
            failed = self.copy(disk, &walk, live, &group, &mut moves).await;
            if failed.is_err() {
                break;
            }
        }
        let copied = moves.len();
        // What was copied before something failed is not copied in vain.
        self.flush_disk(disk).await?;
        self.enter_moves(disk, moves).await?;
        failed?;
        Ok(live.len() - copied)
    }

    async fn copy(
        self: &Rc<Self>,
        disk: u16,
        walk: &Walk<'_, W>,
        live: &[FooterEntry],
        group: &Group,
        moves: &mut Vec<Move>,
    ) -> Result<(), ReclaimError> {
        // Room first: who holds a buffer must not wait for an extent, which may wait for a buffer.
        self.make_room(disk, Lane::Moved, group.length, group.entries.len()).await?;
        let buffer = self.world.buffer(Reserve::Progress).await;
        let (mut buffer, headers) = walk.read(live, group, buffer).await?;
        let mut whole = Vec::with_capacity(headers.len());
        for (header, entry) in headers.into_iter().zip(&live[group.entries.clone()]) {
            match header {
                Some(header) => whole.push(header),
                None => {
                    self.note_bad(disk, walk.name, entry);
                    self.space(disk).borrow_mut().reclaimed.damaged_records += 1;
                }
            }
        }
        if whole.is_empty() {
            return Ok(());
        }
        let bytes = compacted_bytes(&whole);
        let slot = self.take_room(disk, Lane::Moved, bytes, whole.len());
        let to = slot.name();
        let moved = compact(&mut buffer, group.start, &whole, to, slot.offset);
        let records: Vec<_> = moved.iter().map(FooterEntry::of).collect();
        slot.write(buffer, records.clone()).await?;
        for (from, to_entry) in whole.iter().zip(&records) {
            let Some(cell) = from.subject.cell() else { continue };
            moves.push(Move {
                cell,
                from: Place::of(disk, walk.name.extent, &FooterEntry::of(from)),
                from_incarnation: walk.name.incarnation,
                to: Place::of(disk, to.extent, to_entry),
                to_incarnation: to.incarnation,
            });
        }
        let reclaimed = &mut self.space(disk).borrow_mut().reclaimed;
        reclaimed.moved_records += records.len() as u64;
        reclaimed.moved_bytes += bytes as u64;
        Ok(())
    }

    /// Tells the blobs' home cores where their cells lie now, after the flush that made them durable there.
    async fn enter_moves(self: &Rc<Self>, disk: u16, moves: Vec<Move>) -> Result<(), ReclaimError> {
        let mut by_core: BTreeMap<CoreId, Vec<Move>> = BTreeMap::new();
        for moved in moves {
            by_core.entry(moved.cell.blob.home(self.core_count)).or_default().push(moved);
        }
        let mut closing = false;
        for (core, moves) in by_core {
            let entered = self.ask_change(core, moves.clone()).await;
            closing |= entered.is_none();
            let entered = entered.unwrap_or_else(|| vec![false; moves.len()]);
            let dead = moves.iter().zip(entered).map(|(moved, entered)| {
                // One of the two copies is dead now.
                let (place, incarnation) =
                    if entered { (moved.from, moved.from_incarnation) } else { (moved.to, moved.to_incarnation) };
                let tally = Tally { records: 1, bytes: place.record_bytes() };
                Dead { extent: place.extent, incarnation, tally }
            });
            self.hear_dead(disk, &dead.collect::<Vec<_>>());
        }
        if closing { Err(ReclaimError::Closing) } else { Ok(()) }
    }

    /// Which of them were changed; nothing when the core is gone.
    async fn ask_change(&self, core: CoreId, moves: Vec<Move>) -> Option<Vec<bool>> {
        if core == self.core {
            return Some(self.change_places(&moves));
        }
        let (reply, answer) = oneshot::channel();
        self.addresses[usize::from(core.0)].send(Message::Moved { moves, reply }).await.ok()?;
        answer.await.ok()
    }

    /// Overwrites the header, durably; then everybody forgets what was there, and the extent may be used again.
    async fn free_extent(
        self: &Rc<Self>,
        disk: u16,
        name: ExtentName,
        entries: &[FooterEntry],
    ) -> Result<(), ReclaimError> {
        let header = ExtentHeader { name, kind: ExtentKind::Free, begun_at: self.world.wall_clock() };
        let at = extent_offset(name.extent, self.disk(disk).extent_bytes);
        self.write_header(disk, at, &header).await?;
        self.flush_disk(disk).await?;
        let mut by_core: Vec<BTreeSet<BlobId>> = vec![BTreeSet::new(); self.core_count.into()];
        for entry in entries {
            if let Subject::Blob { blob, .. } = entry.subject {
                by_core[usize::from(blob.home(self.core_count).0)].insert(blob);
            }
        }
        let free_bytes = self.space(disk).borrow().free_bytes() + u64::from(self.disk(disk).extent_bytes);
        for (core, blobs) in by_core.into_iter().enumerate() {
            let blobs: Vec<_> = blobs.into_iter().collect();
            if core == usize::from(self.core.0) {
                self.forget_extent(disk, name.extent, &blobs, free_bytes);
                continue;
            }
            let (reply, forgotten) = oneshot::channel();
            let message = Message::Freed { disk, extent: name.extent, blobs, free_bytes, reply };
            self.addresses[core].send(message).await.map_err(|_| ReclaimError::Closing)?;
            forgotten.await.map_err(|_| ReclaimError::Closing)?;
        }
        let mut space = self.space(disk).borrow_mut();
        space.take_freed(name.extent);
        space.reclaimed.extents += 1;
        Ok(())
    }

    pub(crate) fn answer_live(&self, question: &LiveQuestion) -> LiveAnswer {
        let LiveQuestion { disk, extent, incarnation, ref records } = *question;
        let index = self.index.borrow();
        let released = self.released.borrow();
        let mut cells = 0;
        let mut is_live = |&(cell, offset): &(CellId, u32)| {
            let here = index.has(cell, disk, extent, offset, incarnation);
            cells += u32::from(here);
            here && !released.contains(cell.blob)
        };
        let live = records.iter().map(&mut is_live).collect();
        LiveAnswer { live, complete: cells == index.cells_in(disk, extent, incarnation) }
    }

    pub(crate) fn change_places(&self, moves: &[Move]) -> Vec<bool> {
        let mut index = self.index.borrow_mut();
        let mut released = self.released.borrow_mut();
        let mut change = |moved: &Move| {
            let changed = !released.contains(moved.cell.blob) && index.replace(moved);
            let copy = if changed { moved.from } else { moved.to };
            released.note_copy(moved.cell.blob, copy.disk, copy.extent);
            changed
        };
        moves.iter().map(&mut change).collect()
    }

    pub(crate) fn forget_extent(&self, disk: u16, extent: u32, blobs: &[BlobId], free_bytes: u64) {
        self.forget_records(disk, extent, blobs);
        self.disk(disk).free_bytes.set(free_bytes);
    }

    pub(crate) fn hear_dead(&self, disk: u16, dead: &[Dead]) {
        let accounts = &mut self.space(disk).borrow_mut().accounts;
        dead.iter().for_each(|dead| accounts.note_dead(*dead));
        self.disk(disk).wake_reclaim();
    }

    pub(crate) fn hear_sealed(&self, disk: u16, sealed: Sealed) {
        self.space(disk).borrow_mut().note_sealed(sealed);
        self.disk(disk).wake_reclaim();
    }
}

/// Why it is not known which records live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LiveError {
    /// A core has closed.
    Closing,
}

impl From<LiveError> for ReclaimError {
    fn from(LiveError::Closing: LiveError) -> Self {
        Self::Closing
    }
}

/// Where the next record of a pack begins: large ones are read by units.
fn aligned(at: usize, header: &RecordHeader) -> usize {
    if header.payload_offset == LARGE_PAYLOAD_OFFSET { in_units(at) } else { at }
}

/// What these records take when they lie behind one another.
fn compacted_bytes(records: &[RecordHeader]) -> usize {
    in_units(records.iter().fold(0, |at, header| aligned(at, header) + header.record_bytes()))
}

/// Moves the records of a buffer that begins with offset `start` of their extent to its beginning, and writes the headers
/// anew for another place. Records only move down, so that none is overwritten before its turn.
fn compact(bytes: &mut [u8], start: usize, records: &[RecordHeader], to: ExtentName, offset: u32) -> Vec<RecordHeader> {
    let mut moved = Vec::with_capacity(records.len());
    let mut at = 0;
    for header in records {
        let from = header.offset as usize - start;
        let target = aligned(at, header);
        assert!(target <= from, "a record moves down");
        let payload = header.payload_offset as usize;
        let end = payload + header.payload_bytes as usize;
        let head = &bytes[from..from + payload];
        let (origin, encryption) = (header.origin(head), header.encryption(head));
        bytes.copy_within(from..from + end, target);
        bytes[at..target].fill(0);
        at = target + header.record_bytes();
        bytes[target + end..at].fill(0);
        let new = header.moved_to(to, offset + u32::try_from(target).expect("within a buffer"));
        let extras = Extras { origin: origin.as_ref(), encryption: encryption.as_ref() };
        new.encode(extras, &mut bytes[target..target + payload]);
        moved.push(new);
    }
    let end = in_units(at);
    bytes[at..end].fill(0);
    moved
}

const _: () = assert!(UNIT_BYTES.is_multiple_of(8), "records are aligned in a unit as in an extent");
