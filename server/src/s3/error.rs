//! Every way in which the S3 API says no: one code, status and message each, and the one place where the errors of
//! stories, authentication, bodies and metadata become them.

use std::borrow::Cow;

use anvil_model::limits::{KEY_BYTES_MAX, PART_BYTES_MAX, PART_BYTES_MIN};
use anvil_model::object::ChecksumAlgorithm;
use anvil_model::time::WallTime;
use anvil_node::metadata::{MetadataError, Refusal};
use anvil_node::put::PutError;

use super::route::Route;
use super::xml::{MalformedXml, XmlWriter};
use super::{copy, date};
use crate::admission::TooOften;
use crate::auth::AuthError;
use crate::auth::body::BodyError;
use crate::http::{Head, Outgoing, ReceiveError, Response};

/// A refusal or failure as a client sees it.
#[derive(Debug)]
pub(crate) struct S3Error {
    code: &'static str,
    status: u16,
    message: Cow<'static, str>,
    /// Elements of the XML beside `Code` and `Message`.
    details: Vec<(&'static str, String)>,
    headers: Vec<(Cow<'static, str>, String)>,
    /// What went wrong inside: for the log, never for the client.
    cause: Option<String>,
}

/// One row of the table of codes (S3 API reference, "Error responses").
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Code {
    name: &'static str,
    status: u16,
    message: &'static str,
}

macro_rules! codes {
    ($($constant:ident = $name:literal, $status:literal, $message:literal;)*) => {
        impl Code {
            $(pub(crate) const $constant: &'static Self = &Self { name: $name, status: $status, message: $message };)*
        }
    };
}

codes! {
    ACCESS_DENIED = "AccessDenied", 403, "Access Denied";
    BAD_DIGEST = "BadDigest", 400, "The Content-MD5 or checksum value that you specified did not match what the server received.";
    BUCKET_ALREADY_EXISTS = "BucketAlreadyExists", 409, "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different name and try again.";
    BUCKET_ALREADY_OWNED_BY_YOU = "BucketAlreadyOwnedByYou", 409, "Your previous request to create the named bucket succeeded and you already own it.";
    BUCKET_NOT_EMPTY = "BucketNotEmpty", 409, "The bucket you tried to delete is not empty.";
    CONDITIONAL_REQUEST_CONFLICT = "ConditionalRequestConflict", 409, "The conditional request cannot succeed due to a conflicting operation against this resource.";
    ENTITY_TOO_LARGE = "EntityTooLarge", 400, "Your proposed upload exceeds the maximum allowed size";
    ENTITY_TOO_SMALL = "EntityTooSmall", 400, "Your proposed upload is smaller than the minimum allowed size";
    INCOMPLETE_BODY = "IncompleteBody", 400, "You did not provide the number of bytes specified by the Content-Length HTTP header.";
    INSUFFICIENT_STORAGE = "InsufficientStorage", 507, "There is no room left on the disks of this server.";
    INTERNAL_ERROR = "InternalError", 500, "We encountered an internal error. Please try again.";
    INVALID_ARGUMENT = "InvalidArgument", 400, "Invalid Argument";
    INVALID_BUCKET_NAME = "InvalidBucketName", 400, "The specified bucket is not valid.";
    INVALID_DIGEST = "InvalidDigest", 400, "The Content-MD5 you specified was invalid.";
    INVALID_LOCATION_CONSTRAINT = "InvalidLocationConstraint", 400, "The specified location-constraint is not valid";
    INVALID_PART = "InvalidPart", 400, "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.";
    INVALID_PART_NUMBER = "InvalidPartNumber", 416, "The requested partnumber is not satisfiable";
    INVALID_PART_ORDER = "InvalidPartOrder", 400, "The list of parts was not in ascending order. Parts must be ordered by part number.";
    INVALID_RANGE = "InvalidRange", 416, "The requested range is not satisfiable";
    INVALID_REQUEST = "InvalidRequest", 400, "Invalid Request";
    INVALID_STORAGE_CLASS = "InvalidStorageClass", 400, "The storage class you specified is not valid";
    INVALID_URI = "InvalidURI", 400, "Couldn't parse the specified URI.";
    KEY_TOO_LONG = "KeyTooLongError", 400, "Your key is too long";
    MALFORMED_XML = "MalformedXML", 400, "The XML you provided was not well-formed or did not validate against our published schema";
    MAX_MESSAGE_LENGTH_EXCEEDED = "MaxMessageLengthExceeded", 400, "Your request was too big.";
    METADATA_TOO_LARGE = "MetadataTooLarge", 400, "Your metadata headers exceed the maximum allowed metadata size";
    METHOD_NOT_ALLOWED = "MethodNotAllowed", 405, "The specified method is not allowed against this resource.";
    MISSING_CONTENT_LENGTH = "MissingContentLength", 411, "You must provide the Content-Length HTTP header.";
    NOT_IMPLEMENTED = "NotImplemented", 501, "A header or query you provided implies functionality that is not implemented.";
    NO_SUCH_BUCKET = "NoSuchBucket", 404, "The specified bucket does not exist";
    NO_SUCH_BUCKET_POLICY = "NoSuchBucketPolicy", 404, "The bucket policy does not exist";
    NO_SUCH_CORS_CONFIGURATION = "NoSuchCORSConfiguration", 404, "The CORS configuration does not exist";
    NO_SUCH_ENCRYPTION_CONFIGURATION = "ServerSideEncryptionConfigurationNotFoundError", 404, "The server side encryption configuration was not found";
    NO_SUCH_LIFECYCLE_CONFIGURATION = "NoSuchLifecycleConfiguration", 404, "The lifecycle configuration does not exist";
    NO_SUCH_OBJECT_LOCK_CONFIGURATION = "ObjectLockConfigurationNotFoundError", 404, "Object Lock configuration does not exist for this bucket";
    NO_SUCH_REPLICATION_CONFIGURATION = "ReplicationConfigurationNotFoundError", 404, "The replication configuration was not found";
    NO_SUCH_TAG_SET = "NoSuchTagSet", 404, "The TagSet does not exist";
    NO_SUCH_WEBSITE_CONFIGURATION = "NoSuchWebsiteConfiguration", 404, "The specified bucket does not have a website configuration";
    NO_SUCH_KEY = "NoSuchKey", 404, "The specified key does not exist.";
    NO_SUCH_UPLOAD = "NoSuchUpload", 404, "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.";
    OPERATION_ABORTED = "OperationAborted", 409, "A conflicting conditional operation is currently in progress against this resource. Try again.";
    PRECONDITION_FAILED = "PreconditionFailed", 412, "At least one of the pre-conditions you specified did not hold";
    QUOTA_EXCEEDED = "QuotaExceeded", 403, "The write would exceed a quota.";
    REQUEST_TIMEOUT = "RequestTimeout", 400, "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed.";
    SLOW_DOWN = "SlowDown", 503, "Please reduce your request rate.";
    TOO_OFTEN = "SlowDown", 429, "Please reduce your request rate.";
    SERVICE_UNAVAILABLE = "ServiceUnavailable", 503, "Service is unable to handle request.";
    TOO_MANY_BUCKETS = "TooManyBuckets", 400, "You have attempted to create more buckets than allowed";
}

impl Code {
    /// S3's name of it.
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }
}

impl S3Error {
    /// `code` in its own words.
    pub(crate) const fn new(code: &'static Code) -> Self {
        let message = Cow::Borrowed(code.message);
        Self { code: code.name, status: code.status, message, details: Vec::new(), headers: Vec::new(), cause: None }
    }

    /// An error that its own floor has named and worded as S3 does.
    fn named(code: &'static str, status: u16, message: String) -> Self {
        Self { code, status, message: Cow::Owned(message), details: Vec::new(), headers: Vec::new(), cause: None }
    }

    /// `code` in other words.
    pub(crate) fn saying(code: &'static Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), ..Self::new(code) }
    }

    /// `InvalidArgument` that names the argument and repeats its value.
    pub(crate) fn argument(name: &'static str, value: &str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::saying(Code::INVALID_ARGUMENT, message)
            .with("ArgumentName", name.to_owned())
            .with("ArgumentValue", value.to_owned())
    }

    /// `InvalidRequest` with a sentence.
    pub(crate) fn request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::saying(Code::INVALID_REQUEST, message)
    }

    /// `NotImplemented` that names the header which asks for more than there is.
    pub(crate) fn header_not_implemented(name: &str) -> Self {
        Self::saying(Code::NOT_IMPLEMENTED, "A header you provided implies functionality that is not implemented")
            .with("Header", name.to_owned())
    }

    /// A body longer than an object or part may be.
    pub(crate) fn entity_too_large(bytes: u64) -> Self {
        Self::new(Code::ENTITY_TOO_LARGE)
            .with("ProposedSize", bytes.to_string())
            .with("MaxSizeAllowed", PART_BYTES_MAX.to_string())
    }

    /// A key longer than a key may be.
    pub(crate) fn key_too_long(bytes: usize) -> Self {
        Self::new(Code::KEY_TOO_LONG).with("Size", bytes.to_string()).with("MaxSizeAllowed", KEY_BYTES_MAX.to_string())
    }

    /// Adds an element to the XML.
    pub(crate) fn with(mut self, element: &'static str, text: String) -> Self {
        self.details.push((element, text));
        self
    }

    /// Adds a header to the answer.
    pub(crate) fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((Cow::Borrowed(name), value));
        self
    }

