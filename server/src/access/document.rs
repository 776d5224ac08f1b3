//! The state of a node without a database: one object in the node's own bucket, so that it survives what every object
//! survives, and is found again by all that finds objects again.
//!
//! A change replaces the object under the condition that it is still the one that was read, so that two changes at once are
//! made one after the other. `docs/adr/0010-access.md` says why so.

use std::collections::VecDeque;

use anvil_model::access::{AuditRecord, State};
use anvil_model::object::Etag;
use anvil_node::Node;
use anvil_runtime::Core;
use serde::{Deserialize, Serialize};

use super::{KeepError, Kept};
use crate::node_object;

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
pub(super) const AUDIT_MAX: usize = 1_000;

impl Document {
    /// Has this be all that is kept.
    pub(super) fn set(&mut self, kept: &Kept) {
        self.state = kept.state.clone();
        self.audit.clear();
        kept.audit.iter().for_each(|record| self.note(record.clone()));
    }

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
    let Some((bytes, etag)) = node_object::read(node, KEY).await? else {
        let document = Document { version: VERSION, state: first(), audit: VecDeque::new() };
        return Ok(Seen { document, etag: None });
    };
    let document: Document =
        serde_json::from_slice(&bytes).map_err(|error| KeepError::Unreadable(error.to_string()))?;
    if document.version != VERSION {
        return Err(KeepError::Unreadable(format!("it has version {}, of a newer program", document.version)));
    }
    Ok(Seen { document, etag: Some(etag) })
}

/// Replaces the document. Says `false` when it is not the one any more that was read.
pub(super) async fn write(node: &Node<Core>, seen: &Seen) -> Result<bool, KeepError> {
    let bytes = serde_json::to_vec(&seen.document).expect("plain structs become JSON");
    Ok(node_object::replace(node, KEY, seen.etag.as_ref(), bytes).await?)
}
