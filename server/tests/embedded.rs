//! The embedded metadata as it ships: the log on a disk of the real store, SQLite beside it, one core of the runtime.

use std::cell::Cell;
use std::fs;
use std::future::Future;
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use anvil::metadata::SqliteIndex;
use anvil::metadata::threads::FILE_NAME;
use anvil_model::ids::{BucketId, DiskId, Incarnation, NodeId, TenantId, WriteId};
use anvil_model::io::{Device as _, World as _};
use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, ChecksumType, Etag, Headers, Key, WriteConditions};
use anvil_model::profile::Profile;
use anvil_model::time::WallTime;
use anvil_node::list::{Entry, ListObjects};
use anvil_node::metadata::decide::Decision;
use anvil_node::metadata::embedded::{Embedded, Index, IndexError, OpenError, Replayed, replay};
use anvil_node::metadata::log::Batch;
use anvil_node::metadata::mutation::{BlobClaim, BucketRef, Change, Mutation, NewObject, Outcome};
use anvil_node::metadata::query::{Answer, BucketPath, Query};
use anvil_node::metadata::rows::{Counters, RowsError, StorageClass};
use anvil_node::metadata::{Metadata, MetadataError, Refusal};
use anvil_runtime::{Core, Disk, DiskOptions, Options, available_cpus, start};
use anvil_store::{
    FormatOptions, Identity, LogWriter, Origin, OriginPayload, SmallCopy, Store, extent_bytes, format, identify, mail,
    recover,
};

const NODE: NodeId = NodeId(1);
const TENANT: TenantId = TenantId(1);
const DISK: DiskId = DiskId(77);

type Shipped = Embedded<Core, Faulty>;

/// SQLite, whose commits can be made to fail.
struct Faulty {
    index: SqliteIndex,
    /// So many commits fail from now on.
    failing: Rc<Cell<u32>>,
}

impl Faulty {
    fn fails(&self) -> bool {
        let left = self.failing.get();
        self.failing.set(left.saturating_sub(1));
        left > 0
    }

    fn error() -> IndexError {
        RowsError::Failed("made to fail".to_owned()).into()
    }
}

impl Index for Faulty {
    async fn counters(&self) -> Result<Counters, IndexError> {
        self.index.counters().await
    }
    async fn reset(&self, lineage: u128) -> Result<(), IndexError> {
        self.index.reset(lineage).await
    }
    async fn replay(&self, batches: Vec<Batch>) -> Result<(), IndexError> {
        if self.fails() { Err(Self::error()) } else { self.index.replay(batches).await }
    }
    async fn decide(
        &self,
        batch: Arc<[Mutation]>,
        range: Range<usize>,
        number: u64,
        now: WallTime,
    ) -> Result<Decision, IndexError> {
        self.index.decide(batch, range, number, now).await
    }
    async fn commit(&self) -> Result<(), IndexError> {
        if self.fails() {
            self.index.rollback().await?;
            return Err(Self::error());
        }
        self.index.commit().await
    }
    async fn rollback(&self) -> Result<(), IndexError> {
        self.index.rollback().await
    }
    async fn look_up(&self, batch: Vec<Query>) -> Vec<Result<Answer, MetadataError>> {
        self.index.look_up(batch).await
    }
}

/// What a life of the node has.
struct Life {
    metadata: Rc<Shipped>,
    replayed: Replayed,
    incarnation: Incarnation,
    store: Store<Core>,
    /// So many commits of the index fail from now on.
    failing: Rc<Cell<u32>>,
}

type Run<T> = Box<dyn FnOnce(Life) -> Pin<Box<dyn Future<Output = T>>> + Send>;

/// Lives once on the disk and the index in `directory`, and closes both.
fn live<T: Send + 'static>(
    directory: &Path,
    run: impl AsyncFnOnce(&Life) -> T + Send + 'static,
) -> Result<T, OpenError> {
    let options = DiskOptions { capacity_bytes: Some(96 << 20), reserve_percent: 0, create: true };
    let disk = Disk::open(&directory.join("disk"), &options).unwrap();
    let (index, threads) = SqliteIndex::start(directory).unwrap();
    let run: Run<T> = Box::new(move |life| Box::pin(async move { run(&life).await }));
    let work = Arc::new(Mutex::new(Some((index, run))));
    let result = Arc::new(Mutex::new(None));
    let main = {
        let result = Arc::clone(&result);
        move |core: Core| {
            let (work, result, disk) = (Arc::clone(&work), Arc::clone(&result), disk.clone());
            async move {
                let (index, run) = work.lock().unwrap().take().unwrap();
                let lived = on_core(core, disk, index, run).await;
                *result.lock().unwrap() = Some(lived);
            }
        }
    };
    let options = Options {
        cpus: available_cpus().into_iter().take(1).collect(),
        buffers_per_core: 8,
        progress_reserve: 2,
        abort_on_panic: false,
        ..Options::default()
    };
    start(options, main).unwrap().join().unwrap_or_else(|error| panic!("{error}"));
    threads.join();
    let result = result.lock().unwrap().take();
    result.expect("it ran to its end")
}

