//! From a configuration to a serving node, and from a signal to its end: the page to read for the order of both.
//!
//! One core, the *host* of the metadata, opens the disks, recovers them and the metadata, and gives every core its
//! seat; then all cores serve. The main thread is control: it waits for signals and for the cores.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anvil_model::ids::{CoreId, DiskId, NodeId, TenantId, WriteId};
use anvil_model::io::{Task as _, World};
use anvil_model::profile::Profile;
use anvil_node::Node;
use anvil_node::classes::Classes;
use anvil_node::encryption::{Keys, KeysError};
use anvil_node::metadata::batch::{Inbox, Limits, Service, mailboxes};
use anvil_node::metadata::client::{Client, Mailboxes};
use anvil_node::metadata::embedded::{self, Embedded};
use anvil_node::metadata::flushed::Flushed;
use anvil_node::metadata::mutation::{Change, Mutation, Outcome};
use anvil_node::metadata::{Metadata, MetadataError};
use anvil_node::repair::LostDisks;
use anvil_node::upkeep::{CurrentLife, Pressure, Upkeep};
use anvil_runtime::{Core, Disk, DiskOptions, OpenError};
use anvil_store::{
    LogWriter, Mail, ReclaimOptions, RecoverError, Recovered, RecoveryReport, ScrubOptions, Share, Store, mail, recover,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::access::AccessKeeper;
use crate::access::sealing::Sealer;
use crate::auth::{Authenticator, Directory};
use crate::config::EncryptionChoice;
use crate::data_dir::DataDir;
use crate::disk_control::DiskControl;
use crate::disk_keeper::{Keeper, KeeperParts};
use crate::disks::{self, DiskError, MissingDisk, Taken};
use crate::grpc::{Authority, Services, Tokens};
use crate::http1::Settings;
use crate::identity::{EMBEDDED_NODE, Identity};
use crate::listener::{BindError, Frontend};
use crate::metadata::postgres::access::{AccessDatabase, AccessPlan as GlobalAccess};
use crate::metadata::postgres::cluster::{self, Databases, Place as Membership};
use crate::metadata::postgres::{Postgres, PostgresThread, Seen};
use crate::metadata::threads::StartError as IndexError;
use crate::metadata::{self, SqliteIndex, Threads};
use crate::routes::{Readiness, Routes};
use crate::s3::{Domains, S3};
use crate::telemetry::{
    MetadataFigures, Metrics, MetricsAllow, ProcessFigures, RepairBoard, StoreFigures, UpkeepSamples, WatchedDisks,
    watch_readiness,
};
use crate::tls::Tls;

/// Everything that a start needs to know.
pub struct Plan {
    /// Identity and metadata index live here.
    pub data: DataDir,
    /// The disks as the operator named them, at least one.
    pub disks: Vec<DiskPlan>,
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Who the node is for clients that come with TLS.
    pub tls: Option<Arc<Tls>>,
    /// Where buckets are made.
    pub region: String,
    /// How objects are spread, by storage class.
    pub classes: Classes,
    /// Host names in front of which buckets stand.
    pub domains: Domains,
    /// Who may come in.
    pub authenticator: Arc<Authenticator>,
    /// Who may administrate.
    pub authority: Arc<Authority>,
    /// Whether new objects are encrypted, and with what the keys are wrapped.
    pub encryption: EncryptionChoice,
    /// Who may read the metrics.
    pub metrics_allow: Arc<MetricsAllow>,
    /// Who may do what, besides.
    pub access: AccessPlan,
    /// Who may ask for buckets and objects by gRPC.
    pub tokens: Arc<Tokens>,
    /// The cores and their memory.
    pub runtime: anvil_runtime::Options,
    /// The core that also does the metadata's batching and writes its log.
    pub host: CoreId,
    /// For how long deleted data is kept for those who read it.
    pub reclaim_delay: Duration,
    /// How the records of the disks are verified in the background; `None` when they are not.
    pub scrub: Option<ScrubOptions>,
    /// What is made again per second, at most, over all cores.
    pub repair_bytes_per_second: u64,
    /// Where the metadata is.
    pub metadata: MetadataPlan,
}

/// What is needed to keep tenants, apps and what they may do.
#[derive(Debug)]
pub struct AccessPlan {
    /// The one that requests are authenticated with.
    pub directory: Directory,
    /// Hides secrets of apps.
    pub sealer: Arc<Sealer>,
    /// The tenant of the node's own app.
    pub own: TenantId,
    /// For how long what was read of a database may be used when that does not answer.
    pub ttl: Duration,
}

impl AccessPlan {
    fn start(self, metadata: &MetadataPlan) -> Result<AccessKeeper, StartError> {
        let Self { directory, sealer, own, ttl } = self;
        match metadata {
            MetadataPlan::Embedded => Ok(AccessKeeper::on_node(directory, sealer, own)),
            MetadataPlan::Database { databases, .. } => {
                let database = GlobalAccess {
                    database: databases.global.clone(),
                    directory: directory.clone(),
                    sealer: Arc::clone(&sealer),
                    own,
                    ttl,
                };
                let database = AccessDatabase::start(database).map_err(StartError::Thread)?;
                Ok(AccessKeeper::in_database(directory, sealer, own, database))
            }
        }
    }
}

/// Where the metadata of a node is.
#[derive(Clone, Debug)]
pub enum MetadataPlan {
    /// On the node's disks, with an index in the data directory.
    Embedded,
    /// In a region's database, in which the node has its place.
    Database {
        /// Both of the region.
        databases: Box<Databases>,
        /// What the node is there.
        place: Membership,
    },
}

/// A disk as the operator named it.
#[derive(Clone, Debug)]
pub struct DiskPlan {
    /// A directory or a block device.
    pub path: PathBuf,
    /// How it is opened.
    pub options: DiskOptions,
}

/// Why the node does not serve. Each text is one sentence.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("there is no disk at {path}, where this node had one: mount it, or name the path where it is now")]
    NotMounted { path: PathBuf },
    #[error(transparent)]
    Cores(#[from] anvil_runtime::StartError),
    #[error(transparent)]
    Disks(#[from] DiskError),
    #[error(transparent)]
    Recover(#[from] RecoverError),
    #[error("ANVIL_SECRET_ENCRYPTION_KEY is not what this node's disks were encrypted with: {0}")]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Metadata(#[from] embedded::OpenError),
    #[error("the region's database did not open this life of the node: {0}")]
    Life(MetadataError),
    #[error("the thread of the metadata cannot be started: {0}")]
    Thread(#[source] io::Error),
    #[error(
        "the disks hold the metadata of a node without a database, which this one would not see: start without \
         GLOBAL_DATABASE_URL and REGIONAL_DATABASE_URL, or with empty disks and another data directory"
    )]
    DisksWithMetadata,
    #[error(
        "the disks hold data, and nothing here says which database knows it: start with the data directory that belongs to \
         them"
    )]
    DisksWithoutMetadata,
    #[error(
        "the disks hold data, and no record of the metadata log that says whose it is; a node that started now would give all \
         of it up. If a database knows it, start with GLOBAL_DATABASE_URL, REGIONAL_DATABASE_URL and the data directory that \
         belongs to them; if the log is lost, run `anvil admin metadata rebuild --salvage --replace` first"
    )]
    DisksWithoutLog,
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Panicked(#[from] anvil_runtime::JoinError),
}

