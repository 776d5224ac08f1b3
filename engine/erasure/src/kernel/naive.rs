//! The twin that every other kernel is compared with, and the kernel of CPUs that have no other.

use crate::combine::Run;
use crate::field::multiply;

pub(super) fn run(run: &Run<'_, '_>, outputs: &mut [&mut [u8]]) {
    for (i, output) in outputs.iter_mut().enumerate() {
        output.fill(0);
        for (input, factors) in run.inputs.iter().zip(run.factors) {
            for (sum, byte) in output.iter_mut().zip(*input) {
                *sum ^= multiply(factors[i], *byte);
            }
        }
    }
}
