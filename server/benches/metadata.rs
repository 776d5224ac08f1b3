//! What batching is worth on PostgreSQL: PUTs, commits and look-ups per second and their p99 with 1, 16 and 256 in flight, gathered
//! as a node gathers them, and with one change or question in each transaction.
//!
//! `cargo bench -p anvil --bench metadata [-- SECONDS]` starts a server of its own (`ANVIL_PG_BIN`, or Debian's) and takes it
//! away again. A PUT is the whole story of an object of 4 KiB, half of them over one that is there: a look-up, its bytes
//! durable on a disk, its commit. A commit is the last of these alone.
//!
//! `cargo bench -p anvil --bench metadata -- list [ROWS]` fills a bucket with as many keys, 10 million unless told otherwise, and
//! prints how long pages of it take. The rows take about 0.6 GB per million, in the system's directory for temporary files.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anvil::metadata::postgres::cluster::Databases;
use anvil::metadata::postgres::schema::{REGIONAL, migrate};
use anvil::metadata::postgres::{Database, Postgres, Seen};
use anvil_model::ids::{BlobId, DiskId, Incarnation, NodeId, TenantId};
use anvil_model::io::{Device as _, World};
use anvil_model::limits::PAGE_KEYS_MAX;
use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, ChecksumType, Etag, Headers, Key, WriteConditions};
use anvil_model::profile::Profile;
use anvil_node::body::{Body, Trailer};
use anvil_node::classes::Classes;
use anvil_node::list::{After, ListObjects};
use anvil_node::metadata::batch::{Limits, Service, mailboxes};
use anvil_node::metadata::mutation::{BlobClaim, BucketRef, Change, NewObject, Outcome};
use anvil_node::metadata::query::{Answer, BucketPath, Query};
use anvil_node::metadata::rows::StorageClass;
use anvil_node::metadata::{Client, Metadata as _};
use anvil_node::put::{Expected, PutObject};
use anvil_node::{Caller, Node};
use anvil_runtime::{Buffer, Core, Disk, DiskOptions, Io, Options};
use anvil_store::{FormatOptions, Store, extent_bytes, format, mail, recover};
use futures_util::future::{join, join_all};

#[path = "../tests/support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "tests use more of it")]
mod server;

const TENANT: TenantId = TenantId(1);
const NODE: NodeId = NodeId(1);
const BUCKET: &str = "bench";
const IN_FLIGHT: [usize; 3] = [1, 16, 256];
const SECONDS: u64 = 5;
const OBJECT_BYTES: usize = 4096;
const DISK: DiskId = DiskId(1);
const DISK_BYTES: u64 = 8 << 30;
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
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let disk = DiskOptions { capacity_bytes: Some(DISK_BYTES), create: true, ..DiskOptions::default() };
    let disk = Disk::open(&folder.path().join("disk"), &disk).expect("a disk of files is made");
    let options = Options {
        cpus: anvil_runtime::available_cpus().into_iter().take(1).collect(),
        io: Io::Auto,
        ..Options::default()
    };
    let cores = anvil_runtime::start(options, move |core| {
        let postgres = postgres.lock().expect("nobody panicked").take().expect("there is one core");
        let disk = disk.clone();
        async move {
            let store = make_store(&core, &disk).await;
            let (mailboxes, inbox) = mailboxes(limits);
            let service = Service::new(core.clone(), postgres, inbox, limits);
            let figures = service.figures();
            let loading = async {
                let load = Load::begin(&core, &store, Client::new(core.clone(), mailboxes)).await;
                for what in [What::Put, What::Commit, What::LookUp] {
                    for in_flight in IN_FLIGHT {
                        let before = *figures.borrow();
                        let mut waits = load.run(&core, what, in_flight, time).await;
                        let after = *figures.borrow();
                        let of = |all: anvil_node::metadata::batch::Figures| {
                            let batches = if what == What::LookUp { all.look_ups } else { all.commits };
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
                        let what = what.name();
                        println!("| {what}, {way} | {in_flight} | {rate:.0} | {p50:.2} | {p99:.2} | {gathered:.1} |");
                    }
                }
            };
            // Serves until the load, which has the mailboxes, is gone.
            join(service.run(), loading).await;
            store.close().await;
        }
    });
    cores.expect("a core starts").join().expect("no core panicked");
    thread.join();
}

/// A store on a blank disk.
async fn make_store(core: &Core, disk: &Disk) -> Store<Core> {
    let device = disk.device(core);
    let extent_bytes = extent_bytes(device.geometry().capacity_bytes_max);
    let blank = FormatOptions { disk: DISK, cluster: 1, extent_bytes };
    format(core, &device, blank).await.expect("a blank disk is formatted");
    let recovered = recover(core, vec![(DISK, disk.device(core))], 1, 0).await.expect("nothing is on it");
    let share = recovered.into_shares().0.pop().expect("one core has one share");
    let mail = mail(1).pop().expect("one core has one mailbox");
    Store::open(core.clone(), vec![(DISK, device)], share, mail)
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

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Put,
    Commit,
    LookUp,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Put => "PUTs",
            Self::Commit => "commits",
            Self::LookUp => "look-ups",
        }
    }
}

