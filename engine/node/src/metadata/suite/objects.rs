//! Cases of objects: versions, conditions, order, repeats, blobs and garbage.

use anvil_model::ids::{BlobId, DiskId, Generation, Incarnation, NodeId};
use anvil_model::object::{Checksum, ChecksumAlgorithm, ChecksumType, Etag, Headers, WriteConditions};
use anvil_model::profile::Profile;
use futures_util::future;

use super::kit::{Caller, NODE, TENANT, blob_of, key, path};
use crate::metadata::mutation::{BlobSpread, BucketRef, Change, LostShard, NewObject, Outcome, Written};
use crate::metadata::query::{Answer, Query};
use crate::metadata::rows::{Content, Slice};
use crate::metadata::{Metadata, Refusal};

fn absent() -> WriteConditions {
    WriteConditions { absent: true, ..WriteConditions::default() }
}

fn matching(etag: &str) -> WriteConditions {
    WriteConditions { etag: Some(Etag(etag.to_owned())), ..WriteConditions::default() }
}

fn put(bucket: BucketRef, name: &str, object: &NewObject, conditions: WriteConditions) -> Change {
    Change::PutObject { bucket, key: key(name), object: Box::new(object.clone()), conditions }
}

/// Every field of a version survives, at its extremes too.
pub async fn a_version_reads_as_it_was_written(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let object = NewObject {
        etag: Etag("opaque, not an MD5".to_owned()),
        checksum: Checksum {
            algorithm: ChecksumAlgorithm::Sha256,
            of: ChecksumType::FullObject,
            value: vec![0xfe; 32],
        },
        crc64nvme: u64::MAX,
        headers: Headers {
            content_type: Some("text/plain; charset=utf-8".to_owned()),
            cache_control: Some("no-cache".to_owned()),
            content_disposition: Some("attachment; filename=\"ü\"".to_owned()),
            content_encoding: Some("gzip".to_owned()),
            content_language: Some("de".to_owned()),
            expires: Some("Thu, 01 Jan 1970 00:00:00 GMT".to_owned()),
            website_redirect_location: Some("/elsewhere".to_owned()),
            user: vec![("b".to_owned(), "2".to_owned()), ("a".to_owned(), "\"'\\ \u{1f600}".to_owned())],
        },
        tags: vec![("tag".to_owned(), String::new())],
        ..caller.object(1 << 40)
    };
    let name = "k\0\u{7f}\u{10ffff}/";
    let written = match caller.put_if(bucket, name, &object, WriteConditions::default()).await {
        Ok(Outcome::ObjectStored(written)) => written,
        other => panic!("a PUT came to {other:?}"),
    };
    let found = caller.object_at("bucket", name).await.expect("it is there");
    assert_eq!(found.bucket, bucket);
    assert!(found.segments.is_empty());
    let version = found.version;
    assert_eq!(Written { generation: version.generation, last_modified: version.last_modified }, written);
    assert_eq!((version.etag, version.size), (object.etag.clone(), object.size));
    assert_eq!((version.checksum, version.crc64nvme), (object.checksum.clone(), object.crc64nvme));
    assert_eq!((version.headers, version.tags), (object.headers.clone(), object.tags.clone()));
    assert_eq!((version.owner, version.null, version.delete_marker, version.parts), (TENANT, true, false, None));
    let slice = Slice { blob: blob_of(&object), offset: 0, length: object.size };
    assert_eq!(version.content, Content::Single(slice));

    let empty = caller.put(bucket, "empty", 0).await;
    let version = caller.object_at("bucket", "empty").await.expect("it is there").version;
    assert_eq!((version.content, version.size, version.etag), (Content::Empty, 0, empty.etag));
    let row = caller.blob(slice.blob).await.expect("it is claimed");
    assert_eq!((row.length, row.places), (1 << 40, object.blob.expect("it has bytes").places));
}

