//! Cases of buckets: names, tenants, emptiness, configurations.

use anvil_model::ids::{Generation, TenantId};
use anvil_model::object::WriteConditions;
use futures_util::future;

use super::kit::{Caller, TENANT, blob_of, bucket_name, key, path};
use crate::metadata::mutation::{BucketRef, Change, NewObject, NewUpload, Outcome};
use crate::metadata::query::{Answer, BucketPath, Holdings, Query};
use crate::metadata::rows::{BucketRow, BucketState, Ownership, PublicAccessBlock, StorageClass, Versioning};
use crate::metadata::{Metadata, Refusal};

const OTHER: TenantId = TenantId(2);

async fn bucket(caller: &Caller<'_, impl Metadata>, path: BucketPath) -> Result<BucketRow, Refusal> {
    match caller.ask(Query::Bucket(path)).await? {
        Answer::Bucket(row) => Ok(row),
        other => panic!("a bucket is not {other:?}"),
    }
}

/// A name is taken while its bucket lives, and free afterwards; the id is another one each time.
pub async fn names_are_unique_among_live_buckets(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let create = |tenant, name| Change::CreateBucket { tenant, name: bucket_name(name), region: "here".to_owned() };
    assert_eq!(bucket(&caller, path("one")).await, Err(Refusal::NoSuchBucket));
    let first = caller.create_bucket("one").await;
    assert_eq!(caller.commit(create(TENANT, "one")).await, Err(Refusal::BucketAlreadyOwnedByYou));
    assert_eq!(caller.commit(create(OTHER, "one")).await, Err(Refusal::BucketAlreadyExists));
    let row = bucket(&caller, path("one")).await.expect("it is there");
    assert_eq!((row.id, row.generation, row.tenant, row.region.as_str()), (first.id, first.generation, TENANT, "here"));
    assert_eq!((row.state, row.versioning), (BucketState::Active, Versioning::Off));
    assert_eq!(row.ownership, Ownership::BucketOwnerEnforced);
    assert_eq!(row.public_access_block, PublicAccessBlock::ALL);

    assert_eq!(caller.commit(Change::DeleteBucket { bucket: first }).await, Ok(Outcome::BucketDeleted));
    assert_eq!(bucket(&caller, path("one")).await, Err(Refusal::NoSuchBucket));
    let second = caller.create_bucket("one").await;
    assert!(second.id > first.id, "an id is never reused");
    assert_eq!(caller.commit(Change::DeleteBucket { bucket: first }).await, Err(Refusal::NoSuchBucket));
}

/// Nothing is said of another tenant's bucket but that it is there.
pub async fn another_tenants_bucket_is_denied(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let mine = caller.create_bucket("mine").await;
    caller.put(mine, "k", 1).await;
    let theirs = BucketPath { tenant: OTHER, name: bucket_name("mine") };
    assert_eq!(bucket(&caller, theirs.clone()).await, Err(Refusal::AccessDenied));
    for name in ["k", "no such key"] {
        let query = Query::Object { bucket: theirs.clone(), key: key(name), read_from: None };
        assert_eq!(caller.ask(query).await, Err(Refusal::AccessDenied), "{name}");
        let query = Query::Prepare { bucket: theirs.clone(), key: key(name) };
        assert_eq!(caller.ask(query).await, Err(Refusal::AccessDenied), "{name}");
    }
    let stolen = BucketRef { tenant: OTHER, ..mine };
    assert_eq!(caller.delete(stolen, "k").await, Err(Refusal::AccessDenied));
    assert_eq!(caller.commit(Change::DeleteBucket { bucket: stolen }).await, Err(Refusal::AccessDenied));
    assert!(caller.object_at("mine", "k").await.is_ok());
}

