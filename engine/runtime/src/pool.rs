//! The buffers of one core: one region of memory, registered with the ring once, lent out slot by slot.

use std::ops::{Deref, DerefMut};

use anvil_model::io;

/// A slot of the core's pool: `BUFFER_BYTES` bytes, aligned to `BUFFER_ALIGNMENT`. Goes back when dropped.
#[derive(Debug)]
pub struct Buffer {
    here_only: std::marker::PhantomData<*const ()>,
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        todo!()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        todo!()
    }
}

impl io::Buffer for Buffer {}
