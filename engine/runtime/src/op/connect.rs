//! Connect a socket.

use std::rc::Rc;

use io_uring::{opcode, types};

use super::{Held, Keep, Op};
use crate::core::Inner;
use crate::net::address::RawAddress;
use crate::net::socket::Socket;

pub(crate) fn connect(inner: &Rc<Inner>, socket: &Rc<Socket>, address: RawAddress) -> Op {
    let address = Box::new(address);
    let entry = opcode::Connect::new(types::Fd(socket.fd()), address.pointer(), address.length()).build();
    Op::start(inner, Held::Address(address), Keep::Socket(Rc::clone(socket)), entry)
}
