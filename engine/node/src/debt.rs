//! How a shard becomes repair debt: what reads, scrub and the sweep find is made certain, and told to the metadata.
//!
//! Debt is a shard whose row names no disk for it. It is made only of what is certain: the disk that the row names works, and
//! has no record of the shard, or none that is whole. A disk that is offline or not here says nothing about what it holds,
//! and is no debt.
//!
//! The other way round, a shard may have records at more places than its row names: a disk came back whose shards were
//! made again elsewhere. The row decides, and the store is told so ([`Store::settle`](anvil_store::Store::settle)).

use std::collections::BTreeSet;
use std::time::Duration;

use anvil_model::format::Subject;
use anvil_model::geometry;
use anvil_model::ids::{BlobId, DiskId};
use anvil_model::io::{DeviceError, Reserve, World};
use anvil_model::profile::Profile;
use anvil_store::{BadRecord, CellError, DiskState};
use futures_util::future::join_all;

use crate::Node;
use crate::metadata::MetadataError;
use crate::metadata::mutation::{Change, LostShard};
use crate::repair::Repairs;
use crate::upkeep::Upkeep;

/// A shard that a read did not find, or could not read, in this window.
pub(crate) type Suspect = (BlobId, u8, u32);

/// Damaged shards that are remembered, at most; those beyond are found again.
const DAMAGED_MAX: usize = 1024;
/// Suspects that are remembered, at most: while a disk is missing, every read finds some, and each is looked up.
const SUSPECTS_MAX: usize = 64;
/// Shards that are told to the metadata, or blobs that are asked for, at once.
const AT_ONCE: usize = 64;
/// Lost shards that are named in the log one by one each time; the others are counted.
const NAMED_MAX: usize = 10;
/// After an error of the metadata.
const RETRY: Duration = Duration::from_secs(5);

impl Repairs {
    /// The record of this shard on this disk is not whole.
    pub(crate) fn note_damaged(&self, lost: LostShard) {
        let mut damaged = self.damaged.borrow_mut();
        if damaged.len() < DAMAGED_MAX {
            damaged.insert(lost);
        }
    }

    /// A read of this shard failed, or found no record of it.
    pub(crate) fn note_suspect(&self, blob: BlobId, shard: u8, window: u32) {
        let mut suspects = self.suspects.borrow_mut();
        if suspects.len() < SUSPECTS_MAX {
            suspects.insert((blob, shard, window));
        }
    }
}

impl<W: World> Node<W> {
    /// Tells the metadata and the store what was found, until it is dropped.
    pub(crate) async fn keep_telling(&self, upkeep: &Upkeep) {
        loop {
            let pause = match self.tell_findings().await {
                Ok(()) => upkeep.look_every,
                Err(error) => {
                    tracing::debug!(%error, "what is to be repaired cannot be told at the moment");
                    RETRY
                }
            };
            self.world.sleep(pause).await;
        }
    }

    async fn tell_findings(&self) -> Result<(), MetadataError> {
        self.settle_contested().await?;
        self.look_at_suspects().await?;
        self.tell_damage().await
    }

    /// Of the shards that have several records the store keeps those that the rows name.
    async fn settle_contested(&self) -> Result<(), MetadataError> {
        let (mut after, mut settled) = (None, 0);
        loop {
            let contested = self.store.contested(after, AT_ONCE);
            let Some(&last) = contested.last() else { break };
            after = Some(last);
            for blob in contested {
                let moved = self.repairs.moved.get();
                // One without a row is an orphan, and goes as such.
                let Some(row) = self.metadata.blob(blob).await? else { continue };
                // What is being made again has records that its row does not name yet.
                if self.repairs.under_way.get() != Some(blob) && self.repairs.moved.get() == moved {
                    settled += self.store.settle(blob, row.profile, &row.places);
                }
            }
        }
        if settled > 0 {
            self.upkeep.add(|counters| &counters.settled, usize::try_from(settled).unwrap_or(usize::MAX));
            tracing::info!(records = settled, "records that have been made again elsewhere are given up");
        }
        Ok(())
    }

