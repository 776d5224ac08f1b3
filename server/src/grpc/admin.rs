//! `anvil.v1.AdminService`.

use std::path::PathBuf;
use std::time::Duration;

use anvil_model::access::{AdminAction, AdminArea};
use anvil_model::object::BucketName;
use anvil_node::metadata::rows::StorageClass;
use anvil_node::repair::{Remaining, RepairFigures};
use anvil_proto::v1;

use super::call::{Call, Wire};
use super::quotas::{QuotaChange, told_quota};
use super::regions::RegionsOf;
use super::services::Services;
use super::status::{Code, Status};
use super::tasks::TasksOf;
use super::tenants::TenantsOf;
use super::token::Administrator;
use crate::disk_control::{DiskControlError, DiskName, DiskReport, DiskState};
use crate::telemetry::is_debt;

/// Its methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in admin.proto")]
pub enum Method {
    ListDisks,
    OfflineDisk,
    OnlineDisk,
    ReplaceDisk,
    AdoptDisk,
    RepairStatus,
    ListStorageClasses,
    UpdateBucket,
    CreateTenant,
    ListTenants,
    DeleteTenant,
    CreateApp,
    ListApps,
    DeleteApp,
    ResetAppSecret,
    GrantPolicy,
    RevokePolicy,
    ListPolicies,
    SetBucketPublicAccess,
    ListAuditRecords,
    Login,
    CreateUser,
    ListUsers,
    UpdateUser,
    DeleteUser,
    CreateRole,
    ListRoles,
    DeleteRole,
    ListTasks,
    RetryTask,
    CancelTask,
    RemoveBucket,
    RotateEncryptionKey,
    RotateTokenKey,
    MintToken,
    RevokeToken,
    ListRevokedTokens,
    PruneDenylist,
    CacheStats,
    CreateRegion,
    ListRegions,
    ListBucketUsage,
    ListTenantUsage,
    UpdateTenant,
}

/// What the paths of its methods begin with.
pub const PREFIX: &str = "/anvil.v1.AdminService/";

const METHODS: [(Method, &str); 44] = [
    (Method::ListDisks, "ListDisks"),
    (Method::OfflineDisk, "OfflineDisk"),
    (Method::OnlineDisk, "OnlineDisk"),
    (Method::ReplaceDisk, "ReplaceDisk"),
    (Method::AdoptDisk, "AdoptDisk"),
    (Method::RepairStatus, "RepairStatus"),
    (Method::ListStorageClasses, "ListStorageClasses"),
    (Method::UpdateBucket, "UpdateBucket"),
    (Method::CreateTenant, "CreateTenant"),
    (Method::ListTenants, "ListTenants"),
    (Method::DeleteTenant, "DeleteTenant"),
    (Method::CreateApp, "CreateApp"),
    (Method::ListApps, "ListApps"),
    (Method::DeleteApp, "DeleteApp"),
    (Method::ResetAppSecret, "ResetAppSecret"),
    (Method::GrantPolicy, "GrantPolicy"),
    (Method::RevokePolicy, "RevokePolicy"),
    (Method::ListPolicies, "ListPolicies"),
    (Method::SetBucketPublicAccess, "SetBucketPublicAccess"),
    (Method::ListAuditRecords, "ListAuditRecords"),
    (Method::Login, "Login"),
    (Method::CreateUser, "CreateUser"),
    (Method::ListUsers, "ListUsers"),
    (Method::UpdateUser, "UpdateUser"),
    (Method::DeleteUser, "DeleteUser"),
    (Method::CreateRole, "CreateRole"),
    (Method::ListRoles, "ListRoles"),
    (Method::DeleteRole, "DeleteRole"),
    (Method::ListTasks, "ListTasks"),
    (Method::RetryTask, "RetryTask"),
    (Method::CancelTask, "CancelTask"),
    (Method::RemoveBucket, "RemoveBucket"),
    (Method::RotateEncryptionKey, "RotateEncryptionKey"),
    (Method::RotateTokenKey, "RotateTokenKey"),
    (Method::MintToken, "MintToken"),
    (Method::RevokeToken, "RevokeToken"),
    (Method::ListRevokedTokens, "ListRevokedTokens"),
    (Method::PruneDenylist, "PruneDenylist"),
    (Method::CacheStats, "CacheStats"),
    (Method::CreateRegion, "CreateRegion"),
    (Method::ListRegions, "ListRegions"),
    (Method::ListBucketUsage, "ListBucketUsage"),
    (Method::ListTenantUsage, "ListTenantUsage"),
    (Method::UpdateTenant, "UpdateTenant"),
];