async fn on_core<T>(core: Core, disk: Disk, index: SqliteIndex, run: Run<T>) -> Result<T, OpenError> {
    let device = disk.device(&core);
    if identify(&core, &device).await.unwrap() == Identity::Blank {
        let extent_bytes = extent_bytes(device.geometry().capacity_bytes_max);
        format(&core, &device, FormatOptions { disk: DISK, cluster: 1, extent_bytes }).await.unwrap();
    }
    let failing = Rc::new(Cell::new(0));
    let index = Faulty { index, failing: Rc::clone(&failing) };
    let recovered = recover(&core, vec![(DISK, device.clone())], core.core_count(), 0).await.unwrap();
    let replayed = replay(&core, &recovered, &index).await?;
    let (mut shares, tail) = recovered.into_shares();
    let (share, mail) = (shares.pop().unwrap(), mail(1).pop().unwrap());
    let store = Store::open(core.clone(), vec![(DISK, device)], share, mail);
    let writer = LogWriter::open(store.clone(), tail, 1);
    let (metadata, incarnation) = Embedded::open(core.clone(), writer, index, replayed.clone(), NODE).await?;
    store.set_writer(NODE, incarnation);
    let result = run(Life { metadata: Rc::new(metadata), replayed, incarnation, store: store.clone(), failing }).await;
    store.close().await;
    Ok(result)
}

impl Life {
    async fn commit(&self, change: Change) -> Result<Outcome, MetadataError> {
        let write = u128::from(self.incarnation.0) << 64 | u128::from(self.store.new_blob().sequence);
        self.send(Mutation { write: WriteId(write), change }).await
    }

    async fn send(&self, mutation: Mutation) -> Result<Outcome, MetadataError> {
        self.metadata.commit(Arc::new([mutation])).await.pop().unwrap()
    }

    async fn ask(&self, query: Query) -> Result<Answer, MetadataError> {
        self.metadata.look_up(vec![query]).await.pop().unwrap()
    }

    async fn create_bucket(&self, name: &str) -> BucketRef {
        let create = Change::CreateBucket { tenant: TENANT, name: BucketName::new(name).unwrap(), region: "x".into() };
        match self.commit(create).await {
            Ok(Outcome::BucketCreated(bucket)) => bucket,
            other => panic!("creating a bucket came to {other:?}"),
        }
    }

    async fn put(&self, bucket: BucketRef, name: &str, blob: Option<BlobClaim>) {
        let object = NewObject {
            etag: Etag(format!("tag of {name}")),
            size: blob.as_ref().map_or(0, |blob| blob.length),
            checksum: Checksum {
                algorithm: ChecksumAlgorithm::Crc64Nvme,
                of: ChecksumType::FullObject,
                value: vec![0; 8],
            },
            crc64nvme: 0,
            headers: Headers::default(),
            tags: Vec::new(),
            storage_class: StorageClass::Standard,
            blob,
        };
        let put = Change::PutObject {
            bucket,
            key: key(name),
            object: Box::new(object),
            conditions: WriteConditions::default(),
        };
        self.commit(put).await.unwrap();
    }

    async fn delete(&self, bucket: BucketRef, name: &str) {
        let delete = Change::DeleteObject { bucket, key: key(name), conditions: WriteConditions::default() };
        self.commit(delete).await.unwrap();
    }

    /// Everything that a bucket lists, and the counters.
    async fn look(&self, bucket: &str) -> (Vec<(String, String)>, Counters) {
        let bucket = BucketPath { tenant: TENANT, name: BucketName::new(bucket).unwrap() };
        let list = ListObjects { max: 1000, ..ListObjects::default() };
        let Ok(Answer::List(page)) = self.ask(Query::List { bucket, list }).await else { panic!("a page") };
        let Ok(Answer::Counters(counters)) = self.ask(Query::Counters).await else { panic!("counters") };
        let entries = page.entries.into_iter().map(|entry| match entry {
            Entry::Object { key, etag, .. } => (key, etag.0),
            Entry::CommonPrefix(prefix) => panic!("{prefix:?}"),
        });
        (entries.collect(), counters)
    }
}

