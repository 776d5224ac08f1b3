//! What buckets and tenants hold, and what happens where they may hold no more.

use std::ops::Range;

use anvil_model::limits::PART_BYTES_MIN;
use anvil_model::object::WriteConditions;
use futures_util::future;

use super::copies::plain as copy_of;
use super::kit::{Caller, Dice, TENANT, key, path};
use super::uploads::completion;
use crate::list::{Entry, ListObjects};
use crate::metadata::mutation::{BucketRef, Change, CopySource, Mutation, NewPart, NewUpload, Outcome};
use crate::metadata::query::{Answer, BucketUsage, Query, TenantUsage};
use crate::metadata::usage::{Quota, QuotaExceeded, QuotaOwner, QuotaUnit, Usage};
use crate::metadata::{Metadata, Refusal};
use crate::multipart::ListUploads;

fn bytes(most: u64) -> Quota {
    Quota { bytes: Some(most), ..Quota::NONE }
}

fn objects(most: u64) -> Quota {
    Quota { objects: Some(most), ..Quota::NONE }
}

fn exceeded<T>(owner: QuotaOwner, unit: QuotaUnit, most: u64) -> Result<T, Refusal> {
    Err(Refusal::QuotaExceeded(QuotaExceeded { owner, unit, most }))
}

async fn usages(caller: &Caller<'_, impl Metadata>) -> Vec<BucketUsage> {
    match caller.ask(Query::BucketUsages { after: None, max: 100 }).await {
        Ok(Answer::BucketUsages(found)) => found,
        other => panic!("usages are not {other:?}"),
    }
}

async fn tenant(caller: &Caller<'_, impl Metadata>) -> TenantUsage {
    match caller.ask(Query::TenantUsage(TENANT)).await {
        Ok(Answer::TenantUsage(found)) => found,
        other => panic!("a tenant's usage is not {other:?}"),
    }
}

async fn set(caller: &Caller<'_, impl Metadata>, bucket: BucketRef, quota: Quota) {
    assert_eq!(caller.commit(Change::SetBucketQuota { bucket, quota }).await, Ok(Outcome::QuotaSet));
}

async fn set_tenant(caller: &Caller<'_, impl Metadata>, quota: Quota) {
    assert_eq!(caller.commit(Change::SetTenantQuota { tenant: TENANT, quota }).await, Ok(Outcome::QuotaSet));
}

/// What a bucket holds, counted by looking at all of it.
async fn counted(caller: &Caller<'_, impl Metadata>, name: &str) -> Usage {
    let list = ListObjects { max: 1000, ..ListObjects::default() };
    let answer = caller.ask(Query::List { bucket: path(name), list }).await;
    let Ok(Answer::List(page)) = answer else { panic!("a page is not {answer:?}") };
    let sizes = page.entries.iter().map(|entry| match entry {
        Entry::Object { size, .. } => *size,
        Entry::CommonPrefix(prefix) => panic!("nothing is rolled up: {prefix:?}"),
    });
    let mut usage = sizes.fold(Usage::NONE, |sum, size| sum + Usage::of_object(size));
    let list = ListUploads { max: 1000, ..ListUploads::default() };
    let answer = caller.ask(Query::Uploads { bucket: path(name), list }).await;
    let Ok(Answer::Uploads(page)) = answer else { panic!("a page is not {answer:?}") };
    for upload in page.uploads {
        let (bucket, key) = (path(name), key(&upload.key));
        let query = Query::Parts { bucket, key, upload: upload.upload, after: 0, max: 1000 };
        let answer = caller.ask(query).await;
        let Ok(Answer::Parts(page)) = answer else { panic!("a page is not {answer:?}") };
        usage = usage + Usage::of_parts(page.parts.iter().map(|part| part.size));
    }
    usage
}

async fn audit(caller: &Caller<'_, impl Metadata>, step: usize) {
    let mut sum = Usage::NONE;
    for BucketUsage { bucket, usage, .. } in usages(caller).await {
        assert_eq!(usage, counted(caller, bucket.name.as_str()).await, "step {step}, {}", bucket.name);
        sum = sum + usage;
    }
    assert_eq!(tenant(caller).await.usage, sum, "step {step}");
}

