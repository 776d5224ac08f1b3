//! Whole nodes from many seeds: nothing acknowledged is lost, nothing deleted returns, nothing stands still.

use std::time::Duration;

use anvil_sim::Injected;
use anvil_sim::history::{BrokenRule, Campaign, HistoryOptions, Misfortunes, Reached, Summary, run};

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
    println!("seeds {from} to {} in {:.1?}:\n{}", summary.next, summary.took, summary.total);
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
        assert!(reached.encrypting >= 400, "{reached:?}");
        let Reached { made_again, emptied, late_reports, read_after_more, named_losses, turned, .. } = reached;
        let after_losses = [made_again, emptied, late_reports, read_after_more, named_losses, turned];
        assert!(after_losses.iter().all(|&count| count >= 100), "{reached:?}");
        let misfortunes = summary.total.misfortunes;
        let Misfortunes { offline, online, given_up, lost_later, replaced, .. } = misfortunes;
        let of_administrators = [offline, online, given_up, lost_later, replaced];
        assert!(of_administrators.iter().all(|&count| count >= 100), "{misfortunes:?}");
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

/// Goal: a simulator that finds nothing may be blind. Method: rules are broken outside of the code that keeps them, and
/// histories are demanded to fail for that reason.
fn is_seen(rule: BrokenRule, histories_max: u64, sign: &str) {
    let broken = HistoryOptions { broken: Some(rule), ..HistoryOptions::default() };
    let summary = campaign(0, histories_max, broken);
    let seeds: Vec<u64> = summary.failures.iter().map(|failure| failure.seed).collect();
    println!("{rule:?} is seen by seeds {seeds:?}, in {:.1?}", summary.took);
    assert!(seeds.len() >= 3, "{rule:?}: {} of {} histories saw it", seeds.len(), summary.histories);
    for failure in &summary.failures {
        assert!(failure.problem.contains(sign), "{rule:?} is seen by chance: {}", failure.problem);
    }
}

#[test]
fn flushes_that_lie_are_seen() {
    is_seen(BrokenRule::FlushedIsDurable, 40, "");
}

#[test]
fn parity_of_wrong_columns_is_seen() {
    is_seen(BrokenRule::ParityOfItsColumns, 200, "reads as other bytes");
}

#[test]
fn a_shard_that_is_made_again_of_wrong_columns_is_seen() {
    is_seen(BrokenRule::MadeAgainAsItWas, 400, "reads as other bytes");
}

#[test]
fn a_move_that_does_not_compare_is_seen() {
    is_seen(BrokenRule::MovesCompare, 200, "is given up as damaged");
}
