//! Whether this host can run the engine, asked once at start.

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
    #[error("Anvil needs Linux 6.1 or newer, and this host runs {release}: upgrade its kernel")]
    KernelTooOld {
        /// What uname(2) says.
        release: String,
    },
    /// No io_uring.
    #[error("{0}")]
    NoRing(String),
}

/// Asks the kernel for everything that the runtime needs.
///
/// # Errors
/// When something is missing.
pub fn probe() -> Result<Support, ProbeError> {
    todo!()
}
