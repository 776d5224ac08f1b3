//! Buckets: made, looked at, listed, deleted.

use anvil_model::io::World;
use anvil_model::object::BucketName;
use anvil_model::time::WallTime;

use crate::metadata::MetadataError;
use crate::{Caller, Node};

/// What is told of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketInfo {
    /// Its name.
    pub name: BucketName,
    /// The region that it was made in.
    pub region: String,
    /// When it was made.
    pub created_at: WallTime,
}

impl<W: World> Node<W> {
    /// Makes a bucket in the node's region.
    ///
    /// # Errors
    /// When the name is taken.
    pub async fn create_bucket(&self, caller: Caller, name: BucketName) -> Result<(), MetadataError> {
        todo!()
    }

    /// Looks at a bucket.
    ///
    /// # Errors
    /// When it is not there, or another tenant's.
    pub async fn head_bucket(&self, caller: Caller, name: BucketName) -> Result<BucketInfo, MetadataError> {
        todo!()
    }

    /// Deletes an empty bucket.
    ///
    /// # Errors
    /// When it is not there, another tenant's, or not empty.
    pub async fn delete_bucket(&self, caller: Caller, name: BucketName) -> Result<(), MetadataError> {
        todo!()
    }

    /// The caller's buckets by name, at most `max` after `after`.
    ///
    /// # Errors
    /// When the metadata is away.
    pub async fn list_buckets(
        &self,
        caller: Caller,
        after: Option<String>,
        max: usize,
    ) -> Result<Vec<BucketInfo>, MetadataError> {
        todo!()
    }
}
