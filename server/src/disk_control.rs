//! What an administrator may ask of the disks of a running node.
//!
//! [`DiskControl`] is the asking end: every core may hold it, and one order runs at a time. The answering end,
//! [`Keeper`], is a task of the host core. It alone decides, and tells every core what to think of a disk.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anvil_model::ids::{CoreId, DiskId};
use anvil_model::io::{DeviceError, World};
use anvil_model::profile::Profile;
use anvil_store::Store;
use tokio::sync::{mpsc, oneshot};

use crate::telemetry::StoreFigures;

/// The way to the keeper of the disks.
#[derive(Debug)]
pub struct DiskControl {
    orders: mpsc::Sender<Order>,
    /// Taken by the keeper.
    inbox: Mutex<Option<mpsc::Receiver<Order>>>,
    /// To each core.
    changes: Vec<mpsc::Sender<Change>>,
    /// Taken by the cores.
    inboxes: Vec<Mutex<Option<mpsc::Receiver<Change>>>>,
}

/// What a core is told of a disk.
#[derive(Debug)]
struct Change {
    disk: DiskId,
    online: bool,
    done: oneshot::Sender<Result<(), DeviceError>>,
}

/// A disk as an administrator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskName {
    /// By its id.
    Id(DiskId),
    /// By the path at which it was seen last.
    Path(PathBuf),
}

/// What is told of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskReport {
    /// Drawn when it was formatted.
    pub disk: DiskId,
    /// Where it is, or was seen last.
    pub path: PathBuf,
    /// How it is used.
    pub state: DiskState,
    /// Why it is not online, if an error is the reason. One sentence.
    pub error: Option<String>,
    /// What it may grow to; 0 when it is not there.
    pub capacity_bytes: u64,
    /// In extents that hold records.
    pub used_bytes: u64,
}

/// How a disk is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskState {
    /// Read and written.
    Online,
    /// Not written in this life of the node, by order or after an error; read where it answers.
    Offline,
    /// Known to the node, and not there.
    Missing,
    /// Given up: another disk took its place, and what it held is made again elsewhere.
    Lost,
}

/// Why an order was not carried out. Each text is one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskControlError {
    /// None of the node's disks has this name.
    #[error("this node has no disk {0}")]
    Unknown(DiskName),
    /// Not in the state that things are in; the sentence says what to do.
    #[error("{0}")]
    Refused(String),
    /// It was tried, and failed; nothing has changed.
    #[error("{0}")]
    Failed(String),
    /// The node starts or stops.
    #[error("the node takes no orders for its disks at this moment: try again")]
    Busy,
}

/// One order, with the way back of its answer.
#[derive(Debug)]
pub enum Order {
    /// All disks that the node knows, by path.
    List(Reply<Vec<DiskReport>>),
    /// No more writes; reads where the device answers.
    Offline(DiskName, Reply<DiskReport>),
    /// Takes writes again.
    Online(DiskName, Reply<DiskReport>),
    /// The blank disk at `path` takes the place of a disk that is lost.
    Replace {
        /// The lost one.
        lost: DiskName,
        /// Where the blank one is; `None` for the place of the lost one.
        path: Option<PathBuf>,
        /// Answers with the new disk.
        reply: Reply<DiskReport>,
    },
    /// Takes over a disk of this cluster that was moved here.
    Adopt {
        /// Where it is.
        path: PathBuf,
        /// Answers with it.
        reply: Reply<DiskReport>,
    },
}

/// The way back of an answer.
pub type Reply<T> = oneshot::Sender<Result<T, DiskControlError>>;

/// Orders that wait, at most.
const ORDERS_MAX: usize = 16;

impl DiskControl {
    /// The way to the disks of a node of so many cores.
    #[must_use]
    pub fn new(core_count: u16) -> Self {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let (changes, inboxes) = (0..core_count).map(|_| mpsc::channel(1)).unzip::<_, _, Vec<_>, Vec<_>>();
        let inboxes = inboxes.into_iter().map(|inbox| Mutex::new(Some(inbox))).collect();
        Self { orders, inbox: Mutex::new(Some(inbox)), changes, inboxes }
    }

