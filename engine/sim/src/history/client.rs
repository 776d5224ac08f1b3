//! Clients: tasks that do what users do, and note what they were told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use anvil_model::ids::{TenantId, UploadId};
use anvil_model::io::{DeviceError, Task, World};
use anvil_model::object::{BucketName, Etag, Headers, Key, WriteConditions};
use anvil_node::copy::{CopyError, CopyObject, Source};
use anvil_node::get::{Found, StreamError};
use anvil_node::list::{After, Entry, ListObjects};
use anvil_node::metadata::client::RETRY_AFTER;
use anvil_node::metadata::query::{BucketPath, ReadFrom};
use anvil_node::metadata::{Client as Metadata, MetadataError, Refusal};
use anvil_node::multipart::{CreateUpload, PartName, UploadName};
use anvil_node::put::{Expected, PutError, PutObject, Stored};
use anvil_node::{Caller, Node};
use anvil_store::ReadError;

use super::payload::{self, Left, Payload};
use super::record::{Fate, Record, Running, Seen, Value};
use super::{Misfortunes, Reached};
use crate::random::Random;
use crate::world::SimWorld;

/// What all clients of a history share, over all its lives.
pub(super) struct Shared {
    pub(super) record: RefCell<Record>,
    pub(super) keys: usize,
    /// Most objects are about as large as a window.
    pub(super) large: bool,
    /// What a client may be told beyond what a healthy node says.
    pub(super) tolerance: Cell<Tolerance>,
    pub(super) reached: Cell<Reached>,
    pub(super) misfortunes: Cell<Misfortunes>,
    /// Bytes that were read and compared.
    pub(super) bytes_checked: Cell<u64>,
    /// Records that were moved and extents that were given back in this life, as far as somebody looked.
    pub(super) reclaimed: Cell<u64>,
    /// True while clients use the node.
    pub(super) serving: Cell<bool>,
    /// True once the node has started with all its disks.
    pub(super) settled: Cell<bool>,
    values: RefCell<BTreeMap<Value, About>>,
    /// What was computed of them already.
    etags: RefCell<BTreeMap<Value, Etag>>,
    /// Uploads whose parts were acknowledged and that nobody completes or aborts at the moment.
    pending: RefCell<Vec<Upload>>,
}

const VERIFY_ATTEMPTS: u32 = 60;
/// A slow client's breaks, which several sweeps fit into.
const SLOW_BREAK_NANOS: u64 = 400_000_000;

/// How often a write is tried after everything was deleted, a second apart.
const ROOM_ATTEMPTS: u32 = 120;

/// What may go wrong in this history.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tolerance {
    /// Reads of devices may fail, of more disks than can be lost.
    pub(super) reads_fail: bool,
    /// Writes may be refused because devices fail.
    pub(super) writes_fail: bool,
    /// Disks may be full.
    pub(super) full: bool,
    /// Bytes on the medium may be wrong: what is read may be missing or damaged, but never something else.
    pub(super) damage: bool,
    /// The node is stopping: what still runs may be cut off.
    pub(super) closing: bool,
}

/// A value: how its object was made.
#[derive(Clone)]
pub(super) struct About {
    size: u64,
    /// The parts' ranges; none when it was a PUT.
    parts: Vec<Range<u64>>,
    /// Whose bytes it has: its own, or those of the value that it is a copy of.
    pub(super) bytes: Value,
}

#[derive(Clone)]
struct Upload {
    key: usize,
    upload: UploadId,
    value: Value,
    parts: Vec<PartName>,
}

/// One client, on one core of one life.
pub(super) struct Client {
    pub(super) world: SimWorld,
    pub(super) node: Node<SimWorld>,
    pub(super) metadata: Metadata<SimWorld>,
    pub(super) shared: Rc<Shared>,
    pub(super) random: Random,
}

pub(super) const CALLER: Caller = Caller { tenant: TenantId(1) };

pub(super) fn bucket() -> BucketName {
    BucketName::new("bucket").expect("a name by the rules")
}

