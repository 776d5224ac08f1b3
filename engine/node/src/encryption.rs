//! Encryption at rest: the payload of a blob is encrypted before it is encoded, and decrypted when it is read for a client.
//!
//! A *volume key* encrypts nothing by itself: each blob has a key made of it (HKDF-SHA256 over the blob's id, a salt and its
//! profile). A *frame*, which is a checksum block of a data cell, is encrypted at once with AES-256-GCM; its nonce is its
//! window and its number there. So no two frames are encrypted under one key with one nonce: a blob is written once, window
//! after window, and what is moved, copied or made again is moved, copied and made as it is on disk, without a key.
//!
//! Volume keys are kept by the disks, wrapped with a secret that only the operator has; see `docs/adr/0007-encryption.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use anvil_model::format::{Encryption, KeyRing, SALT_BYTES, TAG_BYTES, TooManyKeys, WrappedKey};
use anvil_model::geometry;
use anvil_model::ids::{BlobId, KeyId};
use anvil_model::limits::CHECKSUM_BLOCK_BYTES;
use anvil_model::profile::Profile;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk};
use zeroize::Zeroizing;

/// Bytes of every key.
pub const KEY_BYTES: usize = 32;

/// What the operator wraps volume keys with.
#[derive(Clone)]
pub struct OperatorKey {
    name: String,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl OperatorKey {
    /// Names are written beside what they wrap, so that a person finds the right one; this many bytes at most.
    pub const NAME_BYTES_MAX: usize = 16;

    /// With this name, which may be empty.
    ///
    /// # Panics
    /// When the name is too long.
    #[must_use]
    pub fn new(name: &str, bytes: &[u8; KEY_BYTES]) -> Self {
        assert!(name.len() <= Self::NAME_BYTES_MAX, "a key's name of {} bytes", name.len());
        Self { name: name.to_owned(), bytes: Zeroizing::new(*bytes) }
    }

    /// Its name; may be empty.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A key made of it, for what `label` names and nothing else.
    #[must_use]
    pub fn derived(&self, label: &[u8]) -> [u8; KEY_BYTES] {
        let prk = Prk::new_less_safe(HKDF_SHA256, &*self.bytes);
        let mut key = [0; KEY_BYTES];
        let filled = prk.expand(&[label], HKDF_SHA256).and_then(|derived| derived.fill(&mut key));
        filled.expect("a key is short enough for HKDF");
        key
    }

    fn wrap(&self, id: KeyId, generation: u32, key: &VolumeKey, random: &mut impl FnMut(&mut [u8])) -> WrappedKey {
        let mut secret_name = [0; Self::NAME_BYTES_MAX];
        secret_name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce);
        let mut wrapped = [0; KEY_BYTES + TAG_BYTES];
        let (bytes, tag) = wrapped.split_at_mut(KEY_BYTES);
        bytes.copy_from_slice(&*key.0);
        let sealed =
            self.cipher().seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), wrapping_of(id), bytes);
        tag.copy_from_slice(sealed.expect("a key is short enough for AES-GCM").as_ref());
        WrappedKey { id, generation, secret_name, nonce, wrapped }
    }

    fn open(&self, key: &WrappedKey) -> Option<VolumeKey> {
        let mut wrapped = Zeroizing::new(key.wrapped);
        let nonce = Nonce::assume_unique_for_key(key.nonce);
        let opened = self.cipher().open_in_place(nonce, wrapping_of(key.id), &mut wrapped[..]).ok()?;
        Some(VolumeKey(Zeroizing::new(opened.try_into().expect("a key without its tag"))))
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*self.bytes).expect("it is as long as a key"))
    }
}

/// What a wrapped key is bound to.
fn wrapping_of(id: KeyId) -> Aad<[u8; 24]> {
    let mut bound = *b"anvil volume key........";
    bound[16..].copy_from_slice(&id.0.to_le_bytes());
    Aad::from(bound)
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorKey({:?}, hidden)", self.name)
    }
}

struct VolumeKey(Zeroizing<[u8; KEY_BYTES]>);

impl VolumeKey {
    /// What the frames of a blob are encrypted with.
    fn blob_key(&self, blob: BlobId, profile: Profile, salt: &[u8; SALT_BYTES]) -> LessSafeKey {
        let prk = Prk::new_less_safe(HKDF_SHA256, &*self.0);
        let (blob, profile) = (blob.to_bytes(), [profile.data, profile.parity]);
        let info: [&[u8]; 4] = [b"anvil blob", &blob, salt, &profile];
        let key = prk.expand(&info, &AES_256_GCM).expect("a key is short enough for HKDF");
        LessSafeKey::new(UnboundKey::from(key))
    }
}

