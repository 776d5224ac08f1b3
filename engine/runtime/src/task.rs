//! A spawned task as its owner sees it.

use anvil_model::io;

/// A task of this core. Dropping it cancels the task: its future is dropped, at once or, when it is just being
/// polled, at its next await.
#[derive(Debug)]
#[must_use = "dropping a task cancels it"]
pub struct Task {
    here_only: std::marker::PhantomData<*const ()>,
}

impl io::Task for Task {
    fn detach(self) {
        todo!()
    }
}
