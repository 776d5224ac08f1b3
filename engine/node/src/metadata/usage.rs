//! What buckets and tenants hold, and how much they may: the values, and the account that a batch keeps of them.
//!
//! Usage moves in the transaction of the change that moves it: a batch adds up what its changes come to, and adds each sum
//! to its row once. See `docs/adr/0014-quotas.md` for what counts.

use std::collections::BTreeMap;
use std::fmt;

use anvil_model::ids::{BucketId, TenantId};
use serde::{Deserialize, Serialize};

use super::Refusal;
use super::rows::{BucketRow, Rows, RowsError, VersionRow};

/// Whose usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum UsageOf {
    /// What a bucket holds.
    Bucket(BucketId),
    /// What all buckets of a tenant hold in this region.
    Tenant(TenantId),
}

/// What is held, or what a change makes of it: then numbers may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Versions; delete markers and uploads under way are none.
    pub objects: i64,
    /// Bytes of versions as clients see them: before parity and encryption, shared ones once for each version.
    pub object_bytes: i64,
    /// Bytes of the parts of uploads under way.
    pub upload_bytes: i64,
}

impl Usage {
    /// Nothing.
    pub const NONE: Self = Self { objects: 0, object_bytes: 0, upload_bytes: 0 };

    /// One version.
    #[must_use]
    pub fn of_object(size: u64) -> Self {
        Self { objects: 1, object_bytes: signed(size), upload_bytes: 0 }
    }

    /// The current version of a key, if there is one.
    #[must_use]
    pub fn of_version(version: Option<&VersionRow>) -> Self {
        version.filter(|version| !version.delete_marker).map_or(Self::NONE, |version| Self::of_object(version.size))
    }

    /// Parts of an upload under way.
    #[must_use]
    pub fn of_parts(sizes: impl IntoIterator<Item = u64>) -> Self {
        Self { upload_bytes: sizes.into_iter().map(signed).sum(), ..Self::NONE }
    }

    /// What counts towards a quota of bytes.
    #[must_use]
    pub fn bytes(self) -> i64 {
        self.object_bytes.saturating_add(self.upload_bytes)
    }
}

/// Sizes are far below 2^63.
fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            objects: self.objects.saturating_add(other.objects),
            object_bytes: self.object_bytes.saturating_add(other.object_bytes),
            upload_bytes: self.upload_bytes.saturating_add(other.upload_bytes),
        }
    }
}

impl std::ops::Sub for Usage {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            objects: self.objects.saturating_sub(other.objects),
            object_bytes: self.object_bytes.saturating_sub(other.object_bytes),
            upload_bytes: self.upload_bytes.saturating_sub(other.upload_bytes),
        }
    }
}

/// How much a bucket or a tenant may hold. `None` is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Of versions and of parts of uploads under way; below 2^63.
    pub bytes: Option<u64>,
    /// Versions; below 2^63.
    pub objects: Option<u64>,
}

impl Quota {
    /// No bound.
    pub const NONE: Self = Self { bytes: None, objects: None };

    /// Whether it can be kept in the columns that it has.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        [self.bytes, self.objects].into_iter().flatten().all(|most| i64::try_from(most).is_ok())
    }

    /// The bound that a change would go beyond. What makes nothing more is never refused.
    fn exceeded(&self, owner: QuotaOwner, used: Usage, change: Usage) -> Option<QuotaExceeded> {
        let beyond = |most: Option<u64>, used: i64, change: i64| {
            most.filter(|most| change > 0 && used.saturating_add(change) > signed(*most))
        };
        let found = |unit| move |most| QuotaExceeded { owner, unit, most };
        beyond(self.objects, used.objects, change.objects)
            .map(found(QuotaUnit::Objects))
            .or_else(|| beyond(self.bytes, used.bytes(), change.bytes()).map(found(QuotaUnit::Bytes)))
    }
}

/// Whose quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum QuotaOwner {
    Bucket,
    Tenant,
}

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum QuotaUnit {
    Bytes,
    Objects,
}

/// A quota that a write would go beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaExceeded {
    /// Whose.
    pub owner: QuotaOwner,
    /// Of what.
    pub unit: QuotaUnit,
    /// How many there may be.
    pub most: u64,
}

impl fmt::Display for QuotaOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bucket => "bucket",
            Self::Tenant => "tenant",
        })
    }
}

impl fmt::Display for QuotaUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Objects => "objects",
        })
    }
}

impl fmt::Display for QuotaExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, unit, most } = self;
        write!(f, "the write would exceed the {owner}'s quota of {most} {unit}")
    }
}

/// What the quotas leave for one write, as a look-up saw it: says no before a body comes. The commit decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Of the bucket and of the tenant, where there is a quota: it, and what is used.
    quotas: [Option<(Quota, Usage)>; 2],
    /// What the write replaces.
    replaced: Usage,
}

impl Room {
    /// Of a write that replaces this.
    ///
    /// # Errors
    /// When the rows cannot be had.
    pub fn of(rows: &impl Rows, bucket: &BucketRow, replaced: Usage) -> Result<Self, RowsError> {
        let used = |quota: Quota, of: UsageOf| -> Result<_, RowsError> {
            Ok(if quota == Quota::NONE { None } else { Some((quota, rows.usage(of)?)) })
        };
        // Both are asked for before one that is missing ends it: where rows are loaded, they are loaded together.
        let of_bucket = used(bucket.quota, UsageOf::Bucket(bucket.id));
        let of_tenant = used(rows.tenant_quota(bucket.tenant)?, UsageOf::Tenant(bucket.tenant));
        Ok(Self { quotas: [of_bucket?, of_tenant?], replaced })
    }

