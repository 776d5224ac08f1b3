//! A secret, and what belongs to an access key.

use std::fmt;

use anvil_model::access::{Identity, Rights};
use anvil_model::ids::TenantId;

/// A secret access key. Shows itself to nobody: neither `Debug` nor logs print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The text cannot be a secret access key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret access key has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} visible ASCII characters")]
pub struct InvalidSecret;

/// AWS's own have 40; fewer than this can be guessed.
const SECRET_BYTES_MIN: usize = 8;
const SECRET_BYTES_MAX: usize = 256;

impl Secret {
    /// Takes 8 to 256 visible ASCII characters.
    ///
    /// # Errors
    /// When the text has fewer, more or others.
    pub fn new(text: &str) -> Result<Self, InvalidSecret> {
        let length_fits = (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&text.len());
        let valid = length_fits && text.bytes().all(|b| b.is_ascii_graphic());
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidSecret) }
    }

    /// The secret itself, for deriving keys and for showing it to its owner.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// What belongs to an access key.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Proves who asks.
    pub secret: Secret,
    /// In whose name, and what it may do.
    pub identity: Identity,
}

impl Credential {
    /// That of the node's own app, which may do everything in its tenant.
    #[must_use]
    pub fn own(secret: Secret, tenant: TenantId) -> Self {
        Self { secret, identity: Identity { tenant, rights: Rights::All } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown_by_accident() {
        let credential = Credential::own(Secret::new("do-not-print-me").unwrap(), TenantId(1));
        assert!(!format!("{credential:?}").contains("do-not-print-me"));
    }

    #[test]
    fn a_secret_is_visible_ascii_of_some_length() {
        for bad in ["", "short", "with space", "umläute-sind-nicht-dabei", &"x".repeat(257)] {
            assert_eq!(Secret::new(bad), Err(InvalidSecret), "{bad}");
        }
        assert!(Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY").is_ok());
    }
}