/// The version that a PUT replaces is garbage in the same transaction; the new one is not.
pub async fn an_overwritten_version_is_garbage(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let first = caller.put(bucket, "k", 5).await;
    let second = caller.put(bucket, "k", 6).await;
    caller.audit([blob_of(&second)], [blob_of(&first)]).await;
    caller.put(bucket, "k", 0).await;
    caller.audit([], [blob_of(&first), blob_of(&second)]).await;
    let found = caller.object_at("bucket", "k").await.expect("it is there");
    assert_eq!(found.version.size, 0);
}

/// A deletion takes the version and answers the same where there is none.
pub async fn a_deleted_key_is_gone(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let object = caller.put(bucket, "k", 5).await;
    let neighbour = caller.put(bucket, "k2", 5).await;
    assert_eq!(caller.delete(bucket, "k").await, Ok(Outcome::ObjectDeleted));
    assert_eq!(caller.object_at("bucket", "k").await, Err(Refusal::NoSuchKey));
    assert_eq!(caller.delete(bucket, "k").await, Ok(Outcome::ObjectDeleted));
    assert_eq!(caller.delete(bucket, "never").await, Ok(Outcome::ObjectDeleted));
    caller.audit([blob_of(&neighbour)], [blob_of(&object)]).await;
}

/// If-None-Match and If-Match, for writes and deletions, on keys that are there, are not, and were.
pub async fn conditions_are_checked_under_the_lock(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let delete = |conditions| Change::DeleteObject { bucket, key: key("k"), conditions };
    let attempt = caller.object(2);

    assert_eq!(caller.put_if(bucket, "k", &attempt, matching("x")).await, Err(Refusal::NoSuchKey));
    assert_eq!(caller.put_if(bucket, "k", &attempt, matching("*")).await, Err(Refusal::PreconditionFailed));
    assert_eq!(caller.commit(delete(matching("x"))).await, Err(Refusal::NoSuchKey));
    assert!(caller.put_if(bucket, "k", &attempt, absent()).await.is_ok(), "a refused write claimed nothing");
    let tag = attempt.etag.0.clone();

    let second = caller.object(2);
    assert_eq!(caller.put_if(bucket, "k", &second, absent()).await, Err(Refusal::PreconditionFailed));
    assert_eq!(caller.put_if(bucket, "k", &second, matching("x")).await, Err(Refusal::PreconditionFailed));
    assert_eq!(caller.commit(delete(matching("x"))).await, Err(Refusal::PreconditionFailed));
    assert!(caller.put_if(bucket, "k", &second, matching(&tag)).await.is_ok());
    assert_eq!(caller.put_if(bucket, "k", &caller.object(2), matching(&tag)).await, Err(Refusal::PreconditionFailed));
    assert_eq!(caller.commit(delete(matching(&second.etag.0))).await, Ok(Outcome::ObjectDeleted));
    assert_eq!(caller.put_if(bucket, "k", &caller.object(2), matching(&second.etag.0)).await, Err(Refusal::NoSuchKey));
    let third = caller.object(2);
    assert!(caller.put_if(bucket, "k", &third, absent()).await.is_ok(), "it was deleted");

    let version = caller.object_at("bucket", "k").await.expect("it is there").version;
    let of = |generation| WriteConditions { generation: Some(generation), ..WriteConditions::default() };
    let (own, other) = (of(version.generation), of(Generation(version.generation.0 - 1)));
    assert_eq!(caller.put_if(bucket, "k", &caller.object(2), other.clone()).await, Err(Refusal::PreconditionFailed));
    assert_eq!(caller.put_if(bucket, "none", &caller.object(2), own.clone()).await, Err(Refusal::PreconditionFailed));
    let fourth = caller.object(2);
    assert!(caller.put_if(bucket, "k", &fourth, own.clone()).await.is_ok());
    assert_eq!(caller.commit(delete(own)).await, Err(Refusal::PreconditionFailed), "it is another version");
    caller.audit([blob_of(&fourth)], [blob_of(&attempt), blob_of(&second), blob_of(&third)]).await;
}

