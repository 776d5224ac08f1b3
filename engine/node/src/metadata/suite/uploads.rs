//! Cases of multipart uploads: parts, completion, repeats, ranges.

use anvil_model::ids::UploadId;
use anvil_model::limits::PART_BYTES_MIN;
use anvil_model::object::{Checksum, ChecksumAlgorithm, ChecksumType, Etag, Headers, WriteConditions};
use anvil_model::time::WallTime;
use futures_util::future;

use super::kit::{Caller, TENANT, blob_of, crc, key, path};
use crate::metadata::mutation::{BucketRef, Change, Completed, NewPart, NewUpload, Outcome};
use crate::metadata::query::{Answer, Query, ReadFrom, SEGMENTS_PER_PAGE, StaleUploads};
use crate::metadata::rows::{Content, SegmentRow};
use crate::metadata::{Metadata, Refusal};
use crate::multipart::{PartName, PartsPage};

/// A completion with exactly these parts.
pub(super) fn completion(bucket: BucketRef, name: &str, upload: UploadId, parts: &[&NewPart]) -> Change {
    let name_of = |part: &&NewPart| PartName { number: part.number, etag: part.etag.clone(), checksum: None };
    Change::CompleteUpload {
        bucket,
        key: key(name),
        upload,
        parts: parts.iter().map(name_of).collect(),
        checksum: None,
        conditions: WriteConditions::default(),
    }
}

/// An upload with these parts (number, bytes), stored in this order.
async fn uploaded(
    caller: &Caller<'_, impl Metadata>,
    bucket: BucketRef,
    name: &str,
    parts: &[(u16, u64)],
) -> (UploadId, Vec<NewPart>) {
    let upload = caller.create_upload(bucket, name, NewUpload::default()).await;
    let parts: Vec<_> = parts.iter().map(|&(number, size)| caller.part(number, size)).collect();
    for part in &parts {
        let outcome = caller.put_part(bucket, name, upload, part).await;
        assert!(matches!(outcome, Ok(Outcome::PartStored(_))), "{outcome:?}");
    }
    (upload, parts)
}

fn completed(outcome: Result<Outcome, Refusal>) -> Completed {
    match outcome {
        Ok(Outcome::UploadCompleted(completed)) => completed,
        other => panic!("a completion came to {other:?}"),
    }
}

fn blob(part: &NewPart) -> anvil_model::ids::BlobId {
    part.blob.as_ref().expect("it has bytes").blob
}

async fn segments(caller: &Caller<'_, impl Metadata>, name: &str, from: ReadFrom) -> Vec<SegmentRow> {
    let query = Query::Object { bucket: path("bucket"), key: key(name), read_from: Some(from) };
    match caller.ask(query).await {
        Ok(Answer::Object(found)) => found.segments,
        other => panic!("an object is not {other:?}"),
    }
}

