//! The extents that a core fills: opened, appended to, sealed.
//!
//! Invariants:
//! - An extent is appended to by one core, and only behind everything that was ever reserved in it: a unit is written
//!   at most once per life of the extent, but for the header (before the first record) and the footer (after the last).
//! - The header's write completes before the first record's begins.
//! - A write that failed leaves its extent at once: nothing more is appended, and no footer is written.
//! - A footer is written after a flush that began after the last record's write had completed.
//! - A footer that an orderly stop left is overwritten before the next record's write begins.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use anvil_model::format::{
    ExtentHeader, ExtentKind, ExtentName, FooterEntry, UNIT_BYTES, encode_footer, extent_offset, footer_bytes,
};
use anvil_model::ids::CellId;
use anvil_model::io::{Device, DeviceError, Reserve, World};
use anvil_model::limits::RECORD_BYTES_MAX;
use futures_util::future::join_all;
use tokio::sync::oneshot;

use crate::account::{Dead, Tally};
use crate::append::AppendError;
use crate::index::Place;
use crate::mail::Message;
use crate::recall::Heir;
use crate::recover::is_worth_opening;
use crate::space::{ExtentRequest, Grant, Lane, Partial, Refused, Sealed};
use crate::store::{Disk, Inner};

/// True when a write of so many bytes with so many records fits into an extent with this tail, leaving room for the
/// footer.
pub(crate) fn has_room(extent_bytes: u32, tail: u32, entries: usize, bytes: usize, records: usize) -> bool {
    tail as usize + bytes + footer_bytes(entries + records) <= extent_bytes as usize
}

/// An extent that this core fills.
#[derive(Debug)]
pub(crate) struct OpenExtent {
    disk: u16,
    lane: Lane,
    header: ExtentHeader,
    extent_bytes: u32,
    state: RefCell<OpenState>,
}

#[derive(Debug)]
struct OpenState {
    /// Where the next write goes: behind everything reserved so far, in whole units.
    tail: u32,
    /// Records that were reserved, written or not: the footer has room for so many.
    records: usize,
    /// Records that are written.
    entries: Vec<FooterEntry>,
    in_flight: usize,
    stage: Stage,
    /// Who gets it instead of a footer when the writes in flight are done.
    heir: Option<Heir>,
    /// Somebody waited for it and has not used it yet.
    spared: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// Nothing more is reserved; the footer follows when the writes in flight are done.
    Closing,
    /// A write failed, or the footer is under way.
    Done,
}

impl OpenExtent {
    pub(crate) fn resume(disk: u16, lane: Lane, extent_bytes: u32, partial: Partial) -> Rc<Self> {
        let Partial { header, tail, entries, footer: _ } = partial;
        assert!((tail as usize).is_multiple_of(UNIT_BYTES) && tail <= extent_bytes, "a tail at {tail}");
        let state = OpenState {
            tail,
            records: entries.len(),
            entries,
            in_flight: 0,
            stage: Stage::Open,
            heir: None,
            spared: false,
        };
        Rc::new(Self { disk, lane, header, extent_bytes, state: RefCell::new(state) })
    }

    fn has_room(&self, bytes: usize, records: usize) -> bool {
        let state = self.state.borrow();
        state.stage == Stage::Open && has_room(self.extent_bytes, state.tail, state.records, bytes, records)
    }

    /// True when it was opened for somebody who has not used it yet; only once.
    pub(crate) fn is_spared(&self) -> bool {
        std::mem::take(&mut self.state.borrow_mut().spared)
    }

    /// True when it is time to have the next one ready.
    fn is_nearly_full(&self) -> bool {
        self.state.borrow().tail > self.extent_bytes / 4 * 3
    }

    fn offset(&self) -> u64 {
        extent_offset(self.header.name.extent, self.extent_bytes)
    }
}

/// The open extents of one kind on one disk.
#[derive(Debug, Default)]
pub(crate) struct OpenLane {
    current: Option<Rc<OpenExtent>>,
    next: Option<Rc<OpenExtent>>,
    /// Present while the next one is being opened: who waits for it. Bounded by the appends in flight.
    opening: Option<Vec<oneshot::Sender<Result<(), AppendError>>>>,
    /// The home core would not give one ahead of need.
    scarce: bool,
    /// Of a former life; the next one to be opened.
    resumed: Option<Partial>,
}

