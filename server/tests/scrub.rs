//! Goal: what rots on a disk is named, by a node that runs and by a look at the disks of one that does not, and never given
//! to a client. Method: bytes of known objects are changed in the disk's file while the node is stopped.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use support::content::Content;
use support::node::{self, Node, Options, scratch};

const LARGE_BYTES: u64 = 5_000_000;
const SMALL_BYTES: u64 = 30_000;
const LARGE: u64 = 8;
const SMALL: u64 = 8;
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A node's directories.
struct Place {
    _scratch: tempfile::TempDir,
    data: PathBuf,
    disk: PathBuf,
}

impl Place {
    fn new() -> Self {
        let scratch = scratch();
        let data = scratch.path().join("data");
        let disk = scratch.path().join("disk");
        Self { _scratch: scratch, data, disk }
    }

    /// Scrub begins a pass every second, with these arguments.
    fn start(&self, more: &[&str]) -> Node {
        let disk = format!("{}:192MiB", self.disk.display());
        let own = ["--cores", "2", "--disk", &disk, "--scrub-every", "1s"];
        let arguments = own.iter().chain(more).map(|&argument| argument.to_owned()).collect();
        Node::start_with(&self.data, &Options { arguments, ..Options::default() })
    }

    /// Objects of both sizes, on a disk that was closed cleanly.
    fn fill(&self) {
        let node = self.start(&["--scrub-rate", "off"]);
        let mut client = node.client();
        client.put("/bucket", b"").unwrap().succeeded();
        for (path, content) in objects() {
            client.put(&path, &content.bytes()).unwrap().succeeded();
        }
        node.stop();
    }

    /// Changes a byte of an object in the disk's file.
    fn damage(&self, content: Content, offset: u64) {
        let entries = fs::read_dir(&self.disk).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        let [path] = &entries[..] else { panic!("one file holds it all: {entries:?}") };
        let mut wanted = [0; 64];
        assert_eq!(content.fill(offset, &mut wanted), wanted.len());
        let held = fs::read(path).unwrap();
        let (first, rest) = wanted.split_first_chunk::<8>().unwrap();
        // Payloads begin at multiples of eight.
        let at = held.as_chunks::<8>().0.iter().enumerate().find_map(|(index, word)| {
            let behind = (index + 1) * 8;
            (word == first && held[behind..].starts_with(rest)).then_some(behind)
        });
        let at = at.expect("the object's bytes are on the disk");
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&[held[at] ^ 1], at as u64).unwrap();
    }

    /// `anvil store ...` with these words, run to its end.
    fn store(&self, words: &[&str]) -> Output {
        store_command(words).output().expect("the binary can be started")
    }
}