/// The object has the parts' bytes in order, with gaps in the numbers, and is read from any byte.
pub async fn an_object_of_parts_is_read_by_ranges(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let about = NewUpload {
        headers: Headers { content_type: Some("a/b".to_owned()), ..Headers::default() },
        tags: vec![("t".to_owned(), "v".to_owned())],
        ..NewUpload::default()
    };
    let upload = caller.create_upload(bucket, "k", about.clone()).await;
    let sizes = [(9, 1), (2, PART_BYTES_MIN), (5, PART_BYTES_MIN + 7), (7, 3)];
    let parts: Vec<_> = sizes.iter().map(|&(number, size)| caller.part(number, size)).collect();
    for part in &parts {
        caller.put_part(bucket, "k", upload, part).await.expect("the upload is open");
    }
    assert_eq!(caller.object_at("bucket", "k").await, Err(Refusal::NoSuchKey), "not yet");
    let list = [&parts[1], &parts[2], &parts[0]];
    let result = completed(caller.commit(completion(bucket, "k", upload, &list)).await);
    assert_eq!(result.size, 2 * PART_BYTES_MIN + 8);
    assert!(result.etag.0.ends_with("-3") && result.etag.0.len() == 34, "{}", result.etag);

    let found = caller.object_at("bucket", "k").await.expect("it is there");
    assert!(found.segments.is_empty(), "nobody asked for them");
    let version = found.version;
    assert_eq!((version.etag, version.size, version.parts), (result.etag, result.size, Some(3)));
    assert_eq!((version.checksum, version.content), (result.checksum, Content::Segments));
    assert_eq!((version.headers, version.tags, version.owner), (about.headers, about.tags, TENANT));
    let starts = [0, PART_BYTES_MIN, 2 * PART_BYTES_MIN + 7];
    let from = async |from| segments(&caller, "k", from).await.iter().map(|row| row.start).collect::<Vec<_>>();
    assert_eq!(from(ReadFrom::Start(0)).await, starts);
    assert_eq!(from(ReadFrom::Start(PART_BYTES_MIN - 1)).await, starts);
    assert_eq!(from(ReadFrom::Start(PART_BYTES_MIN)).await, starts[1..]);
    assert_eq!(from(ReadFrom::Start(starts[2])).await, starts[2..]);
    assert_eq!(from(ReadFrom::Last(1)).await, starts[2..]);
    assert_eq!(from(ReadFrom::Last(2)).await, starts[1..]);
    assert_eq!(from(ReadFrom::Last(u64::MAX)).await, starts);
    assert!(from(ReadFrom::Start(result.size)).await.is_empty());
    let rows = segments(&caller, "k", ReadFrom::Start(0)).await;
    for (row, part) in rows.iter().zip(list) {
        let (slice, kept) = (row.slice.expect("it has bytes"), row.part.as_ref().expect("a part begins here"));
        assert_eq!((slice.blob, slice.offset, slice.length), (blob(part), 0, part.size));
        assert_eq!((kept.number, kept.size, &kept.etag), (part.number, part.size, &part.etag));
    }
    caller.audit(list.map(blob), [blob(&parts[3])]).await;

    caller.put(bucket, "k", 0).await;
    caller.audit([], parts.iter().map(blob)).await;
    let gone = Query::Segments { bucket: bucket.id, version: version.generation, range: 0..9 };
    assert_eq!(caller.ask(gone).await, Ok(Answer::Segments(Vec::new())));
}

/// Each way in which a list can be wrong has its answer and changes nothing.
pub async fn a_wrong_list_is_refused(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let sizes = [(1, PART_BYTES_MIN), (2, PART_BYTES_MIN - 1), (3, PART_BYTES_MIN), (4, 0)];
    let (upload, parts) = uploaded(&caller, bucket, "k", &sizes).await;
    let [one, small, three, empty] = parts.as_slice() else { panic!("four parts") };
    let wrong_tag = NewPart { etag: Etag("x".to_owned()), ..one.clone() };
    let missing = NewPart { number: 10_000, ..one.clone() };
    let cases: [(&[&NewPart], Refusal); 8] = [
        (&[], Refusal::InvalidRequest("an object has at least one part")),
        (&[three, one], Refusal::InvalidPartOrder),
        (&[one, one], Refusal::InvalidPartOrder),
        (&[&wrong_tag, three], Refusal::InvalidPart(1)),
        (&[one, &missing], Refusal::InvalidPart(10_000)),
        (&[one, small, three], Refusal::EntityTooSmall { number: 2, length: PART_BYTES_MIN - 1 }),
        (&[small, empty], Refusal::EntityTooSmall { number: 2, length: PART_BYTES_MIN - 1 }),
        (&[&missing], Refusal::InvalidPart(10_000)),
    ];
    for (list, refusal) in cases {
        assert_eq!(caller.commit(completion(bucket, "k", upload, list)).await, Err(refusal), "{list:?}");
    }
    let mut wrong_sum = completion(bucket, "k", upload, &[one]);
    let Change::CompleteUpload { parts: list, .. } = &mut wrong_sum else { panic!("a completion") };
    list[0].checksum = Some(crc(77));
    assert_eq!(caller.commit(wrong_sum).await, Err(Refusal::InvalidPart(1)));
    let mut wrong_whole = completion(bucket, "k", upload, &[one]);
    let Change::CompleteUpload { checksum, .. } = &mut wrong_whole else { panic!("a completion") };
    *checksum = Some(crc(77));
    assert_eq!(caller.commit(wrong_whole).await, Err(Refusal::BadDigest));
    assert_eq!(caller.object_at("bucket", "k").await, Err(Refusal::NoSuchKey));
    caller.audit([one, small, three].map(blob), []).await;

    let result = completed(caller.commit(completion(bucket, "k", upload, &[one, three, empty])).await);
    assert_eq!(result.size, 2 * PART_BYTES_MIN);
    caller.audit([one, three].map(blob), [blob(small)]).await;
}

