//! The rows of the metadata in maps: the twin of the SQL tables.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::ops::Range;
use std::rc::Rc;

use anvil_model::ids::{BlobId, BucketId, DiskId, Generation, NodeId, TenantId, UploadId, WriteId};
use anvil_model::object::BucketName;
use anvil_model::time::WallTime;
use anvil_node::metadata::rows::{
    BlobRow, BucketRow, Counters, GarbageRow, ListedRow, PartRow, Rows, RowsError, SegmentRow, UploadRow, VersionRow,
    WriteRow, WriterRow,
};
use anvil_node::metadata::usage::{Quota, Usage, UsageOf};

type Table<K, V> = Rc<BTreeMap<K, V>>;

/// All rows at one moment. A clone is a snapshot: it shares every table until one of the two changes it.
#[derive(Clone, Debug)]
pub struct MemoryRows {
    counters: Counters,
    writers: Table<NodeId, WriterRow>,
    writes: Table<WriteId, WriteRow>,
    buckets: Table<BucketId, BucketRow>,
    heads: Table<(BucketId, Vec<u8>), VersionRow>,
    segments: Table<(BucketId, Generation, u64), SegmentRow>,
    blobs: Table<BlobId, BlobRow>,
    garbage: Table<(Generation, BlobId), GarbageRow>,
    uploads: Table<UploadId, UploadRow>,
    parts: Table<(UploadId, u16), PartRow>,
    usage: Table<UsageOf, Usage>,
    tenant_quotas: Table<TenantId, Quota>,
}

impl MemoryRows {
    /// No rows, and counters at their beginning.
    #[must_use]
    pub fn new(lineage: u128) -> Self {
        Self {
            counters: Counters::new(lineage),
            writers: Rc::default(),
            writes: Rc::default(),
            buckets: Rc::default(),
            heads: Rc::default(),
            segments: Rc::default(),
            blobs: Rc::default(),
            garbage: Rc::default(),
            uploads: Rc::default(),
            parts: Rc::default(),
            usage: Rc::default(),
            tenant_quotas: Rc::default(),
        }
    }

    /// Says what is wrong with the rows as a whole, if anything: references that do not add up, blobs that are named
    /// and not there, garbage that lives.
    ///
    /// # Errors
    /// With the first contradiction.
    pub fn check(&self) -> Result<(), String> {
        let mut references: BTreeMap<BlobId, u32> = BTreeMap::new();
        let singles = self.heads.values().filter_map(|head| match head.content {
            anvil_node::metadata::rows::Content::Single(slice) => Some(slice),
            _ => None,
        });
        let segments = self.segments.values().filter_map(|segment| segment.slice);
        let parts = self.parts.values().flat_map(|part| part.slices.iter().copied());
        for slice in singles.chain(segments).chain(parts) {
            *references.entry(slice.blob).or_default() += 1;
        }
        for (blob, count) in &references {
            let row = self.blobs.get(blob).ok_or_else(|| format!("{blob:?} is referenced and has no row"))?;
            if row.references != *count {
                return Err(format!("{blob:?} counts {} references and has {count}", row.references));
            }
        }
        for (blob, row) in self.blobs.iter() {
            let live = references.contains_key(blob);
            let listed = self.garbage.keys().any(|(_, garbage)| garbage == blob);
            let state_is_live = row.state == anvil_node::metadata::rows::BlobState::Live;
            if live != state_is_live || listed == live {
                return Err(format!("{row:?}: live {live}, on the garbage list {listed}"));
            }
        }
        for (bucket, version, _) in self.segments.keys() {
            if !self.heads.iter().any(|((of, _), head)| of == bucket && head.generation == *version) {
                return Err(format!("segments of version {version} of bucket {bucket}, which is not there"));
            }
        }
        for (upload, number) in self.parts.keys() {
            if self.uploads.get(upload).is_none_or(|upload| upload.completed.is_some()) {
                return Err(format!("part {number} of {upload:?}, which is not under way"));
            }
        }
        if self.counted() != *self.usage {
            return Err(format!("usage is {:?} and counted anew {:?}", self.usage, self.counted()));
        }
        let newest = self.heads.values().map(|head| head.generation).max();
        if newest >= Some(self.counters.generation) {
            return Err(format!("generation {newest:?} was given and {} is next", self.counters.generation));
        }
        Ok(())
    }
}

