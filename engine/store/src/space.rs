//! The extents of a disk, on the disk's home core: which are free, who gets the next one, and when the disk grows.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use anvil_model::format::{
    ExtentHeader, ExtentName, FEATURE_ENCRYPTED, FEATURE_SHARDS, FooterEntry, Roster, SMALL_RECORD_BYTES_MAX,
    Superblock, extent_offset,
};
use anvil_model::ids::CoreId;
use anvil_model::io::{Device, DeviceError, World};
use anvil_model::limits::RECORD_BYTES_MAX;
use anvil_model::profile::Profile;
use anvil_model::time::Moment;
use tokio::sync::oneshot;

use crate::account::{Account, AccountStage, Accounts, Tally};
use crate::disk::write_superblock;
use crate::extent::has_room;
use crate::mail::Message;
use crate::scrub::Scrubbed;
use crate::store::Inner;

/// Free extents that are kept prepared.
const EXTENTS_AHEAD: usize = 8;
/// Extents that one growth adds, at most.
const GROWTH_EXTENTS_MAX: u32 = 4;
/// Bytes in free extents that only the metadata log may take, so that DELETE works on a full disk; one extent at least.
const RESERVED_BYTES: u32 = 2 << 20;
/// Free extents that blobs leave to reclaim, so that there is always room to move into.
const RESERVED_FOR_MOVES: usize = 1;
/// Free extents for each core, below which reclaim goes without regard to its rate.
const EXTENTS_LOW_PER_CORE: usize = 2;
/// For how long a write waits for what was deleted to be released, when there is no room: longer than that takes on a full disk.
const ROOM_TIME: Duration = Duration::from_secs(8);
/// A disk that could not grow is asked again after so long.
const GROWTH_RETRY: Duration = Duration::from_secs(10);

/// What an extent is filled with. Each core has one open extent of each kind per disk: small records would otherwise
/// waste the ends of extents that are full for large ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Windows of large blobs.
    Large,
    /// Packs of small blobs.
    Small,
    /// What reclaim moves: it has lived for a while, and lies together.
    Moved,
    /// The metadata log.
    Log,
}

impl Lane {
    pub(crate) const ALL: [Self; 4] = [Self::Large, Self::Small, Self::Moved, Self::Log];

    /// Room that an extent must have to be worth opening for this lane.
    fn bytes_wanted(self) -> usize {
        match self {
            Self::Large | Self::Moved | Self::Log => RECORD_BYTES_MAX,
            Self::Small => SMALL_RECORD_BYTES_MAX,
        }
    }
}

/// Asks for an extent.
#[derive(Debug)]
pub(crate) struct ExtentRequest {
    pub(crate) core: CoreId,
    pub(crate) lane: Lane,
    /// Somebody waits for it; otherwise it is wanted ahead of need, and only if there are plenty.
    pub(crate) urgent: bool,
    pub(crate) reply: oneshot::Sender<Result<Grant, Refused>>,
}

/// An extent that belongs to the asking core from now on.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) extent: u32,
    /// Of the life that begins, or that goes on.
    pub(crate) incarnation: u64,
    /// A former life left its records in it.
    pub(crate) recycled: bool,
    /// Present when it was begun in a former life: its header is written.
    pub(crate) partial: Option<Partial>,
    /// What blobs can still take on this disk behind this grant.
    pub(crate) free_bytes: u64,
    /// Somebody waits for it.
    pub(crate) urgent: bool,
}

/// An extent that was open when a life ended.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) header: ExtentHeader,
    /// Everything from here on is zero.
    pub(crate) tail: u32,
    /// The records before it that are whole.
    pub(crate) entries: Vec<FooterEntry>,
    /// It was left with a footer, which is overwritten before the next record comes.
    pub(crate) footer: bool,
}

/// What the core that filled an extent says when it has its footer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealed {
    pub(crate) extent: u32,
    pub(crate) incarnation: u64,
    pub(crate) written: Tally,
}

/// What reclaim did with a disk since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Extents that were given back.
    pub extents: u64,
    /// Records that were moved, to give back theirs.
    pub moved_records: u64,
    /// Bytes that this wrote, headers and padding included.
    pub moved_bytes: u64,
    /// Records that could not be moved because they are damaged.
    pub damaged_records: u64,
}