/// A repeat with the same list answers the same and overwrites nothing; another list finds no upload.
pub async fn a_completion_is_repeated_safely(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let (upload, parts) = uploaded(&caller, bucket, "k", &[(1, PART_BYTES_MIN), (2, 1)]).await;
    let list = completion(bucket, "k", upload, &[&parts[0], &parts[1]]);
    let first = caller.commit(list.clone()).await;
    assert!(first.is_ok());
    assert_eq!(caller.commit(list.clone()).await, first, "another write id, the same answer");
    let newer = caller.put(bucket, "k", 4).await;
    assert_eq!(caller.commit(list).await, first);
    let found = caller.object_at("bucket", "k").await.expect("it is there");
    assert_eq!(found.version.etag, newer.etag, "the newer write stays");
    let other = caller.commit(completion(bucket, "k", upload, &[&parts[0]])).await;
    assert_eq!(other, Err(Refusal::NoSuchUpload(upload)));
    let late = caller.put_part(bucket, "k", upload, &caller.part(3, 1)).await;
    assert_eq!(late, Err(Refusal::NoSuchUpload(upload)));
    let abort = caller.commit(Change::AbortUpload { bucket, key: key("k"), upload }).await;
    assert_eq!(abort, Err(Refusal::NoSuchUpload(upload)));
    let query = Query::Upload { bucket: path("bucket"), key: key("k"), upload };
    assert_eq!(caller.ask(query).await, Err(Refusal::NoSuchUpload(upload)));
    caller.audit([blob_of(&newer)], parts.iter().map(blob)).await;
}

/// A part that is stored again replaces the one before, which is garbage at once.
pub async fn the_last_part_of_a_number_wins(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let (upload, first) = uploaded(&caller, bucket, "k", &[(1, 10)]).await;
    let second = caller.part(1, 20);
    caller.put_part(bucket, "k", upload, &second).await.expect("the upload is open");
    caller.audit([blob(&second)], [blob(&first[0])]).await;
    let old = caller.commit(completion(bucket, "k", upload, &[&first[0]])).await;
    assert_eq!(old, Err(Refusal::InvalidPart(1)));
    let result = completed(caller.commit(completion(bucket, "k", upload, &[&second])).await);
    assert_eq!(result.size, 20);
    for number in [0, 10_001] {
        let upload = caller.create_upload(bucket, "k", NewUpload::default()).await;
        let outcome = caller.put_part(bucket, "k", upload, &caller.part(number, 1)).await;
        assert!(matches!(outcome, Err(Refusal::InvalidRequest(_))), "{number}: {outcome:?}");
    }
}