/// What all cores share. Holds no mailbox: the metadata ends when the last core has put its own away.
struct Shared {
    data: Arc<DataDir>,
    plans: Arc<[DiskPlan]>,
    paths: Vec<PathBuf>,
    watched: WatchedDisks,
    /// One for each path; `None` where the system has none.
    disks: Vec<Option<Disk>>,
    listen: Vec<SocketAddr>,
    tls: Option<Arc<Tls>>,
    region: String,
    classes: Arc<Classes>,
    encryption: EncryptionChoice,
    /// Opened before any core has its seat.
    keys: OnceLock<Arc<Keys>>,
    domains: Arc<Domains>,
    authenticator: Arc<Authenticator>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    figures: Arc<StoreFigures>,
    disk_control: Arc<DiskControl>,
    repair: Arc<RepairBoard>,
    authority: Arc<Authority>,
    metrics_allow: Arc<MetricsAllow>,
    keeper: Arc<AccessKeeper>,
    tokens: Arc<Tokens>,
    metadata_figures: Arc<MetadataFigures>,
    upkeep: Arc<UpkeepSamples>,
    reclaim_delay: Duration,
    scrub: Option<ScrubOptions>,
    repair_bytes_per_second: u64,
    pressure: Pressure,
    lost: LostDisks,
    places: Vec<Mutex<Option<Place>>>,
    stage: watch::Sender<Stage>,
    stop: watch::Receiver<bool>,
}

/// Where a start has come to.
#[derive(Clone, Debug)]
enum Stage {
    /// The disks are read, the metadata replayed.
    Opening,
    /// This life may write; everybody listens here.
    Serving { life: CurrentLife, addresses: Vec<SocketAddr>, missing: Vec<MissingDisk> },
    /// It came to nothing; everybody goes home.
    Failed,
}

/// Where a core waits for its seat. The host's place also holds the giving ends.
struct Place {
    seat: oneshot::Receiver<Seat>,
    host: Option<Host>,
}

