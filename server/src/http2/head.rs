//! From the fields of a HEADERS frame to a request, or to the reason why it is none.
//!
//! What the protocol itself forbids (names in upper case, `connection` and `transfer-encoding`, missing or doubled
//! pseudo fields, lengths that differ) `h2` has refused already, with RST_STREAM.

use http::request::Parts;

use crate::http1::head::{
    BodyLength, CONNECT, HOST, Refusal, TARGET, TARGET_TOO_LONG, TOO_MANY_HEADERS, body_length, expects_continue,
    is_host, split_query,
};
use crate::http1::{HEADERS_MAX, TARGET_BYTES_MAX};

/// A head, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// Begins with `/`.
    pub(super) path: String,
    pub(super) query: Option<String>,
    /// Names in lower case; the host that was named is among them.
    pub(super) headers: Vec<(String, Vec<u8>)>,
    /// `None` when only the end of the stream will tell.
    pub(super) length: Option<u64>,
    pub(super) expects_continue: bool,
}

/// Reads a head. `is_whole`: no body follows.
pub(super) fn read(parts: &Parts, is_whole: bool) -> Result<Request, Refusal> {
    if parts.method == http::Method::CONNECT {
        return Err(CONNECT);
    }
    let mut headers: Vec<(String, Vec<u8>)> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().trim_ascii().to_vec()))
        .collect();
    if headers.len() > HEADERS_MAX {
        return Err(TOO_MANY_HEADERS);
    }
    name_host(parts.uri.authority().map(http::uri::Authority::as_str), &mut headers)?;
    let target = parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str).unwrap_or_default();
    if target.len() > TARGET_BYTES_MAX {
        return Err(TARGET_TOO_LONG);
    }
    if !target.starts_with('/') {
        return Err(TARGET);
    }
    let (path, query) = split_query(target);
    let says_length = headers.iter().any(|(name, _)| name == "content-length");
    let length = match body_length(&headers, true)? {
        BodyLength::Known(length) if says_length || is_whole => Some(length),
        _ => None,
    };
    Ok(Request {
        method: parts.method.as_str().to_owned(),
        path,
        query,
        length,
        expects_continue: expects_continue(&headers)? && !is_whole,
        headers,
    })
}

/// `:authority` is the host. Where `host` stands too, it must say the same, so that nobody in front of us can have
/// understood another (RFC 9113, 8.3.1).
fn name_host(authority: Option<&str>, headers: &mut Vec<(String, Vec<u8>)>) -> Result<(), Refusal> {
    let mut hosts = headers.iter().filter(|(name, _)| name == "host").map(|(_, value)| value);
    let host = hosts.next();
    let named = [host.map(Vec::as_slice), authority.map(str::as_bytes)];
    if hosts.next().is_some() || named.iter().flatten().any(|name| !is_host(name)) {
        return Err(HOST);
    }
    match named {
        [None, None] => Err(HOST),
        [Some(host), Some(authority)] if !host.eq_ignore_ascii_case(authority) => Err(HOST),
        [Some(_), _] => Ok(()),
        [None, Some(authority)] => {
            headers.push(("host".to_owned(), authority.to_vec()));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, uri: &str, headers: &[(&str, &str)], is_whole: bool) -> Result<Request, Refusal> {
        let mut builder = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        read(&builder.body(()).unwrap().into_parts().0, is_whole)
    }

    #[test]
    fn the_authority_is_the_host_as_it_came() {
        let read = request("GET", "http://A.b:1/k%2f?x=1?y", &[("x-a", "1"), ("x-a", "2")], true).unwrap();
        assert_eq!(
            (read.method.as_str(), read.path.as_str(), read.query.as_deref(), read.length),
            ("GET", "/k%2f", Some("x=1?y"), Some(0))
        );
        let expected = [("x-a", "1"), ("x-a", "2"), ("host", "A.b:1")];
        assert_eq!(read.headers, expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));
        let both = request("GET", "http://a/", &[("host", "A")], true).unwrap();
        assert_eq!(both.headers, [("host".to_owned(), b"A".to_vec())]);
        assert!(request("GET", "/", &[("host", "a")], true).is_ok());
    }

    #[test]
    fn a_host_is_named_once_and_only_one() {
        assert_eq!(request("GET", "/", &[], true), Err(HOST));
        assert_eq!(request("GET", "http://a/", &[("host", "b")], true), Err(HOST));
        assert_eq!(request("GET", "http://a/", &[("host", "a"), ("host", "a")], true), Err(HOST));
        assert_eq!(request("GET", "http://user@a/", &[], true), Err(HOST));
        assert_eq!(request("GET", "/", &[("host", "a/b")], true), Err(HOST));
    }

    #[test]
    fn a_target_is_a_path() {
        assert_eq!(request("OPTIONS", "*", &[("host", "a")], true), Err(TARGET));
        assert_eq!(request("CONNECT", "a:1", &[], true), Err(CONNECT));
        let long = format!("http://a/{}", "b".repeat(TARGET_BYTES_MAX));
        assert_eq!(request("GET", &long, &[], true), Err(TARGET_TOO_LONG));
        let many: Vec<_> = (0..HEADERS_MAX + 1).map(|_| ("x-a", "b")).collect();
        assert_eq!(request("GET", "http://a/", &many, true), Err(TOO_MANY_HEADERS));
    }

    #[test]
    fn a_body_has_its_length_or_an_end() {
        let put = |headers: &[(&str, &str)], is_whole| request("PUT", "http://a/", headers, is_whole);
        assert_eq!(put(&[], true).unwrap().length, Some(0));
        assert_eq!(put(&[], false).unwrap().length, None);
        assert_eq!(put(&[("content-length", "7")], false).unwrap().length, Some(7));
        assert_eq!(put(&[("content-length", "7"), ("content-length", "7")], false).unwrap_err().status, 400);
        assert_eq!(put(&[("content-length", "+7")], false).unwrap_err().status, 400);
        assert!(put(&[("expect", "100-continue")], false).unwrap().expects_continue);
        assert!(!put(&[("expect", "100-continue")], true).unwrap().expects_continue);
        assert_eq!(put(&[("expect", "miracles")], false).unwrap_err().status, 417);
    }
}
