//! One core's view of the false world.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::ops::{Deref, DerefMut, Range};
use std::rc::{Rc, Weak};
use std::time::Duration;

use anvil_model::ids::CoreId;
use anvil_model::io::{Buffer, Reserve, Task, World};
use anvil_model::limits::{BUFFER_ALIGNMENT, BUFFER_BYTES};
use anvil_model::time::{Moment, WallTime};

use crate::device::SimDevice;
use crate::executor::{EventKey, Executor};
use crate::life::SimOptions;
use crate::random::Random;
use crate::wait::{Promise, promise};

/// A core of a [`Life`](crate::Life).
#[derive(Clone)]
pub struct SimWorld {
    pub(crate) kernel: Rc<Kernel>,
    core: u16,
}

/// One process: what its cores share.
pub(crate) struct Kernel {
    pub(crate) executor: Rc<Executor>,
    pools: Vec<Rc<Pool>>,
    entropy: RefCell<Random>,
    clock: RefCell<Clock>,
}

/// The clocks that a process sees, beside the universe's.
struct Clock {
    /// What the steady clock showed when the universe began.
    start: u64,
    /// What the clock on the wall shows beyond the universe's.
    wall_offset_ms: u64,
    jumps: Option<Random>,
}

/// 2026-01-01 UTC.
const WALL_START_MS: u64 = 1_767_225_600_000;
const WALL_JUMP_MS_MAX: u64 = 3_600_000;
const WALL_JUMP_ONE_IN: u64 = 50;

impl Kernel {
    pub(crate) fn new(
        executor: Rc<Executor>,
        core_count: u16,
        options: &SimOptions,
        universe: u64,
        random: &mut Random,
    ) -> Self {
        let SimOptions { buffers, buffers_reserved, wall_jumps, .. } = *options;
        let clock = Clock {
            start: random.below(1 << 40),
            wall_offset_ms: WALL_START_MS,
            jumps: wall_jumps.then(|| random.fork()),
        };
        let pools =
            (0..core_count).map(|_| Rc::new(Pool::new(buffers, buffers_reserved, random.next(), universe))).collect();
        Self { executor, pools, entropy: RefCell::new(random.fork()), clock: RefCell::new(clock) }
    }

    /// Buffers that somebody holds.
    pub(crate) fn buffers_out(&self) -> usize {
        self.pools.iter().map(|pool| pool.total - pool.state.borrow().free.len()).sum()
    }
}

impl SimWorld {
    pub(crate) fn new(kernel: Rc<Kernel>, core: u16) -> Self {
        assert!(usize::from(core) < kernel.pools.len(), "there is no core {core}");
        Self { kernel, core }
    }
}

impl World for SimWorld {
    type Buffer = SimBuffer;
    type Device = SimDevice;
    type Task = SimTask;

    fn core(&self) -> CoreId {
        CoreId(self.core)
    }

    fn core_count(&self) -> u16 {
        u16::try_from(self.kernel.pools.len()).expect("made from a u16")
    }

    fn now(&self) -> Moment {
        Moment { nanos: self.kernel.clock.borrow().start + self.kernel.executor.now() }
    }

    fn wall_clock(&self) -> WallTime {
        let mut clock = self.kernel.clock.borrow_mut();
        let offset = clock.wall_offset_ms;
        if let Some(random) = &mut clock.jumps
            && random.one_in(WALL_JUMP_ONE_IN)
        {
            clock.wall_offset_ms = offset - WALL_JUMP_MS_MAX + random.below(2 * WALL_JUMP_MS_MAX);
        }
        WallTime { unix_ms: clock.wall_offset_ms + self.kernel.executor.now() / 1_000_000 }
    }

    fn random(&self) -> u64 {
        self.kernel.entropy.borrow_mut().next()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let executor = Rc::clone(&self.kernel.executor);
        async move {
            let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            let (promise, wait) = promise(&executor, "a timer");
            let event = executor.after(nanos, move || promise.keep(()).unwrap_or(()));
            let _forget = ForgetOnDrop { executor: Rc::clone(&executor), event };
            wait.await;
        }
    }

