//! The suite of the metadata trait on SQLite, and what only SQLite can get wrong.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use anvil_node::metadata::suite::{Logless, histories};

use super::*;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn on_sqlite(case: impl AsyncFnOnce(Logless<SqliteIndex>)) {
    let directory = tempfile::tempdir().unwrap();
    let (index, threads) = SqliteIndex::start(directory.path()).unwrap();
    block_on(case(Logless::new(index)));
    threads.join();
}

anvil_node::metadata_suite!(super::on_sqlite);

/// Goal: an index of a program that did not know usage gets what a program that does would have kept. Method: a random history,
/// what the migration added taken away, and the migration.
#[test]
fn an_index_of_before_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (index, threads) = SqliteIndex::start(directory.path()).unwrap();
    block_on(async {
        histories::random_histories_agree_with_a_map(&Logless::new(index)).await;
    });
    threads.join();
    let path = directory.path().join(threads::FILE_NAME);
    let held = || {
        let connection = rusqlite::Connection::open(&path).unwrap();
        let mut rows = connection.prepare("SELECT * FROM usage ORDER BY scope, id").unwrap();
        let read = |row: &rusqlite::Row<'_>| (0..6).map(|at| row.get(at)).collect::<rusqlite::Result<Vec<i64>>>();
        rows.query_map([], read).unwrap().collect::<rusqlite::Result<Vec<_>>>().unwrap()
    };
    let before = held();
    assert!(before.len() >= 2, "something is left of the history: {before:?}");
    let back = "DROP TABLE usage; DROP TABLE tenant_quotas; ALTER TABLE buckets DROP COLUMN quota_bytes; \
                ALTER TABLE buckets DROP COLUMN quota_objects; PRAGMA user_version = 4";
    rusqlite::Connection::open(&path).unwrap().execute_batch(back).unwrap();
    drop(sqlite::Sqlite::open(&path).unwrap());
    assert_eq!(held(), before);
}

/// Goal: no look-up and no decision reads more of a table than it answers. Method: SQLite's plan of each statement.
#[test]
fn every_statement_finds_its_rows_by_an_index() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rows");
    drop(sqlite::Sqlite::open(&path).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    let source = include_str!("sqlite.rs");
    let mut seen = 0;
    for statement in statements(source) {
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
        let steps = plan.raw_query().mapped(|row| row.get::<_, String>(3)).collect::<Result<Vec<_>, _>>().unwrap();
        let bad =
            |step: &String| (step.starts_with("SCAN") && !step.contains("counters")) || step.contains("TEMP B-TREE");
        assert!(!steps.iter().any(bad), "{statement}: {steps:?}");
        seen += 1;
    }
    assert!(seen >= 25, "only {seen} statements found");
}

/// The SELECTs and DELETEs of the source, with any column in the place of the column lists.
fn statements(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for verb in ["\"SELECT ", "\"DELETE "] {
        for (at, _) in source.match_indices(verb) {
            let rest = &source[at + 1..];
            let text = &rest[..rest.find('"').unwrap()];
            let joined = text.split("\\\n").map(str::trim_start).collect::<Vec<_>>().join(" ");
            found.push(joined.replace("{}", "*"));
        }
    }
    found
}

