//! One core's share of the disks: opened, asked for figures, closed.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;

use anvil_model::format::{KeyRing, Roster};
use anvil_model::ids::{BlobId, CoreId, DiskId, Incarnation, NodeId};
use anvil_model::io::{Device, DeviceError, Task, World};
use anvil_model::limits::ROSTER_DISKS_MAX;
use futures_util::future::{join_all, select};
use tokio::sync::{Mutex, MutexGuard, Notify, mpsc, oneshot};

use crate::chore::Chore;
use crate::extent::{OpenExtent, OpenLane};
use crate::flush::Flusher;
use crate::index::Index;
use crate::join::Arrival;
use crate::mail::{Mail, Message, serve};
use crate::pack::Packer;
use crate::reclaim::ReclaimOptions;
use crate::recover::{DiskShare, Share, Start};
use crate::release::Released;
use crate::scrub::{BadRecord, ScrubOptions, Scrubbed};
use crate::space::{Lane, Partial, Reclaimed, Space};

/// EROFS of errno(3): the file system takes no write any more.
const READ_ONLY_FILE_SYSTEM: i32 = 30;
/// Writes in a row that fail on one core, after which it is the disk that fails.
const WRITE_FAILURES_MAX: u32 = 3;

/// One core's share of the node's disks. Cheap to clone; clones are the same store.
pub struct Store<W: World> {
    pub(crate) inner: Rc<Inner<W>>,
}

impl<W: World> Clone for Store<W> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

/// What all clones of a core's store share.
pub(crate) struct Inner<W: World> {
    pub(crate) world: W,
    pub(crate) core: CoreId,
    pub(crate) core_count: u16,
    pub(crate) index: RefCell<Index>,
    pub(crate) released: RefCell<Released>,
    /// What all disks that hold something encrypted are to keep.
    pub(crate) keys: KeyRing,
    /// On the disks whose home is here.
    pub(crate) bad_records: RefCell<VecDeque<BadRecord>>,
    /// The mailboxes of all cores; this one's own is never written to.
    pub(crate) addresses: Vec<mpsc::Sender<Message>>,
    /// The sequence of the newest extent of the metadata log, on the core that writes it.
    pub(crate) log_sequence: Cell<u64>,
    /// Which start of the node this is.
    pub(crate) start: Start,
    /// The disks of this life, one behind the other; those behind them come while it runs, and none goes.
    disks: Box<[OnceCell<Disk<W>>]>,
    disk_count: Cell<u16>,
    ordinals: RefCell<BTreeMap<DiskId, u16>>,
    /// How the disks whose home is here are kept, once that was said: for those that come later.
    pub(crate) reclaim: Cell<Option<ReclaimOptions>>,
    pub(crate) scrub: RefCell<Option<(ScrubOptions, Chore)>>,
    writer: Cell<Option<(NodeId, Incarnation)>>,
    blobs_drawn: Cell<u64>,
    /// Appends and tasks of this store that run.
    busy: Cell<usize>,
    closing: Cell<bool>,
    /// Other cores that have closed.
    closed: RefCell<BTreeSet<CoreId>>,
    /// Rung when `busy` falls to 0 or `closed` grows.
    changed: Notify,
    service: RefCell<Option<W::Task>>,
    /// What runs for nobody in particular; ends when the store closes.
    background: RefCell<Vec<W::Task>>,
}

/// One core's view of a disk.
pub(crate) struct Disk<W: World> {
    pub(crate) id: DiskId,
    pub(crate) device: W::Device,
    pub(crate) extent_bytes: u32,
    pub(crate) packer: RefCell<Packer>,
    /// What blobs can take, as far as this core knows: said by the home core with each extent, less what went there since.
    pub(crate) free_bytes: Cell<u64>,
    /// Set when a flush failed, the disk is gone or out of use: nothing is written to it. Only [`DeviceError::Offline`] is
    /// ever taken back.
    pub(crate) failed: Cell<Option<DeviceError>>,
    /// Writes that failed since one succeeded.
    pub(crate) write_failures: Cell<u32>,
    pub(crate) counters: Counters,
    /// The features that its superblock names, as far as this core knows: what may be written to it at once.
    pub(crate) allowed: Cell<u64>,
    /// What it brings along, until it is taken into use.
    pub(crate) arrival: RefCell<Option<Arrival>>,
    large: RefCell<OpenLane>,
    small: RefCell<OpenLane>,
    moved: RefCell<OpenLane>,
    log: RefCell<OpenLane>,
    home: Option<Home>,
}

