//! `anvil.v1.ObjectService`: one object at a time, and lists of them. Uploads in parts are in `multipart`, many ranges of
//! one object in `bidi_read`, resumable writes in `bidi_write`.

use std::pin::Pin;

use anvil_model::access::{Action, Resource};
use anvil_model::limits::{PAGE_KEYS_MAX, PART_BYTES_MAX};
use anvil_model::object::{BucketName, Key};
use anvil_node::Caller;
use anvil_node::copy::{CopyObject, Source};
use anvil_node::get::Found;
use anvil_node::list::{After, Entry, ListObjects};
use anvil_node::metadata::mutation::{Completed, Written};
use anvil_node::metadata::query::ReadFrom;
use anvil_node::put::{Expected, PutObject, Stored};
use anvil_proto::v1;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::access::Asker;
use super::call::{Call, Wire};
use super::incoming::{InMemory, Incoming, spec};
use super::methods::methods;
use super::services::Services;
use super::status::{Code, Status};
use super::{bidi_read, bidi_write, chunk, multipart, words};

methods! {
    "anvil.v1.ObjectService":
    HeadObject,
    GetObject streams,
    PutObject,
    WriteObject streams,
    BidiWrite streams,
    QueryWrite,
    DeleteObject,
    DeleteObjects,
    CopyObject,
    UpdateMetadata,
    ListObjects streams,
    BatchGet streams,
    BidiRead streams,
    InitiateMultipartUpload,
    UploadPart streams,
    ListParts,
    ListMultipartUploads,
    CompleteMultipartUpload,
    AbortMultipartUpload,
}

/// What a message may bring or take of an object at once.
const SMALL_OBJECT_BYTES_MAX: u64 = 1 << 20;
/// Objects of one BatchGet that are read at once.
const BATCH_READS_MAX: usize = 16;

impl Method {
    /// Each method has a state of its own size on the heap: one that streams may wait for hours.
    pub(super) fn call<'c, W: Wire>(
        self,
        services: &'c Services,
        asker: &'c Asker,
        call: &'c mut Call<'_, W>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Status>> + 'c>> {
        match self {
            Self::HeadObject => Box::pin(head_object(services, asker, call)),
            Self::GetObject => Box::pin(get_object(services, asker, call)),
            Self::PutObject => Box::pin(put_object(services, asker, call)),
            Self::WriteObject => Box::pin(write_object(services, asker, call)),
            Self::BidiWrite => Box::pin(bidi_write::serve(services, asker, call)),
            Self::QueryWrite => Box::pin(bidi_write::query(services, asker, call)),
            Self::DeleteObject => Box::pin(delete_object(services, asker, call)),
            Self::DeleteObjects => Box::pin(delete_objects(services, asker, call)),
            Self::CopyObject => Box::pin(copy_object(services, asker, call)),
            Self::UpdateMetadata => Box::pin(update_metadata(services, asker, call)),
            Self::ListObjects => Box::pin(list_objects(services, asker, call)),
            Self::BatchGet => Box::pin(batch_get(services, asker, call)),
            Self::BidiRead => Box::pin(bidi_read::serve(services, asker, call)),
            Self::InitiateMultipartUpload => Box::pin(multipart::initiate(services, asker, call)),
            Self::UploadPart => Box::pin(multipart::upload_part(services, asker, call)),
            Self::ListParts => Box::pin(multipart::list_parts(services, asker, call)),
            Self::ListMultipartUploads => Box::pin(multipart::list_uploads(services, asker, call)),
            Self::CompleteMultipartUpload => Box::pin(multipart::complete(services, asker, call)),
            Self::AbortMultipartUpload => Box::pin(multipart::abort(services, asker, call)),
        }
    }
}

/// An object that may be touched.
pub(super) struct Allowed {
    pub(super) caller: Caller,
    pub(super) bucket: BucketName,
    pub(super) key: Key,
}

