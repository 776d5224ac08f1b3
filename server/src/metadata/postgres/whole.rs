//! All rows of a region's database, table by table: brought there from an index of the embedded metadata, compared with it, and
//! written out.
//!
//! Knows columns by their names, which are the same in both schemas, and nothing of what they mean: but for where the
//! generations stand, and one column that follows from others.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::pin::pin;

use anvil_model::ids::{Generation, WriteId};
use bytes::BytesMut;
use futures_util::TryStreamExt as _;
use tokio::sync::mpsc;
use tokio_postgres::RowStream;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::session::{Session, SqlError};
use crate::metadata::tables::{Compared, Difference, Table, Tables, Value};

/// Why rows cannot be brought over or compared. Each text is one sentence.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub(crate) enum WholeError {
    #[error("the regional database: {0}")]
    Database(String),
    #[error("the index cannot be read: {0}")]
    Index(#[from] rusqlite::Error),
    #[error("table {table} of the index and of the regional database do not have the same columns: {what}")]
    Columns { table: String, what: String },
    /// Whoever wanted the rows wants no more.
    #[error("the rest was not asked for")]
    Stopped,
}

impl From<SqlError> for WholeError {
    fn from(error: SqlError) -> Self {
        Self::Database(error.to_string())
    }
}

impl From<tokio_postgres::Error> for WholeError {
    fn from(error: tokio_postgres::Error) -> Self {
        SqlError::from(error).into()
    }
}

/// The tables of both, in the order in which they are written out.
const TABLES: [&str; 12] = [
    "blobs",
    "buckets",
    "garbage",
    "heads",
    "parts",
    "segments",
    "tenant_quotas",
    "uploads",
    "usage",
    "versions",
    "writers",
    "writes",
];
/// Of the index alone: what a database has in a sequence, and in a table of its own.
const COUNTERS: &str = "counters";
/// Follows from the places and the state of a blob, and is a column in the database only.
const IN_DEBT: &str = "in_debt";
/// The table of that column, its state that is live, and the bytes of a place.
const BLOBS: &str = "blobs";
const LIVE: i64 = 1;
const PLACE_BYTES: usize = 16;
/// The table of what is held. Nodes add up rows of their own; without a database there is one row, as of node 0.
const USAGE: &str = "usage";
/// Rows on their way out of an index.
const ROWS_AHEAD: usize = 1024;

