//! Tenants, apps, what was granted to them, and which buckets are public; and what a change does to all of it.
//!
//! The state is small and changes seldom: a change is decided over all of it at once, by a pure function, and whoever keeps
//! it sees to it that it is still the state that was decided over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::action::{Action, ActionPattern};
use super::admin::AdminPattern;
use super::decide::{Grant, Rights};
use super::pattern::Pattern;
use super::tokens::{NewTokenKey, Resealed, TokenKey};
use super::users::{PasswordHash, Role, User, UserChange};
use crate::ids::{BucketId, TenantId};
use crate::object::BucketName;
use crate::time::WallTime;

/// Everything at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Grows with each change.
    pub revision: u64,
    /// The id of the next tenant; never given twice.
    pub next_tenant: u64,
    /// By id.
    pub tenants: BTreeMap<TenantId, Tenant>,
    /// By client id, which is also the access key.
    pub apps: BTreeMap<String, App>,
    /// What apps may do.
    pub grants: BTreeSet<GivenGrant>,
    /// Buckets whose objects everybody may read.
    pub public: BTreeMap<BucketId, PublicBucket>,
    /// Who administrates with a password, by name.
    #[serde(default)]
    pub users: BTreeMap<String, User>,
    /// Roles of users, beside those that every node has, by name.
    #[serde(default)]
    pub roles: BTreeMap<String, Role>,
    /// What tokens are signed with, oldest first, then by id; none while that is what the configuration says.
    #[serde(default)]
    pub token_keys: Vec<TokenKey>,
    /// Tokens that are good no more, by their ids, and until when that needs saying.
    #[serde(default)]
    pub denied: BTreeMap<String, WallTime>,
}

/// The owner of buckets and apps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Unique.
    pub name: String,
    /// When it was made.
    pub created_at: WallTime,
}

/// A program that comes with a client id and a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Whose.
    pub tenant: TenantId,
    /// Unique in its tenant.
    pub name: String,
    /// Its secret, sealed; opaque here.
    pub sealed_secret: Vec<u8>,
    /// When it was made.
    pub created_at: WallTime,
}

/// Something that an app may do, and who said so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GivenGrant {
    /// The client id of who may.
    pub app: String,
    /// What.
    pub action: ActionPattern,
    /// On what.
    pub resource: Pattern,
    /// The client id of the app that passed it on; `None` for an administrator.
    pub by: Option<String>,
}

/// A bucket whose objects everybody may read. It is known by its id, so that another one that gets its name is not public.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicBucket {
    /// Its name.
    pub name: BucketName,
    /// Whose.
    pub tenant: TenantId,
}

/// An app as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppName {
    /// Of this tenant; may be left out where only one has an app of that name.
    pub tenant: Option<String>,
    /// Its own.
    pub name: String,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in the rows")]
pub enum Command {
    CreateTenant {
        name: String,
    },
    /// Only of a tenant without apps and buckets; the latter are for the caller to find out.
    DeleteTenant {
        name: String,
        has_buckets: bool,
    },
    CreateApp {
        tenant: String,
        name: String,
        client_id: String,
        sealed_secret: Vec<u8>,
    },
    DeleteApp {
        app: AppName,
    },
    /// The old secret is good no more.
    ResetSecret {
        client_id: String,
        sealed_secret: Vec<u8>,
    },
    /// Again, it changes nothing. `by` is the client id of an app that passes on what it may do itself.
    Grant {
        app: AppName,
        action: ActionPattern,
        resource: Pattern,
        by: Option<String>,
    },
    /// Takes with it what was passed on from it. An app revokes only what it passed on, an administrator anything.
    Revoke {
        app: AppName,
        action: ActionPattern,
        resource: Pattern,
        by: Option<String>,
    },
    SetPublic {
        id: BucketId,
        bucket: PublicBucket,
        public: bool,
    },
    /// `by`, here and below, is the user who asks; `None` for the node's own app, which may do everything.
    CreateUser {
        username: String,
        email: String,
        role: String,
        password: PasswordHash,
        by: Option<String>,
    },
    UpdateUser {
        username: String,
        change: UserChange,
        by: Option<String>,
    },
    DeleteUser {
        username: String,
        by: Option<String>,
    },
    CreateRole {
        name: String,
        actions: Vec<AdminPattern>,
        by: Option<String>,
    },
    /// Only of a role that no user has.
    DeleteRole {
        name: String,
        by: Option<String>,
    },
    /// What the older ones signed is believed until `old_until`. `configured` is the one of the configuration, which the
    /// first rotation keeps.
    RotateTokenKey {
        configured: NewTokenKey,
        new: NewTokenKey,
        old_until: WallTime,
    },
    DenyToken {
        id: String,
        until: WallTime,
    },
    PruneDenylist,
    /// The same secrets under another key.
    Reseal {
        apps: Vec<Resealed>,
        token_keys: Vec<Resealed>,
    },
}

