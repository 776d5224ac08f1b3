//! Read from a disk into a pool buffer.

use std::ops::Range;
use std::rc::Rc;

use io_uring::opcode;

use super::{Held, Keep, Op};
use crate::disk::{Handle, Target};
use crate::pool::Buffer;

/// Reads once, perhaps fewer bytes than `range` has.
pub(crate) fn read(handle: &Rc<Handle>, mut buffer: Buffer, range: &Range<usize>, offset: u64) -> Op {
    let length = u32::try_from(range.len()).expect("at most one buffer");
    let pointer = buffer.pointer(range);
    let entry = match (buffer.registered_index(), handle.target()) {
        (Some(index), Target::Fixed(fd)) => opcode::ReadFixed::new(fd, pointer, length, index).offset(offset).build(),
        (Some(index), Target::Fd(fd)) => opcode::ReadFixed::new(fd, pointer, length, index).offset(offset).build(),
        (None, Target::Fixed(fd)) => opcode::Read::new(fd, pointer, length).offset(offset).build(),
        (None, Target::Fd(fd)) => opcode::Read::new(fd, pointer, length).offset(offset).build(),
    };
    Op::start(handle.inner(), Held::Buffer(buffer), Keep::Disk(Rc::clone(handle)), entry)
}
