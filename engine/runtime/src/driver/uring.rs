//! The engine on io_uring: requests become entries of the ring.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::types::{Fd, Fixed, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use super::request::{DiskCall, Request, SEND_FLAGS};
use super::{Completion, Key, Wait, ring};
use crate::disk::FileRef;
use crate::pool::Pool;
use crate::receive_ring::{GROUP, ReceiveRing};
use crate::stats::CoreStats;

/// A ring with its table of files.
pub(super) struct Uring {
    ring: IoUring,
    /// Free places in the table.
    files: Vec<u32>,
}

impl Uring {
    /// To be called on the thread that will use it.
    pub(super) fn new() -> io::Result<Self> {
        let (ring, deferred) = ring::build(SUBMISSIONS)?;
        tracing::debug!(deferred, "a core has its ring");
        // Without a table of registered files every disk is used by its descriptor: slower, not wrong.
        let files = match ring.submitter().register_files_sparse(FILES_MAX) {
            Ok(()) => (0..FILES_MAX).rev().collect(),
            Err(error) => {
                tracing::debug!(%error, "the kernel has no table for registered files");
                Vec::new()
            }
        };
        Ok(Self { ring, files })
    }

    pub(super) fn register_buffers(&self, pool: &Pool) -> io::Result<()> {
        // SAFETY: the pieces are mapped as long as the pool lives, and the core keeps it until it has closed the ring.
        unsafe { self.ring.submitter().register_buffers(&pool.registrations()) }
    }

    pub(super) fn register_receive_ring(&self, receive: &ReceiveRing) -> io::Result<()> {
        let (address, count) = receive.registration();
        // SAFETY: the entries are mapped, initialised and page-aligned; the core keeps them until it has closed the ring.
        unsafe { self.ring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0) }
    }

    pub(super) fn register_file(&mut self, fd: RawFd) -> Option<u32> {
        let index = self.files.pop()?;
        match self.ring.submitter().register_files_update(index, &[fd]) {
            Ok(_) => Some(index),
            Err(error) => {
                tracing::debug!(%error, "a disk is used without a registered file");
                self.files.push(index);
                None
            }
        }
    }

    pub(super) fn unregister_file(&mut self, index: u32) {
        // Operations under way keep the file for themselves; failing leaves a file open until the ring is closed.
        if self.ring.submitter().register_files_update(index, &[-1]).is_ok() {
            self.files.push(index);
        }
    }

    pub(super) fn start(&mut self, key: Key, request: &Request, backlog: &mut VecDeque<Completion>, stats: &CoreStats) {
        self.push(&entry(request).user_data(key.user_data()), backlog, stats);
    }

    pub(super) fn cancel(&mut self, key: Key, backlog: &mut VecDeque<Completion>, stats: &CoreStats) {
        let entry = opcode::AsyncCancel::new(key.user_data()).build().user_data(IGNORED);
        self.push(&entry, backlog, stats);
    }

    pub(super) fn enter(
        &mut self,
        wait: Wait,
        backlog: &mut VecDeque<Completion>,
        stats: &CoreStats,
    ) -> io::Result<()> {
        let ring = &mut self.ring;
        let submissions = ring.submission();
        let nothing = submissions.is_empty() && !submissions.taskrun() && !submissions.cq_overflow();
        drop(submissions);
        if wait == Wait::No && nothing {
            self.collect(backlog);
            return Ok(());
        }
        // Before it: who watches the count learns that the core is about to sleep.
        stats.enters.add(1);
        let entered = match wait {
            Wait::No => ring.submit(),
            _ if !backlog.is_empty() => ring.submit(),
            Wait::AtMost(None) => ring.submit_and_wait(1),
            Wait::AtMost(Some(duration)) => {
                let timeout = Timespec::from(duration);
                ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout))
            }
        };
        self.collect(backlog);
        match entered {
            Ok(_) => Ok(()),
            // Nothing came in time, a signal came, the kernel is short of memory, or has more completions than room:
            // the executor comes back with the ring drained.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn push(&mut self, entry: &Entry, backlog: &mut VecDeque<Completion>, stats: &CoreStats) {
        // SAFETY: `Driver::start` put what the entry points to into a slot, where it stays until the last completion; a
        // cancel points to nothing.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            stats.enters.add(1);
            // Whatever the error, emptying the completion queue is what can help; a ring that never takes anything again
            // fails in `enter`.
            if self.ring.submit().is_err() {
                self.collect(backlog);
            }
        }
    }

    fn collect(&mut self, backlog: &mut VecDeque<Completion>) {
        let known = self.ring.completion().filter(|entry| entry.user_data() != IGNORED);
        backlog.extend(known.map(|entry| Completion {
            key: Key::from_user_data(entry.user_data()),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
            buffer: cqueue::buffer_select(entry.flags()),
        }));
    }
}