/// The volume keys that a node can use. One for all cores.
#[derive(Default)]
pub struct Keys {
    volumes: BTreeMap<KeyId, VolumeKey>,
    /// What new blobs are encrypted with.
    encrypting: Option<KeyId>,
}

/// Why the keys of the disks cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// None of the operator's keys opens it.
    #[error("encryption key {key} of this node's disks was wrapped with another secret{}", named(.secret_name))]
    Wrapped {
        /// Which.
        key: KeyId,
        /// What the operator called the secret; may be empty.
        secret_name: String,
    },
    /// There is no room for a new one.
    #[error(transparent)]
    TooMany(#[from] TooManyKeys),
}

fn named(secret_name: &str) -> String {
    if secret_name.is_empty() { String::new() } else { format!(", which was called {secret_name:?}") }
}

impl Keys {
    /// Opens the keys of the disks with the operator's, of which the first one wraps: what another one opened is wrapped
    /// anew. Without any, nothing is opened, and what is encrypted cannot be read. When new blobs are to be encrypted
    /// and there is no key, one is drawn from `random`, which must be fit for keys. Gives the keys as the disks are to keep
    /// them from now on.
    ///
    /// # Errors
    /// When a key is not opened by any of the operator's.
    ///
    /// # Panics
    /// When new blobs are to be encrypted and the operator has no key.
    pub fn open(
        mut ring: KeyRing,
        operator: &[OperatorKey],
        encrypting: bool,
        mut random: impl FnMut(&mut [u8]),
    ) -> Result<(Self, KeyRing), KeysError> {
        let Some(first) = operator.first() else {
            assert!(!encrypting, "who encrypts has a secret");
            return Ok((Self::default(), ring));
        };
        let mut keys = Self::default();
        let kept = ring;
        for wrapped in kept.keys() {
            let opened = operator.iter().zip(0..).find_map(|(secret, at)| Some((secret.open(wrapped)?, at)));
            let Some((volume, at)) = opened else {
                let name = wrapped.secret_name.split(|&byte| byte == 0).next().unwrap_or_default();
                let secret_name = String::from_utf8_lossy(name).into_owned();
                return Err(KeysError::Wrapped { key: wrapped.id, secret_name });
            };
            if at > 0 {
                ring.insert(first.wrap(wrapped.id, wrapped.generation.saturating_add(1), &volume, &mut random))?;
            }
            keys.volumes.insert(wrapped.id, volume);
        }
        if encrypting && keys.volumes.is_empty() {
            let mut id = [0; 8];
            let mut bytes = Zeroizing::new([0; KEY_BYTES]);
            random(&mut id);
            random(&mut *bytes);
            // 0 says that there is none.
            let (id, volume) = (KeyId(u64::from_le_bytes(id).max(1)), VolumeKey(bytes));
            ring.insert(first.wrap(id, 1, &volume, &mut random))?;
            keys.volumes.insert(id, volume);
        }
        keys.encrypting = keys.volumes.keys().next().copied().filter(|_| encrypting);
        Ok((keys, ring))
    }

    /// Whether new blobs are encrypted.
    #[must_use]
    pub fn encrypts(&self) -> bool {
        self.encrypting.is_some()
    }

    /// For a new blob that is spread like this, once; `None` when new blobs are not encrypted.
    pub(crate) fn encryptor(&self, blob: BlobId, profile: Profile, random: impl Fn() -> u64) -> Option<Encryptor> {
        let id = self.encrypting?;
        let mut salt = [0; SALT_BYTES];
        salt.chunks_exact_mut(8).for_each(|half| half.copy_from_slice(&random().to_le_bytes()));
        let key = self.volumes[&id].blob_key(blob, profile, &salt);
        Some(Encryptor { id, salt, key, next_window: 0 })
    }

    /// For a blob that is spread anew, of which what is there was encrypted like this; `None` when the key is not here. The salt is
    /// the same, so that whoever begins again writes the same bytes; the profile makes the key another one.
    pub(crate) fn encryptor_anew(&self, blob: BlobId, profile: Profile, encryption: &Encryption) -> Option<Encryptor> {
        let Encryption { key: id, salt, .. } = *encryption;
        let key = self.volumes.get(&id)?.blob_key(blob, profile, &salt);
        Some(Encryptor { id, salt, key, next_window: 0 })
    }