impl OpenLane {
    /// Where this lane has this life of an extent.
    pub(crate) fn place_of(&mut self, extent: u32, incarnation: u64) -> Option<&mut Option<Rc<OpenExtent>>> {
        [&mut self.current, &mut self.next].into_iter().find(|place| {
            place.as_ref().is_some_and(|open| {
                let name = open.header.name;
                (name.extent, name.incarnation) == (extent, incarnation)
            })
        })
    }
}

/// Room in an extent for one write. Dropped without a word of its success, the room stays a hole.
pub(crate) struct Slot<W: World> {
    inner: Rc<Inner<W>>,
    extent: Rc<OpenExtent>,
    /// Where it begins, in bytes from the extent's beginning.
    pub(crate) offset: u32,
    bytes: usize,
}

impl<W: World> Slot<W> {
    pub(crate) fn name(&self) -> ExtentName {
        self.extent.header.name
    }

    /// The extent's place in the metadata log.
    pub(crate) fn log_sequence(&self) -> u64 {
        match self.extent.header.kind {
            ExtentKind::Log { sequence } => sequence,
            ExtentKind::Data | ExtentKind::Free => panic!("a data extent in the lane of the log"),
        }
    }

    /// Writes the room's bytes from the beginning of `buffer`, and enters the records when that succeeds. Goes on when
    /// nobody waits any more: a device that still wrote to an extent that is in its next life would destroy it.
    pub(crate) fn write(self, buffer: W::Buffer, records: Vec<FooterEntry>) -> Finish<W> {
        let inner = Rc::clone(&self.inner);
        Finish { inner, task: Some(Box::pin(self.write_here(buffer, records))) }
    }

    async fn write_here(self, buffer: W::Buffer, records: Vec<FooterEntry>) -> Result<(), AppendError> {
        let disk = self.inner.disk(self.extent.disk);
        let at = self.extent.offset() + u64::from(self.offset);
        let (written, buffer) = disk.device.write(at, buffer, 0..self.bytes).await;
        drop(buffer);
        match written {
            Ok(()) => self.enter(&records),
            Err(error) => {
                self.extent.state.borrow_mut().stage = Stage::Done;
                tracing::warn!(disk = %disk.id, extent = self.extent.header.name.extent, %error, "a write failed");
                self.inner.note_write_failed(self.extent.disk, error);
                return Err(if error == DeviceError::NoSpace { AppendError::Full } else { error.into() });
            }
        }
        Ok(())
    }

    fn enter(&self, records: &[FooterEntry]) {
        let ExtentName { extent, incarnation, .. } = self.extent.header.name;
        self.extent.state.borrow_mut().entries.extend_from_slice(records);
        for record in records {
            let place = Place::of(self.extent.disk, extent, record);
            let Some(cell) = record.subject.cell() else { continue };
            // What was moved is entered when it is durable, on the blob's home core.
            if self.extent.lane != Lane::Moved {
                self.inner.enter_cell(cell, incarnation, place);
            }
        }
        self.inner.disk(self.extent.disk).write_failures.set(0);
        let counters = &self.inner.disk(self.extent.disk).counters;
        counters.appends.set(counters.appends.get() + records.len() as u64);
        counters.appended_bytes.set(counters.appended_bytes.get() + self.bytes as u64);
        counters.writes.set(counters.writes.get() + 1);
    }
}

/// A write as far as it has come.
type Writing = Pin<Box<dyn Future<Output = Result<(), AppendError>>>>;

/// A write that goes on by itself when it is dropped before its end.
pub(crate) struct Finish<W: World> {
    inner: Rc<Inner<W>>,
    task: Option<Writing>,
}

impl<W: World> Future for Finish<W> {
    type Output = Result<(), AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.task.as_mut().expect("not polled behind its end");
        let outcome = ready!(task.as_mut().poll(context));
        self.task = None;
        Poll::Ready(outcome)
    }
}

impl<W: World> Drop for Finish<W> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            self.inner.start(async move {
                let _ = task.await;
            });
        }
    }
}

impl<W: World> Drop for Slot<W> {
    fn drop(&mut self) {
        self.extent.state.borrow_mut().in_flight -= 1;
        self.inner.seal_when_done(&self.extent);
    }
}

