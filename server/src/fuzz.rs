//! A narrow door to the parsers of foreign bytes, for the fuzzers of `server/fuzz` and for the test that replays what
//! they have found. Each target panics when something is wrong.

use crate::{auth, grpc, http1, s3};

/// A fuzz target: its name, which is also that of its corpus, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 7] = [
    ("head", http1::fuzz::head),
    ("chunked", http1::fuzz::chunked),
    ("aws_chunked", auth::fuzz::aws_chunked),
    ("xml", s3::fuzz::xml),
    ("request", request),
    ("grpc_messages", grpc::fuzz::messages),
    ("grpc_call", grpc_call),
];

/// A head with its path, query, signature and route.
pub fn request(input: &[u8]) {
    let Some(head) = http1::fuzz::request_head(input) else { return };
    auth::fuzz::authenticate(&head);
    s3::fuzz::route(&head);
}

/// The head of a call, with its terms and its token.
pub fn grpc_call(input: &[u8]) {
    if let Some(head) = http1::fuzz::request_head(input) {
        grpc::fuzz::call(&head);
    }
}