/// What only a disk's home core has.
struct Home {
    space: RefCell<Space>,
    flusher: RefCell<Flusher>,
    /// Held by whoever changes the superblock.
    superblock: Mutex<()>,
    /// Rung when there may be something to reclaim.
    reclaim: Notify,
}

/// What this core did with a disk since its start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appends: Cell<u64>,
    pub(crate) appended_bytes: Cell<u64>,
    pub(crate) writes: Cell<u64>,
}

/// One core's figures; see [`Store::stats`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries of the index on this core.
    pub index_entries: u64,
    /// Memory of these entries.
    pub index_bytes: u64,
    /// Blobs that were released and are not gone yet.
    pub released_blobs: u64,
    /// Blobs that have cells at more than one place, and wait for [`Store::settle`].
    pub contested_blobs: u64,
    /// Per disk, in the order given at open.
    pub disks: Vec<DiskStats>,
}

/// One core's figures of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskStats {
    /// Which.
    pub disk: DiskId,
    /// Appends (windows, small blobs, log records) that completed on this core since its start.
    pub appends: u64,
    /// Bytes that these wrote, headers and padding included.
    pub appended_bytes: u64,
    /// Device writes that these took.
    pub writes: u64,
    /// The disk as a whole; only on the disk's home core.
    pub space: Option<DiskSpace>,
    /// The error after which nothing more is written to this disk in this life.
    pub failed: Option<DeviceError>,
}

/// A disk as a place for new cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskView {
    /// Which.
    pub id: DiskId,
    /// What blobs can still take, as far as this core knows.
    pub free_bytes: u64,
    /// What the disk may grow to.
    pub capacity_bytes: u64,
    /// Whether it takes writes.
    pub state: DiskState,
}

/// Whether a disk takes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskState {
    /// It does, or may be full.
    Online,
    /// It takes none until the next start, because of this error. It may still be read.
    Failed(DeviceError),
}

/// The space of a disk and who uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// What the disk may grow to.
    pub capacity_bytes: u64,
    /// Taken from the file system or device so far.
    pub prepared_bytes: u64,
    /// Bytes in extents that hold or may hold records.
    pub used_bytes: u64,
    /// Prepared extents.
    pub extents: u64,
    /// Of these, those that are free.
    pub free_extents: u64,
    /// Writers that wait for room at this moment.
    pub waiting: u64,
    /// Flushes of the device since start.
    pub flushes: u64,
    /// Requests that these served: several that wait together share one.
    pub flush_requests: u64,
    /// Extents that take no more appends; the others in use are open, or of the metadata log.
    pub sealed_extents: u64,
    /// Bytes of the records in sealed extents that are needed, as far as this core has heard.
    pub live_bytes: u64,
    /// Bytes of those that are not.
    pub dead_bytes: u64,
    /// What reclaim did since start.
    pub reclaimed: Reclaimed,
    /// What scrub did since start.
    pub scrubbed: Scrubbed,
}

