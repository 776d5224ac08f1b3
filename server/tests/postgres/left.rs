//! Goal: a node leaves its databases with all that they knew, whatever cuts the move short, and goes into fresh ones again. Method:
//! a node with objects of all kinds, quotas, apps, users and tasks is moved to its disks; rows are compared through what the
//! program writes out, objects are read, the index is made anew from the log. The move is killed at places that the data directory
//! and the database tell of, and wherever it is by then.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::command::{complaint, told};
use super::support::content::{Content, Random};
use super::support::ledger::{BUCKET, Ledger, Outcome, ledgers, verify};
use super::support::node::{self, Node, Options, scratch, start_to_fail};
use super::support::postgres::Postgres;
use super::support::s3::{Body, Client, Credentials};
use super::{WRITERS, create_database, environment, server, with_server};

/// A node of three disks and what is expected of it.
struct Place {
    _scratch: tempfile::TempDir,
    data: PathBuf,
    arguments: Vec<String>,
    databases: Vec<(String, String)>,
    ledgers: Vec<Ledger>,
    random: Random,
}

const SECRET: (&str, &str) =
    ("ANVIL_SECRET_ENCRYPTION_KEY", "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a");

impl Place {
    fn new(server: &Postgres) -> Self {
        let scratch = scratch();
        let disks = ["a", "b", "c"].map(|name| scratch.path().join(name).display().to_string());
        let arguments = disks.into_iter().flat_map(|disk| ["--disk".to_owned(), disk]).collect();
        let data = scratch.path().join("data");
        Self {
            _scratch: scratch,
            data,
            arguments,
            databases: environment(server),
            ledgers: ledgers(WRITERS),
            random: Random(0x1ef7),
        }
    }

    fn options(&self, with_databases: bool) -> Options {
        let mut environment = vec![(SECRET.0.to_owned(), SECRET.1.to_owned())];
        if with_databases {
            environment.extend(self.databases.clone());
        }
        Options { arguments: self.arguments.clone(), environment, ..Options::default() }
    }

    fn first_start(&self) -> Node {
        let mut options = self.options(true);
        options.arguments.push("--init-cluster".to_owned());
        Node::start_with(&self.data, &options)
    }

    fn is_of_a_database(&self) -> bool {
        self.data.join("cluster.json").exists()
    }

    /// Starts the node as what it is now.
    fn start(&self) -> Node {
        Node::start_with(&self.data, &self.options(self.is_of_a_database()))
    }

    fn command(&self, words: &[&str], with_databases: bool) -> Command {
        let mut command = Command::new(node::anvil());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANVIL_")) {
            command.env_remove(name);
        }
        command.arg("admin").args(words).arg("--data-dir").arg(&self.data);
        command.envs(self.options(with_databases).environment);
        command
    }

    fn metadata(&self, words: &[&str], with_databases: bool) -> Output {
        self.command(&[&["metadata"], words].concat(), with_databases).output().unwrap()
    }

    fn admin(&self, node: &Node, words: &[&str]) -> String {
        told(self.command(words, false).args(["--endpoint", &node.endpoint()]).output().unwrap())
    }

    /// The rows as the program writes them out, but for where the log stands.
    fn rows(&self, with_databases: bool) -> Vec<Value> {
        let text = told(self.metadata(&["export"], with_databases));
        let rows = text.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut rows: Vec<Value> = rows.filter(|row| row["table"] != "counters").collect();
        rows.sort_by_key(Value::to_string);
        rows
    }

    /// A few changes, all of which must be acknowledged.
    fn work(&mut self, node: &Node, steps: usize) {
        let mut client = node.client();
        for ledger in &mut self.ledgers {
            for _ in 0..steps {
                assert!(matches!(ledger.step(&mut client, &mut self.random), Outcome::Acknowledged { .. }));
            }
        }
    }
}

/// What is there besides the ledgers.
struct Stored {
    object: Content,
    in_parts: Content,
    part: Content,
    upload: String,
    tag: String,
    app: Credentials,
}

