//! Goal: no acknowledged object is lost and no acknowledged deletion undone by a crash. Method: SIGKILL under load, 20
//! times, with another number of cores at each start; a ledger of what was acknowledged, compared with every byte that is read back after each restart.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use support::content::{Content, Random};
use support::node::{Node, Options, scratch};
use support::s3::Client;

/// Every sixth of them is an orderly stop: 20 kills and 4 stops.
const ROUND_COUNT: u64 = 24;
const WRITER_COUNT: u64 = 8;
/// Keys of each writer; small enough that most operations overwrite or delete.
const KEY_COUNT: u64 = 40;
const BUCKET: &str = "ledger";

#[test]
fn what_was_acknowledged_survives_twenty_kills_under_load() {
    let scratch = scratch();
    let start = |round: u64| Node::start_with(&scratch.path().join("data"), &options(scratch.path(), round));
    let mut random = Random(0x00a1_1ce5);
    let mut ledgers: Vec<Ledger> = (0..WRITER_COUNT).map(Ledger::new).collect();
    let mut node = start(0);
    node.client().put(&format!("/{BUCKET}"), b"").unwrap().succeeded();
    for round in 1..=ROUND_COUNT {
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
    let arguments = ["--disk".into(), disk("disk-1"), "--disk".into(), disk("disk-2"), "--cores".into(), cores];
    Options { arguments: arguments.to_vec(), ..Options::default() }
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
        let mut ledger = Ledger::new(0);
        ledger.keys.insert("key".to_owned(), Known { settled, possible: Vec::new() });
        ledger.verify(&mut client).is_ok()
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
                        Outcome::Acknowledged => acknowledged.fetch_add(1, Ordering::Relaxed),
                        Outcome::Refused => refused.fetch_add(1, Ordering::Relaxed),
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

fn verify(node: &Node, ledgers: &mut [Ledger]) {
    thread::scope(|scope| {
        for ledger in ledgers.iter_mut() {
            let mut client = node.client();
            scope.spawn(move || ledger.verify(&mut client).unwrap());
        }
    });
    let expected: Vec<String> = {
        let mut keys: Vec<String> = ledgers.iter().flat_map(Ledger::present).collect();
        keys.sort();
        keys
    };
    let listed: Vec<String> = node.client().list(BUCKET).unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(listed, expected, "the listing and the objects agree");
}

/// What one writer knows of its keys. No other writer touches them.
#[derive(Debug)]
struct Ledger {
    writer: u64,
    keys: BTreeMap<String, Known>,
    /// Makes every content different.
    sequence: u64,
}

/// What is known of one key; `None` means that nothing is there.
#[derive(Debug, Default)]
struct Known {
    /// The last state that was acknowledged or read.
    settled: Option<Content>,
    /// States that later writes without an answer may have made.
    possible: Vec<Option<Content>>,
}

enum Outcome {
    Acknowledged,
    Refused,
    Broken,
}

impl Ledger {
    fn new(writer: u64) -> Self {
        Self { writer, keys: BTreeMap::new(), sequence: 0 }
    }

    /// One random operation on one random key.
    fn step(&mut self, client: &mut Client, random: &mut Random) -> Outcome {
        let key = format!("writer-{}/key-{:03}", self.writer, random.below(KEY_COUNT));
        let path = format!("/{BUCKET}/{key}");
        self.sequence += 1;
        let content = Content { seed: self.writer << 32 | self.sequence, length: length(random) };
        let (written, answer) = match random.below(20) {
            0..5 => (None, client.delete(&path)),
            5 => {
                let content = Content { length: (5 << 20) + random.below(1 << 20), ..content };
                (Some(content), client.put_in_parts(&path, content, 5 << 20))
            }
            _ => (Some(content), client.put(&path, &content.bytes())),
        };
        let known = self.keys.entry(key).or_default();
        match answer {
            Ok(answer) if matches!(answer.status(), 200 | 204) => {
                *known = Known { settled: written, possible: Vec::new() };
                Outcome::Acknowledged
            }
            Ok(answer) => {
                assert_eq!(answer.status(), 503, "a refusal under load says so: {}", answer.text());
                known.possible.push(written);
                Outcome::Refused
            }
            Err(_) => {
                known.possible.push(written);
                Outcome::Broken
            }
        }
    }

    /// Reads every key back. What is found is settled from now on: an unknown write must not happen later.
    fn verify(&mut self, client: &mut Client) -> Result<(), String> {
        for (key, known) in &mut self.keys {
            let answer = client.get(&format!("/{BUCKET}/{key}")).unwrap();
            assert!(matches!(answer.status(), 200 | 404), "{key}: status {}: {}", answer.status(), answer.text());
            let is = |state: &Option<Content>| match state {
                Some(content) => answer.status() == 200 && answer.body == content.bytes(),
                None => answer.status() == 404,
            };
            let states = [known.settled].into_iter().chain(known.possible.drain(..));
            let shown = if answer.status() == 200 { format!("{} bytes", answer.body.len()) } else { "nothing".into() };
            let found = states.into_iter().find(is);
            known.settled = found.ok_or_else(|| format!("{key}: {shown} found, known was {:?}", known.settled))?;
        }
        Ok(())
    }

    fn present(&self) -> impl Iterator<Item = String> {
        self.keys.iter().filter(|(_, known)| known.settled.is_some()).map(|(key, _)| key.clone())
    }
}

/// Most objects are small, some have several windows.
fn length(random: &mut Random) -> u64 {
    match random.below(10) {
        0 => 0,
        1..6 => random.below(64 << 10),
        6..9 => random.below(1 << 20),
        _ => random.below(4 << 20),
    }
}
