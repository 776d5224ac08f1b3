//! Goal: whatever keeps a database from serving, requests are answered with 503 and when to come back or wait within their
//! deadline, `/ready` follows it, nothing acknowledged is lost, and the node needs no restart. Method: one node, and one
//! kind of outage after the other under load, each with its end; behind each one everything is read back.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use super::support::content::Random;
use super::support::ledger::{BUCKET, Ledger, Outcome, ledgers, verify};
use super::support::node::{Node, Options, scratch};
use super::support::postgres::Postgres;
use super::support::relay::Relay;
use super::{WRITERS, until, with_server};

#[test]
fn what_was_acknowledged_survives_every_outage_of_the_database() {
    let mut primary = Postgres::start_with(&["max_connections=40"]);
    primary.allow(HOSTS);
    with_server(&primary, "postgres", "SELECT pg_reload_conf()");
    with_server(&primary, "postgres", "CREATE ROLE anvil LOGIN PASSWORD 'the first'");
    for database in ["anvil_global", "anvil_regional"] {
        with_server(&primary, "postgres", &format!("CREATE DATABASE {database} OWNER anvil"));
    }
    let (scratch, relay, standby) = (scratch(), Relay::to(primary.port()), primary.standby());
    let passwords = scratch.path().join("passwords");
    fs::write(&passwords, "*:*:*:anvil:the first\n").unwrap();
    let servers = format!("127.0.0.1:{},127.0.0.1:{}", relay.port(), standby.port());
    let url = |database| format!("postgres://anvil@{servers}/{database}?passfile={}", passwords.display());
    let environment = vec![
        ("GLOBAL_DATABASE_URL".to_owned(), url("anvil_global")),
        ("REGIONAL_DATABASE_URL".to_owned(), url("anvil_regional")),
    ];
    let options = Options { arguments: vec!["--init-cluster".to_owned()], environment, ..Options::default() };
    let node = Node::start_with(&scratch.path().join("data"), &options);
    node.client().put(&format!("/{BUCKET}"), b"").unwrap().succeeded();
    let mut outages = Outages { node, ledgers: ledgers(WRITERS), random: Random(0x0a7a) };
    let ask = |server: &Postgres, text: &str| with_server(server, "postgres", text);

    for mode in ["fast", "immediate"] {
        outages.survive(mode, |outage| {
            primary.stop(mode);
            outage.is_seen();
            outage.is_told_to_readers();
            primary.start_again();
        });
    }
    outages.survive("read-only", |outage| {
        ask(&primary, "ALTER SYSTEM SET default_transaction_read_only = on");
        ask(&primary, "SELECT pg_reload_conf()");
        outage.is_seen();
        ask(&primary, "ALTER SYSTEM RESET default_transaction_read_only");
        ask(&primary, "SELECT pg_reload_conf()");
    });
    outages.survive("out of connections", |outage| {
        let places = take_all_places(&primary);
        outage.is_seen();
        outage.is_told_to_readers();
        drop(places);
    });
    outages.survive("another password", |outage| {
        ask(&primary, "ALTER ROLE anvil PASSWORD 'the second'");
        ask(&primary, THROW_OUT);
        outage.is_seen();
        outage.is_told_to_readers();
        fs::write(&passwords, "*:*:*:anvil:the second\n").unwrap();
    });
    outages.survive("5 s late", |outage| {
        relay.delay(Duration::from_secs(5));
        // Who comes meanwhile may well be served, late.
        outage.is_told_to_balancers();
        relay.delay(Duration::ZERO);
    });
    outages.survive("hanging", |outage| {
        relay.stand_still(true);
        outage.is_told_to_balancers();
        outage.is_told_to_readers();
        relay.stand_still(false);
    });
    outages.survive("migrated by the next version", |outage| {
        with_server(&primary, "anvil_regional", LATER);
        let before = outage.acknowledged.load(Ordering::Relaxed);
        until(|| outage.acknowledged.load(Ordering::Relaxed) > before + 20, "writes go on");
        assert_eq!(outage.refused.load(Ordering::Relaxed), 0, "nobody notices");
    });
    // What a commit acknowledges is on the standby too.
    ask(&primary, "ALTER SYSTEM SET synchronous_standby_names = '*'");
    ask(&primary, "SELECT pg_reload_conf()");
    until(|| ask(&primary, "SELECT sync_state FROM pg_stat_replication") == ["sync"], "the standby has caught up");
    outages.survive("failed over", |outage| {
        primary.stop("immediate");
        outage.is_seen();
        outage.is_told_to_readers();
        ask(&standby, "SELECT pg_promote()");
    });
    outages.node.stop();
    // Behind the migration of the next version, and with the promoted standby alone.
    let node = Node::start_with(&scratch.path().join("data"), &options);
    verify(&node, &mut outages.ledgers);
    node.stop();
}

/// A node, and what its writers were told.
struct Outages {
    node: Node,
    ledgers: Vec<Ledger>,
    random: Random,
}

/// An outage while writers go on.
struct Outage<'a> {
    kind: &'a str,
    node: &'a Node,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    /// The longest that a writer waited for an answer, in milliseconds.
    longest_ms: AtomicU64,
    done: AtomicBool,
}

