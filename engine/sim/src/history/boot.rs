//! The start of a node as `server` does it, without the server.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use anvil_model::format::Subject;
use anvil_model::geometry;
use anvil_model::ids::{BlobId, DiskId, NodeId};
use anvil_model::io::{Task, World};
use anvil_model::profile::Profile;
use anvil_node::Node;
use anvil_node::classes::Classes;
use anvil_node::encryption::{KEY_BYTES, Keys, KeysError, OperatorKey};
use anvil_node::metadata::batch::{Limits, Service, mailboxes};
use anvil_node::metadata::embedded::{Embedded, OpenError, Replayed, replay};
use anvil_node::metadata::rows::{BlobRow, BlobState, Rows};
use anvil_node::metadata::{Client as Metadata, MetadataError, Refusal};
use anvil_node::repair::LostDisks;
use anvil_node::upkeep::{CurrentLife, Pressure, Swept, Upkeep};
use anvil_store::{
    Chore, FormatError, FormatOptions, IdentifyError, Identity, LogWriter, RecoverError, Recovered, RecoveryReport,
    Store, format, identify, mail, recover,
};

use tokio::sync::oneshot;

use super::Reached;
use super::client::{CALLER, bucket};
use super::plan::{EncryptionPlan, UpkeepPlan};
use crate::device::SimDevice;
use crate::disk::SimDisk;
use crate::index::IndexFile;
use crate::lossy::{Line, Lossy};
use crate::random::Random;
use crate::world::{SimTask, SimWorld};

/// What a node is made of.
pub(super) struct Parts {
    /// One per core.
    pub(super) worlds: Vec<SimWorld>,
    /// None where one is missing.
    pub(super) disks: Vec<Option<SimDisk>>,
    pub(super) known: Known,
    /// Disks that were given up.
    pub(super) lost: BTreeSet<DiskId>,
    pub(super) profile: Profile,
    pub(super) extent_bytes: u64,
    pub(super) index: IndexFile,
    pub(super) limits: Limits,
    pub(super) line: Line,
    pub(super) encryption: Option<EncryptionPlan>,
    pub(super) random: Random,
}

/// The disks that the node knows, by number: these are never formatted again.
pub(super) type Known = Rc<RefCell<BTreeMap<usize, DiskId>>>;

/// A node that runs: per core what a client talks to.
pub(super) struct Running {
    pub(super) nodes: Vec<Node<SimWorld>>,
    pub(super) metadata: Vec<Metadata<SimWorld>>,
    pub(super) stores: Vec<Store<SimWorld>>,
    pub(super) life: CurrentLife,
    pub(super) start: Start,
    pub(super) profile: Profile,
    /// The disks that are given up.
    pub(super) lost: LostDisks,
    /// Copies the log of former lives to more disks, and tells when that is done.
    pub(super) refill: Option<SimTask>,
    refilled: Option<oneshot::Receiver<u64>>,
    known: Known,
}

/// What a start found.
pub(super) struct Start {
    recovery: RecoveryReport,
    replayed: Replayed,
}

impl Start {
    pub(super) fn count(&self, reached: &mut Reached) {
        reached.torn += u64::from(self.recovery.records_damaged > 0);
        reached.rescued += u64::from(self.recovery.extents_rescued > 0);
        reached.void += u64::from(self.replayed.void.is_some());
        reached.rebuilt += u64::from(self.replayed.rebuilt);
        reached.replayed += u64::from(self.replayed.applied > 0);
    }
}

impl Running {
    /// Keeps the disks from now on, until the tasks are dropped.
    pub(super) fn keep(&self, plan: UpkeepPlan) -> Vec<SimTask> {
        let upkeep = Upkeep {
            life: self.life,
            reclaim_delay: plan.reclaim_delay,
            look_every: plan.look_every,
            sweep_every: plan.sweep_every,
            sweep: Chore::default(),
            repair: Chore::default(),
            pressure: Pressure::new(),
            lost: self.lost.clone(),
            repair_bytes_per_second: 64 << 20,
        };
        let keep = |node: &Node<SimWorld>| {
            let (node, upkeep) = (node.clone(), upkeep.clone());
            node.world().clone().spawn_background(async move { node.upkeep(upkeep).await })
        };
        self.nodes.iter().map(keep).collect()
    }

    /// The id of a disk, if it is here.
    pub(super) fn id(&self, number: usize) -> Option<DiskId> {
        let id = self.known.borrow().get(&number).copied();
        id.filter(|id| self.stores[0].disks().iter().any(|view| view.id == *id))
    }

    /// The numbers of the disks that are here.
    pub(super) fn present(&self) -> Vec<usize> {
        let numbers: Vec<usize> = self.known.borrow().keys().copied().collect();
        numbers.into_iter().filter(|number| self.id(*number).is_some()).collect()
    }