/// Finds out whether an object may be touched in this way, before anything is said of it.
pub(super) fn allowed(asker: &Asker, action: Action, bucket: &str, key: &str) -> Result<Allowed, Status> {
    let caller = asker.may(action, Resource::Object { bucket, key })?;
    Ok(Allowed { caller, bucket: words::bucket_name(bucket)?, key: words::object_key(key.to_owned())? })
}

/// Finds an object that may be read, and on which the conditions hold.
pub(super) async fn open(
    services: &Services,
    asker: &Asker,
    (bucket, key): (&str, &str),
    preconditions: Option<&v1::Preconditions>,
    read_from: Option<ReadFrom>,
) -> Result<Found, Status> {
    let Allowed { caller, bucket: name, key: object } = allowed(asker, Action::ObjectRead, bucket, key)?;
    let found = services.node.open(caller, name, object, read_from).await;
    let found = found.map_err(|error| asker.told(error.into(), bucket, key))?;
    words::judge(preconditions, &found)?;
    Ok(found)
}

/// Where a read will begin, for the look-up to bring the places along.
pub(super) fn read_from(offset: i64) -> ReadFrom {
    if offset < 0 { ReadFrom::Last(offset.unsigned_abs()) } else { ReadFrom::Start(offset.unsigned_abs()) }
}

async fn head_object<W: Wire>(services: &Services, asker: &Asker, call: &mut Call<'_, W>) -> Result<(), Status> {
    let request: v1::HeadObjectRequest = call.only_message().await?;
    let (bucket, key) = (&request.bucket_name, &request.object_key);
    let found = open(services, asker, (bucket, key), request.preconditions.as_ref(), None).await?;
    call.answer(&v1::HeadObjectResponse { object: Some(words::info(bucket, key, &found)) }).await
}

async fn get_object<W: Wire>(services: &Services, asker: &Asker, call: &mut Call<'_, W>) -> Result<(), Status> {
    let request: v1::GetObjectRequest = call.only_message().await?;
    let (bucket, key) = (&request.bucket_name, &request.object_key);
    let from = read_from(request.offset);
    let found = open(services, asker, (bucket, key), request.preconditions.as_ref(), Some(from)).await?;
    let range = words::range(request.offset, request.length, found.size)?;
    let mut left = range.end - range.start;
    let object = Some(words::info(bucket, key, &found));
    let beginning = v1::ObjectBeginning { object, offset: range.start, length: left };
    let part = Some(v1::get_object_response::Part::Beginning(beginning));
    call.answer(&v1::GetObjectResponse { part }).await?;
    let mut reader = services.node.read(&found, range);
    while left > 0 {
        let piece = reader.next().await.ok_or_else(ends_early)??;
        left = left.checked_sub(piece.range.len() as u64).ok_or_else(ends_early)?;
        let head = chunk::of_object(&piece.buffer[piece.range.clone()]);
        call.answer_piece(head, piece, || reader.rest()).await?;
    }
    Ok(())
}

/// The bytes that the disks have are not as many as the metadata says.
pub(super) fn ends_early() -> Status {
    tracing::error!("an object is not as long as its metadata says");
    Status::new(Code::DataLoss, "UNREADABLE", "bytes of the object cannot be read at this time")
}

async fn put_object<W: Wire>(services: &Services, asker: &Asker, call: &mut Call<'_, W>) -> Result<(), Status> {
    let request: v1::PutObjectRequest = call.only_message().await?;
    let Allowed { caller, bucket, key } =
        allowed(asker, Action::ObjectWrite, &request.bucket_name, &request.object_key)?;
    if request.content.len() as u64 > SMALL_OBJECT_BYTES_MAX {
        return Err(too_large("PutObject takes at most 1 MiB: WriteObject takes more"));
    }
    let put = PutObject {
        caller,
        bucket,
        key,
        headers: words::headers(request.metadata)?,
        expected: Expected { checksum: words::checksum(request.checksum)?, ..Expected::default() },
        conditions: words::write_conditions(request.preconditions)?,
        storage_class: words::storage_class(&request.storage_class, services.node.classes())?,
    };
    let (stored, written) = services.node.put_object(put, &mut InMemory::from(request.content)).await?;
    let Stored { etag, checksum, size } = stored;
    call.answer(&v1::PutObjectResponse {
        etag: etag.0,
        size,
        checksum: Some(words::told_checksum(&checksum)),
        generation: written.generation.0,
        last_modified: words::timestamp(written.last_modified),
    })
    .await
}