    /// Does on a core what its keeper says, for as long as the future is polled. Runs once on each core.
    pub async fn obey<W: World>(&self, core: CoreId, store: &Store<W>) {
        let inbox = self.inboxes[usize::from(core.0)].lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut inbox = inbox.expect("once on each core");
        while let Some(Change { disk, online, done }) = inbox.recv().await {
            let changed = if online {
                store.set_online(disk)
            } else {
                store.set_offline(disk);
                Ok(())
            };
            // The keeper may be gone.
            let _ = done.send(changed);
        }
    }

    /// Tells all cores, and waits until they know. A core that is gone writes nothing any more.
    async fn tell(&self, disk: DiskId, online: bool) -> Result<(), DeviceError> {
        let mut outcome = Ok(());
        for core in &self.changes {
            let (done, answer) = oneshot::channel();
            if core.send(Change { disk, online, done }).await.is_ok() {
                outcome = outcome.and(answer.await.unwrap_or(Ok(())));
            }
        }
        outcome
    }

    /// The orders to carry out. Whoever calls it first gets them.
    pub fn take_orders(&self) -> Option<mpsc::Receiver<Order>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// See [`Order::List`].
    ///
    /// # Errors
    /// When the node takes no orders.
    pub async fn list(&self) -> Result<Vec<DiskReport>, DiskControlError> {
        self.ask(Order::List).await
    }

    /// See [`Order::Offline`].
    ///
    /// # Errors
    /// When there is no such disk, or too few would be left.
    pub async fn offline(&self, disk: DiskName) -> Result<DiskReport, DiskControlError> {
        self.ask(|reply| Order::Offline(disk, reply)).await
    }

    /// See [`Order::Online`].
    ///
    /// # Errors
    /// When there is no such disk, or it cannot be written.
    pub async fn online(&self, disk: DiskName) -> Result<DiskReport, DiskControlError> {
        self.ask(|reply| Order::Online(disk, reply)).await
    }

    /// See [`Order::Replace`].
    ///
    /// # Errors
    /// When there is no such disk, it is in use, or what is at the path is not blank.
    pub async fn replace(&self, lost: DiskName, path: Option<PathBuf>) -> Result<DiskReport, DiskControlError> {
        self.ask(|reply| Order::Replace { lost, path, reply }).await
    }

    /// See [`Order::Adopt`].
    ///
    /// # Errors
    /// When what is at the path is no disk of this cluster, or is in use.
    pub async fn adopt(&self, path: PathBuf) -> Result<DiskReport, DiskControlError> {
        self.ask(|reply| Order::Adopt { path, reply }).await
    }

    async fn ask<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Result<T, DiskControlError> {
        let (reply, answer) = oneshot::channel();
        // A full queue lets them wait, for as long as their callers do.
        self.orders.send(order(reply)).await.map_err(|_| DiskControlError::Busy)?;
        answer.await.map_err(|_| DiskControlError::Busy)?
    }
}

/// Carries out orders, one after another, on the host core.
#[derive(Debug)]
pub struct Keeper {
    control: Arc<DiskControl>,
    figures: Arc<StoreFigures>,
    /// Of the class STANDARD: it says how many disks the node can do without.
    standard: Profile,
    /// Those that were taken out of use by order; the figures may be a second older.
    offline: BTreeSet<DiskId>,
}

impl Keeper {
    /// A keeper of the disks that `figures` tell of.
    #[must_use]
    pub fn new(control: Arc<DiskControl>, figures: Arc<StoreFigures>, standard: Profile) -> Self {
        Self { control, figures, standard, offline: BTreeSet::new() }
    }

    /// Carries out orders for as long as the future is polled.
    pub async fn run(mut self) {
        let Some(mut orders) = self.control.take_orders() else { return };
        while let Some(order) = orders.recv().await {
            // Whoever asked may have gone away.
            match order {
                Order::List(reply) => drop(reply.send(Ok(self.disks()))),
                Order::Offline(name, reply) => drop(reply.send(self.take_offline(&name).await)),
                Order::Online(name, reply) => drop(reply.send(self.take_online(&name).await)),
                Order::Replace { lost, reply, .. } => {
                    drop(reply.send(self.find(&lost).and_then(|_| Err(at_a_start()))));
                }
                Order::Adopt { reply, .. } => drop(reply.send(Err(at_a_start()))),
            }
        }
    }

