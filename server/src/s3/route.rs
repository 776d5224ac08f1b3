//! Which operation a request asks for: one table for each level, keyed by method and subresources.
//!
//! **Invariant:** a query parameter that makes another operation of a request in AWS's API is never passed over: either
//! a row names it or the request is not implemented. Parameters that AWS does not know (`x-id`, a cache buster) are.

use anvil_model::ids::UploadId;
use anvil_model::limits::PART_NUMBER_MAX;
use anvil_model::object::{BucketName, InvalidKey, Key};

use super::error::{Code, S3Error};
use super::query::Query;
use crate::auth::uri;
use crate::http::Head;

/// An operation and what it works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// On the service itself.
    Service(ServiceOperation),
    /// On a bucket.
    Bucket(BucketName, BucketOperation),
    /// On an object.
    Object(BucketName, Key, ObjectOperation),
}

macro_rules! operations {
    ($(#[$doc:meta])* $name:ident { $($variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($variant),* }

        impl $name {
            /// All names, for tests of tables elsewhere.
            #[cfg(test)]
            pub(crate) const NAMES: &[&str] = &[$(stringify!($variant)),*];

            /// Its name in the API of AWS.
            const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),* }
            }
        }
    };
}

operations! {
    /// Operations without a bucket.
    ServiceOperation { ListBuckets }
}

operations! {
    /// Operations on a bucket.
    BucketOperation {
        CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation, GetBucketVersioning, GetBucketAcl, ListObjects,
        ListObjectsV2, ListObjectVersions, ListMultipartUploads, DeleteObjects, GetObjectLockConfiguration,
        GetBucketPolicy, GetBucketPolicyStatus, GetBucketTagging, GetBucketLifecycleConfiguration,
        GetBucketEncryption, GetBucketCors, GetBucketReplication, GetBucketWebsite,
        GetBucketNotificationConfiguration, GetBucketLogging, GetBucketAccelerateConfiguration,
        GetBucketRequestPayment, GetBucketOwnershipControls, GetPublicAccessBlock,
    }
}

operations! {
    /// Operations on an object.
    ObjectOperation {
        PutObject, GetObject, HeadObject, DeleteObject, GetObjectAcl, GetObjectAttributes, GetObjectTagging,
        GetObjectRetention, GetObjectLegalHold, CopyObject, CreateMultipartUpload, UploadPart, UploadPartCopy, ListParts,
        CompleteMultipartUpload, AbortMultipartUpload,
    }
}

