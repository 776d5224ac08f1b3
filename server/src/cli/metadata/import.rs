//! The metadata of a node moved from its disks into PostgreSQL, while the node does not run.
//!
//! The order is: rows, the node's place and who may do what into the databases, compared; then the file by which the node
//! knows that it is of a database; then the log on the disks is given up. Whatever is cut short is done again from the beginning.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anvil_digest::sha256;
use anvil_model::access::{AuditRecord, State};
use anvil_model::geometry;
use anvil_node::Node;
use anvil_node::classes::Classes;
use anvil_node::encryption::Keys;
use anvil_node::metadata::batch::{Limits, Service, mailboxes};
use anvil_node::metadata::client::{Client, RETRY_AFTER};
use anvil_node::metadata::embedded::Index as _;
use anvil_node::metadata::mutation::{Mutation, Outcome};
use anvil_node::metadata::query::{Answer, Query};
use anvil_node::metadata::{Metadata, MetadataError};
use anvil_runtime::{Core, Disk};
use anvil_store::{Inspection, Store, mail, recover};
use futures_util::future::{Either, select};

use super::offline::{self, Stop};
use super::rebuild::{self, Files};
use crate::access::sealing::{Sealer, SealingKey};
use crate::access::{Kept, kept_on, token_key_name};
use crate::cli::Failure;
use crate::config::operator_keys;
use crate::data_dir::DataDir;
use crate::identity::{EMBEDDED_NODE, Identity};
use crate::metadata::SqliteIndex;
use crate::metadata::postgres::cluster::{Databases, is_of_a_database};
use crate::metadata::postgres::moving::{Moving, move_in};
use crate::metadata::tables::Compared;

const BUFFERS: usize = 64;

/// Moves it. Gives how many rows there are by table; `None` when they were moved before, and only the log was given up.
pub(super) fn import(databases: &Databases, data: &DataDir, region: &str) -> Result<Option<Vec<Compared>>, Failure> {
    let (identity, paths) = all_disks(data)?;
    if is_of_a_database(data).map_err(Failure::run)? {
        give_up_log(&paths)?;
        return Ok(None);
    }
    super::check_finished(data)?;
    let files = Files::of(data.path())?;
    let made = rebuild::make_for_export(open(&paths)?, files)?.ok_or_else(super::interrupted)?;
    let access = read_access(&paths, made.index())?.map(|kept| sealed_anew(kept, data)).transpose()?;
    // What the cluster's id is for disks, this is for databases; it is the same each time.
    let digest = sha256(&[b"anvil node of cluster ", identity.cluster.to_be_bytes().as_slice()].concat());
    let (node_identity, _) = digest.split_first_chunk().expect("a digest is longer");
    let moving = Moving {
        data,
        index: made.index(),
        access,
        region,
        node: EMBEDDED_NODE,
        identity: u128::from_be_bytes(*node_identity),
    };
    let compared = move_in(databases, &moving).map_err(Failure::run)?;
    give_up_log(&paths)?;
    Ok(Some(compared))
}

/// Who the node is, and its disks, of which none may be missing.
pub(super) fn all_disks(data: &DataDir) -> Result<(Identity, Vec<PathBuf>), Failure> {
    let identity = Identity::read(data).map_err(Failure::run)?;
    let identity = identity.ok_or_else(|| {
        Failure::usage(format!("the data directory {} is of no node that ever started", data.path().display()))
    })?;
    if let Some(away) = identity.missing.first() {
        let path = away.path.display();
        return Err(Failure::run(format!(
            "the disk at {path} was missing at the last start: it would come back with metadata of its own; start with it, or \
             give it up, first"
        )));
    }
    let paths = identity.disks.keys().cloned().collect();
    Ok((identity, paths))
}

pub(super) fn open(paths: &[PathBuf]) -> Result<Vec<(PathBuf, Disk)>, Failure> {
    paths.iter().map(|path| Ok((path.clone(), offline::open_disk(path)?))).collect()
}

/// Nothing on the disks says from now on what is stored.
pub(super) fn give_up_log(paths: &[PathBuf]) -> Result<(), Failure> {
    let disks = open(paths)?;
    let work = async move |core: &Core, _: &Stop| {
        for ((path, _), (_, device)) in disks.iter().zip(rebuild::devices(core, &disks).await?) {
            let failed = |error: String| format!("the disk at {}: {error}", path.display());
            let inspection = Inspection::open(core, &device).await.map_err(|error| failed(error.to_string()))?;
            inspection.give_up_log().await.map_err(|error| failed(error.to_string()))?;
        }
        Ok::<_, String>(())
    };
    offline::run_on_a_core(BUFFERS, work)?.map_err(Failure::run)
}

