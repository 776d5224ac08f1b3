//! Tenants, apps, grants and public buckets in the global database: read, changed, and read again when another process
//! changed them.
//!
//! On a thread with an executor of its own, and one connection. A change is a transaction that holds the row `access`: it reads
//! everything, decides over it (`anvil_model::access`), and writes what is different. Other processes hear of it by
//! `NOTIFY`, and ask for the revision every now and then, because poolers and failovers drop a `LISTEN` silently.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anvil_model::access::{
    AdminPattern, App, AuditRecord, Command, GivenGrant, PasswordHash, PublicBucket, Role, State, Tenant, TokenKey,
    User,
};
use anvil_model::ids::{BucketId, TenantId};
use anvil_model::object::BucketName;
use anvil_model::time::WallTime;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::address::Database;
use super::session::{Session, SqlError};
use crate::access::sealing::Sealer;
use crate::access::{By, KeepError, Kept, known, record};
use crate::auth::Directory;

/// The way to the thread, for all cores. The thread ends with it.
#[derive(Debug)]
pub struct AccessDatabase {
    jobs: mpsc::Sender<Job>,
    ttl: Duration,
}

/// What the thread needs to know.
#[derive(Debug)]
pub struct AccessPlan {
    /// The global database.
    pub database: Database,
    /// Where what was read is published.
    pub directory: Directory,
    /// Opens secrets.
    pub sealer: Arc<Sealer>,
    /// The tenant of the node's own app.
    pub own: TenantId,
    /// For how long what was read may be used when the database does not answer.
    pub ttl: Duration,
}

#[derive(Debug)]
enum Job {
    Change(By, Command, oneshot::Sender<Result<(), KeepError>>),
    Audit(usize, oneshot::Sender<Result<Vec<AuditRecord>, KeepError>>),
    Note(AuditRecord, oneshot::Sender<Result<(), KeepError>>),
}

impl AccessDatabase {
    /// Starts the thread, and waits for a while until it has read everything: a node begins with what it must know, but
    /// does not wait for a database that is away.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(plan: AccessPlan) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (read, was_read) = std::sync::mpsc::channel();
        let ttl = plan.ttl;
        plan.directory.forget();
        let thread = std::thread::Builder::new().name("access-postgres".to_owned());
        thread.spawn(move || {
            let work = async move { Work::new(plan, queue, read).run().await };
            tokio::task::LocalSet::new().block_on(&runtime, work);
        })?;
        // Late or never: then the thread goes on trying.
        let _ = was_read.recv_timeout(FIRST_READ_MAX);
        Ok(Self { jobs, ttl })
    }

    /// For how long what was read may be used when the database does not answer.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Makes a change.
    ///
    /// # Errors
    /// When it is refused, or cannot be kept.
    pub async fn change(&self, by: By, command: Command) -> Result<(), KeepError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Change(by, command, reply)).await.map_err(|_| stopping())?;
        answer.await.unwrap_or(Err(KeepError::Unknown))
    }

    /// Keeps a record of the audit.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn note(&self, record: AuditRecord) -> Result<(), KeepError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Note(record, reply)).await.map_err(|_| stopping())?;
        answer.await.unwrap_or(Err(KeepError::Unknown))
    }

    /// The latest records of the audit, latest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn audit(&self, max: usize) -> Result<Vec<AuditRecord>, KeepError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Audit(max, reply)).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }
}

fn stopping() -> KeepError {
    KeepError::Away("the node is stopping".to_owned())
}

/// Changes on their way to the thread.
const QUEUE: usize = 16;
/// What is read first is waited for this long.
const FIRST_READ_MAX: Duration = Duration::from_secs(10);
/// How often the revision is asked for, beside what is heard.
const ASKED_EVERY: Duration = Duration::from_millis(500);
/// How long a question or a change may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// How often a database that is away is tried.
const TRIED_EVERY: Duration = Duration::from_millis(500);