/// An abort makes garbage of all parts and leaves no upload.
pub async fn an_aborted_upload_leaves_garbage(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let (upload, parts) = uploaded(&caller, bucket, "k", &[(1, 1), (2, 2), (3, 0)]).await;
    let abort = Change::AbortUpload { bucket, key: key("k"), upload };
    assert_eq!(caller.commit(abort.clone()).await, Ok(Outcome::UploadAborted));
    assert_eq!(caller.commit(abort).await, Err(Refusal::NoSuchUpload(upload)));
    let complete = caller.commit(completion(bucket, "k", upload, &[&parts[0]])).await;
    assert_eq!(complete, Err(Refusal::NoSuchUpload(upload)));
    caller.audit([], [blob(&parts[0]), blob(&parts[1])]).await;
}

/// Bucket, key and id must all be the upload's.
pub async fn an_upload_is_named_by_all_three(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let other = caller.create_bucket("other").await;
    let (upload, parts) = uploaded(&caller, bucket, "k", &[(1, 1)]).await;
    let unknown = UploadId(12_345);
    for (bucket, name, id) in [(bucket, "x", upload), (other, "k", upload), (bucket, "k", unknown)] {
        let no = Err(Refusal::NoSuchUpload(id));
        assert_eq!(caller.put_part(bucket, name, id, &caller.part(1, 1)).await, no);
        assert_eq!(caller.commit(completion(bucket, name, id, &[&parts[0]])).await, no);
        assert_eq!(caller.commit(Change::AbortUpload { bucket, key: key(name), upload: id }).await, no);
    }
    caller.audit([blob(&parts[0])], []).await;
    let again = Change::CreateUpload { bucket, key: key("k"), upload, about: Box::default() };
    let outcome = caller.commit(again).await;
    assert!(matches!(outcome, Err(Refusal::InvalidRequest(_))), "{outcome:?}");
}

/// Parts are summed by the upload's algorithm, and so is the object.
pub async fn checksums_follow_the_upload(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let wish = |algorithm, of| NewUpload { checksum: Some((algorithm, of)), ..NewUpload::default() };
    let impossible = [
        (ChecksumAlgorithm::Sha256, ChecksumType::FullObject),
        (ChecksumAlgorithm::Crc64Nvme, ChecksumType::Composite),
    ];
    for (algorithm, of) in impossible {
        let about = Box::new(wish(algorithm, of));
        let create = Change::CreateUpload { bucket, key: key("k"), upload: caller.upload_id(), about };
        let outcome = caller.commit(create).await;
        assert!(matches!(outcome, Err(Refusal::InvalidRequest(_))), "{outcome:?}");
    }
    let (algorithm, of) = (ChecksumAlgorithm::Sha1, ChecksumType::Composite);
    let upload = caller.create_upload(bucket, "k", wish(algorithm, of)).await;
    let other = caller.put_part(bucket, "k", upload, &caller.part(1, 1)).await;
    assert!(matches!(other, Err(Refusal::InvalidRequest(_))), "{other:?}");
    let sum = |byte| Checksum { algorithm, of: ChecksumType::FullObject, value: vec![byte; 20] };
    let part = NewPart { checksum: sum(7), ..caller.part(1, 1) };
    caller.put_part(bucket, "k", upload, &part).await.expect("it is by the upload's algorithm");
    let mut complete = completion(bucket, "k", upload, &[&part]);
    let Change::CompleteUpload { parts, .. } = &mut complete else { panic!("a completion") };
    parts[0].checksum = Some(sum(7));
    let result = completed(caller.commit(complete).await);
    assert_eq!((result.checksum.algorithm, result.checksum.of, result.checksum.value.len()), (algorithm, of, 20));
    assert_ne!(result.checksum.value, sum(7).value, "a sum of sums");
}

