//! A node with four disks and the profile 2+2, and the ways to look at it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::node::{self, Node, Options, scratch, start_to_fail};

/// Where a node lives.
pub(crate) struct Place {
    scratch: tempfile::TempDir,
    pub(crate) data: PathBuf,
    pub(crate) disks: Vec<PathBuf>,
    encrypts: bool,
}

impl Place {
    pub(crate) fn new() -> Self {
        let scratch = scratch();
        let disks = (0..4).map(|number| scratch.path().join(format!("disk-{number}"))).collect();
        Self { data: scratch.path().join("data"), disks, encrypts: false, scratch }
    }

    /// The node encrypts what it stores: a disk that joins must get the keys before anything else.
    pub(crate) fn encrypting() -> Self {
        Self { encrypts: true, ..Self::new() }
    }

    /// A path beside the disks.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(crate) fn options(&self) -> Options {
        let disks = self.disks.iter().flat_map(|disk| ["--disk".to_owned(), format!("{}:4GiB", disk.display())]);
        let class = ["--storage-class".to_owned(), "STANDARD=2+2".to_owned()];
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let encryption = [variable("ANVIL_ENCRYPT_AT_REST", "true"), variable("ANVIL_SECRET_ENCRYPTION_KEY", SECRET)];
        let environment = if self.encrypts { encryption.to_vec() } else { Vec::new() };
        Options { arguments: disks.chain(class).collect(), environment, ..Options::default() }
    }

    pub(crate) fn start(&self) -> Node {
        Node::start_with(&self.data, &self.options())
    }

    pub(crate) fn start_with(&self, arguments: &[&str]) -> Node {
        let mut options = self.options();
        options.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        Node::start_with(&self.data, &options)
    }

    pub(crate) fn refused(&self) -> String {
        start_to_fail(&self.data, &self.options())
    }

    /// The disks that `/metrics` calls missing, by their numbers.
    pub(crate) fn missing(&self, node: &Node) -> Vec<usize> {
        let page = node.metrics();
        let missing = |disk: &Path| page.contains(&format!("anvil_disk_missing{{disk=\"{}\"}} 1.0", disk.display()));
        (0..self.disks.len()).filter(|&number| missing(&self.disks[number])).collect()
    }

    /// `anvil admin` with these words.
    pub(crate) fn admin(&self, node: &Node, words: &[&str]) -> Output {
        let mut command = Command::new(node::anvil());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANVIL_")) {
            command.env_remove(name);
        }
        command.arg("admin").args(words).arg("--endpoint").arg(node.endpoint()).arg("--data-dir").arg(&self.data);
        command.output().expect("the binary can be started")
    }

    /// What it answers in JSON.
    #[track_caller]
    pub(crate) fn told(&self, node: &Node, words: &[&str]) -> Value {
        let output = self.admin(node, &[words, &["--json"]].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("it is JSON")
    }

    /// The sentence with which it is refused.
    #[track_caller]
    pub(crate) fn complaint(&self, node: &Node, words: &[&str]) -> String {
        let output = self.admin(node, words);
        let sentence = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {sentence}");
        assert!(sentence.trim_end().lines().count() == 1 && sentence.contains("FAILED_PRECONDITION"), "{sentence}");
        sentence
    }

    /// Path (or id, where there is none) and state of all disks.
    pub(crate) fn states(&self, node: &Node) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let state = |disk: &Value| {
            let path = text(&disk["path"]);
            (if path.is_empty() { text(&disk["id"]) } else { path }, text(&disk["state"]))
        };
        self.told(node, &["disk", "list"]).as_array().expect("a list").iter().map(state).collect()
    }

    /// Waits until every disk is online and nothing is to be made again.
    pub(crate) fn until_whole(&self, node: &Node) {
        let begun = Instant::now();
        while self.states(node).iter().any(|(_, state)| state != "online")
            || self.told(node, &["repair", "status"])["remaining"] != serde_json::json!([])
        {
            assert!(begun.elapsed() < WHOLE_TIME_MAX, "{:?}", self.states(node));
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until this holds.
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < WHOLE_TIME_MAX, "still not: {what}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// As text for a command line.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("the tests' paths are UTF-8")
}

const SECRET: &str = "2026:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const WHOLE_TIME_MAX: Duration = Duration::from_secs(180);