impl Outages {
    /// Runs an outage from its begin to its end under load, and reads everything back.
    fn survive(&mut self, kind: &str, outage: impl FnOnce(&Outage<'_>)) {
        let state = Outage {
            kind,
            node: &self.node,
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            longest_ms: AtomicU64::new(0),
            done: AtomicBool::new(false),
        };
        thread::scope(|scope| {
            for ledger in &mut self.ledgers {
                let (state, random) = (&state, Random(self.random.next()));
                scope.spawn(move || state.write(ledger, random));
            }
            // However it ends, the writers end.
            let _done = Done(&state.done);
            until(|| state.acknowledged.load(Ordering::Relaxed) > 30, "writes are acknowledged");
            outage(&state);
            let begun = Instant::now();
            until(|| self.node.ready() == 200, "/ready says that the metadata is back");
            let back = begun.elapsed();
            let before = state.acknowledged.load(Ordering::Relaxed);
            until(|| state.acknowledged.load(Ordering::Relaxed) > before + 10, "writes are acknowledged again");
            println!("{kind}: /ready says that it is over after {back:.1?}");
        });
        let Outage { acknowledged, refused, longest_ms, .. } = state;
        let longest = Duration::from_millis(longest_ms.into_inner());
        let (acknowledged, refused) = (acknowledged.into_inner(), refused.into_inner());
        println!("{kind}: {acknowledged} acknowledged, {refused} refused, the longest wait {longest:.1?}");
        assert!(longest < WAIT_MAX, "{kind}: a writer waited {longest:?}");
        verify(&self.node, &mut self.ledgers);
    }
}

impl Outage<'_> {
    fn write(&self, ledger: &mut Ledger, mut random: Random) {
        let mut client = self.node.client();
        while !self.done.load(Ordering::Relaxed) {
            let begun = Instant::now();
            match ledger.step(&mut client, &mut random) {
                Outcome::Acknowledged { .. } => drop(self.acknowledged.fetch_add(1, Ordering::Relaxed)),
                Outcome::Refused { status, text } => {
                    assert_eq!(status, 503, "{}: {text}", self.kind);
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    // A client that is told to come back does not do so at once.
                    thread::sleep(Duration::from_millis(10));
                }
                // A refused upload may close the connection that its body is still coming on.
                Outcome::Broken => client = self.node.client(),
            }
            let waited_ms = u64::try_from(begun.elapsed().as_millis()).unwrap();
            self.longest_ms.fetch_max(waited_ms, Ordering::Relaxed);
        }
    }

    /// `/ready` follows.
    fn is_told_to_balancers(&self) {
        let begun = Instant::now();
        until(|| self.node.ready() == 503, "/ready says that the metadata is away");
        println!("{}: /ready says so after {:.1?}", self.kind, begun.elapsed());
    }

    /// `/ready` follows, and writers are refused.
    fn is_seen(&self) {
        let (kind, begun) = (self.kind, Instant::now());
        self.is_told_to_balancers();
        let before = self.refused.load(Ordering::Relaxed);
        until(|| self.refused.load(Ordering::Relaxed) > before, "writes are refused");
        println!("{kind}: writes are refused after {:.1?}", begun.elapsed());
    }

    /// Who reads is told when to come back. A connection that the node still has, or got before others did, may answer.
    fn is_told_to_readers(&self) {
        let mut client = self.node.client();
        let mut is_refused = || {
            let answer = client.get(&format!("/{BUCKET}/none")).unwrap();
            assert!(matches!(answer.status(), 404 | 503), "{}: {}", self.kind, answer.text());
            let says_when = answer.head.header("retry-after").is_some();
            assert!(answer.status() != 503 || says_when, "{}: it says when to come back", self.kind);
            answer.status() == 503
        };
        let begun = Instant::now();
        while !is_refused() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{}: readers are never refused", self.kind);
            thread::sleep(Duration::from_millis(5));
        }
    }
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Takes all the places of a server that are not kept for its superuser, also those of the node's connections, for as long as
/// what this gives is kept.
fn take_all_places(server: &Postgres) -> (tokio::runtime::Runtime, Vec<impl Sized>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = server.url("anvil_regional").replace("postgres://postgres@", "postgres://anvil:the%20first@");
    let (begun, mut taken, mut in_vain) = (Instant::now(), Vec::new(), 0);
    loop {
        assert!(begun.elapsed() < Duration::from_secs(30), "the node keeps its connections");
        match runtime.block_on(tokio_postgres::connect(&url, tokio_postgres::NoTls)) {
            Ok(connection) => taken.push(connection),
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::TOO_MANY_CONNECTIONS), "{error:?}");
                // The places of those that go are taken next, when the server has noticed that they are free.
                let went = with_server(server, "postgres", THROW_OUT);
                in_vain = if went.is_empty() { in_vain + 1 } else { 0 };
                if in_vain == 10 {
                    return (runtime, taken);
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// The superuser comes without a password, so that a test has a way in; the node has one.
const HOSTS: &str = "local all all trust\nhost all,replication postgres 127.0.0.1/32 trust\n\
                     host all anvil 127.0.0.1/32 scram-sha-256\n";
/// The connections of the node, but not those that others opened under its role. Found first, because conditions have no
/// order and a connection could end itself.
const THROW_OUT: &str = "SELECT pg_terminate_backend(pid) \
    FROM (SELECT pid FROM pg_stat_activity WHERE application_name = 'anvil' OFFSET 0) AS theirs";
/// What a later version may do to a schema that this one goes on serving on: columns and indexes, which it does not know.
const LATER: &str = "BEGIN; ALTER TABLE heads ADD COLUMN later text; ALTER TABLE blobs ADD COLUMN later bigint DEFAULT 7; \
    CREATE INDEX heads_later ON heads (bucket, later) WHERE later IS NOT NULL; \
    INSERT INTO schema_migrations (number, name, sha256, needs) \
    SELECT max(number) + 1, '9999_later', '', max(needs) FROM schema_migrations; COMMIT";
/// A look-up and a commit, each at its deadline, and as much again.
const WAIT_MAX: Duration = Duration::from_secs(50);
