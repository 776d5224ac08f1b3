//! Finding everything again: what a start reads from the disks before the first request.
//!
//! 1. Flush: what is read from here on must not be lost by the next crash.
//! 2. Superblock, then each extent: header and footer, or else all of it.
//! 3. Extents without a header that may have been used are searched for records; their headers are restored.
//! 4. What was found becomes the index of its home core, and the open extents go to their disk's home core. Those that an
//!    orderly stop left have a footer, and are not read.
//! 5. The superblocks are written, marked as not closed, with the number of this start: above that of every start that
//!    one of these disks was there for, and on all of them before the store writes anything.
//!
//! A disk that fails on the way is left out when the caller says that the node can do without it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anvil_model::format::{
    ExtentKind, FEATURE_ENCRYPTED, KeyRing, Roster, SMALL_RECORD_BYTES_MAX, Subject, Superblock, TooManyKeys,
    extent_offset,
};
use anvil_model::geometry::{WINDOWS_MAX, cell_bytes, window_bytes, window_count, window_length};
use anvil_model::ids::{BlobId, CellId, CoreId, DiskId};
use anvil_model::io::{Device, DeviceError, World};
use anvil_model::limits::RECORD_BYTES_MAX;
use anvil_model::profile::Profile;
use anvil_model::time::WallTime;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::account::{Account, AccountStage, Accounts, Dead, Tally};
use crate::disk::{IdentifyError, Superblocks, read_superblock, write_superblock};
use crate::extent::has_room;
use crate::index::{Index, Place};
use crate::log::{LogEntry, LogTail, RecoveredLog, start_of};
use crate::scan::{Examined, ExtentPlace, Found, examine, rescue, restore_header};
use crate::scrub::{BAD_RECORDS_KEPT, BadRecord};
use crate::space::{Partial, SpaceShare};
use crate::store::home_of_disk;

/// Extents of a disk that are read at once.
const EXTENTS_AT_ONCE: usize = 4;
/// An open extent of at least this size is sealed when it has no room for a full record; smaller ones still take small
/// blobs, because an extent is a larger part of their disk.
const EXTENT_BYTES_LARGE: u32 = 16 << 20;
/// Whether an extent with so many records has room for more that is worth it.
pub(crate) fn is_worth_opening(extent_bytes: u32, tail: u32, records: usize) -> bool {
    let bytes = if extent_bytes >= EXTENT_BYTES_LARGE { RECORD_BYTES_MAX } else { SMALL_RECORD_BYTES_MAX };
    has_room(extent_bytes, tail, records, bytes, 1)
}

/// Blobs that a report names, at most.
const DAMAGED_NAMED_MAX: usize = 1000;

/// What a core owns of the disks after recovery. Sent to that core and opened there.
#[derive(Debug)]
pub struct Share {
    pub(crate) core: CoreId,
    pub(crate) core_count: u16,
    /// Which start this is.
    pub(crate) start: Start,
    pub(crate) index: Index,
    /// Records that the index does not have because it has others of the same cell: blob, disk and extent.
    pub(crate) copies: BTreeSet<(BlobId, u16, u32)>,
    /// Records that are damaged, and of whose cells there is no other.
    pub(crate) damaged: VecDeque<BadRecord>,
    /// What all disks that hold something encrypted are to keep.
    pub(crate) keys: KeyRing,
    pub(crate) disks: Vec<DiskShare>,
}

/// A start of the node, as the superblocks of all disks that are there say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) number: u64,
    pub(crate) id: u128,
}

#[derive(Debug)]
pub(crate) struct DiskShare {
    pub(crate) id: DiskId,
    pub(crate) extent_bytes: u32,
    pub(crate) free_bytes: u64,
    /// The features that its superblock names: what may be written to it at once.
    pub(crate) allowed: u64,
    /// On the disk's home core.
    pub(crate) space: Option<SpaceShare>,
}

