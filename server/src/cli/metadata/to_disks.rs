//! The metadata of a node moved from its databases to its disks, while the node does not run.
//!
//! The order is: a log of the rows on the disks and an index of it, compared with the database; who may do what and the tasks, as
//! objects of the node; then the file goes by which the node knows that it is of a database. Until then the node is one with
//! databases, whatever there is of a log; from then on it is one without. Whatever is cut short is begun anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anvil_model::geometry;
use anvil_model::ids::{DiskId, Incarnation};
use anvil_node::Node;
use anvil_node::classes::Classes;
use anvil_node::encryption::Keys;
use anvil_node::metadata::batch::{Limits, Service, mailboxes};
use anvil_node::metadata::client::Client;
use anvil_node::metadata::embedded::{self, Embedded};
use anvil_node::metadata::taken::{TakenRow, TakingIn};
use anvil_runtime::{Core, Device, Disk};
use anvil_store::{LogWriter, Store, mail, recover, survey};
use futures_util::future::{Either, select};
use tokio::sync::mpsc;

use super::import::{all_disks, give_up_log, open};
use super::offline::{self, Stop};
use super::rebuild::{self, Files};
use crate::cli::Failure;
use crate::config::operator_keys;
use crate::data_dir::DataDir;
use crate::identity::EMBEDDED_NODE;
use crate::metadata::SqliteIndex;
use crate::metadata::postgres::cluster::{self, Databases, is_of_a_database};
use crate::metadata::postgres::leaving::{self, Leaving, Piece};
use crate::metadata::postgres::moving::MoveError;
use crate::metadata::tables::Compared;
use crate::{access, tasks};

const BUFFERS: usize = 64;

/// Moves it. Gives how many rows there are by table; `None` when the node is of no database.
pub(super) fn to_disks(databases: &Databases, data: DataDir) -> Result<Option<Vec<Compared>>, Failure> {
    let (_, paths) = all_disks(&data)?;
    if !is_of_a_database(&data).map_err(Failure::run)? {
        return Ok(None);
    }
    let leaving = leaving::begin(databases, &data).map_err(Failure::run)?;
    give_up_leftovers(&paths, leaving.leaving)?;
    let data = Arc::new(data);
    let files = Files::of(data.path())?;
    let rows = leaving::rows(databases).map_err(Failure::run)?;
    let last = take_in(&paths, &data, &files.new, rows)?;
    let compared = leaving::compare(databases, &files.new).map_err(Failure::run)?;
    // The life that writes now is the node's next one. Should the node stay where it is, this one is over there too.
    let life = Incarnation(last.0 + 1);
    leaving::close_lives(databases, leaving.node, life).map_err(Failure::run)?;
    keep(&paths, &files.new, leaving, life)?;
    let placed = files.put_in_place();
    placed.map_err(|error| Failure::run(format!("the index cannot be put in place: {error}")))?;
    cluster::leave(&data).map_err(Failure::run)?;
    Ok(Some(compared))
}

/// What an earlier attempt left is in the way. Any other log is somebody's metadata.
fn give_up_leftovers(paths: &[PathBuf], leaving: Option<u128>) -> Result<(), Failure> {
    let disks = open(paths)?;
    let found = offline::run_on_a_core(BUFFERS, async move |core: &Core, _: &Stop| {
        let recovered = survey(core, rebuild::devices(core, &disks).await?).await.map_err(|error| error.to_string())?;
        embedded::lineage(&recovered).await.map_err(|error| error.to_string())
    });
    match found?.map_err(Failure::run)? {
        None => Ok(()),
        found if found == leaving => give_up_log(paths),
        Some(_) => Err(Failure::run(
            "the disks hold a log of metadata that is not from an earlier attempt of this: if moving it into the databases was cut \
             short, finish that first by `anvil admin metadata import`",
        )),
    }
}

/// Writes the rows to a new log on the disks, and makes the index of it. Gives the last life of the node.
fn take_in(
    paths: &[PathBuf],
    data: &Arc<DataDir>,
    index: &Path,
    rows: mpsc::Receiver<Result<Piece, MoveError>>,
) -> Result<Incarnation, Failure> {
    let (disks, data, index) = (open(paths)?, Arc::clone(data), index.to_owned());
    let work = async move |core: &Core, _: &Stop| {
        let opened = Opened::of(core, &disks, &index, true).await?;
        cluster::keep_leaving(&data, opened.replayed.lineage).map_err(|error| error.to_string())?;
        let Opened { store, writer, index, threads, replayed, .. } = opened;
        let metadata = Embedded::begin(core.clone(), writer, index, &replayed).await;
        let taken = take_all(core, &metadata, rows).await;
        drop(metadata);
        store.close().await;
        threads.join();
        taken
    };
    offline::run_on_a_core(BUFFERS, work)?.map_err(Failure::run)
}

