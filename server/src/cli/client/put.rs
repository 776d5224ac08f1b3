//! How bytes become an object: in one piece, or in parts of which several are on their way at once.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anvil_digest::{Algorithm, Digest, Value, combine};
use anvil_proto::v1;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use indicatif::ProgressBar;
use tokio::task::spawn_blocking;

use super::place::Remote;
use super::session::{Attempts, Line, STREAMS, Session, Trouble};
use crate::cli::Failure;

/// What is said of an object to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Saying {
    pub(super) content_type: String,
    pub(super) storage_class: String,
    /// Of parts, when the size asks for no larger ones.
    pub(super) part_bytes: u64,
}

/// What an object became.
#[derive(Clone, Debug, Default)]
pub(super) struct Put {
    pub(super) etag: String,
    pub(super) size: u64,
}

/// Larger objects go in parts of so many bytes.
pub(super) const PART_BYTES: u64 = 16 << 20;
/// Both are limits of the node.
pub(super) const PART_BYTES_MIN: u64 = 5 << 20;
const PARTS_MAX: u64 = 10_000;
/// Of a message.
const CHUNK_BYTES: u64 = 1 << 20;

/// Bytes that can be read more than once.
#[derive(Clone)]
enum Source {
    File(Arc<File>, Arc<str>),
    Memory(Bytes),
}

impl Source {
    async fn read(&self, offset: u64, length: u64) -> Result<Bytes, Failure> {
        let length = usize::try_from(length).expect("a chunk fits in memory");
        match self {
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).expect("it is in memory");
                Ok(bytes.slice(start..start + length))
            }
            Self::File(file, name) => {
                let (file, name) = (Arc::clone(file), Arc::clone(name));
                blocking(move || {
                    let mut bytes = vec![0; length];
                    file.read_exact_at(&mut bytes, offset).map_err(|error| match error.kind() {
                        io::ErrorKind::UnexpectedEof => {
                            Failure::run(format!("{name} became shorter while it was read"))
                        }
                        _ => Failure::run(format!("{name}: {error}")),
                    })?;
                    Ok(bytes.into())
                })
                .await
            }
        }
    }
}

/// Work that waits for a disk or a person.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    spawn_blocking(work).await.map_err(Failure::run)?
}

/// Stores a file.
pub(super) async fn put_file(
    session: &Session,
    path: &Path,
    to: &Remote,
    saying: &Saying,
    bar: &ProgressBar,
) -> Result<Put, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::run(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let about = file.metadata().map_err(|error| wrong(&error))?;
    if about.is_dir() {
        return Err(wrong(&"it is a directory: --recursive puts what is in it"));
    }
    // What has no size of its own, as a pipe, is read once.
    if !about.is_file() {
        return put_stream(session, file, to, saying, bar).await;
    }
    let size = about.len();
    let source = Source::File(Arc::new(file), path.display().to_string().into());
    let part_bytes = saying.part_bytes.max(size.div_ceil(PARTS_MAX).next_multiple_of(CHUNK_BYTES));
    if size <= part_bytes {
        return put_whole(session, source, size, to, saying, bar).await;
    }
    let pieces = (0..size.div_ceil(part_bytes)).map(|index| {
        let offset = index * part_bytes;
        Ok((source.clone(), offset, part_bytes.min(size - offset)))
    });
    put_parts(session, stream::iter(pieces), to, saying, bar).await
}

/// Stores what is read once, to its end.
pub(super) async fn put_stream(
    session: &Session,
    reader: impl Read + Send + 'static,
    to: &Remote,
    saying: &Saying,
    bar: &ProgressBar,
) -> Result<Put, Failure> {
    let part_bytes = saying.part_bytes;
    let reader = Arc::new(Mutex::new(reader));
    let first = read_part(Arc::clone(&reader), part_bytes).await?;
    let size = first.len() as u64;
    if size < part_bytes {
        return put_whole(session, Source::Memory(first), size, to, saying, bar).await;
    }
    let rest = stream::try_unfold(reader, move |reader| async move {
        let bytes = read_part(Arc::clone(&reader), part_bytes).await?;
        Ok((!bytes.is_empty()).then_some((bytes, reader)))
    });
    let pieces = stream::iter([Ok(first)]).chain(rest).map_ok(|bytes| {
        let length = bytes.len() as u64;
        (Source::Memory(bytes), 0, length)
    });
    put_parts(session, pieces, to, saying, bar).await
}

