//! One core as its tasks see it: the world of `anvil_model::io`.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anvil_model::ids::CoreId;
use anvil_model::io::{Reserve, World};
use anvil_model::time::{Moment, WallTime};
use tokio::sync::Semaphore;

use crate::disk::Device;
use crate::doorbell::Doorbell;
use crate::driver::Driver;
use crate::entropy::Entropy;
use crate::net::placement::Placement;
use crate::pool::{Buffer, Pool};
use crate::receive_ring::ReceiveRing;
use crate::start::{Io, Options};
use crate::stats::CoreStats;
use crate::task::{Class, Task, TaskFuture, TaskId, Tasks};
use crate::timer::{Sleep, Timers};

/// One core: its driver, its tasks, its buffers. Clones are the same core; it never leaves its thread.
#[derive(Clone, Debug)]
pub struct Core {
    pub(crate) inner: Rc<Inner>,
}

/// What the clones of a [`Core`] share. The parts know nothing of one another and are borrowed one at a time.
#[derive(Debug)]
pub(crate) struct Inner {
    id: CoreId,
    pub(crate) driver: RefCell<Driver>,
    pub(crate) tasks: RefCell<Tasks>,
    /// Of the task that is being polled.
    pub(crate) polling: Cell<Class>,
    /// Operations on disks that the background may still begin.
    pub(crate) background_operations: Semaphore,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) receive_ring: Rc<ReceiveRing>,
    entropy: RefCell<Entropy>,
    pub(crate) bell: Arc<Doorbell<TaskId>>,
    pub(crate) stats: Arc<CoreStats>,
    pub(crate) placement: Arc<Placement>,
    stats_of_all: Arc<[Arc<CoreStats>]>,
}

/// What a core could not get.
pub(crate) type Refusal = (&'static str, std::io::Error);

impl Inner {
    /// Makes everything that a core owns, on the thread that will run it.
    pub(crate) fn new(
        id: CoreId,
        options: &Options,
        stats_of_all: Arc<[Arc<CoreStats>]>,
        placement: Arc<Placement>,
    ) -> Result<Rc<Self>, Refusal> {
        let stats = Arc::clone(&stats_of_all[usize::from(id.0)]);
        let pool = Pool::new(options.buffers_per_core, options.progress_reserve, Arc::clone(&stats))
            .map_err(|error| ("map its buffers", error))?;
        let (count, bytes) = (options.receive_buffers_per_core, options.receive_buffer_bytes);
        let receive_ring =
            ReceiveRing::new(count, bytes, Arc::clone(&stats)).map_err(|error| ("map its receive buffers", error))?;
        let bell = Doorbell::new(Arc::clone(&stats)).map_err(|error| ("make its doorbell", error))?;
        let bell = Arc::new(bell);
        let driver = match options.io {
            Io::Auto | Io::Uring => Driver::on_ring(&receive_ring, Arc::clone(&stats)),
            Io::Blocking => Driver::without_ring(&receive_ring, Arc::clone(&stats)),
        };
        let driver = driver.map_err(|error| ("set up its I/O driver", error))?;
        Ok(Rc::new(Self {
            id,
            driver: RefCell::new(driver),
            tasks: RefCell::new(Tasks::new(Arc::clone(&bell), Arc::clone(&stats))),
            polling: Cell::default(),
            background_operations: Semaphore::new(BACKGROUND_OPERATIONS_MAX),
            timers: RefCell::default(),
            pool,
            receive_ring,
            entropy: RefCell::new(Entropy::new()),
            bell,
            stats,
            placement,
            stats_of_all,
        }))
    }

    /// Registers the buffers with the ring, when the limit on locked memory allows. Not before every core has its ring:
    /// rings count towards that limit too (since Linux 6.14), and no core can do without.
    pub(crate) fn register_buffers(&self) {
        let registered = self.driver.borrow().register_buffers(&self.pool);
        match registered {
            Ok(true) => self.pool.set_registered(),
            Ok(false) => {}
            Err(error) => warn_unregistered(&error),
        }
    }

    /// The same clock on all cores, because moments travel between them.
    #[expect(clippy::unused_self, reason = "time is asked of a core, as everything else")]
    pub(crate) fn now(&self) -> Moment {
        static START: OnceLock<Instant> = OnceLock::new();
        let elapsed = START.get_or_init(Instant::now).elapsed();
        Moment { nanos: u64::try_from(elapsed.as_nanos()).expect("a process runs less than 584 years") }
    }
}

/// Enough to keep a disk at work between two polls; few enough that a client's operation waits behind few.
const BACKGROUND_OPERATIONS_MAX: usize = 4;

/// Says once per process that the buffers are not registered.
fn warn_unregistered(error: &std::io::Error) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            %error,
            "the kernel did not register the I/O buffers; disk I/O costs about a tenth more CPU: raise the limit on \
             locked memory (LimitMEMLOCK= in systemd, ulimit -l)"
        );
    });
}

impl Core {
    /// The counters of this core.
    #[must_use]
    pub fn stats(&self) -> Arc<CoreStats> {
        Arc::clone(&self.inner.stats)
    }

    /// The counters of all cores of the process, in the order of their ids.
    #[must_use]
    pub fn stats_of_all(&self) -> Arc<[Arc<CoreStats>]> {
        Arc::clone(&self.inner.stats_of_all)
    }

    /// Lets the other tasks of this core, and its completions, have a turn.
    pub fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        let mut yielded = false;
        std::future::poll_fn(move |context| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
    }
}

impl Core {
    fn insert(&self, future: TaskFuture, class: Class) -> Task {
        let inserted = self.inner.tasks.borrow_mut().insert(future, class);
        match inserted {
            Ok(id) => Task::new(Rc::clone(&self.inner), id),
            Err(refused) => {
                drop(refused);
                Task::ended()
            }
        }
    }
}

impl World for Core {
    type Buffer = Buffer;
    type Device = Device;
    type Task = Task;

    fn core(&self) -> CoreId {
        self.inner.id
    }

    fn core_count(&self) -> u16 {
        u16::try_from(self.inner.stats_of_all.len()).expect("checked at start")
    }

    fn now(&self) -> Moment {
        self.inner.now()
    }

    fn wall_clock(&self) -> WallTime {
        // A clock before 1970 is read as 1970: it decides nothing about order.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime { unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    fn random(&self) -> u64 {
        self.inner.entropy.borrow_mut().next()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        Sleep::new(Rc::clone(&self.inner), self.now() + duration)
    }

    fn spawn(&self, future: impl Future<Output = ()> + 'static) -> Task {
        self.insert(Box::pin(future), Class::Foreground)
    }

    /// One of its polls has its turn when no other task is ready, or after 16 turns in which others were; and no more
    /// than 4 operations on disks that its polls began are under way at a time, over all background tasks of the core.
    fn spawn_background(&self, future: impl Future<Output = ()> + 'static) -> Task {
        self.insert(Box::pin(future), Class::Background)
    }

    fn buffer(&self, reserve: Reserve) -> impl Future<Output = Buffer> + 'static {
        self.inner.pool.take(reserve)
    }
}