/// What an administrator did or tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When.
    pub at: WallTime,
    /// The access key of who, or `user:` and his name.
    pub who: String,
    /// From which address.
    pub from: String,
    /// What: `app create`.
    pub action: String,
    /// On what: `acme/backup`.
    pub about: String,
    /// `ok`, or why not.
    pub result: String,
}

/// A change that is not made. Each text is one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum Refused {
    #[error("a name has 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' and '-', and {0:?} is none")]
    Name(String),
    #[error("there is no tenant {0}")]
    NoSuchTenant(String),
    #[error("there is a tenant {0} already")]
    TenantExists(String),
    #[error("tenant {0} has apps: delete them first")]
    TenantHasApps(String),
    #[error("tenant {0} has buckets: delete them first")]
    TenantHasBuckets(String),
    #[error("tenant {0} is the one of this node's own app, and stays")]
    OwnTenant(String),
    #[error("there is no app {0}")]
    NoSuchApp(String),
    #[error("tenant {tenant} has an app {name} already")]
    AppExists { tenant: String, name: String },
    #[error("several tenants have an app {name}: name one of {tenants} with --tenant-name")]
    AmbiguousApp { name: String, tenants: String },
    #[error("app {app} was not granted {action} on {resource}")]
    NoSuchGrant { app: String, action: ActionPattern, resource: Pattern },
    #[error(
        "an app passes on what it may do itself, to apps of its own tenant, and may itself grant: {action} on {resource} is more"
    )]
    BeyondRights { action: ActionPattern, resource: Pattern },
    #[error("there is no user {0}")]
    NoSuchUser(String),
    #[error("there is a user {0} already")]
    UserExists(String),
    #[error("there is no role {0}")]
    NoSuchRole(String),
    #[error("there is a role {0} already")]
    RoleExists(String),
    #[error("a role has 1 to 100 actions")]
    RoleSize,
    #[error("users have the role {0}: give them another one first")]
    RoleInUse(String),
    #[error("every node has the role {0}, and it stays")]
    BuiltInRole(String),
    #[error("an e-mail address is NAME@HOST, of at most 254 characters, and {0:?} is none")]
    Email(String),
    #[error("the role {0} may do more than who asks: nobody gives what he has not")]
    BeyondRole(String),
    #[error("the id of a token has 1 to 64 visible characters")]
    TokenId,
    #[error("there are {max} {what} already, and no more are kept")]
    TooMany { what: &'static str, max: usize },
}

/// Bytes of a name.
const NAME_BYTES_MAX: usize = 64;
/// Bounds of the state, which every process holds in memory.
const TENANTS_MAX: usize = 1_000;
const APPS_MAX: usize = 10_000;
const GRANTS_MAX: usize = 50_000;
const PUBLIC_MAX: usize = 10_000;

impl State {
    /// The state of a node whose own app is of this tenant.
    #[must_use]
    pub fn new(own: TenantId, at: WallTime) -> Self {
        let tenant = Tenant { name: "default".to_owned(), created_at: at };
        Self { next_tenant: own.0 + 1, tenants: [(own, tenant)].into(), ..Self::default() }
    }

