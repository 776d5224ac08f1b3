//! What crosses cores: a bounded mailbox per core, and the task that answers it.
//!
//! Answering never waits: what takes time (a flush, growing) is a task of its own, and a reply's place exists before
//! its request is sent. So no two cores can wait for each other's mailboxes.

use std::rc::Rc;

use anvil_model::ids::{BlobId, CellId, CoreId};
use anvil_model::io::{DeviceError, World};
use tokio::sync::{mpsc, oneshot};

use crate::account::Dead;
use crate::index::Move;
use crate::read::{Doubtful, Located};
use crate::recall::Heir;
use crate::space::{ExtentRequest, Sealed};
use crate::store::Inner;

/// Messages that wait in one mailbox, at most; a sender waits while it is full.
const MAILBOX_MESSAGES_MAX: usize = 256;

/// One core's mailbox and the addresses of all others. Made once per start by [`mail`], one per core.
#[derive(Debug)]
pub struct Mail {
    pub(crate) core: CoreId,
    pub(crate) mailbox: mpsc::Receiver<Message>,
    pub(crate) addresses: Vec<mpsc::Sender<Message>>,
}

/// The mailboxes of a node with so many cores, in the order of its cores.
///
/// # Panics
/// When there is no core.
#[must_use]
pub fn mail(core_count: u16) -> Vec<Mail> {
    assert!(core_count > 0, "a node has at least one core");
    let (addresses, mailboxes): (Vec<_>, Vec<_>) = (0..core_count).map(|_| mpsc::channel(MAILBOX_MESSAGES_MAX)).unzip();
    let cores = (0..core_count).map(CoreId);
    cores.zip(mailboxes).map(|(core, mailbox)| Mail { core, mailbox, addresses: addresses.clone() }).collect()
}

/// What a core asks of another.
#[derive(Debug)]
pub(crate) enum Message {
    /// Where do the cells of the window that holds this byte lie?
    Locate { blob: BlobId, offset: u64, doubtful: Vec<Doubtful>, reply: oneshot::Sender<Option<Located>> },
    /// An extent of a disk whose home is there.
    Extent { disk: u16, request: ExtentRequest },
    /// A flush of a disk whose home is there.
    Flush { disk: u16, reply: oneshot::Sender<Result<(), DeviceError>> },
    /// A disk whose home is there shall hold records that ask for these features.
    Allow { disk: u16, features: u64, reply: oneshot::Sender<Result<(), DeviceError>> },
    /// The extents of the metadata log on a disk whose home is there, with their incarnations.
    LogExtents { disk: u16, reply: oneshot::Sender<Vec<(u32, u64)>> },
    /// These records of an extent: which of them does the index need?
    Live { question: LiveQuestion, reply: oneshot::Sender<LiveAnswer> },
    /// These cells were copied: change their places, unless they are dead meanwhile. The answer says which were changed.
    Moved { moves: Vec<Move>, reply: oneshot::Sender<Vec<bool>> },
    /// The extent is free on the disk. What these blobs had there is forgotten before it is put to use again.
    Freed { disk: u16, extent: u32, blobs: Vec<BlobId>, free_bytes: u64, reply: oneshot::Sender<()> },
    /// These records of a disk whose home is there are dead.
    Dead { disk: u16, dead: Vec<Dead> },
    /// An extent of a disk whose home is there has its footer.
    Sealed { disk: u16, sealed: Sealed },
    /// An extent that is filled there goes back to its disk's home.
    Recall { disk: u16, extent: u32, incarnation: u64, heir: Heir },
    /// Nothing is written to this disk any more in this life.
    Failed { disk: u16, error: DeviceError },
    /// The sender has closed and asks for nothing more but places.
    Closed { core: CoreId, heard: oneshot::Sender<()> },
}

/// Records of an extent that are at home on one core.
#[derive(Debug)]
pub(crate) struct LiveQuestion {
    pub(crate) disk: u16,
    pub(crate) extent: u32,
    pub(crate) incarnation: u64,
    /// Each with its offset.
    pub(crate) records: Vec<(CellId, u32)>,
}

#[derive(Debug)]
pub(crate) struct LiveAnswer {
    /// Of each record.
    pub(crate) live: Vec<bool>,
    /// The index has no other cells in the extent.
    pub(crate) complete: bool,
}

/// Answers the other cores until all of them are gone.
pub(crate) async fn serve<W: World>(inner: Rc<Inner<W>>, mut mailbox: mpsc::Receiver<Message>) {
    while let Some(message) = mailbox.recv().await {
        match message {
            Message::Locate { blob, offset, doubtful, reply } => {
                // Nobody waits for the places any more when this fails.
                let _ = reply.send(inner.find_live(blob, offset, &doubtful));
            }
            Message::Allow { disk, features, reply } => inner.request_features(disk, features, reply),
            Message::Extent { disk, request } => inner.request_extent(disk, request),
            Message::Flush { disk, reply } => inner.request_flush(disk, reply),
            Message::LogExtents { disk, reply } => {
                let _ = reply.send(inner.log_extents(disk));
            }
            Message::Live { question, reply } => {
                let _ = reply.send(inner.answer_live(&question));
            }
            Message::Moved { moves, reply } => {
                let _ = reply.send(inner.change_places(&moves));
            }
            Message::Freed { disk, extent, blobs, free_bytes, reply } => {
                inner.forget_extent(disk, extent, &blobs, free_bytes);
                let _ = reply.send(());
            }
            Message::Dead { disk, dead } => inner.hear_dead(disk, &dead),
            Message::Sealed { disk, sealed } => inner.hear_sealed(disk, sealed),
            Message::Recall { disk, extent, incarnation, heir } => {
                inner.answer_recall(disk, extent, incarnation, heir);
            }
            Message::Failed { disk, error } => {
                inner.note_failed(disk, error);
            }
            Message::Closed { core, heard } => {
                inner.note_closed(core);
                let _ = heard.send(());
            }
        }
    }
}
