//! The story of the sweep: the rows of all blobs against the blobs that this core's store has, side by side in the order
//! of their ids.
//!
//! - A blob without a row, written by a life that is closed, is an orphan: its PUT never committed and never can. It is
//!   claimed as dead under the key that its commit would need, so that of a late commit and the sweep one wins, and is
//!   garbage like any other from then on. How old it is decides nothing.
//! - A blob without a row of the life that runs is left alone: its commit may be on its way.
//! - A live row is compared with the records of each of its shards: a shard that is not wholly on the disk that the row
//!   names, although that disk works, is repair debt from then on (`debt`). So the sweep is the half of scrub that goes from
//!   the rows to the records; the other half reads the records.
//! - A live row whose blob cannot be read from what the store has is named and counted. At `1+0` nothing can mend it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anvil_model::geometry;
use anvil_model::ids::{BlobId, DiskId, Incarnation, NodeId};
use anvil_model::io::World;
use anvil_model::limits::PAGE_KEYS_MAX;
use anvil_model::profile::Profile;

use crate::Node;
use crate::metadata::MetadataError;
use crate::metadata::mutation::{BlobClaim, Change, LostShard, Outcome};
use crate::metadata::rows::{BlobRow, BlobState};

/// The life of a node that runs: what earlier ones left is the sweep's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentLife {
    /// The node.
    pub node: NodeId,
    /// Its open incarnation.
    pub incarnation: Incarnation,
}

/// What a sweep of one core found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs of the store that were compared.
    pub blobs: u64,
    /// Orphans that were claimed.
    pub orphans: u64,
    /// Live rows without a whole blob.
    pub missing: u64,
    /// Shards that were not where their rows say, and are debt now.
    pub lacking: u64,
}

/// Between two pages, and for each core once: all cores together read at most 50,000 rows per second.
const PAUSE: Duration = Duration::from_millis(20);
/// Missing blobs of one sweep that are named in the log; the others are counted.
const NAMED_MAX: u64 = 10;

impl CurrentLife {
    /// Whether what wrote this blob has ended.
    fn closed(self, blob: BlobId) -> bool {
        blob.node == self.node && blob.incarnation < self.incarnation
    }
}

impl<W: World> Node<W> {
    /// Compares all rows of blobs with the blobs that are at home on this core, once.
    ///
    /// # Errors
    /// When the metadata does not answer; what was found until then is done.
    pub async fn sweep(&self, life: CurrentLife) -> Result<Swept, MetadataError> {
        let core_count = self.world.core_count();
        let mut swept = Swept::default();
        let mut after = None;
        loop {
            let rows = self.metadata.blobs(after, PAGE_KEYS_MAX).await?;
            let until = rows.last().map(|row| row.blob).filter(|_| rows.len() == PAGE_KEYS_MAX);
            let mine = rows.into_iter().filter(|row| row.blob.home(core_count) == self.world.core());
            let page = Page { after, until, rows: mine.map(|row| (row.blob, row)).collect() };
            self.sweep_page(life, page, &mut swept).await?;
            after = until;
            if until.is_none() {
                return Ok(swept);
            }
            self.world.sleep(PAUSE * u32::from(core_count)).await;
        }
    }

    async fn sweep_page(&self, life: CurrentLife, page: Page, swept: &mut Swept) -> Result<(), MetadataError> {
        let Page { after: mut position, until, mut rows } = page;
        let in_page = |blob| until.is_none_or(|until| blob <= until);
        let online = self.online();
        loop {
            let known = self.store.blobs(position, PAGE_KEYS_MAX);
            let last = known.last().map(|known| known.blob).filter(|_| known.len() == PAGE_KEYS_MAX);
            let (mut orphans, mut lacking) = (Vec::new(), Vec::new());
            for known in known.into_iter().filter(|known| in_page(known.blob)) {
                swept.blobs += 1;
                match rows.remove(&known.blob) {
                    Some(row) if known.length < row.length => drop(rows.insert(row.blob, row)),
                    Some(row) => {
                        let lost = self.lost_shards(&row, &online);
                        let left = row.places.iter().filter(|&&place| place != DiskId::NONE).count() - lost.len();
                        if !lost.is_empty() && left < row.profile.data.into() {
                            rows.insert(row.blob, row);
                        }
                        lacking.extend(lost);
                    }
                    None if known.released || !life.closed(known.blob) => {}
                    None => orphans.push(claim(known.blob, known.profile, known.length)),
                }
            }
            swept.orphans += self.claim_orphans(orphans).await?;
            swept.lacking += self.tell_lost(&lacking).await? as u64;
            match last {
                Some(last) if in_page(last) => position = Some(last),
                _ => break,
            }
            self.world.sleep(PAUSE).await;
        }
        for row in rows.into_values().filter(|row| row.state == BlobState::Live) {
            self.look_again(row.blob, swept).await?;
        }
        Ok(())
    }

