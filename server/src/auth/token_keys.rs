//! What tokens are signed with, and which are believed.
//!
//! A secret of the configuration is the first; a rotation draws another one, which is kept with apps and grants, sealed as
//! their secrets are, and counts on every process as soon as it was read there. What was signed before stays good until
//! such tokens have ended.

use std::fmt;
use std::sync::Arc;

use anvil_digest::{hmac_sha256, sha256};
use anvil_model::time::WallTime;
use subtle::ConstantTimeEq as _;

use super::credential::Secret;
use super::directory::{Directory, Unknown};

/// Keys for each kind of token, made from one secret.
#[derive(Clone)]
pub struct TokenKeys {
    id: String,
    apps: [u8; 32],
    users: [u8; 32],
}

/// Whose tokens. None passes for the other kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Those of AuthService.
    App,
    /// Those of AdminService's Login.
    User,
}

/// The keys of one time: the one that signs, and those that are still believed.
#[derive(Clone, Debug)]
pub struct Ring {
    directory: Directory,
    configured: Arc<TokenKeys>,
    secret: Secret,
}

/// How long a token is good at most, of whatever kind. For so long an old key is.
pub const TOKEN_SECONDS_MAX: u32 = 3600;
/// How far two clocks may differ.
pub const TOKEN_SKEW_SECONDS: u64 = 60;

impl TokenKeys {
    /// Those of a secret.
    #[must_use]
    pub fn of(secret: &Secret) -> Self {
        let derived = |label: &[u8]| hmac_sha256(secret.expose().as_bytes(), label);
        let apps = derived(b"anvil access token v1");
        Self { id: hex::encode(&sha256(&apps)[..8]), apps, users: derived(b"anvil user token v1") }
    }

    /// Names them without telling them.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The signature of a text.
    #[must_use]
    pub fn sign(&self, kind: TokenKind, text: &[u8]) -> [u8; 32] {
        match kind {
            TokenKind::App => hmac_sha256(&self.apps, text),
            TokenKind::User => hmac_sha256(&self.users, text),
        }
    }

    /// Whether that is its signature.
    #[must_use]
    pub fn signed(&self, kind: TokenKind, text: &[u8], signature: &[u8]) -> bool {
        self.sign(kind, text).ct_eq(signature).into()
    }
}

impl Ring {
    /// The keys that `directory` knows; while it knows none, those of the secret of the configuration.
    #[must_use]
    pub fn new(directory: Directory, secret: Secret) -> Self {
        let configured = Arc::new(TokenKeys::of(&secret));
        Self { directory, configured, secret }
    }

    /// The secret of the configuration, for the first rotation, which keeps it.
    #[must_use]
    pub fn configured(&self) -> (&str, &Secret) {
        (self.configured.id(), &self.secret)
    }

    /// The one that signs.
    ///
    /// # Errors
    /// When that is not known now, or its secret cannot be opened here.
    pub fn signer(&self) -> Result<Arc<TokenKeys>, Unknown> {
        let known = self.directory.known().ok_or(Unknown::NotNow)?;
        match known.state.signing_key() {
            None => Ok(Arc::clone(&self.configured)),
            Some(key) => known.token_keys(&key.id).ok_or(Unknown::NotNow),
        }
    }

    /// The keys of this name, while what they signed is believed.
    ///
    /// # Errors
    /// When there are none, or that is not known now.
    pub fn find(&self, id: &str, now: WallTime) -> Result<Arc<TokenKeys>, Unknown> {
        let known = self.directory.known().ok_or(Unknown::NotNow)?;
        if known.state.token_keys.is_empty() {
            return if id == self.configured.id() { Ok(Arc::clone(&self.configured)) } else { Err(Unknown::Nobody) };
        }
        let key = known.state.token_keys.iter().find(|key| key.id == id);
        key.filter(|key| key.good_until.is_none_or(|until| now < until)).ok_or(Unknown::Nobody)?;
        known.token_keys(id).ok_or(Unknown::NotNow)
    }

    /// Whether a token of this id is good no more before its time.
    #[must_use]
    pub fn denies(&self, token_id: &str) -> bool {
        // Who cannot say it denies.
        self.directory.known().is_none_or(|known| known.state.denied.contains_key(token_id))
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKeys({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use anvil_model::access::{Command, NewTokenKey, State};
    use anvil_model::ids::TenantId;

    use super::super::directory::Known;
    use super::*;

    const OWN: TenantId = TenantId(1);

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    fn at(ms: u64) -> WallTime {
        WallTime { unix_ms: ms }
    }

    #[test]
    fn a_rotation_changes_who_signs_and_then_who_is_believed() {
        let directory = Directory::new([]);
        let (first, second) = (secret("the-first-secret"), secret("the-second-secret"));
        let [first_id, second_id] = [&first, &second].map(|secret| TokenKeys::of(secret).id().to_owned());
        let ring = Ring::new(directory.clone(), first.clone());
        assert_eq!(ring.signer().unwrap().id(), first_id);
        assert!(ring.find(&first_id, at(0)).is_ok());
        assert_eq!(ring.find(&second_id, at(0)).map(drop), Err(Unknown::Nobody));
        let new = |id: &str| NewTokenKey { id: id.to_owned(), sealed: Vec::new() };
        let rotate = Command::RotateTokenKey { configured: new(&first_id), new: new(&second_id), old_until: at(100) };
        let state = State::new(OWN, at(0)).apply(&rotate, OWN, at(10)).unwrap();
        let opened = [&first, &second].map(|secret| Arc::new(TokenKeys::of(secret)));
        let known =
            |keys: &[Arc<TokenKeys>]| Known::of(state.clone(), |_, _| None).with_token_keys(keys.iter().cloned());
        directory.publish(known(&opened));
        assert_eq!(ring.signer().unwrap().id(), second_id);
        assert!(ring.find(&first_id, at(99)).is_ok() && ring.find(&second_id, at(1_000_000)).is_ok());
        assert_eq!(ring.find(&first_id, at(100)).map(drop), Err(Unknown::Nobody));
        // A process that cannot open it does not fall back on what may have been stolen.
        directory.publish(known(&opened[..1]));
        assert_eq!(ring.signer().map(drop), Err(Unknown::NotNow));
        directory.forget();
        assert_eq!((ring.signer().map(drop), ring.denies("x")), (Err(Unknown::NotNow), true));
        assert!(!format!("{ring:?}").contains("first-secret"));
    }

    #[test]
    fn no_kind_of_token_passes_for_another() {
        let keys = TokenKeys::of(&secret("a-secret-of-tokens"));
        let signature = keys.sign(TokenKind::App, b"text");
        assert!(keys.signed(TokenKind::App, b"text", &signature));
        assert!(
            !keys.signed(TokenKind::User, b"text", &signature) && !keys.signed(TokenKind::App, b"test", &signature)
        );
        assert!(!keys.signed(TokenKind::App, b"text", &signature[..31]) && !keys.signed(TokenKind::App, b"text", b""));
    }
}
