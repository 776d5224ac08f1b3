//! One core as its tasks see it: the world of `anvil_model::io`.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use anvil_model::ids::CoreId;
use anvil_model::io::{Reserve, World};
use anvil_model::time::{Moment, WallTime};

use crate::disk::Device;
use crate::pool::Buffer;
use crate::stats::CoreStats;
use crate::task::Task;

/// One core: its ring, its tasks, its buffers. Clones are the same core; it never leaves its thread.
#[derive(Clone, Debug)]
pub struct Core {
    here_only: PhantomData<*const ()>,
}

impl Core {
    /// The counters of this core.
    #[must_use]
    pub fn stats(&self) -> Arc<CoreStats> {
        todo!()
    }

    /// The counters of all cores of the process, in the order of their ids.
    #[must_use]
    pub fn stats_of_all(&self) -> Arc<[Arc<CoreStats>]> {
        todo!()
    }

    /// Lets the other tasks of this core, and its completions, have a turn.
    pub fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        async { todo!() }
    }
}

impl World for Core {
    type Buffer = Buffer;
    type Device = Device;
    type Task = Task;

    fn core(&self) -> CoreId {
        todo!()
    }
    fn core_count(&self) -> u16 {
        todo!()
    }
    fn now(&self) -> Moment {
        todo!()
    }
    fn wall_clock(&self) -> WallTime {
        todo!()
    }
    fn random(&self) -> u64 {
        todo!()
    }
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        async { todo!() }
    }
    fn spawn(&self, future: impl Future<Output = ()> + 'static) -> Task {
        todo!()
    }
    fn buffer(&self, reserve: Reserve) -> impl Future<Output = Buffer> + 'static {
        async { todo!() }
    }
}