    /// Shards that the row says are on disks that work, and are not.
    fn lost_shards(&self, row: &BlobRow, online: &BTreeSet<DiskId>) -> Vec<LostShard> {
        let is_written_to = self.repairs.under_way.get() == Some(row.blob);
        if row.profile.parity == 0 || row.state == BlobState::Dead || is_written_to {
            return Vec::new();
        }
        let named: Vec<DiskId> =
            row.places.iter().map(|&disk| if online.contains(&disk) { disk } else { DiskId::NONE }).collect();
        let lacking = self.store.lacking(row.blob, row.profile, row.length, &named);
        let &BlobRow { blob, profile, .. } = row;
        let lost = |shard: u8| LostShard { blob, profile, shard, disk: named[usize::from(shard)] };
        lacking.into_iter().map(lost).collect()
    }

    async fn claim_orphans(&self, blobs: Vec<BlobClaim>) -> Result<u64, MetadataError> {
        if blobs.is_empty() {
            return Ok(0);
        }
        match self.metadata.commit(Change::ClaimOrphans { blobs }).await? {
            Outcome::OrphansClaimed(count) => {
                self.upkeep.add(|counters| &counters.orphans, count as usize);
                Ok(count.into())
            }
            other => unreachable!("claiming orphans came to {other:?}"),
        }
    }

    /// The store was asked after the row was read: a blob that is still live had been there before both.
    async fn look_again(&self, blob: BlobId, swept: &mut Swept) -> Result<(), MetadataError> {
        loop {
            let Some(row) = self.live(blob).await? else { return Ok(()) };
            // Records at places that no row names may do.
            if self.is_readable(&row).await {
                return Ok(());
            }
            // Otherwise it was spread anew meanwhile, which makes it wider each time.
            if self.live(blob).await?.is_some_and(|now| now.profile == row.profile) {
                swept.missing += 1;
                if swept.missing <= NAMED_MAX {
                    tracing::error!(%blob, length = row.length, "objects need a blob that is not wholly on the disks");
                }
                return Ok(());
            }
        }
    }

    /// The row of a blob that something references.
    pub(crate) async fn live(&self, blob: BlobId) -> Result<Option<BlobRow>, MetadataError> {
        Ok(self.metadata.blob(blob).await?.filter(|row| row.state == BlobState::Live))
    }
}

impl<W: World> Node<W> {
    /// Whether there are enough cells of each window, wherever they are.
    async fn is_readable(&self, row: &BlobRow) -> bool {
        for window in 0..geometry::window_count(row.profile, row.length) {
            let located = self.store.locate(row.blob, geometry::window_start(row.profile, window)).await;
            let Ok(Some(located)) = located else { return false };
            if located.profile != row.profile || located.cells.len() < row.profile.data.into() {
                return false;
            }
        }
        true
    }
}

/// A part of the ids: the rows in it, and the bounds.
struct Page {
    /// Behind this one.
    after: Option<BlobId>,
    /// Up to this one.
    until: Option<BlobId>,
    /// Not found in the store so far.
    rows: BTreeMap<BlobId, BlobRow>,
}

/// What is said of an orphan: where it lies is the index's business.
fn claim(blob: BlobId, profile: Profile, length: u64) -> BlobClaim {
    BlobClaim { blob, profile, length: length.max(1), places: Vec::new() }
}
