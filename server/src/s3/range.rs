//! The `Range` header (RFC 9110, 14.1.2), as S3 reads it: one range of bytes.

use std::ops::Range;

/// Which bytes of an object to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All of them: 200.
    Whole,
    /// These: 206. Never empty.
    Part(Range<u64>),
    /// None that the object has: 416.
    Unsatisfiable,
}

/// A range as it was asked for, of an object whose size is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// From the first byte to the last one, or to the end.
    From(u64, Option<u64>),
    /// So many bytes before the end.
    Last(u64),
}

impl Asked {
    /// Reads a `Range` header. One that is not a range of bytes is passed over, as RFC 9110 says, and so is one with
    /// several ranges, as AWS does.
    pub(crate) fn read(header: &str) -> Option<Self> {
        let (first, last) = header.trim().strip_prefix("bytes=")?.trim().split_once('-')?;
        match (first, last) {
            ("", suffix) => number(suffix).map(Self::Last),
            (first, "") => number(first).map(|first| Self::From(first, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    /// The bytes of an object of `size` bytes that this asks for.
    pub(crate) fn select(self, size: u64) -> Selection {
        let range = match self {
            Self::From(first, last) => first..last.map_or(size, |last| size.min(last.saturating_add(1))),
            Self::Last(count) => size.saturating_sub(count)..size,
        };
        if range.is_empty() { Selection::Unsatisfiable } else { Selection::Part(range) }
    }
}

/// Digits only; a number beyond `u64` lies behind the end of every object.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn select(header: &str, size: u64) -> Selection {
        Asked::read(header).map_or(Selection::Whole, |asked| asked.select(size))
    }

    #[test]
    fn ranges_are_those_of_rfc_9110() {
        use Selection::{Part, Unsatisfiable, Whole};
        for (header, size, expected) in [
            ("bytes=0-0", 10, Part(0..1)),
            ("bytes=2-5", 10, Part(2..6)),
            ("bytes=2-", 10, Part(2..10)),
            ("bytes=-3", 10, Part(7..10)),
            ("bytes=-30", 10, Part(0..10)),
            ("bytes=5-500", 10, Part(5..10)),
            ("bytes=9-99999999999999999999999", 10, Part(9..10)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-12", 10, Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-1", 0, Unsatisfiable),
            ("bytes=0-18446744073709551615", u64::MAX, Part(0..u64::MAX)),
            ("bytes=5-2", 10, Whole),
            ("bytes=0-1,3-4", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("octets=1-2", 10, Whole),
            ("1-2", 10, Whole),
        ] {
            assert_eq!(select(header, size), expected, "{header} of {size}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_object(header in "bytes=[0-9]{0,22}-[0-9]{0,22}|\\PC*", size: u64) {
            if let Selection::Part(range) = select(&header, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
