//! Blobs and who references them; those that nobody does are garbage.

use std::collections::BTreeSet;

use anvil_model::ids::{BlobId, DiskId, Generation};

use super::{Decided, No, One, changed};
use crate::metadata::Refusal;
use crate::metadata::mutation::{BlobClaim, BlobSpread, LostShard, Outcome};
use crate::metadata::rows::{BlobRow, BlobState, GarbageRow, Rows, RowsError, Slice};

impl<R: Rows> One<'_, R> {
    /// Whether a blob may be claimed by this write; gives the slice that is all of it.
    pub(super) fn claimable(&self, claim: Option<&BlobClaim>, size: u64) -> Result<Option<Slice>, No> {
        if claim.map_or(0, |claim| claim.length) != size || claim.is_some_and(|claim| claim.length == 0) {
            return Err(Refusal::InvalidRequest("the size is not that of the data").into());
        }
        let Some(BlobClaim { blob, length, .. }) = claim else { return Ok(None) };
        let open = self.rows.writer(blob.node)?.map(|row| row.incarnation);
        if open != Some(blob.incarnation) {
            return Err(Refusal::WriterClosed.into());
        }
        if self.rows.blob(*blob)?.is_some() {
            return Err(Refusal::BlobClaimed.into());
        }
        Ok(Some(Slice { blob: *blob, offset: 0, length: *length }))
    }

    pub(super) fn claim(&mut self, claim: Option<&BlobClaim>) -> Result<(), RowsError> {
        let Some(claim) = claim else { return Ok(()) };
        self.rows.put_blob(&BlobRow {
            blob: claim.blob,
            profile: claim.profile,
            length: claim.length,
            places: claim.places.clone(),
            references: 1,
            state: BlobState::Live,
            envelope: None,
        })
    }

    /// Drops one reference; with the last one the blob is dead and garbage.
    pub(super) fn release(&mut self, blob: BlobId) -> Result<(), RowsError> {
        let row = self.rows.blob(blob)?.filter(|row| row.state == BlobState::Live && row.references > 0);
        let Some(mut row) = row else {
            return Err(RowsError::Inconsistent(format!("blob {blob} is referenced and not live")));
        };
        row.references -= 1;
        if row.references == 0 {
            row.state = BlobState::Dead;
            self.list_garbage(blob)?;
        }
        self.rows.put_blob(&row)
    }

    fn list_garbage(&mut self, blob: BlobId) -> Result<(), RowsError> {
        self.rows.put_garbage(&GarbageRow { generation: self.stamp.generation, blob, since: self.stamp.at })
    }

    pub(super) fn claim_orphans(&mut self, blobs: &[BlobClaim]) -> Result<Decided, No> {
        for claim in blobs {
            let open = self.rows.writer(claim.blob.node)?;
            if open.is_none_or(|open| claim.blob.incarnation >= open.incarnation) {
                return Err(Refusal::InvalidRequest("the writer of the data is not closed").into());
            }
        }
        let mut count = 0;
        for claim in blobs {
            if self.rows.blob(claim.blob)?.is_some() {
                continue;
            }
            self.claim(Some(claim))?;
            self.release(claim.blob)?;
            count += 1;
        }
        Ok(Decided { outcome: Outcome::OrphansClaimed(count), changed: count > 0 })
    }

    /// Compare and set. A blob without places (an orphan's, or one of a test) has nothing to compare with.
    pub(super) fn move_shard(&mut self, blob: BlobId, shard: u8, from: DiskId, to: DiskId) -> Result<Decided, No> {
        let row = self.rows.blob(blob)?.filter(|row| row.state == BlobState::Live);
        let Some(mut row) = row else { return Err(Refusal::ShardMoved.into()) };
        match row.places.get_mut(usize::from(shard)) {
            // The places of a narrow blob that are no shard's stay free.
            Some(place) if *place == from && (row.profile.shards() > shard || to == DiskId::NONE) => {
                *place = DiskId::NONE
            }
            _ => return Err(Refusal::ShardMoved.into()),
        }
        if to != DiskId::NONE && row.places.contains(&to) {
            return Err(Refusal::InvalidRequest("the disk has another shard of the data").into());
        }
        row.places[usize::from(shard)] = to;
        if from != to {
            self.rows.put_blob(&row)?;
        }
        Ok(Decided { outcome: Outcome::ShardMoved, changed: from != to })
    }

    /// Compare and set, as a move of a shard; what was seen of another spread says nothing about this one.
    pub(super) fn lose_shard(&mut self, lost: LostShard) -> Result<Decided, No> {
        let LostShard { blob, profile, shard, disk } = lost;
        if self.rows.blob(blob)?.is_some_and(|row| row.profile != profile) {
            return Err(Refusal::ShardMoved.into());
        }
        self.move_shard(blob, shard, disk, DiskId::NONE)
    }

    /// Compare and set, as a move of a shard.
    pub(super) fn spread_anew(&mut self, blob: BlobId, from: &BlobSpread, to: &BlobSpread) -> Result<Decided, No> {
        let row = self.rows.blob(blob)?.filter(|row| row.state == BlobState::Live);
        let row = row.filter(|row| (row.profile, &row.places) == (from.profile, &from.places));
        let Some(row) = row else { return Err(Refusal::ShardMoved.into()) };
        let disks: BTreeSet<DiskId> = to.places.iter().copied().filter(|&place| place != DiskId::NONE).collect();
        if !to.profile.is_valid()
            || to.places.len() != usize::from(to.profile.shards())
            || disks.len() != to.places.len()
        {
            return Err(Refusal::InvalidRequest("the data has a disk of its own for each shard").into());
        }
        self.rows.put_blob(&BlobRow { profile: to.profile, places: to.places.clone(), ..row })?;
        Ok(changed(Outcome::BlobSpread))
    }

    pub(super) fn forget_garbage(&mut self, blobs: &[(Generation, BlobId)]) -> Result<Decided, No> {
        for (_, blob) in blobs {
            if self.rows.blob(*blob)?.is_some_and(|row| row.state == BlobState::Live) {
                return Err(Refusal::InvalidRequest("the data is live").into());
            }
        }
        for (generation, blob) in blobs {
            self.rows.delete_garbage(*generation, *blob)?;
            self.rows.delete_blob(*blob)?;
        }
        Ok(Decided { outcome: Outcome::GarbageForgotten, changed: !blobs.is_empty() })
    }
}
