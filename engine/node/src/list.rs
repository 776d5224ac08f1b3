//! Listing a bucket: pages of keys and common prefixes in byte order.

use anvil_model::io::World;
use anvil_model::object::{BucketName, Checksum, Etag};
use anvil_model::time::WallTime;

use crate::metadata::MetadataError;
use crate::metadata::rows::StorageClass;
use crate::{Caller, Node};

/// Which page of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListObjects {
    /// Only keys that begin with these bytes.
    pub prefix: Vec<u8>,
    /// Keys that share the bytes up to this one's next occurrence behind the prefix are rolled up; empty for none.
    pub delimiter: Vec<u8>,
    /// Only keys and common prefixes after this position.
    pub after: After,
    /// Keys and common prefixes together, at most; 0 to `PAGE_KEYS_MAX`.
    pub max: usize,
}

/// A position in the order of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// Before everything.
    #[default]
    Start,
    /// Behind this key or string, which need not exist (`start-after`, `marker`). A common prefix equal to it, or
    /// that it begins with, is behind us too when the string is that prefix itself.
    Key(Vec<u8>),
}

/// A page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and common prefixes together in byte order.
    pub entries: Vec<Entry>,
    /// Where the next page begins, when there is more.
    pub next: Option<Vec<u8>>,
}

/// One line of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A key with its current version.
    Object {
        /// The key.
        key: String,
        /// Its tag.
        etag: Etag,
        /// Its checksum.
        checksum: Checksum,
        /// Its bytes.
        size: u64,
        /// When it was written.
        last_modified: WallTime,
        /// Under which class.
        storage_class: StorageClass,
    },
    /// Keys rolled up, with the delimiter at its end.
    CommonPrefix(Vec<u8>),
}

impl<W: World> Node<W> {
    /// One page of a bucket.
    ///
    /// # Errors
    /// When the bucket is not there or another tenant's.
    pub async fn list_objects(
        &self,
        caller: Caller,
        bucket: BucketName,
        list: ListObjects,
    ) -> Result<Page, MetadataError> {
        self.metadata.list(caller.path(bucket), list).await
    }
}