/// What recovery found.
pub struct Recovered<W: World> {
    /// The metadata log, readable in order.
    pub log: RecoveredLog<W>,
    /// What was read and what was wrong.
    pub report: RecoveryReport,
    /// The disks that were left out, and why.
    pub lost: Vec<RecoverError>,
    /// The encryption keys that these disks keep, as they are wrapped.
    pub keys: KeyRing,
    shares: Vec<Share>,
    damaged: BTreeSet<CellId>,
    tail: LogTail,
}

/// What was read at a start and what was wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Disks.
    pub disks: usize,
    /// Extents in use.
    pub extents: u64,
    /// Of these, read whole because they had no footer.
    pub extents_scanned: u64,
    /// Bytes of the extents that were read whole.
    pub scanned_bytes: u64,
    /// Extents whose header was lost or damaged, and that were found again by their records.
    pub extents_rescued: u64,
    /// Records found, those of the log included.
    pub records: u64,
    /// Records that are there but damaged: torn by the crash and never acknowledged, or rotten.
    pub records_damaged: u64,
    /// Of which blobs; the first of them.
    pub damaged: Vec<BlobId>,
    /// True when every disk was closed cleanly.
    pub clean: bool,
}

/// Why the disks cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// The superblock cannot be used.
    #[error("disk {disk}: {source}")]
    Identify {
        /// Which disk.
        disk: DiskId,
        /// Why.
        source: IdentifyError,
    },
    /// The device holds no Anvil disk, or another one.
    #[error("disk {0} is not on its device")]
    NotThisDisk(DiskId),
    /// The device has become smaller than what was written to it.
    #[error("disk {disk} has shrunk: {found_bytes} bytes are there, {needed_bytes} were in use")]
    Shrunk {
        /// Which disk.
        disk: DiskId,
        /// What is there.
        found_bytes: u64,
        /// What must be there.
        needed_bytes: u64,
    },
    /// A device failed.
    #[error("disk {disk}: {source}")]
    Device {
        /// Which disk.
        disk: DiskId,
        /// How.
        source: DeviceError,
    },
    /// Together they keep more encryption keys than one disk can.
    #[error(transparent)]
    TooManyKeys(#[from] TooManyKeys),
    /// The node ran on some of these disks without the others, and then on the others without those: each part has a
    /// metadata log of its own, and neither contains the other.
    #[error(
        "disks {one} and {other} were both in use while the other one was not there, and their metadata has gone different \
         ways: start with one of them, and without those that were in use with the other"
    )]
    Apart {
        /// A disk.
        one: DiskId,
        /// One that it does not agree with.
        other: DiskId,
    },
}

impl RecoverError {
    /// The disk whose failure it is; `None` when it is not one disk's.
    #[must_use]
    pub fn disk(&self) -> Option<DiskId> {
        match *self {
            Self::Identify { disk, .. } | Self::Shrunk { disk, .. } | Self::Device { disk, .. } => Some(disk),
            Self::NotThisDisk(disk) => Some(disk),
            Self::Apart { .. } | Self::TooManyKeys(_) => None,
        }
    }
}

/// Reads all disks of a node that are there and makes what it finds durable. Up to `lost_max` of them may fail: they are
/// left out. Runs on one core, before any store is open.
///
/// # Errors
/// When too many disks cannot be used as they are. Nothing that was on the disks is lost then.
///
/// # Panics
/// When there is no disk, no core, or the same disk twice.
pub async fn recover<W: World>(
    world: &W,
    devices: Vec<(DiskId, W::Device)>,
    core_count: u16,
    lost_max: usize,
) -> Result<Recovered<W>, RecoverError> {
    read_all(world, devices, core_count, lost_max, Purpose::Serve).await
}

