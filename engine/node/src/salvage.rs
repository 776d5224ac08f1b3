//! Metadata made of the blobs alone, where the log is lost on every disk.
//!
//! The first record of each shard says whose object or part its blob was. Those that can be read to their end give back what
//! a plain PUT had made: the key, the bytes with their sums, and the time; parts come back as uploads under way, for
//! whoever knows the list to complete. It is decided here which blob is the object where several were; the result becomes
//! durable as any change does, in an order that lets every blob belong to the life that wrote it.
//!
//! What a blob does not say is gone: headers, tags, deletions, copies that share bytes, objects without bytes.

mod inventory;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anvil_model::geometry;
use anvil_model::ids::{BlobId, DiskId, Incarnation, NodeId, TenantId, UploadId, WriteId};
use anvil_model::io::World;
use anvil_model::limits::PAGE_KEYS_MAX;
use anvil_model::object::{BucketName, Headers, WriteConditions};
use anvil_model::time::WallTime;
use anvil_store::{KnownBlob, Located, Origin, ReadError};
use futures_util::stream::{self, StreamExt};

use crate::Node;
use crate::get::StreamError;
use crate::metadata::embedded::{Embedded, Index};
use crate::metadata::mutation::{BlobClaim, BucketRef, Change, Mutation, NewObject, NewPart, NewUpload, Outcome};
use crate::metadata::rows::StorageClass;
use crate::metadata::{MetadataError, Refusal};
use crate::payload::Written;
use inventory::{Candidate, Inventory, Which};
pub use inventory::{LeftOut, Name};

/// Blobs that are read at once.
const AT_ONCE: usize = 8;
/// Changes of one batch, at most.
const BATCH_MAX: usize = 256;

/// What is told while blobs are salvaged.
#[derive(Clone, Debug)]
pub enum Finding<'f> {
    /// So many blobs were asked where they come from.
    Asked(usize),
    /// A blob becomes no row.
    LeftOut {
        /// Which.
        blob: BlobId,
        /// Where it was put, if it says so.
        origin: Option<&'f Origin>,
        /// Why.
        why: LeftOut,
    },
    /// So many blobs are to be read, with so many bytes, if the first of each key can be.
    ToRead {
        /// Blobs.
        blobs: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// So many bytes were read.
    Read(u64),
    /// Among several blobs of one key, or part, this one was chosen; it is the newest that can be read.
    Superseded {
        /// What it was.
        name: &'f Name,
        /// The older one, which is garbage now.
        blob: BlobId,
    },
    /// A blob becomes an object.
    Object {
        /// Which.
        name: &'f Name,
        /// Bytes.
        size: u64,
    },
    /// A blob becomes a part of an upload under way.
    Part {
        /// Of which object to be.
        name: &'f Name,
        /// Of which upload.
        upload: UploadId,
        /// Its number there.
        number: u16,
        /// Bytes.
        size: u64,
    },
}

/// What was found and read, on its way into the metadata.
#[derive(Debug)]
pub struct Salvaged {
    blobs: Vec<SalvagedBlob>,
    /// The latest life of the node that wrote any blob.
    newest: Option<Incarnation>,
}

/// A blob that can be read to its end.
#[derive(Debug)]
struct SalvagedBlob {
    name: Name,
    /// Upload and number, for a part.
    part: Option<(UploadId, u16)>,
    claim: BlobClaim,
    at: WallTime,
    summed: Written,
}

/// Why what was salvaged could not be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SalvageError {
    /// The metadata is not taken.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A change came to something else: a bug.
    #[error("a change of the salvage came to {0:?}")]
    Unexpected(Outcome),
}

