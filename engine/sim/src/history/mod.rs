//! Histories: a node from its first start over several lives, with clients, accidents and crashes, all from one seed.
//!
//! Real are the store, the metadata log, the batching, the decisions and the stories; false are the seam, the disks,
//! the index file (maps for SQLite) and the line between service and metadata. [`run`] panics when an acknowledged
//! operation is lost or undone, when anything is read that nobody wrote, and when nothing moves any more.

mod answers;
mod boot;
mod broken;
mod campaign;
mod checks;
mod client;
mod cutter;
mod fates;
mod losses;
mod payload;
mod plan;
mod record;
mod report;
mod rot;
mod shared;
mod town;
mod uploads;

use std::rc::Rc;

use crate::disk::{Saved, SimDisk};
use crate::index::IndexFile;
use crate::life::{Join, Life, Sim};
use crate::lossy::Line;
use crate::random::Random;
use boot::{Known, Parts};
pub use broken::BrokenRule;
pub use campaign::{Campaign, Failure, Summary};
use cutter::Cutter;
use fates::Before;
pub use fates::Misfortunes;
use plan::{End, LifePlan, Plan};
pub use report::{Reached, Report, Scope};
use shared::Shared;
use town::Town;

/// What is changed in a history beside what its seed says.
#[derive(Clone, Copy, Debug, Default)]
pub struct HistoryOptions {
    /// A rule that is broken on purpose. No node can survive this: it shows that a history notices.
    pub broken: Option<BrokenRule>,
    /// Says what happens.
    pub verbose: bool,
}

/// Runs the history of this seed.
///
/// # Panics
/// When a promise was broken. The message says which; the same seed breaks it again.
pub fn run(seed: u64, options: HistoryOptions) -> Report {
    let mut random = Random::new(seed ^ 0x6869_7374_6f72_7921);
    let mut plan = Plan::draw(&mut random);
    if options.broken.is_some() {
        // Tags would notice before the checks that are tried.
        plan.lives.iter_mut().for_each(|life| life.encryption = None);
    }
    if options.verbose {
        println!("{plan:#?}");
    }
    let sim = Sim::new(seed, plan.sim);
    let disks: Vec<SimDisk> = (0..plan.disks).map(|_| sim.disk(plan.disk)).collect();
    let saved = vec![Vec::new(); plan.disks];
    let shared = Rc::new(Shared::new(plan.keys, plan.large, plan.tolerance, plan.victims.clone()));
    let index = IndexFile::new(random.fork());
    if let Some(rule) = options.broken {
        rule.break_it(&disks, &index);
    }
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
        self.disks.iter().for_each(|disk| self.report.injected.add(&disk.counts().injected));
        self.report.scope.histories = 1;
        self.report.scope.bytes_checked = self.shared.bytes_checked.get();
        self.report.scope.operations = self.shared.record.borrow().count() as u64;
    }

    fn live(&mut self, plan: &LifePlan) {
        // The life before may have ended in the middle of its accidents.
        self.disks.iter().for_each(fates::heal);
        let mut plan = plan.clone();
        if self.shared.turned.get() {
            plan.turn();
        }
        plan.misfortunes.retain(|one| self.shared.is_victim(one.disk));
        // Whoever makes a node on broken disks sees it at once.
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
        self.shared.ordering.set(true);
        self.shared.reclaimed.set(0);
        let life = self.sim.start(plan.cores);
        let main = self.begin(&life, plan);
        let mut cutter = Cutter::new(plan.cut, &self.disks);
        life.run_while(|| !main.is_done() && !cutter.cuts(life.steps(), &self.shared));
        let ended = main.take();
        drop(main);
        self.report.scope.lives += 1;
        self.report.scope.steps += life.steps();
        let (cut, serving, reclaimed) = (ended.is_none(), self.shared.serving.get(), self.shared.reclaimed.get());
        self.shared.reach(|reached| {
            reached.crashes += u64::from(cut);
            reached.crashes_at_start += u64::from(cut && !serving);
            reached.crashes_in_reclaim += u64::from(cut && reclaimed > 0);
        });
        if self.options.verbose {
            let how = if ended.is_some() { "ended" } else { "was cut" };
            println!("life {} {how} after {} steps: {:?}", self.report.scope.lives, life.steps(), plan.end);
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
        self.shared.life_ends();
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
            lost: self.shared.replaced.borrow().clone(),
            profile: self.plan.profile,
            extent_bytes: self.plan.extent_bytes,
            index: self.index.clone(),
            limits: self.plan.limits,
            line: line.clone(),
            encryption: plan.encryption,
            random: self.random.fork(),
        };
        let town = Town {
            index: self.index.clone(),
            shared: Rc::clone(&self.shared),
            disks: self.disks.clone(),
            line,
            known: Rc::clone(&self.known),
            profile: self.plan.profile,
            plan: plan.clone(),
            random: self.random.fork(),
        };
        let core = u16::try_from(self.random.index(usize::from(plan.cores))).expect("a few cores");
        life.spawn(core, |world| async move {
            match parts.boot().await {
                Ok(running) => {
                    town.shared.settled.set(true);
                    town.shared.reach(|reached| {
                        running.start.count(reached);
                        reached.encrypting += u64::from(town.plan.encryption.is_some_and(|plan| plan.encrypts));
                    });
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