/// Reads disks that no node uses as [`recover`] would, and writes nothing: for whoever wants to look at the metadata log.
/// What it finds is not durable, so no store is to be opened with it. Disks that cannot be read are left out as long as
/// there is another one.
///
/// # Errors
/// When none of the disks can be used.
///
/// # Panics
/// When there is no disk, or the same disk twice.
pub async fn survey<W: World>(world: &W, devices: Vec<(DiskId, W::Device)>) -> Result<Recovered<W>, RecoverError> {
    let lost_max = devices.len().saturating_sub(1);
    read_all(world, devices, 1, lost_max, Purpose::Look).await
}

/// What the disks are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A start: what is found is made durable.
    Serve,
    /// Nothing is written.
    Look,
}

async fn read_all<W: World>(
    world: &W,
    mut devices: Vec<(DiskId, W::Device)>,
    core_count: u16,
    lost_max: usize,
    purpose: Purpose,
) -> Result<Recovered<W>, RecoverError> {
    assert!(core_count > 0 && !devices.is_empty(), "a node has cores and disks");
    let mut lost = Vec::new();
    loop {
        let errors = match attempt(world, &devices, core_count, purpose).await {
            Ok(recovered) => return Ok(Recovered { lost, ..recovered }),
            Err(errors) => errors,
        };
        let failed: BTreeSet<DiskId> = errors.iter().filter_map(RecoverError::disk).collect();
        if failed.len() < errors.len() || lost.len() + failed.len() > lost_max || failed.len() == devices.len() {
            return Err(errors[0]);
        }
        for error in errors {
            tracing::error!(%error, "a disk is left out");
            lost.push(error);
        }
        devices.retain(|(id, _)| !failed.contains(id));
    }
}

/// All disks, or those that failed.
async fn attempt<W: World>(
    world: &W,
    devices: &[(DiskId, W::Device)],
    core_count: u16,
    purpose: Purpose,
) -> Result<Recovered<W>, Vec<RecoverError>> {
    let gathered = RefCell::new(Gathered::new(core_count, devices.len()));
    let recovery = |((id, device), ordinal)| DiskRecovery { world, device, id, ordinal, purpose, gathered: &gathered };
    let disks: Vec<_> = devices.iter().map(|(id, device)| (*id, device)).zip(0..).map(recovery).collect();
    let superblocks = all(join_all(disks.iter().map(DiskRecovery::open)).await)?;
    let extents = disks.iter().zip(superblocks).map(|(disk, (superblock, roster))| disk.extents(superblock, roster));
    let mut spaces = all(join_all(extents).await)?;

    let start = next_start(&spaces, &gathered.borrow().log).map_err(|error| vec![error])?;
    let keys = all_keys(&spaces).map_err(|error| vec![error.into()])?;
    let encrypted = if keys.is_empty() { 0 } else { FEATURE_ENCRYPTED };
    let id = u128::from(world.random()) << 64 | u128::from(world.random());
    let start = Start { number: start, id };
    for space in &mut spaces {
        gathered.borrow_mut().report.clean &= space.superblock.clean;
        space.superblock = started(space.superblock, start);
        space.superblock.features_incompatible |= encrypted;
        space.superblock.keys = keys;
    }
    let begun = disks.iter().zip(&spaces).map(|(disk, space)| disk.begin(space));
    all(join_all(begun).await)?;

    drop(disks);
    let mut gathered = gathered.into_inner();
    let bad = gathered.enter_damaged(|disk| devices[usize::from(disk)].0);
    let Gathered { indexes, copies, log, log_open, log_sequence, damaged, accounts, mut report, .. } = gathered;
    for (space, accounts) in spaces.iter_mut().zip(accounts) {
        space.accounts = accounts;
    }
    report.disks = devices.len();

    let extent_bytes = spaces.iter().map(|space| space.superblock.extent_bytes).collect();
    let mut tails: BTreeMap<u16, OpenLog> = BTreeMap::new();
    for open in log_open {
        let (disk, sequence) = (open.disk, open.sequence);
        // On each disk the log goes on where it was last.
        let older = match tails.get(&disk) {
            Some(newest) if newest.sequence > sequence => Some(open),
            _ => tails.insert(disk, open),
        };
        spaces[usize::from(disk)].full.extend(older.map(|older| older.partial).filter(|partial| !partial.footer));
    }
    let tails = tails.into_values().map(|open| (open.disk, open.partial)).collect();
    let mut shares: Vec<_> = indexes
        .into_iter()
        .zip(0..)
        .zip(copies)
        .zip(bad)
        .map(|(((index, core), copies), damaged)| Share {
            core: CoreId(core),
            core_count,
            start,
            index,
            copies,
            damaged,
            keys,
            disks: Vec::new(),
        })
        .collect();
    for ((space, (id, _)), ordinal) in spaces.into_iter().zip(devices).zip(0..) {
        for (share, disk) in shares.iter_mut().zip(shares_of(*id, ordinal, space, core_count)) {
            share.disks.push(disk);
        }
    }
    let log = RecoveredLog::new(world.clone(), devices.to_vec(), extent_bytes, log, log_sequence, start.number);
    let tail = LogTail::new(&log, tails);
    Ok(Recovered { log, report, lost: Vec::new(), keys, shares, damaged, tail })
}