struct Work {
    plan: AccessPlan,
    queue: mpsc::Receiver<Job>,
    /// Hears of the first time that everything was read.
    read: Option<std::sync::mpsc::Sender<()>>,
    heard: Arc<Notify>,
    session: Option<Session>,
    /// When the database said last that what is published is current.
    confirmed: Instant,
    complained: bool,
}

impl Work {
    fn new(plan: AccessPlan, queue: mpsc::Receiver<Job>, read: std::sync::mpsc::Sender<()>) -> Self {
        let (read, heard) = (Some(read), Arc::default());
        Self { plan, queue, read, heard, session: None, confirmed: Instant::now(), complained: false }
    }

    async fn run(mut self) {
        loop {
            self.keep_current().await;
            let pause = if self.session.is_some() { ASKED_EVERY } else { TRIED_EVERY };
            tokio::select! {
                job = self.queue.recv() => match job {
                    Some(job) => self.serve(job).await,
                    None => return,
                },
                () = self.heard.notified() => self.plan.directory.was_notified(),
                () = sleep(pause) => {}
            }
        }
    }

    /// Publishes what is in the database, if it is not what was published; forgets it when the database has not answered
    /// for too long.
    async fn keep_current(&mut self) {
        match self.refresh().await {
            Ok(()) => {
                self.confirmed = Instant::now();
                self.plan.directory.was_confirmed();
                self.complained = false;
                if let Some(read) = self.read.take() {
                    // Nobody may wait any more.
                    let _ = read.send(());
                }
            }
            Err(error) => {
                self.session = None;
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(%error, "the global database cannot be asked for apps and grants");
                }
                if self.confirmed.elapsed() > self.plan.ttl {
                    self.plan.directory.forget();
                }
            }
        }
    }

    async fn refresh(&mut self) -> Result<(), String> {
        let published = self.plan.directory.known().map(|known| known.state.revision);
        let session = self.session().await?;
        let asking = async {
            let revision = session.query(REVISION, &[]).await?;
            let revision: i64 = revision.first().map_or(0, |row| row.get(0));
            if published == Some(revision.cast_unsigned()) {
                return Ok(None);
            }
            session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            let state = load(session).await?;
            session.run("COMMIT").await?;
            Ok::<_, SqlError>(Some(state))
        };
        let asked = timeout(ANSWERED_WITHIN, asking).await.map_err(|_| "it does not answer".to_owned())?;
        if let Some(state) = asked.map_err(|error| error.to_string())? {
            self.publish(state);
        }
        Ok(())
    }

    fn publish(&self, state: State) {
        self.plan.directory.publish(known(state, &self.plan.sealer));
    }

    async fn session(&mut self) -> Result<&Session, String> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            let session = Session::open_listening(&self.plan.database, Arc::clone(&self.heard)).await;
            let session = session.map_err(|error| error.to_string())?;
            session.run("LISTEN anvil_access").await.map_err(|error| error.to_string())?;
            self.session = Some(session);
        }
        Ok(self.session.as_ref().expect("just opened"))
    }

    async fn serve(&mut self, job: Job) {
        // Who asked may be gone.
        match job {
            Job::Change(by, command, reply) => drop(reply.send(self.change(&by, &command).await)),
            Job::Audit(max, reply) => drop(reply.send(self.audit(max).await)),
            Job::Note(record, reply) => drop(reply.send(self.note(record).await)),
        }
    }

    async fn change(&mut self, by: &By, command: &Command) -> Result<(), KeepError> {
        let own = self.plan.own;
        let session = self.session().await.map_err(KeepError::Away)?;
        let made = timeout(ANSWERED_WITHIN, change(session, by, command, own)).await;
        let made = made.unwrap_or(Err(Failed::Unknown));
        match made {
            Ok(Ok(state)) => {
                self.publish(state);
                Ok(())
            }
            Ok(Err(refused)) => Err(refused),
            Err(failed) => {
                // Whatever was open ends with the connection.
                self.session = None;
                Err(match failed {
                    Failed::Before(error) => KeepError::Away(error),
                    Failed::Unknown => KeepError::Unknown,
                })
            }
        }
    }

    async fn note(&mut self, record: AuditRecord) -> Result<(), KeepError> {
        let session = self.session().await.map_err(KeepError::Away)?;
        let noted = timeout(ANSWERED_WITHIN, note(session, &record)).await;
        let noted = noted.map_err(|_| KeepError::Unknown)?;
        noted.map_err(|error| KeepError::Away(error.to_string()))
    }

    async fn audit(&mut self, max: usize) -> Result<Vec<AuditRecord>, KeepError> {
        let session = self.session().await.map_err(KeepError::Away)?;
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let rows = timeout(ANSWERED_WITHIN, session.query(AUDIT, &[&max])).await;
        let rows = rows.map_err(|_| KeepError::Away("the database does not answer".to_owned()))?;
        let rows = rows.map_err(|error| KeepError::Away(error.to_string()))?;
        Ok(rows.iter().map(audit_record).collect())
    }
}

