//! `encoding-type=url`: how listings carry keys that XML has no form for.

use std::borrow::Cow;

use super::error::S3Error;
use super::query::Query;
use super::xml::XmlWriter;
use crate::auth::uri;

/// How keys, prefixes, delimiters and markers stand in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As they are.
    Plain,
    /// Percent-encoded but for `/`.
    Url,
}

impl Encoding {
    pub(crate) fn read(query: &Query) -> Result<Self, S3Error> {
        match query.non_empty("encoding-type") {
            None => Ok(Self::Plain),
            Some(text) if text.eq_ignore_ascii_case("url") => Ok(Self::Url),
            Some(text) => Err(S3Error::argument("encoding-type", text, "Invalid Encoding Method specified in Request")),
        }
    }

    pub(crate) fn apply(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Plain => Cow::Borrowed(text),
            Self::Url => Cow::Owned(uri::encode_path(text.as_bytes())),
        }
    }

    /// For positions and common prefixes. They are cut from keys, which are text, at the end of a delimiter, which is
    /// text too.
    pub(crate) fn apply_bytes(self, bytes: &[u8]) -> Cow<'_, str> {
        match self {
            Self::Plain => String::from_utf8_lossy(bytes),
            Self::Url => Cow::Owned(uri::encode_path(bytes)),
        }
    }

    /// Says in the answer what was applied.
    pub(crate) fn write(self, xml: &mut XmlWriter) {
        if self == Self::Url {
            xml.text("EncodingType", "url");
        }
    }
}
