//! Goal: a program of the version before serves while the migration of this version runs under load and behind it, no request
//! fails, and what this version keeps besides is right from its first start on. Method: the regional database is taken back to the
//! schema before the last migration. A program that knows only that cannot be had; so this one is given all that it wants
//! beyond in a schema of its own in front (`search_path`), which no migration touches: of what is migrated it uses what the version
//! before had. `anvil migrate up` sees the true tables. Writers, deleters and listers go on meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::support::content::Random;
use super::support::ledger::{BUCKET, Ledger, Outcome, ledgers, verify};
use super::support::node::{Node, Options, scratch, start_to_fail};
use super::support::postgres::Postgres;
use super::support::s3::Body;
use super::{WRITERS, environment, migrate, options, server, with_server};

#[test]
fn the_version_before_serves_while_a_migration_runs() {
    let (server, scratch) = (server(), scratch());
    let data = scratch.path().join("data");
    let node = Node::start_with(&data, &options(&server, &["--init-cluster"]));
    node.client().put(&format!("/{BUCKET}"), b"").unwrap().succeeded();
    node.stop();
    let regional = |text: &str| with_server(&server, "anvil_regional", text);
    regional("CREATE TABLE public.migrations_of_this AS SELECT * FROM schema_migrations");
    regional(BACK);
    let status = migrate(&server, "status");
    assert_eq!(status.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&status.stdout).contains("0003_usage               pending"), "{status:?}");
    let refused = start_to_fail(&data, &options(&server, &[]));
    assert!(refused.contains("anvil migrate up"), "this version does not serve on it: {refused}");
    regional(VERSION_BEFORE);

    let before = version_before(&server);
    let node = Node::start_with(&data, &before);
    let mut load = Load { ledgers: ledgers(WRITERS), random: Random(0x2e57) };
    load.run(&node, |acknowledged| {
        wait_for(acknowledged, 200);
        let begun = Instant::now();
        let migrated = migrate(&server, "up");
        assert!(migrated.status.success(), "{migrated:?}");
        println!("migrated in {:.1?} under load", begun.elapsed());
        wait_for(acknowledged, acknowledged.load(Ordering::Relaxed) + 200);
    });
    verify(&node, &mut load.ledgers);
    node.kill();
    // What the migration says of who may serve on it, the version before would read too.
    assert_eq!(regional("SELECT max(needs) <= 2 FROM public.schema_migrations"), ["t"]);
    let node = Node::start_with(&data, &before);
    load.run(&node, |acknowledged| wait_for(acknowledged, 100));
    verify(&node, &mut load.ledgers);
    node.stop();
    assert_eq!(regional("SELECT count(*) FROM public.usage"), ["0"], "the version before adds nothing up");

    let node = Node::start_with(&data, &options(&server, &[]));
    assert_eq!(regional(HELD), regional(COUNTED));
    assert!(regional(HELD).len() == 2, "a bucket and a tenant");
    verify(&node, &mut load.ledgers);
    load.run(&node, |acknowledged| wait_for(acknowledged, 100));
    verify(&node, &mut load.ledgers);
    node.stop();
    assert_eq!(regional(HELD), regional(COUNTED), "this version adds up");
}

/// A node that finds beyond the schema of the version before what it needs in a schema of its own.
fn version_before(server: &Postgres) -> Options {
    let mut environment = environment(server);
    for (name, url) in &mut environment {
        if name == "REGIONAL_DATABASE_URL" {
            *url = url.replace("postgres@", "version_before@");
        }
    }
    Options { environment, ..Options::default() }
}

/// Clients that write, delete and list.
struct Load {
    ledgers: Vec<Ledger>,
    random: Random,
}

