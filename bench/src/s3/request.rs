//! Requests to one bucket, signed and written out.

use std::fmt;
use std::fmt::Write as _;
use std::net::SocketAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::payload::Payload;
use super::sign::{AmzDate, Chain, NOTHING_SHA256, Signer};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    /// PutObject
    Put,
    /// GetObject, compared byte by byte
    Get,
    /// HeadObject
    Head,
    /// ListObjectsV2, 1,000 keys a page
    List,
    /// DeleteObject
    Delete,
    /// CreateMultipartUpload, each UploadPart in turn, CompleteMultipartUpload: all of it is one operation
    Multipart,
}

impl Operation {
    /// Whether it makes an object.
    pub(super) const fn writes(self) -> bool {
        matches!(self, Self::Put | Self::Multipart)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Multipart => "multipart",
        })
    }
}

/// Where the requests go.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// As the `Host` header says it.
    pub(super) host: String,
    pub(super) address: SocketAddr,
    pub(super) bucket: String,
    /// In front of every key.
    pub(super) prefix: String,
    pub(super) signer: Signer,
}

impl Target {
    /// The key of an object by its number.
    pub(super) fn key(&self, number: u64) -> String {
        format!("{}{number:010}", self.prefix)
    }

    /// A request for an object.
    pub(super) fn object(&self, method: &str, number: u64, payload: Option<&Payload>) -> Request {
        self.request(method, &self.path(number), "", payload)
    }

    /// A request for a page of keys.
    pub(super) fn list(&self, continuation: Option<&str>) -> Request {
        let mut query = String::new();
        if let Some(token) = continuation {
            write!(query, "continuation-token={}&", encode(token)).expect("a String takes everything");
        }
        write!(query, "list-type=2&max-keys=1000&prefix={}", encode(&self.prefix)).expect("a String takes everything");
        self.request("GET", &format!("/{}", self.bucket), &query, None)
    }

    /// A request for the bucket itself.
    pub(super) fn bucket(&self, method: &str) -> Request {
        self.request(method, &format!("/{}", self.bucket), "", None)
    }

    /// Begins an upload in parts.
    pub(super) fn create_upload(&self, number: u64) -> Request {
        self.request("POST", &self.path(number), "uploads=", None)
    }

    /// Puts a part; parts count from 1.
    pub(super) fn part(&self, number: u64, upload: &str, part: usize, payload: &Payload) -> Request {
        let query = format!("partNumber={part}&uploadId={}", encode(upload));
        self.request("PUT", &self.path(number), &query, Some(payload))
    }

    /// Completes (`POST`, with the parts) or gives up (`DELETE`) an upload.
    pub(super) fn end_upload(&self, method: &str, number: u64, upload: &str, parts: Option<&Payload>) -> Request {
        self.request(method, &self.path(number), &format!("uploadId={}", encode(upload)), parts)
    }

    fn path(&self, number: u64) -> String {
        format!("/{}/{}", self.bucket, self.key(number))
    }

    fn request(&self, method: &str, path: &str, query: &str, payload: Option<&Payload>) -> Request {
        let date = AmzDate::now();
        let content_sha256 = payload.map_or(NOTHING_SHA256, |payload| &payload.content_sha256);
        let mut headers =
            vec![("host", &*self.host), ("x-amz-content-sha256", content_sha256), ("x-amz-date", date.as_str())];
        for (name, value) in payload.iter().flat_map(|payload| &payload.headers) {
            headers.push((name, value));
        }
        headers.sort_unstable();
        let (authorization, chain) = self.signer.sign(method, path, query, &headers, &date);
        let mut head = String::with_capacity(1024);
        let mark = if query.is_empty() { "" } else { "?" };
        write!(head, "{method} {path}{mark}{query} HTTP/1.1\r\n").expect("a String takes everything");
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").expect("a String takes everything");
        }
        let length = payload.map_or(0, |payload| payload.wire_bytes);
        write!(head, "authorization: {authorization}\r\ncontent-length: {length}\r\n\r\n")
            .expect("a String takes everything");
        Request { head, is_head: method == "HEAD", chain }
    }
}

/// A request that is ready to be sent.
pub(super) struct Request {
    pub(super) head: String,
    /// The answer has no body.
    pub(super) is_head: bool,
    /// Signs the chunks of the body.
    pub(super) chain: Chain,
}

/// Whether a name can stand in a path as it is.
pub(super) fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
        && !name.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// The characters that SigV4 leaves as they are.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

fn encode(value: &str) -> impl fmt::Display {
    utf8_percent_encode(value, RESERVED)
}
