//! The life of one core: it takes its seat, serves, and closes its store.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anvil_model::ids::DiskId;
use anvil_model::io::World;
use anvil_node::Node;
use anvil_node::metadata::client::{Client, Mailboxes};
use anvil_node::upkeep::{CurrentLife, Upkeep};
use anvil_runtime::Core;
use anvil_store::{Mail, ReclaimOptions, Share, Store};
use tokio::sync::oneshot;

use super::host::{Opening, open};
use super::{Host, Place, Seat, Shared, Stage};
use crate::disks::Taken;
use crate::grpc::{Keepers, Services};
use crate::http1::Settings;
use crate::listener::Frontend;
use crate::routes::Routes;
use crate::s3::S3;
use crate::tasks;
use crate::tasks::task::Worker;

/// The life of one core.
pub(super) async fn serve(core: Core, shared: Arc<Shared>) {
    let place = &shared.places[usize::from(core.core().0)];
    let Place { seat, host } = place.lock().expect("nobody panics with it").take().expect("each core runs once");
    match host {
        None => sit(core, shared, seat).await,
        Some(host) => {
            let Host { seats, mailboxes, inbox, metadata, failed } = host;
            if let Err(error) = open(&core, &shared, seat, Opening { seats, mailboxes, inbox, metadata }).await {
                shared.stage.send_replace(Stage::Failed);
                // Control waits for it as long as cores run.
                let _ = failed.send(error);
            }
        }
    }
}

/// A core that is not the host: takes its seat and serves.
async fn sit(core: Core, shared: Arc<Shared>, seat: oneshot::Receiver<Seat>) {
    let Ok(Seat { disks, share, mail, mailboxes }) = seat.await else { return };
    let store = open_store(&core, &shared, &disks, share, mail);
    let mut stage = shared.stage.subscribe();
    let serving = stage.wait_for(|stage| !matches!(stage, Stage::Opening)).await.map(|stage| stage.clone());
    if let Ok(Stage::Serving { life, ready }) = serving {
        store.set_writer(life.node, life.incarnation);
        match Frontend::bind(&core, &ready.addresses) {
            Ok(frontend) => welcome(&core, &shared, frontend, &store, mailboxes, life).await,
            Err(error) => tracing::error!(core = %core.core(), %error, "this core does not listen"),
        }
    }
    store.close().await;
}

pub(super) fn open_store(core: &Core, shared: &Shared, disks: &Taken, share: Share, mail: Mail) -> Store<Core> {
    Store::open(core.clone(), devices_of(core, shared, disks), share, mail)
}

/// The disks that are there, opened on this core.
pub(super) fn devices_of(core: &Core, shared: &Shared, disks: &Taken) -> Vec<(DiskId, <Core as World>::Device)> {
    let open = |&(index, disk): &(usize, DiskId)| {
        let opened = shared.disks[index].as_ref().expect("what was taken is there");
        (disk, opened.device(core))
    };
    disks.here.iter().map(open).collect()
}

/// The stories on this core.
pub(super) fn node_of(core: &Core, shared: &Shared, store: &Store<Core>, mailboxes: Mailboxes) -> Node<Core> {
    let client = Client::new(core.clone(), mailboxes);
    let keys = shared.keys.get().expect("opened before any core has its seat");
    let classes = shared.classes.get().expect("known before any core has its seat");
    Node::new(core.clone(), store.clone(), client, &shared.region, Arc::clone(classes))
        .with_keys(Arc::clone(keys))
        .with_names(shared.regions.names())
}

/// Serves clients, and keeps the disks, until the node is told to stop.
pub(super) async fn welcome(
    core: &Core,
    shared: &Arc<Shared>,
    frontend: Frontend,
    store: &Store<Core>,
    mailboxes: Mailboxes,
    life: CurrentLife,
) {
    let node = node_of(core, shared, store, mailboxes);
    let settings = Settings { tls: shared.tls.clone(), idle_timeout: shared.idle_timeout, ..Settings::default() };
    store.start_reclaim(ReclaimOptions::default());
    if let Some(scrub) = shared.scrub {
        store.start_scrub(scrub, &shared.tasks.chores().scrub);
    }
    let _keeping = keep(shared, &node, life);
    let grpc = Services::new(
        node.clone(),
        Keepers {
            disks: Arc::clone(&shared.disk_control),
            repair: Arc::clone(&shared.repair),
            access: Arc::clone(&shared.keeper),
            tasks: Arc::clone(&shared.tasks),
            regions: shared.regions.clone(),
        },
        Arc::clone(&shared.readiness),
        shared.gate.clone(),
    );
    let s3 = S3::new(
        node,
        Arc::clone(&shared.authenticator),
        Arc::clone(&shared.gate.admission),
        Arc::clone(&shared.keeper),
        Arc::clone(&shared.domains),
        settings.host_id.as_str().into(),
    );
    let routes = Routes::new(
        s3,
        grpc,
        Arc::clone(&shared.domains),
        Arc::clone(&shared.readiness),
        Arc::clone(&shared.metrics),
        Arc::clone(&shared.metrics_allow),
    );
    let counters = shared.metrics.core(core.core());
    let mut stop = shared.stop.clone();
    let (world, store, figures) = (core.clone(), store.clone(), Arc::clone(&shared.figures));
    let control = Arc::clone(&shared.disk_control);
    let _publishing = core.spawn(async move {
        futures_util::future::join(figures.publish(&world, &store), control.obey(&world, &store)).await;
    });
    let stopped = async move {
        // An error says that control has ended, which means stop too.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    frontend.serve(Rc::new(routes), settings, counters, stopped).await;
}

/// Gives back what was deleted and looks for what nobody needs, until the task is dropped.
fn keep(shared: &Arc<Shared>, node: &Node<Core>, life: CurrentLife) -> <Core as World>::Task {
    let upkeep = Upkeep {
        life,
        reclaim_delay: shared.reclaim_delay,
        look_every: GARBAGE_LOOKED_FOR_EVERY,
        sweep_every: SWEPT_EVERY,
        sweep: shared.tasks.chores().sweep.clone(),
        repair: shared.tasks.chores().repair.clone(),
        pressure: shared.pressure.clone(),
        lost: shared.lost.clone(),
        repair_bytes_per_second: shared.repair_bytes_per_second / u64::from(node.world().core_count()),
    };
    let (shared, node) = (Arc::clone(shared), node.clone());
    node.world().clone().spawn_background(async move {
        let publishing = shared.upkeep.publish(&node);
        let repairing = shared.repair.publish(&node);
        let reading = shared.figures.publish_reads(&node);
        let working = work(&shared, &node, life);
        futures_util::future::join5(node.upkeep(upkeep), publishing, repairing, reading, working).await;
    })
}

/// Works on tasks, and counts what is held, on one core of the node.
async fn work(shared: &Shared, node: &Node<Core>, CurrentLife { node: number, incarnation }: CurrentLife) {
    if node.world().core() == shared.host {
        let worker = Worker { node: number, life: incarnation };
        let (expiry, access) = (shared.upload_expiry, &*shared.keeper);
        let working = tasks::worker::work(&shared.tasks, node, worker, expiry, access, &shared.task_figures);
        futures_util::future::join(working, shared.usage_figures.publish(node, &shared.keeper)).await;
    }
}

/// A look at an empty list is one query.
const GARBAGE_LOOKED_FOR_EVERY: Duration = Duration::from_secs(1);
/// A sweep reads all rows of blobs. The first one, at the start, finds what the life before left; the later ones only
/// what should not be.
const SWEPT_EVERY: Duration = Duration::from_hours(24);
