//! Goal: an administrator asks a running node with `anvil admin`, and hears one sentence when that cannot be. Method: the
//! real binary on both ends.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::command::{complaint, told};
use crate::support::node::{self, Node, Options, scratch};
use crate::support::s3::{Client, Credentials};

fn anvil(words: &[&str]) -> Command {
    let mut command = Command::new(node::anvil());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANVIL_")) {
        command.env_remove(name);
    }
    command.arg("admin").args(words);
    command
}

fn ask(node: &Node, data: &Path, words: &[&str]) -> Output {
    anvil(words).arg("--endpoint").arg(node.endpoint()).arg("--data-dir").arg(data).output().unwrap()
}

#[test]
fn disks_are_listed() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let node = Node::start(&data);
    let text = told(ask(&node, &data, &["disk", "list"]));
    let [_, line] = text.lines().collect::<Vec<_>>().try_into().unwrap();
    let path = data.join("disk").canonicalize().unwrap();
    assert!(line.contains(" online ") && line.contains(path.to_str().unwrap()), "{text}");
    let listed: Value = serde_json::from_str(&told(ask(&node, &data, &["disk", "list", "--json"]))).unwrap();
    let disk = &listed[0];
    assert_eq!((disk["state"].as_str(), disk["error"].is_null()), (Some("online"), true), "{listed}");
    assert!(line.starts_with(disk["id"].as_str().unwrap()), "{text}");
    let sentence = complaint(&ask(&node, &data, &["disk", "offline", "/not/a/disk"]), 1);
    assert!(sentence.contains("no disk /not/a/disk") && sentence.contains("NOT_FOUND"), "{sentence}");
    node.stop();
}

#[test]
fn a_disk_goes_out_of_use_and_comes_back() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let paths = ["a", "b"].map(|name| scratch.path().join(name).to_str().unwrap().to_owned());
    let mut arguments: Vec<String> = paths.iter().flat_map(|path| ["--disk".to_owned(), path.clone()]).collect();
    arguments.extend(["--storage-class", "STANDARD=1+1"].map(str::to_owned));
    let node = Node::start_with(&data, &Options { arguments, ..Options::default() });
    let state = |words: &[&str]| -> String {
        let told = told(ask(&node, &data, &[words, &["--json"]].concat()));
        let disk: Value = serde_json::from_str(&told).unwrap();
        disk["state"].as_str().unwrap().to_owned()
    };
    let states = || -> Vec<String> {
        let listed: Value = serde_json::from_str(&told(ask(&node, &data, &["disk", "list", "--json"]))).unwrap();
        listed.as_array().unwrap().iter().map(|disk| disk["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (state(&["disk", "offline", &paths[1]]), states()),
        ("offline".to_owned(), vec!["online".into(), "offline".into()])
    );
    assert_eq!(state(&["disk", "offline", &paths[1]]), "offline", "asked twice, it is as it was");
    let sentence = complaint(&ask(&node, &data, &["disk", "offline", &paths[0]]), 1);
    assert!(sentence.contains("1+1") && sentence.contains("FAILED_PRECONDITION"), "{sentence}");
    assert_eq!(
        (state(&["disk", "online", &paths[1]]), states()),
        ("online".to_owned(), vec!["online".into(), "online".into()])
    );
    let mut client = node.client();
    client.put("/bucket", &[]).unwrap().succeeded();
    for number in 0..20 {
        client.put(&format!("/bucket/{number}"), &[7; 100_000]).unwrap().succeeded();
    }
    // The only disk of a node cannot go.
    node.stop();
    let node = Node::start(&scratch.path().join("single"));
    let disk = scratch.path().join("single/disk");
    let refused = ask(&node, &scratch.path().join("single"), &["disk", "offline", disk.to_str().unwrap()]);
    assert!(complaint(&refused, 1).contains("profile 1+0"));
    node.stop();
}

#[test]
fn a_bucket_gets_another_storage_class() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let arguments = ["--storage-class", "COLD=1+0"].map(str::to_owned).to_vec();
    let node = Node::start_with(&data, &Options { arguments, ..Options::default() });
    let mut client = node.client();
    client.put("/bucket", &[]).unwrap().succeeded();
    let classes = told(ask(&node, &data, &["storage-class", "list", "--json"]));
    let classes: Value = serde_json::from_str(&classes).unwrap();
    assert_eq!((&classes[1]["name"], &classes[1]["profile"]), (&"COLD".into(), &"1+0".into()), "{classes}");
    let said = told(ask(&node, &data, &["bucket", "update", "bucket", "--storage-class", "COLD"]));
    assert_eq!(said, "bucket bucket: new objects have the storage class COLD\n");
    client.put("/bucket/key", b"x").unwrap().succeeded();
    let answer = client.get("/bucket/key").unwrap().succeeded();
    assert_eq!(answer.head.header("x-amz-storage-class"), Some("COLD"));
    // Whoever's the bucket is; the node's own is nobody's.
    told(ask(&node, &data, &["tenant", "create", "acme"]));
    let app = told(ask(&node, &data, &["app", "create", "theirs", "--tenant-name", "acme", "--output", "json"]));
    let app: Value = serde_json::from_str(&app).unwrap();
    told(ask(&node, &data, &["policy", "grant", "--app-name", "theirs", "--action", "*", "--resource", "*"]));
    let text = |name: &str| app[name].as_str().unwrap().to_owned();
    let credentials = Credentials { access_key: text("client_id"), secret_key: text("client_secret") };
    let mut theirs = Client::new(node.address, credentials);
    theirs.put("/theirs", &[]).unwrap().succeeded();
    told(ask(&node, &data, &["bucket", "update", "theirs", "--storage-class", "COLD"]));
    theirs.put("/theirs/key", b"x").unwrap().succeeded();
    assert_eq!(theirs.get("/theirs/key").unwrap().succeeded().head.header("x-amz-storage-class"), Some("COLD"));
    let own = complaint(&ask(&node, &data, &["bucket", "update", "anvil-system", "--storage-class", "COLD"]), 1);
    assert!(own.contains("NOT_FOUND"), "{own}");
    let sentence = complaint(&ask(&node, &data, &["bucket", "update", "bucket", "--storage-class", "GLACIER"]), 1);
    assert!(sentence.contains("no storage class GLACIER; it has STANDARD, COLD"), "{sentence}");
    node.stop();
}