impl Method {
    /// The method of a path.
    #[must_use]
    pub fn find(path: &str) -> Option<Self> {
        let name = path.strip_prefix(PREFIX)?;
        METHODS.iter().find(|(_, known)| *known == name).map(|(method, _)| *method)
    }

    /// Its name in admin.proto.
    #[must_use]
    pub fn name(self) -> &'static str {
        METHODS.iter().find(|(method, _)| *method == self).expect("all are listed").1
    }

    /// What the audit calls it, where it is no change of who may do what.
    fn words(self) -> &'static str {
        match self {
            Self::OfflineDisk => "disk offline",
            Self::OnlineDisk => "disk online",
            Self::ReplaceDisk => "disk replace",
            Self::AdoptDisk => "disk adopt",
            Self::UpdateBucket => "bucket update",
            _ => self.name(),
        }
    }

    /// What a caller's role has to allow; `None` for the one that people call before they have a role.
    #[must_use]
    pub fn needs(self) -> Option<AdminAction> {
        use AdminArea::{
            App, Audit, Bucket, Cache, Disk, Key, Policy, Region, Repair, Role, StorageClass, Task, Tenant, Token, User,
        };
        Some(match self {
            Self::Login => return None,
            Self::ListDisks => Disk.read(),
            Self::OfflineDisk | Self::OnlineDisk | Self::ReplaceDisk | Self::AdoptDisk => Disk.write(),
            Self::RepairStatus => Repair.read(),
            Self::ListStorageClasses => StorageClass.read(),
            Self::UpdateBucket | Self::SetBucketPublicAccess | Self::RemoveBucket => Bucket.write(),
            Self::ListBucketUsage => Bucket.read(),
            Self::ListTenants | Self::ListTenantUsage => Tenant.read(),
            Self::CreateTenant | Self::UpdateTenant | Self::DeleteTenant => Tenant.write(),
            Self::ListApps => App.read(),
            Self::CreateApp | Self::DeleteApp | Self::ResetAppSecret => App.write(),
            Self::ListPolicies => Policy.read(),
            Self::GrantPolicy | Self::RevokePolicy => Policy.write(),
            Self::ListAuditRecords => Audit.read(),
            Self::ListTasks => Task.read(),
            Self::RetryTask | Self::CancelTask => Task.write(),
            Self::ListUsers => User.read(),
            Self::CreateUser | Self::UpdateUser | Self::DeleteUser => User.write(),
            Self::ListRoles => Role.read(),
            Self::CreateRole | Self::DeleteRole => Role.write(),
            Self::RotateEncryptionKey | Self::RotateTokenKey => Key.write(),
            Self::MintToken | Self::RevokeToken | Self::PruneDenylist => Token.write(),
            Self::ListRevokedTokens => Token.read(),
            Self::CacheStats => Cache.read(),
            Self::ListRegions => Region.read(),
            Self::CreateRegion => Region.write(),
        })
    }

    pub(super) async fn call<W: Wire>(
        self,
        services: &Services,
        administrator: Administrator,
        call: &mut Call<'_, W>,
    ) -> Result<(), Status> {
        let disks = &services.disks;
        let tasks = TasksOf { services, by: services.by(&administrator, call.head) };
        let tenants = TenantsOf { services, by: services.by(&administrator, call.head) };
        let regions = RegionsOf { services, by: services.by(&administrator, call.head) };
        let noted = async |about: String, result: Result<DiskReport, DiskControlError>| {
            let outcome = result.as_ref().err().map_or_else(|| "ok".to_owned(), ToString::to_string);
            services.keeper.note(&services.node, &tenants.by, self.words(), about, &outcome).await;
            result
        };
        match self {
            Self::ListDisks => {
                let v1::ListDisksRequest {} = call.only_message().await?;
                let remaining = services.repair.total().remaining;
                let in_list = |report| disk_with_remaining(report, &remaining);
                let disks = disks.list().await?.into_iter().map(in_list).collect();
                call.answer(&v1::ListDisksResponse { disks }).await
            }
            Self::OfflineDisk => {
                let v1::OfflineDiskRequest { disk: name } = call.only_message().await?;
                let report = noted(name.clone(), disks.offline(disk_name(&name)?).await).await?;
                call.answer(&v1::OfflineDiskResponse { disk: Some(disk(report)) }).await
            }
            Self::OnlineDisk => {
                let v1::OnlineDiskRequest { disk: name } = call.only_message().await?;
                let report = noted(name.clone(), disks.online(disk_name(&name)?).await).await?;
                call.answer(&v1::OnlineDiskResponse { disk: Some(disk(report)) }).await
            }
            Self::ReplaceDisk => {
                let v1::ReplaceDiskRequest { disk: name, path } = call.only_message().await?;
                let about = format!("{name} {path}").trim_end().to_owned();
                let path = if path.is_empty() { None } else { Some(absolute(&path)?) };
                let report = noted(about, disks.replace(disk_name(&name)?, path).await).await?;
                call.answer(&v1::ReplaceDiskResponse { disk: Some(disk(report)) }).await
            }
            Self::AdoptDisk => {
                let v1::AdoptDiskRequest { path } = call.only_message().await?;
                let report = noted(path.clone(), disks.adopt(absolute(&path)?).await).await?;
                call.answer(&v1::AdoptDiskResponse { disk: Some(disk(report)) }).await
            }
            Self::RepairStatus => {
                let v1::RepairStatusRequest {} = call.only_message().await?;
                call.answer(&repair_status(&services.repair.total())).await
            }
            Self::ListStorageClasses => {
                let v1::ListStorageClassesRequest {} = call.only_message().await?;
                let classes = services.node.classes().iter().map(|(name, profile)| v1::StorageClass {
                    name: name.to_owned(),
                    data_shards: profile.data.into(),
                    parity_shards: profile.parity.into(),
                });
                call.answer(&v1::ListStorageClassesResponse { storage_classes: classes.collect() }).await
            }
            Self::UpdateBucket => {
                let request: v1::UpdateBucketRequest = call.only_message().await?;
                let class = request.storage_class.as_ref().map(|class| format!(" storage class {class}"));
                let quota = QuotaChange { bytes: request.quota_bytes, objects: request.quota_objects };
                let about = format!("{}{}{}", request.bucket, class.unwrap_or_default(), quota.words());
                let result = update_bucket(&tenants, request, quota).await;
                let outcome = result.as_ref().err().map_or_else(|| "ok".to_owned(), ToString::to_string);
                services.keeper.note(&services.node, &tenants.by, self.words(), about, &outcome).await;
                let answer = result?;
                call.answer(&answer).await
            }
            Self::CreateTenant => {
                let request = call.only_message().await?;
                let answer = tenants.create_tenant(request).await?;
                call.answer(&answer).await
            }
            Self::ListTenants => {
                let request = call.only_message().await?;
                let answer = tenants.list_tenants(request)?;
                call.answer(&answer).await
            }
            Self::DeleteTenant => {
                let request = call.only_message().await?;
                let answer = tenants.delete_tenant(request).await?;
                call.answer(&answer).await
            }
            Self::CreateApp => {
                let request = call.only_message().await?;
                let answer = tenants.create_app(request).await?;
                call.answer(&answer).await
            }
            Self::ListApps => {
                let request = call.only_message().await?;
                let answer = tenants.list_apps(request)?;
                call.answer(&answer).await
            }
            Self::DeleteApp => {
                let request = call.only_message().await?;
                let answer = tenants.delete_app(request).await?;
                call.answer(&answer).await
            }
            Self::ResetAppSecret => {
                let request = call.only_message().await?;
                let answer = tenants.reset_app_secret(request).await?;
                call.answer(&answer).await
            }
            Self::GrantPolicy => {
                let request = call.only_message().await?;
                let answer = tenants.grant_policy(request).await?;
                call.answer(&answer).await
            }
            Self::RevokePolicy => {
                let request = call.only_message().await?;
                let answer = tenants.revoke_policy(request).await?;
                call.answer(&answer).await
            }
            Self::ListPolicies => {
                let request = call.only_message().await?;
                let answer = tenants.list_policies(request)?;
                call.answer(&answer).await
            }
            Self::SetBucketPublicAccess => {
                let request = call.only_message().await?;
                let answer = tenants.set_bucket_public_access(request).await?;
                call.answer(&answer).await
            }
            Self::ListAuditRecords => {
                let request = call.only_message().await?;
                let answer = tenants.list_audit_records(request).await?;
                call.answer(&answer).await
            }
            Self::Login => unreachable!("who logs in is no administrator yet"),
            Self::CreateUser => {
                let request = call.only_message().await?;
                let answer = tenants.create_user(request).await?;
                call.answer(&answer).await
            }
            Self::ListUsers => {
                let request = call.only_message().await?;
                let answer = tenants.list_users(request)?;
                call.answer(&answer).await
            }
            Self::UpdateUser => {
                let request: v1::UpdateUserRequest = call.only_message().await?;
                if let Err(denied) = administrator.check(AdminArea::User.write())
                    && !is_own_password(&administrator, &request)
                {
                    crate::access::log(&tenants.by, self.name(), "", &denied.message);
                    return Err(denied);
                }
                let answer = tenants.update_user(request).await?;
                call.answer(&answer).await
            }
            Self::DeleteUser => {
                let request = call.only_message().await?;
                let answer = tenants.delete_user(request).await?;
                call.answer(&answer).await
            }
            Self::CreateRole => {
                let request = call.only_message().await?;
                let answer = tenants.create_role(request).await?;
                call.answer(&answer).await
            }
            Self::ListRoles => {
                let request = call.only_message().await?;
                let answer = tenants.list_roles(request)?;
                call.answer(&answer).await
            }
            Self::DeleteRole => {
                let request = call.only_message().await?;
                let answer = tenants.delete_role(request).await?;
                call.answer(&answer).await
            }
            Self::ListTasks => {
                let request = call.only_message().await?;
                let answer = tasks.list(request).await?;
                call.answer(&answer).await
            }
            Self::ListRegions => {
                let request = call.only_message().await?;
                let answer = regions.list(request).await?;
                call.answer(&answer).await
            }
            Self::CreateRegion => {
                let request = call.only_message().await?;
                let answer = regions.create(request).await?;
                call.answer(&answer).await
            }
            Self::RetryTask => {
                let request = call.only_message().await?;
                let answer = tasks.retry(request).await?;
                call.answer(&answer).await
            }
            Self::CancelTask => {
                let request = call.only_message().await?;
                let answer = tasks.cancel(request).await?;
                call.answer(&answer).await
            }
            Self::RemoveBucket => {
                let request = call.only_message().await?;
                let answer = tasks.remove_bucket(request).await?;
                call.answer(&answer).await
            }
            Self::RotateEncryptionKey => {
                let request = call.only_message().await?;
                let answer = tenants.rotate_encryption_key(request).await?;
                call.answer(&answer).await
            }
            Self::RotateTokenKey => {
                let request = call.only_message().await?;
                let answer = tenants.rotate_token_key(request).await?;
                call.answer(&answer).await
            }
            Self::MintToken => {
                let request = call.only_message().await?;
                let answer = tenants.mint_token(request).await?;
                call.answer(&answer).await
            }
            Self::RevokeToken => {
                let request = call.only_message().await?;
                let answer = tenants.revoke_token(request).await?;
                call.answer(&answer).await
            }
            Self::ListRevokedTokens => {
                let request = call.only_message().await?;
                let answer = tenants.list_revoked_tokens(request)?;
                call.answer(&answer).await
            }
            Self::PruneDenylist => {
                let request = call.only_message().await?;
                let answer = tenants.prune_denylist(request).await?;
                call.answer(&answer).await
            }
            Self::CacheStats => {
                let request = call.only_message().await?;
                let answer = tenants.cache_stats(request)?;
                call.answer(&answer).await
            }
            Self::ListBucketUsage => {
                let request = call.only_message().await?;
                let answer = tenants.list_bucket_usage(request).await?;
                call.answer(&answer).await
            }
            Self::ListTenantUsage => {
                let request = call.only_message().await?;
                let answer = tenants.list_tenant_usage(request).await?;
                call.answer(&answer).await
            }
            Self::UpdateTenant => {
                let request = call.only_message().await?;
                let answer = tenants.update_tenant(request).await?;
                call.answer(&answer).await
            }
        }
    }
}

