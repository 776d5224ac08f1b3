//! What a node says of itself in the databases: once that its region is there, and at each start that it is.

use anvil_model::ids::{Generation, Incarnation, NodeId, TenantId, WriteId};
use serde::{Deserialize, Serialize};

use super::Seen;
use super::address::Database;
use super::schema::{GLOBAL, REGIONAL, SchemaError, Status, migrate};
use super::session::{Session, SessionError, SqlError};
use super::usage::recount_if_due;
use super::work::has_moved;
use crate::credentials::TENANT;
use crate::data_dir::{DataDir, DataDirError, FILE_VERSION};
use crate::identity::EMBEDDED_NODE;

/// Both databases of a region.
#[derive(Clone, Debug)]
pub struct Databases {
    /// What regions share.
    pub global: Database,
    /// What is stored here.
    pub regional: Database,
}

/// Why a node has no place in the databases. Each text is one sentence.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum JoinError {
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("the databases cannot be asked: {0}")]
    Asking(String),
    #[error("no executor for the databases can be had: {0}")]
    Executor(#[source] std::io::Error),
    #[error("the databases know no region {region}: start with --init-cluster to make it, or set REGION to {known}")]
    NoRegion { region: String, known: String },
    #[error("REGIONAL_DATABASE_URL names the database of region {found}, and REGION is {region}")]
    OtherRegion { region: String, found: String },
    #[error(
        "region {region} is known with another database than the one that REGIONAL_DATABASE_URL names: name the one that \
         it began with"
    )]
    OtherDatabase { region: String },
    #[error(
        "region {region} has node {other} already, and this version serves a region with one node: start with the data \
         directory and the disks of that node"
    )]
    Second { region: String, other: i32 },
    #[error(
        "the data directory belongs to node {node} of another cluster: start with the databases that it was used with, or \
         with another data directory and other disks"
    )]
    OtherCluster { node: NodeId },
    #[error("the metadata of this node is on its disks, and not in a database")]
    NoDatabase,
    #[error(
        "the global database has nodes already, and not this one: a node that had no database needs a region of its own"
    )]
    NotAlone,
    #[error(
        "{0}: bring the database forward, or have the node go on with it as it is by `anvil admin metadata reconcile`"
    )]
    Moved(String),
    #[error("the global database does not know node {0}: it went back; bring back a copy that is newer than the node")]
    Unknown(NodeId),
    #[error(
        "this is node {0} of its databases, and a node without a database is node {EMBEDDED_NODE}: only the first node of a global \
         database can leave it"
    )]
    NotTheFirst(NodeId),
    #[error(
        "the node's own app is of tenant {found} here, and of tenant {TENANT} where there is no database: the node cannot leave \
         this one"
    )]
    OtherTenant { found: TenantId },
}

/// What a node knows of its place in the databases, in its data directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// Drawn at the first start; by it the global database knows the node.
    identity: u128,
    node: NodeId,
    global: u128,
    regional: u128,
    /// The last change that it heard of.
    generation: Option<Generation>,
    write: Option<WriteId>,
    /// The history of a log on the disks that was begun for a node that leaves; of no use as long as this file is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaving: Option<u128>,
}

/// A node's place in the databases.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its number in the cluster, never given to another one.
    pub node: NodeId,
    /// The tenant of the credentials in the data directory.
    pub tenant: TenantId,
    /// What the regional database must still have.
    pub seen: Seen,
    /// Whether it has this number since now: then its disks hold nothing that the databases know.
    pub new: bool,
    /// The history of a log that may be on the disks, because moving the metadata there was cut short. It says nothing.
    pub leaving: Option<u128>,
}

/// Whether this data directory is one of a node with databases.
///
/// # Errors
/// When that cannot be read.
pub fn is_of_a_database(data: &DataDir) -> Result<bool, DataDirError> {
    Ok(data.read::<Kept>(FILE)?.is_some())
}