impl<W: World> Inner<W> {
    /// Room for one write; opens the next extent when the current one is full.
    pub(crate) async fn reserve(
        self: &Rc<Self>,
        disk: u16,
        lane: Lane,
        bytes: usize,
        records: usize,
    ) -> Result<Slot<W>, AppendError> {
        let lane = self.make_room_or_share(disk, lane, bytes, records).await?;
        Ok(self.take_room(disk, lane, bytes, records))
    }

    /// Like [`Self::make_room`]; on a full disk blobs of one lane take what is left in the extent of the other. Which lane
    /// has the room.
    pub(crate) async fn make_room_or_share(
        self: &Rc<Self>,
        disk: u16,
        lane: Lane,
        bytes: usize,
        records: usize,
    ) -> Result<Lane, AppendError> {
        let made = self.make_room(disk, lane, bytes, records).await;
        let other = match lane {
            Lane::Large => Some(Lane::Small),
            Lane::Small => Some(Lane::Large),
            Lane::Moved | Lane::Log => None,
        };
        match (made, other) {
            (Err(AppendError::Full), Some(other)) if self.has_room(disk, other, bytes, records) => Ok(other),
            (made, _) => made.map(|()| lane),
        }
    }

    /// Sees to it that the current extent has so much room at this moment.
    pub(crate) async fn make_room(
        self: &Rc<Self>,
        disk: u16,
        lane: Lane,
        bytes: usize,
        records: usize,
    ) -> Result<(), AppendError> {
        loop {
            if let Some(error) = self.disk(disk).failed.get() {
                return Err(error.into());
            }
            if self.advance(disk, lane, bytes, records) {
                return Ok(());
            }
            self.next_extent(disk, lane).await?;
        }
    }

    /// True when the current extent has so much room.
    pub(crate) fn has_room(&self, disk: u16, lane: Lane, bytes: usize, records: usize) -> bool {
        let lane = self.disk(disk).lane(lane).borrow();
        lane.current.as_ref().is_some_and(|extent| extent.has_room(bytes, records))
    }

    /// Takes room that is there.
    pub(crate) fn take_room(self: &Rc<Self>, disk: u16, lane: Lane, bytes: usize, records: usize) -> Slot<W> {
        assert!(
            bytes.is_multiple_of(UNIT_BYTES) && (1..=RECORD_BYTES_MAX).contains(&bytes),
            "a write of {bytes} bytes"
        );
        let extent = {
            let lane = self.disk(disk).lane(lane).borrow();
            Rc::clone(lane.current.as_ref().expect("an extent with room is open"))
        };
        assert!(extent.has_room(bytes, records), "the room was there");
        let offset = {
            let mut state = extent.state.borrow_mut();
            let offset = state.tail;
            state.tail += u32::try_from(bytes).expect("at most a buffer");
            state.records += records;
            state.in_flight += 1;
            state.spared = false;
            offset
        };
        let free_bytes = &self.disk(disk).free_bytes;
        free_bytes.set(free_bytes.get().saturating_sub(bytes as u64));
        let ahead = {
            let lane = self.disk(disk).lane(lane).borrow();
            extent.is_nearly_full() && lane.next.is_none() && lane.opening.is_none() && !lane.scarce
        };
        if ahead {
            self.open_next(disk, lane, false);
        }
        Slot { inner: Rc::clone(self), extent, offset, bytes }
    }

    /// Goes on with an extent of a former life.
    pub(crate) fn resume_extent(&self, disk: u16, lane: Lane, partial: Partial) {
        let mut lane = self.disk(disk).lane(lane).borrow_mut();
        assert!(lane.current.is_none() && lane.next.is_none(), "nothing is open yet");
        lane.resumed = Some(partial);
    }

    /// Moves on to the next extent if the current one has no room; true when there is room then.
    fn advance(self: &Rc<Self>, disk: u16, lane: Lane, bytes: usize, records: usize) -> bool {
        let full = {
            let mut lane = self.disk(disk).lane(lane).borrow_mut();
            if lane.current.as_ref().is_some_and(|extent| extent.has_room(bytes, records)) {
                return true;
            }
            let Some(next) = lane.next.take() else {
                return false;
            };
            lane.scarce = false;
            lane.current.replace(next)
        };
        if let Some(full) = full {
            self.close_extent(&full);
        }
        self.has_room(disk, lane, bytes, records)
    }

