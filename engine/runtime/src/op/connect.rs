//! Connect a socket.

use std::rc::Rc;

use super::{Held, Keep, Op};
use crate::core::Inner;
use crate::driver::Request;
use crate::net::address::RawAddress;
use crate::net::socket::Socket;

pub(crate) fn connect(inner: &Rc<Inner>, socket: &Rc<Socket>, address: RawAddress) -> Op {
    let address = Box::new(address);
    let request = Request::Connect { socket: socket.fd(), address: address.pointer(), length: address.length() };
    Op::start(inner, Held::Address(address), Keep::Socket(Rc::clone(socket)), request)
}
