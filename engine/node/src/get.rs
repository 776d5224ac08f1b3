//! The story of a GET.

use std::ops::Range;

use anvil_model::io::World;
use anvil_model::object::{BucketName, Checksum, Etag, Headers, Key};
use anvil_model::time::WallTime;
use anvil_store::{Piece, ReadError};

use crate::metadata::MetadataError;
use crate::{Caller, Node};

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
}

/// The bytes of a range, in order, piece by piece.
pub struct Reader<W: World> {
    node: Node<W>,
}

impl<W: World> Node<W> {
    /// Finds the current version of a key.
    ///
    /// # Errors
    /// When there is none, or it may not be read.
    pub async fn open(&self, caller: Caller, bucket: BucketName, key: Key) -> Result<Found, MetadataError> {
        todo!()
    }

    /// Reads `range` (within `0..found.size`) of a version that was found.
    pub fn read(&self, found: &Found, range: Range<u64>) -> Reader<W> {
        todo!()
    }
}

impl<W: World> Reader<W> {
    /// The next piece, at most 1 MiB, verified; `None` after the last. Reads ahead by itself.
    ///
    /// # Errors
    /// When the bytes cannot be had; nothing follows.
    pub async fn next(&mut self) -> Option<Result<Piece<W::Buffer>, ReadError>> {
        todo!()
    }
}