fn key(name: &str) -> Key {
    Key::new(name.as_bytes().to_vec()).unwrap()
}

fn sqlite_files(directory: &Path) -> Vec<std::path::PathBuf> {
    let files = ["", "-wal", "-shm"].map(|suffix| directory.join(format!("{FILE_NAME}{suffix}")));
    files.into_iter().filter(|path| path.exists()).collect()
}

fn delete_index(directory: &Path) {
    sqlite_files(directory).into_iter().for_each(|path| fs::remove_file(path).unwrap());
}

/// Some history with everything that takes no blob; gives what is to be seen of it afterwards.
async fn history(life: &Life) -> (Vec<(String, String)>, Counters) {
    let bucket = life.create_bucket("bucket").await;
    for number in 0..40 {
        life.put(bucket, &format!("k{number:03}"), None).await;
    }
    for number in (0..40).step_by(3) {
        life.delete(bucket, &format!("k{number:03}")).await;
    }
    let gone = life.create_bucket("gone").await;
    life.commit(Change::DeleteBucket { bucket: gone }).await.unwrap();
    life.look("bucket").await
}

/// The suite, each case on a disk of its own.
mod suite {
    fn on_a_disk(case: impl AsyncFnOnce(std::rc::Rc<super::Shipped>) + Send + 'static) {
        let directory = tempfile::tempdir().unwrap();
        let run = async |life: &super::Life| case(std::rc::Rc::clone(&life.metadata)).await;
        super::live(directory.path(), run).unwrap();
    }

    anvil_node::metadata_suite!(super::on_a_disk);
}