/// Less than a part only at the end.
async fn read_part(reader: Arc<Mutex<impl Read + Send + 'static>>, part_bytes: u64) -> Result<Bytes, Failure> {
    blocking(move || {
        let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = Vec::new();
        let read = Read::take(&mut *reader, part_bytes).read_to_end(&mut bytes);
        read.map_err(|error| Failure::run(format!("cannot read what is to be stored: {error}")))?;
        Ok(bytes.into())
    })
    .await
}

async fn put_whole(
    session: &Session,
    source: Source,
    size: u64,
    to: &Remote,
    saying: &Saying,
    bar: &ProgressBar,
) -> Result<Put, Failure> {
    let spec = v1::WriteObjectSpec {
        bucket_name: to.bucket.clone(),
        object_key: to.key.clone(),
        size,
        metadata: Some(metadata(saying)),
        storage_class: saying.storage_class.clone(),
        ..v1::WriteObjectSpec::default()
    };
    let stored = send(session, &Destination::Object(Box::new(spec)), &source, 0, size, bar).await?;
    Ok(Put { etag: stored.etag, size })
}

async fn put_parts(
    session: &Session,
    pieces: impl stream::Stream<Item = Result<(Source, u64, u64), Failure>>,
    to: &Remote,
    saying: &Saying,
    bar: &ProgressBar,
) -> Result<Put, Failure> {
    let request = v1::InitiateMultipartUploadRequest {
        bucket_name: to.bucket.clone(),
        object_key: to.key.clone(),
        metadata: Some(metadata(saying)),
        checksum_algorithm: v1::ChecksumAlgorithm::Crc64nvme.into(),
        checksum_type: v1::ChecksumType::FullObject.into(),
        storage_class: saying.storage_class.clone(),
    };
    let begun: v1::InitiateMultipartUploadResponse =
        session.line().ask("ObjectService/InitiateMultipartUpload", &request).await?;
    let upload_id = begun.upload_id;
    session.upload_begins(&upload_id, &to.bucket, &to.key);
    let sent = pieces.zip(stream::iter(1_u32..)).map(|(piece, part_number)| {
        let upload_id = upload_id.clone();
        async move {
            let (source, offset, size) = piece?;
            if u64::from(part_number) > PARTS_MAX {
                return Err(Failure::run(format!(
                    "an object has at most {PARTS_MAX} parts: make them larger with --part-size"
                )));
            }
            let (bucket_name, object_key) = (to.bucket.clone(), to.key.clone());
            let spec = v1::UploadPartSpec { bucket_name, object_key, upload_id, part_number, size };
            let stored = send(session, &Destination::Part(spec), &source, offset, size, bar).await?;
            Ok((v1::UploadedPart { part_number, etag: stored.etag, ..v1::UploadedPart::default() }, stored.crc64, size))
        }
    });
    let sent: Vec<_> = sent.buffered(STREAMS).try_collect().await?;
    let crc64 = sent.iter().fold(Digest::new(Algorithm::Crc64Nvme).finish(), |sum, (_, crc64, size)| {
        combine(Algorithm::Crc64Nvme, &sum, crc64, *size)
    });
    let size = sent.iter().map(|(_, _, size)| size).sum();
    let request = v1::CompleteMultipartUploadRequest {
        bucket_name: to.bucket.clone(),
        object_key: to.key.clone(),
        upload_id: upload_id.clone(),
        parts: sent.into_iter().map(|(part, _, _)| part).collect(),
        checksum: Some(v1::Checksum {
            algorithm: v1::ChecksumAlgorithm::Crc64nvme.into(),
            value: crc64.to_vec().into(),
            r#type: v1::ChecksumType::FullObject.into(),
        }),
        preconditions: None,
    };
    // Asked twice it answers the same.
    let done: v1::CompleteMultipartUploadResponse =
        session.line().ask("ObjectService/CompleteMultipartUpload", &request).await?;
    session.upload_ends(&upload_id);
    Ok(Put { etag: done.etag, size })
}