pub(super) fn too_large(message: &str) -> Status {
    Status::new(Code::InvalidArgument, "TOO_LARGE", message)
}

async fn write_object<W: Wire>(services: &Services, asker: &Asker, call: &mut Call<'_, W>) -> Result<(), Status> {
    let spec = spec::<v1::WriteObjectRequest, W>(call).await?;
    let Allowed { caller, bucket, key } = allowed(asker, Action::ObjectWrite, &spec.bucket_name, &spec.object_key)?;
    if spec.size > PART_BYTES_MAX {
        return Err(too_large("an object that is stored in one piece has at most 5 GiB"));
    }
    let algorithm = words::algorithm(spec.checksum_algorithm)?;
    let put = PutObject {
        caller,
        bucket,
        key,
        headers: words::headers(spec.metadata)?,
        expected: Expected { algorithm, ..Expected::default() },
        conditions: words::write_conditions(spec.preconditions)?,
        storage_class: words::storage_class(&spec.storage_class, services.node.classes())?,
    };
    let mut body = Incoming::<W, v1::WriteObjectRequest>::new(call, spec.size, algorithm);
    let (stored, written) = services.node.put_object(put, &mut body).await?;
    let Stored { etag, checksum, size } = stored;
    call.answer(&v1::WriteObjectResponse {
        etag: etag.0,
        size,
        checksum: Some(words::told_checksum(&checksum)),
        generation: written.generation.0,
        last_modified: words::timestamp(written.last_modified),
    })
    .await
}

async fn delete_object<W: Wire>(services: &Services, asker: &Asker, call: &mut Call<'_, W>) -> Result<(), Status> {
    let request: v1::DeleteObjectRequest = call.only_message().await?;
    let Allowed { caller, bucket, key } =
        allowed(asker, Action::ObjectDelete, &request.bucket_name, &request.object_key)?;
    let conditions = words::write_conditions(request.preconditions)?;
    services.node.delete_object(caller, bucket, key, conditions).await?;
    call.answer(&v1::DeleteObjectResponse {}).await
}

async fn delete_objects<W: Wire>(services: &Services, asker: &Asker, call: &mut Call<'_, W>) -> Result<(), Status> {
    let v1::DeleteObjectsRequest { bucket_name, objects } = call.only_message().await?;
    let bucket = words::bucket_name(&bucket_name)?;
    check_count(objects.len())?;
    let read = |object: &v1::ObjectToDelete| {
        let Allowed { caller, key, .. } = allowed(asker, Action::ObjectDelete, &bucket_name, &object.object_key)?;
        Ok::<_, Status>((caller, (key, words::write_conditions(object.preconditions.clone())?)))
    };
    let wanted: Vec<_> = objects.iter().map(read).collect();
    let mut outcomes = Vec::new();
    if let Some(&(caller, _)) = wanted.iter().flatten().next() {
        let keys = wanted.iter().flatten().map(|(_, key)| key.clone()).collect();
        outcomes = services.node.delete_objects(caller, bucket, keys).await?;
    }
    let mut outcomes = outcomes.into_iter();
    let told = objects.into_iter().zip(wanted).map(|(object, wanted)| {
        let outcome = wanted.and_then(|_| outcomes.next().ok_or_else(Status::internal)?.map_err(Status::from));
        let error = outcome.err().map(|status| status.to_wire(&call.head.request_id));
        v1::DeleteOutcome { object_key: object.object_key, error }
    });
    let outcomes = told.collect();
    call.answer(&v1::DeleteObjectsResponse { outcomes }).await
}