/// Keeps what was seen last, for the next start.
///
/// # Errors
/// When it cannot be read or written.
pub fn keep_seen(data: &DataDir, seen: Seen) -> Result<(), DataDirError> {
    let Some(mut kept) = data.read::<Kept>(FILE)? else { return Ok(()) };
    (kept.generation, kept.write) = seen.change.unzip();
    data.write(FILE, &kept)
}

/// Gives the node its place: looks at both schemas, the region and the history of the databases, and has the node known to
/// them. With `init` it migrates and makes the region and the first tenant where they are not there; as often as one
/// likes, on as many nodes.
///
/// # Errors
/// When the databases are not those of this node and region, or cannot be asked.
pub fn join(databases: &Databases, data: &DataDir, region: &str, init: bool) -> Result<Place, JoinError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(JoinError::Executor)?;
    tokio::task::LocalSet::new().block_on(&runtime, join_async(databases, data, region, init))
}

async fn join_async(databases: &Databases, data: &DataDir, region: &str, init: bool) -> Result<Place, JoinError> {
    let Databases { global, regional } = databases;
    if init {
        migrate(global, GLOBAL).await?;
        migrate(regional, REGIONAL).await?;
    }
    let (global, regional) = (Session::open(global).await?, Session::open(regional).await?);
    Status::read(&global, GLOBAL).await?.check()?;
    Status::read(&regional, REGIONAL).await?.check()?;
    if init || is_awaited(&global, region).await? {
        make_region(&global, &regional, region).await?;
    }
    check_region(&global, &regional, region).await?;
    let (global_lineage, regional_lineage) = (lineage(&global).await?, lineage(&regional).await?);
    let kept = data.read::<Kept>(FILE)?;
    let new = kept.is_none();
    let kept = match kept {
        Some(kept) if (kept.global, kept.regional) != (global_lineage, regional_lineage) => {
            return Err(JoinError::OtherCluster { node: kept.node });
        }
        Some(kept) => kept,
        None => {
            let identity = random_id();
            let node = register(&global, identity, region).await?;
            let (global, regional) = (global_lineage, regional_lineage);
            let kept = Kept {
                version: FILE_VERSION,
                identity,
                node,
                global,
                regional,
                generation: None,
                write: None,
                leaving: None,
            };
            data.write(FILE, &kept)?;
            kept
        }
    };
    let known = global.query(KNOWS_NODE, &[&kept.identity.to_be_bytes().to_vec(), &region]).await?;
    if known.is_empty() {
        return Err(JoinError::Unknown(kept.node));
    }
    let seen = Seen { lineage: kept.regional, change: kept.generation.zip(kept.write) };
    if let Some(how) = has_moved(&regional, &seen).await? {
        return Err(JoinError::Moved(how));
    }
    if recount_if_due(&regional).await? {
        tracing::info!("counted what buckets and tenants hold");
    }
    let (node, leaving) = (kept.node, kept.leaving);
    Ok(Place { node, tenant: first_tenant(&global).await?, seen, new, leaving })
}

/// Whether a region is known and its database has not joined it yet.
async fn is_awaited(global: &Session, region: &str) -> Result<bool, JoinError> {
    let known = global.query(REGIONS, &[]).await?;
    Ok(known.iter().any(|row| row.get::<_, &str>(0) == region && !row.get::<_, bool>(3)))
}

/// Gives the node a number. Reclaim and repair go by a node's own disks and read whole lists: until nodes know of each
/// other, a region has one.
async fn register(global: &Session, identity: u128, region: &str) -> Result<NodeId, JoinError> {
    global.run("BEGIN; LOCK TABLE nodes IN EXCLUSIVE MODE").await?;
    let others = global.query(NODES, &[&region]).await?;
    if let Some(other) = others.first() {
        return Err(JoinError::Second { region: region.to_owned(), other: other.get(0) });
    }
    let rows = global.query(REGISTER_NODE, &[&identity.to_be_bytes().to_vec(), &region]).await?;
    global.run("COMMIT").await?;
    let id: i32 = rows.first().ok_or_else(|| JoinError::Asking("no number was given".to_owned()))?.get(0);
    Ok(NodeId(u32::try_from(id).map_err(|_| JoinError::Asking("no node number is left".to_owned()))?))
}

