//! The access log: one line per request.

use std::borrow::Cow;
use std::time::Duration;

use crate::http::Head;

/// A request with what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The request.
    pub head: &'a Head,
    /// What it asked for.
    pub operation: &'static str,
    /// What it was told.
    pub status: u16,
    /// Bytes of its body that were received.
    pub received_bytes: u64,
    /// Bytes of the answer's body that were sent.
    pub sent_bytes: u64,
    /// From the first byte of its head to the first of the answer.
    pub first_byte: Duration,
    /// From the first byte of its head to the last of the answer.
    pub duration: Duration,
    /// The whole answer was sent.
    pub complete: bool,
}

/// Writes the line: `debug` for what went well, `info` for what was refused or failed.
/// `RUST_LOG=info,anvil::access=debug` shows all.
pub(super) fn log(exchange: &Exchange<'_>) {
    // The level is a constant of the call site, so the fields stand in a macro.
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "anvil::access",
                request_id = exchange.head.request_id,
                peer = %exchange.head.peer,
                operation = exchange.operation,
                method = exchange.head.method,
                path = exchange.head.path,
                query = exchange.head.query.as_deref().map(without_secrets).as_deref().unwrap_or_default(),
                status = exchange.status,
                received_bytes = exchange.received_bytes,
                sent_bytes = exchange.sent_bytes,
                first_byte_us = u64::try_from(exchange.first_byte.as_micros()).unwrap_or(u64::MAX),
                duration_us = u64::try_from(exchange.duration.as_micros()).unwrap_or(u64::MAX),
                complete = exchange.complete,
                "request"
            )
        };
    }
    if exchange.status < 400 && exchange.complete {
        line!(debug);
    } else {
        line!(info);
    }
}

/// The query with the values of credentials, signatures and tokens replaced.
fn without_secrets(query: &str) -> Cow<'_, str> {
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(query);
    }
    let shown = query.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name, _)) if is_secret(parameter) => format!("{name}=***"),
        _ => parameter.to_owned(),
    });
    Cow::Owned(shown.collect::<Vec<_>>().join("&"))
}

/// A name that is percent-encoded in whole or part could be any name.
fn is_secret(parameter: &str) -> bool {
    let name = parameter.split('=').next().unwrap_or_default().to_ascii_lowercase();
    name.contains('%') || ["signature", "token", "credential", "accesskeyid"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_shown_without_its_secrets() {
        for (query, shown) in [
            ("", ""),
            ("list-type=2&prefix=a%2f", "list-type=2&prefix=a%2f"),
            ("x-id=GetObject&X-Amz-Signature=abc&X-Amz-Date=d", "x-id=GetObject&X-Amz-Signature=***&X-Amz-Date=d"),
            ("X-Amz-Security-Token=t&X-Amz-Credential=c", "X-Amz-Security-Token=***&X-Amz-Credential=***"),
            ("AWSAccessKeyId=a&Signature=b", "AWSAccessKeyId=***&Signature=***"),
            ("X-Amz-%53ignature=abc&uploads", "X-Amz-%53ignature=***&uploads"),
        ] {
            assert_eq!(without_secrets(query), shown);
        }
    }
}
