//! Floor 1: the seam of `anvil_model::io` made real, one pinned thread and one ring per core; or, where io_uring is
//! forbidden, epoll and a few threads for the disks.
//!
//! Knows no object, no blob and no HTTP: it moves bytes between sockets, buffers and disks, and runs tasks. Called by
//! the server, which joins it with the store and the stories. Owns the unsafe code of I/O; nothing above it has any.
//!
//! What holds everywhere here:
//! - An operation owns the memory and the file that the kernel uses, from before its submission until its last
//!   completion. Dropping its future cancels it; the completion is reaped later.
//! - A future never leaves its core. A waker may: it is a number and the doorbell of its core.
//! - Nothing blocks a core but its own ring, when it has nothing to do.

mod core;
mod disk;
mod doorbell;
mod driver;
mod entropy;
mod executor;
pub mod net;
mod op;
mod pool;
mod probe;
mod receive_ring;
mod region;
mod start;
mod stats;
mod task;
mod timer;
mod waiters;

pub use crate::core::Core;
pub use crate::disk::{Device, Disk, DiskOptions, OpenError};
pub use crate::pool::Buffer;
pub use crate::probe::{ProbeError, Support, probe};
pub use crate::start::{Cores, Io, JoinError, Options, StartError, available_cpus, start};
pub use crate::stats::{CoreStats, Counter, DiskStats, Histogram};
pub use crate::task::Task;