/// What is asked for, again and again.
struct Load {
    node: Node<Core>,
    client: Client<Core>,
    bucket: BucketRef,
    incarnation: Incarnation,
    next: Cell<u64>,
}

impl Load {
    async fn begin(core: &Core, store: &Store<Core>, client: Client<Core>) -> Self {
        let Ok(Outcome::WriterOpened(incarnation)) = client.commit(Change::OpenWriter { node: NODE }).await else {
            panic!("a life is opened");
        };
        let create = Change::CreateBucket { tenant: TENANT, name: bucket_name(), region: "bench".to_owned() };
        let Ok(Outcome::BucketCreated(bucket)) = client.commit(create).await else { panic!("the name is free") };
        store.set_writer(NODE, incarnation);
        let classes = Arc::new(Classes::standard_only(Profile::SINGLE));
        let node = Node::new(core.clone(), store.clone(), client.clone(), "bench", classes);
        Self { node, client, bucket, incarnation, next: Cell::new(1) }
    }

    /// Keeps so many in flight for this long. Gives how long each one waited.
    async fn run(&self, core: &Core, what: What, in_flight: usize, time: Duration) -> Vec<Duration> {
        let waits = RefCell::new(Vec::new());
        let until = core.now() + time;
        let callers = (0..in_flight).map(async |_| {
            while core.now() < until {
                let begun = core.now();
                match what {
                    What::Put => self.put().await,
                    What::Commit => self.commit().await,
                    What::LookUp => self.look_up().await,
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

    async fn put(&self) {
        let put = PutObject {
            caller: Caller { tenant: TENANT },
            bucket: bucket_name(),
            key: some_key(self.next()),
            headers: Headers::default(),
            expected: Expected::default(),
            conditions: WriteConditions::default(),
            storage_class: None,
        };
        self.node.put_object(put, &mut Payload { left: OBJECT_BYTES }).await.expect("nothing speaks against it");
    }

    async fn commit(&self) {
        // Numbers that the node does not draw.
        let sequence = self.next() + (1 << 40);
        let blob = BlobId { node: NODE, incarnation: self.incarnation, sequence };
        let checksum = Checksum {
            algorithm: ChecksumAlgorithm::Crc64Nvme,
            of: ChecksumType::FullObject,
            value: sequence.to_be_bytes().to_vec(),
        };
        let object = NewObject {
            etag: Etag(format!("{sequence:032x}")),
            size: OBJECT_BYTES as u64,
            checksum,
            crc64nvme: sequence,
            headers: Headers::default(),
            tags: Vec::new(),
            storage_class: StorageClass::Standard,
            blob: Some(BlobClaim { blob, profile: Profile::SINGLE, length: OBJECT_BYTES as u64, places: Vec::new() }),
        };
        let (object, conditions) = (Box::new(object), WriteConditions::default());
        let put = Change::PutObject { bucket: self.bucket, key: some_key(sequence), object, conditions };
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

/// Zeros that are there.
struct Payload {
    left: usize,
}

impl Body<Buffer> for Payload {
    type Error = Infallible;

    fn length(&self) -> u64 {
        OBJECT_BYTES as u64
    }

    async fn fill(&mut self, mut buffer: Buffer, range: Range<usize>) -> (Result<usize, Infallible>, Buffer) {
        let count = self.left.min(range.len());
        buffer[range.start..][..count].fill(0);
        self.left -= count;
        (Ok(count), buffer)
    }

    async fn read(&mut self, into: &mut Vec<u8>, max: usize) -> Result<usize, Infallible> {
        let count = self.left.min(max);
        into.resize(into.len() + count, 0);
        self.left -= count;
        Ok(count)
    }

    async fn collect(&mut self) -> Result<Vec<u8>, Infallible> {
        Ok(vec![0; std::mem::take(&mut self.left)])
    }

    async fn finish(&mut self) -> Result<Trailer, Infallible> {
        Ok(Trailer::default())
    }
}

/// Every second one comes again half a thousand later.
fn some_key(sequence: u64) -> Key {
    key(if sequence.is_multiple_of(2) { sequence } else { sequence.saturating_sub(501) })
}

fn bucket_name() -> BucketName {
    BucketName::new(BUCKET).expect("it is a name")
}

fn key(number: u64) -> Key {
    Key::new(format!("bench/{number:012}").into_bytes()).expect("it is a key")
}
