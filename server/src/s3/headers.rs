//! Headers of requests: read strictly, and never passed over when they ask for something that is not there.

use std::borrow::Cow;

use anvil_model::limits::USER_METADATA_BYTES_MAX;
use anvil_model::object::{ChecksumAlgorithm, Headers};
use anvil_node::classes::Classes;
use anvil_node::metadata::rows::StorageClass;
use anvil_node::put::Expected;

use super::checksum;
use super::error::{Code, S3Error};
use super::query::Query;
use crate::http::Head;

/// The value of a header that has one meaning; `name` in lower case.
///
/// # Errors
/// `InvalidArgument` when it came twice or is not UTF-8.
pub(crate) fn single<'a>(head: &'a Head, name: &str) -> Result<Option<&'a str>, S3Error> {
    let mut values = head.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(S3Error::argument("Header", name, "The header was given more than once"));
    }
    std::str::from_utf8(value).map(Some).map_err(|_| not_text(name))
}

/// All values of a header that is a list, joined as RFC 9110 (5.3) says.
fn list(head: &Head, name: &str) -> Result<Option<String>, S3Error> {
    let values = head.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| std::str::from_utf8(value));
    let values: Vec<&str> = values.collect::<Result<_, _>>().map_err(|_| not_text(name))?;
    Ok(if values.is_empty() { None } else { Some(values.join(",")) })
}

fn not_text(name: &str) -> S3Error {
    S3Error::argument("Header", name, "The value of the header is not UTF-8 text")
}

/// What the client says of an object and wants back with it.
///
/// # Errors
/// `MetadataTooLarge` and what [`single`] refuses.
pub(crate) fn of_object(head: &Head) -> Result<Headers, S3Error> {
    let text = |name| single(head, name).map(|value| value.filter(|text| !text.is_empty()).map(str::to_owned));
    Ok(Headers {
        content_type: text("content-type")?,
        cache_control: list(head, "cache-control")?.filter(|text| !text.is_empty()),
        content_disposition: text("content-disposition")?,
        content_encoding: list(head, "content-encoding")?.and_then(|text| without_aws_chunked(&text)),
        content_language: list(head, "content-language")?.filter(|text| !text.is_empty()),
        expires: text("expires")?,
        website_redirect_location: text("x-amz-website-redirect-location")?,
        user: user_metadata(head)?,
    })
}

/// `aws-chunked` is how the body came, not what the object is.
fn without_aws_chunked(codings: &str) -> Option<String> {
    let kept: Vec<&str> =
        codings.split(',').map(str::trim).filter(|c| !c.is_empty() && !c.eq_ignore_ascii_case("aws-chunked")).collect();
    if kept.is_empty() { None } else { Some(kept.join(",")) }
}

fn user_metadata(head: &Head) -> Result<Vec<(String, String)>, S3Error> {
    let mut user: Vec<(String, String)> = Vec::new();
    for (name, value) in &head.headers {
        let Some(name) = name.strip_prefix("x-amz-meta-") else { continue };
        let value = std::str::from_utf8(value).map_err(|_| not_text(name))?;
        match user.iter_mut().find(|(n, _)| n == name) {
            Some((_, values)) => {
                values.push(',');
                values.push_str(value);
            }
            None => user.push((name.to_owned(), value.to_owned())),
        }
    }
    let bytes: usize = user.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > USER_METADATA_BYTES_MAX {
        return Err(S3Error::new(Code::METADATA_TOO_LARGE)
            .with("Size", bytes.to_string())
            .with("MaxSizeAllowed", USER_METADATA_BYTES_MAX.to_string()));
    }
    Ok(user)
}

/// The storage class that the client wants, when it names one.
///
/// # Errors
/// `InvalidStorageClass` when it is none of `classes`.
pub(crate) fn storage_class(head: &Head, classes: &Classes) -> Result<Option<StorageClass>, S3Error> {
    let Some(text) = single(head, "x-amz-storage-class")? else { return Ok(None) };
    let class: Option<StorageClass> = text.parse().ok().filter(|class| classes.find(class).is_some());
    let unknown = || S3Error::new(Code::INVALID_STORAGE_CLASS).with("StorageClassRequested", text.to_owned());
    class.map(Some).ok_or_else(unknown)
}

/// What the client says of the bytes that it sends; `trailing` is the checksum that its trailer will bring.
pub(crate) fn expected(head: &Head, trailing: Option<ChecksumAlgorithm>) -> Result<Expected, S3Error> {
    let checksum = checksum::of_bytes(head)?;
    checksum::check_announcement(head, checksum.as_ref().map(|checksum| checksum.algorithm).or(trailing))?;
    Ok(Expected { md5: checksum::content_md5(head)?, checksum, algorithm: trailing })
}

