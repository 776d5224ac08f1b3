//! Uploads: begun, filled with parts, completed to objects, aborted.

use anvil_model::ids::UploadId;
use anvil_model::limits::{OBJECT_BYTES_MAX, PART_BYTES_MIN, PART_NUMBER_MAX};
use anvil_model::object::{Checksum, ChecksumAlgorithm, ChecksumType, Key, WriteConditions};
use anvil_model::time::WallTime;

use super::{COMPLETED_KEPT, Decided, No, One, changed, check, unchanged};
use crate::metadata::mutation::{BucketRef, Completed, NewPart, NewUpload, Outcome};
use crate::metadata::rows::{
    BucketRow, CompletedUpload, Content, PartRow, Rows, RowsError, SEGMENTS_PER_VERSION_MAX, SegmentPart, SegmentRow,
    Slice, UploadRow, VersionRow,
};
use crate::metadata::usage::Usage;
use crate::metadata::{Refusal, sums};
use crate::multipart::PartName;

impl<R: Rows> One<'_, R> {
    pub(super) fn create_upload(
        &mut self,
        bucket: BucketRef,
        key: &Key,
        upload: UploadId,
        about: &NewUpload,
    ) -> Result<Decided, No> {
        let holder = self.usable(bucket)?;
        if self.rows.upload(upload)?.is_some() {
            return Err(Refusal::InvalidRequest("the upload exists").into());
        }
        if let Some((ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256, ChecksumType::FullObject)) = about.checksum {
            return Err(Refusal::InvalidRequest("SHA checksums of an upload are composite").into());
        }
        if let Some((ChecksumAlgorithm::Crc64Nvme, ChecksumType::Composite)) = about.checksum {
            return Err(Refusal::InvalidRequest("a CRC64NVME is of the full object").into());
        }
        self.admit_object_to_be(&holder, key)?;
        self.forget_completed()?;
        self.rows.put_upload(&UploadRow {
            upload,
            bucket: bucket.id,
            key: key.as_bytes().to_vec(),
            owner: holder.tenant,
            headers: about.headers.clone(),
            tags: about.tags.clone(),
            checksum: about.checksum,
            storage_class: about.storage_class.clone(),
            envelope: None,
            initiated_at: self.stamp.at,
            completed: None,
        })?;
        Ok(changed(Outcome::UploadCreated))
    }

    /// Says no to an upload that could not become an object now, before its parts come.
    fn admit_object_to_be(&mut self, holder: &BucketRow, key: &Key) -> Result<(), No> {
        let object = Usage::of_object(0);
        let refused = match self.account.admit(self.rows, holder, object)? {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        let head = self.rows.head(holder.id, key.as_bytes())?;
        if Usage::of_version(head.as_ref()).objects > 0 { Ok(()) } else { Err(refused.into()) }
    }

    /// Forgets two old completed uploads for each new one, so that they never gather.
    fn forget_completed(&mut self) -> Result<(), RowsError> {
        let kept_ms = u64::try_from(COMPLETED_KEPT.as_millis()).expect("a day");
        let before = WallTime { unix_ms: self.stamp.at.unix_ms.saturating_sub(kept_ms) };
        for upload in self.rows.uploads_completed_before(before, 2)? {
            self.rows.delete_upload(upload)?;
        }
        Ok(())
    }

    pub(super) fn put_part(
        &mut self,
        bucket: BucketRef,
        key: &Key,
        upload: UploadId,
        part: &NewPart,
    ) -> Result<Decided, No> {
        let (holder, row) = self.open_upload(bucket, key, upload)?;
        check_part(&row, part)?;
        let slice = self.claimable(part.blob.as_ref(), part.size)?;
        let replaced = self.admit_part(&holder, upload, part)?;

        self.claim(part.blob.as_ref())?;
        self.store_part(upload, part, slice.into_iter().collect(), replaced)?;
        Ok(changed(Outcome::PartStored(self.written())))
    }

    pub(super) fn append_part(
        &mut self,
        bucket: BucketRef,
        key: &Key,
        upload: UploadId,
        part: &NewPart,
    ) -> Result<Decided, No> {
        let (holder, row) = self.open_upload(bucket, key, upload)?;
        check_part(&row, part)?;
        let follows = part.number == 1 || self.rows.part(upload, part.number - 1)?.is_some();
        if !follows || self.rows.part(upload, part.number)?.is_some() {
            return Err(Refusal::OtherWriter.into());
        }
        let slice = self.claimable(part.blob.as_ref(), part.size)?;
        let replaced = self.admit_part(&holder, upload, part)?;

        self.claim(part.blob.as_ref())?;
        self.store_part(upload, part, slice.into_iter().collect(), replaced)?;
        Ok(changed(Outcome::PartStored(self.written())))
    }

    /// Takes a part into account, the last check before something changes. Gives the one that it replaces.
    pub(super) fn admit_part(
        &mut self,
        holder: &BucketRow,
        upload: UploadId,
        part: &NewPart,
    ) -> Result<Option<PartRow>, No> {
        let replaced = self.rows.part(upload, part.number)?;
        let usage = Usage::of_parts([part.size]) - Usage::of_parts(replaced.iter().map(|part| part.size));
        self.admit(holder, usage)?;
        self.account.add(holder, usage);
        Ok(replaced)
    }

    /// Puts a part in the place of the one with its number. Its slices are held already.
    pub(super) fn store_part(
        &mut self,
        upload: UploadId,
        part: &NewPart,
        slices: Vec<Slice>,
        replaced: Option<PartRow>,
    ) -> Result<(), RowsError> {
        if let Some(replaced) = replaced {
            self.release_all(&replaced)?;
        }
        let part = PartRow {
            number: part.number,
            write: self.write,
            size: part.size,
            etag: part.etag.clone(),
            checksum: part.checksum.clone(),
            crc64nvme: part.crc64nvme,
            last_modified: self.stamp.at,
            slices,
            envelope: None,
        };
        self.rows.put_part(upload, &part)
    }

    fn release_all(&mut self, part: &PartRow) -> Result<(), RowsError> {
        part.slices.iter().try_for_each(|slice| self.release(slice.blob))
    }

    pub(super) fn complete_upload(
        &mut self,
        bucket: BucketRef,
        key: &Key,
        upload: UploadId,
        wish: Completion<'_>,
    ) -> Result<Decided, No> {
        let holder = self.usable(bucket)?;
        let row = self.named_upload(bucket, key, upload)?;
        let list = sums::fingerprint(wish.parts);
        if let Some(done) = row.completed {
            return repeated(upload, done, list);
        }
        let head = self.rows.head(bucket.id, key.as_bytes())?;
        check(head.as_ref(), wish.conditions)?;
        let uploaded = self.rows.parts(upload, 0, usize::from(PART_NUMBER_MAX))?;
        let chosen = choose(&uploaded, wish.parts)?;
        self.complete(&holder, key, (row, list), head.as_ref(), chosen, wish.checksum)
    }

    pub(super) fn complete_write(
        &mut self,
        bucket: BucketRef,
        key: &Key,
        upload: UploadId,
        (size, checksum): (u64, &Checksum),
        conditions: &WriteConditions,
    ) -> Result<Decided, No> {
        let holder = self.usable(bucket)?;
        let row = self.named_upload(bucket, key, upload)?;
        let list = sums::fingerprint_of_all(size, checksum);
        if let Some(done) = row.completed {
            return repeated(upload, done, list);
        }
        let head = self.rows.head(bucket.id, key.as_bytes())?;
        check(head.as_ref(), conditions)?;
        let uploaded = self.rows.parts(upload, 0, usize::from(PART_NUMBER_MAX))?;
        if uploaded.is_empty() {
            return Err(Refusal::InvalidRequest("an object has at least one part").into());
        }
        let is_whole = uploaded.iter().zip(1..).all(|(part, number)| part.number == number);
        if !is_whole || uploaded.iter().map(|part| part.size).sum::<u64>() != size {
            return Err(Refusal::OtherWriter.into());
        }
        let chosen = Chosen { listed: uploaded.iter().collect(), unlisted: Vec::new() };
        self.complete(&holder, key, (row, list), head.as_ref(), chosen, Some(checksum))
    }

    /// Makes the object of the chosen parts of an upload that is under way, and notes what they were chosen by.
    fn complete(
        &mut self,
        bucket: &BucketRow,
        key: &Key,
        (mut row, list): (UploadRow, [u8; 16]),
        head: Option<&VersionRow>,
        Chosen { listed, unlisted }: Chosen<'_>,
        wanted: Option<&Checksum>,
    ) -> Result<Decided, No> {
        let upload = row.upload;
        let size = listed.iter().map(|part| part.size).sum();
        if size > OBJECT_BYTES_MAX {
            return Err(Refusal::EntityTooLarge.into());
        }
        if listed.iter().map(|part| part.slices.len().max(1)).sum::<usize>() > SEGMENTS_PER_VERSION_MAX {
            return Err(Refusal::TooManyPieces.into());
        }
        let (algorithm, of) = row.checksum.unwrap_or((ChecksumAlgorithm::Crc64Nvme, ChecksumType::FullObject));
        let checksum = object_checksum(&listed, algorithm, of)?;
        if wanted.is_some_and(|wanted| wanted.algorithm != algorithm || wanted.value != checksum.value) {
            return Err(Refusal::BadDigest.into());
        }
        let parts = Usage::of_parts(listed.iter().chain(&unlisted).map(|part| part.size));
        let usage = Usage::of_object(size) - Usage::of_version(head) - parts;
        self.admit(bucket, usage)?;

        self.account.add(bucket, usage);
        self.drop_content(bucket.id, head)?;
        unlisted.iter().try_for_each(|part| self.release_all(part))?;
        self.rows.delete_parts(upload)?;
        let mut start = 0;
        for part in &listed {
            for segment in segments(start, part) {
                self.rows.put_segment(bucket.id, self.stamp.generation, &segment)?;
            }
            start += part.size;
        }
        let result = Completed { etag: sums::etag(&listed), checksum, size, written: self.written() };
        let version = VersionRow {
            generation: self.stamp.generation,
            write: self.write,
            null: true,
            delete_marker: false,
            owner: row.owner,
            etag: result.etag.clone(),
            size,
            checksum: result.checksum.clone(),
            crc64nvme: sums::crc64nvme(&listed),
            headers: row.headers.clone(),
            tags: row.tags.clone(),
            last_modified: self.stamp.at,
            parts: Some(u16::try_from(listed.len()).expect("as many as part numbers, at most")),
            content: Content::Segments,
            storage_class: row.storage_class.clone(),
            envelope: row.envelope.clone(),
            retention: None,
            legal_hold: false,
        };
        self.rows.put_head(bucket.id, key.as_bytes(), &version)?;
        row.completed = Some(CompletedUpload { list, result: result.clone() });
        self.rows.put_upload(&row)?;
        Ok(changed(Outcome::UploadCompleted(result)))
    }

    pub(super) fn abort_upload(&mut self, bucket: BucketRef, key: &Key, upload: UploadId) -> Result<Decided, No> {
        let holder = self.usable_or_closed(bucket)?;
        self.upload_under_way(bucket, key, upload)?;
        let parts = self.rows.parts(upload, 0, usize::from(PART_NUMBER_MAX))?;
        self.account.add(&holder, Usage::NONE - Usage::of_parts(parts.iter().map(|part| part.size)));
        parts.iter().try_for_each(|part| self.release_all(part))?;
        self.rows.delete_parts(upload)?;
        self.rows.delete_upload(upload)?;
        Ok(changed(Outcome::UploadAborted))
    }

    pub(super) fn open_upload(
        &self,
        bucket: BucketRef,
        key: &Key,
        upload: UploadId,
    ) -> Result<(BucketRow, UploadRow), No> {
        let holder = self.usable(bucket)?;
        Ok((holder, self.upload_under_way(bucket, key, upload)?))
    }

    fn upload_under_way(&self, bucket: BucketRef, key: &Key, upload: UploadId) -> Result<UploadRow, No> {
        let row = self.named_upload(bucket, key, upload)?;
        if row.completed.is_some() { Err(Refusal::NoSuchUpload(upload).into()) } else { Ok(row) }
    }

    /// The upload of that id, if it is of this bucket and key.
    fn named_upload(&self, bucket: BucketRef, key: &Key, upload: UploadId) -> Result<UploadRow, No> {
        let row = self.rows.upload(upload)?.filter(|row| row.bucket == bucket.id && row.key == key.as_bytes());
        Ok(row.ok_or(Refusal::NoSuchUpload(upload))?)
    }
}

