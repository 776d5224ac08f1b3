//! Cases of copies: who shares which bytes, and when they become garbage.

use std::collections::{BTreeMap, BTreeSet};

use anvil_model::ids::{BlobId, Generation, TenantId, UploadId};
use anvil_model::limits::{COPY_BYTES_MAX, PART_BYTES_MIN};
use anvil_model::object::{Headers, WriteConditions};

use super::kit::{Caller, Dice, blob_of, bucket_name, crc, key, path};
use super::uploads::completion;
use crate::metadata::mutation::{
    BucketRef, Change, Completed, CopySource, NewCopy, NewObject, NewPart, NewUpload, Outcome,
};
use crate::metadata::query::{Answer, Query, ReadFrom};
use crate::metadata::rows::{BlobState, SegmentRow, Slice, StorageClass};
use crate::metadata::{Metadata, Refusal};

fn source(bucket: BucketRef, name: &str) -> CopySource {
    CopySource { bucket, key: key(name), version: None }
}

pub(super) fn plain(source: CopySource) -> NewCopy {
    NewCopy {
        source,
        headers: None,
        website_redirect_location: None,
        tags: None,
        checksum: None,
        storage_class: StorageClass::Standard,
    }
}

async fn copy(
    caller: &Caller<'_, impl Metadata>,
    bucket: BucketRef,
    name: &str,
    copy: NewCopy,
) -> Result<Completed, Refusal> {
    let conditions = WriteConditions::default();
    let change = Change::CopyObject { bucket, key: key(name), copy: Box::new(copy), conditions };
    caller.commit(change).await.map(|outcome| match outcome {
        Outcome::ObjectCopied(copied) => copied,
        other => panic!("a copy came to {other:?}"),
    })
}

async fn copy_part(
    caller: &Caller<'_, impl Metadata>,
    bucket: BucketRef,
    (name, upload): (&str, UploadId),
    part: &NewPart,
    (source, start): (CopySource, u64),
) -> Result<Outcome, Refusal> {
    let part = Box::new(part.clone());
    caller.commit(Change::CopyPart { bucket, key: key(name), upload, part, source, start }).await
}

/// A part that brings no bytes of its own.
fn copied_part(caller: &Caller<'_, impl Metadata>, number: u16, size: u64) -> NewPart {
    NewPart { size, ..caller.part(number, 0) }
}

async fn references(caller: &Caller<'_, impl Metadata>, blob: BlobId) -> u32 {
    caller.blob(blob).await.expect("it has a row").references
}

async fn segments(caller: &Caller<'_, impl Metadata>, bucket: &str, name: &str) -> Vec<SegmentRow> {
    let read_from = Some(ReadFrom::Start(0));
    match caller.ask(Query::Object { bucket: path(bucket), key: key(name), read_from }).await {
        Ok(Answer::Object(found)) => found.segments,
        other => panic!("an object is not {other:?}"),
    }
}

/// A copy has what its source has, in its own bucket and under its own name, and both hold the bytes until they go.
pub async fn a_copy_shares_the_bytes_of_its_source(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let (from, to) = (caller.create_bucket("from").await, caller.create_bucket("other").await);
    let headers = Headers {
        content_type: Some("a/b".to_owned()),
        website_redirect_location: Some("/there".to_owned()),
        ..Headers::default()
    };
    let object = NewObject { headers, ..caller.object(7) };
    caller.put_if(from, "k", &object, WriteConditions::default()).await.expect("nothing speaks against it");
    let result = copy(&caller, to, "c", plain(source(from, "k"))).await.expect("it is there");
    assert_eq!((&result.etag, result.size, &result.checksum), (&object.etag, 7, &object.checksum));
    let told = Headers { content_type: Some("c/d".to_owned()), ..Headers::default() };
    let other = NewCopy { headers: Some(told.clone()), checksum: Some(crc(9)), ..plain(source(to, "c")) };
    copy(&caller, from, "other", other).await.expect("it is there");

    let first = caller.object_at("other", "c").await.expect("it was copied").version;
    let second = caller.object_at("from", "other").await.expect("it was copied").version;
    assert_eq!((first.generation, first.last_modified), (result.written.generation, result.written.last_modified));
    assert_eq!(first.headers.content_type.as_deref(), Some("a/b"));
    assert_eq!(first.headers.website_redirect_location, None, "a place on the source's site is not copied");
    assert_eq!((first.crc64nvme, first.content), (object.crc64nvme, second.content));
    assert_eq!((second.headers, second.checksum), (told, crc(9)));

    let blob = blob_of(&object);
    assert_eq!(references(&caller, blob).await, 3);
    caller.put(from, "k", 0).await;
    caller.delete(to, "c").await.expect("it is there");
    caller.audit([blob], []).await;
    caller.delete(from, "other").await.expect("it is there");
    caller.audit([], [blob]).await;
}

