//! Buckets: made, closed, deleted, set; and whether a request may do something in one.

use anvil_model::ids::{BucketId, TenantId, UploadId};
use anvil_model::object::BucketName;

use super::{BUCKETS_PER_TENANT_MAX, Decided, No, One, changed, unchanged};
use crate::metadata::Refusal;
use crate::metadata::mutation::{BucketRef, Outcome};
use crate::metadata::rows::{
    BucketRow, BucketState, Ownership, PublicAccessBlock, Rows, RowsError, StorageClass, Versioning,
};
use crate::metadata::usage::{Quota, Usage, UsageOf};

impl<R: Rows> One<'_, R> {
    pub(super) fn create_bucket(&mut self, tenant: TenantId, name: &BucketName, region: &str) -> Result<Decided, No> {
        match self.rows.bucket_named(name)? {
            // It is not there for its tenant, and will be gone.
            Some(row) if row.tenant == tenant && row.state == BucketState::Closed => {
                return Err(Refusal::BucketBeingDeleted.into());
            }
            Some(row) if row.tenant == tenant => return Err(Refusal::BucketAlreadyOwnedByYou.into()),
            Some(_) => return Err(Refusal::BucketAlreadyExists.into()),
            None => {}
        }
        if self.rows.bucket_count(tenant)? >= BUCKETS_PER_TENANT_MAX {
            return Err(Refusal::TooManyBuckets.into());
        }
        let generation = self.stamp.generation;
        let id = BucketId(generation.0);
        self.rows.put_bucket(&BucketRow {
            id,
            name: name.clone(),
            tenant,
            region: region.to_owned(),
            state: BucketState::Active,
            generation,
            created_at: self.stamp.at,
            versioning: Versioning::Off,
            ownership: Ownership::BucketOwnerEnforced,
            public_access_block: PublicAccessBlock::ALL,
            object_lock: None,
            encryption: None,
            storage_class: StorageClass::Standard,
            quota: Quota::NONE,
        })?;
        Ok(changed(Outcome::BucketCreated(BucketRef { id, tenant, generation })))
    }

    pub(super) fn delete_bucket(&mut self, bucket: BucketRef) -> Result<Decided, No> {
        let row = self.usable_or_closed(bucket)?;
        let uploads = self.rows.open_uploads(row.id, (&[], UploadId(0)), None, 1)?;
        if self.rows.has_versions(row.id)? || !uploads.is_empty() {
            return Err(Refusal::BucketNotEmpty.into());
        }
        self.rows.delete_bucket(row.id)?;
        self.rows.delete_usage(UsageOf::Bucket(row.id))?;
        self.account.forget(row.id);
        Ok(changed(Outcome::BucketDeleted))
    }

    /// What was decided before is refused from here on: by its state, and by its generation once it is gone.
    pub(super) fn close_bucket(&mut self, bucket: BucketRef) -> Result<Decided, No> {
        let mut row = self.usable(bucket)?;
        row.generation = self.stamp.generation;
        row.state = BucketState::Closed;
        self.rows.put_bucket(&row)?;
        Ok(changed(Outcome::BucketClosed(BucketRef { generation: row.generation, ..bucket })))
    }

    /// What was decided under the configuration before is refused from here on, and asks again.
    pub(super) fn update_bucket(&mut self, bucket: BucketRef, storage_class: &StorageClass) -> Result<Decided, No> {
        let mut row = self.usable(bucket)?;
        if row.storage_class == *storage_class {
            return Ok(unchanged(Outcome::BucketUpdated(bucket)));
        }
        row.generation = self.stamp.generation;
        row.storage_class = storage_class.clone();
        self.rows.put_bucket(&row)?;
        Ok(changed(Outcome::BucketUpdated(BucketRef { generation: row.generation, ..bucket })))
    }

    pub(super) fn set_bucket_quota(&mut self, bucket: BucketRef, quota: Quota) -> Result<Decided, No> {
        let mut row = self.usable(bucket)?;
        check_quota(quota)?;
        let is_other = row.quota != quota;
        row.quota = quota;
        if is_other {
            self.rows.put_bucket(&row)?;
        }
        Ok(Decided { outcome: Outcome::QuotaSet, changed: is_other })
    }

    pub(super) fn set_tenant_quota(&mut self, tenant: TenantId, quota: Quota) -> Result<Decided, No> {
        check_quota(quota)?;
        let is_other = self.rows.tenant_quota(tenant)? != quota;
        if is_other {
            self.rows.put_tenant_quota(tenant, &quota)?;
            self.account.set_tenant_quota(tenant, quota);
        }
        Ok(Decided { outcome: Outcome::QuotaSet, changed: is_other })
    }

    /// Whether the quotas leave room for what a change makes of a bucket.
    pub(super) fn admit(&mut self, bucket: &BucketRow, change: Usage) -> Result<(), No> {
        Ok(self.account.admit(self.rows, bucket, change)??)
    }

    /// As [`Self::usable`], also for who names a bucket as it is since it was closed.
    pub(super) fn usable_or_closed(&self, bucket: BucketRef) -> Result<BucketRow, No> {
        let closed = |row: &BucketRow| {
            row.state == BucketState::Closed && (row.tenant, row.generation) == (bucket.tenant, bucket.generation)
        };
        match self.rows.bucket(bucket.id)?.filter(closed) {
            Some(row) => Ok(row),
            None => self.usable(bucket),
        }
    }

    /// The bucket, if it still is what the request was decided under.
    pub(super) fn usable(&self, bucket: BucketRef) -> Result<BucketRow, No> {
        let row = self.rows.bucket(bucket.id)?.ok_or(Refusal::NoSuchBucket)?;
        if row.state != BucketState::Active {
            return Err(Refusal::NoSuchBucket.into());
        }
        if row.tenant != bucket.tenant {
            return Err(Refusal::AccessDenied.into());
        }
        if row.generation != bucket.generation {
            return Err(Refusal::OperationAborted.into());
        }
        if row.versioning != Versioning::Off {
            // No operation turns it on yet: deciding as if it were off would lose versions.
            return Err(RowsError::Inconsistent(format!("bucket {} keeps versions", row.name)).into());
        }
        Ok(row)
    }
}

fn check_quota(quota: Quota) -> Result<(), Refusal> {
    if quota.is_valid() { Ok(()) } else { Err(Refusal::InvalidRequest("a quota is below 2^63")) }
}