fn check_count(count: usize) -> Result<(), Status> {
    let fits = (1..=PAGE_KEYS_MAX).contains(&count);
    let message = || format!("a request names 1 to {PAGE_KEYS_MAX} objects, and this one {count}");
    if fits { Ok(()) } else { Err(Status::invalid(message())) }
}

async fn copy_object<W: Wire>(services: &Services, asker: &Asker, call: &mut Call<'_, W>) -> Result<(), Status> {
    let request: v1::CopyObjectRequest = call.only_message().await?;
    let (source_bucket, source_key) = (&request.source_bucket_name, &request.source_object_key);
    let from = allowed(asker, Action::ObjectRead, source_bucket, source_key)?;
    let Allowed { caller, bucket, key } =
        allowed(asker, Action::ObjectWrite, &request.bucket_name, &request.object_key)?;
    let demands = request.source_preconditions.as_ref();
    let judge = |found: &Found| words::judge_source(demands, found);
    let copy = CopyObject {
        caller,
        source: Source { bucket: from.bucket, key: from.key, judge: demands.is_some().then_some(&judge) },
        bucket,
        key,
        headers: request.metadata.map(|metadata| words::headers(Some(metadata))).transpose()?,
        website_redirect_location: None,
        algorithm: words::algorithm(request.checksum_algorithm)?,
        conditions: words::write_conditions(request.preconditions)?,
        storage_class: words::storage_class(&request.storage_class, services.node.classes())?,
    };
    let copied = services.node.copy_object(&copy).await;
    let Completed { etag, checksum, size, written } =
        copied.map_err(|error| asker.told(error.into(), source_bucket, source_key))?;
    call.answer(&v1::CopyObjectResponse {
        etag: etag.0,
        size,
        checksum: Some(words::told_checksum(&checksum)),
        generation: written.generation.0,
        last_modified: words::timestamp(written.last_modified),
    })
    .await
}

/// A copy of the version onto itself, which shares its bytes; refused when another version is there by then.
async fn update_metadata<W: Wire>(services: &Services, asker: &Asker, call: &mut Call<'_, W>) -> Result<(), Status> {
    let request: v1::UpdateMetadataRequest = call.only_message().await?;
    let (bucket_name, object_key) = (&request.bucket_name, &request.object_key);
    let Allowed { caller, bucket, key } = allowed(asker, Action::ObjectWrite, bucket_name, object_key)?;
    let headers = words::headers(request.metadata)?;
    let found = open(services, asker, (bucket_name, object_key), request.preconditions.as_ref(), None).await?;
    let generation = Some(found.version().0);
    let same = v1::Preconditions { if_generation_match: generation, ..v1::Preconditions::default() };
    let judge = |found: &Found| words::judge_source(Some(&same), found);
    let copy = CopyObject {
        caller,
        source: Source { bucket: bucket.clone(), key: key.clone(), judge: Some(&judge) },
        bucket,
        key,
        headers: Some(headers.clone()),
        website_redirect_location: None,
        algorithm: None,
        conditions: words::write_conditions(Some(same.clone()))?,
        storage_class: Some(found.storage_class.clone()),
    };
    let copied = services.node.copy_object(&copy).await?;
    let Completed { etag, checksum, size, written: Written { generation, last_modified } } = copied;
    let object = v1::ObjectInfo {
        size,
        etag: etag.0,
        generation: generation.0,
        last_modified: words::timestamp(last_modified),
        checksum: Some(words::told_checksum(&checksum)),
        metadata: Some(words::metadata(&headers)),
        parts_count: 0,
        ..words::info(bucket_name, object_key, &found)
    };
    call.answer(&v1::UpdateMetadataResponse { object: Some(object) }).await
}

