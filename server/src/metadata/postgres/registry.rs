//! What regions share of themselves in the global database: which regions there are, and which of them has a bucket's name.
//!
//! On a thread with an executor of its own, with one connection to each database. A name is claimed before its bucket is made
//! and given back behind it, and nothing spans both databases: so whatever is cut short leaves a name without a bucket, which
//! is looked for at the start and every now and then. Whoever frees a name has looked under the lock that its bucket would be
//! made under, has seen to it that the claiming write does not come any more, and names the claim that it saw: a later one stays.

use std::io;
use std::pin::pin;
use std::time::Duration;

use anvil_model::ids::{BucketId, TenantId, WriteId};
use anvil_model::object::BucketName;
use anvil_node::bucket::NODE_BUCKET;
use anvil_node::metadata::client::RETRY_AFTER;
use anvil_node::metadata::mutation::Outcome;
use anvil_node::metadata::{MetadataError, Refusal};
use anvil_node::names::BucketNames;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::address::Database;
use super::cluster::{self, Databases};
use super::columns::{id_bytes, int};
use super::commit::of_name;
use super::session::{Session, SessionError, SqlError};

/// The way to the thread, for all cores. The thread ends with it.
#[derive(Clone, Debug)]
pub struct Registry {
    jobs: mpsc::Sender<Job>,
}

/// A region as all regions know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Whether its database is there.
    pub joined: bool,
    /// Buckets whose names it has; `None` where nobody counts them.
    pub buckets: Option<u64>,
}

/// Why the registry does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what regions share cannot be had at the moment: {0}")]
pub struct RegistryAway(String);

#[derive(Debug)]
enum Job {
    Claim { name: BucketName, tenant: TenantId, write: WriteId, reply: oneshot::Sender<Result<(), MetadataError>> },
    Settle(BucketName, WriteId),
    Gone(BucketId),
    Regions(oneshot::Sender<Result<Vec<Region>, RegistryAway>>),
    MakeRegion(String, oneshot::Sender<Result<(), RegistryAway>>),
}

/// Questions on their way to the thread.
const QUEUE: usize = 64;
/// How long a question may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(8);

impl Registry {
    /// Starts the thread for a region. The databases may be away.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(databases: Databases, region: String) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("registry-postgres".to_owned());
        thread.spawn(move || {
            let work = Work { global: Line::to(databases.global), regional: Line::to(databases.regional), region };
            tokio::task::LocalSet::new().block_on(&runtime, work.run(queue));
        })?;
        Ok(Self { jobs })
    }

    /// All regions, by name.
    ///
    /// # Errors
    /// When the global database does not answer.
    pub async fn regions(&self) -> Result<Vec<Region>, RegistryAway> {
        self.ask(Job::Regions).await
    }

    /// Makes a region known, if it is not: its first node joins it without more ado.
    ///
    /// # Errors
    /// When the global database does not answer.
    pub async fn make_region(&self, name: String) -> Result<(), RegistryAway> {
        self.ask(|reply| Job::MakeRegion(name, reply)).await
    }

    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, RegistryAway>>) -> Job,
    ) -> Result<T, RegistryAway> {
        let (reply, answer) = oneshot::channel();
        let stopping = || RegistryAway("the node is stopping".to_owned());
        self.jobs.send(job(reply)).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// What is not done now is found later.
    fn tell(&self, job: Job) {
        drop(self.jobs.try_send(job));
    }
}

impl BucketNames for Registry {
    fn claim<'a>(
        &'a self,
        name: &'a BucketName,
        tenant: TenantId,
        write: WriteId,
    ) -> LocalBoxFuture<'a, Result<(), MetadataError>> {
        async move {
            let (reply, answer) = oneshot::channel();
            // Overload answers early.
            self.jobs.try_send(Job::Claim { name: name.clone(), tenant, write, reply }).map_err(|_| away())?;
            answer.await.unwrap_or_else(|_| Err(away()))
        }
        .boxed_local()
    }

    fn settle(&self, name: BucketName, write: WriteId) {
        self.tell(Job::Settle(name, write));
    }

    fn gone(&self, bucket: BucketId) {
        self.tell(Job::Gone(bucket));
    }
}

fn away() -> MetadataError {
    MetadataError::Unavailable { retry_after: RETRY_AFTER }
}

/// A connection, made when it is needed and there is none.
struct Line {
    database: Database,
    session: Option<Session>,
}

impl Line {
    fn to(database: Database) -> Self {
        Self { database, session: None }
    }

    async fn session(&mut self) -> Result<&Session, Failed> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            self.session = Some(Session::open(&self.database).await?);
        }
        Ok(self.session.as_ref().expect("just opened"))
    }
}

