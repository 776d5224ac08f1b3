//! The payload of a write on its way to the disks: received, digested, encrypted if it is to be, and encoded while it is in
//! cache, appended.
//!
//! Shared by PUT and UploadPart. Nothing here becomes visible: it ends with bytes on disks, not yet durable, and what they
//! are. A disk that fails on the way loses its shard: the write goes on as long as enough others are left, and the claim
//! says that the shard is to be repaired.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use anvil_digest::Algorithm;
use anvil_model::format::Encryption;
use anvil_model::geometry;
use anvil_model::ids::{BlobId, DiskId};
use anvil_model::io::World;
use anvil_model::object::{Checksum, ChecksumAlgorithm, Etag};
use anvil_model::placement::{self, Placement};
use anvil_model::profile::Profile;
use anvil_store::{AppendError, Cell, Origin, SmallCopy};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

use crate::Node;
use crate::abandoned::Unclaimed;
use crate::body::{Body, Trailer};
use crate::digests::{Digested, Digests};
use crate::encryption::Encryptor;
use crate::gather::Pace;
use crate::metadata::mutation::BlobClaim;
use crate::put::{Expected, PutError, Stored};
use crate::spread::ShardSet;
use crate::stripe::Stripe;

/// Windows of one write between the socket and the disks, each of which holds a buffer. Two keep both busy; more only hold
/// memory.
const WINDOWS_IN_FLIGHT: usize = 3;

/// A blob that was written: how, where, and how long it is.
#[derive(Debug)]
pub(crate) struct WrittenBlob {
    pub(crate) blob: BlobId,
    pub(crate) length: u64,
    profile: Profile,
    /// One disk per shard; none for those whose disk failed on the way, and behind them for those of a wider profile that
    /// it was to have.
    places: Vec<DiskId>,
    unclaimed: Unclaimed,
}

/// Payload that is on disk, verified against everything that was promised of it.
#[derive(Debug)]
pub(crate) struct Written {
    /// `None` for an empty payload.
    pub(crate) blob: Option<WrittenBlob>,
    pub(crate) size: u64,
    pub(crate) md5: [u8; 16],
    pub(crate) crc64nvme: u64,
    /// What is kept and returned: the client's algorithm, or CRC64NVME when it named none.
    pub(crate) checksum: Checksum,
}

impl Written {
    pub(crate) fn new(blob: Option<WrittenBlob>, size: u64, digested: Digested) -> Self {
        let Digested { md5, crc64nvme, checksum } = digested;
        Self { blob, size, md5, crc64nvme, checksum }
    }

    /// What the client is told.
    pub(crate) fn stored(&self) -> Stored {
        Stored { etag: Etag(hex(&self.md5)), checksum: self.checksum.clone(), size: self.size }
    }

    /// What the commit names.
    pub(crate) fn claim(&self) -> Option<BlobClaim> {
        self.blob.as_ref().map(|written| BlobClaim {
            blob: written.blob,
            profile: written.profile,
            length: written.length,
            places: written.places.clone(),
        })
    }

    /// What is to be given to [`Node::commit_claim`].
    pub(crate) fn unclaimed(self) -> Option<Unclaimed> {
        self.blob.map(|written| written.unclaimed)
    }
}

impl<W: World> Node<W> {
    /// Writes the whole payload of `body`, spread by this profile or a narrower one, then verifies it.
    pub(crate) async fn write_payload<B: Body<W::Buffer>>(
        &self,
        origin: &Origin,
        profile: Profile,
        expected: &Expected,
        body: &mut B,
    ) -> Result<Written, PutError<B::Error>> {
        let size = body.length();
        let mut digests = self.digesting.begin(expected.algorithm(), size);
        let blob = match size {
            0 => Ok(None),
            _ => self.write_blob(origin, profile, &mut digests, body).await.map(Some),
        };
        if matches!(blob, Err(PutError::Full)) {
            self.upkeep.note_full(self.world.now());
        }
        let blob = blob?;
        let trailer = body.finish().await.map_err(PutError::Body)?;
        let written = Written::new(blob, size, digests.finish());
        expected.verify(&written, &trailer)?;
        Ok(written)
    }

