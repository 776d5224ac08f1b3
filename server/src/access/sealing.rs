//! Secrets of apps as they are kept: sealed with a key that is not where they are.
//!
//! An envelope is one byte that says its form, the length of the key's name in one byte, the name, the nonce, and the secret
//! encrypted with AES-256-GCM, its tag behind it. It is bound to the client id, so that none passes for another's.

use std::fmt;

use anvil_node::encryption::OperatorKey;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use crate::auth::Secret;
use crate::data_dir::{DataDir, DataDirError, FILE_VERSION};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
const FORM: u8 = 1;
const NAME_BYTES_MAX: usize = 64;
const LABEL: &str = "anvil app secret ";

/// A key with the name that stands in what it sealed.
#[derive(Clone)]
pub struct SealingKey {
    name: String,
    key: LessSafeKey,
}

impl SealingKey {
    /// With this name, which may be empty.
    ///
    /// # Panics
    /// When the name is too long.
    #[must_use]
    pub fn new(name: &str, bytes: &[u8; KEY_BYTES]) -> Self {
        assert!(name.len() <= NAME_BYTES_MAX, "a key's name of {} bytes", name.len());
        let key = UnboundKey::new(&AES_256_GCM, bytes).expect("it is as long as a key");
        Self { name: name.to_owned(), key: LessSafeKey::new(key) }
    }

    /// The one that is made of an operator's key, with its name.
    #[must_use]
    pub fn of_operator(operator: &OperatorKey) -> Self {
        Self::new(operator.name(), &operator.derived(b"anvil secrets of apps"))
    }

    /// The one that a node keeps in its data directory, for operators who gave it none; drawn at its first use.
    ///
    /// # Errors
    /// When the data directory cannot be read or written.
    pub fn of_node(data: &DataDir) -> Result<Self, DataDirError> {
        let damaged = || DataDirError::Damaged { path: data.path().join(FILE), what: "it holds no key".to_owned() };
        let mut bytes = [0; KEY_BYTES];
        match data.read::<Kept>(FILE)? {
            Some(kept) => hex::decode_to_slice(&kept.key, &mut bytes).map_err(|_| damaged())?,
            None => {
                getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
                data.write(FILE, &Kept { version: FILE_VERSION, key: hex::encode(bytes) })?;
            }
        }
        Ok(Self::new(NODE_KEY, &bytes))
    }
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    key: String,
}

/// The file of the data directory.
const FILE: &str = "sealing.json";
/// No operator's key has this name.
const NODE_KEY: &str = "of this node";

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({:?}, hidden)", self.name)
    }
}

/// Seals secrets and opens them.
#[derive(Debug, Default)]
pub struct Sealer {
    /// The first one seals; each opens what it sealed.
    keys: Vec<SealingKey>,
}

/// There is no key to seal with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("secrets of apps are sealed with ANVIL_SECRET_ENCRYPTION_KEY, and this node was started without it")]
pub struct NoKey;

impl Sealer {
    /// With these keys, of which the first one seals.
    #[must_use]
    pub fn new(keys: Vec<SealingKey>) -> Self {
        Self { keys }
    }

    /// The name of the key that seals.
    ///
    /// # Errors
    /// When there is no key.
    pub fn name(&self) -> Result<&str, NoKey> {
        Ok(&self.keys.first().ok_or(NoKey)?.name)
    }

    /// Whether an envelope names the key that seals.
    #[must_use]
    pub fn is_current(&self, envelope: &[u8]) -> bool {
        let [FORM, name_length, rest @ ..] = envelope else { return false };
        self.keys.first().is_some_and(|key| rest.get(..(*name_length).into()) == Some(key.name.as_bytes()))
    }

    /// Seals the secret of an app.
    ///
    /// # Errors
    /// When there is no key.
    pub fn seal(&self, client_id: &str, secret: &Secret) -> Result<Vec<u8>, NoKey> {
        let SealingKey { name, key } = self.keys.first().ok_or(NoKey)?;
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).expect("the kernel gives random bytes");
        let mut sealed = secret.expose().as_bytes().to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound_to(client_id), &mut sealed)
            .expect("a secret is short enough for AES-GCM");
        let name_length = u8::try_from(name.len()).expect("names are short");
        let mut envelope = vec![FORM, name_length];
        envelope.extend_from_slice(name.as_bytes());
        envelope.extend_from_slice(&nonce);
        envelope.append(&mut sealed);
        Ok(envelope)
    }

    /// The secret of an app; `None` when no key opens it, or it was sealed for another.
    #[must_use]
    pub fn open(&self, client_id: &str, envelope: &[u8]) -> Option<Secret> {
        let [FORM, name_length, rest @ ..] = envelope else { return None };
        let (name, rest) = rest.split_at_checked((*name_length).into())?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let mut named = self.keys.iter().filter(|key| key.name.as_bytes() == name);
        named.find_map(|SealingKey { key, .. }| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut sealed = sealed.to_vec();
            let opened = key.open_in_place(nonce, bound_to(client_id), &mut sealed).ok()?;
            Secret::new(std::str::from_utf8(opened).ok()?).ok()
        })
    }
}

fn bound_to(client_id: &str) -> Aad<Vec<u8>> {
    Aad::from(format!("{LABEL}{client_id}").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new("the-secret-of-an-app").unwrap()
    }

    #[test]
    fn a_secret_is_opened_by_its_key_for_its_app() {
        let old = || SealingKey::new("2025", &[1; KEY_BYTES]);
        let new = || SealingKey::new("2026", &[2; KEY_BYTES]);
        let sealed = Sealer::new(vec![old()]).seal("app", &secret()).unwrap();
        let both = Sealer::new(vec![new(), old()]);
        assert_eq!(both.open("app", &sealed), Some(secret()), "what an older key sealed stays good");
        assert!(!both.is_current(&sealed) && both.is_current(&both.seal("app", &secret()).unwrap()));
        assert_eq!((both.name(), Sealer::default().name()), (Ok("2026"), Err(NoKey)));
        assert!(!both.is_current(&[]) && !both.is_current(&[FORM, 200]) && !Sealer::default().is_current(&sealed));
        assert_eq!(both.open("other", &sealed), None, "it is of one app");
        assert_eq!(Sealer::new(vec![new()]).open("app", &sealed), None);
        let wrong = Sealer::new(vec![SealingKey::new("2025", &[3; KEY_BYTES])]);
        assert_eq!(wrong.open("app", &sealed), None, "a key is more than its name");
        assert_eq!(Sealer::default().seal("app", &secret()), Err(NoKey));
        assert_ne!(both.seal("app", &secret()).unwrap(), both.seal("app", &secret()).unwrap(), "no nonce comes twice");
    }

    #[test]
    fn an_envelope_holds_no_secret_and_takes_no_change() {
        let sealer = Sealer::new(vec![SealingKey::new("k", &[1; KEY_BYTES])]);
        let sealed = sealer.seal("app", &secret()).unwrap();
        let plain = secret().expose().as_bytes().to_vec();
        assert!(!sealed.windows(plain.len()).any(|window| window == plain));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(sealer.open("app", &changed), None, "byte {at}");
            assert_eq!(sealer.open("app", &sealed[..at]), None, "cut at {at}");
        }
        assert!(!format!("{sealer:?}").contains("[1"));
    }

    #[test]
    fn a_node_keeps_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(directory.path()).unwrap();
        let sealed = Sealer::new(vec![SealingKey::of_node(&data).unwrap()]).seal("app", &secret()).unwrap();
        assert_eq!(Sealer::new(vec![SealingKey::of_node(&data).unwrap()]).open("app", &sealed), Some(secret()));
    }
}