impl Stored {
    fn put(place: &Place, node: &Node) -> Self {
        let mut client = node.client();
        client.put("/bucket", b"").unwrap().succeeded();
        client.put("/limited", b"").unwrap().succeeded();
        let object = Content { seed: 7, length: 300_000 };
        let headers = [("content-type", "text/x-left"), ("x-amz-meta-who", "me")];
        client.request("PUT", "/bucket/object", &[], &headers, Body::Signed(&object.bytes())).unwrap().succeeded();
        client.put("/bucket/empty", b"").unwrap().succeeded();
        let from = [("x-amz-copy-source", "/bucket/object")];
        client.request("PUT", "/bucket/copy", &[], &from, Body::Signed(b"")).unwrap().succeeded();
        client.put("/bucket/gone", b"gone").unwrap().succeeded();
        client.delete("/bucket/gone").unwrap().succeeded();
        let in_parts = Content { seed: 9, length: 6_000_000 };
        client.put_in_parts("/bucket/in-parts", in_parts, 5 << 20).unwrap().succeeded();
        let begun = client.request("POST", "/bucket/parts", &[("uploads", "")], &[], Body::Signed(b"")).unwrap();
        let upload = begun.succeeded().elements("UploadId").remove(0);
        let part = Content { seed: 8, length: 100_000 };
        let tag = client.put_part("/bucket/parts", &upload, 1, Body::Signed(&part.bytes())).unwrap().succeeded();
        let tag = tag.head.etag().to_owned();
        place.admin(node, &["bucket", "update", "limited", "--quota-bytes", "10KiB"]);
        place.admin(node, &["tenant", "create", "acme"]);
        place.admin(node, &["tenant", "update", "acme", "--quota-objects", "5"]);
        let made = place.admin(node, &["app", "create", "reader", "--tenant-name", "default", "--output", "json"]);
        let made: Value = serde_json::from_str(&made).unwrap();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        let grant = ["policy", "grant", "--app-name", "reader", "--action", "object:read", "--resource", "bucket/*"];
        place.admin(node, &grant);
        let app = Credentials { access_key: text("client_id"), secret_key: text("client_secret") };
        Self { object, in_parts, part, upload, tag, app }
    }

    fn verify(&self, place: &Place, node: &Node) {
        let mut client = node.client();
        for (path, content) in
            [("/bucket/object", self.object), ("/bucket/copy", self.object), ("/bucket/in-parts", self.in_parts)]
        {
            assert!(client.get(path).unwrap().succeeded().body == content.bytes(), "{path} is as it was");
        }
        let answer = client.get("/bucket/object").unwrap();
        assert_eq!(answer.head.header("content-type"), Some("text/x-left"));
        assert_eq!(answer.head.header("x-amz-meta-who"), Some("me"));
        assert_eq!(client.get("/bucket/empty").unwrap().succeeded().body, b"");
        assert_eq!(client.get("/bucket/gone").unwrap().status(), 404);
        let mut of_app = Client::new(node.address, self.app.clone());
        assert_eq!(of_app.get("/bucket/object").unwrap().status(), 200, "the app may as before");
        assert_eq!(of_app.put("/bucket/other", b"x").unwrap().status(), 403);
        assert_eq!(client.put("/limited/large", &[0; 20 << 10]).unwrap().status(), 403, "the quota holds");
        let tenants = place.admin(node, &["tenant", "list"]);
        assert!(tenants.contains("acme"), "{tenants}");
        let audit = place.admin(node, &["audit", "list"]);
        assert!(audit.contains("tenant create"), "{audit}");
    }
}

/// Generations of the rows of objects, of which none may be given twice.
fn highest_generation(rows: &[Value]) -> i64 {
    let of = |row: &Value| row["row"]["generation"].as_i64().unwrap_or(0);
    rows.iter().map(of).max().unwrap_or(0)
}

#[test]
fn a_node_leaves_its_databases() {
    let server = server();
    let mut place = Place::new(&server);
    let node = place.first_start();
    node.client().put(&format!("/{BUCKET}"), b"").unwrap().succeeded();
    place.work(&node, 60);
    let stored = Stored::put(&place, &node);
    // Rows as a crash leaves them; and a task that no worker of this version touches.
    node.kill();
    with_server(
        &server,
        "anvil_global",
        "INSERT INTO tasks (region, kind, about, priority, state, attempts, not_before_ms, leases, position, created_at_ms, \
         changed_at_ms) VALUES ('us-east-1', 'of-later', 'something', 5, 1, 0, 0, 0, 'here', 1, 1)",
    );
    let before = place.rows(true);
    let said = told(place.metadata(&["import", "--into", "disks"], true));
    assert!(said.contains("every row is on the disks"), "{said}");
    assert!(!place.is_of_a_database());
    let again = told(place.metadata(&["import", "--into", "disks"], true));
    assert!(again.contains("already"), "{again}");
    let refused = start_to_fail(&place.data, &place.options(true));
    assert!(refused.contains("has node 1 already"), "the databases know a node that has left them: {refused}");

    // What was opened, and the node's own objects, came behind the rows; everything else is as it was.
    let behind = place.rows(false);
    let own = |row: &&Value| !behind.contains(row);
    let lost: Vec<&Value> = before.iter().filter(own).collect();
    println!("{} rows before, {} behind, differ: {lost:?}", before.len(), behind.len());
    assert!(lost.iter().all(|row| row["table"] == "writers"), "only the next life was opened: {lost:?}");
    let node = place.start();
    verify(&node, &mut place.ledgers);
    stored.verify(&place, &node);
    let tasks = place.admin(&node, &["task", "list"]);
    assert!(tasks.contains("of-later"), "{tasks}");
    let mut client = node.client();
    client.complete("/bucket/parts", &stored.upload, std::slice::from_ref(&stored.tag)).unwrap().succeeded();
    assert!(client.get("/bucket/parts").unwrap().succeeded().body == stored.part.bytes());
    place.work(&node, 20);
    node.kill();
    let later = place.rows(false);
    assert!(highest_generation(&later) > highest_generation(&before), "generations go on above those of the database");
    let rebuilt = told(place.metadata(&["rebuild"], false));
    assert!(rebuilt.contains("says what the log says"), "{rebuilt}");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(place.data.join(format!("metadata.sqlite{suffix}")));
    }
    let node = place.start();
    verify(&node, &mut place.ledgers);
    stored.verify(&place, &node);
    place.work(&node, 10);
    node.stop();

    // And into fresh databases.
    create_database(&server, "fresh_global");
    create_database(&server, "fresh_regional");
    place.databases = [("GLOBAL_DATABASE_URL", "fresh_global"), ("REGIONAL_DATABASE_URL", "fresh_regional")]
        .map(|(name, database)| (name.to_owned(), server.url(database)))
        .to_vec();
    let before = place.rows(false);
    told(place.metadata(&["import"], true));
    assert!(place.rows(true) == before, "row by row");
    let node = place.start();
    verify(&node, &mut place.ledgers);
    stored.verify(&place, &node);
    place.work(&node, 10);
    node.stop();
}

