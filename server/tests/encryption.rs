//! Goal: nobody reads an object from the disks alone, and nobody with the secret loses one. Method: the binary with four
//! disks and the profile 2+2, killed, started with the secret, without it and with others, with any two disks and the data
//! directory lost; the disks' files are searched for what was stored.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use support::content::Content;
use support::node::{self, Node, Options, scratch, start_to_fail};

const FIRST: &str = "2026:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const SECOND: &str = "2027:ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

/// Packs of copies, single windows, and many; the last one in parts.
const LENGTHS: [u64; 6] = [1, 4_000, 60_000, 300_001, 3_000_000, 11_000_000];

struct Place {
    _scratch: tempfile::TempDir,
    data: PathBuf,
    disks: Vec<PathBuf>,
}

impl Place {
    fn new() -> Self {
        let scratch = scratch();
        let disks = (0..4).map(|number| scratch.path().join(format!("disk-{number}"))).collect();
        Self { data: scratch.path().join("data"), disks, _scratch: scratch }
    }

    fn options(&self, secret: Option<&str>, encrypt: bool) -> Options {
        let disks = self.disks.iter().flat_map(|disk| ["--disk".to_owned(), format!("{}:4GiB", disk.display())]);
        let class = ["--storage-class".to_owned(), "STANDARD=2+2".to_owned()];
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let secret = secret.map(|secret| variable("ANVIL_SECRET_ENCRYPTION_KEY", secret));
        let encrypt = encrypt.then(|| variable("ANVIL_ENCRYPT_AT_REST", "true"));
        let environment = secret.into_iter().chain(encrypt).collect();
        Options { arguments: disks.chain(class).collect(), environment, ..Options::default() }
    }

    fn start(&self, secret: Option<&str>, encrypt: bool) -> Node {
        Node::start_with(&self.data, &self.options(secret, encrypt))
    }

    /// `anvil admin metadata rebuild --salvage` with this secret in its environment.
    fn salvage(&self, secret: Option<&str>) -> Output {
        let mut command = Command::new(node::anvil());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANVIL_")) {
            command.env_remove(name);
        }
        command.envs(secret.map(|secret| ("ANVIL_SECRET_ENCRYPTION_KEY", secret)));
        command.args(["admin", "metadata", "rebuild", "--salvage", "--discard-log", "--data-dir"]).arg(&self.data);
        for disk in &self.disks {
            command.arg("--disk").arg(disk);
        }
        command.output().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.data.with_extension("log")).unwrap()
    }

    /// Which of these words stand anywhere on the disks, where words of payload do: at multiples of 8.
    fn found(&self, needles: &[[u8; 8]]) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        for disk in &self.disks {
            let image = fs::read(disk.join("anvil.disk")).unwrap();
            for unit in image.chunks(4096).filter(|unit| **unit != [0; 4096]) {
                for word in unit.as_chunks().0 {
                    found.extend(needles.iter().position(|needle| needle == word));
                }
            }
        }
        found
    }
}

fn content(group: u64, length: u64) -> Content {
    Content { seed: group << 32 | length, length }
}

fn path(group: u64, length: u64) -> String {
    format!("/bucket/{group}-{length}")
}

fn write(node: &Node, group: u64) {
    let mut client = node.client();
    client.put("/bucket", b"").unwrap();
    for length in LENGTHS {
        let content = content(group, length);
        if length > 10_000_000 {
            client.put_in_parts(&path(group, length), content, 5 << 20).unwrap().succeeded();
        } else {
            client.put(&path(group, length), &content.bytes()).unwrap().succeeded();
        }
    }
}

fn verify(node: &Node, group: u64) {
    verify_lengths(node, group, &LENGTHS);
}

fn verify_lengths(node: &Node, group: u64, lengths: &[u64]) {
    let mut client = node.client();
    for &length in lengths {
        let expected = content(group, length).bytes();
        let answer = client.get(&path(group, length)).unwrap().succeeded();
        assert!(answer.body == expected, "{length} bytes of group {group}");
        for (start, end) in [(0, 1), (65_535, 65_537), (length / 2, length / 2 + 100_000), (length - 1, length)] {
            let (start, end) = (start.min(length - 1), end.min(length));
            let range = format!("bytes={start}-{}", end - 1);
            let answer = client
                .request("GET", &path(group, length), &[], &[("range", &range)], support::s3::Body::Signed(b""))
                .unwrap()
                .succeeded();
            let part = &expected[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()];
            assert!(answer.body == part, "{range} of {length} bytes of group {group}");
        }
    }
}

