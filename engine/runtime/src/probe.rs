//! Whether this host has the io_uring that the engine wants, asked once at start.

use std::ffi::CStr;
use std::{fs, io};

use io_uring::{IoUring, Probe, opcode};

use crate::driver::ring;
use crate::receive_ring::{GROUP, ReceiveRing};

/// What the kernel offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// Major and minor number of the kernel's release.
    pub kernel: (u32, u32),
    /// Completions are delivered only when the core asks for them (`IORING_SETUP_DEFER_TASKRUN`).
    pub deferred: bool,
}

/// Why the engine cannot run here. Each text is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Older than 6.1.
    #[error("Anvil's io_uring driver needs Linux 6.1 or newer, and this host runs {release}: upgrade its kernel")]
    KernelTooOld {
        /// What uname(2) says.
        release: String,
    },
    /// The kernel was built without io_uring.
    #[error("this kernel was built without io_uring: use one that has CONFIG_IO_URING")]
    NotBuilt,
    /// The administrator switched io_uring off.
    #[error("io_uring is switched off on this host: run `sysctl -w kernel.io_uring_disabled=0`")]
    SwitchedOff,
    /// A sandbox filters the system calls.
    #[error(
        "a security profile of this container or service denies io_uring: allow the system calls io_uring_setup, \
         io_uring_enter and io_uring_register (Docker: --security-opt seccomp=PROFILE)"
    )]
    Denied,
    /// Something that a kernel of this age should have.
    #[error("this kernel's io_uring lacks {0}: use a kernel of a distribution, 6.1 or newer")]
    Lacks(&'static str),
    /// The ring could not be made for another reason.
    #[error("the kernel refused to set up a ring ({0}): see whether the host is short of memory")]
    Refused(io::Error),
}

impl ProbeError {
    /// The host has no io_uring for us, however often we ask; a shortage is something else.
    pub(crate) const fn is_of_the_host(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// Asks the kernel for everything that the runtime needs.
///
/// # Errors
/// When something is missing.
pub fn probe() -> Result<Support, ProbeError> {
    let kernel = kernel()?;
    let (ring, deferred) = ring::build(8).map_err(|error| refusal(error, io_uring_disabled()))?;
    check_features(&ring)?;
    check_operations(&ring)?;
    check_receive_ring(&ring)?;
    Ok(Support { kernel, deferred })
}

fn kernel() -> Result<(u32, u32), ProbeError> {
    // SAFETY: a utsname is arrays of characters, for which zero is valid.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills a local variable.
    unsafe { libc::uname(&raw mut name) };
    // SAFETY: the kernel ends the text with a zero byte within the array, which outlives this use.
    let release = unsafe { CStr::from_ptr(name.release.as_ptr()) }.to_string_lossy().into_owned();
    match parse_release(&release) {
        Some(kernel) if kernel >= KERNEL_MIN => Ok(kernel),
        // A release that nobody understands is not refused: the features decide.
        None => Ok((0, 0)),
        Some(_) => Err(ProbeError::KernelTooOld { release }),
    }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What the administrator says: 2 is off for all, 1 for those without CAP_SYS_ADMIN who are not in the group.
fn io_uring_disabled() -> bool {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|text| matches!(text.trim(), "1" | "2"))
}

fn refusal(error: io::Error, disabled: bool) -> ProbeError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => ProbeError::NotBuilt,
        Some(libc::EPERM | libc::EACCES) if disabled => ProbeError::SwitchedOff,
        Some(libc::EPERM | libc::EACCES) => ProbeError::Denied,
        _ => ProbeError::Refused(error),
    }
}

fn check_features(ring: &IoUring) -> Result<(), ProbeError> {
    let features = [
        (ring.params().is_feature_nodrop(), "completions that are never dropped"),
        (ring.params().is_feature_ext_arg(), "waiting with a time-out"),
        (ring.params().is_feature_fast_poll(), "sockets without threads"),
        (ring.params().is_feature_submit_stable(), "arguments that are copied at submission"),
    ];
    lacking(features)
}

fn check_operations(ring: &IoUring) -> Result<(), ProbeError> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(ProbeError::Refused)?;
    let has = |code| probe.is_supported(code);
    let operations = [
        (has(opcode::Read::CODE) && has(opcode::ReadFixed::CODE), "reads"),
        (has(opcode::Write::CODE) && has(opcode::WriteFixed::CODE), "writes"),
        (has(opcode::Fsync::CODE) && has(opcode::Fallocate::CODE), "flush and allocate"),
        (has(opcode::AcceptMulti::CODE) && has(opcode::Connect::CODE), "accept and connect"),
        (has(opcode::RecvMulti::CODE), "receive"),
        (has(opcode::Send::CODE) && has(opcode::SendMsg::CODE), "send"),
        (has(opcode::AsyncCancel::CODE), "cancel"),
    ];
    lacking(operations)
}

/// Multishot receive came with the same release as the last of what this asks for (6.0), and has no flag of its own.
fn check_receive_ring(ring: &IoUring) -> Result<(), ProbeError> {
    let buffers = ReceiveRing::new(1, 4096, std::sync::Arc::default()).map_err(ProbeError::Refused)?;
    let (address, count) = buffers.registration();
    // SAFETY: the entries are mapped and initialised, and taken back below, before they are unmapped.
    let registered = unsafe { ring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0) };
    registered.map_err(|_| ProbeError::Lacks("rings of provided buffers"))?;
    ring.submitter().unregister_buf_ring(GROUP).map_err(ProbeError::Refused)
}

fn lacking<const N: usize>(wanted: [(bool, &'static str); N]) -> Result<(), ProbeError> {
    match wanted.into_iter().find(|(there, _)| !there) {
        Some((_, name)) => Err(ProbeError::Lacks(name)),
        None => Ok(()),
    }
}

/// The first long-term kernel with multishot receive and deferred completions.
const KERNEL_MIN: (u32, u32) = (6, 1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Releases as distributions write them.
    #[test]
    fn releases_are_understood() {
        let cases = [
            ("6.1.0-28-amd64", Some((6, 1))),
            ("5.15.0-1053-aws", Some((5, 15))),
            ("6.18.44", Some((6, 18))),
            ("7.0-rc1", Some((7, 0))),
            ("next", None),
        ];
        for (release, expected) in cases {
            assert_eq!(parse_release(release), expected, "{release}");
        }
    }

    /// A refusal says which switch to turn.
    #[test]
    fn refusals_say_what_to_do() {
        let refused = |errno, disabled| refusal(io::Error::from_raw_os_error(errno), disabled).to_string();
        assert!(refused(libc::EPERM, true).contains("sysctl"));
        assert!(refused(libc::EPERM, false).contains("seccomp"));
        assert!(refused(libc::ENOSYS, false).contains("CONFIG_IO_URING"));
        assert!(refused(libc::ENOMEM, false).contains("memory"));
    }

    /// The host that runs the tests can run the engine.
    #[test]
    fn this_host_is_supported() {
        let support = probe().unwrap_or_else(|error| panic!("{error}"));
        assert!(support.kernel >= KERNEL_MIN);
    }
}
