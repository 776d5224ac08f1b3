//! What all operations need of the core that does them: a store on the disk, blobs for it, and operations that go on side by side.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anvil_model::geometry::{window_count, window_length, window_start};
use anvil_model::ids::{BlobId, DiskId, Incarnation, NodeId, TenantId};
use anvil_model::io::{Device as _, Reserve, World as _};
use anvil_model::limits::{RECORD_HEADER_BYTES_MAX, SMALL_BLOB_BYTES_MAX};
use anvil_model::profile::Profile;
use anvil_model::time::WallTime;
use anvil_runtime::{Core, Device, Disk};
use anvil_store::{
    AppendError, Cell as StoredCell, DiskSpace, FormatOptions, Origin, OriginPayload, Recovered, SmallCopy, Store,
    extent_bytes, format, mail, recover,
};
use anyhow::Context;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;

use super::plan::{Life, Operation, Plan};
use super::report::{Figures, Measured};
use crate::latency::Latency;
use crate::load::random_bytes;
use crate::signals::Interrupted;

pub(super) const DISK: DiskId = DiskId(1);
/// Who writes, in every life: each has a disk of its own.
const WRITER: (NodeId, Incarnation) = (NodeId(1), Incarnation(1));
/// Small blobs that wait at once, and share their writes.
const SMALL_IN_FLIGHT: u64 = 1000;
/// Large ones: each has a buffer.
const LARGE_IN_FLIGHT: u64 = 16;
/// Of the disk, what is in flight takes at most this part.
const IN_FLIGHT_SHARE: u64 = 16;
/// Where the payloads of blobs are cut from; longer than a window, and they begin anywhere in the rest.
const PATTERN_BYTES: usize = 2 << 20;
/// A minute: longer is shown as a minute.
const LATENCY_NANOS_MAX: u64 = 60_000_000_000;

/// What the core tells the thread that talks to the user.
pub(super) enum Event {
    Doing(String),
    Seen(Figures),
    /// Nothing follows.
    Ended(anyhow::Result<()>),
}

/// What a core is to do.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) plan: Plan,
    /// Bytes of a blob.
    pub(super) size: u64,
    /// Blobs that each step appends, commits or reads, at most.
    pub(super) records: u64,
    pub(super) disk: Disk,
    /// Of this disk's part of the run.
    pub(super) deadline: Instant,
    pub(super) interrupted: Arc<AtomicBool>,
    pub(super) events: mpsc::Sender<Event>,
}

/// The core that does it.
pub(super) struct Bench {
    pub(super) work: Work,
    pub(super) core: Core,
    pub(super) device: Device,
    origin: Origin,
    pattern: Vec<u8>,
}

impl Work {
    pub(super) fn tell(&self, event: Event) {
        // The listener lives until the core has ended.
        self.events.send(event).ok();
    }
}

impl Bench {
    pub(super) fn new(core: Core, work: Work) -> Self {
        let origin = Origin {
            tenant: TenantId(1),
            bucket: "bucket".into(),
            key: "a/key/like/others".into(),
            at: WallTime { unix_ms: 0 },
            payload: OriginPayload::Object { length: 0 },
        };
        Self { device: work.disk.device(&core), core, work, origin, pattern: random_bytes(PATTERN_BYTES) }
    }

    /// Does all that belongs to a life, on a disk that nothing was written to.
    pub(super) async fn live(&self, life: Life) -> anyhow::Result<()> {
        let extent_bytes = self.extent_bytes();
        format(&self.core, &self.device, FormatOptions { disk: DISK, cluster: 1, extent_bytes }).await?;
        match life {
            Life::Keep => self.keep().await,
            Life::GroupCommit => self.group_commit().await,
            Life::Reclaim => self.reclaim().await,
        }
    }

    /// A store that may be written, on a disk that was just formatted.
    pub(super) async fn begin(&self) -> anyhow::Result<Store<Core>> {
        let store = self.open(self.recover().await?.0);
        let (node, incarnation) = WRITER;
        store.set_writer(node, incarnation);
        Ok(store)
    }

    pub(super) async fn recover(&self) -> anyhow::Result<(Recovered<Core>, Duration)> {
        self.check()?;
        let began = Instant::now();
        let recovered = recover(&self.core, vec![(DISK, self.device.clone())], 1, 0).await?;
        Ok((recovered, began.elapsed()))
    }

    pub(super) fn open(&self, recovered: Recovered<Core>) -> Store<Core> {
        let (mut shares, _) = recovered.into_shares();
        let share = shares.pop().expect("one core has one share");
        let mail = mail(1).pop().expect("one core has one mailbox");
        Store::open(self.core.clone(), vec![(DISK, self.device.clone())], share, mail)
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
        self.device.geometry().capacity_bytes_max
    }

    pub(super) fn extent_bytes(&self) -> u64 {
        extent_bytes(self.capacity_bytes())
    }

