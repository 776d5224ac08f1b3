//! Percent-encoding as S3 counts it: one decoding, no normalisation, and one encoding for signatures.
//!
//! Handlers read paths and queries with the same functions that the signature is verified with, so that nobody can
//! sign one name and reach another.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// The text has a `%` that is not followed by two hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a % without two hexadecimal digits")]
pub struct InvalidEncoding;

/// Names and values of a query, decoded, in the order of arrival.
pub type Parameters = Vec<(Vec<u8>, Vec<u8>)>;

/// Decodes a path: `%XX` becomes a byte, everything else stays (also `+`).
///
/// # Errors
/// When a `%` is not followed by two hexadecimal digits.
pub fn decode_path(text: &str) -> Result<Vec<u8>, InvalidEncoding> {
    decode(text, false)
}

/// Decodes a query into its parameters in the order of arrival. `+` is a space, a parameter without `=` has an empty
/// value, and empty parameters (`&&`) are nothing.
///
/// # Errors
/// When a `%` is not followed by two hexadecimal digits.
pub fn decode_query(query: Option<&str>) -> Result<Parameters, InvalidEncoding> {
    let parameters = query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty());
    parameters
        .map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            Ok((decode(name, true)?, decode(value, true)?))
        })
        .collect()
}

/// Encodes all but unreserved characters: names and values of a canonical query.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    percent_encoding::percent_encode(bytes, RESERVED).to_string()
}

/// Encodes all but unreserved characters and `/`: a canonical path.
#[must_use]
pub fn encode_path(bytes: &[u8]) -> String {
    percent_encoding::percent_encode(bytes, RESERVED_IN_PATH).to_string()
}

fn decode(text: &str, plus_is_space: bool) -> Result<Vec<u8>, InvalidEncoding> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => {
                let (digits, tail) = rest.split_at_checked(2).ok_or(InvalidEncoding)?;
                decoded.push(nibble(digits[0])? << 4 | nibble(digits[1])?);
                rest = tail;
            }
            b'+' if plus_is_space => decoded.push(b' '),
            _ => decoded.push(byte),
        }
    }
    Ok(decoded)
}

fn nibble(digit: u8) -> Result<u8, InvalidEncoding> {
    let value = char::from(digit).to_digit(16).ok_or(InvalidEncoding)?;
    Ok(u8::try_from(value).expect("a hexadecimal digit is below 16"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_is_decoded_once_and_never_normalised() {
        assert_eq!(decode_path("/b/%252e/../a+b%20c").unwrap(), b"/b/%2e/../a+b c");
        assert_eq!(encode_path(b"/b/%2e/../a+b c\xff~"), "/b/%252e/../a%2Bb%20c%FF~");
    }

    #[test]
    fn a_query_keeps_order_and_empty_values() {
        let decoded = decode_query(Some("uploads&prefix=a%2Fb+c&&x=1=2&=v")).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let pairs: Vec<_> = decoded.iter().map(|(name, value)| (text(name), text(value))).collect();
        let expected = [("uploads", ""), ("prefix", "a/b c"), ("x", "1=2"), ("", "v")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_lone_percent_is_refused() {
        for bad in ["%", "%2", "%zz", "a%+1"] {
            assert_eq!(decode_path(bad), Err(InvalidEncoding), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(bytes: Vec<u8>) {
            prop_assert_eq!(decode_path(&encode(&bytes)).unwrap(), bytes.clone());
            prop_assert_eq!(decode_path(&encode_path(&bytes)).unwrap(), bytes.clone());
            let query = format!("{}={}", encode(&bytes), encode(&bytes));
            let decoded = decode_query(Some(&query)).unwrap();
            prop_assert_eq!(decoded, vec![(bytes.clone(), bytes)]);
        }

        #[test]
        fn no_text_breaks_the_decoders(text: String) {
            let _ = decode_path(&text);
            let _ = decode_query(Some(&text));
        }
    }
}
