//! The payload of a write on its way to disk: received, digested while it is in cache, appended.
//!
//! Shared by PUT and UploadPart. Nothing here becomes visible: it ends with bytes on a disk, not yet durable, and
//! what they are.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use anvil_digest::Algorithm;
use anvil_model::geometry;
use anvil_model::ids::{BlobId, DiskId};
use anvil_model::io::World;
use anvil_model::limits::{RECORD_HEADER_BYTES_MAX, RECORD_PAYLOAD_BYTES_MAX, SMALL_BLOB_BYTES_MAX};
use anvil_model::object::{Checksum, ChecksumAlgorithm, Etag};
use anvil_model::profile::Profile;
use anvil_store::{AppendError, Cell, Origin, SmallCopy};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::Node;
use crate::abandoned::Unclaimed;
use crate::body::{Body, Trailer};
use crate::digests::{Digested, Digests};
use crate::gather::Pace;
use crate::metadata::mutation::BlobClaim;
use crate::put::{Expected, PutError, Stored};

/// Windows of one write between the socket and the disk. Two keep both busy; more only hold memory.
const WINDOWS_IN_FLIGHT: usize = 3;

/// A blob that was written: where, and how long it is.
#[derive(Debug)]
pub(crate) struct WrittenBlob {
    pub(crate) blob: BlobId,
    pub(crate) disk: DiskId,
    pub(crate) length: u64,
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
            profile: Profile::SINGLE,
            length: written.length,
            places: vec![written.disk],
        })
    }

    /// What is to be given to [`Node::commit_claim`].
    pub(crate) fn unclaimed(self) -> Option<Unclaimed> {
        self.blob.map(|written| written.unclaimed)
    }
}

impl<W: World> Node<W> {
    /// Writes the whole payload of `body`, then verifies it.
    pub(crate) async fn write_payload<B: Body<W::Buffer>>(
        &self,
        origin: &Origin,
        expected: &Expected,
        body: &mut B,
    ) -> Result<Written, PutError<B::Error>> {
        let size = body.length();
        let mut digests = self.digesting.begin(expected.algorithm(), size);
        let blob = match usize::try_from(size) {
            Ok(0) => Ok(None),
            Ok(length) if length <= SMALL_BLOB_BYTES_MAX => {
                self.write_small(origin, &mut digests, body).await.map(Some)
            }
            _ => self.write_windows(origin, &mut digests, body).await.map(Some),
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

    async fn write_small<B: Body<W::Buffer>>(
        &self,
        origin: &Origin,
        digests: &mut Digests<W>,
        body: &mut B,
    ) -> Result<WrittenBlob, PutError<B::Error>> {
        let payload = body.collect().await.map_err(PutError::Body)?;
        assert_eq!(payload.len() as u64, body.length(), "a body gives what it declared or an error");
        let payload = digests.payload_in_memory(body, payload).await.map_err(PutError::Body)?;
        let written = self.new_blob(body.length());
        let payload = Rc::new(payload);
        let copy = SmallCopy { blob: written.blob, profile: Profile::SINGLE, shard: 0, payload };
        self.store.append_small(written.disk, origin, copy).await?;
        Ok(written)
    }

    async fn write_windows<B: Body<W::Buffer>>(
        &self,
        origin: &Origin,
        digests: &mut Digests<W>,
        body: &mut B,
    ) -> Result<WrittenBlob, PutError<B::Error>> {
        let written = self.new_blob(body.length());
        let mut appends = Appends { in_flight: FuturesUnordered::new(), failed: None };
        let mut pace = Pace::Unknown;
        let mut offset = 0;
        while offset < written.length {
            let length = window_length(written.length - offset);
            let payload = RECORD_HEADER_BYTES_MAX..RECORD_HEADER_BYTES_MAX + length;

            appends.room().await?;
            let buffer = appends.alongside(self.receive_window(body, length, &mut pace)).await?;
            let digested = appends.alongside(digests.payload_in_buffer(body, buffer, vec![payload])).await;
            let buffer = digested.map_err(PutError::Body)?;

            let window = geometry::window_at(Profile::SINGLE, offset);
            let cell =
                Cell { blob: written.blob, profile: Profile::SINGLE, shard: 0, window, window_length: length, buffer };
            let origin = (offset == 0).then_some(origin);
            appends.in_flight.push(self.store.append(written.disk, origin, cell));
            offset += length as u64;
        }
        appends.all().await?;
        Ok(written)
    }

    fn new_blob(&self, length: u64) -> WrittenBlob {
        let blob = self.store.new_blob();
        WrittenBlob { blob, disk: self.store.place(), length, unclaimed: Unclaimed::new(blob, &self.abandoned) }
    }
}

fn window_length(remaining: u64) -> usize {
    usize::try_from(remaining).unwrap_or(usize::MAX).min(RECORD_PAYLOAD_BYTES_MAX)
}

/// The appends of one write. They make progress whenever the write awaits anything through [`Self::alongside`].
struct Appends<F> {
    in_flight: FuturesUnordered<F>,
    failed: Option<AppendError>,
}

impl<F: Future<Output = Result<(), AppendError>>> Appends<F> {
    /// Runs `work` and the appends at once; ends with `work`.
    async fn alongside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            while let Poll::Ready(Some(result)) = self.in_flight.poll_next_unpin(context) {
                self.note(result);
            }
            work.as_mut().poll(context)
        })
        .await
    }

    /// Waits until another append may start; fails when one of them did.
    async fn room(&mut self) -> Result<(), AppendError> {
        while self.in_flight.len() >= WINDOWS_IN_FLIGHT {
            let result = self.in_flight.next().await.expect("not empty");
            self.note(result);
        }
        self.failed.map_or(Ok(()), Err)
    }

    /// Waits for all of them.
    async fn all(&mut self) -> Result<(), AppendError> {
        while let Some(result) = self.in_flight.next().await {
            self.note(result);
        }
        self.failed.map_or(Ok(()), Err)
    }

    fn note(&mut self, result: Result<(), AppendError>) {
        if let Err(error) = result {
            self.failed.get_or_insert(error);
        }
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