fn key(index: usize) -> Key {
    Key::new(format!("key-{index}").into_bytes()).expect("a short text")
}

impl Shared {
    pub(super) fn new(keys: usize, large: bool, tolerance: Tolerance) -> Self {
        Self {
            record: RefCell::default(),
            keys,
            large,
            tolerance: Cell::new(tolerance),
            reached: Cell::default(),
            misfortunes: Cell::default(),
            bytes_checked: Cell::default(),
            reclaimed: Cell::default(),
            serving: Cell::default(),
            settled: Cell::default(),
            values: RefCell::default(),
            etags: RefCell::default(),
            pending: RefCell::default(),
        }
    }

    pub(super) fn set_closing(&self, closing: bool) {
        self.tolerance.set(Tolerance { closing, ..self.tolerance.get() });
    }

    pub(super) fn reach(&self, note: impl FnOnce(&mut Reached)) {
        let mut reached = self.reached.get();
        note(&mut reached);
        self.reached.set(reached);
    }

    pub(super) fn suffer(&self, note: impl FnOnce(&mut Misfortunes)) {
        let mut counts = self.misfortunes.get();
        note(&mut counts);
        self.misfortunes.set(counts);
    }

    fn new_value(&self, size: u64, parts: Vec<Range<u64>>) -> Value {
        let mut values = self.values.borrow_mut();
        let value = values.len() as Value + 1;
        values.insert(value, About { size, parts, bytes: value });
        value
    }

    /// Values are either copied or named by conditions: a copy has the tag of its origin, so that a condition would hold
    /// for either.
    fn may_be_copied(&self, value: Value) -> bool {
        self.about(value).bytes.is_multiple_of(2)
    }

    /// A value with the bytes of another one.
    fn new_copy(&self, origin: Value) -> Value {
        let about = self.about(origin);
        let mut values = self.values.borrow_mut();
        let value = values.len() as Value + 1;
        values.insert(value, about);
        value
    }

    pub(super) fn about(&self, value: Value) -> About {
        self.values.borrow()[&value].clone()
    }

    fn etag(&self, value: Value) -> Etag {
        let known = self.etags.borrow().get(&value).cloned();
        known.unwrap_or_else(|| {
            let etag = self.about(value).etag();
            self.etags.borrow_mut().insert(value, etag.clone());
            etag
        })
    }

    /// The value with this tag and size; `None` when there are several, as for empty objects.
    fn value_of(&self, etag: &Etag, size: u64) -> Option<Value> {
        let candidates: Vec<Value> =
            self.values.borrow().iter().filter(|(_, about)| about.size == size).map(|(value, _)| *value).collect();
        let mut found = candidates.into_iter().filter(|value| self.etag(*value) == *etag);
        let first = found.next().unwrap_or_else(|| panic!("nobody wrote an object of {size} bytes with tag {etag}"));
        found.next().is_none().then_some(first)
    }
}

