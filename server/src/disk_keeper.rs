//! Who decides about the disks of a running node: one task, on the host core, one order after another.
//!
//! What it decides is durable before anybody acts on it: first in the data directory, then on the disks. A crash between any
//! two steps leaves a node that starts: a disk that was given up stays so, one that was formatted and had not joined yet joins
//! at the start.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anvil_model::ids::{CoreId, DiskId};
use anvil_model::io::{DeviceError, World as _};
use anvil_model::limits::ROSTER_DISKS_MAX;
use anvil_model::profile::Profile;
use anvil_node::repair::LostDisks;
use anvil_runtime::{Core, Disk, DiskOptions, OpenError};
use anvil_store::{DiskIdentity, Identity as Content, JoinError, Store, identify};
use futures_util::future::{Either, select};
use tokio::sync::oneshot;

use crate::data_dir::DataDir;
use crate::disk_control::{Change, DiskControl, DiskControlError, DiskName, DiskReport, DiskState, Order};
use crate::disks::{self, MissingDisk};
use crate::identity::Identity;
use crate::start::DiskPlan;
use crate::telemetry::{DiskNames, StoreFigures, WatchedDisks};

/// Carries out orders, one after another, on the host core.
pub struct Keeper {
    core: Core,
    store: Store<Core>,
    parts: KeeperParts,
    /// As it is kept in the data directory.
    identity: Identity,
    /// Those that were taken out of use by order; the figures may be a second older.
    offline: BTreeSet<DiskId>,
    /// Those that were given up in this life and of which nothing is left to do.
    forgotten: BTreeSet<DiskId>,
}

/// What a keeper works with.
#[derive(Clone, Debug)]
pub struct KeeperParts {
    /// Where the node keeps what it knows of itself.
    pub data: Arc<DataDir>,
    /// The disks that were named at the start, and how they are opened.
    pub plans: Arc<[DiskPlan]>,
    /// The way to all cores.
    pub control: Arc<DiskControl>,
    /// What the cores tell of the disks.
    pub figures: Arc<StoreFigures>,
    /// What the runtime tells of them.
    pub watched: WatchedDisks,
    /// What is to be made again.
    pub lost: LostDisks,
    /// Of the class STANDARD: it says how many disks the node can do without.
    pub standard: Profile,
}

/// After the data directory took nothing.
const RETRY: Duration = Duration::from_secs(10);

type Outcome<T> = Result<T, DiskControlError>;

impl Keeper {
    /// A keeper of the disks of a node that knows this of itself. Tells the figures how they are called.
    #[must_use]
    pub fn new(core: Core, store: Store<Core>, parts: KeeperParts, identity: Identity) -> Self {
        let keeper = Self { core, store, parts, identity, offline: BTreeSet::new(), forgotten: BTreeSet::new() };
        keeper.name_disks();
        keeper
    }

    /// Carries out orders for as long as the future is polled, and forgets disks of which nothing is left to do.
    pub async fn run(mut self) {
        let Some(mut orders) = self.parts.control.take_orders() else { return };
        let lost = self.parts.lost.clone();
        loop {
            let cleared = pin!(lost.cleared(self.core.core_count()));
            match select(pin!(orders.recv()), cleared).await {
                Either::Left((Some(order), _)) => self.carry_out(order).await,
                Either::Left((None, _)) => return,
                Either::Right((disks, _)) => self.forget(&disks).await,
            }
        }
    }

    async fn carry_out(&mut self, order: Order) {
        // Whoever asked may have gone away.
        match order {
            Order::List(reply) => drop(reply.send(Ok(self.disks()))),
            Order::Offline(name, reply) => drop(reply.send(self.take_offline(&name).await)),
            Order::Online(name, reply) => drop(reply.send(self.take_online(&name).await)),
            Order::Replace { lost, path, reply } => drop(reply.send(self.replace(&lost, path).await)),
            Order::Adopt { path, reply } => drop(reply.send(self.adopt(path).await)),
        }
    }

