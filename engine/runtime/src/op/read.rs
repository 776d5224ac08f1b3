//! Read from a disk into a pool buffer.

use std::ops::Range;
use std::rc::Rc;

use super::{Held, Op};
use crate::disk::Handle;
use crate::driver::DiskCall;
use crate::pool::Buffer;

/// Reads once, perhaps fewer bytes than `range` has.
pub(crate) fn read(handle: &Rc<Handle>, mut buffer: Buffer, range: &Range<usize>, offset: u64) -> Op {
    let length = u32::try_from(range.len()).expect("at most one buffer");
    let registered = buffer.registered_index();
    let call = DiskCall::Read { memory: buffer.pointer(range), length, offset, registered };
    Op::on_disk(handle, Held::Buffer(buffer), call)
}
