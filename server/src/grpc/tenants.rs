//! The part of `anvil.v1.AdminService` that is about tenants, apps, what they may do, and what administrators did.

use std::sync::Arc;
use std::time::Duration;

use anvil_model::access::{ActionPattern, App, AppName, Command, GivenGrant, Pattern, PublicBucket, Refused, State};
use anvil_model::ids::TenantId;
use anvil_model::object::BucketName;
use anvil_node::Caller;
use anvil_node::bucket::BucketInfo;
use anvil_node::metadata::{MetadataError, Refusal};
use anvil_proto::v1;

use super::services::Services;
use super::status::{Code, Status};
use crate::access::passwords::PasswordError;
use crate::access::{By, KeepError};
use crate::auth::Known;
use crate::credentials::{new_client_id, new_secret};

/// These methods, for one call.
pub(super) struct TenantsOf<'a> {
    pub(super) services: &'a Services,
    pub(super) by: By,
}

impl TenantsOf<'_> {
    pub(super) async fn create_tenant(
        &self,
        v1::CreateTenantRequest { name }: v1::CreateTenantRequest,
    ) -> Result<v1::CreateTenantResponse, Status> {
        let known = self.change(Command::CreateTenant { name: name.clone() }).await?;
        let id = known.state.find_tenant(&name)?;
        Ok(v1::CreateTenantResponse { tenant: Some(tenant(&known.state, id)) })
    }

    pub(super) fn list_tenants(&self, _: v1::ListTenantsRequest) -> Result<v1::ListTenantsResponse, Status> {
        let known = self.known()?;
        let mut tenants: Vec<v1::Tenant> = known.state.tenants.keys().map(|id| tenant(&known.state, *id)).collect();
        tenants.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(v1::ListTenantsResponse { tenants })
    }

    pub(super) async fn delete_tenant(
        &self,
        v1::DeleteTenantRequest { name }: v1::DeleteTenantRequest,
    ) -> Result<v1::DeleteTenantResponse, Status> {
        let tenant = self.known()?.state.find_tenant(&name)?;
        let has_buckets = !self.services.node.list_buckets(Caller { tenant }, None, 1).await?.is_empty();
        self.change(Command::DeleteTenant { name, has_buckets }).await?;
        Ok(v1::DeleteTenantResponse {})
    }

    pub(super) async fn create_app(
        &self,
        v1::CreateAppRequest { tenant_name, app_name }: v1::CreateAppRequest,
    ) -> Result<v1::CreateAppResponse, Status> {
        let (client_id, secret) = (new_client_id(), new_secret());
        let sealed_secret = self.services.keeper.sealer().seal(&client_id, &secret).map_err(KeepError::from)?;
        let (tenant, name) = (tenant_name, app_name);
        let create = Command::CreateApp { tenant, name, client_id: client_id.clone(), sealed_secret };
        let known = self.change(create).await?;
        let app = known.state.apps.get(&client_id).map(|kept| app(&known.state, &client_id, kept));
        Ok(v1::CreateAppResponse { app, client_secret: secret.expose().to_owned() })
    }

    pub(super) fn list_apps(
        &self,
        v1::ListAppsRequest { tenant_name }: v1::ListAppsRequest,
    ) -> Result<v1::ListAppsResponse, Status> {
        let known = self.known()?;
        let of = self.optional_tenant(&known.state, tenant_name)?;
        let apps = known.state.apps.iter().filter(|(_, app)| of.is_none_or(|tenant| tenant == app.tenant));
        let mut apps: Vec<v1::App> = apps.map(|(client_id, kept)| app(&known.state, client_id, kept)).collect();
        apps.sort_by(|a, b| (&a.tenant_name, &a.name).cmp(&(&b.tenant_name, &b.name)));
        Ok(v1::ListAppsResponse { apps })
    }

    pub(super) async fn delete_app(
        &self,
        v1::DeleteAppRequest { tenant_name, app_name }: v1::DeleteAppRequest,
    ) -> Result<v1::DeleteAppResponse, Status> {
        self.change(Command::DeleteApp { app: named(tenant_name, app_name) }).await?;
        Ok(v1::DeleteAppResponse {})
    }

    pub(super) async fn reset_app_secret(
        &self,
        v1::ResetAppSecretRequest { tenant_name, app_name }: v1::ResetAppSecretRequest,
    ) -> Result<v1::ResetAppSecretResponse, Status> {
        let client_id = self.known()?.state.find_app(&named(tenant_name, app_name))?.to_owned();
        let secret = new_secret();
        let sealed_secret = self.services.keeper.sealer().seal(&client_id, &secret).map_err(KeepError::from)?;
        let known = self.change(Command::ResetSecret { client_id: client_id.clone(), sealed_secret }).await?;
        let app = known.state.apps.get(&client_id).map(|kept| app(&known.state, &client_id, kept));
        Ok(v1::ResetAppSecretResponse { app, client_secret: secret.expose().to_owned() })
    }

    pub(super) async fn grant_policy(
        &self,
        request: v1::GrantPolicyRequest,
    ) -> Result<v1::GrantPolicyResponse, Status> {
        let v1::GrantPolicyRequest { tenant_name, app_name, action, resource } = request;
        let (action, resource) = (read_action(&action)?, read_resource(&resource)?);
        self.change(Command::Grant { app: named(tenant_name, app_name), action, resource, by: None }).await?;
        Ok(v1::GrantPolicyResponse {})
    }

    pub(super) async fn revoke_policy(
        &self,
        request: v1::RevokePolicyRequest,
    ) -> Result<v1::RevokePolicyResponse, Status> {
        let v1::RevokePolicyRequest { tenant_name, app_name, action, resource } = request;
        let (action, resource) = (read_action(&action)?, read_resource(&resource)?);
        self.change(Command::Revoke { app: named(tenant_name, app_name), action, resource, by: None }).await?;
        Ok(v1::RevokePolicyResponse {})
    }

    pub(super) fn list_policies(
        &self,
        v1::ListPoliciesRequest { tenant_name, app_name }: v1::ListPoliciesRequest,
    ) -> Result<v1::ListPoliciesResponse, Status> {
        let known = self.known()?;
        let state = &known.state;
        let tenant = self.optional_tenant(state, tenant_name.clone())?;
        let of = if app_name.is_empty() { None } else { Some(state.find_app(&named(tenant_name, app_name))?) };
        let policy = |grant: &GivenGrant| {
            let app = state.apps.get(&grant.app)?;
            let is_meant = of.is_none_or(|of| of == grant.app) && tenant.is_none_or(|tenant| tenant == app.tenant);
            is_meant.then(|| v1::Policy {
                app_name: app.name.clone(),
                tenant_name: state.tenant_name(app.tenant).to_owned(),
                action: grant.action.to_string(),
                resource: grant.resource.to_string(),
                given_by: grant.by.clone().unwrap_or_default(),
            })
        };
        let mut policies: Vec<v1::Policy> = state.grants.iter().filter_map(policy).collect();
        policies.sort_by(|a, b| (&a.tenant_name, &a.app_name).cmp(&(&b.tenant_name, &b.app_name)));
        Ok(v1::ListPoliciesResponse { policies })
    }

    pub(super) async fn set_bucket_public_access(
        &self,
        v1::SetBucketPublicAccessRequest { bucket, allow }: v1::SetBucketPublicAccessRequest,
    ) -> Result<v1::SetBucketPublicAccessResponse, Status> {
        let name = BucketName::new(&bucket).map_err(|error| {
            Status::new(Code::InvalidArgument, "INVALID_BUCKET_NAME", error.to_string()).about("bucket", bucket)
        })?;
        let known = self.known()?;
        let (tenant, info) = self.find_bucket(&known.state, name.clone()).await?;
        let bucket = PublicBucket { name, tenant };
        let known = self.change(Command::SetPublic { id: info.id, bucket, public: allow }).await?;
        Ok(v1::SetBucketPublicAccessResponse { tenant_name: known.state.tenant_name(tenant).to_owned() })
    }

    pub(super) async fn list_audit_records(
        &self,
        v1::ListAuditRecordsRequest { max }: v1::ListAuditRecordsRequest,
    ) -> Result<v1::ListAuditRecordsResponse, Status> {
        let max = if max == 0 { AUDIT_DEFAULT } else { usize::try_from(max).unwrap_or(AUDIT_MAX).min(AUDIT_MAX) };
        let records = self.services.keeper.audit(&self.services.node, max).await?;
        let records = records.into_iter().map(|record| v1::AuditRecord {
            at_ms: record.at.unix_ms,
            who: record.who,
            from: record.from,
            action: record.action,
            about: record.about,
            result: record.result,
        });
        Ok(v1::ListAuditRecordsResponse { records: records.collect() })
    }

    /// A bucket, whoever's it is: asked for in the name of one tenant after the other.
    async fn find_bucket(&self, state: &State, name: BucketName) -> Result<(TenantId, BucketInfo), Status> {
        for tenant in state.tenants.keys().copied() {
            match self.services.node.head_bucket(Caller { tenant }, name.clone()).await {
                Ok(info) => return Ok((tenant, info)),
                Err(MetadataError::Refused(Refusal::AccessDenied)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(MetadataError::Refused(Refusal::AccessDenied).into())
    }

    fn optional_tenant(&self, state: &State, name: String) -> Result<Option<TenantId>, Status> {
        if name.is_empty() { Ok(None) } else { Ok(Some(state.find_tenant(&name)?)) }
    }

    pub(super) fn known(&self) -> Result<Arc<Known>, Status> {
        Ok(self.services.keeper.known()?)
    }

    pub(super) async fn change(&self, command: Command) -> Result<Arc<Known>, Status> {
        Ok(self.services.keeper.change(&self.services.node, &self.by, command).await?)
    }
}

/// Records that one answer has when nothing is said, and at most.
const AUDIT_DEFAULT: usize = 100;
const AUDIT_MAX: usize = 10_000;

pub(super) fn named(tenant: String, name: String) -> AppName {
    AppName { tenant: Some(tenant).filter(|tenant| !tenant.is_empty()), name }
}

pub(super) fn read_action(text: &str) -> Result<ActionPattern, Status> {
    let read = text.parse::<ActionPattern>();
    read.map_err(|error| Status::new(Code::InvalidArgument, "INVALID_ACTION", error.to_string()).about("action", text))
}

pub(super) fn read_resource(text: &str) -> Result<Pattern, Status> {
    let read = text.parse::<Pattern>();
    read.map_err(|error| {
        Status::new(Code::InvalidArgument, "INVALID_RESOURCE", error.to_string()).about("resource", text)
    })
}

fn tenant(state: &State, id: TenantId) -> v1::Tenant {
    let created_at_ms = state.tenants.get(&id).map_or(0, |tenant| tenant.created_at.unix_ms);
    v1::Tenant { id: id.0, name: state.tenant_name(id).to_owned(), created_at_ms }
}

fn app(state: &State, client_id: &str, app: &App) -> v1::App {
    v1::App {
        client_id: client_id.to_owned(),
        name: app.name.clone(),
        tenant_name: state.tenant_name(app.tenant).to_owned(),
        created_at_ms: app.created_at.unix_ms,
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::Name(name) => Self::new(Code::InvalidArgument, "INVALID_NAME", message).about("name", name),
            Refused::NoSuchTenant(_) => Self::new(Code::NotFound, "NO_SUCH_TENANT", message),
            Refused::NoSuchApp(_) => Self::new(Code::NotFound, "NO_SUCH_APP", message),
            Refused::NoSuchGrant { .. } => Self::new(Code::NotFound, "NO_SUCH_GRANT", message),
            Refused::TenantExists(_) => Self::new(Code::AlreadyExists, "TENANT_EXISTS", message),
            Refused::AppExists { .. } => Self::new(Code::AlreadyExists, "APP_EXISTS", message),
            Refused::AmbiguousApp { .. } => Self::new(Code::InvalidArgument, "AMBIGUOUS_APP", message),
            Refused::BeyondRights { .. } => Self::new(Code::PermissionDenied, "BEYOND_RIGHTS", message),
            Refused::TooMany { .. } => Self::new(Code::ResourceExhausted, "TOO_MANY", message),
            Refused::NoSuchUser(_) => Self::new(Code::NotFound, "NO_SUCH_USER", message),
            Refused::NoSuchRole(_) => Self::new(Code::NotFound, "NO_SUCH_ROLE", message),
            Refused::UserExists(_) => Self::new(Code::AlreadyExists, "USER_EXISTS", message),
            Refused::RoleExists(_) => Self::new(Code::AlreadyExists, "ROLE_EXISTS", message),
            Refused::TokenId => Self::new(Code::InvalidArgument, "INVALID_TOKEN", message),
            Refused::RoleSize => Self::new(Code::InvalidArgument, "INVALID_ROLE", message),
            Refused::Email(_) => Self::new(Code::InvalidArgument, "INVALID_EMAIL", message),
            Refused::RoleInUse(_) | Refused::BuiltInRole(_) => {
                Self::new(Code::FailedPrecondition, "ROLE_IN_USE", message)
            }
            Refused::BeyondRole(_) => Self::new(Code::PermissionDenied, "BEYOND_ROLE", message),
            Refused::TenantHasApps(_) | Refused::TenantHasBuckets(_) | Refused::OwnTenant(_) => {
                Self::new(Code::FailedPrecondition, "TENANT_IN_USE", message)
            }
        }
    }
}

impl From<KeepError> for Status {
    fn from(error: KeepError) -> Self {
        let message = error.to_string();
        match error {
            KeepError::Refused(refused) => refused.into(),
            KeepError::NoKey(_) => Self::new(Code::FailedPrecondition, "NO_SEALING_KEY", message),
            KeepError::Password(PasswordError::Length) => Self::new(Code::InvalidArgument, "INVALID_PASSWORD", message),
            KeepError::Password(PasswordError::Busy) => {
                Self::new(Code::ResourceExhausted, "BUSY", message).retry_after(SOON)
            }
            KeepError::Away(_) => Self::new(Code::Unavailable, "ACCESS_AWAY", message).retry_after(SOON),
            KeepError::Busy => Self::new(Code::Aborted, "CONFIGURATION_CHANGED", message).retry_after(SOON),
            KeepError::Unknown => Self::new(Code::Unknown, "OUTCOME_UNKNOWN", message),
            KeepError::Unreadable(_) => Self::new(Code::Internal, "ACCESS_UNREADABLE", message),
            KeepError::BucketTaken => Self::new(Code::FailedPrecondition, "BUCKET_TAKEN", message),
        }
    }
}

const SOON: Duration = Duration::from_secs(1);