/// What a core gets from the host.
struct Seat {
    disks: Arc<Taken>,
    share: Share,
    mail: Mail,
    mailboxes: Mailboxes,
}

/// What the host needs for everybody.
struct Host {
    seats: Vec<oneshot::Sender<Seat>>,
    mailboxes: Mailboxes,
    inbox: Inbox,
    metadata: MetadataSource,
    failed: oneshot::Sender<StartError>,
}

/// What answers for the metadata, before the disks are read.
enum MetadataSource {
    Embedded(SqliteIndex),
    Database { postgres: Postgres, place: Membership },
}

/// What the metadata runs on beside the cores.
enum MetadataThreads {
    Sqlite(Threads),
    Postgres(PostgresThread),
}

impl MetadataSource {
    /// Starts its threads.
    fn start(
        plan: MetadataPlan,
        data: &Arc<DataDir>,
        readiness: &Arc<Readiness>,
    ) -> Result<(Self, MetadataThreads), StartError> {
        match plan {
            MetadataPlan::Embedded => {
                let (index, threads) = SqliteIndex::start(data.path())?;
                Ok((Self::Embedded(index), MetadataThreads::Sqlite(threads)))
            }
            MetadataPlan::Database { databases, place } => {
                let (readiness, data) = (Arc::clone(readiness), Arc::clone(data));
                let on_seen = move |seen: Seen| {
                    if let Err(error) = cluster::keep_seen(&data, seen) {
                        tracing::warn!(%error, "where the metadata stands cannot be noted");
                    }
                };
                let on_health = Box::new(move |role, there| readiness.database(role, there));
                let started = Postgres::start(*databases, place.seen, on_health, Box::new(on_seen));
                let (postgres, thread) = started.map_err(StartError::Thread)?;
                Ok((Self::Database { postgres, place }, MetadataThreads::Postgres(thread)))
            }
        }
    }

    fn limits(&self) -> Limits {
        match self {
            Self::Embedded(_) => Limits::EMBEDDED,
            Self::Database { .. } => Limits::DATABASE,
        }
    }
}

impl MetadataThreads {
    fn join(self) {
        match self {
            Self::Sqlite(threads) => threads.join(),
            Self::Postgres(thread) => thread.join(),
        }
    }
}

/// Runs the node until it is told to stop. `on_ready` hears where it listens, and which disks are missing, once it serves.
///
/// # Errors
/// When it could not serve, or a core broke down.
pub fn run(plan: Plan, on_ready: impl FnOnce(&[SocketAddr], &[MissingDisk])) -> Result<(), StartError> {
    let began = Instant::now();
    let disks = open_disks(&plan.disks)?;
    plan.listen.iter().try_for_each(|&address| check_address(address))?;
    let core_count = u16::try_from(plan.runtime.cpus.len()).expect("the configuration bounds the cores");
    assert!(plan.host.0 < core_count, "the configuration bounds the host");

    let readiness = Arc::new(Readiness::default());
    let metrics = Arc::new(Metrics::new(core_count));
    let names = plan.disks.iter().map(|disk| disk.path.display().to_string());
    let there = names.zip(&disks).filter_map(|(name, disk)| Some((name, Arc::clone(disk.as_ref()?.stats()))));
    let watched = metrics.watch_disks(there.collect());
    let (stage, staged) = watch::channel(Stage::Opening);
    let (stop, stopped) = watch::channel(false);
    let (failed, failure) = oneshot::channel();
    let data = Arc::new(plan.data);
    watch_readiness(&metrics, Arc::clone(&readiness), matches!(plan.metadata, MetadataPlan::Database { .. }));
    let keeper = Arc::new(plan.access.start(&plan.metadata)?);
    let (source, metadata_threads) = MetadataSource::start(plan.metadata, &data, &readiness)?;
    let process = ProcessFigures::watched_by(&metrics, &data.path().join(metadata::threads::FILE_NAME));
    let shared = Arc::new(Shared {
        data,
        paths: plan.disks.iter().map(|disk| disk.path.clone()).collect(),
        plans: plan.disks.into(),
        watched,
        disks,
        listen: plan.listen,
        tls: plan.tls.clone(),
        region: plan.region,
        classes: Arc::new(plan.classes),
        encryption: plan.encryption,
        keys: OnceLock::new(),
        domains: Arc::new(plan.domains),
        authenticator: plan.authenticator,
        readiness: Arc::clone(&readiness),
        figures: StoreFigures::watched_by(&metrics, core_count),
        disk_control: Arc::new(DiskControl::new(core_count)),
        repair: RepairBoard::watched_by(&metrics, core_count),
        authority: plan.authority,
        metrics_allow: plan.metrics_allow,
        keeper,
        tokens: plan.tokens,
        metadata_figures: MetadataFigures::watched_by(&metrics),
        upkeep: UpkeepSamples::watched_by(&metrics, core_count),
        metrics: Arc::clone(&metrics),
        reclaim_delay: plan.reclaim_delay,
        scrub: plan.scrub,
        repair_bytes_per_second: plan.repair_bytes_per_second,
        pressure: Pressure::new(),
        lost: LostDisks::new(),
        places: places(core_count, plan.host, source, failed),
        stage,
        stop: stopped,
    });
    let cores = anvil_runtime::start(plan.runtime, move |core| serve(core, Arc::clone(&shared)))?;
    metrics.watch_cores(cores.stats());

    let control = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Signals)?;
    control.spawn(async move { process.keep_looking().await });
    control.block_on(async {
        let mut signals = Signals::new().map_err(StartError::Signals)?;
        if let Some(tls) = plan.tls {
            let hangups = signal(SignalKind::hangup()).map_err(StartError::Signals)?;
            tokio::spawn(renew_certificates(tls, hangups));
        }
        let cores = tokio::task::spawn_blocking(move || cores.join());
        let told_early = tokio::select! {
            addresses = serving(staged) => {
                if let Some((addresses, missing)) = addresses {
                    let start_ms = began.elapsed().as_millis();
                    tracing::info!(?addresses, cores = core_count, start_ms, "serving");
                    on_ready(&addresses, &missing);
                }
                false
            }
            // The cores notice it when they have opened everything.
            () = signals.next() => true,
        };
        tokio::pin!(cores);
        let joined = tokio::select! {
            joined = &mut cores => joined,
            () = async { if !told_early { signals.next().await } } => {
                tracing::info!("stopping; a second signal ends at once");
                readiness.stop();
                stop.send_replace(true);
                tokio::select! {
                    joined = &mut cores => joined,
                    () = signals.next() => {
                        tracing::warn!("ended by a second signal");
                        std::process::exit(EXIT_INTERRUPTED);
                    }
                }
            }
        };
        joined.expect("joining cores does not panic")?;
        metadata_threads.join();
        match failure.await {
            Ok(error) => Err(error),
            Err(_) => Ok(()),
        }
    })
}

