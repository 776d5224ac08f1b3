//! Where tenants, apps, grants and public buckets are kept, and how they change.
//!
//! What a change does is decided by `anvil_model::access`, over the whole state; this keeps what comes of it: without a
//! database as an object of the node (`document`), with one in the global database (`metadata::postgres::access`). What was
//! kept is [published](crate::auth::Directory::publish) to all cores before the change is answered. [`sealing`] hides secrets, [`passwords`] hashes those of people.
//!
//! **Invariants**
//! - A change is kept with its record of the audit, or neither is.
//! - A change that was answered holds for every request that this process begins afterwards.

mod document;
pub mod passwords;
pub mod sealing;

use std::sync::Arc;
use std::time::Duration;

use anvil_model::access::{AuditRecord, Command, Refused, State, TokenKey};
use anvil_model::ids::TenantId;
use anvil_model::io::World as _;
use anvil_model::time::WallTime;
use anvil_node::Node;
use anvil_node::metadata::{MetadataError, Refusal};
use anvil_runtime::Core;

use crate::auth::{Directory, DirectoryFigures, Known, TokenKeys};
use crate::metadata::postgres::access::AccessDatabase;
use crate::node_object::ObjectError;
use passwords::{PasswordError, Passwords};
use sealing::{NoKey, Sealer};

/// Keeps who may do what. Shared by all cores.
#[derive(Debug)]
pub struct AccessKeeper {
    directory: Directory,
    sealer: Arc<Sealer>,
    passwords: Passwords,
    own: TenantId,
    place: Place,
}

/// Where it is kept.
#[derive(Debug)]
enum Place {
    Node,
    Database(AccessDatabase),
}

/// Who makes a change, and from where.
#[derive(Clone, Debug)]
pub struct By {
    /// An access key, or `user:` and a name.
    pub who: String,
    /// The name of the user, when it is one.
    pub user: Option<String>,
    /// An address.
    pub from: String,
}

/// Why a change was not made, or is not known to be. Each text is one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum KeepError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    NoKey(#[from] NoKey),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("tenants and apps cannot be had at the moment: {0}")]
    Away(String),
    #[error("it is not known whether the change was made: look, and make it again if not")]
    Unknown,
    #[error("other changes were made all the time: try again")]
    Busy,
    #[error("what this node keeps of tenants and apps cannot be read: {0}")]
    Unreadable(String),
    #[error(
        "a tenant has a bucket with the name that this node needs for itself, anvil-system: move what it holds, and delete it"
    )]
    BucketTaken,
}

/// What a node without a database keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) state: State,
    /// Oldest first.
    pub(crate) audit: Vec<AuditRecord>,
}

/// Reads it, for who moves it elsewhere; `None` when there is nothing yet.
///
/// # Errors
/// When there is and it cannot be read.
pub(crate) async fn kept_on(node: &Node<Core>) -> Result<Option<Kept>, KeepError> {
    let document::Seen { document, etag } = document::read(node, State::default).await?;
    let mut audit = document.audit(usize::MAX);
    audit.reverse();
    Ok(etag.map(|_| Kept { state: document.state, audit }))
}

/// Keeps it, for a node that had a database, and reads it again.
///
/// # Errors
/// When it is not there afterwards as it was given.
pub(crate) async fn keep_on(node: &Node<Core>, kept: &Kept) -> Result<(), KeepError> {
    let mut seen = document::read(node, State::default).await?;
    seen.document.set(kept);
    document::write(node, &seen).await?;
    match kept_on(node).await? {
        Some(found) if found == *kept => Ok(()),
        _ => Err(KeepError::Unreadable("it is not what was written".to_owned())),
    }
}

/// Records of the audit that a node without a database keeps.
pub(crate) const AUDIT_MAX: usize = document::AUDIT_MAX;

impl From<MetadataError> for KeepError {
    fn from(error: MetadataError) -> Self {
        match error {
            MetadataError::Unknown => Self::Unknown,
            MetadataError::Refused(Refusal::OperationAborted) => Self::Busy,
            error => Self::Away(error.to_string()),
        }
    }
}

