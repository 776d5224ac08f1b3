//! Goal: disks are replaced and taken in while clients write and read, and what they held is made again so that as many
//! others may be lost as before, with and without encryption. Method: directories are removed under the running node,
//! others are put into their place by `anvil admin`, with and without SIGKILL on the way; then the disks that were there all
//! the time are removed too.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::place::{Place, text};
use crate::support::content::{Content, Random};
use crate::support::ledger::{BUCKET, Ledger, Outcome, ledgers, verify};
use crate::support::node::Node;

const OBJECT_COUNT: u64 = 60;

/// Objects that are only read from then on: small ones, and such of several windows.
fn contents() -> impl Iterator<Item = (String, Content)> {
    let length = |number| if number % 3 == 0 { 3000 + number } else { 100_000 * number };
    (0..OBJECT_COUNT)
        .map(move |number| (format!("/kept/key-{number}"), Content { seed: number, length: length(number) }))
}

fn write(node: &Node) {
    let mut client = node.client();
    client.put("/kept", b"").unwrap().succeeded();
    for (path, content) in contents() {
        client.put(&path, &content.bytes()).unwrap().succeeded();
    }
}

#[track_caller]
fn check(node: &Node) {
    let mut client = node.client();
    for (path, content) in contents() {
        let body = client.get(&path).unwrap().succeeded().body;
        assert!(body == content.bytes(), "{path}: {} bytes of {}", body.len(), content.length);
    }
}

/// Some steps of one client; what breaks is the disks' affair.
fn step(ledger: &mut Ledger, node: &Node, random: &mut Random) {
    let mut client = node.client();
    if let Outcome::Refused { status, text } = ledger.step(&mut client, random) {
        assert!(matches!(status, 404 | 500..=507), "status {status}: {text}");
    }
}

/// Takes disks away for good: also the file that the node still has open.
fn remove(place: &Place, disks: &[usize]) {
    for disk in disks.iter().map(|&disk| &place.disks[disk]) {
        fs::File::options().write(true).open(disk.join("anvil.disk")).unwrap().set_len(0).unwrap();
        fs::remove_dir_all(disk).unwrap();
    }
}

/// The disk is known to the node as failed: it notices with the next write.
fn until_failed(place: &Place, node: &Node, disks: &[usize]) {
    let mut client = node.client();
    place.until("the removed disks are out of use", || {
        // May be refused while the disks go.
        let _ = client.put("/kept/probe", &[7; 500_000]);
        let states = place.states(node);
        disks.iter().all(|&disk| states.contains(&(text(&place.disks[disk]).to_owned(), "offline".to_owned())))
    });
}

#[test]
fn two_disks_are_replaced_while_clients_write_and_read() {
    let mut place = Place::encrypting();
    let node = place.start();
    write(&node);
    node.client().put(&format!("/{BUCKET}"), b"").unwrap().succeeded();
    let mut ledgers = ledgers(2);
    let done = AtomicBool::new(false);
    let new = [place.path("new-0"), place.path("new-1")];
    thread::scope(|scope| {
        for (ledger, seed) in ledgers.iter_mut().zip(0..) {
            let (node, done) = (&node, &done);
            scope.spawn(move || {
                let mut random = Random(seed);
                while !done.load(Ordering::SeqCst) {
                    step(ledger, node, &mut random);
                }
            });
        }
        let finish = Finish(&done);
        remove(&place, &[0, 1]);
        until_failed(&place, &node, &[0, 1]);
        check(&node);
        for (disk, new) in [0, 1].into_iter().zip(&new) {
            let joined = place.told(&node, &["disk", "replace", text(&place.disks[disk]), "--path", text(new)]);
            assert_eq!((joined["state"].as_str(), joined["path"].as_str()), (Some("online"), Some(text(new))));
        }
        check(&node);
        place.until_whole(&node);
        drop(finish);
    });
    verify(&node, &mut ledgers);
    let page = node.metrics();
    for new in &new {
        assert!(page.contains(&format!("anvil_disk_failed{{disk=\"{}\"}} 0.0", new.display())), "{page}");
        assert!(page.contains(&format!("anvil_disk_written_bytes_total{{disk=\"{}\"}}", new.display())), "{page}");
    }
    let failed = page.lines().find(|line| line.starts_with("anvil_disk_failed{") && !line.ends_with(" 0.0"));
    assert_eq!(failed, None, "what is forgotten fails no more");
    remove(&place, &[2, 3]);
    until_failed(&place, &node, &[2, 3]);
    check(&node);
    // The old paths may be named or not: nothing is made there.
    node.stop();
    place.disks.splice(0..2, new);
    let node = place.start();
    assert_eq!(place.missing(&node), [2, 3]);
    check(&node);
    node.stop();
}

