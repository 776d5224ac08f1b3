//! The story of a PUT.

use anvil_model::io::{DeviceError, World};
use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, Etag, Headers, Key, WriteConditions};
use anvil_model::placement::TooFewDisks;
use anvil_store::{AppendError, OriginPayload};

use crate::body::Body;
use crate::metadata::mutation::{Change, NewObject, Outcome, Written};
use crate::metadata::rows::StorageClass;
use crate::metadata::usage::Usage;
use crate::metadata::{MetadataError, Refusal, check_conditions};
use crate::{Caller, Node};

/// A PUT as a client asked for it, read and checked.
#[derive(Clone, Debug)]
pub struct PutObject {
    /// Who.
    pub caller: Caller,
    /// Into which bucket.
    pub bucket: BucketName,
    /// Under which key.
    pub key: Key,
    /// What is said of the object.
    pub headers: Headers,
    /// What the client says that the bytes are.
    pub expected: Expected,
    /// What must hold for the write to happen.
    pub conditions: WriteConditions,
    /// One that the node knows; `None` for the bucket's.
    pub storage_class: Option<StorageClass>,
}

/// What a client says of the bytes that it sends; each is verified before anything becomes visible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// `Content-MD5`.
    pub md5: Option<[u8; 16]>,
    /// `x-amz-checksum-*` in the header.
    pub checksum: Option<Checksum>,
    /// A checksum that will come in the trailer, or that the client wants computed and stored.
    pub algorithm: Option<ChecksumAlgorithm>,
}

/// What became of a PUT or a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The entity tag.
    pub etag: Etag,
    /// The checksum that is kept and returned: the client's algorithm, or CRC64NVME.
    pub checksum: Checksum,
    /// Payload bytes.
    pub size: u64,
}

/// Why a PUT did not happen, or is not known to have happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError<E> {
    /// The bytes did not come, or were not what the protocol promised.
    #[error("the body failed")]
    Body(E),
    /// `Content-MD5` differs from the bytes.
    #[error("the MD5 of the bytes differs")]
    Md5Mismatch,
    /// The client's checksum differs from the bytes.
    #[error("the checksum of the bytes differs")]
    ChecksumMismatch(ChecksumAlgorithm),
    /// Metadata refuses, is away or does not know.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The bytes come too slowly for a node with so many slow clients; nothing happened.
    #[error("the body came too slowly for a busy node")]
    TooSlow,
    /// No disk has room.
    #[error("the disks are full")]
    Full,
    /// Too few disks take writes.
    #[error(transparent)]
    TooFewDisks(#[from] TooFewDisks),
    /// A disk failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl<E> From<AppendError> for PutError<E> {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full | AppendError::Device(DeviceError::NoSpace) => Self::Full,
            AppendError::Device(error) => Self::Device(error),
        }
    }
}

impl<E> From<Refusal> for PutError<E> {
    fn from(refusal: Refusal) -> Self {
        Self::Metadata(refusal.into())
    }
}

impl<W: World> Node<W> {
    /// Stores an object. When this returns `Ok`, the version is durable and visible.
    ///
    /// # Errors
    /// Says whether nothing happened or it is not known; see [`PutError`].
    pub async fn put_object<B: Body<W::Buffer>>(
        &self,
        put: PutObject,
        body: &mut B,
    ) -> Result<(Stored, Written), PutError<B::Error>> {
        // Before the body, to save it when the answer is no.
        let prepared = self.metadata.prepare(put.caller.path(put.bucket.clone()), put.key.clone()).await?;
        let current = prepared.current.as_ref().map(|(etag, generation)| (etag, *generation));
        check_conditions(&put.conditions, current)?;
        prepared.room.admit(Usage::of_object(body.length()))?;

        let storage_class = put.storage_class.unwrap_or(prepared.storage_class);
        let kind = OriginPayload::Object { length: body.length() };
        let origin = self.origin(put.caller, &put.bucket, &put.key, kind);
        let payload = self.write_payload(&origin, self.classes.profile(&storage_class), &put.expected, body).await?;

        // The bytes are on a disk; this makes them durable and visible, or leaves them to the sweep.
        let stored = payload.stored();
        let object = NewObject {
            etag: stored.etag.clone(),
            size: stored.size,
            checksum: stored.checksum.clone(),
            crc64nvme: payload.crc64nvme,
            headers: put.headers,
            tags: Vec::new(),
            storage_class,
            blob: payload.claim(),
        };
        let change = Change::PutObject {
            bucket: prepared.bucket,
            key: put.key,
            object: Box::new(object),
            conditions: put.conditions,
        };
        match self.commit_claim(payload.unclaimed(), change).await? {
            Outcome::ObjectStored(written) => Ok((stored, written)),
            other => unreachable!("storing an object came to {other:?}"),
        }
    }
}
