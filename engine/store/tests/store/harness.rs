//! A node of stores in a simulated world, and payloads that say of themselves whether they are right.

use std::rc::Rc;
use std::sync::LazyLock;

use anvil_model::format::KeyRing;
use anvil_model::ids::{BlobId, DiskId, Incarnation, NodeId, TenantId};
use anvil_model::io::{Reserve, World};
use anvil_model::limits::{RECORD_HEADER_BYTES_MAX, RECORD_PAYLOAD_BYTES_MAX, SMALL_BLOB_BYTES_MAX};
use anvil_model::profile::Profile;
use anvil_model::time::WallTime;
use anvil_sim::{DiskOptions, Life, Random, Sim, SimDisk, SimOptions, SimWorld};
use anvil_store::{
    AppendError, Cell, FormatOptions, LogError, LogRecord, LogTail, LogWriter, Origin, OriginPayload, ReadError,
    RecoverError, Recovered, RecoveredLog, RecoveryReport, SmallCopy, Store, extent_bytes, format, mail, recover,
};

pub(crate) const MIB: u64 = 1 << 20;
const CLUSTER: u128 = 0xc1;

/// Disks of one node that outlive its lives.
pub(crate) struct Disks {
    pub(crate) sim: Sim,
    pub(crate) all: Vec<(DiskId, SimDisk)>,
    /// What the node says are its encryption keys from the next start on; those of the disks when there are none.
    pub(crate) keys: KeyRing,
    lives: u32,
}

/// One life of the node.
pub(crate) struct Node {
    pub(crate) life: Life,
    pub(crate) stores: Vec<Store<SimWorld>>,
    pub(crate) report: RecoveryReport,
    /// The log as it was found.
    pub(crate) log: Result<Vec<LogRecord>, LogError>,
    pub(crate) tail: Option<LogTail>,
    pub(crate) recovered_log: Option<RecoveredLog<SimWorld>>,
    /// The encryption keys as the disks are to keep them.
    pub(crate) keys: KeyRing,
    /// The number for the first batch of this life.
    pub(crate) next_number: u64,
    /// Of the blobs that were asked for at start, those that recovery says are whole.
    pub(crate) held: Vec<BlobId>,
}

impl Disks {
    /// Formatted disks of this capacity.
    pub(crate) fn new(seed: u64, count: usize, capacity_bytes: u64) -> Self {
        Self::with(Sim::new(seed, SimOptions::default()), count, capacity_bytes)
    }

    pub(crate) fn with(sim: Sim, count: usize, capacity_bytes: u64) -> Self {
        let options = DiskOptions { capacity_bytes_max: capacity_bytes, ..DiskOptions::default() };
        let all: Vec<_> = (1..=count).map(|id| (DiskId(id as u128), sim.disk(options))).collect();
        let disks = Self { sim, all, keys: KeyRing::default(), lives: 0 };
        let life = disks.sim.start(1);
        for (id, disk) in &disks.all {
            let device = disk.open(&life.world(0));
            let id = *id;
            life.block_on(0, move |world| async move {
                let extent_bytes = extent_bytes(capacity_bytes);
                format(&world, &device, FormatOptions { disk: id, cluster: CLUSTER, extent_bytes }).await.unwrap();
            });
        }
        life.power_cut();
        disks
    }

    pub(crate) fn disk(&self) -> &SimDisk {
        &self.all[0].1
    }

    pub(crate) fn start(&mut self, cores: u16) -> Node {
        self.try_start(cores, &[]).unwrap_or_else(|error| panic!("the disks do not open: {error}"))
    }

    /// Starts the node; `wanted` are blobs with their lengths to ask recovery for.
    pub(crate) fn try_start(&mut self, cores: u16, wanted: &[(BlobId, u64)]) -> Result<Node, RecoverError> {
        let wanted: Vec<_> = wanted.iter().map(|&(blob, length)| (blob, Profile::SINGLE, length)).collect();
        self.try_start_asking(cores, &wanted)
    }

    /// The same for blobs that are spread.
    pub(crate) fn try_start_asking(
        &mut self,
        cores: u16,
        wanted: &[(BlobId, Profile, u64)],
    ) -> Result<Node, RecoverError> {
        self.try_start_without(cores, wanted, 0)
    }

