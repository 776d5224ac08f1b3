//! A disk that comes while the node runs: a blank one that was just formatted, or one that was away.
//!
//! 1. One core reads it as a start does, and writes down that it is there for this start ([`Store::prepare_disk`]).
//! 2. Every core gets its share ([`Store::add_disk`]). The disk is out of use, so that no core names it to another one that
//!    does not have it yet.
//! 3. Every core enters what lies there ([`Store::enter_disk`]): before all have, reclaim would take what one of them needs for
//!    dead.
//! 4. Every core begins to use it ([`Store::open_disk`]).
//!
//! A step begins when all cores have done the one before.
//!
//! A cell that another disk holds too was made again while one of them was away: which of the two counts the row of its blob
//! says, and until that was asked both are kept. What nobody needs any more is an orphan, and found by the next sweep. The batches of its part of the metadata log are older
//! than those of this life, and add nothing.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use anvil_model::format::{FEATURE_ENCRYPTED, Roster};
use anvil_model::ids::{BlobId, CellId, CoreId, DiskId, KeyId};
use anvil_model::io::{DeviceError, World};

use crate::account::{Dead, Tally};
use crate::index::{Index, Place};
use crate::log::start_of;
use crate::recover::{DiskRecovery, DiskShare, Gathered, Purpose, RecoverError, shares_of, started};
use crate::scrub::{BAD_RECORDS_KEPT, BadRecord};
use crate::space::Partial;
use crate::store::{DISKS_MAX, Disk, Inner, Store};

/// Cells that are entered before others of the core have their turn.
const ENTERED_AT_ONCE: usize = 1000;

/// What one core gets of a disk that joins. Sent to that core.
#[derive(Debug)]
pub struct Joining {
    core: CoreId,
    ordinal: u16,
    share: DiskShare,
    index: Index,
    copies: BTreeSet<(BlobId, u16, u32)>,
    damaged: VecDeque<BadRecord>,
    log_sequence: u64,
}

/// What a disk brings along, on a core that does not use it yet.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// None when it was entered.
    found: Option<Found>,
    full: Vec<Partial>,
}

/// Cells, records of cells that are there twice: blob, disk and extent; and damaged records.
type Found = (Index, BTreeSet<(BlobId, u16, u32)>, VecDeque<BadRecord>);

/// Why a disk cannot join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// It is one of the disks that this life of the node knows.
    #[error("disk {0} is in use already")]
    Known(DiskId),
    /// It was there for a start that the others know nothing of.
    #[error("disk {0} was in use without the disks of this node meanwhile, and its metadata has gone another way")]
    Apart(DiskId),
    /// It keeps a key that the node did not find on its disks: what is encrypted with it could not be read.
    #[error(
        "disk {disk} keeps encryption key {key}, which this node does not know: start the node again with this disk"
    )]
    OtherKey {
        /// Which disk.
        disk: DiskId,
        /// Which key.
        key: KeyId,
    },
    /// The node has taken too many in.
    #[error("a node takes in no more than {DISKS_MAX} disks before it is started again")]
    TooMany,
    /// It cannot be read.
    #[error(transparent)]
    Recover(#[from] RecoverError),
}

impl<W: World> Store<W> {
    /// Reads a disk that is to join and makes durable that it is there for this start, with this roster. Gives what is to
    /// be sent to each core, in the order of cores. Only one disk joins at a time.
    ///
    /// # Errors
    /// When it cannot be read or must not join. Nothing that was on it is lost then.
    pub async fn prepare_disk(
        &self,
        id: DiskId,
        device: &W::Device,
        roster: Roster,
    ) -> Result<Vec<Joining>, JoinError> {
        let inner = &self.inner;
        let (ordinal, core_count) = (inner.disk_count(), inner.core_count);
        if inner.find_disk(id).is_ok() {
            return Err(JoinError::Known(id));
        }
        if usize::from(ordinal) == DISKS_MAX {
            return Err(JoinError::TooMany);
        }
        let gathered = RefCell::new(Gathered::new(core_count, usize::from(ordinal) + 1));
        let purpose = Purpose::Serve;
        let recovery = DiskRecovery { world: &inner.world, device, id, ordinal, purpose, gathered: &gathered };
        let (superblock, _) = recovery.open().await?;
        if superblock.start >= inner.start.number {
            return Err(JoinError::Apart(id));
        }
        let is_known = |key: KeyId| inner.keys.keys().any(|known| known.id == key);
        if let Some(key) = superblock.keys.keys().map(|key| key.id).find(|key| !is_known(*key)) {
            return Err(JoinError::OtherKey { disk: id, key });
        }
        let mut space = recovery.extents(started(superblock, inner.start), roster).await?;
        if gathered.borrow().log.iter().any(|entry| start_of(entry.number) >= inner.start.number) {
            return Err(JoinError::Apart(id));
        }
        recovery.begin(&space).await?;

        let mut gathered = gathered.into_inner();
        let bad = gathered.enter_damaged(|_| id);
        let Gathered { indexes, copies, log_open, log_sequence, mut accounts, report, .. } = gathered;
        space.accounts = accounts.pop().expect("one for each ordinal");
        // The log goes on in extents of its own.
        space.full.extend(log_open.into_iter().map(|open| open.partial));
        tracing::info!(disk = %id, extents = report.extents, records = report.records, "the disk was read");
        let shares = shares_of(id, ordinal, space, core_count);
        let parts = shares.into_iter().zip(indexes).zip(copies).zip(bad).zip(0..);
        let joining = |((((share, index), copies), damaged), core)| Joining {
            core: CoreId(core),
            ordinal,
            share,
            index,
            copies,
            damaged,
            log_sequence,
        };
        Ok(parts.map(joining).collect())
    }

