//! Why a request is not believed.

use super::directory::Unknown;

/// Each has the code, status and (in short) the words that AWS uses for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No credentials at all.
    #[error("Access Denied. This server answers signed requests only.")]
    Anonymous,
    /// In the header and in the query at once.
    #[error(
        "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter \
         or the Authorization header should be specified."
    )]
    TwoMechanisms,
    /// Signature version 2, basic authentication, or something unknown.
    #[error("The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")]
    UnsupportedMechanism,
    /// The header or the query parameters cannot be read, or name another day or service.
    #[error("{what}")]
    Malformed {
        /// Where the credentials stand.
        place: Malformed,
        /// A sentence.
        what: String,
    },
    /// Signed for another region.
    #[error("The {place} is malformed; the region '{got}' is wrong; expecting '{expected}'", place = .place.name())]
    WrongRegion {
        /// Where the credentials stand.
        place: Malformed,
        /// The region that the request names.
        got: String,
        /// The region of this node.
        expected: String,
    },
    /// No usable date.
    #[error("AWS authentication requires a valid Date or x-amz-date header.")]
    MissingDate,
    /// Signed too long ago, or in the future.
    #[error("The difference between the request time and the server's time is too large.")]
    RequestTimeTooSkewed {
        /// The server's clock, milliseconds since 1970.
        server_unix_ms: u64,
    },
    /// A presigned URL after its time.
    #[error("Request has expired")]
    Expired,
    /// A presigned URL before its time.
    #[error("Request is not yet valid")]
    NotYetValid,
    /// Nobody has this access key.
    #[error("The AWS access key Id you provided does not exist in our records.")]
    InvalidAccessKeyId,
    /// Which apps there are is not known at the moment.
    #[error("The access keys of this server are not known at the moment. Please try again.")]
    Unavailable,
    /// A session token: this server gives none.
    #[error("The provided token is malformed or otherwise invalid.")]
    InvalidToken,
    /// The secret, or what was signed, is another.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your key and signing \
         method."
    )]
    SignatureDoesNotMatch,
    /// These headers must be signed and are not.
    #[error("There were headers present in the request which were not signed: {0}")]
    HeadersNotSigned(String),
    /// A header, or a query parameter, that has one meaning came twice.
    #[error("{0} was given more than once")]
    Repeated(String),
    /// A path or query that is not percent-encoded text.
    #[error("Couldn't parse the specified URI.")]
    InvalidUri,
    /// `x-amz-content-sha256` is missing.
    #[error("Missing required header for this request: x-amz-content-sha256")]
    MissingPayloadHash,
    /// `x-amz-content-sha256` is none of the forms.
    #[error(
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, \
         STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, STREAMING-UNSIGNED-PAYLOAD-TRAILER or a valid sha256 value."
    )]
    InvalidPayloadHash,
    /// The elliptic-curve forms of signature version 4A.
    #[error("{0} is not supported by this server.")]
    NotImplemented(String),
    /// `aws-chunked` without `x-amz-decoded-content-length`.
    #[error("You must provide the x-amz-decoded-content-length HTTP header.")]
    MissingDecodedLength,
    /// A trailer that is announced but is not a checksum of S3.
    #[error("The value specified in the x-amz-trailer header is not supported: {0}")]
    UnsupportedTrailer(String),
}

impl AuthError {
    /// Whether who sent it is nobody, or guesses: such a request counts as one without credentials. What the owner of a
    /// secret does wrong (a clock, a region, a header) is told to it each time.
    pub(crate) const fn is_of_nobody(&self) -> bool {
        matches!(self, Self::Anonymous | Self::InvalidAccessKeyId | Self::SignatureDoesNotMatch)
    }
}

/// Where malformed credentials stand: S3 has a code for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The `Authorization` header.
    Header,
    /// The `X-Amz-*` query parameters.
    Query,
}

impl Malformed {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Header => "authorization header",
            Self::Query => "X-Amz-Credential parameter",
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Header => "AuthorizationHeaderMalformed",
            Self::Query => "AuthorizationQueryParametersError",
        }
    }
}

impl AuthError {
    /// S3's name for it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Anonymous | Self::MissingDate | Self::Expired | Self::NotYetValid | Self::HeadersNotSigned(_) => {
                "AccessDenied"
            }
            Self::TwoMechanisms | Self::Repeated(_) | Self::InvalidPayloadHash => "InvalidArgument",
            Self::UnsupportedMechanism | Self::MissingPayloadHash | Self::UnsupportedTrailer(_) => "InvalidRequest",
            Self::Malformed { place, .. } | Self::WrongRegion { place, .. } => place.code(),
            Self::RequestTimeTooSkewed { .. } => "RequestTimeTooSkewed",
            Self::Unavailable => "ServiceUnavailable",
            Self::InvalidAccessKeyId => "InvalidAccessKeyId",
            Self::InvalidToken => "InvalidToken",
            Self::SignatureDoesNotMatch => "SignatureDoesNotMatch",
            Self::InvalidUri => "InvalidURI",
            Self::NotImplemented(_) => "NotImplemented",
            Self::MissingDecodedLength => "MissingContentLength",
        }
    }

    /// The status that goes with [`Self::code`].
    #[must_use]
    pub fn status(&self) -> u16 {
        match self.code() {
            "AccessDenied" | "RequestTimeTooSkewed" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" => 403,
            "MissingContentLength" => 411,
            "NotImplemented" => 501,
            "ServiceUnavailable" => 503,
            _ => 400,
        }
    }

    /// The region that should have been named: `Region` of the XML answer, which clients follow.
    #[must_use]
    pub fn expected_region(&self) -> Option<&str> {
        match self {
            Self::WrongRegion { expected, .. } => Some(expected),
            _ => None,
        }
    }
}

impl From<Unknown> for AuthError {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Nobody => Self::InvalidAccessKeyId,
            Unknown::NotNow => Self::Unavailable,
        }
    }
}