/// Why there is no extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    /// Not so many that one could be had ahead of need.
    Scarce,
    Device(DeviceError),
}

/// What recovery found of a disk's extents; sent to its home core.
#[derive(Debug)]
pub(crate) struct SpaceShare {
    pub(crate) superblock: Superblock,
    /// Written beside the superblock.
    pub(crate) roster: Roster,
    pub(crate) free: BTreeSet<u32>,
    /// Free ones that a former life left its records in.
    pub(crate) recycled: BTreeSet<u32>,
    /// Those in use.
    pub(crate) accounts: Accounts,
    /// Open ones with room.
    pub(crate) partial: Vec<Partial>,
    /// Open ones without room: they only need their footers.
    pub(crate) full: Vec<Partial>,
    /// Extents that the disk may ever have.
    pub(crate) extents_max: u32,
}

/// The extents of a disk. Invariant: an extent is in `free`, or in use and in `accounts`. One in use is in `partial`, or
/// belongs to a core, or is sealed.
#[derive(Debug)]
pub(crate) struct Space {
    superblock: Superblock,
    /// Written beside it.
    roster: Roster,
    free: BTreeSet<u32>,
    /// Of the free ones: they are not zero.
    recycled: BTreeSet<u32>,
    pub(crate) accounts: Accounts,
    /// A task gives extents back; see `reclaim`.
    pub(crate) reclaiming: bool,
    pub(crate) reclaimed: Reclaimed,
    pub(crate) scrubbed: Scrubbed,
    pub(crate) partial: Vec<Partial>,
    /// An open extent is being taken back; see `recall`.
    pub(crate) recalling: bool,
    extents_max: u32,
    waiting: VecDeque<ExtentRequest>,
    /// The superblock is being written: only one at a time, or the newer one could be overwritten.
    superblock_busy: bool,
    /// When the disk could not grow.
    exhausted_at: Option<Moment>,
    /// Since when blobs find no room.
    starved_since: Option<Moment>,
    core_count: usize,
}

enum Decision {
    Grant(Grant),
    Refuse(Refused),
    Wait,
    /// Wait for this extent.
    Recall(u32),
}

impl Space {
    pub(crate) fn new(share: SpaceShare, core_count: u16) -> (Self, Vec<Partial>) {
        let SpaceShare { superblock, roster, free, recycled, accounts, partial, full, extents_max } = share;
        let space = Self {
            superblock,
            roster,
            free,
            recycled,
            accounts,
            reclaiming: false,
            reclaimed: Reclaimed::default(),
            scrubbed: Scrubbed::resume(superblock.scrub),
            partial,
            recalling: false,
            extents_max: extents_max.max(superblock.extents_prepared),
            waiting: VecDeque::new(),
            superblock_busy: false,
            exhausted_at: None,
            starved_since: None,
            core_count: core_count.into(),
        };
        (space, full)
    }

    /// An extent takes no more appends; it holds so much.
    pub(crate) fn note_sealed(&mut self, sealed: Sealed) {
        if let Some(account) = self.accounts.of(sealed.extent, sealed.incarnation) {
            account.written = sealed.written;
            if account.stage == AccountStage::Open {
                account.stage = AccountStage::Sealed;
            }
        }
    }

    pub(crate) fn extent_bytes(&self) -> u32 {
        self.superblock.extent_bytes
    }

    pub(crate) fn extents(&self) -> u64 {
        self.superblock.extents_prepared.into()
    }

    pub(crate) fn free_extents(&self) -> u64 {
        self.free.len() as u64
    }

    pub(crate) fn prepared_bytes(&self) -> u64 {
        extent_offset(self.superblock.extents_prepared, self.superblock.extent_bytes)
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        let used = u64::from(self.superblock.extents_prepared) - self.free.len() as u64;
        used * u64::from(self.superblock.extent_bytes)
    }

