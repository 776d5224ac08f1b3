//! What objects are: the trait that says what must be atomic, the rows and mutations, the batching.

use std::time::Duration;

use anvil_model::ids::UploadId;

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
    #[error("the bucket's configuration changed while the request ran")]
    OperationAborted,
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
