//! The suite of the metadata trait on SQLite, and what only SQLite can get wrong.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use anvil_node::metadata::suite::Logless;

use super::*;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn on_sqlite(case: impl AsyncFnOnce(Logless<SqliteIndex>)) {
    let directory = tempfile::tempdir().unwrap();
    let (index, threads) = SqliteIndex::start(directory.path()).unwrap();
    block_on(case(Logless::new(index)));
    threads.join();
}

anvil_node::metadata_suite!(super::on_sqlite);