    /// What blobs can still take.
    pub(crate) fn free_bytes(&self) -> u64 {
        let growable = if self.exhausted_at.is_some() { 0 } else { self.growable() as usize };
        let extents = (self.free.len() + growable).saturating_sub(self.reserved(Lane::Large));
        let partial: u64 =
            self.partial.iter().map(|partial| u64::from(self.superblock.extent_bytes - partial.tail)).sum();
        extents as u64 * u64::from(self.superblock.extent_bytes) + partial
    }

    /// Free extents that are not for this lane.
    fn reserved(&self, lane: Lane) -> usize {
        let for_log = RESERVED_BYTES.div_ceil(self.superblock.extent_bytes) as usize;
        match lane {
            Lane::Log => 0,
            Lane::Moved => for_log,
            Lane::Large | Lane::Small => for_log + RESERVED_FOR_MOVES,
        }
    }

    /// The part of the disk that can still be had without reclaim.
    pub(crate) fn free_share(&self) -> f64 {
        let growable = if self.exhausted_at.is_some() { 0 } else { self.growable() };
        (self.free.len() as f64 + f64::from(growable)) / f64::from(self.extents_max.max(1))
    }

    /// Writers wait for room, or soon will.
    pub(crate) fn is_low(&self) -> bool {
        let growable = if self.exhausted_at.is_some() { 0 } else { self.growable() as usize };
        let low = self.reserved(Lane::Large) + EXTENTS_LOW_PER_CORE * self.core_count;
        !self.waiting.is_empty() || self.free.len() + growable <= low
    }

    /// The extent that reclaim should give back next.
    pub(crate) fn candidate(&self) -> Option<(u32, Account)> {
        let extent_bytes = self.superblock.extent_bytes;
        let extent = self.accounts.candidate(extent_bytes, self.free_share(), self.is_low())?;
        Some((extent, self.accounts.extents[&extent]))
    }

    /// Reclaim will make room.
    fn will_gain(&self) -> bool {
        self.reclaiming && self.accounts.candidate(self.superblock.extent_bytes, 0.0, true).is_some()
    }

    /// Takes an extent that was given back.
    pub(crate) fn take_freed(&mut self, extent: u32) {
        let account = self.accounts.extents.remove(&extent);
        assert!(account.is_some() && self.free.insert(extent), "an extent in use is given back");
        self.recycled.insert(extent);
        self.starved_since = None;
    }

    fn growable(&self) -> u32 {
        self.extents_max - self.superblock.extents_prepared
    }

    fn may_grow(&self, now: Moment) -> bool {
        self.growable() > 0 && self.exhausted_at.is_none_or(|at| now.since(at) >= GROWTH_RETRY)
    }

    fn decide(&mut self, request: &ExtentRequest, now: Moment, random: impl Fn() -> u64) -> Decision {
        let &ExtentRequest { core, lane, urgent, .. } = request;
        let reserved = self.reserved(lane);
        if !urgent && self.free.len() <= reserved + 2 * self.core_count {
            return Decision::Refuse(Refused::Scarce);
        }
        if let Some(partial) = self.take_partial(lane) {
            self.starved_since = None;
            let ExtentName { extent, incarnation, .. } = partial.header.name;
            self.hand_to(extent, Some((core, lane)));
            let (recycled, free_bytes) = (false, self.free_bytes());
            return Decision::Grant(Grant {
                extent,
                incarnation,
                recycled,
                partial: Some(partial),
                free_bytes,
                urgent,
            });
        }
        if self.free.len() > reserved {
            if matches!(lane, Lane::Large | Lane::Small) {
                self.starved_since = None;
            }
            let extent = self.free.pop_first().expect("more than none");
            let recycled = self.recycled.remove(&extent);
            let incarnation = random().max(1);
            let stage = if lane == Lane::Log { AccountStage::Log } else { AccountStage::Open };
            self.accounts.extents.insert(extent, Account::new(incarnation, stage));
            self.hand_to(extent, Some((core, lane)));
            let free_bytes = self.free_bytes();
            return Decision::Grant(Grant { extent, incarnation, recycled, partial: None, free_bytes, urgent });
        }
        if self.superblock_busy || self.may_grow(now) {
            return Decision::Wait;
        }
        // Reclaim itself waits for room only where the disk may grow.
        if lane == Lane::Moved {
            return Decision::Refuse(Refused::Full);
        }
        if self.recalling || self.will_gain() {
            return Decision::Wait;
        }
        match self.recall_for(core, lane) {
            Some(extent) => Decision::Recall(extent),
            None if lane != Lane::Log && self.may_get_room(now) => Decision::Wait,
            None => Decision::Refuse(Refused::Full),
        }
    }