/// A user's password, and nothing else of him, is his to change.
fn is_own_password(administrator: &Administrator, request: &v1::UpdateUserRequest) -> bool {
    let v1::UpdateUserRequest { username, email, role, password } = request;
    administrator.user.as_ref() == Some(username) && email.is_none() && role.is_none() && password.is_some()
}

async fn update_bucket(
    tenants: &TenantsOf<'_>,
    request: v1::UpdateBucketRequest,
    quota: QuotaChange,
) -> Result<v1::UpdateBucketResponse, Status> {
    let name = BucketName::new(&request.bucket).map_err(|_| {
        Status::new(Code::InvalidArgument, "INVALID_BUCKET_NAME", "a bucket has a name of 3 to 63 characters, as in S3")
    })?;
    let node = &tenants.services.node;
    if let Some(text) = request.storage_class {
        let class: Option<StorageClass> = text.parse().ok().filter(|class| node.classes().find(class).is_some());
        let class = class.ok_or_else(|| {
            let known: Vec<&str> = node.classes().iter().map(|(name, _)| name).collect();
            let message = format!("this node has no storage class {text}; it has {}", known.join(", "));
            Status::new(Code::InvalidArgument, "NO_SUCH_STORAGE_CLASS", message).about("storage_class", text)
        })?;
        let found = tenants.clients_bucket(name.clone()).await?;
        node.set_storage_class(&found.bucket, class).await?;
    }
    let bucket = tenants.change_bucket_quota(name, quota).await?.bucket;
    let quota = Some(told_quota(bucket.quota));
    Ok(v1::UpdateBucketResponse { bucket: Some(super::bucket::told(bucket.into())), quota })
}

