//! Metadata that knows nothing of disks, behind the flush that its changes rely on: what a commit references is durable
//! before the commit is sent.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use anvil_model::ids::DiskId;
use anvil_model::io::World;
use anvil_model::placement::shards_needed;
use anvil_store::Store;

use super::client::RETRY_AFTER;
use super::mutation::{Mutation, Outcome};
use super::query::{Answer, Query};
use super::{Metadata, MetadataError};

/// Flushes, then commits. One flush of a disk makes all that a batch brought there durable.
pub struct Flushed<W: World, M> {
    store: Store<W>,
    inner: M,
}

impl<W: World, M: Metadata> Flushed<W, M> {
    /// `inner` behind the flushes of `store`.
    pub fn new(store: Store<W>, inner: M) -> Self {
        Self { store, inner }
    }
}

impl<W: World, M: Metadata> Metadata for Flushed<W, M> {
    /// A disk whose flush fails makes its shards repair debt; a change with too few shards left does not happen.
    async fn commit(&self, batch: Arc<[Mutation]>) -> Vec<Result<Outcome, MetadataError>> {
        let places = batch.iter().filter_map(Mutation::claim).flat_map(|claim| claim.places.iter().copied());
        let disks: BTreeSet<DiskId> = places.filter(|disk| *disk != DiskId::NONE).collect();
        let disks: Vec<DiskId> = disks.into_iter().collect();
        let flushed = self.store.flush_each(&disks).await;
        let failed = disks.iter().zip(flushed).filter_map(|(disk, flushed)| Some((*disk, flushed.err()?)));
        let failed: Vec<DiskId> = failed
            .map(|(disk, error)| {
                tracing::error!(%disk, %error, "a disk did not make its shards durable");
                disk
            })
            .collect();
        if failed.is_empty() {
            return self.inner.commit(batch).await;
        }
        let left: Vec<Option<Mutation>> = batch.iter().map(|mutation| without_shards_on(mutation, &failed)).collect();
        let sent: Arc<[Mutation]> = left.iter().flatten().cloned().collect();
        let mut outcomes = self.inner.commit(sent).await.into_iter();
        let unavailable = Err(MetadataError::Unavailable { retry_after: RETRY_AFTER });
        left.iter()
            .map(|sent| if sent.is_some() { outcomes.next().expect("one each") } else { unavailable.clone() })
            .collect()
    }

    fn look_up(&self, batch: Vec<Query>) -> impl Future<Output = Vec<Result<Answer, MetadataError>>> {
        self.inner.look_up(batch)
    }
}

/// The same change with its shards on these disks as repair debt; `None` when too few of its blob's shards are left.
pub(super) fn without_shards_on(mutation: &Mutation, failed: &[DiskId]) -> Option<Mutation> {
    let mut mutation = mutation.clone();
    if let Some(claim) = mutation.claim_mut() {
        claim.places.iter_mut().filter(|place| failed.contains(place)).for_each(|place| *place = DiskId::NONE);
        let left = claim.places.iter().filter(|&&place| place != DiskId::NONE).count();
        if !claim.places.is_empty() && left < shards_needed(claim.profile).into() {
            return None;
        }
    }
    Some(mutation)
}