/// An upload of which a history knows.
struct Open {
    bucket: BucketRef,
    key: &'static str,
    upload: anvil_model::ids::UploadId,
    parts: Vec<NewPart>,
}

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const BUCKETS: Range<usize> = 0..2;

/// Goal: usage is what one counts, whatever happened, also where a quota refuses some of it. Method: random changes, many of
/// them in one batch, some that are refused; now and then everything is counted.
pub async fn usage_agrees_with_a_count(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let mut dice = Dice::new(17);
    let mut buckets = Vec::new();
    for number in BUCKETS {
        buckets.push(caller.create_bucket(&format!("bucket-{number}")).await);
    }
    set(&caller, buckets[0], Quota { bytes: Some(4 * PART_BYTES_MIN), objects: Some(3) }).await;
    let mut open: Vec<Open> = Vec::new();
    for step in 0..300 {
        let count = 1 + dice.below(6);
        let batch: Vec<Mutation> =
            (0..count).map(|_| caller.mutation(any_change(&caller, &mut dice, &buckets, &mut open))).collect();
        caller.send_all(batch).await;
        if step % 10 == 0 {
            audit(&caller, step).await;
        }
    }
    audit(&caller, usize::MAX).await;
    let emptied = open.into_iter().map(|Open { bucket, key, upload, .. }| abort(bucket, key, upload));
    let batch: Vec<Mutation> = emptied.map(|change| caller.mutation(change)).collect();
    caller.send_all(batch).await;
    for bucket in buckets {
        for name in KEYS {
            caller.delete(bucket, name).await.expect("nothing speaks against it");
        }
        audit(&caller, usize::MAX).await;
        caller.commit(Change::DeleteBucket { bucket }).await.expect("it is empty");
    }
    assert_eq!(tenant(&caller).await.usage, Usage::NONE);
}

fn abort(bucket: BucketRef, name: &str, upload: anvil_model::ids::UploadId) -> Change {
    Change::AbortUpload { bucket, key: key(name), upload }
}

/// Some change, of which nobody knows whether it is refused.
fn any_change(
    caller: &Caller<'_, impl Metadata>,
    dice: &mut Dice,
    buckets: &[BucketRef],
    open: &mut Vec<Open>,
) -> Change {
    let (bucket, name, copied) = (*dice.pick(buckets), *dice.pick(&KEYS), *dice.pick(&KEYS));
    let source = CopySource { bucket: *dice.pick(buckets), key: key(copied), version: None };
    let conditions = WriteConditions::default();
    let size = *dice.pick(&[0, 1, PART_BYTES_MIN, PART_BYTES_MIN + 1]);
    let roll = dice.below(12);
    if roll <= 3 {
        let object = Box::new(caller.object(size));
        return Change::PutObject { bucket, key: key(name), object, conditions };
    }
    if roll <= 5 {
        return Change::DeleteObject { bucket, key: key(name), conditions };
    }
    if roll == 6 {
        return Change::CopyObject { bucket, key: key(name), copy: Box::new(copy_of(source)), conditions };
    }
    if roll == 7 || open.is_empty() {
        let upload = caller.upload_id();
        open.push(Open { bucket, key: name, upload, parts: Vec::new() });
        return Change::CreateUpload { bucket, key: key(name), upload, about: Box::new(NewUpload::default()) };
    }
    let at = dice.below(open.len());
    let number = 1 + u16::try_from(dice.below(3)).expect("small");
    let part = caller.part(number, size);
    match roll {
        8 | 9 => {
            let Open { bucket, key: name, upload, parts } = &mut open[at];
            parts.retain(|part| part.number != number);
            parts.push(part.clone());
            parts.sort_by_key(|part| part.number);
            Change::PutPart { bucket: *bucket, key: key(name), upload: *upload, part: Box::new(part) }
        }
        10 => {
            // It stays in the list: the completion may be refused.
            let Open { bucket, key: name, upload, parts } = &open[at];
            let listed: Vec<&NewPart> = parts.iter().filter(|_| !dice.one_in(4)).collect();
            completion(*bucket, name, *upload, &listed)
        }
        _ => {
            if dice.one_in(2) {
                let Open { bucket, key: name, upload, .. } = open.swap_remove(at);
                return abort(bucket, name, upload);
            }
            let Open { bucket, key: name, upload, .. } = &open[at];
            let part = Box::new(NewPart { blob: None, size: 1, ..part });
            Change::CopyPart { bucket: *bucket, key: key(name), upload: *upload, part, source, start: 0 }
        }
    }
}

