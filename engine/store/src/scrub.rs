//! Every record is read and verified, slowly, all the time: what rots is named before somebody asks for it.
//!
//! One task per disk, on the disk's home core, extent by extent. Sealed extents are taken by their footers; open ones are
//! searched like at a start, and what is being written meanwhile waits for the next pass. Only live records count, and a
//! record that seems bad is bad only if it still lies there afterwards: reclaim may have moved it.
//!
//! A pass goes on after a restart where the superblock says that it was.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use anvil_model::format::{ExtentName, FooterEntry, ScrubMark, Subject};
use anvil_model::ids::DiskId;
use anvil_model::io::{DeviceError, Reserve, World};
use anvil_model::time::{Moment, WallTime};

use crate::budget::{Budget, Rate};
use crate::chore::Chore;
use crate::reclaim::LiveError;
use crate::scan::{Examined, Found};
use crate::store::{Inner, Store};
use crate::walk::{Walk, groups};

/// Bad records that wait for somebody who asks for them; more are counted only.
pub(crate) const BAD_RECORDS_KEPT: usize = 1000;
/// So long scrub rests when a device or another core fails.
const REST: Duration = Duration::from_secs(10);
/// How far a pass has come is written down so often: a crash repeats no more of it.
const MARK_EVERY: Duration = Duration::from_secs(600);
/// The clock on the wall is looked at so often while the next pass is waited for.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(600);

/// How scrub goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubOptions {
    /// What may be read per disk.
    pub rate: Rate,
    /// From the beginning of one pass to that of the next, if the first has ended by then. Above 0.
    pub every: Duration,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        let rate = Rate { bytes_per_second: 16 << 20, burst_bytes: 4 << 20 };
        Self { rate, every: Duration::from_secs(30 * 24 * 60 * 60) }
    }
}

/// A record whose bytes are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// On which disk.
    pub disk: DiskId,
    /// In which extent.
    pub extent: u32,
    /// Where it begins in the extent, in bytes.
    pub offset: u32,
    /// Whose bytes.
    pub subject: Subject,
}

/// How far scrub has come with a disk. Sums are since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Passes that have ended.
    pub passes: u64,
    /// When the last pass began, by the clock on the wall, in this life or an earlier one.
    pub pass_began: Option<WallTime>,
    /// When a pass ended last.
    pub pass_ended: Option<WallTime>,
    /// When the next pass is due; none before the first, and while one is under way.
    pub pass_due: Option<WallTime>,
    /// The extent that comes next in this pass; 0 when none is under way.
    pub next_extent: u32,
    /// Records that were whole, of all passes.
    pub records: u64,
    /// Bytes that were read, of all passes.
    pub bytes: u64,
    /// Records that were bad, of all passes.
    pub bad_records: u64,
    /// Extents whose footer and index do not agree, of all passes: a record is not found at all.
    pub unclear_extents: u64,
}

impl Scrubbed {
    /// What an earlier life wrote down.
    pub(crate) fn resume(mark: ScrubMark) -> Self {
        let ScrubMark { pass_began, pass_ended, next_extent } = mark;
        Self { pass_began, pass_ended, next_extent, ..Self::default() }
    }

    pub(crate) fn mark(&self) -> ScrubMark {
        let &Self { pass_began, pass_ended, next_extent, .. } = self;
        ScrubMark { pass_began, pass_ended, next_extent }
    }
}

impl<W: World> Store<W> {
    /// Verifies, from now on until [`Self::close`], pass after pass, the records of the disks whose home is here. Each pass
    /// is a turn of `chore`. Once, on every core.
    pub fn start_scrub(&self, options: ScrubOptions, chore: &Chore) {
        let inner = &self.inner;
        *inner.scrub.borrow_mut() = Some((options, chore.clone()));
        inner.disks_at_home().for_each(|disk| inner.keep_scrubbing(disk, options, chore.clone()));
    }

