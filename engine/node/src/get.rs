//! The story of a GET.

use std::collections::VecDeque;
use std::ops::Range;

use anvil_model::ids::{BlobId, BucketId, Generation};
use anvil_model::io::World;
use anvil_model::limits::{CHECKSUM_BLOCK_BYTES, RECORD_PAYLOAD_BYTES_MAX};
use anvil_model::object::{BucketName, Checksum, Etag, Headers, Key};
use anvil_model::time::WallTime;
use anvil_store::{Piece, ReadError};
use tokio::sync::oneshot;

use crate::metadata::MetadataError;
use crate::metadata::mutation::BucketRef;
use crate::metadata::query::{FoundObject, FoundPart, FoundParts, ReadFrom};
use crate::metadata::rows::{Content, SegmentRow, StorageClass};
use crate::{Caller, Node};

/// Pieces that are read while an earlier one is sent. With the one that is sent they are all that a GET holds, and it
/// holds them only for a client that takes them at once.
const PIECES_AHEAD: usize = 1;

/// An object's current version, found.
#[derive(Clone, Debug)]
pub struct Found {
    /// What the client said of it.
    pub headers: Headers,
    /// The entity tag.
    pub etag: Etag,
    /// The checksum that is kept.
    pub checksum: Checksum,
    /// Bytes.
    pub size: u64,
    /// When it was written.
    pub last_modified: WallTime,
    /// Parts, when it was uploaded in parts.
    pub parts: Option<u16>,
    /// Under which class.
    pub storage_class: StorageClass,
    /// The part that was asked for by [`ReadFrom::Part`], if the version has it.
    pub part: Option<FoundPart>,
    /// Of all bytes.
    pub(crate) crc64nvme: u64,
    bucket: BucketRef,
    version: Generation,
    /// In order; those of a version in parts are the first ones that the read was said to want.
    segments: Vec<SegmentRow>,
}

/// The bytes of a range, in order, piece by piece.
pub struct Reader<W: World> {
    node: Node<W>,
    bucket: BucketId,
    version: Generation,
    /// Known and not read through; the first one ends behind `position`.
    segments: VecDeque<SegmentRow>,
    /// Where the next piece to be asked for begins.
    position: u64,
    end: u64,
    /// Asked for, in order.
    ahead: VecDeque<Ahead<W>>,
    /// Where the piece that is given next begins.
    given: u64,
    /// Pieces are small, and none is read before it is asked for.
    slow: bool,
}

/// Why a reader ends before the range does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The bytes cannot be had.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Where the next bytes are cannot be had.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The version was deleted while it was read.
    #[error("the version is gone")]
    Gone,
}

/// A piece on its way. Dropping it cancels the read.
struct Ahead<W: World> {
    /// Where in the version it begins.
    begin: u64,
    piece: oneshot::Receiver<Result<Piece<W::Buffer>, ReadError>>,
    _task: W::Task,
}

/// Where a piece is.
struct Place {
    blob: BlobId,
    range: Range<u64>,
}

impl<W: World> Node<W> {
    /// Finds the current version of a key. `read_from` says where a read will begin, so that one look-up suffices.
    ///
    /// # Errors
    /// When there is none, or it may not be read.
    pub async fn open(
        &self,
        caller: Caller,
        bucket: BucketName,
        key: Key,
        read_from: Option<ReadFrom>,
    ) -> Result<Found, MetadataError> {
        let found = self.metadata.object(caller.path(bucket), key, read_from).await?;
        Ok(Found::from(*found))
    }

    /// Finds the current version of a key and a page of the parts that it was made of: those above number `after`, at
    /// most `max`.
    ///
    /// # Errors
    /// When there is none, or it may not be read.
    pub async fn object_parts(
        &self,
        caller: Caller,
        bucket: BucketName,
        key: Key,
        after: u16,
        max: usize,
    ) -> Result<FoundParts, MetadataError> {
        self.metadata.object_parts(caller.path(bucket), key, after, max).await.map(|found| *found)
    }

    /// Reads `range` (within `0..found.size`) of a version that was found.
    ///
    /// # Panics
    /// When the range is not within the version.
    #[must_use]
    pub fn read(&self, found: &Found, range: Range<u64>) -> Reader<W> {
        assert!(range.start <= range.end && range.end <= found.size, "the range lies in the version");
        Reader {
            node: self.clone(),
            bucket: found.bucket.id,
            version: found.version,
            segments: found.segments.clone().into(),
            position: range.start,
            end: range.end,
            ahead: VecDeque::with_capacity(PIECES_AHEAD + 1),
            given: range.start,
            slow: false,
        }
    }
}

impl Found {
    /// Its bucket as a change names it.
    pub(crate) fn bucket_ref(&self) -> BucketRef {
        self.bucket
    }

    /// Names the version within its bucket.
    pub(crate) fn version(&self) -> Generation {
        self.version
    }

    /// Whether both are one version.
    pub(crate) fn is_same_version(&self, other: &Self) -> bool {
        (self.bucket.id, self.version) == (other.bucket.id, other.version)
    }
}