/// Opens the disks; `None` where one of this node was and cannot be had now. Whether the node can do without it is decided
/// when all are looked at.
fn open_disks(disks: &[DiskPlan]) -> Result<Vec<Option<Disk>>, StartError> {
    let mut opened = Vec::with_capacity(disks.len());
    let mut refusal = None;
    for disk in disks {
        match open_disk(disk) {
            Ok(disk) => opened.push(Some(disk)),
            Err(error @ StartError::Open(OpenError::InUse(_))) => return Err(error),
            Err(error) if disk.options.create => return Err(error),
            Err(error) => {
                tracing::error!(%error, "a disk cannot be opened");
                opened.push(None);
                refusal.get_or_insert(error);
            }
        }
    }
    match refusal {
        Some(error) if opened.iter().all(Option::is_none) => Err(error),
        _ => Ok(opened),
    }
}

fn open_disk(disk: &DiskPlan) -> Result<Disk, StartError> {
    let opened = patiently(|| Disk::open(&disk.path, &disk.options), |error| matches!(error, OpenError::InUse(_)));
    opened.map_err(|error| match error {
        OpenError::NotFound(path) if !disk.options.create => StartError::NotMounted { path },
        error => error.into(),
    })
}

/// Refuses an address that somebody listens on. The cores share theirs, and the kernel would let another process of this
/// user share them too: every other request would go to the wrong node.
fn check_address(address: SocketAddr) -> Result<(), BindError> {
    let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    patiently(|| std::net::TcpListener::bind(address).map(drop), in_use).map_err(|source| BindError { address, source })
}

/// Tries for a moment longer than a killed process lives: the kernel takes its ring apart after the process is gone, and
/// the ring holds its disks and sockets.
pub(crate) fn patiently<T, E>(attempt: impl Fn() -> Result<T, E>, is_in_use: impl Fn(&E) -> bool) -> Result<T, E> {
    let deadline = Instant::now() + RING_TEARDOWN_MAX;
    loop {
        match attempt() {
            Err(error) if is_in_use(&error) && Instant::now() < deadline => std::thread::sleep(RING_TEARDOWN_POLL),
            result => return result,
        }
    }
}

/// For how long what is in use is asked for again. Seen: tens of milliseconds, more under load.
const RING_TEARDOWN_MAX: Duration = Duration::from_secs(5);
const RING_TEARDOWN_POLL: Duration = Duration::from_millis(10);

