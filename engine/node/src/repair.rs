//! The story of a shard that is to be made again: any k cells of each window are read, the missing one is made from them and
//! appended to another disk, that disk is flushed, and the place of the shard is changed from what was seen.
//!
//! What is to be repaired is metadata, not memory: shards without a place (a write that lost a disk, a damaged record), and
//! all shards on disks that were given up. Every core repairs the blobs that are at home on it, one shard after the
//! other at a bounded rate, behind what clients wait for. A repair that ends anywhere is begun again by the next round or
//! life, with the shards that are left; what it had appended is replaced, or goes with its blob.
//!
//! What cannot be made again, for want of disks or of shards, stays counted. Rounds that end with nothing done come more and
//! more seldom, until a disk comes or goes or more is owed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anvil_model::geometry;
use anvil_model::ids::{BlobId, CoreId, DiskId};
use anvil_model::io::{DeviceError, World};
use anvil_model::limits::{PAGE_KEYS_MAX, RECORD_HEADER_BYTES_MAX};
use anvil_store::{AppendError, Origin, Piece, ReadError, SmallCopy};
use futures_util::future::{self, Either};
use tokio::sync::watch;

use crate::Node;
use crate::debt::Suspect;
use crate::metadata::mutation::{Change, LostShard, Mutation};
use crate::metadata::rows::BlobRow;
use crate::metadata::{MetadataError, Refusal};
use crate::respread::RespreadError;
use crate::upkeep::{Upkeep, came_to};
use crate::window::MadeCell;

/// The disks that were given up: what they held is made again elsewhere. One for all cores; cheap to clone, and to send to a
/// core.
#[derive(Clone, Debug)]
pub struct LostDisks {
    /// With the rounds in a row in which a core found nothing that names the disk.
    disks: Arc<watch::Sender<BTreeMap<DiskId, BTreeMap<CoreId, u32>>>>,
}

/// What repair did on a core since its start, and what it has before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairFigures {
    /// Shards that were made again.
    pub shards: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Attempts that failed: too few cells could be read, or no disk took the shard. They are made again.
    pub failed: u64,
    /// Of the round that runs, or of the last one: bytes per second.
    pub bytes_per_second: u64,
    /// What is left, as far as the round that runs has counted.
    pub remaining: Vec<Remaining>,
    /// Blobs that are narrower than their class wants, because disks were missing, and wait for more disks.
    pub narrow: u64,
    /// Blobs that were spread anew, as wide as their class wants.
    pub respread: u64,
    /// Rounds: each reads the rows of all that is left.
    pub rounds: u64,
}

/// What is left to repair because of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Which; [`DiskId::NONE`] for shards without a place.
    pub disk: DiskId,
    /// Shards.
    pub shards: u64,
    /// Their bytes on disk, about.
    pub bytes: u64,
}

/// [`RepairFigures`] as they grow, and what was found that is not yet known to the metadata (`debt`).
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    figures: RefCell<RepairFigures>,
    /// Shards that are damaged.
    pub(crate) damaged: RefCell<BTreeSet<LostShard>>,
    /// Shards that may be lost.
    pub(crate) suspects: RefCell<BTreeSet<Suspect>>,
    /// The blob of which records are being written that its row does not name yet.
    pub(crate) under_way: Cell<Option<BlobId>>,
    /// Rows that this core has changed by a repair. Grows.
    pub(crate) moved: Cell<u64>,
    /// Shards that became debt by what this core wrote or found. Grows.
    owed: Cell<u64>,
}

/// What decides whether something can be made again that could not be made again before.
#[derive(Debug, PartialEq, Eq)]
struct Prospects {
    online: BTreeSet<DiskId>,
    owed: u64,
}

