//! Send to a socket: one piece of memory, a head and a body in one go, or any pieces.

use std::io;
use std::ops::Range;
use std::rc::Rc;

use super::{Held, Keep, Op};
use crate::core::Inner;
use crate::driver::Request;
use crate::net::socket::Socket;
use crate::pool::Buffer;

/// Sends once, perhaps fewer bytes than `bytes`, which must be memory that `held` owns.
pub(crate) fn send(inner: &Rc<Inner>, socket: &Rc<Socket>, held: Held, bytes: *const [u8]) -> Op {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let request = Request::Send { socket: socket.fd(), memory: bytes.cast(), length };
    Op::start(inner, held, Keep::Socket(Rc::clone(socket)), request)
}

/// Sends once what is left of the message, perhaps less.
pub(crate) fn send_message(inner: &Rc<Inner>, socket: &Rc<Socket>, mut message: Box<Message>) -> Op {
    let request = Request::SendMessage { socket: socket.fd(), message: message.prepare() };
    Op::start(inner, Held::Message(message), Keep::Socket(Rc::clone(socket)), request)
}

/// Sends once what is left of the pieces, perhaps less.
pub(crate) fn send_gathered(inner: &Rc<Inner>, socket: &Rc<Socket>, mut gathered: Box<Gathered>) -> Op {
    let request = Request::SendMessage { socket: socket.fd(), message: gathered.prepare() };
    Op::start(inner, Held::Gathered(gathered), Keep::Socket(Rc::clone(socket)), request)
}

/// Bytes one behind the other: copies of some, and others where they are in buffers of the pool.
#[derive(Debug, Default)]
pub struct Pieces {
    copied: Vec<u8>,
    parts: Vec<Part>,
    length: usize,
}

#[derive(Debug)]
enum Part {
    Copied(Range<usize>),
    Shared(Rc<Buffer>, Range<usize>),
}

impl Pieces {
    /// How many bytes they are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// True when there are no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends a copy of these.
    pub fn copy(&mut self, bytes: &[u8]) {
        let start = self.copied.len();
        self.copied.extend_from_slice(bytes);
        match self.parts.last_mut() {
            Some(Part::Copied(last)) => last.end = self.copied.len(),
            _ => self.parts.push(Part::Copied(start..self.copied.len())),
        }
        self.length += bytes.len();
    }

    /// Appends `buffer[range]`, which stays where it is until all pieces are gone.
    ///
    /// # Panics
    /// When the range is not in the buffer.
    pub fn share(&mut self, buffer: Rc<Buffer>, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= buffer.len(), "{range:?} is no part of a buffer");
        self.length += range.len();
        self.parts.push(Part::Shared(buffer, range));
    }

    /// Lets everything go but the memory of copies.
    pub fn clear(&mut self) {
        self.copied.clear();
        self.parts.clear();
        self.length = 0;
    }

    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| match part {
            Part::Copied(range) => &self.copied[range.clone()],
            Part::Shared(buffer, range) => &buffer[range.clone()],
        })
    }
}