    /// Starts the node although up to so many of its disks fail.
    pub(crate) fn try_start_without(
        &mut self,
        cores: u16,
        wanted: &[(BlobId, Profile, u64)],
        lost_max: usize,
    ) -> Result<Node, RecoverError> {
        self.lives += 1;
        let life = self.sim.start(cores);
        let open = |core| -> Vec<_> { self.all.iter().map(|(id, disk)| (*id, disk.open(&life.world(core)))).collect() };
        let devices = open(0);
        let (mut recovered, log) = life.block_on(0, move |world| async move {
            let recovered = recover(&world, devices, cores, lost_max).await?;
            let log = read_log(&recovered).await;
            Ok::<_, RecoverError>((recovered, log))
        })?;
        if !self.keys.is_empty() {
            recovered.set_keys(self.keys);
        }
        let (report, keys) = (recovered.report.clone(), recovered.keys);
        let held = wanted
            .iter()
            .filter(|(blob, profile, length)| recovered.holds(*blob, *profile, *length))
            .map(|(blob, ..)| *blob);
        let held = held.collect();
        let next_number = recovered.log.next_number();
        let (recovered_log, shares, tail) = recovered.into_parts();
        let recovered_log = Some(recovered_log);
        let stores: Vec<_> = shares
            .into_iter()
            .zip(mail(cores))
            .zip(0..)
            .map(|((share, mail), core)| Store::open(life.world(core), open(core), share, mail))
            .collect();
        for store in &stores {
            store.set_writer(NodeId(1), Incarnation(self.lives));
        }
        Ok(Node { life, stores, report, log, tail: Some(tail), recovered_log, keys, next_number, held })
    }
}

async fn read_log(recovered: &Recovered<SimWorld>) -> Result<Vec<LogRecord>, LogError> {
    let mut records = Vec::new();
    let Some(first) = recovered.log.first() else {
        return Ok(records);
    };
    let mut reader = recovered.log.read(first);
    while let Some(record) = reader.next().await {
        records.push(record?);
    }
    Ok(records)
}

impl Node {
    /// Writes a blob on a core and makes it durable.
    pub(crate) fn put(&self, core: u16, length: usize) -> BlobId {
        let store = self.stores[usize::from(core)].clone();
        self.life.block_on(core, move |world| async move {
            let blob = store.new_blob();
            let disk = store.place();
            write(&world, &store, disk, blob, length).await.unwrap();
            store.flush(&[disk]).await.unwrap();
            blob
        })
    }

    /// Reads a blob on a core, all of it.
    pub(crate) fn get(&self, core: u16, blob: BlobId, length: usize) -> Result<(), ReadError> {
        let store = self.stores[usize::from(core)].clone();
        self.life.block_on(core, move |_| async move { check(&store, blob, length).await })
    }

    pub(crate) fn log_writer(&mut self, core: u16) -> LogWriter<SimWorld> {
        self.log_writer_of(core, 1)
    }

    /// A log with so many copies.
    pub(crate) fn log_writer_of(&mut self, core: u16, copies: usize) -> LogWriter<SimWorld> {
        LogWriter::open(self.stores[usize::from(core)].clone(), self.tail.take().unwrap(), copies)
    }

    /// Appends to the log and makes it durable.
    pub(crate) fn log(
        &self,
        writer: LogWriter<SimWorld>,
        core: u16,
        numbers: std::ops::Range<u64>,
    ) -> LogWriter<SimWorld> {
        let store = self.stores[usize::from(core)].clone();
        self.life.block_on(core, move |_| async move {
            let mut writer = writer;
            for number in numbers {
                writer.append(number, &batch(number)).await.unwrap();
                store.flush(writer.disks()).await.unwrap();
            }
            writer
        })
    }

    /// Closes all cores at once.
    pub(crate) fn close(self) {
        let Self { life, stores, recovered_log, .. } = self;
        drop(recovered_log);
        let joins: Vec<_> = stores
            .into_iter()
            .zip(0..)
            .map(|(store, core)| life.spawn(core, move |_| async move { store.close().await }))
            .collect();
        life.run_while(|| joins.iter().any(|join| !join.is_done()));
        drop(joins);
        life.kill();
    }

    pub(crate) fn power_cut(self) {
        let Self { life, stores, recovered_log, .. } = self;
        drop((stores, recovered_log));
        life.power_cut();
    }

