//! Access keys and whose they are.

use std::collections::BTreeMap;
use std::fmt;

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
    /// In whose name.
    pub tenant: TenantId,
}

/// All access keys that the node knows. Shared by its cores, never changed.
#[derive(Debug, Default)]
pub struct Directory {
    credentials: BTreeMap<String, Credential>,
}

impl Directory {
    /// A directory of these access keys.
    #[must_use]
    pub fn new(credentials: impl IntoIterator<Item = (String, Credential)>) -> Self {
        Self { credentials: credentials.into_iter().collect() }
    }

    /// What belongs to `access_key`.
    #[must_use]
    pub fn find(&self, access_key: &str) -> Option<&Credential> {
        self.credentials.get(access_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown_by_accident() {
        let credential = Credential { secret: Secret::new("do-not-print-me").unwrap(), tenant: TenantId(1) };
        let directory = Directory::new([("AK".to_owned(), credential)]);
        assert!(!format!("{directory:?}").contains("do-not-print-me"));
    }

    #[test]
    fn a_secret_is_visible_ascii_of_some_length() {
        for bad in ["", "short", "with space", "umläute-sind-nicht-dabei", &"x".repeat(257)] {
            assert_eq!(Secret::new(bad), Err(InvalidSecret), "{bad}");
        }
        assert!(Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY").is_ok());
    }
}