impl<W: World> Node<W> {
    /// Finds and reads all blobs of `node` on the disks of this core, which is the only one. Writes nothing: dropping the
    /// future changes nothing.
    pub async fn salvage(&self, node: NodeId, tell: &dyn Fn(Finding<'_>)) -> Salvaged {
        let inventory = self.take_inventory(node, tell).await;
        let (blobs, bytes) = inventory.to_read();
        tell(Finding::ToRead { blobs, bytes });
        let newest = inventory.newest;
        let read = stream::iter(inventory.into_wanted())
            .map(|(name, which, candidates)| self.first_whole(name, which, candidates, tell))
            .buffer_unordered(AT_ONCE)
            .filter_map(async |salvaged| salvaged);
        Salvaged { blobs: read.collect().await, newest }
    }

    /// Asks every blob what it was.
    async fn take_inventory(&self, node: NodeId, tell: &dyn Fn(Finding<'_>)) -> Inventory {
        let mut inventory = Inventory::default();
        let mut after = None;
        loop {
            let page = self.store.blobs(after, PAGE_KEYS_MAX);
            after = page.last().map(|known| known.blob).filter(|_| page.len() == PAGE_KEYS_MAX);
            let asked = page.len();
            let mut origins = stream::iter(page)
                .map(|known| async move { (known, self.origin_of(known.blob).await) })
                .buffered(AT_ONCE);
            while let Some((KnownBlob { blob, profile, .. }, origin)) = origins.next().await {
                if let Err(why) = inventory.enter(node, blob, profile, origin.as_ref()) {
                    tell(Finding::LeftOut { blob, origin: origin.as_ref(), why });
                }
            }
            tell(Finding::Asked(asked));
            if after.is_none() {
                return inventory;
            }
        }
    }

    /// Where a blob was first put, as its records say.
    pub(crate) async fn origin_of(&self, blob: BlobId) -> Option<Origin> {
        let located = self.store.locate(blob, 0).await.ok()??;
        self.store.origin(&located).await
    }

    /// The first of these blobs, the newest in front, that can be read to its end.
    async fn first_whole(
        &self,
        name: Name,
        which: Which,
        candidates: Vec<Candidate>,
        tell: &dyn Fn(Finding<'_>),
    ) -> Option<SalvagedBlob> {
        let mut chosen: Option<SalvagedBlob> = None;
        for candidate in candidates {
            if chosen.is_some() {
                tell(Finding::Superseded { name: &name, blob: candidate.blob });
                continue;
            }
            match self.read_through(&candidate, tell).await {
                Ok((claim, summed)) => {
                    let size = claim.length;
                    let part = match which {
                        Which::Object => None,
                        Which::Part { upload, number } => Some((upload, number)),
                    };
                    tell(match part {
                        None => Finding::Object { name: &name, size },
                        Some((upload, number)) => Finding::Part { name: &name, upload, number, size },
                    });
                    chosen = Some(SalvagedBlob { name: name.clone(), part, claim, at: candidate.at, summed });
                }
                Err(error) => {
                    let origin = candidate.origin(&name, which);
                    tell(Finding::LeftOut { blob: candidate.blob, origin: Some(&origin), why: error.into() });
                }
            }
        }
        chosen
    }

    /// Reads all bytes of a blob for their sums, and says where its shards are.
    async fn read_through(
        &self,
        candidate: &Candidate,
        tell: &dyn Fn(Finding<'_>),
    ) -> Result<(BlobClaim, Written), ReadError> {
        let &Candidate { blob, profile, length, .. } = candidate;
        let mut digests = self.digesting.begin(None, length);
        let mut places: Option<Vec<DiskId>> = None;
        for window in 0..geometry::window_count(profile, length) {
            let missing = ReadError::Missing(blob);
            let located = self.store.locate(blob, geometry::window_start(profile, window)).await?.ok_or(missing)?;
            let window_length = geometry::window_length(profile, length, window);
            let cell_bytes = geometry::cell_bytes(profile, window_length);
            if located.profile != profile || located.cells.iter().any(|cell| cell.bytes != cell_bytes) {
                return Err(missing);
            }
            match &mut places {
                None => places = Some(places_of(&located)),
                Some(places) => keep_same(places, &located),
            }
            let pieces = self.read_window(&located, 0..window_length).await.map_err(|error| match error {
                StreamError::Read(error) => error,
                // Its key is on no disk that is left.
                _ => ReadError::Corrupt(blob),
            })?;
            for piece in pieces {
                digests.buffer(piece.buffer, vec![piece.range]).await;
            }
            tell(Finding::Read(window_length as u64));
        }
        let places = places.ok_or(ReadError::Missing(blob))?;
        Ok((BlobClaim { blob, profile, length, places }, Written::new(None, length, digests.finish())))
    }
}

/// A disk for each shard; none for a shard that is not there, or on a disk that has another one.
fn places_of(located: &Located) -> Vec<DiskId> {
    let mut taken = BTreeSet::new();
    let place = |shard| located.cell(shard).map(|cell| cell.disk).filter(|&disk| taken.insert(disk));
    (0..located.profile.shards()).map(place).map(|disk| disk.unwrap_or(DiskId::NONE)).collect()
}

/// A shard is where all its cells are.
fn keep_same(places: &mut [DiskId], located: &Located) {
    for (place, shard) in places.iter_mut().zip(0..) {
        if located.cell(shard).is_none_or(|cell| cell.disk != *place) {
            *place = DiskId::NONE;
        }
    }
}

impl Salvaged {
    /// How many objects and parts there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let parts = self.blobs.iter().filter(|blob| blob.part.is_some()).count();
        (self.blobs.len() - parts, parts)
    }

    /// Makes it the metadata of `node`, durably: `metadata` is without a row. Gives those that it refuses, with their names:
    /// a bucket's name can belong to one tenant only.
    ///
    /// # Errors
    /// When the metadata does not take it; then nothing of it is of use.
    pub async fn keep<W: World, I: Index>(
        mut self,
        world: &W,
        metadata: &Embedded<W, I>,
        node: NodeId,
        region: &str,
        kept: &dyn Fn(usize),
    ) -> Result<Vec<(Name, Refusal)>, SalvageError> {
        // As they were written. A life is opened once, so its blobs come together.
        self.blobs.sort_by_key(|blob| (blob.claim.blob.incarnation, blob.at, blob.claim.blob));
        let first = self.blobs.iter().map(|blob| blob.at).min().unwrap_or_else(|| world.wall_clock());
        let mut keeper = Keeper { world, metadata, batch: Vec::new(), at: first, refused: Vec::new(), kept };
        let buckets = keeper.buckets(&self.blobs, region).await?;
        let mut uploads = BTreeSet::new();
        let mut life = Incarnation(0);
        for blob in self.blobs {
            keeper.open_lives(node, &mut life, blob.claim.blob.incarnation).await?;
            let Name { tenant, bucket, .. } = &blob.name;
            match &buckets[&(*tenant, bucket.clone())] {
                Ok(bucket) => {
                    let new_upload = blob.part.is_some_and(|(upload, _)| uploads.insert(upload));
                    keeper.blob(*bucket, blob, new_upload).await?;
                }
                Err(refusal) => keeper.refused.push((blob.name, refusal.clone())),
            }
        }
        // The next start opens the one behind: no id of a blob is given again.
        let newest = self.newest.unwrap_or(life);
        keeper.open_lives(node, &mut life, newest).await?;
        keeper.flush().await?;
        Ok(keeper.refused)
    }
}

type Buckets = BTreeMap<(TenantId, BucketName), Result<BucketRef, Refusal>>;

/// Gathers changes into batches, each of one second by the blobs' own time.
struct Keeper<'k, W: World, I: Index> {
    world: &'k W,
    metadata: &'k Embedded<W, I>,
    /// With the name of the object that a change makes, if it does.
    batch: Vec<(Mutation, Option<Name>)>,
    /// Of the batch.
    at: WallTime,
    refused: Vec<(Name, Refusal)>,
    kept: &'k dyn Fn(usize),
}

impl<W: World, I: Index> Keeper<'_, W, I> {
    async fn buckets(&mut self, blobs: &[SalvagedBlob], region: &str) -> Result<Buckets, SalvageError> {
        let names: BTreeSet<_> = blobs.iter().map(|blob| (blob.name.tenant, blob.name.bucket.clone())).collect();
        let mut buckets = Buckets::new();
        for (tenant, name) in names {
            let change = Change::CreateBucket { tenant, name: name.clone(), region: region.to_owned() };
            let batch = [self.mutation(change)];
            let outcome = match self.metadata.commit_at(Arc::new(batch), self.at).await.pop() {
                Some(Ok(Outcome::BucketCreated(bucket))) => Ok(bucket),
                Some(Err(MetadataError::Refused(refusal))) => Err(refusal),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(other)) => return Err(SalvageError::Unexpected(other)),
                None => unreachable!("each mutation has its outcome"),
            };
            buckets.insert((tenant, name), outcome);
        }
        Ok(buckets)
    }