    pub(crate) fn kill(self) {
        let Self { life, stores, recovered_log, .. } = self;
        drop((stores, recovered_log));
        life.kill();
    }
}

/// Appends a whole blob, durable or not.
pub(crate) async fn write(
    world: &SimWorld,
    store: &Store<SimWorld>,
    disk: DiskId,
    blob: BlobId,
    length: usize,
) -> Result<(), AppendError> {
    let origin = origin(blob);
    if length <= SMALL_BLOB_BYTES_MAX {
        let payload = Rc::new(bytes(blob, 0, length));
        let copy = SmallCopy { blob, profile: Profile::SINGLE, shard: 0, payload, encryption: None };
        return store.append_small(disk, Some(&origin), copy).await;
    }
    for (window, offset) in (0..).zip((0..length).step_by(RECORD_PAYLOAD_BYTES_MAX)) {
        let part = (length - offset).min(RECORD_PAYLOAD_BYTES_MAX);
        let mut buffer = world.buffer(Reserve::Foreground).await;
        buffer[RECORD_HEADER_BYTES_MAX..][..part].copy_from_slice(&bytes(blob, offset, part));
        let cell =
            Cell { blob, profile: Profile::SINGLE, shard: 0, window, window_length: part, encryption: None, buffer };
        let origin = if offset == 0 { Some(&origin) } else { None };
        store.append(disk, origin, cell).await?;
    }
    Ok(())
}

/// Reads a whole blob and compares it.
pub(crate) async fn check(store: &Store<SimWorld>, blob: BlobId, length: usize) -> Result<(), ReadError> {
    check_range(store, blob, 0..length).await
}

/// Reads a part of a blob and compares it. Wrong bytes panic.
pub(crate) async fn check_range(
    store: &Store<SimWorld>,
    blob: BlobId,
    mut range: std::ops::Range<usize>,
) -> Result<(), ReadError> {
    while !range.is_empty() {
        let piece = store.read(blob, range.start as u64..range.end as u64).await?;
        assert!(!piece.range.is_empty() && piece.range.len() <= range.len(), "a piece of what was asked for");
        let found = &piece.buffer[piece.range];
        assert!(found == bytes(blob, range.start, found.len()), "wrong bytes of blob {blob} at {}", range.start);
        range.start += found.len();
    }
    Ok(())
}

/// Bytes `at..at + length` of a blob. Each blob has its own.
pub(crate) fn bytes(blob: BlobId, at: usize, length: usize) -> Vec<u8> {
    /// A prime, so that windows and blocks of a blob differ too.
    const PERIOD: usize = 1_299_709;
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut random = Random::new(1);
        (0..2 * PERIOD).map(|_| random.next() as u8 | 1).collect()
    });
    let salt = blob.sequence as usize * 7919 + blob.incarnation.0 as usize * 104_729;
    let mut filled = Vec::with_capacity(length);
    while filled.len() < length {
        let start = (salt + at + filled.len()) % PERIOD;
        let part = (length - filled.len()).min(PERIOD);
        filled.extend_from_slice(&PATTERN[start..start + part]);
    }
    filled
}

/// Where on the disk the payload of a window of a blob begins. The record is there once.
pub(crate) fn payload_at(disk: &SimDisk, blob: BlobId, window: u32) -> u64 {
    let bytes = disk.bytes(0, usize::try_from(disk.size_bytes()).unwrap());
    let subject = [&blob.to_bytes()[..], &window.to_le_bytes()].concat();
    for (unit, start) in bytes.chunks(8).zip((0..).step_by(8)) {
        if unit.starts_with(b"AnvR") && bytes[start + 40..start + 60] == subject {
            let payload_offset = u32::from_le_bytes(bytes[start + 60..start + 64].try_into().unwrap());
            return start as u64 + u64::from(payload_offset);
        }
    }
    panic!("window {window} of blob {blob} is not on the disk");
}

pub(crate) fn batch(number: u64) -> Vec<u8> {
    let length = 1 + (number * 997 % 3000) as usize;
    (0..length).map(|at| (at as u64 ^ number) as u8 | 1).collect()
}

pub(crate) fn origin(blob: BlobId) -> Origin {
    Origin {
        tenant: TenantId(1),
        bucket: "bucket".into(),
        key: format!("key/{blob}"),
        at: WallTime { unix_ms: blob.sequence },
        payload: OriginPayload::Unsaid,
    }
}
