//! `anvil admin tenant`, `app`, `policy`, `audit` and `bucket set-public-access`.

use anvil_proto::v1;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Failure;
use super::admin::{Common, Node, tell};
use super::quotas::{self, UpdateTenant};

#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Makes a tenant
    Create(OneTenant),
    /// Lists the tenants
    List(Common),
    /// Shows a tenant, with what its buckets hold and how much they may
    Show(OneTenant),
    /// Changes how much a tenant's buckets may hold, all together
    Update(UpdateTenant),
    /// Deletes a tenant that has neither apps nor buckets
    Delete(OneTenant),
}

#[derive(Debug, Args)]
pub(super) struct OneTenant {
    /// Its name: 1 to 64 letters, digits, '.', '_' and '-'
    #[arg(value_name = "NAME", required_unless_present = "named")]
    name: Option<String>,
    /// The same, by flag
    #[arg(long = "name", alias = "tenant-name", value_name = "NAME", conflicts_with = "name")]
    named: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
pub(super) enum AppCommand {
    /// Makes an app, and prints its client id and its secret, which nobody can be told again
    Create {
        #[command(flatten)]
        app: OneApp,
    },
    /// Lists the apps, of all tenants or of one
    List {
        /// Of this tenant
        #[arg(long, value_name = "NAME")]
        tenant_name: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Shows an app
    Show(OneApp),
    /// Deletes an app and what was granted to it
    Delete(OneApp),
    /// Gives an app a new secret and prints it; the old one is good no more
    ResetSecret(OneApp),
}

#[derive(Debug, Args)]
pub(super) struct OneApp {
    /// Its name: 1 to 64 letters, digits, '.', '_' and '-'
    #[arg(value_name = "APP", required_unless_present = "named")]
    name: Option<String>,
    /// The same, by flag
    #[arg(long = "app-name", alias = "name", value_name = "APP", conflicts_with = "name")]
    named: Option<String>,
    /// Its tenant; may be left out where only one tenant has an app of that name
    #[arg(long, value_name = "NAME")]
    tenant_name: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Allows an app something, within its tenant
    Grant(OnePolicy),
    /// Takes back what was granted, and what the app passed on of it
    Revoke(OnePolicy),
    /// Lists what apps may do
    List {
        /// This app
        #[arg(long, value_name = "APP")]
        app_name: Option<String>,
        /// The apps of this tenant
        #[arg(long, value_name = "NAME")]
        tenant_name: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
pub(super) struct OnePolicy {
    /// The app
    #[arg(long, value_name = "APP")]
    app_name: String,
    /// Its tenant; may be left out where only one tenant has an app of that name
    #[arg(long, value_name = "NAME")]
    tenant_name: Option<String>,
    /// What: object:read, object:*, * and the like
    #[arg(long, value_name = "ACTION")]
    action: String,
    /// On what: a bucket, or bucket/key; * stands for any characters
    #[arg(long, value_name = "RESOURCE")]
    resource: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Lists what administrators did, latest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "COUNT")]
        max: u32,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
pub(super) struct BucketArgument {
    /// Its name
    #[arg(value_name = "NAME", required_unless_present = "named")]
    name: Option<String>,
    /// The same, by flag
    #[arg(long = "bucket", alias = "name", value_name = "NAME", conflicts_with = "name")]
    named: Option<String>,
}

/// The one that was given: clap sees to it that there is one.
pub(super) fn either(positional: Option<String>, flag: Option<String>) -> String {
    positional.or(flag).unwrap_or_default()
}

pub(super) fn tenant(command: TenantCommand) -> Result<(), Failure> {
    match command {
        TenantCommand::Create(OneTenant { name, named, common }) => {
            let request = v1::CreateTenantRequest { name: either(name, named) };
            let response: v1::CreateTenantResponse = Node::open(&common)?.ask("CreateTenant", &request)?;
            let tenant = response.tenant.unwrap_or_default();
            tell(&common, || tenant_to_json(&tenant), || tenants_table(std::slice::from_ref(&tenant)))
        }
        TenantCommand::List(common) => {
            let tenants = all_tenants(&common)?;
            tell(&common, || tenants.iter().map(tenant_to_json).collect(), || tenants_table(&tenants))
        }
        TenantCommand::Show(OneTenant { name, named, common }) => quotas::show_tenant(either(name, named), &common),
        TenantCommand::Update(arguments) => quotas::update_tenant(arguments),
        TenantCommand::Delete(OneTenant { name, named, common }) => {
            let name = either(name, named);
            let request = v1::DeleteTenantRequest { name: name.clone() };
            let v1::DeleteTenantResponse {} = Node::open(&common)?.ask("DeleteTenant", &request)?;
            tell(&common, || json!({ "deleted": name }), || format!("tenant {name} is deleted\n"))
        }
    }
}

fn all_tenants(common: &Common) -> Result<Vec<v1::Tenant>, Failure> {
    let response: v1::ListTenantsResponse = Node::open(common)?.ask("ListTenants", &v1::ListTenantsRequest {})?;
    Ok(response.tenants)
}

pub(super) fn app(command: AppCommand) -> Result<(), Failure> {
    match command {
        AppCommand::Create { app: OneApp { name, named, tenant_name, common } } => {
            let tenant_name =
                tenant_name.ok_or_else(|| Failure::usage("an app is of a tenant: name it with --tenant-name"))?;
            let request = v1::CreateAppRequest { tenant_name, app_name: either(name, named) };
            let v1::CreateAppResponse { app, client_secret } = Node::open(&common)?.ask("CreateApp", &request)?;
            tell_secret(&common, &app.unwrap_or_default(), &client_secret)
        }
        AppCommand::List { tenant_name, common } => {
            let apps = all_apps(&common, tenant_name)?;
            tell(&common, || apps.iter().map(app_to_json).collect(), || apps_table(&apps))
        }
        AppCommand::Show(OneApp { name, named, tenant_name, common }) => {
            let name = either(name, named);
            let mut apps = all_apps(&common, tenant_name)?;
            apps.retain(|app| app.name == name);
            match apps.as_slice() {
                [] => Err(Failure::run(format!("there is no app {name}"))),
                [app] => tell(&common, || app_to_json(app), || apps_table(std::slice::from_ref(app))),
                _ => Err(Failure::usage(format!("several tenants have an app {name}: name one with --tenant-name"))),
            }
        }
        AppCommand::Delete(OneApp { name, named, tenant_name, common }) => {
            let name = either(name, named);
            let tenant_name = tenant_name.unwrap_or_default();
            let request = v1::DeleteAppRequest { tenant_name, app_name: name.clone() };
            let v1::DeleteAppResponse {} = Node::open(&common)?.ask("DeleteApp", &request)?;
            tell(&common, || json!({ "deleted": name }), || format!("app {name} is deleted\n"))
        }
        AppCommand::ResetSecret(OneApp { name, named, tenant_name, common }) => {
            let tenant_name = tenant_name.unwrap_or_default();
            let request = v1::ResetAppSecretRequest { tenant_name, app_name: either(name, named) };
            let v1::ResetAppSecretResponse { app, client_secret } =
                Node::open(&common)?.ask("ResetAppSecret", &request)?;
            tell_secret(&common, &app.unwrap_or_default(), &client_secret)
        }
    }
}

fn all_apps(common: &Common, tenant_name: Option<String>) -> Result<Vec<v1::App>, Failure> {
    let request = v1::ListAppsRequest { tenant_name: tenant_name.unwrap_or_default() };
    let response: v1::ListAppsResponse = Node::open(common)?.ask("ListApps", &request)?;
    Ok(response.apps)
}

fn tell_secret(common: &Common, app: &v1::App, secret: &str) -> Result<(), Failure> {
    let in_json = || {
        let mut app = app_to_json(app);
        app["client_secret"] = json!(secret);
        app
    };
    let v1::App { client_id, name, tenant_name, .. } = app;
    let in_text =
        || format!("app:           {tenant_name}/{name}\nclient id:     {client_id}\nclient secret: {secret}\n");
    tell(common, in_json, in_text)
}

pub(super) fn policy(command: PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Grant(OnePolicy { app_name, tenant_name, action, resource, common }) => {
            let tenant_name = tenant_name.unwrap_or_default();
            let request = v1::GrantPolicyRequest { tenant_name, app_name, action, resource };
            let v1::GrantPolicyResponse {} = Node::open(&common)?.ask("GrantPolicy", &request)?;
            let v1::GrantPolicyRequest { app_name, action, resource, .. } = request;
            tell(
                &common,
                || json!({ "app_name": app_name, "action": action, "resource": resource, "granted": true }),
                || format!("app {app_name} may {action} on {resource}\n"),
            )
        }
        PolicyCommand::Revoke(OnePolicy { app_name, tenant_name, action, resource, common }) => {
            let tenant_name = tenant_name.unwrap_or_default();
            let request = v1::RevokePolicyRequest { tenant_name, app_name, action, resource };
            let v1::RevokePolicyResponse {} = Node::open(&common)?.ask("RevokePolicy", &request)?;
            let v1::RevokePolicyRequest { app_name, action, resource, .. } = request;
            tell(
                &common,
                || json!({ "app_name": app_name, "action": action, "resource": resource, "granted": false }),
                || format!("app {app_name} was allowed {action} on {resource}, and is not any more\n"),
            )
        }
        PolicyCommand::List { app_name, tenant_name, common } => {
            let (tenant_name, app_name) = (tenant_name.unwrap_or_default(), app_name.unwrap_or_default());
            let request = v1::ListPoliciesRequest { tenant_name, app_name };
            let response: v1::ListPoliciesResponse = Node::open(&common)?.ask("ListPolicies", &request)?;
            let policies = response.policies;
            let rows = || {
                let row = |policy: &v1::Policy| {
                    let v1::Policy { app_name, tenant_name, action, resource, given_by } = policy.clone();
                    let given_by = if given_by.is_empty() { "administrator".to_owned() } else { given_by };
                    vec![tenant_name, app_name, action, resource, given_by]
                };
                table(&["TENANT", "APP", "ACTION", "RESOURCE", "GIVEN BY"], policies.iter().map(row).collect())
            };
            tell(&common, || policies.iter().map(policy_to_json).collect(), rows)
        }
    }
}

impl BucketArgument {
    pub(super) fn name(self) -> String {
        either(self.name, self.named)
    }
}

pub(super) fn set_public_access(bucket: BucketArgument, allow: bool, common: &Common) -> Result<(), Failure> {
    let bucket = bucket.name();
    let request = v1::SetBucketPublicAccessRequest { bucket: bucket.clone(), allow };
    let response: v1::SetBucketPublicAccessResponse = Node::open(common)?.ask("SetBucketPublicAccess", &request)?;
    let tenant = response.tenant_name;
    let says = if allow { "everybody may read its objects" } else { "nobody reads its objects without a grant" };
    tell(
        common,
        || json!({ "bucket": bucket, "tenant_name": tenant, "public": allow }),
        || format!("bucket {bucket} of tenant {tenant}: {says}\n"),
    )
}

pub(super) fn audit(max: u32, common: &Common) -> Result<(), Failure> {
    let response: v1::ListAuditRecordsResponse =
        Node::open(common)?.ask("ListAuditRecords", &v1::ListAuditRecordsRequest { max })?;
    let records = response.records;
    let rows = || {
        let row = |record: &v1::AuditRecord| {
            let v1::AuditRecord { at_ms, who, from, action, about, result } = record.clone();
            vec![time(at_ms), who, from, action, about, result]
        };
        table(&["TIME", "WHO", "FROM", "ACTION", "ABOUT", "RESULT"], records.iter().map(row).collect())
    };
    let in_json = |record: &v1::AuditRecord| {
        let v1::AuditRecord { at_ms, who, from, action, about, result } = record;
        json!({ "at": time(*at_ms), "who": who, "from": from, "action": action, "about": about, "result": result })
    };
    tell(common, || records.iter().map(in_json).collect(), rows)
}

fn tenant_to_json(tenant: &v1::Tenant) -> Value {
    json!({ "id": tenant.id, "name": tenant.name, "created_at": time(tenant.created_at_ms) })
}

fn app_to_json(app: &v1::App) -> Value {
    let v1::App { client_id, name, tenant_name, created_at_ms } = app;
    json!({
        "client_id": client_id, "app_name": name, "tenant_name": tenant_name, "created_at": time(*created_at_ms),
    })
}

fn policy_to_json(policy: &v1::Policy) -> Value {
    let v1::Policy { app_name, tenant_name, action, resource, given_by } = policy;
    let given_by = if given_by.is_empty() { Value::Null } else { json!(given_by) };
    json!({
        "tenant_name": tenant_name, "app_name": app_name, "action": action, "resource": resource, "given_by": given_by,
    })
}

fn tenants_table(tenants: &[v1::Tenant]) -> String {
    let row = |tenant: &v1::Tenant| vec![tenant.name.clone(), tenant.id.to_string(), time(tenant.created_at_ms)];
    table(&["TENANT", "ID", "CREATED"], tenants.iter().map(row).collect())
}

fn apps_table(apps: &[v1::App]) -> String {
    let row =
        |app: &v1::App| vec![app.tenant_name.clone(), app.name.clone(), app.client_id.clone(), time(app.created_at_ms)];
    table(&["TENANT", "APP", "CLIENT ID", "CREATED"], apps.iter().map(row).collect())
}

/// Lines whose columns stand below one another.
pub(super) fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let heads = heads.iter().map(|head| (*head).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let columns = lines[0].len();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let told = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.iter().map(told).collect()
}

pub(super) fn time(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_one_another() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "ID"], rows), "NAME    ID\na       1\nlonger\n");
        assert_eq!(time(784_111_777_000), "1994-11-06T08:49:37Z");
    }
}
