//! Wait for the doorbell of the core.

use std::os::fd::RawFd;
use std::rc::Rc;

use io_uring::{opcode, types};

use super::{Held, Keep, Op};
use crate::core::Inner;

/// Reads the counter of an eventfd that lives longer than the ring, once it is not zero.
pub(crate) fn wait(inner: &Rc<Inner>, eventfd: RawFd, mut counter: Vec<u8>) -> Op {
    counter.resize(size_of::<u64>(), 0);
    let entry = opcode::Read::new(types::Fd(eventfd), counter.as_mut_ptr(), 8).build();
    Op::start(inner, Held::Bytes(counter), Keep::Nothing, entry)
}