    /// Takes disks out of use on all cores.
    pub(super) fn put_offline(&self, disks: &BTreeSet<DiskId>) {
        for store in &self.stores {
            let here = store.disks().into_iter().map(|view| view.id).filter(|id| disks.contains(id));
            here.for_each(|id| store.set_offline(id));
        }
    }

    /// Takes all disks in again that were taken out of use.
    pub(super) fn put_online(&self) {
        for store in &self.stores {
            for view in store.disks() {
                // One that failed stays as it is.
                let _ = store.set_online(view.id);
            }
        }
    }

    /// Waits until the log of former lives has all its copies, as far as it can.
    pub(super) async fn log_is_refilled(&mut self) -> u64 {
        let refilled = self.refilled.take().expect("it is waited for once");
        refilled.await.expect("it ends by itself")
    }

    /// Where the store finds the shards of all cells of a blob, by shard; none for those that it does not find wholly.
    pub(super) async fn found(&self, row: &BlobRow) -> Vec<Option<DiskId>> {
        let core_count = self.nodes[0].world().core_count();
        let store = &self.stores[usize::from(row.blob.home(core_count).0)];
        let mut found: Vec<Option<DiskId>> = row.places.iter().map(|place| Some(*place)).collect();
        for window in 0..geometry::window_count(row.profile, row.length) {
            let located = store.locate(row.blob, geometry::window_start(row.profile, window)).await;
            let located = located.expect("the store is not closing");
            let located = located.filter(|located| located.profile == row.profile);
            for (found, shard) in found.iter_mut().zip(0..) {
                let disk = located.as_ref().and_then(|located| located.cell(shard)).map(|cell| cell.disk);
                *found = found.filter(|found| Some(*found) == disk);
            }
        }
        found
    }

    /// What upkeep did in this life.
    pub(super) fn count(&self, reached: &mut Reached) {
        reached.made_again += self.nodes.iter().map(|node| node.repair_figures().shards).sum::<u64>();
        for figures in self.nodes.iter().map(Node::upkeep_figures) {
            reached.abandoned += figures.abandoned;
            reached.orphans += figures.orphans;
            reached.forgotten += figures.forgotten;
        }
        let disks = self.stores.iter().flat_map(|store| store.stats().disks);
        for space in disks.filter_map(|disk| disk.space) {
            reached.freed += space.reclaimed.extents;
            reached.moved += space.reclaimed.moved_records;
            reached.scrubbed += space.scrubbed.records;
        }
    }

    /// Nothing rots in this life: neither scrub nor reclaim may have named what an object needs. What a crash tore was
    /// acknowledged to nobody, and may be named until the sweep has claimed it.
    ///
    /// This is said of the disks of these numbers.
    pub(super) fn is_whole(&self, index: &IndexFile, sound: &[usize]) -> Result<(), String> {
        let known = self.known.borrow();
        let sound: Vec<DiskId> = sound.iter().filter_map(|number| known.get(number).copied()).collect();
        let is_live = |blob| is_live(index, blob);
        let parity = usize::from(self.profile.parity);
        for store in &self.stores {
            let bad = store.bad_records(usize::MAX);
            // A batch that a crash cut short counts when its blobs can be read: shards that were torn then are made again.
            let shards_of = |of| {
                let shards = bad.iter().filter_map(|bad| match bad.subject {
                    Subject::Blob { blob, shard, .. } if blob == of => Some(shard),
                    _ => None,
                });
                shards.collect::<BTreeSet<_>>().len()
            };
            let needed = bad.iter().filter(|bad| sound.contains(&bad.disk)).find(|bad| match bad.subject {
                Subject::Blob { blob, .. } => is_live(blob) && shards_of(blob) > parity,
                // Of several copies a crash may tear one, which then is named; the others make up for it.
                Subject::Log { .. } => self.profile.parity == 0,
            });
            if let Some(bad) = needed {
                return Err(format!("a record is named as damaged and nothing rots: {bad:?}"));
            }
            let disks = store.stats().disks.into_iter().filter(|disk| sound.contains(&disk.disk));
            let spaces = disks.filter_map(|disk| disk.space);
            let unclear: u64 = spaces.map(|space| space.scrubbed.unclear_extents).sum();
            if unclear > 0 {
                return Err(format!("{unclear} extents seem to lack records and nothing rots"));
            }
        }
        Ok(())
    }

