//! What the stories answer, as statuses: the table of docs/GRPC.md.

use std::time::Duration;

use anvil_node::copy::CopyError;
use anvil_node::get::StreamError;
use anvil_node::metadata::{MetadataError, Refusal};
use anvil_node::put::PutError;
use anvil_store::ReadError;

use super::status::{Code, Status};

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let (code, reason) = match &refusal {
            Refusal::NoSuchBucket => (Code::NotFound, "NO_SUCH_BUCKET"),
            Refusal::AccessDenied => (Code::PermissionDenied, "ACCESS_DENIED"),
            Refusal::BucketAlreadyExists => (Code::AlreadyExists, "BUCKET_ALREADY_EXISTS"),
            Refusal::BucketAlreadyOwnedByYou => (Code::AlreadyExists, "BUCKET_ALREADY_OWNED_BY_YOU"),
            Refusal::BucketNotEmpty => (Code::FailedPrecondition, "BUCKET_NOT_EMPTY"),
            Refusal::TooManyBuckets => (Code::ResourceExhausted, "TOO_MANY_BUCKETS"),
            Refusal::NoSuchKey => (Code::NotFound, "NO_SUCH_OBJECT"),
            Refusal::NoSuchUpload(_) => (Code::NotFound, "NO_SUCH_UPLOAD"),
            Refusal::PreconditionFailed => (Code::FailedPrecondition, "PRECONDITION_FAILED"),
            Refusal::ConditionalRequestConflict => (Code::Aborted, "CONFLICT"),
            Refusal::InvalidPart(_) => (Code::InvalidArgument, "INVALID_PART"),
            Refusal::InvalidPartOrder => (Code::InvalidArgument, "INVALID_PART_ORDER"),
            Refusal::EntityTooSmall { .. } => (Code::InvalidArgument, "PART_TOO_SMALL"),
            Refusal::BadDigest => (Code::InvalidArgument, "CHECKSUM_MISMATCH"),
            Refusal::EntityTooLarge => (Code::InvalidArgument, "TOO_LARGE"),
            // Nothing says when there will be room: no RetryInfo.
            Refusal::QuotaExceeded(quota) => {
                return Self::new(Code::ResourceExhausted, "QUOTA_EXCEEDED", message)
                    .about("quota", format!("{}-{}", quota.owner, quota.unit))
                    .about("maximum", quota.most);
            }
            Refusal::SourceChanged => (Code::Aborted, "SOURCE_CHANGED"),
            Refusal::CopyTooLarge => (Code::FailedPrecondition, "TOO_LARGE"),
            Refusal::TooManyPieces => (Code::FailedPrecondition, "TOO_MANY_PIECES"),
            Refusal::BucketBeingDeleted => (Code::Aborted, "BUCKET_BEING_DELETED"),
            Refusal::OtherWriter => (Code::Aborted, "OTHER_WRITER"),
            Refusal::OperationAborted => (Code::Aborted, "CONFIGURATION_CHANGED"),
            Refusal::InvalidRequest(_) => (Code::InvalidArgument, "INVALID_REQUEST"),
            Refusal::WriterClosed | Refusal::BlobClaimed | Refusal::ShardMoved => {
                tracing::error!(%refusal, "a change was refused that nobody else could have made");
                return Self::internal();
            }
        };
        let status = Self::new(code, reason, message);
        if code == Code::Aborted { status.retry_after(Duration::ZERO) } else { status }
    }
}

impl From<MetadataError> for Status {
    fn from(error: MetadataError) -> Self {
        let message = error.to_string();
        match error {
            MetadataError::Refused(refusal) => refusal.into(),
            MetadataError::Unavailable { retry_after } => {
                Self::new(Code::Unavailable, "METADATA_AWAY", message).retry_after(retry_after)
            }
            MetadataError::Unknown => Self::new(Code::Unknown, "OUTCOME_UNKNOWN", message),
        }
    }
}