/// What a shell gives a program that a signal ended (128 + SIGINT).
const EXIT_INTERRUPTED: i32 = 130;

fn places(
    core_count: u16,
    host: CoreId,
    metadata: MetadataSource,
    failed: oneshot::Sender<StartError>,
) -> Vec<Mutex<Option<Place>>> {
    let (mailboxes, inbox) = mailboxes(metadata.limits());
    let (seats, waiting): (Vec<_>, Vec<_>) = (0..core_count).map(|_| oneshot::channel()).unzip();
    let mut host_part = Some(Host { seats, mailboxes, inbox, metadata, failed });
    let place = |(core, seat)| {
        let host = if core == usize::from(host.0) { host_part.take() } else { None };
        Mutex::new(Some(Place { seat, host }))
    };
    waiting.into_iter().enumerate().map(place).collect()
}

/// Where the node listens, once it does, and which disks it does without; `None` when it never will.
async fn serving(mut stage: watch::Receiver<Stage>) -> Option<(Vec<SocketAddr>, Vec<MissingDisk>)> {
    let stage = stage.wait_for(|stage| !matches!(stage, Stage::Opening)).await.ok()?;
    match &*stage {
        Stage::Serving { addresses, missing, .. } => Some((addresses.clone(), missing.clone())),
        Stage::Opening | Stage::Failed => None,
    }
}

/// The signals that mean stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Reads the certificate's files again at each SIGHUP: they are renewed every few weeks, and nobody stops a node for it.
async fn renew_certificates(tls: Arc<Tls>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        match tls.reload() {
            Ok(()) => tracing::info!("the certificate was read again; new connections use it"),
            Err(error) => tracing::error!(%error, "the certificate stays as it was"),
        }
    }
}

/// The life of one core.
async fn serve(core: Core, shared: Arc<Shared>) {
    let place = &shared.places[usize::from(core.core().0)];
    let Place { seat, host } = place.lock().expect("nobody panics with it").take().expect("each core runs once");
    match host {
        None => sit(core, shared, seat).await,
        Some(host) => {
            let Host { seats, mailboxes, inbox, metadata, failed } = host;
            if let Err(error) = open(&core, &shared, seat, Opening { seats, mailboxes, inbox, metadata }).await {
                shared.stage.send_replace(Stage::Failed);
                // Control waits for it as long as cores run.
                let _ = failed.send(error);
            }
        }
    }
}

/// A core that is not the host: takes its seat and serves.
async fn sit(core: Core, shared: Arc<Shared>, seat: oneshot::Receiver<Seat>) {
    let Ok(Seat { disks, share, mail, mailboxes }) = seat.await else { return };
    let store = open_store(&core, &shared, &disks, share, mail);
    let mut stage = shared.stage.subscribe();
    let serving = stage.wait_for(|stage| !matches!(stage, Stage::Opening)).await.map(|stage| stage.clone());
    if let Ok(Stage::Serving { life, addresses, .. }) = serving {
        store.set_writer(life.node, life.incarnation);
        match Frontend::bind(&core, &addresses) {
            Ok(frontend) => welcome(&core, &shared, frontend, &store, mailboxes, life).await,
            Err(error) => tracing::error!(core = %core.core(), %error, "this core does not listen"),
        }
    }
    store.close().await;
}

/// The parts of [`Host`] that opening the node uses up.
struct Opening {
    seats: Vec<oneshot::Sender<Seat>>,
    mailboxes: Mailboxes,
    inbox: Inbox,
    metadata: MetadataSource,
}

/// What the node knows of its disks when they were read.
struct KnownDisks {
    identity: Identity,
    missing: Vec<MissingDisk>,
}

/// The metadata when the disks were read: it opens this life next.
enum OpenedMetadata {
    Embedded { writer: Box<LogWriter<Core>>, index: SqliteIndex, replayed: embedded::Replayed },
    Database { postgres: Postgres, place: Membership },
}