    /// The records that are named as damaged and belong to blobs that something needs.
    pub(super) fn bad_of_objects(&self, index: &IndexFile) -> BTreeSet<(BlobId, DiskId, u32, u32)> {
        let bad = self.stores.iter().flat_map(|store| store.bad_records(usize::MAX));
        let of_objects = bad.filter_map(|bad| match bad.subject {
            Subject::Blob { blob, .. } if is_live(index, blob) => Some((blob, bad.disk, bad.extent, bad.offset)),
            // What a crash tore may be named beside them.
            Subject::Blob { .. } | Subject::Log { .. } => None,
        });
        of_objects.collect()
    }

    /// Passes of scrub that have ended, of the disk that has fewest.
    pub(super) fn scrub_passes(&self) -> u64 {
        let disks = self.stores.iter().flat_map(|store| store.stats().disks);
        disks.filter_map(|disk| disk.space).map(|space| space.scrubbed.passes).min().unwrap_or_default()
    }

    /// Sweeps once, and says what is wrong: what objects need is there, what nobody needs is on its way out. Gives the
    /// number of blobs that are missing; nothing when the metadata takes no changes, which a failed disk excuses.
    pub(super) async fn account(&self, index: &IndexFile) -> Result<Option<u64>, String> {
        let mut missing = 0;
        for node in &self.nodes {
            let Some(swept) = self.swept(node).await? else { return Ok(None) };
            missing += swept.missing;
        }
        let rows = index.rows();
        for known in self.stores.iter().flat_map(|store| store.blobs(None, usize::MAX)) {
            let row = rows.blob(known.blob).expect("rows in maps can always be had");
            if row.is_none() && !known.released && known.blob.incarnation < self.life.incarnation {
                return Err(format!("blob {} of a closed life is neither needed nor garbage", known.blob));
            }
        }
        Ok(Some(missing))
    }

    async fn swept(&self, node: &Node<SimWorld>) -> Result<Option<Swept>, String> {
        for _ in 0..SWEEP_ATTEMPTS {
            match node.sweep(self.life).await {
                Ok(swept) => return Ok(Some(swept)),
                Err(MetadataError::Unavailable { retry_after }) => node.world().sleep(retry_after).await,
                Err(MetadataError::Unknown) => {}
                Err(error) => return Err(format!("the sweep failed: {error}")),
            }
        }
        Ok(None)
    }
}

const SWEEP_ATTEMPTS: u32 = 10;
const BUCKET_ATTEMPTS: u32 = 120;

/// Why a node did not start.
#[derive(Debug)]
#[expect(dead_code, reason = "shown to people")]
pub(super) enum BootError {
    Identify(IdentifyError),
    Foreign,
    Missing(usize),
    Format(FormatError),
    Recover(RecoverError),
    Keys(KeysError),
    Open(OpenError),
    NoBucket(MetadataError),
}

impl Parts {
    pub(super) async fn boot(mut self) -> Result<Running, BootError> {
        let core_count = u16::try_from(self.worlds.len()).expect("a few cores");
        let log_core = self.random.index(self.worlds.len());
        let first = self.worlds[log_core].clone();
        let lost_max = usize::from(self.profile.parity);
        let devices = self.identify().await?;
        let missing = self.disks.len() - devices.len();
        if missing > lost_max || devices.is_empty() {
            return Err(BootError::Missing(missing));
        }
        let opened = self.open(&devices, &first);
        let recovered = recover(&first, opened, core_count, lost_max - missing).await;
        let mut recovered = recovered.map_err(BootError::Recover)?;
        let keys = Arc::new(self.open_keys(&mut recovered)?);

        let log_world = first.clone();
        let index = self.index.open(&log_world);
        let replayed = replay(&first, &recovered, &index).await.map_err(BootError::Open)?;
        let start = Start { recovery: recovered.report.clone(), replayed: replayed.clone() };
        let (log, shares, tail) = recovered.into_parts();
        let stores: Vec<Store<SimWorld>> = self
            .worlds
            .iter()
            .zip(shares)
            .zip(mail(core_count))
            .map(|((world, share), mail)| Store::open(world.clone(), self.open(&devices, world), share, mail))
            .collect();

        let log_store = stores[log_core].clone();
        let (done, refilled) = oneshot::channel();
        let refill = log_world.spawn_background({
            let store = log_store.clone();
            async move {
                // Nobody may wait for it.
                let _ = done.send(log.refill(&store, lost_max + 1).await);
            }
        });
        let writer = LogWriter::open(log_store.clone(), tail, lost_max + 1);
        let opened = Embedded::open(log_world.clone(), writer, index, replayed, NodeId(1)).await;
        let (embedded, incarnation) = opened.map_err(BootError::Open)?;
        for store in &stores {
            store.set_writer(NodeId(1), incarnation);
        }
        let (mailboxes, inbox) = mailboxes(self.limits);
        let lossy = Lossy::new(embedded, log_world.clone(), self.random.fork(), self.line.clone());
        log_world.spawn(Service::new(log_world.clone(), lossy, inbox, self.limits).run()).detach();

        let metadata: Vec<Metadata<SimWorld>> =
            self.worlds.iter().map(|world| Metadata::new(world.clone(), mailboxes.clone())).collect();
        let cores = self.worlds.iter().zip(&stores).zip(&metadata);
        let classes = Arc::new(Classes::standard_only(self.profile));
        let node = |((world, store), metadata): ((&SimWorld, &Store<SimWorld>), &Metadata<SimWorld>)| {
            Node::new(world.clone(), store.clone(), metadata.clone(), "sim-1", Arc::clone(&classes))
                .digesting_with(anvil_digest::Kernel::SINGLE)
                .encoding_with(anvil_erasure::Kernel::best())
                .with_keys(Arc::clone(&keys))
        };
        let nodes: Vec<Node<SimWorld>> = cores.map(node).collect();
        make_bucket(&nodes[0]).await.map_err(BootError::NoBucket)?;
        let life = CurrentLife { node: NodeId(1), incarnation };
        let lost = LostDisks::new();
        lost.set(self.lost);
        let (profile, known) = (self.profile, self.known);
        let (refill, refilled) = (Some(refill), Some(refilled));
        Ok(Running { nodes, metadata, stores, life, start, profile, lost, refill, refilled, known })
    }