/// Ends the clients, also when an assertion fails.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_refill_goes_on_after_a_crash() {
    let mut place = Place::new();
    let node = place.start_with(&["--repair-rate", "2MiB"]);
    write(&node);
    remove(&place, &[0, 1]);
    until_failed(&place, &node, &[0, 1]);
    let new = place.path("new-0");
    // At the path of the old one, and at another.
    place.told(&node, &["disk", "replace", text(&place.disks[1])]);
    place.told(&node, &["disk", "replace", text(&place.disks[0]), "--path", text(&new)]);
    place.until("the refill has begun", || {
        let status = place.told(&node, &["repair", "status"]);
        let left = status["remaining"].as_array().unwrap().iter().any(|of| of["shards"].as_u64() > Some(0));
        left && status["repaired_shards"].as_u64() > Some(3)
    });
    let tasks = place.told(&node, &["task", "list"]);
    let repair = tasks.as_array().unwrap().iter().find(|task| task["kind"] == "repair").expect("it is a task");
    assert_eq!((repair["state"].as_str(), repair["about"].as_str()), (Some("running"), Some("node 1")));
    node.kill();
    place.disks[0] = new;
    let node = place.start();
    let lost = place.states(&node).into_iter().filter(|(_, state)| state == "lost").count();
    assert_eq!(lost, 2, "{:?}", place.states(&node));
    place.until_whole(&node);
    remove(&place, &[2, 3]);
    check(&node);
    node.kill();
    let node = place.start();
    assert_eq!(place.missing(&node), [2, 3]);
    check(&node);
    node.stop();
}

#[test]
fn a_disk_that_was_moved_is_adopted() {
    let mut place = Place::encrypting();
    let node = place.start();
    write(&node);
    node.stop();
    let moved = place.path("moved");
    fs::rename(&place.disks[3], &moved).unwrap();
    let node = place.start();
    assert_eq!(place.missing(&node), [3]);
    node.client().put("/kept/while-away", &[5; 300_000]).unwrap().succeeded();
    let joined = place.told(&node, &["disk", "adopt", text(&moved)]);
    assert_eq!(joined["state"], "online");
    assert!(place.states(&node).iter().all(|(_, state)| state == "online"), "{:?}", place.states(&node));
    node.client().put("/kept/since", &[6; 300_000]).unwrap().succeeded();
    // Its shards count: with them any two others may go.
    remove(&place, &[0, 1]);
    check(&node);
    node.kill();
    place.disks[3] = moved;
    let node = place.start();
    assert_eq!(place.missing(&node), [0, 1]);
    check(&node);
    assert_eq!(node.client().get("/kept/since").unwrap().succeeded().body, [6; 300_000]);
    node.stop();
}

#[test]
fn what_must_not_join_is_refused_with_a_sentence() {
    let place = Place::new();
    let node = place.start();
    node.client().put("/kept", b"").unwrap().succeeded();
    let path = |name: &str| {
        let path = place.path(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let adopt = |path: &Path| place.complaint(&node, &["disk", "adopt", text(path)]);
    let replace =
        |disk: &Path, path: &Path| place.complaint(&node, &["disk", "replace", text(disk), "--path", text(path)]);
    let online = replace(&place.disks[0], &place.path("anywhere"));
    assert!(online.contains("online"), "{online}");
    assert!(!place.path("anywhere").exists(), "nothing is made for an order that is refused");

    let clone = path("clone");
    fs::copy(place.disks[0].join("anvil.disk"), clone.join("anvil.disk")).unwrap();
    assert!(adopt(&clone).contains("is a copy of it"));
    assert!(adopt(&place.disks[1]).contains("in use"));
    assert!(adopt(&place.path("nowhere")).contains("no disk at"));
    let blank = path("blank");
    fs::File::create(blank.join("anvil.disk")).unwrap().set_len(4 << 20).unwrap();
    assert!(adopt(&blank).contains("blank"));
    let foreign = path("foreign");
    fs::write(foreign.join("anvil.disk"), vec![0x5a; 4 << 20]).unwrap();
    assert!(adopt(&foreign).contains("not Anvil's"));
    let other = Place::new();
    other.start().stop();
    assert!(adopt(&other.disks[0]).contains("another cluster"));

    // A disk that is out of use by order can be given up; what takes its place must be blank.
    place.told(&node, &["disk", "offline", text(&place.disks[0])]);
    assert!(replace(&place.disks[0], &foreign).contains("not Anvil's"));
    assert!(replace(&place.disks[0], &clone).contains("only a blank disk"));
    assert!(replace(&place.disks[0], &place.disks[1]).contains("is the path of disk"));
    let new = place.path("new");
    place.told(&node, &["disk", "replace", text(&place.disks[0]), "--path", text(&new)]);
    place.until_whole(&node);
    assert!(adopt(&clone).contains("was given up"));
    let twice = place.complaint(&node, &["disk", "replace", text(&new)]);
    assert!(twice.contains("online"), "{twice}");
    node.stop();

    // Nor is it taken at a start, where the one in its place is missing.
    let node = place.start();
    let states = place.states(&node);
    assert!(states.contains(&(text(&new).to_owned(), "missing".to_owned())), "{states:?}");
    assert_eq!(states.len(), 4, "{states:?}");
    node.stop();
}
