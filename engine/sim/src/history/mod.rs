//! Histories: a node from its first start over several lives, with clients, accidents and crashes, all from one seed.
//!
//! Real are the store, the metadata log, the batching, the decisions and the stories; false are the seam, the disks,
//! the index file (maps for SQLite) and the line between service and metadata. [`run`] panics when an acknowledged
//! operation is lost or undone, when anything is read that nobody wrote, and when nothing moves any more.

mod answers;
mod boot;
mod campaign;
mod checks;
mod client;
mod fates;
mod payload;
mod plan;
mod record;
mod rot;
mod shared;
mod uploads;

use std::rc::Rc;
use std::time::Duration;

use anvil_model::io::{Task, World};
use anvil_store::ReclaimOptions;
use futures_util::future::join_all;

use crate::disk::{DiskOptions, Faults, Injected, Saved, SimDisk};
use crate::index::IndexFile;
use crate::life::{Join, Life, Sim};
use crate::lossy::Line;
use crate::random::Random;
use crate::world::{SimTask, SimWorld};
use boot::{Known, Parts, Running};
pub use campaign::{Campaign, Failure, Summary};
use client::Client;
use fates::Before;
pub use fates::Misfortunes;
use plan::{Cut, End, LifePlan, Plan};
use shared::Shared;

/// What is changed in a history beside what its seed says.
#[derive(Clone, Copy, Debug, Default)]
pub struct HistoryOptions {
    /// Every flush lies. No node can survive this: it shows that a history notices.
    pub flush_lies: bool,
    /// Says what happens.
    pub verbose: bool,
}

/// What happened in a history, or in many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// A hash of all that happened: the same for the same seed.
    pub trace: u64,
    /// Processes.
    pub lives: u32,
    /// Operations of clients on keys.
    pub operations: u64,
    /// Polls and events.
    pub steps: u64,
    /// Bytes that clients read and compared.
    pub bytes_checked: u64,
    /// What went wrong with the disks.
    pub injected: Injected,
    /// What became of whole disks.
    pub misfortunes: Misfortunes,
    /// How often that was reached which is rare and matters.
    pub reached: Reached,
}

/// Rare states: a campaign that does not reach them proves little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Lives that were cut short.
    pub crashes: u64,
    /// Of these, before clients came: when the node was recovering.
    pub crashes_at_start: u64,
    /// Of these, soon after a record was moved or an extent was given back.
    pub crashes_in_reclaim: u64,
    /// Starts that found torn records.
    pub torn: u64,
    /// Starts that declared the last batch of the log void.
    pub void: u64,
    /// Starts that gave the index batches that it lacked.
    pub replayed: u64,
    /// Starts that made the index anew.
    pub rebuilt: u64,
    /// Starts that found an extent without its header.
    pub rescued: u64,
    /// Writes whose outcome their client never learned.
    pub unknown: u64,
    /// Histories in which the disks became full.
    pub full: u64,
    /// Histories in which an operation of a device failed before a client.
    pub device_errors: u64,
    /// Starts that damage prevented, with a reason.
    pub refused_starts: u64,
    /// Blobs of failed writes that were given up.
    pub abandoned: u64,
    /// Blobs of closed lives that a sweep claimed.
    pub orphans: u64,
    /// Lines of the garbage list that were forgotten, because their bytes were gone.
    pub forgotten: u64,
    /// Extents that were given back.
    pub freed: u64,
    /// Records that were moved for that.
    pub moved: u64,
    /// Writes that were committed and had seen two sweeps of their core from their beginning on.
    pub outlasted: u64,
    /// Reads that lost their version to reclaim, and said so.
    pub cut_off: u64,
    /// Disks that were full, and took writes again after deletions.
    pub recovered: u64,
    /// Disks that did not, of the least size.
    pub stayed_full: u64,
    /// Records that scrub found whole.
    pub scrubbed: u64,
    /// Histories in which a bit of an object turned over, and scrub named the blob.
    pub rot_named: u64,
}