/// The answer to a completion that comes again; another one finds no upload any more.
fn repeated(upload: UploadId, done: CompletedUpload, list: [u8; 16]) -> Result<Decided, No> {
    if done.list == list {
        Ok(unchanged(Outcome::UploadCompleted(done.result)))
    } else {
        Err(Refusal::NoSuchUpload(upload).into())
    }
}

/// Whether a part fits its upload.
pub(super) fn check_part(upload: &UploadRow, part: &NewPart) -> Result<(), Refusal> {
    if !(1..=PART_NUMBER_MAX).contains(&part.number) {
        return Err(Refusal::InvalidRequest("a part number is out of range"));
    }
    if upload.checksum.is_some_and(|(algorithm, _)| algorithm != part.checksum.algorithm) {
        return Err(Refusal::InvalidRequest("the checksum is not by the upload's algorithm"));
    }
    Ok(())
}

/// What a client wants completed.
pub(super) struct Completion<'c> {
    pub(super) parts: &'c [PartName],
    pub(super) checksum: Option<&'c Checksum>,
    pub(super) conditions: &'c WriteConditions,
}

/// The parts of an upload that became the object, in order, and those that did not.
struct Chosen<'p> {
    listed: Vec<&'p PartRow>,
    unlisted: Vec<&'p PartRow>,
}

