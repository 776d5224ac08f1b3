//! gRPC as administrators and their programs find it, against the real binary: by `anvil admin`, by the libraries of other
//! languages, and by clients that send what no library would.

mod cli;
mod foreign;
#[allow(dead_code)]
#[path = "../http2/client.rs"]
mod frames;
mod hostile;
mod interop;
mod raw;
#[path = "../support/mod.rs"]
mod support;
