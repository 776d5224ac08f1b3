//! Goal: a bucket's name belongs to one region at most, whatever crashes between the two databases, and is free again behind
//! the bucket. Method: two regions on one global database, each with a database and a node of its own, that make and delete
//! buckets of the same names; SIGKILLs of both; while both are dead, the databases are compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::support::command::told;
use super::support::content::Random;
use super::support::node::{self, Node, Options, scratch};
use super::support::postgres::Postgres;
use super::support::s3::Client;
use super::{create_database, until, with_server};

/// Regions that share a global database.
struct World {
    server: Postgres,
    scratch: tempfile::TempDir,
}

impl World {
    fn new(regions: &[&str]) -> Self {
        let world = Self { server: Postgres::start(), scratch: scratch() };
        create_database(&world.server, "anvil_global");
        regions.iter().for_each(|region| create_database(&world.server, &format!("anvil_{region}")));
        world
    }

    fn data(&self, region: &str) -> PathBuf {
        self.scratch.path().join(region)
    }

    fn start(&self, region: &str, arguments: &[&str]) -> Node {
        let environment = [
            ("GLOBAL_DATABASE_URL", self.server.url("anvil_global")),
            ("REGIONAL_DATABASE_URL", self.server.url(&format!("anvil_{region}"))),
            ("REGION", region.to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Node::start_with(&self.data(region), &Options { arguments, environment, ..Options::default() })
    }

    /// Names of buckets that a region's database has.
    fn buckets(&self, region: &str) -> Vec<String> {
        with_server(&self.server, &format!("anvil_{region}"), "SELECT name FROM buckets ORDER BY name")
    }

    /// Names that the global database says a region has.
    fn names(&self, region: &str) -> Vec<String> {
        let sql = format!("SELECT name FROM bucket_names WHERE region = '{region}' ORDER BY name");
        with_server(&self.server, "anvil_global", &sql)
    }
}

fn client(node: &Node, region: &str) -> Client {
    node.client().in_region(region)
}

fn admin(node: &Node, data: &Path, words: &[&str]) -> serde_json::Value {
    let mut command = Command::new(node::anvil());
    command.arg("admin").args(words).arg("--endpoint").arg(node.endpoint()).arg("--data-dir").arg(data);
    serde_json::from_str(&told(command.args(["--output", "json"]).output().unwrap())).unwrap()
}

#[test]
fn a_name_is_of_one_region_and_free_behind_its_bucket() {
    let world = World::new(&["here", "there"]);
    let here = world.start("here", &["--init-cluster"]);
    // A region may be known before its first node comes, which needs no --init-cluster then.
    let data = world.data("here");
    let made = admin(&here, &data, &["regions", "create", "--name", "there"]);
    assert_eq!(made, serde_json::json!({ "name": "there", "joined": false, "buckets": 0 }));
    let mut migration = Command::new(node::anvil());
    migration.args(["migrate", "up"]).env("GLOBAL_DATABASE_URL", world.server.url("anvil_global"));
    told(migration.env("REGIONAL_DATABASE_URL", world.server.url("anvil_there")).output().unwrap());
    let there = world.start("there", &[]);
    let (mut one, mut other) = (client(&here, "here"), client(&there, "there"));

    one.put("/shared", b"").unwrap().succeeded();
    one.put("/shared/key", b"bytes").unwrap().succeeded();
    let refused = other.put("/shared", b"").unwrap();
    assert_eq!((refused.status(), refused.elements("Code")), (409, vec!["BucketAlreadyOwnedByYou".to_owned()]));
    // Of the own region, too, it is the first one's.
    assert_eq!(one.put("/shared", b"").unwrap().status(), 409);
    assert_eq!(other.get("/shared/key").unwrap().status(), 404);
    until(|| world.names("here") == ["shared"], "the name is held");
    let regions = admin(&here, &data, &["region", "list"]);
    assert_eq!(
        regions,
        serde_json::json!([
            { "name": "here", "joined": true, "buckets": 1 },
            { "name": "there", "joined": true, "buckets": 0 },
        ])
    );

    one.delete("/shared/key").unwrap().succeeded();
    one.delete("/shared").unwrap().succeeded();
    until(|| world.names("here").is_empty(), "the name is free behind the bucket");
    other.put("/shared", b"").unwrap().succeeded();
    assert_eq!(one.put("/shared", b"").unwrap().status(), 409);
    let id = |region: &str| with_server(&world.server, &format!("anvil_{region}"), "SELECT max(id) FROM buckets");
    assert!(id("there")[0].parse::<i64>().unwrap() > 1 << 48, "no two regions give one id");

    // Deleted by force it is free when the task is done.
    other.put("/shared/key", b"bytes").unwrap().succeeded();
    admin(&there, &world.data("there"), &["bucket", "delete", "shared", "--force"]);
    until(|| world.names("there").is_empty(), "the name is free behind the task");
    one.put("/shared", b"").unwrap().succeeded();
    here.stop();
    there.stop();
}

/// What a region's writer knows of each name: whether its bucket is there, if that was acknowledged.
type Ledger = BTreeMap<String, Option<bool>>;

#[test]
fn no_name_is_owned_twice_whatever_crashes() {
    const REGIONS: [&str; 2] = ["here", "there"];
    const ROUNDS: u64 = 6;
    let world = World::new(&REGIONS);
    let mut random = Random(0x0e91);
    println!("seed {:#x}", random.0);
    let mut ledgers: [Ledger; 2] = Default::default();
    let mut made = [0, 0];
    for round in 0..ROUNDS {
        let nodes = REGIONS.map(|region| world.start(region, &["--init-cluster"]));
        let done = AtomicU64::new(0);
        let enough = 60 + random.below(60);
        thread::scope(|scope| {
            for (at, (ledger, made)) in ledgers.iter_mut().zip(&mut made).enumerate() {
                let (mut client, mut random, done) = (client(&nodes[at], REGIONS[at]), Random(random.next()), &done);
                scope.spawn(move || {
                    loop {
                        let name = format!("name-{}", random.below(4));
                        let makes = random.below(2) == 0;
                        let path = format!("/{name}");
                        let answer = if makes { client.put(&path, b"") } else { client.delete(&path) };
                        let Ok(answer) = answer else {
                            ledger.insert(name, None);
                            return;
                        };
                        done.fetch_add(1, Ordering::Relaxed);
                        match (makes, answer.status()) {
                            (true, 200) => {
                                *made += 1;
                                ledger.insert(name, Some(true));
                            }
                            (false, 204) => drop(ledger.insert(name, Some(false))),
                            // Somebody has it, or it is not here, or two came at once.
                            (true, 409) | (false, 404) => {}
                            (_, 503) => drop(ledger.insert(name, None)),
                            (_, status) => panic!("{path}: {status} {}", answer.text()),
                        }
                    }
                });
            }
            until(|| done.load(Ordering::Relaxed) >= enough, "names come and go");
            nodes.into_iter().for_each(Node::kill);
        });
        let [here, there] = REGIONS.map(|region| world.buckets(region));
        assert!(!here.iter().any(|name| there.contains(name)), "round {round}: {here:?} and {there:?}");
        for (ledger, there) in ledgers.iter().zip([&here, &there]) {
            for (name, known) in ledger {
                assert!(known.is_none_or(|known| known == there.contains(name)), "round {round}: {name} in {there:?}");
            }
        }
        println!("round {round}: {} answers, buckets {here:?} and {there:?}", done.into_inner());
    }
    assert!(made.iter().all(|&made| made > 10), "both regions made buckets: {made:?}");
    // What was cut short is found: names and buckets are the same again.
    let nodes = REGIONS.map(|region| world.start(region, &[]));
    for region in REGIONS {
        until(|| world.names(region) == world.buckets(region), "names are those of the buckets");
    }
    nodes.into_iter().for_each(Node::stop);
}
