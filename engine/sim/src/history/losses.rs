//! Losses on top of losses: what suffered is given up, what it held is made again elsewhere, and then other disks are lost. What
//! can be read from the disks that are left must be read from them, also through shards that nothing else ever asks for.

use std::collections::BTreeSet;
use std::time::Duration;

use anvil_model::ids::DiskId;
use anvil_model::io::World;
use anvil_node::metadata::MetadataError;
use anvil_node::metadata::mutation::{Change, LostShard};
use anvil_node::metadata::rows::{BlobRow, BlobState, Rows};
use anvil_store::DiskState;

use super::answers::Tolerance;
use super::boot::Running;
use super::fates::Misfortune;
use super::town::Town;
use crate::disk::Saved;
use crate::index::IndexFile;
use crate::world::SimWorld;

/// How long a node may take to make again what was on disks that were given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Reports of damage that are kept back.
const REPORTS_MAX: usize = 8;

impl Town {
    /// Gives up these disks for good and waits until nothing lies on them any more, as far as there are others. Gives their
    /// ids.
    pub(super) async fn give_up(&mut self, world: &SimWorld, running: &Running, disks: &[usize]) -> BTreeSet<DiskId> {
        let mut lost: BTreeSet<DiskId> =
            disks.iter().filter_map(|disk| self.known.borrow().get(disk).copied()).collect();
        lost.extend(self.shared.replaced.borrow().iter());
        self.shared.suffer(|counts| counts.given_up += disks.len() as u64);
        let reports = reports(&self.index, &lost);
        running.put_offline(&lost);
        running.lost.set(lost.clone());
        let began = world.now();
        while self.plan.upkeep.is_some() {
            let due = self.is_due(running, &lost);
            let unlike = self.unlike(running, &lost).await;
            if !due && unlike.is_none() {
                break;
            }
            let waited = world.now().since(began);
            assert!(waited < PATIENCE || !due, "what was on lost disks is not made again: {:?}", live(&self.index));
            assert!(waited < PATIENCE, "rows and records of shards do not agree: {unlike:?}");
            world.sleep(Duration::from_millis(50)).await;
        }
        if disks.is_empty() {
            return lost;
        }
        if live(&self.index).iter().all(|row| row.places.iter().all(|place| !lost.contains(place))) {
            self.shared.reach(|reached| reached.emptied += 1);
        }
        self.tell_late(running, reports).await;
        lost
    }

    /// Whether something is left that can be made again: a disk that has no shard of the blob takes writes.
    fn is_due(&self, running: &Running, lost: &BTreeSet<DiskId>) -> bool {
        let views = running.stores.iter().map(|store| store.disks());
        let online = views.map(|views| {
            let online = views.into_iter().filter(|view| view.state == DiskState::Online);
            online.map(|view| view.id).filter(|id| !lost.contains(id)).collect::<BTreeSet<_>>()
        });
        // A disk may have failed on one core and not yet on another.
        let online = online.reduce(|all, of_core| &all & &of_core).expect("there is a core");
        let is_lost = |place: &DiskId| *place == DiskId::NONE || lost.contains(place);
        live(&self.index).iter().any(|row| {
            // A narrow blob has places behind those of its shards, for which there may be too few disks.
            let places = &row.places[..row.profile.shards().into()];
            // What a crash tore before anybody was told of it may have had its last shards there.
            let left = places.iter().filter(|place| !is_lost(place)).count();
            let is_short = (usize::from(row.profile.data)..places.len()).contains(&left);
            is_short && online.iter().any(|disk| !row.places.contains(disk))
        })
    }

    /// A blob whose records are not on the disks that its row names, as far as these are here.
    async fn unlike(&self, running: &Running, lost: &BTreeSet<DiskId>) -> Option<(BlobRow, Vec<Option<DiskId>>)> {
        let here: BTreeSet<DiskId> = running.present().into_iter().filter_map(|number| running.id(number)).collect();
        for row in live(&self.index) {
            let found = running.found(&row).await;
            let is_unlike = |(place, found): (&DiskId, &Option<DiskId>)| {
                *place != DiskId::NONE && here.contains(place) && !lost.contains(place) && found.is_none()
            };
            if row.places.iter().zip(&found).any(is_unlike) {
                // It may have been moved or given up while it was looked for.
                let now = self.index.rows().blob(row.blob).expect("rows in maps can always be had");
                if now.as_ref() == Some(&row) {
                    return Some((row, found));
                }
            }
        }
        None
    }

