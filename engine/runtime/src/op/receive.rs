//! Receive from a socket: into buffers that the kernel picks, or into one of the pool.

use std::ops::Range;
use std::rc::Rc;

use super::{Held, Keep, Op, Stream};
use crate::core::Inner;
use crate::driver::{Kind, Request};
use crate::net::socket::Socket;
use crate::pool::Buffer;

/// Receives into small buffers of the core until told otherwise (multishot).
pub(crate) fn receive_many(inner: &Rc<Inner>, socket: &Rc<Socket>) -> Stream {
    let kind = Kind::Receive(Rc::clone(&inner.receive_ring));
    let request = Request::ReceiveMany { socket: socket.fd() };
    Stream::start(inner, kind, Keep::Socket(Rc::clone(socket)), request)
}

/// Receives once into `buffer[range]`; `all` waits until the range is full or the stream has ended, where the kernel can.
pub(crate) fn receive_into(
    inner: &Rc<Inner>,
    socket: &Rc<Socket>,
    mut buffer: Buffer,
    range: &Range<usize>,
    all: bool,
) -> Op {
    let length = u32::try_from(range.len()).expect("at most one buffer");
    let request = Request::Receive { socket: socket.fd(), memory: buffer.pointer(range), length, all };
    Op::start(inner, Held::Buffer(buffer), Keep::Socket(Rc::clone(socket)), request)
}