/// A tenant's buckets come by name, page by page.
pub async fn lists_are_in_order_of_names(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    for name in ["ccc", "aaa", "b.b", "b-b"] {
        caller.create_bucket(name).await;
    }
    let theirs = Change::CreateBucket { tenant: OTHER, name: bucket_name("abc"), region: "here".to_owned() };
    caller.commit(theirs).await.expect("the name is free");
    let page = async |tenant, after: Option<&str>, max| {
        let after = after.map(str::to_owned);
        match caller.ask(Query::Buckets { tenant, after, max }).await {
            Ok(Answer::Buckets(rows)) => rows.into_iter().map(|row| row.name.to_string()).collect::<Vec<_>>(),
            other => panic!("buckets are not {other:?}"),
        }
    };
    assert_eq!(page(TENANT, None, 100).await, ["aaa", "b-b", "b.b", "ccc"]);
    assert_eq!(page(TENANT, Some("b-b"), 1).await, ["b.b"]);
    assert_eq!(page(TENANT, Some("b-c"), 9).await, ["b.b", "ccc"]);
    assert_eq!(page(OTHER, None, 9).await, ["abc"]);
    assert!(page(TenantId(3), None, 9).await.is_empty());
}

/// Objects and uploads under way keep a bucket from being deleted; what is left of completed ones does not.
pub async fn a_bucket_that_holds_anything_is_not_deleted(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("full").await;
    let delete = Change::DeleteBucket { bucket };
    caller.put(bucket, "k", 0).await;
    assert_eq!(caller.commit(delete.clone()).await, Err(Refusal::BucketNotEmpty));
    caller.delete(bucket, "k").await.expect("it is there");
    let upload = caller.create_upload(bucket, "k", NewUpload::default()).await;
    assert_eq!(caller.commit(delete.clone()).await, Err(Refusal::BucketNotEmpty));
    let part = caller.part(1, 9);
    caller.put_part(bucket, "k", upload, &part).await.expect("the upload is open");
    let complete = super::uploads::completion(bucket, "k", upload, &[&part]);
    caller.commit(complete.clone()).await.expect("the list is right");
    assert_eq!(caller.commit(delete.clone()).await, Err(Refusal::BucketNotEmpty));
    caller.delete(bucket, "k").await.expect("it is there");
    assert_eq!(caller.commit(delete).await, Ok(Outcome::BucketDeleted));
    assert_eq!(caller.commit(complete).await, Err(Refusal::NoSuchBucket));
}

/// What was decided under another configuration is refused, whatever it is.
pub async fn a_stale_configuration_is_refused(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let upload = caller.create_upload(bucket, "k", NewUpload::default()).await;
    let part = caller.part(1, 1);
    let stale = BucketRef { generation: Generation(bucket.generation.0 + 1), ..bucket };
    let (name, conditions) = (key("k"), WriteConditions::default());
    let object = Box::new(caller.object(1));
    for change in [
        Change::PutObject { bucket: stale, key: name.clone(), object, conditions: conditions.clone() },
        Change::DeleteObject { bucket: stale, key: name.clone(), conditions },
        Change::PutPart { bucket: stale, key: name.clone(), upload, part: Box::new(part.clone()) },
        super::uploads::completion(stale, "k", upload, &[&part]),
        Change::AbortUpload { bucket: stale, key: name, upload },
        Change::DeleteBucket { bucket: stale },
    ] {
        assert_eq!(caller.commit(change.clone()).await, Err(Refusal::OperationAborted), "{change:?}");
    }
    caller.audit([], []).await;
}

