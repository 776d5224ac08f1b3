//! The receiving direction of a connection.
//!
//! Two ways to receive alternate: while nobody knows what comes next, a multishot operation fills small buffers that all
//! connections of the core share; a body of known length goes straight into pool buffers. When one takes over from the
//! other, every byte is given once and in order: a taking-over receive first hands out what the other has brought, and
//! starts only after the other's last completion.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anvil_model::time::Moment;

use super::socket::Socket;
use crate::core::Inner;
use crate::driver::Arrival;
use crate::op::{self, Op, Stream, receive};
use crate::pool::Buffer;
use crate::receive_ring::Received;
use crate::waiters::Ticket;

/// The receiving direction.
#[derive(Debug)]
pub struct Reader {
    inner: Rc<Inner>,
    socket: Rc<Socket>,
    /// Bytes that come before everything else.
    leftover: VecDeque<Received>,
    /// A receive into a buffer whose future was dropped: its bytes come after the leftover.
    salvaged: Option<Op>,
    /// The multishot operation: its bytes come last.
    stream: Option<Stream>,
    /// The last receive found no buffer.
    starved: Starved,
    /// The peer sends nothing more.
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Starved {
    No,
    Waiting(Option<Ticket>),
    /// It was this connection's turn; it has to take a buffer or pass the turn on.
    Served,
}

impl Reader {
    pub(super) fn new(inner: Rc<Inner>, socket: Rc<Socket>) -> Self {
        let leftover = VecDeque::new();
        Self { inner, socket, leftover, salvaged: None, stream: None, starved: Starved::No, ended: false }
    }

    /// The next bytes that came; empty at the end of the stream. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn receive(&mut self) -> io::Result<Received> {
        let receiving = Receiving { reader: self };
        std::future::poll_fn(|context| receiving.reader.poll_receive(context)).await
    }