/// Has a node go on with a regional database that went back, as it is: what the node was told later is forgotten, and nothing
/// that it wrote since is taken for something new. `last` is the latest life of the node of which its disks know. Says how the
/// database is not what was seen of it; `None` when it is, and nothing was changed.
///
/// # Errors
/// When the database is another one, or cannot be asked.
pub fn reconcile(databases: &Databases, data: &DataDir, last: Incarnation) -> Result<Option<String>, JoinError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(JoinError::Executor)?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut kept = data.read::<Kept>(FILE)?.ok_or(JoinError::NoDatabase)?;
        let regional = Session::open(&databases.regional).await?;
        Status::read(&regional, REGIONAL).await?.check()?;
        if lineage(&regional).await? != kept.regional {
            return Err(JoinError::OtherCluster { node: kept.node });
        }
        let seen = Seen { lineage: kept.regional, change: kept.generation.zip(kept.write) };
        let Some(how) = has_moved(&regional, &seen).await? else { return Ok(None) };
        close_lives(&regional, kept.node, last).await?;
        let generation = seen.change.map_or(0, |(generation, _)| super::columns::int(generation.0));
        regional.query(SKIP_GENERATIONS, &[&generation]).await?;
        (kept.generation, kept.write) = (None, None);
        data.write(FILE, &kept)?;
        Ok(Some(how))
    })
}

/// Gives a node that had no database its place in these, under the number that it had: its blobs have it. As often as one
/// likes, for the same node.
pub(super) async fn take_in(global: &Session, identity: u128, node: NodeId, region: &str) -> Result<(), JoinError> {
    let (identity, number) = (identity.to_be_bytes().to_vec(), i32::try_from(node.0).expect("it is the first one"));
    global.run("BEGIN; LOCK TABLE nodes IN EXCLUSIVE MODE").await?;
    let known = global.query(IDENTITIES, &[]).await?;
    match known.iter().map(|row| row.get::<_, Vec<u8>>(0)).collect::<Vec<_>>().as_slice() {
        [] => {
            global.execute(TAKE_IN_NODE, &[&number, &identity, &region]).await?;
            global.query(NUMBER_ON, &[&i64::from(number)]).await?;
        }
        [one] if *one == identity => {}
        _ => return Err(JoinError::NotAlone),
    }
    Ok(global.run("COMMIT").await?)
}

/// Keeps in the data directory that the metadata is in these databases: from now on it is.
pub(super) async fn move_to(
    global: &Session,
    regional: &Session,
    data: &DataDir,
    identity: u128,
    node: NodeId,
    change: Option<(Generation, WriteId)>,
) -> Result<(), JoinError> {
    let (global, regional) = (lineage(global).await?, lineage(regional).await?);
    let (generation, write) = change.unzip();
    let kept = Kept { version: FILE_VERSION, identity, node, global, regional, generation, write, leaving: None };
    Ok(data.write(FILE, &kept)?)
}

/// A node that is about to leave its databases.
#[derive(Clone, Debug)]
pub(super) struct Leaver {
    pub(super) node: NodeId,
    pub(super) region: String,
    /// The history of a log that an earlier attempt may have left on the disks.
    pub(super) leaving: Option<u128>,
}

/// Looks whether these are the databases of the node, have all that it was told is kept, and can be left by it.
pub(super) async fn leaver(global: &Session, regional: &Session, data: &DataDir) -> Result<Leaver, JoinError> {
    Status::read(global, GLOBAL).await?.check()?;
    Status::read(regional, REGIONAL).await?.check()?;
    let kept = data.read::<Kept>(FILE)?.ok_or(JoinError::NoDatabase)?;
    if (kept.global, kept.regional) != (lineage(global).await?, lineage(regional).await?) {
        return Err(JoinError::OtherCluster { node: kept.node });
    }
    if kept.node != EMBEDDED_NODE {
        return Err(JoinError::NotTheFirst(kept.node));
    }
    let tenant = first_tenant(global).await?;
    if tenant != TENANT {
        return Err(JoinError::OtherTenant { found: tenant });
    }
    let seen = Seen { lineage: kept.regional, change: kept.generation.zip(kept.write) };
    if let Some(how) = has_moved(regional, &seen).await? {
        return Err(JoinError::Moved(how));
    }
    recount_if_due(regional).await?;
    let region = regional.query(REGION, &[]).await?;
    let region = region.first().and_then(|row| row.get(1));
    let region = region.ok_or_else(|| JoinError::Asking("the regional database is of no region".to_owned()))?;
    Ok(Leaver { node: kept.node, region, leaving: kept.leaving })
}