    /// Takes up to `max` bad records that the start found of blobs whose home is here, and scrub and reclaim on the disks whose
    /// home is here, each time that they found them. Up to 1000 are kept; more are only counted and logged.
    #[must_use]
    pub fn bad_records(&self, max: usize) -> Vec<BadRecord> {
        let mut bad = self.inner.bad_records.borrow_mut();
        let count = max.min(bad.len());
        bad.drain(..count).collect()
    }
}

impl<W: World> Inner<W> {
    /// Names a record that is bad.
    pub(crate) fn note_bad(&self, disk: u16, name: ExtentName, entry: &FooterEntry) {
        let bad = BadRecord { disk: name.disk, extent: name.extent, offset: entry.offset, subject: entry.subject };
        match bad.subject {
            Subject::Blob { blob, profile, shard, window } => {
                tracing::error!(
                    disk = %bad.disk, extent = bad.extent, %blob, %profile, shard, window, "a record is damaged"
                );
            }
            Subject::Log { number, .. } => {
                tracing::error!(disk = %bad.disk, extent = bad.extent, number, "a record of the metadata log is damaged");
            }
        }
        self.space(disk).borrow_mut().scrubbed.bad_records += 1;
        let mut kept: std::cell::RefMut<'_, VecDeque<BadRecord>> = self.bad_records.borrow_mut();
        if kept.len() < BAD_RECORDS_KEPT {
            kept.push_back(bad);
        }
    }

    pub(crate) fn keep_scrubbing(self: &Rc<Self>, disk: u16, options: ScrubOptions, chore: Chore) {
        self.start_background(Rc::clone(self).scrub_disk(disk, options, chore));
    }

    async fn scrub_disk(self: Rc<Self>, disk: u16, options: ScrubOptions, chore: Chore) {
        let budget = Budget::new(options.rate);
        loop {
            self.wait_for_pass(disk, options.every).await;
            let _turn = chore.turn().await;
            {
                let scrubbed = &mut self.space(disk).borrow_mut().scrubbed;
                scrubbed.pass_due = None;
                if scrubbed.next_extent == 0 {
                    scrubbed.pass_began = Some(self.world.wall_clock());
                }
                let (disk, from_extent) = (self.disk(disk).id, scrubbed.next_extent);
                tracing::info!(%disk, from_extent, "a pass of scrub begins");
            }
            self.pass(disk, &budget).await;
            {
                let scrubbed = &mut self.space(disk).borrow_mut().scrubbed;
                scrubbed.passes += 1;
                scrubbed.next_extent = 0;
                scrubbed.pass_ended = Some(self.world.wall_clock());
                tracing::info!(disk = %self.disk(disk).id, bytes = scrubbed.bytes, bad = scrubbed.bad_records, "scrubbed");
            }
            self.mark_scrub(disk).await;
        }
    }

