//! Write to a disk from a pool buffer, or zeros from nowhere.

use std::ops::Range;
use std::rc::Rc;

use super::{Held, Op};
use crate::disk::Handle;
use crate::driver::DiskCall;
use crate::pool::Buffer;
use crate::region::Region;

/// Writes once, perhaps fewer bytes than `range` has.
pub(crate) fn write(handle: &Rc<Handle>, mut buffer: Buffer, range: &Range<usize>, offset: u64) -> Op {
    let length = u32::try_from(range.len()).expect("at most one buffer");
    let registered = buffer.registered_index();
    let call = DiskCall::Write { memory: buffer.pointer(range).cast_const(), length, offset, registered };
    Op::on_disk(handle, Held::Buffer(buffer), call)
}

/// Writes once the first `length` bytes of `zeros`, perhaps fewer.
pub(crate) fn write_region(handle: &Rc<Handle>, zeros: &Rc<Region>, length: u32, offset: u64) -> Op {
    let memory = zeros.at(0).as_ptr().cast_const();
    let call = DiskCall::Write { memory, length, offset, registered: None };
    Op::on_disk(handle, Held::Region(Rc::clone(zeros)), call)
}