/// Why a transaction came to nothing, or is not known to have.
enum Failed {
    Before(String),
    Unknown,
}

impl From<SqlError> for Failed {
    fn from(error: SqlError) -> Self {
        Self::Before(error.to_string())
    }
}

async fn change(
    session: &Session,
    by: &By,
    command: &Command,
    own: TenantId,
) -> Result<Result<State, KeepError>, Failed> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let at = WallTime { unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) };
    session.run("BEGIN").await?;
    // Whoever changes something waits here for who does it already.
    session.query(HOLD, &[]).await?;
    let before = load(session).await?;
    let decided = before.apply(command, own, at);
    if let Ok(after) = &decided {
        save(session, &before, after).await?;
    }
    note(session, &record(at, by, command, decided.as_ref().err())).await?;
    match session.run("COMMIT").await {
        Ok(()) => Ok(decided.map_err(KeepError::from)),
        Err(error) if error.is_an_answer() => Err(error.into()),
        Err(_) => Err(Failed::Unknown),
    }
}

async fn note(session: &Session, record: &AuditRecord) -> Result<(), SqlError> {
    let AuditRecord { at, who, from, action, about, result } = record;
    session.execute(NOTE, &[&at.unix_ms.cast_signed(), who, from, action, about, result]).await.map(drop)
}

/// Keeps the state of a node that had no database, in one where nobody kept any yet, or this one.
pub(super) async fn take_in(session: &Session, state: &State, audit: &[AuditRecord]) -> Result<(), SqlError> {
    session.run("BEGIN").await?;
    session.query(HOLD, &[]).await?;
    let before = load(session).await?;
    if before != *state {
        save(session, &before, state).await?;
        for record in audit {
            note(session, record).await?;
        }
    }
    session.run("COMMIT").await
}

/// Everything, and the latest records of the audit, oldest first, for a node that keeps them itself from now on.
pub(super) async fn take_out(session: &Session, records_max: usize) -> Result<Kept, SqlError> {
    session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let state = load(session).await?;
    let rows = session.query(AUDIT, &[&i64::try_from(records_max).unwrap_or(i64::MAX)]).await?;
    session.run("COMMIT").await?;
    Ok(Kept { state, audit: rows.iter().rev().map(audit_record).collect() })
}

fn audit_record(row: &tokio_postgres::Row) -> AuditRecord {
    AuditRecord {
        at: WallTime { unix_ms: row.get::<_, i64>(0).cast_unsigned() },
        who: row.get(1),
        from: row.get(2),
        action: row.get(3),
        about: row.get(4),
        result: row.get(5),
    }
}

