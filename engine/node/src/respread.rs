//! The story of a blob that is spread anew: it was written narrower than its class wants, because disks were missing; when enough
//! of them take writes, all its windows are read and written as the class wants them, those disks are flushed, and
//! the row of the blob is changed from what was seen.
//!
//! The blob keeps its id, so that nothing that refers to it changes. Its row says how it is spread, and the records of the
//! other spread do not count (`Store::settle`). Until the row has changed they are those just written: a start that finds them
//! gives them up.

use std::rc::Rc;
use std::time::Duration;

use anvil_model::geometry;
use anvil_model::ids::{BlobId, DiskId};
use anvil_model::io::{DeviceError, Reserve, World};
use anvil_model::placement::Placement;
use anvil_model::profile::Profile;
use anvil_store::{AppendError, Cell, Origin, ReadError, SmallCopy};
use futures_util::future::join_all;

use crate::Node;
use crate::encryption::Encryptor;
use crate::get::StreamError;
use crate::metadata::mutation::{BlobSpread, Change};
use crate::metadata::rows::BlobRow;
use crate::metadata::{MetadataError, Refusal};
use crate::stripe::Stripe;

/// Why a blob could not be spread anew now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RespreadError {
    #[error("it cannot be read: {0}")]
    Read(#[from] StreamError),
    #[error("it cannot be written: {0}")]
    Append(#[from] AppendError),
    #[error("it cannot be made durable: {0}")]
    Flush(#[from] DeviceError),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

/// One window that is written anew.
struct Window<'w> {
    blob: BlobId,
    length: u64,
    number: u32,
    stripe: Stripe,
    disks: &'w [DiskId],
    origin: Option<&'w Origin>,
    encryptor: Option<&'w mut Encryptor>,
}

impl<W: World> Node<W> {
    /// How a narrow blob should be spread: as the class whose shards its row has room for, or else as `STANDARD`. `None` for
    /// one that is as wide as anybody wants.
    pub(crate) fn wanted_spread(&self, row: &BlobRow) -> Option<Profile> {
        let stored_as = |profile| geometry::stored_as(profile, row.length);
        let is_wider = |profile: &Profile| profile.shards() > row.profile.shards();
        let mut of_classes = self.classes.iter().map(|(_, profile)| stored_as(profile)).filter(is_wider);
        let standard = stored_as(self.classes.standard());
        row.is_narrow().then(|| {
            let fits = |profile: &Profile| usize::from(profile.shards()) == row.places.len();
            of_classes.find(fits).or(Some(standard).filter(is_wider))
        })?
    }

    /// Spreads a narrow blob as its class wants it. False when there are too few disks for that, or nobody wants it any more.
    pub(crate) async fn spread_anew(&self, blob: BlobId, bytes_per_second: u64) -> Result<bool, RespreadError> {
        let Some(row) = self.live(blob).await? else { return Ok(false) };
        let Some(wanted) = self.wanted_spread(&row) else { return Ok(false) };
        let placement = self.place(wanted, row.length).ok().filter(|placement| placement.profile == wanted);
        let Some(Placement { disks, .. }) = placement else { return Ok(false) };
        let _under_way = self.repairs.begin(blob);
        let origin = self.origin_of(blob).await;
        let mut encryptor = self.encryptor_anew(blob, wanted).await?;
        for number in 0..geometry::window_count(wanted, row.length) {
            let began = self.world.now();
            let stripe = Stripe::new(wanted, geometry::window_length(wanted, row.length, number));
            let origin = origin.as_ref().filter(|_| number == 0);
            let window = Window {
                blob,
                length: row.length,
                number,
                stripe,
                disks: &disks,
                origin,
                encryptor: encryptor.as_mut(),
            };
            self.write_anew(window).await?;
            let written = stripe.cell_bytes() as u64 * u64::from(wanted.shards());
            let within_rate = Duration::from_nanos(written.saturating_mul(1_000_000_000) / bytes_per_second.max(1));
            self.world.sleep(within_rate.saturating_sub(self.world.now().since(began))).await;
        }
        self.store.flush(&disks).await?;
        let from = BlobSpread { profile: row.profile, places: row.places };
        let to = BlobSpread { profile: wanted, places: disks.clone() };
        match self.change_row(Change::SpreadAnew { blob, from, to }).await {
            Ok(()) => {}
            // Deleted, or a shard was moved meanwhile: the next round sees it as it is.
            Err(MetadataError::Refused(Refusal::ShardMoved)) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        self.store.settle(blob, wanted, &disks);
        Ok(true)
    }

    async fn write_anew(&self, window: Window<'_>) -> Result<(), RespreadError> {
        let Window { blob, length, number, stripe, disks, origin, encryptor } = window;
        let profile = stripe.profile();
        let start = geometry::window_start(profile, number);
        // In ordinary memory: who holds a buffer must not wait for another one.
        let mut bytes = self.read_plainly(blob, start, stripe.window_length()).await?;
        let results = if geometry::is_packed(profile, length) {
            let encrypt = |encryptor: &mut Encryptor| encryptor.encrypt(number, std::iter::once(&mut bytes[..]));
            let encryption = encryptor.map(encrypt).map(Rc::new);
            let payload = Rc::new(bytes);
            let appends = disks.iter().zip(0..).map(|(&disk, shard)| {
                let copy =
                    SmallCopy { blob, profile, shard, payload: Rc::clone(&payload), encryption: encryption.clone() };
                self.heeding(disk, self.store.append_small(disk, origin, copy))
            });
            join_all(appends).await
        } else {
            let mut buffer = self.world.buffer(Reserve::Foreground).await;
            stripe.scatter(&bytes, &mut buffer);
            stripe.pad(&mut buffer);
            let encrypt = |encryptor: &mut Encryptor| encryptor.encrypt(number, stripe.data_cells(&mut buffer));
            let encryption = encryptor.map(encrypt).map(Rc::new);
            stripe.encode(self.encoding, &mut buffer);
            let window_length = stripe.window_length();
            let appends = stripe.split(buffer).into_iter().zip(disks).zip(0..).map(|((buffer, &disk), shard)| {
                let encryption = encryption.clone();
                let cell = Cell { blob, profile, shard, window: number, window_length, encryption, buffer };
                self.heeding(disk, self.store.append(disk, origin, cell))
            });
            join_all(appends).await
        };
        Ok(results.into_iter().collect::<Result<(), AppendError>>()?)
    }

    /// What encrypts a blob anew that is encrypted.
    async fn encryptor_anew(&self, blob: BlobId, wanted: Profile) -> Result<Option<Encryptor>, StreamError> {
        let located = self.store.locate(blob, 0).await.map_err(ReadError::from)?.ok_or(ReadError::Missing(blob))?;
        let Some(encryption) = self.encryption_of(&located).await? else { return Ok(None) };
        let encryptor = self.keys.encryptor_anew(blob, wanted, &encryption);
        encryptor.map(Some).ok_or(StreamError::NoKey(encryption.key))
    }

    /// So many bytes of a blob from `start` on, however they are spread, decrypted.
    async fn read_plainly(&self, blob: BlobId, start: u64, length: usize) -> Result<Vec<u8>, StreamError> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = start + bytes.len() as u64;
            let located =
                self.store.locate(blob, at).await.map_err(ReadError::from)?.ok_or(ReadError::Missing(blob))?;
            let in_window = at - geometry::window_start(located.profile, located.window);
            let in_window = usize::try_from(in_window).expect("within a window");
            let held_bytes = located.cells[0].bytes * usize::from(located.profile.data);
            if in_window >= held_bytes {
                return Err(ReadError::Missing(blob).into());
            }
            let end = held_bytes.min(in_window + length - bytes.len());
            for piece in self.read_window(&located, in_window..end).await? {
                bytes.extend_from_slice(&piece.buffer[piece.range]);
            }
        }
        Ok(bytes)
    }
}
