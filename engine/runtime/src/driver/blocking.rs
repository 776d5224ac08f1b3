//! The engine for hosts where io_uring is forbidden: sockets by epoll(7), disks by a few threads.
//!
//! Plays the kernel's part for everything above it: operations begin with the next [`Blocking::enter`], complete later,
//! and can be cancelled. A socket's operation is tried at once and then whenever epoll says that it is worth it, with
//! calls that never wait; a disk's runs on one of the [`Workers`].

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;

use super::request::{Request, SEND_FLAGS};
use super::workers::Workers;
use super::{Completion, Key, Wait};
use crate::receive_ring::ReceiveRing;
use crate::stats::CoreStats;

/// Invariant: an operation is in exactly one of `starting`, `waiting` and `workers`, until its last completion is in the
/// backlog; what is in `waiting` is in the watch of its descriptor, and epoll knows the interest of every watch.
pub(super) struct Blocking {
    epoll: OwnedFd,
    starting: VecDeque<(Key, Request)>,
    waiting: BTreeMap<Key, Request>,
    watches: BTreeMap<RawFd, Watch>,
    workers: Workers,
    receive: Rc<ReceiveRing>,
    events: Vec<libc::epoll_event>,
}

/// Who waits for what of a descriptor, and what epoll was told of it.
#[derive(Debug, Default)]
struct Watch {
    waiting: Vec<(Key, u32)>,
    armed: u32,
}

impl Watch {
    fn wanted(&self) -> u32 {
        self.waiting.iter().fold(0, |all, (_, interest)| all | interest)
    }
}

/// How a try ended.
enum Attempt {
    /// The last completion.
    Done(i32, Option<u16>),
    /// A completion after which others come.
    More(i32, Option<u16>),
    /// Nothing to do before epoll says so.
    Blocked,
}