/// A completion is a write of its key: conditions hold for it, and the version that it replaces is garbage.
pub async fn completion_honours_conditions(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let (upload, parts) = uploaded(&caller, bucket, "k", &[(1, 1)]).await;
    let with = |wanted: WriteConditions| {
        let mut complete = completion(bucket, "k", upload, &[&parts[0]]);
        let Change::CompleteUpload { conditions, .. } = &mut complete else { panic!("a completion") };
        *conditions = wanted;
        complete
    };
    let matching = |etag: &Etag| WriteConditions { etag: Some(etag.clone()), ..WriteConditions::default() };
    assert_eq!(caller.commit(with(matching(&Etag("x".to_owned())))).await, Err(Refusal::NoSuchKey));
    let current = caller.put(bucket, "k", 6).await;
    let absent = WriteConditions { absent: true, ..WriteConditions::default() };
    assert_eq!(caller.commit(with(absent)).await, Err(Refusal::PreconditionFailed));
    assert!(caller.commit(with(matching(&current.etag))).await.is_ok());
    caller.audit([blob(&parts[0])], [blob_of(&current)]).await;
}

/// A part, a completion and an abort that run at once leave one of the states that some order gives.
pub async fn completions_and_parts_exclude_each_other(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    for round in 0..10 {
        let name = format!("k{round}");
        let (upload, parts) = uploaded(&caller, bucket, &name, &[(1, 1)]).await;
        let again = caller.part(1, 2);
        let complete = caller.commit(completion(bucket, &name, upload, &[&parts[0]]));
        let part = caller.put_part(bucket, &name, upload, &again);
        let abort = async {
            let abort = Change::AbortUpload { bucket, key: key(&name), upload };
            if round % 2 == 0 { caller.commit(abort).await } else { Err(Refusal::NoSuchUpload(upload)) }
        };
        let (complete, part, abort) = future::join3(complete, part, abort).await;
        let object = caller.object_at("bucket", &name).await;
        assert_eq!(complete.is_ok(), object.is_ok(), "round {round}");
        assert!(!(complete.is_ok() && abort.is_ok()), "round {round}: both ended it");
        if complete.is_ok() {
            assert_eq!(part, Err(Refusal::NoSuchUpload(upload)), "round {round}: the listed part was not replaced");
        }
        let mine: Vec<_> = caller.garbage().await.into_iter().map(|row| row.blob).collect();
        assert_eq!(mine.contains(&blob(&again)), part.is_ok() && abort.is_ok(), "round {round}");
        assert_eq!(mine.contains(&blob(&parts[0])), complete.is_err() && (part.is_ok() || abort.is_ok()));
    }
}

/// The largest upload completes, and a range anywhere in it is one bounded look-up.
pub async fn ten_thousand_parts_are_read_a_page_at_a_time(metadata: &impl Metadata) {
    const PARTS: u16 = 10_000;
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let upload = caller.create_upload(bucket, "k", NewUpload::default()).await;
    let parts: Vec<_> = (1..=PARTS).map(|number| caller.part(number, PART_BYTES_MIN)).collect();
    for some in parts.chunks(250) {
        let put = |part: &NewPart| {
            let part = Box::new(part.clone());
            caller.mutation(Change::PutPart { bucket, key: key("k"), upload, part })
        };
        let outcomes = caller.send_all(some.iter().map(put).collect()).await;
        assert!(outcomes.iter().all(Result::is_ok));
    }
    let list: Vec<_> = parts.iter().collect();
    let result = completed(caller.commit(completion(bucket, "k", upload, &list)).await);
    assert_eq!(result.size, u64::from(PARTS) * PART_BYTES_MIN);
    for middle in [0, 4_999, 9_999] {
        let rows = segments(&caller, "k", ReadFrom::Start(middle * PART_BYTES_MIN + 5)).await;
        let left = usize::try_from(u64::from(PARTS) - middle).expect("small");
        assert_eq!(rows.len(), left.min(SEGMENTS_PER_PAGE));
        assert_eq!(rows[0].start, middle * PART_BYTES_MIN);
    }
    for number in [1, 5_000, PARTS] {
        let rows = segments(&caller, "k", ReadFrom::Part(number)).await;
        assert_eq!(rows[0].start, u64::from(number - 1) * PART_BYTES_MIN);
        assert!(rows.len() <= SEGMENTS_PER_PAGE);
    }
    let version = caller.object_at("bucket", "k").await.expect("it is there").version.generation;
    let (start, end) = (100 * PART_BYTES_MIN, 102 * PART_BYTES_MIN);
    let rows = match caller.ask(Query::Segments { bucket: bucket.id, version, range: start..end }).await {
        Ok(Answer::Segments(rows)) => rows,
        other => panic!("segments are not {other:?}"),
    };
    assert_eq!(rows.iter().map(|row| row.start).collect::<Vec<_>>(), [start, start + PART_BYTES_MIN]);
    caller.delete(bucket, "k").await.expect("it is there");
    assert_eq!(caller.garbage().await.len(), usize::from(PARTS));
}