    /// The state after a change; `own` is the tenant of the node's own app.
    ///
    /// # Errors
    /// When it is not made; see [`Refused`].
    pub fn apply(&self, command: &Command, own: TenantId, at: WallTime) -> Result<Self, Refused> {
        let mut next = self.clone();
        next.change(command, own, at)?;
        next.revision += 1;
        Ok(next)
    }

    /// The tenant of a name.
    ///
    /// # Errors
    /// When there is none.
    pub fn find_tenant(&self, name: &str) -> Result<TenantId, Refused> {
        let found = self.tenants.iter().find(|(_, tenant)| tenant.name == name);
        found.map(|(id, _)| *id).ok_or_else(|| Refused::NoSuchTenant(name.to_owned()))
    }

    /// The client id of an app.
    ///
    /// # Errors
    /// When there is none, or several could be meant.
    pub fn find_app(&self, wanted: &AppName) -> Result<&str, Refused> {
        let tenant = wanted.tenant.as_deref().map(|name| self.find_tenant(name)).transpose()?;
        let is_meant = |app: &App| app.name == wanted.name && tenant.is_none_or(|tenant| tenant == app.tenant);
        let mut found = self.apps.iter().filter(|(_, app)| is_meant(app));
        let (client_id, first) = found.next().ok_or_else(|| Refused::NoSuchApp(wanted.name.clone()))?;
        let others: Vec<&str> = found.map(|(_, app)| self.tenant_name(app.tenant)).collect();
        if others.is_empty() {
            return Ok(client_id);
        }
        let mut tenants = [vec![self.tenant_name(first.tenant)], others].concat();
        tenants.sort_unstable();
        Err(Refused::AmbiguousApp { name: wanted.name.clone(), tenants: tenants.join(", ") })
    }

    /// The name of a tenant; empty when there is none.
    #[must_use]
    pub fn tenant_name(&self, tenant: TenantId) -> &str {
        self.tenants.get(&tenant).map_or("", |tenant| tenant.name.as_str())
    }

    /// What an app may do.
    #[must_use]
    pub fn rights(&self, client_id: &str) -> Rights {
        Rights::Granted(self.grants_of(client_id).map(GivenGrant::to_grant).collect())
    }

    fn grants_of<'a>(&'a self, client_id: &'a str) -> impl Iterator<Item = &'a GivenGrant> {
        self.grants.iter().filter(move |grant| grant.app == client_id)
    }

