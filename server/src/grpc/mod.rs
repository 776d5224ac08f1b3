//! gRPC ("gRPC over HTTP2", grpc/grpc/doc/PROTOCOL-HTTP2.md), written on the streams of `http2`.
//!
//! - [`status`]: the outcomes of calls, and `outcome`: those of the stories as such; [`frame`] and [`rope`]: messages and
//!   their five bytes; [`request`]: what a call's head says.
//! - [`call`]: a call as a method sees it: messages come and go one by one, so that a method that streams is written like
//!   one that does not.
//! - [`services`]: which methods there are. [`token`] and [`session`] say who may administrate, [`access`] who may do what with buckets and
//!   objects.
//! - [`admin`] (of which `tenants` is what concerns tenants, apps and policies, `users` what concerns those who administrate, `keys` keys
//!   and tokens, `quotas` what is held and how much may be), [`auth`], [`bucket`] and [`object`]: the
//!   services, over the same stories as S3. `words` is between their
//!   messages and those stories, `incoming` brings bytes, `chunk` takes them away. [`health`] and [`reflection`] are what
//!   tools expect of every server.
//! - [`client`]: the other end, for the command line.
//!
//! Knows no frame of HTTP/2: `http2::call` brings bytes, and takes them.
//!
//! **Invariants**
//! - Nothing of a message is kept before the call's head was found good and its caller believed.
//! - A call holds at most one message of [`frame::MESSAGE_BYTES_MAX`] and one DATA frame behind it, and of an object what
//!   the story holds.
//! - Nothing of an object is stored before its finish was found good.
//! - Every call ends with exactly one status.

pub mod access;
pub mod admin;
pub mod auth;
mod bidi_read;
mod bidi_write;
pub mod bucket;
pub mod call;
mod chunk;
pub mod client;
pub mod frame;
pub(crate) mod fuzz;
pub mod health;
mod incoming;
mod keys;
mod methods;
mod multipart;
pub mod object;
mod outcome;
mod quotas;
pub mod reflection;
mod regions;
pub mod request;
pub mod rope;
pub mod services;
pub mod session;
pub mod status;
mod tasks;
mod tenants;
pub mod token;
mod users;
mod words;

pub use access::Tokens;
pub use services::{Gate, Keepers, Services};
pub use session::Sessions;
pub use status::{Code, Status};
pub use token::{AdminFrom, Administrator, Authority};
