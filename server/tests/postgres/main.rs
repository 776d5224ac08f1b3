//! Goal: a node with its metadata in PostgreSQL serves as one without does, and loses nothing that it acknowledged, whatever
//! becomes of the node or the database. Method: the real binary on a real server; boto3; SIGKILL; all kinds of outages of the
//! database, with a ledger of what was acknowledged.

#[path = "../support/mod.rs"]
mod support;

mod left;
mod moved;
mod outages;
mod regions;
mod restored;
mod versions;

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::clients::{python, run};
use support::content::{Content, Random};
use support::ledger::{BUCKET, Outcome, ledgers, verify};
use support::node::{self, Node, Options, scratch, start_to_fail};
use support::postgres::Postgres;
use support::s3::{Client, Credentials};

/// A server with two databases that hold nothing.
fn server() -> Postgres {
    let server = Postgres::start();
    for database in ["anvil_global", "anvil_regional"] {
        create_database(&server, database);
    }
    server
}

fn environment(server: &Postgres) -> Vec<(String, String)> {
    let url = |database| server.url(database);
    let variables = [("GLOBAL_DATABASE_URL", url("anvil_global")), ("REGIONAL_DATABASE_URL", url("anvil_regional"))];
    variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

fn options(server: &Postgres, arguments: &[&str]) -> Options {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    Options { arguments, environment: environment(server), ..Options::default() }
}

fn create_database(server: &Postgres, name: &str) {
    with_server(server, "postgres", &format!("CREATE DATABASE {name}"));
}

/// Runs statements in a database; gives the first column of their rows.
fn with_server(server: &Postgres, database: &str, text: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&server.url(database), tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        let answers = client.simple_query(text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
        drop(client);
        driver.await.unwrap().unwrap();
        let rows = answers.into_iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        });
        rows.collect()
    })
}

fn migrate(server: &Postgres, what: &str) -> Output {
    let mut command = Command::new(node::anvil());
    command.args(["migrate", what]).envs(environment(server));
    command.output().unwrap()
}

/// The exit code of `anvil migrate status` follows what is pending, and a node starts only behind the migrations.
#[test]
fn a_node_starts_on_databases_that_were_made_for_it() {
    let (server, scratch) = (server(), scratch());
    let data = scratch.path().join("data");
    let status = migrate(&server, "status");
    assert_eq!(status.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&status.stdout).contains("0001_first"), "{status:?}");
    let refused = start_to_fail(&data, &options(&server, &[]));
    assert!(refused.contains("anvil migrate up"), "{refused}");

    assert!(migrate(&server, "up").status.success());
    let status = migrate(&server, "status");
    assert!(status.status.success() && !String::from_utf8_lossy(&status.stdout).contains("pending"), "{status:?}");
    let refused = start_to_fail(&data, &options(&server, &[]));
    assert!(refused.contains("--init-cluster"), "no region was made: {refused}");

    let node = Node::start_with(&data, &options(&server, &["--init-cluster"]));
    node.client().put("/bucket", b"").unwrap().succeeded();
    node.client().put("/bucket/key", b"value").unwrap().succeeded();
    node.stop();

    let refused = start_to_fail(&data, &Options::default());
    assert!(refused.contains("GLOBAL_DATABASE_URL"), "without its databases it would see nothing: {refused}");
    let refused = start_to_fail(&data, &options(&server, &["--region", "elsewhere"]));
    assert!(refused.contains("REGION"), "{refused}");
    let refused = start_to_fail(&scratch.path().join("other"), &options(&server, &[]));
    assert!(refused.contains("one node"), "{refused}");

    let node = Node::start_with(&data, &options(&server, &["--init-cluster"]));
    assert_eq!(node.client().get("/bucket/key").unwrap().succeeded().body, b"value");
    node.stop();
}

/// Data that an embedded node has is not left to a database that does not know it.
#[test]
fn disks_with_metadata_of_their_own_are_refused() {
    let (server, scratch) = (server(), scratch());
    let data = scratch.path().join("data");
    let node = Node::start(&data);
    node.client().put("/bucket", b"").unwrap().succeeded();
    node.stop();
    let refused = start_to_fail(&data, &options(&server, &["--init-cluster"]));
    assert!(refused.contains("without a database"), "{refused}");
}

