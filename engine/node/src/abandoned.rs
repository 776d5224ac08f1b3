//! Blobs of this life that no commit will ever name: their PUT failed or was dropped before its commit was sent, or the
//! metadata said no for certain.
//!
//! Kept in memory only. What is forgotten here, by a restart or because there is too much of it, is an orphan of a closed
//! life afterwards, which the sweep finds.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use anvil_model::ids::BlobId;
use anvil_model::io::World;

use crate::Node;
use crate::metadata::mutation::{Change, Outcome};
use crate::metadata::{MetadataError, Refusal};

/// Blobs that are remembered, at most: 1 MiB.
const ABANDONED_MAX: usize = 1 << 16;

/// The abandoned blobs of a core.
#[derive(Debug, Default)]
pub(crate) struct Abandoned {
    blobs: RefCell<VecDeque<BlobId>>,
}

impl Abandoned {
    fn note(&self, blob: BlobId) {
        let mut blobs = self.blobs.borrow_mut();
        if blobs.len() < ABANDONED_MAX {
            blobs.push_back(blob);
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.blobs.borrow().len()
    }

    /// Takes the oldest `count` of them.
    pub(crate) fn take(&self, count: usize) -> Vec<BlobId> {
        let mut blobs = self.blobs.borrow_mut();
        let count = count.min(blobs.len());
        blobs.drain(..count).collect()
    }
}

/// A blob that no commit was sent for. Dropped as such it is abandoned.
#[derive(Debug)]
pub(crate) struct Unclaimed {
    blob: BlobId,
    /// Absent once a commit may have been sent.
    abandoned: Option<Rc<Abandoned>>,
}

impl Unclaimed {
    pub(crate) fn new(blob: BlobId, abandoned: &Rc<Abandoned>) -> Self {
        Self { blob, abandoned: Some(Rc::clone(abandoned)) }
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(abandoned) = self.abandoned.take() {
            abandoned.note(self.blob);
        }
    }
}

impl<W: World> Node<W> {
    /// Sends the change that claims a blob, if there is one. From here on nobody but the metadata says whether the blob is
    /// needed, also when this future is dropped; only a certain no leaves it abandoned.
    pub(crate) async fn commit_claim(
        &self,
        unclaimed: Option<Unclaimed>,
        change: Change,
    ) -> Result<Outcome, MetadataError> {
        let Some(mut unclaimed) = unclaimed else { return self.metadata.commit(change).await };
        let abandoned = unclaimed.abandoned.take();
        let outcome = self.metadata.commit(change).await;
        match &outcome {
            // Whoever claimed it may need it.
            Err(MetadataError::Refused(Refusal::BlobClaimed)) | Err(MetadataError::Unknown) | Ok(_) => {}
            Err(MetadataError::Refused(_) | MetadataError::Unavailable { .. }) => unclaimed.abandoned = abandoned,
        }
        outcome
    }
}
