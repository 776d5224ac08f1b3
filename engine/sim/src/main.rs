//! `cargo sim -- SEED` replays a history; `cargo sim -- --from SEED --count N` runs a campaign. See docs/TESTING.md.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anvil_sim::history::{Campaign, HistoryOptions, run};

const USAGE: &str = "\
cargo sim -- SEED                                replay one history and say what happens
cargo sim -- [--from SEED] [--count N] [--jobs N] [--minutes N]
                                                 run histories; without --from, from a fresh seed on
SEED is decimal, or hexadecimal with 0x.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match parse(&arguments) {
        Ok(Command::Replay(seed)) => replay(seed),
        Ok(Command::Campaign(campaign)) => run_campaign(campaign),
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

enum Command {
    Replay(u64),
    Campaign(Campaign),
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
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let value = number(rest.next().ok_or(format!("{name} needs a value"))?)?;
        match name.as_str() {
            "--from" => campaign.from = value,
            "--count" => campaign.count = value,
            "--jobs" => campaign.jobs = usize::try_from(value).map_err(|error| error.to_string())?,
            "--minutes" => campaign.time_max = Duration::from_secs(60 * value),
            _ => return Err(format!("{name} is not known")),
        }
    }
    Ok(Command::Campaign(campaign))
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text} is not a number"))
}

fn replay(seed: u64) -> ExitCode {
    let report = run(seed, HistoryOptions { verbose: true, ..HistoryOptions::default() });
    println!("seed {seed} holds: {report:?}");
    ExitCode::SUCCESS
}

/// In slices, so that a campaign that is broken off has said from where to go on.
fn run_campaign(mut campaign: Campaign) -> ExitCode {
    const SLICE: u64 = 500;
    let mut time_left = campaign.time_max;
    let mut count_left = campaign.count;
    while count_left > 0 && !time_left.is_zero() {
        campaign.count = SLICE.min(count_left);
        campaign.time_max = time_left;
        let summary = campaign.run();
        for failure in &summary.failures {
            println!("FAILED, replay with: cargo sim -- {}\n{}", failure.seed, failure.problem);
        }
        println!(
            "{} histories, {} lives, {} operations, {} steps in {:.1} s; {:?}; go on with --from {}",
            summary.histories,
            summary.total.lives,
            summary.total.operations,
            summary.total.steps,
            summary.took.as_secs_f64(),
            summary.total.reached,
            summary.next,
        );
        if !summary.failures.is_empty() {
            return ExitCode::FAILURE;
        }
        campaign.from = summary.next;
        count_left -= summary.histories;
        time_left = time_left.saturating_sub(summary.took);
    }
    ExitCode::SUCCESS
}
