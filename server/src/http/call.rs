//! A service is called, and a bug that the call meets ends it and nothing else.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;

use super::first_piece::internal_error;
use super::{Head, Incoming, Response, Service};
use crate::telemetry::CoreCounters;

/// The answer of the service, and whether that is only that it met a bug. What the call held was dropped then; the next
/// request finds the core as it was.
pub(crate) async fn call<S: Service, I: Incoming>(
    service: &S,
    counters: &CoreCounters,
    head: &Head,
    body: &mut I,
) -> (Response<S::Pieces>, bool) {
    match AssertUnwindSafe(service.call(head, body)).catch_unwind().await {
        Ok(response) => (response, false),
        Err(panic) => {
            counters.panicked(panic.as_ref(), &head.request_id);
            (internal_error(service, &head.request_id), true)
        }
    }
}
