//! Copies: versions and parts that share the bytes of a version which is there. No byte moves; what is counted is who
//! holds which slice of a blob.
//!
//! The source is looked at in the transaction that makes the copy, so a copy never holds what is gone: a source that was
//! replaced or deleted since it was looked up refuses the change with [`Refusal::SourceChanged`].

use std::ops::Range;

use anvil_model::ids::{BucketId, UploadId};
use anvil_model::limits::COPY_BYTES_MAX;
use anvil_model::object::{Headers, Key, WriteConditions};

use super::uploads::check_part;
use super::{Decided, No, One, changed, check};
use crate::metadata::Refusal;
use crate::metadata::mutation::{BucketRef, Completed, CopySource, NewCopy, NewPart, Outcome};
use crate::metadata::rows::{
    BlobState, Content, Rows, RowsError, SEGMENTS_PER_VERSION_MAX, SLICES_PER_PART_MAX, SegmentRow, Slice, VersionRow,
};
use crate::metadata::usage::Usage;

impl<R: Rows> One<'_, R> {
    pub(super) fn copy_object(
        &mut self,
        bucket: BucketRef,
        key: &Key,
        copy: &NewCopy,
        conditions: &WriteConditions,
    ) -> Result<Decided, No> {
        let holder = self.usable(bucket)?;
        let head = self.rows.head(bucket.id, key.as_bytes())?;
        check(head.as_ref(), conditions)?;
        let source = self.source(bucket, &copy.source)?;
        if source.size > COPY_BYTES_MAX {
            return Err(Refusal::CopyTooLarge.into());
        }
        let segments = self.segments_of(copy.source.bucket.id, &source)?;
        let usage = Usage::of_object(source.size) - Usage::of_version(head.as_ref());
        self.admit(&holder, usage)?;

        self.account.add(&holder, usage);
        // The version that is replaced may be the one that is copied: held first, let go of afterwards.
        match source.content {
            Content::Empty => {}
            Content::Single(slice) => self.retain(slice)?,
            Content::Segments => {
                segments.iter().filter_map(|row| row.slice).try_for_each(|slice| self.retain(slice))?
            }
        }
        self.drop_content(bucket.id, head.as_ref())?;
        for segment in &segments {
            self.rows.put_segment(bucket.id, self.stamp.generation, segment)?;
        }
        let headers = copy.headers.clone().unwrap_or_else(|| Headers {
            // Names a place on the source's site: never copied (S3 API reference, CopyObject).
            website_redirect_location: copy.website_redirect_location.clone(),
            ..source.headers.clone()
        });
        let row = VersionRow {
            generation: self.stamp.generation,
            write: self.write,
            null: true,
            delete_marker: false,
            owner: holder.tenant,
            etag: source.etag,
            size: source.size,
            checksum: copy.checksum.clone().unwrap_or(source.checksum),
            crc64nvme: source.crc64nvme,
            headers,
            tags: copy.tags.clone().unwrap_or(source.tags),
            last_modified: self.stamp.at,
            parts: source.parts,
            content: source.content,
            storage_class: copy.storage_class.clone(),
            envelope: source.envelope,
            retention: None,
            legal_hold: false,
        };
        self.rows.put_head(bucket.id, key.as_bytes(), &row)?;
        let VersionRow { etag, checksum, size, .. } = row;
        Ok(changed(Outcome::ObjectCopied(Completed { etag, checksum, size, written: self.written() })))
    }

    pub(super) fn copy_part(
        &mut self,
        bucket: BucketRef,
        key: &Key,
        upload: UploadId,
        part: &NewPart,
        (source, range): (&CopySource, Range<u64>),
    ) -> Result<Decided, No> {
        let (holder, row) = self.open_upload(bucket, key, upload)?;
        check_part(&row, part)?;
        let version = self.source(bucket, source)?;
        let within = range.start <= range.end && range.end <= version.size;
        if !within || range.end - range.start != part.size || part.blob.is_some() {
            return Err(Refusal::InvalidRequest("the range is not that of the part").into());
        }
        let slices = self.slices_of(source.bucket.id, &version, range)?;
        if slices.len() > SLICES_PER_PART_MAX {
            return Err(Refusal::TooManyPieces.into());
        }
        let replaced = self.admit_part(&holder, upload, part)?;

        slices.iter().try_for_each(|slice| self.retain(*slice))?;
        self.store_part(upload, part, slices, replaced)?;
        Ok(changed(Outcome::PartStored(self.written())))
    }

    /// The version to copy: the current one of its key, and the one that was looked at if one was.
    fn source(&self, target: BucketRef, source: &CopySource) -> Result<VersionRow, No> {
        let bucket = self.usable(source.bucket)?;
        if bucket.tenant != target.tenant {
            return Err(Refusal::AccessDenied.into());
        }
        let head = self.rows.head(bucket.id, source.key.as_bytes())?.filter(|version| !version.delete_marker);
        let head = head.filter(|version| source.version.is_none_or(|wanted| wanted == version.generation));
        Ok(head.ok_or(Refusal::SourceChanged)?)
    }

    /// All segments of a version; none where its content is in one piece.
    pub(super) fn segments_of(&self, bucket: BucketId, version: &VersionRow) -> Result<Vec<SegmentRow>, RowsError> {
        if version.content != Content::Segments {
            return Ok(Vec::new());
        }
        let segments = self.rows.segments(bucket, version.generation, 0..u64::MAX, SEGMENTS_PER_VERSION_MAX + 1)?;
        if segments.len() > SEGMENTS_PER_VERSION_MAX {
            let problem = format!("version {} has more segments than a version may have", version.generation);
            return Err(RowsError::Inconsistent(problem));
        }
        Ok(segments)
    }

    /// The slices that hold a range of a version, in order; one more than a part may have when there are too many.
    fn slices_of(&self, bucket: BucketId, version: &VersionRow, range: Range<u64>) -> Result<Vec<Slice>, RowsError> {
        let segments = match version.content {
            Content::Empty => Vec::new(),
            Content::Single(slice) => vec![SegmentRow { start: 0, slice: Some(slice), part: None }],
            Content::Segments => {
                self.rows.segments(bucket, version.generation, range.clone(), SLICES_PER_PART_MAX + 1)?
            }
        };
        let cut = |segment: &SegmentRow| {
            let slice = segment.slice?;
            let from = range.start.max(segment.start);
            let until = range.end.min(segment.start + slice.length);
            let length = until.checked_sub(from).filter(|length| *length > 0)?;
            Some(Slice { blob: slice.blob, offset: slice.offset + (from - segment.start), length })
        };
        let slices: Vec<Slice> = segments.iter().filter_map(cut).collect();
        let found: u64 = slices.iter().map(|slice| slice.length).sum();
        if slices.len() <= SLICES_PER_PART_MAX && found != range.end - range.start {
            let problem = format!("version {} has no bytes for a part of its range", version.generation);
            return Err(RowsError::Inconsistent(problem));
        }
        Ok(slices)
    }

    /// Adds a reference to a blob that something references already.
    fn retain(&mut self, slice: Slice) -> Result<(), RowsError> {
        let live = self.rows.blob(slice.blob)?.filter(|row| row.state == BlobState::Live);
        let counted = live.and_then(|mut row| {
            row.references = row.references.checked_add(1)?;
            Some(row)
        });
        match counted {
            Some(row) => self.rows.put_blob(&row),
            None => Err(RowsError::Inconsistent(format!("blob {} is referenced and cannot be held", slice.blob))),
        }
    }
}
