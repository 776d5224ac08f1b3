//! Floor 3: the `anvil` binary. It joins the runtime, the store, the stories and the metadata to a node, and speaks
//! S3 for it. `main.rs` only calls [`cli`].
//!
//! Everything is public so that the compiler sees what is used and tests can reach it; nobody else links this crate.
#![forbid(unsafe_code)]

pub mod access;
pub mod admission;
pub mod auth;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod data_dir;
mod descriptors;
pub mod disk_control;
pub mod disk_keeper;
pub mod disks;
#[doc(hidden)]
pub mod fuzz;
pub mod grpc;
pub mod http;
pub mod http1;
pub mod http2;
pub mod identity;
pub mod listener;
pub mod metadata;
pub mod node_object;
pub mod regions;
pub mod routes;
pub mod s3;
pub mod start;
pub mod tasks;
pub mod telemetry;
pub mod tls;
mod transport;
pub mod tune;