    /// What was deleted may not be released yet. Who writes waits for that, but not in vain again and again: only once until
    /// there was room.
    fn may_get_room(&mut self, now: Moment) -> bool {
        let since = *self.starved_since.get_or_insert(now);
        self.reclaiming && now.since(since) < ROOM_TIME
    }

    /// Writers that wait for room.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Says who fills an extent from now on.
    fn hand_to(&mut self, extent: u32, holder: Option<(CoreId, Lane)>) {
        let account = self.accounts.extents.get_mut(&extent).expect("an extent in use has an account");
        account.holder = holder;
        account.recalled_at = None;
    }

    /// Takes this extent, if it waits for somebody to fill it.
    pub(crate) fn take_this_partial(&mut self, extent: u32) -> Option<Partial> {
        let at = self.partial.iter().position(|partial| partial.header.name.extent == extent)?;
        Some(self.partial.remove(at))
    }

    fn take_partial(&mut self, lane: Lane) -> Option<Partial> {
        if lane == Lane::Log {
            return None;
        }
        let extent_bytes = self.superblock.extent_bytes;
        let fits =
            |partial: &Partial| has_room(extent_bytes, partial.tail, partial.entries.len(), lane.bytes_wanted(), 1);
        let at = self.partial.iter().position(fits)?;
        Some(self.partial.remove(at))
    }

    fn take_back(&mut self, grant: Grant) {
        match grant.partial {
            Some(partial) => {
                self.hand_to(grant.extent, None);
                self.partial.push(partial);
            }
            None => {
                self.accounts.extents.remove(&grant.extent);
                assert!(self.free.insert(grant.extent), "a granted extent is not free");
                if grant.recycled {
                    self.recycled.insert(grant.extent);
                }
            }
        }
    }

    /// How many extents to add now.
    fn growth(&self, now: Moment) -> u32 {
        if self.superblock_busy || self.free.len() >= EXTENTS_AHEAD || !self.may_grow(now) {
            return 0;
        }
        // The first ones singly, so that the first PUT of a new disk does not wait for many to be zeroed.
        let step = (self.superblock.extents_prepared / 2).clamp(1, GROWTH_EXTENTS_MAX);
        let missing = u32::try_from(EXTENTS_AHEAD - self.free.len()).expect("at most a few");
        step.min(missing).min(self.growable())
    }
}

impl<W: World> Inner<W> {
    /// Gives an extent of a disk whose home is here, now or when the disk has grown.
    pub(crate) fn request_extent(self: &Rc<Self>, disk: u16, request: ExtentRequest) {
        self.space(disk).borrow_mut().waiting.push_back(request);
        self.serve_space(disk);
        if self.space(disk).borrow().is_low() {
            self.disk(disk).wake_reclaim();
        }
    }

    /// Answers whom it can and grows the disk ahead of need.
    pub(crate) fn serve_space(self: &Rc<Self>, disk: u16) {
        let mut space = self.space(disk).borrow_mut();
        let now = self.world.now();
        let mut recall = None;
        for _ in 0..space.waiting.len() {
            let request = space.waiting.pop_front().expect("counted");
            let decision = match self.disk(disk).failed.get() {
                Some(error) => Decision::Refuse(Refused::Device(error)),
                None => space.decide(&request, now, || self.world.random()),
            };
            let answer = match decision {
                Decision::Grant(grant) => Ok(grant),
                Decision::Refuse(refused) => Err(refused),
                Decision::Wait => {
                    space.waiting.push_back(request);
                    continue;
                }
                Decision::Recall(extent) => {
                    space.waiting.push_back(request);
                    space.recalling = true;
                    recall = Some(extent);
                    continue;
                }
            };
            if let Err(Ok(grant)) = request.reply.send(answer) {
                space.take_back(grant);
            }
        }
        let growth = space.growth(now);
        let grows = growth > 0 && self.disk(disk).failed.get().is_none();
        space.superblock_busy |= grows;
        drop(space);
        if let Some(extent) = recall {
            drop(self.recall(disk, extent));
        }
        if grows {
            let inner = Rc::clone(self);
            self.start(async move { inner.grow(disk, growth).await });
        }
    }