#[test]
fn what_is_wrong_is_one_sentence_without_the_secret() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let node = Node::start(&data);
    let list = || {
        let mut command = anvil(&["disk", "list"]);
        command.current_dir(scratch.path());
        command
    };
    let sentence = complaint(&list().arg("--endpoint").arg(node.endpoint()).output().unwrap(), 2);
    assert!(sentence.contains("no credentials in anvil-data"), "{sentence}");
    let sentence =
        complaint(&list().args(["--data-dir"]).arg(&data).args(["--endpoint", "node:1"]).output().unwrap(), 2);
    assert!(sentence.contains("\"node:1\" is no endpoint"), "{sentence}");
    let nobody = list().arg("--data-dir").arg(&data).args(["--endpoint", "http://127.0.0.1:1"]).output().unwrap();
    assert!(complaint(&nobody, 1).contains("cannot reach a node at http://127.0.0.1:1"));
    let mut stranger = list();
    stranger.env("ANVIL_ENDPOINT", node.endpoint()).env("ANVIL_DEV_ACCESS_KEY", &node.credentials.access_key);
    let stranger = stranger.env("ANVIL_DEV_SECRET_KEY", "not-this-nodes-secret").output().unwrap();
    let sentence = complaint(&stranger, 1);
    assert!(sentence.contains("UNAUTHENTICATED") && !sentence.contains("not-this-nodes-secret"), "{sentence}");
    let mut known = list();
    known.env("ANVIL_ENDPOINT", node.endpoint()).env("ANVIL_DEV_ACCESS_KEY", &node.credentials.access_key);
    told(known.env("ANVIL_DEV_SECRET_KEY", &node.credentials.secret_key).output().unwrap());
    let secret = node.credentials.secret_key.clone();
    let (_, log) = node.terminate();
    assert!(log.contains("TOKEN") || log.contains("ListDisks"), "a refused call is in the log: {log}");
    assert!(!log.contains(&secret) && !log.contains("Bearer"), "{log}");
}