/// Method, subresources that must all be there, operation.
type Row<O> = (&'static str, &'static [&'static str], O);

const SERVICE: &[Row<ServiceOperation>] = &[("GET", &[], ServiceOperation::ListBuckets)];

const BUCKET: &[Row<BucketOperation>] = &[
    ("PUT", &[], BucketOperation::CreateBucket),
    ("HEAD", &[], BucketOperation::HeadBucket),
    ("DELETE", &[], BucketOperation::DeleteBucket),
    ("GET", &["location"], BucketOperation::GetBucketLocation),
    ("GET", &["versioning"], BucketOperation::GetBucketVersioning),
    ("GET", &["acl"], BucketOperation::GetBucketAcl),
    ("GET", &[], BucketOperation::ListObjects),
    ("GET", &["list-type"], BucketOperation::ListObjectsV2),
    ("GET", &["versions"], BucketOperation::ListObjectVersions),
    ("GET", &["uploads"], BucketOperation::ListMultipartUploads),
    ("POST", &["delete"], BucketOperation::DeleteObjects),
    ("GET", &["object-lock"], BucketOperation::GetObjectLockConfiguration),
    ("GET", &["policy"], BucketOperation::GetBucketPolicy),
    ("GET", &["policyStatus"], BucketOperation::GetBucketPolicyStatus),
    ("GET", &["tagging"], BucketOperation::GetBucketTagging),
    ("GET", &["lifecycle"], BucketOperation::GetBucketLifecycleConfiguration),
    ("GET", &["encryption"], BucketOperation::GetBucketEncryption),
    ("GET", &["cors"], BucketOperation::GetBucketCors),
    ("GET", &["replication"], BucketOperation::GetBucketReplication),
    ("GET", &["website"], BucketOperation::GetBucketWebsite),
    ("GET", &["notification"], BucketOperation::GetBucketNotificationConfiguration),
    ("GET", &["logging"], BucketOperation::GetBucketLogging),
    ("GET", &["accelerate"], BucketOperation::GetBucketAccelerateConfiguration),
    ("GET", &["requestPayment"], BucketOperation::GetBucketRequestPayment),
    ("GET", &["ownershipControls"], BucketOperation::GetBucketOwnershipControls),
    ("GET", &["publicAccessBlock"], BucketOperation::GetPublicAccessBlock),
];

const OBJECT: &[Row<ObjectOperation>] = &[
    ("PUT", &[], ObjectOperation::PutObject),
    ("GET", &[], ObjectOperation::GetObject),
    ("HEAD", &[], ObjectOperation::HeadObject),
    ("DELETE", &[], ObjectOperation::DeleteObject),
    ("GET", &["partNumber"], ObjectOperation::GetObject),
    ("HEAD", &["partNumber"], ObjectOperation::HeadObject),
    ("GET", &["acl"], ObjectOperation::GetObjectAcl),
    ("GET", &["attributes"], ObjectOperation::GetObjectAttributes),
    ("GET", &["tagging"], ObjectOperation::GetObjectTagging),
    ("GET", &["retention"], ObjectOperation::GetObjectRetention),
    ("GET", &["legal-hold"], ObjectOperation::GetObjectLegalHold),
    ("POST", &["uploads"], ObjectOperation::CreateMultipartUpload),
    ("PUT", &["partNumber", "uploadId"], ObjectOperation::UploadPart),
    ("GET", &["uploadId"], ObjectOperation::ListParts),
    ("POST", &["uploadId"], ObjectOperation::CompleteMultipartUpload),
    ("DELETE", &["uploadId"], ObjectOperation::AbortMultipartUpload),
];

/// Every query parameter that selects an operation, or another version or part of an object, in AWS's API and in those
/// of MinIO that clients send.
const SUBRESOURCES: &[&str] = &[
    "abac",
    "accelerate",
    "acl",
    "analytics",
    "append",
    "attributes",
    "cors",
    "delete",
    "encryption",
    "events",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "list-type",
    "location",
    "logging",
    "metadataAnnotationTable",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "metadataTable",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "partNumber",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "renameObject",
    "replication",
    "replication-metrics",
    "replication-reset",
    "requestPayment",
    "restore",
    "retention",
    "select",
    "session",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];

impl Route {
    /// Finds the operation of a request whose query is read already. `in_host` is the bucket that its host names, if
    /// it does.
    ///
    /// # Errors
    /// `InvalidURI`, `InvalidBucketName` and `KeyTooLongError` for what names nothing, `NotImplemented` for what is an
    /// operation elsewhere, `MethodNotAllowed` for the rest.
    pub(crate) fn find(head: &Head, query: &Query, in_host: Option<&str>) -> Result<Self, S3Error> {
        let invalid_uri = || S3Error::new(Code::INVALID_URI);
        let path = head.path.strip_prefix('/').ok_or_else(invalid_uri)?;
        let mut present: Vec<&str> = SUBRESOURCES.iter().copied().filter(|name| query.has(name)).collect();
        if path.is_empty() && in_host.is_none() {
            return Ok(Self::Service(select(SERVICE, &head.method, &present)?));
        }
        let (bucket, key) = match in_host {
            Some(bucket) => (named_bucket(bucket.to_owned())?, path),
            None => {
                let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
                (bucket_name(bucket)?, key)
            }
        };
        let key = uri::decode_path(key).map_err(|_| invalid_uri())?;
        if key.is_empty() {
            return Ok(Self::Bucket(bucket, select(BUCKET, &head.method, &present)?));
        }
        if matches!(head.method.as_str(), "GET" | "HEAD" | "DELETE") {
            only_the_null_version(query)?;
            present.retain(|name| *name != "versionId");
        }
        let operation = select(OBJECT, &head.method, &present)?;
        Ok(Self::Object(bucket, object_key(key)?, of_a_source(head, operation)))
    }

    /// Headers that only this operation honours.
    pub(crate) const fn own_headers(&self) -> &'static [&'static str] {
        match self {
            Self::Object(_, _, ObjectOperation::CopyObject) => COPY_HEADERS,
            Self::Object(_, _, ObjectOperation::UploadPartCopy) => PART_COPY_HEADERS,
            _ => &[],
        }
    }

    /// The operation's name in the API of AWS.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Service(operation) => operation.name(),
            Self::Bucket(_, operation) => operation.name(),
            Self::Object(_, _, operation) => operation.name(),
        }
    }

    /// Whether the operation changes anything.
    pub(crate) const fn writes(&self) -> bool {
        use {BucketOperation as B, ObjectOperation as O};
        match self {
            Self::Service(_) => false,
            Self::Bucket(_, operation) => matches!(operation, B::CreateBucket | B::DeleteBucket | B::DeleteObjects),
            Self::Object(_, _, operation) => !matches!(
                operation,
                O::GetObject
                    | O::HeadObject
                    | O::GetObjectAcl
                    | O::GetObjectAttributes
                    | O::GetObjectTagging
                    | O::GetObjectRetention
                    | O::GetObjectLegalHold
                    | O::ListParts
            ),
        }
    }

    /// Whether the operation is a write that can be made to depend on what is there.
    pub(crate) const fn takes_conditions(&self) -> bool {
        use ObjectOperation as O;
        let Self::Object(_, _, operation) = self else { return false };
        matches!(
            operation,
            O::PutObject | O::CopyObject | O::DeleteObject | O::CreateMultipartUpload | O::CompleteMultipartUpload
        )
    }
}