/// A copy onto itself keeps the bytes that it replaces.
pub async fn a_copy_onto_itself_keeps_its_bytes(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let object = caller.put(bucket, "k", 5).await;
    let before = caller.object_at("bucket", "k").await.expect("it is there").version.generation;
    copy(&caller, bucket, "k", plain(source(bucket, "k"))).await.expect("it is there");
    let after = caller.object_at("bucket", "k").await.expect("it is there").version;
    assert!(after.generation > before && after.size == 5);
    caller.audit([blob_of(&object)], []).await;

    let upload = caller.create_upload(bucket, "parts", NewUpload::default()).await;
    let parts = [caller.part(1, PART_BYTES_MIN), caller.part(4, 3)];
    for part in &parts {
        caller.put_part(bucket, "parts", upload, part).await.expect("the upload is open");
    }
    let list: Vec<_> = parts.iter().collect();
    caller.commit(completion(bucket, "parts", upload, &list)).await.expect("the parts are there");
    let kept = segments(&caller, "bucket", "parts").await;
    copy(&caller, bucket, "parts", plain(source(bucket, "parts"))).await.expect("it is there");
    copy(&caller, bucket, "twin", plain(source(bucket, "parts"))).await.expect("it is there");
    for name in ["parts", "twin"] {
        assert_eq!(segments(&caller, "bucket", name).await, kept, "{name}");
        assert_eq!(caller.object_at("bucket", name).await.expect("it is there").version.parts, Some(2));
    }
    caller.delete(bucket, "parts").await.expect("it is there");
    let blobs = parts.map(|part| part.blob.expect("it has bytes").blob);
    caller.audit(blobs.into_iter().chain([blob_of(&object)]), []).await;
}

/// Each way in which a copy cannot be has its answer and changes nothing.
pub async fn a_copy_is_decided_over_what_is_there(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let object = caller.put(bucket, "k", 5).await;
    let seen = caller.object_at("bucket", "k").await.expect("it is there").version.generation;
    let pinned = |version: Generation| plain(CopySource { version: Some(version), ..source(bucket, "k") });
    copy(&caller, bucket, "c", pinned(seen)).await.expect("it is the one that was seen");
    let other = Generation(seen.0 + 1);
    assert_eq!(copy(&caller, bucket, "c", pinned(other)).await, Err(Refusal::SourceChanged));
    assert_eq!(copy(&caller, bucket, "c", plain(source(bucket, "none"))).await, Err(Refusal::SourceChanged));
    let conditions = WriteConditions { absent: true, ..WriteConditions::default() };
    let taken = Change::CopyObject { bucket, key: key("c"), copy: Box::new(pinned(seen)), conditions };
    assert_eq!(caller.commit(taken).await, Err(Refusal::PreconditionFailed));
    let stranger = TenantId(2);
    let create = Change::CreateBucket { tenant: stranger, name: bucket_name("theirs"), region: "here".to_owned() };
    let Ok(Outcome::BucketCreated(theirs)) = caller.commit(create).await else { panic!("the name is free") };
    assert_eq!(copy(&caller, theirs, "c", pinned(seen)).await, Err(Refusal::AccessDenied));
    let large = caller.put(bucket, "large", COPY_BYTES_MAX + 1).await;
    assert_eq!(copy(&caller, bucket, "c", plain(source(bucket, "large"))).await, Err(Refusal::CopyTooLarge));
    assert_eq!(references(&caller, blob_of(&object)).await, 2);
    caller.audit([blob_of(&large)], []).await;
}