/// Everything, in the view of the transaction.
async fn load(session: &Session) -> Result<State, SqlError> {
    let number = |row: &tokio_postgres::Row, column| row.get::<_, i64>(column).cast_unsigned();
    let mut state = State::default();
    for row in session.query(ACCESS, &[]).await? {
        (state.revision, state.next_tenant) = (number(&row, 0), number(&row, 1));
    }
    for row in session.query(TENANTS, &[]).await? {
        let tenant = Tenant { name: row.get(1), created_at: WallTime { unix_ms: number(&row, 2) } };
        state.next_tenant = state.next_tenant.max(number(&row, 0) + 1);
        state.tenants.insert(TenantId(number(&row, 0)), tenant);
    }
    for row in session.query(APPS, &[]).await? {
        let created_at = WallTime { unix_ms: number(&row, 4) };
        let app = App { tenant: TenantId(number(&row, 1)), name: row.get(2), sealed_secret: row.get(3), created_at };
        state.apps.insert(row.get(0), app);
    }
    for row in session.query(GRANTS, &[]).await? {
        let (action, resource): (String, String) = (row.get(1), row.get(2));
        // One that a newer program wrote is none to this one.
        if let (Ok(action), Ok(resource)) = (action.parse(), resource.parse()) {
            let by = Some(row.get::<_, String>(3)).filter(|by| !by.is_empty());
            state.grants.insert(GivenGrant { app: row.get(0), action, resource, by });
        }
    }
    for row in session.query(PUBLIC, &[]).await? {
        if let Ok(name) = BucketName::new(row.get(1)) {
            let bucket = PublicBucket { name, tenant: TenantId(number(&row, 2)) };
            state.public.insert(BucketId(number(&row, 0)), bucket);
        }
    }
    for row in session.query(ROLES, &[]).await? {
        let actions: Vec<String> = row.get(1);
        // An action that a newer program wrote is none to this one.
        let actions = actions.iter().filter_map(|action| action.parse().ok()).collect();
        let role = Role { actions, created_at: WallTime { unix_ms: number(&row, 2) } };
        state.roles.insert(row.get(0), role);
    }
    for row in session.query(USERS, &[]).await? {
        let user = User {
            email: row.get(1),
            role: row.get(2),
            password: PasswordHash(row.get(3)),
            credential: number(&row, 4),
            created_at: WallTime { unix_ms: number(&row, 5) },
        };
        state.users.insert(row.get(0), user);
    }
    for row in session.query(TOKEN_KEYS, &[]).await? {
        let good_until = row.get::<_, Option<i64>>(3).map(|ms| WallTime { unix_ms: ms.cast_unsigned() });
        let made_at = WallTime { unix_ms: number(&row, 2) };
        state.token_keys.push(TokenKey { id: row.get(0), sealed: row.get(1), made_at, good_until });
    }
    for row in session.query(DENIED, &[]).await? {
        state.denied.insert(row.get(0), WallTime { unix_ms: number(&row, 1) });
    }
    Ok(state)
}