/// Goal: a quota is reached and not exceeded, and what makes room or nothing more is never refused. Method: each kind of
/// change at the bound.
pub async fn a_full_bucket_takes_what_does_not_grow(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    set(&caller, bucket, Quota { bytes: Some(100), objects: Some(2) }).await;
    let plain = WriteConditions::default;
    caller.put(bucket, "a", 60).await;
    let large = caller.object(41);
    let refused = caller.put_if(bucket, "b", &large, plain()).await;
    assert_eq!(refused, exceeded(QuotaOwner::Bucket, QuotaUnit::Bytes, 100));
    assert_eq!(caller.blob(large.blob.as_ref().expect("bytes").blob).await, None, "its data is the sweep's");
    caller.put(bucket, "b", 40).await;
    let none = caller.object(0);
    let refused = caller.put_if(bucket, "c", &none, plain()).await;
    assert_eq!(refused, exceeded(QuotaOwner::Bucket, QuotaUnit::Objects, 2));
    let source = CopySource { bucket, key: key("a"), version: None };
    let copy = Change::CopyObject { bucket, key: key("c"), copy: Box::new(copy_of(source)), conditions: plain() };
    assert_eq!(caller.commit(copy).await, exceeded(QuotaOwner::Bucket, QuotaUnit::Objects, 2));
    let begin = Change::CreateUpload { bucket, key: key("c"), upload: caller.upload_id(), about: Box::default() };
    assert_eq!(caller.commit(begin).await, exceeded(QuotaOwner::Bucket, QuotaUnit::Objects, 2));

    // Below what is held: it stays, and gets less.
    set(&caller, bucket, Quota { bytes: Some(10), objects: Some(1) }).await;
    caller.put(bucket, "a", 60).await;
    caller.put(bucket, "a", 5).await;
    let refused = caller.put_if(bucket, "a", &caller.object(6), plain()).await;
    assert_eq!(refused, exceeded(QuotaOwner::Bucket, QuotaUnit::Bytes, 10));
    caller.delete(bucket, "b").await.expect("a deletion makes room");
    caller.put(bucket, "a", 10).await;
    set(&caller, bucket, Quota::NONE).await;
    caller.put(bucket, "b", 1000).await;
    assert_eq!(usages(&caller).await[0].usage, Usage { objects: 2, object_bytes: 1010, upload_bytes: 0 });
    let wrong = Change::SetBucketQuota { bucket, quota: bytes(1 << 63) };
    assert!(matches!(caller.commit(wrong).await, Err(Refusal::InvalidRequest(_))));
}

/// Parts count while their upload is under way, and once when they became an object.
pub async fn uploads_count_towards_a_quota(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    set(&caller, bucket, Quota { bytes: Some(100), objects: Some(1) }).await;
    let upload = caller.create_upload(bucket, "k", NewUpload::default()).await;
    let first = caller.part(1, 60);
    caller.put_part(bucket, "k", upload, &first).await.expect("there is room");
    let refused = caller.put_part(bucket, "k", upload, &caller.part(2, 41)).await;
    assert_eq!(refused, exceeded(QuotaOwner::Bucket, QuotaUnit::Bytes, 100));
    let again = caller.part(1, 100);
    caller.put_part(bucket, "k", upload, &again).await.expect("it replaces the part");
    let held = |objects, object_bytes, upload_bytes| Usage { objects, object_bytes, upload_bytes };
    assert_eq!(usages(&caller).await[0].usage, held(0, 0, 100));
    caller.commit(completion(bucket, "k", upload, &[&again])).await.expect("it makes nothing more");
    assert_eq!(usages(&caller).await[0].usage, held(1, 100, 0));
    let upload = caller.create_upload(bucket, "k", NewUpload::default()).await;
    let refused = caller.put_part(bucket, "k", upload, &caller.part(1, 1)).await;
    assert_eq!(refused, exceeded(QuotaOwner::Bucket, QuotaUnit::Bytes, 100));
    caller.commit(abort(bucket, "k", upload)).await.expect("it is under way");
    assert_eq!((usages(&caller).await[0].usage, tenant(&caller).await.usage), (held(1, 100, 0), held(1, 100, 0)));
}

