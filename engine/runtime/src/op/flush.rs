//! Make what was written durable (fdatasync(2)).

use std::rc::Rc;

use super::{Held, Op};
use crate::disk::Handle;
use crate::driver::DiskCall;

pub(crate) fn flush(handle: &Rc<Handle>) -> Op {
    Op::on_disk(handle, Held::Nothing, DiskCall::Flush)
}
