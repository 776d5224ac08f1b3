//! Make what was written durable (fdatasync(2)).

use std::rc::Rc;

use io_uring::{opcode, types};

use super::{Held, Keep, Op};
use crate::disk::{Handle, Target};

pub(crate) fn flush(handle: &Rc<Handle>) -> Op {
    let flags = types::FsyncFlags::DATASYNC;
    let entry = match handle.target() {
        Target::Fixed(fd) => opcode::Fsync::new(fd).flags(flags).build(),
        Target::Fd(fd) => opcode::Fsync::new(fd).flags(flags).build(),
    };
    Op::start(handle.inner(), Held::Nothing, Keep::Disk(Rc::clone(handle)), entry)
}
