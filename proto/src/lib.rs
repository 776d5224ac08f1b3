//! Floor 0: the messages of Anvil's gRPC API, made from `anvil/v1/*.proto` at build time; and those of `google.rpc` in
//! which errors give their details.
//!
//! Only messages: who may call what, and how a call travels, is the server's business. The `.proto` files are the
//! reference of the API; every field is explained there.
#![forbid(unsafe_code)]

/// `anvil.v1`.
#[allow(missing_docs, reason = "what is made from the names of an enum has no comment")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/anvil.v1.rs"));
}

/// `google.rpc`.
#[allow(missing_docs, reason = "what is made from the names of an enum has no comment")]
pub mod rpc {
    include!(concat!(env!("OUT_DIR"), "/google.rpc.rs"));
}

pub use prost::{DecodeError, Message, Name};
pub use prost_types::{Any, Duration};