    /// Reports of damage arrive when the shards are elsewhere: nobody may believe them.
    async fn tell_late(&mut self, running: &Running, reports: Vec<LostShard>) {
        for report in reports {
            let LostShard { blob, shard, disk: seen, .. } = report;
            let moved = || {
                let row = self.index.rows().blob(blob).expect("rows in maps can always be had");
                let row = row.filter(|row| row.state == BlobState::Live)?;
                Some(row.places[usize::from(shard)]).filter(|now| *now != seen && *now != DiskId::NONE)
            };
            let Some(now) = moved() else { continue };
            let core = self.random.index(running.metadata.len());
            match running.metadata[core].commit(Change::LoseShard(report)).await {
                Ok(_) => {
                    panic!("shard {shard} of {blob} was made again on {now}, and is given up as damaged on {seen}")
                }
                Err(MetadataError::Refused(_)) => self.shared.reach(|reached| reached.late_reports += 1),
                Err(_) => {}
            }
        }
    }

    /// Loses what was given up, and as many others as the blobs bear: all must be read. Then one more: what cannot be read is
    /// named.
    pub(super) async fn lose_more(&mut self, running: &Running, given_up: BTreeSet<DiskId>) {
        // A write that its client went away from may still run.
        let before = self.shared.tolerance.get();
        self.shared.tolerance.set(Tolerance { writes_fail: true, ..before });
        let mut order = running.present();
        (1..order.len()).rev().for_each(|last| order.swap(last, self.random.index(last + 1)));
        let mut lost = given_up;
        let mut one_more = None;
        let mut count = 0;
        for number in order {
            let Some(id) = running.id(number) else { continue };
            if lost.contains(&id) {
                self.disks[number].set_gone(true);
                continue;
            }
            let mut more = lost.clone();
            more.insert(id);
            if count < self.profile.parity && bear(running, &self.index, &more).await {
                lost = more;
                count += 1;
                self.disks[number].set_gone(true);
            } else {
                one_more = Some(number);
            }
        }
        self.shared.suffer(|counts| counts.lost_later += u64::from(count));
        if !lost.is_empty() {
            let read = self.client(running).verify().await;
            self.shared.reach(|reached| reached.read_after_more += read);
        }
        if let Some(number) = one_more {
            self.disks[number].set_gone(true);
            let named = self.client(running).read_what_is_left().await;
            self.shared.reach(|reached| reached.named_losses += named);
        }
        self.disks.iter().for_each(|disk| disk.set_gone(false));
        self.shared.tolerance.set(before);
    }

    /// The victims, which are away in this life, are given up. When all that they held was made again as far as it matters,
    /// others suffer from now on, and blank disks take the places of the first ones at the next start.
    pub(super) async fn turn(&mut self, world: &SimWorld, running: &mut Running, candidates: &[usize]) {
        let former = self.shared.victims();
        let copies = usize::from(self.profile.parity) + 1;
        let present = running.present();
        if former.iter().any(|number| present.contains(number)) || present.len() < copies {
            return;
        }
        let refilled = running.log_is_refilled().await;
        self.shared.reach(|reached| reached.log_refilled += u64::from(refilled > 0));
        let mut lost = self.give_up(world, running, &former).await;
        let mut victims = Vec::new();
        for &candidate in candidates {
            let Some(id) = running.id(candidate) else { continue };
            let mut more = lost.clone();
            more.insert(id);
            if victims.len() < usize::from(self.profile.parity) && bear(running, &self.index, &more).await {
                lost = more;
                victims.push(candidate);
            }
        }
        if victims.is_empty() {
            return;
        }
        for number in former {
            self.disks[number].restore(&Saved::default());
            self.shared.replaced.borrow_mut().extend(self.known.borrow_mut().remove(&number));
            self.shared.suffer(|counts| counts.replaced += 1);
        }
        self.shared.set_victims(victims);
        self.shared.turned.set(true);
        self.shared.reach(|reached| reached.turned += 1);
        self.plan.turn();
        let misfortunes = std::mem::take(&mut self.plan.misfortunes).into_iter();
        let shared = &self.shared;
        let of_victims = misfortunes.filter(|one| shared.is_victim(one.disk));
        self.plan.misfortunes = of_victims.filter_map(Misfortune::left_of_it).collect();
    }
}

fn live(index: &IndexFile) -> Vec<BlobRow> {
    let rows = index.rows().blobs(None, usize::MAX).expect("rows in maps can always be had");
    rows.into_iter().filter(|row| row.state == BlobState::Live).collect()
}

fn reports(index: &IndexFile, lost: &BTreeSet<DiskId>) -> Vec<LostShard> {
    let rows = live(index);
    let shards = rows.iter().flat_map(|&BlobRow { blob, profile, ref places, .. }| {
        (0..).zip(places).map(move |(shard, &disk)| LostShard { blob, profile, shard, disk })
    });
    shards.filter(|shard| lost.contains(&shard.disk)).take(REPORTS_MAX).collect()
}

/// Whether every object can be read without these disks. What a crash tore counts as lost, though its row may name a place
/// until repair has noticed.
async fn bear(running: &Running, index: &IndexFile, lost: &BTreeSet<DiskId>) -> bool {
    for row in live(index) {
        let found = running.found(&row).await;
        if found.iter().flatten().filter(|disk| !lost.contains(disk)).count() < usize::from(row.profile.data) {
            return false;
        }
    }
    true
}