    /// Something went wrong inside.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        Self::new(Code::INTERNAL_ERROR).caused_by(error)
    }

    fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        self.cause = Some(error.to_string());
        self
    }

    /// What went wrong inside, for the log.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// Adds what the request was about to an error that wants to name it.
    pub(crate) fn about(self, route: &Route) -> Self {
        // The source of a copy is named by who looked at it.
        if self.details.iter().any(|(element, _)| matches!(*element, "BucketName" | "Key")) {
            return self;
        }
        match route {
            Route::Bucket(bucket, _) | Route::Object(bucket, _, _) if self.code == Code::NO_SUCH_BUCKET.name => {
                self.with("BucketName", bucket.to_string())
            }
            Route::Object(_, key, _) if self.code == Code::NO_SUCH_KEY.name => {
                self.with("Key", key.as_str().to_owned())
            }
            _ => self,
        }
    }

    /// S3's name of the error.
    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }

    /// The status of the answer.
    pub(crate) const fn status(&self) -> u16 {
        self.status
    }

    /// What is said of it.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The answer to the request of `head`: XML, or nothing but the status for a HEAD.
    pub(crate) fn response<P>(self, head: &Head, host_id: &str) -> Response<P> {
        let mut headers = self.headers;
        if head.method == "HEAD" {
            return Response { status: self.status, headers, body: Outgoing::Empty };
        }
        headers.push((Cow::Borrowed("Content-Type"), "application/xml".to_owned()));
        let mut details: Vec<(&str, &str)> = self.details.iter().map(|(name, text)| (*name, text.as_str())).collect();
        details.push(("Resource", &head.path));
        let xml = document(self.code, &self.message, &details, &head.request_id, host_id);
        Response { status: self.status, headers, body: Outgoing::Bytes(xml) }
    }

    fn retry_after(self, seconds: u64) -> Self {
        self.with_header("Retry-After", seconds.max(1).to_string())
    }
}

