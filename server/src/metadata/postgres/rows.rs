//! Rows of one transaction in memory, so that the decisions of `anvil_node`, which do not wait, run over a database, which
//! does.
//!
//! A decision or look-up asks for rows. What was not loaded yet is noted as a [`Need`], the pass over the batch comes to
//! nothing, the needs of all of it are loaded together, and it begins anew; most batches know what they need beforehand.
//! A pass that needed nothing counts: what it changed is in [`Changes`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anvil_model::ids::{BlobId, BucketId, DiskId, Generation, NodeId, TenantId, UploadId, WriteId};
use anvil_model::object::BucketName;
use anvil_model::profile::Profile;
use anvil_model::time::WallTime;
use anvil_node::metadata::rows::{
    BlobRow, BlobState, BucketRow, Counters, GarbageRow, ListedRow, PartRow, Rows, RowsError, SegmentRow, UploadRow,
    VersionRow, WriteRow, WriterRow,
};
use anvil_node::metadata::usage::{Quota, Usage, UsageOf};

/// Rows that a pass asked for and that are to be loaded: one by its key, or a scan with its bounds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    Writer(NodeId),
    Write(WriteId),
    Bucket(BucketId),
    BucketNamed(String),
    Head(BucketId, Vec<u8>),
    /// A bucket by its name, and a head in it.
    HeadNamed(String, Vec<u8>),
    Blob(BlobId),
    /// The blob of which the head with this key has a slice, if it has.
    BlobOfHead(BucketId, Vec<u8>),
    Upload(UploadId),
    Part(UploadId, u16),
    Usage(UsageOf),
    TenantQuota(TenantId),
    // From here on scans: bounds, and how many rows at most.
    Counters,
    Buckets(TenantId, String, usize),
    BucketCount(TenantId),
    BucketsById(Option<BucketId>, usize),
    Heads(BucketId, Vec<u8>, Option<Vec<u8>>, usize),
    HasVersions(BucketId),
    Segments(BucketId, Generation, u64, u64, usize),
    SegmentsOfParts(BucketId, Generation, u16, usize),
    Blobs(Option<BlobId>, usize),
    BlobsInDebt(Option<BlobId>, usize),
    Garbage(Option<(Generation, BlobId)>, usize),
    OpenUploads(BucketId, (Vec<u8>, UploadId), Option<Vec<u8>>, usize),
    Uploads(Option<UploadId>, usize),
    CompletedBefore(WallTime, usize),
    Parts(UploadId, u16, usize),
}

/// What a scan found.
#[derive(Debug)]
pub(super) enum Scan {
    Counters(Counters),
    Buckets(Vec<BucketRow>),
    Count(usize),
    Heads(Vec<ListedRow>),
    Has(bool),
    Segments(Vec<SegmentRow>),
    Blobs(Vec<BlobRow>),
    Garbage(Vec<GarbageRow>),
    Uploads(Vec<UploadRow>),
    UploadIds(Vec<UploadId>),
    Parts(Vec<PartRow>),
}

/// A head's place.
pub(super) type Place = (BucketId, Vec<u8>);
/// A version's name, to which segments belong.
pub(super) type Version = (BucketId, Generation);

/// What was loaded. `None` is a row that is not there.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) writers: BTreeMap<NodeId, Option<WriterRow>>,
    pub(super) writes: BTreeMap<WriteId, Option<WriteRow>>,
    pub(super) buckets: BTreeMap<BucketId, Option<BucketRow>>,
    pub(super) named: BTreeMap<String, Option<BucketRow>>,
    pub(super) heads: BTreeMap<Place, Option<VersionRow>>,
    pub(super) blobs: BTreeMap<BlobId, Option<BlobRow>>,
    pub(super) uploads: BTreeMap<UploadId, Option<UploadRow>>,
    pub(super) parts: BTreeMap<(UploadId, u16), Option<PartRow>>,
    pub(super) usage: BTreeMap<UsageOf, Usage>,
    pub(super) tenant_quotas: BTreeMap<TenantId, Quota>,
    pub(super) scans: BTreeMap<Need, Scan>,
}

