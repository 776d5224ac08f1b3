//! Which measurements are made, in which order.

use anvil_model::io::Geometry;
use anvil_model::limits::RECORD_PAYLOAD_BYTES_MAX;
use anyhow::ensure;
use clap::ValueEnum;
use serde::Serialize;

use crate::units::show_size;

/// What is done to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    /// Writes into blocks that are allocated and written already, without a flush
    Write,
    /// Reads
    Read,
    /// Reads and writes at once: 70 of 100 are reads, by lot
    Mixed,
    /// Flushes, each after one random write of one unit
    Flush,
    /// Writes that are durable when they have ended (O_DSYNC), by pwrite(2), whatever the back end
    Dsync,
    /// The reads of a mixed load
    #[value(skip)]
    MixedRead,
    /// The writes of a mixed load
    #[value(skip)]
    MixedWrite,
}

impl Operation {
    /// Measured once, at the end: what makes one write durable.
    fn is_last(self) -> bool {
        matches!(self, Self::Flush | Self::Dsync)
    }

    /// In tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Mixed => "mixed",
            Self::Flush => "flush",
            Self::Dsync => "dsync",
            Self::MixedRead => "reads",
            Self::MixedWrite => "writes",
        }
    }
}

/// In which order addresses are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// One block behind the other
    #[value(alias = "seq")]
    Sequential,
    /// Any block, each as likely
    #[value(alias = "rand")]
    Random,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Phase {
    /// What.
    pub(crate) operation: Operation,
    /// Where.
    pub(crate) order: Order,
    /// Bytes of each operation.
    pub(crate) block_bytes: u64,
    /// Operations in flight.
    pub(crate) depth: u32,
}

/// All measurements of one disk in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Plan {
    phases: Vec<Phase>,
}

impl Plan {
    /// Every combination of what was asked for; flushes and durable writes come last, once.
    ///
    /// # Errors
    /// When a block size cannot be used, or nothing was asked for.
    pub(crate) fn new(
        operations: &[Operation],
        orders: &[Order],
        block_sizes: &[u64],
        depths: &[u32],
    ) -> anyhow::Result<Self> {
        for &bytes in block_sizes {
            ensure!(
                (512..=RECORD_PAYLOAD_BYTES_MAX as u64).contains(&bytes) && bytes.is_power_of_two(),
                "a block of {} cannot be measured: take a power of two from 512 bytes to 1 MiB",
                show_size(bytes)
            );
        }
        let mut phases = Vec::new();
        for &operation in operations.iter().filter(|operation| !operation.is_last()) {
            for &order in orders {
                for &block_bytes in block_sizes {
                    for &depth in depths {
                        phases.push(Phase { operation, order, block_bytes, depth });
                    }
                }
            }
        }
        for &operation in operations.iter().filter(|operation| operation.is_last()) {
            phases.push(Phase { operation, order: Order::Random, block_bytes: 4096, depth: 1 });
        }
        ensure!(!phases.is_empty(), "nothing is left to measure");
        Ok(Self { phases })
    }

    /// In their order; at least one.
    pub(crate) fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// # Errors
    /// When a block is smaller than what the disk takes.
    pub(crate) fn check(&self, geometry: Geometry) -> anyhow::Result<()> {
        let smallest = self.phases.iter().map(|phase| phase.block_bytes).min().unwrap_or(0);
        ensure!(
            smallest >= u64::from(geometry.unit_bytes),
            "a block of {smallest} bytes is smaller than the {} bytes that this disk reads and writes at least",
            geometry.unit_bytes
        );
        Ok(())
    }

    /// Whether writes are measured that are durable at once.
    pub(crate) fn has_durable_writes(&self) -> bool {
        self.phases.iter().any(|phase| phase.operation == Operation::Dsync)
    }

    pub(crate) fn block_bytes_max(&self) -> u64 {
        self.phases.iter().map(|phase| phase.block_bytes).max().unwrap_or(0)
    }

    pub(crate) fn depth_max(&self) -> usize {
        self.phases.iter().map(|phase| phase.depth as usize).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_every_combination_with_one_flush_at_the_end() {
        let operations = [Operation::Dsync, Operation::Flush, Operation::Write, Operation::Read, Operation::Mixed];
        let plan = Plan::new(&operations, &[Order::Sequential, Order::Random], &[4096, 65536], &[1, 8, 32]).unwrap();
        assert_eq!(plan.phases().len(), 3 * 2 * 2 * 3 + 2);
        let [.., dsync, flush] = plan.phases() else { panic!("there are more than two") };
        assert_eq!((dsync.operation, flush.operation), (Operation::Dsync, Operation::Flush));
        assert_eq!((plan.block_bytes_max(), plan.depth_max()), (65536, 32));
    }

    #[test]
    fn blocks_that_no_buffer_holds_are_refused() {
        for wrong in [0, 100, 3 * 4096, 2 << 20] {
            assert!(Plan::new(&[Operation::Read], &[Order::Random], &[wrong], &[1]).is_err(), "{wrong}");
        }
        assert!(Plan::new(&[Operation::Read], &[], &[4096], &[1]).is_err(), "no order");
    }

    #[test]
    fn blocks_below_the_unit_of_the_disk_are_refused() {
        let plan = Plan::new(&[Operation::Read], &[Order::Random], &[512], &[1]).unwrap();
        let geometry = |unit_bytes| Geometry { unit_bytes, capacity_bytes_max: 1 << 30, volatile_cache: true };
        assert!(plan.check(geometry(512)).is_ok());
        assert!(plan.check(geometry(4096)).is_err());
    }
}
