//! What commands share that look at the disks of a node which does not run: finding and holding them, a core to read them
//! on, and Ctrl-C.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anvil_model::io::World as _;
use anvil_runtime::{Core, Disk, DiskOptions, OpenError, Options, available_cpus};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::data_dir::DataDir;
use crate::identity::Identity;
use crate::start::patiently;

/// What a shell gives a program that Ctrl-C ended.
pub(super) const EXIT_INTERRUPTED: u8 = 130;
/// How soon Ctrl-C is heeded.
const STOP_LOOKED_FOR_EVERY: Duration = Duration::from_millis(50);

/// Set when Ctrl-C has asked for the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Completes when it is set.
    pub(super) async fn wait(&self, core: &Core) {
        while !self.is_set() {
            core.sleep(STOP_LOOKED_FOR_EVERY).await;
        }
    }

    /// Does some work, unless it is set before that is done.
    pub(super) async fn unless_set<T>(&self, core: &Core, work: impl Future<Output = T>) -> Option<T> {
        use futures_util::future::{Either, select};
        match select(std::pin::pin!(work), std::pin::pin!(self.wait(core))).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }
}

/// The disks that a node knows, by the data directory that this process holds.
pub(super) fn disks_of_node(data: &DataDir) -> Result<Vec<PathBuf>, Failure> {
    let identity = Identity::read(data).map_err(Failure::run)?;
    Ok(identity.into_iter().flat_map(|identity| identity.disks.into_keys()).collect())
}

/// Holds a disk: a running node holds its own, and one that was killed for a moment longer than it lived.
pub(super) fn open_disk(path: &Path) -> Result<Disk, Failure> {
    let open = || Disk::open(path, &DiskOptions::default());
    patiently(open, |error| matches!(error, OpenError::InUse(_))).map_err(Failure::run)
}

type Task = Box<dyn FnOnce(Core) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Does some work on a core of its own with so many buffers. Ctrl-C sets the stop, and no longer ends the process.
pub(super) fn run_on_a_core<T: Send + 'static>(
    buffers: usize,
    work: impl AsyncFnOnce(&Core, &Stop) -> T + Send + 'static,
) -> Result<T, Failure> {
    let cpus = available_cpus().into_iter().take(1).collect();
    let options = Options { cpus, buffers_per_core: buffers, progress_reserve: buffers / 2, ..Options::default() };
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::run)?;
    let mut interrupts = {
        let _entered = control.enter();
        signal(SignalKind::interrupt()).map_err(Failure::run)?
    };
    let stop = Stop::default();
    let outcome = Arc::new(Mutex::new(None));
    let task: Task = {
        let (stop, outcome) = (stop.clone(), Arc::clone(&outcome));
        Box::new(move |core| {
            Box::pin(async move {
                let done = work(&core, &stop).await;
                *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
            })
        })
    };
    let task = Mutex::new(Some(task));
    let cores = anvil_runtime::start(options, move |core| {
        let task = task.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { task.expect("there is one core")(core).await }
    });
    let cores = cores.map_err(Failure::run)?;
    control.block_on(async {
        let mut joined = tokio::task::spawn_blocking(move || cores.join());
        let joined = tokio::select! {
            joined = &mut joined => joined,
            _ = interrupts.recv() => {
                stop.0.store(true, Ordering::Relaxed);
                joined.await
            }
        };
        joined.expect("joining cores does not panic").map_err(Failure::run)
    })?;
    let done = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
    done.ok_or_else(|| Failure::run("the work was not done"))
}

/// A bar on stderr, when that is a terminal.
pub(super) fn bar(length: u64, what: impl Into<String>, unit: &str) -> ProgressBar {
    let template = format!("{{prefix}} {{wide_bar}} {{human_pos}}/{{human_len}} {unit}, {{eta}} left");
    let style = ProgressStyle::with_template(&template).expect("the template is sound");
    ProgressBar::new(length).with_prefix(what.into()).with_style(style)
}

/// The same for work of which nobody knows how much it is.
pub(super) fn spinner(what: impl Into<String>) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {spinner} {elapsed}").expect("the template is sound");
    let spinner = ProgressBar::new_spinner().with_prefix(what.into()).with_style(style);
    spinner.enable_steady_tick(Duration::from_millis(200));
    spinner
}

/// The same in bytes.
pub(super) fn bytes_bar(length: u64, what: impl Into<String>) -> ProgressBar {
    let template = "{prefix} {wide_bar} {binary_bytes}/{binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is sound");
    ProgressBar::new(length).with_prefix(what.into()).with_style(style)
}