/// The parts of an object are found by their numbers, gaps and all, and listed a page at a time.
pub async fn parts_of_an_object_are_found_by_number(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let sizes = [(2, PART_BYTES_MIN), (5, PART_BYTES_MIN + 7), (9, 0)];
    let (upload, parts) = uploaded(&caller, bucket, "k", &sizes).await;
    let list: Vec<_> = parts.iter().collect();
    completed(caller.commit(completion(bucket, "k", upload, &list)).await);

    let found = async |name: &str, number| {
        let query = Query::Object { bucket: path("bucket"), key: key(name), read_from: Some(ReadFrom::Part(number)) };
        match caller.ask(query).await {
            Ok(Answer::Object(found)) => (found.part, found.segments.first().map(|segment| segment.start)),
            other => panic!("an object is not {other:?}"),
        }
    };
    let starts = [0, PART_BYTES_MIN, 2 * PART_BYTES_MIN + 7];
    for (part, start) in parts.iter().zip(starts) {
        let (place, first) = found("k", part.number).await;
        let place = place.expect("the object has it");
        assert_eq!((place.start, place.part.number, place.part.size), (start, part.number, part.size));
        assert_eq!((place.part.etag, place.part.checksum), (part.etag.clone(), part.checksum.clone()));
        assert_eq!(first, (part.size > 0).then_some(start), "a part without bytes needs no segments");
    }
    for missing in [1, 3, 8, 10, u16::MAX] {
        assert_eq!(found("k", missing).await, (None, None));
    }
    caller.put(bucket, "single", 3).await;
    assert_eq!(found("single", 1).await.0, None);

    let page = async |name: &str, after, max| {
        let query = Query::ObjectParts { bucket: path("bucket"), key: key(name), after, max };
        match caller.ask(query).await {
            Ok(Answer::ObjectParts(found)) => {
                (found.parts.iter().map(|part| part.number).collect::<Vec<_>>(), found.more, found.version.size)
            }
            other => panic!("parts are not {other:?}"),
        }
    };
    let size = starts[2];
    assert_eq!(page("k", 0, 1000).await, (vec![2, 5, 9], false, size));
    assert_eq!(page("k", 0, 2).await, (vec![2, 5], true, size));
    assert_eq!(page("k", 5, 1).await, (vec![9], false, size));
    assert_eq!(page("k", 9, 1).await, (vec![], false, size));
    assert_eq!(page("k", 0, 0).await, (vec![], false, size));
    assert_eq!(page("single", 0, 1000).await, (vec![], false, 3));
}

/// Parts come by number, with what they were stored with.
pub async fn parts_are_listed_by_number(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let (upload, parts) = uploaded(&caller, bucket, "k", &[(300, 3), (2, 2), (10_000, 1)]).await;
    let page = async |after, max| -> PartsPage {
        let query = Query::Parts { bucket: path("bucket"), key: key("k"), upload, after, max };
        match caller.ask(query).await {
            Ok(Answer::Parts(page)) => page,
            other => panic!("parts are not {other:?}"),
        }
    };
    let all = page(0, 1000).await;
    assert_eq!(
        all.parts.iter().map(|part| (part.number, part.size)).collect::<Vec<_>>(),
        [(2, 2), (300, 3), (10_000, 1)]
    );
    assert_eq!((&all.parts[0].etag, &all.parts[0].checksum), (&parts[1].etag, &parts[1].checksum));
    assert!(!all.more);
    let first = page(0, 2).await;
    assert!(first.more && first.parts.len() == 2);
    let rest = page(300, 2).await;
    assert!(!rest.more && rest.parts.len() == 1);
    assert!(page(0, 0).await.parts.is_empty());
}