/// The host: opens everything, gives everybody a seat, serves, and closes last.
async fn open(
    core: &Core,
    shared: &Arc<Shared>,
    seat: oneshot::Receiver<Seat>,
    opening: Opening,
) -> Result<(), StartError> {
    let began = core.now();
    let devices: Vec<_> = shared.disks.iter().map(|disk| Some(disk.as_ref()?.device(core))).collect();
    let disks = Arc::new(disks::take(core, &shared.data, &shared.paths, &devices, shared.classes.standard()).await?);
    let Profile { parity, .. } = disks.standard;
    let spare = usize::from(parity) - disks.missing.len();
    let mut recovered = recover(core, devices_of(core, shared, &disks), core.core_count(), spare).await?;
    let missing = all_missing(shared, &disks, &recovered.lost);
    shared.lost.set(disks.identity.lost.iter().map(|lost| lost.disk).collect());
    open_keys(shared, &mut recovered)?;
    let replayed = match &opening.metadata {
        // The log begins before anything else is written.
        MetadataSource::Embedded(_) if recovered.log.first().is_none() && recovered.report.records > 0 => {
            return Err(StartError::DisksWithoutLog);
        }
        MetadataSource::Embedded(index) => Some(embedded::replay(core, &recovered, index).await?),
        MetadataSource::Database { .. } if recovered.log.first().is_some() => {
            return Err(StartError::DisksWithMetadata);
        }
        MetadataSource::Database { place, .. } if place.new && recovered.report.records > 0 => {
            return Err(StartError::DisksWithoutMetadata);
        }
        MetadataSource::Database { .. } => None,
    };
    log_recovery(&recovered.report, replayed.as_ref(), core.now().since(began));

    let (log, shares, tail) = recovered.into_parts();
    for ((to, share), mail) in opening.seats.into_iter().zip(shares).zip(mail(core.core_count())) {
        let seat = Seat { disks: Arc::clone(&disks), share, mail, mailboxes: opening.mailboxes.clone() };
        assert!(to.send(seat).is_ok(), "every core waits for its seat");
    }
    // Only the cores hold mailboxes now: the metadata ends with the last of them.
    drop(opening.mailboxes);
    let Seat { share, mail, mailboxes, .. } = seat.await.expect("just sent");
    let store = open_store(core, shared, &disks, share, mail);
    let refilling = core.spawn_background({
        let (store, lost) = (store.clone(), shared.lost.clone());
        async move { store.keep_log_copies(log, usize::from(parity) + 1, || lost.all()).await }
    });
    let metadata = match (opening.metadata, replayed) {
        (MetadataSource::Embedded(index), Some(replayed)) => {
            let writer = Box::new(LogWriter::open(store.clone(), tail, usize::from(parity) + 1));
            OpenedMetadata::Embedded { writer, index, replayed }
        }
        (MetadataSource::Database { postgres, place }, None) => OpenedMetadata::Database { postgres, place },
        _ => unreachable!("what is on the disks was replayed"),
    };
    let known = KnownDisks { identity: disks.identity.clone(), missing };
    let result = host(core, shared, &store, known, metadata, mailboxes, opening.inbox).await;
    drop(refilling);
    if result.is_err() {
        shared.stage.send_replace(Stage::Failed);
    }
    store.close().await;
    result
}

/// Opens the encryption keys that the disks keep, and lets them keep what is new.
fn open_keys(shared: &Shared, recovered: &mut Recovered<Core>) -> Result<(), KeysError> {
    let EncryptionChoice { keys: operator, encrypt } = &shared.encryption;
    if operator.is_empty() && !recovered.keys.is_empty() {
        tracing::warn!("objects on these disks are encrypted, and cannot be read without ANVIL_SECRET_ENCRYPTION_KEY");
    }
    let random = |bytes: &mut [u8]| getrandom::fill(bytes).expect("the kernel gives random bytes");
    let (keys, kept) = Keys::open(recovered.keys, operator, *encrypt, random)?;
    recovered.set_keys(kept);
    if keys.encrypts() {
        tracing::info!("new objects are encrypted on the disks");
    }
    assert!(shared.keys.set(Arc::new(keys)).is_ok(), "a start opens the keys once");
    Ok(())
}

/// The disks that are missing: not there, or of no use.
fn all_missing(shared: &Shared, disks: &Taken, useless: &[RecoverError]) -> Vec<MissingDisk> {
    let useless: Vec<DiskId> = useless.iter().filter_map(RecoverError::disk).collect();
    let mut missing = disks.missing.clone();
    let here = disks.here.iter().filter(|(_, disk)| useless.contains(disk));
    missing.extend(here.map(|&(index, disk)| MissingDisk { disk, path: shared.paths[index].clone() }));
    let here = disks.here.len() - useless.len();
    tracing::info!(profile = %disks.standard, disks = here, missing = missing.len(), "the disks were read");
    missing
}

/// What a start had to read, as numbers that a machine can follow from start to start.
fn log_recovery(report: &RecoveryReport, replayed: Option<&embedded::Replayed>, took: Duration) {
    tracing::info!(
        took_ms = took.as_millis(),
        disks = report.disks,
        clean = report.clean,
        extents = report.extents,
        extents_scanned = report.extents_scanned,
        scanned_bytes = report.scanned_bytes,
        records = report.records,
        batches_replayed = replayed.map(|replayed| replayed.applied),
        index_rebuilt = replayed.map(|replayed| replayed.rebuilt),
        "recovered"
    );
    if report.records_damaged > 0 {
        let (records, blobs) = (report.records_damaged, report.damaged.len());
        tracing::warn!(records, blobs, "records are damaged: torn by a crash before they were acknowledged, or rotten");
    }
}