/// Copies.
impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.copy(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Pieces, and how much of them was sent. Lives in a box, so that the kernel finds its parts where they were.
#[derive(Debug)]
pub(crate) struct Gathered {
    header: libc::msghdr,
    vectors: Vec<libc::iovec>,
    pieces: Pieces,
    sent: usize,
}

impl Gathered {
    pub(crate) fn new(pieces: Pieces) -> Box<Self> {
        // SAFETY: a msghdr is numbers and pointers, for all of which zero is valid: no address, no parts.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self { header, vectors: Vec::with_capacity(pieces.parts.len()), pieces, sent: 0 })
    }

    /// Bytes that are not sent yet.
    pub(crate) const fn left(&self) -> usize {
        self.pieces.length - self.sent
    }

    pub(crate) const fn advance(&mut self, count: usize) {
        self.sent += count;
    }

    pub(crate) fn into_pieces(self) -> Pieces {
        self.pieces
    }

    /// The kernel reads what the parts name until the operation ends, which owns them until then; nobody else may write
    /// there, because nothing gives a `&mut` to what is shared.
    fn prepare(&mut self) -> *const libc::msghdr {
        let mut over = self.sent;
        self.vectors.clear();
        for slice in self.pieces.slices() {
            let here = over.min(slice.len());
            over -= here;
            let left = &slice[here..];
            if !left.is_empty() && self.vectors.len() < VECTORS_MAX {
                self.vectors.push(libc::iovec { iov_base: left.as_ptr().cast_mut().cast(), iov_len: left.len() });
            }
        }
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len();
        &raw const self.header
    }
}

/// `UIO_MAXIOV` (sendmsg(2)): with more, nothing is sent. What is behind them goes with the next send.
const VECTORS_MAX: usize = 1024;

/// A head and a body, and how much of both was sent. Lives in a box, so that the kernel finds its parts where they were.
#[derive(Debug)]
pub(crate) struct Message {
    header: libc::msghdr,
    parts: [libc::iovec; 2],
    head: Vec<u8>,
    body: Buffer,
    range: Range<usize>,
    sent: usize,
}

impl Message {
    pub(crate) fn new(head: Vec<u8>, body: Buffer, range: Range<usize>) -> Box<Self> {
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: a msghdr is numbers and pointers, for all of which zero is valid: no address, no parts.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self { header, parts: [nothing; 2], head, body, range, sent: 0 })
    }

    /// Bytes that are not sent yet.
    pub(crate) fn left(&self) -> usize {
        self.head.len() + self.range.len() - self.sent
    }

    pub(crate) const fn advance(&mut self, count: usize) {
        self.sent += count;
    }

    pub(crate) fn into_parts(self) -> (Vec<u8>, Buffer) {
        (self.head, self.body)
    }

    fn prepare(&mut self) -> *const libc::msghdr {
        let head_sent = self.sent.min(self.head.len());
        let body = self.range.start + (self.sent - head_sent)..self.range.end;
        let head = &mut self.head[head_sent..];
        self.parts[0] = libc::iovec { iov_base: head.as_mut_ptr().cast(), iov_len: head.len() };
        let pointer = self.body.pointer(&body);
        self.parts[1] = libc::iovec { iov_base: pointer.cast(), iov_len: body.len() };
        self.header.msg_iov = self.parts.as_mut_ptr();
        self.header.msg_iovlen = self.parts.len();
        &raw const self.header
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use anvil_model::io::Reserve;

    use super::*;
    use crate::pool::Pool;

    fn buffer_of(pool: &Rc<Pool>) -> Buffer {
        let mut context = Context::from_waker(Waker::noop());
        match Future::poll(Pin::new(&mut pool.take(Reserve::Foreground)), &mut context) {
            Poll::Ready(buffer) => buffer,
            Poll::Pending => panic!("the pool has a buffer"),
        }
    }

    fn parts(message: &mut Message) -> [Vec<u8>; 2] {
        message.prepare();
        // SAFETY: the parts name memory that the message owns.
        message
            .parts
            .map(|part| unsafe { std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len) }.to_vec())
    }

    fn vectors(gathered: &mut Gathered) -> Vec<Vec<u8>> {
        gathered.prepare();
        let vectors = gathered.vectors.iter();
        // SAFETY: the vectors name memory that the pieces own.
        vectors
            .map(|part| unsafe { std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len) }.to_vec())
            .collect()
    }

    #[test]
    fn pieces_go_on_where_they_stopped() {
        let pool = Pool::new(1, 0, Arc::default()).unwrap();
        let mut buffer = buffer_of(&pool);
        buffer[10..14].copy_from_slice(b"body");
        let mut pieces = Pieces::default();
        pieces.copy(b"he");
        pieces.copy(b"ad");
        let buffer = Rc::new(buffer);
        pieces.share(Rc::clone(&buffer), 10..12);
        pieces.copy(b"-");
        pieces.share(buffer, 12..14);
        let mut gathered = Gathered::new(pieces);
        assert_eq!(vectors(&mut gathered), [&b"head"[..], b"bo", b"-", b"dy"]);
        gathered.advance(5);
        assert_eq!(vectors(&mut gathered), [&b"o"[..], b"-", b"dy"]);
        gathered.advance(4);
        assert_eq!((vectors(&mut gathered).len(), gathered.left()), (0, 0));
        drop(gathered);
        drop(buffer_of(&pool));
    }

    #[test]
    fn more_pieces_than_the_kernel_takes_at_once() {
        let pool = Pool::new(1, 0, Arc::default()).unwrap();
        let buffer = Rc::new(buffer_of(&pool));
        let mut pieces = Pieces::default();
        (0..VECTORS_MAX + 5).for_each(|at| pieces.share(Rc::clone(&buffer), at..at + 1));
        let mut gathered = Gathered::new(pieces);
        assert_eq!(vectors(&mut gathered).len(), VECTORS_MAX);
        gathered.advance(VECTORS_MAX);
        assert_eq!((vectors(&mut gathered).len(), gathered.left()), (5, 5));
    }

    /// After a short send the message goes on where it stopped, in the head or in the body.
    #[test]
    fn a_message_goes_on_where_it_stopped() {
        let pool = Pool::new(1, 0, Arc::default()).unwrap();
        let mut body = buffer_of(&pool);
        body[10..14].copy_from_slice(b"body");
        let mut message = Message::new(b"head".to_vec(), body, 10..14);
        assert_eq!(parts(&mut message), [b"head".to_vec(), b"body".to_vec()]);
        message.advance(3);
        assert_eq!(parts(&mut message), [b"d".to_vec(), b"body".to_vec()]);
        message.advance(2);
        assert_eq!(parts(&mut message), [b"".to_vec(), b"ody".to_vec()]);
        assert_eq!(message.left(), 3);
        message.advance(3);
        assert_eq!(message.left(), 0);
    }
}