impl<W: World> Store<W> {
    /// Opens this core's share: `devices` are the disks given to [`recover`](crate::recover()), opened on this core; of
    /// those that it left out nothing is needed. Starts the task that answers the other cores; it runs until [`Self::close`].
    ///
    /// # Panics
    /// When share, mail, devices and world are not of one core of one start.
    #[must_use]
    pub fn open(world: W, devices: Vec<(DiskId, W::Device)>, share: Share, mail: Mail) -> Self {
        let Share { core, core_count, start, index, copies, damaged, keys, disks } = share;
        let Mail { core: mail_core, mailbox, addresses } = mail;
        assert_eq!((core, core_count), (world.core(), world.core_count()), "a share is opened on its core");
        assert_eq!((mail_core, addresses.len()), (core, core_count.into()), "a core has its own mailbox");
        let mut devices: BTreeMap<DiskId, W::Device> = devices.into_iter().collect();
        let opened = disks.into_iter().map(|share| {
            let device = devices.remove(&share.id).expect("all disks are opened on every core, and their ids differ");
            Disk::<W>::new(share, device, core_count)
        });
        let opened: Vec<_> = opened.collect();
        let inner = Rc::new(Inner {
            world,
            core,
            core_count,
            index: RefCell::new(index),
            released: RefCell::new(Released::with_copies(copies)),
            keys,
            bad_records: RefCell::new(damaged),
            addresses,
            log_sequence: Cell::new(0),
            start,
            disks: std::iter::repeat_with(OnceCell::new).take(DISKS_MAX).collect(),
            disk_count: Cell::new(0),
            ordinals: RefCell::default(),
            reclaim: Cell::new(None),
            scrub: RefCell::new(None),
            writer: Cell::new(None),
            blobs_drawn: Cell::new(0),
            busy: Cell::new(0),
            closing: Cell::new(false),
            closed: RefCell::default(),
            changed: Notify::new(),
            service: RefCell::new(None),
            background: RefCell::default(),
        });
        let service = inner.world.spawn(serve(Rc::clone(&inner), mailbox));
        *inner.service.borrow_mut() = Some(service);
        for (disk, full) in opened {
            let ordinal = inner.push_disk(disk);
            inner.close_full(ordinal, full);
        }
        for ordinal in inner.disks_at_home() {
            inner.serve_space(ordinal);
            inner.bring_keys(ordinal);
        }
        Self { inner }
    }

    /// Says whose blobs this store writes from now on. Once, on every core, before the first [`Self::new_blob`].
    ///
    /// # Panics
    /// When it was said before.
    pub fn set_writer(&self, node: NodeId, incarnation: Incarnation) {
        let before = self.inner.writer.replace(Some((node, incarnation)));
        assert_eq!(before, None, "a life has one incarnation");
    }

    /// A new blob id, at home on this core.
    ///
    /// # Panics
    /// Before [`Self::set_writer`].
    #[must_use]
    pub fn new_blob(&self) -> BlobId {
        let inner = &self.inner;
        let (node, incarnation) = inner.writer.get().expect("the writer is set before the first blob");
        let drawn = inner.blobs_drawn.get();
        inner.blobs_drawn.set(drawn + 1);
        let sequence = drawn * u64::from(inner.core_count) + u64::from(inner.core.0);
        let blob = BlobId { node, incarnation, sequence };
        assert_eq!(blob.home(inner.core_count), inner.core);
        blob
    }

    /// The disk that a new blob should go to: the one with the most free space, as far as this core knows.
    ///
    /// # Panics
    /// When there is no disk.
    #[must_use]
    pub fn place(&self) -> DiskId {
        let first = self.inner.disks_by_room()[0];
        self.inner.disk(first).id
    }

    /// All disks in the order given at open, as this core knows them.
    #[must_use]
    pub fn disks(&self) -> Vec<DiskView> {
        let view = |disk: &Disk<W>| DiskView {
            id: disk.id,
            free_bytes: disk.free_bytes.get(),
            capacity_bytes: disk.device.geometry().capacity_bytes_max,
            state: disk.failed.get().map_or(DiskState::Online, DiskState::Failed),
        };
        self.inner.disks().map(view).collect()
    }

    /// Makes all appends that completed before this call durable on these disks, together with the flushes that
    /// other cores want at this moment. After a flush that failed, every later one of that disk fails, and every append:
    /// nobody can say what became of the writes before it, until the next start reads them.
    ///
    /// # Errors
    /// When a flush fails: then nothing that it would have covered may be acknowledged.
    pub async fn flush(&self, disks: &[DiskId]) -> Result<(), DeviceError> {
        self.flush_each(disks).await.into_iter().collect()
    }