fn metadata(saying: &Saying) -> v1::ObjectMetadata {
    v1::ObjectMetadata { content_type: saying.content_type.clone(), ..v1::ObjectMetadata::default() }
}

/// What a stream of chunks becomes.
enum Destination {
    Object(Box<v1::WriteObjectSpec>),
    Part(v1::UploadPartSpec),
}

struct Stored {
    etag: String,
    crc64: Value,
}

/// Sends bytes until they are there: all of them again when a connection breaks.
async fn send(
    session: &Session,
    destination: &Destination,
    source: &Source,
    offset: u64,
    size: u64,
    bar: &ProgressBar,
) -> Result<Stored, Failure> {
    let _turn = session.streams.acquire().await.expect("it is never closed");
    let (mut line, mut attempts) = (session.line(), Attempts::default());
    loop {
        let mut sent_bytes = 0;
        match try_send(&mut line, destination, source, offset, size, bar, &mut sent_bytes).await {
            Ok(stored) => return Ok(stored),
            Err(trouble) => {
                bar.set_position(bar.position().saturating_sub(sent_bytes));
                attempts.after(&mut line, trouble).await?;
            }
        }
    }
}

async fn try_send(
    line: &mut Line<'_>,
    destination: &Destination,
    source: &Source,
    offset: u64,
    size: u64,
    bar: &ProgressBar,
    sent_bytes: &mut u64,
) -> Result<Stored, Trouble> {
    use v1::upload_part_request::Part as OfPart;
    use v1::write_object_request::Part as OfObject;
    let (mut crc32c, mut crc64) = (Digest::new(Algorithm::Crc32c), Digest::new(Algorithm::Crc64Nvme));
    let mut call = match destination {
        Destination::Object(spec) => {
            let mut call = line.open("ObjectService/WriteObject").await?;
            call.send(&v1::WriteObjectRequest { part: Some(OfObject::Spec((**spec).clone())) }).await?;
            call
        }
        Destination::Part(spec) => {
            let mut call = line.open("ObjectService/UploadPart").await?;
            call.send(&v1::UploadPartRequest { part: Some(OfPart::Spec(spec.clone())) }).await?;
            call
        }
    };
    while *sent_bytes < size {
        let content = source.read(offset + *sent_bytes, CHUNK_BYTES.min(size - *sent_bytes)).await?;
        let length = content.len() as u64;
        crc32c.update(&content);
        crc64.update(&content);
        let chunk = v1::Chunk { crc32c: Some(crc32c_of(&content)), content };
        match destination {
            Destination::Object(_) => call.send(&v1::WriteObjectRequest { part: Some(OfObject::Chunk(chunk)) }).await?,
            Destination::Part(_) => call.send(&v1::UploadPartRequest { part: Some(OfPart::Chunk(chunk)) }).await?,
        }
        *sent_bytes += length;
        bar.inc(length);
    }
    let crc64 = crc64.finish();
    let finish = v1::WriteFinish { size, crc32c: Some(number(&crc32c.finish())), checksum: None };
    let etag = match destination {
        Destination::Object(_) => {
            call.send(&v1::WriteObjectRequest { part: Some(OfObject::Finish(finish)) }).await?;
            call.close().await?;
            call.only::<v1::WriteObjectResponse>().await?.etag
        }
        Destination::Part(_) => {
            call.send(&v1::UploadPartRequest { part: Some(OfPart::Finish(finish)) }).await?;
            call.close().await?;
            call.only::<v1::UploadPartResponse>().await?.etag
        }
    };
    Ok(Stored { etag, crc64 })
}

pub(super) fn crc32c_of(bytes: &[u8]) -> u32 {
    let mut digest = Digest::new(Algorithm::Crc32c);
    digest.update(bytes);
    number(&digest.finish())
}

fn number(crc32c: &Value) -> u32 {
    u32::from_be_bytes((**crc32c).try_into().expect("a CRC32C has four bytes"))
}