/// A tenant's quota is over all of its buckets, also those that are gone meanwhile.
pub async fn a_tenants_quota_is_over_its_buckets(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let (one, other) = (caller.create_bucket("one-bucket").await, caller.create_bucket("other-bucket").await);
    caller.put(one, "k", 70).await;
    set_tenant(&caller, bytes(100)).await;
    let refused = caller.put_if(other, "k", &caller.object(31), WriteConditions::default()).await;
    assert_eq!(refused, exceeded(QuotaOwner::Tenant, QuotaUnit::Bytes, 100));
    caller.put(other, "k", 30).await;
    assert_eq!(tenant(&caller).await.quota, bytes(100));
    caller.delete(one, "k").await.expect("it is there");
    caller.commit(Change::DeleteBucket { bucket: one }).await.expect("it is empty");
    caller.put(other, "l", 70).await;
    set_tenant(&caller, Quota::NONE).await;
    caller.put(other, "m", 1).await;
    let held = Usage { objects: 3, object_bytes: 101, upload_bytes: 0 };
    assert_eq!(tenant(&caller).await, TenantUsage { quota: Quota::NONE, usage: held });
}

/// Goal: writes that come at once do not go beyond a quota together. Method: ten where three fit, in one batch and in ten.
pub async fn of_many_writes_only_those_that_fit_are_kept(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    for (name, quota, together) in [
        ("bytes-1", bytes(30), true),
        ("bytes-2", bytes(30), false),
        ("objects-1", objects(3), true),
        ("objects-2", objects(3), false),
    ] {
        let bucket = caller.create_bucket(name).await;
        set(&caller, bucket, quota).await;
        let put = |number: usize| {
            let (key, object) = (key(&number.to_string()), Box::new(caller.object(10)));
            caller.mutation(Change::PutObject { bucket, key, object, conditions: WriteConditions::default() })
        };
        let outcomes = if together {
            caller.send_all((0..10).map(put).collect()).await
        } else {
            future::join_all((0..10).map(|number| caller.send(put(number)))).await
        };
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 3, "{name}");
        assert_eq!(counted(&caller, name).await, Usage { objects: 3, object_bytes: 30, upload_bytes: 0 });
        audit(&caller, 0).await;
    }
}

/// What does not fit is refused before its body comes.
pub async fn a_look_up_knows_the_room(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    caller.put(bucket, "k", 60).await;
    let upload = caller.create_upload(bucket, "u", NewUpload::default()).await;
    for (quota, of_tenant, owner) in
        [(bytes(100), Quota::NONE, QuotaOwner::Bucket), (Quota::NONE, bytes(100), QuotaOwner::Tenant)]
    {
        set(&caller, bucket, quota).await;
        set_tenant(&caller, of_tenant).await;
        for (name, fits) in [("k", 100), ("new", 40)] {
            let answer = caller.ask(Query::Prepare { bucket: path("bucket"), key: key(name) }).await;
            let Ok(Answer::Prepared(prepared)) = answer else { panic!("{answer:?}") };
            assert_eq!(prepared.room.admit(Usage::of_object(fits)), Ok(()), "{name}");
            let refused = prepared.room.admit(Usage::of_object(fits + 1));
            assert_eq!(refused, exceeded(owner, QuotaUnit::Bytes, 100), "{name}");
        }
        let answer = caller.ask(Query::Upload { bucket: path("bucket"), key: key("u"), upload }).await;
        let Ok(Answer::Upload(found)) = answer else { panic!("{answer:?}") };
        assert_eq!(found.room.admit(Usage::of_parts([40])), Ok(()));
        assert!(found.room.admit(Usage::of_parts([41])).is_err());
    }
}
