//! One cell of a large blob becomes one record, written with its header in one write and without a copy.

use std::rc::Rc;

use anvil_model::format::{
    Encryption, Extras, FooterEntry, LARGE_PAYLOAD_OFFSET, Origin, RecordHeader, Subject, in_units,
};
use anvil_model::geometry::{WINDOWS_MAX, cell_bytes, window_bytes};
use anvil_model::ids::{BlobId, DiskId};
use anvil_model::io::{DeviceError, World};
use anvil_model::limits::RECORD_HEADER_BYTES_MAX;
use anvil_model::profile::Profile;

use crate::space::Lane;
use crate::store::Store;

/// One cell of a window of a blob. All windows of a blob but the last are full, and all cells of a window are of one length
/// (`model::geometry`).
#[derive(Debug)]
pub struct Cell<B> {
    /// Of which blob.
    pub blob: BlobId,
    /// How the blob is spread.
    pub profile: Profile,
    /// Of which shard, 0 to k+m-1.
    pub shard: u8,
    /// Of which window.
    pub window: u32,
    /// Bytes of the blob in that window, at least 1.
    pub window_length: usize,
    /// How the window is encrypted, if it is: the same for all its cells.
    pub encryption: Option<Rc<Encryption>>,
    /// A buffer or a view of one: room for the record header (`RECORD_HEADER_BYTES_MAX`), then the cell
    /// ([`cell_bytes`] of `window_length`), then room for padding up to a whole unit.
    pub buffer: B,
}

/// Why an append did not happen. Nothing of it is acknowledged; a later sweep takes what was written. The same cell
/// may be appended again, there or elsewhere.
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
    /// Writes one cell to this core's open extent on `disk`. Completes when the device has written it; durable only after
    /// a later [`Self::flush`]. Several may be in flight. `origin` goes with window 0 of every shard. A cell that was
    /// appended before, there or elsewhere, is replaced by this one: so is a bad one repaired.
    ///
    /// # Errors
    /// When the disk is full or fails.
    ///
    /// # Panics
    /// When the blob is not at home on this core, or the cell is not as [`Cell`] says.
    pub async fn append(
        &self,
        disk: DiskId,
        origin: Option<&Origin>,
        cell: Cell<W::Buffer>,
    ) -> Result<(), AppendError> {
        let inner = &self.inner;
        let Cell { blob, profile, shard, window, window_length, encryption, mut buffer } = cell;
        inner.check_own(blob);
        assert!(shard < profile.shards() && window < WINDOWS_MAX, "shard {shard} of window {window} of {profile}");
        assert!((1..=window_bytes(profile)).contains(&window_length), "a window of {window_length} bytes");
        let length = cell_bytes(profile, window_length);
        let _busy = inner.begin()?;
        let bytes = in_units(RECORD_HEADER_BYTES_MAX + length);
        let disk = inner.find_disk(disk)?;
        inner.allow(disk, profile, encryption.is_some()).await?;
        let slot = inner.reserve(disk, Lane::Large, bytes, 1).await?;
        let subject = Subject::Blob { blob, profile, shard, window };
        let (head, payload) = buffer.split_at_mut(RECORD_HEADER_BYTES_MAX);
        payload[length..bytes - RECORD_HEADER_BYTES_MAX].fill(0);
        let header = RecordHeader::new(slot.name(), slot.offset, subject, LARGE_PAYLOAD_OFFSET, &payload[..length])
            .of_window(window_length);
        header.encode(Extras { origin, encryption: encryption.as_deref() }, head);
        slot.write(buffer, vec![FooterEntry::of(&header)]).await
    }
}