impl From<PutError<Self>> for Status {
    fn from(error: PutError<Self>) -> Self {
        let message = error.to_string();
        match error {
            PutError::Body(status) => status,
            PutError::Md5Mismatch | PutError::ChecksumMismatch(_) => {
                Self::new(Code::InvalidArgument, "CHECKSUM_MISMATCH", message)
            }
            PutError::Metadata(error) => error.into(),
            PutError::TooSlow => Self::new(Code::Unavailable, "BUSY", message).retry_after(Duration::from_secs(1)),
            PutError::Full => Self::new(Code::ResourceExhausted, "DISKS_FULL", message),
            PutError::TooFewDisks(_) => {
                Self::new(Code::Unavailable, "TOO_FEW_DISKS", message).retry_after(Duration::from_secs(5))
            }
            PutError::Device(error) => {
                tracing::error!(%error, "an object cannot be stored");
                Self::new(Code::Internal, "DISK_FAILED", "a disk failed")
            }
        }
    }
}

impl From<CopyError> for Status {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Source(error) => Self::from(error).about("which", "source"),
            CopyError::Range(_) => Self::new(Code::OutOfRange, "OUT_OF_RANGE", error.to_string()),
            CopyError::Read(error) => error.into(),
            CopyError::Metadata(error) => error.into(),
        }
    }
}

impl From<StreamError> for Status {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Metadata(error) => error.into(),
            StreamError::NoKey(_) => Self::new(Code::Unavailable, "NO_KEY", error.to_string()),
            StreamError::Gone => {
                Self::new(Code::Aborted, "VERSION_GONE", error.to_string()).retry_after(Duration::ZERO)
            }
            StreamError::Read(ReadError::Closing) => {
                Self::new(Code::Unavailable, "STOPPING", "the node stops").retry_after(Duration::from_secs(1))
            }
            StreamError::Read(error) => {
                tracing::error!(%error, "an answer breaks off");
                Self::new(Code::DataLoss, "UNREADABLE", "bytes of the object cannot be read at this time")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use anvil_model::ids::UploadId;
    use anvil_model::io::DeviceError;
    use anvil_node::metadata::usage::{QuotaExceeded, QuotaOwner, QuotaUnit};

    use super::*;

    #[test]
    fn a_refusal_is_one_status() {
        for (refusal, code, reason) in [
            (Refusal::NoSuchKey, Code::NotFound, "NO_SUCH_OBJECT"),
            (Refusal::NoSuchUpload(UploadId(1)), Code::NotFound, "NO_SUCH_UPLOAD"),
            (Refusal::PreconditionFailed, Code::FailedPrecondition, "PRECONDITION_FAILED"),
            (Refusal::BucketAlreadyExists, Code::AlreadyExists, "BUCKET_ALREADY_EXISTS"),
            (Refusal::BlobClaimed, Code::Internal, "INTERNAL"),
        ] {
            let status = Status::from(refusal);
            assert_eq!((status.code, status.reason), (code, reason));
        }
        let quota = QuotaExceeded { owner: QuotaOwner::Tenant, unit: QuotaUnit::Objects, most: 7 };
        let status = Status::from(Refusal::QuotaExceeded(quota));
        assert_eq!((status.code, status.reason, status.retry_after), (Code::ResourceExhausted, "QUOTA_EXCEEDED", None));
        assert_eq!(status.about, [("quota", "tenant-objects".to_owned()), ("maximum", "7".to_owned())]);
        assert_eq!(Status::from(Refusal::SourceChanged).retry_after, Some(Duration::ZERO));
    }

    #[test]
    fn a_failed_put_keeps_its_cause_from_the_client() {
        let status = Status::from(PutError::Device(DeviceError::Io(5)));
        assert_eq!(status.reason, "DISK_FAILED");
        assert!(!status.message.contains("os error"));
        let own = Status::invalid("of the body");
        assert_eq!(Status::from(PutError::Body(own.clone())), own);
    }
}
