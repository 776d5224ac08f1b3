//! What lies between a socket and a protocol: plain bytes, or TLS.
//!
//! HTTP/1.1 asks a [`Transport`] for bytes and gives it buffers; the `h2` crate polls a [`Stream`]. A plain body of known
//! length is received straight into pool buffers and sent from them, and what `h2` sends of such a buffer too ([`Lent`]); TLS
//! costs one copy each way, and `h2` one on the way in.

mod incoming;
mod lent;
mod outgoing;
mod stream;

use std::io;
use std::ops::{Deref, Range};
use std::time::Duration;

use anvil_runtime::Buffer;
use anvil_runtime::net::{Connection, Received, SendBytes};

pub(crate) use lent::Lent;
pub(crate) use outgoing::SEND_BYTES_MAX;
pub(crate) use stream::{Health, Stream};

/// A connection as HTTP/1.1 uses it.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(Connection),
    Tls(Box<Stream>),
}

/// Bytes that came. Don't keep them while waiting for something else.
pub(crate) enum Arrived {
    Ring(Received),
    Heap(Vec<u8>),
}

impl Deref for Arrived {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Ring(received) => received,
            Self::Heap(bytes) => bytes,
        }
    }
}

impl Transport {
    /// The next bytes that came; empty at the end of the stream. Dropping the future loses nothing.
    pub(crate) async fn receive(&mut self) -> io::Result<Arrived> {
        match self {
            Self::Plain(connection) => connection.receive().await.map(Arrived::Ring),
            Self::Tls(stream) => stream.receive().await.map(Arrived::Heap),
        }
    }

    /// Fills `buffer[range]`, or as much of it as comes before the end of the stream or the limit; gives how much that
    /// is.
    pub(crate) async fn fill_within(
        &mut self,
        buffer: Buffer,
        range: Range<usize>,
        limit: Duration,
    ) -> (io::Result<usize>, Buffer) {
        match self {
            Self::Plain(connection) => connection.fill_within(buffer, range, limit).await,
            Self::Tls(stream) => stream.fill_within(buffer, range, limit).await,
        }
    }

    /// Sends all of `bytes[range]`.
    pub(crate) async fn send<B: SendBytes>(&mut self, bytes: B, range: Range<usize>) -> (io::Result<()>, B) {
        match self {
            Self::Plain(connection) => connection.send(bytes, range).await,
            Self::Tls(stream) => (stream.send(&[&bytes[range]]).await, bytes),
        }
    }

    /// Sends what is taken of `bytes[range]` before the limit; gives how many bytes that is. What is taken is with the
    /// socket when [`Self::settle`] says so.
    pub(crate) async fn offer(&mut self, bytes: Buffer, range: Range<usize>, limit: Duration) -> io::Result<usize> {
        match self {
            Self::Plain(connection) => connection.send_within(bytes, range, limit).await.0,
            Self::Tls(stream) => stream.put_within(&[&bytes[range]], limit).await,
        }
    }

    /// The same with `head` in front of `body[range]`; counts the bytes of both.
    pub(crate) async fn offer_with_head(
        &mut self,
        head: Vec<u8>,
        body: Buffer,
        range: Range<usize>,
        limit: Duration,
    ) -> (io::Result<usize>, Vec<u8>) {
        match self {
            Self::Plain(connection) => {
                let (result, head, _) = connection.send_with_head_within(head, body, range, limit).await;
                (result, head)
            }
            Self::Tls(stream) => (stream.put_within(&[&head, &body[range]], limit).await, head),
        }
    }

    /// Waits until the socket has all that was offered. Dropping the future loses nothing.
    pub(crate) async fn settle(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.settle().await,
        }
    }

    /// Says that nothing more comes.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(connection) => connection.shutdown(),
            Self::Tls(stream) => stream.finish().await,
        }
    }
}
