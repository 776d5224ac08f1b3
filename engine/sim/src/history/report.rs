//! What happened in a history, or in many, in numbers.

use std::fmt;

use super::Misfortunes;
use crate::counters::counters;
use crate::disk::Injected;

/// What happened in a history, or in many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// A hash of all that happened: the same for the same seed. The XOR of many.
    pub trace: u64,
    /// How much there was.
    pub scope: Scope,
    /// What went wrong with the disks.
    pub injected: Injected,
    /// What became of whole disks.
    pub misfortunes: Misfortunes,
    /// How often that was reached which is rare and matters.
    pub reached: Reached,
}

counters! {
    /// How much was played.
    pub struct Scope {
        /// Histories.
        pub histories: u64,
        /// Processes.
        pub lives: u64,
        /// Operations of clients on keys.
        pub operations: u64,
        /// Polls and events.
        pub steps: u64,
        /// Bytes that clients read and compared.
        pub bytes_checked: u64,
    }
}

counters! {
    /// Rare states: a campaign that does not reach them proves little.
    pub struct Reached {
        /// Lives that were cut short.
        pub crashes: u64,
        /// Of these, before clients came: when the node was recovering.
        pub crashes_at_start: u64,
        /// Of these, soon after a record was moved or an extent was given back.
        pub crashes_in_reclaim: u64,
        /// Starts that found torn records.
        pub torn: u64,
        /// Starts that declared the last batch of the log void.
        pub void: u64,
        /// Starts that gave the index batches that it lacked.
        pub replayed: u64,
        /// Starts that made the index anew.
        pub rebuilt: u64,
        /// Starts that found an extent without its header.
        pub rescued: u64,
        /// Writes whose outcome their client never learned.
        pub unknown: u64,
        /// Histories in which the disks became full.
        pub full: u64,
        /// Histories in which an operation of a device failed before a client.
        pub device_errors: u64,
        /// Starts that damage prevented, with a reason.
        pub refused_starts: u64,
        /// Blobs of failed writes that were given up.
        pub abandoned: u64,
        /// Blobs of closed lives that a sweep claimed.
        pub orphans: u64,
        /// Lines of the garbage list that were forgotten, because their bytes were gone.
        pub forgotten: u64,
        /// Extents that were given back.
        pub freed: u64,
        /// Records that were moved for that.
        pub moved: u64,
        /// Writes that were committed and had seen two sweeps of their core from their beginning on.
        pub outlasted: u64,
        /// Reads that lost their version to reclaim, and said so.
        pub cut_off: u64,
        /// Reads of what a crash had torn before anybody was told of it, and of which another disk was lost then.
        pub lost_unheard: u64,
        /// Disks that were full, and took writes again after deletions.
        pub recovered: u64,
        /// Disks that did not, of the least size.
        pub stayed_full: u64,
        /// Records that scrub found whole.
        pub scrubbed: u64,
        /// Histories in which a bit of an object turned over, and scrub named the blob.
        pub rot_named: u64,
        /// Shards that were made again.
        pub made_again: u64,
        /// Starts that copied the metadata log to more disks.
        pub log_refilled: u64,
        /// Times that disks were given up for good, and nothing lay on them any more when others were lost.
        pub emptied: u64,
        /// Reports of damage that came when the shard lay elsewhere, and changed nothing.
        pub late_reports: u64,
        /// Objects that were read whole after disks were lost on top of those that had suffered.
        pub read_after_more: u64,
        /// Objects that could not be read when more were lost than the profile bears, and said so.
        pub named_losses: u64,
        /// Starts of nodes that encrypt.
        pub encrypting: u64,
        /// Histories whose victims changed after what the first ones had held was made again.
        pub turned: u64,
    }
}

impl Report {
    /// Adds another history, or many.
    pub fn add(&mut self, other: &Self) {
        self.trace ^= other.trace;
        self.scope.add(&other.scope);
        self.injected.add(&other.injected);
        self.misfortunes.add(&other.misfortunes);
        self.reached.add(&other.reached);
    }

    /// All counters, in groups.
    pub fn by_name(&mut self) -> [(&'static str, Vec<(&'static str, &mut u64)>); 4] {
        [
            ("scope", self.scope.by_name()),
            ("injected", self.injected.by_name()),
            ("misfortunes", self.misfortunes.by_name()),
            ("reached", self.reached.by_name()),
        ]
    }
}

/// A line for each group.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut copy = *self;
        for (group, counters) in copy.by_name() {
            let counters: Vec<String> = counters.iter().map(|(name, count)| format!("{count} {name}")).collect();
            writeln!(f, "  {group}: {}", counters.join(", ").replace('_', " "))?;
        }
        write!(f, "  trace: {:#018x}", self.trace)
    }
}