impl Blocking {
    pub(super) fn new(receive: &Rc<ReceiveRing>, stats: &Arc<CoreStats>) -> io::Result<Self> {
        // SAFETY: epoll_create1(2) takes no memory.
        let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor is new and nobody else knows it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let workers = Workers::start(Arc::clone(stats))?;
        control(&epoll, libc::EPOLL_CTL_ADD, workers.bell(), READ)?;
        Ok(Self {
            epoll,
            starting: VecDeque::new(),
            waiting: BTreeMap::new(),
            watches: BTreeMap::new(),
            workers,
            receive: Rc::clone(receive),
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX],
        })
    }

    pub(super) fn start(&mut self, key: Key, request: Request) {
        self.starting.push_back((key, request));
    }

    /// What a worker has begun goes on to its end; everything else ends here.
    pub(super) fn cancel(&mut self, key: Key, backlog: &mut VecDeque<Completion>) {
        let found = if let Some(at) = self.starting.iter().position(|(starting, _)| *starting == key) {
            self.starting.remove(at).is_some()
        } else if let Some(request) = self.waiting.remove(&key) {
            self.unwatch(descriptor(&request), key);
            true
        } else {
            self.workers.withdraw(key)
        };
        if found {
            backlog.push_back(Completion::last(key, -libc::ECANCELED));
        }
    }

    /// Begins what was started, and waits for completions when asked to.
    pub(super) fn enter(
        &mut self,
        wait: Wait,
        backlog: &mut VecDeque<Completion>,
        stats: &CoreStats,
    ) -> io::Result<()> {
        while let Some((key, request)) = self.starting.pop_front() {
            self.begin(key, request, backlog);
        }
        let may_sleep = wait != Wait::No && backlog.is_empty() && self.workers.fall_asleep();
        let timeout = if may_sleep { milliseconds(wait) } else { 0 };
        stats.enters.add(1);
        let (pointer, room) = (self.events.as_mut_ptr(), EVENTS_MAX as libc::c_int);
        // SAFETY: the kernel writes at most `room` events to the vector, which has that length.
        let count = check(unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), pointer, room, timeout) });
        if may_sleep {
            self.workers.wake_up();
        }
        let count = match count {
            Ok(count) => usize::try_from(count).expect("not negative"),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for index in 0..count {
            let libc::epoll_event { events, u64: fd } = self.events[index];
            let fd = RawFd::try_from(fd).expect("it was a descriptor when it was put there");
            if fd == self.workers.bell() {
                self.workers.silence();
            } else {
                self.ready(fd, events, backlog);
            }
        }
        self.workers.collect(backlog);
        Ok(())
    }

    fn begin(&mut self, key: Key, request: Request, backlog: &mut VecDeque<Completion>) {
        let attempt = match request {
            Request::Disk { file, call } => return self.workers.submit(key, file, call),
            Request::Accept { socket } | Request::Connect { socket, .. } => {
                set_nonblocking(socket).map_or_else(|error| Attempt::Done(negative(&error), None), |()| first(&request))
            }
            Request::HangUp { .. } | Request::WaitEvent { .. } => Attempt::Blocked,
            // Who has no buffer and no bytes does not want a buffer yet.
            Request::ReceiveMany { .. } if self.receive.peek().is_none() => Attempt::Blocked,
            _ => self.attempt(&request),
        };
        match attempt {
            Attempt::Done(result, buffer) => backlog.push_back(Completion { key, result, more: false, buffer }),
            Attempt::More(result, buffer) => {
                backlog.push_back(Completion { key, result, more: true, buffer });
                self.watch(key, request, backlog);
            }
            Attempt::Blocked => self.watch(key, request, backlog),
        }
    }

    /// Tries what waits for these events of a descriptor.
    fn ready(&mut self, fd: RawFd, events: u32, backlog: &mut VecDeque<Completion>) {
        // Whatever is wrong with a socket, the call that is tried says it best.
        let events = if events & (ERROR | HANG_UP) == 0 { events } else { u32::MAX };
        let Some(watch) = self.watches.get(&fd) else { return };
        let due = watch.waiting.iter().filter(|(_, interest)| interest & events != 0);
        for key in due.map(|(key, _)| *key).collect::<Vec<_>>() {
            let attempt = self.attempt(&self.waiting[&key]);
            match attempt {
                Attempt::Done(result, buffer) => {
                    self.waiting.remove(&key);
                    self.unwatch(fd, key);
                    backlog.push_back(Completion { key, result, more: false, buffer });
                }
                Attempt::More(result, buffer) => backlog.push_back(Completion { key, result, more: true, buffer }),
                Attempt::Blocked => {}
            }
        }
    }

    fn watch(&mut self, key: Key, request: Request, backlog: &mut VecDeque<Completion>) {
        let fd = descriptor(&request);
        self.waiting.insert(key, request);
        self.watches.entry(fd).or_default().waiting.push((key, interest(&request)));
        if let Err(error) = self.arm(fd) {
            self.waiting.remove(&key);
            self.unwatch(fd, key);
            backlog.push_back(Completion::last(key, negative(&error)));
        }
    }

    fn unwatch(&mut self, fd: RawFd, key: Key) {
        if let Some(watch) = self.watches.get_mut(&fd) {
            watch.waiting.retain(|(waiting, _)| *waiting != key);
        }
        if let Err(error) = self.arm(fd) {
            // The descriptor is open, and was known to epoll: neither DEL nor a smaller MOD needs anything.
            tracing::error!(%error, "epoll does not forget a descriptor");
        }
    }

    /// Tells epoll what is wanted of a descriptor now. It must forget those of which nothing is wanted: it would go on
    /// reporting that they have hung up, and their number may soon name another file.
    fn arm(&mut self, fd: RawFd) -> io::Result<()> {
        let Some(watch) = self.watches.get_mut(&fd) else { return Ok(()) };
        let (armed, wanted) = (watch.armed, watch.wanted());
        let forgotten = watch.waiting.is_empty();
        let result = match (armed, wanted) {
            _ if armed == wanted => Ok(()),
            (0, _) => control(&self.epoll, libc::EPOLL_CTL_ADD, fd, wanted),
            (_, 0) => control(&self.epoll, libc::EPOLL_CTL_DEL, fd, 0),
            _ => control(&self.epoll, libc::EPOLL_CTL_MOD, fd, wanted),
        };
        if forgotten {
            self.watches.remove(&fd);
        } else if result.is_ok() {
            watch.armed = wanted;
        }
        result
    }

    /// One call that does not wait.
    fn attempt(&self, request: &Request) -> Attempt {
        match *request {
            Request::Accept { socket } => {
                let nobody = std::ptr::null_mut();
                // SAFETY: without an address, accept4(2) takes no memory.
                match count(unsafe { libc::accept4(socket, nobody, std::ptr::null_mut(), libc::SOCK_CLOEXEC) } as isize)
                {
                    Attempt::Done(fd @ 0.., _) => Attempt::More(fd, None),
                    other => other,
                }
            }
            // The attempt was begun; this is how it ended.
            Request::Connect { socket, .. } => Attempt::Done(-pending_error(socket), None),
            Request::ReceiveMany { socket } => {
                let Some((id, memory, length)) = self.receive.peek() else {
                    return Attempt::Done(-libc::ENOBUFS, None);
                };
                // SAFETY: the buffer has this length and is nobody's until it is picked.
                match count(unsafe { libc::recv(socket, memory.as_ptr().cast(), length, libc::MSG_DONTWAIT) }) {
                    Attempt::Done(count @ 1.., _) => {
                        self.receive.pick();
                        Attempt::More(count, Some(id))
                    }
                    other => other,
                }
            }
            Request::Receive { socket, memory, length, .. } => {
                // SAFETY: the slot of this operation owns the memory (see `Request`).
                count(unsafe { libc::recv(socket, memory.cast(), length as usize, libc::MSG_DONTWAIT) })
            }
            Request::Send { socket, memory, length } => {
                // SAFETY: as above.
                count(unsafe { libc::send(socket, memory.cast(), length as usize, SEND_FLAGS | libc::MSG_DONTWAIT) })
            }
            Request::SendMessage { socket, message } => {
                // SAFETY: as above; the parts of the message belong to the slot too.
                count(unsafe { libc::sendmsg(socket, message, SEND_FLAGS | libc::MSG_DONTWAIT) })
            }
            Request::HangUp { .. } => Attempt::Done(0, None),
            // SAFETY: as above. It does not wait, for its counter is not zero, and nobody else reads it.
            Request::WaitEvent { eventfd, counter } => count(unsafe { libc::read(eventfd, counter.cast(), 8) }),
            Request::Disk { .. } => unreachable!("disks are for the workers"),
        }
    }
}

