//! Multipart uploads: parts become durable one by one; completing moves no byte.

use anvil_model::ids::UploadId;
use anvil_model::io::World;
use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, ChecksumType, Etag, Headers, Key, WriteConditions};
use anvil_model::time::WallTime;
use anvil_store::OriginPayload;
use serde::{Deserialize, Serialize};

use crate::body::Body;
use crate::metadata::mutation::{BucketRef, Change, NewPart, NewUpload, Outcome, Written};
use crate::metadata::query::{BucketPath, FoundUpload, Progress};
use crate::metadata::rows::StorageClass;
use crate::metadata::usage::Usage;
use crate::metadata::{MetadataError, Refusal};
use crate::put::{Expected, PutError, Stored};
use crate::{Caller, Node, bucket_ref};

/// The beginning of an upload.
#[derive(Clone, Debug)]
pub struct CreateUpload {
    /// Who.
    pub caller: Caller,
    /// Into which bucket.
    pub bucket: BucketName,
    /// Under which key.
    pub key: Key,
    /// What is said of the object to be.
    pub headers: Headers,
    /// The checksum that parts and object will have, when the client wants one.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// One that the node knows; `None` for the bucket's.
    pub storage_class: Option<StorageClass>,
}

/// Names an upload as S3 does: all three must agree.
#[derive(Clone, Debug)]
pub struct UploadName {
    /// Who.
    pub caller: Caller,
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: Key,
    /// The upload.
    pub upload: UploadId,
}

/// One part as the list of a CompleteMultipartUpload names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartName {
    /// 1 to `PART_NUMBER_MAX`.
    pub number: u16,
    /// Its tag.
    pub etag: Etag,
    /// Its checksum, when the client repeats it.
    pub checksum: Option<Checksum>,
}

/// A part that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartInfo {
    /// 1 to `PART_NUMBER_MAX`.
    pub number: u16,
    /// Its tag.
    pub etag: Etag,
    /// Its checksum.
    pub checksum: Checksum,
    /// Its bytes.
    pub size: u64,
    /// When it was written.
    pub last_modified: WallTime,
}

/// A page of an upload's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartsPage {
    /// In order of their numbers.
    pub parts: Vec<PartInfo>,
    /// True when there are more behind the last one.
    pub more: bool,
    /// What the upload was created with.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// What the upload was created with.
    pub storage_class: StorageClass,
}

/// Which page of a bucket's uploads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListUploads {
    /// Only keys that begin with these bytes.
    pub prefix: Vec<u8>,
    /// As for objects.
    pub delimiter: Vec<u8>,
    /// Only uploads after this key, or of this key after this upload.
    pub after: Option<(Vec<u8>, Option<UploadId>)>,
    /// Uploads and common prefixes together, at most.
    pub max: usize,
}

/// An upload under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadInfo {
    /// Its key.
    pub key: String,
    /// Its id.
    pub upload: UploadId,
    /// When it was begun.
    pub initiated_at: WallTime,
    /// What it was created with.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// What it was created with.
    pub storage_class: StorageClass,
}

/// A page of a bucket's uploads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadsPage {
    /// By key, then by id (ids are not in order of time).
    pub uploads: Vec<UploadInfo>,
    /// Keys rolled up.
    pub common_prefixes: Vec<Vec<u8>>,
    /// Where the next page begins, when there is more.
    pub next: Option<(Vec<u8>, Option<UploadId>)>,
}

impl UploadName {
    pub(crate) fn path(&self) -> BucketPath {
        self.caller.path(self.bucket.clone())
    }
}

impl<W: World> Node<W> {
    /// Begins an upload.
    ///
    /// # Errors
    /// When the bucket is not there or another tenant's.
    pub async fn create_upload(&self, create: CreateUpload) -> Result<UploadId, MetadataError> {
        let row = self.metadata.bucket(create.caller.path(create.bucket)).await?;
        let bucket = bucket_ref(&row);
        let upload = self.metadata.new_upload();
        let about = NewUpload {
            headers: create.headers,
            checksum: create.checksum,
            storage_class: create.storage_class.unwrap_or(row.storage_class),
            ..NewUpload::default()
        };
        let change = Change::CreateUpload { bucket, key: create.key, upload, about: Box::new(about) };
        self.metadata.commit(change).await?;
        Ok(upload)
    }

    /// Stores a part; the last one committed under a number wins.
    ///
    /// # Errors
    /// As for a PUT.
    pub async fn put_part<B: Body<W::Buffer>>(
        &self,
        upload: UploadName,
        number: u16,
        expected: Expected,
        body: &mut B,
    ) -> Result<Stored, PutError<B::Error>> {
        let change = |bucket, key, upload, part| Change::PutPart { bucket, key, upload, part };
        self.store_part(upload, number, expected, body, change).await
    }

    /// Stores the part of this number behind those that are there: a slice of a resumable write.
    ///
    /// # Errors
    /// As for a PUT, and `OtherWriter` when the upload has such a part already.
    pub async fn append_part<B: Body<W::Buffer>>(
        &self,
        upload: UploadName,
        number: u16,
        body: &mut B,
    ) -> Result<Stored, PutError<B::Error>> {
        let change = |bucket, key, upload, part| Change::AppendPart { bucket, key, upload, part };
        self.store_part(upload, number, Expected::default(), body, change).await
    }