/// What the node keeps of tenants and apps is an object; `None` when there is none.
fn read_access(paths: &[PathBuf], index: &Path) -> Result<Option<Kept>, Failure> {
    let (disks, index) = (open(paths)?, index.to_owned());
    let work = async move |core: &Core, _: &Stop| {
        let devices = rebuild::devices(core, &disks).await?;
        let recovered = recover(core, devices.clone(), 1, 0).await.map_err(|error| error.to_string())?;
        let operator = operator_keys().map_err(|error| error.to_string())?;
        let keys = Keys::open(recovered.keys, &operator, false, |bytes| {
            getrandom::fill(bytes).expect("the kernel gives random bytes");
        });
        let (keys, _) = keys.map_err(|error| format!("ANVIL_SECRET_ENCRYPTION_KEY is not the right one: {error}"))?;
        let (mut shares, _) = recovered.into_shares();
        let (Some(share), Some(mail)) = (shares.pop(), mail(1).pop()) else { unreachable!("there is one core") };
        let store = Store::open(core.clone(), devices.clone(), share, mail);
        let (index, threads) = SqliteIndex::start_in(index).map_err(|error| error.to_string())?;
        let (mailboxes, inbox) = mailboxes(Limits::EMBEDDED);
        let service = Service::new(core.clone(), OnlyRead(index), inbox, Limits::EMBEDDED);
        let client = Client::new(core.clone(), mailboxes);
        let classes = Arc::new(Classes::standard_only(geometry::default_profile(devices.len())));
        let node = Node::new(core.clone(), store.clone(), client, "", classes).with_keys(Arc::new(keys));
        let kept = match select(std::pin::pin!(kept_on(&node)), std::pin::pin!(service.run())).await {
            Either::Left((kept, _)) => kept,
            Either::Right(_) => unreachable!("the node has a mailbox"),
        };
        store.close().await;
        threads.join();
        kept.map_err(|error| error.to_string())
    };
    offline::run_on_a_core(BUFFERS, work)?.map_err(Failure::run)
}

/// Secrets that the node sealed with a key of its own are sealed with the operator's: those of a database are read by others.
fn sealed_anew(kept: Kept, data: &DataDir) -> Result<(State, Vec<AuditRecord>), Failure> {
    let Kept { mut state, audit } = kept;
    let mut keys: Vec<SealingKey> =
        operator_keys().map_err(Failure::usage)?.iter().map(SealingKey::of_operator).collect();
    let sealer = Sealer::new(keys.clone());
    keys.push(SealingKey::of_node(data).map_err(Failure::run)?);
    let opener = Sealer::new(keys);
    let of_apps = state.apps.iter_mut().map(|(client_id, app)| (client_id.clone(), &mut app.sealed_secret));
    let of_tokens = state.token_keys.iter_mut().map(|key| (token_key_name(&key.id), &mut key.sealed));
    for (name, sealed) in of_apps.chain(of_tokens) {
        if sealer.open(&name, sealed).is_some() {
            continue;
        }
        let secret = opener.open(&name, sealed).ok_or_else(|| {
            Failure::run(format!("no key that is here opens the secret of {name}: set ANVIL_SECRET_ENCRYPTION_KEY"))
        })?;
        *sealed = sealer.seal(&name, &secret).map_err(|_| {
            Failure::usage(
                "set ANVIL_SECRET_ENCRYPTION_KEY: secrets of apps are sealed with it in a database, and those of this node are \
                 not yet",
            )
        })?;
    }
    Ok((state, audit))
}

/// An index that answers, and takes nothing.
struct OnlyRead(SqliteIndex);

impl Metadata for OnlyRead {
    async fn commit(&self, batch: Arc<[Mutation]>) -> Vec<Result<Outcome, MetadataError>> {
        batch.iter().map(|_| Err(MetadataError::Unavailable { retry_after: RETRY_AFTER })).collect()
    }

    async fn look_up(&self, batch: Vec<Query>) -> Vec<Result<Answer, MetadataError>> {
        self.0.look_up(batch).await
    }
}