    fn change(&mut self, command: &Command, own: TenantId, at: WallTime) -> Result<(), Refused> {
        match command {
            Command::CreateTenant { name } => {
                check_name(name)?;
                if self.find_tenant(name).is_ok() {
                    return Err(Refused::TenantExists(name.clone()));
                }
                check_room(self.tenants.len(), TENANTS_MAX, "tenants")?;
                let id = TenantId(self.next_tenant);
                self.next_tenant += 1;
                self.tenants.insert(id, Tenant { name: name.clone(), created_at: at });
            }
            Command::DeleteTenant { name, has_buckets } => {
                let id = self.find_tenant(name)?;
                if id == own {
                    return Err(Refused::OwnTenant(name.clone()));
                }
                if self.apps.values().any(|app| app.tenant == id) {
                    return Err(Refused::TenantHasApps(name.clone()));
                }
                if *has_buckets {
                    return Err(Refused::TenantHasBuckets(name.clone()));
                }
                self.tenants.remove(&id);
                self.public.retain(|_, bucket| bucket.tenant != id);
            }
            Command::CreateApp { tenant, name, client_id, sealed_secret } => {
                check_name(name)?;
                let id = self.find_tenant(tenant)?;
                let wanted = AppName { tenant: Some(tenant.clone()), name: name.clone() };
                if self.find_app(&wanted).is_ok() || self.apps.contains_key(client_id) {
                    return Err(Refused::AppExists { tenant: tenant.clone(), name: name.clone() });
                }
                check_room(self.apps.len(), APPS_MAX, "apps")?;
                let (name, sealed_secret) = (name.clone(), sealed_secret.clone());
                self.apps.insert(client_id.clone(), App { tenant: id, name, sealed_secret, created_at: at });
            }
            Command::DeleteApp { app } => {
                let client_id = self.find_app(app)?.to_owned();
                self.apps.remove(&client_id);
                self.grants.retain(|grant| grant.app != client_id);
                self.drop_unsupported();
            }
            Command::ResetSecret { client_id, sealed_secret } => {
                let app = self.apps.get_mut(client_id).ok_or_else(|| Refused::NoSuchApp(client_id.clone()))?;
                app.sealed_secret.clone_from(sealed_secret);
            }
            Command::Grant { app, action, resource, by } => {
                let (action, resource) = (*action, resource.clone());
                let app = self.find_app(app)?.to_owned();
                let grant = GivenGrant { app, action, resource: resource.clone(), by: by.clone() };
                if !self.grants.contains(&grant) {
                    check_room(self.grants.len(), GRANTS_MAX, "grants")?;
                }
                self.grants.insert(grant.clone());
                self.drop_unsupported();
                if !self.grants.contains(&grant) {
                    return Err(Refused::BeyondRights { action, resource });
                }
            }
            Command::Revoke { app, action, resource, by } => {
                let client_id = self.find_app(app)?.to_owned();
                let before = self.grants.len();
                self.grants.retain(|grant| {
                    let is_meant = grant.app == client_id && grant.action == *action && grant.resource == *resource;
                    !(is_meant && (by.is_none() || grant.by == *by))
                });
                if self.grants.len() == before {
                    let (app, action, resource) = (app.name.clone(), *action, resource.clone());
                    return Err(Refused::NoSuchGrant { app, action, resource });
                }
                self.drop_unsupported();
            }
            Command::SetPublic { id, bucket, public } => {
                if *public {
                    // An earlier bucket of this name is gone.
                    self.public.retain(|_, other| other.name != bucket.name);
                    check_room(self.public.len(), PUBLIC_MAX, "public buckets")?;
                    self.public.insert(*id, bucket.clone());
                } else {
                    self.public.retain(|other, known| other != id && known.name != bucket.name);
                }
            }
            Command::CreateUser { username, email, role, password, by } => {
                let (email, role, password) = (email.clone(), role.clone(), password.clone());
                let user = User { email, role, password, credential: self.revision + 1, created_at: at };
                self.create_user(username, user, by.as_deref())?;
            }
            Command::UpdateUser { username, change, by } => self.update_user(username, change, by.as_deref())?,
            Command::DeleteUser { username, by } => self.delete_user(username, by.as_deref())?,
            Command::CreateRole { name, actions, by } => self.create_role(name, actions, by.as_deref(), at)?,
            Command::DeleteRole { name, by } => self.delete_role(name, by.as_deref())?,
            Command::RotateTokenKey { configured, new, old_until } => {
                self.rotate_token_key(configured, new, *old_until, at)?;
            }
            Command::DenyToken { id, until } => self.deny_token(id, *until, at)?,
            Command::PruneDenylist => self.prune_denied(at),
            Command::Reseal { apps, token_keys } => self.reseal(apps, token_keys),
        }
        Ok(())
    }

    /// Takes back what was passed on by an app that may not do it any more. What counts begins with the administrators', so
    /// that two apps do not hold each other up.
    fn drop_unsupported(&mut self) {
        let (mut standing, mut waiting): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(&mut self.grants).into_iter().partition(|grant| grant.by.is_none());
        loop {
            let (supported, unsupported): (BTreeSet<_>, BTreeSet<_>) =
                waiting.into_iter().partition(|grant| self.supports(&standing, grant));
            waiting = unsupported;
            if supported.is_empty() {
                break;
            }
            standing.extend(supported);
        }
        self.grants = standing;
    }

