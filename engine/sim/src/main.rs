//! `cargo sim -- SEED` replays a history; `cargo sim -- --count N` runs a campaign. See docs/TESTING.md.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anvil_sim::history::{Campaign, HistoryOptions, Report, Summary, run};

const USAGE: &str = "\
cargo sim -- SEED                                replay one history and say what happens
cargo sim -- [--from SEED] [--count N] [--jobs N] [--minutes N] [--state FILE]
                                                 run histories; without --from, from a fresh seed on
SEED is decimal, or hexadecimal with 0x. With --state, how far the campaign came is kept in FILE, and the same command
goes on from there when it was broken off.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = parse(&arguments).and_then(|command| match command {
        Command::Replay(seed) => Ok(replay(seed)),
        Command::Campaign(campaign, state) => run_campaign(campaign, state),
    });
    outcome.unwrap_or_else(|problem| {
        eprintln!("{problem}\n{USAGE}");
        ExitCode::from(2)
    })
}

enum Command {
    Replay(u64),
    Campaign(Campaign, Option<StateFile>),
}

fn parse(arguments: &[String]) -> Result<Command, String> {
    if let [seed] = arguments
        && !seed.starts_with("--")
    {
        return Ok(Command::Replay(number(seed)?));
    }
    let mut campaign = Campaign {
        from: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64) << 12,
        count: u64::MAX >> 1,
        jobs: thread::available_parallelism().map_or(1, usize::from),
        time_max: Duration::MAX,
        failures_max: 5,
        options: HistoryOptions::default(),
    };
    let mut state = None;
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let value = rest.next().ok_or(format!("{name} needs a value"))?;
        match name.as_str() {
            "--from" => campaign.from = number(value)?,
            "--count" => campaign.count = number(value)?,
            "--jobs" => campaign.jobs = usize::try_from(number(value)?).map_err(|error| error.to_string())?,
            "--minutes" => campaign.time_max = Duration::from_secs(number(value)?.saturating_mul(60)),
            "--state" => state = Some(StateFile { path: PathBuf::from(value) }),
            _ => return Err(format!("{name} is not known")),
        }
    }
    Ok(Command::Campaign(campaign, state))
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text} is not a number"))
}

fn replay(seed: u64) -> ExitCode {
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    let report = run(seed, HistoryOptions { verbose: true, ..HistoryOptions::default() });
    println!("seed {seed} holds: {report:#?}");
    ExitCode::SUCCESS
}

/// In slices, each of which is noted when it is done.
fn run_campaign(mut campaign: Campaign, state: Option<StateFile>) -> Result<ExitCode, String> {
    const SLICE: u64 = 500;
    let (mut done, mut time_left) = (0, campaign.time_max);
    if let Some(progress) = state.as_ref().map(StateFile::load).transpose()?.flatten() {
        println!("{} histories are done; going on with --from {}", progress.done, progress.next);
        (done, campaign.from) = (progress.done, progress.next);
    }
    let count = campaign.count;
    let mut total = Report::default();
    while done < count && !time_left.is_zero() {
        campaign.count = SLICE.min(count - done);
        campaign.time_max = time_left;
        let summary = campaign.run();
        total.add(summary.total);
        done += summary.histories;
        tell(&summary, done, &total);
        if !summary.failures.is_empty() {
            return Ok(ExitCode::FAILURE);
        }
        campaign.from = summary.next;
        time_left = time_left.saturating_sub(summary.took);
        if let Some(state) = &state {
            state.store(Progress { done, next: summary.next })?;
        }
    }
    println!("{total:#?}");
    Ok(ExitCode::SUCCESS)
}

fn tell(summary: &Summary, done: u64, total: &Report) {
    for failure in &summary.failures {
        println!("FAILED, replay with: cargo sim -- {}\n{}", failure.seed, failure.problem);
    }
    let injected = &total.injected;
    let faults = injected.errors + injected.no_space + injected.bit_flips + injected.misdirected;
    println!(
        "{done} histories; in this run {} lives, {} operations, {} faults, {} torn or lost writes, {} bytes checked; the \
         last {} took {:.1} s; go on with --from {}",
        total.lives,
        total.operations,
        faults,
        injected.torn_writes + injected.lost_writes,
        total.bytes_checked,
        summary.histories,
        summary.took.as_secs_f64(),
        summary.next,
    );
}

/// How far a campaign came.
struct Progress {
    done: u64,
    /// The next seed.
    next: u64,
}

/// A line of two numbers: histories done, next seed.
struct StateFile {
    path: PathBuf,
}

impl StateFile {
    fn load(&self) -> Result<Option<Progress>, String> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{}: {error}", self.path.display())),
        };
        match text.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>().as_deref() {
            Ok(&[done, next]) => Ok(Some(Progress { done, next })),
            _ => Err(format!("{} does not say how far a campaign came", self.path.display())),
        }
    }

    /// Whole or not at all, whenever it is broken off.
    fn store(&self, progress: Progress) -> Result<(), String> {
        let new = self.path.with_extension("new");
        let written = fs::write(&new, format!("{} {}\n", progress.done, progress.next));
        written.and_then(|()| fs::rename(&new, &self.path)).map_err(|error| format!("{}: {error}", self.path.display()))
    }
}