    /// Waits until the next extent is open. The opening is a task of its own: whoever waits may be cancelled.
    async fn next_extent(self: &Rc<Self>, disk: u16, lane: Lane) -> Result<(), AppendError> {
        let (sender, opened) = oneshot::channel();
        if self.disk(disk).lane(lane).borrow().opening.is_none() {
            self.open_next(disk, lane, true);
        }
        self.disk(disk).lane(lane).borrow_mut().opening.as_mut().expect("just begun").push(sender);
        opened.await.unwrap_or(Err(AppendError::Device(DeviceError::Gone)))
    }

    fn open_next(self: &Rc<Self>, disk: u16, lane: Lane, urgent: bool) {
        self.disk(disk).lane(lane).borrow_mut().opening = Some(Vec::new());
        let inner = Rc::clone(self);
        self.start(async move {
            let mut opened = inner.open_extent(disk, lane, urgent).await;
            let somebody_waits = || {
                let lane = inner.disk(disk).lane(lane).borrow();
                lane.opening.as_ref().is_some_and(|waiting| !waiting.is_empty())
            };
            if opened.as_ref().is_err_and(|refused| *refused == Refused::Scarce) && somebody_waits() {
                opened = inner.open_extent(disk, lane, true).await;
            }
            let mut open = inner.disk(disk).lane(lane).borrow_mut();
            let waiting = open.opening.take().expect("set until here");
            let answer = match opened {
                Ok(extent) => {
                    assert!(open.next.is_none(), "one extent is opened at a time");
                    open.next = Some(extent);
                    Ok(())
                }
                Err(Refused::Scarce) => {
                    open.scarce = true;
                    Err(AppendError::Full)
                }
                Err(Refused::Full) => {
                    inner.disk(disk).free_bytes.set(0);
                    Err(AppendError::Full)
                }
                Err(Refused::Device(error)) => Err(error.into()),
            };
            drop(open);
            for waiter in waiting {
                // Who was cancelled does not wait any more.
                let _ = waiter.send(answer);
            }
        });
    }

    async fn open_extent(self: &Rc<Self>, disk: u16, lane: Lane, urgent: bool) -> Result<Rc<OpenExtent>, Refused> {
        let resumed = self.disk(disk).lane(lane).borrow_mut().resumed.take();
        if let Some(partial) = resumed {
            let partial = self.reopen_extent(disk, partial).await;
            let partial = partial.map_err(|error| self.refused_by_device(disk, error))?;
            return Ok(OpenExtent::resume(disk, lane, self.disk(disk).extent_bytes, partial));
        }
        let (reply, granted) = oneshot::channel();
        let request = ExtentRequest { core: self.core, lane, urgent, reply };
        let home = self.disk_home(disk);
        if home == self.core {
            self.request_extent(disk, request);
        } else if self.addresses[usize::from(home.0)].send(Message::Extent { disk, request }).await.is_err() {
            return Err(Refused::Device(DeviceError::Gone));
        }
        let grant = granted.await.unwrap_or(Err(Refused::Device(DeviceError::Gone)))?;
        self.disk(disk).free_bytes.set(grant.free_bytes);
        let partial = match grant.partial {
            Some(partial) => self.reopen_extent(disk, partial).await,
            None => self.begin_extent(disk, lane, &grant).await,
        };
        let partial = partial.map_err(|error| self.refused_by_device(disk, error))?;
        let open = OpenExtent::resume(disk, lane, self.disk(disk).extent_bytes, partial);
        open.state.borrow_mut().spared = grant.urgent;
        Ok(open)
    }

    fn refused_by_device(self: &Rc<Self>, disk: u16, error: DeviceError) -> Refused {
        self.note_write_failed(disk, error);
        Refused::Device(error)
    }

