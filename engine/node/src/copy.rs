//! The stories of copies: a new version or part shares the bytes of a version that is there, and no byte moves.
//!
//! What a copy is told of is looked up first; the change names the version that was seen, and is refused when another
//! one is there by then. Then the story begins anew. `docs/adr/0004-copies.md` says what a copy keeps of its source.

use std::ops::Range;

use anvil_model::io::World;
use anvil_model::limits::{COPY_BYTES_MAX, PART_BYTES_MAX};
use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, ChecksumType, Headers, Key, WriteConditions};

use crate::get::{Found, StreamError};
use crate::metadata::mutation::{Change, Completed, CopySource, NewCopy, NewPart, Outcome, Written};
use crate::metadata::query::ReadFrom;
use crate::metadata::rows::StorageClass;
use crate::metadata::{MetadataError, Refusal};
use crate::multipart::UploadName;
use crate::put::{Expected, Stored};
use crate::{Caller, Node, bucket_ref};

/// What to copy from.
pub struct Source<'c> {
    /// Its bucket, of the same tenant.
    pub bucket: BucketName,
    /// Its key.
    pub key: Key,
    /// What the client demands of the version; `None` when it demands nothing.
    pub judge: Option<Judge<'c>>,
}

/// Says of a version whether it may be copied.
pub type Judge<'c> = &'c dyn Fn(&Found) -> Result<(), Refusal>;

/// A copy of an object.
pub struct CopyObject<'c> {
    /// Who.
    pub caller: Caller,
    /// From where.
    pub source: Source<'c>,
    /// Into which bucket.
    pub bucket: BucketName,
    /// Under which key.
    pub key: Key,
    /// What is said of the copy; `None` for what is said of the source.
    pub headers: Option<Headers>,
    /// What a copy never takes over; counts where `headers` are the source's.
    pub website_redirect_location: Option<String>,
    /// The algorithm of the copy's checksum; `None` for the source's.
    pub algorithm: Option<ChecksumAlgorithm>,
    /// What must hold of the target for the write to happen.
    pub conditions: WriteConditions,
    /// One that the node knows; `None` for the target bucket's. The bytes stay as they are spread.
    pub storage_class: Option<StorageClass>,
}

/// Which bytes of its source a part is a copy of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyRange {
    /// All of them.
    Whole,
    /// These, not empty.
    Bytes(Range<u64>),
}

