//! When a life is cut short: at some step, or where most is at stake.

use super::plan::Cut;
use super::shared::Shared;
use crate::disk::SimDisk;

/// Decides when a life is cut short.
pub(super) struct Cutter<'d> {
    cut: Cut,
    disks: &'d [SimDisk],
    /// Flushes until then.
    flushes_before: u64,
    served: bool,
    at_step: Option<u64>,
}

impl<'d> Cutter<'d> {
    pub(super) fn new(cut: Cut, disks: &'d [SimDisk]) -> Self {
        Self { cut, disks, flushes_before: flushes(disks), served: false, at_step: None }
    }

    pub(super) fn cuts(&mut self, step: u64, shared: &Shared) -> bool {
        let serving = shared.serving.get();
        if serving && !self.served {
            self.served = true;
            self.flushes_before = flushes(self.disks);
        }
        match self.cut {
            Cut::Never => false,
            Cut::AtStep(at) => step >= at,
            Cut::InFlush { serving, flush, steps } => {
                let due = serving == self.served && flushes(self.disks) >= self.flushes_before + flush;
                let at = if due { *self.at_step.get_or_insert(step + steps) } else { self.at_step.unwrap_or(u64::MAX) };
                step >= at
            }
            Cut::InReclaim { steps } => {
                let begun = shared.reclaimed.get() > 0;
                begun && step >= *self.at_step.get_or_insert(step + steps)
            }
        }
    }
}

fn flushes(disks: &[SimDisk]) -> u64 {
    disks.iter().map(|disk| disk.counts().flushes_begun).sum()
}
