//! A universe and the processes that live in it one after the other.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use anvil_model::io::World;

use crate::disk::{DiskOptions, SimDisk};
use crate::executor::Executor;
use crate::random::Random;
use crate::world::{Kernel, SimWorld};

/// What holds for all processes of a universe.
#[derive(Clone, Copy, Debug)]
pub struct SimOptions {
    /// Buffers of each core's pool.
    pub buffers: usize,
    /// How many of them are kept for [`Reserve::Progress`](anvil_model::io::Reserve::Progress): 1 to `buffers - 1`.
    pub buffers_reserved: usize,
    /// The clock on the wall jumps now and then, to and fro.
    pub wall_jumps: bool,
    /// Cores are taken away for some milliseconds now and then.
    pub stalls: bool,
    /// A run that takes more virtual time than this stands still, whatever its timers do.
    pub patience: Duration,
    /// A run of more polls and events than this turns in circles.
    pub steps_max: u64,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            buffers: 32,
            buffers_reserved: 8,
            wall_jumps: true,
            stalls: true,
            patience: Duration::from_secs(3600),
            steps_max: 20_000_000,
        }
    }
}

thread_local! {
    /// How many there were on this thread.
    static UNIVERSES: Cell<u64> = const { Cell::new(0) };
}

/// A universe: clock, entropy and disks, all from one seed. One process lives in it at a time.
pub struct Sim {
    seed: u64,
    options: SimOptions,
    state: Rc<Universe>,
}

struct Universe {
    /// Of those of this thread.
    number: u64,
    now: Cell<u64>,
    trace: Cell<u64>,
    lives: Cell<u32>,
    alive: Cell<bool>,
    random: RefCell<Random>,
    disks: RefCell<Vec<SimDisk>>,
}

impl Sim {
    /// The universe of this seed: what happens in it is decided by the seed and by what is asked of it.
    #[must_use]
    pub fn new(seed: u64, options: SimOptions) -> Self {
        let state = Universe {
            number: UNIVERSES.replace(UNIVERSES.get() + 1),
            now: Cell::new(0),
            trace: Cell::new(seed),
            lives: Cell::new(0),
            alive: Cell::new(false),
            random: RefCell::new(Random::new(seed)),
            disks: RefCell::default(),
        };
        Self { seed, options, state: Rc::new(state) }
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A new, empty disk of size 0.
    #[must_use]
    pub fn disk(&self, options: DiskOptions) -> SimDisk {
        let disk = SimDisk::new(options, self.fork());
        self.state.disks.borrow_mut().push(disk.clone());
        disk
    }

    /// Another disk with the durable bytes of this one, as a clone or a snapshot of a volume is.
    #[must_use]
    pub fn copy_disk(&self, disk: &SimDisk) -> SimDisk {
        let copy = disk.copy(self.fork());
        self.state.disks.borrow_mut().push(copy.clone());
        copy
    }

    /// Another stream of chance, e.g. for what clients do.
    #[must_use]
    pub fn fork(&self) -> Random {
        self.state.random.borrow_mut().fork()
    }

    /// A hash of all that happened so far, in lives that have ended.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.state.trace.get()
    }

    /// Begins a process with so many cores.
    ///
    /// # Panics
    /// When one lives already.
    #[must_use]
    pub fn start(&self, core_count: u16) -> Life {
        assert!(core_count > 0, "a process has at least one core");
        assert!(!self.state.alive.replace(true), "one process lives at a time");
        self.state.lives.set(self.state.lives.get() + 1);
        let mut random = self.fork();
        let options = self.options;
        let executor = Rc::new(Executor::new(core_count, self.state.now.get(), random.fork(), options.stalls));
        let kernel = Kernel::new(Rc::clone(&executor), core_count, &options, self.state.number, &mut random);
        Life { seed: self.seed, options, universe: Rc::clone(&self.state), kernel: Some(Rc::new(kernel)), executor }
    }
}

/// A process. Dropping it is [`Life::kill`] without the check for leaks.
pub struct Life {
    seed: u64,
    options: SimOptions,
    universe: Rc<Universe>,
    executor: Rc<Executor>,
    /// Absent once it has ended.
    kernel: Option<Rc<Kernel>>,
}

impl Life {
    /// How many cores it has.
    #[must_use]
    pub fn core_count(&self) -> u16 {
        self.world(0).core_count()
    }

    /// The view of a core.
    #[must_use]
    pub fn world(&self, core: u16) -> SimWorld {
        SimWorld::new(Rc::clone(self.kernel()), core)
    }