/// A write that names a source takes its bytes from there and not from the request.
fn of_a_source(head: &Head, operation: ObjectOperation) -> ObjectOperation {
    let names_a_source = head.headers.iter().any(|(name, _)| name == "x-amz-copy-source");
    match operation {
        ObjectOperation::PutObject if names_a_source => ObjectOperation::CopyObject,
        ObjectOperation::UploadPart if names_a_source => ObjectOperation::UploadPartCopy,
        other => other,
    }
}

const COPY_HEADERS: &[&str] = &[
    "x-amz-copy-source",
    "x-amz-copy-source-if-match",
    "x-amz-copy-source-if-modified-since",
    "x-amz-copy-source-if-none-match",
    "x-amz-copy-source-if-unmodified-since",
    "x-amz-metadata-directive",
    "x-amz-source-expected-bucket-owner",
    "x-amz-tagging-directive",
];
const PART_COPY_HEADERS: &[&str] = &[
    "x-amz-copy-source",
    "x-amz-copy-source-if-match",
    "x-amz-copy-source-if-modified-since",
    "x-amz-copy-source-if-none-match",
    "x-amz-copy-source-if-unmodified-since",
    "x-amz-copy-source-range",
    "x-amz-source-expected-bucket-owner",
];

/// The upload that `uploadId` names.
pub(crate) fn upload_id(query: &Query) -> Result<UploadId, S3Error> {
    let text = query.value("uploadId").unwrap_or_default();
    text.parse().map_err(|_| S3Error::new(Code::NO_SUCH_UPLOAD).with("UploadId", text.to_owned()))
}

/// The part that `partNumber` names.
pub(crate) fn part_number(query: &Query) -> Result<u16, S3Error> {
    let text = query.value("partNumber").unwrap_or_default();
    let number = text.parse().ok().filter(|number| (1..=PART_NUMBER_MAX).contains(number));
    number.ok_or_else(|| {
        let message = format!("Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive");
        S3Error::argument("partNumber", text, message)
    })
}

/// Reads a key from decoded bytes.
pub(crate) fn object_key(bytes: Vec<u8>) -> Result<Key, S3Error> {
    let length = bytes.len();
    Key::new(bytes).map_err(|error| match error {
        InvalidKey::TooLong => S3Error::key_too_long(length),
        InvalidKey::Empty | InvalidKey::NotUtf8 => S3Error::new(Code::INVALID_URI),
    })
}

