//! HTTP/2 and TLS on a real core, from the client's side of a raw socket: what is answered, what is refused, and what
//! becomes of the connection. Behind it stands a service of a few lines, no S3.

mod client;
mod exchanges;
mod floods;
#[allow(dead_code)]
#[path = "../frontend/harness.rs"]
mod harness;
mod hostile;
mod tls;
