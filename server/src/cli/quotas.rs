//! `anvil admin bucket list|show|update` and `tenant show|update`: what buckets and tenants hold beside how much they may.

use anvil_proto::v1;
use clap::Args;
use serde_json::{Value, json};

use super::Failure;
use super::admin::{Common, Node, tell};
use super::tenants::{BucketArgument, table, time};
use crate::config::Size;

#[derive(Debug, Args)]
pub(super) struct ListBuckets {
    /// Of this tenant
    #[arg(long, value_name = "NAME")]
    tenant_name: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct UpdateBucket {
    #[command(flatten)]
    bucket: BucketArgument,
    /// The class of new objects whose request names none
    #[arg(long, value_name = "CLASS")]
    storage_class: Option<String>,
    #[command(flatten)]
    quota: QuotaArguments,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct UpdateTenant {
    /// Its name
    #[arg(value_name = "NAME", required_unless_present = "named")]
    name: Option<String>,
    /// The same, by flag
    #[arg(long = "name", alias = "tenant-name", value_name = "NAME", conflicts_with = "name")]
    named: Option<String>,
    #[command(flatten)]
    quota: QuotaArguments,
    #[command(flatten)]
    common: Common,
}

/// How much may be held; what is not named stays as it is.
#[derive(Debug, Args)]
struct QuotaArguments {
    /// Bytes of objects and of uploads under way: a size such as 10GiB, or none
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    quota_bytes: Option<v1::QuotaLimit>,
    /// Objects: a number, or none
    #[arg(long, value_name = "COUNT", value_parser = objects)]
    quota_objects: Option<v1::QuotaLimit>,
}

/// The word for no bound.
const NONE: &str = "none";

fn bytes(text: &str) -> Result<v1::QuotaLimit, String> {
    limit(text, text.parse().ok().map(|size: Size| size.bytes), "a size such as 10GiB, or none")
}

fn objects(text: &str) -> Result<v1::QuotaLimit, String> {
    limit(text, text.parse().ok(), "a number, or none")
}

fn limit(text: &str, most: Option<u64>, takes: &str) -> Result<v1::QuotaLimit, String> {
    if text == NONE {
        return Ok(v1::QuotaLimit { most: None });
    }
    let most = most.filter(|most| i64::try_from(*most).is_ok());
    most.map(|most| v1::QuotaLimit { most: Some(most) }).ok_or_else(|| format!("it takes {takes}, below 2^63"))
}

pub(super) fn update_bucket(arguments: UpdateBucket) -> Result<(), Failure> {
    let UpdateBucket { bucket, storage_class, quota, common } = arguments;
    let QuotaArguments { quota_bytes, quota_objects } = quota;
    let (of_class, of_quota) = (storage_class.is_some(), quota_bytes.is_some() || quota_objects.is_some());
    if !of_class && !of_quota {
        return Err(Failure::usage("say what is to change: --storage-class, --quota-bytes or --quota-objects"));
    }
    let request = v1::UpdateBucketRequest { bucket: bucket.name(), storage_class, quota_bytes, quota_objects };
    let response: v1::UpdateBucketResponse = Node::open(&common)?.ask("UpdateBucket", &request)?;
    let v1::Bucket { name, region, storage_class, .. } = response.bucket.unwrap_or_default();
    let quota = response.quota.unwrap_or_default();
    tell(
        &common,
        || json!({ "name": name, "region": region, "storage_class": storage_class, "quota": quota_to_json(&quota) }),
        || {
            let (bytes, objects) = (in_bytes(quota.bytes), in_number(quota.objects));
            let class = format!("bucket {name}: new objects have the storage class {storage_class}\n");
            let quota = format!("bucket {name}: its quota is {bytes} of bytes and {objects} of objects\n");
            [(of_class, class), (of_quota, quota)]
                .into_iter()
                .filter(|(is_told, _)| *is_told)
                .map(|(_, text)| text)
                .collect()
        },
    )
}

pub(super) fn list_buckets(ListBuckets { tenant_name, common }: ListBuckets) -> Result<(), Failure> {
    let mut node = Node::open(&common)?;
    let (mut buckets, mut after) = (Vec::new(), None);
    loop {
        let tenant_name = tenant_name.clone().unwrap_or_default();
        let request = v1::ListBucketUsageRequest { bucket: String::new(), tenant_name, after };
        let page: v1::ListBucketUsageResponse = node.ask("ListBucketUsage", &request)?;
        buckets.extend(page.buckets);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    buckets.sort_by(|a, b| a.name.cmp(&b.name));
    tell(&common, || buckets.iter().map(bucket_to_json).collect(), || buckets_table(&buckets))
}

pub(super) fn show_bucket(bucket: BucketArgument, common: &Common) -> Result<(), Failure> {
    let request = v1::ListBucketUsageRequest { bucket: bucket.name(), ..v1::ListBucketUsageRequest::default() };
    let response: v1::ListBucketUsageResponse = Node::open(common)?.ask("ListBucketUsage", &request)?;
    let bucket = response.buckets.into_iter().next().unwrap_or_default();
    tell(common, || bucket_to_json(&bucket), || buckets_table(std::slice::from_ref(&bucket)))
}

pub(super) fn show_tenant(tenant_name: String, common: &Common) -> Result<(), Failure> {
    let request = v1::ListTenantUsageRequest { tenant_name };
    let response: v1::ListTenantUsageResponse = Node::open(common)?.ask("ListTenantUsage", &request)?;
    tell_tenant(common, &response.tenants.into_iter().next().unwrap_or_default())
}

pub(super) fn update_tenant(arguments: UpdateTenant) -> Result<(), Failure> {
    let UpdateTenant { name, named, quota: QuotaArguments { quota_bytes, quota_objects }, common } = arguments;
    if quota_bytes.is_none() && quota_objects.is_none() {
        return Err(Failure::usage("say what is to change: --quota-bytes or --quota-objects"));
    }
    let tenant_name = super::tenants::either(name, named);
    let request = v1::UpdateTenantRequest { tenant_name, quota_bytes, quota_objects };
    let response: v1::UpdateTenantResponse = Node::open(&common)?.ask("UpdateTenant", &request)?;
    tell_tenant(&common, &response.tenant.unwrap_or_default())
}

fn tell_tenant(common: &Common, tenant: &v1::TenantUsage) -> Result<(), Failure> {
    let v1::TenantUsage { id, name, created_at_ms, usage, quota } = tenant;
    let in_json = || {
        json!({
            "id": id, "name": name, "created_at": time(*created_at_ms),
            "usage": usage_to_json(&usage.unwrap_or_default()), "quota": quota_to_json(&quota.unwrap_or_default()),
        })
    };
    let in_text = || {
        let mut row = vec![name.clone(), id.to_string(), time(*created_at_ms)];
        row.extend(held(usage.as_ref(), quota.as_ref()));
        table(&[&["TENANT", "ID", "CREATED"], HELD].concat(), vec![row])
    };
    tell(common, in_json, in_text)
}

/// Columns of [`held`].
const HELD: &[&str] = &["OBJECTS", "OF", "BYTES", "UPLOADS", "OF"];

fn held(usage: Option<&v1::Usage>, quota: Option<&v1::Quota>) -> [String; 5] {
    let (usage, quota) = (usage.copied().unwrap_or_default(), quota.copied().unwrap_or_default());
    [
        usage.objects.to_string(),
        in_number(quota.objects),
        Size { bytes: usage.object_bytes }.to_string(),
        Size { bytes: usage.upload_bytes }.to_string(),
        in_bytes(quota.bytes),
    ]
}

fn buckets_table(buckets: &[v1::BucketUsage]) -> String {
    let row = |bucket: &v1::BucketUsage| {
        let state = if bucket.closed { "closed" } else { "active" };
        let mut row = vec![bucket.name.clone(), bucket.tenant_name.clone(), state.to_owned()];
        row.extend(held(bucket.usage.as_ref(), bucket.quota.as_ref()));
        row
    };
    table(&[&["BUCKET", "TENANT", "STATE"], HELD].concat(), buckets.iter().map(row).collect())
}

fn bucket_to_json(bucket: &v1::BucketUsage) -> Value {
    json!({
        "id": bucket.id, "name": bucket.name, "tenant_name": bucket.tenant_name, "region": bucket.region,
        "storage_class": bucket.storage_class, "created_at": time(bucket.created_at_ms),
        "state": if bucket.closed { "closed" } else { "active" },
        "usage": usage_to_json(&bucket.usage.unwrap_or_default()),
        "quota": quota_to_json(&bucket.quota.unwrap_or_default()),
    })
}

fn usage_to_json(usage: &v1::Usage) -> Value {
    let v1::Usage { objects, object_bytes, upload_bytes } = usage;
    json!({ "objects": objects, "object_bytes": object_bytes, "upload_bytes": upload_bytes })
}

fn quota_to_json(quota: &v1::Quota) -> Value {
    json!({ "bytes": quota.bytes, "objects": quota.objects })
}

fn in_number(most: Option<u64>) -> String {
    most.map_or_else(|| NONE.to_owned(), |most| most.to_string())
}

fn in_bytes(most: Option<u64>) -> String {
    most.map_or_else(|| NONE.to_owned(), |bytes| Size { bytes }.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_size_a_number_or_none() {
        assert_eq!(bytes("10GiB").unwrap().most, Some(10 << 30));
        assert_eq!(objects("0").unwrap().most, Some(0));
        assert_eq!((bytes("none").unwrap().most, objects("none").unwrap().most), (None, None));
        for wrong in ["", "-1", "ten", "9223372036854775808"] {
            assert!(bytes(wrong).unwrap_err().contains("10GiB, or none"), "{wrong}");
            assert!(objects(wrong).unwrap_err().contains("a number, or none"), "{wrong}");
        }
    }
}
