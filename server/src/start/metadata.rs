//! The metadata of a start: SQLite beside the log of the disks, or a region's database.

use std::sync::Arc;
use std::time::Duration;

use anvil_model::ids::{NodeId, WriteId};
use anvil_model::io::World as _;
use anvil_node::metadata::batch::Limits;
use anvil_node::metadata::mutation::{Change, Mutation, Outcome};
use anvil_node::metadata::{Metadata as _, MetadataError, embedded};
use anvil_node::upkeep::CurrentLife;
use anvil_runtime::Core;
use anvil_store::LogWriter;

use super::plan::{MetadataPlan, StartError};
use crate::data_dir::DataDir;
use crate::metadata::postgres::cluster::{self, Place as Membership};
use crate::metadata::postgres::{Postgres, PostgresThread, Seen};
use crate::metadata::{SqliteIndex, Threads};
use crate::routes::Readiness;

/// What answers for the metadata, before the disks are read.
pub(super) enum MetadataSource {
    Embedded(SqliteIndex),
    Database { postgres: Postgres, place: Membership },
}

/// What the metadata runs on beside the cores.
pub(super) enum MetadataThreads {
    Sqlite(Threads),
    Postgres(PostgresThread),
}

impl MetadataSource {
    /// Starts its threads.
    pub(super) fn start(
        plan: MetadataPlan,
        data: &Arc<DataDir>,
        readiness: &Arc<Readiness>,
    ) -> Result<(Self, MetadataThreads), StartError> {
        match plan {
            MetadataPlan::Embedded => {
                let (index, threads) = SqliteIndex::start(data.path())?;
                Ok((Self::Embedded(index), MetadataThreads::Sqlite(threads)))
            }
            MetadataPlan::Database { databases, place } => {
                let (readiness, data) = (Arc::clone(readiness), Arc::clone(data));
                let on_seen = move |seen: Seen| {
                    if let Err(error) = cluster::keep_seen(&data, seen) {
                        tracing::warn!(%error, "where the metadata stands cannot be noted");
                    }
                };
                let on_health = Box::new(move |role, there| readiness.database(role, there));
                let started = Postgres::start(*databases, place.node, place.seen, on_health, Box::new(on_seen));
                let (postgres, thread) = started.map_err(StartError::Thread)?;
                Ok((Self::Database { postgres, place }, MetadataThreads::Postgres(thread)))
            }
        }
    }

    pub(super) fn limits(&self) -> Limits {
        match self {
            Self::Embedded(_) => Limits::EMBEDDED,
            Self::Database { .. } => Limits::DATABASE,
        }
    }
}

impl MetadataThreads {
    pub(super) fn join(self) {
        match self {
            Self::Sqlite(threads) => threads.join(),
            Self::Postgres(thread) => thread.join(),
        }
    }
}

/// The metadata when the disks were read: it opens this life next.
pub(super) enum OpenedMetadata {
    Embedded { writer: Box<LogWriter<Core>>, index: SqliteIndex, replayed: embedded::Replayed },
    Database { postgres: Postgres, place: Membership },
}

/// Opens the next life of the node in its region's database.
pub(super) async fn open_life(core: &Core, postgres: &Postgres, node: NodeId) -> Result<CurrentLife, StartError> {
    let write = WriteId(u128::from(core.random()) << 64 | u128::from(core.random()));
    let opening: Arc<[Mutation]> = Arc::new([Mutation { write, change: Change::OpenWriter { node } }]);
    // The same write again opens the same life.
    for _ in 0..LIFE_ASKED_MAX {
        match postgres.commit(Arc::clone(&opening)).await.pop() {
            Some(Ok(Outcome::WriterOpened(incarnation))) => return Ok(CurrentLife { node, incarnation }),
            Some(Err(error @ MetadataError::Refused(_))) => return Err(StartError::Life(error)),
            Some(Err(_)) => core.sleep(LIFE_ASKED_EVERY).await,
            other => unreachable!("opening a writer gives a life, not {other:?}"),
        }
    }
    Err(StartError::Life(MetadataError::Unavailable { retry_after: LIFE_ASKED_EVERY }))
}

/// How often a database that is away is asked to open the life of a node that starts, and how long is waited in between.
const LIFE_ASKED_MAX: u32 = 30;
const LIFE_ASKED_EVERY: Duration = Duration::from_secs(1);