/// Refuses every header that AWS would act on and this server does not. On writes that is every `x-amz-*` that is not
/// known here or one of the operation's `own`; on reads, where a hint may be passed over, those that name a key without which AWS gives no bytes.
///
/// # Errors
/// `NotImplemented`, naming the header.
pub(crate) fn refuse_unknown(head: &Head, writes: bool, own: &[&str]) -> Result<(), S3Error> {
    if writes && head.headers.iter().any(|(name, _)| name == "content-range") {
        // A partial PUT (RFC 9110, 14.5), which S3 does not know: taken as a whole it would truncate the object.
        return Err(S3Error::header_not_implemented("content-range"));
    }
    for (name, value) in head.headers.iter().filter(|(name, _)| name.starts_with("x-amz-")) {
        let accepted = if writes {
            own.contains(&name.as_str()) || is_accepted(name, value)
        } else {
            !name.starts_with("x-amz-server-side-encryption")
        };
        if !accepted {
            return Err(S3Error::header_not_implemented(name));
        }
    }
    Ok(())
}

fn is_accepted(name: &str, value: &[u8]) -> bool {
    let only = |accepted: &[&str]| accepted.iter().any(|text| value.eq_ignore_ascii_case(text.as_bytes()));
    match name {
        "x-amz-acl" => only(&["private", "bucket-owner-full-control"]),
        "x-amz-object-ownership" => only(&["BucketOwnerEnforced"]),
        "x-amz-api-version" => only(&["2006-03-01"]),
        "x-amz-bucket-object-lock-enabled" | "x-amz-bypass-governance-retention" => only(&["false"]),
        _ => name.starts_with("x-amz-meta-") || HONOURED.contains(&name),
    }
}

/// Headers of writes that are acted on, or that say nothing about what is stored.
const HONOURED: &[&str] = &[
    "x-amz-checksum-algorithm",
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-mode",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
    "x-amz-checksum-type",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-expected-bucket-owner",
    "x-amz-mp-object-size",
    "x-amz-request-payer",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-security-token",
    "x-amz-storage-class",
    "x-amz-trailer",
    "x-amz-user-agent",
    "x-amz-website-redirect-location",
];

/// The head with the `x-amz-*` parameters of its query as headers: a presigned URL carries there what its signer could
/// not leave to the one who uses it, and AWS takes one for the other.
///
/// # Errors
/// `InvalidArgument` when a parameter could not have been a header.
pub(crate) fn with_query_headers<'a>(head: &'a Head, query: &Query) -> Result<Cow<'a, Head>, S3Error> {
    let mut head = Cow::Borrowed(head);
    for (name, value) in query.iter() {
        let lower = name.to_ascii_lowercase();
        if !lower.starts_with("x-amz-") || SIGNATURE.contains(&lower.as_str()) {
            continue;
        }
        let is_token = lower.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        if !is_token || !is_field_value(value) {
            return Err(S3Error::argument("Query", name, "The parameter cannot stand for a header"));
        }
        head.to_mut().headers.push((lower, value.trim().as_bytes().to_vec()));
    }
    Ok(head)
}

/// Parameters of the signature itself.
const SIGNATURE: &[&str] = &[
    "x-amz-algorithm",
    "x-amz-content-sha256",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-storage-class",
    "x-amz-signature",
    "x-amz-signedheaders",
];

/// Whether a header may have this value: anything less could end the header and begin another.
pub(crate) fn is_field_value(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\t')
}

#[cfg(test)]
mod tests {
    use anvil_model::profile::Profile;

    use super::*;
    use crate::s3::tests::head;

    fn put(headers: &[(&str, &str)]) -> Head {
        head("PUT", "/abc/k", headers)
    }

