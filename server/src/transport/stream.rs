//! A connection for those who poll: `h2`, and TLS beneath HTTP/1.1.

use std::cell::Cell;
use std::io::{self, BufRead as _, IoSlice, Write as _};
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anvil_model::io::World;
use anvil_model::time::Moment;
use anvil_runtime::net::{Connection, Pieces};
use anvil_runtime::{Buffer, Core};
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::incoming::Incoming;
use super::lent::Lent;
use super::outgoing::{Outgoing, SEND_BYTES_MAX};
use crate::http1::within;

/// A connection, perhaps with TLS on it.
pub(crate) struct Stream {
    core: Core,
    incoming: Incoming,
    outgoing: Outgoing,
    tls: Option<Box<ServerConnection>>,
    closing: Closing,
    /// How long, and for how many bytes, it is read from after its end was sent.
    linger: (Duration, u64),
    health: Rc<Health>,
    /// What need not be copied when it is sent.
    lent: Option<Rc<Lent>>,
}

/// How a stream fares, for those who have given it away.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Bytes that came off the socket.
    pub(crate) received_bytes: Cell<u64>,
    /// Since when a send of at most [`SEND_BYTES_MAX`] and what TLS adds has not been taken by the client.
    pub(crate) sending_since: Cell<Option<Moment>>,
}

enum Closing {
    No,
    /// Nothing more is written; what was gathered is being sent.
    Flushing,
    /// The client was told; it is read from so that it sees what was sent last and no reset (RFC 9112, 9.6).
    Lingering {
        bytes_left: u64,
        time: Pin<Box<dyn Future<Output = ()>>>,
    },
    Done,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("is_tls", &self.tls.is_some()).field("health", &self.health).finish()
    }
}

impl Stream {
    /// A plain one; `early` was received already.
    pub(crate) fn plain(core: Core, connection: Connection, early: Vec<u8>, linger: (Duration, u64)) -> Self {
        let (reader, writer) = connection.split();
        Self {
            incoming: Incoming::new(reader, early),
            outgoing: Outgoing::new(core.clone(), writer),
            core,
            tls: None,
            closing: Closing::No,
            linger,
            health: Rc::default(),
            lent: None,
        }
    }

    /// Becomes a TLS stream. `None` when the client speaks no TLS that this server speaks; it was told then.
    pub(crate) async fn accept_tls(mut self, config: Arc<ServerConfig>) -> Option<Self> {
        let mut session = ServerConnection::new(config).ok()?;
        session.set_buffer_limit(Some(SEND_BYTES_MAX));
        self.tls = Some(Box::new(session));
        match std::future::poll_fn(|context| self.poll_handshake(context)).await {
            Ok(()) => Some(self),
            Err(error) => {
                tracing::debug!(%error, "a TLS handshake failed");
                // The alert says why.
                let _ = std::future::poll_fn(|context| self.poll_close(context)).await;
                None
            }
        }
    }