impl From<ObjectError> for KeepError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Metadata(error) => error.into(),
            ObjectError::Unreadable(why) => Self::Unreadable(why),
            ObjectError::NotWritten(why) => Self::Away(why),
            ObjectError::BucketTaken => Self::BucketTaken,
        }
    }
}

impl AccessKeeper {
    /// Keeps it on the node's disks. `own` is the tenant of the node's own app.
    #[must_use]
    pub fn on_node(directory: Directory, sealer: Arc<Sealer>, passwords: Passwords, own: TenantId) -> Self {
        // Until it was read.
        directory.forget();
        Self { directory, sealer, passwords, own, place: Place::Node }
    }

    /// Keeps it in the global database, which publishes by itself what it reads there.
    #[must_use]
    pub fn in_database(
        directory: Directory,
        sealer: Arc<Sealer>,
        passwords: Passwords,
        own: TenantId,
        database: AccessDatabase,
    ) -> Self {
        Self { directory, sealer, passwords, own, place: Place::Database(database) }
    }

    /// What hashes and compares passwords.
    #[must_use]
    pub fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// What seals the secrets of new apps.
    #[must_use]
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// How current what is known is.
    #[must_use]
    pub fn figures(&self) -> DirectoryFigures {
        self.directory.figures()
    }

    /// For how long what was read of a database may be used when that does not answer; `None` without one.
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        match &self.place {
            Place::Node => None,
            Place::Database(database) => Some(database.ttl()),
        }
    }

    /// The tenant of the node's own app.
    #[must_use]
    pub fn own(&self) -> TenantId {
        self.own
    }

    /// Reads what a node without a database keeps, until that succeeds. Gives up on nothing: whoever comes as an app until
    /// then is told to come again.
    pub async fn load(&self, node: &Node<Core>) {
        if matches!(self.place, Place::Database(_)) {
            return;
        }
        loop {
            match self.read(node).await {
                Ok(seen) => return self.publish(seen.document.state),
                Err(error) => tracing::error!(%error, "no app comes in until this is mended"),
            }
            node.world().sleep(LOADED_EVERY).await;
        }
    }

    /// What is known now.
    ///
    /// # Errors
    /// When it is not known now.
    pub fn known(&self) -> Result<Arc<Known>, KeepError> {
        self.directory.known().ok_or_else(|| KeepError::Away("they were not read yet".to_owned()))
    }

    /// Makes a change; gives what is known behind it.
    ///
    /// # Errors
    /// When it is refused, or cannot be kept.
    pub async fn change(&self, node: &Node<Core>, by: &By, command: Command) -> Result<Arc<Known>, KeepError> {
        let result = match &self.place {
            Place::Node => self.change_here(node, by, &command).await,
            Place::Database(database) => database.change(by.clone(), command.clone()).await,
        };
        let (action, about) = command.words();
        let outcome = result.as_ref().err().map_or_else(|| "ok".to_owned(), ToString::to_string);
        log(by, action, &about, &outcome);
        result?;
        self.known()
    }

    /// Keeps a record of what an administrator did that is no change of this. What was done is done: where the record
    /// cannot be kept, the log alone has it.
    pub async fn note(&self, node: &Node<Core>, by: &By, action: &str, about: String, outcome: &str) {
        log(by, action, &about, outcome);
        let at = node.world().wall_clock();
        let (who, from) = (by.who.clone(), by.from.clone());
        let record = AuditRecord { at, who, from, action: action.to_owned(), about, result: outcome.to_owned() };
        let noted = match &self.place {
            Place::Node => self.note_here(node, &record).await,
            Place::Database(database) => database.note(record).await,
        };
        if let Err(error) = noted {
            tracing::error!(%error, action, "what an administrator did is not in the audit, but here alone");
        }
    }

    async fn note_here(&self, node: &Node<Core>, record: &AuditRecord) -> Result<(), KeepError> {
        for _ in 0..ATTEMPTS_MAX {
            let mut seen = self.read(node).await?;
            seen.document.note(record.clone());
            if document::write(node, &seen).await? {
                return Ok(());
            }
        }
        Err(KeepError::Busy)
    }

    /// The latest records of the audit, latest first, at most `max`.
    ///
    /// # Errors
    /// When they cannot be had.
    pub async fn audit(&self, node: &Node<Core>, max: usize) -> Result<Vec<AuditRecord>, KeepError> {
        match &self.place {
            Place::Node => Ok(self.read(node).await?.document.audit(max)),
            Place::Database(database) => database.audit(max).await,
        }
    }

    async fn read(&self, node: &Node<Core>) -> Result<document::Seen, KeepError> {
        document::read(node, || State::new(self.own, node.world().wall_clock())).await
    }

    async fn change_here(&self, node: &Node<Core>, by: &By, command: &Command) -> Result<(), KeepError> {
        for _ in 0..ATTEMPTS_MAX {
            let at = node.world().wall_clock();
            let mut seen = self.read(node).await?;
            let decided = seen.document.state.apply(command, self.own, at);
            seen.document.note(record(at, by, command, decided.as_ref().err()));
            if let Ok(state) = &decided {
                seen.document.state = state.clone();
            }
            let written = document::write(node, &seen).await;
            if written == Err(KeepError::Unknown)
                && let Ok(now) = self.read(node).await
            {
                // What was taken away may be gone: then nobody has it any more.
                self.publish(now.document.state);
            }
            if written? {
                self.publish(seen.document.state);
                return decided.map(drop).map_err(KeepError::from);
            }
        }
        Err(KeepError::Busy)
    }

    fn publish(&self, state: State) {
        self.directory.publish(known(state, &self.sealer));
    }
}

