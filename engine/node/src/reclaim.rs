//! The story of garbage: what the metadata released is released by the stores, and forgotten when its bytes are gone.
//!
//! Every core reads the garbage list and takes the blobs that are at home on it. What it released is kept in memory only:
//! the next life reads the list from the beginning. A line leaves the list when the store says that no start will find the
//! blob's records again, so the row that keeps its id from being claimed outlives its bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use anvil_model::ids::{BlobId, Generation};
use anvil_model::io::World;
use anvil_model::limits::PAGE_KEYS_MAX;

use crate::Node;
use crate::metadata::MetadataError;
use crate::metadata::mutation::Change;

/// Pages of the list that are read before what is gone is forgotten.
const PAGES_PER_ROUND: usize = 16;

/// One core's place in the garbage list.
pub(crate) struct Reclaimer<W: World> {
    node: Node<W>,
    /// Everything up to here was released, where it is at home on this core.
    position: Option<(Generation, BlobId)>,
    /// Released and not gone, with what names their lines. Bounded as the store's index is.
    released: BTreeMap<BlobId, Generation>,
    /// Gone; their lines are to be forgotten.
    gone: Vec<(Generation, BlobId)>,
    /// Abandoned blobs that were so at the last round: no append of theirs runs any more.
    abandoned: usize,
}

impl<W: World> Reclaimer<W> {
    pub(crate) fn new(node: Node<W>) -> Self {
        Self { node, position: None, released: BTreeMap::new(), gone: Vec::new(), abandoned: 0 }
    }

    /// Releases what has been garbage for `delay`, and forgets what is gone. True when there is more to do at once.
    pub(crate) async fn round(&mut self, delay: Duration) -> Result<bool, MetadataError> {
        self.release_abandoned();
        let more = self.release_garbage(delay).await?;
        Ok(self.forget().await? || more)
    }

    /// No row names these blobs and none ever will, so that nobody needs to be asked.
    fn release_abandoned(&mut self) {
        let node = &self.node;
        let due = node.abandoned.take(self.abandoned);
        self.abandoned = node.abandoned.count();
        node.upkeep.add(|counters| &counters.abandoned, due.len());
        due.into_iter().for_each(|blob| node.store().release(blob));
    }

    async fn release_garbage(&mut self, delay: Duration) -> Result<bool, MetadataError> {
        let (core, core_count) = (self.node.world.core(), self.node.world.core_count());
        for _ in 0..PAGES_PER_ROUND {
            let page = self.node.metadata.garbage(self.position, PAGE_KEYS_MAX).await?;
            let last_page = page.len() < PAGE_KEYS_MAX;
            let now = self.node.world.wall_clock();
            for row in page {
                let age_ms = u128::from(now.unix_ms.saturating_sub(row.since.unix_ms));
                if age_ms < delay.as_millis() {
                    return Ok(false);
                }
                self.position = Some((row.generation, row.blob));
                if row.blob.home(core_count) == core {
                    self.released.insert(row.blob, row.generation);
                    self.node.store().release(row.blob);
                    self.node.upkeep.add(|counters| &counters.released, 1);
                }
            }
            if last_page {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// True when there may be more.
    async fn forget(&mut self) -> Result<bool, MetadataError> {
        let room = PAGE_KEYS_MAX - self.gone.len();
        let gone = self.node.store().gone(room);
        let more = gone.len() == room;
        // An abandoned blob has no line.
        let lines = gone.into_iter().filter_map(|blob| Some((self.released.remove(&blob)?, blob)));
        self.gone.extend(lines);
        if self.gone.is_empty() {
            return Ok(more);
        }
        // Those of a commit that failed or is unknown are said again: forgetting twice changes nothing.
        self.node.metadata.commit(Change::ForgetGarbage { blobs: self.gone.clone() }).await?;
        self.node.upkeep.add(|counters| &counters.forgotten, self.gone.len());
        self.gone.clear();
        Ok(more)
    }
}