mod rows {
    use anvil_model::ids::{BlobId, BucketId, DiskId, Generation, Incarnation, NodeId, TenantId, UploadId, WriteId};
    use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, ChecksumType, Etag, Headers};
    use anvil_model::profile::Profile;
    use anvil_model::time::WallTime;
    use anvil_node::metadata::mutation::{Completed, Outcome, Written};
    use anvil_node::metadata::rows::*;
    use anvil_node::metadata::usage::Quota;
    use proptest::prelude::*;

    use super::sqlite::Sqlite;

    fn rows() -> (tempfile::TempDir, Sqlite) {
        let directory = tempfile::tempdir().unwrap();
        let rows = Sqlite::open(&directory.path().join("rows")).unwrap();
        (directory, rows)
    }

    /// Numbers that are kept with their bits, and those that are ordered and below 2^63.
    fn ordered() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), Just(1), Just(u64::MAX >> 1), any::<u64>().prop_map(|number| number >> 1)]
    }

    fn time() -> impl Strategy<Value = WallTime> {
        ordered().prop_map(|unix_ms| WallTime { unix_ms })
    }

    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(".{0,12}")
    }

    fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
        proptest::collection::vec((".{0,6}", ".{0,6}"), 0..3)
    }

    fn blob() -> impl Strategy<Value = BlobId> {
        let parts = (any::<u32>(), any::<u32>(), any::<u64>());
        parts.prop_map(|(node, incarnation, sequence)| BlobId {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            sequence,
        })
    }

    fn slice() -> impl Strategy<Value = Slice> {
        (blob(), ordered(), ordered()).prop_map(|(blob, offset, length)| Slice { blob, offset, length })
    }

    fn algorithm() -> impl Strategy<Value = ChecksumAlgorithm> {
        proptest::sample::select(ChecksumAlgorithm::ALL.to_vec())
    }

    fn of() -> impl Strategy<Value = ChecksumType> {
        prop_oneof![Just(ChecksumType::FullObject), Just(ChecksumType::Composite)]
    }

    fn checksum() -> impl Strategy<Value = Checksum> {
        let value = proptest::collection::vec(any::<u8>(), 4..33);
        (algorithm(), of(), value).prop_map(|(algorithm, of, value)| Checksum { algorithm, of, value })
    }

    fn mode() -> impl Strategy<Value = RetentionMode> {
        prop_oneof![Just(RetentionMode::Governance), Just(RetentionMode::Compliance)]
    }

    fn headers() -> impl Strategy<Value = Headers> {
        ((text(), text(), text(), text()), (text(), text(), text()), pairs()).prop_map(|(a, b, user)| Headers {
            content_type: a.0,
            cache_control: a.1,
            content_disposition: a.2,
            content_encoding: a.3,
            content_language: b.0,
            expires: b.1,
            website_redirect_location: b.2,
            user,
        })
    }

    fn envelope() -> impl Strategy<Value = Option<Vec<u8>>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40))
    }

    prop_compose! {
        fn version()(
            (generation, size, owner) in (ordered(), ordered(), any::<u64>()),
            (write, crc64nvme, parts) in (any::<u128>(), any::<u64>(), proptest::option::of(any::<u16>())),
            (null, delete_marker, legal_hold) in any::<(bool, bool, bool)>(),
            (etag, checksum, headers, tags) in (".{1,40}", checksum(), headers(), pairs()),
            last_modified in time(),
            content in prop_oneof![Just(Content::Empty), Just(Content::Segments), slice().prop_map(Content::Single)],
            (envelope, storage_class) in (envelope(), storage_class()),
            retention in proptest::option::of((mode(), time()).prop_map(|(mode, until)| Retention { mode, until })),
        ) -> VersionRow {
            VersionRow {
                generation: Generation(generation),
                write: WriteId(write),
                null,
                delete_marker,
                owner: TenantId(owner),
                etag: Etag(etag),
                size,
                checksum,
                crc64nvme,
                headers,
                tags,
                last_modified,
                parts,
                content,
                storage_class,
                envelope,
                retention,
                legal_hold,
            }
        }
    }

    prop_compose! {
        fn bucket_row()(
            (id, tenant, generation) in (ordered(), any::<u64>(), ordered()),
            (name, region) in ("[a-z][a-z0-9]{2,20}", ".{0,12}"),
            state in prop_oneof![Just(BucketState::Active), Just(BucketState::Closed)],
            created_at in time(),
            versioning in
                prop_oneof![Just(Versioning::Off), Just(Versioning::Enabled), Just(Versioning::Suspended)],
            ownership in prop_oneof![
                Just(Ownership::BucketOwnerEnforced),
                Just(Ownership::BucketOwnerPreferred),
                Just(Ownership::ObjectWriter)
            ],
            blocks in any::<(bool, bool, bool, bool)>(),
            object_lock in proptest::option::of(
                (proptest::option::of(mode()), any::<u32>()).prop_map(|(mode, days)| LockDefault { mode, days })
            ),
            encryption in envelope(),
            storage_class in storage_class(),
            (bytes, objects) in (proptest::option::of(ordered()), proptest::option::of(ordered())),
        ) -> BucketRow {
            BucketRow {
                id: BucketId(id),
                name: BucketName::new(&name).unwrap(),
                tenant: TenantId(tenant),
                region,
                state,
                generation: Generation(generation),
                created_at,
                versioning,
                ownership,
                public_access_block: PublicAccessBlock {
                    block_public_acls: blocks.0,
                    ignore_public_acls: blocks.1,
                    block_public_policy: blocks.2,
                    restrict_public_buckets: blocks.3,
                },
                object_lock,
                encryption,
                storage_class,
                quota: Quota { bytes, objects },
            }
        }
    }

    fn storage_class() -> impl Strategy<Value = StorageClass> {
        "[A-Z0-9_-]{1,32}".prop_map(|name| name.parse().unwrap())
    }

    fn completed() -> impl Strategy<Value = CompletedUpload> {
        let result = (".{1,40}", checksum(), ordered(), ordered(), time()).prop_map(
            |(etag, checksum, size, generation, last_modified)| Completed {
                etag: Etag(etag),
                checksum,
                size,
                written: Written { generation: Generation(generation), last_modified },
            },
        );
        (any::<[u8; 16]>(), result).prop_map(|(list, result)| CompletedUpload { list, result })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Goal: every column survives, also those that nothing sets yet. Method: random rows, written and read.
        #[test]
        fn a_head_survives(row in version(), bucket in ordered(), key in proptest::collection::vec(any::<u8>(), 1..30)) {
            let (_directory, mut rows) = rows();
            let bucket = BucketId(bucket);
            rows.put_head(bucket, &key, &row).unwrap();
            let listed = rows.heads(bucket, &key, None, 9).unwrap();
            prop_assert_eq!(listed.len(), usize::from(!row.delete_marker && key < vec![0xff; 1025]));
            prop_assert_eq!(rows.head(bucket, &key).unwrap(), Some(row));
            prop_assert!(rows.has_versions(bucket).unwrap());
            rows.delete_head(bucket, &key).unwrap();
            prop_assert!(!rows.has_versions(bucket).unwrap());
        }

        #[test]
        fn a_bucket_survives(row in bucket_row()) {
            let (_directory, mut rows) = rows();
            rows.put_bucket(&row).unwrap();
            prop_assert_eq!(rows.bucket_named(&row.name).unwrap(), Some(row.clone()));
            prop_assert_eq!(rows.buckets(row.tenant, "", 2).unwrap(), vec![row.clone()]);
            prop_assert_eq!(rows.bucket_count(row.tenant).unwrap(), 1);
            prop_assert_eq!(rows.bucket(row.id).unwrap(), Some(row));
        }

        #[test]
        fn an_upload_survives(
            (upload, bucket, owner) in (any::<u128>(), ordered(), any::<u64>()),
            (key, headers, tags) in ("[a-z]{1,9}", headers(), pairs()),
            checksum in proptest::option::of((algorithm(), of())),
            (envelope, initiated_at, storage_class) in (envelope(), time(), storage_class()),
            completed in proptest::option::of(completed()),
        ) {
            let row = UploadRow {
                upload: UploadId(upload),
                bucket: BucketId(bucket),
                key: key.into_bytes(),
                owner: TenantId(owner),
                headers,
                tags,
                checksum,
                storage_class,
                envelope,
                initiated_at,
                completed,
            };
            let (_directory, mut rows) = rows();
            rows.put_upload(&row).unwrap();
            let open = rows.open_uploads(row.bucket, (&[], UploadId(0)), None, 9).unwrap();
            prop_assert_eq!(open.len(), usize::from(row.completed.is_none()));
            let old = rows.uploads_completed_before(WallTime { unix_ms: u64::MAX }, 9).unwrap();
            let latest = row.completed.as_ref().is_some_and(|done| done.result.written.last_modified.unix_ms < i64::MAX as u64);
            prop_assert_eq!(old, if latest { vec![row.upload] } else { vec![] });
            prop_assert_eq!(rows.upload(row.upload).unwrap(), Some(row));
        }

        #[test]
        fn parts_segments_and_blobs_survive(
            (number, size, crc64nvme, write) in (1..=10_000_u16, ordered(), any::<u64>(), any::<u128>()),
            (etag, sum, last_modified) in (".{1,40}", checksum(), time()),
            (slice, slices, envelope) in (proptest::option::of(slice()), proptest::collection::vec(slice(), 0..4), envelope()),
            (length, places, dead) in (ordered(), proptest::collection::vec(any::<u128>(), 0..20), any::<bool>()),
            (id, start, with_part) in (blob(), 0..u64::MAX >> 1, any::<bool>()),
        ) {
            let (_directory, mut rows) = rows();
            let (upload, bucket, version) = (UploadId(write), BucketId(3), Generation(4));
            let part = PartRow {
                number,
                write: WriteId(write),
                size,
                etag: Etag(etag.clone()),
                checksum: sum.clone(),
                crc64nvme,
                last_modified,
                slices,
                envelope: envelope.clone(),
            };
            rows.put_part(upload, &part).unwrap();
            prop_assert_eq!(rows.parts(upload, number - 1, 9).unwrap(), vec![part.clone()]);
            prop_assert_eq!(rows.part(upload, number).unwrap(), Some(part));
            rows.delete_parts(upload).unwrap();
            prop_assert_eq!(rows.parts(upload, 0, 9).unwrap(), vec![]);

            let kept = with_part.then_some(SegmentPart { number, size, etag: Etag(etag), checksum: sum });
            let segment = SegmentRow { start, slice, part: kept };
            rows.put_segment(bucket, version, &segment).unwrap();
            prop_assert_eq!(rows.segments(bucket, version, start..start + 1, 9).unwrap(), vec![segment]);
            rows.delete_segments(bucket, version).unwrap();
            prop_assert_eq!(rows.segments(bucket, version, 0..u64::MAX, 9).unwrap(), vec![]);

            let (state, references) = if dead { (BlobState::Dead, 0) } else { (BlobState::Live, 9) };
            let row = BlobRow {
                blob: id,
                profile: Profile { data: 16, parity: 4 },
                length,
                places: places.into_iter().map(DiskId).collect(),
                references,
                state,
                envelope,
            };
            rows.put_blob(&row).unwrap();
            prop_assert_eq!(rows.blob(id).unwrap(), Some(row));
        }
    }

    /// Only so many outcomes are kept, and each is found by its write.
    #[test]
    fn old_writes_are_forgotten() {
        let (_directory, mut rows) = rows();
        for number in 1..=9 {
            let outcome = Outcome::OrphansClaimed(u32::try_from(number).unwrap());
            let row = WriteRow { generation: Generation(number), write: WriteId(100 - u128::from(number)), outcome };
            rows.put_write(&row).unwrap();
            assert_eq!(rows.write(row.write).unwrap(), Some(row));
        }
        rows.forget_writes(Generation(7)).unwrap();
        let kept = (1..=9).filter(|number| rows.write(WriteId(100 - number)).unwrap().is_some());
        assert_eq!(kept.collect::<Vec<_>>(), [7, 8, 9]);
    }
}