fn select<O: Copy>(table: &[Row<O>], method: &str, present: &[&str]) -> Result<O, S3Error> {
    if let Some((_, _, operation)) = table.iter().find(|(m, names, _)| *m == method && *names == present) {
        return Ok(*operation);
    }
    let known_method = table.iter().any(|(m, _, _)| *m == method);
    match present.first() {
        Some(subresource) => Err(S3Error::new(Code::NOT_IMPLEMENTED).with("Resource", format!("?{subresource}"))),
        None if known_method => Err(S3Error::new(Code::NOT_IMPLEMENTED)),
        None => Err(S3Error::new(Code::METHOD_NOT_ALLOWED)
            .with("Method", method.to_owned())
            .with_header("Allow", allowed(table))),
    }
}

fn allowed<O>(table: &[Row<O>]) -> String {
    let mut methods: Vec<&str> = table.iter().map(|(method, _, _)| *method).collect();
    methods.sort_unstable();
    methods.dedup();
    methods.join(", ")
}

fn bucket_name(encoded: &str) -> Result<BucketName, S3Error> {
    let bytes = uri::decode_path(encoded).map_err(|_| S3Error::new(Code::INVALID_URI))?;
    let text = String::from_utf8(bytes).map_err(|_| S3Error::new(Code::INVALID_URI))?;
    named_bucket(text)
}

fn named_bucket(text: String) -> Result<BucketName, S3Error> {
    BucketName::new(&text).map_err(|_| S3Error::new(Code::INVALID_BUCKET_NAME).with("BucketName", text))
}

/// Buckets have no versions but the current one of each key, and S3 calls that one `null`.
fn only_the_null_version(query: &Query) -> Result<(), S3Error> {
    match query.value("versionId") {
        None | Some("null") => Ok(()),
        Some(other) => Err(S3Error::argument("versionId", other, "Invalid version id specified")),
    }
}

const _: () = {
    let mut index = 1;
    while index < SUBRESOURCES.len() {
        assert!(is_before(SUBRESOURCES[index - 1], SUBRESOURCES[index]), "rows name subresources in sorted order");
        index += 1;
    }
};