/// The keys of all disks: what one of them missed, because it was not there, another one knows.
fn all_keys(spaces: &[SpaceShare]) -> Result<KeyRing, TooManyKeys> {
    let mut all = KeyRing::default();
    spaces.iter().flat_map(|space| space.superblock.keys.keys()).try_for_each(|key| all.insert(*key))?;
    Ok(all)
}

/// What each core gets of a disk: its home core all of it.
pub(crate) fn shares_of(id: DiskId, ordinal: u16, space: SpaceShare, core_count: u16) -> Vec<DiskShare> {
    let extent_bytes = space.superblock.extent_bytes;
    let growable = u64::from(space.extents_max.saturating_sub(space.superblock.extents_prepared));
    let free_bytes = (space.free.len() as u64 + growable) * u64::from(extent_bytes);
    let allowed = space.superblock.features_incompatible;
    let mut space = Some(space);
    let share = |core| {
        let space = if home_of_disk(ordinal, core_count) == CoreId(core) { space.take() } else { None };
        DiskShare { id, extent_bytes, free_bytes, allowed, space }
    };
    (0..core_count).map(share).collect()
}

/// The superblock of a disk that is there for this start.
pub(crate) fn started(superblock: Superblock, start: Start) -> Superblock {
    let generation = superblock.generation + 1;
    Superblock { clean: false, generation, start: start.number, start_id: start.id, ..superblock }
}

/// All successes, or all failures.
fn all<T>(outcomes: Vec<Result<T, RecoverError>>) -> Result<Vec<T>, Vec<RecoverError>> {
    let mut failures = Vec::new();
    let successes = outcomes.into_iter().filter_map(|outcome| outcome.map_err(|error| failures.push(error)).ok());
    let successes = successes.collect();
    if failures.is_empty() { Ok(successes) } else { Err(failures) }
}

/// The number of this start. Whatever was written in a start that one of these disks was there for has a lower one. So do
/// two starts have the same number only when they had no disk in common, and then the disks of one of them must have
/// written nothing, or nobody knows what counts.
fn next_start(spaces: &[SpaceShare], log: &[LogEntry]) -> Result<u64, RecoverError> {
    let superblocks = || spaces.iter().map(|space| space.superblock);
    let newest = superblocks().map(|superblock| superblock.start).max().unwrap_or(0);
    let wrote: BTreeSet<u16> = log
        .iter()
        .filter(|entry| newest > 0 && start_of(entry.number) == newest)
        .map(|entry| entry.place.disk)
        .collect();
    let mut wrote =
        superblocks().zip(0..).filter(|(_, ordinal)| wrote.contains(ordinal)).map(|(superblock, _)| superblock);
    if let Some(one) = wrote.next()
        && let Some(other) = wrote.find(|other| other.start_id != one.start_id)
    {
        return Err(RecoverError::Apart { one: one.disk, other: other.disk });
    }
    let numbered = log.iter().map(|entry| start_of(entry.number)).max().unwrap_or(0);
    Ok(newest.max(numbered) + 1)
}