/// What was decided under the configuration before is refused, and what comes after has the new one.
pub async fn a_configuration_counts_from_its_commit_on(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let old = caller.create_bucket("bucket").await;
    let cold: StorageClass = "COLD".parse().expect("a name of a class");
    let update = |bucket| Change::UpdateBucket { bucket, storage_class: cold.clone() };
    let updated = caller.commit(update(old)).await;
    let Ok(Outcome::BucketUpdated(new)) = updated else { panic!("{updated:?}") };
    assert!(new.generation > old.generation && (new.id, new.tenant) == (old.id, old.tenant));
    let object = caller.object(1);
    let late = caller.put_if(old, "k", &object, WriteConditions::default()).await;
    assert_eq!(
        (late, caller.commit(update(old)).await),
        (Err(Refusal::OperationAborted), Err(Refusal::OperationAborted))
    );
    assert_eq!(caller.commit(update(new)).await, Ok(Outcome::BucketUpdated(new)), "nothing changes");
    let prepare = Query::Prepare { bucket: path("bucket"), key: key("k") };
    let Ok(Answer::Prepared(prepared)) = caller.ask(prepare).await else { panic!("the bucket is there") };
    assert_eq!((prepared.bucket, &prepared.storage_class), (new, &cold));
    let object = NewObject { storage_class: cold.clone(), ..object };
    caller.put_if(new, "k", &object, WriteConditions::default()).await.expect("it is the configuration");
    assert_eq!(caller.object_at("bucket", "k").await.expect("just written").version.storage_class, cold);
}

/// A write that was prepared in a bucket that is gone does not land in its successor.
pub async fn a_deleted_bucket_takes_no_write(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let old = caller.create_bucket("name").await;
    caller.commit(Change::DeleteBucket { bucket: old }).await.expect("it is empty");
    let new = caller.create_bucket("name").await;
    let object = caller.object(4);
    let late = caller.put_if(old, "k", &object, WriteConditions::default()).await;
    assert_eq!(late, Err(Refusal::NoSuchBucket));
    assert_eq!(caller.object_at("name", "k").await, Err(Refusal::NoSuchKey));
    assert_eq!(caller.blob(blob_of(&object)).await, None, "its data is the sweep's");
    caller.put_if(new, "k", &object, WriteConditions::default()).await.expect("nobody has claimed the data");
}

/// Of a deletion of the bucket and a write into it that run at once, one wins.
pub async fn deletion_and_writes_exclude_each_other(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    for round in 0..10 {
        let bucket = caller.create_bucket("contested").await;
        let object = caller.object(3);
        let delete = async { caller.commit(Change::DeleteBucket { bucket }).await };
        let put = caller.put_if(bucket, "k", &object, WriteConditions::default());
        let (deleted, put) = if round % 2 == 0 {
            future::join(delete, put).await
        } else {
            let (put, deleted) = future::join(put, delete).await;
            (deleted, put)
        };
        match (&deleted, &put) {
            (Ok(_), Err(Refusal::NoSuchBucket)) => {
                assert_eq!(caller.blob(blob_of(&object)).await, None);
            }
            (Err(Refusal::BucketNotEmpty), Ok(_)) => {
                caller.delete(bucket, "k").await.expect("it is there");
                caller.commit(Change::DeleteBucket { bucket }).await.expect("it is empty");
            }
            both => panic!("round {round}: {both:?}"),
        }
    }
}

async fn holdings(caller: &Caller<'_, impl Metadata>, bucket: BucketRef, from: &[u8]) -> Option<Holdings> {
    match caller.ask(Query::Holdings { bucket: bucket.id, from: from.to_vec(), max: 2 }).await {
        Ok(Answer::Holdings(holdings)) => holdings.map(|holdings| *holdings),
        other => panic!("holdings are not {other:?}"),
    }
}

