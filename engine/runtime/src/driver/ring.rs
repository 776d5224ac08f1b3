//! Sets up rings: which flags, and what to try when the kernel refuses them.

use std::io;

use io_uring::IoUring;

/// A ring with room for `entries` submissions, or fewer where the limit on locked memory is small, and whether
/// completions are deferred to the core's own calls (then no other CPU interrupts it). To be called on the thread that
/// will use it.
pub(crate) fn build(entries: u32) -> io::Result<(IoUring, bool)> {
    match build_with_best_flags(entries) {
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && entries > ENTRIES_MIN => build(entries / 2),
        built => built,
    }
}

fn build_with_best_flags(entries: u32) -> io::Result<(IoUring, bool)> {
    let mut refused = None;
    for flags in [Flags::Deferred, Flags::Cooperative, Flags::Plain] {
        match flags.build(entries) {
            Ok(ring) => return Ok((ring, matches!(flags, Flags::Deferred))),
            // Unknown flags are EINVAL; anything else will not get better with fewer flags.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(refused.expect("every refusal was noted"))
}

#[derive(Clone, Copy)]
enum Flags {
    Deferred,
    Cooperative,
    Plain,
}

impl Flags {
    fn build(self, entries: u32) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp().setup_cqsize(entries * COMPLETIONS_PER_SUBMISSION).setup_submit_all();
        if !matches!(self, Self::Plain) {
            builder.setup_coop_taskrun().setup_taskrun_flag().setup_single_issuer();
        }
        if matches!(self, Self::Deferred) {
            builder.setup_defer_taskrun();
        }
        builder.build(entries)
    }
}

/// Multishot operations complete more often than they are submitted.
const COMPLETIONS_PER_SUBMISSION: u32 = 4;
/// A smaller ring would enter the kernel for every few operations.
const ENTRIES_MIN: u32 = 32;