fn repair_status(total: &RepairFigures) -> v1::RepairStatusResponse {
    let remaining = total.remaining.iter().map(|&Remaining { disk, shards, bytes }| v1::RemainingRepair {
        disk: if is_debt(disk) { String::new() } else { disk.to_string() },
        shards,
        bytes,
    });
    v1::RepairStatusResponse {
        repaired_shards: total.shards,
        repaired_bytes: total.bytes,
        failed_attempts: total.failed,
        remaining: remaining.collect(),
        bytes_per_second: total.bytes_per_second,
        remaining_seconds: total.estimated_end().map(|time| time.as_secs()),
        narrow_objects: total.narrow,
        respread_objects: total.respread,
    }
}

fn disk_name(text: &str) -> Result<DiskName, Status> {
    text.parse().map_err(|error: crate::disk_control::InvalidDiskName| {
        Status::new(Code::InvalidArgument, "INVALID_DISK_NAME", error.to_string()).about("disk", text)
    })
}

fn absolute(path: &str) -> Result<PathBuf, Status> {
    if path.starts_with('/') && !path.contains('\0') {
        Ok(path.into())
    } else {
        Err(Status::new(Code::InvalidArgument, "INVALID_PATH", "the path of a disk is absolute").about("path", path))
    }
}

/// Also says what of a disk that was given up is still to be made again.
fn disk_with_remaining(report: DiskReport, remaining: &[Remaining]) -> v1::Disk {
    let of = remaining.iter().find(|of| of.disk == report.disk);
    let (remaining_shards, remaining_bytes) = of.map_or((0, 0), |of| (of.shards, of.bytes));
    v1::Disk { remaining_shards, remaining_bytes, ..disk(report) }
}

