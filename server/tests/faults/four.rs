//! A node with four disks and the profile 2+2, on file systems of their own, and what is known of its objects.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::loop_disk::{FileSystem, LoopDisk};
use crate::support::content::Content;
use crate::support::node::{self, Node, Options, scratch};
use crate::support::s3::Client;

const DISK_BYTES: u64 = 512 << 20;
const WAIT_MAX: Duration = Duration::from_secs(90);
/// Empty, copies, one window and several.
const LENGTHS: [u64; 8] = [0, 100, 5_000, 12_000, 60_000, 300_000, 1 << 20, 2_500_000];
/// A load writes so many objects quickly; two disks of the four have room for twice as many.
const WRITTEN_FAST_MAX: u64 = 300;
/// Between two writes of a load,
const PAUSE: Duration = Duration::from_millis(10);
/// and after many.
const PAUSE_LONG: Duration = Duration::from_millis(500);

pub(crate) struct Four {
    pub(crate) disks: Vec<LoopDisk>,
    /// Below which they are mounted: removed when they no longer are.
    scratch: tempfile::TempDir,
}

/// What `anvil admin disk list` says of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) path: String,
    pub(crate) state: String,
    pub(crate) error: Option<String>,
}

impl Four {
    pub(crate) fn make(file_system: FileSystem) -> Option<Self> {
        let scratch = scratch();
        let disks = (0..4).map(|number| {
            let directory = scratch.path().join(number.to_string());
            std::fs::create_dir(&directory).unwrap();
            LoopDisk::make_with(&directory, DISK_BYTES, file_system)
        });
        let disks = disks.collect::<Option<_>>()?;
        Some(Self { disks, scratch })
    }

    /// The directory that the node uses on a disk.
    pub(crate) fn path(&self, disk: usize) -> PathBuf {
        self.disks[disk].path().join("disk")
    }

    /// The file in it.
    pub(crate) fn file(&self, disk: usize) -> PathBuf {
        self.path(disk).join("anvil.disk")
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// What the node has said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data().with_extension("log")).unwrap()
    }

    pub(crate) fn start(&self, more: &[&str]) -> Node {
        let disks = (0..4).flat_map(|disk| ["--disk".to_owned(), self.path(disk).display().to_string()]);
        let own = ["--storage-class", "STANDARD=2+2", "--cores", "2"].into_iter().chain(more.iter().copied());
        let arguments = disks.chain(own.map(str::to_owned)).collect();
        Node::start_with(&self.data(), &Options { arguments, ..Options::default() })
    }

    /// The disks by path, as an administrator is told of them.
    pub(crate) fn told(&self, node: &Node) -> Vec<Told> {
        let mut command = Command::new(node::anvil());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANVIL_")) {
            command.env_remove(name);
        }
        command
            .args(["admin", "disk", "list", "--json", "--endpoint", &node.endpoint(), "--data-dir"])
            .arg(self.data());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let told = |disk: &Value| Told {
            path: text(&disk["path"]).unwrap(),
            state: text(&disk["state"]).unwrap(),
            error: text(&disk["error"]),
        };
        listed.as_array().unwrap().iter().map(told).collect()
    }

    pub(crate) fn told_of(&self, node: &Node, disk: usize) -> Told {
        let path = self.path(disk).display().to_string();
        self.told(node).into_iter().find(|told| told.path == path).expect("all disks are listed")
    }

    /// Waits until the node says of a disk that it takes no writes; what it says.
    pub(crate) fn wait_until_offline(&self, node: &Node, disk: usize) -> Told {
        let begun = Instant::now();
        loop {
            let told = self.told_of(node, disk);
            if told.state == "offline" {
                return told;
            }
            assert!(begun.elapsed() < WAIT_MAX, "the node does not notice: {told:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Objects that are there.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    known: Mutex<Vec<(String, Content)>>,
    next: AtomicU64,
}

impl Objects {
    /// A bucket with objects of all kinds.
    pub(crate) fn put_all(node: &Node) -> Self {
        let objects = Self::default();
        let mut client = node.client();
        client.put("/bucket", b"").unwrap().succeeded();
        for _ in 0..4 * LENGTHS.len() {
            assert_eq!(objects.put(&mut client), 200);
        }
        objects
    }

    /// Writes another object; the status of the answer.
    pub(crate) fn put(&self, client: &mut Client) -> u16 {
        let turn = usize::try_from(self.next.load(Ordering::Relaxed)).expect("small");
        self.put_of(client, LENGTHS[turn % LENGTHS.len()])
    }

    /// The same, of this length.
    pub(crate) fn put_of(&self, client: &mut Client, length: u64) -> u16 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (path, content) = (format!("/bucket/object-{number:05}"), Content { seed: number + 1, length });
        let answer = client.put(&path, &content.bytes()).unwrap();
        let status = answer.status();
        if status == 200 {
            self.known.lock().unwrap().push((path, content));
        }
        status
    }

    pub(crate) fn known(&self) -> Vec<(String, Content)> {
        self.known.lock().unwrap().clone()
    }

    /// Reads every byte of every object.
    #[track_caller]
    pub(crate) fn check(&self, node: &Node, when: &str) {
        let mut client = node.client();
        for (path, content) in self.known() {
            check(&mut client, &path, content, when);
        }
    }
}

#[track_caller]
pub(crate) fn check(client: &mut Client, path: &str, content: Content, when: &str) {
    let answer = client.get(path).unwrap_or_else(|error| panic!("{when}: {path} of {} bytes: {error}", content.length));
    assert_eq!(answer.status(), 200, "{when}: {path} of {} bytes: {}", content.length, answer.text());
    assert!(answer.body == content.bytes(), "{when}: {path} of {} bytes came back changed", content.length);
}

/// Readers who accept nothing but every byte of every object, and a writer, until the work is done.
pub(crate) struct Load<'a> {
    pub(crate) objects: &'a Objects,
    read: AtomicU64,
    written: AtomicU64,
    refused: AtomicU64,
    ended: AtomicBool,
}