/// Writes what is different: first what goes, what depends on others before those.
async fn save(session: &Session, before: &State, after: &State) -> Result<(), SqlError> {
    for grant in gone_from(&before.grants, &after.grants) {
        let GivenGrant { app, action, resource, by } = grant;
        let (action, by) = (action.to_string(), by.clone().unwrap_or_default());
        session.execute(DROP_GRANT, &[app, &action, &resource.as_str(), &by]).await?;
    }
    for (bucket, _) in gone(&before.public, &after.public) {
        session.execute(DROP_PUBLIC, &[&bucket.0.cast_signed()]).await?;
    }
    for (client_id, _) in gone(&before.apps, &after.apps) {
        if !after.apps.contains_key(client_id) {
            session.execute(DROP_APP, &[client_id]).await?;
        }
    }
    for (tenant, _) in gone(&before.tenants, &after.tenants) {
        session.execute(DROP_TENANT, &[&tenant.0.cast_signed()]).await?;
    }
    for (id, Tenant { name, created_at }) in gone(&after.tenants, &before.tenants) {
        let (id, at) = (id.0.cast_signed(), created_at.unix_ms.cast_signed());
        session.execute(ADD_TENANT, &[&id, name, &at]).await?;
    }
    for (client_id, App { tenant, name, sealed_secret, created_at }) in gone(&after.apps, &before.apps) {
        let (tenant, at) = (tenant.0.cast_signed(), created_at.unix_ms.cast_signed());
        session.execute(SET_APP, &[client_id, &tenant, name, sealed_secret, &at]).await?;
    }
    for grant in gone_from(&after.grants, &before.grants) {
        let GivenGrant { app, action, resource, by } = grant;
        let (action, by) = (action.to_string(), by.clone().unwrap_or_default());
        session.execute(ADD_GRANT, &[app, &action, &resource.as_str(), &by]).await?;
    }
    for (bucket, PublicBucket { name, tenant }) in gone(&after.public, &before.public) {
        let (bucket, tenant) = (bucket.0.cast_signed(), tenant.0.cast_signed());
        session.execute(ADD_PUBLIC, &[&bucket, &name.as_str(), &tenant]).await?;
    }
    for (name, _) in gone(&before.roles, &after.roles) {
        session.execute(DROP_ROLE, &[name]).await?;
    }
    for (name, Role { actions, created_at }) in gone(&after.roles, &before.roles) {
        let actions: Vec<String> = actions.iter().map(AdminPattern::to_string).collect();
        session.execute(ADD_ROLE, &[name, &actions, &created_at.unix_ms.cast_signed()]).await?;
    }
    for (name, _) in gone(&before.users, &after.users) {
        session.execute(DROP_USER, &[name]).await?;
    }
    for (name, User { email, role, password, credential, created_at }) in gone(&after.users, &before.users) {
        let (credential, at) = (credential.cast_signed(), created_at.unix_ms.cast_signed());
        session.execute(ADD_USER, &[name, email, role, &password.0, &credential, &at]).await?;
    }
    let by_id = |state: &State| -> BTreeMap<String, TokenKey> {
        state.token_keys.iter().map(|key| (key.id.clone(), key.clone())).collect()
    };
    let (keys_before, keys_after) = (by_id(before), by_id(after));
    for (id, _) in gone(&keys_before, &keys_after) {
        if !keys_after.contains_key(id) {
            session.execute(DROP_TOKEN_KEY, &[id]).await?;
        }
    }
    for (id, TokenKey { sealed, made_at, good_until, .. }) in gone(&keys_after, &keys_before) {
        let until = good_until.map(|until| until.unix_ms.cast_signed());
        session.execute(SET_TOKEN_KEY, &[id, sealed, &made_at.unix_ms.cast_signed(), &until]).await?;
    }
    for (id, _) in gone(&before.denied, &after.denied) {
        session.execute(DROP_DENIED, &[id]).await?;
    }
    for (id, until) in gone(&after.denied, &before.denied) {
        session.execute(ADD_DENIED, &[id, &until.unix_ms.cast_signed()]).await?;
    }
    let (revision, next) = (after.revision.cast_signed(), after.next_tenant.cast_signed());
    session.execute(SET_ACCESS, &[&revision, &next]).await?;
    Ok(())
}

/// The entries of one that the other does not have like this.
fn gone<'a, K: Ord, V: PartialEq>(
    from: &'a BTreeMap<K, V>,
    to: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    from.iter().filter(|(key, value)| to.get(key) != Some(value))
}

fn gone_from<'a>(from: &'a BTreeSet<GivenGrant>, to: &'a BTreeSet<GivenGrant>) -> impl Iterator<Item = &'a GivenGrant> {
    from.difference(to)
}

const REVISION: &str = "SELECT revision FROM access";
const HOLD: &str = "SELECT revision FROM access FOR UPDATE";
const ACCESS: &str = "SELECT revision, next_tenant FROM access";
const SET_ACCESS: &str = "UPDATE access SET revision = $1, next_tenant = $2";
const TENANTS: &str = "SELECT id, name, (extract(epoch FROM created_at) * 1000)::bigint FROM tenants";
const ADD_TENANT: &str = "INSERT INTO tenants (id, name, created_at) OVERRIDING SYSTEM VALUE \
    VALUES ($1, $2, to_timestamp($3::bigint / 1000.0))";
