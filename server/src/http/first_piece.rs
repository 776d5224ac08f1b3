//! The first bytes of an answer are had before its head is sent: until then a failure can still be told.

use std::borrow::Cow;

use anvil_node::get::StreamError;
use anvil_runtime::Buffer;
use anvil_store::Piece;

use super::{Outgoing, Pieces, Response, Service};

/// Takes the first piece of the answer's object, if it is to send any. When it cannot be had, the answer becomes one that
/// says so.
pub(crate) async fn first_piece<S: Service>(
    service: &S,
    response: &mut Response<S::Pieces>,
    request_id: &str,
) -> Option<Piece<Buffer>> {
    let Outgoing::Object { length: 1.., reader } = &mut response.body else { return None };
    match reader.next().await {
        Some(Ok(piece)) => return Some(piece),
        Some(Err(error)) => {
            tracing::error!(request_id, %error, "an object cannot be read");
            *response = unreadable(service, &error, request_id);
        }
        None => {
            tracing::error!(request_id, "an object ends before its first byte");
            *response = internal_error(service, request_id);
        }
    }
    None
}

/// What the client of an encrypted object hears of a node that was started without the key.
pub(crate) const NO_KEY: &str = "The object is encrypted, and this server was started without the key that opens it.";

/// A version that was deleted since it was found may have been replaced by another: the client asks again.
fn unreadable<S: Service>(service: &S, error: &StreamError, request_id: &str) -> Response<S::Pieces> {
    match error {
        StreamError::Read(_) => return internal_error(service, request_id),
        StreamError::NoKey(_) => return service.refusal(503, "ServiceUnavailable", NO_KEY, request_id),
        StreamError::Metadata(_) | StreamError::Gone => {}
    }
    let mut response = service.refusal(503, "ServiceUnavailable", "Service is unable to handle request.", request_id);
    response.headers.push(retry_after());
    response
}

pub(super) fn internal_error<S: Service>(service: &S, request_id: &str) -> Response<S::Pieces> {
    let message = "We encountered an internal error. Please try again.";
    service.refusal(500, "InternalError", message, request_id)
}

/// Says when to come back.
pub(crate) fn retry_after() -> (Cow<'static, str>, String) {
    ("Retry-After".into(), "1".to_owned())
}