/// The same entry for a registered file and for a descriptor, which are different types.
macro_rules! disk_entry {
    ($file:expr, $call:expr) => {
        match $call {
            DiskCall::Read { memory, length, offset, registered: Some(index) } => {
                opcode::ReadFixed::new($file, memory, length, index).offset(offset).build()
            }
            DiskCall::Read { memory, length, offset, registered: None } => {
                opcode::Read::new($file, memory, length).offset(offset).build()
            }
            DiskCall::Write { memory, length, offset, registered: Some(index) } => {
                opcode::WriteFixed::new($file, memory, length, index).offset(offset).build()
            }
            DiskCall::Write { memory, length, offset, registered: None } => {
                opcode::Write::new($file, memory, length).offset(offset).build()
            }
            DiskCall::Flush => opcode::Fsync::new($file).flags(FsyncFlags::DATASYNC).build(),
            DiskCall::Allocate { offset, length } => opcode::Fallocate::new($file, length).offset(offset).build(),
        }
    };
}

fn entry(request: &Request) -> Entry {
    match *request {
        // Not SOCK_NONBLOCK: with it, the kernel would answer EAGAIN instead of waiting in the ring.
        Request::Accept { socket } => opcode::AcceptMulti::new(Fd(socket)).flags(libc::SOCK_CLOEXEC).build(),
        Request::Connect { socket, address, length } => opcode::Connect::new(Fd(socket), address, length).build(),
        Request::ReceiveMany { socket } => opcode::RecvMulti::new(Fd(socket), GROUP).build(),
        Request::Receive { socket, memory, length, all } => {
            let flags = if all { libc::MSG_WAITALL } else { 0 };
            opcode::Recv::new(Fd(socket), memory, length).flags(flags).build()
        }
        Request::Send { socket, memory, length } => {
            opcode::Send::new(Fd(socket), memory, length).flags(SEND_FLAGS | GO_ON).build()
        }
        Request::SendMessage { socket, message } => {
            opcode::SendMsg::new(Fd(socket), message).flags((SEND_FLAGS | GO_ON).cast_unsigned()).build()
        }
        Request::HangUp { socket } => opcode::PollAdd::new(Fd(socket), POLL_HANG_UP).build(),
        Request::WaitEvent { eventfd, counter } => opcode::Read::new(Fd(eventfd), counter, 8).build(),
        Request::Disk { file: FileRef { registered: Some(index), .. }, call } => disk_entry!(Fixed(index), call),
        Request::Disk { file, call } => disk_entry!(Fd(file.fd), call),
    }
}

/// The kernel goes on by itself after a short send.
const GO_ON: i32 = libc::MSG_WAITALL;
const POLL_HANG_UP: u32 = libc::POLLRDHUP as u32;
/// Submissions that fit before the kernel is entered.
const SUBMISSIONS: u32 = 512;
/// Disks that are used as registered files.
const FILES_MAX: u32 = 256;
/// The completion of a cancel: whether it found anything, the operation's own completion says.
const IGNORED: u64 = u64::MAX;
