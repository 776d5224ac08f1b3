//! A life: those who use a node, and those who make it hard.

use std::rc::Rc;
use std::time::Duration;

use anvil_model::io::{Task, World};
use anvil_model::profile::Profile;
use anvil_store::{Chore, ReclaimOptions};
use futures_util::future::join_all;

use super::boot::{Known, Running};
use super::client::Client;
use super::fates::Order;
use super::plan::{Cut, LifePlan};
use super::shared::Shared;
use super::{fates, rot};
use crate::disk::{Faults, SimDisk};
use crate::index::IndexFile;
use crate::lossy::Line;
use crate::random::Random;
use crate::world::{SimTask, SimWorld};

/// With fewer disks a write with parity is refused.
const DISKS_TO_WRITE_MIN: usize = 2;
/// How soon a life that is cut in reclaim notices that it runs.
const RECLAIM_LOOKED_AT_EVERY: Duration = Duration::from_millis(5);

/// Those who use a node in one life, and those who make it hard.
pub(super) struct Town {
    pub(super) index: IndexFile,
    pub(super) shared: Rc<Shared>,
    pub(super) disks: Vec<SimDisk>,
    pub(super) line: Line,
    /// The ids of the disks, by number.
    pub(super) known: Known,
    pub(super) profile: Profile,
    pub(super) plan: LifePlan,
    pub(super) random: Random,
}

impl Town {
    pub(super) async fn live(mut self, world: SimWorld, mut running: Running) {
        running.stores.iter().for_each(|store| store.start_reclaim(ReclaimOptions::default()));
        if let Some(options) = self.plan.scrub {
            running.stores.iter().for_each(|store| store.start_scrub(options, &Chore::default()));
        }
        let mut upkeep = self.plan.upkeep.map(|plan| running.keep(plan));
        if let Some(candidates) = self.plan.turns.take() {
            self.turn(&world, &mut running, &candidates).await;
        }
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
        self.shared.ordering.set(false);
        running.put_online();
        self.client(&running).verify().await;
        let victims = self.shared.victims();
        if self.shared.tolerance.get().full && victims.is_empty() {
            self.client(&running).make_room().await;
        }
        let sound = running.present().iter().filter(|number| !victims.contains(number)).count();
        // One that has room and takes nothing is chosen again and again: it is neither full nor broken.
        let stingy =
            self.plan.misfortunes.iter().any(|one| one.during.is_some_and(|during| during.trouble.takes_nothing()));
        if !victims.is_empty() && !stingy && sound >= DISKS_TO_WRITE_MIN {
            self.client(&running).goes_on().await;
        }
        self.account(&running).await;
        let tolerance = self.shared.tolerance.get();
        // What cannot be read, or was torn by a write that failed, is damaged too.
        if !tolerance.damage && !tolerance.reads_fail {
            let sound: Vec<usize> = (0..self.disks.len()).filter(|disk| !self.shared.has_suffered(*disk)).collect();
            running.is_whole(&self.index, &sound).unwrap_or_else(|problem| panic!("{problem}"));
            if self.plan.loses_more && self.profile.parity > 0 {
                let lost = self.give_up(&world, &running, &victims).await;
                drop(upkeep.take());
                self.lose_more(&running, lost).await;
            }
        }
        if self.plan.rot {
            let client = self.client(&running);
            rot::plant(client, &running, &self.index, &self.disks).await;
        }
        self.shared.reach(|reached| running.count(reached));
        drop((upkeep, accidents, running.refill.take()));
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
            Some(missing) => {
                let accounted = missing <= self.shared.lost_max() || tolerance.damage;
                assert!(accounted, "{missing} blobs that objects need are missing");
            }
            None => assert!(tolerance.writes_fail || tolerance.full, "a healthy node takes no changes"),
        }
    }

    pub(super) fn client(&mut self, running: &Running) -> Client {
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
        for order in &self.plan.orders {
            tasks.push(world.clone().spawn(self.carry_out(*order, world.clone(), running)));
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

    /// An administrator takes a disk out of use, and takes it in again.
    fn carry_out(&self, order: Order, world: SimWorld, running: &Running) -> impl Future<Output = ()> + use<> {
        let (shared, stores, profile) = (Rc::clone(&self.shared), running.stores.clone(), self.profile);
        let disk = running.id(order.disk);
        async move {
            world.sleep(order.after).await;
            // Beside those that suffer no more may be out of use than the profile bears.
            let bearable = shared.is_victim(order.disk) || shared.victims().len() < usize::from(profile.parity);
            let Some(disk) = disk.filter(|_| bearable && shared.ordering.get()) else { return };
            stores.iter().for_each(|store| store.set_offline(disk));
            shared.suffer(|counts| counts.offline += 1);
            world.sleep(order.until.saturating_sub(order.after)).await;
            // One that failed stays as it is.
            let failed = stores.iter().filter(|store| store.set_online(disk).is_err()).count();
            shared.suffer(|counts| counts.online += u64::from(failed == 0));
        }
    }
}
