//! Accept connections until told otherwise (multishot).

use std::rc::Rc;

use io_uring::{opcode, types};

use super::{Keep, Stream};
use crate::core::Inner;
use crate::driver::Kind;
use crate::net::socket::Socket;

pub(crate) fn accept(inner: &Rc<Inner>, socket: &Rc<Socket>) -> Stream {
    // Not SOCK_NONBLOCK: with it, the kernel would answer EAGAIN instead of waiting in the ring.
    let entry = opcode::AcceptMulti::new(types::Fd(socket.fd())).flags(libc::SOCK_CLOEXEC).build();
    Stream::start(inner, Kind::Accept, Keep::Socket(Rc::clone(socket)), entry)
}
