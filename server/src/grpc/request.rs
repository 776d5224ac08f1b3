//! What the head of a call says, read strictly.

use std::time::Duration;

use super::frame::Encoding;
use super::status::{Code, Status};
use crate::http::Head;

/// What a call asks of whoever serves it, besides its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// How long the client waits for the end.
    pub timeout: Option<Duration>,
    /// How its messages are written.
    pub encoding: Encoding,
}

/// The head is none of a call that is served here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 200 but for those that may not be gRPC at all.
    pub http_status: u16,
    /// Why.
    pub status: Status,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { http_status: 200, status }
    }
}

/// A request that claims to be gRPC, of whatever kind.
#[must_use]
pub fn is_grpc(content_type: &[u8]) -> bool {
    let prefix = content_type.get(..TYPE.len());
    prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(TYPE.as_bytes()))
}

/// The only kind of messages; `application/grpc` stands for it too.
pub const TYPE: &str = "application/grpc";

/// Reads the terms of a call.
///
/// # Errors
/// When it is not a call in the form that is spoken here.
pub fn read(head: &Head) -> Result<Terms, Refusal> {
    if head.method != "POST" {
        let message = format!("a call is a POST, and this is a {}", head.method);
        return Err(Refusal { http_status: 405, status: unimplemented("WRONG_METHOD", message) });
    }
    let content_type = head.header("content-type").unwrap_or_default().to_ascii_lowercase();
    let kind = content_type.split(';').next().unwrap_or_default().trim_end();
    if !matches!(kind, "application/grpc" | "application/grpc+proto") {
        let message = "messages are protobuf, and the content type is application/grpc or application/grpc+proto";
        return Err(Refusal { http_status: 415, status: unimplemented("WRONG_CONTENT_TYPE", message) });
    }
    let encoding = match head.headers.iter().find(|(name, _)| name == "grpc-encoding").map(|(_, value)| &value[..]) {
        None | Some(b"identity") => Encoding::Identity,
        Some(b"gzip") => Encoding::Gzip,
        Some(_) => {
            let message = "a grpc-encoding that is understood here is identity or gzip";
            return Err(unimplemented("WRONG_ENCODING", message).into());
        }
    };
    Ok(Terms { timeout: timeout(head)?, encoding })
}

/// What [`Terms::encoding`] may be, as `grpc-accept-encoding` says it.
pub const ENCODINGS: &str = "identity,gzip";

fn unimplemented(reason: &'static str, message: impl Into<String>) -> Status {
    Status::new(Code::Unimplemented, reason, message)
}

/// `grpc-timeout`: one to eight digits and a unit.
fn timeout(head: &Head) -> Result<Option<Duration>, Status> {
    if !head.headers.iter().any(|(name, _)| name == "grpc-timeout") {
        return Ok(None);
    }
    let wrong =
        || Status::invalid("grpc-timeout is one to eight digits and one of H, M, S, m, u and n, and comes once");
    let text = head.header("grpc-timeout").ok_or_else(wrong)?;
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let is_number = (1..=8).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = Some(number).filter(|_| is_number).and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
    let duration = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(wrong()),
    };
    Ok(Some(duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(method: &str, headers: &[(&str, &str)]) -> Result<Terms, Refusal> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        read(&Head {
            method: method.to_owned(),
            path: "/a.B/C".to_owned(),
            query: None,
            headers,
            peer: "127.0.0.1:1".parse().unwrap(),
            request_id: "R".to_owned(),
        })
    }

    const GRPC: (&str, &str) = ("content-type", "application/grpc");

    #[test]
    fn a_call_is_a_post_of_protobuf() {
        for kind in ["application/grpc", "application/grpc+proto", "application/GRPC; charset=x"] {
            assert!(is_grpc(kind.as_bytes()));
            assert_eq!(read_of("POST", &[("content-type", kind)]), Ok(Terms::default()), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpc+json", "application/grpc-web-text"] {
            assert!(is_grpc(kind.as_bytes()));
            assert_eq!(read_of("POST", &[("content-type", kind)]).unwrap_err().http_status, 415, "{kind}");
        }
        assert!(!is_grpc(b"application/json") && !is_grpc(b"application/grp") && !is_grpc(b""));
        assert_eq!(read_of("PUT", &[GRPC]).unwrap_err().http_status, 405);
    }

    #[test]
    fn gzip_is_understood_and_nothing_else() {
        let encoding = |text| read_of("POST", &[GRPC, ("grpc-encoding", text)]).map(|terms| terms.encoding);
        assert_eq!((encoding("identity"), encoding("gzip")), (Ok(Encoding::Identity), Ok(Encoding::Gzip)));
        for encoding in ["deflate", "snappy", ""] {
            let refusal = read_of("POST", &[GRPC, ("grpc-encoding", encoding)]).unwrap_err();
            assert_eq!((refusal.http_status, refusal.status.code), (200, Code::Unimplemented), "{encoding:?}");
        }
    }

    #[test]
    fn a_timeout_has_a_unit() {
        let timeout = |text: &str| read_of("POST", &[GRPC, ("grpc-timeout", text)]).map(|terms| terms.timeout.unwrap());
        for (text, nanoseconds) in [
            ("1H", 3_600_000_000_000_u128),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("4m", 4_000_000),
            ("5u", 5000),
            ("99999999n", 99_999_999),
            ("0S", 0),
        ] {
            assert_eq!(timeout(text).unwrap().as_nanos(), nanoseconds, "{text}");
        }
        for wrong in ["", "S", "1", "1s", "123456789S", "-1S", "1.5S", "\u{663}S", "1\u{e9}"] {
            assert_eq!(timeout(wrong).unwrap_err().status.code, Code::InvalidArgument, "{wrong:?}");
        }
        let twice = read_of("POST", &[GRPC, ("grpc-timeout", "1S"), ("grpc-timeout", "2S")]);
        assert_eq!(twice.unwrap_err().status.code, Code::InvalidArgument);
    }
}
