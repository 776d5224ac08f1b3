//! Tasks, wakes between cores, and the end of a core.

mod common;

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anvil_model::io::{Task as _, World};
use anvil_runtime::{StartError, start};
use tokio::sync::{Mutex, mpsc, oneshot};

use common::{options, run, run_one, wait_until};

/// Counts how often it is dropped.
struct Dropped(Rc<Cell<usize>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// A dropped task runs no further and its future is dropped at once; a detached one goes on.
#[test]
fn dropping_a_task_cancels_it() {
    run_one(|core| async move {
        let drops = Rc::new(Cell::new(0));
        let guard = Dropped(Rc::clone(&drops));
        let task = core.spawn(async move {
            let _guard = guard;
            pending::<()>().await;
        });
        core.yield_now().await;
        drop(task);
        assert_eq!(drops.get(), 1);
        let (sender, receiver) = oneshot::channel();
        let sleeper = core.clone();
        core.spawn(async move {
            sleeper.sleep(Duration::from_millis(1)).await;
            sender.send(7).unwrap();
        })
        .detach();
        assert_eq!(receiver.await, Ok(7));
    });
}

/// A task that drops its own handle ends at its next await, not in the middle of its poll.
#[test]
fn a_task_can_cancel_itself() {
    run_one(|core| async move {
        let handle = Rc::new(RefCell::new(None));
        let steps = Rc::new(Cell::new(0));
        let (own, counted, sleeper) = (Rc::clone(&handle), Rc::clone(&steps), core.clone());
        let task = core.spawn(async move {
            drop(own.borrow_mut().take());
            counted.set(1);
            sleeper.yield_now().await;
            counted.set(2);
        });
        *handle.borrow_mut() = Some(task);
        for _ in 0..10 {
            core.yield_now().await;
        }
        assert_eq!(steps.get(), 1);
        assert_eq!(core.stats().tasks_live.value(), 1, "only this one");
    });
}

/// Timers fire in the order of their moments, and not too early.
#[test]
fn timers_fire_in_order() {
    run_one(|core| async move {
        let fired = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for ms in [15_u64, 5, 10, 1] {
            let (core, fired) = (core.clone(), Rc::clone(&fired));
            tasks.push(core.clone().spawn(async move {
                let start = core.now();
                core.sleep(Duration::from_millis(ms)).await;
                assert!(core.now() - start >= Duration::from_millis(ms));
                fired.borrow_mut().push(ms);
            }));
        }
        wait_until(&core, "four timers", || fired.borrow().len() == 4).await;
        assert_eq!(*fired.borrow(), [1, 5, 10, 15]);
    });
}

/// A task that never waits does not keep timers and other tasks from their turn.
#[test]
fn a_busy_task_starves_nobody() {
    run_one(|core| async move {
        let spinner = core.clone();
        let _busy = core.spawn(async move {
            loop {
                spinner.yield_now().await;
            }
        });
        core.sleep(Duration::from_millis(5)).await;
    });
}

/// Beside background tasks that are always ready, a foreground task that is always ready waits for one poll of theirs at
/// most, and for none most of the time; and they do get on.
#[test]
fn the_background_comes_last_and_comes() {
    const TURNS: u64 = 1600;
    run_one(|core| async move {
        let stats = core.stats();
        let mut busy = Vec::new();
        for _ in 0..4 {
            let spinner = core.clone();
            busy.push(core.spawn_background(async move {
                loop {
                    spinner.yield_now().await;
                }
            }));
        }
        let begun = stats.polls_background.value();
        for _ in 0..TURNS {
            let before = stats.polls_background.value();
            core.yield_now().await;
            assert!(stats.polls_background.value() <= before + 1, "a client waited for several polls");
        }
        let polls = stats.polls_background.value() - begun;
        assert!((TURNS / 16 - 1..=TURNS / 16 + 1).contains(&polls), "{polls} polls in {TURNS} turns");
    });
}

/// While the foreground waits, the background has the core, also when it is woken from another thread.
#[test]
fn the_background_has_an_idle_core() {
    run_one(|core| async move {
        let (sender, receiver) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let worker = core.clone();
        let _task = core.spawn_background(async move {
            receiver.await.unwrap();
            for _ in 0..1000 {
                worker.yield_now().await;
            }
            done.send(()).unwrap();
        });
        core.yield_now().await;
        let thread = std::thread::spawn(move || sender.send(()).unwrap());
        is_done.await.unwrap();
        assert!(core.stats().polls_background.value() > 1000);
        thread.join().unwrap();
    });
}

/// A core with nothing to do sleeps in its ring.
#[test]
fn an_idle_core_sleeps() {
    run_one(|core| async move {
        let enters = core.stats().enters.value();
        core.sleep(Duration::from_millis(100)).await;
        let enters = core.stats().enters.value() - enters;
        assert!(enters < 10, "entered the kernel {enters} times in 100 ms");
    });
}

/// What two cores send one another over channels of one message, in both directions at once and with several tasks each,
/// arrives whole: no wake is lost and nobody waits for ever. No timer runs that could wake a core by chance; a third
/// core watches that it ends.
#[test]
fn bounded_channels_between_cores_do_not_stand_still() {
    const MESSAGES: usize = 5_000;
    const TASKS: usize = 4;
    type Ends = (Vec<mpsc::Sender<usize>>, Vec<mpsc::Receiver<usize>>);
    let mut ends: [Ends; 2] = Default::default();
    for _ in 0..TASKS {
        for core in [0, 1] {
            let (sender, receiver) = mpsc::channel(1);
            ends[core].0.push(sender);
            ends[1 - core].1.push(receiver);
        }
    }
    let ends = Arc::new(ends.map(|ends| Mutex::new(Some(ends))));
    let running = Arc::new(AtomicUsize::new(2));
    run(options(3), move |core| {
        let (ends, running) = (Arc::clone(&ends), Arc::clone(&running));
        async move {
            let id = usize::from(core.core().0);
            if id == 2 {
                return wait_until(&core, "two cores exchange their messages", || running.load(Ordering::SeqCst) == 0)
                    .await;
            }
            let (senders, receivers) = ends[id].lock().await.take().unwrap();
            let (done, mut all_done) = mpsc::channel(1);
            for sender in senders {
                let done = done.clone();
                let sending = async move {
                    for number in 0..MESSAGES {
                        sender.send(number).await.unwrap();
                    }
                    done.send(MESSAGES).await.unwrap();
                };
                core.spawn(sending).detach();
            }
            for mut receiver in receivers {
                let done = done.clone();
                let receiving = async move {
                    let mut expected = 0;
                    while let Some(number) = receiver.recv().await {
                        assert_eq!(number, expected);
                        expected += 1;
                    }
                    done.send(expected).await.unwrap();
                };
                core.spawn(receiving).detach();
            }
            drop(done);
            for _ in 0..2 * TASKS {
                assert_eq!(all_done.recv().await, Some(MESSAGES));
            }
            running.fetch_sub(1, Ordering::SeqCst);
        }
    });
}

/// A wake from a thread that is no core ends the sleep of the core.
#[test]
fn foreign_threads_wake_a_sleeping_core() {
    run_one(|core| async move {
        for _ in 0..50 {
            let (sender, receiver) = oneshot::channel();
            let enters = core.stats().enters.value();
            let stats = core.stats();
            let thread = std::thread::spawn(move || {
                // The core is about to sleep, or sleeps: both must end well.
                while stats.enters.value() == enters {
                    std::hint::spin_loop();
                }
                sender.send(()).unwrap();
            });
            core.yield_now().await;
            receiver.await.unwrap();
            thread.join().unwrap();
        }
        assert!(core.stats().wakes_remote.value() > 0);
    });
}

/// A panic of a task is reported by the join with its core and message.
#[test]
fn a_panic_is_reported() {
    let cores = start(options(2), |core| async move {
        if core.core().0 == 1 {
            core.spawn(async { panic!("on purpose") }).detach();
            pending::<()>().await;
        }
    });
    let error = cores.unwrap().join().unwrap_err();
    assert_eq!((error.core.0, error.message.as_str()), (1, "on purpose"));
}

/// Options that contradict themselves, or a CPU that is not there, start nothing and say so.
#[test]
fn impossible_options_are_refused() {
    let mut no_room = options(1);
    no_room.progress_reserve = no_room.buffers_per_core;
    assert!(matches!(start(no_room, |_| async {}), Err(StartError::Options(_))));
    let mut odd = options(1);
    odd.receive_buffers_per_core = 3;
    assert!(matches!(start(odd, |_| async {}), Err(StartError::Options(_))));
    let mut nowhere = options(2);
    nowhere.cpus[1] = 1023;
    match start(nowhere, |_| async {}) {
        Err(StartError::Core { core, .. }) => assert_eq!(core.0, 1),
        other => panic!("{other:?}"),
    }
}

/// Ids, counts, clocks and random numbers are what the seam says.
#[test]
fn the_world_answers() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let numbers = Arc::clone(&seen);
    run(options(3), move |core| {
        let numbers = Arc::clone(&numbers);
        async move {
            assert_eq!(core.core_count(), 3);
            assert_eq!(core.stats_of_all().len(), 3);
            let earlier = core.now();
            assert!(core.now() >= earlier);
            assert!(core.wall_clock().unix_ms > 1_700_000_000_000);
            assert_ne!(core.random(), core.random());
            numbers.lock().unwrap().push(core.core().0);
        }
    });
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
}

/// All of the above on the blocking driver.
#[test]
fn also_without_io_uring() {
    common::also_without_io_uring();
}
