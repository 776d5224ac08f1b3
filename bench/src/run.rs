//! What every suite owes to who runs it, in one way: how long, on which CPU and in which form; what it was measured on; a bar
//! on a terminal; and an end, also after Ctrl-C.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anvil_runtime::available_cpus;
use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::host::Host;
use crate::signals::{self, Interrupted};
use crate::{clock, units};

/// The flags that every suite takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// How long the whole run takes, its preparation included
    #[arg(long, default_value = "60s", value_parser = units::duration, value_name = "TIME")]
    duration: Duration,
    /// The CPU that does the work; by default the first that this process may use, or all of them where many threads work
    #[arg(long, value_name = "CPU")]
    cpu: Option<usize>,
    /// Prints one JSON document on stdout instead of tables
    #[arg(long)]
    json: bool,
}

impl RunArgs {
    /// The CPU of `--cpu`.
    pub(crate) const fn cpu(&self) -> Option<usize> {
        self.cpu
    }

    /// Looks at the machine and catches signals; time runs from here.
    ///
    /// # Errors
    /// One sentence, when the flags cannot be followed here.
    pub(crate) fn begin(&self, suite: &'static str) -> anyhow::Result<Run> {
        ensure!(!self.duration.is_zero(), "--duration is zero");
        let cpus = available_cpus();
        ensure!(!cpus.is_empty(), "this process may use no CPU");
        if let Some(cpu) = self.cpu {
            ensure!(cpus.contains(&cpu), "this process may not use CPU {cpu}, only {cpus:?}");
        }
        let interrupted = signals::catch().context("cannot catch signals")?;
        let host = Host::look(self.cpu, &cpus);
        Ok(Run { suite, host, cpus, json: self.json, begun: Instant::now(), duration: self.duration, interrupted })
    }
}

/// A run of one suite.
#[derive(Debug)]
pub(crate) struct Run {
    suite: &'static str,
    host: Host,
    cpus: Vec<usize>,
    json: bool,
    begun: Instant,
    duration: Duration,
    interrupted: Arc<AtomicBool>,
}

/// The one JSON document.
#[derive(Serialize)]
struct Document<'a, R> {
    /// Which suite made it; with the version of the form, what `anvil-bench report` goes by.
    suite: &'static str,
    format: u32,
    host: &'a Host,
    /// The whole run, preparation included.
    run_seconds: f64,
    /// True when the user ended it: figures are of what was seen until then.
    interrupted: bool,
    #[serde(flatten)]
    report: &'a R,
}

/// Of [`Document`]; 2 is the first that says it.
const FORMAT: u32 = 2;

impl Run {
    /// The CPU of a suite whose work is done by one: that of `--cpu`, or the first.
    pub(crate) fn one_cpu(&mut self) -> usize {
        let cpu = self.host.cpu.unwrap_or(self.cpus[0]);
        self.host = Host::look(Some(cpu), &self.cpus);
        cpu
    }

    /// Keeps this thread, and those that it starts, on the CPU of `--cpu` where one was given.
    pub(crate) fn pin(&self) -> anyhow::Result<()> {
        self.host.cpu.map_or(Ok(()), clock::pin)
    }

    /// CPUs that this process may use.
    pub(crate) fn cpus(&self) -> &[usize] {
        &self.cpus
    }

    /// How long it was to take.
    pub(crate) const fn duration(&self) -> Duration {
        self.duration
    }

    /// When it is to end.
    pub(crate) fn deadline(&self) -> Instant {
        self.begun + self.duration
    }

    /// What is left of its time.
    pub(crate) fn left(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    /// True from Ctrl-C on.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// The flag behind [`Self::is_interrupted`].
    pub(crate) const fn interrupted(&self) -> &Arc<AtomicBool> {
        &self.interrupted
    }

    /// # Errors
    /// [`Interrupted`] from Ctrl-C on.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        if self.is_interrupted() { Err(Interrupted) } else { Ok(()) }
    }

    /// True when nothing more is to be begun.
    pub(crate) fn is_over(&self) -> bool {
        self.is_interrupted() || self.left().is_zero()
    }

    /// True when people read stdout: then lines may be printed while it goes on.
    pub(crate) const fn is_for_people(&self) -> bool {
        !self.json
    }

    /// Prints what it is measured on, for people.
    pub(crate) fn print_header(&self) {
        if self.is_for_people() {
            self.host.print();
        }
    }

    /// A bar for the time of the whole run.
    pub(crate) fn bar(&self) -> Bar {
        let shown = std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("[{bar:30}] {elapsed} {msg}").expect("the template is valid");
        let bar = ProgressBar::with_draw_target(Some(millis(self.duration)), target);
        Bar { bar: bar.with_style(style.progress_chars("=> ")), begun: self.begun }
    }

    /// Prints the report in the form that was asked for.
    ///
    /// # Errors
    /// [`Interrupted`] when the user ended the run.
    pub(crate) fn finish<R: Serialize>(&self, report: &R, print: impl FnOnce(&R)) -> anyhow::Result<()> {
        if self.json {
            let document = Document {
                suite: self.suite,
                format: FORMAT,
                host: &self.host,
                run_seconds: self.begun.elapsed().as_secs_f64(),
                interrupted: self.is_interrupted(),
                report,
            };
            println!("{}", serde_json::to_string_pretty(&document)?);
        } else {
            print(report);
        }
        Ok(self.check()?)
    }
}

/// How far a run is, on a terminal's stderr; nothing where there is no terminal.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    begun: Instant,
}

impl Bar {
    /// Time has passed.
    pub(crate) fn tick(&self) {
        if !self.bar.is_hidden() {
            self.bar.set_position(millis(self.begun.elapsed()));
        }
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Something else is being done.
    pub(crate) fn say(&self, what: impl Into<String>) {
        if !self.bar.is_hidden() {
            self.bar.set_message(what.into());
            self.tick();
        }
    }

    /// Prints to stdout while the bar is away.
    pub(crate) fn aside(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Takes it away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
