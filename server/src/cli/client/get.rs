//! How an object becomes a file: several ranges at once, each gone on with where a connection broke; or a stream of bytes.

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anvil_digest::{Algorithm, Digest, Value, combine};
use anvil_proto::v1;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use indicatif::ProgressBar;

use super::place::Remote;
use super::put::{blocking, crc32c_of};
use super::session::{Attempts, Line, STREAMS, Session, Trouble};
use crate::cli::Failure;

/// Objects of more bytes come in ranges of as many.
const RANGE_BYTES: u64 = 16 << 20;

/// What an object is.
pub(super) async fn head(session: &Session, from: &Remote) -> Result<v1::ObjectInfo, Failure> {
    let request =
        v1::HeadObjectRequest { bucket_name: from.bucket.clone(), object_key: from.key.clone(), preconditions: None };
    let answer: v1::HeadObjectResponse = session.line().ask("ObjectService/HeadObject", &request).await?;
    answer.object.ok_or_else(|| Failure::run("the node's answer names no object"))
}

/// Writes an object into a file, which has its name only when all of it is there and good. What is no file is written to.
pub(super) async fn get_file(
    session: &Session,
    from: &Remote,
    path: &Path,
    bar: &ProgressBar,
) -> Result<v1::ObjectInfo, Failure> {
    let info = head(session, from).await?;
    bar.inc_length(info.size);
    // A link stays one: what it leads to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let wrong = |error: io::Error| Failure::run(format!("{}: {error}", path.display()));
    match fs::metadata(&path) {
        Ok(about) if !about.is_file() => {
            let file = File::options().write(true).open(&path).map_err(wrong)?;
            return get_stream(session, info, file, bar).await;
        }
        _ => {}
    }
    let new = NewFile::create(&path).map_err(wrong)?;
    let ranges = match checksum(&info) {
        // What cannot be put together from ranges is had in one.
        Some((Algorithm::Sha1 | Algorithm::Sha256, _)) => 1,
        _ => info.size.div_ceil(RANGE_BYTES).max(1),
    };
    let length = if ranges == 1 { info.size } else { RANGE_BYTES };
    let digest = {
        let ranges = (0..ranges).map(|index| {
            let (offset, file) = (index * length, Arc::clone(&new.file));
            let range = offset..info.size.min(offset + length);
            let name = &path;
            read_range(session, &info, range, bar, move |offset, bytes: Bytes| {
                let (file, name) = (Arc::clone(&file), name.clone());
                blocking(move || {
                    let written = file.write_all_at(&bytes, offset);
                    written.map_err(|error| Failure::run(format!("{}: {error}", name.display())))
                })
            })
        });
        let sums: Vec<_> = stream::iter(ranges).buffered(STREAMS).try_collect().await?;
        sums.into_iter().reduce(|(sum, bytes), (next, length)| {
            (sum.zip(next).map(|(sum, next)| combine(algorithm(&info), &sum, &next, length)), bytes + length)
        })
    };
    verify(&info, digest.and_then(|(sum, _)| sum))?;
    new.keep(&path, info.last_modified).map_err(wrong)?;
    Ok(info)
}

/// Writes an object into a stream, in order. What of it was written when it fails has gone already.
pub(super) async fn get_stream(
    session: &Session,
    info: v1::ObjectInfo,
    writer: impl Write + Send + 'static,
    bar: &ProgressBar,
) -> Result<v1::ObjectInfo, Failure> {
    let writer = Arc::new(Mutex::new(writer));
    let (sum, _) = read_range(session, &info, 0..info.size, bar, |_, bytes: Bytes| {
        let writer = Arc::clone(&writer);
        blocking(move || {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            let written = writer.write_all(&bytes).and_then(|()| writer.flush());
            written.map_err(|error| Failure::run(format!("cannot write the object: {error}")))
        })
    })
    .await?;
    verify(&info, sum)?;
    Ok(info)
}

/// Reads a range of one version, chunk by chunk in order, and gives its digest and its length.
async fn read_range<F: Future<Output = Result<(), Failure>>>(
    session: &Session,
    info: &v1::ObjectInfo,
    range: Range<u64>,
    bar: &ProgressBar,
    write: impl Fn(u64, Bytes) -> F,
) -> Result<(Option<Value>, u64), Failure> {
    let _turn = session.streams.acquire().await.expect("it is never closed");
    let length = range.end - range.start;
    let mut digest = checksum(info).map(|(algorithm, _)| Digest::new(algorithm));
    let (mut line, mut attempts, mut position) = (session.line(), Attempts::default(), range.start);
    while position < range.end {
        let begun_at = position;
        let rest = position..range.end;
        let outcome = try_read(&mut line, info, rest, async |bytes: Bytes| {
            if let Some(digest) = &mut digest {
                digest.update(&bytes);
            }
            let length = bytes.len() as u64;
            write(position, bytes).await?;
            position += length;
            bar.inc(length);
            Ok(())
        })
        .await;
        if position > begun_at {
            attempts.renew();
        }
        if let Err(trouble) = outcome {
            attempts.after(&mut line, trouble).await?;
        }
    }
    Ok((digest.map(Digest::finish), length))
}