    /// The disks that are there and ours, in any order; those that are blank and were never known become ours.
    async fn identify(&mut self) -> Result<Vec<(DiskId, SimDisk)>, BootError> {
        let world = self.worlds[0].clone();
        let mut ours = Vec::new();
        for (number, disk) in self.disks.iter().enumerate() {
            let Some(disk) = disk else { continue };
            let device = disk.open(&world);
            let known = self.known.borrow().get(&number).copied();
            let id = match identify(&world, &device).await {
                Ok(Identity::Anvil(identity)) => identity.disk,
                Ok(Identity::Foreign) if known.is_none() => return Err(BootError::Foreign),
                Ok(Identity::Blank) if known.is_none() => {
                    let id = DiskId(u128::from(self.random.next()));
                    let options = FormatOptions { disk: id, cluster: 1, extent_bytes: self.extent_bytes };
                    format(&world, &device, options).await.map_err(BootError::Format)?;
                    id
                }
                Err(error) if known.is_none() => return Err(BootError::Identify(error)),
                Ok(Identity::Foreign | Identity::Blank) | Err(_) => continue,
            };
            self.known.borrow_mut().insert(number, id);
            ours.insert(self.random.index(ours.len() + 1), (id, disk.clone()));
        }
        Ok(ours)
    }

    fn open_keys(&mut self, recovered: &mut Recovered<SimWorld>) -> Result<Keys, BootError> {
        let Some(EncryptionPlan { wraps, encrypts }) = self.encryption else { return Ok(Keys::default()) };
        let secret = |number: u8| OperatorKey::new(["first", "second"][usize::from(number)], &[number; KEY_BYTES]);
        let mut random = self.random.fork();
        let draw = |bytes: &mut [u8]| bytes.fill_with(|| random.next().to_le_bytes()[0]);
        let opened = Keys::open(recovered.keys, &[secret(wraps), secret(1 - wraps)], encrypts, draw);
        let (keys, kept) = opened.map_err(BootError::Keys)?;
        recovered.set_keys(kept);
        Ok(keys)
    }

    fn open(&self, disks: &[(DiskId, SimDisk)], world: &SimWorld) -> Vec<(DiskId, SimDevice)> {
        disks.iter().map(|(id, disk)| (*id, disk.open(world))).collect()
    }
}

fn is_live(index: &IndexFile, blob: BlobId) -> bool {
    let row = index.rows().blob(blob).expect("rows in maps can always be had");
    row.is_some_and(|row| row.state == BlobState::Live)
}

/// Fails where no disk that is left takes the log.
async fn make_bucket(node: &Node<SimWorld>) -> Result<(), MetadataError> {
    let mut failure = MetadataError::Unknown;
    for _ in 0..BUCKET_ATTEMPTS {
        match node.create_bucket(CALLER, bucket()).await {
            Ok(()) | Err(MetadataError::Refused(Refusal::BucketAlreadyOwnedByYou)) => return Ok(()),
            Err(MetadataError::Refused(refusal)) => panic!("no bucket: {refusal}"),
            Err(error) => {
                if let MetadataError::Unavailable { retry_after } = error {
                    node.world().sleep(retry_after).await;
                }
                failure = error;
            }
        }
    }
    Err(failure)
}
