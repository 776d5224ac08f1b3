//! Whole nodes from many seeds: nothing acknowledged is lost, nothing deleted returns, nothing stands still.

use std::time::Duration;

use anvil_sim::Injected;
use anvil_sim::history::{Campaign, HistoryOptions, Reached, Summary, run};

/// Where the histories of a test run begin, unless `ANVIL_SIM_FROM` says otherwise.
const FROM: u64 = 1_000_000;
/// How many there are, unless `ANVIL_SIM_COUNT` says otherwise.
const COUNT: u64 = 10_000;

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

fn campaign(from: u64, count: u64, options: HistoryOptions) -> Summary {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    Campaign { from, count, jobs, time_max: Duration::MAX, failures_max: 3, options }.run()
}

#[test]
fn no_history_loses_or_resurrects_anything_or_stands_still() {
    let from = from_environment("ANVIL_SIM_FROM").unwrap_or(FROM);
    let count = from_environment("ANVIL_SIM_COUNT").unwrap_or(COUNT);
    let summary = campaign(from, count, HistoryOptions::default());
    println!("seeds {from} to {}: {:#?} in {:.1?}", summary.next, summary.total, summary.took);
    for failure in &summary.failures {
        println!("replay with: cargo sim -- {}\n{}", failure.seed, failure.problem);
    }
    assert!(
        summary.failures.is_empty(),
        "{} histories failed; the first: cargo sim -- {}",
        summary.failures.len(),
        summary.failures[0].seed
    );
    assert_eq!(summary.histories, count);
    if count >= COUNT {
        let reached = summary.total.reached;
        let Reached { crashes, torn, void, replayed, rebuilt, rescued, unknown, full, device_errors, .. } = reached;
        assert!([torn, void, rescued, full, device_errors].iter().all(|&count| count >= 20), "{reached:?}");
        assert!([crashes, replayed, rebuilt, unknown].iter().all(|&count| count >= 400), "{reached:?}");
        let Reached { abandoned, orphans, forgotten, freed, moved, outlasted, cut_off, recovered, .. } = reached;
        assert!([outlasted, cut_off, recovered, moved].iter().all(|&count| count >= 20), "{reached:?}");
        assert!([abandoned, orphans, forgotten, freed].iter().all(|&count| count >= 400), "{reached:?}");
        assert!(reached.rot_named >= 10 && reached.scrubbed >= 10_000, "{reached:?}");
        assert!(reached.stayed_full * 4 < recovered, "full disks take writes again: {reached:?}");
        assert!(reached.crashes_at_start >= 400 && reached.crashes_in_reclaim >= 100, "{reached:?}");
        let Injected { errors, no_space, bit_flips, misdirected, lost_writes, torn_writes } = summary.total.injected;
        let injected = [errors, no_space, bit_flips, misdirected, lost_writes, torn_writes];
        assert!(injected.iter().all(|&count| count >= 50), "{injected:?}");
    }
}

#[test]
fn a_history_is_the_same_every_time() {
    for seed in 0..40 {
        assert_eq!(run(seed, HistoryOptions::default()), run(seed, HistoryOptions::default()), "seed {seed}");
    }
}

#[test]
fn a_broken_commit_rule_is_seen() {
    // Goal: a simulator that finds nothing may be blind; method: flushes that lie break every rule of the log.
    let broken = HistoryOptions { flush_lies: true, ..HistoryOptions::default() };
    let summary = campaign(0, 100, broken);
    assert_eq!(
        summary.failures.len().min(3),
        3,
        "{} of {} histories saw it",
        summary.failures.len(),
        summary.histories
    );
    assert!(summary.histories < 40, "it took {} histories to see it three times", summary.histories);
}
