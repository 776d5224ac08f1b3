//! What batching is worth on PostgreSQL: commits and look-ups per second and their p99 with 1, 16 and 256 in flight, gathered
//! as a node gathers them, and with one change or question in each transaction.
//!
//! `cargo bench -p anvil --bench metadata [-- SECONDS]` starts a server of its own (`ANVIL_PG_BIN`, or Debian's) and takes it
//! away again. A commit is the PUT of a small object, half of them over one that is there: what its data costs is not in it.
//!
//! `cargo bench -p anvil --bench metadata -- list [ROWS]` fills a bucket with as many keys, 10 million unless told otherwise, and
//! prints how long pages of it take. The rows take about 0.6 GB per million, in the system's directory for temporary files.

use std::cell::{Cell, RefCell};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anvil::metadata::postgres::cluster::Databases;
use anvil::metadata::postgres::schema::{REGIONAL, migrate};
use anvil::metadata::postgres::{Database, Postgres, Seen};
use anvil_model::ids::{BlobId, Incarnation, NodeId, TenantId};
use anvil_model::io::World;
use anvil_model::limits::PAGE_KEYS_MAX;
use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, ChecksumType, Etag, Headers, Key, WriteConditions};
use anvil_model::profile::Profile;
use anvil_node::list::{After, ListObjects};
use anvil_node::metadata::batch::{Limits, Service, mailboxes};
use anvil_node::metadata::mutation::{BlobClaim, BucketRef, Change, NewObject, Outcome};
use anvil_node::metadata::query::{Answer, BucketPath, Query};
use anvil_node::metadata::rows::StorageClass;
use anvil_node::metadata::{Client, Metadata as _};
use anvil_runtime::{Core, Io, Options};
use futures_util::future::{join, join_all};

#[path = "../tests/support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "tests use more of it")]
mod server;

const TENANT: TenantId = TenantId(1);
const NODE: NodeId = NodeId(1);
const BUCKET: &str = "bench";
const IN_FLIGHT: [usize; 3] = [1, 16, 256];
const SECONDS: u64 = 5;
const LISTED_ROWS: u64 = 10_000_000;
/// Keys that share a prefix.
const LISTED_TOGETHER: u64 = 2_000;
const LISTED_TIMES: usize = 200;

/// One of each: what a node has, on the connections that it has.
const ALONE: Limits = Limits { mutations: 1, queries: 1, ..Limits::DATABASE };

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = words.iter().position(|word| word == "list") {
        return list(words.get(at + 1).and_then(|word| word.parse().ok()).unwrap_or(LISTED_ROWS));
    }
    // Cargo itself says --bench.
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(SECONDS);
    let server = server::Postgres::start();
    println!("| | in flight | per second | p50 ms | p99 ms | in a batch |");
    println!("| --- | --: | --: | --: | --: | --: |");
    for (way, limits) in [("batched", Limits::DATABASE), ("one by one", ALONE)] {
        measure(&server, way, limits, Duration::from_secs(seconds));
    }
}

/// All figures of one way, on a database of its own.
fn measure(server: &server::Postgres, way: &'static str, limits: Limits, time: Duration) {
    let (database, seen) = make_database(server);
    let databases = Databases { global: database.clone(), regional: database };
    let (postgres, thread) = Postgres::start(databases, NodeId(1), seen, Box::new(|_, _| {}), Box::new(|_| {}))
        .expect("there is a thread to be had");
    let postgres = Mutex::new(Some(postgres));
    let options = Options {
        cpus: anvil_runtime::available_cpus().into_iter().take(1).collect(),
        io: Io::Auto,
        ..Options::default()
    };
    let cores = anvil_runtime::start(options, move |core| {
        let postgres = postgres.lock().expect("nobody panicked").take().expect("there is one core");
        async move {
            let (mailboxes, inbox) = mailboxes(limits);
            let service = Service::new(core.clone(), postgres, inbox, limits);
            let figures = service.figures();
            let loading = async {
                let load = Load::begin(Client::new(core.clone(), mailboxes)).await;
                for (what, is_commit) in [("commits", true), ("look-ups", false)] {
                    for in_flight in IN_FLIGHT {
                        let before = *figures.borrow();
                        let mut waits = load.run(&core, is_commit, in_flight, time).await;
                        let after = *figures.borrow();
                        let of = |all: anvil_node::metadata::batch::Figures| {
                            let batches = if is_commit { all.commits } else { all.look_ups };
                            (batches.requests, batches.latency.count())
                        };
                        let ((requests_before, batches_before), (requests, batches)) = (of(before), of(after));
                        waits.sort_unstable();
                        let at = |percent: usize| waits[(waits.len() - 1) * percent / 100].as_secs_f64() * 1e3;
                        #[allow(clippy::cast_precision_loss, reason = "counts of a few seconds")]
                        let (rate, gathered) = (
                            waits.len() as f64 / time.as_secs_f64(),
                            (requests - requests_before) as f64 / (batches - batches_before).max(1) as f64,
                        );
                        let (p50, p99) = (at(50), at(99));
                        println!("| {what}, {way} | {in_flight} | {rate:.0} | {p50:.2} | {p99:.2} | {gathered:.1} |");
                    }
                }
            };
            // Serves until the load, which has the mailboxes, is gone.
            join(service.run(), loading).await;
        }
    });
    cores.expect("a core starts").join().expect("no core panicked");
    thread.join();
}

