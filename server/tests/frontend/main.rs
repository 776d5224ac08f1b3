//! The frontend on a real core, from the client's side of a raw socket: what is answered, what is refused, and what
//! becomes of the connection. Behind it stands a service of a few lines, no S3.

mod bodies;
mod connections;
mod harness;
mod hostile;
mod stopping;