fn open_store(core: &Core, shared: &Shared, disks: &Taken, share: Share, mail: Mail) -> Store<Core> {
    Store::open(core.clone(), devices_of(core, shared, disks), share, mail)
}

/// The disks that are there, opened on this core.
fn devices_of(core: &Core, shared: &Shared, disks: &Taken) -> Vec<(DiskId, <Core as World>::Device)> {
    let open = |&(index, disk): &(usize, DiskId)| {
        let opened = shared.disks[index].as_ref().expect("what was taken is there");
        (disk, opened.device(core))
    };
    disks.here.iter().map(open).collect()
}

/// Opens this life, and serves.
async fn host(
    core: &Core,
    shared: &Arc<Shared>,
    store: &Store<Core>,
    known: KnownDisks,
    metadata: OpenedMetadata,
    mailboxes: Mailboxes,
    inbox: Inbox,
) -> Result<(), StartError> {
    match metadata {
        OpenedMetadata::Embedded { writer, index, replayed } => {
            let node = EMBEDDED_NODE;
            let (metadata, incarnation) = Embedded::open(core.clone(), *writer, index, replayed, node).await?;
            let service = Service::new(core.clone(), metadata, inbox, Limits::EMBEDDED);
            serve_with(core, shared, store, known, service, mailboxes, CurrentLife { node, incarnation }).await
        }
        OpenedMetadata::Database { postgres, place } => {
            let life = open_life(core, &postgres, place.node).await?;
            let metadata = Flushed::new(store.clone(), postgres);
            let service = Service::new(core.clone(), metadata, inbox, Limits::DATABASE);
            serve_with(core, shared, store, known, service, mailboxes, life).await
        }
    }
}

/// Opens the next life of the node in its region's database.
async fn open_life(core: &Core, postgres: &Postgres, node: NodeId) -> Result<CurrentLife, StartError> {
    let write = WriteId(u128::from(core.random()) << 64 | u128::from(core.random()));
    let opening: Arc<[Mutation]> = Arc::new([Mutation { write, change: Change::OpenWriter { node } }]);
    // The same write again opens the same life.
    for _ in 0..LIFE_ASKED_MAX {
        match postgres.commit(Arc::clone(&opening)).await.pop() {
            Some(Ok(Outcome::WriterOpened(incarnation))) => return Ok(CurrentLife { node, incarnation }),
            Some(Err(error @ MetadataError::Refused(_))) => return Err(StartError::Life(error)),
            Some(Err(_)) => core.sleep(LIFE_ASKED_EVERY).await,
            other => unreachable!("opening a writer gives a life, not {other:?}"),
        }
    }
    Err(StartError::Life(MetadataError::Unavailable { retry_after: LIFE_ASKED_EVERY }))
}

/// Tells everybody which life it is, and serves beside the metadata's own service.
async fn serve_with<M: Metadata>(
    core: &Core,
    shared: &Arc<Shared>,
    store: &Store<Core>,
    known: KnownDisks,
    service: Service<Core, M>,
    mailboxes: Mailboxes,
    life: CurrentLife,
) -> Result<(), StartError> {
    store.set_writer(life.node, life.incarnation);
    let frontend = Frontend::bind(core, &shared.listen)?;
    let (world, figures, queues) = (core.clone(), service.figures(), mailboxes.onlooker());
    let published = Arc::clone(&shared.metadata_figures);
    let _publishing = core.spawn(async move { published.publish(&world, figures, queues).await });
    let parts = KeeperParts {
        data: Arc::clone(&shared.data),
        plans: Arc::clone(&shared.plans),
        control: Arc::clone(&shared.disk_control),
        figures: Arc::clone(&shared.figures),
        watched: shared.watched.clone(),
        lost: shared.lost.clone(),
        standard: shared.classes.standard(),
    };
    let _keeping_disks = core.spawn(Keeper::new(core.clone(), store.clone(), parts, known.identity).run());
    let (ended, end) = oneshot::channel();
    core.spawn(async move {
        service.run().await;
        // Everybody may be gone already.
        let _ = ended.send(());
    })
    .detach();
    // Clients are welcome when it is known who they are, but not kept waiting by what cannot be read.
    let (loaded, was_loaded) = oneshot::channel();
    let loading = core.spawn({
        let (keeper, node) = (Arc::clone(&shared.keeper), node_of(core, shared, store, mailboxes.clone()));
        async move {
            keeper.load(&node).await;
            // Nobody may wait any more.
            let _ = loaded.send(());
        }
    });
    futures_util::future::select(was_loaded, Box::pin(core.sleep(ACCESS_AWAITED_MAX))).await;
    shared.readiness.serve();
    let addresses = frontend.addresses();
    shared.stage.send_replace(Stage::Serving { life, addresses, missing: known.missing });
    welcome(core, shared, frontend, store, mailboxes, life).await;
    drop(loading);
    // The service ends when the last core has put its mailboxes away.
    let _ = end.await;
    Ok(())
}