    /// Whether who passed it on is there, of the same tenant, may do it, and may grant on that resource.
    fn supports(&self, standing: &BTreeSet<GivenGrant>, grant: &GivenGrant) -> bool {
        let Some(by) = &grant.by else { return true };
        let (Some(giver), Some(taker)) = (self.apps.get(by), self.apps.get(&grant.app)) else { return false };
        let holds = |action: ActionPattern| {
            let mut own = standing.iter().filter(|held| held.app == *by);
            own.any(|held| held.action.covers(action) && held.resource.covers(&grant.resource))
        };
        giver.tenant == taker.tenant && holds(grant.action) && holds(ActionPattern::One(Action::PolicyGrant))
    }
}

impl Command {
    /// What it does, and on what, for the audit. Says no secret.
    #[must_use]
    pub fn words(&self) -> (&'static str, String) {
        let grant = |app: &AppName, action: &ActionPattern, resource: &Pattern| format!("{app} {action} {resource}");
        match self {
            Self::CreateTenant { name } => ("tenant create", name.clone()),
            Self::DeleteTenant { name, .. } => ("tenant delete", name.clone()),
            Self::CreateApp { tenant, name, .. } => ("app create", format!("{tenant}/{name}")),
            Self::DeleteApp { app } => ("app delete", app.to_string()),
            Self::ResetSecret { client_id, .. } => ("app reset-secret", client_id.clone()),
            Self::Grant { app, action, resource, .. } => ("policy grant", grant(app, action, resource)),
            Self::Revoke { app, action, resource, .. } => ("policy revoke", grant(app, action, resource)),
            Self::SetPublic { bucket, public: true, .. } => ("bucket make-public", bucket.name.to_string()),
            Self::SetPublic { bucket, public: false, .. } => ("bucket make-private", bucket.name.to_string()),
            Self::CreateUser { username, role, .. } => ("user create", format!("{username} {role}")),
            Self::UpdateUser { username, change: UserChange { email, role, password }, .. } => {
                let role = role.as_ref().map(|role| format!("role {role}"));
                let rest = [email.as_ref().map(|_| "email"), password.as_ref().map(|_| "password")];
                let changed: Vec<_> = role.into_iter().chain(rest.into_iter().flatten().map(str::to_owned)).collect();
                ("user update", format!("{username}: {}", changed.join(", ")))
            }
            Self::DeleteUser { username, .. } => ("user delete", username.clone()),
            Self::CreateRole { name, actions, .. } => {
                let actions: Vec<String> = actions.iter().map(ToString::to_string).collect();
                ("role create", format!("{name}: {}", actions.join(" ")))
            }
            Self::DeleteRole { name, .. } => ("role delete", name.clone()),
            Self::RotateTokenKey { new, .. } => ("rotate-key jwt", new.id.clone()),
            Self::DenyToken { id, .. } => ("token revoke", id.clone()),
            Self::PruneDenylist => ("denylist prune", String::new()),
            Self::Reseal { apps, token_keys } => {
                ("rotate-key encryption", format!("{} secrets", apps.len() + token_keys.len()))
            }
        }
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tenant {
            Some(tenant) => write!(f, "{tenant}/{}", self.name),
            None => self.name.fmt(f),
        }
    }
}

impl GivenGrant {
    /// Without who said so.
    #[must_use]
    pub fn to_grant(&self) -> Grant {
        Grant { action: self.action, resource: self.resource.clone() }
    }
}

pub(super) fn check_name(name: &str) -> Result<(), Refused> {
    let valid = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if valid { Ok(()) } else { Err(Refused::Name(name.chars().take(NAME_BYTES_MAX).collect())) }
}

pub(super) fn check_room(count: usize, max: usize, what: &'static str) -> Result<(), Refused> {
    if count < max { Ok(()) } else { Err(Refused::TooMany { what, max }) }
}

#[cfg(test)]
mod tests {
    use super::super::decide::{Identity, Resource, decide};
    use super::*;

    const OWN: TenantId = TenantId(1);
    const AT: WallTime = WallTime { unix_ms: 7 };

