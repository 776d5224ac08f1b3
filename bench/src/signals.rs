//! Ctrl-C as a flag that the measuring asks.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The user ended the run. What was measured so far has been printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// A flag that the first Ctrl-C, SIGTERM or SIGHUP raises; the second one ends the process at once.
///
/// # Errors
/// When the system does not let signals be caught.
pub(crate) fn catch() -> std::io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupted))?;
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}
