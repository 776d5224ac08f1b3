//! The embedded metadata: a log on the node's disks is the truth, an index beside it answers.

use std::future::Future;
use std::sync::Arc;

use anvil_model::time::WallTime;

use super::decide::Decided;
use super::mutation::Mutation;
use super::query::{Answer, Query};
use super::rows::Counters;
use super::{MetadataError, Refusal};

/// The rows on a thread of their own: one open transaction at a time decides, readers see what is committed.
pub trait Index: 'static {
    /// Where the committed rows stand.
    fn counters(&self) -> impl Future<Output = Result<Counters, IndexError>>;
    /// Throws all rows away and begins anew with that lineage.
    fn reset(&self, lineage: u128) -> impl Future<Output = Result<(), IndexError>>;
    /// Begins a transaction, decides the batch in it ([`super::decide::decide`]) and leaves it open.
    fn decide(
        &self,
        batch: Arc<[Mutation]>,
        number: u64,
        at: WallTime,
    ) -> impl Future<Output = Result<Vec<Result<Decided, Refusal>>, IndexError>>;
    /// Commits the open transaction.
    fn commit(&self) -> impl Future<Output = Result<(), IndexError>>;
    /// Rolls the open transaction back, if there is one.
    fn rollback(&self) -> impl Future<Output = ()>;
    /// Answers from committed rows.
    fn look_up(&self, batch: Vec<Query>) -> impl Future<Output = Vec<Result<Answer, MetadataError>>>;
}

/// The index does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Its rows cannot be had.
    #[error(transparent)]
    Rows(#[from] super::rows::RowsError),
    /// Its thread has ended.
    #[error("the metadata index has stopped")]
    Stopped,
}