    fn spawn(&self, future: impl Future<Output = ()> + 'static) -> SimTask {
        let task = self.kernel.executor.spawn(self.core, future);
        SimTask { executor: Rc::downgrade(&self.kernel.executor), task: Some(task) }
    }

    fn buffer(&self, reserve: Reserve) -> impl Future<Output = SimBuffer> + 'static {
        let executor = Rc::clone(&self.kernel.executor);
        let pool = Rc::clone(&self.kernel.pools[usize::from(self.core)]);
        async move {
            let what = match reserve {
                Reserve::Foreground => "a foreground buffer",
                Reserve::Progress => "a progress buffer",
            };
            let (promise, wait) = promise(&executor, what);
            pool.ask(reserve, promise);
            wait.await
        }
    }
}

/// Takes a timer back when nobody waits for it any more, so that it does not move the clock.
struct ForgetOnDrop {
    executor: Rc<Executor>,
    event: EventKey,
}

impl Drop for ForgetOnDrop {
    fn drop(&mut self) {
        self.executor.forget(self.event);
    }
}

/// A task of a false core.
pub struct SimTask {
    executor: Weak<Executor>,
    task: Option<u64>,
}

impl Task for SimTask {
    fn detach(mut self) {
        self.task = None;
    }
}

impl Drop for SimTask {
    fn drop(&mut self) {
        if let (Some(task), Some(executor)) = (self.task, self.executor.upgrade()) {
            executor.cancel(task);
        }
    }
}

/// The buffers of one core. At most `total` exist; the last `reserved` are for [`Reserve::Progress`] alone.
struct Pool {
    total: usize,
    reserved: usize,
    /// What a buffer holds before its first use, unless it was one of an earlier life.
    garbage: u64,
    universe: u64,
    state: RefCell<PoolState>,
}

struct PoolState {
    /// Memory, or nothing when it was never used in this life.
    free: Vec<Option<Vec<u8>>>,
    progress: VecDeque<Promise<SimBuffer>>,
    foreground: VecDeque<Promise<SimBuffer>>,
}

/// Memory of a pool that has ended, and the universe that it was in.
struct Former {
    universe: u64,
    memory: Vec<u8>,
}

thread_local! {
    /// Memory of former lives: touching fresh pages costs more than a history does.
    static MEMORY: RefCell<Vec<Former>> = const { RefCell::new(Vec::new()) };
}

impl Pool {
    fn new(total: usize, reserved: usize, garbage: u64, universe: u64) -> Self {
        assert!(reserved >= 1 && total > reserved, "{total} buffers with {reserved} kept leave none for someone");
        let free = (0..total).map(|_| None).collect();
        let state = PoolState { free, progress: VecDeque::new(), foreground: VecDeque::new() };
        Self { total, reserved, garbage, universe, state: RefCell::new(state) }
    }

    fn ask(self: &Rc<Self>, reserve: Reserve, promise: Promise<SimBuffer>) {
        let mut state = self.state.borrow_mut();
        match reserve {
            Reserve::Progress => state.progress.push_back(promise),
            Reserve::Foreground => state.foreground.push_back(promise),
        }
        drop(state);
        self.serve();
    }

    fn serve(self: &Rc<Self>) {
        loop {
            let mut state = self.state.borrow_mut();
            state.progress.retain(|promise| !promise.is_abandoned());
            state.foreground.retain(|promise| !promise.is_abandoned());
            let kept = if state.progress.is_empty() { self.reserved } else { 0 };
            if state.free.len() <= kept {
                return;
            }
            let Some(promise) = state.progress.pop_front().or_else(|| state.foreground.pop_front()) else {
                return;
            };
            let memory = state.free.pop().expect("more than are kept");
            drop(state);
            let memory = memory.unwrap_or_else(|| self.memory());
            let buffer = SimBuffer::whole(memory, Rc::clone(self));
            // Abandoned ones were taken out above; one given back regardless returns by its drop.
            drop(promise.keep(buffer));
        }
    }

