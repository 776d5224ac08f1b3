//! The two forms in which S3 writes dates.

use anvil_model::time::WallTime;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::{rfc2822, temporal};
use jiff::tz::TimeZone;

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7), for headers.
pub(crate) fn http(time: WallTime) -> String {
    rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&timestamp(time)).unwrap_or_default()
}

/// `1994-11-06T08:49:37.000Z`, for XML. Whole seconds, like the header and like AWS, so that both always agree.
pub(crate) fn iso(time: WallTime) -> String {
    let seconds = Timestamp::from_second(unix_seconds(time)).unwrap_or(Timestamp::MAX);
    temporal::DateTimePrinter::new().precision(Some(3)).timestamp_to_string(&seconds)
}

/// Whole seconds since 1970 of a date in any of the three forms that HTTP knows (RFC 9110, 5.6.7).
pub(crate) fn parse_http(text: &str) -> Option<i64> {
    ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"].iter().find_map(|format| {
        let time = DateTime::strptime(format, text).ok()?;
        TimeZone::UTC.to_timestamp(time).ok().map(Timestamp::as_second)
    })
}

/// Whole seconds since 1970.
pub(crate) fn unix_seconds(time: WallTime) -> i64 {
    timestamp(time).as_second()
}

fn timestamp(time: WallTime) -> Timestamp {
    let milliseconds = i64::try_from(time.unix_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_aws_does() {
        let time = WallTime { unix_ms: 784_111_777_999 };
        assert_eq!(http(time), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(iso(time), "1994-11-06T08:49:37.000Z");
        assert_eq!(iso(WallTime { unix_ms: u64::MAX }).len(), "9999-12-30T22:00:00.000Z".len());
    }

    #[test]
    fn all_three_forms_of_http_dates_are_read() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse_http(text), Some(784_111_777), "{text}");
        }
        for bad in ["", "yesterday", "Sun, 32 Nov 1994 08:49:37 GMT", "784111777"] {
            assert_eq!(parse_http(bad), None, "{bad}");
        }
    }
}
