//! The decisions: what a mutation does to the rows. Pure and deterministic: the same rows, mutation and stamp give the
//! same rows and outcome, which is what lets the embedded log be replayed.

use super::Refusal;
use super::mutation::{Mutation, Outcome, Stamp};
use super::rows::{Rows, RowsError};

/// An outcome, and whether the rows changed: only a change is logged and takes the stamp's generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What to answer.
    pub outcome: Outcome,
    /// False for a repeat and for the deletion of what is not there.
    pub changed: bool,
}

/// Decides one mutation and applies it to the rows. A refusal leaves them as they were.
///
/// # Errors
/// When the rows cannot be had; the transaction must be rolled back.
pub fn apply(rows: &mut impl Rows, mutation: &Mutation, stamp: Stamp) -> Result<Result<Decided, Refusal>, RowsError> {
    todo!()
}