/// Of many writes that demand an absent key, or the same tag, exactly one happens: in one batch and in many at once.
pub async fn of_many_conditional_writes_one_wins(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let mut current: Option<NewObject> = None;
    for round in 0..6 {
        let conditions = current.as_ref().map_or_else(absent, |object| matching(&object.etag.0));
        let objects: Vec<_> = (0..12).map(|_| caller.object(1)).collect();
        let changes = objects.iter().map(|object| put(bucket, "k", object, conditions.clone()));
        let outcomes = if round % 2 == 0 {
            caller.send_all(changes.map(|change| caller.mutation(change)).collect()).await
        } else {
            future::join_all(changes.map(|change| caller.commit(change))).await
        };
        let winners: Vec<_> = objects.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()).collect();
        assert_eq!(winners.len(), 1, "round {round}: {outcomes:?}");
        let lost = outcomes.iter().filter(|outcome| **outcome == Err(Refusal::PreconditionFailed)).count();
        assert_eq!(lost, objects.len() - 1, "round {round}: {outcomes:?}");
        let found = caller.object_at("bucket", "k").await.expect("one of them is there");
        assert_eq!(found.version.etag, winners[0].0.etag);
        current = Some(winners[0].0.clone());
    }
}

/// In one batch, each write to a key sees those before it.
pub async fn writes_to_one_key_keep_their_order(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let (first, second, third) = (caller.object(1), caller.object(2), caller.object(3));
    let delete = Change::DeleteObject { bucket, key: key("k"), conditions: matching(&second.etag.0) };
    let batch = [
        put(bucket, "k", &first, absent()),
        put(bucket, "other", &caller.object(0), absent()),
        put(bucket, "k", &second, matching(&first.etag.0)),
        put(bucket, "k", &caller.object(1), absent()),
        delete,
        put(bucket, "k", &third, absent()),
    ];
    let outcomes = caller.send_all(batch.into_iter().map(|change| caller.mutation(change)).collect()).await;
    assert_eq!(outcomes[3], Err(Refusal::PreconditionFailed));
    assert_eq!(outcomes[4], Ok(Outcome::ObjectDeleted));
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 5, "{outcomes:?}");
    let found = caller.object_at("bucket", "k").await.expect("the last one is there");
    assert_eq!(found.version.etag, third.etag);
    caller.audit([blob_of(&third)], [blob_of(&first), blob_of(&second)]).await;
}

/// A refusal leaves the other rows of its batch alone, and leaves nothing of itself.
pub async fn every_row_has_its_own_verdict(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let nowhere = BucketRef { id: anvil_model::ids::BucketId(999_999), ..bucket };
    let objects: Vec<_> = (0..8).map(|_| caller.object(1)).collect();
    let batch = objects.iter().enumerate().map(|(number, object)| {
        let target = if number % 2 == 0 { bucket } else { nowhere };
        caller.mutation(put(target, &format!("k{number}"), object, absent()))
    });
    let outcomes = caller.send_all(batch.collect()).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        let name = format!("k{number}");
        if number % 2 == 0 {
            assert!(outcome.is_ok(), "{name}: {outcome:?}");
            assert!(caller.object_at("bucket", &name).await.is_ok(), "{name}");
        } else {
            assert_eq!(*outcome, Err(Refusal::NoSuchBucket), "{name}");
            assert_eq!(caller.blob(blob_of(&objects[number])).await, None, "{name}");
        }
    }
}

/// A mutation that is sent again changes nothing and gets its answer, also when others have written since.
pub async fn a_repeated_write_answers_as_before(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let old = caller.mutation(put(bucket, "k", &caller.object(1), absent()));
    let answer = caller.send(old.clone()).await;
    assert!(answer.is_ok());
    assert_eq!(caller.send(old.clone()).await, answer);
    let newer = caller.put(bucket, "k", 2).await;
    assert_eq!(caller.send(old.clone()).await, answer);
    assert_eq!(caller.send_all(vec![old.clone(), old.clone()]).await, [answer.clone(), answer.clone()]);
    let found = caller.object_at("bucket", "k").await.expect("it is there");
    assert_eq!(found.version.etag, newer.etag, "the repeat did not overwrite");
    assert_eq!(caller.ask(Query::Write(old.write)).await, Ok(Answer::Write(answer.ok())));
    let refused = caller.mutation(put(bucket, "k", &caller.object(1), absent()));
    assert_eq!(caller.send(refused.clone()).await, Err(Refusal::PreconditionFailed));
    assert_eq!(caller.ask(Query::Write(refused.write)).await, Ok(Answer::Write(None)), "nothing happened");

    let delete =
        caller.mutation(Change::DeleteObject { bucket, key: key("k"), conditions: WriteConditions::default() });
    assert_eq!(caller.send(delete.clone()).await, Ok(Outcome::ObjectDeleted));
    let last = caller.put(bucket, "k", 3).await;
    assert_eq!(caller.send(delete).await, Ok(Outcome::ObjectDeleted));
    let found = caller.object_at("bucket", "k").await.expect("the repeat did not delete");
    assert_eq!(found.version.etag, last.etag);
}

