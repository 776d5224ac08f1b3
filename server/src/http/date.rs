//! The `Date` of answers, written once a second.

use anvil_model::time::WallTime;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

/// One core's `Date` header value (RFC 9110, 5.6.7), kept for the second that it is true in.
#[derive(Debug, Default)]
pub(crate) struct DateCache {
    unix_second: Option<i64>,
    text: String,
}

impl DateCache {
    /// The date of `now`, e.g. `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub(crate) fn at(&mut self, now: WallTime) -> &str {
        let second = i64::try_from(now.unix_ms / 1000).unwrap_or(i64::MAX);
        if self.unix_second != Some(second) {
            let time = Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
            self.text = DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap_or_default();
            self.unix_second = Some(second);
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_that_of_rfc_9110_and_changes_with_the_second() {
        let mut cache = DateCache::default();
        assert_eq!(cache.at(WallTime { unix_ms: 784_111_777_000 }), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.at(WallTime { unix_ms: 784_111_777_999 }), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.at(WallTime { unix_ms: 784_111_778_000 }), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
