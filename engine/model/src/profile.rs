//! How a blob is spread: k data shards and m parity shards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An erasure profile k+m, written `4+2`. One that was read from outside is checked with [`Self::is_valid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Profile {
    /// Data shards, 1 to [`DATA_SHARDS_MAX`](Self::DATA_SHARDS_MAX).
    pub data: u8,
    /// Parity shards, 0 to [`PARITY_SHARDS_MAX`](Self::PARITY_SHARDS_MAX).
    pub parity: u8,
}

/// Why a text is no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a profile: k+m is meant, from 1+0 to 16+4, such as 4+2")]
pub struct InvalidProfile(String);

impl Profile {
    /// One copy on one disk.
    pub const SINGLE: Self = Self { data: 1, parity: 0 };
    /// Data shards, at most.
    pub const DATA_SHARDS_MAX: u8 = 16;
    /// Parity shards, at most.
    pub const PARITY_SHARDS_MAX: u8 = 4;
    /// Shards, at most.
    pub const SHARDS_MAX: usize = (Self::DATA_SHARDS_MAX + Self::PARITY_SHARDS_MAX) as usize;

    /// The profile of so many shards, when there is one.
    #[must_use]
    pub fn new(data: u8, parity: u8) -> Option<Self> {
        Some(Self { data, parity }).filter(|profile| profile.is_valid())
    }

    /// True from 1+0 to 16+4.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.data >= 1 && self.data <= Self::DATA_SHARDS_MAX && self.parity <= Self::PARITY_SHARDS_MAX
    }

    /// k+m: shards of a blob, and disks that they are on. The data shards come first.
    #[must_use]
    pub const fn shards(self) -> u8 {
        self.data + self.parity
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.data, self.parity)
    }
}

impl FromStr for Profile {
    type Err = InvalidProfile;

    fn from_str(text: &str) -> Result<Self, InvalidProfile> {
        // As it is written only: no sign, no leading zero.
        let number = |digits: &str| digits.parse().ok().filter(|value: &u8| value.to_string() == digits);
        let shards = text.split_once('+').and_then(|(data, parity)| Some((number(data)?, number(parity)?)));
        shards.and_then(|(data, parity)| Self::new(data, parity)).ok_or_else(|| InvalidProfile(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_only_in_the_form_it_is_written() {
        for data in 1..=16 {
            for parity in 0..=4 {
                let profile = Profile { data, parity };
                assert_eq!(profile.to_string().parse(), Ok(profile));
            }
        }
        for wrong in ["", "4", "4+", "+2", "0+1", "17+1", "4+5", "04+2", "4++2", "4+2+1", " 4+2", "4-2", "300+1"] {
            let error = wrong.parse::<Profile>().unwrap_err();
            assert!(error.to_string().contains(&format!("{wrong:?}")), "{error}");
        }
    }
}