impl<'a> Load<'a> {
    /// Runs `work` under load. Gives how many objects were read, written and refused meanwhile.
    pub(crate) fn during(node: &Node, objects: &'a Objects, work: impl FnOnce(&Self)) -> [u64; 3] {
        let zero = || AtomicU64::new(0);
        let load = Self { objects, read: zero(), written: zero(), refused: zero(), ended: AtomicBool::new(false) };
        thread::scope(|scope| {
            for first in 0..2 {
                let (load, mut client) = (&load, node.client());
                scope.spawn(move || {
                    for turn in (first..).step_by(2) {
                        if load.ended.load(Ordering::Relaxed) {
                            return;
                        }
                        let known = load.objects.known();
                        let (path, content) = &known[turn % known.len()];
                        check(&mut client, path, *content, "under load");
                        load.read.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let (load, mut client) = (&load, node.client());
            scope.spawn(move || {
                while !load.ended.load(Ordering::Relaxed) {
                    match load.objects.put(&mut client) {
                        200 => load.written.fetch_add(1, Ordering::Relaxed),
                        status => {
                            assert!((500..=507).contains(&status), "status {status}");
                            load.refused.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                    // So that the disks do not fill up while others work, however long that takes.
                    let is_much = load.written.load(Ordering::Relaxed) > WRITTEN_FAST_MAX;
                    thread::sleep(if is_much { PAUSE_LONG } else { PAUSE });
                }
            });
            let _end = EndOf(load);
            work(load);
        });
        [load.read.into_inner(), load.written.into_inner(), load.refused.into_inner()]
    }

    /// Waits until so many more objects were read and written.
    pub(crate) fn wait_for(&self, more: u64) {
        let (read, written) = (self.read.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed));
        let begun = Instant::now();
        while self.read.load(Ordering::Relaxed) < read + more || self.written.load(Ordering::Relaxed) < written + more {
            let refused = self.refused.load(Ordering::Relaxed);
            assert!(begun.elapsed() < WAIT_MAX, "reads or writes do not go on; {refused} writes were refused");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Ends the load also when the work fails, which would wait for it for ever otherwise.
struct EndOf<'a, 'b>(&'b Load<'a>);

impl Drop for EndOf<'_, '_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

/// What `/metrics` says of a disk.
pub(crate) fn disk_metric(node: &Node, name: &str, disk: &Path) -> Option<f64> {
    let page = node.metrics();
    let begins = format!("{name}{{disk=\"{}\"}} ", disk.display());
    page.lines().find_map(|line| line.strip_prefix(&begins)?.parse().ok())
}