    async fn write_blob<B: Body<W::Buffer>>(
        &self,
        origin: &Origin,
        profile: Profile,
        digests: &mut Digests<W>,
        body: &mut B,
    ) -> Result<WrittenBlob, PutError<B::Error>> {
        let length = body.length();
        let asked = profile;
        let Placement { profile, disks } = self.place(asked, length)?;
        let blob = self.store.new_blob();
        let unclaimed = Unclaimed::new(blob, &self.abandoned);
        let mut written = WrittenBlob { blob, length, profile, places: disks, unclaimed };
        let encryptor = self.keys.encryptor(blob, profile, || self.world.random());
        let lost = if geometry::is_packed(profile, length) {
            self.write_copies(&written, origin, encryptor, digests, body).await?
        } else {
            self.write_windows(&written, origin, encryptor, digests, body).await?
        };
        for (place, shard) in written.places.iter_mut().zip(0..) {
            if lost.contains(shard) {
                *place = DiskId::NONE;
                self.repairs.note_owed(1);
            }
        }
        // Room for the shards that the class wants and the disks of this moment do not allow.
        let wanted = usize::from(geometry::stored_as(asked, length).shards());
        written.places.resize(wanted.max(written.places.len()), DiskId::NONE);
        Ok(written)
    }

    /// A small blob: packed, once on each disk. Gives the copies that are not there.
    async fn write_copies<B: Body<W::Buffer>>(
        &self,
        written: &WrittenBlob,
        origin: &Origin,
        mut encryptor: Option<Encryptor>,
        digests: &mut Digests<W>,
        body: &mut B,
    ) -> Result<ShardSet, PutError<B::Error>> {
        let WrittenBlob { blob, profile, ref places, .. } = *written;
        let payload = body.collect().await.map_err(PutError::Body)?;
        assert_eq!(payload.len() as u64, body.length(), "a body gives what it declared or an error");
        let mut payload = digests.payload_in_memory(body, payload).await.map_err(PutError::Body)?;
        let encrypt = |encryptor: &mut Encryptor| encryptor.encrypt(0, std::iter::once(&mut payload[..]));
        let encryption = encryptor.as_mut().map(encrypt).map(Rc::new);
        let payload = Rc::new(payload);
        let appends = places.iter().zip(0..).map(|(&disk, shard)| {
            let copy = SmallCopy { blob, profile, shard, payload: Rc::clone(&payload), encryption: encryption.clone() };
            async move { (shard, self.heeding(disk, self.store.append_small(disk, Some(origin), copy)).await) }
        });
        let mut shards = Shards::all(profile);
        join_all(appends).await.into_iter().for_each(|(shard, result)| shards.note(shard, result));
        shards.enough()?;
        Ok(shards.lost)
    }

    /// A stripe for each window, one write for each cell. Gives the shards that are not there wholly.
    async fn write_windows<B: Body<W::Buffer>>(
        &self,
        written: &WrittenBlob,
        origin: &Origin,
        mut encryptor: Option<Encryptor>,
        digests: &mut Digests<W>,
        body: &mut B,
    ) -> Result<ShardSet, PutError<B::Error>> {
        let WrittenBlob { profile, length, .. } = *written;
        let mut appends = Appends { in_flight: FuturesUnordered::new(), shards: Shards::all(profile) };
        let mut pace = Pace::Unknown;
        for window in 0..geometry::window_count(profile, length) {
            let stripe = Stripe::new(profile, geometry::window_length(profile, length, window));

            appends.room().await?;
            let received = self.receive_window(body, digests, stripe, &mut pace);
            let mut buffer = appends.alongside(received).await?;
            stripe.pad(&mut buffer);
            let encrypt = |encryptor: &mut Encryptor| encryptor.encrypt(window, stripe.data_cells(&mut buffer));
            let encryption = encryptor.as_mut().map(encrypt).map(Rc::new);
            stripe.encode(self.encoding, &mut buffer);

            let origin = (window == 0).then_some(origin);
            let lost = appends.shards.lost;
            appends.in_flight.push(self.append_stripe(written, origin, (window, stripe, encryption), buffer, lost));
        }
        appends.all().await
    }

