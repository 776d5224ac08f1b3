//! The chores of a node's disks, each of which is a task while a round of it runs or waits.

use std::sync::Arc;

use anvil_model::ids::NodeId;
use anvil_store::Chore;
use tokio::sync::Notify;

use super::jobs::{REPAIR, SCRUB, SWEEP};
use super::task::NewTask;

/// One of each, for all cores of a node.
#[derive(Debug)]
pub struct Chores {
    /// Rows of blobs against what the disks have, and the other way round.
    pub sweep: Chore,
    /// Every record read and verified.
    pub scrub: Chore,
    /// What is lost made again.
    pub repair: Chore,
}

impl Chores {
    /// `told` is notified when one is wanted, and when a round has ended.
    pub(super) fn new(told: &Arc<Notify>) -> Self {
        let chore = || Chore::by_turns(Arc::clone(told));
        Self { sweep: chore(), scrub: chore(), repair: chore() }
    }

    /// The chore that tasks of this kind are about.
    pub(super) fn of(&self, kind: &str) -> Option<&Chore> {
        match kind {
            SWEEP => Some(&self.sweep),
            SCRUB => Some(&self.scrub),
            REPAIR => Some(&self.repair),
            _ => None,
        }
    }

    /// The tasks of those that are wanted, on this node. What is lost is made again before anything else is done.
    pub(super) fn wanted(&self, node: NodeId) -> Vec<NewTask> {
        let task = |(kind, priority)| NewTask { kind, about: about(node), priority };
        let kinds = [(REPAIR, 5), (SWEEP, 15), (SCRUB, 30)];
        kinds.into_iter().filter(|(kind, _)| self.of(kind).is_some_and(Chore::is_wanted)).map(task).collect()
    }
}

/// What the tasks of a node's own disks are about.
pub(crate) fn about(node: NodeId) -> String {
    format!("node {}", node.0)
}
