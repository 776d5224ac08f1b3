//! Storage classes: names that clients give, each of which stands for a profile.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anvil_model::profile::Profile;
use serde::{Deserialize, Serialize};

use crate::metadata::rows::StorageClass;

/// The name of a storage class other than `STANDARD`: 1 to 32 of `A-Z`, `0-9`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClassName(String);

/// The text is no name of a storage class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a storage class has a name of 1 to {NAME_BYTES_MAX} characters of A-Z, 0-9, _ and -")]
pub struct InvalidClassName;

const NAME_BYTES_MAX: usize = 32;
const STANDARD: &str = "STANDARD";

impl StorageClass {
    /// As clients write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Standard => STANDARD,
            Self::Named(name) => &name.0,
        }
    }
}

impl fmt::Display for StorageClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StorageClass {
    type Err = InvalidClassName;

    fn from_str(text: &str) -> Result<Self, InvalidClassName> {
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
        match text {
            STANDARD => Ok(Self::Standard),
            _ if fits => Ok(Self::Named(ClassName(text.to_owned()))),
            _ => Err(InvalidClassName),
        }
    }
}

/// The storage classes of a node and how the blobs of each are spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    standard: Profile,
    named: BTreeMap<StorageClass, Profile>,
}

impl Classes {
    /// `STANDARD` alone, with this profile.
    #[must_use]
    pub fn standard_only(standard: Profile) -> Self {
        Self { standard, named: BTreeMap::new() }
    }

    /// With another class, or another profile for one that is there.
    #[must_use]
    pub fn with(mut self, class: StorageClass, profile: Profile) -> Self {
        match class {
            StorageClass::Standard => self.standard = profile,
            StorageClass::Named(_) => drop(self.named.insert(class, profile)),
        }
        self
    }

    /// The profile of `STANDARD`.
    #[must_use]
    pub fn standard(&self) -> Profile {
        self.standard
    }

    /// The profile of a class that this node knows.
    #[must_use]
    pub fn find(&self, class: &StorageClass) -> Option<Profile> {
        match class {
            StorageClass::Standard => Some(self.standard),
            StorageClass::Named(_) => self.named.get(class).copied(),
        }
    }

    /// The profile that bytes of this class are written with. A class that a bucket or an upload has from a time when the
    /// node knew it is written as `STANDARD`.
    #[must_use]
    pub fn profile(&self, class: &StorageClass) -> Profile {
        self.find(class).unwrap_or(self.standard)
    }

    /// All of them, `STANDARD` first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Profile)> {
        let named = self.named.iter().map(|(class, profile)| (class.as_str(), *profile));
        std::iter::once((STANDARD, self.standard)).chain(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_named_in_capitals() {
        assert_eq!("STANDARD".parse(), Ok(StorageClass::Standard));
        for name in ["COLD", "STANDARD_IA", "A-1", &"X".repeat(32)] {
            assert_eq!(name.parse::<StorageClass>().unwrap().to_string(), name);
        }
        for name in ["", "standard", "A B", "Ä", &"X".repeat(33)] {
            assert_eq!(name.parse::<StorageClass>(), Err(InvalidClassName), "{name:?}");
        }
    }

    #[test]
    fn a_class_that_is_not_known_any_more_is_written_as_standard() {
        let (wide, narrow) = (Profile { data: 4, parity: 2 }, Profile::SINGLE);
        let cold: StorageClass = "COLD".parse().unwrap();
        let classes = Classes::standard_only(wide).with(cold.clone(), narrow);
        assert_eq!(classes.iter().collect::<Vec<_>>(), [("STANDARD", wide), ("COLD", narrow)]);
        assert_eq!((classes.find(&cold), classes.profile(&cold)), (Some(narrow), narrow));
        let gone = "GONE".parse().unwrap();
        assert_eq!((classes.find(&gone), classes.profile(&gone)), (None, wide));
    }
}