impl<W: World> Recovered<W> {
    /// True when the blob can be read: at least k cells of each of its windows are there and were written whole, verified
    /// by this recovery, or flushed before their extent was sealed. No bytes are always there.
    #[must_use]
    pub fn holds(&self, blob: BlobId, profile: Profile, length: u64) -> bool {
        let possible = profile.is_valid() && length.div_ceil(window_bytes(profile) as u64) <= WINDOWS_MAX.into();
        if !possible {
            return false;
        }
        (0..window_count(profile, length)).all(|window| {
            let needed = cell_bytes(profile, window_length(profile, length, window));
            let whole = |&shard: &u8| self.has_cell(CellId { blob, shard, window }, profile, needed);
            (0..profile.shards()).filter(whole).count() >= profile.data.into()
        })
    }

    /// The shards of which a cell is not there or was not written whole, of a blob that can be read
    /// ([`Self::holds`]). Those on disks that are not here are among them.
    #[must_use]
    pub fn lacks(&self, blob: BlobId, profile: Profile, length: u64) -> Vec<u8> {
        let is_whole = |shard| {
            (0..window_count(profile, length)).all(|window| {
                let needed = cell_bytes(profile, window_length(profile, length, window));
                self.has_cell(CellId { blob, shard, window }, profile, needed)
            })
        };
        (0..profile.shards()).filter(|&shard| !is_whole(shard)).collect()
    }

    fn has_cell(&self, cell: CellId, profile: Profile, needed: usize) -> bool {
        let core_count = u16::try_from(self.shares.len()).expect("made of a u16");
        let index = &self.shares[usize::from(cell.blob.home(core_count).0)].index;
        let found = index.find_any(cell, profile, |_| true);
        let there = found.is_some_and(|(place, _)| place.profile == profile && place.payload_bytes as usize >= needed);
        there && !self.damaged.contains(&cell)
    }

    /// From now on these are the encryption keys: some are new, or wrapped anew. The disks keep them before anything is
    /// written with them.
    pub fn set_keys(&mut self, keys: KeyRing) {
        for share in &mut self.shares {
            share.keys = keys;
            if keys != self.keys {
                share.disks.iter_mut().for_each(|disk| disk.allowed &= !FEATURE_ENCRYPTED);
            }
        }
        self.keys = keys;
    }

    /// One share per core, in the order of cores, and where the log goes on. Read the log before this.
    #[must_use]
    pub fn into_shares(self) -> (Vec<Share>, LogTail) {
        (self.shares, self.tail)
    }

    /// Like [`Self::into_shares`], with the log, for [`RecoveredLog::refill`].
    #[must_use]
    pub fn into_parts(self) -> (RecoveredLog<W>, Vec<Share>, LogTail) {
        (self.log, self.shares, self.tail)
    }
}

/// What is gathered from all disks.
pub(crate) struct Gathered {
    core_count: u16,
    pub(crate) indexes: Vec<Index>,
    /// Of each core; see [`Share`].
    pub(crate) copies: Vec<BTreeSet<(BlobId, u16, u32)>>,
    pub(crate) log: Vec<LogEntry>,
    pub(crate) log_open: Vec<OpenLog>,
    /// The highest sequence of an extent of the log; 0 when there is none.
    pub(crate) log_sequence: u64,
    /// Damaged cells, entered after all whole ones: only where there is no whole one.
    damaged_places: Vec<(CellId, u64, Place)>,
    /// When the extents in use were begun, by disk and extent.
    begun_at: BTreeMap<(u16, u32), WallTime>,
    /// Of each disk.
    pub(crate) accounts: Vec<Accounts>,
    damaged: BTreeSet<CellId>,
    pub(crate) report: RecoveryReport,
}

