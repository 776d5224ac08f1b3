//! Uploads in parts: begun by one client and ended by any, in the same life or in a later one.

use std::ops::Range;
use std::time::Duration;

use anvil_model::ids::UploadId;
use anvil_model::io::World;
use anvil_model::object::WriteConditions;
use anvil_node::metadata::{MetadataError, Refusal};
use anvil_node::multipart::{CreateUpload, PartName, UploadName};
use anvil_node::put::{Expected, Stored};

use super::answers::fate_of_error;
use super::client::{CALLER, Client, bucket, headers, key};
use super::payload::Payload;
use super::record::{Fate, Value};

/// An upload whose parts were acknowledged.
#[derive(Clone)]
pub(super) struct Upload {
    key: usize,
    upload: UploadId,
    value: Value,
    parts: Vec<PartName>,
}

impl Client {
    pub(super) async fn upload(&mut self, index: usize) {
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
    pub(super) async fn pending(&mut self) {
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
            Ok((stored, _)) => {
                self.shared.identify_stored(upload.value, stored.size, &stored.etag);
                Fate::Done
            }
            Err(MetadataError::Refused(_)) if self.shared.tolerance.get().damage => Fate::Refused,
            Err(MetadataError::Refused(refusal)) => panic!("an upload that is there is not completed: {refusal}"),
            Err(error) => fate_of_error(&error),
        }
    }

    pub(super) async fn abort(&mut self, upload: Upload) {
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