    /// Writes the header of a free extent. When that fails, the extent is left alone until the next start.
    async fn begin_extent(&self, disk: u16, lane: Lane, grant: &Grant) -> Result<Partial, DeviceError> {
        let kind = match lane {
            Lane::Large | Lane::Small | Lane::Moved => ExtentKind::Data,
            Lane::Log => {
                self.log_sequence.set(self.log_sequence.get() + 1);
                ExtentKind::Log { sequence: self.log_sequence.get() }
            }
        };
        let Disk { id, extent_bytes, .. } = self.disk(disk);
        let name = ExtentName { disk: *id, extent: grant.extent, incarnation: grant.incarnation };
        let header = ExtentHeader { name, kind, begun_at: self.world.wall_clock() };
        let at = extent_offset(grant.extent, *extent_bytes);
        if grant.recycled {
            // Instead of the former life's footer: what says whose the records are when the header is lost.
            self.write_header(disk, at + u64::from(*extent_bytes) - UNIT_BYTES as u64, &header).await?;
        }
        self.write_header(disk, at, &header).await?;
        Ok(Partial { header, tail: UNIT_BYTES as u32, entries: Vec::new(), footer: false })
    }

    /// Overwrites the footer that an orderly stop left, before the first record that it does not name; the end of it first,
    /// without which it is none. When that fails, the extent is left alone until the next start.
    async fn reopen_extent(&self, disk: u16, partial: Partial) -> Result<Partial, DeviceError> {
        if !partial.footer {
            return Ok(partial);
        }
        let Disk { device, extent_bytes, .. } = self.disk(disk);
        let begins = extent_offset(partial.header.name.extent, *extent_bytes);
        let start = *extent_bytes as usize - footer_bytes(partial.entries.len());
        let mut end = *extent_bytes as usize;
        while end > start {
            let from = start.max(end.saturating_sub(RECORD_BYTES_MAX));
            let length = end - from;
            let mut buffer = self.world.buffer(Reserve::Progress).await;
            buffer[..length].fill(0);
            if end == *extent_bytes as usize {
                // Says whose the records are when the header is lost.
                partial.header.encode(&mut buffer[length - UNIT_BYTES..length]);
            }
            let (written, buffer) = device.write(begins + from as u64, buffer, 0..length).await;
            drop(buffer);
            written?;
            end = from;
        }
        Ok(Partial { footer: false, ..partial })
    }

    /// A cell of a blob whose home is here was written. Where it was before, because it was given up or is bad there, is
    /// a copy that nobody needs.
    fn enter_cell(self: &Rc<Self>, cell: CellId, incarnation: u64, place: Place) {
        let dead = |place: Place, incarnation| {
            let tally = Tally { records: 1, bytes: place.record_bytes() };
            (place.disk, Dead { extent: place.extent, incarnation, tally })
        };
        let (disk, dead) = if self.released.borrow().contains(cell.blob) {
            if !self.index.borrow_mut().insert(cell, incarnation, place) {
                self.released.borrow_mut().note_copy(cell.blob, place.disk, place.extent);
            }
            dead(place, incarnation)
        } else {
            let Some((before, life)) = self.index.borrow_mut().put(cell, incarnation, place) else { return };
            self.released.borrow_mut().note_copy(cell.blob, before.disk, before.extent);
            dead(before, life)
        };
        self.note_dead(disk, dead);
    }

    pub(crate) async fn write_header(&self, disk: u16, at: u64, header: &ExtentHeader) -> Result<(), DeviceError> {
        let mut buffer = self.world.buffer(Reserve::Progress).await;
        header.encode(&mut buffer[..UNIT_BYTES]);
        let (written, buffer) = self.disk(disk).device.write(at, buffer, 0..UNIT_BYTES).await;
        drop(buffer);
        written
    }

    /// Nothing more goes into this extent.
    pub(crate) fn close_extent(self: &Rc<Self>, extent: &Rc<OpenExtent>) {
        {
            let mut state = extent.state.borrow_mut();
            if state.stage == Stage::Open {
                state.stage = Stage::Closing;
            }
        }
        self.seal_when_done(extent);
    }

    /// Nothing more goes into this extent here; whoever waits for it goes on with it.
    pub(crate) fn hand_over(self: &Rc<Self>, extent: &Rc<OpenExtent>, heir: Heir) {
        extent.state.borrow_mut().heir = Some(heir);
        self.close_extent(extent);
    }