/// The answer to what never became a request: a protocol found `code` and says why.
pub(crate) fn refusal<P>(status: u16, code: &str, message: &str, request_id: &str, host_id: &str) -> Response<P> {
    let headers = vec![(Cow::Borrowed("Content-Type"), "application/xml".to_owned())];
    Response { status, headers, body: Outgoing::Bytes(document(code, message, &[], request_id, host_id)) }
}

fn document(code: &str, message: &str, details: &[(&str, &str)], request_id: &str, host_id: &str) -> Vec<u8> {
    XmlWriter::plain_document("Error", |xml| {
        xml.text("Code", code);
        xml.text("Message", message);
        for (element, text) in details {
            xml.text(element, text);
        }
        xml.text("RequestId", request_id);
        xml.text("HostId", host_id);
    })
}

impl From<Refusal> for S3Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoSuchBucket => Self::new(Code::NO_SUCH_BUCKET),
            Refusal::AccessDenied => Self::new(Code::ACCESS_DENIED),
            Refusal::BucketAlreadyExists => Self::new(Code::BUCKET_ALREADY_EXISTS),
            Refusal::BucketAlreadyOwnedByYou => Self::new(Code::BUCKET_ALREADY_OWNED_BY_YOU),
            Refusal::BucketNotEmpty => Self::new(Code::BUCKET_NOT_EMPTY),
            Refusal::TooManyBuckets => Self::new(Code::TOO_MANY_BUCKETS),
            Refusal::NoSuchKey => Self::new(Code::NO_SUCH_KEY),
            Refusal::NoSuchUpload(upload) => Self::new(Code::NO_SUCH_UPLOAD).with("UploadId", upload.to_string()),
            Refusal::PreconditionFailed => Self::new(Code::PRECONDITION_FAILED),
            Refusal::ConditionalRequestConflict => Self::new(Code::CONDITIONAL_REQUEST_CONFLICT),
            Refusal::InvalidPart(number) => Self::new(Code::INVALID_PART).with("PartNumber", number.to_string()),
            Refusal::InvalidPartOrder => Self::new(Code::INVALID_PART_ORDER),
            Refusal::EntityTooSmall { number, length } => Self::new(Code::ENTITY_TOO_SMALL)
                .with("ProposedSize", length.to_string())
                .with("MinSizeAllowed", PART_BYTES_MIN.to_string())
                .with("PartNumber", number.to_string()),
            Refusal::BadDigest => Self::saying(
                Code::BAD_DIGEST,
                "The checksum you specified did not match the checksum calculated from the parts.",
            ),
            Refusal::EntityTooLarge => Self::new(Code::ENTITY_TOO_LARGE),
            Refusal::QuotaExceeded(quota) => {
                let message =
                    format!("The write would exceed the {}'s quota of {} {}.", quota.owner, quota.most, quota.unit);
                Self::saying(Code::QUOTA_EXCEEDED, message)
                    .with("Quota", format!("{}-{}", quota.owner, quota.unit))
                    .with("Maximum", quota.most.to_string())
            }
            Refusal::OperationAborted | Refusal::BucketBeingDeleted | Refusal::SourceChanged | Refusal::OtherWriter => {
                Self::new(Code::OPERATION_ABORTED)
            }
            Refusal::CopyTooLarge => copy::too_large(),
            Refusal::TooManyPieces => Self::request(
                "The source consists of too many pieces to be copied; store it anew by uploading its bytes.",
            ),
            Refusal::InvalidRequest(message) => Self::request(message),
            Refusal::WriterClosed | Refusal::BlobClaimed | Refusal::ShardMoved => {
                Self::new(Code::INTERNAL_ERROR).caused_by(&refusal)
            }
        }
    }
}

