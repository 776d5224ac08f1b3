//! Rows of other metadata, taken in as they are: how a node whose metadata was in a database gets a log of its own.
//!
//! The log holds changes, and rows alone are none. So there are two changes for a history that begins with rows:
//! [`Change::TakeIn`] has rows as they were, and [`Change::BeginAt`] says with which generation the first ordinary change
//! goes on. Neither takes a generation nor is remembered as a write, so what the rows come to is what they were; and as long as
//! the next generation is the first of all, no ordinary change was made yet. That is the only time when rows are taken in.

use std::sync::Arc;

use anvil_model::ids::{BucketId, Generation, TenantId, UploadId, WriteId};
use anvil_model::io::World;
use anvil_model::time::WallTime;
use serde::{Deserialize, Serialize};

use super::embedded::{Embedded, Index};
use super::mutation::{Change, Mutation, Outcome};
use super::rows::{BlobRow, BucketRow, GarbageRow, PartRow, SegmentRow, UploadRow, VersionRow, WriteRow, WriterRow};
use super::usage::{Quota, Usage, UsageOf};
use super::{MetadataError, log};

/// A row with all that tells it apart from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is the row of this name, under its key")]
pub enum TakenRow {
    Writer(WriterRow),
    Write(Box<WriteRow>),
    Bucket(Box<BucketRow>),
    TenantQuota {
        tenant: TenantId,
        quota: Quota,
    },
    /// What is held; there is no other row of it.
    Usage {
        of: UsageOf,
        usage: Usage,
    },
    Head {
        bucket: BucketId,
        key: Vec<u8>,
        version: Box<VersionRow>,
    },
    Segment {
        bucket: BucketId,
        version: Generation,
        segment: Box<SegmentRow>,
    },
    Blob(Box<BlobRow>),
    Garbage(GarbageRow),
    Upload(Box<UploadRow>),
    Part {
        upload: UploadId,
        part: Box<PartRow>,
    },
}

impl TakenRow {
    /// The latest time that it tells of: no later change is given an earlier one.
    fn latest(&self) -> WallTime {
        match self {
            Self::Writer(row) => row.opened_at,
            Self::Bucket(row) => row.created_at,
            Self::Head { version, .. } => version.last_modified,
            Self::Garbage(row) => row.since,
            Self::Upload(row) => {
                row.completed.as_ref().map_or(row.initiated_at, |completed| completed.result.written.last_modified)
            }
            Self::Part { part, .. } => part.last_modified,
            Self::Write(_) | Self::TenantQuota { .. } | Self::Usage { .. } | Self::Segment { .. } | Self::Blob(_) => {
                WallTime { unix_ms: 0 }
            }
        }
    }
}

/// Bytes of the rows of one change, about. A record of the log has room for four times as many, so for the largest row too.
const ROWS_BYTES: usize = 256 << 10;

/// Takes rows into metadata that has none, in changes of bounded size, one record of the log each.
pub struct TakingIn<'e, W: World, I: Index> {
    world: &'e W,
    metadata: &'e Embedded<W, I>,
    rows: Vec<TakenRow>,
    bytes: usize,
    at: WallTime,
}

impl<'e, W: World, I: Index> TakingIn<'e, W, I> {
    /// Into metadata that [began](Embedded::begin) just now.
    #[must_use]
    pub fn new(world: &'e W, metadata: &'e Embedded<W, I>) -> Self {
        Self { world, metadata, rows: Vec::new(), bytes: 0, at: WallTime { unix_ms: 0 } }
    }

    /// Takes a row in, durably at the latest at the [end](Self::end).
    ///
    /// # Errors
    /// When the metadata does not take it; then nothing of it is of use.
    pub async fn push(&mut self, row: TakenRow) -> Result<(), MetadataError> {
        self.at = self.at.max(row.latest());
        self.bytes += log::encoded_bytes(&row);
        self.rows.push(row);
        if self.bytes >= ROWS_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Makes the rest durable. The first ordinary change gets the generation `next`, above all that were ever given.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub async fn end(mut self, next: Generation) -> Result<(), MetadataError> {
        self.flush().await?;
        self.commit(Change::BeginAt { generation: next }).await
    }

    async fn flush(&mut self) -> Result<(), MetadataError> {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() { Ok(()) } else { self.commit(Change::TakeIn { rows }).await }
    }

    async fn commit(&self, change: Change) -> Result<(), MetadataError> {
        let write = WriteId(u128::from(self.world.random()) << 64 | u128::from(self.world.random()));
        let batch = Arc::new([Mutation { write, change }]);
        match self.metadata.commit_at(batch, self.at).await.pop() {
            Some(Ok(Outcome::TakenIn)) => Ok(()),
            Some(Err(error)) => Err(error),
            other => unreachable!("rows are taken in or not, and that is no {other:?}"),
        }
    }
}