/// Whether the database has no row of what is stored.
pub(crate) async fn is_empty(session: &Session) -> Result<bool, WholeError> {
    for table in TABLES {
        let rows = session.client().query(&format!("SELECT 1 FROM {table} LIMIT 1"), &[]).await?;
        if !rows.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Brings all rows of an index into a database that has none, in one transaction. Gives how many there were. When this
/// fails, the database has none, or all of them if only the answer was lost.
pub(crate) async fn bring(session: &Session, index: &Path) -> Result<u64, WholeError> {
    session.run(PATIENTLY).await?;
    session.run("BEGIN").await?;
    let mut count = 0;
    for table in tables_of(index)? {
        count += bring_table(session, index, &table).await?;
    }
    let next = Tables::open(index)?.next_generation()?;
    session.client().execute(NEXT_GENERATION, &[&next]).await?;
    session.run("COMMIT").await?;
    // So that the planner knows from the beginning how large they are.
    session.run("ANALYZE").await?;
    Ok(count)
}

async fn bring_table(session: &Session, index: &Path, table: &Table) -> Result<u64, WholeError> {
    let mut kinds = kinds_of(session, table).await?;
    let mut names = table.quoted_columns();
    let is_blobs = table.name == BLOBS;
    if is_blobs {
        kinds.push(Type::BOOL);
        names.push(IN_DEBT.to_owned());
    }
    let copy = format!("COPY {} ({}) FROM STDIN BINARY", table.name, names.join(", "));
    let mut writer = pin!(BinaryCopyInWriter::new(session.client().copy_in(&copy).await?, &kinds));
    let mut rows = rows_of(index.to_owned(), table.clone());
    while let Some(row) = rows.recv().await {
        let mut row = row?;
        if is_blobs {
            row.push(Value::Integer(is_in_debt(table, &row).into()));
        }
        let cells: Vec<&(dyn ToSql + Sync)> = row.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        writer.as_mut().write(&cells).await?;
    }
    Ok(writer.finish().await?)
}

/// Compares all rows of an index with those of the database. Tells every one that differs: *old* is the index, *new* the
/// database.
pub(crate) async fn compare(
    session: &Session,
    index: &Path,
    mut tell: impl FnMut(Difference),
) -> Result<Vec<Compared>, WholeError> {
    session.run(PATIENTLY).await?;
    session.run(ONE_VIEW).await?;
    let mut all = Vec::new();
    for table in tables_of(index)? {
        kinds_of(session, &table).await?;
        let select = if table.name == USAGE { USAGE_SUMS.to_owned() } else { table.select() };
        let mut there = pin!(stream(session, &select).await?);
        let mut here = rows_of(index.to_owned(), table.clone());
        let mut compared = Compared { table: table.name.clone(), ..Compared::default() };
        let (mut left, mut right) = (here.recv().await.transpose()?, next(there.as_mut()).await?);
        while left.is_some() || right.is_some() {
            let order = compared.step(&table, &mut left, &mut right, &mut tell);
            if order.is_le() {
                left = here.recv().await.transpose()?;
            }
            if order.is_ge() {
                right = next(there.as_mut()).await?;
            }
        }
        all.push(compared);
    }
    session.run("COMMIT").await?;
    Ok(all)
}

/// Calls `visit` for each row of the database, from one view of it, with its table and the names of its columns, until that
/// fails.
pub(crate) async fn each(
    session: &Session,
    mut visit: impl FnMut(&str, Vec<(String, Value)>) -> Result<(), WholeError>,
) -> Result<(), WholeError> {
    session.run(PATIENTLY).await?;
    session.run(ONE_VIEW).await?;
    for table in TABLES {
        let key = session.client().query(KEY, &[&table]).await?;
        let key: Vec<String> = key.iter().map(|row| format!("\"{}\"", row.get::<_, &str>(0))).collect();
        let sql = match table {
            USAGE => USAGE_SUMS.to_owned(),
            table => format!("SELECT * FROM {table} ORDER BY {}", key.join(", ")),
        };
        let mut rows = pin!(stream(session, &sql).await?);
        while let Some(row) = rows.try_next().await? {
            let names = row.columns().iter().map(|column| column.name().to_owned());
            visit(table, names.zip(values(&row)?).filter(|(column, _)| column != IN_DEBT).collect())?;
        }
    }
    Ok(session.run("COMMIT").await?)
}

/// The last change that an index heard of.
pub(crate) fn last_change(index: &Path) -> Result<Option<(Generation, WriteId)>, WholeError> {
    let last = Tables::open(index)?.last_write()?;
    let id = |bytes: Vec<u8>| <[u8; 16]>::try_from(bytes).ok().map(u128::from_be_bytes);
    Ok(last.and_then(|(generation, write)| Some((Generation(generation.cast_unsigned()), WriteId(id(write)?)))))
}

/// The tables of an index that a database has too. One that it does not know would be lost.
fn tables_of(index: &Path) -> Result<Vec<Table>, WholeError> {
    let mut tables = Tables::open(index)?.list()?;
    tables.retain(|table| table.name != COUNTERS);
    match tables.iter().find(|table| !TABLES.contains(&table.name.as_str())) {
        Some(table) => Err(WholeError::Columns { table: table.name.clone(), what: "it is not there".to_owned() }),
        None => Ok(tables),
    }
}

/// What the database keeps in the columns of an index's table. It must have all of them, and no other.
async fn kinds_of(session: &Session, table: &Table) -> Result<Vec<Type>, WholeError> {
    let statement = session.client().prepare(&format!("SELECT * FROM {}", table.name)).await?;
    let differ = |what: String| WholeError::Columns { table: table.name.clone(), what };
    let unknown = |name: &&str| *name != IN_DEBT && !table.columns.iter().any(|column| column == name);
    if let Some(column) = statement.columns().iter().map(tokio_postgres::Column::name).find(unknown) {
        return Err(differ(format!("only the database has {column}")));
    }
    let kind = |name: &String| statement.columns().iter().find(|column| column.name() == name);
    let kinds = table.columns.iter().map(|name| Ok(kind(name).ok_or(name)?.type_().clone()));
    kinds.collect::<Result<_, &String>>().map_err(|name| differ(format!("only the index has {name}")))
}

async fn stream(session: &Session, sql: &str) -> Result<RowStream, WholeError> {
    Ok(session.client().query_raw(sql, std::iter::empty::<i64>()).await?)
}

async fn next(mut rows: std::pin::Pin<&mut RowStream>) -> Result<Option<Vec<Value>>, WholeError> {
    rows.try_next().await?.map(|row| values(&row)).transpose()
}

fn values(row: &tokio_postgres::Row) -> Result<Vec<Value>, WholeError> {
    (0..row.len()).map(|at| Ok(row.try_get(at)?)).collect()
}

/// The rows of a table of an index, read on a thread of their own.
fn rows_of(index: PathBuf, table: Table) -> mpsc::Receiver<rusqlite::Result<Vec<Value>>> {
    let (sender, rows) = mpsc::channel(ROWS_AHEAD);
    tokio::task::spawn_blocking(move || {
        // Where nobody wants more of them there is nobody to tell either.
        let sent =
            |row: &[Value]| sender.blocking_send(Ok(row.to_vec())).map_err(|_| rusqlite::Error::QueryReturnedNoRows);
        let read = Tables::open(&index).and_then(|tables| tables.each(&table, sent));
        if let Err(error) = read {
            let _ = sender.blocking_send(Err(error));
        }
    });
    rows
}

/// Whether a live blob has a shard without a place.
fn is_in_debt(table: &Table, row: &[Value]) -> bool {
    let column = |name| table.columns.iter().position(|column| column == name).map(|at| &row[at]);
    let is_live = column("state") == Some(&Value::Integer(LIVE));
    let Some(Value::Bytes(places)) = column("places") else { return false };
    is_live && places.chunks(PLACE_BYTES).any(|place| place.iter().all(|byte| *byte == 0))
}

impl ToSql for Value {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match (self, kind) {
            (Self::Null, _) => Ok(IsNull::Yes),
            (Self::Integer(number), &Type::INT8) => number.to_sql(kind, out),
            (Self::Integer(number), &Type::INT4) => i32::try_from(*number)?.to_sql(kind, out),
            (Self::Integer(number), &Type::INT2) => i16::try_from(*number)?.to_sql(kind, out),
            (Self::Integer(number), &Type::BOOL) => (*number != 0).to_sql(kind, out),
            (Self::Text(text), &Type::TEXT) => text.to_sql(kind, out),
            (Self::Bytes(bytes), &Type::BYTEA) => bytes.to_sql(kind, out),
            (value, kind) => Err(format!("{value} is no {kind}").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(match *kind {
            Type::INT8 => Self::Integer(i64::from_sql(kind, raw)?),
            Type::INT4 => Self::Integer(i32::from_sql(kind, raw)?.into()),
            Type::INT2 => Self::Integer(i16::from_sql(kind, raw)?.into()),
            Type::BOOL => Self::Integer(bool::from_sql(kind, raw)?.into()),
            Type::TEXT => Self::Text(String::from_sql(kind, raw)?),
            Type::BYTEA => Self::Bytes(raw.to_vec()),
            ref other => return Err(format!("no column of an index holds {other}").into()),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// The columns of [`USAGE`], and who holds nothing has no row.
pub(super) const USAGE_SUMS: &str = "SELECT scope, id, 0::bigint AS node, sum(objects)::bigint AS objects, \
    sum(object_bytes)::bigint AS object_bytes, sum(upload_bytes)::bigint AS upload_bytes FROM usage GROUP BY scope, id \
    HAVING sum(objects) <> 0 OR sum(object_bytes) <> 0 OR sum(upload_bytes) <> 0 ORDER BY scope, id";
pub(super) const PATIENTLY: &str = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";
pub(super) const ONE_VIEW: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const NEXT_GENERATION: &str = "SELECT setval('generations', $1, false)";
/// The columns of a table's primary key, in its order.
const KEY: &str = "SELECT attname::text FROM pg_index, unnest(indkey) WITH ORDINALITY AS keys (number, place) \
    JOIN pg_attribute ON attnum = number WHERE indisprimary AND attrelid = indrelid \
    AND indrelid = to_regclass($1::text) ORDER BY place";