/// Whatever was open ends with the connections.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Open(#[from] SessionError),
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error("it did not answer within {} s", ANSWERED_WITHIN.as_secs())]
    Late,
}

/// What the registry says of a name that its region has.
struct Row {
    write: Vec<u8>,
    /// `None` while it is only claimed.
    bucket: Option<i64>,
}

struct Work {
    global: Line,
    regional: Line,
    region: String,
}

impl Work {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut mending = Mending::default();
        let mut due = Instant::now();
        loop {
            let job = tokio::select! {
                biased;
                job = queue.recv() => job,
                () = sleep_until(due) => {
                    due = Instant::now() + self.mend(&mut mending).await;
                    continue;
                }
            };
            let Some(job) = job else { return };
            self.serve(job).await;
        }
    }

    async fn serve(&mut self, job: Job) {
        match job {
            // Who asked may be gone.
            Job::Claim { name, tenant, write, reply } => {
                let claimed = self.within(async |work| work.claim(&name, tenant, write).await).await;
                let _ = reply.send(claimed.unwrap_or_else(|_| Err(away())));
            }
            Job::Settle(name, write) => {
                let write = id_bytes(write.0);
                drop(self.within(async |work| work.settle(&name, |row| row.write == write).await).await);
            }
            Job::Gone(bucket) => {
                let bucket = int(bucket.0);
                drop(self.within(async |work| work.gone(bucket).await).await);
            }
            Job::Regions(reply) => {
                let regions = self.within(async |work| work.regions().await).await;
                let _ = reply.send(regions.map_err(|error| RegistryAway(error.to_string())));
            }
            Job::MakeRegion(name, reply) => {
                let made = self
                    .within(async |work| Ok(cluster::name_region(work.global.session().await?, &name).await?))
                    .await;
                let _ = reply.send(made.map_err(|error| RegistryAway(error.to_string())));
            }
        }
    }

    async fn within<T>(&mut self, work: impl AsyncFnOnce(&mut Self) -> Result<T, Failed>) -> Result<T, Failed> {
        let answered = timeout(ANSWERED_WITHIN, pin!(work(self))).await.unwrap_or(Err(Failed::Late));
        if let Err(error) = &answered {
            tracing::warn!(%error, "what regions share cannot be asked for or changed");
            self.global.session = None;
            self.regional.session = None;
        }
        answered
    }

    /// Gives what is to be answered.
    async fn claim(
        &mut self,
        name: &BucketName,
        tenant: TenantId,
        write: WriteId,
    ) -> Result<Result<(), MetadataError>, Failed> {
        let region = self.region.clone();
        let global = self.global.session().await?;
        let (text, id, number) = (name.as_str(), id_bytes(write.0), int(tenant.0));
        if !global.query(CLAIM, &[&text, &region, &number, &id]).await?.is_empty() {
            return Ok(Ok(()));
        }
        let owner = global.query(OWNER, &[&text]).await?;
        Ok(Err(match owner.first().map(|row| row.get::<_, i64>(0)) {
            Some(owner) if owner == number => Refusal::BucketAlreadyOwnedByYou.into(),
            Some(_) => Refusal::BucketAlreadyExists.into(),
            // It became free at that moment.
            None => Refusal::OperationAborted.into(),
        }))
    }

    /// Holds a name for the bucket that there is, or frees it. `is_meant` says whether what the registry says of it is still
    /// what is to be settled.
    async fn settle(&mut self, name: &BucketName, is_meant: impl FnOnce(&Row) -> bool) -> Result<(), Failed> {
        let (text, region) = (name.as_str(), self.region.clone());
        let rows = self.global.session().await?.query(ROW, &[&text, &region]).await?;
        let row = rows.first().map(|row| Row { write: row.get(0), bucket: row.get(1) });
        let Some(row) = row.filter(is_meant) else { return Ok(()) };
        let found = self.bucket_or_never(name, &row).await?;
        let global = self.global.session().await?;
        match found {
            Some((bucket, tenant)) => global.execute(HOLD, &[&text, &region, &row.write, &bucket, &tenant]).await?,
            None => global.execute(FREE, &[&text, &region, &row.write]).await?,
        };
        Ok(())
    }

    /// The bucket of a name and its tenant. Where there is none, the write that claimed the name makes none any more.
    async fn bucket_or_never(&mut self, name: &BucketName, row: &Row) -> Result<Option<(i64, i64)>, Failed> {
        let regional = self.regional.session().await?;
        regional.run("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        regional.query(LOCK_NAME, &[&of_name(name)]).await?;
        let rows = regional.query(BUCKET_OF_NAME, &[&name.as_str()]).await?;
        let found = rows.first().map(|row| (row.get(0), row.get(1)));
        if found.is_none() && row.bucket.is_none() {
            regional.execute(NEVER_MAKES, &[&row.write, &Outcome::BucketDeleted.to_bytes()]).await?;
        }
        regional.run("COMMIT").await?;
        Ok(found)
    }

    async fn gone(&mut self, bucket: i64) -> Result<(), Failed> {
        let region = self.region.clone();
        let rows = self.global.session().await?.query(NAME_OF, &[&region, &bucket]).await?;
        for name in rows.iter().filter_map(|row| BucketName::new(row.get::<_, &str>(0)).ok()) {
            self.settle(&name, |row| row.bucket == Some(bucket)).await?;
        }
        Ok(())
    }

    async fn regions(&mut self) -> Result<Vec<Region>, Failed> {
        let rows = self.global.session().await?.query(REGIONS, &[]).await?;
        let region = |row: &tokio_postgres::Row| Region {
            name: row.get(0),
            joined: row.get(1),
            buckets: Some(row.get::<_, i64>(2).cast_unsigned()),
        };
        Ok(rows.iter().map(region).collect())
    }

    /// A slice of looking for what was cut short. Gives how long until the next one.
    async fn mend(&mut self, mending: &mut Mending) -> Duration {
        match self.within(async |work| work.mend_slice(mending).await).await {
            Ok(true) => SLICE_EVERY,
            Ok(false) => MENDED_EVERY,
            Err(_) => TRIED_EVERY,
        }
    }

    /// Whether there is more to do at once.
    async fn mend_slice(&mut self, mending: &mut Mending) -> Result<bool, Failed> {
        let region = self.region.clone();
        // At a start nobody else claims names for this region.
        let age = if mending.claims_were_settled { CLAIM_GIVEN_UP_AFTER } else { Duration::ZERO };
        let claimed = self.global.session().await?.query(CLAIMED, &[&region, &age.as_secs_f64(), &SLICE]).await?;
        for row in &claimed {
            let (name, write): (&str, Vec<u8>) = (row.get(0), row.get(1));
            let Ok(name) = BucketName::new(name) else { continue };
            self.settle(&name, |row| row.write == write && row.bucket.is_none()).await?;
        }
        if claimed.len() == SLICE as usize {
            return Ok(true);
        }
        mending.claims_were_settled = true;
        mending.step = match std::mem::take(&mut mending.step) {
            Step::Waiting(until) if Instant::now() < until => Step::Waiting(until),
            Step::Waiting(_) => Step::Buckets(String::new()),
            Step::Buckets(after) => match self.hold_buckets(&after).await? {
                Some(after) => Step::Buckets(after),
                None => Step::Names(String::new()),
            },
            Step::Names(after) => match self.free_names(&after).await? {
                Some(after) => Step::Names(after),
                None => Step::Waiting(Instant::now() + ALL_MENDED_EVERY),
            },
        };
        Ok(!matches!(mending.step, Step::Waiting(_)))
    }

    /// The next buckets behind a name have theirs, also those that were made when nobody asked the registry. Gives the last
    /// of them, if there may be more.
    async fn hold_buckets(&mut self, after: &str) -> Result<Option<String>, Failed> {
        let rows = self.regional.session().await?.query(BUCKETS_BEHIND, &[&after, &SLICE]).await?;
        let (mut names, mut tenants, mut buckets): (Vec<String>, Vec<i64>, Vec<i64>) = Default::default();
        for row in rows.iter().filter(|row| row.get::<_, &str>(0) != NODE_BUCKET) {
            names.push(row.get(0));
            buckets.push(row.get(1));
            tenants.push(row.get(2));
        }
        let region = self.region.clone();
        let global = self.global.session().await?;
        global.execute(HOLD_ALL, &[&region, &names, &tenants, &buckets]).await?;
        for theirs in global.query(OF_OTHERS, &[&region, &names]).await? {
            let (name, other): (&str, &str) = (theirs.get(0), theirs.get(1));
            tracing::error!(
                bucket = name,
                region = other,
                "a bucket of this region has a name that another region has"
            );
        }
        Ok(if rows.len() == SLICE as usize { rows.last().map(|row| row.get(0)) } else { None })
    }

    /// The next names behind one are free whose bucket is gone. Gives the last of them, if there may be more.
    async fn free_names(&mut self, after: &str) -> Result<Option<String>, Failed> {
        let region = self.region.clone();
        let rows = self.global.session().await?.query(HELD, &[&region, &after, &SLICE]).await?;
        let buckets: Vec<i64> = rows.iter().map(|row| row.get(1)).collect();
        let there = self.regional.session().await?.query(BUCKETS_THERE, &[&buckets]).await?;
        let there: std::collections::BTreeSet<i64> = there.iter().map(|row| row.get(0)).collect();
        for bucket in buckets.iter().filter(|bucket| !there.contains(bucket)) {
            self.gone(*bucket).await?;
        }
        Ok(if rows.len() == SLICE as usize { rows.last().map(|row| row.get(0)) } else { None })
    }
}

