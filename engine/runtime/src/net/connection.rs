//! A connection: its two directions together.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use super::address::RawAddress;
use super::reader::Reader;
use super::socket::Socket;
use super::writer::{SendBytes, Writer};
use crate::core::{Core, Inner};
use crate::op::connect;
use crate::pool::Buffer;
use crate::receive_ring::Received;

/// A TCP connection of one core. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    reader: Reader,
    writer: Writer,
}

impl Connection {
    pub(crate) fn new(inner: Rc<Inner>, socket: Socket) -> Self {
        let socket = Rc::new(socket);
        Self { reader: Reader::new(Rc::clone(&inner), Rc::clone(&socket)), writer: Writer::new(inner, socket) }
    }

    /// Connects to `address`.
    ///
    /// # Errors
    /// When the peer cannot be reached.
    pub async fn connect(core: &Core, address: SocketAddr) -> io::Result<Self> {
        let address = RawAddress::from(address);
        let socket = Rc::new(Socket::tcp(address.family())?);
        // Not repeated after EINTR: the kernel goes on connecting (connect(2)).
        let (result, _) = connect::connect(&core.inner, &socket, address).await;
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        let socket = Rc::into_inner(socket).expect("the operation is done and has let go of it");
        Ok(Self::new(Rc::clone(&core.inner), socket))
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

    /// See [`Reader::fill_within`].
    pub async fn fill_within(
        &mut self,
        buffer: Buffer,
        range: Range<usize>,
        limit: Duration,
    ) -> (io::Result<usize>, Buffer) {
        self.reader.fill_within(buffer, range, limit).await
    }

    /// See [`Writer::send_within`].
    pub async fn send_within<B: SendBytes>(
        &mut self,
        bytes: B,
        range: Range<usize>,
        limit: Duration,
    ) -> (io::Result<usize>, B) {
        self.writer.send_within(bytes, range, limit).await
    }

    /// See [`Writer::send_with_head_within`].
    pub async fn send_with_head_within(
        &mut self,
        head: Vec<u8>,
        body: Buffer,
        range: Range<usize>,
        limit: Duration,
    ) -> (io::Result<usize>, Vec<u8>, Buffer) {
        self.writer.send_with_head_within(head, body, range, limit).await
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
        self.writer.set_nodelay(on)
    }

    /// See [`Writer::set_unsent_max`].
    ///
    /// # Errors
    /// When the connection is already gone.
    pub fn set_unsent_max(&self, bytes: u32) -> io::Result<()> {
        self.writer.set_unsent_max(bytes)
    }

    /// Completes when the peer sends nothing more, or the connection is broken: during a request, a sign that nobody
    /// waits for the answer (or that the client has closed only its sending direction, which few do). Takes no byte
    /// from who receives. The connection stays open until this is dropped too.
    pub fn hung_up(&self) -> impl Future<Output = ()> + 'static {
        self.reader.hung_up()
    }

    /// The two directions, for tasks of their own. The connection closes when both are dropped.
    #[must_use]
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }
}
