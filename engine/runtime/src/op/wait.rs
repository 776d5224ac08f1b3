//! Wait for the doorbell of the core.

use std::os::fd::RawFd;
use std::rc::Rc;

use super::{Held, Keep, Op};
use crate::core::Inner;
use crate::driver::Request;

/// Reads the counter of an eventfd that lives longer than the engine, once it is not zero.
pub(crate) fn wait(inner: &Rc<Inner>, eventfd: RawFd, mut counter: Vec<u8>) -> Op {
    counter.resize(size_of::<u64>(), 0);
    let request = Request::WaitEvent { eventfd, counter: counter.as_mut_ptr() };
    Op::start(inner, Held::Bytes(counter), Keep::Nothing, request)
}