impl Gathered {
    pub(crate) fn new(core_count: u16, disks: usize) -> Self {
        Self {
            core_count,
            indexes: (0..core_count).map(|_| Index::new()).collect(),
            copies: vec![BTreeSet::new(); core_count.into()],
            log: Vec::new(),
            log_open: Vec::new(),
            log_sequence: 0,
            damaged_places: Vec::new(),
            begun_at: BTreeMap::new(),
            accounts: vec![Accounts::default(); disks],
            damaged: BTreeSet::new(),
            report: RecoveryReport { clean: true, ..RecoveryReport::default() },
        }
    }

    /// Enters what an extent holds.
    fn enter(&mut self, disk: u16, extent_bytes: u32, found: &Found) {
        let report = &mut self.report;
        report.extents += 1;
        report.records += found.entries.len() as u64;
        report.records_damaged += found.entries.iter().filter(|entry| entry.damaged).count() as u64;
        if found.open.is_some() {
            report.extents_scanned += 1;
            report.scanned_bytes += u64::from(extent_bytes);
        }
        if let ExtentKind::Log { sequence } = found.header.kind {
            self.log_sequence = self.log_sequence.max(sequence);
        }
        let name = found.header.name;
        let stage = match found.header.kind {
            ExtentKind::Log { .. } => AccountStage::Log,
            ExtentKind::Data | ExtentKind::Free if found.is_open() => AccountStage::Open,
            ExtentKind::Data | ExtentKind::Free => AccountStage::Sealed,
        };
        let mut account = Account::new(name.incarnation, stage);
        let mut cells = Vec::new();
        for entry in &found.entries {
            let place = Place::of(disk, name.extent, entry);
            account.written.add(1, place.record_bytes());
            let whole = !entry.damaged;
            match (entry.subject, entry.subject.cell()) {
                (Subject::Log { number, sequence }, _) => {
                    self.log.push(LogEntry { number, sequence, incarnation: name.incarnation, place, whole });
                }
                (_, Some(cell)) if whole => cells.push((cell, place)),
                (_, Some(cell)) => self.damaged_places.push((cell, name.incarnation, place)),
                (Subject::Blob { .. }, None) => unreachable!("a blob's record is a cell"),
            }
        }
        self.accounts[usize::from(disk)].extents.insert(name.extent, account);
        self.begun_at.insert((disk, name.extent), found.header.begun_at);
        for (cell, place) in cells {
            self.enter_whole(cell, name.incarnation, place);
        }
    }

    /// A cell that is there twice on one disk was moved, or appended again: the bytes are the same, or the earlier ones are
    /// bad. So the later one counts, as far as the clock on the wall tells. Which of several disks counts is no matter of
    /// clocks: the row of the blob says it.
    fn enter_whole(&mut self, cell: CellId, incarnation: u64, place: Place) {
        let home = usize::from(cell.blob.home(self.core_count).0);
        let written = |place: &Place| (self.begun_at[&(place.disk, place.extent)], place.offset);
        let is_later = |other: &Place| written(&place) > written(other);
        if let Some((other, life)) = self.indexes[home].enter(cell, incarnation, place, is_later) {
            self.enter_copy(cell, life, other);
        }
    }

    /// The index has another record of this cell.
    fn enter_copy(&mut self, cell: CellId, incarnation: u64, place: Place) {
        let tally = Tally { records: 1, bytes: place.record_bytes() };
        self.accounts[usize::from(place.disk)].note_dead(Dead { extent: place.extent, incarnation, tally });
        let home = usize::from(cell.blob.home(self.core_count).0);
        self.copies[home].insert((cell.blob, place.disk, place.extent));
    }