/// How far looking for what was cut short has come.
#[derive(Debug, Default)]
struct Mending {
    claims_were_settled: bool,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Buckets behind this name.
    Buckets(String),
    /// Names behind this one.
    Names(String),
    Waiting(Instant),
}

impl Default for Step {
    fn default() -> Self {
        Self::Buckets(String::new())
    }
}

/// Rows that a slice looks at.
const SLICE: i64 = 500;
const SLICE_EVERY: Duration = Duration::from_millis(20);
const MENDED_EVERY: Duration = Duration::from_secs(30);
const TRIED_EVERY: Duration = Duration::from_secs(2);
const ALL_MENDED_EVERY: Duration = Duration::from_hours(1);
/// Far beyond what a commit may take.
const CLAIM_GIVEN_UP_AFTER: Duration = Duration::from_mins(5);

const CLAIM: &str = "INSERT INTO bucket_names AS known (name, region, tenant, write_id) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (name) DO UPDATE SET write_id = excluded.write_id, tenant = excluded.tenant, bucket = NULL, claimed_at = now() \
    WHERE known.region = excluded.region RETURNING 1";
const OWNER: &str = "SELECT tenant FROM bucket_names WHERE name = $1";
const ROW: &str = "SELECT write_id, bucket FROM bucket_names WHERE name = $1 AND region = $2";
const HOLD: &str = "UPDATE bucket_names SET bucket = $4, tenant = $5 WHERE name = $1 AND region = $2 AND write_id = $3";
const FREE: &str = "DELETE FROM bucket_names WHERE name = $1 AND region = $2 AND write_id = $3";
const NAME_OF: &str = "SELECT name FROM bucket_names WHERE region = $1 AND bucket = $2";
const CLAIMED: &str = "SELECT name, write_id FROM bucket_names WHERE region = $1 AND bucket IS NULL \
    AND claimed_at <= now() - $2::double precision * interval '1 second' ORDER BY name LIMIT $3";