    /// Suspects that are lost become damaged ones.
    async fn look_at_suspects(&self) -> Result<(), MetadataError> {
        loop {
            let Some(suspect) = self.repairs.suspects.borrow().first().copied() else { return Ok(()) };
            if let Some(lost) = self.lost_by(suspect).await? {
                self.repairs.note_damaged(lost);
            }
            self.repairs.suspects.borrow_mut().remove(&suspect);
        }
    }

    /// What the row says of the suspect, if that is not so although the disk is there.
    async fn lost_by(&self, (blob, shard, window): Suspect) -> Result<Option<LostShard>, MetadataError> {
        let row = self.live(blob).await?;
        let Some(row) = row.filter(|row| window < geometry::window_count(row.profile, row.length)) else {
            return Ok(None);
        };
        let Some(&disk) = row.places.get(usize::from(shard)).filter(|&&disk| self.is_online(disk)) else {
            return Ok(None);
        };
        let Ok(located) = self.store.locate(blob, geometry::window_start(row.profile, window)).await else {
            return Ok(None);
        };
        let Some(located) = located.filter(|located| located.profile == row.profile) else { return Ok(None) };
        let lost = match located.cell(shard) {
            None => true,
            // Where the row and the store do not agree, the sweep finds out.
            Some(cell) if cell.disk != disk => false,
            Some(cell) => {
                let buffer = self.world.buffer(Reserve::Foreground).await;
                let (read, _) = self.store.read_cell(&located, shard, 0..cell.bytes, buffer).await;
                matches!(
                    read,
                    Err(CellError::Missing(_) | CellError::Corrupt(_))
                        | Err(CellError::Device { source: DeviceError::Io(_), .. })
                )
            }
        };
        let lost = lost && self.is_online(disk);
        Ok(lost.then_some(LostShard { blob, profile: row.profile, shard, disk }))
    }

    /// Shards that are damaged lose their places, unless they were moved meanwhile.
    async fn tell_damage(&self) -> Result<(), MetadataError> {
        // Where nothing can be made again they are left to whoever asks for them.
        let taken = if self.classes.standard().parity > 0 { DAMAGED_MAX } else { 0 };
        for BadRecord { disk, subject, .. } in self.store.bad_records(taken) {
            if let Subject::Blob { blob, shard, profile: profile @ Profile { parity: 1.., .. }, .. } = subject {
                self.repairs.note_damaged(LostShard { blob, profile, shard, disk });
            }
        }
        loop {
            let damaged: Vec<LostShard> = self.repairs.damaged.borrow().iter().take(AT_ONCE).copied().collect();
            if damaged.is_empty() {
                return Ok(());
            }
            self.tell_lost(&damaged).await?;
            self.repairs.damaged.borrow_mut().retain(|lost| !damaged.contains(lost));
        }
    }

    /// From now on these shards are debt, but for those that are elsewhere, or of a spread that is no more. Says how many.
    pub(crate) async fn tell_lost(&self, shards: &[LostShard]) -> Result<usize, MetadataError> {
        let mut told = 0;
        for some in shards.chunks(AT_ONCE) {
            let tell = |&lost: &LostShard| self.metadata.commit(Change::LoseShard(lost));
            for (outcome, LostShard { blob, shard, disk, .. }) in
                join_all(some.iter().map(tell)).await.into_iter().zip(some)
            {
                match outcome {
                    Ok(_) => {
                        told += 1;
                        self.repairs.note_owed(1);
                        if told <= NAMED_MAX {
                            tracing::warn!(%blob, shard, %disk, "a shard is damaged or gone, and will be made again");
                        }
                    }
                    Err(MetadataError::Refused(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if told > NAMED_MAX {
            tracing::warn!(shards = told, "so many shards are damaged or gone, and will be made again");
        }
        Ok(told)
    }

    /// The disks that are here and work.
    pub(crate) fn online(&self) -> BTreeSet<DiskId> {
        let disks = self.store.disks().into_iter().filter(|view| view.state == DiskState::Online);
        disks.map(|view| view.id).collect()
    }

    /// Whether a disk is here and works.
    fn is_online(&self, disk: DiskId) -> bool {
        self.online().contains(&disk)
    }
}
