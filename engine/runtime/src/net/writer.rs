//! The sending direction of a connection.

use std::io;
use std::net::Shutdown;
use std::ops::{Deref, Range};
use std::rc::Rc;
use std::time::Duration;

use super::socket::Socket;
use crate::core::Inner;
use crate::op::send::{self, Gathered, Message, Pieces};
use crate::op::{self, Held};
use crate::pool::Buffer;

mod sealed {
    use crate::op::Held;

    pub(crate) trait Sealed {
        fn into_held(self) -> Held;
        fn from_held(held: Held) -> Self;
    }
}

/// Memory that can be sent from: owned, and in one place until the kernel is done with it.
#[expect(private_bounds, reason = "the kernel's rules about such memory are kept in this crate")]
pub trait SendBytes: sealed::Sealed + Deref<Target = [u8]> + Sized + 'static {}

impl SendBytes for Vec<u8> {}

impl sealed::Sealed for Vec<u8> {
    fn into_held(self) -> Held {
        Held::Bytes(self)
    }
    fn from_held(held: Held) -> Self {
        held.into_bytes()
    }
}

impl SendBytes for Buffer {}

impl sealed::Sealed for Buffer {
    fn into_held(self) -> Held {
        Held::Buffer(self)
    }
    fn from_held(held: Held) -> Self {
        held.into_buffer()
    }
}

/// The sending direction.
#[derive(Debug)]
pub struct Writer {
    inner: Rc<Inner>,
    socket: Rc<Socket>,
    /// A send is under way, or did not end well: the peer has an unknown part of it.
    unfinished: bool,
}

impl Writer {
    pub(super) const fn new(inner: Rc<Inner>, socket: Rc<Socket>) -> Self {
        Self { inner, socket, unfinished: false }
    }

    /// Sends all of `bytes[range]`. After a send that was dropped unfinished or failed nobody knows how much of it the
    /// peer has: every later one fails with `BrokenPipe`.
    pub async fn send<B: SendBytes>(&mut self, mut bytes: B, range: Range<usize>) -> (io::Result<()>, B) {
        assert!(range.start <= range.end && range.end <= bytes.len(), "sends what is there");
        if self.unfinished {
            return (Err(io::ErrorKind::BrokenPipe.into()), bytes);
        }
        let mut left = range;
        self.unfinished = true;
        while !left.is_empty() {
            let part: *const [u8] = &raw const bytes[left.clone()];
            let (result, held) = send::send(&self.inner, &self.socket, bytes.into_held(), part).await;
            bytes = B::from_held(held);
            match self.sent(result) {
                Ok(count) => left.start += count,
                Err(error) => return (Err(error), bytes),
            }
        }
        self.unfinished = false;
        (Ok(()), bytes)
    }

    /// Sends `head` and then `body[range]` in one go: as few segments as they need.
    pub async fn send_with_head(
        &mut self,
        head: Vec<u8>,
        body: Buffer,
        range: Range<usize>,
    ) -> (io::Result<()>, Vec<u8>, Buffer) {
        assert!(range.start <= range.end && range.end <= body.len(), "sends what is there");
        if self.unfinished {
            return (Err(io::ErrorKind::BrokenPipe.into()), head, body);
        }
        let mut message = Message::new(head, body, range);
        self.unfinished = true;
        let mut result = Ok(());
        while result.is_ok() && message.left() > 0 {
            let (number, held) = send::send_message(&self.inner, &self.socket, message).await;
            let Held::Message(returned) = held else { unreachable!("it was given a message") };
            message = returned;
            result = self.sent(number).map(|count| message.advance(count));
        }
        self.unfinished = result.is_err();
        let (head, body) = message.into_parts();
        (result, head, body)
    }

    /// Sends all of the pieces, one behind the other.
    pub async fn send_pieces(&mut self, pieces: Pieces) -> (io::Result<()>, Pieces) {
        if self.unfinished {
            return (Err(io::ErrorKind::BrokenPipe.into()), pieces);
        }
        let mut gathered = Gathered::new(pieces);
        self.unfinished = true;
        let mut result = Ok(());
        while result.is_ok() && gathered.left() > 0 {
            let (number, held) = send::send_gathered(&self.inner, &self.socket, gathered).await;
            let Held::Gathered(returned) = held else { unreachable!("it was given pieces") };
            gathered = returned;
            result = self.sent(number).map(|count| gathered.advance(count));
        }
        self.unfinished = result.is_err();
        (result, gathered.into_pieces())
    }

