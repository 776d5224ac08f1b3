//! GetObject and HeadObject.

use std::borrow::Cow;
use std::ops::Range;

use anvil_model::object::{BucketName, Checksum, Etag, Headers, Key};
use anvil_model::time::WallTime;
use anvil_node::get::Found;
use anvil_node::metadata::query::{FoundPart, ReadFrom};
use anvil_node::metadata::rows::StorageClass;

use super::conditions::{self, Verdict};
use super::error::{Code, S3Error};
use super::headers::{is_field_value, single};
use super::query::Query;
use super::range::{Asked, Selection};
use super::route::part_number;
use super::{Answer, Request, S3, checksum, date};
use crate::http::{Head, Outgoing, Response};

impl S3 {
    pub(super) async fn get_object(&self, request: &Request<'_>, bucket: BucketName, key: Key) -> Answer {
        let part = asked_part(request.head, &request.query)?;
        let read_from = part.map_or_else(|| read_from(request.head), |number| Ok(ReadFrom::Part(number)))?;
        let found = self.open(request, bucket, key, Some(read_from)).await?;
        let Reply { status, headers, bytes } = reply(request.head, &request.query, part, &Version::from(&found))?;
        let body = match bytes {
            Some(bytes) if !bytes.is_empty() => {
                Outgoing::Object { length: bytes.end - bytes.start, reader: self.node.read(&found, bytes) }
            }
            _ => Outgoing::Empty,
        };
        Ok(Response { status, headers, body })
    }

    pub(super) async fn head_object(&self, request: &Request<'_>, bucket: BucketName, key: Key) -> Answer {
        let part = asked_part(request.head, &request.query)?;
        let found = self.open(request, bucket, key, part.map(ReadFrom::Part)).await?;
        let Reply { status, headers, bytes } = reply(request.head, &request.query, part, &Version::from(&found))?;
        let body = bytes.map_or(Outgoing::Empty, |bytes| Outgoing::Announced(bytes.end - bytes.start));
        Ok(Response { status, headers, body })
    }
}

/// The part that `partNumber` names.
fn asked_part(head: &Head, query: &Query) -> Result<Option<u16>, S3Error> {
    if !query.has("partNumber") {
        return Ok(None);
    }
    if single(head, "range")?.is_some() {
        return Err(S3Error::request("Cannot specify both Range header and partNumber query parameter"));
    }
    part_number(query).map(Some)
}

/// Where the read will most likely begin, for the look-up to bring the places along.
fn read_from(head: &Head) -> Result<ReadFrom, S3Error> {
    Ok(match single(head, "range")?.and_then(Asked::read) {
        Some(Asked::From(first, _)) => ReadFrom::Start(first),
        Some(Asked::Last(count)) => ReadFrom::Last(count),
        None => ReadFrom::Start(0),
    })
}

/// What an answer says of a version.
struct Version<'a> {
    headers: &'a Headers,
    etag: &'a Etag,
    checksum: &'a Checksum,
    size: u64,
    last_modified: WallTime,
    parts: Option<u16>,
    storage_class: &'a StorageClass,
    part: Option<&'a FoundPart>,
}

impl<'a> From<&'a Found> for Version<'a> {
    fn from(found: &'a Found) -> Self {
        Self {
            headers: &found.headers,
            etag: &found.etag,
            checksum: &found.checksum,
            size: found.size,
            last_modified: found.last_modified,
            parts: found.parts,
            storage_class: &found.storage_class,
            part: found.part.as_ref(),
        }
    }
}

/// An answer without its body.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: Vec<(Cow<'static, str>, String)>,
    /// Which bytes of the object follow; `None` for an answer that has none.
    bytes: Option<Range<u64>>,
}