/// Why a shard could not be repaired now.
#[derive(Debug, thiserror::Error)]
enum RepairError {
    #[error("no disk takes it")]
    NoDisk,
    #[error("too few of its cells can be read: {0}")]
    Read(#[from] ReadError),
    #[error("it cannot be written: {0}")]
    Append(#[from] AppendError),
    #[error("it cannot be made durable: {0}")]
    Flush(#[from] DeviceError),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

/// After an error of the metadata.
const RETRY: Duration = Duration::from_secs(5);
/// Failures of one round that are named in the log; the others are counted.
const NAMED_MAX: u64 = 10;
/// Rounds in a row in which every core finds nothing that names a disk, before it is forgotten.
const CLEAR_ROUNDS: u32 = 2;
/// Between two rounds, at most, while nothing of what is left can be made again: each reads all that is left.
const FUTILE_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Shards in a row that no disk takes, after which the round ends: it would go on like this.
const UNPLACED_MAX: u32 = 16;

impl LostDisks {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self { disks: Arc::new(watch::Sender::new(BTreeMap::new())) }
    }

    /// From now on these.
    pub fn set(&self, disks: BTreeSet<DiskId>) {
        self.disks.send_modify(|known| {
            known.retain(|disk, _| disks.contains(disk));
            for disk in disks {
                known.entry(disk).or_default();
            }
        });
    }

    /// Which they are.
    #[must_use]
    pub fn all(&self) -> BTreeSet<DiskId> {
        self.disks.borrow().keys().copied().collect()
    }

    /// Waits until all cores of the node have found that nothing names some of them any more, and gives these: they may be
    /// forgotten. A write that was on its way when its disk was given up may still come to name it, hence more than one round.
    pub async fn cleared(&self, core_count: u16) -> BTreeSet<DiskId> {
        let mut disks = self.disks.subscribe();
        let is_clear = |cores: &BTreeMap<CoreId, u32>| {
            cores.len() == core_count.into() && cores.values().all(|&rounds| rounds >= CLEAR_ROUNDS)
        };
        let known = disks.wait_for(|known| known.values().any(is_clear)).await.expect("this holds the sender");
        known.iter().filter(|(_, cores)| is_clear(cores)).map(|(disk, _)| *disk).collect()
    }

    /// A round of this core has looked for shards on the disk.
    fn note_round(&self, disk: DiskId, core: CoreId, clear: bool) {
        self.disks.send_if_modified(|known| {
            let Some(cores) = known.get_mut(&disk) else { return false };
            let rounds = cores.entry(core).or_default();
            *rounds = if clear { rounds.saturating_add(1) } else { 0 };
            // Every core hears of a change, and looks again.
            *rounds == CLEAR_ROUNDS
        });
    }
}

impl Default for LostDisks {
    fn default() -> Self {
        Self::new()
    }
}

impl RepairFigures {
    /// When all that is left will be done at the present rate; `None` while nothing is being done.
    #[must_use]
    pub fn estimated_end(&self) -> Option<Duration> {
        let left: u64 = self.remaining.iter().map(|remaining| remaining.bytes).sum();
        left.checked_div(self.bytes_per_second).map(Duration::from_secs)
    }
}

/// Those whose shards are to be made again, with what has no disk.
fn to_repair(upkeep: &Upkeep) -> impl Iterator<Item = DiskId> {
    std::iter::once(DiskId::NONE).chain(upkeep.lost.all())
}

/// A blob is being written to, until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay<'r>(&'r Repairs);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.set(None);
    }
}

impl Repairs {
    /// Records of this blob are written from now on that its row does not name. One at a time.
    pub(crate) fn begin(&self, blob: BlobId) -> UnderWay<'_> {
        let before = self.under_way.replace(Some(blob));
        assert_eq!(before, None, "one blob is repaired at a time");
        UnderWay(self)
    }

    /// So many shards became debt.
    pub(crate) fn note_owed(&self, shards: u64) {
        self.owed.set(self.owed.get() + shards);
    }

    /// What was made again since the start.
    fn done(&self) -> u64 {
        let figures = self.figures.borrow();
        figures.shards + figures.respread
    }

    fn is_anything_left(&self) -> bool {
        let figures = self.figures.borrow();
        figures.narrow > 0 || figures.remaining.iter().any(|of| of.shards > 0)
    }

