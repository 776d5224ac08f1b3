//! What a fuzzer asks of the readers of documents, queries and routes.

use super::query::Query;
use super::range::Asked;
use super::route::Route;
use super::{bucket, delete, multipart};
use crate::http::Head;

/// The documents that clients send, under each of their names.
pub(crate) fn xml(input: &[u8]) {
    delete::fuzz(input);
    multipart::fuzz(input);
    bucket::fuzz(input);
}

/// What a head asks for.
pub(crate) fn route(head: &Head) {
    let Ok(query) = Query::read(head.query.as_deref()) else { return };
    let _ = query.count("max-keys", 0, 1000);
    let _ = Route::find(head, &query, None);
    if let Some(asked) = head.header("range").and_then(Asked::read) {
        let _ = asked.select(0);
        let _ = asked.select(1000);
        let _ = asked.select(u64::MAX);
    }
}
