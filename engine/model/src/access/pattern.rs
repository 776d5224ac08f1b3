//! On what something is allowed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::KEY_BYTES_MAX;

/// Names of buckets and of objects in them: `my-bucket`, `my-bucket/folder/*`. A star stands for any characters, `/` among
/// them, or none; everything else stands for itself. Compared as it is, never normalised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// The text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a resource has 1 to {PATTERN_BYTES_MAX} bytes: a bucket, or bucket/key, in which * stands for any characters")]
pub struct InvalidPattern;

/// A bucket's name, a slash and a key.
const PATTERN_BYTES_MAX: usize = 63 + 1 + KEY_BYTES_MAX;

impl Pattern {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` is one of those that it stands for.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        matches(self.0.as_bytes(), text.as_bytes())
    }

    /// Whether it stands for all that `other` stands for. It may say no where a star of the other one could never be what
    /// makes the difference.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        // A star among the other's characters is matched by nothing but a star, which then takes whatever that stands for.
        self.matches(&other.0)
    }
}

/// Walks both; where they part, the last star takes one character more. Characters before an earlier star need no second
/// look, so it takes at most as many steps as the lengths multiplied.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(&byte) if byte == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => match star {
                Some((place, taken)) => {
                    star = Some((place, taken + 1));
                    at = place + 1;
                    seen = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        // PostgreSQL keeps no NUL in a text.
        let fits = (1..=PATTERN_BYTES_MAX).contains(&text.len()) && !text.contains('\0');
        if fits { Ok(Self(text)) } else { Err(InvalidPattern) }
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (written, yes, no) in [
            ("*", vec!["a", "a/b", "*"], vec![]),
            ("a", vec!["a"], vec!["b", "a/", "aa", "A"]),
            ("a/*", vec!["a/", "a/b", "a/b/c"], vec!["a", "ab", "b/a/"]),
            (
                "my-bucket/folder/*",
                vec!["my-bucket/folder/x", "my-bucket/folder/"],
                vec!["my-bucket/folder", "my-bucket/folderx"],
            ),
            ("a*/b*c", vec!["a/bc", "axx/b/b/c", "a/b/bc"], vec!["a/b", "a/cb", "xa/bc"]),
            ("**a", vec!["a", "ba"], vec!["ab"]),
        ] {
            for text in yes {
                assert!(pattern(written).matches(text), "{written} and {text}");
            }
            for text in no {
                assert!(!pattern(written).matches(text), "{written} and {text}");
            }
        }
        for wrong in ["", "a\0", &"x".repeat(PATTERN_BYTES_MAX + 1)] {
            assert_eq!(wrong.parse::<Pattern>(), Err(InvalidPattern));
        }
    }

    /// The obvious way: a star is nothing, or one character and a star.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) if naive(rest, text) => true,
            ([b'*', ..], [_, others @ ..]) => naive(pattern, others),
            ([a, rest @ ..], [b, others @ ..]) => a == b && naive(rest, others),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn stars_match_as_the_obvious_way_says(written in "[ab/*]{1,8}", text in "[ab/]{0,10}") {
            prop_assert_eq!(pattern(&written).matches(&text), naive(written.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn what_is_covered_is_matched(a in "[ab*]{1,6}", b in "[ab*]{1,6}", text in "[ab]{0,8}") {
            let (a, b) = (pattern(&a), pattern(&b));
            prop_assert!(!a.covers(&b) || !b.matches(&text) || a.matches(&text));
        }
    }
}
