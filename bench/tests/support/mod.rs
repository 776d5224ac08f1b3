//! What tests of `anvil-bench` on directories need: the folder, and a run that is interrupted in it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A folder on the target's file system.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub(crate) fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

/// Ctrl-C ends a run in this directory with 130 and leaves nothing there. It is sent when a line of the run's tells that the
/// directory is in use.
pub(crate) fn leaves_nothing_when_interrupted(run: &mut Command, directory: &Path, tells: fn(&str) -> bool) {
    let mut run = run.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| tells(&line.unwrap())));
    assert!(!is_empty(directory));
    kill(Pid::from_raw(i32::try_from(run.id()).unwrap()), Signal::SIGINT).unwrap();
    lines.for_each(drop);
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert!(is_empty(directory));
}