/// Notes the history of the log that is about to be written: as long as the node is of the databases, it says nothing.
pub(crate) fn keep_leaving(data: &DataDir, lineage: u128) -> Result<(), DataDirError> {
    let Some(mut kept) = data.read::<Kept>(FILE)? else { return Ok(()) };
    kept.leaving = Some(lineage);
    data.write(FILE, &kept)
}

/// The node is of no database any more: from now on its disks say what is stored.
pub(crate) fn leave(data: &DataDir) -> Result<(), DataDirError> {
    data.remove(FILE)
}

/// Closes the lives of a node up to this one, so that no name of a blob that one of them gave is given again.
pub(super) async fn close_lives(regional: &Session, node: NodeId, last: Incarnation) -> Result<(), JoinError> {
    regional.execute(CLOSE_LIVES, &[&i64::from(node.0), &i64::from(last.0)]).await?;
    Ok(())
}

async fn first_tenant(global: &Session) -> Result<TenantId, JoinError> {
    let tenant = global.query(FIRST_TENANT, &[]).await?;
    let tenant = tenant.first().map(|row| TenantId(row.get::<_, i64>(0).cast_unsigned()));
    tenant.ok_or_else(|| JoinError::Asking("there is no tenant".to_owned()))
}

/// Makes the region, if it is not there, and has this database be its own; makes the first tenant. As often as one likes.
pub(super) async fn make_region(global: &Session, regional: &Session, region: &str) -> Result<(), JoinError> {
    // Two nodes that do this at once do it one after the other.
    global.run(ONE_AT_A_TIME).await?;
    name(global, region).await?;
    join_region(global, regional, region).await?;
    global.execute(MAKE_TENANT, &[]).await?;
    Ok(global.run("COMMIT").await?)
}

/// Makes a region known, if it is not. Its database joins later.
pub(super) async fn name_region(global: &Session, region: &str) -> Result<(), SqlError> {
    global.run(ONE_AT_A_TIME).await?;
    name(global, region).await?;
    global.run("COMMIT").await
}

async fn name(global: &Session, region: &str) -> Result<(), SqlError> {
    // Until its database is there, one that nobody has.
    global.execute(NAME_IN_GLOBAL, &[&region, &random_id().to_be_bytes().to_vec()]).await.map(drop)
}

/// Has the database be that of a region which has none yet. What comes of its generations is its own from then on: ids of
/// buckets are generations, and no two regions give the same.
async fn join_region(global: &Session, regional: &Session, region: &str) -> Result<(), JoinError> {
    let known = global.query(REGIONS, &[]).await?;
    let known = known.iter().find(|row| row.get::<_, &str>(0) == region);
    let known = known.map(|row| (row.get::<_, i32>(2), row.get::<_, bool>(3)));
    let Some((number, false)) = known else { return Ok(()) };
    regional.execute(NAME_REGION, &[&region]).await?;
    regional.query(GENERATIONS_FROM, &[&(i64::from(number) << GENERATION_BITS)]).await?;
    let found = regional.query(LINEAGE_OF, &[&region]).await?;
    if let Some(lineage) = found.first() {
        global.execute(JOIN, &[&region, &lineage.get::<_, Vec<u8>>(0)]).await?;
    }
    Ok(())
}