/// Runs the history of this seed.
///
/// # Panics
/// When a promise was broken. The message says which; the same seed breaks it again.
pub fn run(seed: u64, options: HistoryOptions) -> Report {
    let mut random = Random::new(seed ^ 0x6869_7374_6f72_7921);
    let plan = Plan::draw(&mut random);
    if options.verbose {
        println!("{plan:#?}");
    }
    let sim = Sim::new(seed, plan.sim);
    let disk_options = DiskOptions { flush_lies: options.flush_lies, ..plan.disk };
    let disks: Vec<SimDisk> = (0..plan.disks).map(|_| sim.disk(disk_options)).collect();
    let saved = vec![Vec::new(); plan.disks];
    let shared = Rc::new(Shared::new(plan.keys, plan.large, plan.tolerance));
    let index = IndexFile::new(random.fork());
    let known = Known::default();
    let mut history =
        History { sim, disks, known, saved, index, shared, plan, options, random, report: Report::default() };
    history.play();
    history.report
}

struct History {
    sim: Sim,
    disks: Vec<SimDisk>,
    /// The disks that the node was told of and took, by number.
    known: Known,
    /// By disk, what it was when each life ended.
    saved: Vec<Vec<Saved>>,
    index: IndexFile,
    shared: Rc<Shared>,
    plan: Plan,
    options: HistoryOptions,
    random: Random,
    report: Report,
}

impl History {
    fn play(&mut self) {
        for life in self.plan.lives.clone() {
            self.live(&life);
            // Where bytes rot, what is missing was named; that nothing else was read is seen by the clients.
            if !self.plan.tolerance.damage {
                let shown = self.shared.record.borrow().check();
                shown.unwrap_or_else(|problem| panic!("{problem}"));
                self.index.rows().check().unwrap_or_else(|problem| panic!("the rows contradict themselves: {problem}"));
            }
        }
        self.report.trace = self.sim.trace();
        self.report.reached = self.shared.reached.get();
        self.report.misfortunes = self.shared.misfortunes.get();
        self.report.bytes_checked = self.shared.bytes_checked.get();
        self.disks.iter().for_each(|disk| self.report.injected.add(&disk.counts().injected));
        self.report.operations = self.shared.record.borrow().count() as u64;
    }

    fn live(&mut self, plan: &LifePlan) {
        // The life before may have ended in the middle of its accidents.
        self.disks.iter().for_each(fates::heal);
        // Whoever makes a node on broken disks sees it at once.
        let mut plan = plan.clone();
        if !self.shared.settled.get() {
            plan.misfortunes.retain(|one| !one.is_at_start());
        }
        let plan = &plan;
        for (disk, before) in plan.misfortunes.iter().filter_map(|one| Some((one.disk, one.before?))) {
            self.shared.suffer(|counts| before.happen(&self.disks[disk], &self.saved[disk], counts));
        }
        for (disk, during) in plan.misfortunes.iter().filter_map(|one| Some((one.disk, one.during?))) {
            if during.at_start {
                self.shared.suffer(|counts| during.trouble.begin(&self.disks[disk], counts));
            }
        }
        self.shared.set_closing(false);
        self.shared.serving.set(false);
        self.shared.reclaimed.set(0);
        let life = self.sim.start(plan.cores);
        let main = self.begin(&life, plan);
        let mut cutter = Cutter::new(plan.cut, &self.disks);
        life.run_while(|| !main.is_done() && !cutter.cuts(life.steps(), &self.shared));
        let ended = main.take();
        drop(main);
        self.report.lives += 1;
        self.report.steps += life.steps();
        let (cut, serving, reclaimed) = (ended.is_none(), self.shared.serving.get(), self.shared.reclaimed.get());
        self.shared.reach(|reached| {
            reached.crashes += u64::from(cut);
            reached.crashes_at_start += u64::from(cut && !serving);
            reached.crashes_in_reclaim += u64::from(cut && reclaimed > 0);
        });
        if self.options.verbose {
            let how = if ended.is_some() { "ended" } else { "was cut" };
            println!("life {} {how} after {} steps: {:?}", self.report.lives, life.steps(), plan.end);
        }
        match plan.end {
            End::Kill => {
                self.index.kill();
                life.kill();
            }
            End::PowerCut => {
                self.index.power_cut();
                life.power_cut();
            }
        }
        self.shared.record.borrow_mut().life_ends();
        if !self.plan.victims.is_empty() {
            self.saved.iter_mut().zip(&self.disks).for_each(|(saved, disk)| saved.push(disk.save()));
        }
    }

    /// The disks as a start finds them; none where one is missing.
    fn found(&self, plan: &LifePlan) -> Vec<Option<SimDisk>> {
        let is_missing = |disk: usize| {
            let mut misfortunes = plan.misfortunes.iter();
            misfortunes.any(|one| one.disk == disk && matches!(one.before, Some(Before::Missing)))
        };
        self.disks.iter().enumerate().map(|(number, disk)| (!is_missing(number)).then(|| disk.clone())).collect()
    }

