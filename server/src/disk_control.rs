//! What an administrator may ask of the disks of a running node.
//!
//! [`DiskControl`] is the asking end: every core may hold it, and one order runs at a time. The answering end,
//! [`Keeper`](crate::disk_keeper::Keeper), is a task of the host core. It alone decides, and tells every core what to do
//! with a disk ([`Change`]).

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anvil_model::ids::{CoreId, DiskId};
use anvil_model::io::{DeviceError, World as _};
use anvil_runtime::{Core, Disk};
use anvil_store::{Joining, Roster, Store};
use tokio::sync::{mpsc, oneshot};

/// The way to the keeper of the disks.
#[derive(Debug)]
pub struct DiskControl {
    orders: mpsc::Sender<Order>,
    /// Taken by the keeper.
    inbox: Inbox<Order>,
    /// To each core.
    changes: Vec<mpsc::Sender<(Change, Done)>>,
    /// Taken by the cores.
    inboxes: Vec<Inbox<(Change, Done)>>,
}

/// Until somebody takes it.
type Inbox<T> = Mutex<Option<mpsc::Receiver<T>>>;

/// What a core is to do with a disk.
#[derive(Debug)]
pub enum Change {
    /// Takes writes again.
    Online(DiskId),
    /// No more writes.
    Offline(DiskId),
    /// It joins; see [`Store::add_disk`].
    Add(Disk, Box<Joining>),
    /// See [`Store::enter_disk`].
    Enter(DiskId),
    /// See [`Store::open_disk`].
    Open(DiskId),
    /// See [`Store::enroll`].
    Enroll(Roster),
}

/// The way back of what came of a change.
type Done = oneshot::Sender<Result<(), DeviceError>>;

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
    /// Much slower than the others: it is read last.
    pub slow: bool,
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
    /// The disk is given up for good, and the blank one at `path` takes its place.
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
    pub async fn obey(&self, core: &Core, store: &Store<Core>) {
        let inbox = self.inboxes[usize::from(core.core().0)].lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut inbox = inbox.expect("once on each core");
        while let Some((change, done)) = inbox.recv().await {
            // The keeper may be gone.
            let _ = done.send(change.carry_out(core, store).await);
        }
    }

    /// Tells a core, and waits until it has done so.
    ///
    /// # Errors
    /// [`DeviceError::Gone`] when the core serves no more: the node stops. Otherwise that of the change.
    pub async fn tell(&self, core: CoreId, change: Change) -> Result<(), DeviceError> {
        let (done, answer) = oneshot::channel();
        let told = self.changes[usize::from(core.0)].send((change, done)).await;
        told.map_err(|_| DeviceError::Gone)?;
        answer.await.unwrap_or(Err(DeviceError::Gone))
    }

    /// Tells all cores, one after the other, and waits until they know.
    ///
    /// # Errors
    /// The first one of [`Self::tell`], when all have heard.
    pub async fn tell_all(&self, change: impl Fn() -> Change) -> Result<(), DeviceError> {
        let mut outcome = Ok(());
        for core in (0..).map(CoreId).take(self.changes.len()) {
            outcome = outcome.and(self.tell(core, change()).await);
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

impl Change {
    async fn carry_out(self, core: &Core, store: &Store<Core>) -> Result<(), DeviceError> {
        match self {
            Self::Online(disk) => return store.set_online(disk),
            Self::Offline(disk) => store.set_offline(disk),
            Self::Add(disk, joining) => store.add_disk(disk.device(core), *joining),
            Self::Enter(disk) => store.enter_disk(disk).await,
            Self::Open(disk) => store.open_disk(disk),
            Self::Enroll(roster) => {
                for (disk, error) in store.enroll(&roster).await {
                    tracing::warn!(%disk, %error, "the disk was not told which disks there are");
                }
            }
        }
        Ok(())
    }
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
