//! Reserve blocks of a file (fallocate(2)).

use std::ops::Range;
use std::rc::Rc;

use super::{Held, Op};
use crate::disk::Handle;
use crate::driver::DiskCall;

/// Allocates `range` and extends the file to its end.
pub(crate) fn allocate(handle: &Rc<Handle>, range: &Range<u64>) -> Op {
    let call = DiskCall::Allocate { offset: range.start, length: range.end - range.start };
    Op::on_disk(handle, Held::Nothing, call)
}
