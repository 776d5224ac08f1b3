//! Goal: a node that began without a database goes on with one, and nothing of what it had is lost or different. Method: a
//! node with objects, copies, parts under way and apps is moved; the rows are written out before and behind, the objects read.

use std::process::{Command, Output};

use super::support::command::{complaint, told};
use super::support::content::{Content, Random};
use super::support::ledger::{BUCKET, Outcome, ledgers, verify};
use super::support::node::{self, Node, Options, scratch, start_to_fail};
use super::support::s3::{Body, Client, Credentials};
use super::{WRITERS, environment, server, with_server};

#[test]
fn a_node_moves_into_a_database() {
    let (server, scratch) = (server(), scratch());
    let data = scratch.path().join("data");
    let disks = ["a", "b", "c"].map(|name| scratch.path().join(name).display().to_string());
    let arguments: Vec<String> = disks.iter().flat_map(|disk| ["--disk".to_owned(), disk.clone()]).collect();
    let alone = Options { arguments: arguments.clone(), ..Options::default() };
    let node = Node::start_with(&data, &alone);
    node.client().put(&format!("/{BUCKET}"), b"").unwrap().succeeded();
    let (mut ledgers, mut random) = (ledgers(WRITERS), Random(0x03ed));
    for ledger in &mut ledgers {
        let mut client = node.client();
        for _ in 0..60 {
            assert!(matches!(ledger.step(&mut client, &mut random), Outcome::Acknowledged { .. }));
        }
    }
    let mut client = node.client();
    client.put("/bucket", b"").unwrap().succeeded();
    let content = Content { seed: 7, length: 300_000 };
    client.put("/bucket/object", &content.bytes()).unwrap().succeeded();
    let begun =
        client.request("POST", "/bucket/parts", &[("uploads", "")], &[], Body::Signed(b"")).unwrap().succeeded();
    let upload = begun.elements("UploadId").remove(0);
    let part = Content { seed: 8, length: 100_000 };
    let tag = client.put_part("/bucket/parts", &upload, 1, Body::Signed(&part.bytes())).unwrap().succeeded();
    let tag = tag.head.etag().to_owned();
    let app = app(&data, &node);
    node.stop();

    let databases = environment(&server);
    let metadata = |what: &[&str], environment: &[(String, String)]| -> Output {
        let mut command = Command::new(node::anvil());
        command.args(["admin", "metadata"]).args(what).args(["--data-dir"]).arg(&data);
        command.envs(environment.iter().cloned()).env_remove("ANVIL_DATA_DIR").output().unwrap()
    };
    let before = told(metadata(&["export"], &[]));
    let refused = complaint(&metadata(&["import"], &databases), 2);
    assert!(refused.contains("ANVIL_SECRET_ENCRYPTION_KEY"), "the app's secret is sealed by the node alone: {refused}");
    let mut with_key = databases.clone();
    with_key.push(("ANVIL_SECRET_ENCRYPTION_KEY".to_owned(), "5a".repeat(32)));
    let said = told(metadata(&["import"], &with_key));
    assert!(said.contains("every row is in the database"), "{said}");
    let rows = |text: &str| {
        let lines = text.lines().skip(1).filter(|line| !line.contains("\"table\":\"counters\""));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let behind = told(metadata(&["export"], &databases));
    assert!(rows(&before).len() > 100);
    assert_eq!(rows(&behind), rows(&before), "row by row");
    let again = told(metadata(&["import"], &with_key));
    assert!(again.contains("already"), "{again}");
    let refused = start_to_fail(&data, &alone);
    assert!(refused.contains("GLOBAL_DATABASE_URL"), "{refused}");

    let in_database = Options { arguments, environment: with_key.clone(), ..Options::default() };
    let node = Node::start_with(&data, &in_database);
    verify(&node, &mut ledgers);
    let mut client = node.client();
    assert_eq!(client.get("/bucket/object").unwrap().succeeded().body, content.bytes());
    client.complete("/bucket/parts", &upload, &[tag]).unwrap().succeeded();
    assert_eq!(client.get("/bucket/parts").unwrap().succeeded().body, part.bytes());
    let mut of_app = Client::new(node.address, app);
    assert_eq!(of_app.get("/bucket/object").unwrap().succeeded().body, content.bytes(), "the app may as before");
    for ledger in &mut ledgers {
        for _ in 0..20 {
            assert!(matches!(ledger.step(&mut client, &mut random), Outcome::Acknowledged { .. }));
        }
    }
    node.kill();
    let node = Node::start_with(&data, &in_database);
    verify(&node, &mut ledgers);
    node.stop();
    // Rows of others are not mixed with those of a node.
    let other = scratch.path().join("other");
    Node::start(&other).stop();
    let mut command = Command::new(node::anvil());
    command.args(["admin", "metadata", "import", "--data-dir"]).arg(&other).envs(with_key);
    let refused = complaint(&command.output().unwrap(), 1);
    assert!(refused.contains("a region of its own"), "{refused}");
    assert_eq!(with_server(&server, "anvil_global", "SELECT count(*) FROM nodes"), ["1"]);
}

/// An app that may read the bucket.
fn app(data: &std::path::Path, node: &Node) -> Credentials {
    let admin = |words: &[&str]| {
        let mut command = Command::new(node::anvil());
        command.arg("admin").args(words).arg("--data-dir").arg(data).args(["--endpoint", &node.endpoint()]);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANVIL_")) {
            command.env_remove(name);
        }
        told(command.output().unwrap())
    };
    admin(&["tenant", "create", "acme"]);
    let made = admin(&["app", "create", "reader", "--tenant-name", "default", "--output", "json"]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    admin(&["policy", "grant", "--app-name", "reader", "--action", "object:read", "--resource", "bucket/*"]);
    Credentials { access_key: text("client_id"), secret_key: text("client_secret") }
}
