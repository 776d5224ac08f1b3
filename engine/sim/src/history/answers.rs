//! What answers mean, and which of them may be given in a history.

use anvil_model::io::DeviceError;
use anvil_model::object::{Etag, Headers};
use anvil_node::get::StreamError;
use anvil_node::metadata::{MetadataError, Refusal};
use anvil_node::put::{PutError, Stored};
use anvil_store::ReadError;

use super::client::value_in;
use super::payload::Left;
use super::record::{Fate, Seen, Value};
use super::shared::Shared;

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

impl Shared {
    /// The value that an object says it is; its size and tag must agree.
    pub(super) fn identify(&self, headers: &Headers, size: u64, etag: &Etag) -> Value {
        let value = value_in(headers);
        let whole = size == self.about(value).size && self.is_etag(value, etag);
        assert!(whole, "value {value} is mixed with another: {size} bytes, {etag:?}");
        value
    }

    /// What a write says of its value must be true.
    pub(super) fn identify_stored(&self, value: Value, size: u64, etag: &Etag) {
        let whole = size == self.about(value).size && self.is_etag(value, etag);
        assert!(whole, "value {value} was stored as {size} bytes with tag {etag:?}");
    }

    pub(super) fn fate_of_put(&self, result: Result<(Value, &Stored), &PutError<Left>>) -> Fate {
        match result {
            Ok((value, stored)) => {
                self.identify_stored(value, stored.size, &stored.etag);
                Fate::Done
            }
            Err(error) => self.fate_of_put_error(error),
        }
    }

    pub(super) fn fate_of_put_error(&self, error: &PutError<Left>) -> Fate {
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
    pub(super) fn seen_by_refusal(
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
    pub(super) fn accept(self, error: &StreamError) {
        let accepted = match error {
            StreamError::Read(ReadError::Device(_)) => self.reads_fail,
            StreamError::Read(ReadError::Missing(_) | ReadError::Corrupt(_)) => self.damage,
            StreamError::Read(ReadError::Closing) => self.closing,
            StreamError::Metadata(MetadataError::Unavailable { .. }) | StreamError::Gone => true,
            StreamError::Metadata(_) | StreamError::NoKey(_) => false,
        };
        assert!(accepted, "a read failed: {error:?}");
    }
}

pub(super) fn fate<T>(result: &Result<T, MetadataError>) -> Fate {
    match result {
        Ok(_) => Fate::Done,
        Err(error) => fate_of_error(error),
    }
}

pub(super) fn fate_of_error(error: &MetadataError) -> Fate {
    match error {
        MetadataError::Refused(
            Refusal::PreconditionFailed | Refusal::NoSuchKey | Refusal::ConditionalRequestConflict,
        )
        | MetadataError::Unavailable { .. } => Fate::Refused,
        MetadataError::Refused(refusal) => panic!("nobody gave a reason to refuse: {refusal}"),
        MetadataError::Unknown => Fate::Unknown,
    }
}

pub(super) fn seen_by_error(error: &MetadataError) -> Option<Seen> {
    match error {
        MetadataError::Refused(Refusal::NoSuchKey) => Some(Seen::Absent),
        MetadataError::Unavailable { .. } => None,
        other => panic!("a look-up failed: {other:?}"),
    }
}
