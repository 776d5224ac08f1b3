//! CopyObject and UploadPartCopy.

use anvil_model::limits::COPY_BYTES_MAX;
use anvil_model::object::{BucketName, Key};
use anvil_model::time::WallTime;
use anvil_node::copy::{CopyError, CopyObject, CopyRange, Judge, Source};
use anvil_node::get::{Found, StreamError};
use anvil_node::metadata::{MetadataError, Refusal};
use anvil_node::multipart::UploadName;
use anvil_node::put::Stored;

use super::conditions::{self, SourceConditions};
use super::error::{Code, S3Error};
use super::headers::{self, single};
use super::route::object_key;
use super::xml::XmlWriter;
use super::{Answer, Request, S3, checksum, date, xml_response};
use crate::auth::{Payload, uri};
use crate::http::{Head, Incoming, NO_KEY};

impl S3 {
    pub(super) async fn copy_object<I: Incoming>(
        &self,
        request: &Request<'_>,
        bucket: BucketName,
        key: Key,
        payload: Payload,
        incoming: &mut I,
    ) -> Answer {
        let head = request.head;
        request.check_source_owner()?;
        let named = Named::read(head)?;
        request.check_source(&named.bucket, &named.key)?;
        let replaces = replaces(head, "x-amz-metadata-directive")?;
        replaces_tags(head)?;
        let demands = SourceConditions::read(head)?;
        let judge = |found: &Found| demands.check(&found.etag, found.last_modified);
        let algorithm = checksum::of_copy(head)?;
        let website = single(head, "x-amz-website-redirect-location")?.map(str::to_owned);
        let storage_class = headers::storage_class(head, self.node.classes())?;
        let changes = replaces || algorithm.is_some() || website.is_some() || storage_class.is_some();
        if !changes && (&named.bucket, &named.key) == (&bucket, &key) {
            return Err(S3Error::request(ONTO_ITSELF));
        }
        let headers = if replaces { Some(headers::of_object(head)?) } else { None };
        let conditions = conditions::of_write(head)?;
        request.document(payload, incoming, 0).await?;
        let copy = CopyObject {
            caller: request.caller(),
            source: named.source(demands.any().then_some(&judge)),
            bucket,
            key,
            headers,
            website_redirect_location: website,
            algorithm,
            conditions,
            storage_class,
        };
        let copied = self.node.copy_object(&copy).await.map_err(|error| refused(error, &named))?;
        let stored = Stored { etag: copied.etag, checksum: copied.checksum, size: copied.size };
        Ok(xml_response(result_xml("CopyObjectResult", &stored, copied.written.last_modified)))
    }

    pub(super) async fn copy_part<I: Incoming>(
        &self,
        request: &Request<'_>,
        upload: UploadName,
        number: u16,
        payload: Payload,
        incoming: &mut I,
    ) -> Answer {
        let head = request.head;
        request.check_source_owner()?;
        let named = Named::read(head)?;
        request.check_source(&named.bucket, &named.key)?;
        let range = copy_range(head)?;
        let demands = SourceConditions::read(head)?;
        let judge = |found: &Found| demands.check(&found.etag, found.last_modified);
        request.document(payload, incoming, 0).await?;
        let source = named.source(demands.any().then_some(&judge));
        let copied = self.node.copy_part(&upload, number, &source, &range).await;
        let (stored, written) = copied.map_err(|error| refused(error, &named))?;
        Ok(xml_response(result_xml("CopyPartResult", &stored, written.last_modified)))
    }
}

impl Request<'_> {
    fn check_source_owner(&self) -> Result<(), S3Error> {
        match single(self.head, "x-amz-source-expected-bucket-owner")? {
            Some(owner) if owner != super::owner_id(self.caller()) => Err(S3Error::new(Code::ACCESS_DENIED)),
            _ => Ok(()),
        }
    }
}

/// The object that `x-amz-copy-source` names.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    bucket: BucketName,
    key: Key,
}