    /// Begins `task` on a core; its result waits in the handle. It moves only while one of the `run` functions does.
    pub fn spawn<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        core: u16,
        task: impl FnOnce(SimWorld) -> F,
    ) -> Join<T> {
        let future = task(self.world(core));
        let result = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&result);
        self.executor.spawn(core, async move {
            let value = future.await;
            *slot.borrow_mut() = Some(value);
        });
        Join { result }
    }

    /// Runs everything until this task has ended.
    ///
    /// # Panics
    /// When nothing moves any more before that, see [`Self::run_while`].
    pub fn block_on<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        core: u16,
        task: impl FnOnce(SimWorld) -> F,
    ) -> T {
        let join = self.spawn(core, task);
        self.run_while(|| !join.is_done());
        join.take().expect("it is done")
    }

    /// Runs everything as long as the condition holds; asked before every step.
    ///
    /// # Panics
    /// On a standstill: nothing is ready, no timer runs, no operation is in flight, and the condition still holds. Also
    /// when patience or steps run out. The message has the seed and what every task waits for.
    pub fn run_while(&self, mut condition: impl FnMut() -> bool) {
        let _note = NoteOnPanic(self);
        let time = self.executor.now() + u64::try_from(self.options.patience.as_nanos()).unwrap_or(u64::MAX / 2);
        let steps = self.executor.steps() + self.options.steps_max;
        while condition() {
            let moved = self.executor.step();
            let waiting = || self.executor.waiting();
            assert!(moved, "seed {:#x}: standstill{}", self.seed, waiting());
            assert!(self.executor.now() < time, "seed {:#x}: out of patience{}", self.seed, waiting());
            assert!(self.executor.steps() < steps, "seed {:#x}: turning in circles{}", self.seed, waiting());
        }
    }

    /// Runs everything for so much virtual time; less when nothing is left to run.
    pub fn run_for(&self, duration: Duration) {
        let _note = NoteOnPanic(self);
        let end = self.executor.now() + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2);
        while self.executor.now() < end && self.executor.step() {}
    }

    /// Polls and events so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.executor.steps()
    }

    /// Buffers that are not in their pools.
    #[must_use]
    pub fn buffers_out(&self) -> usize {
        self.kernel().buffers_out()
    }

    /// Ends the process at once, as SIGKILL does: see the top of `device.rs`.
    ///
    /// # Panics
    /// When a buffer stays out after all tasks are gone: something leaks, or the caller still holds a part of the
    /// process.
    pub fn kill(mut self) {
        self.end(SimDisk::kill);
    }

    /// Cuts the power: see the top of `device.rs`.
    ///
    /// # Panics
    /// As [`Self::kill`].
    pub fn power_cut(mut self) {
        self.end(SimDisk::power_cut);
    }

    fn end(&mut self, settle: impl Fn(&SimDisk)) {
        let _note = NoteOnPanic(self);
        // Taken here and given up last: the pools must outlive the tasks.
        let kernel = Rc::clone(self.kernel());
        for disk in self.universe.disks.borrow().iter() {
            settle(disk);
        }
        self.executor.clear();
        let leaked = kernel.buffers_out();
        assert_eq!(leaked, 0, "seed {:#x}: buffers that nobody can return", self.seed);
    }

    fn kernel(&self) -> &Rc<Kernel> {
        self.kernel.as_ref().expect("present until the drop")
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            for disk in self.universe.disks.borrow().iter() {
                disk.kill();
            }
            self.executor.clear();
        }
        self.universe.now.set(self.executor.now());
        self.universe.trace.set(self.universe.trace.get().rotate_left(1) ^ self.executor.trace());
        self.universe.alive.set(false);
    }
}

/// What a task will have returned.
pub struct Join<T> {
    result: Rc<RefCell<Option<T>>>,
}

impl<T> Join<T> {
    /// True when the task has ended and the result was not yet taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.result.borrow().is_some()
    }

    /// The result, once.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.result.borrow_mut().take()
    }
}

/// Says where a panic happened: one in a task knows nothing of seeds.
struct NoteOnPanic<'a>(&'a Life);

impl Drop for NoteOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Life { seed, universe, executor, .. } = self.0;
            let (life, step, nanos) = (universe.lives.get(), executor.steps(), executor.now());
            eprintln!("simulation: seed {seed:#x}, life {life}, step {step}, virtual time {nanos} ns");
        }
    }
}
