//! Floor 0: the messages of Anvil's gRPC API, made from `anvil/v1/*.proto` at build time; those of `google.rpc` in which
//! errors give their details; and those of the services that every gRPC server is expected to have.
//!
//! Only messages: who may call what, and how a call travels, is the server's business. The `.proto` files are the
//! reference of the API; every field is explained there.
#![forbid(unsafe_code)]

// Packages name each other by their places.
mod anvil {
    /// `anvil.v1`.
    #[allow(missing_docs, reason = "what is made from the names of an enum has no comment")]
    #[allow(clippy::large_enum_variant, reason = "a message is made, sent and gone: a box would cost more")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/anvil.v1.rs"));
    }
}
mod google {
    /// `google.rpc`.
    #[allow(missing_docs, reason = "what is made from the names of an enum has no comment")]
    pub mod rpc {
        include!(concat!(env!("OUT_DIR"), "/google.rpc.rs"));
    }
}

pub use anvil::v1;
pub use google::rpc;

/// `grpc.health.v1`.
#[allow(missing_docs, reason = "what is made from the names of an enum has no comment")]
pub mod health {
    include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
}

/// `grpc.reflection.v1`. The messages of `grpc.reflection.v1alpha` are the same on the wire.
#[allow(missing_docs, reason = "what is made from the names of an enum has no comment")]
pub mod reflection {
    include!(concat!(env!("OUT_DIR"), "/grpc.reflection.v1.rs"));
}

/// What the `.proto` files say, with those that they import: a `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The parts of messages, for those that are written and read by hand.
pub use prost::encoding;
pub use prost::{DecodeError, Message, Name};
pub use prost_types::{Any, DescriptorProto, Duration, FileDescriptorProto, FileDescriptorSet, Timestamp};
