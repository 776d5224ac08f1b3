//! TCP on one core: listeners, and connections that never leave the core that they were placed on.

pub(crate) mod address;
mod connection;
mod listener;
pub(crate) mod placement;
mod reader;
pub(crate) mod socket;
mod writer;

pub use crate::op::send::Pieces;
pub use crate::receive_ring::Received;
pub use connection::Connection;
pub use listener::Listener;
pub use reader::Reader;
pub use writer::{SendBytes, Writer};