/// How long pages of a large bucket take: at its begin, in its midst and near its end, and rolled up by a delimiter.
fn list(rows: u64) {
    let server = server::Postgres::start();
    let (database, seen) = make_database(&server);
    let name = database.place().split(' ').next().expect("it has a name").to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
    let begun = Instant::now();
    let sizes = runtime.block_on(async {
        ask(&server, &name, &fill(rows)).await;
        ask(&server, &name, "VACUUM ANALYZE heads").await;
        ask(&server, &name, "SELECT pg_size_pretty(pg_database_size(current_database()))").await
    });
    println!("{rows} rows in {:.0?}, {}", begun.elapsed(), sizes.unwrap_or_default());
    let databases = Databases { global: database.clone(), regional: database };
    let (postgres, thread) = Postgres::start(databases, NodeId(1), seen, Box::new(|_, _| {}), Box::new(|_| {}))
        .expect("there is a thread to be had");
    let after = |number: u64| After::Key(format!("{:04}/{number:012}", number / LISTED_TOGETHER).into_bytes());
    println!("| page of 1,000 | p50 ms | p99 ms |");
    println!("| --- | --: | --: |");
    for (what, delimiter, begins) in [
        ("the first one", "", After::Start),
        ("in the midst", "", after(rows / 2)),
        ("the last one", "", after(rows - PAGE_KEYS_MAX as u64 - 1)),
        ("of common prefixes", "/", After::Start),
    ] {
        let list =
            ListObjects { delimiter: delimiter.into(), after: begins, max: PAGE_KEYS_MAX, ..ListObjects::default() };
        let query = Query::List { bucket: BucketPath { tenant: TENANT, name: bucket_name() }, list };
        let mut times: Vec<Duration> = (0..LISTED_TIMES)
            .map(|_| {
                let begun = Instant::now();
                let answer = runtime.block_on(postgres.look_up(vec![query.clone()])).pop();
                let Some(Ok(Answer::List(page))) = answer else { panic!("a page is {answer:?}") };
                assert!(!page.entries.is_empty(), "{what}");
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        println!("| {what} | {:.2} | {:.2} |", at(50), at(99));
    }
    drop(postgres);
    thread.join();
}

/// A bucket with keys below common prefixes, as its objects would leave it.
fn fill(rows: u64) -> String {
    format!(
        "INSERT INTO buckets (id, name, tenant, region, state, generation, created_at_ms, versioning, ownership, \
         public_access_block, lock_enabled) VALUES (1, '{BUCKET}', {}, 'bench', 1, 1, 0, 0, 1, 15, false); \
         INSERT INTO heads (bucket, key, generation, write_id, is_null, delete_marker, owner, etag, size, checksum_algorithm, \
         checksum_of, checksum, crc64nvme, last_modified_ms, content, blob, blob_offset, blob_length, storage_class, legal_hold) \
         SELECT 1, convert_to(lpad((n / {LISTED_TOGETHER})::text, 4, '0') || '/' || lpad(n::text, 12, '0'), 'UTF8'), n + 1, \
         decode(md5(n::text), 'hex'), true, false, {}, md5(n::text), 4096, 3, 1, decode(lpad(to_hex(n), 16, '0'), 'hex'), n, \
         1700000000000 + n, 1, decode(lpad(to_hex(n), 32, '0'), 'hex'), 0, 4096, 1, false FROM generate_series(0::bigint, {rows} - 1) n; \
         SELECT setval('generations', {rows} + 1)",
        TENANT.0, TENANT.0
    )
}

/// A migrated database without rows.
fn make_database(server: &server::Postgres) -> (Database, Seen) {
    let name = server.fresh_name();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
    let lineage = runtime.block_on(async {
        ask(server, "postgres", &format!("CREATE DATABASE {name}")).await;
        let database = Database::parse("regional", &server.url(&name)).expect("its URL is one");
        tokio::task::LocalSet::new().run_until(migrate(&database, REGIONAL)).await.expect("it is new");
        ask(server, &name, "SELECT encode(lineage, 'hex') FROM timeline").await.expect("it has one")
    });
    let seen = Seen { lineage: u128::from_str_radix(&lineage, 16).expect("it is hexadecimal"), change: None };
    (Database::parse("regional", &server.url(&name)).expect("its URL is one"), seen)
}

/// The first column of the first row that a statement gives.
async fn ask(server: &server::Postgres, database: &str, text: &str) -> Option<String> {
    let connected = tokio_postgres::connect(&server.url(database), tokio_postgres::NoTls).await;
    let (client, connection) = connected.expect("the server takes connections");
    let driver = tokio::spawn(connection);
    let answers = client.simple_query(text).await.expect("the statement is right");
    driver.abort();
    answers.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}

/// What is asked for, again and again.
struct Load {
    client: Client<Core>,
    bucket: BucketRef,
    incarnation: Incarnation,
    next: Cell<u64>,
}

impl Load {
    async fn begin(client: Client<Core>) -> Self {
        let Ok(Outcome::WriterOpened(incarnation)) = client.commit(Change::OpenWriter { node: NODE }).await else {
            panic!("a life is opened");
        };
        let create = Change::CreateBucket { tenant: TENANT, name: bucket_name(), region: "bench".to_owned() };
        let Ok(Outcome::BucketCreated(bucket)) = client.commit(create).await else { panic!("the name is free") };
        Self { client, bucket, incarnation, next: Cell::new(1) }
    }

    /// Keeps so many in flight for this long. Gives how long each one waited.
    async fn run(&self, core: &Core, is_commit: bool, in_flight: usize, time: Duration) -> Vec<Duration> {
        let waits = RefCell::new(Vec::new());
        let until = core.now() + time;
        let callers = (0..in_flight).map(async |_| {
            while core.now() < until {
                let begun = core.now();
                if is_commit {
                    self.commit().await
                } else {
                    self.look_up().await
                }
                waits.borrow_mut().push(core.now().since(begun));
            }
        });
        join_all(callers).await;
        waits.take()
    }

    fn next(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    async fn commit(&self) {
        let sequence = self.next();
        let blob = BlobId { node: NODE, incarnation: self.incarnation, sequence };
        let checksum = Checksum {
            algorithm: ChecksumAlgorithm::Crc64Nvme,
            of: ChecksumType::FullObject,
            value: sequence.to_be_bytes().to_vec(),
        };
        let object = NewObject {
            etag: Etag(format!("{sequence:032x}")),
            size: 4096,
            checksum,
            crc64nvme: sequence,
            headers: Headers::default(),
            tags: Vec::new(),
            storage_class: StorageClass::Standard,
            blob: Some(BlobClaim { blob, profile: Profile::SINGLE, length: 4096, places: Vec::new() }),
        };
        // Every second one comes again half a thousand later.
        let number = if sequence.is_multiple_of(2) { sequence } else { sequence.saturating_sub(501) };
        let (object, conditions) = (Box::new(object), WriteConditions::default());
        let put = Change::PutObject { bucket: self.bucket, key: key(number), object, conditions };
        self.client.commit(put).await.expect("nothing speaks against it");
    }

    async fn look_up(&self) {
        let bucket = BucketPath { tenant: TENANT, name: bucket_name() };
        let number = 2 + self.next() % 1000;
        let object = Query::Object { bucket, key: key(number), read_from: None };
        // A key that is not there is looked for like one that is.
        let _ = self.client.look_up(object).await;
    }
}

fn bucket_name() -> BucketName {
    BucketName::new(BUCKET).expect("it is a name")
}

fn key(number: u64) -> Key {
    Key::new(format!("bench/{number:012}").into_bytes()).expect("it is a key")
}
