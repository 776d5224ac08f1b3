//! A TCP socket: the calls that never wait.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::address::RawAddress;
use super::placement::Load;

/// Closed when the last of its owners lets go: the connection's halves, and every operation that the kernel has.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Of an accepted connection. Before the descriptor, so that who sees it closed sees its place free.
    #[expect(dead_code, reason = "its drop counts")]
    load: Option<Load>,
    fd: OwnedFd,
}

impl Socket {
    /// An accepted connection, which counts for its core until it is closed.
    pub(crate) const fn counted(fd: OwnedFd, load: Load) -> Self {
        Self { fd, load: Some(load) }
    }

    /// The same connection, which counts elsewhere.
    pub(crate) fn moved(self, load: Load) -> Self {
        Self { load: Some(load), ..self }
    }

    /// A new TCP socket for addresses of this family.
    pub(crate) fn tcp(family: libc::c_int) -> io::Result<Self> {
        // SAFETY: socket(2) takes no memory.
        let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        check(fd)?;
        // SAFETY: the descriptor is new and nobody else knows it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, load: None })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(crate) fn bind(&self, address: SocketAddr) -> io::Result<()> {
        let address = RawAddress::from(address);
        // SAFETY: the address is ours, of the length that it says, and outlives the call.
        check(unsafe { libc::bind(self.fd(), address.pointer(), address.length()) })
    }

    pub(crate) fn listen(&self) -> io::Result<()> {
        // SAFETY: listen(2) takes no memory.
        check(unsafe { libc::listen(self.fd(), BACKLOG) })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        // SAFETY: `ask` gives pointers to an address that is large enough for any, and its length.
        RawAddress::ask(|address, length| unsafe { libc::getsockname(self.fd(), address, length) })
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => libc::SHUT_RD,
            Shutdown::Write => libc::SHUT_WR,
            Shutdown::Both => libc::SHUT_RDWR,
        };
        // SAFETY: shutdown(2) takes no memory.
        check(unsafe { libc::shutdown(self.fd(), how) })
    }

    pub(crate) fn set_option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let length = size_of_val(&value) as libc::socklen_t;
        // SAFETY: the kernel reads an int from a local variable.
        check(unsafe { libc::setsockopt(self.fd(), level, name, (&raw const value).cast(), length) })
    }
}

/// Who is on the other end of a connection.
pub(crate) fn peer_of(fd: &OwnedFd) -> io::Result<SocketAddr> {
    // SAFETY: as in `Socket::local_addr`.
    RawAddress::ask(|address, length| unsafe { libc::getpeername(fd.as_raw_fd(), address, length) })
}

fn check(status: libc::c_int) -> io::Result<()> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Connections that the kernel keeps until they are accepted; it caps this at net.core.somaxconn.
const BACKLOG: libc::c_int = 4096;
