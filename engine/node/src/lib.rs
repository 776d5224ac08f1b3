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
mod debt;
pub mod delete;
mod digests;
pub mod emptying;
pub mod encryption;
mod gather;
pub mod get;
pub mod hedge;
pub mod list;
pub mod metadata;
pub mod multipart;
pub mod names;
mod payload;
pub mod put;
mod reclaim;
pub mod repair;
mod respread;
pub mod salvage;
mod spread;
mod stripe;
mod sweep;
pub mod upkeep;
mod window;

use std::rc::Rc;
use std::sync::Arc;

use anvil_model::ids::{DiskId, TenantId};
use anvil_model::io::World;
use anvil_model::object::{BucketName, Key};
use anvil_store::{Origin, OriginPayload, Store};

use abandoned::Abandoned;
use classes::Classes;
use encryption::Keys;
use metadata::Client;
use metadata::mutation::BucketRef;
use metadata::query::BucketPath;
use metadata::rows::BucketRow;
use names::BucketNames;

/// Who asks, as authentication found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant whose buckets may be used.
    pub tenant: TenantId,
}

impl Caller {
    /// The node itself, which is no tenant: nobody is given this number.
    pub const NODE: Self = Self { tenant: TenantId(0) };

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
    classes: Arc<Classes>,
    keys: Arc<Keys>,
    names: Option<Arc<dyn BucketNames>>,
    encoding: anvil_erasure::Kernel,
    digesting: digests::DigestQueue<W>,
    gathering: gather::Gathering,
    abandoned: Rc<Abandoned>,
    upkeep: Rc<upkeep::Counters>,
    repairs: Rc<repair::Repairs>,
    hedging: Rc<hedge::Hedging>,
    refusals: Rc<spread::Refusals>,
}

impl<W: World> Node<W> {
    /// Joins one core's parts. `region` is where its buckets are made; `classes` say how blobs are spread.
    #[must_use]
    pub fn new(world: W, store: Store<W>, metadata: Client<W>, region: &str, classes: Arc<Classes>) -> Self {
        let digesting = digests::DigestQueue::new(world.clone(), anvil_digest::Kernel::detect());
        Self {
            world,
            store,
            metadata,
            region: region.into(),
            classes,
            keys: Arc::default(),
            names: None,
            encoding: anvil_erasure::Kernel::best(),
            digesting,
            gathering: gather::Gathering::default(),
            abandoned: Rc::default(),
            upkeep: Rc::default(),
            repairs: Rc::default(),
            hedging: Rc::default(),
            refusals: Rc::default(),
        }
    }

    /// Encrypts and decrypts with these keys.
    #[must_use]
    pub fn with_keys(self, keys: Arc<Keys>) -> Self {
        Self { keys, ..self }
    }

    /// Shares the names of buckets with other regions, by this registry.
    #[must_use]
    pub fn with_names(self, names: Option<Arc<dyn BucketNames>>) -> Self {
        Self { names, ..self }
    }

    /// Digests with this kernel and no other, so that nothing depends on the CPU: for simulations.
    #[must_use]
    pub fn digesting_with(self, kernel: anvil_digest::Kernel) -> Self {
        Self { digesting: digests::DigestQueue::new(self.world.clone(), kernel), ..self }
    }

    /// Encodes with this kernel and no other. All give the same bytes; simulations are to take the same time too.
    #[must_use]
    pub fn encoding_with(self, kernel: anvil_erasure::Kernel) -> Self {
        Self { encoding: kernel, ..self }
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

    /// What this core read from each disk for clients.
    #[must_use]
    pub fn disk_reads(&self) -> Vec<(DiskId, hedge::DiskReads)> {
        self.hedging.figures()
    }

    /// Bytes that this core made from other cells, for clients and for repairs.
    #[must_use]
    pub fn decoded_bytes(&self) -> u64 {
        self.hedging.decoded_bytes()
    }

    fn origin(&self, caller: Caller, bucket: &BucketName, key: &Key, payload: OriginPayload) -> Origin {
        Origin {
            tenant: caller.tenant,
            bucket: bucket.as_str().to_owned(),
            key: key.as_str().to_owned(),
            at: self.world.wall_clock(),
            payload,
        }
    }
}

/// The bucket as a change names it.
fn bucket_ref(row: &BucketRow) -> BucketRef {
    BucketRef { id: row.id, tenant: row.tenant, generation: row.generation }
}