    fn disks(&self) -> Vec<DiskReport> {
        let mut disks = self.figures.disks();
        for report in disks.iter_mut().filter(|report| report.error.is_none()) {
            let used = matches!(report.state, DiskState::Online | DiskState::Offline);
            if used {
                let is_offline = self.offline.contains(&report.disk);
                report.state = if is_offline { DiskState::Offline } else { DiskState::Online };
            }
        }
        disks
    }

    fn find(&self, name: &DiskName) -> Result<DiskReport, DiskControlError> {
        let found = self.disks().into_iter().find(|report| match name {
            DiskName::Id(disk) => report.disk == *disk,
            DiskName::Path(path) => report.path == *path,
        });
        found.ok_or_else(|| DiskControlError::Unknown(name.clone()))
    }

    async fn take_offline(&mut self, name: &DiskName) -> Result<DiskReport, DiskControlError> {
        let report = self.find(name)?;
        match (report.state, &report.error) {
            (DiskState::Online, _) => {}
            (DiskState::Offline, None) => return Ok(report),
            (state, _) => return Err(DiskControlError::Refused(format!("the disk is {} already", state.word()))),
        }
        let away = self.disks().iter().filter(|report| report.state != DiskState::Online).count();
        if away >= usize::from(self.standard.parity) {
            return Err(DiskControlError::Refused(format!(
                "{away} disks are out of use, and with the profile {} the node cannot do without another one",
                self.standard
            )));
        }
        let disk = report.disk;
        self.offline.insert(disk);
        // It takes effect core by core; no core refuses it.
        let _ = self.control.tell(disk, false).await;
        tracing::warn!(%disk, path = %report.path.display(), "the disk is out of use, by order");
        Ok(DiskReport { state: DiskState::Offline, ..report })
    }

    async fn take_online(&mut self, name: &DiskName) -> Result<DiskReport, DiskControlError> {
        let report = self.find(name)?;
        match report.state {
            DiskState::Online => return Ok(report),
            DiskState::Offline => {}
            state => {
                return Err(DiskControlError::Refused(format!("the disk is {}: mount or replace it", state.word())));
            }
        }
        let disk = report.disk;
        self.control.tell(disk, true).await.map_err(|error| {
            let sentence = format!("the disk failed ({error}), and takes no writes until the node starts anew");
            DiskControlError::Refused(sentence)
        })?;
        self.offline.remove(&disk);
        tracing::info!(%disk, path = %report.path.display(), "the disk is in use again, by order");
        Ok(DiskReport { state: DiskState::Online, ..report })
    }
}

fn at_a_start() -> DiskControlError {
    let sentence = "this version takes other disks into use at a start only: stop the node, and name them with --disk";
    DiskControlError::Refused(sentence.to_owned())
}

impl std::fmt::Display for DiskName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(disk) => disk.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl std::str::FromStr for DiskName {
    type Err = InvalidDiskName;

    /// 32 hexadecimal digits are an id, what begins with `/` is a path.
    fn from_str(text: &str) -> Result<Self, InvalidDiskName> {
        match text.parse() {
            Ok(disk) => Ok(Self::Id(disk)),
            Err(_) if text.starts_with('/') && !text.contains('\0') => Ok(Self::Path(text.into())),
            Err(_) => Err(InvalidDiskName),
        }
    }
}

/// The text names no disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a disk is named by its id (32 hexadecimal digits) or by an absolute path")]
pub struct InvalidDiskName;

impl DiskState {
    /// In one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Missing => "missing",
            Self::Lost => "lost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_named_by_id_or_absolute_path() {
        let id = "0123456789abcdef0123456789abcdef";
        assert!(matches!(id.parse(), Ok(DiskName::Id(disk)) if disk.to_string() == id));
        assert_eq!("/a b".parse(), Ok(DiskName::Path("/a b".into())));
        for wrong in ["", "a", "0123", "./a", "/a\0b"] {
            assert_eq!(wrong.parse::<DiskName>(), Err(InvalidDiskName), "{wrong:?}");
        }
    }
}
