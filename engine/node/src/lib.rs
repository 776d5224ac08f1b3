//! Floor 2: the stories. What happens to an object from the first byte to the acknowledgement, told once for every
//! protocol and for the simulator.
//!
//! Knows no HTTP, no SQL and no ring. `server` calls it with typed requests; it calls `store` for bytes and
//! [`metadata`] for what those bytes mean.
#![forbid(unsafe_code)]

mod abandoned;
pub mod body;
pub mod bucket;
pub mod classes;
pub mod copy;
pub mod delete;
mod digests;
mod gather;
pub mod get;
pub mod list;
pub mod metadata;
pub mod multipart;
mod payload;
pub mod put;
mod reclaim;
mod sweep;
pub mod upkeep;

use std::rc::Rc;
use std::sync::Arc;

use anvil_digest::Kernel;
use anvil_model::ids::TenantId;
use anvil_model::io::World;
use anvil_model::object::{BucketName, Key};
use anvil_store::{Origin, Store};

use abandoned::Abandoned;
use classes::Classes;
use metadata::Client;
use metadata::mutation::BucketRef;
use metadata::query::BucketPath;
use metadata::rows::BucketRow;

/// Who asks, as authentication found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant whose buckets may be used.
    pub tenant: TenantId,
}

impl Caller {
    /// The bucket of this name, as this caller sees it.
    fn path(self, name: BucketName) -> BucketPath {
        BucketPath::new(self.tenant, name)
    }
}

/// One core's view of the node: everything that a story needs. Cheap to clone.
#[derive(Clone)]
pub struct Node<W: World> {
    world: W,
    store: Store<W>,
    metadata: Client<W>,
    region: Rc<str>,
    digesting: digests::DigestQueue<W>,
    classes: Arc<Classes>,
    gathering: gather::Gathering,
    abandoned: Rc<Abandoned>,
    upkeep: Rc<upkeep::Counters>,
}

impl<W: World> Node<W> {
    /// Joins one core's parts. `region` is where its buckets are made; `classes` say how blobs are spread.
    #[must_use]
    pub fn new(world: W, store: Store<W>, metadata: Client<W>, region: &str, classes: Arc<Classes>) -> Self {
        let (region, gathering) = (region.into(), gather::Gathering::default());
        let digesting = digests::DigestQueue::new(world.clone(), Kernel::detect());
        let (abandoned, upkeep) = (Rc::default(), Rc::default());
        Self { world, store, metadata, region, digesting, classes, gathering, abandoned, upkeep }
    }

    /// Digests with this kernel and no other, so that nothing depends on the CPU: for simulations.
    #[must_use]
    pub fn digesting_with(self, kernel: Kernel) -> Self {
        Self { digesting: digests::DigestQueue::new(self.world.clone(), kernel), ..self }
    }

    /// The region that this node serves.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The storage classes that this node knows.
    #[must_use]
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// This core's world.
    #[must_use]
    pub fn world(&self) -> &W {
        &self.world
    }

    /// This core's store.
    #[must_use]
    pub fn store(&self) -> &Store<W> {
        &self.store
    }

    fn origin(&self, caller: Caller, bucket: &BucketName, key: &Key) -> Origin {
        Origin {
            tenant: caller.tenant,
            bucket: bucket.as_str().to_owned(),
            key: key.as_str().to_owned(),
            at: self.world.wall_clock(),
        }
    }
}

/// The bucket as a change names it.
fn bucket_ref(row: &BucketRow) -> BucketRef {
    BucketRef { id: row.id, tenant: row.tenant, generation: row.generation }
}
