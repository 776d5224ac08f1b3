//! The metadata of a node that leaves its databases: what is stored, who may do what, and the tasks of its region, on the way to
//! the node's own disks. Nothing in the databases changes but that lives of the node are closed; whoever was cut short begins
//! anew.

use std::future::Future;
use std::path::Path;
use std::pin::pin;

use anvil_model::ids::{Generation, Incarnation, NodeId};
use anvil_node::metadata::rows::RowsError;
use anvil_node::metadata::taken::TakenRow;
use futures_util::TryStreamExt as _;
use tokio::sync::mpsc;
use tokio_postgres::Row;

use super::cluster::{self, Databases, Leaver};
use super::columns::{self, Columns};
use super::moving::{MoveError, open};
use super::whole::{self, ONE_VIEW, PATIENTLY, USAGE_SUMS};
use super::{DatabaseRole, access, tasks};
use crate::access::{AUDIT_MAX, Kept};
use crate::data_dir::DataDir;
use crate::metadata::tables::{Compared, Difference};
use crate::tasks::task::Task;

/// What a node takes along, besides rows.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) node: NodeId,
    pub(crate) region: String,
    /// The history of a log that an earlier attempt may have left on the disks.
    pub(crate) leaving: Option<u128>,
    pub(crate) access: Kept,
    pub(crate) tasks: Vec<Task>,
}

/// A row on its way out, and at the end of them all the generation that was never given.
#[derive(Debug)]
pub(crate) enum Piece {
    Row(TakenRow),
    End(Generation),
}

/// Looks whether the node can leave, and reads what is not rows.
pub(crate) fn begin(databases: &Databases, data: &DataDir) -> Result<Leaving, MoveError> {
    on_a_runtime(async {
        let global = open(databases, DatabaseRole::Global).await?;
        let regional = open(databases, DatabaseRole::Regional).await?;
        let Leaver { node, region, leaving } = cluster::leaver(&global, &regional, data).await?;
        let access =
            access::take_out(&global, AUDIT_MAX).await.map_err(|error| MoveError::Access(error.to_string()))?;
        let tasks = tasks::all(&global, &region).await.map_err(|error| MoveError::Access(error.to_string()))?;
        Ok(Leaving { node, region, leaving, access, tasks })
    })
}

/// Compares every row of an index with those of the database; gives how many there are by table.
pub(crate) fn compare(databases: &Databases, index: &Path) -> Result<Vec<Compared>, MoveError> {
    on_a_runtime(async {
        let regional = open(databases, DatabaseRole::Regional).await?;
        let mut first = None;
        let compared = whole::compare(&regional, index, |difference: Difference| {
            first.get_or_insert_with(|| format!("{}, {}", difference.table, difference.row));
        });
        let compared = compared.await?;
        match first {
            None => Ok(compared),
            Some(first) => {
                Err(MoveError::NotTaken { rows: compared.iter().map(|table| table.differences).sum(), first })
            }
        }
    })
}

/// Closes the lives of the node up to this one in the database: what they wrote is the sweep's, should the node stay.
pub(crate) fn close_lives(databases: &Databases, node: NodeId, last: Incarnation) -> Result<(), MoveError> {
    on_a_runtime(async {
        let regional = open(databases, DatabaseRole::Regional).await?;
        Ok(cluster::close_lives(&regional, node, last).await?)
    })
}

/// All rows of the regional database, in one view of it, read on a thread of their own.
pub(crate) fn rows(databases: &Databases) -> std::io::Result<mpsc::Receiver<Result<Piece, MoveError>>> {
    let (sender, rows) = mpsc::channel(ROWS_AHEAD);
    let databases = databases.clone();
    std::thread::Builder::new().name("rows-postgres".to_owned()).spawn(move || {
        let sent = on_a_runtime(send_rows(&databases, &sender));
        if let Err(error) = sent {
            // Where nobody wants more of them there is nobody to tell either.
            let _ = sender.blocking_send(Err(error));
        }
    })?;
    Ok(rows)
}

type Sender = mpsc::Sender<Result<Piece, MoveError>>;
/// How a row becomes one that is taken in.
type Read = fn(&Row) -> Result<TakenRow, RowsError>;

async fn send_rows(databases: &Databases, sender: &Sender) -> Result<(), MoveError> {
    let regional = open(databases, DatabaseRole::Regional).await?;
    let client = regional.client();
    regional.run(PATIENTLY).await.map_err(whole::WholeError::from)?;
    regional.run(ONE_VIEW).await.map_err(whole::WholeError::from)?;
    let from = |table: &str, columns: Columns| format!("SELECT {} FROM {table}", columns::names(columns, ""));
    let tables: [(String, Read); 11] = [
        (from("writers", columns::WRITER), |row| Ok(TakenRow::Writer(columns::writer(row)?))),
        (from("writes", columns::WRITE), |row| Ok(TakenRow::Write(Box::new(columns::write(row)?)))),
        (from("buckets", columns::BUCKET), |row| Ok(TakenRow::Bucket(Box::new(columns::bucket(row)?)))),
        (from("tenant_quotas", columns::TENANT_QUOTA), |row| {
            columns::tenant_quota(row).map(|(tenant, quota)| TakenRow::TenantQuota { tenant, quota })
        }),
        (format!("SELECT scope, id, objects, object_bytes, upload_bytes FROM ({USAGE_SUMS}) AS sums"), |row| {
            columns::usage(row).map(|(of, usage)| TakenRow::Usage { of, usage })
        }),
        (from("blobs", columns::BLOB), |row| Ok(TakenRow::Blob(Box::new(columns::blob(row)?)))),
        (from("heads", columns::HEAD), |row| {
            let ((bucket, key), version) = columns::head(row)?;
            Ok(TakenRow::Head { bucket, key, version: Box::new(version) })
        }),
        (from("segments", columns::SEGMENT), |row| {
            let (bucket, version) = columns::segment_of(row)?;
            Ok(TakenRow::Segment { bucket, version, segment: Box::new(columns::segment(row)?) })
        }),
        (from("garbage", columns::GARBAGE), |row| Ok(TakenRow::Garbage(columns::garbage(row)?))),
        (from("uploads", columns::UPLOAD), |row| Ok(TakenRow::Upload(Box::new(columns::upload(row)?)))),
        (from("parts", columns::PART), |row| {
            let (upload, part) = columns::part(row)?;
            Ok(TakenRow::Part { upload, part: Box::new(part) })
        }),
    ];
    for (select, read) in tables {
        let rows = client.query_raw(&select, std::iter::empty::<i64>()).await.map_err(whole::WholeError::from)?;
        let mut rows = pin!(rows);
        while let Some(row) = rows.try_next().await.map_err(whole::WholeError::from)? {
            let row = read(&row).map_err(|error| whole::WholeError::Database(error.to_string()))?;
            if sender.send(Ok(Piece::Row(row))).await.is_err() {
                return Ok(());
            }
        }
    }
    regional.run("COMMIT").await.map_err(whole::WholeError::from)?;
    let last = client.query_one(LAST_GENERATION, &[]).await.map_err(whole::WholeError::from)?;
    let next = Generation(last.get::<_, i64>(0).cast_unsigned() + 1);
    // Nobody may want it any more.
    let _ = sender.send(Ok(Piece::End(next))).await;
    Ok(())
}

fn on_a_runtime<T>(work: impl Future<Output = Result<T, MoveError>>) -> Result<T, MoveError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// Rows on their way to the disks.
const ROWS_AHEAD: usize = 1024;
const LAST_GENERATION: &str = "SELECT last_value FROM generations";