    fn remaining(&self, disk: DiskId, change: impl FnOnce(&mut Remaining)) {
        let remaining = &mut self.figures.borrow_mut().remaining;
        let at = remaining.iter().position(|of| of.disk == disk).unwrap_or_else(|| {
            remaining.push(Remaining { disk, shards: 0, bytes: 0 });
            remaining.len() - 1
        });
        change(&mut remaining[at]);
    }
}

impl<W: World> Node<W> {
    /// What repair did on this core.
    #[must_use]
    pub fn repair_figures(&self) -> RepairFigures {
        self.repairs.figures.borrow().clone()
    }

    /// Rounds that can make nothing of what is left again come more and more seldom, until there is a reason to try again.
    pub(crate) async fn keep_repairing(&self, upkeep: &Upkeep) {
        let mut lost = upkeep.lost.disks.subscribe();
        let mut pause = upkeep.look_every;
        loop {
            let (prospects, done) = (self.prospects(), self.repairs.done());
            pause = match self.repair_round(upkeep).await {
                Ok(()) if self.repairs.done() == done && self.repairs.is_anything_left() => {
                    (pause * 2).min(FUTILE_PAUSE_MAX.max(upkeep.look_every))
                }
                Ok(()) => upkeep.look_every,
                Err(error) => {
                    tracing::debug!(%error, "nothing is repaired at the moment");
                    RETRY
                }
            };
            let began = self.world.now();
            while let Some(left) = pause.checked_sub(self.world.now().since(began)).filter(|left| !left.is_zero()) {
                let look = self.world.sleep(left.min(upkeep.look_every));
                let told = matches!(future::select(pin!(lost.changed()), pin!(look)).await, Either::Left(_));
                if told || self.prospects() != prospects {
                    pause = upkeep.look_every;
                    break;
                }
            }
        }
    }

    fn prospects(&self) -> Prospects {
        Prospects { online: self.online(), owed: self.repairs.owed.get() }
    }

    /// Repairs all that there is to repair at this moment.
    async fn repair_round(&self, upkeep: &Upkeep) -> Result<(), MetadataError> {
        // What nobody can make again is looked at, and no work that others should see.
        if !self.count(upkeep).await? {
            return Ok(());
        }
        let turn = upkeep.repair.turn().await;
        let repaired = self.repair_all(upkeep).await;
        turn.end(came_to(&repaired));
        repaired
    }

    /// Counts what there is to repair. Says whether any of it could be made again.
    async fn count(&self, upkeep: &Upkeep) -> Result<bool, MetadataError> {
        self.repairs.figures.borrow_mut().rounds += 1;
        let mut hopeful = self.count_narrow().await? > 0;
        self.repairs.figures.borrow_mut().remaining.clear();
        for disk in to_repair(upkeep) {
            self.each_shard_on(disk, async |row, _| {
                hopeful |= row.profile.parity > 0;
                let bytes = geometry::shard_bytes(row.profile, row.length);
                self.repairs.remaining(disk, |remaining| {
                    remaining.shards += 1;
                    remaining.bytes += bytes;
                });
                Ok(true)
            })
            .await?;
            let clear = self.repairs.figures.borrow().remaining.iter().all(|of| of.disk != disk);
            upkeep.lost.note_round(disk, self.world.core(), clear);
        }
        Ok(hopeful)
    }

    async fn repair_all(&self, upkeep: &Upkeep) -> Result<(), MetadataError> {
        for disk in to_repair(upkeep) {
            self.repair_disk(disk, upkeep.repair_bytes_per_second).await?;
        }
        self.spread_narrow(upkeep.repair_bytes_per_second).await
    }

    async fn count_narrow(&self) -> Result<u64, MetadataError> {
        let mut narrow = 0;
        self.each_blob_on(DiskId::NONE, async |row| {
            narrow += u64::from(self.wanted_spread(row).is_some());
            Ok(true)
        })
        .await?;
        self.repairs.figures.borrow_mut().narrow = narrow;
        Ok(narrow)
    }

