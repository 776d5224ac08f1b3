//! Names of buckets that several regions share.
//!
//! A region decides alone over its buckets. Which region has a name, a registry says that all of them share: the name is claimed
//! before the bucket is made, and given back when the bucket is gone. Whatever is cut short between the two, a name may be
//! kept for a while without a bucket, and no bucket is without its name.

use std::fmt::Debug;

use anvil_model::ids::{BucketId, TenantId, WriteId};
use anvil_model::object::BucketName;
use futures_util::future::LocalBoxFuture;

use crate::metadata::MetadataError;

/// The registry. Only its claims are waited for.
pub trait BucketNames: Debug + Send + Sync {
    /// Claims a name for this region and for the write that is to make the bucket, also a name that the region has already:
    /// whether there is such a bucket, its own metadata says.
    ///
    /// # Errors
    /// [`Refusal::BucketAlreadyExists`](crate::metadata::Refusal) or `BucketAlreadyOwnedByYou` when another region has the
    /// name; [`MetadataError::Unavailable`] when nobody can say.
    fn claim<'a>(
        &'a self,
        name: &'a BucketName,
        tenant: TenantId,
        write: WriteId,
    ) -> LocalBoxFuture<'a, Result<(), MetadataError>>;

    /// The write that claimed a name came to its end, or was given up: the registry looks what there is. A write that it
    /// finds nothing of does not happen any more.
    fn settle(&self, name: BucketName, write: WriteId);

    /// A bucket is gone: its name is free, if it has it still.
    fn gone(&self, bucket: BucketId);
}