    async fn grow(self: Rc<Self>, disk: u16, extents: u32) {
        let mut grown = self.grow_by(disk, extents).await;
        if extents > 1 && grown == Err(DeviceError::NoSpace) {
            // There may be room for one.
            grown = self.grow_by(disk, 1).await;
        }
        if let Err(error) = grown {
            self.note_write_failed(disk, error);
        }
        let mut space = self.space(disk).borrow_mut();
        space.superblock_busy = false;
        // What could not be flushed by order says nothing about room.
        let exhausted = grown.err().filter(|error| *error != DeviceError::Offline);
        space.exhausted_at = exhausted.map(|error| {
            tracing::warn!(disk = %self.disk(disk).id, %error, "the disk could not grow");
            self.world.now()
        });
        drop(space);
        self.serve_space(disk);
    }

    /// A record of this profile, encrypted or not, may be written to the disk: before the first one of several shards, and
    /// before the first one that is encrypted, the superblock says so, and keeps the keys.
    pub(crate) async fn allow(
        self: &Rc<Self>,
        disk: u16,
        profile: Profile,
        encrypted: bool,
    ) -> Result<(), DeviceError> {
        let allowed = &self.disk(disk).allowed;
        let shards = if profile == Profile::SINGLE { 0 } else { FEATURE_SHARDS };
        let features = shards | if encrypted { FEATURE_ENCRYPTED } else { 0 };
        if features & !allowed.get() == 0 {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let home = self.disk_home(disk);
        if home == self.core {
            self.request_features(disk, features, reply);
        } else {
            let message = Message::Allow { disk, features, reply };
            self.addresses[usize::from(home.0)].send(message).await.map_err(|_| DeviceError::Gone)?;
        }
        answer.await.unwrap_or(Err(DeviceError::Gone))?;
        allowed.set(allowed.get() | features);
        Ok(())
    }

    /// Makes a disk whose home is here say that it holds records which ask for these features.
    pub(crate) fn request_features(
        self: &Rc<Self>,
        disk: u16,
        features: u64,
        reply: oneshot::Sender<Result<(), DeviceError>>,
    ) {
        let inner = Rc::clone(self);
        self.start(async move {
            let allowed = inner.allow_features(disk, features).await;
            // Who was cancelled does not wait any more.
            let _ = reply.send(allowed);
        });
    }

    async fn allow_features(self: &Rc<Self>, disk: u16, features: u64) -> Result<(), DeviceError> {
        let _turn = self.superblock_turn(disk).await;
        let mut superblock = self.space(disk).borrow().superblock;
        let mut keys = superblock.keys;
        if features & FEATURE_ENCRYPTED != 0 {
            // What it keeps already is never given up.
            let kept = self.keys.keys().try_for_each(|key| keys.insert(*key));
            kept.map_err(|_| DeviceError::Offline)?;
        }
        if superblock.features_incompatible & features != features || superblock.keys != keys {
            superblock.features_incompatible |= features;
            superblock.keys = keys;
            superblock.generation += 1;
            self.write_superblock(disk, &superblock).await?;
            let mut space = self.space(disk).borrow_mut();
            space.superblock = Superblock { scrub: space.superblock.scrub, ..superblock };
        }
        Ok(())
    }

    /// Lets a disk whose home is here keep the node's keys, if it does not: those that are new, or were wrapped anew.
    pub(crate) fn bring_keys(self: &Rc<Self>, disk: u16) {
        if self.space(disk).borrow().superblock.keys == self.keys {
            return;
        }
        let inner = Rc::clone(self);
        self.start(async move {
            let id = inner.disk(disk).id;
            match inner.allow_features(disk, FEATURE_ENCRYPTED).await {
                Ok(()) => tracing::info!(disk = %id, "the disk keeps the encryption keys as they are wrapped now"),
                Err(error) => tracing::error!(disk = %id, %error, "the disk did not take the encryption keys"),
            }
        });
    }

    async fn grow_by(self: &Rc<Self>, disk: u16, extents: u32) -> Result<(), DeviceError> {
        let _turn = self.superblock_turn(disk).await;
        let mut superblock = self.space(disk).borrow().superblock;
        let first = superblock.extents_prepared;
        superblock.extents_prepared += extents;
        superblock.generation += 1;
        self.disk(disk).device.grow(extent_offset(superblock.extents_prepared, superblock.extent_bytes)).await?;
        // The disk must know of an extent, durably, before anything in it is acknowledged.
        self.write_superblock(disk, &superblock).await?;
        let mut space = self.space(disk).borrow_mut();
        space.superblock = Superblock { scrub: space.superblock.scrub, ..superblock };
        space.free.extend(first..superblock.extents_prepared);
        Ok(())
    }

    /// Writes down how far scrub has come; another time when the superblock is being written anyway. It goes on when nobody
    /// waits any more.
    pub(crate) async fn mark_scrub(self: &Rc<Self>, disk: u16) {
        {
            let mut space = self.space(disk).borrow_mut();
            space.superblock.scrub = space.scrubbed.mark();
            if space.superblock_busy || self.disk(disk).failed.get().is_some() {
                return;
            }
            space.superblock_busy = true;
        }
        let (done, ended) = oneshot::channel();
        let inner = Rc::clone(self);
        self.start(async move {
            let turn = inner.superblock_turn(disk).await;
            let superblock = {
                let mut space = inner.space(disk).borrow_mut();
                space.superblock.generation += 1;
                space.superblock
            };
            if let Err(error) = inner.write_superblock(disk, &superblock).await {
                tracing::warn!(disk = %inner.disk(disk).id, %error, "how far scrub has come could not be written down");
            }
            drop(turn);
            inner.space(disk).borrow_mut().superblock_busy = false;
            inner.serve_space(disk);
            let _ = done.send(());
        });
        let _ = ended.await;
    }

    /// Marks a disk of this core clean, as the last thing that is written to it.
    pub(crate) async fn mark_clean(self: &Rc<Self>, disk: u16) -> Result<(), DeviceError> {
        let _turn = self.superblock_turn(disk).await;
        let mut superblock = {
            let space = self.space(disk).borrow();
            Superblock { scrub: space.scrubbed.mark(), ..space.superblock }
        };
        superblock.generation += 1;
        superblock.clean = true;
        self.write_superblock(disk, &superblock).await
    }

    /// Writes down, on a disk whose home is here, which disks it belongs to. It goes on when nobody waits any more.
    pub(crate) async fn enroll(self: &Rc<Self>, disk: u16, roster: Roster) -> Result<(), DeviceError> {
        let (done, ended) = oneshot::channel();
        let inner = Rc::clone(self);
        self.start(async move {
            let _ = done.send(inner.enroll_now(disk, roster).await);
        });
        ended.await.unwrap_or(Err(DeviceError::Gone))
    }

    async fn enroll_now(self: &Rc<Self>, disk: u16, roster: Roster) -> Result<(), DeviceError> {
        let _turn = self.superblock_turn(disk).await;
        if let Some(error) = self.disk(disk).failed.get() {
            return Err(error);
        }
        let superblock = {
            let mut space = self.space(disk).borrow_mut();
            if space.roster == roster {
                return Ok(());
            }
            space.roster = roster;
            space.superblock.generation += 1;
            space.superblock
        };
        self.write_superblock(disk, &superblock).await
    }

    /// For who has the turn.
    async fn write_superblock(self: &Rc<Self>, disk: u16, superblock: &Superblock) -> Result<(), DeviceError> {
        let roster = self.space(disk).borrow().roster.clone();
        let flush = async || self.flush_disk(disk).await;
        write_superblock(&self.world, &self.disk(disk).device, superblock, &roster, flush).await
    }
}
