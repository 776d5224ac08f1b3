//! Cut at any moment, again and again, with fewer or more cores at the next start: what a flush acknowledged is there,
//! and nothing is ever wrong. The method: clients on every core write down what was acknowledged; each next life is
//! asked for all of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use anvil_model::ids::BlobId;
use anvil_model::io::World;
use anvil_sim::{Faults, Random, Sim, SimOptions, SimWorld};
use anvil_store::{LogWriter, Store};

use crate::harness::{Disks, MIB, Node, batch, check, write};

/// What clients know.
#[derive(Default)]
struct Known {
    /// Every blob that was ever begun: its length, and whether a flush acknowledged it.
    blobs: BTreeMap<BlobId, (usize, bool)>,
    /// The batches of the log that were acknowledged, and the last that was begun.
    log_acknowledged: BTreeSet<u64>,
    log_begun: u64,
}

type Shared = Rc<RefCell<Known>>;

/// Writes and flushes for ever; errors are survived by going on with another blob.
async fn client(world: SimWorld, store: Store<SimWorld>, known: Shared, mut random: Random) {
    loop {
        let mut disks = Vec::new();
        let mut blobs = Vec::new();
        for _ in 0..random.between(1, 3) {
            let length = match random.below(10) {
                0..6 => random.between(1, 9_000),
                6..8 => random.between(9_000, 70_000),
                _ => random.between(70_000, 2_300_000),
            };
            let (blob, disk, length) = (store.new_blob(), store.place(), length as usize);
            known.borrow_mut().blobs.insert(blob, (length, false));
            if write(&world, &store, disk, blob, length).await.is_ok() {
                disks.push(disk);
                blobs.push(blob);
            }
        }
        if !disks.is_empty() && store.flush(&disks).await.is_ok() {
            for blob in blobs {
                known.borrow_mut().blobs.get_mut(&blob).unwrap().1 = true;
            }
        } else {
            // The disk is full, or takes no more writes in this life; do not turn in circles.
            world.sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// Appends batches for ever; a batch whose append failed is appended again under its number.
async fn log_client(world: SimWorld, store: Store<SimWorld>, mut writer: LogWriter<SimWorld>, known: Shared) {
    let mut number = writer.last().unwrap_or(0) + 1;
    loop {
        known.borrow_mut().log_begun = number;
        if writer.append(number, &batch(number)).await.is_ok() {
            if store.flush(writer.disks()).await.is_ok() {
                known.borrow_mut().log_acknowledged.insert(number);
            }
            number += 1;
        }
        world.sleep(std::time::Duration::from_micros(300)).await;
    }
}

impl Known {
    /// Compares a life with what is known, and forgets what this life does not have: it may never come back.
    fn verify(&mut self, seed: u64, node: &Node, random: &mut Random) {
        let log = node.log.as_ref().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for record in log {
            assert_eq!(record.payload, batch(record.number), "seed {seed}: batch {}", record.number);
        }
        let found: BTreeSet<u64> = log.iter().map(|record| record.number).collect();
        assert!(found.is_superset(&self.log_acknowledged), "seed {seed}: {found:?} of {:?}", self.log_acknowledged);
        let last = found.last().copied().unwrap_or(0);
        assert!(last <= self.log_begun, "seed {seed}: the log ends at {last}, behind {}", self.log_begun);
        self.log_acknowledged = found;
        for (&blob, (length, acknowledged)) in &mut self.blobs {
            let core = u16::try_from(random.index(node.stores.len())).unwrap();
            let read = node.get(core, blob, *length);
            if *acknowledged || node.held.contains(&blob) {
                assert_eq!(read, Ok(()), "seed {seed}: blob {blob} of {length} bytes on core {core}");
                // What a start has found whole is durable from then on.
                *acknowledged = true;
            }
        }
    }

    fn wanted(&self) -> Vec<(BlobId, u64)> {
        self.blobs.iter().map(|(&blob, &(length, _))| (blob, length as u64)).collect()
    }
}

struct History {
    seed: u64,
    lives: u32,
    /// Writes begun in a life, at most, before it is cut.
    writes_max: u64,
    options: SimOptions,
    faults: Faults,
}

impl History {
    fn run(self) {
        let Self { seed, lives, writes_max, options, faults } = self;
        let mut random = Random::new(seed ^ 0x5eed);
        let count = 1 + random.index(2);
        // Small disks have small extents, which are sealed all the time.
        let capacity_bytes = if seed % 2 == 0 { 512 * MIB } else { 128 * MIB };
        let mut disks = Disks::with(Sim::new(seed, options), count, capacity_bytes);
        let known = Shared::default();
        for life in 0..=lives {
            let cores = u16::try_from(random.between(1, 4)).unwrap();
            let wanted = known.borrow().wanted();
            let mut node =
                disks.try_start(cores, &wanted).unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
            known.borrow_mut().verify(seed, &node, &mut random);
            if life == lives {
                break;
            }
            let cuts: Vec<_> =
                disks.all.iter().map(|(_, disk)| disk.counts().writes_begun + random.below(writes_max)).collect();
            disks.all.iter().for_each(|(_, disk)| disk.set_faults(faults));
            let log_core = u16::try_from(random.below(cores.into())).unwrap();
            let writer = node.log_writer(log_core);
            let (store, shared) = (node.stores[usize::from(log_core)].clone(), Rc::clone(&known));
            let _log = node.life.spawn(log_core, move |world| log_client(world, store, writer, shared));
            let clients: Vec<_> = (0..cores * 2)
                .map(|client_number| {
                    let core = client_number % cores;
                    let (store, shared) = (node.stores[usize::from(core)].clone(), Rc::clone(&known));
                    let random = random.fork();
                    node.life.spawn(core, move |world| client(world, store, shared, random))
                })
                .collect();
            let steps_max = node.life.steps() + 40_000;
            node.life.run_while(|| {
                let reached = disks.all.iter().zip(&cuts).any(|((_, disk), &cut)| disk.counts().writes_begun >= cut);
                !reached && node.life.steps() < steps_max
            });
            disks.all.iter().for_each(|(_, disk)| disk.set_faults(Faults::default()));
            drop(clients);
            if random.one_in(4) { node.kill() } else { node.power_cut() }
        }
    }
}

#[test]
fn acknowledged_bytes_survive_any_cut() {
    for seed in 0..50 {
        let writes_max = if seed % 3 == 0 { 12 } else { 150 };
        let history = History { seed, lives: 4, writes_max, options: SimOptions::default(), faults: Faults::default() };
        history.run();
    }
}

/// The same with two buffers per core, one of them kept: nothing may wait for what waits for it.
#[test]
fn acknowledged_bytes_survive_with_the_smallest_pools() {
    for seed in 1000..1016 {
        let options = SimOptions { buffers: 2, buffers_reserved: 1, ..SimOptions::default() };
        History { seed, lives: 3, writes_max: 120, options, faults: Faults::default() }.run();
    }
}

#[test]
fn acknowledged_bytes_survive_failing_writes_and_flushes() {
    for seed in 2000..2030 {
        let faults = Faults {
            write_error: 20_000,
            write_no_space: 5_000,
            flush_error: 2_000,
            grow_error: 50_000,
            ..Faults::default()
        };
        History { seed, lives: 4, writes_max: 150, options: SimOptions::default(), faults }.run();
    }
}

/// Cut after each single write of one short history.
#[test]
fn acknowledged_bytes_survive_a_cut_after_every_write() {
    for cut in 1..90 {
        let mut disks = Disks::new(77, 1, 64 * MIB);
        let mut node = disks.start(2);
        let known = Shared::default();
        let writer = node.log_writer(1);
        let (store, shared) = (node.stores[1].clone(), Rc::clone(&known));
        let _log = node.life.spawn(1, move |world| log_client(world, store, writer, shared));
        let _clients = [0, 1].map(|core| {
            let (store, shared) = (node.stores[usize::from(core)].clone(), Rc::clone(&known));
            node.life.spawn(core, move |world| client(world, store, shared, Random::new(core.into())))
        });
        let begun = disks.disk().counts().writes_begun;
        node.life.run_while(|| disks.disk().counts().writes_begun < begun + cut);
        node.power_cut();
        let wanted = known.borrow().wanted();
        let node = disks.try_start(3, &wanted).unwrap();
        known.borrow_mut().verify(cut, &node, &mut Random::new(cut));
    }
}

/// A footer speaks for its records: nobody else flushes here, so what it names is there only if sealing flushed first.
#[test]
fn a_footer_names_only_what_is_durable() {
    let mut sealed = 0;
    for seed in 0..60 {
        let mut disks = Disks::new(3000 + seed, 1, 64 * MIB);
        let node = disks.start(1);
        node.put(0, 1_000_000);
        let known: Rc<RefCell<Vec<(BlobId, u64)>>> = Rc::default();
        let (store, begun) = (node.stores[0].clone(), Rc::clone(&known));
        let writer = node.life.spawn(0, move |world| async move {
            for _ in 0..4 {
                let blob = store.new_blob();
                begun.borrow_mut().push((blob, 1_000_000));
                write(&world, &store, store.place(), blob, 1_000_000).await.unwrap();
            }
        });
        let end = node.life.steps() + 40 + 3 * seed;
        node.life.run_while(|| node.life.steps() < end && !writer.is_done());
        node.power_cut();
        let node = disks.try_start(1, &known.borrow()).unwrap();
        sealed += node.report.extents - node.report.extents_scanned;
        for &blob in &node.held {
            assert_eq!(node.get(0, blob, 1_000_000), Ok(()), "seed {seed}");
        }
        drop(known);
    }
    assert!(sealed > 60, "{sealed} footers were read");
}

/// A device whose flushes lie is noticed by these tests: otherwise they prove nothing.
#[test]
fn a_lying_flush_is_caught() {
    let caught = (0..20).any(|seed| {
        std::panic::catch_unwind(|| {
            let mut disks = Disks::new(seed, 1, 64 * MIB);
            disks.disk().set_flush_lies(true);
            let node = disks.start(1);
            let blob = node.put(0, 5000);
            node.power_cut();
            // The superblock may be lost as well.
            disks.try_start(1, &[]).is_ok_and(|node| {
                let store = node.stores[0].clone();
                node.life.block_on(0, move |_| async move { check(&store, blob, 5000).await }).is_ok()
            })
        })
        .is_ok_and(|there| !there)
    });
    assert!(caught, "nothing was lost though no flush did anything");
}