const fn is_before(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut index = 0;
    while index < a.len() && index < b.len() {
        if a[index] != b[index] {
            return a[index] < b[index];
        }
        index += 1;
    }
    a.len() < b.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::tests::head;
    use proptest::prelude::*;

    fn find(method: &str, target: &str) -> Result<Route, S3Error> {
        let head = head(method, target, &[]);
        Route::find(&head, &Query::read(head.query.as_deref())?, None)
    }

    #[test]
    fn a_bucket_in_the_host_leaves_the_path_to_the_key() {
        let check = |method: &str, target: &str, bucket: &str, expected: &str| {
            let head = head(method, target, &[]);
            let route = Route::find(&head, &Query::read(head.query.as_deref()).unwrap(), Some(bucket));
            let found = match route {
                Ok(Route::Object(bucket, key, operation)) => format!("{} {bucket} {}", operation.name(), key.as_str()),
                Ok(Route::Bucket(bucket, operation)) => format!("{} {bucket}", operation.name()),
                Ok(Route::Service(operation)) => operation.name().to_owned(),
                Err(error) => error.code().to_owned(),
            };
            assert_eq!(found, expected, "{method} {target} of {bucket}");
        };
        check("GET", "/", "abc", "ListObjects abc");
        check("PUT", "/", "a.b.c", "CreateBucket a.b.c");
        check("GET", "/?uploads", "abc", "ListMultipartUploads abc");
        check("GET", "/abc/k", "abc", "GetObject abc abc/k");
        check("GET", "//k", "abc", "GetObject abc /k");
        check("PUT", "/metrics", "abc", "PutObject abc metrics");
        check("GET", "/k", "a_b", "InvalidBucketName");
    }

    fn check(method: &str, target: &str, expected: &str) {
        let found = match find(method, target) {
            Ok(route) => match &route {
                Route::Service(_) => route.name().to_owned(),
                Route::Bucket(bucket, _) => format!("{} {bucket}", route.name()),
                Route::Object(bucket, key, _) => format!("{} {bucket} {}", route.name(), key.as_str()),
            },
            Err(error) => error.code().to_owned(),
        };
        assert_eq!(found, expected, "{method} {target}");
    }

    #[test]
    fn every_operation_is_found() {
        for (method, target, expected) in [
            ("GET", "/", "ListBuckets"),
            ("GET", "/?x-id=ListBuckets", "ListBuckets"),
            ("PUT", "/abc", "CreateBucket abc"),
            ("PUT", "/abc/", "CreateBucket abc"),
            ("HEAD", "/abc", "HeadBucket abc"),
            ("DELETE", "/abc", "DeleteBucket abc"),
            ("GET", "/abc?location", "GetBucketLocation abc"),
            ("GET", "/abc?location=", "GetBucketLocation abc"),
            ("GET", "/abc?versioning", "GetBucketVersioning abc"),
            ("GET", "/abc?acl", "GetBucketAcl abc"),
            ("GET", "/abc", "ListObjects abc"),
            ("GET", "/abc?prefix=a&delimiter=/", "ListObjects abc"),
            ("GET", "/abc/?list-type=2&prefix=a", "ListObjectsV2 abc"),
            ("GET", "/abc?versions&prefix=p", "ListObjectVersions abc"),
            ("GET", "/abc?uploads", "ListMultipartUploads abc"),
            ("GET", "/abc?policy", "GetBucketPolicy abc"),
            ("GET", "/abc?object-lock", "GetObjectLockConfiguration abc"),
            ("GET", "/abc/k?partNumber=1", "GetObject abc k"),
            ("HEAD", "/abc/k?partNumber=1&versionId=null", "HeadObject abc k"),
            ("GET", "/abc/k?attributes", "GetObjectAttributes abc k"),
            ("GET", "/abc/k?tagging", "GetObjectTagging abc k"),
            ("POST", "/abc?delete", "DeleteObjects abc"),
            ("PUT", "/abc/k", "PutObject abc k"),
            ("PUT", "/abc/k?x-id=PutObject", "PutObject abc k"),
            ("GET", "/abc/k?response-content-type=a", "GetObject abc k"),
            ("GET", "/abc/k?versionId=null", "GetObject abc k"),
            ("HEAD", "/abc/k", "HeadObject abc k"),
            ("DELETE", "/abc/k?versionId=null", "DeleteObject abc k"),
            ("GET", "/abc/k?acl", "GetObjectAcl abc k"),
            ("POST", "/abc/k?uploads", "CreateMultipartUpload abc k"),
            ("PUT", "/abc/k?partNumber=1&uploadId=u", "UploadPart abc k"),
            ("PUT", "/abc/k?uploadId=u&partNumber=1", "UploadPart abc k"),
            ("GET", "/abc/k?uploadId=u", "ListParts abc k"),
            ("POST", "/abc/k?uploadId=u", "CompleteMultipartUpload abc k"),
            ("DELETE", "/abc/k?uploadId=u", "AbortMultipartUpload abc k"),
        ] {
            check(method, target, expected);
        }
    }

    #[test]
    fn a_write_that_names_a_source_is_a_copy() {
        let name = |method: &str, target: &str| {
            let head = head(method, target, &[("x-amz-copy-source", "abc/other")]);
            Route::find(&head, &Query::read(head.query.as_deref()).unwrap(), None).map(|route| route.name()).unwrap()
        };
        assert_eq!(name("PUT", "/abc/k"), "CopyObject");
        assert_eq!(name("PUT", "/abc/k?partNumber=1&uploadId=u"), "UploadPartCopy");
        assert_eq!(name("POST", "/abc/k?uploads"), "CreateMultipartUpload");
    }

    #[test]
    fn keys_are_decoded_once_and_never_normalised() {
        for (target, key) in [
            ("/abc//k", "/k"),
            ("/abc/a//b/", "a//b/"),
            ("/abc/../x/./y", "../x/./y"),
            ("/abc/a%2Fb", "a/b"),
            ("/abc/a%252Fb", "a%2Fb"),
            ("/abc/a+b%20c", "a+b c"),
            ("/abc/%C3%A9%00", "é\0"),
        ] {
            check("GET", target, &format!("GetObject abc {key}"));
        }
    }

    #[test]
    fn what_is_not_there_yet_is_never_taken_for_another_operation() {
        for subresource in SUBRESOURCES {
            for (method, target) in [("PUT", "/abc/k"), ("PUT", "/abc"), ("GET", "/"), ("DELETE", "/abc")] {
                check(method, &format!("{target}?{subresource}"), "NotImplemented");
                check(method, &format!("{target}?{subresource}=x&a=b"), "NotImplemented");
            }
        }
        for (method, target) in [
            ("PUT", "/abc/k?tagging"),
            ("DELETE", "/abc/k?tagging"),
            ("GET", "/abc/k?partNumber=1&tagging"),
            ("PUT", "/abc/k?partNumber=1"),
            ("PUT", "/abc/k?uploadId=u"),
            ("PUT", "/abc/k?partNumber=1&uploadId=u&tagging"),
            ("PUT", "/abc?versions"),
            ("GET", "/abc?list-type=2&versions"),
            ("GET", "/abc?inventory"),
            ("GET", "/abc?policy&versions"),
            ("DELETE", "/abc?lifecycle"),
            ("POST", "/abc"),
            ("POST", "/abc/k"),
            ("POST", "/abc/k?restore"),
        ] {
            check(method, target, "NotImplemented");
        }
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for (method, target, code) in [
            ("GET", "/ab", "InvalidBucketName"),
            ("GET", "//k", "InvalidBucketName"),
            ("GET", "/a%2Fbc/k", "InvalidBucketName"),
            ("GET", "/abc/%", "InvalidURI"),
            ("GET", "/abc/%zz", "InvalidURI"),
            ("GET", "/abc/%FF", "InvalidURI"),
            ("GET", "*", "InvalidURI"),
            ("PATCH", "/abc", "MethodNotAllowed"),
            ("PUT", "/", "MethodNotAllowed"),
            ("OPTIONS", "/abc/k", "MethodNotAllowed"),
            ("get", "/abc/k", "MethodNotAllowed"),
            ("GET", "/abc/k?versionId=abc", "InvalidArgument"),
            ("GET", "/abc/k?versionId=", "InvalidArgument"),
        ] {
            check(method, target, code);
        }
        check("GET", &format!("/abc/{}", "k".repeat(1025)), "KeyTooLongError");
        check("GET", &format!("/abc/{}", "%41".repeat(1024)), &format!("GetObject abc {}", "A".repeat(1024)));
    }

    #[test]
    fn a_method_that_is_not_allowed_is_told_which_are() {
        let error = find("PATCH", "/abc").unwrap_err();
        let response = error.response::<()>(&head("PATCH", "/abc", &[]), "host");
        assert_eq!(response.headers[0], ("Allow".into(), "DELETE, GET, HEAD, POST, PUT".to_owned()));
    }

    #[test]
    fn uploads_and_parts_are_named_strictly() {
        let part = |text: &str| part_number(&Query::read(Some(text)).unwrap()).ok();
        assert_eq!(part("partNumber=1"), Some(1));
        assert_eq!(part("partNumber=10000"), Some(10_000));
        for bad in ["", "partNumber=", "partNumber=0", "partNumber=10001", "partNumber=-1", "partNumber=1.0"] {
            assert_eq!(part(bad), None, "{bad}");
        }
        let upload = |text: &str| upload_id(&Query::read(Some(text)).unwrap());
        assert_eq!(upload("uploadId=0000000000000000000000000000000f").unwrap(), UploadId(15));
        assert_eq!(upload("uploadId=../x").unwrap_err().code(), "NoSuchUpload");
    }

    proptest! {
        #[test]
        fn no_target_breaks_the_router(method in "[A-Z]{1,7}|GET|PUT", path in "\\PC*", query in "\\PC*") {
            let _ = find(&method, &format!("/{path}?{query}"));
        }
    }
}