async fn list_objects<W: Wire>(services: &Services, asker: &Asker, call: &mut Call<'_, W>) -> Result<(), Status> {
    let request: v1::ListObjectsRequest = call.only_message().await?;
    let (bucket, prefix) = (request.bucket_name.as_str(), request.prefix.as_str());
    let caller = asker.may(Action::ObjectList, Resource::Keys { bucket, prefix })?;
    let name = words::bucket_name(bucket)?;
    let token = words::read_page_token(&request.page_token)?;
    let mut position = token.unwrap_or_else(|| request.start_after.clone().into_bytes());
    let mut left = if request.max_keys == 0 { u64::MAX } else { request.max_keys };
    loop {
        let list = ListObjects {
            prefix: request.prefix.clone().into_bytes(),
            delimiter: request.delimiter.clone().into_bytes(),
            after: if position.is_empty() { After::Start } else { After::Key(position) },
            max: usize::try_from(left).unwrap_or(PAGE_KEYS_MAX).min(PAGE_KEYS_MAX),
        };
        let page = services.node.list_objects(caller, name.clone(), list).await?;
        left -= page.entries.len() as u64;
        let next_page_token = page.next.as_deref().map(words::page_token).unwrap_or_default();
        let mut told = v1::ListObjectsResponse { next_page_token, ..Default::default() };
        for entry in page.entries {
            match entry {
                Entry::CommonPrefix(prefix) => {
                    told.common_prefixes.push(String::from_utf8_lossy(&prefix).into_owned());
                }
                Entry::Object { key, etag, checksum, size, last_modified, storage_class } => {
                    told.objects.push(v1::ObjectInfo {
                        bucket_name: bucket.to_owned(),
                        object_key: key,
                        size,
                        etag: etag.0,
                        last_modified: words::timestamp(last_modified),
                        checksum: Some(words::told_checksum(&checksum)),
                        storage_class: storage_class.to_string(),
                        ..v1::ObjectInfo::default()
                    });
                }
            }
        }
        call.answer(&told).await?;
        match page.next {
            Some(next) if left > 0 => position = next,
            _ => return Ok(()),
        }
    }
}

async fn batch_get<W: Wire>(services: &Services, asker: &Asker, call: &mut Call<'_, W>) -> Result<(), Status> {
    let v1::BatchGetRequest { bucket_name, object_keys } = call.only_message().await?;
    words::bucket_name(&bucket_name)?;
    check_count(object_keys.len())?;
    let (head, bucket) = (call.head, bucket_name.as_str());
    let reads = object_keys.iter().zip(0..).map(async |(key, index)| {
        let outcome = match small_object(services, asker, bucket, key).await {
            Ok(object) => v1::batch_get_response::Outcome::Object(object),
            Err(status) => v1::batch_get_response::Outcome::Error(status.to_wire(&head.request_id)),
        };
        v1::BatchGetResponse { index, outcome: Some(outcome) }
    });
    let mut answers = std::pin::pin!(stream::iter(reads).buffered(BATCH_READS_MAX));
    while let Some(answer) = answers.next().await {
        call.answer(&answer).await?;
    }
    Ok(())
}

async fn small_object(services: &Services, asker: &Asker, bucket: &str, key: &str) -> Result<v1::SmallObject, Status> {
    let found = open(services, asker, (bucket, key), None, Some(ReadFrom::Start(0))).await?;
    if found.size > SMALL_OBJECT_BYTES_MAX {
        let message = "BatchGet sends objects of at most 1 MiB: GetObject sends larger ones";
        return Err(Status::new(Code::FailedPrecondition, "TOO_LARGE", message).about("size", found.size));
    }
    let mut content = Vec::with_capacity(usize::try_from(found.size).expect("at most 1 MiB"));
    let mut reader = services.node.read(&found, 0..found.size);
    while let Some(piece) = reader.next().await {
        let piece = piece?;
        content.extend_from_slice(&piece.buffer[piece.range]);
    }
    if content.len() as u64 != found.size {
        return Err(ends_early());
    }
    let crc32c = chunk::crc32c(&content);
    Ok(v1::SmallObject { object: Some(words::info(bucket, key, &found)), content: Bytes::from(content), crc32c })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_service_is_served() {
        let declared = super::super::methods::declared(include_str!("../../../proto/anvil/v1/object.proto"));
        assert_eq!(declared, Method::NAMES);
    }
}
