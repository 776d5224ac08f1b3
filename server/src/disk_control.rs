//! What an administrator may ask of the disks of a running node.
//!
//! [`DiskControl`] is the asking end: every core may hold it, and one order runs at a time. The answering end,
//! [`Keeper`], is a task of the host core; it alone changes what the cores think of a disk.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anvil_model::ids::DiskId;
use tokio::sync::{mpsc, oneshot};

use crate::telemetry::StoreFigures;

/// The way to the keeper of the disks.
#[derive(Debug)]
pub struct DiskControl {
    orders: mpsc::Sender<Order>,
    /// Taken by the keeper.
    inbox: Mutex<Option<mpsc::Receiver<Order>>>,
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

impl Default for DiskControl {
    fn default() -> Self {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        Self { orders, inbox: Mutex::new(Some(inbox)) }
    }
}

impl DiskControl {
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
    figures: Arc<StoreFigures>,
}

impl Keeper {
    /// A keeper of the disks that `figures` tell of.
    #[must_use]
    pub fn new(figures: Arc<StoreFigures>) -> Self {
        Self { figures }
    }

    /// Carries out `orders` for as long as there may be some.
    pub async fn run(self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.recv().await {
            // Whoever asked may have gone away.
            match order {
                Order::List(reply) => drop(reply.send(Ok(self.figures.disks()))),
                Order::Offline(name, reply) | Order::Online(name, reply) | Order::Replace { lost: name, reply, .. } => {
                    drop(reply.send(self.find(&name).and_then(|_| Err(not_yet()))));
                }
                Order::Adopt { reply, .. } => drop(reply.send(Err(not_yet()))),
            }
        }
    }

    fn find(&self, name: &DiskName) -> Result<DiskReport, DiskControlError> {
        let mut disks = self.figures.disks().into_iter();
        let found = disks.find(|report| match name {
            DiskName::Id(disk) => report.disk == *disk,
            DiskName::Path(path) => report.path == *path,
        });
        found.ok_or_else(|| DiskControlError::Unknown(name.clone()))
    }
}

fn not_yet() -> DiskControlError {
    let sentence = "this version changes its disks at a start only: stop the node, and start it with other disks";
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