impl About {
    fn etag(&self) -> Etag {
        if self.parts.is_empty() {
            return Etag(hex(&payload::md5(self.bytes, 0..self.size)));
        }
        let sums: Vec<u8> = self.parts.iter().flat_map(|part| payload::md5(self.bytes, part.clone())).collect();
        Etag(format!("{}-{}", hex(&anvil_digest::md5(&sums)), self.parts.len()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Client {
    /// Does so many things, one after the other.
    pub(super) async fn run(mut self, operations: u32) {
        for _ in 0..operations {
            if self.random.one_in(3) {
                self.world.sleep(Duration::from_nanos(self.random.below(20_000_000))).await;
            }
            self.act().await;
        }
    }

    async fn act(&mut self) {
        let key = self.random.index(self.shared.keys);
        match self.random.below(100) {
            0..30 => self.put(key, None).await,
            30..36 => self.put(key, Some(None)).await,
            36..40 => self.put_if_match(key).await,
            40..44 => self.put_abandoned(key),
            44..58 => self.get(key).await,
            58..66 => self.look(key).await,
            66..77 => self.delete(key).await,
            77..80 => self.copy(key).await,
            80..83 => self.delete_many().await,
            83..89 => self.list().await,
            89..94 => self.upload(key).await,
            _ => self.pending().await,
        }
    }
}

/// Writes.
impl Client {
    fn size(&mut self) -> u64 {
        if self.shared.large && self.random.one_in(2) {
            return self.random.between(700 << 10, 1100 << 10);
        }
        match self.random.below(40) {
            0..4 => 0,
            4..12 => 1 + self.random.below(64),
            12..24 => 1 + self.random.below(8192),
            24..28 => (64 << 10) - 1 + self.random.below(3),
            28..38 => 1 + self.random.below(300 << 10),
            38 => (1 << 20) - 1 + self.random.below(3),
            _ => 1 + self.random.below(3 << 20),
        }
    }

    /// `expected` as for [`Record::begin_write`].
    async fn put(&mut self, key: usize, expected: Option<Option<Value>>) {
        let size = self.size();
        let leaves_after = self.random.one_in(15).then(|| self.random.below(size + 1));
        self.attempt(key, size, expected, leaves_after).await;
    }

    async fn put_if_match(&mut self, key: usize) {
        let Some(Seen::Value(value, _)) = self.seen(key).await else { return };
        if !self.shared.may_be_copied(value) {
            self.put(key, Some(Some(value))).await;
        }
    }

    /// A client that goes away in the middle: its request is dropped.
    fn put_abandoned(&mut self, key: usize) {
        let size = self.size();
        let nanos = self.random.below(4_000_000);
        let attempt = self.attempt(key, size, None, None);
        let attempt = self.world.spawn(async move {
            let _ = attempt.await;
        });
        let world = self.world.clone();
        let end = self.world.spawn(async move {
            world.sleep(Duration::from_nanos(nanos)).await;
            drop(attempt);
        });
        end.detach();
    }

    fn attempt(
        &self,
        index: usize,
        size: u64,
        expected: Option<Option<Value>>,
        leaves_after: Option<u64>,
    ) -> impl Future<Output = bool> + 'static {
        let (node, shared, world) = (self.node.clone(), Rc::clone(&self.shared), self.world.clone());
        let value = shared.new_value(size, Vec::new());
        // From the value: the client's own dice roll for what it does.
        let slow = value % 5 == 0;
        async move {
            let put = PutObject {
                caller: CALLER,
                bucket: bucket(),
                key: key(index),
                headers: headers(value),
                expected: Expected::default(),
                conditions: WriteConditions {
                    absent: expected == Some(None),
                    etag: expected.flatten().map(|value| shared.etag(value)),
                },
                storage_class: None,
            };
            let mut body = Payload::new(world, value, 0..size, leaves_after);
            if slow {
                body = body.slowly(SLOW_BREAK_NANOS);
            }
            let sweeps_before = node.upkeep_figures().sweeps;
            let look = shared.record.borrow_mut().begin_read(index);
            let write = shared.record.borrow_mut().begin_write(index, Some(value), expected);
            let result = node.put_object(put, &mut body).await;
            if result.is_ok() && size > 0 && node.upkeep_figures().sweeps >= sweeps_before + 2 {
                shared.reach(|reached| reached.outlasted += 1);
            }
            let seen = shared.seen_by_refusal(&result, expected);
            let fate = shared.fate_of_put(result.as_ref().map(|stored| (value, stored)));
            shared.record.borrow_mut().end_write(write, fate);
            shared.record.borrow_mut().end_read(look, seen);
            fate == Fate::Done
        }
    }

    async fn delete(&mut self, index: usize) {
        let write = self.shared.record.borrow_mut().begin_write(index, None, None);
        let result = self.node.delete_object(CALLER, bucket(), key(index), WriteConditions::default()).await;
        self.shared.record.borrow_mut().end_write(write, fate(&result));
    }

    /// Copies what was seen at some key, if it is still there then: the copy must have those very bytes, whatever
    /// becomes of its source.
    async fn copy(&mut self, to: usize) {
        let from = self.random.index(self.shared.keys);
        let Some(Seen::Value(origin, _)) = self.seen(from).await else { return };
        if !self.shared.may_be_copied(origin) {
            return;
        }
        let value = self.shared.new_copy(origin);
        let is_origin = |found: &Found| match value_in(&found.headers) == origin {
            true => Ok(()),
            false => Err(Refusal::PreconditionFailed),
        };
        let copy = CopyObject {
            caller: CALLER,
            source: Source { bucket: bucket(), key: key(from), judge: Some(&is_origin) },
            bucket: bucket(),
            key: key(to),
            headers: Some(headers(value)),
            website_redirect_location: None,
            algorithm: None,
            conditions: WriteConditions::default(),
            storage_class: None,
        };
        let write = self.shared.record.borrow_mut().begin_write(to, Some(value), None);
        let result = self.node.copy_object(&copy).await;
        let fate = match result {
            Ok(copied) => {
                let about = self.shared.about(value);
                assert_eq!((copied.size, &copied.etag), (about.size, &self.shared.etag(value)));
                Fate::Done
            }
            // The source never held still, or is not to be looked at.
            Err(CopyError::Metadata(MetadataError::Refused(Refusal::SourceChanged)) | CopyError::Source(_)) => {
                Fate::Refused
            }
            Err(CopyError::Metadata(error)) => fate_of_error(&error),
            Err(error) => panic!("a copy that reads nothing failed: {error}"),
        };
        self.shared.record.borrow_mut().end_write(write, fate);
    }

    async fn delete_many(&mut self) {
        let keys: Vec<usize> = (0..self.shared.keys).filter(|_| self.random.one_in(2)).collect();
        let begin = |index: &usize| self.shared.record.borrow_mut().begin_write(*index, None, None);
        let writes: Vec<Running> = keys.iter().map(begin).collect();
        let wanted = keys.into_iter().map(|index| (key(index), WriteConditions::default())).collect();
        let result = self.node.delete_objects(CALLER, bucket(), wanted).await;
        let fates: Vec<Fate> = match &result {
            Ok(results) => results.iter().map(fate).collect(),
            Err(error) => writes.iter().map(|_| fate_of_error(error)).collect(),
        };
        assert_eq!(fates.len(), writes.len(), "each key has its own outcome");
        for (write, fate) in writes.into_iter().zip(fates) {
            self.shared.record.borrow_mut().end_write(write, fate);
        }
    }
}

/// Reads.
impl Client {
    /// Looks at a key, and reads all or a part of it.
    async fn get(&mut self, key: usize) {
        let Some(found) = self.open(key).await else { return };
        let range = if self.random.one_in(3) && found.size > 0 {
            let start = self.random.below(found.size);
            start..self.random.between(start, found.size)
        } else {
            0..found.size
        };
        if self.random.one_in(4) {
            // Long enough for what was found to be replaced and given back.
            self.world.sleep(Duration::from_nanos(self.random.below(200_000_000))).await;
        }
        let read = self.read(&found, range).await;
        match read {
            Err(StreamError::Read(ReadError::Missing(_))) => self.must_be_replaced(key, &found).await,
            Err(error) => self.shared.tolerance.get().accept(&error),
            Ok(()) => {}
        }
    }

    /// Only a version that is not the current one any more may be missing: what was replaced is given back.
    async fn must_be_replaced(&mut self, key: usize, found: &Found) {
        if self.shared.tolerance.get().damage {
            return;
        }
        let value = value_in(&found.headers);
        match self.seen(key).await {
            Some(Seen::Value(now, _)) => assert_ne!(now, value, "the bytes of value {value} are missing"),
            Some(Seen::Absent | Seen::Present) | None => {}
        }
        self.shared.reach(|reached| reached.cut_off += 1);
    }

    pub(super) async fn open(&mut self, index: usize) -> Option<Found> {
        let read = self.shared.record.borrow_mut().begin_read(index);
        let from = self.random.one_in(2).then_some(ReadFrom::Start(0));
        let found = self.node.open(CALLER, bucket(), key(index), from).await;
        let seen = match &found {
            Ok(found) => Some(Seen::Value(self.shared.identify(&found.headers, found.size, &found.etag), None)),
            Err(error) => seen_by_error(error),
        };
        self.shared.record.borrow_mut().end_read(read, seen);
        found.ok()
    }

    pub(super) async fn read(&mut self, found: &Found, range: Range<u64>) -> Result<(), StreamError> {
        let value = value_in(&found.headers);
        let origin = self.shared.about(value).bytes;
        let mut reader = self.node.read(found, range.clone());
        let mut offset = range.start;
        while let Some(piece) = reader.next().await {
            let piece = piece?;
            let bytes = &piece.buffer[piece.range];
            assert!(payload::is(origin, offset, bytes), "value {value} reads as other bytes at {offset}");
            offset += bytes.len() as u64;
            self.shared.bytes_checked.set(self.shared.bytes_checked.get() + bytes.len() as u64);
            match self.random.below(10) {
                0 => {
                    let untaken = self.random.below(bytes.len() as u64 + 1);
                    reader.slow_down(untaken);
                    offset -= untaken;
                }
                1 => reader.speed_up(),
                _ => {}
            }
            if self.random.one_in(8) {
                self.world.sleep(Duration::from_nanos(self.random.below(3_000_000))).await;
            }
        }
        assert_eq!(offset, range.end, "value {value} ends early");
        Ok(())
    }

    /// Asks the metadata alone, which tells the generation too.
    async fn look(&mut self, key: usize) {
        let _ = self.seen(key).await;
    }

    async fn seen(&mut self, index: usize) -> Option<Seen> {
        let read = self.shared.record.borrow_mut().begin_read(index);
        let path = BucketPath::new(CALLER.tenant, bucket());
        let seen = match self.metadata.object(path, key(index), None).await {
            Ok(found) => {
                let version = found.version;
                let value = self.shared.identify(&version.headers, version.size, &version.etag);
                Some(Seen::Value(value, Some(version.generation)))
            }
            Err(error) => seen_by_error(&error),
        };
        self.shared.record.borrow_mut().end_read(read, seen);
        seen
    }

    async fn list(&mut self) {
        let begin = |index| self.shared.record.borrow_mut().begin_read(index);
        let reads: Vec<Running> = (0..self.shared.keys).map(begin).collect();
        let listed = self.listed().await;
        for (index, read) in reads.into_iter().enumerate() {
            let seen = listed.as_ref().map(|listed| listed.get(&index).copied().unwrap_or(Seen::Absent));
            self.shared.record.borrow_mut().end_read(read, seen);
        }
    }

    /// All keys, page by page; `None` when the metadata did not answer.
    async fn listed(&mut self) -> Option<BTreeMap<usize, Seen>> {
        let mut listed = BTreeMap::new();
        let mut after = After::Start;
        loop {
            let max = 1 + self.random.index(self.shared.keys + 1);
            let list = ListObjects { prefix: b"key-".to_vec(), delimiter: Vec::new(), after, max };
            let page = match self.node.list_objects(CALLER, bucket(), list).await {
                Ok(page) => page,
                Err(MetadataError::Unavailable { .. }) => return None,
                Err(error) => panic!("a listing failed: {error:?}"),
            };
            assert!(page.entries.len() <= max, "a page of {} entries, {max} were asked for", page.entries.len());
            for entry in page.entries {
                let Entry::Object { key, etag, size, .. } = entry else { panic!("a prefix without a delimiter") };
                let index = key.strip_prefix("key-").and_then(|index| index.parse().ok());
                let index: usize = index.unwrap_or_else(|| panic!("nobody wrote the key {key}"));
                let seen = self.shared.value_of(&etag, size).map_or(Seen::Present, |value| Seen::Value(value, None));
                assert!(listed.insert(index, seen).is_none(), "the key {key} is listed twice");
            }
            match page.next {
                Some(next) => after = After::Key(next),
                None => return Some(listed),
            }
        }
    }

    /// Reads everything that is there, wholly, and demands an answer: at a moment when hardly anything else happens.
    pub(super) async fn verify(mut self) {
        self.list().await;
        for key in 0..self.shared.keys {
            self.answered(key).await;
            let Some(found) = self.open(key).await else { continue };
            match self.read(&found, 0..found.size).await {
                Ok(()) => {}
                // A change that was sent long ago may still come.
                Err(StreamError::Read(ReadError::Missing(_))) => self.must_be_replaced(key, &found).await,
                Err(error) => {
                    let excused = self.shared.tolerance.get().damage || error == StreamError::Gone;
                    assert!(excused, "value {} cannot be read: {error:?}", value_in(&found.headers));
                }
            }
        }
    }

    /// Writes until that goes on: what failed is left behind.
    pub(super) async fn goes_on(self) {
        for _ in 0..ROOM_ATTEMPTS {
            if self.attempt(0, 1 << 16, None, None).await {
                return;
            }
            self.world.sleep(Duration::from_secs(1)).await;
        }
        panic!("a node with enough disks takes no writes");
    }

    /// Deletes everything, which a full disk must take, and writes until that goes on.
    pub(super) async fn make_room(mut self) {
        for key in 0..self.shared.keys {
            self.delete(key).await;
        }
        let pending = self.shared.pending.take();
        for upload in pending {
            self.abort(upload).await;
        }
        for _ in 0..ROOM_ATTEMPTS {
            if self.attempt(0, 1 << 16, None, None).await {
                self.shared.reach(|reached| reached.recovered += reached.full);
                return;
            }
            self.world.sleep(Duration::from_secs(1)).await;
        }
        // Extents that cores have open are not given back, dead or not, and those of the log never: see ADR 0002.
        self.shared.reach(|reached| reached.stayed_full += 1);
    }

    /// What a key is, asked for until the metadata has room for the question.
    async fn answered(&mut self, key: usize) -> Seen {
        for _ in 0..VERIFY_ATTEMPTS {
            if let Some(seen) = self.seen(key).await {
                return seen;
            }
            self.world.sleep(RETRY_AFTER).await;
        }
        panic!("a node that has nothing to do does not answer");
    }
}

/// Uploads.
impl Client {
    async fn upload(&mut self, index: usize) {
        let mut parts = Vec::new();
        if self.random.one_in(8) {
            parts.push(0..5 << 20);
        }
        let start = parts.last().map_or(0, |part: &Range<u64>| part.end);
        parts.push(start..start + self.size());
        let size = parts.last().map_or(0, |part| part.end);
        let value = self.shared.new_value(size, parts.clone());

        let headers = headers(value);
        let (bucket, key) = (bucket(), key(index));
        let create = CreateUpload { caller: CALLER, bucket, key, headers, checksum: None, storage_class: None };
        let upload = match self.node.create_upload(create).await {
            Ok(upload) => upload,
            Err(error) => {
                assert_ne!(fate_of_error(&error), Fate::Done);
                return;
            }
        };
        let mut upload = Upload { key: index, upload, value, parts: Vec::new() };
        for (number, range) in (1..).zip(parts) {
            let Some(part) = self.put_part(&upload, number * 3, range).await else { return };
            upload.parts.push(part);
        }
        if self.random.one_in(3) {
            self.shared.pending.borrow_mut().push(upload);
        } else {
            self.complete(upload).await;
        }
    }

    async fn put_part(&mut self, upload: &Upload, number: u16, range: Range<u64>) -> Option<PartName> {
        // Put once and then again, now and then: the last one counts.
        loop {
            let mut body = Payload::new(self.world.clone(), upload.value, range.clone(), None);
            let result = self.node.put_part(name(upload), number, Expected::default(), &mut body).await;
            let fate = match &result {
                Ok(_) => Fate::Done,
                Err(error) => self.shared.fate_of_put_error(error),
            };
            let Ok(Stored { etag, size, .. }) = result else {
                assert_ne!(fate, Fate::Done);
                return None;
            };
            assert_eq!(size, range.end - range.start);
            if !self.random.one_in(6) {
                return Some(PartName { number, etag, checksum: None });
            }
        }
    }

    /// Goes on with an upload that some client left, in this life or an earlier one.
    async fn pending(&mut self) {
        let upload = {
            let mut pending = self.shared.pending.borrow_mut();
            if pending.is_empty() {
                return;
            }
            let position = self.random.index(pending.len());
            pending.swap_remove(position)
        };
        match self.random.below(4) {
            0 => self.list_parts(upload).await,
            1 => self.abort(upload).await,
            _ => self.complete(upload).await,
        }
    }

    async fn complete(&mut self, upload: Upload) {
        let write = self.shared.record.borrow_mut().begin_write(upload.key, Some(upload.value), None);
        let mut outcome = self.try_complete(&upload).await;
        if outcome == Fate::Unknown {
            // Asking again is how a client finds out.
            self.world.sleep(Duration::from_nanos(self.random.below(1_000_000_000))).await;
            if self.try_complete(&upload).await == Fate::Done {
                outcome = Fate::Done;
            }
        }
        self.shared.record.borrow_mut().end_write(write, outcome);
        match outcome {
            // A repeat answers the same and overwrites nothing, also when another write came between.
            Fate::Done if self.random.one_in(2) => {
                self.try_complete(&upload).await;
            }
            Fate::Done | Fate::Unknown => {}
            Fate::Refused => self.shared.pending.borrow_mut().push(upload),
        }
    }

    async fn try_complete(&mut self, upload: &Upload) -> Fate {
        let conditions = WriteConditions::default();
        let result = self.node.complete_upload(name(upload), upload.parts.clone(), None, conditions).await;
        match result {
            Ok(stored) => {
                let about = self.shared.about(upload.value);
                assert_eq!((stored.size, &stored.etag), (about.size, &self.shared.etag(upload.value)));
                Fate::Done
            }
            Err(MetadataError::Refused(_)) if self.shared.tolerance.get().damage => Fate::Refused,
            Err(MetadataError::Refused(refusal)) => panic!("an upload that is there is not completed: {refusal}"),
            Err(error) => fate_of_error(&error),
        }
    }

    async fn abort(&mut self, upload: Upload) {
        match self.node.abort_upload(name(&upload)).await {
            Ok(()) => {
                let parts = self.node.list_parts(name(&upload), 0, 10).await;
                let gone = matches!(
                    parts,
                    Err(MetadataError::Refused(Refusal::NoSuchUpload(_)) | MetadataError::Unavailable { .. })
                );
                assert!(gone, "an upload that was aborted has parts: {parts:?}");
            }
            Err(MetadataError::Unavailable { .. }) => self.shared.pending.borrow_mut().push(upload),
            Err(MetadataError::Unknown) => {}
            Err(MetadataError::Refused(refusal)) => panic!("an upload that is there is not aborted: {refusal}"),
        }
    }

    async fn list_parts(&mut self, upload: Upload) {
        match self.node.list_parts(name(&upload), 0, 10).await {
            Ok(page) => {
                let parts = page.parts.into_iter();
                let found: Vec<PartName> =
                    parts.map(|part| PartName { number: part.number, etag: part.etag, checksum: None }).collect();
                // Where a write that went astray was the data of the last batch, that batch is void (ADR 0003).
                let may_lack =
                    self.shared.tolerance.get().damage && found.iter().all(|part| upload.parts.contains(part));
                assert!(may_lack || found == upload.parts, "acknowledged {:?}, listed {found:?}", upload.parts);
            }
            Err(MetadataError::Unavailable { .. }) => {}
            Err(error) => panic!("an upload that is there has no parts: {error:?}"),
        }
        self.shared.pending.borrow_mut().push(upload);
    }
}

fn name(upload: &Upload) -> UploadName {
    UploadName { caller: CALLER, bucket: bucket(), key: key(upload.key), upload: upload.upload }
}

fn headers(value: Value) -> Headers {
    Headers { user: vec![("value".to_owned(), value.to_string())], ..Headers::default() }
}

pub(super) fn value_in(headers: &Headers) -> Value {
    let text = headers.user.first().map(|(_, value)| value.as_str());
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("nobody wrote these headers: {headers:?}"))
}

/// What answers mean.
impl Shared {
    /// The value that an object says it is; its size and tag must agree.
    fn identify(&self, headers: &Headers, size: u64, etag: &Etag) -> Value {
        let value = value_in(headers);
        let about = self.about(value);
        assert_eq!((size, etag), (about.size, &self.etag(value)), "value {value} is mixed with another");
        value
    }

    fn fate_of_put(&self, result: Result<(Value, &Stored), &PutError<Left>>) -> Fate {
        match result {
            Ok((value, stored)) => {
                let about = self.about(value);
                assert_eq!((stored.size, &stored.etag), (about.size, &self.etag(value)));
                Fate::Done
            }
            Err(error) => self.fate_of_put_error(error),
        }
    }

    fn fate_of_put_error(&self, error: &PutError<Left>) -> Fate {
        let tolerance = self.tolerance.get();
        match error {
            PutError::Full => self.reach(|reached| reached.full = 1),
            PutError::Device(_) => self.reach(|reached| reached.device_errors = 1),
            PutError::Metadata(MetadataError::Unknown) => self.reach(|reached| reached.unknown += 1),
            _ => {}
        }
        match error {
            PutError::Body(Left) => Fate::Refused,
            PutError::Metadata(error) => fate_of_error(error),
            PutError::Full if tolerance.full || tolerance.writes_fail => Fate::Refused,
            PutError::Device(_) | PutError::TooFewDisks(_) if tolerance.writes_fail => Fate::Refused,
            PutError::Device(DeviceError::Gone) if tolerance.closing => Fate::Refused,
            other => panic!("a healthy node does not say: {other:?}"),
        }
    }

    /// A condition that does not hold says what was there.
    fn seen_by_refusal(
        &self,
        result: &Result<Stored, PutError<Left>>,
        expected: Option<Option<Value>>,
    ) -> Option<Seen> {
        match (result, expected) {
            (Err(PutError::Metadata(MetadataError::Refused(Refusal::PreconditionFailed))), Some(_)) => {
                Some(Seen::Present)
            }
            (Err(PutError::Metadata(MetadataError::Refused(Refusal::NoSuchKey))), Some(_)) => Some(Seen::Absent),
            _ => None,
        }
    }
}

impl Tolerance {
    /// Panics when a read must not have failed like this.
    fn accept(self, error: &StreamError) {
        let accepted = match error {
            StreamError::Read(ReadError::Device(_)) => self.reads_fail,
            StreamError::Read(ReadError::Missing(_) | ReadError::Corrupt(_)) => self.damage,
            StreamError::Read(ReadError::Closing) => self.closing,
            StreamError::Metadata(MetadataError::Unavailable { .. }) | StreamError::Gone => true,
            StreamError::Metadata(_) => false,
        };
        assert!(accepted, "a read failed: {error:?}");
    }
}

fn fate<T>(result: &Result<T, MetadataError>) -> Fate {
    match result {
        Ok(_) => Fate::Done,
        Err(error) => fate_of_error(error),
    }
}

fn fate_of_error(error: &MetadataError) -> Fate {
    match error {
        MetadataError::Refused(
            Refusal::PreconditionFailed | Refusal::NoSuchKey | Refusal::ConditionalRequestConflict,
        )
        | MetadataError::Unavailable { .. } => Fate::Refused,
        MetadataError::Refused(refusal) => panic!("nobody gave a reason to refuse: {refusal}"),
        MetadataError::Unknown => Fate::Unknown,
    }
}

fn seen_by_error(error: &MetadataError) -> Option<Seen> {
    match error {
        MetadataError::Refused(Refusal::NoSuchKey) => Some(Seen::Absent),
        MetadataError::Unavailable { .. } => None,
        other => panic!("a look-up failed: {other:?}"),
    }
}
