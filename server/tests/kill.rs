//! Goal: no acknowledged object is lost and no acknowledged deletion undone by a crash. Method: SIGKILL under
//! load, with another number of cores at each start; a ledger of what was acknowledged, compared with every byte that is
//! read back after each restart.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use support::content::{Content, Random};
use support::ledger::{BUCKET, Ledger, Outcome, ledgers, verify};
use support::node::{Node, Options, scratch};

/// How often the node is killed when `ANVIL_TEST_KILLS` does not say it.
const KILL_COUNT: u64 = 20;
const WRITER_COUNT: u64 = 8;

#[test]
fn what_was_acknowledged_survives_kills_under_load() {
    let kills = std::env::var("ANVIL_TEST_KILLS").map_or(KILL_COUNT, |count| count.parse().expect("a number of kills"));
    // Every sixth end is an orderly stop.
    let round_count = kills + kills / 5;
    let scratch = scratch();
    let start = |round: u64| Node::start_with(&scratch.path().join("data"), &options(scratch.path(), round));
    let mut random = Random(0x00a1_1ce5);
    let mut ledgers = ledgers(WRITER_COUNT);
    let mut node = start(0);
    node.client().put(&format!("/{BUCKET}"), b"").unwrap().succeeded();
    for round in 1..=round_count {
        let (end, how): (fn(Node), _) = if round % 6 == 0 { (Node::stop, "stopped") } else { (Node::kill, "killed") };
        let target = 20 + random.below(600);
        let (acknowledged, refused) = write_until_ended(node, end, &mut ledgers, target, &mut random);
        if round % 3 == 0 {
            // Recovery is cut short as well.
            let after = Duration::from_millis(random.below(200));
            Node::start_and_kill(&scratch.path().join("data"), &options(scratch.path(), round + 1), after);
        }
        node = start(round);
        println!(
            "round {round}: {how} after {acknowledged} acknowledged operations ({refused} refused), \
             ready again after {:.1?}",
            node.start_time
        );
        verify(&node, &mut ledgers);
    }
    node.stop();
}

/// Two disks, and another number of cores at each start.
fn options(scratch: &Path, round: u64) -> Options {
    let disk = |name: &str| scratch.join(name).display().to_string();
    let cores = (1 + round % 3).to_string();
    let mut arguments = vec!["--disk".into(), disk("disk-1"), "--disk".into(), disk("disk-2"), "--cores".into(), cores];
    // What is overwritten and deleted is given back at once, so that kills meet that work too.
    arguments.extend(["--reclaim-delay".into(), "0".into()]);
    Options { arguments, ..Options::default() }
}

/// The check is worth nothing if it does not see what it looks for.
#[test]
fn what_is_lost_or_comes_back_is_noticed() {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    let mut client = node.client();
    client.put(&format!("/{BUCKET}"), b"").unwrap().succeeded();
    let path = format!("/{BUCKET}/key");
    let known = Content { seed: 1, length: 1000 };
    let mut check = |settled: Option<Content>, stored: Option<Content>| {
        match stored {
            Some(stored) => client.put(&path, &stored.bytes()).unwrap().succeeded(),
            None => client.delete(&path).unwrap().succeeded(),
        };
        Ledger::knowing("key", settled).verify(&mut client).is_ok()
    };
    assert!(check(Some(known), Some(known)) && check(None, None), "what is right passes");
    assert!(!check(Some(known), None), "a lost object");
    assert!(!check(None, Some(known)), "a deleted object that is back");
    assert!(!check(Some(known), Some(Content { seed: 2, ..known })), "an older version");
    assert!(!check(Some(known), Some(Content { length: 999, ..known })), "a torn object");
}

/// Lets all writers loose, ends the node after `target` acknowledged operations, and gives how many there were and how
/// many the node refused.
fn write_until_ended(
    node: Node,
    end: impl FnOnce(Node),
    ledgers: &mut [Ledger],
    target: u64,
    random: &mut Random,
) -> (u64, u64) {
    let (acknowledged, refused, ended) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let mut writers = Vec::new();
        for ledger in ledgers.iter_mut() {
            let (mut client, mut random) = (node.client(), Random(random.next()));
            let (acknowledged, refused, ended) = (&acknowledged, &refused, &ended);
            writers.push(scope.spawn(move || {
                loop {
                    match ledger.step(&mut client, &mut random) {
                        Outcome::Acknowledged { .. } => acknowledged.fetch_add(1, Ordering::Relaxed),
                        Outcome::Refused { status, text } => {
                            assert_eq!(status, 503, "a refusal under load says so: {text}");
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                        Outcome::Broken => break,
                    };
                }
                // A connection may break only because the node ends.
                assert!(ended.load(Ordering::SeqCst), "a connection broke while the node ran");
            }));
        }
        // A writer that has ended has failed, and fails the test when the scope ends.
        while acknowledged.load(Ordering::Relaxed) < target && !writers.iter().any(|writer| writer.is_finished()) {
            thread::sleep(Duration::from_micros(200));
        }
        ended.store(true, Ordering::SeqCst);
        end(node);
    });
    (acknowledged.into_inner(), refused.into_inner())
}