    /// The blob that was drawn after so many others.
    pub(super) fn blob(sequence: u64) -> BlobId {
        let (node, incarnation) = WRITER;
        BlobId { node, incarnation, sequence }
    }

    /// How many blobs are appended at once where nobody says how many.
    pub(super) fn in_flight(&self) -> usize {
        let size = self.work.size;
        let most = if size > SMALL_BLOB_BYTES_MAX as u64 { LARGE_IN_FLIGHT } else { SMALL_IN_FLIGHT };
        let fit = self.capacity_bytes() / IN_FLIGHT_SHARE / size;
        usize::try_from(fit.clamp(1, most)).expect("at most a thousand")
    }

    /// Appends all bytes of a blob.
    pub(super) async fn append(&self, store: &Store<Core>, blob: BlobId) -> Result<(), AppendError> {
        let (profile, size) = (Profile::SINGLE, self.work.size);
        if size <= SMALL_BLOB_BYTES_MAX as u64 {
            let payload = Rc::new(self.payload(blob, size as usize).to_vec());
            let copy = SmallCopy { blob, profile, shard: 0, payload, encryption: None };
            return store.append_small(DISK, Some(&self.origin), copy).await;
        }
        for window in 0..window_count(profile, size) {
            let window_length = window_length(profile, size, window);
            let mut buffer = self.core.buffer(Reserve::Foreground).await;
            buffer[RECORD_HEADER_BYTES_MAX..][..window_length].copy_from_slice(self.payload(blob, window_length));
            let cell = StoredCell { blob, profile, shard: 0, window, window_length, encryption: None, buffer };
            let origin = (window_start(profile, window) == 0).then_some(&self.origin);
            store.append(DISK, origin, cell).await?;
        }
        Ok(())
    }

    /// Bytes that no device can compress, and others for the blobs around.
    fn payload(&self, blob: BlobId, length: usize) -> &[u8] {
        let starts = self.pattern.len() - length;
        let start = (blob.sequence as usize).wrapping_mul(7919) % starts;
        &self.pattern[start..start + length]
    }

    /// Does an operation again and again, so many of them side by side, while `goes_on` says so of how many were begun; at
    /// least once. One that says false found no room: it does not count, and the worker that did it ends.
    pub(super) async fn repeat(
        &self,
        in_flight: usize,
        goes_on: impl Fn(u64) -> bool,
        operation: impl AsyncFn() -> anyhow::Result<bool>,
    ) -> anyhow::Result<Measured> {
        let histogram =
            RefCell::new(Histogram::<u64>::new_with_bounds(1, LATENCY_NANOS_MAX, 3).expect("the bounds are valid"));
        let begun = Cell::new(0);
        let worker = async || {
            while begun.get() == 0 || goes_on(begun.get()) {
                self.check()?;
                begun.set(begun.get() + 1);
                let began = Instant::now();
                if !operation().await? {
                    break;
                }
                let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                histogram.borrow_mut().saturating_record(nanos.max(1));
            }
            Ok::<_, anyhow::Error>(())
        };
        let began = Instant::now();
        try_join_all((0..in_flight).map(|_| worker())).await?;
        let seconds = began.elapsed().as_secs_f64();
        let histogram = histogram.borrow();
        let operations = histogram.len();
        let operations_per_second = operations as f64 / seconds;
        Ok(Measured {
            operations,
            seconds,
            operations_per_second,
            bytes_per_second: operations_per_second * self.work.size as f64,
            latency_ns: (operations > 0).then(|| Latency::of(&histogram)),
        })
    }

    /// When an operation that begins now is to end.
    pub(super) fn end_of(&self, operation: Operation) -> Instant {
        Instant::now() + self.work.plan.share(operation, self.work.deadline)
    }

    /// When the first of so many steps is to end that share the time until `end`.
    pub(super) fn end_of_step(end: Instant, steps: usize) -> Instant {
        let steps = u32::try_from(steps).expect("a few");
        let now = Instant::now();
        now + end.saturating_duration_since(now) / steps
    }

    pub(super) fn say(&self, what: impl Into<String>) {
        self.work.tell(Event::Doing(what.into()));
    }

    pub(super) fn seen(&self, figures: Figures) {
        self.work.tell(Event::Seen(figures));
    }

    /// # Errors
    /// [`Interrupted`] from Ctrl-C on.
    pub(super) fn check(&self) -> Result<(), Interrupted> {
        if self.work.interrupted.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }
}

/// The disk's figures.
pub(super) fn space(store: &Store<Core>) -> anyhow::Result<DiskSpace> {
    store.stats().disks[0].space.context("it is at home here")
}

/// What blobs can still take.
pub(super) fn free_bytes(store: &Store<Core>) -> u64 {
    store.disks()[0].free_bytes
}

/// Whether there was room for an append.
pub(super) fn had_room(appended: Result<(), AppendError>) -> anyhow::Result<bool> {
    match appended {
        Ok(()) => Ok(true),
        Err(AppendError::Full) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