const DROP_TENANT: &str = "DELETE FROM tenants WHERE id = $1";
const APPS: &str = "SELECT client_id, tenant, name, sealed_secret, created_at_ms FROM apps";
const SET_APP: &str = "INSERT INTO apps (client_id, tenant, name, sealed_secret, created_at_ms) VALUES ($1, $2, $3, $4, $5) \
    ON CONFLICT (client_id) DO UPDATE SET sealed_secret = excluded.sealed_secret";
const DROP_APP: &str = "DELETE FROM apps WHERE client_id = $1";
const GRANTS: &str = "SELECT app, action, resource, given_by FROM grants";
const ADD_GRANT: &str = "INSERT INTO grants (app, action, resource, given_by) VALUES ($1, $2, $3, $4)";
const DROP_GRANT: &str = "DELETE FROM grants WHERE app = $1 AND action = $2 AND resource = $3 AND given_by = $4";
const PUBLIC: &str = "SELECT bucket, name, tenant FROM public_buckets";
const ADD_PUBLIC: &str = "INSERT INTO public_buckets (bucket, name, tenant) VALUES ($1, $2, $3)";
const DROP_PUBLIC: &str = "DELETE FROM public_buckets WHERE bucket = $1";
const ROLES: &str = "SELECT name, actions, created_at_ms FROM roles";
const ADD_ROLE: &str = "INSERT INTO roles (name, actions, created_at_ms) VALUES ($1, $2, $3)";
const DROP_ROLE: &str = "DELETE FROM roles WHERE name = $1";
const USERS: &str = "SELECT username, email, role, password, credential, created_at_ms FROM users";
const ADD_USER: &str = "INSERT INTO users (username, email, role, password, credential, created_at_ms) \
    VALUES ($1, $2, $3, $4, $5, $6)";
const DROP_USER: &str = "DELETE FROM users WHERE username = $1";
const TOKEN_KEYS: &str = "SELECT id, sealed, made_at_ms, good_until_ms FROM token_keys ORDER BY made_at_ms, id";
const SET_TOKEN_KEY: &str = "INSERT INTO token_keys (id, sealed, made_at_ms, good_until_ms) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed, good_until_ms = excluded.good_until_ms";
const DROP_TOKEN_KEY: &str = "DELETE FROM token_keys WHERE id = $1";
const DENIED: &str = "SELECT id, until_ms FROM denied_tokens";
const ADD_DENIED: &str = "INSERT INTO denied_tokens (id, until_ms) VALUES ($1, $2)";
const DROP_DENIED: &str = "DELETE FROM denied_tokens WHERE id = $1";
const NOTE: &str = "INSERT INTO audit (at_ms, who, come_from, action, about, result) VALUES ($1, $2, $3, $4, $5, $6)";
const AUDIT: &str = "SELECT at_ms, who, come_from, action, about, result FROM audit ORDER BY id DESC LIMIT $1";

/// Every statement of this file, for the test that explains them.
#[cfg(test)]
pub(super) fn statements() -> Vec<(&'static str, &'static str)> {
    named![
        REVISION,
        HOLD,
        ACCESS,
        SET_ACCESS,
        TENANTS,
        ADD_TENANT,
        DROP_TENANT,
        APPS,
        SET_APP,
        DROP_APP,
        GRANTS,
        ADD_GRANT,
        DROP_GRANT,
        PUBLIC,
        ADD_PUBLIC,
        DROP_PUBLIC,
        ROLES,
        ADD_ROLE,
        DROP_ROLE,
        USERS,
        ADD_USER,
        DROP_USER,
        TOKEN_KEYS,
        SET_TOKEN_KEY,
        DROP_TOKEN_KEY,
        DENIED,
        ADD_DENIED,
        DROP_DENIED,
        NOTE,
        AUDIT
    ]
}
