//! The story of a DELETE.

use anvil_model::io::World;
use anvil_model::object::{BucketName, Key, WriteConditions};
use futures_util::{StreamExt, stream};

use crate::metadata::MetadataError;
use crate::metadata::mutation::{BucketRef, Change};
use crate::{Caller, Node, bucket_ref};

/// Deletes of one request that wait for their commit at once: enough to fill a batch, few enough to leave room in the
/// queue for others.
const DELETES_IN_FLIGHT: usize = 64;

impl<W: World> Node<W> {
    /// Deletes a key; a key that is not there is deleted too.
    ///
    /// # Errors
    /// When the bucket is not there or a condition does not hold.
    pub async fn delete_object(
        &self,
        caller: Caller,
        bucket: BucketName,
        key: Key,
        conditions: WriteConditions,
    ) -> Result<(), MetadataError> {
        let bucket = bucket_ref(&self.metadata.bucket(caller.path(bucket)).await?);
        self.delete_key(bucket, key, conditions).await
    }

    /// Deletes up to `PAGE_KEYS_MAX` keys of a bucket, each under its own conditions and with its own outcome, in the order
    /// given.
    ///
    /// # Errors
    /// When the bucket is not there or not the caller's: then nothing was deleted.
    pub async fn delete_objects(
        &self,
        caller: Caller,
        bucket: BucketName,
        keys: Vec<(Key, WriteConditions)>,
    ) -> Result<Vec<Result<(), MetadataError>>, MetadataError> {
        let bucket = bucket_ref(&self.metadata.bucket(caller.path(bucket)).await?);
        let deletes = keys.into_iter().map(|(key, conditions)| self.delete_key(bucket, key, conditions));
        Ok(stream::iter(deletes).buffered(DELETES_IN_FLIGHT).collect().await)
    }

    async fn delete_key(&self, bucket: BucketRef, key: Key, conditions: WriteConditions) -> Result<(), MetadataError> {
        self.metadata.commit(Change::DeleteObject { bucket, key, conditions }).await.map(drop)
    }
}
