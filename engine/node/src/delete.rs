//! The story of a DELETE.

use anvil_model::io::World;
use anvil_model::object::{BucketName, Key, WriteConditions};

use crate::metadata::MetadataError;
use crate::{Caller, Node};

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
        todo!()
    }

    /// Deletes up to `PAGE_KEYS_MAX` keys of a bucket; each has its own outcome, in the order given.
    ///
    /// # Errors
    /// When the bucket is not there or not the caller's: then nothing was deleted.
    pub async fn delete_objects(
        &self,
        caller: Caller,
        bucket: BucketName,
        keys: Vec<Key>,
    ) -> Result<Vec<Result<(), MetadataError>>, MetadataError> {
        todo!()
    }
}