/// What a pass changed. `None` is a row that goes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) writers: BTreeMap<NodeId, WriterRow>,
    pub(super) writes: BTreeMap<WriteId, WriteRow>,
    pub(super) buckets: BTreeMap<BucketId, Option<BucketRow>>,
    pub(super) heads: BTreeMap<Place, Option<VersionRow>>,
    /// Of versions that this pass made: all their segments by where they begin.
    pub(super) segments: BTreeMap<Version, BTreeMap<u64, SegmentRow>>,
    /// Versions from before whose segments go.
    pub(super) segments_dropped: BTreeSet<Version>,
    pub(super) blobs: BTreeMap<BlobId, Option<BlobRow>>,
    pub(super) garbage: BTreeMap<(Generation, BlobId), Option<GarbageRow>>,
    pub(super) uploads: BTreeMap<UploadId, Option<UploadRow>>,
    pub(super) parts: BTreeMap<(UploadId, u16), PartRow>,
    /// Uploads whose parts from before go.
    pub(super) parts_dropped: BTreeSet<UploadId>,
    /// What is added to usage.
    pub(super) usage: BTreeMap<UsageOf, Usage>,
    pub(super) usage_dropped: BTreeSet<UsageOf>,
    pub(super) tenant_quotas: BTreeMap<TenantId, Quota>,
}

/// The rows of one transaction as a pass sees them.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) found: Found,
    pub(super) changes: Changes,
    needs: RefCell<BTreeSet<Need>>,
}

impl Loaded {
    /// Begins the next pass: nothing is changed.
    pub(super) fn begin_pass(&mut self) {
        self.changes = Changes::default();
    }

    /// What the pass asked for in vain; when it is nothing, the pass counts.
    pub(super) fn take_needs(&self) -> BTreeSet<Need> {
        self.needs.take()
    }

    fn miss<T>(&self, need: Need) -> Result<T, RowsError> {
        self.needs.borrow_mut().insert(need);
        Err(RowsError::Failed("it is not loaded yet".to_owned()))
    }

    fn scan<T>(&self, need: Need, read: impl FnOnce(&Scan) -> Option<T>) -> Result<T, RowsError> {
        match self.found.scans.get(&need) {
            Some(scan) => Ok(read(scan).expect("a scan is kept under the need of its kind")),
            None => self.miss(need),
        }
    }
}

/// Takes the rows out of a scan of one kind.
macro_rules! rows_of {
    ($kind:ident) => {
        |scan| if let Scan::$kind(rows) = scan { Some(rows.to_owned()) } else { None }
    };
}

impl Rows for Loaded {
    fn counters(&self) -> Result<Counters, RowsError> {
        self.scan(Need::Counters, rows_of!(Counters))
    }

    fn put_counters(&mut self, _: &Counters) -> Result<(), RowsError> {
        Err(RowsError::Inconsistent("a sequence counts the changes here".to_owned()))
    }

    fn writer(&self, node: NodeId) -> Result<Option<WriterRow>, RowsError> {
        match self.changes.writers.get(&node) {
            Some(row) => Ok(Some(*row)),
            None => self.found.writers.get(&node).copied().map_or_else(|| self.miss(Need::Writer(node)), Ok),
        }
    }

    fn put_writer(&mut self, row: &WriterRow) -> Result<(), RowsError> {
        self.changes.writers.insert(row.node, *row);
        Ok(())
    }

    fn write(&self, write: WriteId) -> Result<Option<WriteRow>, RowsError> {
        match self.changes.writes.get(&write) {
            Some(row) => Ok(Some(row.clone())),
            None => self.found.writes.get(&write).cloned().map_or_else(|| self.miss(Need::Write(write)), Ok),
        }
    }

    fn put_write(&mut self, row: &WriteRow) -> Result<(), RowsError> {
        self.changes.writes.insert(row.write, row.clone());
        Ok(())
    }

    fn forget_writes(&mut self, _: Generation) -> Result<(), RowsError> {
        Err(RowsError::Inconsistent("writes are forgotten beside the commits here".to_owned()))
    }

    fn bucket(&self, id: BucketId) -> Result<Option<BucketRow>, RowsError> {
        let row = self.changes.buckets.get(&id).or_else(|| self.found.buckets.get(&id));
        row.cloned().map_or_else(|| self.miss(Need::Bucket(id)), Ok)
    }

