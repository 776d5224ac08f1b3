//! Buckets: made, looked at, listed, deleted.

use anvil_model::ids::{BucketId, TenantId};
use anvil_model::io::World;
use anvil_model::object::BucketName;
use anvil_model::time::WallTime;

use crate::metadata::mutation::{BucketRef, Change, Mutation, Outcome};
use crate::metadata::query::{BucketUsage, TenantUsage};
use crate::metadata::rows::{BucketRow, StorageClass};
use crate::metadata::usage::Quota;
use crate::metadata::{MetadataError, Refusal};
use crate::{Caller, Node, bucket_ref};

/// What is told of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketInfo {
    /// Never reused, so it also says which life of the name is meant.
    pub id: BucketId,
    /// Its name.
    pub name: BucketName,
    /// The region that it was made in.
    pub region: String,
    /// When it was made.
    pub created_at: WallTime,
    /// Of new objects whose request names none.
    pub storage_class: StorageClass,
}

/// The name of the bucket in which a node keeps what is its own; see [`Caller::NODE`].
pub const NODE_BUCKET: &str = "anvil-system";

impl From<BucketRow> for BucketInfo {
    fn from(row: BucketRow) -> Self {
        let BucketRow { id, name, region, created_at, storage_class, .. } = row;
        Self { id, name, region, created_at, storage_class }
    }
}

impl<W: World> Node<W> {
    /// Makes a bucket in the node's region.
    ///
    /// # Errors
    /// When the name is taken, in this region or in another one, or kept for the node itself.
    pub async fn create_bucket(&self, caller: Caller, name: BucketName) -> Result<(), MetadataError> {
        let is_own = name.as_str() == NODE_BUCKET;
        if is_own && caller != Caller::NODE {
            return Err(Refusal::BucketAlreadyExists.into());
        }
        // Each region has a bucket of that name for its nodes.
        let names = self.names.as_ref().filter(|_| !is_own);
        let write = self.metadata.new_write();
        if let Some(names) = names {
            names.claim(&name, caller.tenant, write).await?;
        }
        let region = self.region().to_owned();
        let change = Change::CreateBucket { tenant: caller.tenant, name: name.clone(), region };
        let made = self.metadata.commit_as(Mutation { write, change }).await;
        if let Some(names) = names {
            names.settle(name, write);
        }
        match made? {
            Outcome::BucketCreated(_) => Ok(()),
            // The registry gave the write up for good: it took that long.
            _ => Err(Refusal::OperationAborted.into()),
        }
    }

    /// Looks at a bucket.
    ///
    /// # Errors
    /// When it is not there, or another tenant's.
    pub async fn head_bucket(&self, caller: Caller, name: BucketName) -> Result<BucketInfo, MetadataError> {
        self.metadata.bucket(caller.path(name)).await.map(BucketInfo::from)
    }

    /// Says which class new objects of a bucket have when their request names none; it has to be one that the node
    /// [knows](Self::classes). Objects that are there stay as they are.
    ///
    /// # Errors
    /// When the bucket is gone, closed or changed since.
    pub async fn set_storage_class(
        &self,
        bucket: &BucketRow,
        storage_class: StorageClass,
    ) -> Result<(), MetadataError> {
        self.metadata.commit(Change::UpdateBucket { bucket: bucket_ref(bucket), storage_class }).await.map(drop)
    }

    /// What a bucket holds and may, whoever's it is and also a closed one; `None` when it is not there. For administrators.
    ///
    /// # Errors
    /// When the metadata is away.
    pub async fn bucket_usage(&self, name: BucketName) -> Result<Option<BucketUsage>, MetadataError> {
        Ok(self.metadata.bucket_usage(name).await?.map(|found| *found))
    }

    /// What buckets hold and may, of all tenants and also closed ones, by id, at most `max` after `after`.
    ///
    /// # Errors
    /// When the metadata is away.
    pub async fn bucket_usages(&self, after: Option<BucketId>, max: usize) -> Result<Vec<BucketUsage>, MetadataError> {
        self.metadata.bucket_usages(after, max).await
    }

    /// What a tenant's buckets hold and may.
    ///
    /// # Errors
    /// When the metadata is away.
    pub async fn tenant_usage(&self, tenant: TenantId) -> Result<TenantUsage, MetadataError> {
        self.metadata.tenant_usage(tenant).await
    }

    /// Says how much a bucket may hold. What it holds stays, also when it is more.
    ///
    /// # Errors
    /// When the bucket is gone or changed since, or the quota is not below 2^63.
    pub async fn set_bucket_quota(&self, bucket: &BucketRow, quota: Quota) -> Result<(), MetadataError> {
        self.metadata.commit(Change::SetBucketQuota { bucket: bucket_ref(bucket), quota }).await.map(drop)
    }

    /// Says how much a tenant's buckets in this region may hold, all together.
    ///
    /// # Errors
    /// When the quota is not below 2^63.
    pub async fn set_tenant_quota(&self, tenant: TenantId, quota: Quota) -> Result<(), MetadataError> {
        self.metadata.commit(Change::SetTenantQuota { tenant, quota }).await.map(drop)
    }

    /// Deletes an empty bucket.
    ///
    /// # Errors
    /// When it is not there, another tenant's, or not empty.
    pub async fn delete_bucket(&self, caller: Caller, name: BucketName) -> Result<(), MetadataError> {
        let bucket = bucket_ref(&self.metadata.bucket(caller.path(name)).await?);
        self.delete_empty(bucket).await
    }

    pub(crate) async fn delete_empty(&self, bucket: BucketRef) -> Result<(), MetadataError> {
        self.metadata.commit(Change::DeleteBucket { bucket }).await?;
        if let Some(names) = &self.names {
            names.gone(bucket.id);
        }
        Ok(())
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
        let rows = self.metadata.buckets(caller.tenant, after, max).await?;
        Ok(rows.into_iter().map(BucketInfo::from).collect())
    }
}
