//! The crate monoio: its files on its own executor, with its default ring.

use std::cell::Cell;
use std::fs;
use std::io;
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anvil_model::limits::RECORD_PAYLOAD_BYTES_MAX;
use anyhow::Context;
use monoio::buf::{IoBuf, IoBufMut};
use monoio::fs::File;
use monoio::{IoUringDriver, RuntimeBuilder};

use super::Disk;
use crate::disk::measure::{self, Job};
use crate::target::Target;

#[derive(Clone)]
struct Monoio {
    file: Rc<File>,
    /// The same file, for what monoio has no call for.
    plain: Rc<fs::File>,
    size_bytes: Rc<Cell<u64>>,
}

/// A piece of a slice that begins where direct I/O wants it to. Not of a vector, which monoio cuts to what was read.
struct Aligned {
    bytes: Box<[u8]>,
    start: usize,
}

pub(super) fn start(target: &Target, job: Job) -> anyhow::Result<JoinHandle<()>> {
    let plain = super::new_file(&target.file("monoio")?).context("cannot make a file for direct I/O")?;
    let twin = plain.try_clone()?;
    let body = move || {
        let events = job.events.clone();
        let run = || -> anyhow::Result<()> {
            crate::clock::pin(job.cpu)?;
            let mut runtime = RuntimeBuilder::<IoUringDriver>::new().enable_timer().build()?;
            runtime.block_on(async {
                let file = Rc::new(File::from_std(twin)?);
                let disk = Monoio { file, plain: Rc::new(plain), size_bytes: Rc::default() };
                measure::run(disk, job).await;
                Ok(())
            })
        };
        super::tell_failure(&events, "monoio", run);
    };
    Ok(thread::Builder::new().name("bench-monoio".to_owned()).spawn(body)?)
}

impl Disk for Monoio {
    type Buffer = Aligned;

    fn bytes(buffer: &mut Aligned) -> &mut [u8] {
        &mut buffer.bytes[buffer.start..][..RECORD_PAYLOAD_BYTES_MAX]
    }

    async fn buffer(&self) -> Aligned {
        let bytes = vec![0; RECORD_PAYLOAD_BYTES_MAX + ALIGNMENT].into_boxed_slice();
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Aligned { bytes, start }
    }

    async fn sleep(&self, time: Duration) {
        monoio::time::sleep(time).await;
    }

    fn spawn(&self, lane: impl Future<Output = ()> + 'static) {
        monoio::spawn(lane);
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes.get()
    }

    async fn grow(&self, size_bytes: u64) -> io::Result<()> {
        super::allocate(&self.plain, size_bytes)?;
        self.size_bytes.set(size_bytes);
        Ok(())
    }

    async fn read(&self, offset: u64, buffer: Aligned, length: usize) -> (io::Result<()>, Aligned) {
        let Aligned { bytes, start } = buffer;
        let (result, slice) = self.file.read_exact_at(bytes.slice_mut(start..start + length), offset).await;
        (result, Aligned { bytes: slice.into_inner(), start })
    }

    async fn write(&self, offset: u64, buffer: Aligned, length: usize) -> (io::Result<()>, Aligned) {
        let Aligned { bytes, start } = buffer;
        let (result, slice) = self.file.write_all_at(bytes.slice(start..start + length), offset).await;
        (result, Aligned { bytes: slice.into_inner(), start })
    }

    async fn flush(&self) -> io::Result<()> {
        self.file.sync_data().await
    }

    fn buffers_registered(&self) -> Option<bool> {
        Some(false)
    }
}

/// Of memory and offsets: more than any disk asks for.
const ALIGNMENT: usize = 4096;