/// A line of the log for what an administrator did or tried.
pub(crate) fn log(by: &By, action: &str, about: &str, outcome: &str) {
    let By { who, from, .. } = by;
    tracing::info!(target: "anvil::audit", who, from, action, about, outcome, "administration");
}

/// What a state says, its secrets opened. An app whose secret is not opened does not come in, and the log names it.
pub(crate) fn known(state: State, sealer: &Sealer) -> Known {
    let token_keys: Vec<_> = state.token_keys.iter().filter_map(|key| opened(key, sealer)).collect();
    let known = Known::of(state, |client_id, app| {
        let secret = sealer.open(client_id, &app.sealed_secret);
        if secret.is_none() {
            tracing::error!(
                client_id,
                app = app.name,
                "the secret of this app was sealed with another ANVIL_SECRET_ENCRYPTION_KEY, or another data directory; \
                 start with it, or give the app a new secret with `anvil admin app reset-secret`"
            );
        }
        secret
    });
    known.with_token_keys(token_keys)
}

fn opened(key: &TokenKey, sealer: &Sealer) -> Option<Arc<TokenKeys>> {
    let secret = sealer.open(&token_key_name(&key.id), &key.sealed);
    if secret.is_none() {
        tracing::error!(
            key = key.id,
            "a key of tokens was sealed with another ANVIL_SECRET_ENCRYPTION_KEY, or another data directory; start with \
             it, or draw another one with `anvil admin rotate-key --kind jwt --at-once`"
        );
    }
    Some(Arc::new(TokenKeys::of(&secret?)))
}

/// As what the key of tokens of this id is sealed. No app is called so.
pub(crate) fn token_key_name(id: &str) -> String {
    format!("token-key/{id}")
}

/// The record of the audit for a change.
pub(crate) fn record(at: WallTime, by: &By, command: &Command, refused: Option<&Refused>) -> AuditRecord {
    let (action, about) = command.words();
    let result = refused.map_or_else(|| "ok".to_owned(), ToString::to_string);
    AuditRecord { at, who: by.who.clone(), from: by.from.clone(), action: action.to_owned(), about, result }
}

/// How often a change is decided anew because another one came first.
const ATTEMPTS_MAX: usize = 16;
/// How often what cannot be read is tried again.
const LOADED_EVERY: Duration = Duration::from_secs(2);