    fn seal_when_done(self: &Rc<Self>, extent: &Rc<OpenExtent>) {
        {
            let mut state = extent.state.borrow_mut();
            if state.stage != Stage::Closing || state.in_flight > 0 {
                return;
            }
            state.stage = Stage::Done;
            if let Some(heir) = state.heir.take() {
                let entries = std::mem::take(&mut state.entries);
                let partial = Partial { header: extent.header, tail: state.tail, entries, footer: false };
                match heir.send(Ok(partial)) {
                    Err(Ok(unwanted)) => state.entries = unwanted.entries,
                    _ => return,
                }
            }
        }
        let (inner, extent) = (Rc::clone(self), Rc::clone(extent));
        self.start(async move {
            if let Err(error) = inner.seal(&extent).await {
                // The next start reads the extent instead.
                tracing::warn!(extent = extent.header.name.extent, %error, "an extent got no footer");
            }
        });
    }

    /// Writes the footer of an extent that nothing more goes into.
    pub(crate) async fn seal(self: &Rc<Self>, extent: &OpenExtent) -> Result<(), DeviceError> {
        let written = self.write_footer(extent, 0).await?;
        let ExtentName { extent: number, incarnation, .. } = extent.header.name;
        self.tell_sealed(extent.disk, Sealed { extent: number, incarnation, written }).await;
        Ok(())
    }

    /// Gives every extent that is open here a footer, so that the next start need not read it. Nothing is written any more
    /// in this life. One that gets none is read.
    pub(crate) async fn leave_extents(self: &Rc<Self>) {
        let mut open = Vec::new();
        for disk in (0..self.disk_count()).filter(|&disk| self.disk(disk).failed.get().is_none()) {
            let mut partial = self.unclaimed_partials(disk);
            for lane in Lane::ALL {
                let mut lane = self.disk(disk).lane(lane).borrow_mut();
                open.extend(lane.current.take());
                open.extend(lane.next.take());
                partial.extend(lane.resumed.take());
            }
            let unread = partial.into_iter().filter(|partial| !partial.footer);
            open.extend(unread.map(|p| OpenExtent::resume(disk, Lane::Large, self.disk(disk).extent_bytes, p)));
        }
        join_all(open.iter().map(|extent| self.leave_extent(extent))).await;
    }

    async fn leave_extent(self: &Rc<Self>, extent: &OpenExtent) {
        let (tail, records) = {
            let state = extent.state.borrow();
            if state.stage != Stage::Open || state.in_flight > 0 {
                return;
            }
            (state.tail, state.entries.len())
        };
        let tail = if is_worth_opening(extent.extent_bytes, tail, records) { tail } else { 0 };
        if let Err(error) = self.write_footer(extent, tail).await {
            tracing::warn!(extent = extent.header.name.extent, %error, "an open extent got no footer");
        }
    }

    /// Writes the footer, which says that appends may go on at `tail` if that is not 0.
    async fn write_footer(self: &Rc<Self>, extent: &OpenExtent, tail: u32) -> Result<Tally, DeviceError> {
        self.flush_disk(extent.disk).await?;
        let mut entries = std::mem::take(&mut extent.state.borrow_mut().entries);
        entries.sort_unstable_by_key(|entry| entry.offset);
        let mut written = Tally::default();
        entries.iter().for_each(|entry| written.add(1, Place::of(extent.disk, 0, entry).record_bytes()));
        let footer = encode_footer(&extent.header, &entries, tail);
        let start = extent.extent_bytes as usize - footer.len();
        assert!(extent.state.borrow().tail as usize <= start, "room was kept for the footer");
        for (index, chunk) in footer.chunks(RECORD_BYTES_MAX).enumerate() {
            let mut buffer = self.world.buffer(Reserve::Progress).await;
            buffer[..chunk.len()].copy_from_slice(chunk);
            let at = extent.offset() + (start + index * RECORD_BYTES_MAX) as u64;
            let (result, buffer) = self.disk(extent.disk).device.write(at, buffer, 0..chunk.len()).await;
            drop(buffer);
            result?;
        }
        Ok(written)
    }

    /// Tells the home of the disk. A core that has closed counts anew at its next start.
    async fn tell_sealed(self: &Rc<Self>, disk: u16, sealed: Sealed) {
        let home = self.disk_home(disk);
        if home == self.core {
            self.hear_sealed(disk, sealed);
        } else {
            let _ = self.addresses[usize::from(home.0)].send(Message::Sealed { disk, sealed }).await;
        }
    }
}
