//! Accept connections until told otherwise (multishot).

use std::rc::Rc;

use super::{Keep, Stream};
use crate::core::Inner;
use crate::driver::{Kind, Request};
use crate::net::socket::Socket;

pub(crate) fn accept(inner: &Rc<Inner>, socket: &Rc<Socket>) -> Stream {
    Stream::start(inner, Kind::Accept, Keep::Socket(Rc::clone(socket)), Request::Accept { socket: socket.fd() })
}
