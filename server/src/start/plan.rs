//! What a start is told, and why it may come to nothing.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anvil_model::ids::{CoreId, DiskId, TenantId};
use anvil_node::encryption::KeysError;
use anvil_node::metadata::MetadataError;
use anvil_node::metadata::embedded;
use anvil_runtime::{DiskOptions, OpenError};
use anvil_store::{RecoverError, ScrubOptions};

use crate::access::AccessKeeper;
use crate::access::passwords::Passwords;
use crate::access::sealing::Sealer;
use crate::auth::{Authenticator, Directory};
use crate::config::{ClassChoice, EncryptionChoice};
use crate::data_dir::DataDir;
use crate::disks::DiskError;
use crate::grpc::Gate;
use crate::listener::BindError;
use crate::metadata::postgres::access::{AccessDatabase, AccessPlan as GlobalAccess};
use crate::metadata::postgres::cluster::{Databases, Place as Membership};
use crate::metadata::postgres::registry::Registry;
use crate::metadata::postgres::tasks::TaskDatabase;
use crate::metadata::threads::StartError as IndexError;
use crate::regions::Regions;
use crate::s3::Domains;
use crate::tasks::TaskKeeper;
use crate::telemetry::MetricsAllow;
use crate::tls::Tls;

/// Everything that a start needs to know.
pub struct Plan {
    /// Identity and metadata index live here.
    pub data: DataDir,
    /// The disks as the operator named them, at least one.
    pub disks: Vec<DiskPlan>,
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Who the node is for clients that come with TLS.
    pub tls: Option<Arc<Tls>>,
    /// How long a client's connection may be silent between two requests.
    pub idle_timeout: Duration,
    /// Where buckets are made.
    pub region: String,
    /// How objects are spread, by storage class.
    pub classes: ClassChoice,
    /// Host names in front of which buckets stand.
    pub domains: Domains,
    /// Who may come in.
    pub authenticator: Arc<Authenticator>,
    /// Who may administrate, who may ask for buckets and objects by gRPC, and how often anybody may come.
    pub gate: Gate,
    /// Whether new objects are encrypted, and with what the keys are wrapped.
    pub encryption: EncryptionChoice,
    /// Who may read the metrics.
    pub metrics_allow: Arc<MetricsAllow>,
    /// Who may do what, besides.
    pub access: AccessPlan,
    /// The cores and their memory.
    pub runtime: anvil_runtime::Options,
    /// The core that also does the metadata's batching and writes its log.
    pub host: CoreId,
    /// For how long deleted data is kept for those who read it.
    pub reclaim_delay: Duration,
    /// For how long an upload may take before it is aborted.
    pub upload_expiry: Option<Duration>,
    /// How the records of the disks are verified in the background; `None` when they are not.
    pub scrub: Option<ScrubOptions>,
    /// What is made again per second, at most, over all cores.
    pub repair_bytes_per_second: u64,
    /// Where the metadata is.
    pub metadata: MetadataPlan,
}

/// What is needed to keep tenants, apps and what they may do.
#[derive(Debug)]
pub struct AccessPlan {
    /// The one that requests are authenticated with.
    pub directory: Directory,
    /// Hides secrets of apps.
    pub sealer: Arc<Sealer>,
    /// The tenant of the node's own app.
    pub own: TenantId,
    /// For how long what was read of a database may be used when that does not answer.
    pub ttl: Duration,
}

impl AccessPlan {
    pub(super) fn start(self, metadata: &MetadataPlan) -> Result<AccessKeeper, StartError> {
        let Self { directory, sealer, own, ttl } = self;
        let passwords = Passwords::start().map_err(StartError::Thread)?;
        match metadata {
            MetadataPlan::Embedded => Ok(AccessKeeper::on_node(directory, sealer, passwords, own)),
            MetadataPlan::Database { databases, .. } => {
                let database = GlobalAccess {
                    database: databases.global.clone(),
                    directory: directory.clone(),
                    sealer: Arc::clone(&sealer),
                    own,
                    ttl,
                };
                let database = AccessDatabase::start(database).map_err(StartError::Thread)?;
                Ok(AccessKeeper::in_database(directory, sealer, passwords, own, database))
            }
        }
    }
}

/// Where the tasks of the node's region are: where its metadata is, so that they survive what that survives.
pub(super) fn start_tasks(metadata: &MetadataPlan, region: &str) -> Result<TaskKeeper, StartError> {
    match metadata {
        MetadataPlan::Embedded => Ok(TaskKeeper::on_node()),
        MetadataPlan::Database { databases, .. } => {
            let database = TaskDatabase::start(databases.global.clone(), region.to_owned());
            Ok(TaskKeeper::in_database(database.map_err(StartError::Thread)?))
        }
    }
}

/// Who knows the regions that share names with this one.
pub(super) fn start_regions(metadata: &MetadataPlan, region: &str) -> Result<Regions, StartError> {
    match metadata {
        MetadataPlan::Embedded => Ok(Regions::Own(region.to_owned())),
        MetadataPlan::Database { databases, .. } => {
            let registry = Registry::start((**databases).clone(), region.to_owned());
            Ok(Regions::Shared(registry.map_err(StartError::Thread)?))
        }
    }
}

/// Where the metadata of a node is.
#[derive(Clone, Debug)]
pub enum MetadataPlan {
    /// On the node's disks, with an index in the data directory.
    Embedded,
    /// In a region's database, in which the node has its place.
    Database {
        /// Both of the region.
        databases: Box<Databases>,
        /// What the node is there.
        place: Membership,
    },
}

/// A disk as the operator named it.
#[derive(Clone, Debug)]
pub struct DiskPlan {
    /// A directory or a block device.
    pub path: PathBuf,
    /// How it is opened.
    pub options: DiskOptions,
}

/// Why the node does not serve. Each text is one sentence.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("there is no disk at {path}, where this node had one: mount it, or name the path where it is now")]
    NotMounted { path: PathBuf },
    #[error(transparent)]
    Cores(#[from] anvil_runtime::StartError),
    #[error(transparent)]
    Disks(#[from] DiskError),
    #[error(transparent)]
    Recover(#[from] RecoverError),
    #[error("ANVIL_SECRET_ENCRYPTION_KEY is not what this node's disks were encrypted with: {0}")]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Metadata(#[from] embedded::OpenError),
    #[error("the region's database did not open this life of the node: {0}")]
    Life(MetadataError),
    #[error("a thread cannot be started: {0}")]
    Thread(#[source] io::Error),
    #[error(
        "the disks hold the metadata of a node without a database, which this one would not see: start without \
         GLOBAL_DATABASE_URL and REGIONAL_DATABASE_URL, or with empty disks and another data directory"
    )]
    DisksWithMetadata,
    #[error(
        "the disks hold data, and nothing here says which database knows it: start with the data directory that belongs to \
         them"
    )]
    DisksWithoutMetadata,
    #[error(
        "the disks hold data, and no record of the metadata log that says whose it is; a node that started now would give all \
         of it up. If a database knows it, start with GLOBAL_DATABASE_URL, REGIONAL_DATABASE_URL and the data directory that \
         belongs to them; if the log is lost, run `anvil admin metadata rebuild --salvage --replace` first"
    )]
    DisksWithoutLog,
    #[error("what is left of a log on disk {disk} cannot be given up: {error}")]
    GiveUpLog { disk: DiskId, error: String },
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Panicked(#[from] anvil_runtime::JoinError),
}
