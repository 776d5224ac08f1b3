//! GetObject and HeadObject.

use std::borrow::Cow;
use std::ops::Range;

use anvil_model::object::{BucketName, Checksum, Etag, Headers, Key};
use anvil_model::time::WallTime;
use anvil_node::get::Found;
use anvil_node::metadata::query::ReadFrom;

use super::conditions::{self, Verdict};
use super::error::{Code, S3Error};
use super::headers::{is_field_value, single};
use super::query::Query;
use super::range::{Asked, Selection};
use super::{Answer, Request, S3, checksum, date};
use crate::http::{Head, Outgoing, Response};

impl S3 {
    pub(super) async fn get_object(&self, request: &Request<'_>, bucket: BucketName, key: Key) -> Answer {
        let found = self.node.open(request.caller, bucket, key, Some(read_from(request.head)?)).await?;
        let Reply { status, headers, bytes } = reply(request.head, &request.query, &Version::from(&found))?;
        let body = match bytes {
            Some(bytes) if !bytes.is_empty() => {
                Outgoing::Object { length: bytes.end - bytes.start, reader: self.node.read(&found, bytes) }
            }
            _ => Outgoing::Empty,
        };
        Ok(Response { status, headers, body })
    }

    pub(super) async fn head_object(&self, request: &Request<'_>, bucket: BucketName, key: Key) -> Answer {
        let found = self.node.open(request.caller, bucket, key, None).await?;
        let Reply { status, headers, bytes } = reply(request.head, &request.query, &Version::from(&found))?;
        let body = bytes.map_or(Outgoing::Empty, |bytes| Outgoing::Announced(bytes.end - bytes.start));
        Ok(Response { status, headers, body })
    }
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

/// Decides how a GET or HEAD of this version is answered.
fn reply(head: &Head, query: &Query, version: &Version<'_>) -> Result<Reply, S3Error> {
    match conditions::judge(head, version.etag, version.last_modified)? {
        Verdict::Failed(condition) => return Err(conditions::failed(condition)),
        Verdict::NotModified => {
            return Ok(Reply { status: 304, headers: validators(version), bytes: None });
        }
        Verdict::Proceed => {}
    }
    let header = single(head, "range")?;
    let applies = header.is_some() && conditions::range_applies(head, version.etag, version.last_modified)?;
    let asked = header.filter(|_| applies).and_then(Asked::read);
    let selection = asked.map_or(Selection::Whole, |asked| asked.select(version.size));
    let mut headers = validators(version);
    described(&mut headers, query, version)?;
    match selection {
        Selection::Whole => {
            if single(head, "x-amz-checksum-mode")?.is_some_and(|mode| mode.eq_ignore_ascii_case("ENABLED")) {
                let Checksum { algorithm, of, .. } = *version.checksum;
                let value = checksum::text(version.checksum, version.parts);
                headers.push((checksum::header_name(algorithm).into(), value));
                headers.push(("x-amz-checksum-type".into(), checksum::type_name(of).to_owned()));
            }
            Ok(Reply { status: 200, headers, bytes: Some(0..version.size) })
        }
        Selection::Part(bytes) => {
            let (first, last, size) = (bytes.start, bytes.end - 1, version.size);
            headers.push(("Content-Range".into(), format!("bytes {first}-{last}/{size}")));
            Ok(Reply { status: 206, headers, bytes: Some(bytes) })
        }
        Selection::Unsatisfiable => Err(S3Error::new(Code::INVALID_RANGE)
            .with("RangeRequested", header.unwrap_or_default().to_owned())
            .with("ActualObjectSize", version.size.to_string())
            .with_header("Content-Range", format!("bytes */{}", version.size))),
    }
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

    use super::*;
    use crate::s3::tests::head;

    fn answer(target: &str, request: &[(&str, &str)], size: u64) -> Result<Reply, S3Error> {
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
            parts: Some(2),
        };
        let head = head("GET", target, request);
        reply(&head, &Query::read(head.query.as_deref())?, &version)
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