fn disk(report: DiskReport) -> v1::Disk {
    let state = match report.state {
        DiskState::Online => v1::DiskState::Online,
        DiskState::Offline => v1::DiskState::Offline,
        DiskState::Missing => v1::DiskState::Missing,
        DiskState::Lost => v1::DiskState::Lost,
    };
    v1::Disk {
        id: report.disk.to_string(),
        path: report.path.display().to_string(),
        state: state.into(),
        error: report.error.unwrap_or_default(),
        capacity_bytes: report.capacity_bytes,
        used_bytes: report.used_bytes,
        remaining_shards: 0,
        remaining_bytes: 0,
        slow: report.slow,
    }
}

impl From<DiskControlError> for Status {
    fn from(error: DiskControlError) -> Self {
        let message = error.to_string();
        match error {
            DiskControlError::Unknown(name) => Self::new(Code::NotFound, "NO_SUCH_DISK", message).about("disk", name),
            DiskControlError::Refused(_) => Self::new(Code::FailedPrecondition, "DISK_STATE", message),
            DiskControlError::Failed(_) => Self::new(Code::Internal, "DISK_FAILED", message),
            DiskControlError::Busy => Self::new(Code::Unavailable, "BUSY", message).retry_after(Duration::from_secs(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use anvil_model::access::AdminRights;

    use super::*;

    #[test]
    fn a_method_is_found_by_its_path() {
        assert_eq!(Method::find("/anvil.v1.AdminService/ListDisks"), Some(Method::ListDisks));
        for (method, name) in METHODS {
            assert_eq!((Method::find(&format!("{PREFIX}{name}")), method.name()), (Some(method), name));
        }
        for path in
            ["/anvil.v1.AdminService", "/anvil.v1.AdminService/", "/anvil.v1.AdminService/listDisks", "/x/ListDisks"]
        {
            assert_eq!(Method::find(path), None, "{path}");
        }
    }

    /// Goal: a viewer changes nothing, and nobody does what his role does not say, whatever methods come. Method: each method
    /// with each role, against a table; one that is in no row of it fails.
    #[test]
    fn each_method_needs_its_action() {
        let table = [
            ("ListDisks", "disk:read"),
            ("OfflineDisk", "disk:write"),
            ("OnlineDisk", "disk:write"),
            ("ReplaceDisk", "disk:write"),
            ("AdoptDisk", "disk:write"),
            ("RepairStatus", "repair:read"),
            ("ListStorageClasses", "storage-class:read"),
            ("UpdateBucket", "bucket:write"),
            ("CreateTenant", "tenant:write"),
            ("ListTenants", "tenant:read"),
            ("DeleteTenant", "tenant:write"),
            ("CreateApp", "app:write"),
            ("ListApps", "app:read"),
            ("DeleteApp", "app:write"),
            ("ResetAppSecret", "app:write"),
            ("GrantPolicy", "policy:write"),
            ("RevokePolicy", "policy:write"),
            ("ListPolicies", "policy:read"),
            ("SetBucketPublicAccess", "bucket:write"),
            ("ListAuditRecords", "audit:read"),
            ("Login", ""),
            ("CreateUser", "user:write"),
            ("ListUsers", "user:read"),
            ("UpdateUser", "user:write"),
            ("DeleteUser", "user:write"),
            ("CreateRole", "role:write"),
            ("ListRoles", "role:read"),
            ("DeleteRole", "role:write"),
            ("ListTasks", "task:read"),
            ("RetryTask", "task:write"),
            ("CancelTask", "task:write"),
            ("RemoveBucket", "bucket:write"),
            ("RotateEncryptionKey", "key:write"),
            ("RotateTokenKey", "key:write"),
            ("MintToken", "token:write"),
            ("RevokeToken", "token:write"),
            ("ListRevokedTokens", "token:read"),
            ("PruneDenylist", "token:write"),
            ("CacheStats", "cache:read"),
            ("CreateRegion", "region:write"),
            ("ListRegions", "region:read"),
            ("ListBucketUsage", "bucket:read"),
            ("ListTenantUsage", "tenant:read"),
            ("UpdateTenant", "tenant:write"),
        ];
        let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, METHODS.map(|(_, name)| name));
        let bearer = |rights| Administrator {
            caller: anvil_node::Caller { tenant: anvil_model::ids::TenantId(1) },
            who: "user:x".to_owned(),
            user: Some("x".to_owned()),
            rights,
        };
        let role = |text: &str| bearer(AdminRights::new([text.parse().unwrap()]));
        let built_in = |name| bearer(AdminRights::built_in(name).unwrap());
        let (all, viewer) = (built_in("SuperAdmin"), built_in("ReadOnlyViewer"));
        for ((name, words), (method, _)) in table.into_iter().zip(METHODS) {
            let Some(needed) = method.needs() else {
                assert_eq!((name, words), ("Login", ""), "only who logs in needs no role");
                continue;
            };
            assert_eq!(needed.to_string(), words, "{name}");
            let looks = name.starts_with("List") || name.ends_with("Status") || name.ends_with("Stats");
            assert_eq!(viewer.check(needed).is_ok(), looks, "{name}");
            assert!(all.check(needed).is_ok() && role(words).check(needed).is_ok(), "{name}");
            assert_eq!(bearer(AdminRights::default()).check(needed).unwrap_err().code, Code::PermissionDenied);
            for (other, words_of_other) in table.iter().filter(|(_, other)| !other.is_empty() && *other != words) {
                assert_eq!(role(words_of_other).check(needed).unwrap_err().reason, "ROLE_DENIED", "{other} for {name}");
            }
        }
    }

    #[test]
    fn every_method_of_the_service_is_served() {
        let file = include_str!("../../../proto/anvil/v1/admin.proto");
        let declared: Vec<&str> = file
            .lines()
            .filter_map(|line| line.trim().strip_prefix("rpc "))
            .map(|line| line.split('(').next().unwrap())
            .collect();
        let served: Vec<&str> = METHODS.iter().map(|(_, name)| *name).collect();
        assert_eq!(declared, served);
    }
}
