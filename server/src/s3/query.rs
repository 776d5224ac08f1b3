//! The query of a request, decoded once.

use std::str::FromStr;

use super::error::{Code, S3Error};
use crate::auth::uri;

/// Names and values in the order of arrival. Names differ by case.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a query.
    ///
    /// # Errors
    /// `InvalidURI` when a `%` stands alone or what it encodes is not UTF-8.
    pub(crate) fn read(query: Option<&str>) -> Result<Self, S3Error> {
        let invalid = || S3Error::new(Code::INVALID_URI);
        let text = |bytes| String::from_utf8(bytes).map_err(|_| invalid());
        let pairs = uri::decode_query(query).map_err(|_| invalid())?;
        pairs.into_iter().map(|(name, value)| Ok((text(name)?, text(value)?))).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the parameter is there, with or without a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The first value of the parameter; empty when it has none.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The value of the parameter when it has one that is not empty.
    pub(crate) fn non_empty(&self, name: &str) -> Option<&str> {
        self.value(name).filter(|value| !value.is_empty())
    }

    /// All parameters.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A count that may not be below `min` and is taken as `max` above it; `max` when it is not given.
    ///
    /// # Errors
    /// `InvalidArgument` when the text is no such number.
    pub(crate) fn count(&self, name: &'static str, min: usize, max: usize) -> Result<usize, S3Error> {
        let Some(text) = self.non_empty(name) else { return Ok(max) };
        let number = i32::from_str(text).ok().and_then(|number| usize::try_from(number).ok());
        match number {
            Some(number) if number >= min => Ok(number.min(max)),
            _ => {
                let message = format!("Argument {name} must be an integer between {min} and {}", i32::MAX);
                Err(S3Error::argument(name, text, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_clamped_above_and_refused_below() {
        let count = |text: &str| Query::read(Some(text)).unwrap().count("max-keys", 0, 1000).ok();
        for (text, expected) in [
            ("", Some(1000)),
            ("max-keys", Some(1000)),
            ("max-keys=0", Some(0)),
            ("max-keys=7", Some(7)),
            ("max-keys=5000", Some(1000)),
            ("max-keys=2147483647", Some(1000)),
            ("max-keys=2147483648", None),
            ("max-keys=-1", None),
            ("max-keys=ten", None),
        ] {
            assert_eq!(count(text), expected, "{text}");
        }
    }

    #[test]
    fn a_query_is_text() {
        assert!(Query::read(Some("prefix=%FF")).is_err());
        assert!(Query::read(Some("%")).is_err());
        assert_eq!(Query::read(Some("a=b+c&a=d")).unwrap().value("a"), Some("b c"));
        assert_eq!(Query::read(Some("A=b")).unwrap().value("a"), None);
    }
}