    /// Whether an object, or a part, of this size fits.
    ///
    /// # Errors
    /// [`Refusal::QuotaExceeded`] with the quota that it would exceed.
    pub fn admit(&self, written: Usage) -> Result<(), Refusal> {
        let change = written - self.replaced;
        let owners = [QuotaOwner::Bucket, QuotaOwner::Tenant];
        let exceeded = owners.into_iter().zip(&self.quotas).find_map(|(owner, quota)| {
            let (quota, used) = quota.as_ref()?;
            quota.exceeded(owner, *used, change)
        });
        exceeded.map_or(Ok(()), |quota| Err(Refusal::QuotaExceeded(quota)))
    }
}

/// What the changes of one batch come to, bucket by bucket and tenant by tenant, and what they were decided over.
#[derive(Debug, Default)]
pub struct Account {
    quotas: BTreeMap<TenantId, Quota>,
    used: BTreeMap<UsageOf, Usage>,
    changes: BTreeMap<UsageOf, Usage>,
}

impl Account {
    /// Whether the quotas of a bucket and its tenant leave room for a change.
    pub(super) fn admit(
        &mut self,
        rows: &impl Rows,
        bucket: &BucketRow,
        change: Usage,
    ) -> Result<Result<(), Refusal>, RowsError> {
        if change.objects <= 0 && change.bytes() <= 0 {
            return Ok(Ok(()));
        }
        let of_tenant = self.tenant_quota(rows, bucket.tenant)?;
        let quotas = [
            (QuotaOwner::Bucket, bucket.quota, UsageOf::Bucket(bucket.id)),
            (QuotaOwner::Tenant, of_tenant, UsageOf::Tenant(bucket.tenant)),
        ];
        for (owner, quota, of) in quotas {
            if quota == Quota::NONE {
                continue;
            }
            let used = self.used(rows, of)?;
            if let Some(quota) = quota.exceeded(owner, used, change) {
                return Ok(Err(Refusal::QuotaExceeded(quota)));
            }
        }
        Ok(Ok(()))
    }

    /// Notes what a change came to.
    pub(super) fn add(&mut self, bucket: &BucketRow, change: Usage) {
        for of in [UsageOf::Bucket(bucket.id), UsageOf::Tenant(bucket.tenant)] {
            let sum = self.changes.entry(of).or_default();
            *sum = *sum + change;
        }
    }

    /// Notes the quota that a change of the batch gave a tenant.
    pub(super) fn set_tenant_quota(&mut self, tenant: TenantId, quota: Quota) {
        self.quotas.insert(tenant, quota);
    }

    /// A bucket that is gone holds nothing.
    pub(super) fn forget(&mut self, bucket: BucketId) {
        self.changes.remove(&UsageOf::Bucket(bucket));
    }

    /// Adds what the batch came to, once to each row.
    ///
    /// # Errors
    /// When the rows cannot be had.
    pub fn settle(self, rows: &mut impl Rows) -> Result<(), RowsError> {
        let changes = self.changes.into_iter().filter(|(_, change)| *change != Usage::NONE);
        changes.into_iter().try_for_each(|(of, change)| rows.add_usage(of, change))
    }

    fn tenant_quota(&mut self, rows: &impl Rows, tenant: TenantId) -> Result<Quota, RowsError> {
        if let Some(quota) = self.quotas.get(&tenant) {
            return Ok(*quota);
        }
        let quota = rows.tenant_quota(tenant)?;
        self.quotas.insert(tenant, quota);
        Ok(quota)
    }

    /// What is held now: as the rows have it, and what the batch came to since.
    fn used(&mut self, rows: &impl Rows, of: UsageOf) -> Result<Usage, RowsError> {
        let before = match self.used.get(&of) {
            Some(before) => *before,
            None => rows.usage(of)?,
        };
        self.used.insert(of, before);
        Ok(before + self.changes.get(&of).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Quota = Quota { bytes: Some(100), objects: Some(3) };

    fn used(objects: i64, bytes: i64) -> Usage {
        Usage { objects, object_bytes: bytes, upload_bytes: 0 }
    }

    /// Goal: a quota is reached and never exceeded, and what makes nothing more is not refused even where there is too much.
    /// Method: changes on both sides of each bound.
    #[test]
    fn a_quota_refuses_only_what_grows_beyond_it() {
        for (before, change, unit) in [
            (used(2, 50), used(1, 50), None),
            (used(2, 50), used(1, 51), Some(QuotaUnit::Bytes)),
            (used(3, 50), used(1, 0), Some(QuotaUnit::Objects)),
            (used(3, 50), used(0, 10), None),
            (used(9, 900), used(0, -10), None),
            (used(9, 900), used(0, 0), None),
            (used(9, 900), used(-1, -100), None),
            (used(9, 900), used(0, 1), Some(QuotaUnit::Bytes)),
            (used(0, 90), Usage::of_parts([11]), Some(QuotaUnit::Bytes)),
        ] {
            let refused = QUOTA.exceeded(QuotaOwner::Bucket, before, change).map(|quota| quota.unit);
            assert_eq!(refused, unit, "{before:?} {change:?}");
        }
        assert_eq!(Quota::NONE.exceeded(QuotaOwner::Bucket, used(9, 900), used(9, 900)), None);
    }

    #[test]
    fn a_refusal_says_which_quota() {
        let quota = QuotaExceeded { owner: QuotaOwner::Tenant, unit: QuotaUnit::Bytes, most: 100 };
        assert_eq!(quota.to_string(), "the write would exceed the tenant's quota of 100 bytes");
    }
}
