//! Write to a disk from a pool buffer, or zeros from nowhere.

use std::ops::Range;
use std::rc::Rc;

use io_uring::opcode;

use super::{Held, Keep, Op};
use crate::disk::{Handle, Target};
use crate::pool::Buffer;
use crate::region::Region;

/// Writes once, perhaps fewer bytes than `range` has.
pub(crate) fn write(handle: &Rc<Handle>, mut buffer: Buffer, range: &Range<usize>, offset: u64) -> Op {
    let length = u32::try_from(range.len()).expect("at most one buffer");
    let pointer = buffer.pointer(range).cast_const();
    let entry = match (buffer.registered_index(), handle.target()) {
        (Some(index), Target::Fixed(fd)) => opcode::WriteFixed::new(fd, pointer, length, index).offset(offset).build(),
        (Some(index), Target::Fd(fd)) => opcode::WriteFixed::new(fd, pointer, length, index).offset(offset).build(),
        (None, Target::Fixed(fd)) => opcode::Write::new(fd, pointer, length).offset(offset).build(),
        (None, Target::Fd(fd)) => opcode::Write::new(fd, pointer, length).offset(offset).build(),
    };
    Op::start(handle.inner(), Held::Buffer(buffer), Keep::Disk(Rc::clone(handle)), entry)
}

/// Writes once the first `length` bytes of `zeros`, perhaps fewer.
pub(crate) fn write_region(handle: &Rc<Handle>, zeros: &Rc<Region>, length: u32, offset: u64) -> Op {
    let pointer = zeros.at(0).as_ptr().cast_const();
    let entry = match handle.target() {
        Target::Fixed(fd) => opcode::Write::new(fd, pointer, length).offset(offset).build(),
        Target::Fd(fd) => opcode::Write::new(fd, pointer, length).offset(offset).build(),
    };
    Op::start(handle.inner(), Held::Region(Rc::clone(zeros)), Keep::Disk(Rc::clone(handle)), entry)
}