impl From<FoundObject> for Found {
    fn from(found: FoundObject) -> Self {
        let version = found.version;
        let segments = match version.content {
            Content::Empty => Vec::new(),
            Content::Single(slice) => vec![SegmentRow { start: 0, slice: Some(slice), part: None }],
            Content::Segments => found.segments,
        };
        Self {
            headers: version.headers,
            etag: version.etag,
            checksum: version.checksum,
            size: version.size,
            last_modified: version.last_modified,
            parts: version.parts,
            storage_class: version.storage_class,
            part: found.part,
            crc64nvme: version.crc64nvme,
            bucket: found.bucket,
            version: version.generation,
            segments,
        }
    }
}

impl<W: World> Reader<W> {
    /// The next piece, at most 1 MiB, verified; `None` after the last. Reads ahead by itself.
    ///
    /// # Errors
    /// When the bytes cannot be had; nothing follows.
    pub async fn next(&mut self) -> Option<Result<Piece<W::Buffer>, StreamError>> {
        let piece = self.next_piece().await;
        match &piece {
            Some(Ok(piece)) => self.given += piece.range.len() as u64,
            Some(Err(_)) => {
                self.position = self.end;
                self.ahead.clear();
            }
            None => {}
        }
        piece
    }

    /// Gives back what was read ahead, which [`Self::next`] will read again: whoever wants the pieces takes its time, and
    /// others want the memory.
    pub fn rest(&mut self) {
        if let Some(first) = self.ahead.front() {
            self.position = first.begin;
            self.ahead.clear();
        }
    }

    /// Goes on for a client that takes its bytes slowly: gives back the last `untaken` bytes, which come again, and
    /// from now on reads pieces of at most [`SLOW_PIECE_BYTES`] and none ahead, so that the caller can copy them and
    /// hold no buffer of the pool while it waits for the client.
    ///
    /// # Panics
    /// When more is given back than was given.
    pub fn slow_down(&mut self, untaken: u64) {
        assert!(untaken <= self.given, "only what was given comes back");
        self.given -= untaken;
        self.position = self.given;
        self.ahead.clear();
        self.slow = true;
    }

    /// The client takes its bytes as fast as they come again.
    pub fn speed_up(&mut self) {
        self.slow = false;
    }

    async fn next_piece(&mut self) -> Option<Result<Piece<W::Buffer>, StreamError>> {
        while self.ahead.len() <= PIECES_AHEAD && self.position < self.end {
            let place = match self.place().await {
                Ok(place) => place,
                Err(error) => return Some(Err(error)),
            };
            let begin = self.position;
            self.position += place.range.end - place.range.start;
            let last_of_all = self.position == self.end && self.ahead.is_empty();
            if last_of_all || self.slow {
                return Some(self.node.store.read(place.blob, place.range).await.map_err(StreamError::Read));
            }
            let ahead = self.read_ahead(begin, place);
            self.ahead.push_back(ahead);
        }
        let piece = self.ahead.pop_front()?.piece.await;
        Some(piece.unwrap_or(Err(ReadError::Closing)).map_err(StreamError::Read))
    }

    fn read_ahead(&self, begin: u64, place: Place) -> Ahead<W> {
        let (reply, piece) = oneshot::channel();
        let store = self.node.store.clone();
        let task = self.node.world.spawn(async move {
            // The reader may be gone; then nobody wants the piece.
            let _ = reply.send(store.read(place.blob, place.range).await);
        });
        Ahead { begin, piece, _task: task }
    }

    /// Where the piece at `position` is: it ends with its record, its segment or the range, whichever is nearest.
    async fn place(&mut self) -> Result<Place, StreamError> {
        let segment = self.segment().await?;
        let slice = segment.slice.expect("a segment that holds a byte has a slice");
        let in_slice = self.position - segment.start;
        let begin = slice.offset + in_slice;
        let record_end = (begin / RECORD + 1) * RECORD;
        let mut length = (slice.length - in_slice).min(record_end - begin).min(self.end - self.position);
        if self.slow {
            length = length.min(SLOW_PIECE_BYTES - begin % SLOW_PIECE_BYTES);
        }
        Ok(Place { blob: slice.blob, range: begin..begin + length })
    }

    /// The segment that holds the byte at `position`.
    async fn segment(&mut self) -> Result<SegmentRow, StreamError> {
        loop {
            while self.segments.front().is_some_and(|segment| segment_end(segment) <= self.position) {
                self.segments.pop_front();
            }
            match self.segments.front() {
                Some(segment) if segment.start <= self.position => return Ok(segment.clone()),
                _ => self.fetch_segments().await?,
            }
        }
    }

    async fn fetch_segments(&mut self) -> Result<(), StreamError> {
        let range = self.position..self.end;
        self.segments = self.node.metadata.segments(self.bucket, self.version, range).await?.into();
        let holds = |segment: &SegmentRow| segment.start <= self.position && self.position < segment_end(segment);
        if self.segments.iter().any(holds) { Ok(()) } else { Err(StreamError::Gone) }
    }
}

/// A piece for a slow client, at most. Ends where a checksum's block ends, so that no byte is read twice for it.
pub const SLOW_PIECE_BYTES: u64 = CHECKSUM_BLOCK_BYTES as u64;
const RECORD: u64 = RECORD_PAYLOAD_BYTES_MAX as u64;

fn segment_end(segment: &SegmentRow) -> u64 {
    segment.start + segment.slice.map_or(0, |slice| slice.length)
}
