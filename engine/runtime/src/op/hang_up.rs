//! Wait for the peer to go away.

use std::rc::Rc;

use super::{Held, Keep, Op};
use crate::core::Inner;
use crate::driver::Request;
use crate::net::socket::Socket;

/// Completes when the peer sends nothing more, or the connection is broken; what it sent before may still be unread.
pub(crate) fn hang_up(inner: &Rc<Inner>, socket: &Rc<Socket>) -> Op {
    Op::start(inner, Held::Nothing, Keep::Socket(Rc::clone(socket)), Request::HangUp { socket: socket.fd() })
}