impl MemoryRows {
    /// Usage, counted anew from all rows. Who holds nothing has no entry.
    fn counted(&self) -> BTreeMap<UsageOf, Usage> {
        let versions = self.heads.iter().map(|((bucket, _), head)| (*bucket, Usage::of_version(Some(head))));
        let parts = self
            .parts
            .iter()
            .filter_map(|((upload, _), part)| Some((self.uploads.get(upload)?.bucket, Usage::of_parts([part.size]))));
        let mut counted: BTreeMap<UsageOf, Usage> = BTreeMap::new();
        for (bucket, usage) in versions.chain(parts) {
            let tenant = self.buckets.get(&bucket).map(|row| UsageOf::Tenant(row.tenant));
            for of in [Some(UsageOf::Bucket(bucket)), tenant].into_iter().flatten() {
                let sum = counted.entry(of).or_default();
                *sum = *sum + usage;
            }
        }
        counted.retain(|_, usage| *usage != Usage::NONE);
        counted
    }
}

impl Rows for MemoryRows {
    fn counters(&self) -> Result<Counters, RowsError> {
        Ok(self.counters)
    }

    fn put_counters(&mut self, row: &Counters) -> Result<(), RowsError> {
        self.counters = *row;
        Ok(())
    }

    fn writer(&self, node: NodeId) -> Result<Option<WriterRow>, RowsError> {
        Ok(self.writers.get(&node).copied())
    }

