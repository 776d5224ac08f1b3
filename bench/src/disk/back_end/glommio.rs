//! The crate glommio: its DMA files on its own executor, with buffers from its registered memory.

use std::cell::Cell;
use std::fs;
use std::io::{self, Write};
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anvil_model::limits::RECORD_PAYLOAD_BYTES_MAX;
use anyhow::Context;
use glommio::io::{DmaBuffer, DmaFile, OpenOptions};
use glommio::{LocalExecutorBuilder, Placement};

use super::Disk;
use crate::disk::measure::{self, Job};
use crate::target::Target;

#[derive(Clone)]
struct Glommio {
    file: Rc<DmaFile>,
    /// The same file, for allocating.
    plain: Rc<fs::File>,
    size_bytes: Rc<Cell<u64>>,
}

pub(super) fn start(target: &Target, job: Job) -> anyhow::Result<JoinHandle<()>> {
    let path = target.file("glommio")?;
    let plain = super::new_file(&path).context("cannot make a file for direct I/O")?;
    // glommio tries whether the disk can be polled by reading the file's beginning when it is opened: nothing to read, or
    // nothing written, would pass for a yes, and later reads fail.
    let mut twin = fs::File::options().write(true).open(&path)?;
    twin.write_all(&[1; 4096])?;
    twin.sync_all()?;
    let body = move || {
        let events = job.events.clone();
        let memory = (job.buffers() + 1) * 2 * RECORD_PAYLOAD_BYTES_MAX;
        let run = || -> Result<(), glommio::GlommioError<()>> {
            let executor = LocalExecutorBuilder::new(Placement::Fixed(job.cpu)).io_memory(memory).make()?;
            executor.run(async {
                let file = Rc::new(OpenOptions::new().read(true).write(true).dma_open(&path).await?);
                let disk = Glommio { file, plain: Rc::new(plain), size_bytes: Rc::default() };
                measure::run(disk, job).await;
                Ok(())
            })
        };
        super::tell_failure(&events, "glommio", run);
    };
    Ok(thread::Builder::new().name("bench-glommio".to_owned()).spawn(body)?)
}

impl Disk for Glommio {
    /// Shared with the kernel's side while it writes, and ours alone again afterwards.
    type Buffer = Rc<DmaBuffer>;

    fn bytes(buffer: &mut Rc<DmaBuffer>) -> &mut [u8] {
        Rc::get_mut(buffer).expect("no operation holds a buffer that was given back").as_bytes_mut()
    }

    async fn buffer(&self) -> Rc<DmaBuffer> {
        Rc::new(self.file.alloc_dma_buffer(RECORD_PAYLOAD_BYTES_MAX))
    }

    async fn sleep(&self, time: Duration) {
        glommio::timer::sleep(time).await;
    }

    fn spawn(&self, lane: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(lane).detach();
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes.get()
    }

    async fn grow(&self, size_bytes: u64) -> io::Result<()> {
        super::allocate(&self.plain, size_bytes)?;
        self.size_bytes.set(size_bytes);
        Ok(())
    }

    /// Reads into a buffer of glommio's own: it has no other way.
    async fn read(&self, offset: u64, buffer: Rc<DmaBuffer>, length: usize) -> (io::Result<()>, Rc<DmaBuffer>) {
        let result = match self.file.read_at_aligned(offset, length).await {
            Ok(read) if read.len() == length => Ok(()),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(error.into()),
        };
        (result, buffer)
    }

    /// Of the length of its buffer, so a shorter one goes from a buffer of that length.
    async fn write(&self, offset: u64, mut buffer: Rc<DmaBuffer>, length: usize) -> (io::Result<()>, Rc<DmaBuffer>) {
        if buffer.len() != length {
            let mut shorter = self.file.alloc_dma_buffer(length);
            shorter.as_bytes_mut()[..length].copy_from_slice(&buffer.as_bytes()[..length]);
            buffer = Rc::new(shorter);
        }
        let result = match self.file.write_rc_at(Rc::clone(&buffer), offset).await {
            Ok(written) if written == length => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) => Err(error.into()),
        };
        (result, buffer)
    }

    async fn flush(&self) -> io::Result<()> {
        Ok(self.file.fdatasync().await?)
    }

    /// glommio only logs when it could not.
    fn buffers_registered(&self) -> Option<bool> {
        None
    }
}