/// Reads as much of a range as one call gives.
async fn try_read(
    line: &mut Line<'_>,
    info: &v1::ObjectInfo,
    range: Range<u64>,
    mut take: impl AsyncFnMut(Bytes) -> Result<(), Failure>,
) -> Result<(), Trouble> {
    use v1::get_object_response::Part;
    let mut left = range.end - range.start;
    let request = v1::GetObjectRequest {
        bucket_name: info.bucket_name.clone(),
        object_key: info.object_key.clone(),
        offset: i64::try_from(range.start).map_err(|_| Failure::run("the object is too large"))?,
        length: left,
        preconditions: Some(v1::Preconditions {
            if_generation_match: Some(info.generation),
            ..v1::Preconditions::default()
        }),
    };
    let mut call = line.open("ObjectService/GetObject").await?;
    call.send(&request).await?;
    call.close().await?;
    while let Some(v1::GetObjectResponse { part }) = call.next().await? {
        match part {
            Some(Part::Chunk(chunk)) => {
                let length = chunk.content.len() as u64;
                if chunk.crc32c != Some(crc32c_of(&chunk.content)) || length > left {
                    return Err(damaged(info).into());
                }
                left -= length;
                take(chunk.content).await?;
            }
            Some(Part::Beginning(beginning)) if (beginning.offset, beginning.length) == (range.start, left) => {}
            _ => return Err(damaged(info).into()),
        }
    }
    if left == 0 { Ok(()) } else { Err(damaged(info).into()) }
}

fn damaged(info: &v1::ObjectInfo) -> Failure {
    let (bucket, key) = (&info.bucket_name, &info.object_key);
    Failure::run(format!("s3://{bucket}/{key}: what came is not what the node keeps: it was damaged on the way"))
}

/// The checksum of all bytes that is kept of an object, when there is one.
pub(super) fn checksum(info: &v1::ObjectInfo) -> Option<(Algorithm, &[u8])> {
    let kept = info.checksum.as_ref().filter(|kept| kept.r#type() != v1::ChecksumType::Composite)?;
    let algorithm = match kept.algorithm() {
        v1::ChecksumAlgorithm::Crc32 => Algorithm::Crc32,
        v1::ChecksumAlgorithm::Crc32c => Algorithm::Crc32c,
        v1::ChecksumAlgorithm::Crc64nvme => Algorithm::Crc64Nvme,
        v1::ChecksumAlgorithm::Sha1 => Algorithm::Sha1,
        v1::ChecksumAlgorithm::Sha256 => Algorithm::Sha256,
        v1::ChecksumAlgorithm::Unspecified => return None,
    };
    Some((algorithm, &kept.value))
}

fn algorithm(info: &v1::ObjectInfo) -> Algorithm {
    checksum(info).expect("there is a sum of it").0
}

/// Whether all bytes together are those that were stored.
fn verify(info: &v1::ObjectInfo, came: Option<Value>) -> Result<(), Failure> {
    match (checksum(info), came) {
        (Some((_, kept)), Some(came)) if *kept != *came => Err(damaged(info)),
        _ => Ok(()),
    }
}

/// A file that is to have a name, and is gone when it gets none.
struct NewFile {
    file: Arc<File>,
    path: Option<PathBuf>,
}

impl NewFile {
    /// Beside its place, under a name of its own.
    fn create(place: &Path) -> io::Result<Self> {
        let mut random = [0; 6];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        // Names have at most 255 bytes.
        let short: String = name.chars().take(40).collect();
        let path = place.with_file_name(format!(".{short}.{}.anvil", hex::encode(random)));
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok(Self { file: Arc::new(file), path: Some(path) })
    }

    /// Gives it its name, and the time of its object, by which `sync` tells what is new.
    fn keep(mut self, place: &Path, modified: Option<anvil_proto::Timestamp>) -> io::Result<()> {
        if let Some(time) = super::time(modified) {
            self.file.set_modified(time.into())?;
        }
        let path = self.path.as_ref().expect("it has no name yet");
        fs::rename(path, place)?;
        self.path = None;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Nobody can be told more than what failed before.
            let _ = fs::remove_file(path);
        }
    }
}
