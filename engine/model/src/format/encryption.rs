//! How a record's payload is encrypted: what its header says of it, and the keys as a disk keeps them.
//!
//! Nothing is encrypted here, and no key is ever plain here. A record is found, verified, moved and made again without its
//! key.

use std::fmt;

use super::fields::{Reader, Writer};
use crate::geometry::FRAMES_MAX;
use crate::ids::KeyId;

/// Bytes of a frame's tag (AES-GCM).
pub const TAG_BYTES: usize = 16;
/// Bytes of the salt of a blob's key.
pub const SALT_BYTES: usize = 16;
/// Keys that a disk can keep.
pub const KEYS_MAX: usize = 3;

const KEY_AND_SALT_BYTES: usize = 8 + SALT_BYTES;
/// In a header, at most.
pub(super) const ENCRYPTION_BYTES_MAX: usize = KEY_AND_SALT_BYTES + FRAMES_MAX * TAG_BYTES;
/// A key in a superblock.
const SLOT_BYTES: usize = 96;
/// All keys in a superblock.
pub(super) const KEY_RING_BYTES: usize = KEYS_MAX * SLOT_BYTES;

/// How the window is encrypted that a record is a cell of; the same in all records of the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// With which volume key.
    pub key: KeyId,
    /// Drawn for the blob: its key is made of the volume key, its id and this.
    pub salt: [u8; SALT_BYTES],
    /// Of all frames of the window's data cells, those of the first cell first; 1 to [`FRAMES_MAX`].
    pub tags: Vec<[u8; TAG_BYTES]>,
}

impl Encryption {
    /// What it takes in a header.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        encryption_bytes(self.tags.len())
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>) {
        assert!((1..=FRAMES_MAX).contains(&self.tags.len()), "{} frames in a window", self.tags.len());
        writer.u64(self.key.0).put(&self.salt);
        for tag in &self.tags {
            writer.put(tag);
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (key, salt) = (KeyId(reader.u64()?), reader.array()?);
        let mut tags = Vec::with_capacity(bytes.len() / TAG_BYTES);
        while let Some(tag) = reader.array() {
            tags.push(tag);
        }
        Some(Self { key, salt, tags })
    }
}

/// What so many tags take in a header, with all that goes with them.
pub(super) const fn encryption_bytes(frames: usize) -> usize {
    KEY_AND_SALT_BYTES + frames * TAG_BYTES
}

/// A volume key that only the operator's secret opens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which; not 0.
    pub id: KeyId,
    /// How often it was wrapped: of two wrappings of one key the later one counts.
    pub generation: u32,
    /// What the operator calls the secret, in UTF-8 with zeros behind it; all zeros when it has no name.
    pub secret_name: [u8; 16],
    /// Of AES-256-GCM.
    pub nonce: [u8; 12],
    /// The key, encrypted, and the tag behind it.
    pub wrapped: [u8; 32 + TAG_BYTES],
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey({} wrapped {} times)", self.id, self.generation)
    }
}

/// The volume keys of a node, by their ids: on every disk that holds something encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyRing {
    keys: [Option<WrappedKey>; KEYS_MAX],
}

/// A ring has no room for another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the disks keep {KEYS_MAX} encryption keys already")]
pub struct TooManyKeys;

impl KeyRing {
    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &WrappedKey> {
        self.keys.iter().flatten()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys().next().is_none()
    }

    /// Takes a key, unless this wrapping of it or a later one is there.
    ///
    /// # Errors
    /// When there is no room.
    pub fn insert(&mut self, key: WrappedKey) -> Result<(), TooManyKeys> {
        assert!(key.id.0 != 0, "no key has the number 0");
        let same = self.keys.iter().position(|slot| slot.is_some_and(|known| known.id == key.id));
        let at = same.or_else(|| self.keys.iter().position(Option::is_none)).ok_or(TooManyKeys)?;
        if self.keys[at].is_none_or(|known| known.generation < key.generation) {
            self.keys[at] = Some(key);
            self.keys.sort_unstable_by_key(|slot| slot.map_or(u64::MAX, |key| key.id.0));
        }
        Ok(())
    }

    pub(super) fn encode(&self, bytes: &mut [u8]) {
        for (slot, key) in bytes.chunks_exact_mut(SLOT_BYTES).zip(self.keys()) {
            let WrappedKey { id, generation, secret_name, nonce, wrapped } = key;
            Writer::new(slot).u64(id.0).u32(*generation).u32(0).put(secret_name).put(nonce).put(wrapped);
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut ring = Self::default();
        for slot in bytes.chunks_exact(SLOT_BYTES) {
            let mut reader = Reader::new(slot);
            let (id, generation) = (KeyId(reader.u64()?), reader.u32()?);
            reader.u32()?;
            if id.0 != 0 {
                let (secret_name, nonce, wrapped) = (reader.array()?, reader.array()?, reader.array()?);
                ring.insert(WrappedKey { id, generation, secret_name, nonce, wrapped }).ok()?;
            }
        }
        Some(ring)
    }
}

const _: () = assert!(8 + 4 + 4 + 16 + 12 + 32 + TAG_BYTES <= SLOT_BYTES, "a key fits its slot");
