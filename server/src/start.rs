//! From a configuration to a serving node, and from a signal to its end: the page to read for the order of both.
//!
//! One core, the *host* of the metadata, opens the disks, recovers them and the metadata, and gives every core its
//! seat; then all cores serve. The main thread is control: it waits for signals and for the cores.
//!
//! - `plan`: what a start is told; `metadata`: where the metadata is.
//! - `core`: the life of a core; `host`: of the one that opens everything.

mod core;
mod host;
mod metadata;
mod plan;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anvil_model::ids::CoreId;
use anvil_model::profile::Profile;
use anvil_node::classes::Classes;
use anvil_node::encryption::Keys;
use anvil_node::metadata::batch::{Inbox, mailboxes};
use anvil_node::metadata::client::Mailboxes;
use anvil_node::repair::LostDisks;
use anvil_node::upkeep::{CurrentLife, Pressure};
use anvil_runtime::{Disk, OpenError};
use anvil_store::{Mail, ScrubOptions, Share};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use self::metadata::MetadataSource;
pub use self::plan::{AccessPlan, DiskPlan, MetadataPlan, Plan, StartError};
use crate::access::AccessKeeper;
use crate::auth::Authenticator;
use crate::config::{ClassChoice, EncryptionChoice};
use crate::data_dir::DataDir;
use crate::disk_control::DiskControl;
use crate::disks::{MissingDisk, Taken};
use crate::grpc::Gate;
use crate::listener::BindError;
use crate::metadata::threads::FILE_NAME;
use crate::regions::Regions;
use crate::routes::Readiness;
use crate::s3::Domains;
use crate::tasks::TaskKeeper;
use crate::telemetry::{
    MetadataFigures, Metrics, MetricsAllow, ProcessFigures, RepairBoard, StoreFigures, TaskFigures, UpkeepSamples,
    UsageFigures, WatchedDisks, watch_admission, watch_readiness,
};
use crate::tls::Tls;

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
    choice: ClassChoice,
    /// Known when the disks are.
    classes: OnceLock<Arc<Classes>>,
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
    gate: Gate,
    metrics_allow: Arc<MetricsAllow>,
    keeper: Arc<AccessKeeper>,
    tasks: Arc<TaskKeeper>,
    regions: Regions,
    task_figures: Arc<TaskFigures>,
    usage_figures: Arc<UsageFigures>,
    /// The core that works on tasks, besides.
    host: CoreId,
    metadata_figures: Arc<MetadataFigures>,
    upkeep: Arc<UpkeepSamples>,
    reclaim_delay: Duration,
    idle_timeout: Duration,
    upload_expiry: Option<Duration>,
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
    Serving { life: CurrentLife, ready: Ready },
    /// It came to nothing; everybody goes home.
    Failed,
}

/// A node that serves.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// The disks that it does without.
    pub missing: Vec<MissingDisk>,
    /// How it spreads objects of which nobody says otherwise.
    pub standard: Profile,
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

/// Runs the node until it is told to stop. `on_ready` is called once, when it serves.
///
/// # Errors
/// When it could not serve, or a core broke down.
pub fn run(plan: Plan, on_ready: impl FnOnce(&Ready)) -> Result<(), StartError> {
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
    watch_admission(&metrics, Arc::clone(&plan.gate.admission));
    let keeper = Arc::new(plan.access.start(&plan.metadata)?);
    let tasks = Arc::new(plan::start_tasks(&plan.metadata, &plan.region)?);
    let regions = plan::start_regions(&plan.metadata, &plan.region)?;
    let (source, metadata_threads) = MetadataSource::start(plan.metadata, &data, &readiness)?;
    let process = ProcessFigures::watched_by(&metrics, &data.path().join(FILE_NAME));
    let shared = Arc::new(Shared {
        data,
        paths: plan.disks.iter().map(|disk| disk.path.clone()).collect(),
        plans: plan.disks.into(),
        watched,
        disks,
        listen: plan.listen,
        tls: plan.tls.clone(),
        region: plan.region,
        choice: plan.classes,
        classes: OnceLock::new(),
        encryption: plan.encryption,
        keys: OnceLock::new(),
        domains: Arc::new(plan.domains),
        authenticator: plan.authenticator,
        readiness: Arc::clone(&readiness),
        figures: StoreFigures::watched_by(&metrics, core_count),
        disk_control: Arc::new(DiskControl::new(core_count)),
        repair: RepairBoard::watched_by(&metrics, core_count),
        gate: plan.gate,
        metrics_allow: plan.metrics_allow,
        keeper,
        tasks,
        regions,
        task_figures: TaskFigures::watched_by(&metrics),
        usage_figures: UsageFigures::watched_by(&metrics),
        host: plan.host,
        metadata_figures: MetadataFigures::watched_by(&metrics),
        upkeep: UpkeepSamples::watched_by(&metrics, core_count),
        metrics: Arc::clone(&metrics),
        reclaim_delay: plan.reclaim_delay,
        idle_timeout: plan.idle_timeout,
        upload_expiry: plan.upload_expiry,
        scrub: plan.scrub,
        repair_bytes_per_second: plan.repair_bytes_per_second,
        pressure: Pressure::new(),
        lost: LostDisks::new(),
        places: places(core_count, plan.host, source, failed),
        stage,
        stop: stopped,
    });
    let cores = anvil_runtime::start(plan.runtime, move |core| core::serve(core, Arc::clone(&shared)))?;
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
            ready = serving(staged) => {
                if let Some(ready) = ready {
                    let start_ms = began.elapsed().as_millis();
                    tracing::info!(addresses = ?ready.addresses, cores = core_count, start_ms, "serving");
                    on_ready(&ready);
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

/// Waits until the node serves; `None` when it never will.
async fn serving(mut stage: watch::Receiver<Stage>) -> Option<Ready> {
    let stage = stage.wait_for(|stage| !matches!(stage, Stage::Opening)).await.ok()?;
    match &*stage {
        Stage::Serving { ready, .. } => Some(ready.clone()),
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