/// A word from the first window of each object that is long enough.
fn needles(group: u64) -> Vec<[u8; 8]> {
    let long_enough = LENGTHS.into_iter().filter(|&length| length >= 4_000);
    long_enough.map(|length| content(group, length).bytes()[1_000..1_008].try_into().unwrap()).collect()
}

#[test]
fn disks_and_secret_are_needed_and_enough() {
    let place = Place::new();
    let node = place.start(None, false);
    write(&node, 1);
    node.stop();
    assert_eq!(place.found(&needles(1)).len(), needles(1).len(), "the search finds what is plain");

    let node = place.start(Some(FIRST), true);
    write(&node, 2);
    verify(&node, 1);
    verify(&node, 2);
    let words = fs::read_to_string(format!("/proc/{}/cmdline", node.pid())).unwrap();
    assert!(!words.contains(&FIRST[5..21]), "the secret is among the arguments");
    node.kill();
    assert_eq!(place.found(&needles(2)), BTreeSet::new());

    // Nobody needs the secret to verify the disks.
    let verified = Command::new(node::anvil()).args(["store", "verify"]).args(&place.disks).output();
    let verified = verified.unwrap();
    let said = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success() && said.contains("records read, 0 damaged"), "{said}");

    let node = place.start(None, false);
    verify(&node, 1);
    let mut client = node.client();
    for length in LENGTHS {
        let refused = client.get(&path(2, length)).unwrap();
        assert_eq!(refused.status(), 503);
        assert!(refused.text().contains("<Code>ServiceUnavailable</Code>"), "{}", refused.text());
        assert!(refused.text().contains("without the key that opens it"), "{}", refused.text());
    }
    assert_eq!(client.list("bucket").unwrap().len(), 2 * LENGTHS.len());
    client.put("/bucket/plain", b"written without the secret").unwrap().succeeded();
    node.stop();
    assert!(place.log().contains("cannot be read without ANVIL_SECRET_ENCRYPTION_KEY"));

    let refusal = start_to_fail(&place.data, &place.options(Some(SECOND), false));
    assert!(
        refusal.contains("ANVIL_SECRET_ENCRYPTION_KEY is not what this node's disks were encrypted with"),
        "{refusal}"
    );
    assert!(refusal.contains("called \"2026\""), "{refusal}");

    // The secret is changed; then the old one is not needed any more.
    let node = place.start(Some(&format!("{SECOND},{FIRST}")), false);
    verify(&node, 2);
    node.stop();
    let node = place.start(Some(SECOND), true);
    verify(&node, 2);
    node.kill();

    // Two disks and the data directory are lost.
    fs::remove_dir_all(&place.disks[0]).unwrap();
    fs::remove_dir_all(&place.disks[3]).unwrap();
    fs::remove_dir_all(&place.data).unwrap();
    let node = place.start(Some(SECOND), true);
    verify(&node, 1);
    verify(&node, 2);
    write(&node, 3);
    verify(&node, 3);
    node.stop();

    let log = place.log();
    for secret in [FIRST, SECOND] {
        assert!(!log.contains(&secret[5..21]), "the log shows a secret");
    }
}

/// What cannot be decrypted would be left out, and then swept away.
#[test]
fn a_salvage_wants_the_secret() {
    let place = Place::new();
    let node = place.start(Some(FIRST), true);
    write(&node, 1);
    node.stop();
    fs::remove_dir_all(&place.data).unwrap();
    let refused = |secret| {
        let output = place.salvage(secret);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let sentence = refused(None);
    assert!(sentence.contains("encrypted: set ANVIL_SECRET_ENCRYPTION_KEY"), "{sentence}");
    let sentence = refused(Some(SECOND));
    assert!(sentence.contains("is not the right one") && sentence.contains("called \"2026\""), "{sentence}");
    assert!(!sentence.contains(&SECOND[5..21]), "{sentence}");
    let output = place.salvage(Some(FIRST));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let node = place.start(Some(FIRST), true);
    // The last one was put in parts, which are uploads under way now.
    verify_lengths(&node, 1, &LENGTHS[..LENGTHS.len() - 1]);
    node.stop();
}
