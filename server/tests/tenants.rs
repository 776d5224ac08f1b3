//! Goal: an app does what was granted to it and nothing else, tenants do not see one another, all of that is there after a
//! crash, and who comes too often waits. Method: `clients/tenants_checks.py`, boto3 and `anvil admin` against the real binary, one node per group.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::clients::{python, run};
use support::command::told;
use support::node::{self, Node, Options, scratch};
use support::postgres::Postgres;
use support::s3::{Client, Credentials};

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

/// Goal: people administrate with a password, as their roles allow; a viewer changes nothing; the audit names who did what; and no
/// password is in a log or on the disks. Method: the checks of `clients/tenants_checks.py`, logins that are not limited.
#[test]
fn people_do_what_their_roles_allow() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let environment = vec![("ANVIL_LIMIT_LOGINS".to_owned(), "off".to_owned())];
    let node = Node::start_with(&data, &Options { environment, ..Options::default() });
    check(&node, &data, "users");
    let (_, log) = node.terminate();
    for secret in ["correct horse", "battery staple", "another password", "not this one", "$argon2", "eyJ"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    assert!(log.contains("anvil::audit") && log.contains("user:boss"), "{log}");
}

#[test]
fn tokens_are_made_and_denied_while_apps_go_on() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let environment = vec![("ANVIL_LIMIT_LOGINS".to_owned(), "off".to_owned())];
    let node = Node::start_with(&data, &Options { environment, ..Options::default() });
    check(&node, &data, "tokens");
    let (_, log) = node.terminate();
    assert!(!log.contains("eyJ"), "a token is in the log");
}

/// Goal: secrets move to another key while the node serves, and the old one is not needed behind that. Method: the node with the
/// old key, with both, and with the new one alone; kills between; without the step in the middle the apps are shut out.
#[test]
fn secrets_move_to_another_key() {
    let (old, new) = ("2026:".to_owned() + &"5a".repeat(32), "2027:".to_owned() + &"a5".repeat(32));
    let scratch = scratch();
    let data = scratch.path().join("data");
    let start = |key: &str| {
        let environment = vec![("ANVIL_SECRET_ENCRYPTION_KEY".to_owned(), key.to_owned())];
        Node::start_with(&data, &Options { environment, ..Options::default() })
    };
    let node = start(&old);
    check(&node, &data, "prepare");
    check(&node, &data, "prepare_token");
    node.kill();
    let node = start(&new);
    let app: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("kept-app.json")).unwrap()).unwrap();
    let text = |name: &str| app[name].as_str().unwrap().to_owned();
    let credentials = Credentials { access_key: text("client_id"), secret_key: text("client_secret") };
    assert_eq!(
        Client::new(node.address, credentials).get("/kept/k").unwrap().status(),
        403,
        "its secret is not opened"
    );
    node.stop();
    let node = start(&format!("{new},{old}"));
    check(&node, &data, "reseal");
    node.kill();
    let node = start(&new);
    check(&node, &data, "kept");
    check(&node, &data, "kept_token");
    node.stop();
}

fn create_database(server: &Postgres, name: &str) {
    with_server(server, "postgres", &format!("CREATE DATABASE {name}"));
}

/// Runs statements in a database.
fn with_server(server: &Postgres, database: &str, text: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&server.url(database), tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        client.batch_execute(text).await.unwrap();
        drop(client);
        driver.await.unwrap().unwrap();
    });
}

/// Goal: what is taken away on one node holds on another one within a second, and while the global database is away what was read
/// is used for METADATA_CACHE_TTL_SECS and no longer. Method: two regions, each with a database of its own, on one global
/// database; a grant and a token revoked on one, used on the other; then the global database is stopped.
#[test]
fn a_revocation_holds_on_another_node_within_a_second() {
    let (mut global, regional, scratch) = (Postgres::start(), Postgres::start(), scratch());
    create_database(&global, "anvil_global");
    let nodes: Vec<(Node, PathBuf)> = [("here", "2"), ("there", "300")]
        .map(|(region, ttl)| {
            let name = format!("anvil_{region}");
            create_database(&regional, &name);
            let environment = [
                ("GLOBAL_DATABASE_URL", global.url("anvil_global")),
                ("REGIONAL_DATABASE_URL", regional.url(&name)),
                ("ANVIL_SECRET_ENCRYPTION_KEY", "5a".repeat(32)),
                ("METADATA_CACHE_TTL_SECS", ttl.to_owned()),
            ];
            let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
            let arguments = ["--init-cluster", "--region", region].map(str::to_owned).to_vec();
            let data = scratch.path().join(region);
            (Node::start_with(&data, &Options { arguments, environment, ..Options::default() }), data)
        })
        .into();
    let admin = |node: usize, words: &[&str]| {
        let (node, data) = &nodes[node];
        let mut command = Command::new(node::anvil());
        command.arg("admin").args(words).arg("--endpoint").arg(node.endpoint()).arg("--data-dir").arg(data);
        told(command.args(["--output", "json"]).output().unwrap())
    };
    admin(0, &["tenant", "create", "acme"]);
    let app = admin(0, &["app", "create", "web", "--tenant-name", "acme"]);
    let app: serde_json::Value = serde_json::from_str(&app).unwrap();
    let text = |name: &str| app[name].as_str().unwrap().to_owned();
    let client = |node: usize, region: &str| {
        let credentials = Credentials { access_key: text("client_id"), secret_key: text("client_secret") };
        let mut client = Client::new(nodes[node].0.address, credentials).in_region(region);
        move || client.get("/").unwrap().status()
    };
    let (mut here, mut there) = (client(0, "here"), client(1, "there"));
    let grant = ["--app-name", "web", "--action", "bucket:list", "--resource", "*"];
    for round in 0..3 {
        admin(0, &[&["policy", "grant"], &grant[..]].concat());
        let granted = Instant::now();
        assert_eq!(here(), 200, "a change that was answered holds here");
        while there() != 200 {
            assert!(granted.elapsed() < Duration::from_secs(1), "what was granted here does not hold there");
        }
        admin(0, &[&["policy", "revoke"], &grant[..]].concat());
        let revoked = Instant::now();
        assert_eq!(here(), 403, "a change that was answered holds here");
        while there() == 200 {
            assert!(revoked.elapsed() < Duration::from_secs(1), "what was revoked here still counts there");
        }
        println!("round {round}: another node heard of a revocation after {:?}", revoked.elapsed());
    }
    admin(1, &[&["policy", "grant"], &grant[..]].concat());
    let stats: serde_json::Value = serde_json::from_str(&admin(1, &["cache-stats"])).unwrap();
    assert!(stats["known"] == true && stats["ttl_seconds"] == 300, "{stats}");
    assert!(stats["notified"].as_u64().unwrap() >= 6, "it was told by itself: {stats}");

    global.stop("fast");
    let stopped = Instant::now();
    while here() == 200 {
        assert!(stopped.elapsed() < Duration::from_secs(10), "what was read is used for longer than 2 s");
    }
    println!("what was read was used for {:?} without its database", stopped.elapsed());
    assert_eq!((here(), there()), (503, 200), "the other node uses it for 300 s");
    global.start_again();
    let back = Instant::now();
    while here() != 200 {
        assert!(back.elapsed() < Duration::from_secs(10), "it is not read again");
    }
    for (node, _) in nodes {
        node.stop();
    }
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