const HELD: &str = "SELECT name, bucket FROM bucket_names WHERE region = $1 AND name > $2 AND bucket IS NOT NULL ORDER BY name LIMIT $3";
const HOLD_ALL: &str = "INSERT INTO bucket_names (name, region, tenant, write_id, bucket) \
    SELECT name, $1, tenant, decode(repeat('00', 16), 'hex'), bucket \
    FROM unnest($2::text[], $3::bigint[], $4::bigint[]) AS held (name, tenant, bucket) ON CONFLICT DO NOTHING";
const OF_OTHERS: &str = "SELECT name, region FROM bucket_names WHERE name = ANY($2) AND region <> $1";
const REGIONS: &str = "SELECT name, joined, (SELECT count(*) FROM bucket_names WHERE region = regions.name AND bucket IS NOT NULL) \
    FROM regions ORDER BY name";
const LOCK_NAME: &str = "SELECT pg_advisory_xact_lock($1)";
const BUCKET_OF_NAME: &str = "SELECT id, tenant FROM buckets WHERE name = $1";
const NEVER_MAKES: &str = "INSERT INTO writes (generation, write_id, outcome) VALUES (nextval('generations'), $1, $2) \
    ON CONFLICT (write_id) DO NOTHING";
const BUCKETS_BEHIND: &str = "SELECT name, id, tenant FROM buckets WHERE name > $1 ORDER BY name LIMIT $2";
const BUCKETS_THERE: &str = "SELECT id FROM buckets WHERE id = ANY($1)";

/// Every statement of this file on the global database, for the test that explains them.
#[cfg(test)]
pub(super) fn global_statements() -> Vec<(&'static str, &'static str)> {
    named![CLAIM, OWNER, ROW, HOLD, FREE, NAME_OF, CLAIMED, HELD, HOLD_ALL, OF_OTHERS, REGIONS]
}

/// Those on the regional one.
#[cfg(test)]
pub(super) fn regional_statements() -> Vec<(&'static str, &'static str)> {
    named![LOCK_NAME, BUCKET_OF_NAME, NEVER_MAKES, BUCKETS_BEHIND, BUCKETS_THERE]
}