/// No client sees a closed bucket, whatever it looks for and whatever it knew; its name is taken until it is gone, and
/// what it held is garbage then.
pub async fn a_closed_bucket_is_only_emptied(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let (before, open, after) =
        (caller.create_bucket("abc").await, caller.create_bucket("bucket").await, caller.create_bucket("cde").await);
    let mut dead = Vec::new();
    for name in ["1", "2", "3"] {
        dead.push(blob_of(&caller.put(open, name, 4).await));
    }
    let upload = caller.create_upload(open, "4", NewUpload::default()).await;
    let part = caller.part(1, 9);
    caller.put_part(open, "4", upload, &part).await.expect("the upload is open");
    dead.push(part.blob.as_ref().expect("it has bytes").blob);

    let closed = caller.commit(Change::CloseBucket { bucket: open }).await;
    let Ok(Outcome::BucketClosed(closed)) = closed else { panic!("{closed:?}") };
    assert!(closed.generation > open.generation && (closed.id, closed.tenant) == (open.id, open.tenant));
    let conditions = WriteConditions::default();
    let abort = |bucket| Change::AbortUpload { bucket, key: key("4"), upload };
    for bucket in [open, closed] {
        let object = Box::new(caller.object(1));
        let put = Change::PutObject { bucket, key: key("k"), object, conditions: conditions.clone() };
        assert_eq!(caller.commit(put).await, Err(Refusal::NoSuchBucket));
        assert_eq!(caller.commit(Change::CloseBucket { bucket }).await, Err(Refusal::NoSuchBucket));
        let late = super::uploads::completion(bucket, "4", upload, &[&part]);
        assert_eq!(caller.commit(late).await, Err(Refusal::NoSuchBucket));
        let late = caller.put_part(bucket, "4", upload, &caller.part(2, 1)).await;
        assert_eq!(late, Err(Refusal::NoSuchBucket));
    }
    assert_eq!(caller.delete(open, "1").await, Err(Refusal::NoSuchBucket), "it was decided before");
    assert_eq!(caller.commit(abort(open)).await, Err(Refusal::NoSuchBucket));
    assert_eq!(caller.object_at("bucket", "1").await, Err(Refusal::NoSuchBucket));
    assert_eq!(bucket(&caller, path("bucket")).await, Err(Refusal::NoSuchBucket));
    for (after, expected) in [(None, vec![before.id, after.id]), (Some("abc".to_owned()), vec![after.id])] {
        let list = caller.ask(Query::Buckets { tenant: TENANT, after, max: expected.len() }).await;
        let Ok(Answer::Buckets(rows)) = list else { panic!("{list:?}") };
        assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), expected);
    }
    let create = |tenant| Change::CreateBucket { tenant, name: bucket_name("bucket"), region: "here".to_owned() };
    assert_eq!(caller.commit(create(TENANT)).await, Err(Refusal::BucketBeingDeleted));
    assert_eq!(caller.commit(create(OTHER)).await, Err(Refusal::BucketAlreadyExists));
    let Ok(Answer::AnyBucket(Some(row))) = caller.ask(Query::AnyBucket(bucket_name("bucket"))).await else {
        panic!("it is still there for who empties it")
    };
    assert_eq!((row.id, row.state), (open.id, BucketState::Closed));

    let first = holdings(&caller, closed, b"").await.expect("it is there");
    assert_eq!((first.bucket, first.closed, first.next.as_deref()), (closed, true, Some(b"2".as_slice())));
    assert_eq!((first.keys, first.uploads), (vec![key("1"), key("2")], vec![(key("4"), upload)]));
    let delete = Change::DeleteBucket { bucket: closed };
    for name in ["1", "2", "3"] {
        assert_eq!(caller.commit(delete.clone()).await, Err(Refusal::BucketNotEmpty));
        assert_eq!(caller.delete(closed, name).await, Ok(Outcome::ObjectDeleted));
    }
    let rest = holdings(&caller, closed, b"2").await.expect("it is there");
    assert_eq!((rest.keys, rest.uploads.len(), rest.next), (vec![], 1, None));
    assert_eq!(caller.commit(delete.clone()).await, Err(Refusal::BucketNotEmpty), "an upload is left");
    assert_eq!(caller.commit(abort(closed)).await, Ok(Outcome::UploadAborted));
    assert_eq!(caller.commit(delete).await, Ok(Outcome::BucketDeleted));
    assert_eq!(holdings(&caller, closed, b"").await, None);
    assert_eq!(caller.ask(Query::AnyBucket(bucket_name("bucket"))).await, Ok(Answer::AnyBucket(None)));
    caller.audit([], dead).await;
    assert!(caller.create_bucket("bucket").await.id > open.id);
}