    fn begin(&mut self, life: &Life, plan: &LifePlan) -> Join<()> {
        let line = Line::default();
        let parts = Parts {
            worlds: (0..plan.cores).map(|core| life.world(core)).collect(),
            disks: self.found(plan),
            known: Rc::clone(&self.known),
            profile: self.plan.profile,
            extent_bytes: self.plan.extent_bytes,
            index: self.index.clone(),
            limits: self.plan.limits,
            line: line.clone(),
            random: self.random.fork(),
        };
        let town = Town {
            index: self.index.clone(),
            shared: Rc::clone(&self.shared),
            disks: self.disks.clone(),
            line,
            plan: plan.clone(),
            victims: self.plan.victims.clone(),
            random: self.random.fork(),
        };
        let core = u16::try_from(self.random.index(usize::from(plan.cores))).expect("a few cores");
        life.spawn(core, |world| async move {
            match parts.boot().await {
                Ok(running) => {
                    town.shared.settled.set(true);
                    town.shared.reach(|reached| running.start.count(reached));
                    town.live(world, running).await;
                }
                Err(error) => {
                    town.shared.reach(|reached| reached.refused_starts += 1);
                    assert!(town.shared.tolerance.get().damage, "the node does not start: {error:?}");
                }
            }
        })
    }
}

/// With fewer disks a write with parity is refused.
const DISKS_TO_WRITE_MIN: usize = 2;

/// How soon a life that is cut in reclaim notices that it runs.
const RECLAIM_LOOKED_AT_EVERY: Duration = Duration::from_millis(5);

/// Decides when a life is cut short.
struct Cutter<'d> {
    cut: Cut,
    disks: &'d [SimDisk],
    /// Flushes until then.
    flushes_before: u64,
    served: bool,
    at_step: Option<u64>,
}

impl<'d> Cutter<'d> {
    fn new(cut: Cut, disks: &'d [SimDisk]) -> Self {
        Self { cut, disks, flushes_before: flushes(disks), served: false, at_step: None }
    }

    fn cuts(&mut self, step: u64, shared: &Shared) -> bool {
        let serving = shared.serving.get();
        if serving && !self.served {
            self.served = true;
            self.flushes_before = flushes(self.disks);
        }
        match self.cut {
            Cut::Never => false,
            Cut::AtStep(at) => step >= at,
            Cut::InFlush { serving, flush, steps } => {
                let due = serving == self.served && flushes(self.disks) >= self.flushes_before + flush;
                let at = if due { *self.at_step.get_or_insert(step + steps) } else { self.at_step.unwrap_or(u64::MAX) };
                step >= at
            }
            Cut::InReclaim { steps } => {
                let begun = shared.reclaimed.get() > 0;
                begun && step >= *self.at_step.get_or_insert(step + steps)
            }
        }
    }
}

fn flushes(disks: &[SimDisk]) -> u64 {
    disks.iter().map(|disk| disk.counts().flushes_begun).sum()
}

/// Those who use a node in one life, and those who make it hard.
struct Town {
    index: IndexFile,
    shared: Rc<Shared>,
    disks: Vec<SimDisk>,
    line: Line,
    plan: LifePlan,
    /// The disks that something happens to in this history.
    victims: Vec<usize>,
    random: Random,
}

