//! All access keys that this process knows, and what belongs to them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use anvil_model::access::{App, GivenGrant, Grant, Identity, Rights, State};
use anvil_model::ids::{BucketId, TenantId};
use anvil_model::object::BucketName;

use super::credential::{Credential, Secret};
use super::token_keys::TokenKeys;

/// Whom the node knows: its own app, and the apps of its tenants as they were read last. Clones share what they know, on all
/// cores; it is replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    own: Arc<BTreeMap<String, Arc<Credential>>>,
    known: Arc<RwLock<Option<Arc<Known>>>>,
    /// Whether a bucket is public at all: every GET asks, and mostly there is none.
    any_public: Arc<AtomicBool>,
    counters: Arc<Counters>,
}

/// What became of what was read.
#[derive(Debug, Default)]
struct Counters {
    published: AtomicU64,
    forgotten: AtomicU64,
    notified: AtomicU64,
    confirmed_at_ms: AtomicU64,
}

/// How current the directory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryFigures {
    /// How often something else became known.
    pub published: u64,
    /// How often everything was forgotten, because it may have been wrong by then.
    pub forgotten: u64,
    /// How often a database said by itself that something had changed.
    pub notified: u64,
    /// When a database said last that what is known is current, in milliseconds since 1970; 0 for never.
    pub confirmed_at_ms: u64,
}

/// Tenants, apps and public buckets at one time.
#[derive(Debug, Default)]
pub struct Known {
    /// As it is kept.
    pub state: State,
    apps: BTreeMap<String, Arc<Credential>>,
    public: BTreeMap<BucketName, (TenantId, BucketId)>,
    token_keys: BTreeMap<String, Arc<TokenKeys>>,
}

/// Why nothing belongs to an access key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It is nobody's.
    Nobody,
    /// The apps are not known at the moment.
    NotNow,
}

impl Directory {
    /// A directory of the node's own app, and of no other until [`Self::publish`].
    #[must_use]
    pub fn new(own: impl IntoIterator<Item = (String, Credential)>) -> Self {
        let known = Arc::new(RwLock::new(Some(Arc::default())));
        let any_public = Arc::default();
        let own = own.into_iter().map(|(access_key, credential)| (access_key, Arc::new(credential)));
        Self { own: Arc::new(own.collect()), known, any_public, counters: Arc::default() }
    }

    /// What belongs to `access_key`.
    ///
    /// # Errors
    /// When it is nobody's, or that cannot be said now.
    pub fn find(&self, access_key: &str) -> Result<Arc<Credential>, Unknown> {
        if let Some(own) = self.own.get(access_key) {
            return Ok(Arc::clone(own));
        }
        let known = self.known().ok_or(Unknown::NotNow)?;
        known.apps.get(access_key).cloned().ok_or(Unknown::Nobody)
    }

    /// What belongs to the access key of the node's own app, whose holder administrates.
    #[must_use]
    pub fn find_own(&self, access_key: &str) -> Option<&Credential> {
        self.own.get(access_key).map(|credential| &**credential)
    }

    /// The tenant of the node's own app.
    #[must_use]
    pub fn own_tenant(&self) -> Option<TenantId> {
        self.own.values().next().map(|credential| credential.identity.tenant)
    }

    /// The tenant and id of a public bucket of this name.
    #[must_use]
    pub fn public(&self, bucket: &BucketName) -> Option<(TenantId, BucketId)> {
        if !self.any_public.load(Ordering::Relaxed) {
            return None;
        }
        self.known()?.public.get(bucket).copied()
    }

    /// What is known; `None` when it is not known now.
    #[must_use]
    pub fn known(&self) -> Option<Arc<Known>> {
        self.known.read().expect("nobody panics with it").clone()
    }

