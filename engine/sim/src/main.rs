//! `cargo sim -- SEED` replays a history; `cargo sim -- --count N` runs a campaign. See docs/TESTING.md.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io, thread};

use anvil_sim::history::{Campaign, HistoryOptions, Report, run};

const USAGE: &str = "\
cargo sim -- SEED                                replay one history and say what happens
cargo sim -- [--from SEED] [--count N] [--jobs N] [--minutes N] [--slice N] [--state FILE]
                                                 run histories; without --from, from a fresh seed on
SEED is decimal, or hexadecimal with 0x. After each --slice of histories (500) it is told how far the campaign came; with
--state that is kept in FILE, and the same command goes on from there when it was broken off.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = parse(&arguments).and_then(|command| match command {
        Command::Replay(seed) => Ok(replay(seed)),
        Command::Campaign { campaign, slice, state } => run_campaign(campaign, slice, state),
    });
    outcome.unwrap_or_else(|problem| {
        eprintln!("{problem}\n{USAGE}");
        ExitCode::from(2)
    })
}

enum Command {
    Replay(u64),
    Campaign { campaign: Campaign, slice: u64, state: Option<StateFile> },
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
    let (mut slice, mut state) = (500, None);
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let value = rest.next().ok_or(format!("{name} needs a value"))?;
        match name.as_str() {
            "--from" => campaign.from = number(value)?,
            "--count" => campaign.count = number(value)?,
            "--jobs" => campaign.jobs = usize::try_from(number(value)?).map_err(|error| error.to_string())?,
            "--minutes" => campaign.time_max = Duration::from_secs(number(value)?.saturating_mul(60)),
            "--slice" => slice = number(value)?.max(1),
            "--state" => state = Some(StateFile { path: PathBuf::from(value) }),
            _ => return Err(format!("{name} is not known")),
        }
    }
    Ok(Command::Campaign { campaign, slice, state })
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
    println!("seed {seed} holds:\n{report}");
    ExitCode::SUCCESS
}

/// In slices, each of which is noted when it is done.
fn run_campaign(mut campaign: Campaign, slice: u64, state: Option<StateFile>) -> Result<ExitCode, String> {
    let mut progress = Progress { next: campaign.from, total: Report::default() };
    if let Some(before) = state.as_ref().map(StateFile::load).transpose()?.flatten() {
        println!("{} histories are done; going on with --from {}", before.done(), before.next);
        progress = before;
    }
    let (count, mut time_left) = (campaign.count, campaign.time_max);
    while progress.done() < count && !time_left.is_zero() {
        campaign.from = progress.next;
        campaign.count = slice.min(count - progress.done());
        campaign.time_max = time_left;
        let summary = campaign.run();
        if !summary.failures.is_empty() {
            for failure in &summary.failures {
                println!("FAILED, replay with: cargo sim -- {}\n{}", failure.seed, failure.problem);
            }
            return Ok(ExitCode::FAILURE);
        }
        progress.total.add(&summary.total);
        progress.next = summary.next;
        time_left = time_left.saturating_sub(summary.took);
        if let Some(state) = &state {
            state.store(&mut progress)?;
        }
        let (done, took) = (progress.done(), summary.took.as_secs_f64());
        println!(
            "{done} histories, {} bytes checked; the last {} took {took:.1} s; go on with --from {}",
            progress.total.scope.bytes_checked, summary.histories, progress.next,
        );
    }
    println!("{} histories:\n{}", progress.done(), progress.total);
    Ok(ExitCode::SUCCESS)
}

/// How far a campaign came.
struct Progress {
    /// The next seed.
    next: u64,
    total: Report,
}

impl Progress {
    fn done(&self) -> u64 {
        self.total.scope.histories
    }
}

/// A line for the next seed, one for the trace of all, and one for each counter.
struct StateFile {
    path: PathBuf,
}

impl StateFile {
    fn load(&self) -> Result<Option<Progress>, String> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{}: {error}", self.path.display())),
        };
        let unclear = || format!("{} does not say how far a campaign of this program came", self.path.display());
        let mut said: BTreeMap<&str, u64> = BTreeMap::new();
        for line in text.lines() {
            let (name, value) = line.split_once(' ').ok_or_else(unclear)?;
            said.insert(name, value.parse().map_err(|_| unclear())?);
        }
        let next = said.remove("next").ok_or_else(unclear)?;
        let mut total = Report { trace: said.remove("trace").ok_or_else(unclear)?, ..Report::default() };
        for (group, counters) in total.by_name() {
            for (name, counter) in counters {
                *counter = said.remove(format!("{group}.{name}").as_str()).ok_or_else(unclear)?;
            }
        }
        if said.is_empty() { Ok(Some(Progress { next, total })) } else { Err(unclear()) }
    }

    /// Whole or not at all, whenever it is broken off.
    fn store(&self, progress: &mut Progress) -> Result<(), String> {
        let mut text = format!("next {}\ntrace {}\n", progress.next, progress.total.trace);
        for (group, counters) in progress.total.by_name() {
            for (name, count) in counters {
                writeln!(text, "{group}.{name} {count}").expect("a string takes everything");
            }
        }
        let new = self.path.with_extension("new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.path));
        written.map_err(|error| format!("{}: {error}", self.path.display()))
    }
}
