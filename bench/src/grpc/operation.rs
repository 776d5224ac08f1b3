//! The methods that a load calls.

use std::fmt;

use serde::Serialize;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Operation {
    /// GetObject of a whole object, compared byte by byte
    GetObject,
    /// BidiRead of --ranges ranges of one object, all asked for at once and compared: all of them are one operation
    BidiRead,
    /// WriteObject, in chunks with their CRC32C
    WriteObject,
    /// HeadObject
    HeadObject,
    /// BatchGet of --batch objects, which are compared: all of them are one operation
    BatchGet,
    /// PutObject
    PutObject,
    /// DeleteObject
    DeleteObject,
}

impl Operation {
    /// Whether it makes an object.
    pub(super) const fn writes(self) -> bool {
        matches!(self, Self::WriteObject | Self::PutObject)
    }

    /// Whether a message holds a whole object.
    pub(super) const fn is_small(self) -> bool {
        matches!(self, Self::BatchGet | Self::PutObject)
    }

    /// The path of the method.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::GetObject => "/anvil.v1.ObjectService/GetObject",
            Self::BidiRead => "/anvil.v1.ObjectService/BidiRead",
            Self::WriteObject => "/anvil.v1.ObjectService/WriteObject",
            Self::HeadObject => "/anvil.v1.ObjectService/HeadObject",
            Self::BatchGet => "/anvil.v1.ObjectService/BatchGet",
            Self::PutObject => "/anvil.v1.ObjectService/PutObject",
            Self::DeleteObject => "/anvil.v1.ObjectService/DeleteObject",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GetObject => "get-object",
            Self::BidiRead => "bidi-read",
            Self::WriteObject => "write-object",
            Self::HeadObject => "head-object",
            Self::BatchGet => "batch-get",
            Self::PutObject => "put-object",
            Self::DeleteObject => "delete-object",
        })
    }
}