impl From<MetadataError> for S3Error {
    fn from(error: MetadataError) -> Self {
        match error {
            MetadataError::Refused(refusal) => refusal.into(),
            MetadataError::Unavailable { retry_after } => {
                Self::new(Code::SERVICE_UNAVAILABLE).retry_after(retry_after.as_secs())
            }
            MetadataError::Unknown => Self::saying(
                Code::SERVICE_UNAVAILABLE,
                "The outcome of the request is not known yet. Please look at the resource or try again.",
            )
            .retry_after(1),
        }
    }
}

impl From<PutError<BodyError>> for S3Error {
    fn from(error: PutError<BodyError>) -> Self {
        match error {
            PutError::Body(error) => error.into(),
            PutError::Md5Mismatch => md5_mismatch(),
            PutError::ChecksumMismatch(algorithm) => checksum_mismatch(algorithm),
            PutError::Metadata(error) => error.into(),
            PutError::TooSlow => Self::new(Code::SLOW_DOWN).retry_after(1),
            PutError::TooFewDisks(error) => Self::new(Code::SERVICE_UNAVAILABLE).retry_after(5).caused_by(&error),
            PutError::Full => Self::new(Code::INSUFFICIENT_STORAGE),
            PutError::Device(error) => Self::new(Code::INTERNAL_ERROR).caused_by(&error),
        }
    }
}