/// Goal: a restart finds what was committed, whatever became of the index. Method: the same log with the index kept,
/// deleted, damaged, of an earlier moment, and of another node.
#[test]
fn a_restart_finds_what_was_committed() {
    let directory = tempfile::tempdir().unwrap();
    let (early, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copy = |to: &Path| {
        for path in sqlite_files(directory.path()) {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    };
    live(directory.path(), async |life| {
        assert!(!life.replayed.rebuilt && life.replayed.applied == 0, "{:?}", life.replayed);
        assert_eq!(life.incarnation, Incarnation(1));
    })
    .unwrap();
    copy(early.path());
    live(foreign.path(), async |life| drop(history(life).await)).unwrap();
    let (entries, counters) = live(directory.path(), history).unwrap();
    assert_eq!(entries.len(), 26);

    type Spoil<'s> = &'s dyn Fn();
    let spoils: [(&str, bool, Spoil<'_>); 5] = [
        ("kept", false, &|| {}),
        ("deleted", true, &|| delete_index(directory.path())),
        ("damaged", true, &|| {
            delete_index(directory.path());
            fs::write(directory.path().join(FILE_NAME), vec![0x5a; 9000]).unwrap();
        }),
        ("of an earlier moment", false, &|| {
            delete_index(directory.path());
            for path in sqlite_files(early.path()) {
                fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
            }
        }),
        ("of another node", true, &|| {
            delete_index(directory.path());
            for path in sqlite_files(foreign.path()) {
                fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
            }
        }),
    ];
    let mut last = counters;
    for (number, (name, rebuilt, spoil)) in spoils.into_iter().enumerate() {
        spoil();
        let (replayed, incarnation, (found, counters)) =
            live(directory.path(), async |life| (life.replayed.clone(), life.incarnation, life.look("bucket").await))
                .unwrap();
        assert_eq!(replayed.rebuilt, rebuilt, "{name}: {replayed:?}");
        assert_eq!(found, entries, "{name}");
        assert_eq!(incarnation, Incarnation(3 + u32::try_from(number).unwrap()), "{name}: no life is repeated");
        assert_eq!(counters.lineage, last.lineage, "{name}");
        assert!(counters.batch > last.batch, "{name}: a number is given once");
        assert_eq!(counters.generation.0, last.generation.0 + 1, "{name}");
        assert_eq!(replayed.applied == 0, name == "kept", "{name}: {replayed:?}");
        last = counters;
    }
}

/// Goal: a disk that went back in time, or lost everything, never takes acknowledged changes with it silently. Method:
/// put an older copy of the disk, and an empty one, under an index that has seen more; only without the index they open.
#[test]
fn a_disk_that_was_rolled_back_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, older) = (directory.path().join("disk"), directory.path().join("older"));
    let copy = |from: &Path, to: &Path| {
        fs::create_dir_all(to).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    let early = live(directory.path(), async |life| {
        life.create_bucket("bucket").await;
        life.look("bucket").await.1
    });
    let early = early.unwrap();
    copy(&disk, &older);
    let (_, late) = live(directory.path(), async |life| {
        let bucket = life.create_bucket("later").await;
        life.put(bucket, "k", None).await;
        life.look("later").await
    })
    .unwrap();

    fs::remove_dir_all(&disk).unwrap();
    copy(&older, &disk);
    let refused = live(directory.path(), async |_| ()).unwrap_err();
    assert_eq!(refused, OpenError::Behind { log: early.batch, index: late.batch });
    assert!(refused.to_string().contains("rolled back"), "{refused}");
    fs::remove_dir_all(&disk).unwrap();
    let refused = live(directory.path(), async |_| ()).unwrap_err();
    assert_eq!(refused, OpenError::Behind { log: 0, index: late.batch });

    fs::remove_dir_all(&disk).unwrap();
    copy(&older, &disk);
    delete_index(directory.path());
    let (replayed, found) =
        live(directory.path(), async |life| (life.replayed.clone(), life.look("bucket").await.1)).unwrap();
    assert!(replayed.rebuilt, "{replayed:?}");
    assert_eq!(found.lineage, late.lineage);
}

/// Goal: a last batch whose data is not there is void; one whose data is there counts. Method: commit a blob that was
/// written and one that was not, and take the index away, which a power cut may do.
#[test]
fn a_last_batch_without_its_data_is_void() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = live(directory.path(), async |life| {
        let bucket = life.create_bucket("bucket").await;
        let blob = life.store.new_blob();
        let origin = Origin {
            tenant: TENANT,
            bucket: "bucket".into(),
            key: "k".into(),
            at: WallTime { unix_ms: 1 },
            payload: OriginPayload::Unsaid,
        };
        let copy =
            SmallCopy { blob, profile: Profile::SINGLE, shard: 0, payload: Rc::new(vec![7; 100]), encryption: None };
        life.store.append_small(DISK, Some(&origin), copy).await.unwrap();
        let claim = BlobClaim { blob, profile: Profile::SINGLE, length: 100, places: vec![DISK] };
        life.put(bucket, "written", Some(claim)).await;
        bucket
    })
    .unwrap();
    delete_index(directory.path());
    let unwritten = live(directory.path(), async move |life| {
        assert_eq!(life.replayed.void, None, "its data is there");
        assert_eq!(life.look("bucket").await.0.len(), 1);
        let blob = life.store.new_blob();
        let claim = BlobClaim { blob, profile: Profile::SINGLE, length: 100, places: vec![DISK] };
        life.put(bucket, "not written", Some(claim)).await;
        blob
    })
    .unwrap();
    delete_index(directory.path());
    let void = live(directory.path(), async move |life| {
        let names: Vec<_> = life.look("bucket").await.0.into_iter().map(|(key, _)| key).collect();
        assert_eq!(names, ["written"]);
        assert!(matches!(life.ask(Query::Blob(unwritten)).await, Ok(Answer::Blob(None))));
        life.replayed.void
    })
    .unwrap();
    assert!(void.is_some());
    // The record that says so is durable: with the index gone once more, the batch still does not count.
    delete_index(directory.path());
    live(directory.path(), async move |life| {
        assert_eq!(life.replayed.void, None);
        assert_eq!(life.look("bucket").await.0.len(), 1);
        life.put(bucket, "later", None).await;
    })
    .unwrap();
    delete_index(directory.path());
    let entries = live(directory.path(), async |life| life.look("bucket").await.0).unwrap();
    assert_eq!(entries.len(), 2);
}

/// A batch that is larger than a record goes in several; a change that is larger is refused, and nothing else is.
#[test]
fn batches_larger_than_a_record_are_split() {
    let directory = tempfile::tempdir().unwrap();
    live(directory.path(), async |life| {
        let bucket = life.create_bucket("bucket").await;
        let long = |number: u32, bytes: usize| {
            let object = NewObject {
                etag: Etag("e".repeat(bytes)),
                size: 0,
                checksum: Checksum {
                    algorithm: ChecksumAlgorithm::Crc64Nvme,
                    of: ChecksumType::FullObject,
                    value: vec![0; 8],
                },
                crc64nvme: 0,
                headers: Headers::default(),
                tags: Vec::new(),
                storage_class: StorageClass::Standard,
                blob: None,
            };
            let (key, conditions) = (key(&format!("k{number}")), WriteConditions::default());
            let change = Change::PutObject { bucket, key, object: Box::new(object), conditions };
            Mutation { write: WriteId((1 << 100) + u128::from(number)), change }
        };
        let sizes = [300 << 10, 300 << 10, 500 << 10, 1 << 20, 9, 600 << 10];
        let batch: Vec<_> = (0..).zip(sizes).map(|(number, bytes)| long(number, bytes)).collect();
        let outcomes = life.metadata.commit(batch.into()).await;
        for (number, outcome) in outcomes.iter().enumerate() {
            let expected = number != 3;
            assert_eq!(outcome.is_ok(), expected, "{number}: {outcome:?}");
        }
        assert_eq!(outcomes[3], Err(Refusal::EntityTooLarge.into()));
    })
    .unwrap();
    delete_index(directory.path());
    let entries = live(directory.path(), async |life| life.look("bucket").await.0).unwrap();
    let names: Vec<_> = entries.into_iter().map(|(key, _)| key).collect();
    assert_eq!(names, ["k0", "k1", "k2", "k4", "k5"]);
}

/// A change that the rows cannot take does not take the others of its batch with it.
#[test]
fn a_batch_with_a_row_that_cannot_be_decided_is_divided() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = live(directory.path(), async |life| life.create_bucket("bucket").await).unwrap();
    // A version whose row is damaged: reading it is an error, not a refusal.
    let connection = rusqlite::Connection::open(directory.path().join(FILE_NAME)).unwrap();
    let BucketId(id) = bucket.id;
    live(directory.path(), async move |life| life.put(bucket, "bad", None).await).unwrap();
    connection.execute("UPDATE heads SET content = 99 WHERE bucket = ?1", [i64::try_from(id).unwrap()]).unwrap();
    drop(connection);
    live(directory.path(), async move |life| {
        let delete = |number: u32| {
            let name = if number == 5 { "bad".to_owned() } else { format!("k{number}") };
            let change = Change::CreateUpload {
                bucket,
                key: key(&name),
                upload: anvil_model::ids::UploadId(number.into()),
                about: Box::default(),
            };
            let touch = Change::DeleteObject { bucket, key: key(&name), conditions: WriteConditions::default() };
            let change = if number == 5 { touch } else { change };
            Mutation { write: WriteId((1 << 100) + u128::from(number)), change }
        };
        let outcomes = life.metadata.commit((0..9).map(delete).collect()).await;
        for (number, outcome) in outcomes.iter().enumerate() {
            if number == 5 {
                assert!(matches!(outcome, Err(MetadataError::Unavailable { .. })), "{outcome:?}");
            } else {
                assert_eq!(*outcome, Ok(Outcome::UploadCreated), "{number}");
            }
        }
    })
    .unwrap();
}