    #[test]
    fn an_objects_headers_are_kept_as_sent() {
        let head = put(&[
            ("content-type", "text/plain"),
            ("content-encoding", "aws-chunked,gzip"),
            ("cache-control", "no-cache"),
            ("cache-control", "private"),
            ("content-disposition", ""),
            ("expires", "never"),
            ("x-amz-meta-b", "2"),
            ("x-amz-meta-a", "é"),
            ("x-amz-meta-b", "3"),
        ]);
        let headers = of_object(&head).unwrap();
        assert_eq!(headers.content_type.as_deref(), Some("text/plain"));
        assert_eq!(headers.content_encoding.as_deref(), Some("gzip"));
        assert_eq!(headers.cache_control.as_deref(), Some("no-cache,private"));
        assert_eq!(headers.content_disposition, None);
        assert_eq!(headers.expires.as_deref(), Some("never"));
        let user = [("b", "2,3"), ("a", "é")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(headers.user, user);
        assert_eq!(of_object(&put(&[("content-encoding", "aws-chunked")])).unwrap().content_encoding, None);
    }

    #[test]
    fn user_metadata_has_a_limit() {
        let fits = "v".repeat(USER_METADATA_BYTES_MAX - 1);
        assert!(of_object(&put(&[("x-amz-meta-n", &fits)])).is_ok());
        let over = format!("{fits}v");
        assert_eq!(of_object(&put(&[("x-amz-meta-n", &over)])).unwrap_err().code(), "MetadataTooLarge");
    }

    #[test]
    fn a_header_with_one_meaning_comes_once_and_is_text() {
        let twice = put(&[("content-type", "a"), ("content-type", "b")]);
        assert_eq!(of_object(&twice).unwrap_err().code(), "InvalidArgument");
        let mut bytes = put(&[]);
        bytes.headers.push(("x-amz-meta-a".to_owned(), vec![0xff]));
        assert_eq!(of_object(&bytes).unwrap_err().code(), "InvalidArgument");
    }

    #[test]
    fn what_changes_a_write_is_honoured_or_refused() {
        for (name, value) in [
            ("x-amz-server-side-encryption", "AES256"),
            ("x-amz-server-side-encryption-customer-key", "k"),
            ("x-amz-object-lock-mode", "GOVERNANCE"),
            ("x-amz-object-lock-legal-hold", "ON"),
            ("x-amz-tagging", "a=b"),
            ("x-amz-grant-read", "id=1"),
            ("x-amz-acl", "public-read"),
            ("x-amz-copy-source", "/abc/other"),
            ("x-amz-write-offset-bytes", "5"),
            ("x-amz-bucket-object-lock-enabled", "true"),
            ("x-amz-checksum-md5", "m"),
            ("x-amz-if-match-size", "1"),
            ("x-amz-mfa", "1"),
            ("x-amz-of-tomorrow", "1"),
            ("content-range", "bytes 0-1/5"),
        ] {
            assert_eq!(
                refuse_unknown(&put(&[(name, value)]), true, &[]).unwrap_err().code(),
                "NotImplemented",
                "{name}"
            );
        }
        for (name, value) in [
            ("x-amz-acl", "private"),
            ("x-amz-api-version", "2006-03-01"),
            ("x-amz-acl", "bucket-owner-full-control"),
            ("x-amz-storage-class", "STANDARD"),
            ("x-amz-checksum-mode", "ENABLED"),
            ("x-amz-meta-anything", "at all"),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
            ("x-amz-bucket-object-lock-enabled", "false"),
            ("amz-sdk-invocation-id", "1"),
            ("x-forwarded-for", "1"),
        ] {
            assert!(refuse_unknown(&put(&[(name, value)]), true, &[]).is_ok(), "{name}: {value}");
        }
    }

    #[test]
    fn a_read_passes_over_hints_but_not_keys() {
        assert!(refuse_unknown(&put(&[("x-amz-optional-object-attributes", "RestoreStatus")]), false, &[]).is_ok());
        let with_key = put(&[("x-amz-server-side-encryption-customer-key", "k")]);
        assert_eq!(refuse_unknown(&with_key, false, &[]).unwrap_err().code(), "NotImplemented");
    }

    #[test]
    fn a_presigned_query_carries_headers() {
        let read = |query: &str| {
            let head = head("PUT", &format!("/abc/k?{query}"), &[]);
            with_query_headers(&head, &Query::read(head.query.as_deref())?).map(|head| head.headers.clone())
        };
        let hoisted = read("X-Amz-Signature=s&X-Amz-Tagging=a%3Db&X-Amz-Date=d&prefix=p").unwrap();
        assert_eq!(hoisted, [("x-amz-tagging".to_owned(), b"a=b".to_vec())]);
        for bad in ["x-amz-meta-a=1%0d%0aX:%20y", "x-amz-meta-a%0d%0ab=1", "x-amz-meta-a%3a=1"] {
            assert_eq!(read(bad).unwrap_err().code(), "InvalidArgument", "{bad}");
        }
    }

    #[test]
    fn a_storage_class_is_one_that_the_node_knows() {
        let cold: StorageClass = "COLD".parse().unwrap();
        let classes = Classes::standard_only(Profile::SINGLE).with(cold.clone(), Profile::SINGLE);
        let class = |text: &str| storage_class(&put(&[("x-amz-storage-class", text)]), &classes);
        assert_eq!(storage_class(&put(&[]), &classes).unwrap(), None);
        assert_eq!(class("STANDARD").unwrap(), Some(StorageClass::Standard));
        assert_eq!(class("COLD").unwrap(), Some(cold));
        for unknown in ["GLACIER", "standard", ""] {
            assert_eq!(class(unknown).unwrap_err().code(), "InvalidStorageClass", "{unknown:?}");
        }
    }

    #[test]
    fn what_is_expected_of_the_bytes_is_read() {
        let expected = expected(&put(&[("content-md5", "JfnnlDI7RTiF9RgfG2JNCw==")]), Some(ChecksumAlgorithm::Crc32));
        let expected = expected.unwrap();
        assert_eq!(expected.md5.unwrap(), anvil_digest::md5(b"123456789"));
        assert_eq!((expected.checksum, expected.algorithm), (None, Some(ChecksumAlgorithm::Crc32)));
    }
}