/// Uploads that began before a time are found, a page at a time; not younger ones, completed ones, and those of closed buckets.
pub async fn stale_uploads_are_found_by_their_age(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let (bucket, other) = (caller.create_bucket("bucket").await, caller.create_bucket("other").await);
    let mut open = Vec::new();
    for name in ["a", "b", "c"] {
        open.push((bucket, key(name), caller.create_upload(bucket, name, NewUpload::default()).await));
    }
    let (done, parts) = uploaded(&caller, bucket, "d", &[(1, 5)]).await;
    completed(caller.commit(completion(bucket, "d", done, &[&parts[0]])).await);
    caller.create_upload(other, "e", NewUpload::default()).await;
    caller.commit(Change::CloseBucket { bucket: other }).await.expect("it is there");
    let initiated = match caller.ask(Query::Upload { bucket: path("bucket"), key: key("c"), upload: open[2].2 }).await {
        Ok(Answer::Upload(found)) => found.upload.initiated_at,
        other => panic!("an upload is not {other:?}"),
    };
    let later = WallTime { unix_ms: initiated.unix_ms + 1 };
    open.sort_by_key(|(_, _, upload)| *upload);
    for max in [1, 2, 1000] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let StaleUploads { uploads, next } =
                match caller.ask(Query::StaleUploads { before: later, after, max }).await {
                    Ok(Answer::StaleUploads(page)) => page,
                    other => panic!("uploads are not {other:?}"),
                };
            assert!(uploads.len() <= max);
            found.extend(uploads);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, open, "in pages of {max}");
    }
    let before = WallTime { unix_ms: 1 };
    let young = caller.ask(Query::StaleUploads { before, after: None, max: 1000 }).await;
    assert_eq!(young, Ok(Answer::StaleUploads(StaleUploads::default())));
}

fn append(bucket: BucketRef, name: &str, upload: UploadId, part: &NewPart) -> Change {
    Change::AppendPart { bucket, key: key(name), upload, part: Box::new(part.clone()) }
}

/// Parts are appended in order and never replaced: of two writers one goes on, and progress says how far.
pub async fn appended_parts_stay(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let upload = caller.create_upload(bucket, "k", NewUpload::default()).await;
    let progress = async || match caller
        .ask(Query::Progress { bucket: path("bucket"), key: key("k"), upload })
        .await
        .expect("the upload is there")
    {
        Answer::Progress(progress) => (progress.parts, progress.size, progress.is_in_order),
        other => panic!("progress is not {other:?}"),
    };
    assert_eq!(progress().await, (0, 0, true));
    let [one, two, three, four] = [(1, 3), (2, 1), (3, 2), (4, 5)].map(|(number, size)| caller.part(number, size));
    assert_eq!(caller.commit(append(bucket, "k", upload, &two)).await, Err(Refusal::OtherWriter), "nothing before it");
    assert!(matches!(caller.commit(append(bucket, "k", upload, &one)).await, Ok(Outcome::PartStored(_))));
    let twin = caller.part(2, 1);
    let (a, b) = (append(bucket, "k", upload, &two), append(bucket, "k", upload, &twin));
    let (first, second) = future::join(caller.commit(a), caller.commit(b)).await;
    assert!(first.is_ok() != second.is_ok(), "one of two writers: {first:?} {second:?}");
    assert!(first == Err(Refusal::OtherWriter) || second == Err(Refusal::OtherWriter), "{first:?} {second:?}");
    assert_eq!(caller.commit(append(bucket, "k", upload, &four)).await, Err(Refusal::OtherWriter), "a gap");
    caller.commit(append(bucket, "k", upload, &three)).await.expect("it is the next");
    assert_eq!(progress().await, (3, 6, true));
    let kept = if first.is_ok() { &two } else { &twin };
    caller.audit([&one, kept, &three].map(blob), []).await;
    let unknown = Query::Progress { bucket: path("bucket"), key: key("other"), upload };
    assert_eq!(caller.ask(unknown).await, Err(Refusal::NoSuchUpload(upload)));
    // A part that was put elsewhere leaves the order.
    caller.put_part(bucket, "k", upload, &caller.part(9, 1)).await.expect("the upload is open");
    assert_eq!(progress().await, (4, 7, false));
}