    /// Spreads those narrow blobs anew for which there are disks enough.
    async fn spread_narrow(&self, bytes_per_second: u64) -> Result<(), MetadataError> {
        let (mut named, mut unplaced) = (0, 0);
        self.each_blob_on(DiskId::NONE, async |row| {
            if self.wanted_spread(row).is_none() {
                return Ok(true);
            }
            match self.spread_anew(row.blob, bytes_per_second).await {
                Ok(true) => {
                    unplaced = 0;
                    let mut figures = self.repairs.figures.borrow_mut();
                    figures.respread += 1;
                    figures.narrow = figures.narrow.saturating_sub(1);
                }
                Ok(false) => unplaced += 1,
                Err(RespreadError::Metadata(error)) => return Err(error),
                Err(error) => {
                    self.repairs.figures.borrow_mut().failed += 1;
                    named += 1;
                    if named <= NAMED_MAX {
                        tracing::warn!(blob = %row.blob, %error, "a narrow blob could not be spread anew");
                    }
                }
            }
            Ok(unplaced < UNPLACED_MAX)
        })
        .await
    }

    /// Calls `visit` for each shard on a disk of blobs that are at home here, until it says false.
    async fn each_shard_on(
        &self,
        disk: DiskId,
        mut visit: impl AsyncFnMut(&BlobRow, u8) -> Result<bool, MetadataError>,
    ) -> Result<(), MetadataError> {
        self.each_blob_on(disk, async |row| {
            for (_, shard) in row.places.iter().zip(0..row.profile.shards()).filter(|&(place, _)| *place == disk) {
                if !visit(row, shard).await? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    /// Calls `visit` for each blob with a place on a disk that is at home here, until it says false.
    async fn each_blob_on(
        &self,
        disk: DiskId,
        mut visit: impl AsyncFnMut(&BlobRow) -> Result<bool, MetadataError>,
    ) -> Result<(), MetadataError> {
        let (core, core_count) = (self.world.core(), self.world.core_count());
        let mut after = None;
        loop {
            let page = self.metadata.blobs_on_disk(disk, after, PAGE_KEYS_MAX).await?;
            for row in page.rows.iter().filter(|row| row.blob.home(core_count) == core) {
                if !visit(row).await? {
                    return Ok(());
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn repair_disk(&self, disk: DiskId, bytes_per_second: u64) -> Result<(), MetadataError> {
        let began = self.world.now();
        let (mut named, mut unplaced, mut done_bytes) = (0, 0, 0);
        self.each_shard_on(disk, async |row, shard| {
            if row.profile.parity == 0 {
                // There is nothing to make it of: it stays counted.
                return Ok(true);
            }
            let bytes = geometry::shard_bytes(row.profile, row.length);
            match self.repair_shard(row.blob, shard, bytes_per_second).await {
                Ok(()) => {
                    unplaced = 0;
                    done_bytes += bytes;
                    let took = self.world.now().since(began).as_millis().max(1);
                    let mut figures = self.repairs.figures.borrow_mut();
                    figures.shards += 1;
                    figures.bytes += bytes;
                    figures.bytes_per_second = u64::try_from(u128::from(done_bytes) * 1000 / took).unwrap_or(u64::MAX);
                }
                // Moved or not needed any more.
                Err(RepairError::Metadata(MetadataError::Refused(Refusal::ShardMoved))) => {}
                Err(RepairError::Metadata(error)) => return Err(error),
                Err(error) => {
                    unplaced = if matches!(error, RepairError::NoDisk) { unplaced + 1 } else { 0 };
                    self.repairs.figures.borrow_mut().failed += 1;
                    named += 1;
                    if named <= NAMED_MAX {
                        tracing::warn!(blob = %row.blob, shard, %error, "a shard could not be made again");
                    }
                    return Ok(unplaced < UNPLACED_MAX);
                }
            }
            self.repairs.remaining(disk, |remaining| {
                remaining.shards = remaining.shards.saturating_sub(1);
                remaining.bytes = remaining.bytes.saturating_sub(bytes);
            });
            Ok(true)
        })
        .await
    }

    /// Makes one shard again on another disk.
    async fn repair_shard(&self, blob: BlobId, shard: u8, bytes_per_second: u64) -> Result<(), RepairError> {
        // Another shard of it may have been moved since the page was read.
        let row = self.metadata.blob(blob).await?.ok_or(MetadataError::Refused(Refusal::ShardMoved))?;
        let from = *row.places.get(usize::from(shard)).ok_or(MetadataError::Refused(Refusal::ShardMoved))?;
        let shard_bytes = geometry::shard_bytes(row.profile, row.length);
        let to = self.place_shard(&row.places, shard_bytes).ok_or(RepairError::NoDisk)?;
        let _under_way = self.repairs.begin(blob);
        let origin = self.origin_of(blob).await;
        for window in 0..geometry::window_count(row.profile, row.length) {
            let began = self.world.now();
            let origin = origin.as_ref().filter(|_| window == 0);
            let written = self.repair_cell(&row, shard, window, (to, origin)).await?;
            let within_rate = Duration::from_nanos(written as u64 * 1_000_000_000 / bytes_per_second.max(1));
            self.world.sleep(within_rate.saturating_sub(self.world.now().since(began))).await;
        }
        self.store.flush(&[to]).await?;
        self.change_row(Change::MoveShard { blob, shard, from, to }).await?;
        Ok(())
    }

    /// Makes the change of a blob that is under way, and stays with it while nobody knows whether it was made: what was
    /// written must not be given up before that, nor what was there before. It has one write id, and is made once.
    pub(crate) async fn change_row(&self, change: Change) -> Result<(), MetadataError> {
        assert!(self.repairs.under_way.get().is_some(), "nothing of the blob is given up meanwhile");
        let mutation = Mutation { write: self.metadata.new_write(), change };
        let mut sent = false;
        loop {
            match self.metadata.commit_as(mutation.clone()).await {
                Ok(_) => {
                    self.repairs.moved.set(self.repairs.moved.get() + 1);
                    return Ok(());
                }
                Err(MetadataError::Unknown) => sent = true,
                Err(MetadataError::Unavailable { .. }) if sent => {}
                Err(error) => return Err(error),
            }
            self.world.sleep(RETRY).await;
        }
    }

    /// Gives the bytes of the cell.
    async fn repair_cell(
        &self,
        row: &BlobRow,
        shard: u8,
        window: u32,
        (to, origin): (DiskId, Option<&Origin>),
    ) -> Result<usize, RepairError> {
        let &BlobRow { blob, profile, length, .. } = row;
        let missing = ReadError::Missing(blob);
        let located =
            self.store.locate(blob, geometry::window_start(profile, window)).await.map_err(ReadError::from)?;
        let located = located.filter(|located| located.profile == profile).ok_or(missing)?;
        let window_length = geometry::window_length(profile, length, window);
        let cell_bytes = geometry::cell_bytes(profile, window_length);
        if located.cells[0].bytes != cell_bytes {
            return Err(missing.into());
        }
        let MadeCell { piece: Piece { mut buffer, range }, encryption } = self.make_cell(&located, shard).await?;
        let encryption = encryption.map(Rc::new);
        if geometry::is_packed(profile, length) {
            let copy = SmallCopy { blob, profile, shard, payload: buffer[range].to_vec().into(), encryption };
            self.heeding(to, self.store.append_small(to, origin, copy)).await?;
            return Ok(cell_bytes);
        }
        if range.start != RECORD_HEADER_BYTES_MAX {
            buffer.copy_within(range, RECORD_HEADER_BYTES_MAX);
        }
        let cell = anvil_store::Cell { blob, profile, shard, window, window_length, encryption, buffer };
        self.heeding(to, self.store.append(to, origin, cell)).await?;
        Ok(cell_bytes)
    }
}