/// Generations and times grow with every change of a key, through deletion and re-creation of key and bucket.
pub async fn generations_and_times_only_grow(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let mut last = None;
    for _ in 0..3 {
        let bucket = caller.create_bucket("bucket").await;
        for _ in 0..3 {
            let written = match caller.commit(put(bucket, "k", &caller.object(1), absent())).await {
                Ok(Outcome::ObjectStored(written)) => written,
                other => panic!("a PUT came to {other:?}"),
            };
            if let Some(Written { generation, last_modified }) = last {
                assert!(written.generation > generation);
                assert!(written.last_modified >= last_modified);
            }
            last = Some(written);
            caller.delete(bucket, "k").await.expect("it is there");
        }
        caller.commit(Change::DeleteBucket { bucket }).await.expect("it is empty");
    }
}

/// A blob belongs to the first write that names it; sizes must agree.
pub async fn a_blob_is_claimed_once(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let object = caller.put(bucket, "k", 5).await;
    let thief = caller.put_if(bucket, "other", &object, WriteConditions::default()).await;
    assert_eq!(thief, Err(Refusal::BlobClaimed));
    caller.delete(bucket, "k").await.expect("it is there");
    let thief = caller.put_if(bucket, "other", &object, WriteConditions::default()).await;
    assert_eq!(thief, Err(Refusal::BlobClaimed), "garbage is not revived");
    let twins = caller.object(5);
    let batch = ["a", "b"].map(|name| caller.mutation(put(bucket, name, &twins, absent())));
    let outcomes = caller.send_all(batch.into()).await;
    assert!(outcomes[0].is_ok());
    assert_eq!(outcomes[1], Err(Refusal::BlobClaimed));
    let short = NewObject { size: 4, ..caller.object(5) };
    let outcome = caller.put_if(bucket, "short", &short, WriteConditions::default()).await;
    assert!(matches!(outcome, Err(Refusal::InvalidRequest(_))), "{outcome:?}");
    caller.audit([blob_of(&twins)], [blob_of(&object)]).await;
}

/// Data that an earlier life or an unknown node wrote cannot be committed.
pub async fn a_closed_writer_commits_nothing(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let kept = caller.put(bucket, "kept", 1).await;
    let late = caller.object(1);
    caller.reopen().await;
    let foreign = |change: fn(BlobId) -> BlobId| {
        let mut object = caller.object(1);
        let claim = object.blob.as_mut().expect("it has bytes");
        claim.blob = change(claim.blob);
        object
    };
    let unknown_node = foreign(|blob| BlobId { node: NodeId(NODE.0 + 1), ..blob });
    let future_life = foreign(|blob| BlobId { incarnation: Incarnation(blob.incarnation.0 + 1), ..blob });
    for object in [&late, &unknown_node, &future_life] {
        let outcome = caller.put_if(bucket, "k", object, WriteConditions::default()).await;
        assert_eq!(outcome, Err(Refusal::WriterClosed), "{object:?}");
    }
    let now = caller.put(bucket, "now", 1).await;
    assert!(caller.put_if(bucket, "empty", &caller.object(0), absent()).await.is_ok(), "no data, no writer");
    caller.audit([blob_of(&kept), blob_of(&now)], []).await;
}

