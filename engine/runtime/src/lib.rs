//! Floor 1: the seam of `anvil_model::io` made real on io_uring, one pinned thread and one ring per core.
//!
//! Knows no object, no blob and no HTTP: it moves bytes between sockets, buffers and disks, and runs tasks. Called by
//! the server, which joins it with the store and the stories. Owns the unsafe code of I/O; nothing above it has any.
#![allow(clippy::todo, unused_variables, clippy::unused_async, dead_code)] // the shapes; their insides follow

mod core;
mod disk;
pub mod net;
mod pool;
mod probe;
mod start;
mod stats;
mod task;

pub use crate::core::Core;
pub use crate::disk::{Device, Disk, DiskOptions, OpenError};
pub use crate::pool::Buffer;
pub use crate::probe::{ProbeError, Support, probe};
pub use crate::start::{Cores, JoinError, Options, StartError, available_cpus, start};
pub use crate::stats::{CoreStats, Counter, DiskStats};
pub use crate::task::Task;