    /// Like [`Self::flush`]; says of each of the disks, in their order, whether its flush succeeded.
    pub async fn flush_each(&self, disks: &[DiskId]) -> Vec<Result<(), DeviceError>> {
        let flush = async |&disk: &DiskId| self.inner.flush_disk(self.inner.find_disk(disk)?).await;
        join_all(disks.iter().map(flush)).await
    }

    /// Takes a disk out of use on this core: nothing more is written to it, and what it holds is read. A write or flush that
    /// is under way ends as it ends; those after it fail as on a disk that failed. Changes nothing about one that did.
    ///
    /// # Panics
    /// When it is none of this node's disks.
    pub fn set_offline(&self, disk: DiskId) {
        let failed = &self.inner.disk(self.inner.ordinal(disk)).failed;
        failed.set(failed.get().or(Some(DeviceError::Offline)));
    }

    /// Uses a disk on this core again that was taken out of use. No flush was lost meanwhile: none was begun, and the next
    /// one covers what was written before.
    ///
    /// # Errors
    /// The error of a disk that failed: it takes no writes until the next start.
    ///
    /// # Panics
    /// When it is none of this node's disks.
    pub fn set_online(&self, disk: DiskId) -> Result<(), DeviceError> {
        let disk = self.inner.disk(self.inner.ordinal(disk));
        match disk.failed.get() {
            // It is taken into use by `open_disk`.
            Some(error) if disk.arrival.borrow().is_some() => Err(error),
            None | Some(DeviceError::Offline) => {
                disk.failed.set(None);
                if disk.home.is_some() {
                    disk.wake_reclaim();
                }
                Ok(())
            }
            Some(error) => Err(error),
        }
    }

    /// Writes down, on the disks whose home is here, which disks belong to the node: durable when this returns, but for
    /// the disks that it gives. Once on every core.
    ///
    /// # Panics
    /// When there are more than [`ROSTER_DISKS_MAX`].
    pub async fn enroll(&self, roster: &Roster) -> Vec<(DiskId, DeviceError)> {
        let inner = &self.inner;
        assert!(roster.disks.len().max(roster.lost.len()) <= ROSTER_DISKS_MAX, "a roster has room for so many");
        let enroll = async |disk| (inner.disk(disk).id, inner.enroll(disk, roster.clone()).await);
        let outcomes = join_all(inner.disks_at_home().map(enroll)).await;
        outcomes.into_iter().filter_map(|(disk, outcome)| Some((disk, outcome.err()?))).collect()
    }

    /// What this core knows of the store at this moment; the node's figures are the sums over its cores.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let index = self.inner.index.borrow();
        let disks = self.inner.disks().map(Disk::stats).collect();
        let released_blobs = self.inner.released.borrow().waiting();
        let contested_blobs = index.contested_count() as u64;
        Stats { index_entries: index.entries(), index_bytes: index.bytes(), released_blobs, contested_blobs, disks }
    }

    /// Ends this store: refuses new appends, waits for those that run, gives the open extents footers, flushes, serves the
    /// other cores until they have closed too, and marks the disks whose home is here clean. Call it on all cores at the same time.
    pub async fn close(&self) {
        let inner = &self.inner;
        inner.closing.set(true);
        inner.background.borrow_mut().clear();
        for disk in inner.disks_at_home() {
            // Nobody makes room any more: who waits for it is refused.
            inner.space(disk).borrow_mut().reclaiming = false;
            inner.serve_space(disk);
        }
        inner.idle().await;
        inner.leave_extents().await;
        for disk in 0..inner.disk_count() {
            if let Err(error) = inner.flush_disk(disk).await {
                tracing::warn!(disk = %inner.disk(disk).id, %error, "the last flush failed");
            }
        }
        let others = || (0..inner.core_count).map(CoreId).filter(|&core| core != inner.core);
        for core in others() {
            inner.say_closed(core).await;
        }
        let mut all = true;
        for core in others() {
            all &= inner.wait_closed(core).await;
        }
        inner.idle().await;
        for disk in inner.disks_at_home() {
            if all
                && inner.disk(disk).failed.get().is_none()
                && let Err(error) = inner.mark_clean(disk).await
            {
                tracing::warn!(disk = %inner.disk(disk).id, %error, "the disk could not be marked clean");
            }
        }
        inner.service.borrow_mut().take();
    }
}