    /// Gives, by home core, the damaged records of cells that have no other: whose redundancy is less than it seems.
    pub(crate) fn enter_damaged(&mut self, id_of: impl Fn(u16) -> DiskId) -> Vec<VecDeque<BadRecord>> {
        let mut bad = vec![VecDeque::new(); self.indexes.len()];
        for (cell, incarnation, place) in std::mem::take(&mut self.damaged_places) {
            let home = usize::from(cell.blob.home(self.core_count).0);
            let index = &mut self.indexes[home];
            // What a crash tore of a blob that was being spread anew must not make that spread look readable.
            let is_alone = index.profiles(cell.blob).iter().all(|profile| *profile == place.profile);
            if is_alone && index.insert(cell, incarnation, place) {
                self.damaged.insert(cell);
                if bad[home].len() < BAD_RECORDS_KEPT {
                    let CellId { blob, shard, window } = cell;
                    let subject = Subject::Blob { blob, profile: place.profile, shard, window };
                    let Place { disk, extent, offset, .. } = place;
                    bad[home].push_back(BadRecord { disk: id_of(disk), extent, offset, subject });
                }
            } else {
                self.enter_copy(cell, incarnation, place);
            }
        }
        let mut blobs: Vec<_> = self.damaged.iter().map(|cell| cell.blob).collect();
        blobs.dedup();
        blobs.truncate(DAMAGED_NAMED_MAX);
        self.report.damaged = blobs;
        bad
    }
}

/// An open extent of the log.
pub(crate) struct OpenLog {
    sequence: u64,
    disk: u16,
    pub(crate) partial: Partial,
}

/// The recovery of one disk.
pub(crate) struct DiskRecovery<'a, W: World> {
    pub(crate) world: &'a W,
    pub(crate) device: &'a W::Device,
    pub(crate) id: DiskId,
    pub(crate) ordinal: u16,
    pub(crate) purpose: Purpose,
    pub(crate) gathered: &'a RefCell<Gathered>,
}

