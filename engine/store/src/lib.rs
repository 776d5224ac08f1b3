//! Floor 1: the disks of a node as log-structured stores.
//!
//! Knows no network, no object, no version: it keeps blobs (and the metadata log) on disks, says when they are
//! durable, and finds them again after any crash. Called by `node` only. Its bytes are described in `docs/FORMAT.md`.
//!
//! The order of a start: [`identify`] each device ([`format()`] blank ones), [`recover()`] all of them on one core, read
//! [`Recovered::log`], send each core its [`Share`] and its [`Mail`], [`Store::open`] on every core,
//! [`LogWriter::open`] on one, [`Store::set_writer`] on every core. A disk that comes later: [`Store::prepare_disk`] on one
//! core, [`Store::add_disk`], [`Store::enter_disk`] and [`Store::open_disk`] on every core. The end: [`Store::close`] on every core at once.
//!
//! | file | what happens there |
//! | --- | --- |
//! | `append`, `pack` | a cell, or many small blobs, become one write |
//! | `extent` | room in an extent: opened, filled, sealed |
//! | `space` | the extents of a disk: free, handed out, grown |
//! | `flush` | one flush for all who ask |
//! | `index`, `read` | where a cell lies, and its verified bytes |
//! | `log` | the metadata log |
//! | `release`, `account`, `reclaim` | what is not needed any more, and how its space comes back |
//! | `recall` | open extents taken back from the cores that fill them |
//! | `scrub`, `walk` | every record read and verified, slowly |
//! | `chore` | whose turn it is to scrub, to sweep, to repair |
//! | `offline` | a disk that no node uses |
//! | `scan`, `recover` | finding everything again |
//! | `join` | a disk that comes while the node runs |
#![forbid(unsafe_code)]

mod account;
mod append;
mod budget;
mod chore;
mod disk;
mod extent;
mod flush;
mod index;
mod join;
mod log;
mod log_copies;
mod mail;
mod offline;
mod pack;
mod read;
mod recall;
mod reclaim;
mod recover;
mod release;
mod scan;
mod scrub;
mod space;
mod store;
mod walk;

pub use anvil_model::format::{Origin, OriginPayload, Roster};
pub use append::{AppendError, Cell};
pub use budget::Rate;
pub use chore::{CameTo, Chore, Turn};
pub use disk::{
    DiskIdentity, EXTENTS_MIN, FormatError, FormatOptions, IdentifyError, Identity, enroll, extent_bytes, format,
    identify,
};
pub use join::{JoinError, Joining};
pub use log::{LOG_PAYLOAD_BYTES_MAX, LogError, LogReader, LogRecord, LogTail, LogWriter, RecoveredLog};
pub use mail::{Mail, mail};
pub use offline::{ExtentReport, ExtentState, ExtentVerdict, InspectError, Inspection};
pub use pack::SmallCopy;
pub use read::{CellBytes, CellError, Doubtful, Located, LocatedCell, Piece, ReadError};
pub use reclaim::ReclaimOptions;
pub use recover::{RecoverError, Recovered, RecoveryReport, Share, recover, survey};
pub use release::KnownBlob;
pub use scrub::{BadRecord, ScrubOptions, Scrubbed};
pub use space::Reclaimed;
pub use store::{DiskSpace, DiskState, DiskStats, DiskView, Stats, Store};
