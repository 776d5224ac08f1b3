//! Send to a socket: one piece of memory, or a head and a body in one go.

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

    fn parts(message: &mut Message) -> [Vec<u8>; 2] {
        message.prepare();
        // SAFETY: the parts name memory that the message owns.
        message
            .parts
            .map(|part| unsafe { std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len) }.to_vec())
    }

    /// After a short send the message goes on where it stopped, in the head or in the body.
    #[test]
    fn a_message_goes_on_where_it_stopped() {
        let pool = Pool::new(1, 0, Arc::default()).unwrap();
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(mut body) = Future::poll(Pin::new(&mut pool.take(Reserve::Foreground)), &mut context) else {
            panic!("the pool has a buffer");
        };
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