/// The sweep takes what a closed life left and nothing else; what it took is never referenced.
pub async fn the_sweep_and_a_commit_exclude_each_other(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let (kept, orphan) = (caller.put(bucket, "kept", 1).await, caller.object(1));
    let claims = || vec![kept.blob.clone().expect("bytes"), orphan.blob.clone().expect("bytes")];
    let early = caller.commit(Change::ClaimOrphans { blobs: claims() }).await;
    assert!(matches!(early, Err(Refusal::InvalidRequest(_))), "its writer is open: {early:?}");
    caller.reopen().await;
    let sweep = caller.commit(Change::ClaimOrphans { blobs: claims() });
    let (swept, put) = future::join(sweep, caller.put_if(bucket, "k", &orphan, WriteConditions::default())).await;
    assert_eq!(swept, Ok(Outcome::OrphansClaimed(1)));
    assert!(matches!(put, Err(Refusal::WriterClosed | Refusal::BlobClaimed)), "{put:?}");
    assert_eq!(caller.commit(Change::ClaimOrphans { blobs: claims() }).await, Ok(Outcome::OrphansClaimed(0)));
    caller.audit([blob_of(&kept)], [blob_of(&orphan)]).await;
}

/// All blobs that have a row, live or dead, are read in the order of their ids, page by page.
pub async fn blobs_are_read_by_id(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let mut expected = Vec::new();
    for number in 0..300 {
        if number == 256 {
            caller.reopen().await;
        }
        expected.push(blob_of(&caller.put(bucket, &format!("k-{}", number % 7), 1).await));
    }
    expected.sort_unstable();
    for max in [1, 7, 100, 1000] {
        let mut found = Vec::new();
        loop {
            let after = found.last().copied();
            let page = match caller.ask(Query::Blobs { after, max }).await {
                Ok(Answer::Blobs(rows)) => rows,
                other => panic!("blobs are not {other:?}"),
            };
            assert!(page.len() <= max);
            found.extend(page.iter().map(|row| row.blob));
            if page.len() < max {
                break;
            }
        }
        assert_eq!(found, expected, "in pages of {max}");
    }
}

/// A line of the garbage list leaves when its data is gone, and never while the data is live.
pub async fn garbage_is_forgotten_when_it_is_gone(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let mut gone = Vec::new();
    for number in 0..7 {
        gone.push(caller.put(bucket, "k", 1 + number).await);
    }
    let live = gone.pop().expect("the last one is current");
    let lines = caller.garbage().await;
    assert_eq!(lines.len(), gone.len());
    assert!(lines.is_sorted_by_key(|line| line.generation), "oldest first");
    let wrong = vec![(lines[0].generation, blob_of(&live))];
    let refused = caller.commit(Change::ForgetGarbage { blobs: wrong }).await;
    assert!(matches!(refused, Err(Refusal::InvalidRequest(_))), "{refused:?}");
    let first: Vec<_> = lines[..4].iter().map(|line| (line.generation, line.blob)).collect();
    assert_eq!(caller.commit(Change::ForgetGarbage { blobs: first.clone() }).await, Ok(Outcome::GarbageForgotten));
    for (_, blob) in first {
        assert_eq!(caller.blob(blob).await, None);
    }
    caller.audit([blob_of(&live)], lines[4..].iter().map(|line| line.blob)).await;
    assert!(matches!(caller.ask(Query::Bucket(path("bucket"))).await, Ok(Answer::Bucket(_))));
}

/// An object of profile 2+1 whose shards are on these disks. They come there by moves: an implementation that flushes
/// what a claim names would look for these disks.
async fn put_on<M: Metadata>(caller: &Caller<'_, M>, bucket: BucketRef, key: &str, places: [u128; 3]) -> BlobId {
    let mut object = caller.object(7);
    let claim = object.blob.as_mut().expect("it has bytes");
    let blob = claim.blob;
    claim.profile = Profile { data: 2, parity: 1 };
    claim.places = vec![DiskId::NONE; 3];
    caller.put_if(bucket, key, &object, WriteConditions::default()).await.expect("nothing speaks against it");
    for (shard, to) in (0..).zip(places.map(DiskId)) {
        let moved = Change::MoveShard { blob, shard, from: DiskId::NONE, to };
        assert_eq!(caller.commit(moved).await, Ok(Outcome::ShardMoved));
    }
    blob
}