    fn put_writer(&mut self, row: &WriterRow) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.writers).insert(row.node, *row);
        Ok(())
    }

    fn write(&self, write: WriteId) -> Result<Option<WriteRow>, RowsError> {
        Ok(self.writes.get(&write).cloned())
    }

    fn put_write(&mut self, row: &WriteRow) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.writes).insert(row.write, row.clone());
        Ok(())
    }

    fn forget_writes(&mut self, below: Generation) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.writes).retain(|_, row| row.generation >= below);
        Ok(())
    }

    fn bucket(&self, id: BucketId) -> Result<Option<BucketRow>, RowsError> {
        Ok(self.buckets.get(&id).cloned())
    }

    fn bucket_named(&self, name: &BucketName) -> Result<Option<BucketRow>, RowsError> {
        Ok(self.buckets.values().find(|row| row.name == *name).cloned())
    }

    fn put_bucket(&mut self, row: &BucketRow) -> Result<(), RowsError> {
        let other = self.bucket_named(&row.name)?.filter(|other| other.id != row.id);
        if let Some(other) = other {
            return Err(RowsError::Inconsistent(format!("buckets {} and {} share a name", other.id, row.id)));
        }
        Rc::make_mut(&mut self.buckets).insert(row.id, row.clone());
        Ok(())
    }

    fn delete_bucket(&mut self, id: BucketId) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.buckets).remove(&id);
        Ok(())
    }

    fn buckets(&self, tenant: TenantId, after: &str, max: usize) -> Result<Vec<BucketRow>, RowsError> {
        let mut rows: Vec<BucketRow> = self.buckets.values().filter(|row| row.tenant == tenant).cloned().collect();
        rows.retain(|row| row.name.as_str() > after);
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows.truncate(max);
        Ok(rows)
    }

    fn bucket_count(&self, tenant: TenantId) -> Result<usize, RowsError> {
        Ok(self.buckets.values().filter(|row| row.tenant == tenant).count())
    }

    fn buckets_by_id(&self, after: Option<BucketId>, max: usize) -> Result<Vec<BucketRow>, RowsError> {
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        Ok(self.buckets.range(range).map(|(_, row)| row.clone()).take(max).collect())
    }

    fn usage(&self, of: UsageOf) -> Result<Usage, RowsError> {
        Ok(self.usage.get(&of).copied().unwrap_or_default())
    }

    fn add_usage(&mut self, of: UsageOf, change: Usage) -> Result<(), RowsError> {
        let sum = self.usage(of)? + change;
        if sum == Usage::NONE {
            return self.delete_usage(of);
        }
        Rc::make_mut(&mut self.usage).insert(of, sum);
        Ok(())
    }

    fn delete_usage(&mut self, of: UsageOf) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.usage).remove(&of);
        Ok(())
    }

    fn tenant_quota(&self, tenant: TenantId) -> Result<Quota, RowsError> {
        Ok(self.tenant_quotas.get(&tenant).copied().unwrap_or_default())
    }

    fn put_tenant_quota(&mut self, tenant: TenantId, quota: &Quota) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.tenant_quotas).insert(tenant, *quota);
        Ok(())
    }

    fn head(&self, bucket: BucketId, key: &[u8]) -> Result<Option<VersionRow>, RowsError> {
        Ok(self.heads.get(&(bucket, key.to_vec())).cloned())
    }

    fn put_head(&mut self, bucket: BucketId, key: &[u8], row: &VersionRow) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.heads).insert((bucket, key.to_vec()), row.clone());
        Ok(())
    }

    fn delete_head(&mut self, bucket: BucketId, key: &[u8]) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.heads).remove(&(bucket, key.to_vec()));
        Ok(())
    }

    fn heads(
        &self,
        bucket: BucketId,
        from: &[u8],
        until: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<ListedRow>, RowsError> {
        let rows = self.heads.range((bucket, from.to_vec())..);
        let within =
            rows.take_while(|((of, key), _)| *of == bucket && until.is_none_or(|until| key.as_slice() < until));
        let current = within.filter(|(_, head)| !head.delete_marker);
        let listed = current.map(|((_, key), head)| ListedRow {
            key: key.clone(),
            etag: head.etag.clone(),
            checksum: head.checksum.clone(),
            size: head.size,
            last_modified: head.last_modified,
            storage_class: head.storage_class.clone(),
        });
        Ok(listed.take(max).collect())
    }

    fn has_versions(&self, bucket: BucketId) -> Result<bool, RowsError> {
        Ok(self.heads.keys().any(|(of, _)| *of == bucket))
    }

    fn segments(
        &self,
        bucket: BucketId,
        version: Generation,
        range: Range<u64>,
        max: usize,
    ) -> Result<Vec<SegmentRow>, RowsError> {
        let of = |start| (bucket, version, start);
        let first = self.segments.range(of(0)..=of(range.start)).next_back().map_or(range.start, |(key, _)| key.2);
        if first >= range.end {
            return Ok(Vec::new());
        }
        Ok(self.segments.range(of(first)..of(range.end)).map(|(_, row)| row.clone()).take(max).collect())
    }

    fn segments_of_parts(
        &self,
        bucket: BucketId,
        version: Generation,
        after: u16,
        max: usize,
    ) -> Result<Vec<SegmentRow>, RowsError> {
        let all = self.segments.range((bucket, version, 0)..=(bucket, version, u64::MAX));
        let begun = all.filter(|(_, row)| row.part.as_ref().is_some_and(|part| part.number > after));
        Ok(begun.map(|(_, row)| row.clone()).take(max).collect())
    }

    fn put_segment(&mut self, bucket: BucketId, version: Generation, row: &SegmentRow) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.segments).insert((bucket, version, row.start), row.clone());
        Ok(())
    }

    fn delete_segments(&mut self, bucket: BucketId, version: Generation) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.segments).retain(|key, _| (key.0, key.1) != (bucket, version));
        Ok(())
    }

    fn blob(&self, blob: BlobId) -> Result<Option<BlobRow>, RowsError> {
        Ok(self.blobs.get(&blob).cloned())
    }

    fn put_blob(&mut self, row: &BlobRow) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.blobs).insert(row.blob, row.clone());
        Ok(())
    }

    fn delete_blob(&mut self, blob: BlobId) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.blobs).remove(&blob);
        Ok(())
    }

    fn blobs(&self, after: Option<BlobId>, max: usize) -> Result<Vec<BlobRow>, RowsError> {
        let from = after.map_or(Unbounded, Excluded);
        Ok(self.blobs.range((from, Unbounded)).map(|(_, row)| row.clone()).take(max).collect())
    }

    fn blobs_in_debt(&self, after: Option<BlobId>, max: usize) -> Result<Vec<BlobRow>, RowsError> {
        let from = after.map_or(Unbounded, Excluded);
        let behind = self.blobs.range((from, Unbounded)).map(|(_, row)| row);
        Ok(behind.filter(|row| row.needs_repair_of(DiskId::NONE)).take(max).cloned().collect())
    }

    fn garbage(&self, after: Option<(Generation, BlobId)>, max: usize) -> Result<Vec<GarbageRow>, RowsError> {
        let from = after.map_or(Unbounded, Excluded);
        Ok(self.garbage.range((from, Unbounded)).map(|(_, row)| row.clone()).take(max).collect())
    }

    fn put_garbage(&mut self, row: &GarbageRow) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.garbage).insert((row.generation, row.blob), row.clone());
        Ok(())
    }

    fn delete_garbage(&mut self, generation: Generation, blob: BlobId) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.garbage).remove(&(generation, blob));
        Ok(())
    }

    fn upload(&self, upload: UploadId) -> Result<Option<UploadRow>, RowsError> {
        Ok(self.uploads.get(&upload).cloned())
    }

    fn put_upload(&mut self, row: &UploadRow) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.uploads).insert(row.upload, row.clone());
        Ok(())
    }

    fn delete_upload(&mut self, upload: UploadId) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.uploads).remove(&upload);
        Ok(())
    }

    fn open_uploads(
        &self,
        bucket: BucketId,
        from: (&[u8], UploadId),
        until: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<UploadRow>, RowsError> {
        let open = self.uploads.values().filter(|row| row.bucket == bucket && row.completed.is_none());
        let mut rows: Vec<UploadRow> = open
            .filter(|row| (row.key.as_slice(), row.upload) >= from)
            .filter(|row| until.is_none_or(|until| row.key.as_slice() < until))
            .cloned()
            .collect();
        rows.sort_by(|a, b| (&a.key, a.upload).cmp(&(&b.key, b.upload)));
        rows.truncate(max);
        Ok(rows)
    }

    fn uploads(&self, after: Option<UploadId>, max: usize) -> Result<Vec<UploadRow>, RowsError> {
        let after = after.map_or(Unbounded, Excluded);
        Ok(self.uploads.range((after, Unbounded)).map(|(_, row)| row.clone()).take(max).collect())
    }

    fn uploads_completed_before(&self, before: WallTime, max: usize) -> Result<Vec<UploadId>, RowsError> {
        let completed = self.uploads.values().filter_map(|row| {
            let at = row.completed.as_ref()?.result.written.last_modified;
            (at < before).then_some((at, row.upload))
        });
        let mut oldest: Vec<(WallTime, UploadId)> = completed.collect();
        oldest.sort();
        oldest.truncate(max);
        Ok(oldest.into_iter().map(|(_, upload)| upload).collect())
    }

    fn part(&self, upload: UploadId, number: u16) -> Result<Option<PartRow>, RowsError> {
        Ok(self.parts.get(&(upload, number)).cloned())
    }

    fn parts(&self, upload: UploadId, after: u16, max: usize) -> Result<Vec<PartRow>, RowsError> {
        let range = (Excluded((upload, after)), Included((upload, u16::MAX)));
        Ok(self.parts.range(range).map(|(_, row)| row.clone()).take(max).collect())
    }

    fn put_part(&mut self, upload: UploadId, row: &PartRow) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.parts).insert((upload, row.number), row.clone());
        Ok(())
    }

    fn delete_parts(&mut self, upload: UploadId) -> Result<(), RowsError> {
        Rc::make_mut(&mut self.parts).retain(|(of, _), _| *of != upload);
        Ok(())
    }
}
