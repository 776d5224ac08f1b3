//! One window of a large blob becomes one record, written with its header in one write and without a copy.

use anvil_model::format::{FooterEntry, LARGE_PAYLOAD_OFFSET, Origin, RecordHeader, Subject, in_units};
use anvil_model::ids::{BlobId, DiskId};
use anvil_model::io::{DeviceError, World};
use anvil_model::limits::{RECORD_HEADER_BYTES_MAX, RECORD_PAYLOAD_BYTES_MAX};

use crate::space::Lane;
use crate::store::Store;

/// One window of a large blob: payload in `buffer[RECORD_HEADER_BYTES_MAX..][..length]`, room for the record header
/// in front of it. Windows of one blob begin at multiples of `RECORD_PAYLOAD_BYTES_MAX`, and all but the last are full.
#[derive(Debug)]
pub struct Window<B> {
    /// Of which blob.
    pub blob: BlobId,
    /// Where the payload begins in the blob: a multiple of `RECORD_PAYLOAD_BYTES_MAX`.
    pub offset: u64,
    /// Payload bytes, at least 1.
    pub length: usize,
    /// The bytes.
    pub buffer: B,
}

/// Why an append did not happen. Nothing of it is acknowledged; a later sweep takes what was written. The same window
/// may be appended again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The disk has no free extent left.
    #[error("the disk is full")]
    Full,
    /// The device failed; the extent is given up. [`DeviceError::Gone`] also when the store has closed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl<W: World> Store<W> {
    /// Writes one window of a blob to this core's open extent on `disk`. Completes when the device has written it;
    /// durable only after a later [`Self::flush`]. Several may be in flight. `origin` goes with the first window.
    ///
    /// # Errors
    /// When the disk is full or fails.
    ///
    /// # Panics
    /// When the blob is not at home on this core, the window is not as [`Window`] says, or it was written before.
    pub async fn append(
        &self,
        disk: DiskId,
        origin: Option<&Origin>,
        window: Window<W::Buffer>,
    ) -> Result<(), AppendError> {
        let inner = &self.inner;
        let Window { blob, offset, length, mut buffer } = window;
        inner.check_own(blob);
        assert!((1..=RECORD_PAYLOAD_BYTES_MAX).contains(&length), "a window of {length} bytes");
        assert!(offset.is_multiple_of(RECORD_PAYLOAD_BYTES_MAX as u64), "a window at {offset}");
        let number = u32::try_from(offset / RECORD_PAYLOAD_BYTES_MAX as u64).expect("a blob is at most 5 GiB");
        let _busy = inner.begin()?;
        let payload_end = RECORD_HEADER_BYTES_MAX + length;
        let bytes = in_units(payload_end);
        let slot = inner.reserve(inner.ordinal(disk), Lane::Large, bytes, 1).await?;
        let subject = Subject::Blob { blob, window: number };
        let (head, payload) = buffer.split_at_mut(RECORD_HEADER_BYTES_MAX);
        payload[length..bytes - RECORD_HEADER_BYTES_MAX].fill(0);
        let header = RecordHeader::new(slot.name(), slot.offset, subject, LARGE_PAYLOAD_OFFSET, &payload[..length]);
        header.encode(origin, head);
        slot.write(buffer, vec![FooterEntry::of(&header)]).await
    }
}