#[test]
fn a_move_that_is_killed_leaves_the_node_as_it_was_or_moved() {
    let server = server();
    let mut place = Place::new(&server);
    let node = place.first_start();
    node.client().put(&format!("/{BUCKET}"), b"").unwrap().succeeded();
    place.work(&node, 40);
    let stored = Stored::put(&place, &node);
    node.stop();
    let cluster = place.data.join("cluster.json");
    let life = || with_server(&server, "anvil_regional", "SELECT incarnation FROM writers").concat();
    let mut were_old = 0;
    // Where the log is begun; where the rows are there and compared.
    for at in 0..2 {
        let before = life();
        let mut child = moving(&place);
        wait_for(&mut child, || match at {
            0 => is_leaving(&cluster).is_some(),
            _ => life() != before,
        });
        let _ = child.kill();
        child.wait().unwrap();
        were_old += usize::from(place.is_of_a_database());
        println!("killed at {at}: of a database {}", place.is_of_a_database());
        let node = place.start();
        verify(&node, &mut place.ledgers);
        stored.verify(&place, &node);
        place.work(&node, 10);
        node.kill();
    }
    // Where all is done, but for the file that says what the node is.
    if place.is_of_a_database() {
        let before = std::fs::read(&cluster).unwrap();
        let mut child = moving(&place);
        let mut leaving = None;
        wait_for(&mut child, || is_leaving(&cluster).is_some_and(|text| text != before));
        while child.try_wait().unwrap().is_none() {
            leaving = is_leaving(&cluster).filter(|text| *text != before).or(leaving);
        }
        assert!(!place.is_of_a_database(), "it was moved");
        std::fs::write(&cluster, leaving.expect("a log was begun before the rows were written")).unwrap();
        let node = place.start();
        verify(&node, &mut place.ledgers);
        stored.verify(&place, &node);
        place.work(&node, 10);
        node.kill();
    }
    assert!(were_old >= 1, "the first kill came before the end");
    told(place.metadata(&["import", "--into", "disks"], true));
    let node = place.start();
    verify(&node, &mut place.ledgers);
    stored.verify(&place, &node);
    node.stop();
    assert!(told(place.metadata(&["rebuild"], false)).contains("says what the log says"));
}

/// A log that is nobody's leftover is not given up.
#[test]
fn a_log_of_another_life_is_not_given_up() {
    let server = server();
    let place = Place::new(&server);
    place.first_start().stop();
    let kept = std::fs::read(place.data.join("cluster.json")).unwrap();
    told(place.metadata(&["import", "--into", "disks"], true));
    let node = place.start();
    node.client().put("/bucket", b"").unwrap().succeeded();
    node.stop();
    // An old copy of the data directory.
    std::fs::write(place.data.join("cluster.json"), kept).unwrap();
    let refused = start_to_fail(&place.data, &place.options(true));
    assert!(refused.contains("without a database"), "{refused}");
    let refused = complaint(&place.metadata(&["import", "--into", "disks"], true), 1);
    assert!(refused.contains("not from an earlier attempt"), "{refused}");
    std::fs::remove_file(place.data.join("cluster.json")).unwrap();
    let node = place.start();
    node.client().get("/bucket").unwrap().succeeded();
    node.stop();
}

/// The file that says that the node is of a database, if it also says that the node leaves.
fn is_leaving(cluster: &Path) -> Option<Vec<u8>> {
    std::fs::read(cluster).ok().filter(|text| String::from_utf8_lossy(text).contains("leaving"))
}

fn moving(place: &Place) -> Child {
    let mut command = place.command(&["metadata", "import", "--into", "disks"], true);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until something holds, or the process has ended.
fn wait_for(child: &mut Child, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() && child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(300), "in vain");
        thread::sleep(Duration::from_millis(1));
    }
}