mod file {
    use std::fs;
    use std::path::Path;

    use anvil_model::ids::{Generation, Incarnation, NodeId, WriteId};
    use anvil_model::time::WallTime;
    use anvil_node::metadata::embedded::{Index, IndexError};
    use anvil_node::metadata::log::{Batch, Header};
    use anvil_node::metadata::mutation::{Change, Mutation, Outcome};
    use anvil_node::metadata::query::{Answer, Query};
    use anvil_node::metadata::rows::{Counters, RowsError, WriteRow, WriterRow};
    use anvil_node::metadata::taken::TakenRow;

    use super::threads::FILE_NAME;
    use super::*;

    fn with_index<T>(directory: &Path, run: impl AsyncFnOnce(&SqliteIndex) -> T) -> T {
        let (index, threads) = SqliteIndex::start(directory).unwrap();
        let result = block_on(run(&index));
        drop(index);
        threads.join();
        result
    }

    fn batch(lineage: u128, number: u64) -> Batch {
        let header = Header {
            lineage,
            number,
            durable_through: number - 1,
            at: WallTime { unix_ms: 5 },
            first: Generation(number),
        };
        let change = Change::OpenWriter { node: NodeId(1) };
        Batch { header, mutations: vec![Mutation { write: WriteId(u128::from(number)), change }] }
    }

