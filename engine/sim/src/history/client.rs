//! Clients: tasks that do what users do, and note what they were told.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use anvil_model::ids::TenantId;
use anvil_model::io::{Task, World};
use anvil_model::object::{BucketName, Headers, Key, WriteConditions};
use anvil_node::copy::{CopyError, CopyObject, Source};
use anvil_node::get::{Found, StreamError};
use anvil_node::list::{After, Entry, ListObjects};
use anvil_node::metadata::query::{BucketPath, ReadFrom};
use anvil_node::metadata::{Client as Metadata, MetadataError, Refusal};
use anvil_node::put::{Expected, PutObject};
use anvil_node::{Caller, Node};
use anvil_store::ReadError;

use super::answers::{fate, fate_of_error, seen_by_error};
use super::payload::{self, Payload};
use super::record::{Fate, Running, Seen, Value};
use super::shared::Shared;
use crate::random::Random;
use crate::world::SimWorld;

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

pub(super) fn key(index: usize) -> Key {
    Key::new(format!("key-{index}").into_bytes()).expect("a short text")
}

/// A slow client's breaks, which several sweeps fit into.
const SLOW_BREAK_NANOS: u64 = 400_000_000;

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
    pub(super) fn size(&mut self) -> u64 {
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

    /// `expected` as for `Record::begin_write`.
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

    pub(super) fn attempt(
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
                    ..WriteConditions::default()
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
            let result = node.put_object(put, &mut body).await.map(|(stored, _)| stored);
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

    pub(super) async fn delete(&mut self, index: usize) {
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
                self.shared.identify_stored(value, copied.size, &copied.etag);
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
            Ok(()) => {}
            Err(StreamError::Read(_)) if self.shared.may_be_lost(value_in(&found.headers)) => {}
            Err(StreamError::Read(ReadError::Missing(_))) => self.must_be_replaced(key, &found).await,
            Err(error) => self.shared.tolerance.get().accept(&error),
        }
    }

    /// Only a version that is not the current one any more may be missing: what was replaced is given back.
    pub(super) async fn must_be_replaced(&mut self, key: usize, found: &Found) {
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

    pub(super) async fn seen(&mut self, index: usize) -> Option<Seen> {
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

    pub(super) async fn list(&mut self) {
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
}

pub(super) fn headers(value: Value) -> Headers {
    Headers { user: vec![("value".to_owned(), value.to_string())], ..Headers::default() }
}

pub(super) fn value_in(headers: &Headers) -> Value {
    let text = headers.user.first().map(|(_, value)| value.as_str());
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("nobody wrote these headers: {headers:?}"))
}