/// Decides how a GET or HEAD of this version is answered; `part` is the number of the only part that is wanted.
fn reply(head: &Head, query: &Query, part: Option<u16>, version: &Version<'_>) -> Result<Reply, S3Error> {
    match conditions::judge(head, version.etag, version.last_modified)? {
        Verdict::Failed(condition) => return Err(conditions::failed(condition)),
        Verdict::NotModified => {
            return Ok(Reply { status: 304, headers: validators(version), bytes: None });
        }
        Verdict::Proceed => {}
    }
    if let Some(number) = part {
        return part_reply(head, query, number, version);
    }
    let header = single(head, "range")?;
    let applies = header.is_some() && conditions::range_applies(head, version.etag, version.last_modified)?;
    let asked = header.filter(|_| applies).and_then(Asked::read);
    let selection = asked.map_or(Selection::Whole, |asked| asked.select(version.size));
    let mut headers = validators(version);
    described(&mut headers, query, version)?;
    match selection {
        Selection::Whole => {
            push_checksum(&mut headers, head, version, version.checksum)?;
            Ok(Reply { status: 200, headers, bytes: Some(0..version.size) })
        }
        Selection::Part(bytes) => {
            headers.push(content_range(&bytes, version.size));
            Ok(Reply { status: 206, headers, bytes: Some(bytes) })
        }
        Selection::Unsatisfiable => Err(S3Error::new(Code::INVALID_RANGE)
            .with("RangeRequested", header.unwrap_or_default().to_owned())
            .with("ActualObjectSize", version.size.to_string())
            .with_header("Content-Range", format!("bytes */{}", version.size))),
    }
}

/// Decides how a GET or HEAD of one part is answered. An object that was not uploaded in parts is its own first part.
fn part_reply(head: &Head, query: &Query, number: u16, version: &Version<'_>) -> Result<Reply, S3Error> {
    let (bytes, checksum) = match (version.parts, version.part) {
        (None, _) if number == 1 => (0..version.size, version.checksum),
        (Some(_), Some(found)) => (found.start..found.start + found.part.size, &found.part.checksum),
        _ => {
            return Err(S3Error::new(Code::INVALID_PART_NUMBER)
                .with("PartNumberRequested", number.to_string())
                .with("ActualPartCount", version.parts.unwrap_or(1).to_string()));
        }
    };
    let mut headers = validators(version);
    described(&mut headers, query, version)?;
    if let Some(count) = version.parts {
        headers.push(("x-amz-mp-parts-count".into(), count.to_string()));
    }
    push_checksum(&mut headers, head, version, checksum)?;
    // No range of bytes is empty: an empty part has no form but that of a whole answer.
    if bytes.is_empty() {
        return Ok(Reply { status: 200, headers, bytes: Some(bytes) });
    }
    headers.push(content_range(&bytes, version.size));
    Ok(Reply { status: 206, headers, bytes: Some(bytes) })
}

fn content_range(bytes: &Range<u64>, size: u64) -> (Cow<'static, str>, String) {
    ("Content-Range".into(), format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1))
}

