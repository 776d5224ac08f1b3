//! A node with four disks and the profile 2+2, and `anvil` with the words of an operator.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

pub(crate) use crate::support::command::{complaint, told};
use crate::support::node::{self, Node, Options, scratch, start_to_fail};

pub(crate) struct Place {
    scratch: tempfile::TempDir,
    pub(crate) data: PathBuf,
    pub(crate) disks: Vec<PathBuf>,
}

/// An extent of the metadata log: on which disk, and where in its file.
pub(crate) struct LogExtent {
    pub(crate) disk: usize,
    at: u64,
    bytes: u64,
}

impl Place {
    pub(crate) fn new() -> Self {
        let scratch = scratch();
        let disks = (0..4).map(|number| scratch.path().join(format!("disk-{number}"))).collect();
        Self { data: scratch.path().join("data"), disks, scratch }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// With the profile 2+2.
    pub(crate) fn start(&self) -> Node {
        Node::start_with(&self.data, &self.options(&["--storage-class", "STANDARD=2+2"]))
    }

    /// With what the number of disks allows.
    pub(crate) fn start_narrow(&self) -> Node {
        Node::start_with(&self.data, &self.options(&[]))
    }

    pub(crate) fn refused(&self) -> String {
        start_to_fail(&self.data, &self.options(&["--storage-class", "STANDARD=2+2"]))
    }

    fn options(&self, more: &[&str]) -> Options {
        let disks = self.disks.iter().flat_map(|disk| ["--disk".to_owned(), format!("{}:1GiB", disk.display())]);
        let more = ["--cores", "2"].iter().chain(more).map(|&word| word.to_owned());
        Options { arguments: disks.chain(more).collect(), ..Options::default() }
    }

    /// `anvil admin metadata` with these words, of this node.
    pub(crate) fn metadata(&self, words: &[&str]) -> Output {
        self.metadata_on(&[], words)
    }

    /// The same, told which disks there are.
    pub(crate) fn metadata_on(&self, disks: &[usize], words: &[&str]) -> Output {
        let mut all = vec!["admin", "metadata", words[0], "--data-dir", self.data.to_str().unwrap()];
        all.extend(&words[1..]);
        all.extend(disks.iter().flat_map(|&disk| ["--disk", self.disks[disk].to_str().unwrap()]));
        anvil(&all)
    }

    /// The extents of the metadata log of the disks that are there.
    pub(crate) fn log_extents(&self) -> Vec<LogExtent> {
        let mut extents = Vec::new();
        for (disk, path) in self.disks.iter().enumerate().filter(|(_, path)| path.exists()) {
            let looked = told(anvil(&["store", "inspect", "--json", path.to_str().unwrap()]));
            let found: Value = serde_json::from_str(&looked).unwrap();
            let found = &found["disks"][0];
            let bytes = found["extent_bytes"].as_u64().unwrap();
            let log = found["extents"].as_array().unwrap().iter().filter(|extent| extent["kind"] == "log");
            extents.extend(log.map(|extent| LogExtent {
                disk,
                at: (1 << 20) + extent["extent"].as_u64().unwrap() * bytes,
                bytes,
            }));
        }
        extents
    }

    /// Overwrites an extent with zeros.
    pub(crate) fn wipe(&self, extent: &LogExtent) {
        let file = File::options().write(true).open(self.disks[extent.disk].join("anvil.disk")).unwrap();
        file.write_all_at(&vec![0; usize::try_from(extent.bytes).unwrap()], extent.at).unwrap();
    }

    pub(crate) fn lose_data_directory(&self) {
        fs::remove_dir_all(&self.data).unwrap();
    }
}

fn anvil(words: &[&str]) -> Output {
    let mut command = Command::new(node::anvil());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANVIL_")) {
        command.env_remove(name);
    }
    command.args(words).output().expect("the binary can be started")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