    // A change of a bucket is alone in its transaction, so that names, lists and counts need not see it.
    fn bucket_named(&self, name: &BucketName) -> Result<Option<BucketRow>, RowsError> {
        let row = self.found.named.get(name.as_str());
        row.cloned().map_or_else(|| self.miss(Need::BucketNamed(name.as_str().to_owned())), Ok)
    }

    fn put_bucket(&mut self, row: &BucketRow) -> Result<(), RowsError> {
        self.changes.buckets.insert(row.id, Some(row.clone()));
        Ok(())
    }

    fn delete_bucket(&mut self, id: BucketId) -> Result<(), RowsError> {
        self.changes.buckets.insert(id, None);
        Ok(())
    }

    fn buckets(&self, tenant: TenantId, after: &str, max: usize) -> Result<Vec<BucketRow>, RowsError> {
        self.scan(Need::Buckets(tenant, after.to_owned(), max), rows_of!(Buckets))
    }

    fn bucket_count(&self, tenant: TenantId) -> Result<usize, RowsError> {
        self.scan(Need::BucketCount(tenant), rows_of!(Count))
    }

    // Asked by look-ups alone.
    fn buckets_by_id(&self, after: Option<BucketId>, max: usize) -> Result<Vec<BucketRow>, RowsError> {
        self.scan(Need::BucketsById(after, max), rows_of!(Buckets))
    }

    /// As it was before the pass: what the pass adds is in the account of its batch.
    fn usage(&self, of: UsageOf) -> Result<Usage, RowsError> {
        self.found.usage.get(&of).copied().map_or_else(|| self.miss(Need::Usage(of)), Ok)
    }

    fn add_usage(&mut self, of: UsageOf, change: Usage) -> Result<(), RowsError> {
        let sum = self.changes.usage.entry(of).or_default();
        *sum = *sum + change;
        Ok(())
    }

    fn delete_usage(&mut self, of: UsageOf) -> Result<(), RowsError> {
        self.changes.usage.remove(&of);
        self.changes.usage_dropped.insert(of);
        Ok(())
    }

    fn tenant_quota(&self, tenant: TenantId) -> Result<Quota, RowsError> {
        let quota = self.changes.tenant_quotas.get(&tenant).or_else(|| self.found.tenant_quotas.get(&tenant));
        quota.copied().map_or_else(|| self.miss(Need::TenantQuota(tenant)), Ok)
    }

    fn put_tenant_quota(&mut self, tenant: TenantId, quota: &Quota) -> Result<(), RowsError> {
        self.changes.tenant_quotas.insert(tenant, *quota);
        Ok(())
    }

    fn head(&self, bucket: BucketId, key: &[u8]) -> Result<Option<VersionRow>, RowsError> {
        let place = (bucket, key.to_vec());
        let row = self.changes.heads.get(&place).or_else(|| self.found.heads.get(&place));
        row.cloned().map_or_else(|| self.miss(Need::Head(place.0, place.1)), Ok)
    }

    fn put_head(&mut self, bucket: BucketId, key: &[u8], row: &VersionRow) -> Result<(), RowsError> {
        self.changes.heads.insert((bucket, key.to_vec()), Some(row.clone()));
        Ok(())
    }

    fn delete_head(&mut self, bucket: BucketId, key: &[u8]) -> Result<(), RowsError> {
        self.changes.heads.insert((bucket, key.to_vec()), None);
        Ok(())
    }