async fn take_all(
    core: &Core,
    metadata: &Embedded<Core, SqliteIndex>,
    mut rows: mpsc::Receiver<Result<Piece, MoveError>>,
) -> Result<Incarnation, String> {
    let spinner = offline::spinner("writing the rows to the disks");
    let mut taking = TakingIn::new(core, metadata);
    let mut last = Incarnation(0);
    while let Some(piece) = rows.recv().await {
        match piece.map_err(|error| error.to_string())? {
            Piece::Row(row) => {
                if let TakenRow::Writer(writer) = &row
                    && writer.node == EMBEDDED_NODE
                {
                    last = writer.incarnation;
                }
                taking.push(row).await.map_err(|error| error.to_string())?;
            }
            Piece::End(next) => {
                taking.end(next).await.map_err(|error| error.to_string())?;
                spinner.finish_and_clear();
                return Ok(last);
            }
        }
    }
    Err("the rows of the database came to no end".to_owned())
}

/// Opens the node's next life, and keeps as its objects who may do what and the tasks.
fn keep(paths: &[PathBuf], index: &Path, leaving: Leaving, life: Incarnation) -> Result<(), Failure> {
    let (disks, index) = (open(paths)?, index.to_owned());
    let work = async move |core: &Core, _: &Stop| {
        let Opened { store, writer, index, threads, replayed, keys, disks } =
            Opened::of(core, &disks, &index, false).await?;
        let opened = Embedded::open(core.clone(), writer, index, replayed, EMBEDDED_NODE).await;
        let (metadata, opened) = opened.map_err(|error| error.to_string())?;
        assert_eq!(opened, life, "the life that the database closed is the one that writes");
        store.set_writer(EMBEDDED_NODE, life);
        let (mailboxes, inbox) = mailboxes(Limits::EMBEDDED);
        let service = Service::new(core.clone(), metadata, inbox, Limits::EMBEDDED);
        let client = Client::new(core.clone(), mailboxes);
        let classes = Arc::new(Classes::standard_only(geometry::default_profile(disks)));
        let node = Node::new(core.clone(), store.clone(), client, &leaving.region, classes).with_keys(Arc::new(keys));
        let kept = {
            let keeping = async {
                access::keep_on(&node, &leaving.access).await.map_err(|error| error.to_string())?;
                tasks::keep_on(&node, leaving.tasks).await.map_err(|error| error.to_string())
            };
            match select(std::pin::pin!(keeping), std::pin::pin!(service.run())).await {
                Either::Left((kept, _)) => kept,
                Either::Right(_) => unreachable!("the node has a mailbox"),
            }
        };
        drop(node);
        store.close().await;
        threads.join();
        kept
    };
    offline::run_on_a_core(BUFFERS, work)?.map_err(Failure::run)
}

/// The disks and the index of their log, read and ready to be written.
struct Opened {
    store: Store<Core>,
    writer: LogWriter<Core>,
    index: SqliteIndex,
    threads: crate::metadata::Threads,
    replayed: embedded::Replayed,
    keys: Keys,
    /// How many.
    disks: usize,
}

impl Opened {
    async fn of(core: &Core, disks: &[(PathBuf, Disk)], index: &Path, empty: bool) -> Result<Self, String> {
        let devices: Vec<(DiskId, Device)> = rebuild::devices(core, disks).await?;
        let recovered = recover(core, devices.clone(), 1, 0).await;
        let mut recovered = recovered.map_err(|error| error.to_string())?;
        assert_eq!(recovered.log.first().is_none(), empty, "a log was given up, or written");
        let operator = operator_keys().map_err(|error| error.to_string())?;
        // Where objects were encrypted before, so are these.
        let encrypts = !operator.is_empty() && !recovered.keys.is_empty();
        let keys = Keys::open(recovered.keys, &operator, encrypts, |bytes| {
            getrandom::fill(bytes).expect("the kernel gives random bytes");
        });
        let (keys, kept) =
            keys.map_err(|error| format!("ANVIL_SECRET_ENCRYPTION_KEY is not the right one: {error}"))?;
        recovered.set_keys(kept);
        let (index, threads) = SqliteIndex::start_in(index.to_owned()).map_err(|error| error.to_string())?;
        let replayed = embedded::replay(core, &recovered, &index).await.map_err(|error| error.to_string())?;
        let (mut shares, tail) = recovered.into_shares();
        let (Some(share), Some(mail)) = (shares.pop(), mail(1).pop()) else { unreachable!("there is one core") };
        let count = devices.len();
        let store = Store::open(core.clone(), devices, share, mail);
        let copies = usize::from(geometry::default_profile(count).parity) + 1;
        let writer = LogWriter::open(store.clone(), tail, copies);
        Ok(Self { store, writer, index, threads, replayed, keys, disks: count })
    }
}
