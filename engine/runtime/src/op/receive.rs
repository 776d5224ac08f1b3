//! Receive from a socket: into buffers that the kernel picks, or into one of the pool.

use std::ops::Range;
use std::rc::Rc;

use io_uring::{opcode, types};

use super::{Held, Keep, Op, Stream};
use crate::core::Inner;
use crate::driver::Kind;
use crate::net::socket::Socket;
use crate::pool::Buffer;
use crate::receive_ring::GROUP;

/// Receives into small buffers of the core until told otherwise (multishot).
pub(crate) fn receive_many(inner: &Rc<Inner>, socket: &Rc<Socket>) -> Stream {
    let entry = opcode::RecvMulti::new(types::Fd(socket.fd()), GROUP).build();
    let kind = Kind::Receive(Rc::clone(&inner.receive_ring));
    Stream::start(inner, kind, Keep::Socket(Rc::clone(socket)), entry)
}

/// Receives once into `buffer[range]`; `all` waits until the range is full or the stream has ended.
pub(crate) fn receive_into(
    inner: &Rc<Inner>,
    socket: &Rc<Socket>,
    mut buffer: Buffer,
    range: &Range<usize>,
    all: bool,
) -> Op {
    let length = u32::try_from(range.len()).expect("at most one buffer");
    let flags = if all { libc::MSG_WAITALL } else { 0 };
    let entry = opcode::Recv::new(types::Fd(socket.fd()), buffer.pointer(range), length).flags(flags).build();
    Op::start(inner, Held::Buffer(buffer), Keep::Socket(Rc::clone(socket)), entry)
}
