//! A disk's file as one core's ring knows it.

use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use anvil_model::time::Moment;
use tokio::sync::SemaphorePermit;

use super::Disk;
use crate::core::Inner;
use crate::task::Class;

/// Keeps the disk open, and its place in the ring's table of files.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) disk: Disk,
    inner: Rc<Inner>,
    registered: Option<u32>,
}

/// How an operation names the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileRef {
    pub(crate) fd: RawFd,
    /// Its place in the ring's table of files.
    pub(crate) registered: Option<u32>,
}

impl Handle {
    pub(crate) fn new(disk: Disk, inner: Rc<Inner>) -> Self {
        let registered = inner.driver.borrow_mut().register_file(disk.shared.opened.file.as_raw_fd());
        Self { disk, inner, registered }
    }

    pub(crate) fn now(&self) -> Moment {
        self.inner.now()
    }

    pub(crate) const fn inner(&self) -> &Rc<Inner> {
        &self.inner
    }

    /// Lets an operation begin: at once, unless it is a background task that asks and enough of theirs are under way.
    /// To be kept until the operation has ended.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        match self.inner.polling.get() {
            Class::Foreground => None,
            Class::Background => {
                Some(self.inner.background_operations.acquire().await.expect("the semaphore is never closed"))
            }
        }
    }

    pub(crate) fn file(&self) -> FileRef {
        FileRef { fd: self.disk.shared.opened.file.as_raw_fd(), registered: self.registered }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(index) = self.registered {
            self.inner.driver.borrow_mut().unregister_file(index);
        }
    }
}