    fn disks(&self) -> Vec<DiskReport> {
        let mut disks = self.parts.figures.disks();
        let views = self.store.disks();
        for report in disks.iter_mut().filter(|report| report.state == DiskState::Online) {
            // The figures may be a second older.
            let view = views.iter().find(|view| view.id == report.disk).map(|view| view.state);
            if let Some(anvil_store::DiskState::Failed(error)) = view
                && error != DeviceError::Offline
            {
                (report.state, report.error) = (DiskState::Offline, Some(error.to_string()));
            }
        }
        for report in disks.iter_mut().filter(|report| report.error.is_none()) {
            let used = matches!(report.state, DiskState::Online | DiskState::Offline);
            if used {
                let is_offline = self.offline.contains(&report.disk);
                report.state = if is_offline { DiskState::Offline } else { DiskState::Online };
            }
        }
        disks
    }

    /// A disk by its name. A path names the disk that is there before one that was given up.
    fn find(&self, name: &DiskName) -> Outcome<DiskReport> {
        let named = self.disks().into_iter().filter(|report| match name {
            DiskName::Id(disk) => report.disk == *disk,
            DiskName::Path(path) => report.path == *path,
        });
        let found = named.min_by_key(|report| report.state == DiskState::Lost);
        found.ok_or_else(|| DiskControlError::Unknown(name.clone()))
    }

    /// Disks other than this one that are not in use, or whose shards are not all made again.
    fn away(&self, but: DiskId) -> usize {
        self.disks().iter().filter(|report| report.state != DiskState::Online && report.disk != but).count()
    }

    async fn take_offline(&mut self, name: &DiskName) -> Outcome<DiskReport> {
        let report = self.find(name)?;
        match (report.state, &report.error) {
            (DiskState::Online, _) => {}
            (DiskState::Offline, None) => return Ok(report),
            (state, _) => return refused(format!("the disk is {} already", state.word())),
        }
        let away = self.away(report.disk);
        if away >= usize::from(self.parts.standard.parity) {
            return refused(format!(
                "{away} disks are out of use, and with the profile {} the node cannot do without another one",
                self.parts.standard
            ));
        }
        let disk = report.disk;
        self.offline.insert(disk);
        // It takes effect core by core; no core refuses it.
        let _ = self.parts.control.tell_all(|| Change::Offline(disk)).await;
        tracing::warn!(%disk, path = %report.path.display(), "the disk is out of use, by order");
        Ok(DiskReport { state: DiskState::Offline, ..report })
    }

    async fn take_online(&mut self, name: &DiskName) -> Outcome<DiskReport> {
        let report = self.find(name)?;
        match report.state {
            DiskState::Online => return Ok(report),
            DiskState::Offline => {}
            DiskState::Lost => return refused("the disk was given up, and what it held is made again elsewhere"),
            DiskState::Missing => return refused("the disk is missing: adopt it where it is, or replace it"),
        }
        let disk = report.disk;
        self.parts.control.tell_all(|| Change::Online(disk)).await.map_err(|error| {
            DiskControlError::Refused(format!(
                "the disk failed ({error}), and takes no writes until the node starts anew: replace it if it is lost"
            ))
        })?;
        self.offline.remove(&disk);
        tracing::info!(%disk, path = %report.path.display(), "the disk is in use again, by order");
        Ok(DiskReport { state: DiskState::Online, ..report })
    }

    /// A disk is given up, and a blank one takes its place.
    async fn replace(&mut self, name: &DiskName, path: Option<PathBuf>) -> Outcome<DiskReport> {
        let report = self.find(name)?;
        let away = self.away(report.disk);
        match (report.state, &report.error) {
            (DiskState::Online, _) => {
                return refused(
                    "the disk is online: what is in use is not given up; take it offline first, if it is to go",
                );
            }
            (DiskState::Offline, None) if away >= usize::from(self.parts.standard.parity) => {
                return refused(format!(
                    "{away} other disks are away or not made again yet, and what this one holds may be all that is \
                     left of some objects: wait for the repair of those"
                ));
            }
            (DiskState::Offline | DiskState::Missing | DiskState::Lost, _) => {}
        }
        let path = path.unwrap_or_else(|| report.path.clone());
        if path.as_os_str().is_empty() {
            return refused("nobody knows where the disk was: say where the blank one is, with --path");
        }
        if let Some(other) = self.identity.known().find(|known| known.path == path && known.disk != report.disk) {
            return refused(format!("{} is the path of disk {}: name another one", path.display(), other.disk));
        }
        if self.identity.lost.len() >= ROSTER_DISKS_MAX || self.identity.known().count() >= ROSTER_DISKS_MAX {
            return refused("the node knows too many disks: wait until what was lost is made again");
        }
        let options = DiskOptions { create: true, ..self.options(&report.path) };
        let opened = open(path.clone(), options).await?;
        match self.look(&path, &opened).await? {
            Content::Blank => {}
            Content::Anvil(DiskIdentity { disk, .. }) => {
                return refused(format!(
                    "{} holds disk {disk}, and only a blank disk takes the place of another: empty it first, or name \
                     another path",
                    path.display()
                ));
            }
            Content::Foreign => return refused(foreign(&path)),
        }

        if report.state != DiskState::Lost {
            self.give_up(&report).await?;
        }
        let device = opened.device(&self.core);
        let formatted = disks::format_blank(&self.core, &path, &device, self.identity.cluster).await;
        drop(device);
        let disk = formatted.map_err(|error| DiskControlError::Failed(error.to_string()))?;
        self.join(disk, &path, opened).await
    }

