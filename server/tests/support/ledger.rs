//! What writers were told, compared with what can be read: nothing acknowledged is lost, nothing deleted comes back.

use std::collections::BTreeMap;
use std::thread;

use super::content::{Content, Random};
use super::node::Node;
use super::s3::Client;

/// The bucket that the writers share.
pub const BUCKET: &str = "ledger";
/// Keys of each writer; small enough that most operations overwrite or delete.
const KEY_COUNT: u64 = 40;

/// One ledger for each writer.
pub fn ledgers(writer_count: u64) -> Vec<Ledger> {
    (0..writer_count).map(Ledger::new).collect()
}

/// Reads everything back, key by key and as a listing.
pub fn verify(node: &Node, ledgers: &mut [Ledger]) {
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
pub struct Ledger {
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

/// What became of one operation.
#[derive(Debug)]
pub enum Outcome {
    /// `changed` is false for the deletion of what may not have been there.
    Acknowledged {
        changed: bool,
    },
    Refused {
        status: u16,
        text: String,
    },
    /// The connection broke: nobody knows.
    Broken,
}

impl Ledger {
    fn new(writer: u64) -> Self {
        Self { writer, keys: BTreeMap::new(), sequence: 0 }
    }

    /// A ledger of one key.
    pub fn knowing(key: &str, settled: Option<Content>) -> Self {
        let keys = BTreeMap::from([(key.to_owned(), Known { settled, possible: Vec::new() })]);
        Self { keys, ..Self::new(0) }
    }

    /// One random operation on one random key.
    pub fn step(&mut self, client: &mut Client, random: &mut Random) -> Outcome {
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
                let changed = written.is_some() || known.settled.is_some() && known.possible.is_empty();
                *known = Known { settled: written, possible: Vec::new() };
                Outcome::Acknowledged { changed }
            }
            Ok(answer) => {
                let says_when = answer.head.header("retry-after").is_some();
                assert!(answer.status() != 503 || says_when, "503 without when to come back: {}", answer.text());
                known.possible.push(written);
                Outcome::Refused { status: answer.status(), text: answer.text() }
            }
            Err(_) => {
                known.possible.push(written);
                Outcome::Broken
            }
        }
    }

    /// Reads every key back. What is found is settled from now on: an unknown write must not happen later.
    pub fn verify(&mut self, client: &mut Client) -> Result<(), String> {
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