    /// Knows this from now on, unless something newer is known already. Readers see it in their next question.
    pub fn publish(&self, known: Known) {
        let mut current = self.known.write().expect("nobody panics with it");
        if current.as_ref().is_none_or(|current| current.state.revision <= known.state.revision) {
            self.any_public.store(!known.public.is_empty(), Ordering::Relaxed);
            *current = Some(Arc::new(known));
            self.counters.published.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A database said that what is known is current.
    pub fn was_confirmed(&self) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.counters.confirmed_at_ms.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A database said by itself that something had changed.
    pub fn was_notified(&self) {
        self.counters.notified.fetch_add(1, Ordering::Relaxed);
    }

    /// How current it is.
    #[must_use]
    pub fn figures(&self) -> DirectoryFigures {
        let Counters { published, forgotten, notified, confirmed_at_ms } = &*self.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DirectoryFigures {
            published: load(published),
            forgotten: load(forgotten),
            notified: load(notified),
            confirmed_at_ms: load(confirmed_at_ms),
        }
    }

    /// Knows no apps any more, until something is published: what was known may be wrong by now.
    pub fn forget(&self) {
        let before = self.known.write().expect("nobody panics with it").take();
        self.counters.forgotten.fetch_add(u64::from(before.is_some()), Ordering::Relaxed);
    }
}

impl Known {
    /// What a state says. `unseal` gives the secret of an app, `None` when it cannot be had: then nobody comes in as that app.
    #[must_use]
    pub fn of(state: State, unseal: impl Fn(&str, &App) -> Option<Secret>) -> Self {
        let mut grants: BTreeMap<&str, Vec<Grant>> = BTreeMap::new();
        for grant in &state.grants {
            grants.entry(&grant.app).or_default().push(GivenGrant::to_grant(grant));
        }
        let credential = |(client_id, app): (&String, &App)| {
            let granted = grants.remove(client_id.as_str()).unwrap_or_default();
            let identity = Identity { tenant: app.tenant, rights: Rights::Granted(granted.into()) };
            Some((client_id.clone(), Arc::new(Credential { secret: unseal(client_id, app)?, identity })))
        };
        let apps = state.apps.iter().filter_map(credential).collect();
        let public = state.public.iter().map(|(id, bucket)| (bucket.name.clone(), (bucket.tenant, *id))).collect();
        Self { state, apps, public, token_keys: BTreeMap::new() }
    }

    /// With the keys of tokens that could be opened.
    #[must_use]
    pub fn with_token_keys(mut self, keys: impl IntoIterator<Item = Arc<TokenKeys>>) -> Self {
        self.token_keys = keys.into_iter().map(|keys| (keys.id().to_owned(), keys)).collect();
        self
    }

    /// Those of this name.
    #[must_use]
    pub fn token_keys(&self, id: &str) -> Option<Arc<TokenKeys>> {
        self.token_keys.get(id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use anvil_model::access::{AppName, Command};
    use anvil_model::time::WallTime;

    use super::*;

    const OWN: TenantId = TenantId(1);
    const AT: WallTime = WallTime { unix_ms: 1 };

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    fn with_app() -> State {
        let (tenant, name, client_id) = ("default".to_owned(), "web".to_owned(), "id".to_owned());
        let create = Command::CreateApp { tenant, name: name.clone(), client_id, sealed_secret: Vec::new() };
        let (action, resource) = ("object:read".parse().unwrap(), "a/*".parse().unwrap());
        let grant = Command::Grant { app: AppName { tenant: None, name }, action, resource, by: None };
        State::new(OWN, AT).apply(&create, OWN, AT).unwrap().apply(&grant, OWN, AT).unwrap()
    }

    #[test]
    fn apps_are_found_while_they_are_known() {
        let directory = Directory::new([("own".to_owned(), Credential::own(secret("own-secret"), OWN))]);
        let found = |key: &str| directory.find(key).map(|credential| credential.identity.rights.clone());
        assert_eq!((found("own"), found("id")), (Ok(Rights::All), Err(Unknown::Nobody)));
        directory.publish(Known::of(with_app(), |_, _| Some(secret("app-secret"))));
        assert!(matches!(found("id"), Ok(Rights::Granted(grants)) if grants.len() == 1));
        // What is older comes too late.
        directory.publish(Known::of(State::new(OWN, AT), |_, _| None));
        assert!(found("id").is_ok());
        directory.forget();
        assert_eq!((found("own"), found("id")), (Ok(Rights::All), Err(Unknown::NotNow)));
        assert!(directory.find_own("id").is_none() && directory.find_own("own").is_some());
        assert!(!format!("{directory:?}").contains("own-secret"));
    }

    #[test]
    fn nobody_comes_in_without_a_secret() {
        let directory = Directory::new([]);
        directory.publish(Known::of(with_app(), |_, _| None));
        assert_eq!(directory.find("id").map(drop), Err(Unknown::Nobody));
    }
}