/// A shard's place changes only from what the mover saw, never to a disk with another shard, and not once the blob is
/// garbage.
pub async fn a_shard_is_moved_from_where_it_was(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let blob = put_on(&caller, bucket, "k", [11, 12, 13]).await;
    let shift = async |shard, from, to| {
        caller.commit(Change::MoveShard { blob, shard, from: DiskId(from), to: DiskId(to) }).await
    };
    let places =
        async || caller.blob(blob).await.expect("it has a row").places.iter().map(|disk| disk.0).collect::<Vec<_>>();

    assert_eq!(shift(1, 12, 14).await, Ok(Outcome::ShardMoved));
    assert_eq!(places().await, [11, 14, 13]);
    assert_eq!(shift(1, 12, 15).await, Err(Refusal::ShardMoved), "somebody else was first");
    assert_eq!(shift(3, 0, 15).await, Err(Refusal::ShardMoved), "there is no such shard");
    let taken = shift(0, 11, 13).await;
    assert!(matches!(taken, Err(Refusal::InvalidRequest(_))), "two shards on one disk: {taken:?}");
    assert_eq!(places().await, [11, 14, 13]);

    assert_eq!(shift(0, 11, 0).await, Ok(Outcome::ShardMoved));
    assert_eq!(shift(2, 13, 0).await, Ok(Outcome::ShardMoved), "two of them are to be repaired");
    assert_eq!(places().await, [0, 14, 0]);
    assert_eq!(shift(0, 0, 15).await, Ok(Outcome::ShardMoved));
    assert_eq!(shift(0, 0, 16).await, Err(Refusal::ShardMoved), "another repair was first");
    assert_eq!(places().await, [15, 14, 0]);

    caller.delete(bucket, "k").await.expect("nothing speaks against it");
    assert_eq!(shift(0, 15, 0).await, Err(Refusal::ShardMoved));
    let nobody = BlobId { sequence: blob.sequence + 1, ..blob };
    let moved = Change::MoveShard { blob: nobody, shard: 0, from: DiskId(11), to: DiskId(12) };
    assert_eq!(caller.commit(moved).await, Err(Refusal::ShardMoved));
    caller.audit([], [blob]).await;
}