    /// The disk is lost, durably, from now on.
    async fn give_up(&mut self, report: &DiskReport) -> Outcome<()> {
        let disk = report.disk;
        let mut identity = self.without(disk);
        identity.lost.push(MissingDisk { disk, path: report.path.clone() });
        self.keep(identity).await?;
        // One that is not there takes no writes anyhow.
        if self.store.disks().iter().any(|view| view.id == disk) {
            let _ = self.parts.control.tell_all(|| Change::Offline(disk)).await;
        }
        self.parts.lost.set(self.identity.lost.iter().map(|lost| lost.disk).collect());
        tracing::warn!(%disk, path = %report.path.display(), "the disk was given up, by order");
        Ok(())
    }

    /// A disk of this cluster that is not in use is taken in.
    async fn adopt(&mut self, path: PathBuf) -> Outcome<DiskReport> {
        let opened = open(path.clone(), DiskOptions { create: false, ..self.options(&path) }).await?;
        let at = path.display();
        let found = match self.look(&path, &opened).await? {
            Content::Anvil(found) => found,
            Content::Blank => {
                return refused(format!("{at} is blank: a blank disk takes the place of a lost one, with replace"));
            }
            Content::Foreign => return refused(foreign(&path)),
        };
        let disk = found.disk;
        if found.cluster != self.identity.cluster {
            return refused(format!(
                "the disk at {at} belongs to another cluster ({:032x}; this node's is {:032x}): empty it, or name \
                 another path",
                found.cluster, self.identity.cluster
            ));
        }
        if found.roster.generation > self.identity.generation {
            return refused(format!("disk {disk} knows of later changes than this node: start the node anew with it"));
        }
        if disks::is_given_up(&self.identity, &found) {
            return refused(format!(
                "disk {disk} was given up, and what it held is made again elsewhere: empty it, and replace another one \
                 with it"
            ));
        }
        if let Some(known) = self.store.disks().iter().find(|view| view.id == disk) {
            return refused(match known.state {
                anvil_store::DiskState::Online => {
                    format!("disk {disk} is in use already, and what is at {at} is a copy of it: empty it")
                }
                anvil_store::DiskState::Failed(_) => format!(
                    "disk {disk} went out of use while the node ran: put it online again, or start the node anew with it \
                     if it failed"
                ),
            });
        }
        if self.identity.known().filter(|known| known.disk != disk).count() >= ROSTER_DISKS_MAX {
            return refused("the node knows too many disks");
        }
        self.join(disk, &path, opened).await
    }

    /// A disk that is ours joins the running node.
    async fn join(&mut self, disk: DiskId, path: &Path, opened: Disk) -> Outcome<DiskReport> {
        let mut identity = self.without(disk);
        identity.disks.insert(path.to_owned(), disk);
        let device = opened.device(&self.core);
        let joining = self.store.prepare_disk(disk, &device, identity.roster()).await.map_err(|error| match error {
            JoinError::Recover(error) => DiskControlError::Failed(error.to_string()),
            error => DiskControlError::Refused(error.to_string()),
        })?;
        let capacity_bytes = opened.geometry().capacity_bytes_max;
        drop(device);
        // All disks know of it before it holds what only it has.
        self.keep(identity).await?;
        self.parts.watched.add(path.display().to_string(), Arc::clone(opened.stats()));
        let control = &self.parts.control;
        let stops = |_| DiskControlError::Busy;
        for (core, joining) in (0..).map(CoreId).zip(joining) {
            control.tell(core, Change::Add(opened.clone(), Box::new(joining))).await.map_err(stops)?;
        }
        control.tell_all(|| Change::Enter(disk)).await.map_err(stops)?;
        control.tell_all(|| Change::Open(disk)).await.map_err(stops)?;
        self.name_disks();
        tracing::info!(%disk, path = %path.display(), "the disk has joined; name it at the next start");
        Ok(DiskReport {
            disk,
            path: path.to_owned(),
            state: DiskState::Online,
            error: None,
            capacity_bytes,
            used_bytes: 0,
            slow: false,
        })
    }

