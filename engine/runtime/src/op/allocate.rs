//! Reserve blocks of a file (fallocate(2)), or give them back.

use std::ops::Range;
use std::rc::Rc;

use io_uring::opcode;

use super::{Held, Keep, Op};
use crate::disk::{Handle, Target};

/// Allocates `range` and extends the file to its end.
pub(crate) fn allocate(handle: &Rc<Handle>, range: &Range<u64>) -> Op {
    let length = range.end - range.start;
    let entry = match handle.target() {
        Target::Fixed(fd) => opcode::Fallocate::new(fd, length).offset(range.start).build(),
        Target::Fd(fd) => opcode::Fallocate::new(fd, length).offset(range.start).build(),
    };
    Op::start(handle.inner(), Held::Nothing, Keep::Disk(Rc::clone(handle)), entry)
}
