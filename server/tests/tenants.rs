//! Goal: an app does what was granted to it and nothing else, tenants do not see one another, all of that is there after a
//! crash, and who comes too often waits. Method: `clients/tenants_checks.py`, boto3 and `anvil admin` against the real binary, one node per group.

mod support;

use std::path::Path;

use support::clients::{python, run};
use support::node::{self, Node, Options, scratch};

fn check(node: &Node, data: &Path, group: &str) {
    println!("{}", run(python(node, "tenants_checks.py").arg(node::anvil()).arg(data).arg(group)));
}

fn alone(group: &str) {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let node = Node::start(&data);
    check(&node, &data, group);
    node.stop();
}

#[test]
fn each_action_needs_its_grant() {
    alone("actions");
}

#[test]
fn tenants_do_not_see_one_another() {
    alone("isolation");
}

#[test]
fn a_public_bucket_is_read_by_everybody() {
    alone("public");
}

#[test]
fn what_was_taken_away_is_gone_at_once() {
    alone("secrets");
}

/// Goal: who comes too often is told so, and nobody else is. Method: `clients/limits_checks.py`, plain requests, boto3 and grpcio
/// from several addresses of this host, one of which is a trusted proxy.
fn limits(group: &str, limits: &[(&str, &str)]) {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let environment = limits.iter().chain(&[("ANVIL_TRUSTED_PROXIES", "127.0.0.1")]);
    let environment = environment.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let node = Node::start_with(&data, &Options { environment, ..Options::default() });
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let mut command = python(&node, "limits_checks.py");
    command.arg(protos).arg(node.address.to_string()).arg(node::anvil()).arg(&data).arg(group);
    // grpcio looks for proxies by itself.
    println!("{}", run(command.env("GRPC_ENABLE_FORK_SUPPORT", "0")));
    node.stop();
}

#[test]
fn too_many_strangers_wait() {
    limits("strangers", &[("ANVIL_LIMIT_ANONYMOUS", "20")]);
}

#[test]
fn too_many_logins_wait() {
    limits("logins", &[("ANVIL_LIMIT_LOGINS", "10")]);
}

#[test]
fn an_app_that_sends_too_much_waits() {
    limits("apps", &[("ANVIL_LIMIT_APPS", "60")]);
}

/// Goal: what the data survives, apps and grants survive. Method: SIGKILL, a lost index, a lost disk of two; then a lost
/// data directory, with which the sealing key of the node goes, and the same with a key of the operator's.
#[test]
fn apps_survive_what_their_data_survives() {
    for key in [None, Some("2026:".to_owned() + &"5a".repeat(32))] {
        let scratch = scratch();
        let data = scratch.path().join("data");
        let disks = ["a", "b", "c"].map(|name| scratch.path().join(name));
        let start = |data: &Path| {
            let mut arguments: Vec<String> =
                disks.iter().flat_map(|disk| ["--disk".to_owned(), disk.to_str().unwrap().to_owned()]).collect();
            arguments.extend(["--storage-class", "STANDARD=2+1"].map(str::to_owned));
            let key = key.iter().map(|key| ("ANVIL_SECRET_ENCRYPTION_KEY".to_owned(), key.clone()));
            Node::start_with(data, &Options { arguments, environment: key.collect(), ..Options::default() })
        };
        let node = start(&data);
        check(&node, &data, "prepare");
        node.kill();
        for name in ["metadata.sqlite", "metadata.sqlite-wal", "metadata.sqlite-shm"] {
            let removed = std::fs::remove_file(data.join(name));
            assert!(removed.is_ok() || name != "metadata.sqlite", "{removed:?}");
        }
        std::fs::rename(&disks[1], scratch.path().join("lost")).unwrap();
        let node = start(&data);
        check(&node, &data, "kept");
        node.stop();
        std::fs::rename(scratch.path().join("lost"), &disks[1]).unwrap();

        let other = scratch.path().join("other");
        std::fs::create_dir(&other).unwrap();
        std::fs::copy(data.join("kept-app.json"), other.join("kept-app.json")).unwrap();
        let node = start(&other);
        check(&node, &other, if key.is_some() { "kept" } else { "unknown" });
        node.stop();
    }
}