/// Why a copy did not happen, or is not known to have happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// The source is not to be had.
    #[error("the source: {0}")]
    Source(MetadataError),
    /// The range does not lie within a source of this many bytes.
    #[error("the range does not lie within the {0} bytes of the source")]
    Range(u64),
    /// The bytes cannot be read to be summed.
    #[error(transparent)]
    Read(#[from] StreamError),
    /// Metadata refuses, is away or does not know.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

impl From<Refusal> for CopyError {
    fn from(refusal: Refusal) -> Self {
        Self::Metadata(refusal.into())
    }
}

impl CopyError {
    /// Whether another look at the source may help: it was replaced or deleted while it was copied.
    fn is_of_the_moment(&self) -> bool {
        match self {
            Self::Metadata(error) => matches!(error, MetadataError::Refused(Refusal::SourceChanged)),
            Self::Read(error) => !matches!(error, StreamError::NoKey(_)),
            Self::Source(_) | Self::Range(_) => false,
        }
    }
}

/// How often a copy of a source that does not hold still is begun.
const ATTEMPTS_MAX: u32 = 8;

impl<W: World> Node<W> {
    /// Makes a version of the bytes of another one.
    ///
    /// # Errors
    /// When the source or the target cannot be had, a condition does not hold, or the source is larger than
    /// `COPY_BYTES_MAX`.
    pub async fn copy_object(&self, copy: &CopyObject<'_>) -> Result<Completed, CopyError> {
        for _ in 1..ATTEMPTS_MAX {
            match self.copy_object_once(copy).await {
                Err(error) if error.is_of_the_moment() => {}
                done => return done,
            }
        }
        self.copy_object_once(copy).await
    }

    async fn copy_object_once(&self, copy: &CopyObject<'_>) -> Result<Completed, CopyError> {
        let row = self.metadata.bucket(copy.caller.path(copy.bucket.clone())).await?;
        let bucket = bucket_ref(&row);
        let found = self.open_source(copy.caller, &copy.source, None).await?;
        if found.size > COPY_BYTES_MAX {
            return Err(Refusal::CopyTooLarge.into());
        }
        let checksum = self.checksum_by(&copy.source, copy.caller, &found, copy.algorithm).await?;
        let decided_by_version = copy.source.judge.is_some() || checksum.is_some();
        let new = NewCopy {
            source: source(&copy.source, &found, decided_by_version),
            headers: copy.headers.clone(),
            website_redirect_location: copy.website_redirect_location.clone(),
            // No object has tags yet.
            tags: None,
            checksum,
            storage_class: copy.storage_class.clone().unwrap_or(row.storage_class),
        };
        let change = Change::CopyObject {
            bucket,
            key: copy.key.clone(),
            copy: Box::new(new),
            conditions: copy.conditions.clone(),
        };
        match self.metadata.commit(change).await? {
            Outcome::ObjectCopied(copied) => Ok(copied),
            other => unreachable!("a copy came to {other:?}"),
        }
    }

    /// Stores a part that is a range of a version.
    ///
    /// # Errors
    /// When the source or the upload cannot be had, or the range is not the source's or longer than a part may be.
    pub async fn copy_part(
        &self,
        upload: &UploadName,
        number: u16,
        origin: &Source<'_>,
        range: &CopyRange,
    ) -> Result<(Stored, Written), CopyError> {
        for _ in 1..ATTEMPTS_MAX {
            match self.copy_part_once(upload, number, origin, range).await {
                Err(error) if error.is_of_the_moment() => {}
                done => return done,
            }
        }
        self.copy_part_once(upload, number, origin, range).await
    }

    async fn copy_part_once(
        &self,
        upload: &UploadName,
        number: u16,
        origin: &Source<'_>,
        range: &CopyRange,
    ) -> Result<(Stored, Written), CopyError> {
        let target = self.metadata.upload(upload.path(), upload.key.clone(), upload.upload).await?;
        let wanted = Expected::default().of_upload(target.upload.checksum)?.algorithm();
        let start = match range {
            CopyRange::Whole => 0,
            CopyRange::Bytes(bytes) => bytes.start,
        };
        let found = self.open_source(upload.caller, origin, Some(ReadFrom::Start(start))).await?;
        let bytes = match range {
            CopyRange::Whole => 0..found.size,
            CopyRange::Bytes(bytes) if bytes.end <= found.size => bytes.clone(),
            CopyRange::Bytes(_) => return Err(CopyError::Range(found.size)),
        };
        if bytes.end - bytes.start > PART_BYTES_MAX {
            return Err(Refusal::CopyTooLarge.into());
        }
        // Before the source is read for its sums.
        self.admit_part(upload, number, &target, bytes.end - bytes.start).await?;
        let (stored, crc64nvme) = match known_sums(&found, &bytes, wanted) {
            Some(known) => known,
            None => self.sum(&found, bytes, wanted).await?,
        };
        let part = NewPart {
            number,
            etag: stored.etag.clone(),
            size: stored.size,
            checksum: stored.checksum.clone(),
            crc64nvme,
            blob: None,
        };
        let change = Change::CopyPart {
            bucket: target.bucket,
            key: upload.key.clone(),
            upload: upload.upload,
            part: Box::new(part),
            source: source(origin, &found, true),
            start,
        };
        match self.metadata.commit(change).await? {
            Outcome::PartStored(written) => Ok((stored, written)),
            other => unreachable!("copying a part came to {other:?}"),
        }
    }

    async fn open_source(
        &self,
        caller: Caller,
        source: &Source<'_>,
        read_from: Option<ReadFrom>,
    ) -> Result<Found, CopyError> {
        let found = self.open(caller, source.bucket.clone(), source.key.clone(), read_from).await;
        let found = found.map_err(CopyError::Source)?;
        source.judge.map_or(Ok(()), |judge| judge(&found))?;
        Ok(found)
    }

    /// The checksum of a version by an algorithm that is not its own; `None` when it is, or none is wanted.
    async fn checksum_by(
        &self,
        origin: &Source<'_>,
        caller: Caller,
        found: &Found,
        algorithm: Option<ChecksumAlgorithm>,
    ) -> Result<Option<Checksum>, CopyError> {
        match algorithm {
            None => Ok(None),
            Some(own) if own == found.checksum.algorithm => Ok(None),
            Some(algorithm @ ChecksumAlgorithm::Crc64Nvme) => {
                let value = found.crc64nvme.to_be_bytes().to_vec();
                Ok(Some(Checksum { algorithm, of: ChecksumType::FullObject, value }))
            }
            Some(algorithm) => {
                let readable = self.open_source(caller, origin, Some(ReadFrom::Start(0))).await?;
                if !readable.is_same_version(found) {
                    return Err(Refusal::SourceChanged.into());
                }
                let (stored, _) = self.sum(&readable, 0..found.size, Some(algorithm)).await?;
                Ok(Some(stored.checksum))
            }
        }
    }

    /// Reads a range once for its sums: they are the only thing that cannot be had without reading.
    async fn sum(
        &self,
        found: &Found,
        bytes: Range<u64>,
        algorithm: Option<ChecksumAlgorithm>,
    ) -> Result<(Stored, u64), CopyError> {
        let size = bytes.end - bytes.start;
        let mut digests = self.digesting.begin(algorithm, size);
        let mut reader = self.read(found, bytes);
        while let Some(piece) = reader.next().await {
            let piece = piece?;
            digests.buffer(piece.buffer, vec![piece.range]).await;
        }
        let summed = crate::payload::Written::new(None, size, digests.finish());
        Ok((summed.stored(), summed.crc64nvme))
    }
}

/// The sums of a range that are known without reading it: those of a whole object that came in one piece, whose tag is
/// the MD5 of its bytes.
fn known_sums(found: &Found, bytes: &Range<u64>, wanted: Option<ChecksumAlgorithm>) -> Option<(Stored, u64)> {
    let whole = *bytes == (0..found.size) && found.parts.is_none();
    let algorithm = wanted.unwrap_or(ChecksumAlgorithm::Crc64Nvme);
    let checksum = match algorithm {
        ChecksumAlgorithm::Crc64Nvme => {
            let value = found.crc64nvme.to_be_bytes().to_vec();
            Some(Checksum { algorithm, of: ChecksumType::FullObject, value })
        }
        other => Some(found.checksum.clone()).filter(|own| own.algorithm == other),
    };
    let checksum = checksum.filter(|_| whole)?;
    Some((Stored { etag: found.etag.clone(), checksum, size: found.size }, found.crc64nvme))
}

fn source(source: &Source<'_>, found: &Found, decided_by_version: bool) -> CopySource {
    let version = decided_by_version.then_some(found.version());
    CopySource { bucket: found.bucket_ref(), key: source.key.clone(), version }
}