    async fn counters_read(index: &SqliteIndex) -> Counters {
        match index.look_up(vec![Query::Counters]).await.pop() {
            Some(Ok(Answer::Counters(counters))) => counters,
            other => panic!("counters are not {other:?}"),
        }
    }

    /// A committed batch is there after the file is closed and opened; a rolled back or dropped one is not.
    #[test]
    fn commits_survive_and_open_transactions_do_not() {
        let directory = tempfile::tempdir().unwrap();
        with_index(directory.path(), async |index| {
            assert_eq!(index.counters().await.unwrap(), Counters::new(0));
            index.reset(7).await.unwrap();
            index.replay(vec![batch(7, 1), batch(7, 2)]).await.unwrap();
            let more: Arc<[Mutation]> = batch(7, 3).mutations.into();
            let now = WallTime { unix_ms: 1 };
            let decision = index.decide(Arc::clone(&more), 0..1, 3, now).await.unwrap();
            assert_eq!(
                (decision.first, decision.at),
                (Generation(3), WallTime { unix_ms: 5 }),
                "time does not go back"
            );
            assert_eq!(counters_read(index).await.batch, 2, "readers see what is committed");
            index.rollback().await.unwrap();
            index.decide(more, 0..1, 3, now).await.unwrap();
        });
        with_index(directory.path(), async |index| {
            assert_eq!(index.counters().await.unwrap().batch, 2);
            assert_eq!(counters_read(index).await.lineage, 7);
        });
    }

