//! TCP on one core: listeners and connections that never leave it.

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::{Deref, Range};
use std::task::{Context, Poll};

use crate::core::Core;
use crate::pool::Buffer;

/// A listening socket of one core. Several cores may listen on one address; the kernel spreads the connections.
#[derive(Debug)]
pub struct Listener {
    here_only: PhantomData<*const ()>,
}

impl Listener {
    /// Listens on `address`; port 0 takes a free one, see [`Self::local_addr`].
    ///
    /// # Errors
    /// When the address is in use or not ours.
    pub fn bind(core: &Core, address: SocketAddr) -> io::Result<Self> {
        todo!()
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }

    /// The next connection and who is on its other end. When the process has no file descriptor left, waits until
    /// there is one. Dropping the future loses no connection.
    ///
    /// # Errors
    /// When the socket itself fails; it does not recover then.
    pub async fn accept(&self) -> io::Result<(Connection, SocketAddr)> {
        todo!()
    }
}

/// Bytes that came from a connection, in a small buffer of the core. Goes back when dropped: don't keep it while
/// waiting for something else.
#[derive(Debug)]
pub struct Received {
    here_only: PhantomData<*const ()>,
}

impl Deref for Received {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        todo!()
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for Vec<u8> {}
    impl Sealed for crate::pool::Buffer {}
}

/// Memory that can be sent from: owned, and in one place until the kernel is done with it.
pub trait SendBytes: sealed::Sealed + Deref<Target = [u8]> + Sized + 'static {}
impl SendBytes for Vec<u8> {}
impl SendBytes for Buffer {}

/// A TCP connection of one core. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    reader: Reader,
    writer: Writer,
}

impl Connection {
    /// Connects to `address`.
    ///
    /// # Errors
    /// When the peer cannot be reached.
    pub async fn connect(core: &Core, address: SocketAddr) -> io::Result<Self> {
        todo!()
    }

    /// See [`Reader::receive`].
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn receive(&mut self) -> io::Result<Received> {
        self.reader.receive().await
    }

    /// See [`Reader::receive_into`].
    pub async fn receive_into(&mut self, buffer: Buffer, range: Range<usize>) -> (io::Result<usize>, Buffer) {
        self.reader.receive_into(buffer, range).await
    }

    /// See [`Reader::fill`].
    pub async fn fill(&mut self, buffer: Buffer, range: Range<usize>) -> (io::Result<usize>, Buffer) {
        self.reader.fill(buffer, range).await
    }

    /// See [`Writer::send`].
    pub async fn send<B: SendBytes>(&mut self, bytes: B, range: Range<usize>) -> (io::Result<()>, B) {
        self.writer.send(bytes, range).await
    }

    /// See [`Writer::send_with_head`].
    pub async fn send_with_head(
        &mut self,
        head: Vec<u8>,
        body: Buffer,
        range: Range<usize>,
    ) -> (io::Result<()>, Vec<u8>, Buffer) {
        self.writer.send_with_head(head, body, range).await
    }

    /// See [`Writer::shutdown`].
    ///
    /// # Errors
    /// When the connection is already gone.
    pub fn shutdown(&self) -> io::Result<()> {
        self.writer.shutdown()
    }

    /// Sends small segments at once (`TCP_NODELAY`).
    ///
    /// # Errors
    /// When the connection is already gone.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        todo!()
    }

    /// The two directions, for tasks of their own. The connection closes when both are dropped.
    #[must_use]
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }
}

/// The receiving direction.
#[derive(Debug)]
pub struct Reader {
    here_only: PhantomData<*const ()>,
}

impl Reader {
    /// The next bytes that came; empty at the end of the stream. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn receive(&mut self) -> io::Result<Received> {
        std::future::poll_fn(|context| self.poll_receive(context)).await
    }

    /// [`Self::receive`] for those who implement `poll`.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Received>> {
        todo!()
    }

    /// Receives some bytes, at least 1, straight into `buffer[range]` (not empty); 0 at the end of the stream. Dropping the
    /// future loses no byte: what came is given by the next call, and the buffer returns to its pool.
    pub async fn receive_into(&mut self, buffer: Buffer, range: Range<usize>) -> (io::Result<usize>, Buffer) {
        todo!()
    }

    /// Like [`Self::receive_into`], but comes back only when the range is full or the stream has ended; gives how many
    /// came in all. Cheaper for large bodies. After an error the bytes that came before it are not counted.
    pub async fn fill(&mut self, buffer: Buffer, range: Range<usize>) -> (io::Result<usize>, Buffer) {
        todo!()
    }
}

/// The sending direction.
#[derive(Debug)]
pub struct Writer {
    here_only: PhantomData<*const ()>,
}

impl Writer {
    /// Sends all of `bytes[range]`. After a send that was dropped unfinished or failed nobody knows how much of it the
    /// peer has: every later one fails with `BrokenPipe`.
    pub async fn send<B: SendBytes>(&mut self, bytes: B, range: Range<usize>) -> (io::Result<()>, B) {
        todo!()
    }

    /// Sends `head` and then `body[range]` in one go: as few segments as they need.
    pub async fn send_with_head(
        &mut self,
        head: Vec<u8>,
        body: Buffer,
        range: Range<usize>,
    ) -> (io::Result<()>, Vec<u8>, Buffer) {
        todo!()
    }

    /// Tells the peer that nothing more comes (`SHUT_WR`).
    ///
    /// # Errors
    /// When the connection is already gone.
    pub fn shutdown(&self) -> io::Result<()> {
        todo!()
    }
}
