//! Names of things: newtypes, so that two of them cannot be swapped.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            /// Takes exactly 32 lower-case hexadecimal digits, the form that `Display` writes.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let digits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if !digits {
                    return Err(InvalidId);
                }
                u128::from_str_radix(text, 16).map(Self).map_err(|_| InvalidId)
            }
        }
    };
}

/// The text is not an identifier of the expected form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier of 32 hexadecimal digits")]
pub struct InvalidId;

number! {
    /// A core of this process: 0 to the number of cores less one. Not a CPU number.
    CoreId(u16)
}
number! {
    /// Given to a node once, when it is first registered. The embedded node is 1.
    NodeId(u32)
}
number! {
    /// One life of a node, from start to stop; the metadata hands out the next higher one at each start, durably,
    /// before the first blob of that life is written.
    Incarnation(u32)
}
number! {
    /// The number that the metadata gives to a change of a key or a bucket. It only grows and never repeats.
    Generation(u64)
}
number! {
    /// A bucket, never reused: a bucket that is deleted and created again by the same name has another id.
    BucketId(u64)
}
number! {
    /// The owner of buckets.
    TenantId(u64)
}

/// A volume key: what encrypted data is decrypted with. Drawn at random with the key, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u64);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

random_id! {
    /// A disk, drawn at random when it is formatted and kept in its superblock.
    DiskId
}
random_id! {
    /// A multipart upload.
    UploadId
}
random_id! {
    /// One attempt to change metadata. A commit whose reply was lost is asked for by it.
    WriteId
}

/// A blob: immutable bytes. Never reused, because no two lives of a node share an incarnation.
///
/// The writer is readable from the id, so that a sweep can decide whether it still lives without a look-up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobId {
    /// The node that wrote it.
    pub node: NodeId,
    /// The life of that node.
    pub incarnation: Incarnation,
    /// Counts within that life.
    pub sequence: u64,
}

impl DiskId {
    /// No disk: the place of a shard that was not written, or is known to be lost or damaged. A disk never draws it.
    pub const NONE: Self = Self(0);
}

impl BlobId {
    /// The core that keeps this blob's index entries while the node runs with `core_count` cores.
    /// A core draws its sequence numbers so that its own blobs are at home on it.
    #[must_use]
    pub fn home(self, core_count: u16) -> CoreId {
        assert!(core_count > 0, "a node has at least one core");
        let core = self.sequence % u64::from(core_count);
        CoreId(u16::try_from(core).expect("smaller than core_count"))
    }

    /// The 16 bytes used on disk: node, incarnation, sequence, each little-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.node.0.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.incarnation.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, sequence @ ..] = bytes;
        Self {
            node: NodeId(u32::from_le_bytes([a, b, c, d])),
            incarnation: Incarnation(u32::from_le_bytes([e, f, g, h])),
            sequence: u64::from_le_bytes(sequence),
        }
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.node, self.incarnation, self.sequence)
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

/// One cell of a blob: what one record of it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellId {
    /// Of which blob.
    pub blob: BlobId,
    /// Of which shard, 0 to k+m-1.
    pub shard: u8,
    /// Of which window.
    pub window: u32,
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} of window {} of blob {}", self.shard, self.window, self.blob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_id_survives_its_disk_form() {
        let id = BlobId { node: NodeId(7), incarnation: Incarnation(9), sequence: u64::MAX - 1 };
        assert_eq!(BlobId::from_bytes(id.to_bytes()), id);
    }

    #[test]
    fn an_upload_id_is_read_only_in_the_form_it_is_written() {
        let id = UploadId(0xabc);
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "abc", "ABCDEF00000000000000000000000000", "+0000000000000000000000000000abc"] {
            assert_eq!(wrong.parse::<UploadId>(), Err(InvalidId), "{wrong}");
        }
    }
}
