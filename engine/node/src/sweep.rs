//! The story of the sweep: the rows of all blobs against the blobs that this core's store has, side by side in the order
//! of their ids.
//!
//! - A blob without a row, written by a life that is closed, is an orphan: its PUT never committed and never can. It is
//!   claimed as dead under the key that its commit would need, so that of a late commit and the sweep one wins, and is
//!   garbage like any other from then on. How old it is decides nothing.
//! - A blob without a row of the life that runs is left alone: its commit may be on its way.
//! - A live row whose blob the store does not have wholly is named and counted. At `1+0` nothing can mend it.

use std::collections::BTreeMap;
use std::time::Duration;

use anvil_model::geometry;
use anvil_model::ids::{BlobId, Incarnation, NodeId};
use anvil_model::io::World;
use anvil_model::limits::PAGE_KEYS_MAX;
use anvil_model::profile::Profile;

use crate::Node;
use crate::metadata::MetadataError;
use crate::metadata::mutation::{BlobClaim, Change, Outcome};
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
        loop {
            let known = self.store.blobs(position, PAGE_KEYS_MAX);
            let last = known.last().map(|known| known.blob).filter(|_| known.len() == PAGE_KEYS_MAX);
            let mut orphans = Vec::new();
            for known in known.into_iter().filter(|known| in_page(known.blob)) {
                swept.blobs += 1;
                match rows.remove(&known.blob) {
                    Some(row) if known.length < row.length => drop(rows.insert(row.blob, row)),
                    Some(row) => self.note_missing_shards(&row).await,
                    None if known.released || !life.closed(known.blob) => {}
                    None => orphans.push(claim(known.blob, known.profile, known.length)),
                }
            }
            swept.orphans += self.claim_orphans(orphans).await?;
            match last {
                Some(last) if in_page(last) => position = Some(last),
                _ => break,
            }
            self.world.sleep(PAUSE).await;
        }
        for row in rows.into_values().filter(|row| row.state == BlobState::Live) {
            self.look_again(&row, swept).await?;
        }
        Ok(())
    }

    /// Shards that the row says are on disks that are here, and are not, are to be repaired.
    async fn note_missing_shards(&self, row: &BlobRow) {
        if row.profile.parity == 0 || row.state == BlobState::Dead {
            return;
        }
        let last = geometry::window_count(row.profile, row.length) - 1;
        for window in [0, last] {
            let located = self.store.locate(row.blob, geometry::window_start(row.profile, window)).await;
            let Ok(Some(located)) = located else { return };
            for (&disk, shard) in row.places.iter().zip(0..) {
                if located.cell(shard).is_none() && self.is_online(disk) {
                    self.repairs.note_damaged(row.blob, shard, disk);
                }
            }
        }
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
    async fn look_again(&self, row: &BlobRow, swept: &mut Swept) -> Result<(), MetadataError> {
        if self.metadata.blob(row.blob).await?.is_none_or(|row| row.state == BlobState::Dead) {
            return Ok(());
        }
        swept.missing += 1;
        if swept.missing <= NAMED_MAX {
            let BlobRow { blob, length, .. } = row;
            tracing::error!(%blob, length, "objects need a blob that is not wholly on the disks");
        }
        Ok(())
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
