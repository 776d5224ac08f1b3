//! A small object in the node's own bucket, replaced as a whole: what a node without a database keeps beside its metadata. It is
//! spread, repaired, scrubbed, encrypted, salvaged and exported as every object is.

use std::ops::Range;

use anvil_model::object::{BucketName, Etag, Headers, Key, WriteConditions};
use anvil_node::body::{Body, Trailer};
use anvil_node::bucket::NODE_BUCKET;
use anvil_node::metadata::query::ReadFrom;
use anvil_node::metadata::{MetadataError, Refusal};
use anvil_node::put::{Expected, PutError, PutObject};
use anvil_node::{Caller, Node};
use anvil_runtime::{Buffer, Core};

/// Why an object was not read or replaced, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum ObjectError {
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error("{0}")]
    Unreadable(String),
    #[error("{0}")]
    NotWritten(String),
    #[error(
        "a tenant has a bucket with the name that this node needs for itself, anvil-system: move what it holds, and delete it"
    )]
    BucketTaken,
}

/// More is not read: what the bounds of what is kept come to is less.
const OBJECT_BYTES_MAX: u64 = 64 << 20;

/// Reads the object, with the tag by which it is known when it is replaced; `None` when there is none.
///
/// # Errors
/// When it cannot be had.
pub async fn read(node: &Node<Core>, name: &str) -> Result<Option<(Vec<u8>, Etag)>, ObjectError> {
    let found = match node.open(Caller::NODE, bucket(), key(name), Some(ReadFrom::Start(0))).await {
        Ok(found) => found,
        Err(MetadataError::Refused(Refusal::NoSuchBucket | Refusal::NoSuchKey)) => return Ok(None),
        Err(MetadataError::Refused(Refusal::AccessDenied)) => return Err(ObjectError::BucketTaken),
        Err(error) => return Err(error.into()),
    };
    if found.size > OBJECT_BYTES_MAX {
        return Err(ObjectError::Unreadable(format!("it has {} bytes", found.size)));
    }
    let mut bytes = Vec::new();
    let mut reader = node.read(&found, 0..found.size);
    while let Some(piece) = reader.next().await {
        let piece = piece.map_err(|error| ObjectError::Unreadable(error.to_string()))?;
        bytes.extend_from_slice(&piece.buffer[piece.range]);
    }
    Ok(Some((bytes, found.etag)))
}

/// Replaces the object, if it is still the one of this tag, or if there is still none. Says `false` when it is not so.
///
/// # Errors
/// When it cannot be written, or is not known to be.
pub async fn replace(node: &Node<Core>, name: &str, seen: Option<&Etag>, bytes: Vec<u8>) -> Result<bool, ObjectError> {
    if seen.is_none() {
        match node.create_bucket(Caller::NODE, bucket()).await {
            Ok(()) | Err(MetadataError::Refused(Refusal::BucketAlreadyOwnedByYou)) => {}
            Err(MetadataError::Refused(Refusal::BucketAlreadyExists)) => return Err(ObjectError::BucketTaken),
            Err(error) => return Err(error.into()),
        }
    }
    let put = PutObject {
        caller: Caller::NODE,
        bucket: bucket(),
        key: key(name),
        headers: Headers::default(),
        expected: Expected::default(),
        conditions: WriteConditions { absent: seen.is_none(), etag: seen.cloned(), ..WriteConditions::default() },
        storage_class: None,
    };
    match node.put_object(put, &mut Bytes { bytes, given: 0 }).await {
        Ok(_) => Ok(true),
        Err(PutError::Metadata(MetadataError::Refused(
            Refusal::PreconditionFailed | Refusal::ConditionalRequestConflict,
        ))) => Ok(false),
        Err(PutError::Metadata(error)) => Err(error.into()),
        Err(error) => Err(ObjectError::NotWritten(error.to_string())),
    }
}

fn bucket() -> BucketName {
    BucketName::new(NODE_BUCKET).expect("it is a name")
}

fn key(name: &str) -> Key {
    Key::new(name.as_bytes().to_vec()).expect("it is a key")
}

/// A body that is there.
struct Bytes {
    bytes: Vec<u8>,
    given: usize,
}

/// It never fails to come.
#[derive(Debug, thiserror::Error)]
enum Never {}

impl Bytes {
    fn take(&mut self, max: usize) -> &[u8] {
        let range = self.given..self.bytes.len().min(self.given.saturating_add(max));
        self.given = range.end;
        &self.bytes[range]
    }
}

impl Body<Buffer> for Bytes {
    type Error = Never;

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn fill(&mut self, mut buffer: Buffer, range: Range<usize>) -> (Result<usize, Never>, Buffer) {
        let taken = self.take(range.len());
        buffer[range.start..][..taken.len()].copy_from_slice(taken);
        (Ok(taken.len()), buffer)
    }

    async fn read(&mut self, into: &mut Vec<u8>, max: usize) -> Result<usize, Never> {
        let taken = self.take(max);
        into.extend_from_slice(taken);
        Ok(taken.len())
    }

    async fn collect(&mut self) -> Result<Vec<u8>, Never> {
        Ok(self.take(usize::MAX).to_vec())
    }

    async fn finish(&mut self) -> Result<Trailer, Never> {
        Ok(Trailer::default())
    }
}