    /// Opens the lives of the node up to that one.
    async fn open_lives(
        &mut self,
        node: NodeId,
        life: &mut Incarnation,
        until: Incarnation,
    ) -> Result<(), SalvageError> {
        while *life < until {
            life.0 += 1;
            self.push(Change::OpenWriter { node }, None, self.at).await?;
        }
        Ok(())
    }

    async fn blob(&mut self, bucket: BucketRef, blob: SalvagedBlob, new_upload: bool) -> Result<(), SalvageError> {
        let SalvagedBlob { name, part, claim, at, summed } = blob;
        let (key, stored) = (name.key.clone(), summed.stored());
        let change = match part {
            None => {
                let object = NewObject {
                    etag: stored.etag,
                    size: stored.size,
                    checksum: stored.checksum,
                    crc64nvme: summed.crc64nvme,
                    headers: Headers::default(),
                    tags: Vec::new(),
                    storage_class: StorageClass::Standard,
                    blob: Some(claim),
                };
                Change::PutObject { bucket, key, object: Box::new(object), conditions: WriteConditions::default() }
            }
            Some((upload, number)) => {
                if new_upload {
                    let about = Box::new(NewUpload::default());
                    let create = Change::CreateUpload { bucket, key: key.clone(), upload, about };
                    self.push(create, Some(name.clone()), at).await?;
                }
                let part = NewPart {
                    number,
                    etag: stored.etag,
                    size: stored.size,
                    checksum: stored.checksum,
                    crc64nvme: summed.crc64nvme,
                    blob: Some(claim),
                };
                Change::PutPart { bucket, key, upload, part: Box::new(part) }
            }
        };
        self.push(change, Some(name), at).await
    }

    async fn push(&mut self, change: Change, name: Option<Name>, at: WallTime) -> Result<(), SalvageError> {
        let same_second = at.unix_ms / 1000 == self.at.unix_ms / 1000;
        if !same_second || self.batch.len() == BATCH_MAX {
            self.flush().await?;
            self.at = at;
        }
        let mutation = self.mutation(change);
        self.batch.push((mutation, name));
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), SalvageError> {
        let (batch, names): (Vec<_>, Vec<_>) = std::mem::take(&mut self.batch).into_iter().unzip();
        if batch.is_empty() {
            return Ok(());
        }
        let outcomes = self.metadata.commit_at(batch.into(), self.at).await;
        for (outcome, name) in outcomes.into_iter().zip(names) {
            match (outcome, name) {
                (Err(MetadataError::Refused(refusal)), Some(name)) => self.refused.push((name, refusal)),
                (outcome, _) => drop(outcome?),
            }
            (self.kept)(1);
        }
        Ok(())
    }

    fn mutation(&self, change: Change) -> Mutation {
        let write = WriteId(u128::from(self.world.random()) << 64 | u128::from(self.world.random()));
        Mutation { write, change }
    }
}
