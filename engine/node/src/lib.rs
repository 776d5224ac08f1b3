//! Floor 2: the stories. What happens to an object from the first byte to the acknowledgement, told once for every
//! protocol and for the simulator.
//!
//! Knows no HTTP, no SQL and no ring. `server` calls it with typed requests; it calls `store` for bytes and
//! [`metadata`] for what those bytes mean.
#![forbid(unsafe_code)]
#![allow(clippy::todo, unused_variables, clippy::unused_async)]

pub mod body;
pub mod bucket;
pub mod delete;
pub mod get;
pub mod list;
pub mod metadata;
pub mod multipart;
pub mod put;

use anvil_model::ids::TenantId;
use anvil_model::io::World;
use anvil_store::Store;

/// Who asks, as authentication found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant whose buckets may be used.
    pub tenant: TenantId,
}

/// One core's view of the node: everything that a story needs. Cheap to clone.
pub struct Node<W: World> {
    world: W,
    store: Store<W>,
}
