//! The state of a node without a database: one object in the node's own bucket, so that it survives what every object
//! survives, and is found again by all that finds objects again.
//!
//! A change replaces the object under the condition that it is still the one that was read, so that two changes at once are
//! made one after the other. `docs/adr/0010-access.md` says why so.

use std::collections::VecDeque;
use std::ops::Range;

use anvil_model::access::{AuditRecord, State};
use anvil_model::object::{BucketName, Etag, Headers, Key, WriteConditions};
use anvil_node::body::{Body, Trailer};
use anvil_node::bucket::NODE_BUCKET;
use anvil_node::metadata::query::ReadFrom;
use anvil_node::metadata::{MetadataError, Refusal};
use anvil_node::put::{Expected, PutError, PutObject};
use anvil_node::{Caller, Node};
use anvil_runtime::{Buffer, Core};
use serde::{Deserialize, Serialize};

use super::KeepError;

/// What the object holds, as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Document {
    version: u32,
    pub(super) state: State,
    /// The latest, oldest first.
    audit: VecDeque<AuditRecord>,
}

/// A document as it was read, and the tag by which it is known when it is replaced; `None` when there was none.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) document: Document,
    pub(super) etag: Option<Etag>,
}

const VERSION: u32 = 1;
const KEY: &str = "access/state.json";
/// Records that are kept; older ones are in the log of the node alone.
const AUDIT_MAX: usize = 1_000;
/// What the bounds of a state come to is less.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

impl Document {
    pub(super) fn note(&mut self, record: AuditRecord) {
        if self.audit.len() >= AUDIT_MAX {
            self.audit.pop_front();
        }
        self.audit.push_back(record);
    }

    /// The latest `max` records, latest first.
    pub(super) fn audit(&self, max: usize) -> Vec<AuditRecord> {
        self.audit.iter().rev().take(max).cloned().collect()
    }
}

/// Reads the document; what `first` says where there is none yet.
pub(super) async fn read(node: &Node<Core>, first: impl FnOnce() -> State) -> Result<Seen, KeepError> {
    let found = match node.open(Caller::NODE, bucket(), key(), Some(ReadFrom::Start(0))).await {
        Ok(found) => found,
        Err(MetadataError::Refused(Refusal::NoSuchBucket | Refusal::NoSuchKey)) => {
            let document = Document { version: VERSION, state: first(), audit: VecDeque::new() };
            return Ok(Seen { document, etag: None });
        }
        Err(MetadataError::Refused(Refusal::AccessDenied)) => return Err(KeepError::BucketTaken),
        Err(error) => return Err(error.into()),
    };
    if found.size > DOCUMENT_BYTES_MAX {
        return Err(KeepError::Unreadable(format!("it has {} bytes", found.size)));
    }
    let mut bytes = Vec::new();
    let mut reader = node.read(&found, 0..found.size);
    while let Some(piece) = reader.next().await {
        let piece = piece.map_err(|error| KeepError::Unreadable(error.to_string()))?;
        bytes.extend_from_slice(&piece.buffer[piece.range]);
    }
    let document: Document =
        serde_json::from_slice(&bytes).map_err(|error| KeepError::Unreadable(error.to_string()))?;
    if document.version != VERSION {
        return Err(KeepError::Unreadable(format!("it has version {}, of a newer program", document.version)));
    }
    Ok(Seen { document, etag: Some(found.etag) })
}

/// Replaces the document. Says `false` when it is not the one any more that was read.
pub(super) async fn write(node: &Node<Core>, seen: &Seen) -> Result<bool, KeepError> {
    let bytes = serde_json::to_vec(&seen.document).expect("plain structs become JSON");
    if seen.etag.is_none() {
        match node.create_bucket(Caller::NODE, bucket()).await {
            Ok(()) | Err(MetadataError::Refused(Refusal::BucketAlreadyOwnedByYou)) => {}
            Err(MetadataError::Refused(Refusal::BucketAlreadyExists)) => return Err(KeepError::BucketTaken),
            Err(error) => return Err(error.into()),
        }
    }
    let put = PutObject {
        caller: Caller::NODE,
        bucket: bucket(),
        key: key(),
        headers: Headers::default(),
        expected: Expected::default(),
        conditions: WriteConditions {
            absent: seen.etag.is_none(),
            etag: seen.etag.clone(),
            ..WriteConditions::default()
        },
        storage_class: None,
    };
    match node.put_object(put, &mut Bytes { bytes, given: 0 }).await {
        Ok(_) => Ok(true),
        Err(PutError::Metadata(MetadataError::Refused(
            Refusal::PreconditionFailed | Refusal::ConditionalRequestConflict,
        ))) => Ok(false),
        Err(PutError::Metadata(error)) => Err(error.into()),
        Err(error) => Err(KeepError::Away(error.to_string())),
    }
}

fn bucket() -> BucketName {
    BucketName::new(NODE_BUCKET).expect("it is a name")
}

fn key() -> Key {
    Key::new(KEY.as_bytes().to_vec()).expect("it is a key")
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