    async fn store_part<B: Body<W::Buffer>>(
        &self,
        upload: UploadName,
        number: u16,
        expected: Expected,
        body: &mut B,
        change: fn(BucketRef, Key, UploadId, Box<NewPart>) -> Change,
    ) -> Result<Stored, PutError<B::Error>> {
        let found = self.metadata.upload(upload.path(), upload.key.clone(), upload.upload).await?;
        let expected = expected.of_upload(found.upload.checksum)?;
        self.admit_part(&upload, number, &found, body.length()).await?;

        let kind = OriginPayload::Part { length: body.length(), upload: upload.upload, number };
        let origin = self.origin(upload.caller, &upload.bucket, &upload.key, kind);
        let profile = self.classes.profile(&found.upload.storage_class);
        let payload = self.write_payload(&origin, profile, &expected, body).await?;

        let stored = payload.stored();
        let part = NewPart {
            number,
            etag: stored.etag.clone(),
            size: stored.size,
            checksum: stored.checksum.clone(),
            crc64nvme: payload.crc64nvme,
            blob: payload.claim(),
        };
        let change = change(found.bucket, upload.key, upload.upload, Box::new(part));
        self.commit_claim(payload.unclaimed(), change).await?;
        Ok(stored)
    }

    /// Says no before the body, where the quotas leave no room for it.
    pub(crate) async fn admit_part(
        &self,
        upload: &UploadName,
        number: u16,
        found: &FoundUpload,
        length: u64,
    ) -> Result<(), MetadataError> {
        let part = Usage::of_parts([length]);
        if found.room.admit(part).is_ok() {
            return Ok(());
        }
        // Only now it matters what the part replaces.
        let page = self.list_parts(upload.clone(), number.saturating_sub(1), 1).await?;
        let replaced = page.parts.iter().filter(|part| part.number == number).map(|part| part.size);
        Ok(found.room.admit(part - Usage::of_parts(replaced))?)
    }

    /// Parts after number `after`, at most `max`.
    ///
    /// # Errors
    /// When there is no such upload.
    pub async fn list_parts(&self, upload: UploadName, after: u16, max: usize) -> Result<PartsPage, MetadataError> {
        self.metadata.parts(upload.path(), upload.key, upload.upload, after, max).await
    }

    /// Uploads under way in a bucket.
    ///
    /// # Errors
    /// When the bucket is not there or another tenant's.
    pub async fn list_uploads(
        &self,
        caller: Caller,
        bucket: BucketName,
        list: ListUploads,
    ) -> Result<UploadsPage, MetadataError> {
        self.metadata.uploads(caller.path(bucket), list).await
    }

    /// Makes the object of these parts. Repeated with the same list it answers the same.
    ///
    /// # Errors
    /// When a part is missing, too small or out of order, or a condition does not hold.
    pub async fn complete_upload(
        &self,
        upload: UploadName,
        parts: Vec<PartName>,
        checksum: Option<Checksum>,
        conditions: WriteConditions,
    ) -> Result<(Stored, Written), MetadataError> {
        // Not asked for by the upload: one that is completed already has its answer ready.
        let bucket = bucket_ref(&self.metadata.bucket(upload.path()).await?);
        let UploadName { key, upload, .. } = upload;
        self.completed(Change::CompleteUpload { bucket, key, upload, parts, checksum, conditions }).await
    }

    async fn completed(&self, change: Change) -> Result<(Stored, Written), MetadataError> {
        match self.metadata.commit(change).await? {
            Outcome::UploadCompleted(done) => {
                Ok((Stored { etag: done.etag, checksum: done.checksum, size: done.size }, done.written))
            }
            other => unreachable!("completing an upload came to {other:?}"),
        }
    }

    /// How far a resumable write is.
    ///
    /// # Errors
    /// When there is no such upload.
    pub async fn write_progress(&self, upload: UploadName) -> Result<Progress, MetadataError> {
        self.metadata.progress(upload.path(), upload.key, upload.upload).await.map(|progress| *progress)
    }

    /// Makes the object of all parts of an upload that were appended. Repeated with the same size and checksum it answers
    /// the same.
    ///
    /// # Errors
    /// `OtherWriter` when they have not `size` bytes, `BadDigest` when these are others, or a condition does not hold.
    pub async fn complete_write(
        &self,
        upload: UploadName,
        size: u64,
        checksum: Checksum,
        conditions: WriteConditions,
    ) -> Result<(Stored, Written), MetadataError> {
        let bucket = bucket_ref(&self.metadata.bucket(upload.path()).await?);
        let UploadName { key, upload, .. } = upload;
        let change = Change::CompleteWrite { bucket, key, upload, size, checksum, conditions };
        self.completed(change).await
    }

    /// Ends an upload without an object.
    ///
    /// # Errors
    /// When there is no such upload.
    pub async fn abort_upload(&self, upload: UploadName) -> Result<(), MetadataError> {
        let bucket = bucket_ref(&self.metadata.bucket(upload.path()).await?);
        let change = Change::AbortUpload { bucket, key: upload.key, upload: upload.upload };
        self.metadata.commit(change).await.map(drop)
    }
}

impl Expected {
    /// A part is summed with its upload's algorithm, whether its client sends a checksum or not.
    pub(crate) fn of_upload(mut self, upload: Option<(ChecksumAlgorithm, ChecksumType)>) -> Result<Self, Refusal> {
        let Some((algorithm, _)) = upload else { return Ok(self) };
        if self.algorithm().is_some_and(|own| own != algorithm) {
            return Err(Refusal::InvalidRequest("the part's checksum is of another algorithm than its upload's"));
        }
        self.algorithm = Some(algorithm);
        Ok(self)
    }
}