/// Python programs find S3 as they know it, and all of it after a crash.
#[test]
fn boto3_finds_s3_as_it_knows_it() {
    let (server, scratch) = (server(), scratch());
    let start = || Node::start_with(&scratch.path().join("data"), &options(&server, &["--init-cluster"]));
    let mut node = start();
    for group in ["buckets", "objects", "listing", "multipart", "checksums", "copies", "refusals"] {
        println!("{}", run(python(&node, "boto3_checks.py").arg(group)));
        let before = with_server(&server, "anvil_regional", "SELECT count(*) FROM heads");
        node.kill();
        node = start();
        assert_eq!(with_server(&server, "anvil_regional", "SELECT count(*) FROM heads"), before);
    }
    node.stop();
}

/// Goal: tenants and apps are the same with a database, survive the node, and what another process changes in the database holds
/// here within a second. Method: the checks of `tests/tenants.rs`; then a grant is taken away as another process would.
#[test]
fn apps_are_global() {
    let (server, scratch) = (server(), scratch());
    let data = scratch.path().join("data");
    let mut options = options(&server, &["--init-cluster"]);
    options.environment.push(("ANVIL_SECRET_ENCRYPTION_KEY".to_owned(), "5a".repeat(32)));
    options.environment.push(("ANVIL_LIMIT_LOGINS".to_owned(), "off".to_owned()));
    let check = |node: &Node, group: &str| {
        let mut command = python(node, "tenants_checks.py");
        command.env("GLOBAL_DATABASE_URL", "is set").arg(node::anvil()).arg(&data).arg(group);
        println!("{}", run(&mut command));
    };
    let mut node = Node::start_with(&data, &options);
    for group in ["secrets", "isolation", "users", "tokens", "prepare"] {
        check(&node, group);
        node.kill();
        node = Node::start_with(&data, &options);
    }
    check(&node, "kept");

    let app: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("kept-app.json")).unwrap()).unwrap();
    let text = |name: &str| app[name].as_str().unwrap().to_owned();
    let credentials = Credentials { access_key: text("client_id"), secret_key: text("client_secret") };
    let mut client = Client::new(node.address, credentials);
    client.get("/kept").unwrap().succeeded();
    with_server(
        &server,
        "anvil_global",
        "BEGIN; DELETE FROM grants; UPDATE access SET revision = revision + 1; COMMIT",
    );
    let revoked = Instant::now();
    while client.get("/kept").unwrap().status() == 200 {
        assert!(revoked.elapsed() < Duration::from_secs(1), "a grant that is gone still counts");
    }
    println!("a revocation was heard of after {:?}", revoked.elapsed());
    assert_eq!(client.get("/kept").unwrap().status(), 403);
    let told = with_server(&server, "anvil_global", "SELECT encode(sealed_secret, 'escape') FROM apps");
    assert!(!told.concat().contains(&text("client_secret")), "secrets are sealed");
    node.stop();
}

/// Goal: denials of tokens that have ended go by themselves, and no other. Method: one of each, and the task that looks for them,
/// as the node adds it in its first minutes.
#[test]
fn denials_that_have_ended_are_forgotten() {
    let (server, scratch) = (server(), scratch());
    let node = Node::start_with(&scratch.path().join("data"), &options(&server, &["--init-cluster"]));
    with_server(&server, "anvil_global", DENIALS);
    let left = || with_server(&server, "anvil_global", "SELECT id FROM denied_tokens");
    until(|| left() == ["good for long"], "the one that has ended is forgotten");
    let noted = with_server(&server, "anvil_global", "SELECT who || ' ' || action FROM audit WHERE about = ''");
    assert_eq!(noted, ["task denylist prune"]);
    node.stop();
}

/// Goal: nothing acknowledged is lost by kills of the node. Method: as for the embedded metadata, fewer times.
#[test]
fn what_was_acknowledged_survives_kills_of_the_node() {
    let (server, scratch) = (server(), scratch());
    let data = scratch.path().join("data");
    let start = || Node::start_with(&data, &options(&server, &["--init-cluster", "--reclaim-delay", "0"]));
    let mut random = Random(0x0dab);
    let mut ledgers = ledgers(WRITERS);
    let mut node = start();
    node.client().put(&format!("/{BUCKET}"), b"").unwrap().succeeded();
    for round in 1..=4 {
        let acknowledged = AtomicU64::new(0);
        thread::scope(|scope| {
            for ledger in &mut ledgers {
                let (mut client, mut random, acknowledged) = (node.client(), Random(random.next()), &acknowledged);
                scope.spawn(move || {
                    loop {
                        match ledger.step(&mut client, &mut random) {
                            Outcome::Acknowledged { .. } => drop(acknowledged.fetch_add(1, Ordering::Relaxed)),
                            Outcome::Refused { status, text } => assert_eq!(status, 503, "{text}"),
                            Outcome::Broken => break,
                        }
                    }
                });
            }
            while acknowledged.load(Ordering::Relaxed) < 150 {
                thread::sleep(Duration::from_millis(1));
            }
            node.kill();
        });
        node = start();
        println!("round {round}: {} acknowledged, ready after {:.1?}", acknowledged.into_inner(), node.start_time);
        verify(&node, &mut ledgers);
    }
    node.stop();
}

