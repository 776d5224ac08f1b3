//! The story of a GET.

use std::collections::VecDeque;
use std::ops::Range;

use anvil_model::geometry;
use anvil_model::ids::{BucketId, Generation, KeyId};
use anvil_model::io::World;
use anvil_model::limits::CHECKSUM_BLOCK_BYTES;
use anvil_model::object::{BucketName, Checksum, Etag, Headers, Key};
use anvil_model::time::WallTime;
use anvil_store::{Located, Piece, ReadError};
use tokio::sync::oneshot;

use crate::metadata::MetadataError;
use crate::metadata::mutation::BucketRef;
use crate::metadata::query::{FoundObject, FoundPart, FoundParts, ReadFrom};
use crate::metadata::rows::{Content, SegmentRow, StorageClass};
use crate::{Caller, Node};

/// Windows that are read while an earlier one is sent. With the one that is sent they are all that a GET holds, a buffer
/// each, and it holds them only for a client that takes them at once.
const WINDOWS_AHEAD: usize = 1;

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

impl Found {
    /// The bucket that it was found in.
    #[must_use]
    pub fn bucket(&self) -> BucketId {
        self.bucket.id
    }
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
    /// Of the window before those, in order.
    here: VecDeque<Piece<W::Buffer>>,
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
    /// The bytes are encrypted, and the node was started without the secret that opens their key.
    #[error("the bytes are encrypted with key {0}, and this node was started without the secret that opens it")]
    NoKey(KeyId),
    /// The version was deleted while it was read.
    #[error("the version is gone")]
    Gone,
}

/// The pieces of a window, in order.
type Pieces<W> = VecDeque<Piece<<W as World>::Buffer>>;

/// A window on its way. Dropping it cancels the read.
struct Ahead<W: World> {
    pieces: oneshot::Receiver<Result<Pieces<W>, StreamError>>,
    _task: W::Task,
}

/// Bytes of a window.
struct Place {
    located: Located,
    range: Range<usize>,
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
            ahead: VecDeque::with_capacity(WINDOWS_AHEAD + 1),
            here: VecDeque::new(),
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

    /// Names the version within its bucket; each version of a key has a larger one than those before it.
    #[must_use]
    pub fn version(&self) -> Generation {
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
    /// The next piece, at most 1 MiB, verified; `None` after the last. A piece is a cell, or what is wanted of it; the pieces
    /// of one window share a buffer. Reads ahead by itself.
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
                self.here.clear();
            }
            None => {}
        }
        piece
    }

    /// Gives back what was read ahead, which [`Self::next`] will read again: whoever wants the pieces takes its time, and
    /// others want the memory.
    pub fn rest(&mut self) {
        self.position = self.given;
        self.ahead.clear();
        self.here.clear();
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
        self.rest();
        self.slow = true;
    }

    /// The client takes its bytes as fast as they come again.
    pub fn speed_up(&mut self) {
        self.slow = false;
    }

    async fn next_piece(&mut self) -> Option<Result<Piece<W::Buffer>, StreamError>> {
        loop {
            if let Err(error) = self.fill().await {
                return Some(Err(error));
            }
            if let Some(piece) = self.here.pop_front() {
                return Some(Ok(piece));
            }
            match self.ahead.pop_front()?.pieces.await.unwrap_or(Err(ReadError::Closing.into())) {
                Ok(pieces) => self.here = pieces,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Asks for what may be read ahead; reads at once what nothing is to be read behind.
    async fn fill(&mut self) -> Result<(), StreamError> {
        let most = if self.here.is_empty() { WINDOWS_AHEAD + 1 } else { WINDOWS_AHEAD };
        while self.ahead.len() < most && self.position < self.end {
            let nothing_before = self.ahead.is_empty() && self.here.is_empty();
            if self.slow && !nothing_before {
                return Ok(());
            }
            let Place { located, range } = self.place().await?;
            self.position += range.len() as u64;
            if nothing_before && (self.slow || self.position == self.end) {
                self.here = self.node.read_window(&located, range).await?;
                return Ok(());
            }
            self.ahead.push_back(self.read_ahead(located, range));
        }
        Ok(())
    }

    fn read_ahead(&self, located: Located, range: Range<usize>) -> Ahead<W> {
        let (reply, pieces) = oneshot::channel();
        let node = self.node.clone();
        let task = self.node.world.spawn(async move {
            // The reader may be gone; then nobody wants the pieces.
            let _ = reply.send(node.read_window(&located, range).await);
        });
        Ahead { pieces, _task: task }
    }

    /// Where the bytes at `position` are: they end with their window, their segment or the range, whichever is nearest.
    async fn place(&mut self) -> Result<Place, StreamError> {
        let segment = self.segment().await?;
        let slice = segment.slice.expect("a segment that holds a byte has a slice");
        let in_slice = self.position - segment.start;
        let begin = slice.offset + in_slice;
        let located = self.node.store.locate(slice.blob, begin).await.map_err(ReadError::from)?;
        let located = located.ok_or(ReadError::Missing(slice.blob))?;
        let wanted = (slice.length - in_slice).min(self.end - self.position);
        let in_window = begin - geometry::window_start(located.profile, located.window);
        let in_window = usize::try_from(in_window).expect("within a window");
        let cell_bytes = located.cells[0].bytes;
        let held_bytes = cell_bytes * usize::from(located.profile.data);
        if in_window >= held_bytes {
            return Err(ReadError::Missing(slice.blob).into());
        }
        let mut end = held_bytes.min(in_window + usize::try_from(wanted).unwrap_or(held_bytes));
        if self.slow {
            let column = in_window % cell_bytes;
            let block_end = (column / SLOW_PIECE_BYTES as usize + 1) * SLOW_PIECE_BYTES as usize;
            end = end.min(in_window - column + block_end.min(cell_bytes));
        }
        Ok(Place { located, range: in_window..end })
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

fn segment_end(segment: &SegmentRow) -> u64 {
    segment.start + segment.slice.map_or(0, |slice| slice.length)
}
