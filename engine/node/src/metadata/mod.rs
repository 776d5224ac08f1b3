//! What objects are: rows, mutations and look-ups, the trait that says what must be atomic, and the batching.
//!
//! - [`rows`]: what is kept; [`mutation`] and [`query`]: what may be changed and asked.
//! - [`decide`] and [`query::look_up`]: pure functions over the rows that hold the semantics of S3, shared by every
//!   implementation that can run them next to its rows.
//! - [`Metadata`]: the trait; [`embedded`] implements it with a [`log`] on the node's disks and an index beside it.
//!   A database implements it elsewhere, behind [`flushed`].
//! - [`usage`]: what buckets and tenants hold, and may. [`taken`]: how a history begins with the rows of another one.
//! - [`batch`] gathers the requests of all cores; [`client`] is what a story holds.
//!
//! Knows no SQL. Called by the stories, and by `server`, which joins it with SQLite.

pub mod batch;
pub mod client;
pub mod decide;
pub mod embedded;
pub mod flushed;
pub mod log;
pub mod mutation;
mod pages;
pub mod query;
pub mod rows;
#[cfg(feature = "suite")]
pub mod suite;
mod sums;
pub mod taken;
pub mod usage;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anvil_model::ids::{Generation, UploadId};
use anvil_model::object::{Etag, WriteConditions};

pub use client::Client;
use mutation::{Mutation, Outcome};
use query::{Answer, Query};
use usage::QuotaExceeded;

/// The metadata of a region, batch by batch. [`batch::Service`] is its only caller on a serving node.
///
/// Every implementation passes the suite of `metadata::suite`.
pub trait Metadata: 'static {
    /// Decides and keeps a batch of changes. Entry `i` of the answer is the outcome of mutation `i`.
    ///
    /// What must be atomic, and hold:
    /// - Each mutation happens wholly or not at all: the version and its blob's reference, the reference that it drops
    ///   and the line of garbage that this makes, the upload that ends and its parts. Two mutations of a batch are
    ///   not atomic together, and each has its own verdict.
    /// - Mutations of one [target](Mutation::target) are decided in the order given, each seeing the ones before it; all
    ///   mutations that touch one key, also those of concurrent calls and also when the key is absent, are decided
    ///   one after another under one lock, and their generations and times grow in that order.
    /// - `Ok` means durable, and seen by every look-up that begins afterwards. `Refused` and `Unavailable` mean that
    ///   the change did not and will not happen. `Unknown` means that it may have happened or may yet.
    /// - A mutation whose write id is already known changes nothing and answers as it did.
    /// - A row that makes the decision fail, not with a refusal but with an error, does not take the others with it: the
    ///   batch is divided until the row is alone.
    fn commit(&self, batch: Arc<[Mutation]>) -> impl Future<Output = Vec<Result<Outcome, MetadataError>>>;

    /// Answers a batch of queries, each from one consistent view of what is committed. Never waits for a commit.
    fn look_up(&self, batch: Vec<Query>) -> impl Future<Output = Vec<Result<Answer, MetadataError>>>;
}

impl<M: Metadata> Metadata for Rc<M> {
    fn commit(&self, batch: Arc<[Mutation]>) -> impl Future<Output = Vec<Result<Outcome, MetadataError>>> {
        (**self).commit(batch)
    }

    fn look_up(&self, batch: Vec<Query>) -> impl Future<Output = Vec<Result<Answer, MetadataError>>> {
        (**self).look_up(batch)
    }
}

/// A request that the metadata answers with no. Named after the error codes of S3.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Refusal {
    #[error("the bucket does not exist")]
    NoSuchBucket,
    #[error("the bucket belongs to another tenant")]
    AccessDenied,
    #[error("the name belongs to another tenant's bucket")]
    BucketAlreadyExists,
    #[error("the bucket is already yours")]
    BucketAlreadyOwnedByYou,
    /// `OperationAborted` in S3.
    #[error("a bucket of this name is being deleted: try again later")]
    BucketBeingDeleted,
    #[error("the bucket holds objects or uploads under way")]
    BucketNotEmpty,
    #[error("the tenant has as many buckets as it may have")]
    TooManyBuckets,
    #[error("the key does not exist")]
    NoSuchKey,
    #[error("the upload {0} does not exist")]
    NoSuchUpload(UploadId),
    #[error("a condition of the request does not hold")]
    PreconditionFailed,
    #[error("the key changed while the request ran")]
    ConditionalRequestConflict,
    #[error("part {0} does not exist, or its tag or checksum differs")]
    InvalidPart(u16),
    #[error("the parts are not in ascending order")]
    InvalidPartOrder,
    #[error("part {number} has {length} bytes, too few for any but the last")]
    EntityTooSmall { number: u16, length: u64 },
    #[error("the parts' checksums do not give the checksum of the request")]
    BadDigest,
    #[error("the object is larger than an object may be")]
    EntityTooLarge,
    /// Deletions, and writes that make nothing more, go on.
    #[error("{0}")]
    QuotaExceeded(QuotaExceeded),
    /// The source of a copy is gone or another version than was looked at: look again. `OperationAborted` in S3 when
    /// it never holds still.
    #[error("the source of the copy changed while the request ran")]
    SourceChanged,
    #[error("the source is larger than a copy may be")]
    CopyTooLarge,
    /// Copies of copies have cut the bytes into more pieces than are kept of one version or part.
    #[error("the bytes lie in too many pieces to be copied without being moved")]
    TooManyPieces,
    #[error("the bucket's configuration changed while the request ran")]
    OperationAborted,
    /// Somebody else appended to the upload. No S3 operation meets it.
    #[error("another writer has gone on with the upload: ask how far it is")]
    OtherWriter,
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// The life of the node that wrote the blob is over: what it wrote belongs to the sweep. `InternalError` in S3.
    #[error("the writer of the data is closed")]
    WriterClosed,
    /// Another write or the sweep has claimed the blob's id. `InternalError` in S3.
    #[error("the data is claimed by another write")]
    BlobClaimed,
    /// The shard was moved since, or nothing needs its blob any more. No client is told so.
    #[error("the shard is not where it was")]
    ShardMoved,
}

/// Why a change or a look-up has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Decided: no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing happened; ask again later.
    #[error("the metadata is not available")]
    Unavailable {
        /// When.
        retry_after: Duration,
    },
    /// The change may have happened or may yet happen; ask for its write id.
    #[error("the outcome of the change is not known")]
    Unknown,
}

/// Whether the conditions of a write hold against the tag and the generation of the current version (`None`: there is
/// none, or it is a delete marker). Asked before the body, to save it, and again under the lock.
///
/// # Errors
/// `PreconditionFailed`, or `NoSuchKey` for a tag that must match where there is nothing (as AWS answers). The tag `*`
/// stands for any, and is a failed condition where there is none.
pub fn check_conditions(conditions: &WriteConditions, current: Option<(&Etag, Generation)>) -> Result<(), Refusal> {
    if conditions.absent && current.is_some() {
        return Err(Refusal::PreconditionFailed);
    }
    if conditions.generation.is_some_and(|wanted| current.is_none_or(|(_, generation)| generation != wanted)) {
        return Err(Refusal::PreconditionFailed);
    }
    match (&conditions.etag, current.map(|(etag, _)| etag)) {
        (Some(wanted), None) if wanted.0 == "*" => Err(Refusal::PreconditionFailed),
        (Some(_), None) => Err(Refusal::NoSuchKey),
        (Some(wanted), Some(current)) if wanted != current && wanted.0 != "*" => Err(Refusal::PreconditionFailed),
        _ => Ok(()),
    }
}
