//! Dates of signed requests.

use anvil_model::time::WallTime;
use jiff::civil;
use jiff::tz::TimeZone;

/// The instant of `YYYYMMDD'T'HHMMSS'Z'`, the only form that `x-amz-date` may have.
pub(super) fn parse_basic(text: &str) -> Option<WallTime> {
    let bytes: &[u8; 16] = text.as_bytes().try_into().ok()?;
    let digits_stand = |from: usize, to: usize| bytes[from..to].iter().all(u8::is_ascii_digit);
    if !(digits_stand(0, 8) && bytes[8] == b'T' && digits_stand(9, 15) && bytes[15] == b'Z') {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<i8>().ok();
    let year = text[..4].parse().ok()?;
    let date = civil::Date::new(year, number(4, 6)?, number(6, 8)?).ok()?;
    let time = civil::Time::new(number(9, 11)?, number(11, 13)?, number(13, 15)?, 0).ok()?;
    wall(TimeZone::UTC.to_timestamp(date.to_datetime(time)).ok()?)
}

/// The instant of an HTTP date (`Sun, 06 Nov 1994 08:49:37 GMT`).
pub(super) fn parse_http(text: &str) -> Option<WallTime> {
    wall(jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?)
}

/// Writes an instant in the form that [`parse_basic`] reads.
pub(super) fn format_basic(time: WallTime) -> String {
    let ms = i64::try_from(time.unix_ms).unwrap_or(i64::MAX);
    let timestamp = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    timestamp.strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn wall(timestamp: jiff::Timestamp) -> Option<WallTime> {
    Some(WallTime { unix_ms: u64::try_from(timestamp.as_millisecond()).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_basic_form_is_read_strictly() {
        assert_eq!(parse_basic("20130524T000000Z"), Some(WallTime { unix_ms: 1_369_353_600_000 }));
        for bad in
            ["", "20130524T000000", "20130524 000000Z", "20131324T000000Z", "+0130524T000000Z", "2013-05-24T00:00Z"]
        {
            assert_eq!(parse_basic(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_http_date_means_the_same_instant() {
        let time = parse_http("Fri, 24 May 2013 00:00:00 GMT");
        assert_eq!(time, parse_basic("20130524T000000Z"));
        assert_eq!(format_basic(time.unwrap()), "20130524T000000Z");
        assert_eq!(parse_http("yesterday"), None);
    }
}
