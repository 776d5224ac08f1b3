//! The threads that wait for disks in place of a core that has no ring.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::request::DiskCall;
use super::{Completion, Key};
use crate::disk::FileRef;
use crate::doorbell::Doorbell;
use crate::stats::CoreStats;

/// A few threads of one core, and what they are to do. They run on the core's CPU, where they mostly sleep.
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Jobs whose completion is not collected yet.
    outstanding: usize,
    /// Completions on their way to the backlog.
    done: VecDeque<(Key, i32)>,
}

struct Shared {
    jobs: Mutex<Jobs>,
    work: Condvar,
    done: Doorbell<(Key, i32)>,
}

#[derive(Default)]
struct Jobs {
    queue: VecDeque<Job>,
    /// Threads that wait for work.
    idle: usize,
    closed: bool,
}

struct Job {
    key: Key,
    file: FileRef,
    call: DiskCall,
}

// SAFETY: the pointers name memory that the operation's slot owns until its completion has been posted and dispatched,
// even when the core ends first (`Driver::close`); nobody uses that memory meanwhile.
unsafe impl Send for Job {}

impl Workers {
    pub(super) fn start(stats: Arc<CoreStats>) -> io::Result<Self> {
        let shared = Shared { jobs: Mutex::default(), work: Condvar::new(), done: Doorbell::new(stats)? };
        let mut workers = Self { shared: Arc::new(shared), threads: Vec::new(), outstanding: 0, done: VecDeque::new() };
        workers.hire()?;
        Ok(workers)
    }

    pub(super) fn submit(&mut self, key: Key, file: FileRef, call: DiskCall) {
        self.outstanding += 1;
        let mut jobs = self.shared.lock();
        jobs.queue.push_back(Job { key, file, call });
        let short_handed = jobs.queue.len() > jobs.idle;
        drop(jobs);
        self.shared.work.notify_one();
        if short_handed && self.threads.len() < THREADS_MAX {
            // Those that are there do it later.
            if let Err(error) = self.hire() {
                tracing::debug!(%error, "no further thread for disks");
            }
        }
    }

    /// Takes back what nobody has begun; false when it was.
    pub(super) fn withdraw(&mut self, key: Key) -> bool {
        let mut jobs = self.shared.lock();
        let at = jobs.queue.iter().position(|job| job.key == key);
        let withdrawn = at.and_then(|at| jobs.queue.remove(at)).is_some();
        self.outstanding -= usize::from(withdrawn);
        withdrawn
    }

    /// What is done.
    pub(super) fn collect(&mut self, backlog: &mut VecDeque<Completion>) {
        self.shared.done.drain(&mut self.done);
        self.outstanding -= self.done.len();
        backlog.extend(self.done.drain(..).map(|(key, result)| Completion::last(key, result)));
    }

    /// Rings when something is done while the core sleeps.
    pub(super) fn bell(&self) -> RawFd {
        self.shared.done.fd()
    }

    /// See [`Doorbell::fall_asleep`].
    pub(super) fn fall_asleep(&self) -> bool {
        self.shared.done.fall_asleep()
    }

    pub(super) fn wake_up(&self) {
        self.shared.done.wake_up();
    }

    /// The bell was heard.
    pub(super) fn silence(&self) {
        self.shared.done.silence();
    }

    fn hire(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let name = thread::current().name().map_or_else(|| "anvil-disk".to_owned(), |core| format!("{core}-disk"));
        self.threads.push(thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || shared.work())?);
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut jobs = self.shared.lock();
        jobs.closed = true;
        drop(jobs);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // One that a disk keeps must not keep the process.
            if self.outstanding == 0 {
                thread.join().expect("a worker does nothing that panics");
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut jobs = self.lock();
        while !jobs.closed {
            let Some(job) = jobs.queue.pop_front() else {
                jobs.idle += 1;
                jobs = self.work.wait(jobs).unwrap_or_else(PoisonError::into_inner);
                jobs.idle -= 1;
                continue;
            };
            drop(jobs);
            let result = job.run();
            self.done.post((job.key, result));
            jobs = self.lock();
        }
    }
}

impl Job {
    fn run(&self) -> i32 {
        let fd = self.file.fd;
        let result = match self.call {
            DiskCall::Read { memory, length, offset, .. } => {
                // SAFETY: the memory is this job's until its completion (see `Job`).
                unsafe { libc::pread(fd, memory.cast(), length as usize, offset.cast_signed()) }
            }
            DiskCall::Write { memory, length, offset, .. } => {
                // SAFETY: as above.
                unsafe { libc::pwrite(fd, memory.cast(), length as usize, offset.cast_signed()) }
            }
            // SAFETY: fdatasync(2) takes no memory.
            DiskCall::Flush => unsafe { libc::fdatasync(fd) as isize },
            DiskCall::Allocate { offset, length } => {
                // SAFETY: fallocate(2) takes no memory.
                unsafe { libc::fallocate(fd, 0, offset.cast_signed(), length.cast_signed()) as isize }
            }
        };
        match i32::try_from(result) {
            Ok(count @ 0..) => count,
            _ => -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

/// Operations of one core that disks work on at once. More would help fast disks, whose hosts had better allow io_uring.
const THREADS_MAX: usize = 8;
/// They call the kernel and nothing else.
const STACK_BYTES: usize = 64 << 10;