    /// For what was encrypted like this; `None` when the key is not here.
    pub(crate) fn decryptor(&self, blob: BlobId, profile: Profile, encryption: &Encryption) -> Option<Decryptor> {
        let key = self.volumes.get(&encryption.key)?.blob_key(blob, profile, &encryption.salt);
        Some(Decryptor { key, encryption: encryption.clone() })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("ids", &self.volumes.keys()).field("encrypting", &self.encrypting).finish()
    }
}

/// Encrypts the windows of one blob, each once and in their order.
pub(crate) struct Encryptor {
    id: KeyId,
    salt: [u8; SALT_BYTES],
    key: LessSafeKey,
    next_window: u32,
}

impl Encryptor {
    /// Encrypts the data cells of a window, in their order and padded.
    ///
    /// # Panics
    /// When it is not the next window.
    pub(crate) fn encrypt<'a>(&mut self, window: u32, cells: impl Iterator<Item = &'a mut [u8]>) -> Encryption {
        assert_eq!(window, self.next_window, "no frame is encrypted twice under one key");
        self.next_window += 1;
        let mut tags = Vec::new();
        for frame in cells.flat_map(|cell| cell.chunks_mut(CHECKSUM_BLOCK_BYTES)) {
            let nonce = nonce(window, tags.len());
            let tag = self.key.seal_in_place_separate_tag(nonce, Aad::empty(), frame);
            let tag = tag.expect("a frame is short enough for AES-GCM");
            tags.push(tag.as_ref().try_into().expect("a tag of AES-GCM"));
        }
        Encryption { key: self.id, salt: self.salt, tags }
    }
}

/// Decrypts frames of one window.
pub(crate) struct Decryptor {
    key: LessSafeKey,
    encryption: Encryption,
}

/// The bytes are not those that were encrypted there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

impl Decryptor {
    /// Whether it is for what was encrypted like this.
    pub(crate) fn is_for(&self, encryption: &Encryption) -> bool {
        self.encryption == *encryption
    }

    /// Decrypts whole frames: `bytes` are these columns of a data cell of `cell_bytes`. What they are is not known when one of
    /// them fails.
    ///
    /// # Panics
    /// When the columns do not begin and end where frames do.
    pub(crate) fn decrypt(
        &self,
        window: u32,
        cell: u8,
        cell_bytes: usize,
        columns: &Range<usize>,
        bytes: &mut [u8],
    ) -> Result<(), NotAuthentic> {
        assert!(columns.start.is_multiple_of(CHECKSUM_BLOCK_BYTES) && columns.len() == bytes.len());
        assert!(columns.end.is_multiple_of(CHECKSUM_BLOCK_BYTES) || columns.end == cell_bytes);
        let first = usize::from(cell) * geometry::frames_per_cell(cell_bytes) + columns.start / CHECKSUM_BLOCK_BYTES;
        for (number, frame) in (first..).zip(bytes.chunks_mut(CHECKSUM_BLOCK_BYTES)) {
            let tag = Tag::from(*self.encryption.tags.get(number).ok_or(NotAuthentic)?);
            let opened = self.key.open_in_place_separate_tag(nonce(window, number), Aad::empty(), tag, frame, 0..);
            opened.map_err(|_| NotAuthentic)?;
        }
        Ok(())
    }
}

/// Of a frame of a blob. Never used twice, because [`Encryptor`] takes each window once.
fn nonce(window: u32, frame: usize) -> Nonce {
    let frame = u32::try_from(frame).expect("a window has few frames");
    let mut nonce = [0; NONCE_LEN];
    nonce[..4].copy_from_slice(&window.to_le_bytes());
    nonce[4..8].copy_from_slice(&frame.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// These columns of a cell, and what else is in the frames that they touch.
pub(crate) fn in_frames(columns: &Range<usize>, cell_bytes: usize) -> Range<usize> {
    let start = columns.start / CHECKSUM_BLOCK_BYTES * CHECKSUM_BLOCK_BYTES;
    start..columns.end.next_multiple_of(CHECKSUM_BLOCK_BYTES).min(cell_bytes)
}

#[cfg(test)]
mod tests;