pub(super) async fn check_region(global: &Session, regional: &Session, region: &str) -> Result<(), JoinError> {
    let row = regional.query(REGION, &[]).await?;
    let (lineage, found): (Vec<u8>, Option<String>) = match row.first() {
        Some(row) => (row.get(0), row.get(1)),
        None => return Err(JoinError::Asking("the regional database has no timeline".to_owned())),
    };
    match found {
        Some(found) if found != region => return Err(JoinError::OtherRegion { region: region.to_owned(), found }),
        _ => {}
    }
    let known = global.query(REGIONS, &[]).await?;
    let mut names = Vec::new();
    for row in &known {
        let (name, of): (String, Vec<u8>) = (row.get(0), row.get(1));
        if name == region {
            return if of == lineage { Ok(()) } else { Err(JoinError::OtherDatabase { region: region.to_owned() }) };
        }
        names.push(name);
    }
    let known = if names.is_empty() { "one that was made so".to_owned() } else { names.join(" or ") };
    Err(JoinError::NoRegion { region: region.to_owned(), known })
}

async fn lineage(session: &Session) -> Result<u128, JoinError> {
    let rows = session.query(LINEAGE, &[]).await?;
    let bytes: Option<Vec<u8>> = rows.first().map(|row| row.get(0));
    let bytes = bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    bytes.map(u128::from_be_bytes).ok_or_else(|| JoinError::Asking("a database has no timeline".to_owned()))
}

impl From<SqlError> for JoinError {
    fn from(error: SqlError) -> Self {
        Self::Asking(error.to_string())
    }
}

fn random_id() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    u128::from_be_bytes(bytes)
}

/// The file of the data directory.
const FILE: &str = "cluster.json";
const LINEAGE: &str = "SELECT lineage FROM timeline";
const REGION: &str = "SELECT lineage, region FROM timeline";
const NAME_REGION: &str = "UPDATE timeline SET region = $1 WHERE region IS NULL";
const ONE_AT_A_TIME: &str = "BEGIN; LOCK TABLE regions IN EXCLUSIVE MODE";
const NAME_IN_GLOBAL: &str = "INSERT INTO regions (name, lineage, number, joined) \
    SELECT $1::text, $2::bytea, coalesce(max(number) + 1, 0), false FROM regions ON CONFLICT (name) DO NOTHING";
const JOIN: &str = "UPDATE regions SET lineage = $2, joined = true WHERE name = $1 AND NOT joined";
const REGIONS: &str = "SELECT name, lineage, number, joined FROM regions ORDER BY name";
const LINEAGE_OF: &str = "SELECT lineage FROM timeline WHERE region = $1";
const GENERATIONS_FROM: &str =
    "SELECT setval('generations', $1::bigint) WHERE $1 > (SELECT last_value FROM generations)";
/// A region gives so many generations, 2 to their power.
const GENERATION_BITS: u32 = 48;

const MAKE_TENANT: &str = "INSERT INTO tenants (name) VALUES ('default') ON CONFLICT DO NOTHING";
const FIRST_TENANT: &str = "SELECT id FROM tenants WHERE name = 'default'";
const NODES: &str = "SELECT id FROM nodes WHERE region = $1 ORDER BY id";
const REGISTER_NODE: &str = "INSERT INTO nodes (identity, region) VALUES ($1, $2) RETURNING id";
/// Lives of which the database does not know any more are over like those before them, and their names are not given again.
const CLOSE_LIVES: &str = "INSERT INTO writers (node, incarnation, opened_at_ms) VALUES ($1, $2, 0) \
    ON CONFLICT (node) DO UPDATE SET incarnation = greatest(writers.incarnation, excluded.incarnation)";
/// Beyond all that can have been given since the node noted where they stood.
const SKIP_GENERATIONS: &str =
    "SELECT setval('generations', greatest((SELECT last_value FROM generations), $1) + 4294967296)";
const IDENTITIES: &str = "SELECT identity FROM nodes";
const TAKE_IN_NODE: &str = "INSERT INTO nodes (id, identity, region) OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3)";
const NUMBER_ON: &str = "SELECT setval(pg_get_serial_sequence('nodes', 'id'), $1)";
const KNOWS_NODE: &str = "SELECT 1 FROM nodes WHERE identity = $1 AND region = $2";
