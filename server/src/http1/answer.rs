//! The head of an answer as bytes.

use std::borrow::Cow;
use std::io::Write;

/// What the protocol adds to an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extras<'a> {
    pub(crate) date: &'a str,
    pub(crate) request_id: &'a str,
    pub(crate) host_id: &'a str,
    /// `None` where the status allows no length.
    pub(crate) length: Option<u64>,
    /// The connection closes behind this answer.
    pub(crate) close: bool,
}

/// Appends a head to `out`. Control characters in values, which would begin another line for the client, become
/// spaces; they can come from a query (`response-content-type`).
pub(crate) fn encode_head(out: &mut Vec<u8>, status: u16, headers: &[(Cow<'static, str>, String)], extras: Extras<'_>) {
    write!(out, "HTTP/1.1 {status} {}\r\n", reason(status)).expect("a Vec takes everything");
    field(out, "Date", extras.date);
    field(out, "Server", "Anvil");
    field(out, "x-amz-request-id", extras.request_id);
    field(out, "x-amz-id-2", extras.host_id);
    for (name, value) in headers {
        field(out, name, value);
    }
    if let Some(length) = extras.length {
        write!(out, "Content-Length: {length}\r\n").expect("a Vec takes everything");
    }
    if extras.close {
        field(out, "Connection", "close");
    }
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.bytes().map(|b| if (b < b' ' && b != b'\t') || b == 0x7f { b' ' } else { b }));
    out.extend_from_slice(b"\r\n");
}

/// The words of RFC 9110, 15, for people who look at the wire.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(status: u16, headers: &[(&'static str, &str)], length: Option<u64>, close: bool) -> String {
        let headers: Vec<_> = headers.iter().map(|&(name, value)| (Cow::Borrowed(name), value.to_owned())).collect();
        let mut out = Vec::new();
        let extras = Extras { date: "D", request_id: "R", host_id: "H", length, close };
        encode_head(&mut out, status, &headers, extras);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_has_what_was_given_and_what_the_protocol_adds() {
        assert_eq!(
            encode(200, &[("ETag", "\"x\"")], Some(5), true),
            "HTTP/1.1 200 OK\r\nDate: D\r\nServer: Anvil\r\nx-amz-request-id: R\r\nx-amz-id-2: H\r\n\
             ETag: \"x\"\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
        );
        assert!(encode(204, &[], None, false).starts_with("HTTP/1.1 204 No Content\r\n"));
        assert!(encode(299, &[], None, false).starts_with("HTTP/1.1 299 \r\n"));
    }

    #[test]
    fn no_value_begins_a_line_of_its_own() {
        let head = encode(200, &[("Content-Type", "a\r\nSet-Cookie: b\0\x7f\u{e9}")], None, false);
        assert!(head.contains("Content-Type: a  Set-Cookie: b  \u{e9}\r\n"), "{head}");
    }
}