    /// Nothing names these disks any more.
    async fn forget(&mut self, disks: &BTreeSet<DiskId>) {
        let mut identity = self.identity.clone();
        identity.lost.retain(|lost| !disks.contains(&lost.disk));
        identity.generation += 1;
        if let Err(error) = self.keep(identity).await {
            tracing::error!(%error, "what was made again is not written down yet");
            self.core.sleep(RETRY).await;
            return;
        }
        self.forgotten.extend(disks);
        self.parts.lost.set(self.identity.lost.iter().map(|lost| lost.disk).collect());
        self.name_disks();
        for disk in disks {
            tracing::info!(%disk, "all that could be made again of the lost disk is elsewhere; it is forgotten");
        }
    }

    /// What the node will know of itself next, without this disk.
    fn without(&self, disk: DiskId) -> Identity {
        let mut identity = self.identity.clone();
        identity.disks.retain(|_, other| *other != disk);
        identity.missing.retain(|missing| missing.disk != disk);
        identity.generation += 1;
        identity
    }

    /// Makes it durable in the data directory, and then on the disks.
    async fn keep(&mut self, identity: Identity) -> Outcome<()> {
        let (data, kept) = (Arc::clone(&self.parts.data), identity.clone());
        let written = aside(move || kept.write(&data)).await;
        written.map_err(|error| DiskControlError::Failed(error.to_string()))?;
        self.identity = identity;
        let roster = self.identity.roster();
        // A disk that fails is named in the log, and a core that is gone has closed its disks.
        let _ = self.parts.control.tell_all(|| Change::Enroll(roster.clone())).await;
        self.name_disks();
        Ok(())
    }

    /// Says everywhere which disks there are. One that could not be read at the start is as good as missing.
    fn name_disks(&self) {
        let used: BTreeSet<DiskId> = self.store.disks().into_iter().map(|view| view.id).collect();
        let (here, useless): (Vec<_>, Vec<_>) = self.identity.disks.iter().partition(|(_, disk)| used.contains(*disk));
        let useless = useless.into_iter().map(|(path, &disk)| MissingDisk { disk, path: path.clone() });
        self.parts.figures.name(DiskNames {
            here: here.into_iter().map(|(path, &disk)| (disk, path.display().to_string())).collect(),
            missing: self.identity.missing.iter().cloned().chain(useless).collect(),
            lost: self.identity.lost.clone(),
            forgotten: self.forgotten.clone(),
        });
    }

    /// How the disk at this path was to be opened at the start.
    fn options(&self, path: &Path) -> DiskOptions {
        let plan = self.parts.plans.iter().find(|plan| plan.path == path);
        plan.map(|plan| plan.options.clone()).unwrap_or_default()
    }

    async fn look(&self, path: &Path, disk: &Disk) -> Outcome<Content> {
        let device = disk.device(&self.core);
        let found = identify(&self.core, &device).await;
        found.map_err(|error| {
            DiskControlError::Failed(format!("the disk at {} cannot be read: {error}", path.display()))
        })
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("identity", &self.identity).finish_non_exhaustive()
    }
}

fn refused<T>(sentence: impl Into<String>) -> Outcome<T> {
    Err(DiskControlError::Refused(sentence.into()))
}

fn foreign(path: &Path) -> String {
    format!("{} holds data that is not Anvil's: empty it, or name another path", path.display())
}

async fn open(path: PathBuf, options: DiskOptions) -> Outcome<Disk> {
    let opened = aside(move || Disk::open(&path, &options)).await;
    opened.map_err(|error| match error {
        error @ OpenError::Io { .. } => DiskControlError::Failed(error.to_string()),
        error => DiskControlError::Refused(error.to_string()),
    })
}

/// Does what blocks on a thread of its own: it is seldom, and a core never waits.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, outcome) = oneshot::channel();
    std::thread::spawn(move || drop(done.send(work())));
    outcome.await.expect("what is done aside does not panic")
}
