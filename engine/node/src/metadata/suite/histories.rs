//! Long random histories, compared step by step with a model of S3 in maps.

use std::collections::{BTreeMap, BTreeSet};

use anvil_model::ids::{BlobId, UploadId};
use anvil_model::limits::PART_BYTES_MIN;
use anvil_model::object::{Etag, WriteConditions};

use super::kit::{Caller, Dice, key, path};
use crate::list::{Entry, ListObjects};
use crate::metadata::mutation::{BucketRef, Change, NewPart, NewUpload, Outcome};
use crate::metadata::query::{Answer, Query};
use crate::metadata::{Metadata, Refusal};

const BUCKETS: [&str; 2] = ["bucket-1", "bucket-2"];
const KEYS: [&str; 4] = ["a", "a/b", "b", "ü"];
const STEPS: usize = 600;

#[derive(Default)]
struct Model {
    buckets: BTreeMap<&'static str, Bucket>,
    dead: BTreeSet<BlobId>,
}

struct Bucket {
    reference: BucketRef,
    objects: BTreeMap<&'static str, Object>,
    uploads: BTreeMap<UploadId, Upload>,
}

struct Object {
    etag: Etag,
    size: u64,
    blobs: Vec<BlobId>,
}

struct Upload {
    key: &'static str,
    parts: BTreeMap<u16, NewPart>,
}

fn blobs(part: &NewPart) -> Option<BlobId> {
    part.blob.as_ref().map(|claim| claim.blob)
}

/// Goal: outcomes, versions, references and garbage are those of S3 through any history. Method: random steps, each
/// predicted by the model; at the end everything is looked at.
pub async fn random_histories_agree_with_a_map(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let mut dice = Dice::new(13);
    let mut model = Model::default();
    for step in 0..STEPS {
        let name = *dice.pick(&BUCKETS);
        let Some(bucket) = model.buckets.get_mut(name) else {
            let reference = caller.create_bucket(name).await;
            let bucket = Bucket { reference, objects: BTreeMap::new(), uploads: BTreeMap::new() };
            model.buckets.insert(name, bucket);
            continue;
        };
        match dice.below(12) {
            0 => {
                let expected = if bucket.objects.is_empty() && bucket.uploads.is_empty() {
                    Ok(Outcome::BucketDeleted)
                } else {
                    Err(Refusal::BucketNotEmpty)
                };
                let outcome = caller.commit(Change::DeleteBucket { bucket: bucket.reference }).await;
                assert_eq!(outcome, expected, "step {step}");
                if outcome.is_ok() {
                    model.buckets.remove(name);
                }
            }
            1..=3 => put(&caller, &mut dice, bucket, &mut model.dead, step).await,
            4..=5 => delete(&caller, &mut dice, bucket, &mut model.dead, step).await,
            6 => {
                let key = *dice.pick(&KEYS);
                let upload = caller.create_upload(bucket.reference, key, NewUpload::default()).await;
                bucket.uploads.insert(upload, Upload { key, parts: BTreeMap::new() });
            }
            7..=9 => {
                let Some(upload) = pick_upload(&mut dice, bucket) else { continue };
                put_part(&caller, &mut dice, bucket, upload, &mut model.dead).await;
            }
            10 => {
                let Some(upload) = pick_upload(&mut dice, bucket) else { continue };
                complete(&caller, &mut dice, bucket, upload, &mut model.dead, step).await;
            }
            _ => {
                let Some(upload) = pick_upload(&mut dice, bucket) else { continue };
                let ended = bucket.uploads.remove(&upload).expect("it was picked");
                let abort = Change::AbortUpload { bucket: bucket.reference, key: key(ended.key), upload };
                assert_eq!(caller.commit(abort).await, Ok(Outcome::UploadAborted), "step {step}");
                model.dead.extend(ended.parts.values().filter_map(blobs));
            }
        }
    }
    look_at_everything(&caller, &model).await;
}

fn pick_upload(dice: &mut Dice, bucket: &Bucket) -> Option<UploadId> {
    if bucket.uploads.is_empty() {
        return None;
    }
    bucket.uploads.keys().nth(dice.below(bucket.uploads.len())).copied()
}

/// Conditions of some kind, and whether the model says that they hold.
fn conditions(dice: &mut Dice, current: Option<&Object>) -> (WriteConditions, Result<(), Refusal>) {
    match (dice.below(4), current) {
        (0, current) => {
            let holds = if current.is_some() { Err(Refusal::PreconditionFailed) } else { Ok(()) };
            (WriteConditions { absent: true, ..WriteConditions::default() }, holds)
        }
        (1, Some(object)) => {
            (WriteConditions { etag: Some(object.etag.clone()), ..WriteConditions::default() }, Ok(()))
        }
        (1, None) => (
            WriteConditions { etag: Some(Etag("x".to_owned())), ..WriteConditions::default() },
            Err(Refusal::NoSuchKey),
        ),
        _ => (WriteConditions::default(), Ok(())),
    }
}

