//! gRPC ("gRPC over HTTP2", grpc/grpc/doc/PROTOCOL-HTTP2.md), written on the streams of `http2`.
//!
//! - [`status`]: the outcomes of calls; [`frame`]: messages and their five bytes; [`request`]: what a call's head says.
//! - [`call`]: a call as a method sees it: messages come and go one by one, so that a method that streams is written like
//!   one that does not.
//! - [`token`]: who may administrate; [`services`]: which methods there are; [`admin`]: `anvil.v1.AdminService`,
//!   of which `tenants` is what concerns tenants, apps and policies.
//! - [`client`]: the other end, for the command line.
//!
//! Knows no frame of HTTP/2: `http2::call` brings bytes, and takes them.
//!
//! **Invariants**
//! - Nothing of a message is kept before the call's head was found good and its caller believed.
//! - A call holds at most one message of [`frame::MESSAGE_BYTES_MAX`] and one DATA frame behind it.
//! - Every call ends with exactly one status.

pub mod admin;
pub mod call;
pub mod client;
pub mod frame;
pub mod request;
pub mod services;
pub mod status;
mod tenants;
pub mod token;

pub use services::Services;
pub use status::{Code, Status};
pub use token::{AdminFrom, Administrator, Authority};