/// All parts become the object, however small they are; a repeat answers the same, and what differs is refused.
pub async fn a_write_is_completed_once(metadata: &impl Metadata) {
    let caller = Caller::open(metadata).await;
    let bucket = caller.create_bucket("bucket").await;
    let of = (ChecksumAlgorithm::Crc32c, ChecksumType::FullObject);
    let about = NewUpload { checksum: Some(of), ..NewUpload::default() };
    let upload = caller.create_upload(bucket, "k", about).await;
    let sum = |bytes: &[u8]| {
        let mut digest = anvil_digest::Digest::new(anvil_digest::Algorithm::Crc32c);
        digest.update(bytes);
        Checksum { algorithm: of.0, of: of.1, value: digest.finish().to_vec() }
    };
    let parts = [(1, &b"abc"[..]), (2, b"d"), (3, b"ef")]
        .map(|(number, bytes)| NewPart { checksum: sum(bytes), ..caller.part(number, bytes.len() as u64) });
    let complete = |size, bytes: &[u8], conditions| Change::CompleteWrite {
        bucket,
        key: key("k"),
        upload,
        size,
        checksum: sum(bytes),
        conditions,
    };
    let plain = WriteConditions::default;
    let empty = caller.commit(complete(0, b"", plain())).await;
    assert!(matches!(empty, Err(Refusal::InvalidRequest(_))), "{empty:?}");
    for part in &parts {
        caller.commit(append(bucket, "k", upload, part)).await.expect("they come in order");
    }
    assert_eq!(caller.commit(complete(5, b"abcdef", plain())).await, Err(Refusal::OtherWriter));
    assert_eq!(caller.commit(complete(6, b"abcdeX", plain())).await, Err(Refusal::BadDigest));
    let wanted = WriteConditions { etag: Some(Etag("x".to_owned())), ..plain() };
    assert_eq!(caller.commit(complete(6, b"abcdef", wanted)).await, Err(Refusal::NoSuchKey));
    assert_eq!(caller.object_at("bucket", "k").await, Err(Refusal::NoSuchKey), "not yet");

    let result = completed(caller.commit(complete(6, b"abcdef", plain())).await);
    assert_eq!((result.size, &result.checksum), (6, &sum(b"abcdef")));
    assert!(result.etag.0.ends_with("-3"), "{}", result.etag);
    let version = caller.object_at("bucket", "k").await.expect("it is there").version;
    assert_eq!((version.size, version.parts, version.etag), (6, Some(3), result.etag.clone()));
    assert_eq!(completed(caller.commit(complete(6, b"abcdef", plain())).await), result, "a repeat");
    assert_eq!(caller.commit(complete(6, b"abcdeX", plain())).await, Err(Refusal::NoSuchUpload(upload)));
    let late = caller.commit(append(bucket, "k", upload, &caller.part(4, 1))).await;
    assert_eq!(late, Err(Refusal::NoSuchUpload(upload)));
    match caller.ask(Query::Progress { bucket: path("bucket"), key: key("k"), upload }).await {
        Ok(Answer::Progress(progress)) => assert_eq!((progress.size, progress.completed), (6, Some(result))),
        other => panic!("progress is not {other:?}"),
    }
    caller.audit(parts.iter().map(blob), []).await;
}