impl Named {
    /// Reads `[/]bucket/key[?versionId=null]`, percent-encoded once.
    fn read(head: &Head) -> Result<Self, S3Error> {
        let text = single(head, SOURCE)?.unwrap_or_default();
        let wrong = |message: &'static str| S3Error::argument(SOURCE, text, message);
        if text.starts_with("arn:") {
            // The ARN of an access point: there are none.
            return Err(S3Error::header_not_implemented(SOURCE));
        }
        let (path, version) = text.split_once("?versionId=").map_or((text, None), |(path, id)| (path, Some(id)));
        if version.is_some_and(|version| version != "null") {
            return Err(wrong("Invalid version id specified"));
        }
        let decoded = uri::decode_path(path).map_err(|_| wrong("Invalid copy source encoding"))?;
        let decoded = decoded.strip_prefix(b"/").unwrap_or(&decoded);
        let slash = decoded.iter().position(|&byte| byte == b'/');
        let (bucket, key) = decoded.split_at(slash.ok_or_else(|| wrong(MENTIONS))?);
        let bucket = std::str::from_utf8(bucket).ok().and_then(|name| BucketName::new(name).ok());
        let bucket = bucket.ok_or_else(|| wrong("Invalid copy source bucket name"))?;
        match &key[1..] {
            [] => Err(wrong(MENTIONS)),
            key => Ok(Self { bucket, key: object_key(key.to_vec())? }),
        }
    }

    fn source<'c>(&self, judge: Option<&'c (impl Fn(&Found) -> Result<(), Refusal> + 'c)>) -> Source<'c> {
        let judge = judge.map(|judge| judge as Judge<'_>);
        Source { bucket: self.bucket.clone(), key: self.key.clone(), judge }
    }
}

/// Whether a directive says `REPLACE` rather than `COPY`.
fn replaces(head: &Head, name: &'static str) -> Result<bool, S3Error> {
    match single(head, name)? {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(other) => Err(S3Error::argument(name, other, "Unknown directive: it is COPY or REPLACE")),
    }
}

/// No object has tags yet, so none are copied, and none replace none; `x-amz-tagging` itself is refused with its name.
fn replaces_tags(head: &Head) -> Result<(), S3Error> {
    replaces(head, "x-amz-tagging-directive").map(drop)
}

/// `x-amz-copy-source-range: bytes=first-last`, in no other form.
fn copy_range(head: &Head) -> Result<CopyRange, S3Error> {
    const NAME: &str = "x-amz-copy-source-range";
    let Some(text) = single(head, NAME)? else { return Ok(CopyRange::Whole) };
    let number = |digits: &str| {
        let only_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| only_digits)
    };
    let bytes = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')).and_then(|(first, last)| {
        let (first, end) = (number(first)?, number(last)?.checked_add(1)?);
        (first < end).then_some(first..end)
    });
    bytes.map(CopyRange::Bytes).ok_or_else(|| {
        let message = "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are \
                       the zero-based offsets of the first and last bytes to copy";
        S3Error::argument(NAME, text, message)
    })
}

fn refused(error: CopyError, named: &Named) -> S3Error {
    match error {
        CopyError::Source(error) => {
            let code = match &error {
                MetadataError::Refused(refusal) => refusal.clone(),
                _ => return error.into(),
            };
            match code {
                Refusal::NoSuchKey => S3Error::from(code).with("Key", named.key.as_str().to_owned()),
                Refusal::NoSuchBucket => S3Error::from(code).with("BucketName", named.bucket.to_string()),
                other => other.into(),
            }
        }
        CopyError::Range(size) => S3Error::argument(
            "x-amz-copy-source-range",
            "",
            format!("Range specified is not valid for source object of size: {size}"),
        ),
        CopyError::Read(StreamError::NoKey(_)) => S3Error::saying(Code::SERVICE_UNAVAILABLE, NO_KEY),
        CopyError::Read(error) => S3Error::internal(&error),
        CopyError::Metadata(error) => error.into(),
    }
}