    /// Like [`Self::send`], but comes back after `limit`, with how many bytes were taken until then: the memory does not
    /// wait for a peer that is slow. What is left may be sent by a later call.
    pub async fn send_within<B: SendBytes>(
        &mut self,
        mut bytes: B,
        range: Range<usize>,
        limit: Duration,
    ) -> (io::Result<usize>, B) {
        assert!(range.start <= range.end && range.end <= bytes.len(), "sends what is there");
        if self.unfinished {
            return (Err(io::ErrorKind::BrokenPipe.into()), bytes);
        }
        let due = self.inner.now() + limit;
        let mut left = range.clone();
        let mut overdue = false;
        self.unfinished = true;
        while !left.is_empty() && !overdue {
            let part: *const [u8] = &raw const bytes[left.clone()];
            let mut sending = send::send(&self.inner, &self.socket, bytes.into_held(), part);
            let (result, held, late) = sending.within(due.since(self.inner.now())).await;
            overdue = late;
            bytes = B::from_held(held);
            match self.sent_until(result, overdue) {
                Ok(count) => left.start += count,
                Err(error) => return (Err(error), bytes),
            }
        }
        self.unfinished = false;
        (Ok(left.start - range.start), bytes)
    }

    /// Like [`Self::send_with_head`], but comes back after `limit` as [`Self::send_within`] does; counts the bytes of
    /// both.
    pub async fn send_with_head_within(
        &mut self,
        head: Vec<u8>,
        body: Buffer,
        range: Range<usize>,
        limit: Duration,
    ) -> (io::Result<usize>, Vec<u8>, Buffer) {
        assert!(range.start <= range.end && range.end <= body.len(), "sends what is there");
        if self.unfinished {
            return (Err(io::ErrorKind::BrokenPipe.into()), head, body);
        }
        let due = self.inner.now() + limit;
        let mut message = Message::new(head, body, range);
        let all = message.left();
        let (mut result, mut overdue) = (Ok(0), false);
        self.unfinished = true;
        while result.is_ok() && message.left() > 0 && !overdue {
            let mut sending = send::send_message(&self.inner, &self.socket, message);
            let (number, held, late) = sending.within(due.since(self.inner.now())).await;
            overdue = late;
            let Held::Message(returned) = held else { unreachable!("it was given a message") };
            message = returned;
            result = self.sent_until(number, overdue);
            message.advance(*result.as_ref().unwrap_or(&0));
        }
        self.unfinished = result.is_err();
        let count = all - message.left();
        let (head, body) = message.into_parts();
        (result.map(|_| count), head, body)
    }

    /// Tells the peer that nothing more comes (`SHUT_WR`).
    ///
    /// # Errors
    /// When the connection is already gone.
    pub fn shutdown(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Sends small segments at once (`TCP_NODELAY`).
    ///
    /// # Errors
    /// When the connection is already gone.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.socket.set_option(libc::IPPROTO_TCP, libc::TCP_NODELAY, on.into())
    }

    /// The socket takes about so many bytes beside those on their way (`TCP_NOTSENT_LOWAT`, tcp(7)). Without a limit the
    /// kernel keeps megabytes for a peer that does not read them.
    ///
    /// # Errors
    /// When the connection is already gone.
    pub fn set_unsent_max(&self, bytes: u32) -> io::Result<()> {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        self.socket.set_option(libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes)
    }

    /// As [`Self::sent`], of a send that is cancelled when its time is over.
    fn sent_until(&self, result: i32, overdue: bool) -> io::Result<usize> {
        if overdue && result == -libc::ECANCELED { Ok(0) } else { self.sent(result) }
    }

    fn sent(&self, result: i32) -> io::Result<usize> {
        match usize::try_from(result) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                self.inner.stats.sent_bytes.add(count as u64);
                Ok(count)
            }
            Err(_) if op::is_retry(result) => Ok(0),
            Err(_) => Err(io::Error::from_raw_os_error(-result)),
        }
    }
}
