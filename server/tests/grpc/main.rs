//! gRPC as administrators and their programs find it, against the real binary: by `anvil admin`, by grpcio, and by a
//! client that sends what no library would.

mod cli;
mod foreign;
mod interop;
mod raw;
#[path = "../support/mod.rs"]
mod support;
