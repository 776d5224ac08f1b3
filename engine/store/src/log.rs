//! The metadata log: numbered batches in extents of their own, one at a time.

use anvil_model::ids::DiskId;
use anvil_model::io::{DeviceError, World};

use crate::{AppendError, Store};

/// Payload bytes of one log record, at most.
pub const LOG_PAYLOAD_BYTES_MAX: usize = anvil_model::limits::RECORD_PAYLOAD_BYTES_MAX;

/// The metadata log as recovery found it.
pub struct RecoveredLog<W: World> {
    world: W,
}

/// One batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Its number.
    pub number: u64,
    /// Its bytes, verified.
    pub payload: Vec<u8>,
}

/// Why the log cannot be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A record that is not the last one is damaged or gone.
    #[error("record {0} of the metadata log is damaged")]
    Damaged(u64),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Reads the log from one number on.
pub struct LogReader<'a, W: World> {
    log: &'a RecoveredLog<W>,
}

impl<W: World> RecoveredLog<W> {
    /// The oldest number that is there; `None` when the log is empty.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        todo!()
    }

    /// The newest number that is there; `None` when the log is empty.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        todo!()
    }

    /// Reads records from number `from` on, in order.
    #[must_use]
    pub fn read(&self, from: u64) -> LogReader<'_, W> {
        todo!()
    }
}

impl<W: World> LogReader<'_, W> {
    /// The next record; `None` after the last.
    ///
    /// # Errors
    /// When a record that must be there cannot be read; nothing follows.
    pub async fn next(&mut self) -> Option<Result<LogRecord, LogError>> {
        todo!()
    }
}

/// Where the log goes on. Sent to the core that writes it.
#[derive(Debug)]
pub struct LogTail {}

/// Appends to the metadata log. There is one in a node.
pub struct LogWriter<W: World> {
    store: Store<W>,
}

impl<W: World> LogWriter<W> {
    /// Goes on where the log ended, on the core of `store`.
    #[must_use]
    pub fn open(store: Store<W>, tail: LogTail) -> Self {
        todo!()
    }

    /// Appends batch `number`: one more than the last that succeeded (any number when the log is empty). Completes
    /// when the device has written it; durable only after [`Store::flush`] of [`Self::disks`]. After an error the
    /// caller may append the same number again, with the same bytes or others; at recovery the later one counts,
    /// but the earlier one may be found when the later one is not. Uses space that is refused to blobs.
    ///
    /// # Errors
    /// When no disk has an extent left or the device fails.
    ///
    /// # Panics
    /// When the payload is empty or longer than [`LOG_PAYLOAD_BYTES_MAX`], or the number is out of order.
    pub async fn append(&mut self, number: u64, payload: &[u8]) -> Result<(), AppendError> {
        todo!()
    }

    /// The disks that the last append wrote to.
    #[must_use]
    pub fn disks(&self) -> &[DiskId] {
        todo!()
    }
}
