//! The log on stderr, written by a thread of its own: a terminal or pipe that does not read must not stop a core.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// How lines look (`--log-format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `RUST_LOG` makes no sense.
    #[error("RUST_LOG is {value:?}, which is not a filter such as \"info\" or \"info,anvil::access=debug\": {reason}")]
    Filter {
        /// What it got.
        value: String,
        /// Why not.
        reason: String,
    },
    /// There is a log already.
    #[error("the log is already set up")]
    Twice,
    /// No thread for the lines.
    #[error("cannot start the thread of the log: {0}")]
    Thread(#[from] io::Error),
}

/// Writes out what is left of the log when dropped (waiting for at most a second).
#[derive(Debug)]
#[must_use = "the last lines are lost without it"]
pub struct LogGuard {
    sender: SyncSender<Message>,
}

/// Sets up the log of the process: to stderr, filtered by `RUST_LOG`, by default `info`.
///
/// # Errors
/// When `RUST_LOG` is no filter, or it was done before.
pub fn init(format: LogFormat) -> Result<LogGuard, LogError> {
    let value = std::env::var("RUST_LOG").ok().filter(|value| !value.is_empty()).unwrap_or_else(|| "info".to_owned());
    let filter = EnvFilter::try_new(&value).map_err(|error| LogError::Filter { value, reason: error.to_string() })?;
    let (lines, guard) = Lines::start(io::stderr())?;
    let ansi = io::IsTerminal::is_terminal(&io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines);
    let set = match format {
        LogFormat::Text => builder.with_ansi(ansi).finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).finish().try_init(),
    };
    set.map_err(|_| LogError::Twice)?;
    Ok(guard)
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        // A full queue means that nobody reads stderr: then there is nothing to wait for.
        if self.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(Duration::from_secs(1));
        }
    }
}

/// Lines that may wait for stderr.
const LINES_MAX: usize = 4096;

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The way of lines to the thread that writes them.
#[derive(Clone, Debug)]
struct Lines {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    fn start(out: impl Write + Send + 'static) -> io::Result<(Self, LogGuard)> {
        let (sender, receiver) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(out, &receiver, &counted))?;
        Ok((Self { sender: sender.clone(), dropped }, LogGuard { sender }))
    }
}

fn write_lines(mut out: impl Write, receiver: &Receiver<Message>, dropped: &AtomicU64) {
    // What cannot be written to stderr can be told nowhere.
    while let Ok(message) = receiver.recv() {
        match message {
            Message::Line(line) => drop(out.write_all(&line)),
            Message::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
        let count = dropped.swap(0, Ordering::Relaxed);
        if count > 0 {
            let _ = writeln!(out, "{count} lines of log were dropped because they were not taken fast enough");
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Lines {
    /// Takes one whole line, as the formatter writes it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.sender.try_send(Message::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_in_order_and_the_guard_waits_for_the_last() {
        let out = Shared::default();
        let (lines, guard) = Lines::start(out.clone()).unwrap();
        for i in 0..100 {
            writeln!(&lines, "{i}").unwrap();
        }
        drop(guard);
        let expected: String = (0..100).map(|i| format!("{i}\n")).collect();
        assert_eq!(String::from_utf8(out.0.lock().unwrap().clone()).unwrap(), expected);
    }

    /// A writer that is stuck until the other end of its channel is dropped.
    struct Stuck(Receiver<()>, Shared);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_drops_lines_and_says_so_later() {
        let (release, stuck) = std::sync::mpsc::channel();
        let out = Shared::default();
        let (lines, guard) = Lines::start(Stuck(stuck, out.clone())).unwrap();
        for _ in 0..2 * LINES_MAX {
            (&lines).write_all(b"line\n").unwrap();
        }
        let dropped = lines.dropped.load(Ordering::Relaxed);
        assert!(dropped >= (LINES_MAX - 1) as u64, "{dropped}");
        drop(release);
        let (done, written) = sync_channel(1);
        guard.sender.send(Message::Flush(done)).unwrap();
        written.recv().unwrap();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains(&format!("{dropped} lines of log were dropped")), "{dropped}");
    }
}