/// A part of ranges holds exactly the slices under them, also of a source that is in parts itself, and lets them go.
pub async fn a_part_is_a_range_of_what_is_there(metadata: &impl Metadata) {
    const MIN: u64 = PART_BYTES_MIN;
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let single = blob_of(&caller.put(bucket, "single", 3 * MIN).await);
    let upload = caller.create_upload(bucket, "first", NewUpload::default()).await;
    let first = copied_part(&caller, 1, MIN);
    let own = caller.part(2, MIN);
    assert!(copy_part(&caller, bucket, ("first", upload), &first, (source(bucket, "single"), 10)).await.is_ok());
    caller.put_part(bucket, "first", upload, &own).await.expect("the upload is open");
    let own_blob = own.blob.as_ref().expect("it has bytes").blob;
    caller.commit(completion(bucket, "first", upload, &[&first, &own])).await.expect("both are there");
    let slice = |blob, offset, length| Some(Slice { blob, offset, length });
    let rows = segments(&caller, "bucket", "first").await;
    assert_eq!(rows.iter().map(|row| row.slice).collect::<Vec<_>>(), [slice(single, 10, MIN), slice(own_blob, 0, MIN)]);

    // Across the border of the two parts of "first", then the end of "single", in the place of another attempt.
    let upload = caller.create_upload(bucket, "second", NewUpload::default()).await;
    let across = copied_part(&caller, 3, MIN);
    let from = |start| (source(bucket, "first"), start);
    assert!(copy_part(&caller, bucket, ("second", upload), &across, from(0)).await.is_ok());
    assert!(copy_part(&caller, bucket, ("second", upload), &across, from(MIN - 4)).await.is_ok());
    let tail = copied_part(&caller, 5, 2);
    let place = (source(bucket, "single"), 3 * MIN - 2);
    assert!(copy_part(&caller, bucket, ("second", upload), &tail, place).await.is_ok());
    assert_eq!((references(&caller, single).await, references(&caller, own_blob).await), (4, 2));

    let wrong = Err(Refusal::InvalidRequest("the range is not that of the part"));
    assert_eq!(copy_part(&caller, bucket, ("second", upload), &across, from(MIN + 1)).await, wrong);
    assert_eq!(copy_part(&caller, bucket, ("second", upload), &across, from(u64::MAX)).await, wrong);
    let gone = copy_part(&caller, bucket, ("second", upload), &across, (source(bucket, "none"), 0)).await;
    assert_eq!(gone, Err(Refusal::SourceChanged));

    caller.commit(completion(bucket, "second", upload, &[&across, &tail])).await.expect("both are there");
    let rows = segments(&caller, "bucket", "second").await;
    let places: Vec<_> = rows.iter().map(|row| (row.start, row.slice)).collect();
    let expected =
        [(0, slice(single, 10 + MIN - 4, 4)), (4, slice(own_blob, 0, MIN - 4)), (MIN, slice(single, 3 * MIN - 2, 2))];
    assert_eq!(places, expected);
    let numbers: Vec<_> = rows.iter().map(|row| row.part.as_ref().map(|part| part.number)).collect();
    assert_eq!(numbers, [Some(3), None, Some(5)]);

    caller.delete(bucket, "single").await.expect("it is there");
    caller.delete(bucket, "first").await.expect("it is there");
    assert_eq!((references(&caller, single).await, references(&caller, own_blob).await), (2, 1));
    let aborted = caller.create_upload(bucket, "third", NewUpload::default()).await;
    let whole = copied_part(&caller, 1, MIN + 2);
    assert!(copy_part(&caller, bucket, ("third", aborted), &whole, (source(bucket, "second"), 0)).await.is_ok());
    assert_eq!(references(&caller, single).await, 4);
    caller.delete(bucket, "second").await.expect("it is there");
    let abort = Change::AbortUpload { bucket, key: key("third"), upload: aborted };
    caller.commit(abort).await.expect("it is open");
    caller.audit([], [single, own_blob]).await;
}

/// Goal: through any history of copies every blob counts exactly its holders. Method: random steps beside a map from
/// keys to the blobs that they hold; at the end all counts and the garbage are compared.
pub async fn references_agree_with_a_map_of_holders(metadata: &impl Metadata) {
    const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let mut dice = Dice::new(31);
    let mut held: BTreeMap<&str, Vec<BlobId>> = BTreeMap::new();
    let mut all: BTreeSet<BlobId> = BTreeSet::new();
    for step in 0..250 {
        let (to, from) = (*dice.pick(&KEYS), *dice.pick(&KEYS));
        match dice.below(5) {
            0 => {
                let object = caller.put(bucket, to, PART_BYTES_MIN).await;
                all.insert(blob_of(&object));
                held.insert(to, vec![blob_of(&object)]);
            }
            1 => {
                caller.delete(bucket, to).await.expect("a key that is not there is deleted too");
                held.remove(to);
            }
            2 | 3 => {
                let outcome = copy(&caller, bucket, to, plain(source(bucket, from))).await;
                assert_eq!(outcome.is_ok(), held.contains_key(from), "step {step}: {outcome:?}");
                if let Some(blobs) = held.get(from).cloned() {
                    held.insert(to, blobs);
                }
            }
            _ => {
                let Some(blobs) = held.get(from).cloned() else { continue };
                if blobs.len() > 8 {
                    continue;
                }
                let size = caller.object_at("bucket", from).await.expect("it is held").version.size;
                let upload = caller.create_upload(bucket, to, NewUpload::default()).await;
                let (copied, own) = (copied_part(&caller, 1, size), caller.part(2, PART_BYTES_MIN));
                let place = (source(bucket, from), 0);
                copy_part(&caller, bucket, (to, upload), &copied, place).await.expect("the source is there");
                caller.put_part(bucket, to, upload, &own).await.expect("the upload is open");
                let list = [&copied, &own];
                caller.commit(completion(bucket, to, upload, &list)).await.expect("both are there");
                let blob = own.blob.as_ref().expect("it has bytes").blob;
                all.insert(blob);
                held.insert(to, blobs.into_iter().chain([blob]).collect());
            }
        }
    }
    let mut dead: Vec<BlobId> = Vec::new();
    for blob in all {
        let holders = held.values().flatten().filter(|holder| **holder == blob).count();
        let row = caller.blob(blob).await.expect("it has a row");
        assert_eq!(usize::try_from(row.references), Ok(holders), "{blob}");
        assert_eq!(row.state == BlobState::Live, holders > 0, "{blob}");
        dead.extend((holders == 0).then_some(blob));
    }
    assert!(!dead.is_empty() && held.len() > 1, "the history reached both ends");
    caller.audit([], dead).await;
}
