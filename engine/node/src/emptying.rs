//! What goes without a client that waits for it: all that a closed bucket holds, and uploads that nobody completes.
//!
//! In slices, each of which leaves things as a client's deletions would, so that a crash between two changes costs nothing
//! but the rest of the slice. Who calls them keeps the position.

use anvil_model::ids::{BucketId, UploadId};
use anvil_model::io::World;
use anvil_model::object::{BucketName, Key, WriteConditions};
use anvil_model::time::WallTime;
use futures_util::{StreamExt, stream};

use crate::Node;
use crate::bucket::BucketInfo;
use crate::metadata::mutation::{BucketRef, Change};
use crate::metadata::rows::BucketState;
use crate::metadata::{MetadataError, Refusal};

/// What a slice came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Emptied {
    /// There is more: the next slice begins here.
    More {
        /// From this key on.
        from: Vec<u8>,
        /// Objects that this slice deleted, and uploads that it aborted.
        deleted: usize,
    },
    /// The bucket is gone, and its name is free.
    Gone,
}

/// A bucket as an administrator finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyBucket {
    /// What is told of it.
    pub info: BucketInfo,
    /// Whose it is.
    pub tenant: anvil_model::ids::TenantId,
    /// Whether it is closed: then no client sees it any more.
    pub closed: bool,
}

/// Keys and uploads of one slice, at most: about a second's work.
const SLICE: usize = 1000;
/// Deletions that wait for their commit at once: enough to share a flush, few enough to leave the queue to clients.
const DELETES_IN_FLIGHT: usize = 32;

impl<W: World> Node<W> {
    /// Finds a bucket whoever's it is, also a closed one.
    ///
    /// # Errors
    /// When the metadata is away.
    pub async fn any_bucket(&self, name: BucketName) -> Result<Option<AnyBucket>, MetadataError> {
        let found = self.metadata.any_bucket(name).await?;
        Ok(found.map(|row| AnyBucket {
            tenant: row.tenant,
            closed: row.state == BucketState::Closed,
            info: BucketInfo::from(row),
        }))
    }

    /// Closes a bucket, with all that it holds, if it is not closed yet. From here on no client sees it.
    ///
    /// # Errors
    /// When the metadata is away.
    pub async fn close_bucket(&self, bucket: BucketId) -> Result<(), MetadataError> {
        loop {
            let Some(held) = self.metadata.holdings(bucket, Vec::new(), 1).await? else { return Ok(()) };
            if held.closed {
                return Ok(());
            }
            match self.metadata.commit(Change::CloseBucket { bucket: held.bucket }).await {
                // Its configuration changed at that moment: once more with the new one.
                Err(MetadataError::Refused(Refusal::OperationAborted)) => {}
                Ok(_) | Err(MetadataError::Refused(Refusal::NoSuchBucket)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes a part of what a bucket holds, from a key on; where there is nothing more, the bucket too. Closes it first.
    /// Repeated from the same key, or from an earlier one, it goes on with what is there.
    ///
    /// # Errors
    /// When the metadata is away, or refuses a deletion.
    pub async fn empty_bucket(&self, bucket: BucketId, from: Vec<u8>) -> Result<Emptied, MetadataError> {
        self.close_bucket(bucket).await?;
        let Some(held) = self.metadata.holdings(bucket, from, SLICE).await? else { return Ok(Emptied::Gone) };
        let deleted = held.keys.len() + held.uploads.len();
        let deletes = held.keys.into_iter().map(|key| self.delete_held(held.bucket, key));
        all_done(deletes, DELETES_IN_FLIGHT).await?;
        self.abort_all(held.uploads.into_iter().map(|(key, upload)| (held.bucket, key, upload))).await?;
        if let Some(from) = held.next {
            return Ok(Emptied::More { from, deleted });
        }
        match self.delete_empty(held.bucket).await {
            Ok(()) | Err(MetadataError::Refused(Refusal::NoSuchBucket)) => Ok(Emptied::Gone),
            // Something is in front of where this slice began.
            Err(MetadataError::Refused(Refusal::BucketNotEmpty)) => Ok(Emptied::More { from: Vec::new(), deleted }),
            Err(error) => Err(error),
        }
    }

    /// Aborts uploads that began before a time, among the next ones behind `after`. How many, and behind which one the next
    /// slice begins, if there is one.
    ///
    /// # Errors
    /// When the metadata is away.
    pub async fn expire_uploads(
        &self,
        before: WallTime,
        after: Option<UploadId>,
    ) -> Result<(usize, Option<UploadId>), MetadataError> {
        let page = self.metadata.stale_uploads(before, after, SLICE).await?;
        let count = page.uploads.len();
        self.abort_all(page.uploads.into_iter()).await?;
        Ok((count, page.next))
    }

    async fn delete_held(&self, bucket: BucketRef, key: Key) -> Result<(), MetadataError> {
        let conditions = WriteConditions::default();
        self.metadata.commit(Change::DeleteObject { bucket, key, conditions }).await.map(drop)
    }

    /// One after the other: each may drop thousands of parts in its transaction.
    async fn abort_all(&self, uploads: impl Iterator<Item = (BucketRef, Key, UploadId)>) -> Result<(), MetadataError> {
        let aborts = uploads.map(async |(bucket, key, upload)| {
            match self.metadata.commit(Change::AbortUpload { bucket, key, upload }).await {
                // Completed or aborted since, or its bucket changed, closed or went: then it is not this slice's any more.
                Ok(_)
                | Err(MetadataError::Refused(
                    Refusal::NoSuchUpload(_) | Refusal::NoSuchBucket | Refusal::OperationAborted,
                )) => Ok(()),
                Err(error) => Err(error),
            }
        });
        all_done(aborts, 1).await
    }
}

/// Does all of it, and then tells the first error.
async fn all_done(
    changes: impl Iterator<Item = impl Future<Output = Result<(), MetadataError>>>,
    at_once: usize,
) -> Result<(), MetadataError> {
    let all = stream::iter(changes).buffer_unordered(at_once);
    all.fold(Ok(()), async |before, one| before.and(one)).await
}