/// The first step of what begins only when the other side answers.
fn first(request: &Request) -> Attempt {
    let Request::Connect { socket, address, length } = *request else { return Attempt::Blocked };
    // SAFETY: the slot of this operation owns the address, which has this length.
    match check(unsafe { libc::connect(socket, address, length) }) {
        Ok(_) => Attempt::Done(0, None),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => Attempt::Blocked,
        Err(error) => Attempt::Done(negative(&error), None),
    }
}

/// What a call that does not wait came to.
fn count(result: isize) -> Attempt {
    match i32::try_from(result) {
        Ok(0..) => Attempt::Done(i32::try_from(result).expect("just seen"), None),
        // Linux moves at most 2^31 - 4096 bytes with one call (read(2)).
        Err(_) => unreachable!("a call moved {result} bytes"),
        Ok(_) => {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Attempt::Blocked,
                _ => Attempt::Done(negative(&error), None),
            }
        }
    }
}

fn pending_error(socket: RawFd) -> i32 {
    let mut errno: libc::c_int = 0;
    let mut length = size_of_val(&errno) as libc::socklen_t;
    let value = (&raw mut errno).cast();
    // SAFETY: the kernel writes an int to a local variable.
    match check(unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_ERROR, value, &raw mut length) }) {
        Ok(_) => errno,
        Err(error) => -negative(&error),
    }
}

fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: these commands of fcntl(2) take no memory.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

fn control(epoll: &OwnedFd, operation: libc::c_int, fd: RawFd, events: u32) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: u64::try_from(fd).expect("an open descriptor") };
    // SAFETY: the kernel reads a local variable.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd, &raw mut event) }).map(drop)
}

fn check(status: libc::c_int) -> io::Result<libc::c_int> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(status) }
}

fn negative(error: &io::Error) -> i32 {
    -error.raw_os_error().unwrap_or(libc::EIO)
}

const fn descriptor(request: &Request) -> RawFd {
    match *request {
        Request::Accept { socket }
        | Request::Connect { socket, .. }
        | Request::ReceiveMany { socket }
        | Request::Receive { socket, .. }
        | Request::Send { socket, .. }
        | Request::SendMessage { socket, .. }
        | Request::HangUp { socket } => socket,
        Request::WaitEvent { eventfd, .. } => eventfd,
        Request::Disk { file, .. } => file.fd,
    }
}

const fn interest(request: &Request) -> u32 {
    match request {
        Request::Connect { .. } | Request::Send { .. } | Request::SendMessage { .. } => WRITE,
        Request::HangUp { .. } => PEER_ENDED,
        _ => READ,
    }
}

/// How long epoll may sleep; -1 is for ever. Rounded up: who wakes too early would only turn around.
fn milliseconds(wait: Wait) -> libc::c_int {
    match wait {
        Wait::No => 0,
        Wait::AtMost(None) => -1,
        Wait::AtMost(Some(duration)) => {
            libc::c_int::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
        }
    }
}

const READ: u32 = libc::EPOLLIN as u32;
const WRITE: u32 = libc::EPOLLOUT as u32;
const PEER_ENDED: u32 = libc::EPOLLRDHUP as u32;
const ERROR: u32 = libc::EPOLLERR as u32;
const HANG_UP: u32 = libc::EPOLLHUP as u32;
/// Events that are taken from epoll at once; more come with the next call.
const EVENTS_MAX: usize = 256;