    /// [`Self::receive`] for those who implement `poll`. Who has been told to wait must go on polling, or drop the
    /// reader: it may be this connection's turn to take a buffer that others wait for.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Received>> {
        loop {
            if let Some(received) = ready!(self.poll_delivered(context))? {
                self.inner.stats.received_bytes.add(received.len() as u64);
                return Poll::Ready(Ok(received));
            }
            if self.ended {
                return Poll::Ready(Ok(Received::end()));
            }
            ready!(self.poll_buffer_free(context));
            self.stream = Some(receive::receive_many(&self.inner, &self.socket));
        }
    }

    /// See [`super::Connection::hung_up`].
    pub(super) fn hung_up(&self) -> impl Future<Output = ()> + 'static {
        let (inner, socket) = (Rc::clone(&self.inner), Rc::clone(&self.socket));
        async move {
            loop {
                let (result, _) = op::hang_up::hang_up(&inner, &socket).await;
                if !op::is_retry(result) {
                    return;
                }
            }
        }
    }

    /// Receives some bytes, at least 1, straight into `buffer[range]` (not empty); 0 at the end of the stream. Dropping
    /// the future loses no byte: what came is given by the next call, and the buffer returns to its pool.
    pub async fn receive_into(&mut self, buffer: Buffer, range: Range<usize>) -> (io::Result<usize>, Buffer) {
        self.fill_at_least(buffer, range, 1, None).await
    }

    /// Like [`Self::receive_into`], but comes back only when the range is full or the stream has ended; gives how many
    /// came in all. Cheaper for large bodies. After an error the bytes that came before it are not counted.
    pub async fn fill(&mut self, buffer: Buffer, range: Range<usize>) -> (io::Result<usize>, Buffer) {
        let all = range.len();
        self.fill_at_least(buffer, range, all, None).await
    }

    /// Like [`Self::fill`], but comes back after `limit` with what has come until then: the buffer does not wait for a
    /// peer that is slow.
    pub async fn fill_within(
        &mut self,
        buffer: Buffer,
        range: Range<usize>,
        limit: Duration,
    ) -> (io::Result<usize>, Buffer) {
        let all = range.len();
        self.fill_at_least(buffer, range, all, Some(limit)).await
    }

    async fn fill_at_least(
        &mut self,
        buffer: Buffer,
        range: Range<usize>,
        least: usize,
        limit: Option<Duration>,
    ) -> (io::Result<usize>, Buffer) {
        let due = limit.map(|limit| self.inner.now() + limit);
        let (start, source) = (range.start, Source::Buffer(buffer));
        let mut filling = Filling { start, end: start, due, overdue: false, source, reader: self };
        let result = filling.run(range.end, range.start + least).await;
        let count = filling.end - filling.start;
        let buffer = filling.finish();
        self.inner.stats.received_bytes.add(count as u64);
        (result.map(|()| count), buffer)
    }

    /// What has come in order and was not given yet; `None` when nothing is under way any more.
    fn poll_delivered(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Received>>> {
        loop {
            if let Some(received) = self.leftover.pop_front() {
                return Poll::Ready(Ok(Some(received)));
            }
            if let Some(op) = &mut self.salvaged {
                let (result, held) = ready!(Future::poll(Pin::new(op), context));
                self.salvaged = None;
                self.take_salvaged(result, held.into_bytes())?;
                continue;
            }
            let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(None)) };
            match ready!(stream.poll_next(context)) {
                Some(arrival) => {
                    if let Some(received) = self.take_arrival(arrival)? {
                        return Poll::Ready(Ok(Some(received)));
                    }
                }
                None => self.stream = None,
            }
        }
    }

    fn take_salvaged(&mut self, result: i32, bytes: Vec<u8>) -> io::Result<()> {
        if !bytes.is_empty() {
            self.leftover.push_back(Received::heap(bytes));
        }
        match result {
            0 => self.ended = true,
            1.. => {}
            _ if is_no_end(-result) => {}
            _ => return Err(io::Error::from_raw_os_error(-result)),
        }
        Ok(())
    }

    fn take_arrival(&mut self, arrival: Arrival) -> io::Result<Option<Received>> {
        let starved = std::mem::replace(&mut self.starved, Starved::No);
        match arrival {
            Arrival::Bytes(received) if !received.is_empty() => return Ok(Some(received)),
            Arrival::Bytes(_) => self.ended = true,
            Arrival::Failed(libc::ENOBUFS) => self.starved = Starved::Waiting(None),
            Arrival::Failed(errno) if is_no_end(errno) => {}
            Arrival::Failed(errno) => {
                self.pass_on(starved);
                return Err(io::Error::from_raw_os_error(errno));
            }
            Arrival::Connection(_) => unreachable!("a connection accepts no connections"),
        }
        self.pass_on(starved);
        Ok(None)
    }

    /// Waits for a small buffer when the last receive found none.
    fn poll_buffer_free(&mut self, context: &Context<'_>) -> Poll<()> {
        if let Starved::Waiting(ticket) = &mut self.starved {
            ready!(self.inner.receive_ring.poll_refilled(ticket, context));
            self.starved = Starved::Served;
        }
        Poll::Ready(())
    }

    /// Nobody waits for this connection's turn any more.
    fn quit_queue(&mut self) {
        let starved = std::mem::replace(&mut self.starved, Starved::No);
        self.pass_on(starved);
    }

    /// This connection did not take the buffer that it was called for.
    fn pass_on(&self, starved: Starved) {
        match starved {
            Starved::No | Starved::Waiting(None) => {}
            Starved::Waiting(Some(ticket)) => self.inner.receive_ring.leave(ticket),
            Starved::Served => self.inner.receive_ring.pass_on(),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.quit_queue();
    }
}

/// A receive from its first poll to its end. When it is dropped on the way, it leaves the queue for small buffers.
struct Receiving<'a> {
    reader: &'a mut Reader,
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        if self.reader.stream.is_none() {
            self.reader.quit_queue();
        }
    }
}

/// A receive into a buffer, from its first poll to its end. When it is dropped on the way, the bytes that came stay with
/// the reader.
struct Filling<'a> {
    reader: &'a mut Reader,
    source: Source,
    /// The bytes that came are `start..end` of the buffer, besides what an operation under way adds.
    start: usize,
    end: usize,
    /// When it comes back with what there is.
    due: Option<Moment>,
    /// It does.
    overdue: bool,
}

