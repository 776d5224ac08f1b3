//! A node of some cores on simulated disks, without faults but those that a test asks for.

use std::collections::BTreeSet;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anvil_erasure::Kernel;
use anvil_model::geometry;
use anvil_model::ids::{DiskId, NodeId, TenantId};
use anvil_model::io::{Task, World};
use anvil_model::object::{BucketName, Headers, Key, WriteConditions};
use anvil_model::profile::Profile;
use anvil_node::body::{Body, Trailer};
use anvil_node::classes::Classes;
use anvil_node::encryption::{Keys, OperatorKey};
use anvil_node::metadata::batch::{Limits, Service, mailboxes};
use anvil_node::metadata::client::Client;
use anvil_node::metadata::embedded::{Embedded, replay};
use anvil_node::metadata::rows::{BlobRow, BlobState, Rows};
use anvil_node::put::{Expected, PutError, PutObject};
use anvil_node::repair::LostDisks;
use anvil_node::upkeep::{CurrentLife, Pressure, Upkeep};
use anvil_node::{Caller, Node};
use anvil_sim::{
    DiskOptions, Faults, IndexFile, Life, Line, Lossy, Random, Sim, SimBuffer, SimDisk, SimOptions, SimTask, SimWorld,
};
use anvil_store::{Chore, FormatOptions, LogWriter, Roster, Store, format, mail, recover};

const CALLER: Caller = Caller { tenant: TenantId(1) };
const EXTENT_BYTES: u64 = 8 << 20;
const CORES: u16 = 2;

/// A machine: its disks, and the file of the metadata index.
pub(crate) struct Machine {
    sim: Sim,
    pub(crate) disks: Vec<SimDisk>,
    index: IndexFile,
    profile: Profile,
    /// The operator's keys, and whether new blobs are encrypted.
    pub(crate) encryption: (Vec<OperatorKey>, bool),
    /// To the metadata. Good, but when a test says otherwise.
    pub(crate) line: Line,
}

/// A life of its node.
pub(crate) struct Running {
    pub(crate) life: Life,
    pub(crate) nodes: Vec<Node<SimWorld>>,
    index: IndexFile,
    current: CurrentLife,
    /// To say which disks were given up.
    pub(crate) lost: LostDisks,
}

/// The disks have the ids 1 to n.
pub(crate) fn disk_id(disk: usize) -> DiskId {
    DiskId(disk as u128 + 1)
}