    /// Goal: a history begins with rows as they were, and never takes any behind an ordinary change. Method: rows, the generation to
    /// go on with, an ordinary change, more rows; and what the log has of it, replayed.
    #[test]
    fn rows_are_taken_in_at_the_beginning_alone() {
        let directory = tempfile::tempdir().unwrap();
        let next = Generation(1_000_000);
        let change = |number: u128, change| Mutation { write: WriteId(number), change };
        // So old that an ordinary batch of the next generation would forget it.
        let outcome = Outcome::BucketDeleted;
        let old = WriteRow { generation: Generation(5), write: WriteId(77), outcome: outcome.clone() };
        let rows = || {
            let life = WriterRow { node: NodeId(1), incarnation: Incarnation(9), opened_at: WallTime { unix_ms: 4 } };
            change(1, Change::TakeIn { rows: vec![TakenRow::Writer(life), TakenRow::Write(Box::new(old.clone()))] })
        };
        let begin = |generation| change(2, Change::BeginAt { generation });
        let now = WallTime { unix_ms: 8 };
        with_index(directory.path(), async |index| {
            index.reset(7).await.unwrap();
            let batch: Arc<[Mutation]> = Arc::new([rows(), begin(next), rows(), begin(next)]);
            let decision = index.decide(batch, 0..4, 1, now).await.unwrap();
            let taken: Vec<bool> = decision.verdicts.iter().map(Result::is_ok).collect();
            assert_eq!((taken, decision.first), (vec![true, true, false, false], Generation(1)));
            index.commit().await.unwrap();
            assert_eq!(index.counters().await.unwrap().generation, next);
            let found = index.look_up(vec![Query::Write(WriteId(77))]).await.pop();
            assert!(matches!(found, Some(Ok(Answer::Write(Some(found)))) if found == outcome), "it is as it was");
            let found = index.look_up(vec![Query::Write(WriteId(1))]).await.pop();
            assert!(matches!(found, Some(Ok(Answer::Write(None)))), "the change itself is not a row");
            let life: Arc<[Mutation]> = Arc::new([change(3, Change::OpenWriter { node: NodeId(1) }), rows()]);
            let decision = index.decide(life, 0..2, 2, now).await.unwrap();
            assert_eq!(decision.first, next);
            assert_eq!(decision.verdicts[0].as_ref().unwrap().outcome, Outcome::WriterOpened(Incarnation(10)));
            assert!(decision.verdicts[1].is_err());
            index.commit().await.unwrap();
        });
        let other = tempfile::tempdir().unwrap();
        with_index(other.path(), async |index| {
            index.reset(7).await.unwrap();
            let header = |number, first| Header { lineage: 7, number, durable_through: number - 1, at: now, first };
            let opened = vec![change(3, Change::OpenWriter { node: NodeId(1) })];
            let batches = vec![
                Batch { header: header(1, Generation(1)), mutations: vec![rows(), begin(next)] },
                Batch { header: header(2, next), mutations: opened },
            ];
            index.replay(batches).await.unwrap();
            assert_eq!(index.counters().await.unwrap().generation, Generation(next.0 + 1));
        });
    }

