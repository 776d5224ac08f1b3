//! The metadata of a node that had no database, brought into those of a region: what is stored, who may do what, and the
//! node's own place. Each step may be done again, by whoever was cut short.

use std::path::Path;

use anvil_model::access::{AuditRecord, State};
use anvil_model::ids::NodeId;

use super::cluster::{self, Databases, JoinError};
use super::schema::{GLOBAL, REGIONAL, migrate};
use super::session::{Session, SessionError, SqlError};
use super::whole::{self, WholeError};
use super::{DatabaseRole, access};
use crate::data_dir::DataDir;
use crate::metadata::tables::{Compared, Difference, Value};

/// What is moved.
pub(crate) struct Moving<'a> {
    pub(crate) data: &'a DataDir,
    /// All rows.
    pub(crate) index: &'a Path,
    /// Who may do what, and what administrators did; `None` when nobody ever said.
    pub(crate) access: Option<(State, Vec<AuditRecord>)>,
    pub(crate) region: &'a str,
    /// The number that the node's blobs have.
    pub(crate) node: NodeId,
    /// By what the global database knows the node from now on.
    pub(crate) identity: u128,
}

/// Why it is not moved. Each text is one sentence. The node goes on as it was, unless the last step was done.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub(crate) enum MoveError {
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    Whole(#[from] WholeError),
    #[error("the global database: {0}")]
    Access(String),
    #[error(
        "{rows} rows of the regional database are not those of this node ({first}): a node that had no database needs a \
         database without objects"
    )]
    Differs { rows: u64, first: String },
    #[error(
        "{rows} rows on the disks are not those of the regional database ({first}): something changed it meanwhile; see that \
         nothing does, and run it again"
    )]
    NotTaken { rows: u64, first: String },
    #[error("no executor for the databases can be had: {0}")]
    Executor(#[from] std::io::Error),
}

/// Brings everything over, compares every row, and has the node begin with the databases at its next start. Gives how many
/// rows there are by table.
pub(crate) fn move_in(databases: &Databases, moving: &Moving<'_>) -> Result<Vec<Compared>, MoveError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, move_in_async(databases, moving))
}

async fn move_in_async(databases: &Databases, moving: &Moving<'_>) -> Result<Vec<Compared>, MoveError> {
    let Moving { data, index, access, region, node, identity } = moving;
    migrate(&databases.global, GLOBAL).await.map_err(JoinError::from)?;
    migrate(&databases.regional, REGIONAL).await.map_err(JoinError::from)?;
    let (global, regional) =
        (open(databases, DatabaseRole::Global).await?, open(databases, DatabaseRole::Regional).await?);
    cluster::make_region(&global, &regional, region).await?;
    cluster::check_region(&global, &regional, region).await?;
    cluster::take_in(&global, *identity, *node, region).await?;
    if whole::is_empty(&regional).await? {
        whole::bring(&regional, index).await?;
    }
    let mut first = None;
    let compared = whole::compare(&regional, index, |difference: Difference| {
        first.get_or_insert_with(|| format!("{}, {}", difference.table, difference.row));
    });
    let compared = compared.await?;
    if let Some(first) = first {
        return Err(MoveError::Differs { rows: compared.iter().map(|table| table.differences).sum(), first });
    }
    if let Some((state, audit)) = access {
        let taken = access::take_in(&global, state, audit).await;
        taken.map_err(|error: SqlError| MoveError::Access(error.to_string()))?;
    }
    let change = whole::last_change(index)?;
    cluster::move_to(&global, &regional, data, *identity, *node, change).await?;
    Ok(compared)
}

/// Calls `visit` for each row of the regional database, from one view of it. The node may be running.
pub(crate) fn each_row<E: From<MoveError>>(
    databases: &Databases,
    mut visit: impl FnMut(&str, Vec<(String, Value)>) -> Result<(), E>,
) -> Result<(), E> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(MoveError::from)?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let regional = open(databases, DatabaseRole::Regional).await.map_err(MoveError::from)?;
        let mut failed = None;
        let walked = whole::each(&regional, |table, row| {
            visit(table, row).map_err(|error| {
                failed = Some(error);
                WholeError::Stopped
            })
        });
        match (walked.await, failed) {
            (_, Some(error)) => Err(error),
            (walked, None) => walked.map_err(|error| MoveError::from(error).into()),
        }
    })
}

pub(super) async fn open(databases: &Databases, role: DatabaseRole) -> Result<Session, JoinError> {
    let database = match role {
        DatabaseRole::Global => &databases.global,
        DatabaseRole::Regional => &databases.regional,
    };
    Session::open(database).await.map_err(|error: SessionError| error.into())
}