async fn put(
    caller: &Caller<'_, impl Metadata>,
    dice: &mut Dice,
    bucket: &mut Bucket,
    dead: &mut BTreeSet<BlobId>,
    step: usize,
) {
    let key = *dice.pick(&KEYS);
    let size = u64::try_from(dice.below(3)).expect("small");
    let object = caller.object(size);
    let (conditions, holds) = conditions(dice, bucket.objects.get(key));
    let outcome = caller.put_if(bucket.reference, key, &object, conditions).await;
    assert_eq!(outcome.map(|_| ()), holds, "step {step}");
    if holds.is_ok() {
        let blobs = object.blob.iter().map(|claim| claim.blob).collect();
        let replaced = bucket.objects.insert(key, Object { etag: object.etag, size, blobs });
        dead.extend(replaced.into_iter().flat_map(|object| object.blobs));
    }
}

async fn delete(
    caller: &Caller<'_, impl Metadata>,
    dice: &mut Dice,
    bucket: &mut Bucket,
    dead: &mut BTreeSet<BlobId>,
    step: usize,
) {
    let name = *dice.pick(&KEYS);
    let wanted = dice.one_in(3).then(|| Etag("x".to_owned()));
    let expected = match (&wanted, bucket.objects.get(name)) {
        (Some(_), Some(_)) => Err(Refusal::PreconditionFailed),
        (Some(_), None) => Err(Refusal::NoSuchKey),
        (None, _) => Ok(Outcome::ObjectDeleted),
    };
    let conditions = WriteConditions { etag: wanted, ..WriteConditions::default() };
    let change = Change::DeleteObject { bucket: bucket.reference, key: key(name), conditions };
    assert_eq!(caller.commit(change).await, expected, "step {step}");
    if expected.is_ok() {
        dead.extend(bucket.objects.remove(name).into_iter().flat_map(|object| object.blobs));
    }
}

async fn put_part(
    caller: &Caller<'_, impl Metadata>,
    dice: &mut Dice,
    bucket: &mut Bucket,
    upload: UploadId,
    dead: &mut BTreeSet<BlobId>,
) {
    let number = 1 + u16::try_from(dice.below(4)).expect("small");
    let part = caller.part(number, *dice.pick(&[0, 1, PART_BYTES_MIN, PART_BYTES_MIN + 1]));
    let open = bucket.uploads.get_mut(&upload).expect("it was picked");
    caller.put_part(bucket.reference, open.key, upload, &part).await.expect("the upload is open");
    dead.extend(open.parts.insert(number, part).as_ref().and_then(blobs));
}

async fn complete(
    caller: &Caller<'_, impl Metadata>,
    dice: &mut Dice,
    bucket: &mut Bucket,
    upload: UploadId,
    dead: &mut BTreeSet<BlobId>,
    step: usize,
) {
    let open = &bucket.uploads[&upload];
    let listed: Vec<_> = open.parts.values().filter(|_| !dice.one_in(4)).cloned().collect();
    let list: Vec<_> = listed.iter().collect();
    let small = listed.iter().rev().skip(1).rev().find(|part| part.size < PART_BYTES_MIN);
    let outcome = caller.commit(super::uploads::completion(bucket.reference, open.key, upload, &list)).await;
    if listed.is_empty() {
        assert!(matches!(outcome, Err(Refusal::InvalidRequest(_))), "step {step}: {outcome:?}");
        return;
    }
    if let Some(part) = small {
        let too_small = Refusal::EntityTooSmall { number: part.number, length: part.size };
        assert_eq!(outcome, Err(too_small), "step {step}");
        return;
    }
    let Ok(Outcome::UploadCompleted(completed)) = outcome else { panic!("step {step}: {outcome:?}") };
    let open = bucket.uploads.remove(&upload).expect("it was picked");
    let kept: Vec<BlobId> = listed.iter().filter_map(blobs).collect();
    dead.extend(open.parts.values().filter_map(blobs).filter(|blob| !kept.contains(blob)));
    assert_eq!(completed.size, listed.iter().map(|part| part.size).sum::<u64>(), "step {step}");
    let object = Object { etag: completed.etag, size: completed.size, blobs: kept };
    dead.extend(bucket.objects.insert(open.key, object).into_iter().flat_map(|object| object.blobs));
}

async fn look_at_everything(caller: &Caller<'_, impl Metadata>, model: &Model) {
    let mut live = BTreeSet::new();
    for name in BUCKETS {
        let list = ListObjects { max: 1000, ..ListObjects::default() };
        let answer = caller.ask(Query::List { bucket: path(name), list }).await;
        let Some(bucket) = model.buckets.get(name) else {
            assert_eq!(answer, Err(Refusal::NoSuchBucket));
            continue;
        };
        let Ok(Answer::List(page)) = answer else { panic!("a page is not {answer:?}") };
        let listed = page.entries.into_iter().map(|entry| match entry {
            Entry::Object { key, etag, size, .. } => (key, etag, size),
            Entry::CommonPrefix(prefix) => panic!("nothing is rolled up: {prefix:?}"),
        });
        let expected = bucket.objects.iter().map(|(key, object)| ((*key).to_owned(), object.etag.clone(), object.size));
        assert_eq!(listed.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        for key in KEYS {
            let found = caller.object_at(name, key).await.map(|found| found.version.etag);
            let expected = bucket.objects.get(key).map(|object| object.etag.clone());
            assert_eq!(found, expected.ok_or(Refusal::NoSuchKey));
        }
        live.extend(bucket.objects.values().flat_map(|object| &object.blobs));
        live.extend(bucket.uploads.values().flat_map(|upload| upload.parts.values()).filter_map(blobs));
    }
    assert!(live.is_disjoint(&model.dead));
    caller.audit(live, model.dead.iter().copied()).await;
}