    fn memory(&self) -> Vec<u8> {
        let mut memory = match MEMORY.with_borrow_mut(Vec::pop) {
            // What it holds was decided by the seed, and it lies in the order that the seed decided.
            Some(former) if former.universe == self.universe => return former.memory,
            Some(former) => former.memory,
            None => vec![0; BUFFER_BYTES + BUFFER_ALIGNMENT],
        };
        memory.fill(self.garbage.to_le_bytes()[0]);
        memory
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let free = std::mem::take(&mut self.state.get_mut().free);
        // The thread-local is gone when a thread ends with a universe still in it.
        let former = free.into_iter().flatten().map(|memory| Former { universe: self.universe, memory });
        let _ = MEMORY.try_with(|kept| kept.borrow_mut().extend(former));
    }
}

/// A buffer of a false core's pool, or a view of a part of one. A view that was split off has memory of its own, because
/// nothing safe shares memory; that it is neither longer nor elsewhere than its part is what the real one has in common
/// with it.
pub struct SimBuffer {
    memory: Vec<u8>,
    /// Where the view's bytes begin in `memory`.
    start: usize,
    /// Which bytes of the buffer they are.
    range: Range<usize>,
    slot: Rc<Slot>,
}

/// What the views of a buffer share. The buffer is free when it is dropped.
struct Slot {
    pool: Rc<Pool>,
    /// The memory of the buffer, once the view that has it is dropped.
    memory: RefCell<Option<Vec<u8>>>,
}

impl SimBuffer {
    fn whole(memory: Vec<u8>, pool: Rc<Pool>) -> Self {
        let start = memory.as_ptr().align_offset(BUFFER_ALIGNMENT);
        Self { memory, start, range: 0..BUFFER_BYTES, slot: Rc::new(Slot { pool, memory: RefCell::new(None) }) }
    }

    /// A view with memory of its own.
    fn part(bytes: &[u8], range: Range<usize>, slot: Rc<Slot>) -> Self {
        let mut memory: Vec<u8> = Vec::with_capacity(bytes.len() + BUFFER_ALIGNMENT);
        let start = memory.as_ptr().align_offset(BUFFER_ALIGNMENT);
        memory.resize(start, 0);
        memory.extend_from_slice(bytes);
        Self { memory, start, range, slot }
    }

    fn has_the_buffers_memory(&self) -> bool {
        self.memory.len() == BUFFER_BYTES + BUFFER_ALIGNMENT
    }
}

impl Buffer for SimBuffer {
    fn split_to(&mut self, at: usize) -> Self {
        assert!(at.is_multiple_of(BUFFER_ALIGNMENT) && 0 < at && at < self.len(), "split {} bytes at {at}", self.len());
        let middle = self.range.start + at;
        let front = Self::part(&self[..at], self.range.start..middle, Rc::clone(&self.slot));
        self.start += at;
        self.range.start = middle;
        front
    }

    fn unsplit(mut self, mut other: Self) -> Self {
        let neighbours = Rc::ptr_eq(&self.slot, &other.slot) && self.range.end == other.range.start;
        assert!(neighbours, "views that do not lie behind one another");
        let range = self.range.start..other.range.end;
        if self.has_the_buffers_memory() {
            let at = self.start + self.range.len();
            self.memory[at..at + other.len()].copy_from_slice(&other);
            self.range = range;
            return self;
        }
        if other.has_the_buffers_memory() {
            let at = other.start - self.len();
            other.memory[at..at + self.range.len()].copy_from_slice(&self);
            other.start = at;
            other.range = range;
            return other;
        }
        let bytes = [&self[..], &other[..]].concat();
        Self::part(&bytes, range, Rc::clone(&self.slot))
    }
}

impl std::fmt::Debug for SimBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimBuffer")
    }
}

impl Deref for SimBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.range.len()]
    }
}

impl DerefMut for SimBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.range.len()]
    }
}

impl Drop for SimBuffer {
    fn drop(&mut self) {
        if self.has_the_buffers_memory() {
            *self.slot.memory.borrow_mut() = Some(std::mem::take(&mut self.memory));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let memory = self.memory.take();
        assert!(memory.is_some(), "one of the views had the memory");
        self.pool.state.borrow_mut().free.push(memory);
        self.pool.serve();
    }
}
