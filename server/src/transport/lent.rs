//! Buffers whose bytes are given to those who poll, known by where they are.
//!
//! `h2` hands a transport slices that it must be done with when it returns, so they would have to be copied. Those that lie
//! in a buffer that was lent here are sent from there: the transport keeps the buffer until the kernel has its bytes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::{Rc, Weak};

use anvil_runtime::Buffer;

/// Those of one core.
#[derive(Debug, Default)]
pub(crate) struct Lent {
    /// By the address of their first byte. What nobody has any more is forgotten when the next one is lent.
    buffers: RefCell<BTreeMap<usize, Weak<Buffer>>>,
}

impl Lent {
    /// Lends a buffer, until the last one who has it lets it go.
    pub(crate) fn lend(&self, buffer: Buffer) -> Rc<Buffer> {
        let buffer = Rc::new(buffer);
        let mut buffers = self.buffers.borrow_mut();
        buffers.retain(|_, buffer| buffer.strong_count() > 0);
        buffers.insert(buffer.as_ptr().addr(), Rc::downgrade(&buffer));
        buffer
    }

    /// The lent buffer that these bytes lie in, and where.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<(Rc<Buffer>, Range<usize>)> {
        let at = bytes.as_ptr().addr();
        let buffers = self.buffers.borrow();
        let (first, buffer) = buffers.range(..=at).next_back()?;
        let buffer = buffer.upgrade()?;
        let start = at - first;
        (start + bytes.len() <= buffer.len()).then(|| (buffer, start..start + bytes.len()))
    }
}

#[cfg(test)]
mod tests {
    use anvil_model::io::{Buffer as _, Reserve, World as _};
    use anvil_runtime::{Options, available_cpus, start};

    use super::*;

    #[test]
    fn a_buffer_is_found_while_somebody_has_it() {
        let options = Options {
            cpus: vec![available_cpus()[0]],
            buffers_per_core: 3,
            progress_reserve: 1,
            abort_on_panic: false,
            ..Options::default()
        };
        let cores = start(options, |core| async move {
            let mut back = core.buffer(Reserve::Foreground).await;
            let front = back.split_to(8192);
            let lent = Lent::default();
            let (front, back) = (lent.lend(front), lent.lend(back));
            let is_of = |found: Option<(Rc<Buffer>, Range<usize>)>, of: &Rc<Buffer>, range: Range<usize>| {
                found.is_some_and(|(buffer, found)| Rc::ptr_eq(&buffer, of) && found == range)
            };
            assert!(is_of(lent.find(&front), &front, 0..8192));
            assert!(is_of(lent.find(&front[100..200]), &front, 100..200));
            assert!(is_of(lent.find(&back[..1]), &back, 0..1));
            assert!(lent.find(&[0; 10]).is_none());
            let (address, length) = (front.as_ptr().addr(), front.len());
            drop(front);
            assert!(is_of(lent.find(&back[5..7]), &back, 5..7));
            let buffers = lent.buffers.borrow();
            assert!(buffers[&address].upgrade().is_none(), "{length} bytes are nobody's");
        });
        cores.unwrap().join().unwrap();
    }
}
