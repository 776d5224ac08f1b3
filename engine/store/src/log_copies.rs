//! Every batch of the metadata log stays on as many disks as it should be, also when disks of the log fail, are given up or
//! come back while the node runs.
//!
//! The log's writer sees to the batches that it writes. Those before them stay where they were written; so when the disks that
//! work are others than before, the log is read again as a start reads it, and what has too few copies gets more.

use std::collections::BTreeSet;
use std::time::Duration;

use anvil_model::format::{ExtentName, Subject};
use anvil_model::ids::DiskId;
use anvil_model::io::{DeviceError, World};
use tokio::sync::oneshot;

use crate::account::AccountStage;
use crate::index::Place;
use crate::log::{LogEntry, RecoveredLog, start_of};
use crate::mail::Message;
use crate::scan::Examined;
use crate::store::{Inner, Store};

/// The disks are looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// They must have been the same for so long: several may fail or come back one after the other.
const QUIET: Duration = Duration::from_secs(30);

impl<W: World> Store<W> {
    /// Copies what has fewer than so many copies, now and whenever other disks work than before, until it is dropped. `log`
    /// is what recovery found; `lost` says which disks were given up. On the core of the log's writer, in the background.
    pub async fn keep_log_copies(&self, log: RecoveredLog<W>, copies: usize, lost: impl Fn() -> BTreeSet<DiskId>) {
        let mut seen = self.sound(&lost());
        tell(log.refill(self, copies).await);
        loop {
            self.inner.world.sleep(LOOK_EVERY).await;
            let sound = self.sound(&lost());
            if sound == seen {
                continue;
            }
            self.inner.world.sleep(QUIET).await;
            if self.sound(&lost()) != sound {
                continue;
            }
            match self.refill_log(copies, &sound).await {
                Ok(batches) => {
                    tell(batches);
                    seen = sound;
                }
                Err(error) => tracing::warn!(%error, "the metadata log cannot be read to copy it"),
            }
        }
    }

    /// Copies the batches that are on fewer of these disks than they should be to others of them. Says how many.
    ///
    /// # Errors
    /// When one of the disks cannot be read.
    pub async fn refill_log(&self, copies: usize, disks: &BTreeSet<DiskId>) -> Result<u64, DeviceError> {
        let inner = &self.inner;
        let mut entries = Vec::new();
        for &disk in disks {
            inner.read_log_of(inner.find_disk(disk)?, &mut entries).await?;
        }
        let all = || (0..inner.disk_count()).map(|disk| inner.disk(disk));
        let devices = all().map(|disk| (disk.id, disk.device.clone())).collect();
        let extent_bytes = all().map(|disk| disk.extent_bytes).collect();
        let last = entries.iter().map(|entry| entry.number).max().unwrap_or(0);
        let sequence = inner.log_sequence.get();
        let log = RecoveredLog::new(inner.world.clone(), devices, extent_bytes, entries, sequence, start_of(last));
        Ok(log.refill(self, copies).await)
    }

    /// The disks that take writes and were not given up.
    fn sound(&self, lost: &BTreeSet<DiskId>) -> BTreeSet<DiskId> {
        let disks = (0..self.inner.disk_count()).map(|disk| self.inner.disk(disk));
        let sound = disks.filter(|disk| disk.failed.get().is_none() && !lost.contains(&disk.id));
        sound.map(|disk| disk.id).collect()
    }
}

impl<W: World> Inner<W> {
    /// The extents of the metadata log on a disk whose home is here, with their incarnations.
    pub(crate) fn log_extents(&self, disk: u16) -> Vec<(u32, u64)> {
        let space = self.space(disk).borrow();
        let of_log = space.accounts.extents.iter().filter(|(_, account)| account.stage == AccountStage::Log);
        of_log.map(|(extent, account)| (*extent, account.incarnation)).collect()
    }

    async fn read_log_of(&self, disk: u16, entries: &mut Vec<LogEntry>) -> Result<(), DeviceError> {
        let home = self.disk_home(disk);
        let extents = if home == self.core {
            self.log_extents(disk)
        } else {
            let (reply, extents) = oneshot::channel();
            let message = Message::LogExtents { disk, reply };
            self.addresses[usize::from(home.0)].send(message).await.map_err(|_| DeviceError::Gone)?;
            extents.await.map_err(|_| DeviceError::Gone)?
        };
        for (extent, incarnation) in extents {
            let name = ExtentName { disk: self.disk(disk).id, extent, incarnation };
            let Examined::Used(found) = self.examine_extent(disk, name).await? else { continue };
            if found.header.name != name {
                continue;
            }
            for entry in found.entries {
                if let Subject::Log { number, sequence } = entry.subject {
                    let place = Place::of(disk, extent, &entry);
                    entries.push(LogEntry { number, sequence, incarnation, place, whole: !entry.damaged });
                }
            }
        }
        Ok(())
    }
}

fn tell(batches: u64) {
    if batches > 0 {
        tracing::info!(batches, "copied batches of the metadata log that were on too few disks");
    }
}