    /// Writes the cells of a window to their disks, side by side, but for shards that are lost already.
    async fn append_stripe(
        &self,
        written: &WrittenBlob,
        origin: Option<&Origin>,
        (window, stripe, encryption): (u32, Stripe, Option<Rc<Encryption>>),
        buffer: W::Buffer,
        lost: ShardSet,
    ) -> Vec<(u8, AppendError)> {
        let cells = stripe.split(buffer).into_iter().zip(&written.places).zip(0..);
        let kept = cells.filter(|&(_, shard)| !lost.contains(shard));
        let appends = kept.map(|((buffer, &disk), shard)| {
            let WrittenBlob { blob, profile, .. } = *written;
            let (window_length, encryption) = (stripe.window_length(), encryption.clone());
            let cell = Cell { blob, profile, shard, window, window_length, encryption, buffer };
            async move { (shard, self.heeding(disk, self.store.append(disk, origin, cell)).await) }
        });
        let results = join_all(appends).await;
        results.into_iter().filter_map(|(shard, result)| Some((shard, result.err()?))).collect()
    }
}

/// Which shards of a write are there in all windows so far.
struct Shards {
    profile: Profile,
    lost: ShardSet,
    /// What happened to the first one.
    error: Option<AppendError>,
}

impl Shards {
    fn all(profile: Profile) -> Self {
        Self { profile, lost: ShardSet::default(), error: None }
    }

    fn note(&mut self, shard: u8, result: Result<(), AppendError>) {
        if let Err(error) = result {
            self.lost.insert(shard);
            self.error.get_or_insert(error);
        }
    }

    /// Fails when too few are left for anybody to be told of the blob.
    fn enough(&self) -> Result<(), AppendError> {
        let left = self.profile.shards() - self.lost.count();
        match self.error {
            Some(error) if left < placement::shards_needed(self.profile) => Err(error),
            _ => Ok(()),
        }
    }
}

/// The windows of one write on their way to the disks. They make progress whenever the write awaits anything through
/// [`Self::alongside`].
struct Appends<F> {
    in_flight: FuturesUnordered<F>,
    shards: Shards,
}

impl<F: Future<Output = Vec<(u8, AppendError)>>> Appends<F> {
    /// Runs `work` and the appends at once; ends with `work`.
    async fn alongside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            while let Poll::Ready(Some(failed)) = self.in_flight.poll_next_unpin(context) {
                self.note(failed);
            }
            work.as_mut().poll(context)
        })
        .await
    }

    /// Waits until another window may start; fails when too few shards are left.
    async fn room(&mut self) -> Result<(), AppendError> {
        while self.in_flight.len() >= WINDOWS_IN_FLIGHT {
            let failed = self.in_flight.next().await.expect("not empty");
            self.note(failed);
        }
        self.shards.enough()
    }

    /// Waits for all of them; gives the shards that are lost.
    async fn all<E>(&mut self) -> Result<ShardSet, PutError<E>> {
        while let Some(failed) = self.in_flight.next().await {
            self.note(failed);
        }
        self.shards.enough()?;
        Ok(self.shards.lost)
    }

    fn note(&mut self, failed: Vec<(u8, AppendError)>) {
        failed.into_iter().for_each(|(shard, error)| self.shards.note(shard, Err(error)));
    }
}

/// S3's name of an algorithm as the digest crate's.
pub(crate) fn digest_algorithm(algorithm: ChecksumAlgorithm) -> Algorithm {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Algorithm::Crc32,
        ChecksumAlgorithm::Crc32c => Algorithm::Crc32c,
        ChecksumAlgorithm::Crc64Nvme => Algorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1 => Algorithm::Sha1,
        ChecksumAlgorithm::Sha256 => Algorithm::Sha256,
    }
}

impl Expected {
    /// The algorithm that the client computes itself or wants computed.
    pub(crate) fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        self.checksum.as_ref().map(|checksum| checksum.algorithm).or(self.algorithm)
    }

    /// Compares what came with what was promised of it, in the header and behind the body.
    fn verify<E>(&self, written: &Written, trailer: &Trailer) -> Result<(), PutError<E>> {
        if self.md5.is_some_and(|md5| md5 != written.md5) {
            return Err(PutError::Md5Mismatch);
        }
        for promised in self.checksum.iter().chain(&trailer.checksum) {
            let same = promised.algorithm == written.checksum.algorithm && promised.value == written.checksum.value;
            if !same {
                return Err(PutError::ChecksumMismatch(promised.algorithm));
            }
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