/// A narrow blob has room in its row for the shards that it lacks, is found by that, and is spread anew only from what was
/// seen. No shard is moved to where it has none.
pub async fn a_narrow_blob_is_spread_anew(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let blob = put_on(&caller, bucket, "k", [11, 12, 13]).await;
    let spread = |data, parity, places: &[u128]| BlobSpread {
        profile: Profile { data, parity },
        places: places.iter().copied().map(DiskId).collect(),
    };
    let spread_anew = async |from: &BlobSpread, to: &BlobSpread| {
        caller.commit(Change::SpreadAnew { blob, from: from.clone(), to: to.clone() }).await
    };
    let now = async || {
        let row = caller.blob(blob).await.expect("it has a row");
        BlobSpread { profile: row.profile, places: row.places }
    };
    let (first, wide) = (spread(2, 1, &[11, 12, 13]), spread(2, 2, &[11, 14, 15, 16]));
    for wrong in [spread(2, 2, &[11, 14, 15]), spread(2, 2, &[11, 14, 14, 15]), spread(2, 2, &[11, 14, 0, 15])] {
        let refused = spread_anew(&first, &wrong).await;
        assert!(matches!(refused, Err(Refusal::InvalidRequest(_))), "{wrong:?}: {refused:?}");
    }
    assert_eq!(spread_anew(&spread(2, 1, &[11, 12, 0]), &wide).await, Err(Refusal::ShardMoved), "other places");
    assert_eq!(spread_anew(&spread(1, 2, &[11, 12, 13]), &wide).await, Err(Refusal::ShardMoved), "another profile");
    assert_eq!(now().await, first);
    assert_eq!(spread_anew(&first, &wide).await, Ok(Outcome::BlobSpread));
    assert_eq!(now().await, wide);
    assert_eq!(spread_anew(&first, &wide).await, Err(Refusal::ShardMoved), "somebody else was first");

    // What was seen before says nothing of the shards that are there now, although the first disk is the same.
    let lose = async |profile, disk| {
        caller.commit(Change::LoseShard(LostShard { blob, profile, shard: 0, disk: DiskId(disk) })).await
    };
    assert_eq!(lose(first.profile, 11).await, Err(Refusal::ShardMoved), "of the other spread");
    assert_eq!(lose(wide.profile, 12).await, Err(Refusal::ShardMoved), "on another disk");
    assert_eq!(now().await, wide);
    assert_eq!(lose(wide.profile, 11).await, Ok(Outcome::ShardMoved));
    assert_eq!(now().await, spread(2, 2, &[0, 14, 15, 16]));
    let again = Change::MoveShard { blob, shard: 0, from: DiskId::NONE, to: DiskId(11) };
    assert_eq!(caller.commit(again).await, Ok(Outcome::ShardMoved));

    let mut object = caller.object(9);
    let claim = object.blob.as_mut().expect("it has bytes");
    let narrow = claim.blob;
    (claim.profile, claim.places) = (Profile { data: 1, parity: 1 }, vec![DiskId::NONE; 4]);
    caller.put_if(bucket, "narrow", &object, WriteConditions::default()).await.expect("nothing speaks against it");
    let shift = async |shard, to| {
        let from = DiskId::NONE;
        caller.commit(Change::MoveShard { blob: narrow, shard, from, to: DiskId(to) }).await
    };
    assert_eq!(shift(0, 21).await, Ok(Outcome::ShardMoved));
    assert_eq!(shift(1, 22).await, Ok(Outcome::ShardMoved));
    assert_eq!(shift(2, 23).await, Err(Refusal::ShardMoved), "it has two shards");
    let in_debt = Query::BlobsOnDisk { disk: DiskId::NONE, after: None, max: 10 };
    let Ok(Answer::BlobsOnDisk(page)) = caller.ask(in_debt).await else { panic!("a page of blobs") };
    assert_eq!(page.rows.iter().map(|row| (row.blob, row.is_narrow())).collect::<Vec<_>>(), [(narrow, true)]);

    caller.delete(bucket, "k").await.expect("nothing speaks against it");
    assert_eq!(spread_anew(&wide, &wide).await, Err(Refusal::ShardMoved), "nothing needs it any more");
}

/// What has a shard on a disk, or none where it should have one, is found in pages of any size, and nothing else.
pub async fn blobs_are_found_by_disk(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let mut blobs = Vec::new();
    for number in 0..40_u128 {
        let debt = if number % 5 == 0 { 0 } else { 4 };
        let places = if number % 2 == 0 { [1, 2, debt] } else { [debt, 3, 1] };
        blobs.push((put_on(&caller, bucket, &format!("k-{number}"), places).await, places));
    }
    for number in [0, 5, 7] {
        caller.delete(bucket, &format!("k-{number}")).await.expect("nothing speaks against it");
    }
    let repaired = blobs[10].0;
    let repair = Change::MoveShard { blob: repaired, shard: 2, from: DiskId::NONE, to: DiskId(9) };
    assert_eq!(caller.commit(repair).await, Ok(Outcome::ShardMoved));
    blobs[10].1 = [1, 2, 9];
    for number in [7, 5, 0] {
        blobs.remove(number);
    }
    blobs.sort_unstable();

    for disk in [0, 1, 2, 3, 4, 9, 77] {
        let expected: Vec<_> =
            blobs.iter().filter(|(_, places)| places.contains(&disk)).map(|(blob, _)| *blob).collect();
        for max in [1, 3, 1000] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = match caller.ask(Query::BlobsOnDisk { disk: DiskId(disk), after, max }).await {
                    Ok(Answer::BlobsOnDisk(page)) => page,
                    other => panic!("blobs on a disk are not {other:?}"),
                };
                assert!(page.rows.len() <= max);
                found.extend(page.rows.iter().map(|row| row.blob));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found, expected, "on disk {disk} in pages of {max}");
        }
    }
}