impl<W: World> DiskRecovery<'_, W> {
    pub(crate) async fn open(&self) -> Result<(Superblock, Roster), RecoverError> {
        if self.purpose == Purpose::Serve {
            self.device.flush().await.map_err(|error| self.device_error(error))?;
        }
        self.superblock().await
    }

    /// Makes durable that this start has begun.
    pub(crate) async fn begin(&self, space: &SpaceShare) -> Result<(), RecoverError> {
        if self.purpose == Purpose::Look {
            return Ok(());
        }
        let flush = async || self.device.flush().await;
        let written = write_superblock(self.world, self.device, &space.superblock, &space.roster, flush).await;
        written.map_err(|error| self.device_error(error))
    }

    async fn superblock(&self) -> Result<(Superblock, Roster), RecoverError> {
        let disk = self.id;
        let (superblock, roster) = match read_superblock(self.world, self.device).await {
            Ok(Superblocks::Whole(superblock, roster)) if superblock.disk == disk => (superblock, roster),
            Ok(Superblocks::Damaged) => {
                return Err(RecoverError::Identify { disk, source: IdentifyError::Damaged });
            }
            Ok(Superblocks::Whole(..) | Superblocks::Blank | Superblocks::Foreign) => {
                return Err(RecoverError::NotThisDisk(disk));
            }
            Err(IdentifyError::Device(error)) => return Err(self.device_error(error)),
            Err(source) => return Err(RecoverError::Identify { disk, source }),
        };
        let needed_bytes = extent_offset(superblock.extents_prepared, superblock.extent_bytes);
        let found_bytes = self.device.size_bytes();
        if found_bytes < needed_bytes {
            return Err(RecoverError::Shrunk { disk, found_bytes, needed_bytes });
        }
        Ok((superblock, roster))
    }

    pub(crate) async fn extents(&self, superblock: Superblock, roster: Roster) -> Result<SpaceShare, RecoverError> {
        let extent_bytes = superblock.extent_bytes;
        let prepared = superblock.extents_prepared;
        let room = self.device.geometry().capacity_bytes_max.saturating_sub(extent_offset(0, extent_bytes));
        let extents_max = u32::try_from(room / u64::from(extent_bytes)).unwrap_or(u32::MAX).max(prepared);
        let mut space = SpaceShare {
            superblock,
            roster,
            free: BTreeSet::new(),
            recycled: BTreeSet::new(),
            accounts: Accounts::default(),
            partial: Vec::new(),
            full: Vec::new(),
            extents_max,
        };
        let place = |extent| ExtentPlace { disk: self.id, extent, extent_bytes };
        let examined = stream::iter(0..prepared)
            .map(|extent| async move {
                let examined = examine(self.world, self.device, place(extent)).await;
                examined.map(|examined| (extent, examined)).map_err(|error| self.device_error(error))
            })
            .buffer_unordered(EXTENTS_AT_ONCE);
        let mut unknown = BTreeMap::new();
        let mut used_max = None;
        let mut examined = std::pin::pin!(examined);
        while let Some((extent, examined)) = examined.try_next().await? {
            match examined {
                Examined::Used(found) => {
                    used_max = used_max.max(Some(extent));
                    self.take(&mut space, found);
                }
                Examined::Free => {
                    used_max = used_max.max(Some(extent));
                    space.free.insert(extent);
                    space.recycled.insert(extent);
                }
                Examined::Unknown { blank } => {
                    unknown.insert(extent, blank);
                }
            }
        }
        for (extent, blank) in unknown {
            // Extents are given out from the lowest on: above the highest that is used, a blank one is free.
            let surely_free = blank && Some(extent) > used_max;
            let found = if surely_free {
                None
            } else {
                let found = rescue(self.world, self.device, place(extent)).await;
                found.map_err(|error| self.device_error(error))?
            };
            let Some(found) = found else {
                space.free.insert(extent);
                if !blank {
                    space.recycled.insert(extent);
                }
                continue;
            };
            if self.purpose == Purpose::Serve {
                let restored = restore_header(self.world, self.device, place(extent), &found.header).await;
                restored.map_err(|error| self.device_error(error))?;
            }
            tracing::warn!(disk = %self.id, extent, "an extent without a header was found by its records");
            self.gathered.borrow_mut().report.extents_rescued += 1;
            self.take(&mut space, found);
        }
        Ok(space)
    }

    /// Enters the records of an extent, and decides what becomes of it when it is open.
    fn take(&self, space: &mut SpaceShare, found: Found) {
        let extent_bytes = space.superblock.extent_bytes;
        let mut gathered = self.gathered.borrow_mut();
        gathered.enter(self.ordinal, extent_bytes, &found);
        let Found { header, entries, open, resumes_at } = found;
        let (tail, worth_opening) = match (open, resumes_at) {
            (None, None) => return,
            // The extent was left in order.
            (None, Some(tail)) => (tail, true),
            (Some(tail), _) if tail.unreadable => return,
            (Some(tail), _) => {
                let worth_opening = is_worth_opening(extent_bytes, tail.zeros_start, entries.len());
                // Appends go on only where everything is zero. A footer's place never held a record.
                (if worth_opening { tail.zeros_start } else { tail.records_end }, worth_opening)
            }
        };
        let partial = Partial { header, tail, entries, footer: open.is_none() };
        match header.kind {
            ExtentKind::Log { sequence } => gathered.log_open.push(OpenLog { sequence, disk: self.ordinal, partial }),
            ExtentKind::Data | ExtentKind::Free if worth_opening => space.partial.push(partial),
            ExtentKind::Data | ExtentKind::Free => space.full.push(partial),
        }
    }

    fn device_error(&self, source: DeviceError) -> RecoverError {
        RecoverError::Device { disk: self.id, source }
    }
}