/// What is kept under a name: bytes that depend on it, so that no two objects are alike.
pub(crate) fn bytes_of(name: &str, length: usize) -> Vec<u8> {
    let mut state =
        name.bytes().fold(length as u64 | 1, |state, byte| state.wrapping_mul(31).wrapping_add(byte.into()));
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

impl Machine {
    /// With so many blank disks, all online.
    pub(crate) fn new(seed: u64, disks: usize, profile: &str) -> Self {
        Self::with_latency(seed, &vec![300_000; disks], profile)
    }

    /// With a disk for each of these, which take so many nanoseconds for an operation at most.
    pub(crate) fn with_latency(seed: u64, latencies: &[u64], profile: &str) -> Self {
        let sim = Sim::new(seed, SimOptions { wall_jumps: false, stalls: false, ..SimOptions::default() });
        let options = |&latency_nanos_max: &u64| DiskOptions {
            latency_nanos_max,
            capacity_bytes_max: 512 << 20,
            space_bytes: 512 << 20,
            ..DiskOptions::default()
        };
        let disks: Vec<_> = latencies.iter().map(|latency| sim.disk(options(latency))).collect();
        let index = IndexFile::new(sim.fork());
        let life = sim.start(1);
        for (number, disk) in disks.iter().enumerate() {
            let device = disk.open(&life.world(0));
            let options = FormatOptions { disk: disk_id(number), cluster: 1, extent_bytes: EXTENT_BYTES };
            life.block_on(0, async move |world| format(&world, &device, options).await.unwrap());
        }
        life.kill();
        let encryption = (Vec::new(), false);
        Self { sim, disks, index, profile: profile.parse().unwrap(), encryption, line: Line::default() }
    }

    /// Formats one disk more, for the lives that begin from now on or to join the one that runs.
    pub(crate) fn add_disk(&mut self) -> usize {
        let latency = DiskOptions::default().latency_nanos_max;
        let options = DiskOptions {
            latency_nanos_max: latency,
            capacity_bytes_max: 512 << 20,
            space_bytes: 512 << 20,
            ..DiskOptions::default()
        };
        self.disks.push(self.sim.disk(options));
        self.disks.len() - 1
    }

    /// The metadata index is gone when the next life begins.
    pub(crate) fn lose_index(&mut self) {
        self.index = IndexFile::new(self.sim.fork());
    }

    /// Starts the node.
    pub(crate) fn start(&self) -> Running {
        self.start_without(&[])
    }

    /// Starts the node while some of its disks are away.
    pub(crate) fn start_without(&self, away: &[usize]) -> Running {
        // The life before may have ended while a transaction was open.
        self.index.kill();
        let life = self.sim.start(CORES);
        let worlds: Vec<SimWorld> = (0..CORES).map(|core| life.world(core)).collect();
        let here = self.disks.iter().cloned().enumerate().filter(|(number, _)| !away.contains(number));
        let disks: Vec<_> = here.map(|(number, disk)| (disk_id(number), disk)).collect();
        let (index, profile, line) = (self.index.clone(), self.profile, self.line.clone());
        let encryption = self.encryption.clone();
        let booting = async move |_| boot(worlds, disks, index, profile, encryption, line).await;
        let (nodes, current) = life.block_on(0, booting);
        Running { life, nodes, index: self.index.clone(), current, lost: LostDisks::new() }
    }
}

async fn boot(
    worlds: Vec<SimWorld>,
    disks: Vec<(DiskId, SimDisk)>,
    index: IndexFile,
    profile: Profile,
    (operator, encrypting): (Vec<OperatorKey>, bool),
    line: Line,
) -> (Vec<Node<SimWorld>>, CurrentLife) {
    let devices = |world: &SimWorld| -> Vec<_> { disks.iter().map(|(id, disk)| (*id, disk.open(world))).collect() };
    let first = worlds[0].clone();
    let mut recovered = recover(&first, devices(&first), CORES, 0).await.unwrap();
    let draw = |bytes: &mut [u8]| bytes.fill_with(|| first.random().to_le_bytes()[0]);
    let (keys, kept) = Keys::open(recovered.keys, &operator, encrypting, draw).unwrap();
    let keys = Arc::new(keys);
    recovered.set_keys(kept);
    let index = index.open(&first);
    let replayed = replay(&first, &recovered, &index).await.unwrap();
    let (shares, tail) = recovered.into_shares();
    let opened = worlds.iter().zip(shares).zip(mail(CORES));
    let stores: Vec<_> =
        opened.map(|((world, share), mail)| Store::open(world.clone(), devices(world), share, mail)).collect();
    let writer = LogWriter::open(stores[0].clone(), tail, usize::from(profile.parity) + 1);
    let embedded = Embedded::open(first.clone(), writer, index, replayed, NodeId(1)).await;
    let (embedded, incarnation) = embedded.unwrap();
    stores.iter().for_each(|store| store.set_writer(NodeId(1), incarnation));
    let (mailboxes, inbox) = mailboxes(Limits::EMBEDDED);
    let embedded = Lossy::new(embedded, first.clone(), random(1), line);
    first.spawn(Service::new(first.clone(), embedded, inbox, Limits::EMBEDDED).run()).detach();
    let classes = Arc::new(Classes::standard_only(profile));
    let node = |(world, store): (&SimWorld, &Store<SimWorld>)| {
        let client = Client::new(world.clone(), mailboxes.clone());
        Node::new(world.clone(), store.clone(), client, "here", Arc::clone(&classes))
            .encoding_with(Kernel::Naive)
            .with_keys(Arc::clone(&keys))
    };
    let nodes: Vec<_> = worlds.iter().zip(&stores).map(node).collect();
    // Exists already in later lives.
    let _ = nodes[0].create_bucket(CALLER, bucket()).await;
    (nodes, CurrentLife { node: NodeId(1), incarnation })
}

fn bucket() -> BucketName {
    BucketName::new("bucket").unwrap()
}

fn key(name: &str) -> Key {
    Key::new(name.as_bytes().to_vec()).unwrap()
}

impl Running {
    /// Runs this on a core.
    pub(crate) fn on<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        core: usize,
        task: impl FnOnce(Node<SimWorld>) -> F + 'static,
    ) -> T {
        let node = self.nodes[core].clone();
        self.life.block_on(u16::try_from(core).unwrap(), move |_| task(node))
    }

    /// Stores an object of so many bytes.
    pub(crate) fn put(&self, core: usize, name: &str, length: usize) -> Result<(), PutError<()>> {
        let mut body = Bytes { bytes: bytes_of(name, length), sent: 0 };
        let put = PutObject {
            caller: CALLER,
            bucket: bucket(),
            key: key(name),
            headers: Headers::default(),
            expected: Expected::default(),
            conditions: WriteConditions::default(),
            storage_class: None,
        };
        self.on(core, async move |node| node.put_object(put, &mut body).await.map(drop))
    }

    /// Reads a range of an object; an error as text.
    pub(crate) fn read(&self, core: usize, name: &str, range: Range<u64>) -> Result<Vec<u8>, String> {
        let key = key(name);
        self.on(core, async move |node| {
            let found = node.open(CALLER, bucket(), key, None).await.map_err(|error| error.to_string())?;
            let mut reader = node.read(&found, range);
            let mut bytes = Vec::new();
            while let Some(piece) = reader.next().await {
                let piece = piece.map_err(|error| error.to_string())?;
                bytes.extend_from_slice(&piece.buffer[piece.range]);
            }
            Ok(bytes)
        })
    }

    /// Checks that an object reads byte for byte, whole and in parts.
    pub(crate) fn check(&self, name: &str, length: usize) {
        let expected = bytes_of(name, length);
        let end = length as u64;
        for (core, range) in [(0, 0..end), (1, 0..end), (1, end / 3..end - end / 5), (0, end.saturating_sub(1)..end)] {
            let read = self.read(core, name, range.clone());
            let part = &expected[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
            assert!(read.as_deref() == Ok(part), "{range:?} of {name}: {:?}", read.map(|bytes| bytes.len()));
        }
    }

    /// The rows of all blobs that are needed.
    pub(crate) fn blobs(&self) -> Vec<BlobRow> {
        let rows = self.index.rows().blobs(None, usize::MAX).unwrap();
        rows.into_iter().filter(|row| row.state == BlobState::Live).collect()
    }

    /// Shards that have no place.
    pub(crate) fn debt(&self) -> usize {
        self.shards_on(DiskId::NONE)
    }

    /// Blobs that are narrower than they should be.
    pub(crate) fn narrow(&self) -> usize {
        self.blobs().iter().filter(|row| row.is_narrow()).count()
    }

    /// Shards that are said to be on a disk.
    pub(crate) fn shards_on(&self, disk: DiskId) -> usize {
        let blobs = self.blobs();
        let places = blobs.iter().flat_map(|row| row.places.iter().take(row.profile.shards().into()));
        places.filter(|&&place| place == disk).count()
    }

    /// Cells that the stores do not look for where the rows say.
    pub(crate) fn misplaced(&self) -> usize {
        let rows = self.blobs();
        self.on(0, async move |node| {
            let mut misplaced = 0;
            for row in rows {
                for window in 0..geometry::window_count(row.profile, row.length) {
                    let at = geometry::window_start(row.profile, window);
                    let located = node.store().locate(row.blob, at).await.unwrap();
                    let disk = |shard| Some(located.as_ref()?.cell(shard)?.disk);
                    let wrong = row.places.iter().zip(0..).filter(|&(place, shard)| disk(shard) != Some(*place));
                    misplaced += wrong.count();
                }
            }
            misplaced
        })
    }

    /// Keeps the disks from now on, until the tasks are dropped.
    pub(crate) fn keep(&self) -> Vec<SimTask> {
        let upkeep = Upkeep {
            life: self.current,
            reclaim_delay: Duration::from_secs(60),
            look_every: Duration::from_secs(1),
            sweep_every: Duration::from_secs(3600),
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

    /// Lets a disk of the machine join; a blank one is formatted first.
    pub(crate) fn join(&self, machine: &Machine, number: usize, is_blank: bool) {
        let (disk, id) = (machine.disks[number].clone(), disk_id(number));
        let device = |core: u16| disk.open(&self.life.world(core));
        let first = device(0);
        let joining = self.on(0, async move |node| {
            if is_blank {
                let options = FormatOptions { disk: id, cluster: 1, extent_bytes: EXTENT_BYTES };
                format(node.world(), &first, options).await.unwrap();
            }
            node.store().prepare_disk(id, &first, Roster::default()).await.unwrap()
        });
        for ((node, joining), core) in self.nodes.iter().zip(joining).zip(0..) {
            node.store().add_disk(device(core), joining);
        }
        for core in 0..self.nodes.len() {
            self.on(core, async move |node| node.store().enter_disk(id).await);
        }
        self.nodes.iter().for_each(|node| node.store().open_disk(id));
    }

    /// The disks that all cores have found to be emptied of what was lost with them.
    pub(crate) fn cleared(&self) -> BTreeSet<DiskId> {
        let lost = self.lost.clone();
        self.on(0, async move |_| lost.cleared(CORES).await)
    }

    /// Lets what runs by itself come to its end.
    pub(crate) fn settle(&self) {
        self.life.run_for(Duration::from_secs(10));
    }

    /// Runs on until this holds.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..600 {
            if holds(self) {
                return;
            }
            self.life.run_for(Duration::from_secs(1));
        }
        panic!("after ten minutes still not: {what}");
    }
}

/// The disk answers nothing any more, or again.
pub(crate) fn set_gone(disk: &SimDisk, gone: bool) {
    disk.set_gone(gone);
}

/// Every operation of this kind fails.
pub(crate) fn failing(faults: impl FnOnce(&mut Faults)) -> Faults {
    let mut all = Faults::default();
    faults(&mut all);
    all
}

/// Chance for a test.
pub(crate) fn random(seed: u64) -> Random {
    Random::new(seed)
}

struct Bytes {
    bytes: Vec<u8>,
    sent: usize,
}

impl Body<SimBuffer> for Bytes {
    type Error = ();

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn fill(&mut self, mut buffer: SimBuffer, range: Range<usize>) -> (Result<usize, ()>, SimBuffer) {
        let count = range.len().min(self.bytes.len() - self.sent);
        buffer[range.start..range.start + count].copy_from_slice(&self.bytes[self.sent..self.sent + count]);
        self.sent += count;
        (Ok(count), buffer)
    }

    async fn read(&mut self, into: &mut Vec<u8>, max: usize) -> Result<usize, ()> {
        let count = max.min(self.bytes.len() - self.sent);
        into.extend_from_slice(&self.bytes[self.sent..self.sent + count]);
        self.sent += count;
        Ok(count)
    }

    async fn collect(&mut self) -> Result<Vec<u8>, ()> {
        self.sent = self.bytes.len();
        Ok(self.bytes.clone())
    }

    async fn finish(&mut self) -> Result<Trailer, ()> {
        assert_eq!(self.sent, self.bytes.len(), "all of it was taken");
        Ok(Trailer::default())
    }
}