/// Finds the listed parts among the uploaded ones, both in ascending order of numbers.
fn choose<'p>(uploaded: &'p [PartRow], list: &[PartName]) -> Result<Chosen<'p>, Refusal> {
    if list.is_empty() {
        return Err(Refusal::InvalidRequest("an object has at least one part"));
    }
    if list.windows(2).any(|pair| pair[0].number >= pair[1].number) {
        return Err(Refusal::InvalidPartOrder);
    }
    let mut chosen = Chosen { listed: Vec::with_capacity(list.len()), unlisted: Vec::new() };
    let mut wanted = list.iter().peekable();
    for part in uploaded {
        match wanted.next_if(|name| name.number == part.number) {
            Some(name) => {
                let same_sum = name
                    .checksum
                    .as_ref()
                    .is_none_or(|sum| sum.algorithm == part.checksum.algorithm && sum.value == part.checksum.value);
                if name.etag != part.etag || !same_sum {
                    return Err(Refusal::InvalidPart(name.number));
                }
                chosen.listed.push(part);
            }
            None => chosen.unlisted.push(part),
        }
    }
    if let Some(missing) = wanted.next() {
        return Err(Refusal::InvalidPart(missing.number));
    }
    let (_, but_last) = chosen.listed.split_last().expect("the list is not empty");
    match but_last.iter().find(|part| part.size < PART_BYTES_MIN) {
        Some(part) => Err(Refusal::EntityTooSmall { number: part.number, length: part.size }),
        None => Ok(chosen),
    }
}