fn result_xml(root: &str, stored: &Stored, last_modified: WallTime) -> Vec<u8> {
    XmlWriter::document(root, |xml| {
        xml.text("LastModified", &date::iso(last_modified));
        xml.text("ETag", &format!("\"{}\"", stored.etag));
        // A composite checksum is of an object of parts, whose tag counts them.
        let parts = stored.etag.0.rsplit_once('-').and_then(|(_, count)| count.parse().ok());
        xml.text(checksum::element_name(stored.checksum.algorithm), &checksum::text(&stored.checksum, parts));
        if root == "CopyObjectResult" {
            xml.text("ChecksumType", checksum::type_name(stored.checksum.of));
        }
    })
}

/// The sentence of AWS for a copy that would change nothing.
const ONTO_ITSELF: &str = "This copy request is illegal because it is trying to copy an object to itself without changing \
    the object's metadata, storage class, website redirect location or encryption attributes.";
const MENTIONS: &str = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey";
const SOURCE: &str = "x-amz-copy-source";

/// The refusal of a source that is too large.
pub(super) fn too_large() -> S3Error {
    let message = format!(
        "The specified copy source is larger than the maximum allowable size for a copy source: {COPY_BYTES_MAX}"
    );
    S3Error::request(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::s3::tests::head;

    fn named(text: &str) -> Result<(String, String), &'static str> {
        let named = Named::read(&head("PUT", "/abc/k", &[(SOURCE, text)])).map_err(|error| error.code())?;
        Ok((named.bucket.to_string(), named.key.as_str().to_owned()))
    }

    #[test]
    fn a_source_is_decoded_once() {
        for (text, key) in [
            ("abc/k", "k"),
            ("/abc/k", "k"),
            ("/abc//k", "/k"),
            ("abc/a%2Fb%20c+d", "a/b c+d"),
            ("abc%2Fk", "k"),
            ("abc/%252F", "%2F"),
            ("abc/k%3FversionId=x", "k?versionId=x"),
            ("abc/k?versionId=null", "k"),
            ("abc/../x", "../x"),
            ("abc/%C3%A9", "é"),
        ] {
            assert_eq!(named(text), Ok(("abc".to_owned(), key.to_owned())), "{text}");
        }
        for (text, code) in [
            ("", "InvalidArgument"),
            ("abc", "InvalidArgument"),
            ("abc/", "InvalidArgument"),
            ("/abc", "InvalidArgument"),
            ("Abc/k", "InvalidArgument"),
            ("abc/k?versionId=v1", "InvalidArgument"),
            ("abc/%zz", "InvalidArgument"),
            ("abc/%FF", "InvalidURI"),
            ("arn:aws:s3:us-west-2:1:accesspoint/a/object/b", "NotImplemented"),
        ] {
            assert_eq!(named(text), Err(code), "{text}");
        }
    }

    #[test]
    fn a_range_has_both_ends() {
        let read = |text: &str| copy_range(&head("PUT", "/abc/k", &[("x-amz-copy-source-range", text)])).ok();
        assert_eq!(copy_range(&head("PUT", "/abc/k", &[])).unwrap(), CopyRange::Whole);
        assert_eq!(read("bytes=0-9"), Some(CopyRange::Bytes(0..10)));
        assert_eq!(read("bytes=5-5"), Some(CopyRange::Bytes(5..6)));
        for bad in ["", "0-9", "bytes=-5", "bytes=5-", "bytes=9-5", "bytes=a-b", "bytes=0-18446744073709551615"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_directive_is_one_of_two() {
        let read = |text: &str| {
            replaces(&head("PUT", "/abc/k", &[("x-amz-metadata-directive", text)]), "x-amz-metadata-directive").ok()
        };
        assert_eq!((read("COPY"), read("REPLACE"), read("replace"), read("")), (Some(false), Some(true), None, None));
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_source(text in "\\PC*|[/a-z0-9%?=]{0,40}") {
            let _ = named(&text);
            let _ = copy_range(&head("PUT", "/abc/k", &[("x-amz-copy-source-range", &text)]));
        }
    }
}