/// Goal: a node is ready only while it reaches both databases. Method: each on a server of its own, the global one stopped
/// and started; the regional one is stopped by the test above.
#[test]
fn a_node_is_ready_while_it_reaches_both_databases() {
    let (mut global, regional, scratch) = (Postgres::start(), Postgres::start(), scratch());
    create_database(&global, "anvil_global");
    create_database(&regional, "anvil_regional");
    let environment = [
        ("GLOBAL_DATABASE_URL", global.url("anvil_global")),
        ("REGIONAL_DATABASE_URL", regional.url("anvil_regional")),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let options = Options { arguments: vec!["--init-cluster".to_owned()], environment, ..Options::default() };
    let node = Node::start_with(&scratch.path().join("data"), &options);
    node.client().put("/bucket", b"").unwrap().succeeded();
    assert!((node.metric("anvil_database_up") - 2.0).abs() < 0.1);

    global.stop("fast");
    until(|| node.ready() == 503, "/ready says that the global database is away");
    assert!(node.ready_answer().ends_with("\r\n\r\nthe global database is away\n"), "{}", node.ready_answer());
    let page = node.metrics();
    for line in [
        "anvil_ready 0.0",
        "anvil_database_up{database=\"global\"} 0.0",
        "anvil_database_up{database=\"regional\"} 1.0",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
    node.client().put("/bucket/key", b"value").unwrap().succeeded();
    global.start_again();
    until(|| node.ready() == 200, "/ready says that the global database is back");
    node.stop();
}

/// Goal: a database that was put back to an older state is noticed, and nothing is swept by what it does not know. Method: a
/// copy of the database from before some writes takes its place.
#[test]
fn a_database_that_went_back_is_noticed() {
    let (server, scratch) = (server(), scratch());
    let data = scratch.path().join("data");
    let node = Node::start_with(&data, &options(&server, &["--init-cluster"]));
    node.client().put("/bucket", b"").unwrap().succeeded();
    node.stop();
    with_server(&server, "postgres", "CREATE DATABASE backup TEMPLATE anvil_regional");
    let node = Node::start_with(&data, &options(&server, &[]));
    let content = Content { seed: 1, length: 100_000 };
    node.client().put("/bucket/key", &content.bytes()).unwrap().succeeded();
    node.stop();
    with_server(&server, "postgres", "ALTER DATABASE anvil_regional RENAME TO newest");
    with_server(&server, "postgres", "ALTER DATABASE backup RENAME TO anvil_regional");
    let refused = start_to_fail(&data, &options(&server, &[]));
    assert!(refused.contains("went back"), "{refused}");
    with_server(&server, "postgres", "ALTER DATABASE anvil_regional RENAME TO backup");
    with_server(&server, "postgres", "ALTER DATABASE newest RENAME TO anvil_regional");
    let node = Node::start_with(&data, &options(&server, &[]));
    assert_eq!(node.client().get("/bucket/key").unwrap().succeeded().body, content.bytes());
    node.stop();
}

/// Waits for what must come within seconds.
fn until(holds: impl Fn() -> bool, what: &str) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

const WRITERS: u64 = 4;
const DENIALS: &str = "BEGIN; INSERT INTO denied_tokens VALUES ('has ended', 1), ('good for long', 9000000000000); \
    UPDATE access SET revision = revision + 1; \
    INSERT INTO tasks (region, kind, about, priority, state, attempts, not_before_ms, leases, position, created_at_ms, \
    changed_at_ms) VALUES ('us-east-1', 'prune-denylist', '', 10, 1, 0, 0, 0, '', 1, 1); COMMIT";
