//! What is done with each disk, in which order, and which part of its time each has.

use std::time::{Duration, Instant};

use clap::ValueEnum;

/// What is measured; in the order in which it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Operation {
    /// Appends blobs without a flush for each; also done where `recover` or `read` is, which need them
    Append,
    /// Finds them again as a start does: from footers, then by reading everything
    Recover,
    /// Reads them in random order, 1 and 32 in flight
    Read,
    /// Appends and flushes each blob, by 1, 16 and 256 writers at once
    GroupCommit,
    /// Overwrites blobs on a small disk that is half full of them, then gives all up
    Reclaim,
}

impl Operation {
    /// Its part of the time, beside those of the others.
    const fn weight(self) -> u32 {
        match self {
            Self::Append | Self::Reclaim => 4,
            Self::Recover => 2,
            Self::Read | Self::GroupCommit => 1,
        }
    }
}

/// A node's life on a disk that is new to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Append, recover, read.
    Keep,
    /// Group commit.
    GroupCommit,
    /// Reclaim.
    Reclaim,
}

/// The operations of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// In their order, each once.
    operations: Vec<Operation>,
}

impl Plan {
    pub(super) fn new(asked_for: &[Operation]) -> Self {
        let mut operations = asked_for.to_vec();
        if operations.iter().any(|operation| matches!(operation, Operation::Recover | Operation::Read)) {
            operations.push(Operation::Append);
        }
        operations.sort_unstable();
        operations.dedup();
        Self { operations }
    }

    pub(super) fn has(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
    }

    pub(super) fn lives(&self) -> impl Iterator<Item = Life> {
        let lives = [
            (Operation::Append, Life::Keep),
            (Operation::GroupCommit, Life::GroupCommit),
            (Operation::Reclaim, Life::Reclaim),
        ];
        lives.into_iter().filter(|(operation, _)| self.has(*operation)).map(|(_, life)| life)
    }

    /// The time that an operation may take which begins now. What those before it did not need is shared by those to come.
    pub(super) fn share(&self, operation: Operation, deadline: Instant) -> Duration {
        let to_come = self.operations.iter().filter(|other| **other >= operation);
        let weights: u32 = to_come.map(|other| other.weight()).sum();
        deadline.saturating_duration_since(Instant::now()) * operation.weight() / weights.max(operation.weight())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operation_needs_is_done_before_it() {
        use Operation::{Append, GroupCommit, Read, Reclaim, Recover};
        for (asked_for, done, lives) in [
            (vec![Read], vec![Append, Read], vec![Life::Keep]),
            (vec![Reclaim, Recover], vec![Append, Recover, Reclaim], vec![Life::Keep, Life::Reclaim]),
            (vec![GroupCommit, GroupCommit], vec![GroupCommit], vec![Life::GroupCommit]),
        ] {
            let plan = Plan::new(&asked_for);
            assert_eq!((&plan.operations, plan.lives().collect::<Vec<_>>()), (&done, lives), "{asked_for:?}");
        }
    }

    #[test]
    fn the_last_operation_has_all_time_that_is_left() {
        let plan = Plan::new(&[Operation::Append, Operation::Reclaim]);
        let deadline = Instant::now() + Duration::from_secs(3600);
        let (first, last) = (plan.share(Operation::Append, deadline), plan.share(Operation::Reclaim, deadline));
        assert!(first < last && last <= Duration::from_secs(3600), "{first:?} and {last:?}");
        assert_eq!(plan.share(Operation::Reclaim, Instant::now()), Duration::ZERO);
    }
}