impl Town {
    async fn live(mut self, world: SimWorld, running: Running) {
        running.stores.iter().for_each(|store| store.start_reclaim(ReclaimOptions::default()));
        if let Some(options) = self.plan.scrub {
            running.stores.iter().for_each(|store| store.start_scrub(options));
        }
        let upkeep = self.plan.upkeep.map(|plan| running.keep(plan));
        if self.plan.verify_first {
            self.client(&running).verify().await;
        }
        self.set_accidents(true);
        self.shared.serving.set(true);
        let accidents = self.accidents(&world, &running);
        let clients: Vec<Client> = (0..self.plan.clients).map(|_| self.client(&running)).collect();
        let done = clients.into_iter().map(|client| {
            let (done, wait) = tokio::sync::oneshot::channel();
            let (world, operations) = (client.world.clone(), self.plan.operations);
            let task = world.spawn(async move {
                client.run(operations).await;
                // The town is there as long as the life is.
                let _ = done.send(());
            });
            task.detach();
            wait
        });
        join_all(done.collect::<Vec<_>>()).await.into_iter().for_each(|done| done.expect("clients end by themselves"));
        self.set_accidents(false);
        self.client(&running).verify().await;
        if self.shared.tolerance.get().full && self.victims.is_empty() {
            self.client(&running).make_room().await;
        }
        let sound = self.disks.len() - self.victims.len();
        // One that has room and takes nothing is chosen again and again: it is neither full nor broken.
        let stingy =
            self.plan.misfortunes.iter().any(|one| one.during.is_some_and(|during| during.trouble.takes_nothing()));
        if !self.victims.is_empty() && !stingy && sound >= DISKS_TO_WRITE_MIN {
            self.client(&running).goes_on().await;
        }
        self.account(&running).await;
        let tolerance = self.shared.tolerance.get();
        // What cannot be read, or was torn by a write that failed, is damaged too.
        if !tolerance.damage && !tolerance.reads_fail {
            let sound: Vec<usize> = (0..self.disks.len()).filter(|disk| !self.victims.contains(disk)).collect();
            running.is_whole(&self.index, &sound).unwrap_or_else(|problem| panic!("{problem}"));
        }
        if self.plan.rot {
            let client = self.client(&running);
            rot::plant(client, &running, &self.disks).await;
        }
        self.shared.reach(|reached| running.count(reached));
        drop((upkeep, accidents));
        if self.plan.close {
            self.shared.set_closing(true);
            join_all(running.stores.iter().map(|store| store.close())).await;
        }
        drop(world);
    }

    /// Whatever became of uploads, deletions and crashes: nothing is kept for ever that nobody needs, and nothing is
    /// missing that somebody does.
    async fn account(&self, running: &Running) {
        let tolerance = self.shared.tolerance.get();
        match running.account(&self.index).await.unwrap_or_else(|problem| panic!("{problem}")) {
            Some(missing) => assert!(missing == 0 || tolerance.damage, "{missing} blobs that objects need are missing"),
            None => assert!(tolerance.writes_fail || tolerance.full, "a healthy node takes no changes"),
        }
    }

    fn client(&mut self, running: &Running) -> Client {
        let core = self.random.index(running.nodes.len());
        let node = running.nodes[core].clone();
        Client {
            world: node.world().clone(),
            node,
            metadata: running.metadata[core].clone(),
            shared: Rc::clone(&self.shared),
            random: self.random.fork(),
        }
    }

    fn set_accidents(&self, on: bool) {
        self.line.set_share(if on { self.plan.lossy_share } else { 0 });
        let single = |number| self.plan.misfortunes.iter().any(|one| one.disk == number);
        for (_, disk) in self.disks.iter().enumerate().filter(|(number, _)| !single(*number)) {
            disk.set_faults(if on { self.plan.faults } else { Faults::default() });
        }
    }

    /// What happens by itself from now on, until the tasks are dropped.
    fn accidents(&self, world: &SimWorld, running: &Running) -> Vec<SimTask> {
        let mut tasks: Vec<SimTask> = Vec::new();
        for (number, during) in self.plan.misfortunes.iter().filter_map(|one| Some((one.disk, one.during?))) {
            let (world, disk, shared) = (world.clone(), self.disks[number].clone(), Rc::clone(&self.shared));
            tasks.push(world.clone().spawn(async move {
                world.sleep(during.after).await;
                if !during.at_start {
                    shared.suffer(|counts| during.trouble.begin(&disk, counts));
                }
                if let Some(until) = during.until {
                    world.sleep(until.saturating_sub(during.after)).await;
                    fates::heal(&disk);
                    shared.suffer(|counts| counts.returned += 1);
                }
            }));
        }
        if let Cut::InReclaim { .. } = self.plan.cut {
            let (world, stores, shared) = (world.clone(), running.stores.clone(), Rc::clone(&self.shared));
            tasks.push(world.clone().spawn(async move {
                loop {
                    world.sleep(RECLAIM_LOOKED_AT_EVERY).await;
                    let disks = stores.iter().flat_map(|store| store.stats().disks);
                    let spaces = disks.filter_map(|disk| disk.space);
                    let done = spaces.map(|space| space.reclaimed.extents + space.reclaimed.moved_records).sum();
                    shared.reclaimed.set(done);
                }
            }));
        }
        tasks
    }
}