impl From<MalformedXml> for S3Error {
    fn from(_: MalformedXml) -> Self {
        Self::new(Code::MALFORMED_XML)
    }
}

impl From<AuthError> for S3Error {
    fn from(error: AuthError) -> Self {
        let named = Self::named(error.code(), error.status(), error.to_string());
        if let Some(region) = error.expected_region() {
            // In a header too: the answer to a HEAD has nothing else, and clients go where it says.
            return named.with("Region", region.to_owned()).with_header("x-amz-bucket-region", region.to_owned());
        }
        match error {
            AuthError::RequestTimeTooSkewed { server_unix_ms } => {
                named.with("ServerTime", date::iso(WallTime { unix_ms: server_unix_ms }))
            }
            AuthError::Unavailable => named.retry_after(1),
            _ => named,
        }
    }
}

impl From<TooOften> for S3Error {
    fn from(error: TooOften) -> Self {
        let seconds = error.wait.as_secs() + u64::from(error.wait.subsec_nanos() > 0);
        Self::saying(Code::TOO_OFTEN, error.to_string()).retry_after(seconds)
    }
}

impl From<BodyError> for S3Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Receive(ReceiveError::TimedOut) => Self::new(Code::REQUEST_TIMEOUT),
            BodyError::Receive(ReceiveError::Disconnected) => Self::new(Code::INCOMPLETE_BODY),
            other => Self::named(other.code(), other.status(), other.to_string()),
        }
    }
}

/// `Content-MD5` is not that of the bytes.
pub(crate) fn md5_mismatch() -> S3Error {
    S3Error::saying(Code::BAD_DIGEST, "The Content-MD5 you specified did not match what we received.")
}

