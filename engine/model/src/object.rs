//! The words of S3 as values: names, headers, checksums, conditions.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::Generation;
use crate::limits::KEY_BYTES_MAX;

/// A bucket's name, checked against the rules of AWS (S3 user guide, "General purpose bucket naming rules").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BucketName(String);

/// The text is not a bucket name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a bucket name has 3 to 63 characters of a-z, 0-9, '.' and '-', and begins and ends with a letter or digit")]
pub struct InvalidBucketName;

impl BucketName {
    /// Takes 3 to 63 characters of `a-z 0-9 . -`, first and last a letter or digit, no two dots together, not
    /// shaped like an IPv4 address, and without the prefixes and suffixes that AWS reserves.
    ///
    /// # Errors
    /// When the text breaks one of these rules.
    pub fn new(text: &str) -> Result<Self, InvalidBucketName> {
        let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let valid = (3..=63).contains(&bytes.len())
            && bytes.iter().all(|&b| edge(b) || b == b'.' || b == b'-')
            && edge(bytes[0])
            && edge(bytes[bytes.len() - 1])
            && !text.contains("..")
            && text.parse::<std::net::Ipv4Addr>().is_err()
            && !["xn--", "sthree-", "amzn-s3-demo-"].iter().any(|prefix| text.starts_with(prefix))
            && !["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"].iter().any(|suffix| text.ends_with(suffix));
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidBucketName) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An object's key: 1 to 1024 bytes of UTF-8, compared as bytes, never normalised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(String);

/// Why the bytes are not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// No byte at all.
    #[error("a key has at least one byte")]
    Empty,
    /// Over the limit.
    #[error("a key has at most {KEY_BYTES_MAX} bytes")]
    TooLong,
    /// Not text.
    #[error("a key is UTF-8 text")]
    NotUtf8,
}

impl Key {
    /// # Errors
    /// When the bytes are none, too many or not UTF-8.
    pub fn new(bytes: Vec<u8>) -> Result<Self, InvalidKey> {
        match bytes.len() {
            0 => Err(InvalidKey::Empty),
            length if length > KEY_BYTES_MAX => Err(InvalidKey::TooLong),
            _ => String::from_utf8(bytes).map(Self).map_err(|_| InvalidKey::NotUtf8),
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as the bytes that it is ordered by.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// What a client says of an object and wants back with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers {
    /// `Content-Type`; `binary/octet-stream` is answered when there is none.
    pub content_type: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Encoding`, without `aws-chunked`.
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Expires`, as the client wrote it.
    pub expires: Option<String>,
    /// `x-amz-website-redirect-location`.
    pub website_redirect_location: Option<String>,
    /// `x-amz-meta-*`: name in lower case without the prefix, value as sent; in the order of arrival.
    pub user: Vec<(String, String)>,
}

/// A checksum algorithm of S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChecksumAlgorithm {
    /// `x-amz-checksum-crc32`, 4 bytes.
    Crc32,
    /// `x-amz-checksum-crc32c`, 4 bytes.
    Crc32c,
    /// `x-amz-checksum-crc64nvme`, 8 bytes.
    Crc64Nvme,
    /// `x-amz-checksum-sha1`, 20 bytes.
    Sha1,
    /// `x-amz-checksum-sha256`, 32 bytes.
    Sha256,
}

impl ChecksumAlgorithm {
    /// All of them, in the order in which AWS lists them.
    pub const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// Bytes of a value.
    #[must_use]
    pub const fn value_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// The name in `x-amz-checksum-algorithm` and in XML, e.g. `CRC32C`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }
}

/// What a checksum of an object with parts is a checksum of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChecksumType {
    /// Of the object's bytes.
    FullObject,
    /// Of the parts' checksums, one behind the other.
    Composite,
}

/// A checksum's value with what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// By which algorithm.
    pub algorithm: ChecksumAlgorithm,
    /// Of what.
    pub of: ChecksumType,
    /// Big-endian value; [`ChecksumAlgorithm::value_bytes`] long.
    pub value: Vec<u8>,
}

/// An entity tag without its quotes, e.g. `d41d8cd98f00b204e9800998ecf8427e` or `<md5 of md5s>-<parts>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Etag(pub String);

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What must be true of the current version for a write to happen. Checked before the body and again under the lock
/// of the key's head row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteConditions {
    /// `If-None-Match: *`: there must be no current version.
    pub absent: bool,
    /// `If-Match`: the current version must have this tag; `*` is any tag.
    pub etag: Option<Etag>,
    /// The current version must have this generation. Only what was decided is written down, and decided again without
    /// asking, so that this has no form on disk.
    #[serde(skip)]
    pub generation: Option<Generation>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_follow_the_rules_of_aws() {
        for good in ["abc", "my-bucket", "a.b.c", "0ab", &"a".repeat(63)] {
            assert!(BucketName::new(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(64);
        for bad in
            ["", "ab", "Abc", "a_b", "-ab", "ab-", ".ab", "a..b", "10.0.0.1", "xn--abc", "abc-s3alias", &too_long]
        {
            assert!(BucketName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_one_to_1024_bytes_of_utf8() {
        assert_eq!(Key::new(vec![]), Err(InvalidKey::Empty));
        assert_eq!(Key::new(vec![b'a'; 1025]), Err(InvalidKey::TooLong));
        assert_eq!(Key::new(vec![0xff]), Err(InvalidKey::NotUtf8));
        assert!(Key::new(vec![b'a'; 1024]).is_ok());
        assert!(Key::new(vec![0]).is_ok(), "S3 allows control characters");
    }
}
