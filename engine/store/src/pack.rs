//! Small blobs of one moment share a write. While one pack of a core and disk is being written the next one gathers;
//! when none is, a blob is written at once.

use std::collections::VecDeque;
use std::rc::Rc;

use anvil_model::format::{
    Encryption, Extras, FooterEntry, Origin, RecordHeader, Subject, in_units, record_header_bytes,
};
use anvil_model::ids::{BlobId, DiskId};
use anvil_model::io::{DeviceError, Reserve, World};
use anvil_model::limits::{RECORD_BYTES_MAX, SMALL_BLOB_BYTES_MAX};
use anvil_model::profile::Profile;
use tokio::sync::oneshot;

use crate::append::AppendError;
use crate::space::Lane;
use crate::store::{Inner, Store};

/// Small blobs that wait for a pack. Each is held by the task that waits for it, so they are as many as those.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    waiting: VecDeque<Small>,
    running: bool,
}

/// One copy of a small blob.
#[derive(Clone, Debug)]
pub struct SmallCopy {
    /// Of which blob.
    pub blob: BlobId,
    /// 1+m: all shards are copies.
    pub profile: Profile,
    /// Which copy, 0 to m.
    pub shard: u8,
    /// All bytes of the blob, 1 to `SMALL_BLOB_BYTES_MAX`; shared by the copies until they are written.
    pub payload: Rc<Vec<u8>>,
    /// How these are encrypted, if they are.
    pub encryption: Option<Rc<Encryption>>,
}

#[derive(Debug)]
struct Small {
    copy: SmallCopy,
    origin: Option<Origin>,
    reply: oneshot::Sender<Result<(), AppendError>>,
}

impl Small {
    fn header_bytes(&self) -> usize {
        record_header_bytes(self.copy.payload.len(), self.extras())
    }

    fn extras(&self) -> Extras<'_> {
        Extras { origin: self.origin.as_ref(), encryption: self.copy.encryption.as_deref() }
    }

    /// With the padding to where the next record may begin.
    fn record_bytes(&self) -> usize {
        (self.header_bytes() + self.copy.payload.len()).next_multiple_of(8)
    }
}

impl<W: World> Store<W> {
    /// Packs one copy of a small blob with others of this moment into one write. Completes and is durable like
    /// [`Self::append`]. The copies of one blob go to different disks. `origin` is absent where it is not known any more.
    ///
    /// # Errors
    /// When the disk is full or fails.
    ///
    /// # Panics
    /// When the blob is not at home on this core, or the copy is not as [`SmallCopy`] says.
    pub async fn append_small(
        &self,
        disk: DiskId,
        origin: Option<&Origin>,
        copy: SmallCopy,
    ) -> Result<(), AppendError> {
        let inner = &self.inner;
        let SmallCopy { blob, profile, shard, ref payload, ref encryption } = copy;
        inner.check_own(blob);
        assert!((1..=SMALL_BLOB_BYTES_MAX).contains(&payload.len()), "a small blob of {} bytes", payload.len());
        assert!(profile.data == 1 && shard < profile.shards(), "shard {shard} of {profile} is no copy");
        let _busy = inner.begin()?;
        let disk = inner.find_disk(disk)?;
        inner.allow(disk, profile, encryption.is_some()).await?;
        let (reply, packed) = oneshot::channel();
        let packer = &inner.disk(disk).packer;
        packer.borrow_mut().waiting.push_back(Small { copy, origin: origin.cloned(), reply });
        let running = std::mem::replace(&mut packer.borrow_mut().running, true);
        if !running {
            let inner = Rc::clone(inner);
            self.inner.start(async move { inner.pack_while_asked(disk).await });
        }
        packed.await.unwrap_or(Err(AppendError::Device(DeviceError::Gone)))
    }
}

impl<W: World> Inner<W> {
    async fn pack_while_asked(self: Rc<Self>, disk: u16) {
        loop {
            let first = {
                let mut packer = self.disk(disk).packer.borrow_mut();
                packer.waiting.retain(|small| !small.reply.is_closed());
                packer.running = !packer.waiting.is_empty();
                match packer.waiting.front() {
                    Some(small) => in_units(small.record_bytes()),
                    None => return,
                }
            };
            let (pack, outcome) = match self.make_room_or_share(disk, Lane::Small, first, 1).await {
                Ok(lane) => {
                    let pack = self.gather(disk, lane);
                    if pack.is_empty() {
                        continue;
                    }
                    let outcome = self.write_pack(disk, lane, &pack).await;
                    (pack, outcome)
                }
                Err(error) => (self.disk(disk).packer.borrow_mut().waiting.drain(..).collect(), Err(error)),
            };
            for small in pack {
                // Who was cancelled does not wait any more; its record is garbage for the sweep.
                let _ = small.reply.send(outcome);
            }
        }
    }

    /// Takes as many as fit into one write and into the open extent.
    fn gather(&self, disk: u16, lane: Lane) -> Vec<Small> {
        let mut packer = self.disk(disk).packer.borrow_mut();
        let mut pack = Vec::new();
        let mut bytes = 0;
        while let Some(small) = packer.waiting.front() {
            bytes += small.record_bytes();
            let whole = in_units(bytes);
            if whole > RECORD_BYTES_MAX || !self.has_room(disk, lane, whole, pack.len() + 1) {
                break;
            }
            pack.extend(packer.waiting.pop_front());
        }
        pack
    }

    async fn write_pack(self: &Rc<Self>, disk: u16, lane: Lane, pack: &[Small]) -> Result<(), AppendError> {
        let bytes = in_units(pack.iter().map(Small::record_bytes).sum());
        let slot = self.take_room(disk, lane, bytes, pack.len());
        let mut buffer = self.world.buffer(Reserve::Progress).await;
        let mut records = Vec::with_capacity(pack.len());
        let mut at = 0;
        for small in pack {
            let header_bytes = small.header_bytes();
            let SmallCopy { blob, profile, shard, ref payload, .. } = small.copy;
            let subject = Subject::Blob { blob, profile, shard, window: 0 };
            let offset = slot.offset + u32::try_from(at).expect("within a buffer");
            let payload_offset = u32::try_from(header_bytes).expect("within a unit");
            let header = RecordHeader::new(slot.name(), offset, subject, payload_offset, payload);
            let record = &mut buffer[at..at + small.record_bytes()];
            let (head, rest) = record.split_at_mut(header_bytes);
            header.encode(small.extras(), head);
            rest[..payload.len()].copy_from_slice(payload);
            rest[payload.len()..].fill(0);
            records.push(FooterEntry::of(&header));
            at += small.record_bytes();
        }
        buffer[at..bytes].fill(0);
        slot.write(buffer, records).await
    }
}