    /// A batch that does not follow what the rows contain is refused, and all that came with it.
    #[test]
    fn a_batch_that_does_not_follow_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        with_index(directory.path(), async |index| {
            index.reset(7).await.unwrap();
            for wrong in [vec![batch(8, 1)], vec![batch(7, 2)], vec![batch(7, 1), batch(7, 3)]] {
                let refused = index.replay(wrong).await;
                assert!(matches!(refused, Err(IndexError::Rows(RowsError::Inconsistent(_)))), "{refused:?}");
                assert_eq!(index.counters().await.unwrap(), Counters::new(7));
            }
        });
    }

    /// After a reset the readers see the new file, and the old one lies beside it.
    #[test]
    fn a_reset_begins_another_file() {
        let directory = tempfile::tempdir().unwrap();
        with_index(directory.path(), async |index| {
            index.reset(7).await.unwrap();
            index.replay(vec![batch(7, 1)]).await.unwrap();
            assert_eq!(counters_read(index).await.batch, 1);
            index.reset(8).await.unwrap();
            assert_eq!(counters_read(index).await, Counters::new(8));
        });
        assert!(directory.path().join("metadata.sqlite.old").exists());
    }

    /// A file that is no database, or whose first page is damaged, is begun anew.
    #[test]
    fn a_damaged_file_is_made_anew() {
        for damage in ["this is not a database, and long enough to be taken for one ....", ""] {
            let directory = tempfile::tempdir().unwrap();
            with_index(directory.path(), async |index| index.reset(7).await.unwrap());
            let path = directory.path().join(FILE_NAME);
            let mut bytes = fs::read(&path).unwrap();
            if damage.is_empty() {
                bytes[100..4000].fill(0xa5);
            } else {
                bytes[..damage.len()].copy_from_slice(damage.as_bytes());
            }
            fs::write(&path, bytes).unwrap();
            for wal in ["-wal", "-shm"] {
                let _ = fs::remove_file(directory.path().join(format!("{FILE_NAME}{wal}")));
            }
            with_index(directory.path(), async |index| {
                assert_eq!(index.counters().await.unwrap(), Counters::new(0));
            });
        }
    }

    /// A newer program's file is refused with a sentence that says what to do, and left as it is.
    #[test]
    fn a_newer_schema_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        with_index(directory.path(), async |index| index.reset(7).await.unwrap());
        let path = directory.path().join(FILE_NAME);
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let refused = SqliteIndex::start(directory.path()).unwrap_err().to_string();
        assert!(refused.contains("schema version 99") && refused.contains("move the file away"), "{refused}");
        let connection = rusqlite::Connection::open(&path).unwrap();
        let lineage: Vec<u8> = connection.query_row("SELECT lineage FROM counters", [], |row| row.get(0)).unwrap();
        assert_eq!(lineage, 7_u128.to_be_bytes());
    }
}