/// Goal: a durable batch that the index did not take is unknown, comes before everything else, and is found. Method: let
/// the commit of the index fail, then the attempt to catch up; once within a life, once over a restart.
#[test]
fn a_durable_batch_that_the_index_missed_is_caught_up() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = live(directory.path(), async |life| {
        let bucket = life.create_bucket("bucket").await;
        let create = |number: u128| Mutation {
            write: WriteId((1 << 100) + number),
            change: Change::CreateUpload {
                bucket,
                key: key("k"),
                upload: anvil_model::ids::UploadId(number),
                about: Box::default(),
            },
        };
        life.failing.set(2);
        assert_eq!(life.send(create(1)).await, Err(MetadataError::Unknown));
        assert_eq!(life.ask(Query::Write(create(1).write)).await, Ok(Answer::Write(None)), "not yet");
        let busy = life.send(create(2)).await;
        assert!(matches!(busy, Err(MetadataError::Unavailable { .. })), "{busy:?}");
        assert_eq!(life.send(create(3)).await, Ok(Outcome::UploadCreated));
        let found = life.ask(Query::Write(create(1).write)).await;
        assert_eq!(found, Ok(Answer::Write(Some(Outcome::UploadCreated))));
        life.failing.set(1);
        assert_eq!(life.send(create(4)).await, Err(MetadataError::Unknown));
        bucket
    })
    .unwrap();
    live(directory.path(), async move |life| {
        assert_eq!((life.replayed.rebuilt, life.replayed.applied), (false, 1));
        let upload = |number| Query::Upload {
            bucket: BucketPath { tenant: bucket.tenant, name: BucketName::new("bucket").unwrap() },
            key: key("k"),
            upload: anvil_model::ids::UploadId(number),
        };
        for (number, there) in [(1, true), (2, false), (3, true), (4, true)] {
            assert_eq!(life.ask(upload(number)).await.is_ok(), there, "{number}");
        }
    })
    .unwrap();
}