/// Says the checksum of the bytes that are answered, to those who want it.
fn push_checksum(
    headers: &mut Vec<(Cow<'static, str>, String)>,
    head: &Head,
    version: &Version<'_>,
    checksum: &Checksum,
) -> Result<(), S3Error> {
    if single(head, "x-amz-checksum-mode")?.is_some_and(|mode| mode.eq_ignore_ascii_case("ENABLED")) {
        headers.push((checksum::header_name(checksum.algorithm).into(), checksum::text(checksum, version.parts)));
        headers.push(("x-amz-checksum-type".into(), checksum::type_name(version.checksum.of).to_owned()));
    }
    Ok(())
}

/// What a cache compares.
fn validators(version: &Version<'_>) -> Vec<(Cow<'static, str>, String)> {
    vec![("ETag".into(), format!("\"{}\"", version.etag)), ("Last-Modified".into(), date::http(version.last_modified))]
}

/// What the client said of the object, with what the query wants said instead.
fn described(
    headers: &mut Vec<(Cow<'static, str>, String)>,
    query: &Query,
    version: &Version<'_>,
) -> Result<(), S3Error> {
    let kept = version.headers;
    headers.push(("Accept-Ranges".into(), "bytes".to_owned()));
    for (name, parameter, value) in [
        ("Content-Type", "response-content-type", &kept.content_type),
        ("Cache-Control", "response-cache-control", &kept.cache_control),
        ("Content-Disposition", "response-content-disposition", &kept.content_disposition),
        ("Content-Encoding", "response-content-encoding", &kept.content_encoding),
        ("Content-Language", "response-content-language", &kept.content_language),
        ("Expires", "response-expires", &kept.expires),
    ] {
        let instead = query.non_empty(parameter);
        if let Some(text) = instead.filter(|text| !is_field_value(text)) {
            return Err(S3Error::argument(parameter, text, "Header value cannot be represented"));
        }
        if let Some(text) = instead.or(value.as_deref()) {
            headers.push((name.into(), text.to_owned()));
        } else if name == "Content-Type" {
            headers.push((name.into(), CONTENT_TYPE_DEFAULT.to_owned()));
        }
    }
    // As AWS does: only of what is not the rule.
    if *version.storage_class != StorageClass::Standard {
        headers.push(("x-amz-storage-class".into(), version.storage_class.to_string()));
    }
    if let Some(location) = &kept.website_redirect_location {
        headers.push(("x-amz-website-redirect-location".into(), location.clone()));
    }
    for (name, value) in &kept.user {
        headers.push((format!("x-amz-meta-{name}").into(), value.clone()));
    }
    Ok(())
}

/// What AWS says of an object that nobody gave a type.
const CONTENT_TYPE_DEFAULT: &str = "binary/octet-stream";

#[cfg(test)]
mod tests {
    use anvil_model::object::{ChecksumAlgorithm, ChecksumType};
    use anvil_node::metadata::rows::SegmentPart;

    use super::*;
    use crate::s3::tests::head;

    fn answer(target: &str, request: &[(&str, &str)], size: u64) -> Result<Reply, S3Error> {
        answer_of_parts(target, request, size, Some(2), None)
    }

    fn answer_of_parts(
        target: &str,
        request: &[(&str, &str)],
        size: u64,
        parts: Option<u16>,
        part: Option<&FoundPart>,
    ) -> Result<Reply, S3Error> {
        let kept = Headers {
            content_type: Some("text/plain".to_owned()),
            user: vec![("a".to_owned(), "b".to_owned())],
            ..Headers::default()
        };
        let checksum =
            Checksum { algorithm: ChecksumAlgorithm::Crc32, of: ChecksumType::Composite, value: vec![0, 1, 2, 3] };
        let version = Version {
            headers: &kept,
            etag: &Etag("tag".to_owned()),
            checksum: &checksum,
            size,
            last_modified: WallTime { unix_ms: 784_111_777_000 },
            parts,
            storage_class: &StorageClass::Standard,
            part,
        };
        let head = head("GET", target, request);
        let query = Query::read(head.query.as_deref())?;
        reply(&head, &query, asked_part(&head, &query)?, &version)
    }

    #[test]
    fn a_part_comes_with_its_place_and_its_own_checksum() {
        let checksum =
            Checksum { algorithm: ChecksumAlgorithm::Crc32, of: ChecksumType::FullObject, value: vec![4, 5, 6, 7] };
        let part = SegmentPart { number: 7, size: 4, etag: Etag("p".to_owned()), checksum };
        let found = FoundPart { start: 6, part };
        let mode = [("x-amz-checksum-mode", "ENABLED")];
        let reply = answer_of_parts("/abc/k?partNumber=7", &mode, 10, Some(2), Some(&found)).unwrap();
        assert_eq!((reply.status, reply.bytes.clone()), (206, Some(6..10)));
        let told = lines(&reply);
        for line in [
            "x-amz-mp-parts-count: 2",
            "Content-Range: bytes 6-9/10",
            "x-amz-checksum-crc32: BAUGBw==",
            "x-amz-checksum-type: COMPOSITE",
        ] {
            assert!(told.iter().any(|told| told == line), "{line} of {told:?}");
        }
        let whole = answer_of_parts("/abc/k?partNumber=1", &[], 10, None, None).unwrap();
        assert_eq!((whole.status, whole.bytes.clone()), (206, Some(0..10)));
        assert!(!lines(&whole).iter().any(|line| line.starts_with("x-amz-mp-parts-count")));
        assert_eq!(answer_of_parts("/abc/k?partNumber=1", &[], 0, None, None).unwrap().status, 200);
    }

    #[test]
    fn a_part_that_is_not_there_is_not_a_range() {
        let refused = |target: &str, headers: &[(&str, &str)], parts| {
            let error = answer_of_parts(target, headers, 10, parts, None).unwrap_err();
            (error.code(), error.status())
        };
        assert_eq!(refused("/abc/k?partNumber=3", &[], Some(2)), ("InvalidPartNumber", 416));
        assert_eq!(refused("/abc/k?partNumber=2", &[], None), ("InvalidPartNumber", 416));
        assert_eq!(refused("/abc/k?partNumber=0", &[], Some(2)), ("InvalidArgument", 400));
        assert_eq!(refused("/abc/k?partNumber=10001", &[], Some(2)), ("InvalidArgument", 400));
        assert_eq!(refused("/abc/k?partNumber=1", &[("range", "bytes=0-1")], Some(2)), ("InvalidRequest", 400));
    }

    fn lines(reply: &Reply) -> Vec<String> {
        reply.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    #[test]
    fn a_whole_object_comes_with_all_that_is_known_of_it() {
        let reply = answer("/abc/k", &[("x-amz-checksum-mode", "ENABLED")], 10).unwrap();
        assert_eq!((reply.status, reply.bytes.clone()), (200, Some(0..10)));
        assert_eq!(
            lines(&reply),
            [
                "ETag: \"tag\"",
                "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
                "Accept-Ranges: bytes",
                "Content-Type: text/plain",
                "x-amz-meta-a: b",
                "x-amz-checksum-crc32: AAECAw==-2",
                "x-amz-checksum-type: COMPOSITE",
            ]
        );
    }

    #[test]
    fn a_range_comes_without_the_checksum_of_the_whole() {
        let reply = answer("/abc/k", &[("range", "bytes=2-5"), ("x-amz-checksum-mode", "ENABLED")], 10).unwrap();
        assert_eq!((reply.status, reply.bytes.clone()), (206, Some(2..6)));
        let lines = lines(&reply);
        assert!(lines.contains(&"Content-Range: bytes 2-5/10".to_owned()));
        assert!(!lines.iter().any(|line| line.starts_with("x-amz-checksum")));
    }

    #[test]
    fn a_range_of_another_version_is_passed_over() {
        let reply = answer("/abc/k", &[("range", "bytes=2-5"), ("if-range", "\"other\"")], 10).unwrap();
        assert_eq!((reply.status, reply.bytes), (200, Some(0..10)));
    }

    #[test]
    fn a_range_behind_the_end_is_refused_with_the_size() {
        let error = answer("/abc/k", &[("range", "bytes=10-")], 10).unwrap_err();
        assert_eq!((error.code(), error.status()), ("InvalidRange", 416));
        let response = error.response::<()>(&head("HEAD", "/abc/k", &[]), "host");
        assert_eq!(response.headers, [("Content-Range".into(), "bytes */10".to_owned())]);
    }

    #[test]
    fn not_modified_has_no_bytes() {
        let reply = answer("/abc/k", &[("if-none-match", "\"tag\"")], 10).unwrap();
        assert_eq!((reply.status, reply.bytes.clone()), (304, None));
        assert_eq!(lines(&reply).len(), 2);
        assert_eq!(answer("/abc/k", &[("if-match", "x")], 10).unwrap_err().status(), 412);
    }

    #[test]
    fn the_query_says_something_else() {
        let target = "/abc/k?response-content-type=a/b&response-expires=now&response-cache-control=";
        let lines = lines(&answer(target, &[], 0).unwrap());
        assert!(lines.contains(&"Content-Type: a/b".to_owned()) && lines.contains(&"Expires: now".to_owned()));
        assert!(!lines.iter().any(|line| line.starts_with("Cache-Control")));
        let split = answer("/abc/k?response-content-type=a%0d%0aSet-Cookie:%20b", &[], 0);
        assert_eq!(split.unwrap_err().code(), "InvalidArgument");
    }
}