impl<W: World> Inner<W> {
    /// All disks: those that take writes first, of these those with the most room, as far as this core knows.
    pub(crate) fn disks_by_room(&self) -> Vec<u16> {
        let mut disks: Vec<_> = (0..self.disk_count()).collect();
        disks.sort_by_key(|&disk| {
            let disk = self.disk(disk);
            (disk.failed.get().is_some(), std::cmp::Reverse(disk.free_bytes.get()))
        });
        disks
    }

    pub(crate) fn disk_count(&self) -> u16 {
        self.disk_count.get()
    }

    pub(crate) fn disk(&self, ordinal: u16) -> &Disk<W> {
        self.disks[usize::from(ordinal)].get().expect("every core has a disk before any core names it")
    }

    pub(crate) fn disks(&self) -> impl Iterator<Item = &Disk<W>> {
        self.disks.iter().map_while(OnceCell::get)
    }

    /// The disks whose home is here.
    pub(crate) fn disks_at_home(&self) -> impl Iterator<Item = u16> {
        (0..self.disk_count()).filter(|&disk| self.disk_home(disk) == self.core)
    }

    /// Adds a disk behind the others.
    pub(crate) fn push_disk(&self, disk: Disk<W>) -> u16 {
        let ordinal = self.disk_count();
        let before = self.ordinals.borrow_mut().insert(disk.id, ordinal);
        assert_eq!(before, None, "disk ids differ");
        assert!(self.disks[usize::from(ordinal)].set(disk).is_ok(), "the places behind the last disk are free");
        self.disk_count.set(ordinal + 1);
        ordinal
    }

    /// Seals what was left open by a former life and has no room.
    pub(crate) fn close_full(self: &Rc<Self>, ordinal: u16, full: Vec<Partial>) {
        let extent_bytes = self.disk(ordinal).extent_bytes;
        for partial in full {
            self.close_extent(&OpenExtent::resume(ordinal, Lane::Large, extent_bytes, partial));
        }
    }

    /// A disk by its id.
    ///
    /// # Panics
    /// When it is none of this node's.
    pub(crate) fn ordinal(&self, disk: DiskId) -> u16 {
        self.find_disk(disk).unwrap_or_else(|_| panic!("disk {disk} is none of this node's"))
    }

    /// A disk by its id, which is gone when none here has it: it may be one of this node's that is missing.
    pub(crate) fn find_disk(&self, disk: DiskId) -> Result<u16, DeviceError> {
        self.ordinals.borrow().get(&disk).copied().ok_or(DeviceError::Gone)
    }

    /// The core that gives out a disk's extents and flushes it.
    pub(crate) fn disk_home(&self, disk: u16) -> CoreId {
        home_of_disk(disk, self.core_count)
    }

    pub(crate) fn space(&self, disk: u16) -> &RefCell<Space> {
        &self.disk(disk).home.as_ref().expect("asked on the disk's home core").space
    }

