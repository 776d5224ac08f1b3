//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anvil_model::io::World as _;

use super::address::RawAddress;
use super::connection::Connection;
use super::placement::{Entry, Guest};
use super::socket::{self, Socket};
use crate::core::{Core, Inner};
use crate::driver::Arrival;
use crate::op::{Stream, accept};
use crate::timer::Sleep;

/// A listening socket of one core. Several cores may listen on one address; then a connection goes to the one that has
/// the fewest, whichever accepted it.
pub struct Listener {
    inner: Rc<Inner>,
    socket: Rc<Socket>,
    address: SocketAddr,
    entry: Entry,
    stream: Option<Stream>,
    pause: Option<Sleep>,
    /// How long the next pause is; back at the minimum after a connection.
    pause_next: Duration,
}

impl Listener {
    /// Listens on `address`; port 0 takes a free one, see [`Self::local_addr`].
    ///
    /// # Errors
    /// When the address is in use or not ours.
    pub fn bind(core: &Core, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::tcp(RawAddress::from(address).family())?;
        // A restart must not wait for connections of the last run; and every core has a socket at the same address.
        socket.set_option(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        socket.set_option(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        socket.bind(address)?;
        socket.listen()?;
        let address = socket.local_addr()?;
        let inner = Rc::clone(&core.inner);
        let entry = inner.placement.enter(address, core.core());
        Ok(Self { inner, socket: Rc::new(socket), address, entry, stream: None, pause: None, pause_next: PAUSE_MIN })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next connection and who is on its other end. When the process has no file descriptor left, waits until
    /// there is one. Dropping the future loses no connection.
    ///
    /// # Errors
    /// When the socket itself fails; it does not recover then.
    pub async fn accept(&mut self) -> io::Result<(Connection, SocketAddr)> {
        std::future::poll_fn(|context| self.poll_accept(context)).await
    }

    /// [`Self::accept`] for those who implement `poll`.
    ///
    /// # Errors
    /// When the socket itself fails; it does not recover then.
    pub fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(Connection, SocketAddr)>> {
        if let Poll::Ready(Some(guest)) = self.entry.inbox.poll_recv(context) {
            return Poll::Ready(Ok(self.welcome(guest)));
        }
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(Future::poll(Pin::new(pause), context));
                self.pause = None;
            }
            let Self { inner, socket, .. } = self;
            let stream = self.stream.get_or_insert_with(|| accept::accept(inner, socket));
            match ready!(stream.poll_next(context)) {
                Some(Arrival::Connection(fd)) => {
                    self.pause_next = PAUSE_MIN;
                    // It may have gone again already; then it has no other end.
                    let Ok(peer) = socket::peer_of(&fd) else { continue };
                    if let Some(guest) = self.entry.place(fd, peer) {
                        return Poll::Ready(Ok(self.welcome(guest)));
                    }
                }
                Some(Arrival::Failed(errno)) => {
                    if let Some(error) = self.failed(errno) {
                        return Poll::Ready(Err(error));
                    }
                }
                Some(Arrival::Bytes(_)) => unreachable!("a listener receives no bytes"),
                None => self.stream = None,
            }
        }
    }

    fn welcome(&self, guest: Guest) -> (Connection, SocketAddr) {
        self.inner.stats.connections_accepted.add(1);
        (Connection::new(Rc::clone(&self.inner), guest.socket), guest.peer)
    }

    /// What accept(2) says about one connection, or about a shortage, is no end of the listener.
    fn failed(&mut self, errno: i32) -> Option<io::Error> {
        let error = io::Error::from_raw_os_error(errno);
        match errno {
            libc::EBADF | libc::EFAULT | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP => Some(error),
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => {
                if self.pause_next == PAUSE_MIN {
                    tracing::warn!(%error, address = %self.address, "no new connections for a moment");
                }
                self.pause = Some(Sleep::new(Rc::clone(&self.inner), self.inner.now() + self.pause_next));
                self.pause_next = (self.pause_next * 2).min(PAUSE_MAX);
                None
            }
            _ => None,
        }
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Between two attempts while the system is short of descriptors or memory.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