/// Who has the buffer.
enum Source {
    Buffer(Buffer),
    Kernel(Op),
    Nobody,
}

impl Filling<'_> {
    /// Fills up to `limit`, and at least up to `least` unless the stream ends.
    async fn run(&mut self, limit: usize, least: usize) -> io::Result<()> {
        if self.end == limit {
            return Ok(());
        }
        self.take_delivered(limit)?;
        while self.end < least && !self.reader.ended && !self.overdue {
            if self.reader.is_busy() {
                self.reader.stop();
                let received = std::future::poll_fn(|context| self.reader.poll_delivered(context)).await?;
                self.reader.leftover.extend(received);
                self.take_delivered(limit)?;
            } else {
                self.receive(limit, least == limit).await?;
            }
        }
        Ok(())
    }

    /// Copies what is already there, without waiting.
    fn take_delivered(&mut self, limit: usize) -> io::Result<()> {
        let Source::Buffer(buffer) = &mut self.source else { unreachable!("no operation is under way") };
        while self.end < limit {
            let Some(received) = self.reader.leftover.front_mut() else {
                match self.reader.next_delivered()? {
                    Some(received) => self.reader.leftover.push_back(received),
                    None => return Ok(()),
                }
                continue;
            };
            self.end += received.take(&mut buffer[self.end..limit]);
            if received.is_empty() {
                self.reader.leftover.pop_front();
            }
        }
        Ok(())
    }

    /// One receive straight into the buffer.
    async fn receive(&mut self, limit: usize, all: bool) -> io::Result<()> {
        let Source::Buffer(buffer) = std::mem::replace(&mut self.source, Source::Nobody) else {
            unreachable!("no operation is under way")
        };
        self.reader.quit_queue();
        let Reader { inner, socket, .. } = &*self.reader;
        self.source = Source::Kernel(receive::receive_into(inner, socket, buffer, &(self.end..limit), all));
        let Source::Kernel(op) = &mut self.source else { unreachable!("it was put there above") };
        let (result, held) = match self.due {
            None => op.await,
            Some(due) => {
                let (result, held, overdue) = op.within(due.since(self.reader.inner.now())).await;
                self.overdue = overdue;
                (result, held)
            }
        };
        self.source = Source::Buffer(held.into_buffer());
        match usize::try_from(result) {
            Ok(0) => self.reader.ended = true,
            Ok(count) => self.end += count,
            Err(_) if op::is_retry(result) => {}
            Err(_) if self.overdue && -result == libc::ECANCELED => {}
            Err(_) => return Err(io::Error::from_raw_os_error(-result)),
        }
        Ok(())
    }

    fn finish(mut self) -> Buffer {
        match std::mem::replace(&mut self.source, Source::Nobody) {
            Source::Buffer(buffer) => buffer,
            _ => unreachable!("it is finished only when no operation is under way"),
        }
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.source, Source::Nobody) {
            Source::Buffer(buffer) if self.start < self.end => {
                let bytes = buffer[self.start..self.end].to_vec();
                self.reader.leftover.push_front(Received::heap(bytes));
            }
            Source::Kernel(op) => self.reader.salvaged = Some(op.salvage(self.start, self.end)),
            Source::Buffer(_) | Source::Nobody => {}
        }
    }
}

impl Reader {
    /// True when something under way may still bring bytes.
    const fn is_busy(&self) -> bool {
        self.salvaged.is_some() || self.stream.is_some()
    }

    fn stop(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.stop();
        }
    }

    /// The next bytes of the multishot operation that are already there.
    fn next_delivered(&mut self) -> io::Result<Option<Received>> {
        if self.salvaged.is_some() {
            return Ok(None);
        }
        while let Some(arrival) = self.stream.as_mut().and_then(Stream::take_next) {
            if let Some(received) = self.take_arrival(arrival)? {
                return Ok(Some(received));
            }
        }
        Ok(None)
    }
}

/// What ends one receive, and not the connection.
const fn is_no_end(errno: i32) -> bool {
    matches!(errno, libc::ECANCELED | libc::EINTR | libc::EAGAIN)
}
