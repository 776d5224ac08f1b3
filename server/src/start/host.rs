//! The host of the metadata: the core that opens everything, gives every core its seat, serves, and closes last.

use std::sync::Arc;
use std::time::Duration;

use anvil_model::ids::DiskId;
use anvil_model::io::{Task as _, World as _};
use anvil_model::profile::Profile;
use anvil_node::encryption::{Keys, KeysError};
use anvil_node::metadata::Metadata;
use anvil_node::metadata::batch::{Inbox, Limits, Service};
use anvil_node::metadata::client::Mailboxes;
use anvil_node::metadata::embedded::{self, Embedded};
use anvil_node::metadata::flushed::Flushed;
use anvil_node::upkeep::CurrentLife;
use anvil_runtime::{Core, Device};
use anvil_store::{Inspection, LogWriter, RecoverError, Recovered, RecoveryReport, Store, mail, recover};
use tokio::sync::oneshot;

use super::core::{devices_of, node_of, open_store, welcome};
use super::metadata::{MetadataSource, OpenedMetadata, open_life};
use super::plan::StartError;
use super::{Ready, Seat, Shared, Stage};
use crate::config::EncryptionChoice;
use crate::disk_keeper::{Keeper, KeeperParts};
use crate::disks::{self, MissingDisk, Taken};
use crate::identity::{EMBEDDED_NODE, Identity};
use crate::listener::Frontend;

/// The parts of [`Host`](super::Host) that opening the node uses up.
pub(super) struct Opening {
    pub(super) seats: Vec<oneshot::Sender<Seat>>,
    pub(super) mailboxes: Mailboxes,
    pub(super) inbox: Inbox,
    pub(super) metadata: MetadataSource,
}

/// What the node knows of its disks when they were read.
struct KnownDisks {
    identity: Identity,
    missing: Vec<MissingDisk>,
    standard: Profile,
}

/// The host: opens everything, gives everybody a seat, serves, and closes last.
pub(super) async fn open(
    core: &Core,
    shared: &Arc<Shared>,
    seat: oneshot::Receiver<Seat>,
    opening: Opening,
) -> Result<(), StartError> {
    let began = core.now();
    let devices: Vec<_> = shared.disks.iter().map(|disk| Some(disk.as_ref()?.device(core))).collect();
    let disks = Arc::new(disks::take(core, &shared.data, &shared.paths, &devices, shared.choice.standard).await?);
    let Profile { parity, .. } = disks.standard;
    let classes = Arc::new(shared.choice.with_standard(disks.standard));
    assert!(shared.classes.set(classes).is_ok(), "a start takes the disks once");
    let spare = usize::from(parity) - disks.missing.len();
    let mut recovered = recover(core, devices_of(core, shared, &disks), core.core_count(), spare).await?;
    if let MetadataSource::Database { place, .. } = &opening.metadata
        && place.leaving.is_some()
        && embedded::lineage(&recovered).await? == place.leaving
    {
        tracing::info!("the metadata was about to be moved to the disks: the log that was begun there is given up");
        give_up_log(core, &devices_of(core, shared, &disks)).await?;
        recovered = recover(core, devices_of(core, shared, &disks), core.core_count(), spare).await?;
    }
    let missing = all_missing(shared, &disks, &recovered.lost);
    shared.lost.set(disks.identity.lost.iter().map(|lost| lost.disk).collect());
    open_keys(shared, &mut recovered)?;
    let replayed = match &opening.metadata {
        // The log begins before anything else is written.
        MetadataSource::Embedded(_) if recovered.log.first().is_none() && recovered.report.records > 0 => {
            return Err(StartError::DisksWithoutLog);
        }
        MetadataSource::Embedded(index) => Some(embedded::replay(core, &recovered, index).await?),
        MetadataSource::Database { .. } if recovered.log.first().is_some() => {
            return Err(StartError::DisksWithMetadata);
        }
        MetadataSource::Database { place, .. } if place.new && recovered.report.records > 0 => {
            return Err(StartError::DisksWithoutMetadata);
        }
        MetadataSource::Database { .. } => None,
    };
    log_recovery(&recovered.report, replayed.as_ref(), core.now().since(began));

    let (log, shares, tail) = recovered.into_parts();
    for ((to, share), mail) in opening.seats.into_iter().zip(shares).zip(mail(core.core_count())) {
        let seat = Seat { disks: Arc::clone(&disks), share, mail, mailboxes: opening.mailboxes.clone() };
        assert!(to.send(seat).is_ok(), "every core waits for its seat");
    }
    // Only the cores hold mailboxes now: the metadata ends with the last of them.
    drop(opening.mailboxes);
    let Seat { share, mail, mailboxes, .. } = seat.await.expect("just sent");
    let store = open_store(core, shared, &disks, share, mail);
    let refilling = core.spawn_background({
        let (store, lost) = (store.clone(), shared.lost.clone());
        async move { store.keep_log_copies(log, usize::from(parity) + 1, || lost.all()).await }
    });
    let metadata = match (opening.metadata, replayed) {
        (MetadataSource::Embedded(index), Some(replayed)) => {
            let writer = Box::new(LogWriter::open(store.clone(), tail, usize::from(parity) + 1));
            OpenedMetadata::Embedded { writer, index, replayed }
        }
        (MetadataSource::Database { postgres, place }, None) => OpenedMetadata::Database { postgres, place },
        _ => unreachable!("what is on the disks was replayed"),
    };
    let known = KnownDisks { identity: disks.identity.clone(), missing, standard: disks.standard };
    let result = host(core, shared, &store, known, metadata, mailboxes, opening.inbox).await;
    drop(refilling);
    if result.is_err() {
        shared.stage.send_replace(Stage::Failed);
    }
    store.close().await;
    result
}