    fn heads(
        &self,
        bucket: BucketId,
        from: &[u8],
        until: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<ListedRow>, RowsError> {
        self.scan(Need::Heads(bucket, from.to_vec(), until.map(<[u8]>::to_vec), max), rows_of!(Heads))
    }

    fn has_versions(&self, bucket: BucketId) -> Result<bool, RowsError> {
        self.scan(Need::HasVersions(bucket), rows_of!(Has))
    }

    fn segments(
        &self,
        bucket: BucketId,
        version: Generation,
        range: Range<u64>,
        max: usize,
    ) -> Result<Vec<SegmentRow>, RowsError> {
        let Some(made) = self.changes.segments.get(&(bucket, version)) else {
            return self.scan(Need::Segments(bucket, version, range.start, range.end, max), rows_of!(Segments));
        };
        let first = made.range(..=range.start).next_back().map_or(0, |(start, _)| *start);
        Ok(made.range(first..range.end.max(first)).take(max).map(|(_, row)| row.clone()).collect())
    }

    fn segments_of_parts(
        &self,
        bucket: BucketId,
        version: Generation,
        after: u16,
        max: usize,
    ) -> Result<Vec<SegmentRow>, RowsError> {
        self.scan(Need::SegmentsOfParts(bucket, version, after, max), rows_of!(Segments))
    }

    fn put_segment(&mut self, bucket: BucketId, version: Generation, row: &SegmentRow) -> Result<(), RowsError> {
        self.changes.segments.entry((bucket, version)).or_default().insert(row.start, row.clone());
        Ok(())
    }

    fn delete_segments(&mut self, bucket: BucketId, version: Generation) -> Result<(), RowsError> {
        if self.changes.segments.remove(&(bucket, version)).is_none() {
            self.changes.segments_dropped.insert((bucket, version));
        }
        Ok(())
    }

    /// A blob that is not loaded yet is taken to be held by several for the rest of a pass that comes to nothing anyway: so
    /// the pass goes on, and asks for the thousands of blobs of a large object at once.
    fn blob(&self, blob: BlobId) -> Result<Option<BlobRow>, RowsError> {
        let row = self.changes.blobs.get(&blob).or_else(|| self.found.blobs.get(&blob));
        if let Some(row) = row {
            return Ok(row.clone());
        }
        self.needs.borrow_mut().insert(Need::Blob(blob));
        let (profile, state) = (Profile::SINGLE, BlobState::Live);
        Ok(Some(BlobRow { blob, profile, length: 1, places: Vec::new(), references: 2, state, envelope: None }))
    }

    fn put_blob(&mut self, row: &BlobRow) -> Result<(), RowsError> {
        self.changes.blobs.insert(row.blob, Some(row.clone()));
        Ok(())
    }

    fn delete_blob(&mut self, blob: BlobId) -> Result<(), RowsError> {
        self.changes.blobs.insert(blob, None);
        Ok(())
    }

    fn blobs(&self, after: Option<BlobId>, max: usize) -> Result<Vec<BlobRow>, RowsError> {
        self.scan(Need::Blobs(after, max), rows_of!(Blobs))
    }

    fn blobs_in_debt(&self, after: Option<BlobId>, max: usize) -> Result<Vec<BlobRow>, RowsError> {
        let mut rows = self.scan(Need::BlobsInDebt(after, max), rows_of!(Blobs))?;
        rows.retain(|row| row.needs_repair_of(DiskId::NONE));
        Ok(rows)
    }

    fn garbage(&self, after: Option<(Generation, BlobId)>, max: usize) -> Result<Vec<GarbageRow>, RowsError> {
        self.scan(Need::Garbage(after, max), rows_of!(Garbage))
    }

    fn put_garbage(&mut self, row: &GarbageRow) -> Result<(), RowsError> {
        self.changes.garbage.insert((row.generation, row.blob), Some(row.clone()));
        Ok(())
    }

    fn delete_garbage(&mut self, generation: Generation, blob: BlobId) -> Result<(), RowsError> {
        self.changes.garbage.insert((generation, blob), None);
        Ok(())
    }

    fn upload(&self, upload: UploadId) -> Result<Option<UploadRow>, RowsError> {
        let row = self.changes.uploads.get(&upload).or_else(|| self.found.uploads.get(&upload));
        row.cloned().map_or_else(|| self.miss(Need::Upload(upload)), Ok)
    }

    fn put_upload(&mut self, row: &UploadRow) -> Result<(), RowsError> {
        self.changes.uploads.insert(row.upload, Some(row.clone()));
        Ok(())
    }

    fn delete_upload(&mut self, upload: UploadId) -> Result<(), RowsError> {
        self.changes.uploads.insert(upload, None);
        Ok(())
    }

    // Asked in a transaction only by the deletion of a bucket, which is alone in it.
    fn open_uploads(
        &self,
        bucket: BucketId,
        (key, upload): (&[u8], UploadId),
        until: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<UploadRow>, RowsError> {
        let until = until.map(<[u8]>::to_vec);
        self.scan(Need::OpenUploads(bucket, (key.to_vec(), upload), until, max), rows_of!(Uploads))
    }

    // Asked by look-ups alone.
    fn uploads(&self, after: Option<UploadId>, max: usize) -> Result<Vec<UploadRow>, RowsError> {
        self.scan(Need::Uploads(after, max), rows_of!(Uploads))
    }

    fn uploads_completed_before(&self, before: WallTime, max: usize) -> Result<Vec<UploadId>, RowsError> {
        let mut uploads = self.scan(Need::CompletedBefore(before, max), rows_of!(UploadIds))?;
        uploads.retain(|upload| !matches!(self.changes.uploads.get(upload), Some(None)));
        Ok(uploads)
    }

    fn part(&self, upload: UploadId, number: u16) -> Result<Option<PartRow>, RowsError> {
        if let Some(row) = self.changes.parts.get(&(upload, number)) {
            return Ok(Some(row.clone()));
        }
        if self.changes.parts_dropped.contains(&upload) {
            return Ok(None);
        }
        let row = self.found.parts.get(&(upload, number));
        row.cloned().map_or_else(|| self.miss(Need::Part(upload, number)), Ok)
    }

    fn parts(&self, upload: UploadId, after: u16, max: usize) -> Result<Vec<PartRow>, RowsError> {
        let before = if self.changes.parts_dropped.contains(&upload) {
            Vec::new()
        } else {
            self.scan(Need::Parts(upload, after, max), rows_of!(Parts))?
        };
        let mut all: BTreeMap<u16, PartRow> = before.into_iter().map(|row| (row.number, row)).collect();
        let changed = self.changes.parts.range((upload, after.saturating_add(1))..=(upload, u16::MAX));
        all.extend(changed.map(|((_, number), row)| (*number, row.clone())));
        Ok(all.into_values().take(max).collect())
    }

    fn put_part(&mut self, upload: UploadId, row: &PartRow) -> Result<(), RowsError> {
        self.changes.parts.insert((upload, row.number), row.clone());
        Ok(())
    }

    fn delete_parts(&mut self, upload: UploadId) -> Result<(), RowsError> {
        self.changes.parts.retain(|(of, _), _| *of != upload);
        self.changes.parts_dropped.insert(upload);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a pass that was not given everything says so, also where it went on by a guess. Method: ask, load, ask again.
    #[test]
    fn what_is_not_loaded_is_needed() {
        let mut rows = Loaded::default();
        let blob = BlobId { node: NodeId(1), incarnation: anvil_model::ids::Incarnation(1), sequence: 1 };
        assert!(rows.blob(blob).unwrap().is_some(), "a guess");
        assert!(rows.write(WriteId(1)).is_err());
        assert_eq!(rows.take_needs(), BTreeSet::from([Need::Write(WriteId(1)), Need::Blob(blob)]));
        rows.found.blobs.insert(blob, None);
        rows.found.writes.insert(WriteId(1), None);
        assert_eq!((rows.blob(blob), rows.write(WriteId(1))), (Ok(None), Ok(None)));
        assert!(rows.take_needs().is_empty());
        rows.delete_blob(blob).unwrap();
        rows.begin_pass();
        assert!(rows.changes.blobs.is_empty());
    }

    /// Segments and parts that a pass made are seen by the rest of it, as a table would show them.
    #[test]
    fn a_pass_sees_what_it_changed() {
        let mut rows = Loaded::default();
        let (bucket, version) = (BucketId(1), Generation(9));
        for start in [0, 10, 20] {
            rows.put_segment(bucket, version, &SegmentRow { start, slice: None, part: None }).unwrap();
        }
        let starts = |rows: &Loaded, range, max| {
            let found = rows.segments(bucket, version, range, max).unwrap();
            found.into_iter().map(|row| row.start).collect::<Vec<_>>()
        };
        assert_eq!(starts(&rows, 0..u64::MAX, 9), [0, 10, 20]);
        assert_eq!(starts(&rows, 15..20, 9), [10]);
        assert_eq!(starts(&rows, 10..21, 1), [10]);
        rows.delete_segments(bucket, version).unwrap();
        assert!(rows.changes.segments_dropped.is_empty(), "it was never in the table");
        rows.delete_segments(bucket, Generation(3)).unwrap();
        assert_eq!(rows.changes.segments_dropped, BTreeSet::from([(bucket, Generation(3))]));
        rows.delete_parts(UploadId(1)).unwrap();
        assert_eq!(rows.part(UploadId(1), 1), Ok(None));
        assert_eq!(rows.parts(UploadId(1), 0, 10), Ok(Vec::new()));
    }
}