    /// Who has it may change the superblock of a disk whose home is here.
    pub(crate) async fn superblock_turn(&self, disk: u16) -> MutexGuard<'_, ()> {
        self.disk(disk).home.as_ref().expect("asked on the disk's home core").superblock.lock().await
    }

    /// The open extents of a former life that nobody went on with, if the disk's home is here. Nobody will any more.
    pub(crate) fn unclaimed_partials(&self, disk: u16) -> Vec<Partial> {
        let home = self.disk(disk).home.as_ref();
        home.map(|home| std::mem::take(&mut home.space.borrow_mut().partial)).unwrap_or_default()
    }

    pub(crate) fn flusher(&self, disk: u16) -> &RefCell<Flusher> {
        &self.disk(disk).home.as_ref().expect("asked on the disk's home core").flusher
    }

    /// Nothing is written to this disk any more in this life, on any core: one that went on placing blobs there would learn
    /// of it only when they are to be made durable.
    pub(crate) fn fail_disk(self: &Rc<Self>, disk: u16, error: DeviceError) {
        // Every core hears of an order by itself, and of its end.
        if !self.note_failed(disk, error) || error == DeviceError::Offline {
            return;
        }
        let inner = Rc::clone(self);
        self.start(async move {
            for (address, core) in inner.addresses.iter().zip(0..) {
                if CoreId(core) != inner.core {
                    // A core that has closed writes nothing.
                    let _ = address.send(Message::Failed { disk, error }).await;
                }
            }
        });
    }

    /// A write of this core failed. After several in a row the disk is not written any more: each costs an extent, and shards
    /// that could be elsewhere.
    pub(crate) fn note_write_failed(self: &Rc<Self>, disk: u16, error: DeviceError) {
        let failures = &self.disk(disk).write_failures;
        failures.set(failures.get() + 1);
        let fails = match error {
            DeviceError::Gone | DeviceError::Io(READ_ONLY_FILE_SYSTEM) => true,
            DeviceError::Io(_) => failures.get() >= WRITE_FAILURES_MAX,
            DeviceError::NoSpace | DeviceError::Offline => false,
        };
        if fails {
            self.fail_disk(disk, error);
        }
    }

    /// The same for this core alone. False when it knew.
    pub(crate) fn note_failed(&self, disk: u16, error: DeviceError) -> bool {
        let disk = self.disk(disk);
        // A failure counts more than an order: what is out of use and failed stays so.
        let is_new = matches!(disk.failed.get(), None | Some(DeviceError::Offline));
        if is_new {
            tracing::error!(disk = %disk.id, %error, "the disk takes no more writes until the next start");
            disk.failed.set(Some(error));
        }
        is_new
    }

    /// Blobs are written on the core that they are at home on.
    pub(crate) fn check_own(&self, blob: BlobId) {
        assert_eq!(blob.home(self.core_count), self.core, "blob {blob} is at home on another core");
    }

    /// Begins something that [`Store::close`] waits for.
    pub(crate) fn begin(self: &Rc<Self>) -> Result<Busy<W>, DeviceError> {
        if self.closing.get() { Err(DeviceError::Gone) } else { Ok(Busy::new(self)) }
    }

    /// Runs a task of the store's own, which [`Store::close`] waits for.
    pub(crate) fn start(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let busy = Busy::new(self);
        let task = async move {
            task.await;
            drop(busy);
        };
        self.world.spawn(task).detach();
    }

    /// Runs something until it ends or the store closes, behind what clients wait for.
    pub(crate) fn start_background(&self, task: impl Future<Output = ()> + 'static) {
        let task = self.world.spawn_background(task);
        self.background.borrow_mut().push(task);
    }

    pub(crate) fn note_closed(&self, core: CoreId) {
        self.closed.borrow_mut().insert(core);
        self.changed.notify_waiters();
    }

    /// Waits until nothing of this store runs.
    async fn idle(&self) {
        loop {
            let changed = self.changed.notified();
            if self.busy.get() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Tells another core that this one has closed, and waits until it knows.
    async fn say_closed(&self, core: CoreId) {
        let (heard, answer) = oneshot::channel();
        let message = Message::Closed { core: self.core, heard };
        // A core that is gone needs no word.
        if self.addresses[usize::from(core.0)].send(message).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// Waits until another core has closed (true) or has ended without doing so.
    async fn wait_closed(&self, core: CoreId) -> bool {
        let address = &self.addresses[usize::from(core.0)];
        loop {
            let changed = pin!(self.changed.notified());
            if self.closed.borrow().contains(&core) {
                return true;
            }
            if address.is_closed() {
                return false;
            }
            select(changed, pin!(address.closed())).await;
        }
    }
}

impl<W: World> Disk<W> {
    /// Opens a core's share of a disk; also gives what is to be sealed.
    pub(crate) fn new(share: DiskShare, device: W::Device, core_count: u16) -> (Self, Vec<Partial>) {
        let DiskShare { id, extent_bytes, free_bytes, allowed, space } = share;
        let (space, full) = space.map(|space| Space::new(space, core_count)).unzip();
        let home = space.map(|space| Home {
            space: RefCell::new(space),
            flusher: RefCell::default(),
            superblock: Mutex::new(()),
            reclaim: Notify::new(),
        });
        let disk = Self {
            id,
            device,
            extent_bytes,
            packer: RefCell::default(),
            free_bytes: Cell::new(free_bytes),
            failed: Cell::new(None),
            write_failures: Cell::new(0),
            counters: Counters::default(),
            allowed: Cell::new(allowed),
            arrival: RefCell::default(),
            large: RefCell::default(),
            small: RefCell::default(),
            moved: RefCell::default(),
            log: RefCell::default(),
            home,
        };
        (disk, full.unwrap_or_default())
    }

    pub(crate) fn lane(&self, lane: Lane) -> &RefCell<OpenLane> {
        match lane {
            Lane::Large => &self.large,
            Lane::Small => &self.small,
            Lane::Moved => &self.moved,
            Lane::Log => &self.log,
        }
    }

    /// There may be something to reclaim on this disk, whose home is here.
    pub(crate) fn wake_reclaim(&self) {
        self.home.as_ref().expect("asked on the disk's home core").reclaim.notify_one();
    }

    pub(crate) async fn reclaim_wanted(&self) {
        self.home.as_ref().expect("asked on the disk's home core").reclaim.notified().await;
    }

    fn stats(&self) -> DiskStats {
        let space = self.home.as_ref().map(|home| {
            let space = home.space.borrow();
            let (live_bytes, dead_bytes) = space.accounts.bytes();
            DiskSpace {
                capacity_bytes: self.device.geometry().capacity_bytes_max,
                prepared_bytes: space.prepared_bytes(),
                used_bytes: space.used_bytes(),
                extents: space.extents(),
                free_extents: space.free_extents(),
                waiting: space.waiting(),
                flushes: home.flusher.borrow().flushes,
                flush_requests: home.flusher.borrow().requests,
                sealed_extents: space.accounts.sealed(),
                live_bytes,
                dead_bytes,
                reclaimed: space.reclaimed,
                scrubbed: space.scrubbed,
            }
        });
        DiskStats {
            disk: self.id,
            appends: self.counters.appends.get(),
            appended_bytes: self.counters.appended_bytes.get(),
            writes: self.counters.writes.get(),
            space,
            failed: self.failed.get(),
        }
    }
}

/// Disks that a life of a node may have had, at most: those of its start, and as many that came later.
pub(crate) const DISKS_MAX: usize = 2 * ROSTER_DISKS_MAX;

/// The core that gives out a disk's extents and flushes it.
pub(crate) fn home_of_disk(disk: u16, core_count: u16) -> CoreId {
    CoreId(disk % core_count)
}

/// Counts something that runs, until it is dropped.
pub(crate) struct Busy<W: World> {
    inner: Rc<Inner<W>>,
}

impl<W: World> Busy<W> {
    fn new(inner: &Rc<Inner<W>>) -> Self {
        inner.busy.set(inner.busy.get() + 1);
        Self { inner: Rc::clone(inner) }
    }
}

impl<W: World> Drop for Busy<W> {
    fn drop(&mut self) {
        let busy = self.inner.busy.get() - 1;
        self.inner.busy.set(busy);
        if busy == 0 {
            self.inner.changed.notify_waiters();
        }
    }
}