    /// Adds a disk on this core, out of use so far.
    ///
    /// # Panics
    /// When it is another core's share, or the cores were not given the same disks in the same order.
    pub fn add_disk(&self, device: W::Device, joining: Joining) {
        let Joining { core, ordinal, share, index, copies, damaged, log_sequence } = joining;
        let inner = &self.inner;
        assert_eq!((core, ordinal), (inner.core, inner.disk_count()), "every core gets its share of every disk");
        let (disk, full) = Disk::<W>::new(share, device, inner.core_count);
        disk.failed.set(Some(DeviceError::Offline));
        // It may lack keys that were made while it was away; its home core brings them.
        disk.allowed.set(disk.allowed.get() & !FEATURE_ENCRYPTED);
        disk.arrival.replace(Some(Arrival { found: Some((index, copies, damaged)), full }));
        inner.push_disk(disk);
        if inner.log_sequence.get() > 0 {
            inner.log_sequence.set(inner.log_sequence.get().max(log_sequence));
        }
    }

    /// Enters what lies on a disk that every core has.
    ///
    /// # Panics
    /// When it is none of this node's disks.
    pub async fn enter_disk(&self, disk: DiskId) {
        let inner = &self.inner;
        let ordinal = inner.ordinal(disk);
        let found = inner.disk(ordinal).arrival.borrow_mut().as_mut().and_then(|arrival| arrival.found.take());
        let Some((index, copies, damaged)) = found else { return };
        for (count, (cell, incarnation, place)) in (1..).zip(index.cells()) {
            inner.enter_found(cell, incarnation, place);
            if count % ENTERED_AT_ONCE == 0 {
                inner.world.sleep(Duration::ZERO).await;
            }
        }
        for (blob, disk, extent) in copies {
            inner.released.borrow_mut().note_copy(blob, disk, extent);
        }
        let mut bad = inner.bad_records.borrow_mut();
        let room = BAD_RECORDS_KEPT.saturating_sub(bad.len());
        bad.extend(damaged.into_iter().take(room));
    }

    /// Takes a disk into use whose cells all cores have entered. Does nothing about one that is in use.
    ///
    /// # Panics
    /// When it is none of this node's disks, or its cells were not entered.
    pub fn open_disk(&self, disk: DiskId) {
        let inner = &self.inner;
        let ordinal = inner.ordinal(disk);
        let Some(Arrival { found, full }) = inner.disk(ordinal).arrival.take() else { return };
        assert!(found.is_none(), "cells are entered before reclaim may ask for them");
        inner.disk(ordinal).failed.set(None);
        if inner.disk_home(ordinal) != inner.core {
            return;
        }
        inner.close_full(ordinal, full);
        inner.serve_space(ordinal);
        inner.bring_keys(ordinal);
        if let Some(options) = inner.reclaim.get() {
            inner.keep_reclaiming(ordinal, options);
        }
        if let Some((options, chore)) = inner.scrub.borrow().clone() {
            inner.keep_scrubbing(ordinal, options, chore);
        }
    }
}

impl<W: World> Inner<W> {
    /// Enters a cell of a disk that was away, unless there is another one.
    fn enter_found(self: &Rc<Self>, cell: CellId, incarnation: u64, place: Place) {
        // Which of several records counts the row of the blob says.
        let entered = self.index.borrow_mut().enter(cell, incarnation, place, |_| false).is_none();
        if !entered {
            self.released.borrow_mut().note_copy(cell.blob, place.disk, place.extent);
        }
        if !entered || self.released.borrow().contains(cell.blob) {
            let tally = Tally { records: 1, bytes: place.record_bytes() };
            self.note_dead(place.disk, Dead { extent: place.extent, incarnation, tally });
        }
    }
}