impl Load {
    /// Goes on until `work` is done, which hears how much was acknowledged. No request fails: where it is told to come back it is
    /// served within its deadline.
    fn run(&mut self, node: &Node, work: impl FnOnce(&AtomicU64)) {
        let (acknowledged, told_to_wait, ended) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            let ended = Ended(&ended);
            for ledger in &mut self.ledgers {
                let (mut client, mut random) = (node.client(), Random(self.random.next()));
                let (acknowledged, told_to_wait, ended) = (&acknowledged, &told_to_wait, ended.0);
                scope.spawn(move || {
                    while !ended.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        loop {
                            match ledger.step(&mut client, &mut random) {
                                Outcome::Acknowledged { .. } => break,
                                Outcome::Refused { status: 503, .. } if begun.elapsed() < DEADLINE => {
                                    told_to_wait.fetch_add(1, Ordering::Relaxed);
                                    thread::sleep(Duration::from_millis(100));
                                }
                                other => panic!("a request failed: {other:?}"),
                            }
                        }
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let (mut client, ended_too) = (node.client(), ended.0);
            scope.spawn(move || {
                while !ended_too.load(Ordering::Relaxed) {
                    let list = [("list-type", "2")];
                    let listed = client.request("GET", &format!("/{BUCKET}"), &list, &[], Body::Signed(b""));
                    let status = listed.expect("a list is answered").status();
                    assert!(matches!(status, 200 | 503), "a list was answered with {status}");
                }
            });
            work(&acknowledged);
        });
        println!("{} acknowledged, {} told to come back", acknowledged.into_inner(), told_to_wait.into_inner());
    }
}

/// Ends the load when it goes, also by a panic.
struct Ended<'e>(&'e AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn wait_for(acknowledged: &AtomicU64, count: u64) {
    let begun = Instant::now();
    while acknowledged.load(Ordering::Relaxed) < count {
        assert!(begun.elapsed() < Duration::from_secs(300), "the load goes on");
        thread::sleep(Duration::from_millis(1));
    }
}

/// For how long a client goes on asking.
const DEADLINE: Duration = Duration::from_secs(60);
/// Undoes the last migration.
const BACK: &str = "BEGIN; DROP TABLE usage, usage_writers, tenant_quotas; \
    ALTER TABLE buckets DROP COLUMN quota_bytes, DROP COLUMN quota_objects; \
    DELETE FROM schema_migrations WHERE name = '0003_usage'; COMMIT";
/// What this version wants beyond the schema of the one before, in front of that; and that it is told so. A bucket's row is
/// only read there.
const VERSION_BEFORE: &str = "BEGIN; CREATE ROLE version_before LOGIN SUPERUSER; CREATE SCHEMA version_before; \
    ALTER ROLE version_before SET search_path = version_before, public; SET LOCAL search_path = version_before, public; \
    CREATE VIEW version_before.buckets AS \
        SELECT *, NULL::bigint AS quota_bytes, NULL::bigint AS quota_objects FROM public.buckets; \
    CREATE TABLE version_before.tenant_quotas (tenant bigint PRIMARY KEY, quota_bytes bigint, quota_objects bigint); \
    CREATE TABLE version_before.usage (scope smallint, id bigint, node bigint, objects bigint, object_bytes bigint, \
        upload_bytes bigint, PRIMARY KEY (scope, id, node)); \
    CREATE TABLE version_before.usage_writers (node bigint PRIMARY KEY, incarnation bigint NOT NULL); \
    ALTER TABLE public.migrations_of_this SET SCHEMA version_before; \
    ALTER TABLE version_before.migrations_of_this RENAME TO schema_migrations; COMMIT";
/// What is held, as it is kept.
const HELD: &str = "SELECT concat_ws(' ', scope, id, sum(objects), sum(object_bytes), sum(upload_bytes)) FROM usage \
    GROUP BY scope, id HAVING sum(objects) <> 0 OR sum(upload_bytes) <> 0 ORDER BY scope, id";
/// The same, counted.
const COUNTED: &str = "WITH held AS ( \
        SELECT b.id, b.tenant, (SELECT count(*) FROM heads WHERE bucket = b.id) AS objects, \
            (SELECT coalesce(sum(size), 0) FROM heads WHERE bucket = b.id) AS object_bytes, \
            (SELECT coalesce(sum(p.size), 0) FROM uploads AS u JOIN parts AS p USING (upload) \
                WHERE u.bucket = b.id) AS upload_bytes \
        FROM buckets AS b) \
    SELECT concat_ws(' ', 1, id, objects, object_bytes, upload_bytes) FROM held WHERE objects + upload_bytes > 0 \
    UNION ALL SELECT concat_ws(' ', 2, tenant, sum(objects), sum(object_bytes), sum(upload_bytes)) FROM held \
    WHERE objects + upload_bytes > 0 GROUP BY tenant";
