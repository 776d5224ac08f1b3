//! Shared flushes, on the disk's home core: at most one is in flight, and all who ask meanwhile share the next.

use std::rc::Rc;

use anvil_model::io::{Device, DeviceError, World};
use tokio::sync::oneshot;

use crate::mail::Message;
use crate::store::Inner;

/// Who waits for a flush of a disk. Each waits for one that begins after it asked. Bounded by the tasks that ask.
#[derive(Debug, Default)]
pub(crate) struct Flusher {
    waiting: Vec<oneshot::Sender<Result<(), DeviceError>>>,
    running: bool,
    /// Device flushes so far.
    pub(crate) flushes: u64,
    /// Requests for a flush so far: what one flush serves is this by those.
    pub(crate) requests: u64,
}

impl<W: World> Inner<W> {
    /// Makes all writes to this disk that completed before this call durable.
    pub(crate) async fn flush_disk(self: &Rc<Self>, disk: u16) -> Result<(), DeviceError> {
        // Its home may not know of it yet, and nothing was written to it.
        if self.disk(disk).arrival.borrow().is_some() {
            return Err(DeviceError::Offline);
        }
        let (reply, flushed) = oneshot::channel();
        let home = self.disk_home(disk);
        if home == self.core {
            self.request_flush(disk, reply);
        } else if self.addresses[usize::from(home.0)].send(Message::Flush { disk, reply }).await.is_err() {
            return Err(DeviceError::Gone);
        }
        // A core that is gone takes its disks with it.
        let flushed = flushed.await.unwrap_or(Err(DeviceError::Gone));
        flushed.inspect_err(|error| self.fail_disk(disk, *error))
    }

    /// Flushes a disk whose home is here.
    pub(crate) fn request_flush(self: &Rc<Self>, disk: u16, reply: oneshot::Sender<Result<(), DeviceError>>) {
        let flusher = self.flusher(disk);
        flusher.borrow_mut().waiting.push(reply);
        if flusher.borrow().running {
            return;
        }
        flusher.borrow_mut().running = true;
        let inner = Rc::clone(self);
        self.start(async move { inner.flush_while_asked(disk).await });
    }

    async fn flush_while_asked(self: Rc<Self>, disk: u16) {
        loop {
            let waiting = {
                let mut flusher = self.flusher(disk).borrow_mut();
                flusher.running = !flusher.waiting.is_empty();
                if !flusher.running {
                    return;
                }
                flusher.flushes += 1;
                flusher.requests += flusher.waiting.len() as u64;
                std::mem::take(&mut flusher.waiting)
            };
            // After a flush that failed nobody can say what became of the writes before it, so none ever succeeds again.
            let flushed = match self.disk(disk).failed.get() {
                Some(error) => Err(error),
                None => self.disk(disk).device.flush().await.inspect_err(|error| self.fail_disk(disk, *error)),
            };
            for reply in waiting {
                // Who was cancelled does not wait any more.
                let _ = reply.send(flushed);
            }
        }
    }
}
