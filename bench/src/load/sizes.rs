//! How large objects are: one size, or several with their shares.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::random::Random;
use crate::units;

/// Sizes and how often each is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Sizes {
    choices: Vec<Choice>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Choice {
    pub(crate) bytes: u64,
    /// In parts of the sum of all.
    pub(crate) share: u32,
}

impl FromStr for Sizes {
    type Err = String;

    /// Reads `1MiB`, `4KiB=70,1MiB=30`, or `4KiB..1MiB`: its least, and all that come from doubling it, alike.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((least, most)) = text.split_once("..") {
            return Self::doubled(units::size(least)?, units::size(most)?);
        }
        let mut choices: Vec<Choice> = Vec::new();
        for choice in text.split(',') {
            let (size, share) = choice.split_once('=').unwrap_or((choice, "1"));
            let share = share.parse().ok().filter(|share| (1..=1000).contains(share));
            let share = share.ok_or_else(|| format!("`{choice}` has no share from 1 to 1000"))?;
            choices.push(Choice { bytes: units::size(size)?, share });
        }
        if choices.len() > CHOICES_MAX {
            return Err(format!("there are {} sizes, and at most {CHOICES_MAX}", choices.len()));
        }
        Self { choices }.checked()
    }
}

impl Sizes {
    fn doubled(least: u64, most: u64) -> Result<Self, String> {
        if least == 0 || least > most {
            return Err("a range of sizes goes from one of at least 1 byte up to a larger one".to_owned());
        }
        let sizes = std::iter::successors(Some(least), |bytes| bytes.checked_mul(2)).take_while(|bytes| *bytes <= most);
        Self { choices: sizes.map(|bytes| Choice { bytes, share: 1 }).collect() }.checked()
    }

    fn checked(self) -> Result<Self, String> {
        match self.choices.iter().find(|choice| choice.bytes > BYTES_MAX) {
            Some(_) => Err(format!("an object has at most {}", units::show_size(BYTES_MAX))),
            None => Ok(self),
        }
    }

    /// At least one.
    pub(crate) fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// The largest of them.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.choices.iter().map(|choice| choice.bytes).max().unwrap_or(0)
    }

    /// The smallest of them.
    pub(crate) fn bytes_min(&self) -> u64 {
        self.choices.iter().map(|choice| choice.bytes).min().unwrap_or(0)
    }

    /// Which of them object `number` has: the same in every run, so that one that was left behind can be compared.
    pub(crate) fn index_of(&self, number: u64) -> usize {
        let sum: u64 = self.choices.iter().map(|choice| u64::from(choice.share)).sum();
        let mut drawn = Random::new(number).below(sum);
        for (index, choice) in self.choices.iter().enumerate() {
            match drawn.checked_sub(u64::from(choice.share)) {
                None => return index,
                Some(rest) => drawn = rest,
            }
        }
        unreachable!("a number below the sum falls into a share")
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.choices[..] {
            return f.write_str(&units::show_size(only.bytes));
        }
        for (index, choice) in self.choices.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{} ({})", units::show_size(choice.bytes), choice.share)?;
        }
        Ok(())
    }
}

/// Objects are put from memory.
const BYTES_MAX: u64 = 1 << 30;
const CHOICES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let bytes = |text: &str| -> Vec<(u64, u32)> {
            let sizes: Sizes = text.parse().unwrap();
            sizes.choices().iter().map(|choice| (choice.bytes, choice.share)).collect()
        };
        assert_eq!(bytes("1MiB"), [(1 << 20, 1)]);
        assert_eq!(bytes("4k=70,1m=30"), [(4096, 70), (1 << 20, 30)]);
        assert_eq!(bytes("4k..20k"), [(4096, 1), (8192, 1), (16384, 1)]);
        for wrong in ["", "4k=0", "4k=x", "2GiB", "8k..4k", "0..4k", "4k..", "1..2GiB"] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares_are_kept_and_an_object_keeps_its_size() {
        let sizes: Sizes = "1k=3,2k=1".parse().unwrap();
        let first = (0..10_000).filter(|number| sizes.index_of(*number) == 0).count();
        assert!((7_200..7_800).contains(&first), "{first} of 10000 for a share of 3 in 4");
        assert_eq!(sizes.index_of(17), sizes.clone().index_of(17));
    }
}