async fn give_up_log(core: &Core, devices: &[(DiskId, Device)]) -> Result<(), StartError> {
    for (disk, device) in devices {
        let failed = |error: String| StartError::GiveUpLog { disk: *disk, error };
        let inspection = Inspection::open(core, device).await.map_err(|error| failed(error.to_string()))?;
        inspection.give_up_log().await.map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

/// Opens the encryption keys that the disks keep, and lets them keep what is new.
fn open_keys(shared: &Shared, recovered: &mut Recovered<Core>) -> Result<(), KeysError> {
    let EncryptionChoice { keys: operator, encrypt } = &shared.encryption;
    if operator.is_empty() && !recovered.keys.is_empty() {
        tracing::warn!("objects on these disks are encrypted, and cannot be read without ANVIL_SECRET_ENCRYPTION_KEY");
    }
    let random = |bytes: &mut [u8]| getrandom::fill(bytes).expect("the kernel gives random bytes");
    let (keys, kept) = Keys::open(recovered.keys, operator, *encrypt, random)?;
    recovered.set_keys(kept);
    if keys.encrypts() {
        tracing::info!("new objects are encrypted on the disks");
    }
    assert!(shared.keys.set(Arc::new(keys)).is_ok(), "a start opens the keys once");
    Ok(())
}

/// The disks that are missing: not there, or of no use.
fn all_missing(shared: &Shared, disks: &Taken, useless: &[RecoverError]) -> Vec<MissingDisk> {
    let useless: Vec<DiskId> = useless.iter().filter_map(RecoverError::disk).collect();
    let mut missing = disks.missing.clone();
    let here = disks.here.iter().filter(|(_, disk)| useless.contains(disk));
    missing.extend(here.map(|&(index, disk)| MissingDisk { disk, path: shared.paths[index].clone() }));
    let here = disks.here.len() - useless.len();
    tracing::info!(profile = %disks.standard, disks = here, missing = missing.len(), "the disks were read");
    missing
}

/// What a start had to read, as numbers that a machine can follow from start to start.
fn log_recovery(report: &RecoveryReport, replayed: Option<&embedded::Replayed>, took: Duration) {
    tracing::info!(
        took_ms = took.as_millis(),
        disks = report.disks,
        clean = report.clean,
        extents = report.extents,
        extents_scanned = report.extents_scanned,
        scanned_bytes = report.scanned_bytes,
        records = report.records,
        batches_replayed = replayed.map(|replayed| replayed.applied),
        index_rebuilt = replayed.map(|replayed| replayed.rebuilt),
        "recovered"
    );
    if report.records_damaged > 0 {
        let (records, blobs) = (report.records_damaged, report.damaged.len());
        tracing::warn!(records, blobs, "records are damaged: torn by a crash before they were acknowledged, or rotten");
    }
}

/// Opens this life, and serves.
async fn host(
    core: &Core,
    shared: &Arc<Shared>,
    store: &Store<Core>,
    known: KnownDisks,
    metadata: OpenedMetadata,
    mailboxes: Mailboxes,
    inbox: Inbox,
) -> Result<(), StartError> {
    match metadata {
        OpenedMetadata::Embedded { writer, index, replayed } => {
            let node = EMBEDDED_NODE;
            let (metadata, incarnation) = Embedded::open(core.clone(), *writer, index, replayed, node).await?;
            let service = Service::new(core.clone(), metadata, inbox, Limits::EMBEDDED);
            serve_with(core, shared, store, known, service, mailboxes, CurrentLife { node, incarnation }).await
        }
        OpenedMetadata::Database { postgres, place } => {
            let life = open_life(core, &postgres, place.node).await?;
            let metadata = Flushed::new(store.clone(), postgres);
            let service = Service::new(core.clone(), metadata, inbox, Limits::DATABASE);
            serve_with(core, shared, store, known, service, mailboxes, life).await
        }
    }
}

/// Tells everybody which life it is, and serves beside the metadata's own service.
async fn serve_with<M: Metadata>(
    core: &Core,
    shared: &Arc<Shared>,
    store: &Store<Core>,
    known: KnownDisks,
    service: Service<Core, M>,
    mailboxes: Mailboxes,
    life: CurrentLife,
) -> Result<(), StartError> {
    store.set_writer(life.node, life.incarnation);
    let frontend = Frontend::bind(core, &shared.listen)?;
    let (world, figures, queues) = (core.clone(), service.figures(), mailboxes.onlooker());
    let published = Arc::clone(&shared.metadata_figures);
    let _publishing = core.spawn(async move { published.publish(&world, figures, queues).await });
    let parts = KeeperParts {
        data: Arc::clone(&shared.data),
        plans: Arc::clone(&shared.plans),
        control: Arc::clone(&shared.disk_control),
        figures: Arc::clone(&shared.figures),
        watched: shared.watched.clone(),
        lost: shared.lost.clone(),
        standard: known.standard,
    };
    let _keeping_disks = core.spawn(Keeper::new(core.clone(), store.clone(), parts, known.identity).run());
    let (ended, end) = oneshot::channel();
    core.spawn(async move {
        service.run().await;
        // Everybody may be gone already.
        let _ = ended.send(());
    })
    .detach();
    // Clients are welcome when it is known who they are, but not kept waiting by what cannot be read.
    let (loaded, was_loaded) = oneshot::channel();
    let loading = core.spawn({
        let (keeper, node) = (Arc::clone(&shared.keeper), node_of(core, shared, store, mailboxes.clone()));
        async move {
            keeper.load(&node).await;
            // Nobody may wait any more.
            let _ = loaded.send(());
        }
    });
    futures_util::future::select(was_loaded, Box::pin(core.sleep(ACCESS_AWAITED_MAX))).await;
    shared.readiness.serve();
    let ready = Ready { addresses: frontend.addresses(), missing: known.missing, standard: known.standard };
    shared.stage.send_replace(Stage::Serving { life, ready });
    welcome(core, shared, frontend, store, mailboxes, life).await;
    drop(loading);
    // The service ends when the last core has put its mailboxes away.
    let _ = end.await;
    Ok(())
}

/// Who may do what is read in milliseconds, where it can be read.
const ACCESS_AWAITED_MAX: Duration = Duration::from_secs(10);