    /// A state after these words: `tenant acme`, `app acme web`, `grant web object:read *`, `revoke`, `delete`, `pass a b ..`.
    fn after(state: &State, words: &str) -> Result<State, Refused> {
        let words: Vec<&str> = words.split(' ').collect();
        let app = |name: &str| {
            let (tenant, name) = name.split_once('/').map_or((None, name), |(tenant, name)| (Some(tenant), name));
            AppName { tenant: tenant.map(str::to_owned), name: name.to_owned() }
        };
        let what = |words: &[&str]| (words[0].parse().unwrap(), words[1].parse().unwrap());
        let command = match words[..] {
            ["tenant", name] => Command::CreateTenant { name: name.to_owned() },
            ["end", name] => Command::DeleteTenant { name: name.to_owned(), has_buckets: false },
            ["app", tenant, name] => Command::CreateApp {
                tenant: tenant.to_owned(),
                name: name.to_owned(),
                client_id: format!("id-{tenant}-{name}"),
                sealed_secret: vec![1],
            },
            ["delete", name] => Command::DeleteApp { app: app(name) },
            ["grant", name, ref rest @ ..] => {
                let (action, resource) = what(rest);
                Command::Grant { app: app(name), action, resource, by: None }
            }
            ["pass", by, name, ref rest @ ..] => {
                let (action, resource) = what(rest);
                Command::Grant { app: app(name), action, resource, by: Some(by.to_owned()) }
            }
            ["revoke", name, ref rest @ ..] => {
                let (action, resource) = what(rest);
                Command::Revoke { app: app(name), action, resource, by: None }
            }
            _ => panic!("{words:?}"),
        };
        state.apply(&command, OWN, AT)
    }

    fn built(lines: &[&str]) -> State {
        lines
            .iter()
            .fold(State::new(OWN, AT), |state, line| after(&state, line).unwrap_or_else(|e| panic!("{line}: {e}")))
    }

    #[test]
    fn names_are_unique_where_they_must_be() {
        let state = built(&["tenant acme", "tenant beta", "app acme web", "app beta web", "app acme job"]);
        assert_eq!(after(&state, "tenant acme"), Err(Refused::TenantExists("acme".to_owned())));
        assert!(matches!(after(&state, "app acme web"), Err(Refused::AppExists { .. })));
        assert!(matches!(after(&state, "app gone web"), Err(Refused::NoSuchTenant(_))));
        for name in ["", "a b", "a/b", "\u{e4}", &"x".repeat(65)] {
            let command = Command::CreateTenant { name: name.to_owned() };
            assert!(matches!(state.apply(&command, OWN, AT), Err(Refused::Name(_))), "{name}");
        }
        // A name that several tenants have wants the tenant.
        assert!(
            matches!(after(&state, "grant web * *"), Err(Refused::AmbiguousApp { tenants, .. }) if tenants == "acme, beta")
        );
        assert_eq!(after(&state, "grant beta/web * *").unwrap().grants.len(), 1);
        assert_eq!(after(&state, "grant job * *").unwrap().grants.len(), 1);
    }

    #[test]
    fn a_tenant_goes_when_nothing_is_left_of_it_and_its_id_is_never_given_again() {
        let state = built(&["tenant acme", "app acme web"]);
        let id = state.find_tenant("acme").unwrap();
        assert_eq!(after(&state, "end acme"), Err(Refused::TenantHasApps("acme".to_owned())));
        assert_eq!(after(&state, "end default"), Err(Refused::OwnTenant("default".to_owned())));
        let state = after(&state, "delete web").unwrap();
        let with_buckets = Command::DeleteTenant { name: "acme".to_owned(), has_buckets: true };
        assert_eq!(state.apply(&with_buckets, OWN, AT), Err(Refused::TenantHasBuckets("acme".to_owned())));
        let state = after(&state, "end acme").unwrap();
        let state = after(&state, "tenant acme").unwrap();
        assert_ne!(state.find_tenant("acme").unwrap(), id);
        assert!(state.find_tenant("acme").unwrap() != OWN);
    }

    #[test]
    fn what_goes_with_an_app_does_not_come_back_with_its_name() {
        let state = built(&["tenant acme", "app acme web", "grant web object:* docs/*"]);
        assert!(state.rights("id-acme-web").allow(Action::ObjectRead, Resource::Object { bucket: "docs", key: "a" }));
        let state = after(&after(&state, "delete web").unwrap(), "app acme web").unwrap();
        assert_eq!(state.rights("id-acme-web"), Rights::Granted([].into()));
    }

