//! Sizes and times as people write them.

use std::time::Duration;

/// Reads a size: a number with an optional unit of powers of 1024 (`4096`, `4k`, `64KiB`, `1MiB`, `2G`).
///
/// # Errors
/// One sentence that says what is taken.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let refusal = || format!("`{text}` is not a size such as 4096, 64KiB or 1GiB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| refusal())?;
    let shift = match text[digits..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(refusal()),
    };
    number.checked_mul(1 << shift).ok_or_else(refusal)
}

/// Reads a time with its unit (`500ms`, `30s`, `2m`, `1m 30s`); a bare number means seconds.
///
/// # Errors
/// One sentence that says what is taken.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let refusal = || format!("`{text}` is not a time such as 30s, 2m or 1m30s");
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let signed: jiff::SignedDuration = text.parse().map_err(|_| refusal())?;
    signed.try_into().map_err(|_| refusal())
}

/// Writes a size with the largest unit that leaves no fraction.
pub(crate) fn show_size(bytes: u64) -> String {
    let (shift, unit) = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift)
        .unwrap_or((0, "B"));
    format!("{} {unit}", bytes >> shift)
}

/// Writes nanoseconds with three digits that matter, e.g. `812 us`.
pub(crate) fn show_nanos(nanos: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let number = nanos as f64;
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..10_000 => format!("{:.2} us", number / 1e3),
        10_000..100_000 => format!("{:.1} us", number / 1e3),
        100_000..1_000_000 => format!("{:.0} us", number / 1e3),
        1_000_000..10_000_000 => format!("{:.2} ms", number / 1e6),
        10_000_000..100_000_000 => format!("{:.1} ms", number / 1e6),
        100_000_000..1_000_000_000 => format!("{:.0} ms", number / 1e6),
        _ => format!("{:.2} s", number / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("4k", 4096),
            ("64KiB", 65536),
            ("1MiB", 1 << 20),
            ("2G", 2 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "k", "-1", "1.5k", "4 k", "1kb2", "99999999999999999999", "99999999999t"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(show_size(0), "0 B");
        assert_eq!(show_size(4096), "4 KiB");
        assert_eq!(show_size((1 << 20) + 1024), "1025 KiB");
        assert_eq!(show_size(3 << 40), "3 TiB");
    }

    #[test]
    fn times_are_read_and_written() {
        for (text, millis) in [("30", 30_000), ("500ms", 500), ("2m", 120_000), ("1m30s", 90_000), ("1m 30s", 90_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "soon", "-3s", "3 parsecs"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        for (nanos, text) in [(999, "999 ns"), (8_120, "8.12 us"), (812_400, "812 us"), (13_000_000_000, "13.00 s")] {
            assert_eq!(show_nanos(nanos), text);
        }
    }
}
