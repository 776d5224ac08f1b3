//! The part of `anvil.v1.AdminService` that is about what buckets and tenants hold, and how much they may.

use anvil_model::access::State;
use anvil_model::ids::{BucketId, TenantId};
use anvil_model::limits::PAGE_KEYS_MAX;
use anvil_model::object::BucketName;
use anvil_node::Caller;
use anvil_node::metadata::query::BucketUsage;
use anvil_node::metadata::rows::BucketState;
use anvil_node::metadata::usage::{Quota, Usage};
use anvil_node::metadata::{MetadataError, Refusal};
use anvil_proto::v1;

use super::status::Status;
use super::tenants::TenantsOf;
use super::words;

/// What a request wants of a quota; what it does not name stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QuotaChange {
    pub(super) bytes: Option<v1::QuotaLimit>,
    pub(super) objects: Option<v1::QuotaLimit>,
}

impl QuotaChange {
    fn of(self, quota: Quota) -> Quota {
        let most = |change: Option<v1::QuotaLimit>, before| change.map_or(before, |limit| limit.most);
        Quota { bytes: most(self.bytes, quota.bytes), objects: most(self.objects, quota.objects) }
    }

    /// For the audit: empty where nothing is to change.
    pub(super) fn words(self) -> String {
        let told = |unit: &str, change: Option<v1::QuotaLimit>| {
            let most = |limit: v1::QuotaLimit| limit.most.map_or_else(|| "none".to_owned(), |most| most.to_string());
            change.map(|limit| format!(" quota of {unit} {}", most(limit))).unwrap_or_default()
        };
        told("bytes", self.bytes) + &told("objects", self.objects)
    }
}

impl TenantsOf<'_> {
    /// A bucket with what it holds, whoever's it is, but for the node's own.
    pub(super) async fn clients_bucket(&self, name: BucketName) -> Result<BucketUsage, Status> {
        let found = self.services.node.bucket_usage(name).await?.filter(is_a_clients);
        Ok(found.ok_or(MetadataError::Refused(Refusal::NoSuchBucket))?)
    }

    /// Says how much a bucket may hold, whoever's it is; gives what it holds.
    pub(super) async fn change_bucket_quota(
        &self,
        name: BucketName,
        change: QuotaChange,
    ) -> Result<BucketUsage, Status> {
        let node = &self.services.node;
        let mut found = self.clients_bucket(name).await?;
        let quota = change.of(found.bucket.quota);
        if quota != found.bucket.quota {
            node.set_bucket_quota(&found.bucket, quota).await?;
            found.bucket.quota = quota;
        }
        Ok(found)
    }

    pub(super) async fn list_bucket_usage(
        &self,
        request: v1::ListBucketUsageRequest,
    ) -> Result<v1::ListBucketUsageResponse, Status> {
        let v1::ListBucketUsageRequest { bucket, tenant_name, after } = request;
        let (known, node) = (self.known()?, &self.services.node);
        let state = &known.state;
        let of = if tenant_name.is_empty() { None } else { Some(state.find_tenant(&tenant_name)?) };
        let is_meant =
            |found: &BucketUsage| is_a_clients(found) && of.is_none_or(|tenant| tenant == found.bucket.tenant);
        if !bucket.is_empty() {
            let found = node.bucket_usage(words::bucket_name(&bucket)?).await?.filter(is_meant);
            let found = found.ok_or(MetadataError::Refused(Refusal::NoSuchBucket))?;
            return Ok(v1::ListBucketUsageResponse { buckets: vec![told(state, found)], next: None });
        }
        let found = node.bucket_usages(after.map(BucketId), PAGE_KEYS_MAX).await?;
        let next = found.last().filter(|_| found.len() == PAGE_KEYS_MAX).map(|last| last.bucket.id.0);
        let buckets = found.into_iter().filter(is_meant).map(|found| told(state, found)).collect();
        Ok(v1::ListBucketUsageResponse { buckets, next })
    }

    pub(super) async fn list_tenant_usage(
        &self,
        v1::ListTenantUsageRequest { tenant_name }: v1::ListTenantUsageRequest,
    ) -> Result<v1::ListTenantUsageResponse, Status> {
        let known = self.known()?;
        let state = &known.state;
        let ids: Vec<TenantId> = if tenant_name.is_empty() {
            state.tenants.keys().copied().collect()
        } else {
            vec![state.find_tenant(&tenant_name)?]
        };
        let mut tenants = Vec::with_capacity(ids.len());
        for id in ids {
            tenants.push(self.tenant_usage(state, id).await?);
        }
        tenants.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(v1::ListTenantUsageResponse { tenants })
    }

    pub(super) async fn update_tenant(
        &self,
        request: v1::UpdateTenantRequest,
    ) -> Result<v1::UpdateTenantResponse, Status> {
        let v1::UpdateTenantRequest { tenant_name, quota_bytes, quota_objects } = request;
        let change = QuotaChange { bytes: quota_bytes, objects: quota_objects };
        let result = self.change_tenant_quota(&tenant_name, change).await;
        let outcome = result.as_ref().err().map_or_else(|| "ok".to_owned(), ToString::to_string);
        let about = format!("{tenant_name}{}", change.words());
        self.services.keeper.note(&self.services.node, &self.by, "tenant update", about, &outcome).await;
        Ok(v1::UpdateTenantResponse { tenant: Some(result?) })
    }

    async fn change_tenant_quota(&self, name: &str, change: QuotaChange) -> Result<v1::TenantUsage, Status> {
        let (known, node) = (self.known()?, &self.services.node);
        let tenant = known.state.find_tenant(name)?;
        let before = node.tenant_usage(tenant).await?.quota;
        let quota = change.of(before);
        if quota != before {
            node.set_tenant_quota(tenant, quota).await?;
        }
        self.tenant_usage(&known.state, tenant).await
    }

    async fn tenant_usage(&self, state: &State, tenant: TenantId) -> Result<v1::TenantUsage, Status> {
        let found = self.services.node.tenant_usage(tenant).await?;
        Ok(v1::TenantUsage {
            id: tenant.0,
            name: state.tenant_name(tenant).to_owned(),
            created_at_ms: state.tenants.get(&tenant).map_or(0, |tenant| tenant.created_at.unix_ms),
            usage: Some(told_usage(found.usage)),
            quota: Some(told_quota(found.quota)),
        })
    }
}

/// What a node keeps for itself is nobody's.
fn is_a_clients(found: &BucketUsage) -> bool {
    found.bucket.tenant != Caller::NODE.tenant
}

fn told(state: &State, BucketUsage { bucket, usage, .. }: BucketUsage) -> v1::BucketUsage {
    v1::BucketUsage {
        id: bucket.id.0,
        name: bucket.name.as_str().to_owned(),
        tenant_name: state.tenant_name(bucket.tenant).to_owned(),
        region: bucket.region,
        storage_class: bucket.storage_class.to_string(),
        created_at_ms: bucket.created_at.unix_ms,
        closed: bucket.state == BucketState::Closed,
        usage: Some(told_usage(usage)),
        quota: Some(told_quota(bucket.quota)),
    }
}

/// Below zero only where it drifted: then there is next to nothing.
fn told_usage(usage: Usage) -> v1::Usage {
    let told = |number: i64| u64::try_from(number).unwrap_or(0);
    v1::Usage {
        objects: told(usage.objects),
        object_bytes: told(usage.object_bytes),
        upload_bytes: told(usage.upload_bytes),
    }
}

pub(super) fn told_quota(quota: Quota) -> v1::Quota {
    v1::Quota { bytes: quota.bytes, objects: quota.objects }
}