    #[test]
    fn a_revoked_grant_is_gone_and_granted_twice_is_granted_once() {
        let state =
            built(&["tenant acme", "app acme web", "grant web * *", "grant web * *", "grant web object:read a/*"]);
        assert_eq!(state.grants.len(), 2);
        let state = after(&state, "revoke web * *").unwrap();
        let rights = state.rights("id-acme-web");
        assert!(!rights.allow(Action::BucketCreate, Resource::Bucket("a")));
        assert!(rights.allow(Action::ObjectRead, Resource::Object { bucket: "a", key: "k" }));
        assert!(matches!(after(&state, "revoke web * *"), Err(Refused::NoSuchGrant { .. })));
        assert!(matches!(after(&state, "revoke web object:read a"), Err(Refused::NoSuchGrant { .. })));
    }

    #[test]
    fn an_app_passes_on_only_what_it_may_do() {
        let state = built(&[
            "tenant acme",
            "tenant beta",
            "app acme a",
            "app acme b",
            "app acme c",
            "app beta d",
            "grant a object:read docs/*",
            "grant a policy:grant docs/*",
        ]);
        let beyond =
            |words: &str| assert!(matches!(after(&state, words), Err(Refused::BeyondRights { .. })), "{words}");
        for words in [
            "pass id-acme-a b object:write docs/*",
            "pass id-acme-a b object:* docs/*",
            "pass id-acme-a b object:read *",
            "pass id-acme-a b object:read other/*",
            "pass id-acme-a d object:read docs/*",
            "pass id-acme-b c object:read docs/*",
            "pass nobody b object:read docs/*",
        ] {
            beyond(words);
        }
        let state = after(&state, "pass id-acme-a b object:read docs/x/*").unwrap();
        let state = after(&state, "pass id-acme-a b policy:grant docs/x/*").unwrap();
        let state = after(&state, "pass id-acme-b c object:read docs/x/y").unwrap();
        // Nobody holds up what was taken from both.
        let state = after(&state, "pass id-acme-b a object:read docs/x/*").unwrap();
        assert_eq!(state.grants.len(), 6);
        let less = after(&state, "revoke a object:read docs/*").unwrap();
        assert!(!less.grants.iter().any(|grant| grant.action == ActionPattern::One(Action::ObjectRead)), "{less:?}");
        let gone = after(&state, "delete a").unwrap();
        assert!(gone.grants.is_empty(), "{gone:?}");
    }

    #[test]
    fn a_bucket_is_public_by_its_id() {
        let bucket = PublicBucket { name: BucketName::new("docs").unwrap(), tenant: OWN };
        let set = |state: &State, id, public| {
            let command = Command::SetPublic { id: BucketId(id), bucket: bucket.clone(), public };
            state.apply(&command, OWN, AT).unwrap()
        };
        let state = set(&State::new(OWN, AT), 5, true);
        assert_eq!(state.public.len(), 1);
        // Another one of its name takes its place.
        let state = set(&state, 9, true);
        assert_eq!(state.public.keys().collect::<Vec<_>>(), [&BucketId(9)]);
        assert!(set(&state, 9, false).public.is_empty());
    }

    /// Goal: what one tenant's app holds never reaches another tenant's. Method: an app that holds everything.
    #[test]
    fn all_of_one_tenant_is_nothing_of_another() {
        let state = built(&["tenant acme", "tenant beta", "app acme web", "grant web * *"]);
        let app = &state.apps["id-acme-web"];
        let who = Identity { tenant: app.tenant, rights: state.rights("id-acme-web") };
        let beta = state.find_tenant("beta").unwrap();
        for &action in Action::ALL {
            let object = Resource::Object { bucket: "of-beta", key: "k" };
            assert_ne!(decide(Some(&who), action, object, None).unwrap().tenant(), beta);
        }
    }
}