/// The stories on this core.
fn node_of(core: &Core, shared: &Shared, store: &Store<Core>, mailboxes: Mailboxes) -> Node<Core> {
    let client = Client::new(core.clone(), mailboxes);
    let keys = shared.keys.get().expect("opened before any core has its seat");
    Node::new(core.clone(), store.clone(), client, &shared.region, Arc::clone(&shared.classes))
        .with_keys(Arc::clone(keys))
}

/// Serves clients, and keeps the disks, until the node is told to stop.
async fn welcome(
    core: &Core,
    shared: &Arc<Shared>,
    frontend: Frontend,
    store: &Store<Core>,
    mailboxes: Mailboxes,
    life: CurrentLife,
) {
    let node = node_of(core, shared, store, mailboxes);
    let settings = Settings { tls: shared.tls.clone(), ..Settings::default() };
    store.start_reclaim(ReclaimOptions::default());
    if let Some(scrub) = shared.scrub {
        store.start_scrub(scrub);
    }
    let _keeping = keep(shared, &node, life);
    let grpc = Services::new(
        node.clone(),
        Arc::clone(&shared.disk_control),
        Arc::clone(&shared.repair),
        Arc::clone(&shared.keeper),
        Arc::clone(&shared.readiness),
        Arc::clone(&shared.authority),
        Arc::clone(&shared.tokens),
    );
    let (authenticator, keeper) = (Arc::clone(&shared.authenticator), Arc::clone(&shared.keeper));
    let s3 = S3::new(node, authenticator, keeper, Arc::clone(&shared.domains), settings.host_id.as_str().into());
    let routes = Routes::new(
        s3,
        grpc,
        Arc::clone(&shared.domains),
        Arc::clone(&shared.readiness),
        Arc::clone(&shared.metrics),
        Arc::clone(&shared.metrics_allow),
    );
    let counters = shared.metrics.core(core.core());
    let mut stop = shared.stop.clone();
    let (world, store, figures) = (core.clone(), store.clone(), Arc::clone(&shared.figures));
    let control = Arc::clone(&shared.disk_control);
    let _publishing = core.spawn(async move {
        futures_util::future::join(figures.publish(&world, &store), control.obey(&world, &store)).await;
    });
    let stopped = async move {
        // An error says that control has ended, which means stop too.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    frontend.serve(Rc::new(routes), settings, counters, stopped).await;
}

/// Gives back what was deleted and looks for what nobody needs, until the task is dropped.
fn keep(shared: &Arc<Shared>, node: &Node<Core>, life: CurrentLife) -> <Core as World>::Task {
    let upkeep = Upkeep {
        life,
        reclaim_delay: shared.reclaim_delay,
        look_every: GARBAGE_LOOKED_FOR_EVERY,
        sweep_every: SWEPT_EVERY,
        pressure: shared.pressure.clone(),
        lost: shared.lost.clone(),
        repair_bytes_per_second: shared.repair_bytes_per_second / u64::from(node.world().core_count()),
    };
    let (shared, node) = (Arc::clone(shared), node.clone());
    node.world().clone().spawn_background(async move {
        let publishing = shared.upkeep.publish(&node);
        let repairing = shared.repair.publish(&node);
        futures_util::future::join3(node.upkeep(upkeep), publishing, repairing).await;
    })
}

/// How often a database that is away is asked to open the life of a node that starts, and how long is waited in between.
const LIFE_ASKED_MAX: u32 = 30;
const LIFE_ASKED_EVERY: Duration = Duration::from_secs(1);
/// Who may do what is read in milliseconds, where it can be read.
const ACCESS_AWAITED_MAX: Duration = Duration::from_secs(10);
/// A look at an empty list is one query.
const GARBAGE_LOOKED_FOR_EVERY: Duration = Duration::from_secs(1);
/// A sweep reads all rows of blobs. The first one, at the start, finds what the life before left; the later ones only
/// what should not be.
const SWEPT_EVERY: Duration = Duration::from_hours(24);
