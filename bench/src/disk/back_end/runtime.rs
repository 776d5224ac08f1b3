//! Anvil's own runtime, exactly as the server uses it.

use std::io;
use std::time::Duration;

use anvil_model::io::{Device as _, DeviceError, Reserve, Task as _, World};
use anvil_runtime::{Buffer, Core, Cores, Device, Io, Options};

use super::{BackEnd, Disk};
use crate::disk::measure::{self, Job};
use crate::target::Target;

#[derive(Clone)]
struct Own {
    core: Core,
    device: Device,
}

pub(super) fn start(which: BackEnd, target: &Target, job: Job) -> anyhow::Result<Cores> {
    let disk = target.open(job.size)?;
    let options = Options {
        cpus: vec![job.cpu],
        io: if which == BackEnd::Blocking { Io::Blocking } else { Io::Uring },
        register_buffers: which != BackEnd::UringUnregistered,
        buffers_per_core: job.buffers(),
        progress_reserve: 1,
        abort_on_panic: false,
        ..Options::default()
    };
    Ok(anvil_runtime::start(options, move |core| {
        let own = Own { device: disk.device(&core), core };
        measure::run(own, job.clone())
    })?)
}

impl Disk for Own {
    type Buffer = Buffer;

    fn bytes(buffer: &mut Buffer) -> &mut [u8] {
        buffer
    }

    async fn buffer(&self) -> Buffer {
        self.core.buffer(Reserve::Foreground).await
    }

    async fn sleep(&self, time: Duration) {
        self.core.sleep(time).await;
    }

    fn spawn(&self, lane: impl Future<Output = ()> + 'static) {
        self.core.spawn(lane).detach();
    }

    fn size_bytes(&self) -> u64 {
        self.device.size_bytes()
    }

    async fn grow(&self, size_bytes: u64) -> io::Result<()> {
        self.device.grow(size_bytes).await.map_err(error)
    }

    async fn read(&self, offset: u64, buffer: Buffer, length: usize) -> (io::Result<()>, Buffer) {
        let (result, buffer) = self.device.read(offset, buffer, 0..length).await;
        (result.map_err(error), buffer)
    }

    async fn write(&self, offset: u64, buffer: Buffer, length: usize) -> (io::Result<()>, Buffer) {
        let (result, buffer) = self.device.write(offset, buffer, 0..length).await;
        (result.map_err(error), buffer)
    }

    async fn flush(&self) -> io::Result<()> {
        self.device.flush().await.map_err(error)
    }

    fn buffers_registered(&self) -> Option<bool> {
        Some(self.core.stats().buffers_registered.value() == 1)
    }
}

fn error(error: DeviceError) -> io::Error {
    io::Error::other(error)
}