/// A checksum is not that of the bytes.
pub(crate) fn checksum_mismatch(algorithm: ChecksumAlgorithm) -> S3Error {
    let message = format!("The {} you specified did not match the calculated checksum.", algorithm.name());
    S3Error::saying(Code::BAD_DIGEST, message)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anvil_model::ids::UploadId;
    use anvil_model::io::DeviceError;
    use anvil_node::metadata::usage::{QuotaExceeded, QuotaOwner, QuotaUnit};

    use super::*;
    use crate::s3::tests::head;

    fn xml(error: S3Error) -> (u16, String) {
        let response = error.response::<()>(&head("GET", "/abc/my%20key?x=y", &[]), "the-host");
        let Outgoing::Bytes(bytes) = response.body else { panic!("an error has a body") };
        assert_eq!(response.headers.last().unwrap().1, "application/xml");
        (response.status, String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn an_error_is_the_document_of_aws() {
        let route = Route::find(&head("GET", "/abc/my%20key", &[]), &Default::default(), None).unwrap();
        let (status, text) = xml(S3Error::from(Refusal::NoSuchKey).about(&route));
        assert_eq!(status, 404);
        assert_eq!(
            text,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code>\
             <Message>The specified key does not exist.</Message><Key>my key</Key><Resource>/abc/my%20key</Resource>\
             <RequestId>request-1</RequestId><HostId>the-host</HostId></Error>"
        );
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let response = S3Error::new(Code::NO_SUCH_KEY).response::<()>(&head("HEAD", "/abc/k", &[]), "host");
        assert_eq!(response.status, 404);
        assert!(matches!(response.body, Outgoing::Empty) && response.headers.is_empty());
    }

    const QUOTA: QuotaExceeded = QuotaExceeded { owner: QuotaOwner::Bucket, unit: QuotaUnit::Bytes, most: 7 };

    #[test]
    fn every_refusal_has_the_code_and_status_of_aws() {
        for (refusal, code, status) in [
            (Refusal::NoSuchBucket, "NoSuchBucket", 404),
            (Refusal::AccessDenied, "AccessDenied", 403),
            (Refusal::BucketAlreadyExists, "BucketAlreadyExists", 409),
            (Refusal::BucketAlreadyOwnedByYou, "BucketAlreadyOwnedByYou", 409),
            (Refusal::BucketNotEmpty, "BucketNotEmpty", 409),
            (Refusal::TooManyBuckets, "TooManyBuckets", 400),
            (Refusal::NoSuchKey, "NoSuchKey", 404),
            (Refusal::NoSuchUpload(UploadId(1)), "NoSuchUpload", 404),
            (Refusal::PreconditionFailed, "PreconditionFailed", 412),
            (Refusal::ConditionalRequestConflict, "ConditionalRequestConflict", 409),
            (Refusal::InvalidPart(3), "InvalidPart", 400),
            (Refusal::InvalidPartOrder, "InvalidPartOrder", 400),
            (Refusal::EntityTooSmall { number: 1, length: 2 }, "EntityTooSmall", 400),
            (Refusal::BadDigest, "BadDigest", 400),
            (Refusal::EntityTooLarge, "EntityTooLarge", 400),
            (Refusal::QuotaExceeded(QUOTA), "QuotaExceeded", 403),
            (Refusal::OperationAborted, "OperationAborted", 409),
            (Refusal::BucketBeingDeleted, "OperationAborted", 409),
            (Refusal::InvalidRequest("No."), "InvalidRequest", 400),
            (Refusal::WriterClosed, "InternalError", 500),
            (Refusal::BlobClaimed, "InternalError", 500),
        ] {
            let error = S3Error::from(refusal);
            assert_eq!((error.code(), error.status()), (code, status));
        }
    }

    #[test]
    fn what_may_be_repeated_says_when() {
        let unavailable = MetadataError::Unavailable { retry_after: Duration::from_secs(7) };
        for (error, seconds) in [(unavailable, "7"), (MetadataError::Unknown, "1")] {
            let response = S3Error::from(error).response::<()>(&head("HEAD", "/abc/k", &[]), "host");
            assert_eq!(response.status, 503);
            assert_eq!(response.headers, [("Retry-After".into(), seconds.to_owned())]);
        }
    }

    #[test]
    fn a_failed_put_keeps_its_cause_from_the_client() {
        let error = S3Error::from(PutError::<BodyError>::Device(DeviceError::Io(5)));
        assert_eq!((error.code(), error.status()), ("InternalError", 500));
        assert!(error.cause().unwrap().contains("os error 5"));
        assert!(!xml(error).1.contains("os error"));
        assert_eq!(S3Error::from(PutError::<BodyError>::Full).status(), 507);
        assert_eq!(S3Error::from(PutError::<BodyError>::Md5Mismatch).code(), "BadDigest");
        let mismatch = PutError::<BodyError>::ChecksumMismatch(ChecksumAlgorithm::Crc32c);
        assert_eq!(
            S3Error::from(mismatch).message(),
            "The CRC32C you specified did not match the calculated checksum."
        );
    }

    #[test]
    fn what_authentication_found_is_told_with_what_mends_it() {
        let place = crate::auth::Malformed::Header;
        let region = AuthError::WrongRegion { place, got: "b".to_owned(), expected: "a".to_owned() };
        let error = S3Error::from(region);
        assert_eq!(error.headers, [("x-amz-bucket-region".into(), "a".to_owned())]);
        let (status, text) = xml(error);
        assert_eq!(status, 400);
        assert!(text.contains("<Code>AuthorizationHeaderMalformed</Code>") && text.contains("<Region>a</Region>"));
        let (status, text) = xml(AuthError::RequestTimeTooSkewed { server_unix_ms: 784_111_777_000 }.into());
        assert_eq!(status, 403);
        assert!(text.contains("<ServerTime>1994-11-06T08:49:37.000Z</ServerTime>"), "{text}");
    }

    #[test]
    fn a_broken_body_is_the_clients_error() {
        let code = |error: BodyError| S3Error::from(error).code();
        assert_eq!(code(ReceiveError::TimedOut.into()), "RequestTimeout");
        assert_eq!(code(ReceiveError::Disconnected.into()), "IncompleteBody");
        assert_eq!(code(BodyError::PayloadHash), "XAmzContentSHA256Mismatch");
        assert_eq!(code(BodyError::MissingLength), "MissingContentLength");
    }
}