    /// True when it came with TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// True when the client chose HTTP/2 in the TLS handshake (ALPN).
    pub(crate) fn chose_http2(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.alpn_protocol() == Some(crate::tls::ALPN_HTTP2))
    }

    /// How it fares, from now on.
    pub(crate) fn health(&self) -> Rc<Health> {
        Rc::clone(&self.health)
    }

    /// From now on what lies in these is sent from there. With TLS it is not what is sent.
    pub(crate) fn send_from(&mut self, lent: Rc<Lent>) {
        self.lent = self.tls.is_none().then_some(lent);
    }

    /// The next bytes; empty at the end. Dropping the future loses nothing.
    pub(crate) async fn receive(&mut self) -> io::Result<Vec<u8>> {
        std::future::poll_fn(|context| {
            let mut bytes = Vec::new();
            ready!(self.poll_take(context, |some| {
                bytes.extend_from_slice(some);
                some.len()
            }))?;
            Poll::Ready(Ok(bytes))
        })
        .await
    }

    /// See [`super::Transport::fill_within`].
    pub(crate) async fn fill_within(
        &mut self,
        mut buffer: Buffer,
        range: Range<usize>,
        limit: Duration,
    ) -> (io::Result<usize>, Buffer) {
        let core = self.core.clone();
        let due = core.now() + limit;
        let mut at = range.start;
        while at < range.end {
            let into = &mut buffer[at..range.end];
            let taken = std::future::poll_fn(|context| {
                self.poll_take(context, |some| {
                    let count = some.len().min(into.len());
                    into[..count].copy_from_slice(&some[..count]);
                    count
                })
            });
            match within(&core, due.since(core.now()), taken).await {
                None | Some(Ok(0)) => break,
                Some(Ok(count)) => at += count,
                Some(Err(error)) => return (Err(error), buffer),
            }
        }
        (Ok(at - range.start), buffer)
    }

    /// Takes these, one behind the other, as far as there is room before the limit; gives how many bytes were taken.
    pub(crate) async fn put_within(&mut self, pieces: &[&[u8]], limit: Duration) -> io::Result<usize> {
        let core = self.core.clone();
        let due = core.now() + limit;
        let mut taken = 0;
        for piece in pieces {
            let mut left = *piece;
            while !left.is_empty() {
                let putting =
                    std::future::poll_fn(|context| self.poll_put(context, |space, room| put(space, left, room)));
                match within(&core, due.since(core.now()), putting).await {
                    None => return Ok(taken),
                    Some(result) => {
                        let count = result?;
                        (left, taken) = (&left[count..], taken + count);
                    }
                }
            }
        }
        Ok(taken)
    }

    /// Waits until the socket has all that was taken.
    pub(crate) async fn settle(&mut self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_sent(context)).await
    }

    /// Sends all of these, one behind the other, and waits until the socket has them.
    pub(crate) async fn send(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        for piece in pieces {
            let mut left = *piece;
            while !left.is_empty() {
                let count =
                    std::future::poll_fn(|context| self.poll_put(context, |space, room| put(space, left, room)))
                        .await?;
                left = &left[count..];
            }
        }
        std::future::poll_fn(|context| self.poll_sent(context)).await
    }

    /// Says that nothing more comes, in the words of TLS too.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        std::future::poll_fn(|context| self.poll_sent(context)).await?;
        self.outgoing.shutdown()
    }

    /// Gives what is here to `take`, which says how much it took; 0 at the end of the stream.
    fn poll_take(&mut self, context: &mut Context<'_>, take: impl FnOnce(&[u8]) -> usize) -> Poll<io::Result<usize>> {
        loop {
            let Some(tls) = &mut self.tls else {
                ready!(self.incoming.poll_here(context))?;
                let count = take(self.incoming.here());
                self.incoming.consume(count);
                self.health.received_bytes.set(self.incoming.total_bytes);
                return Poll::Ready(Ok(count));
            };
            match tls.reader().fill_buf() {
                Ok(plain) => {
                    let count = if plain.is_empty() { 0 } else { take(plain) };
                    tls.reader().consume(count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The connection ended without TLS having said so. Whoever cares knows the length of what is missing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.poll_records(context))?;
        }
    }

    /// Gives TLS what came off the socket.
    fn poll_records(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.incoming.poll_here(context))?;
        self.health.received_bytes.set(self.incoming.total_bytes);
        let tls = self.tls.as_mut().expect("only TLS has records");
        let mut records = self.incoming.here();
        let before = records.len();
        tls.read_tls(&mut records)?;
        let count = before - records.len();
        self.incoming.consume(count);
        let processed = tls.process_new_packets().map_err(io::Error::other);
        Poll::Ready(processed.map(drop))
    }

    /// Lets `put` write into the space that it is given; `room` is how much it may.
    fn poll_put(
        &mut self,
        context: &mut Context<'_>,
        put: impl FnOnce(&mut Space<'_>, usize) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let polled = self.outgoing.poll_room(context)?;
        let Poll::Ready((space, room)) = polled else {
            self.wait_for_client();
            return Poll::Pending;
        };
        let Some(tls) = &mut self.tls else { return Poll::Ready(put(&mut Space::Plain(space), room)) };
        let count = put(&mut Space::Tls(tls.writer()), room)?;
        while tls.wants_write() {
            tls.write_tls(space)?;
        }
        Poll::Ready(Ok(count))
    }

    /// Sends on; ready when all of it is with the socket.
    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(self.outgoing.gathered())?;
            }
        }
        let polled = self.outgoing.poll_progress(context);
        self.health.sending_since.set(self.outgoing.sending_since());
        polled
    }

    /// Nothing is read until the client takes what it was sent: the core's buffer is for others.
    fn wait_for_client(&mut self) {
        self.incoming.spill();
        self.health.sending_since.set(self.outgoing.sending_since());
    }

    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_sent(context))?;
            let tls = self.tls.as_ref().expect("only TLS has a handshake");
            if !tls.is_handshaking() && !tls.wants_write() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_records(context))?;
            let ended = self.incoming.here().is_empty() && self.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
            if ended && self.incoming.is_at_end() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.closing {
                Closing::No => {
                    if let Some(tls) = &mut self.tls {
                        tls.send_close_notify();
                    }
                    self.closing = Closing::Flushing;
                }
                Closing::Flushing => {
                    ready!(self.poll_sent(context))?;
                    self.outgoing.shutdown()?;
                    let (time, bytes_left) = self.linger;
                    self.closing = Closing::Lingering { bytes_left, time: Box::pin(self.core.sleep(time)) };
                }
                Closing::Lingering { bytes_left, time } => {
                    if time.as_mut().poll(context).is_pending() {
                        let read = ready!(self.incoming.poll_here(context));
                        let count = self.incoming.here().len();
                        self.incoming.consume(count);
                        *bytes_left = bytes_left.saturating_sub(count as u64);
                        if read.is_ok() && count > 0 && *bytes_left > 0 {
                            continue;
                        }
                    }
                    self.closing = Closing::Done;
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Where bytes go.
enum Space<'a> {
    Plain(&'a mut Pieces),
    Tls(rustls::Writer<'a>),
}

impl Space<'_> {
    /// Takes bytes, from where they lie if they were lent and are many; gives how many it took.
    fn put(&mut self, bytes: &[u8], lent: Option<&Lent>) -> io::Result<usize> {
        match self {
            Self::Tls(writer) => return writer.write(bytes),
            Self::Plain(pieces) => {
                let many = lent.filter(|_| bytes.len() >= SHARED_BYTES_MIN);
                match many.and_then(|lent| lent.find(bytes)) {
                    Some((buffer, range)) => pieces.share(buffer, range),
                    None => pieces.copy(bytes),
                }
            }
        }
        Ok(bytes.len())
    }
}

/// Fewer bytes are copied: that costs less than one more part of a send.
const SHARED_BYTES_MIN: usize = 4096;

/// As much of `bytes` as there is room for.
fn put(space: &mut Space<'_>, bytes: &[u8], room: usize) -> io::Result<usize> {
    let count = bytes.len().min(room);
    space.put(&bytes[..count], None)
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = self.poll_take(context, |some| {
            let count = some.len().min(buffer.remaining());
            buffer.put_slice(&some[..count]);
            count
        });
        polled.map_ok(drop)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_put(context, |space, room| put(space, bytes, room))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let lent = self.lent.clone();
        self.poll_put(context, |space, room| {
            let mut written = 0;
            for piece in pieces {
                let part = &piece[..piece.len().min(room - written)];
                let count = space.put(part, lent.as_deref())?;
                written += count;
                if count < piece.len() {
                    break;
                }
            }
            Ok(written)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Starts sending what was gathered, and waits only when there is no room for more: `h2` flushes behind every frame,
    /// and frames that come while one is sent leave together. Each later poll of the connection sends on, and closing it
    /// waits for everything.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_sent(context) {
            Poll::Pending if self.outgoing.gathered().len() < SEND_BYTES_MAX => Poll::Ready(Ok(())),
            Poll::Pending => {
                self.wait_for_client();
                Poll::Pending
            }
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_close(context)
    }
}