/// The object's checksum by the upload's algorithm; parts that came without it (CRC64NVME is always there) give the
/// CRC64NVME of the bytes instead.
fn object_checksum(listed: &[&PartRow], algorithm: ChecksumAlgorithm, of: ChecksumType) -> Result<Checksum, Refusal> {
    if let Some(checksum) = sums::checksum(listed, algorithm, of) {
        return Ok(checksum);
    }
    if algorithm != ChecksumAlgorithm::Crc64Nvme {
        return Err(Refusal::InvalidRequest("a part has no checksum by the upload's algorithm"));
    }
    let value = sums::crc64nvme(listed).to_be_bytes().to_vec();
    Ok(Checksum { algorithm, of: ChecksumType::FullObject, value })
}

/// A part as segments of a version: the first one says which part begins there.
fn segments(start: u64, part: &PartRow) -> Vec<SegmentRow> {
    let mut kept = Some(SegmentPart {
        number: part.number,
        size: part.size,
        etag: part.etag.clone(),
        checksum: part.checksum.clone(),
    });
    if part.slices.is_empty() {
        return vec![SegmentRow { start, slice: None, part: kept }];
    }
    let mut at = start;
    let segment = |slice: &Slice| {
        let begins = at;
        at += slice.length;
        SegmentRow { start: begins, slice: Some(*slice), part: kept.take() }
    };
    part.slices.iter().map(segment).collect()
}