    /// Waits until the next pass is due; not at all when one is under way.
    async fn wait_for_pass(&self, disk: u16, every: Duration) {
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX).max(1);
        let waits_since = self.world.now();
        loop {
            let waited = self.world.now().since(waits_since);
            let wait = {
                let scrubbed = &mut self.space(disk).borrow_mut().scrubbed;
                let Some(began) = scrubbed.pass_began.filter(|_| scrubbed.next_extent == 0) else { return };
                let due = WallTime { unix_ms: began.unix_ms.saturating_add(every_ms) };
                scrubbed.pass_due = Some(due);
                let until_due = due.unix_ms.saturating_sub(self.world.wall_clock().unix_ms);
                // A clock that was far ahead when the last pass began does not put off the next one for longer than this.
                Duration::from_millis(until_due).min(every.saturating_sub(waited))
            };
            if wait.is_zero() {
                return;
            }
            self.world.sleep(wait.min(LOOK_AT_CLOCK)).await;
        }
    }

    /// Once through what is left of a pass.
    async fn pass(self: &Rc<Self>, disk: u16, budget: &Budget) {
        let mut marked_at: Moment = self.world.now();
        while let Some(name) = self.next_to_scrub(disk) {
            match self.scrub_extent(disk, name, budget).await {
                Ok(()) => {}
                Err(ScrubError::Unclear) => {
                    tracing::error!(disk = %name.disk, extent = name.extent, "a footer and the index do not agree");
                    self.space(disk).borrow_mut().scrubbed.unclear_extents += 1;
                }
                Err(ScrubError::Device(error)) => {
                    tracing::warn!(disk = %name.disk, extent = name.extent, %error, "an extent cannot be read");
                    self.world.sleep(REST).await;
                }
                Err(ScrubError::Closing) => self.world.sleep(REST).await,
            }
            // A stop in the middle of an extent repeats it.
            self.space(disk).borrow_mut().scrubbed.next_extent = name.extent + 1;
            if self.world.now().since(marked_at) >= MARK_EVERY {
                marked_at = self.world.now();
                self.mark_scrub(disk).await;
            }
        }
    }

    /// The extent in use that comes next in this pass.
    fn next_to_scrub(&self, disk: u16) -> Option<ExtentName> {
        let space = self.space(disk).borrow();
        let (&extent, account) = space.accounts.extents.range(space.scrubbed.next_extent..).next()?;
        Some(ExtentName { disk: self.disk(disk).id, extent, incarnation: account.incarnation })
    }

    async fn scrub_extent(&self, disk: u16, name: ExtentName, budget: &Budget) -> Result<(), ScrubError> {
        let Examined::Used(found) = self.examine_extent(disk, name).await? else {
            // It was given back just now, or its header was read wrongly; the next pass comes by again.
            return Ok(());
        };
        let is_open = found.is_open();
        let Found { header, mut entries, .. } = found;
        if header.name != name {
            return Ok(());
        }
        entries.sort_unstable_by_key(|entry| entry.offset);
        // What is not whole in an open extent may be under way. A footer names what was torn by a crash.
        let log = entries.iter().filter(|entry| matches!(entry.subject, Subject::Log { .. }) && !entry.damaged);
        let mut wanted: Vec<_> = log.copied().collect();
        if wanted.is_empty() {
            let (live, complete) = self.live_of(disk, name, &entries).await?;
            let in_use = self.space(disk).borrow_mut().accounts.of(name.extent, name.incarnation).is_some();
            if !complete && !is_open && in_use {
                return Err(ScrubError::Unclear);
            }
            wanted = live;
        }
        let walk = Walk::<W> { device: &self.disk(disk).device, name, extent_bytes: self.disk(disk).extent_bytes };
        for group in groups(&wanted) {
            budget.spend(&self.world, group.length as u64).await;
            let buffer = self.world.buffer(Reserve::Progress).await;
            let (buffer, headers) = walk.read(&wanted, &group, buffer).await?;
            drop(buffer);
            let read = &wanted[group.entries.clone()];
            let bad: Vec<_> =
                read.iter().zip(&headers).filter(|(_, header)| header.is_none()).map(|(e, _)| *e).collect();
            {
                let scrubbed = &mut self.space(disk).borrow_mut().scrubbed;
                scrubbed.records += (headers.len() - bad.len()) as u64;
                scrubbed.bytes += group.length as u64;
            }
            if bad.is_empty() {
                continue;
            }
            // Those of the log are in use as long as their extent is. In an open one the write may be under way: this read saw less
            // of it than the first. What is bad there is named when the extent has its footer, and at each start.
            let still = match bad[0].subject {
                Subject::Log { .. } if is_open => Vec::new(),
                Subject::Log { .. } => bad,
                Subject::Blob { .. } => self.live_of(disk, name, &bad).await?.0,
            };
            if self.space(disk).borrow_mut().accounts.of(name.extent, name.incarnation).is_some() {
                still.iter().for_each(|entry| self.note_bad(disk, name, entry));
            }
        }
        Ok(())
    }
}

/// Why an extent was not scrubbed.
enum ScrubError {
    Unclear,
    Device(DeviceError),
    Closing,
}

impl From<DeviceError> for ScrubError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

impl From<LiveError> for ScrubError {
    fn from(LiveError::Closing: LiveError) -> Self {
        Self::Closing
    }
}