fn store_command(words: &[&str]) -> Command {
    let mut command = Command::new(node::anvil());
    command.arg("store").args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn large(number: u64) -> Content {
    Content { seed: 100 + number, length: LARGE_BYTES }
}

fn small(number: u64) -> Content {
    Content { seed: 200 + number, length: SMALL_BYTES }
}

fn objects() -> impl Iterator<Item = (String, Content)> {
    let large = (0..LARGE).map(|number| (format!("/bucket/large-{number}"), large(number)));
    large.chain((0..SMALL).map(|number| (format!("/bucket/small-{number}"), small(number))))
}

fn metric(node: &Node, name: &str) -> f64 {
    let page = node.metrics();
    let samples = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    let values: Vec<f64> = samples.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(!values.is_empty(), "{name} is not in\n{page}");
    values.iter().sum()
}

/// Waits until so many more passes have begun and ended.
fn wait_for_passes(node: &Node, more: f64) {
    let begun = Instant::now();
    let wanted = metric(node, "anvil_scrub_passes_total") + more;
    while metric(node, "anvil_scrub_passes_total") < wanted {
        assert!(begun.elapsed() < WAIT_MAX, "no pass of scrub ends");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_clean_disk_is_found_whole() {
    let place = Place::new();
    place.fill();
    let node = place.start(&["--scrub-rate", "1GiB"]);
    wait_for_passes(&node, 1.0);
    assert!(metric(&node, "anvil_scrub_bytes_total") > (LARGE * LARGE_BYTES + SMALL * SMALL_BYTES) as f64);
    // Five windows each, and the small ones.
    assert!(metric(&node, "anvil_scrub_records_total") >= (LARGE * 5 + SMALL) as f64);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    for name in ["anvil_scrub_pass_began_seconds", "anvil_scrub_pass_ended_seconds"] {
        let at = metric(&node, name);
        assert!((now - 60.0..=now + 2.0).contains(&at), "{name} is {at}, now is {now}");
    }
    for name in ["anvil_scrub_bad_records_total", "anvil_scrub_unclear_extents_total"] {
        assert!(metric(&node, name) < 0.5, "{name}");
    }
    let (status, log) = node.terminate();
    assert!(status.success() && !log.contains("damaged"), "{log}");
}

#[test]
fn what_rots_is_named_and_never_given_to_a_client() {
    let place = Place::new();
    place.fill();
    place.damage(large(0), 2_500_000);
    place.damage(large(1), 8);
    place.damage(small(3), 1000);
    let node = place.start(&["--scrub-rate", "1GiB"]);
    wait_for_passes(&node, 2.0);
    let (bad, passes) = (metric(&node, "anvil_scrub_bad_records_total"), metric(&node, "anvil_scrub_passes_total"));
    assert!(bad >= 3.0 && bad <= 3.0 * (passes + 1.0), "{bad} bad records in {passes} passes");
    for (path, content) in objects() {
        let right = content.bytes();
        let mut client = node.client();
        match path.as_str() {
            // Damaged at its beginning.
            "/bucket/large-1" | "/bucket/small-3" => {
                let answer = client.get(&path).unwrap();
                assert!(answer.status() >= 500, "{path} is answered with {}", answer.status());
            }
            // Damaged later: it breaks off.
            "/bucket/large-0" => {
                let mut received = Vec::new();
                let body = support::s3::Body::Signed(b"");
                let ended = client.exchange("GET", &path, &[], &[], body, |piece| received.extend_from_slice(piece));
                assert!(ended.is_err() && received.len() <= 2_500_000 && right.starts_with(&received), "{ended:?}");
            }
            _ => assert!(client.get(&path).unwrap().succeeded().body == right, "{path} came back changed"),
        }
    }
    let (status, log) = node.terminate();
    assert!(status.success(), "{log}");
    let mut named: Vec<_> = log.lines().filter(|line| line.contains("a record is damaged")).collect();
    let blob = |line: &str| line.split_once("blob=").map(|(_, rest)| rest.split(' ').next().unwrap().to_owned());
    named.sort_by_key(|line| blob(line));
    named.dedup_by_key(|line| blob(line));
    assert_eq!(named.len(), 3, "{log}");
    for line in named {
        let said = format!("blob {} is damaged on disk", blob(line).unwrap());
        assert!(log.contains(&said), "no read says {said:?}:\n{log}");
    }
}

#[test]
fn without_scrub_nothing_is_read() {
    let place = Place::new();
    place.fill();
    let node = place.start(&["--scrub-rate", "off"]);
    // Figures are published every second: those of after two more writes are not of the very beginning.
    let mut client = node.client();
    for number in 1..=2 {
        let appends = metric(&node, "anvil_store_appends_total");
        client.put(&format!("/bucket/more-{number}"), b"more").unwrap().succeeded();
        let begun = Instant::now();
        while metric(&node, "anvil_store_appends_total") <= appends {
            assert!(begun.elapsed() < WAIT_MAX, "the figures are not published");
            thread::sleep(Duration::from_millis(20));
        }
    }
    assert!(metric(&node, "anvil_scrub_pass_began_seconds") < 0.5);
    node.stop();
}

#[test]
fn a_stopped_node_is_looked_at_and_a_running_one_is_not() {
    let place = Place::new();
    place.fill();
    let (data, disk) = (place.data.to_str().unwrap(), place.disk.to_str().unwrap());
    for path in [data, disk] {
        for (command, last) in [("inspect", "metadata log: batches "), ("verify", "records read, 0 damaged")] {
            let output = place.store(&[command, path]);
            let (table, errors) = (text(&output.stdout), text(&output.stderr));
            assert!(output.status.success() && errors.is_empty(), "{command} {path}: {errors}");
            assert!(table.contains(last) && table.contains("closed cleanly") && table.contains(disk), "{table}");
            let output = place.store(&[command, "--json", path]);
            assert!(output.status.success(), "{}", text(&output.stderr));
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!((&report["complete"], &report["disks"][0]["clean"]), (&true.into(), &true.into()));
            let extents = report["disks"][0]["extents"].as_array().unwrap();
            let records: u64 = extents.iter().map(|extent| extent["records"].as_u64().unwrap()).sum();
            assert!(records >= LARGE * 5 + SMALL, "{records} records");
            assert_eq!(extents.len() as u64, report["disks"][0]["extents_prepared"].as_u64().unwrap());
            if command == "verify" {
                assert_eq!(report["disks"][0]["damaged"].as_array().unwrap().len(), 0);
            }
        }
    }
    let node = place.start(&[]);
    for path in [data, disk] {
        for command in ["inspect", "verify"] {
            assert_refused(&place.store(&[command, path]), 1, "in use");
        }
    }
    node.stop();
    // A look leaves everything as it was.
    let node = place.start(&[]);
    for (path, content) in objects() {
        assert!(node.client().get(&path).unwrap().succeeded().body == content.bytes(), "{path} came back changed");
    }
    node.stop();
}

#[test]
fn damage_is_named_and_makes_verify_fail() {
    let place = Place::new();
    place.fill();
    place.damage(large(2), 3_000_000);
    place.damage(small(0), 0);
    let disk = place.disk.to_str().unwrap();
    let output = place.store(&["verify", disk]);
    assert_eq!(output.status.code(), Some(1));
    let table = text(&output.stdout);
    let named: Vec<_> = table.lines().filter(|line| line.starts_with("  damaged: window ")).collect();
    assert!(named.len() == 2 && named.iter().any(|line| line.contains("window 2 of blob")), "{table}");
    assert_eq!(text(&output.stderr), "anvil: 2 records are damaged\n");
    let output = place.store(&["verify", "--json", disk]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = &report["disks"][0];
    let records = ["damaged", "torn_or_damaged"].iter().flat_map(|list| found[list].as_array().unwrap());
    let windows: Vec<_> = records.map(|record| record["window"].as_u64().unwrap()).collect();
    assert!(windows == [2, 0] || windows == [0, 2], "{report:#}");
}

#[test]
fn what_is_no_disk_is_one_sentence_and_stays_as_it_is() {
    let place = Place::new();
    let empty = place.data.parent().unwrap().join("empty");
    fs::create_dir(&empty).unwrap();
    let file = place.data.parent().unwrap().join("file");
    fs::write(&file, b"not a disk").unwrap();
    for command in ["inspect", "verify"] {
        assert_refused(&place.store(&[command, place.data.to_str().unwrap()]), 2, "there is nothing at");
        assert_refused(&place.store(&[command, empty.to_str().unwrap()]), 1, "there is no disk at");
        assert_refused(&place.store(&[command, file.to_str().unwrap()]), 1, "neither a directory nor a block device");
    }
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    fs::write(empty.join("anvil.disk"), vec![7; 1 << 20]).unwrap();
    assert_refused(&place.store(&["verify", empty.to_str().unwrap()]), 1, "no Anvil disk");
}

#[test]
fn ctrl_c_ends_verify_with_130_and_what_was_read_so_far() {
    let place = Place::new();
    place.fill();
    // A machine in a good mood may be done before the signal comes.
    for _ in 0..20 {
        let child = store_command(&["verify", "--json", place.disk.to_str().unwrap()]).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        wait_for_handler(&child);
        kill(pid, Signal::SIGINT).expect("it is our child");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), None, "it ends by itself");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        if output.status.success() {
            continue;
        }
        assert_eq!(output.status.code(), Some(130));
        assert_eq!(report["complete"], false);
        let (read, all) = (report["disks"][0]["extents"].as_array().unwrap(), &report["disks"][0]["extents_prepared"]);
        assert!((read.len() as u64) < all.as_u64().unwrap(), "{} extents of {all} were read", read.len());
        assert_eq!(text(&output.stderr), "anvil: interrupted: not everything was read\n");
        return;
    }
    panic!("verify never heard of a Ctrl-C");
}

/// Waits until the process handles SIGINT, or has ended.
fn wait_for_handler(child: &Child) {
    let status = Path::new("/proc").join(child.id().to_string()).join("status");
    let begun = Instant::now();
    loop {
        let text = fs::read_to_string(&status).expect("it is not waited for yet");
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("the kernel tells");
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        if caught & 1 << (Signal::SIGINT as u32 - 1) != 0 || text.contains("State:\tZ") {
            return;
        }
        assert!(begun.elapsed() < WAIT_MAX, "verify never handles SIGINT");
        thread::sleep(Duration::from_millis(1));
    }
}

fn assert_refused(output: &Output, code: i32, words: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words) && said.lines().count() == 1 && output.stdout.is_empty(), "{said}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
