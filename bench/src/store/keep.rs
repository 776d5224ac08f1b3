//! Blobs that are appended, found again as a start does, and read.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use anvil_model::format::{UNIT_BYTES, extent_offset};
use anvil_model::io::{Device as _, Reserve, World as _};
use anvil_runtime::Core;
use anvil_store::{RecoveryReport, Store};
use anyhow::ensure;

use super::bench::{Bench, free_bytes, had_room, space};
use super::plan::Operation;
use super::report::{Appended, Figures, Read, Recovery};
use crate::load::Random;

/// Reads in flight.
const READS_IN_FLIGHT: [usize; 2] = [1, 32];

impl Bench {
    pub(super) async fn keep(&self) -> anyhow::Result<()> {
        let before = resident_bytes();
        let mut store = self.begin().await?;
        let whole = self.append_all(&store).await?;
        if self.work.plan.has(Operation::Recover) {
            let bytes = space(&store)?.prepared_bytes;
            store.close().await;
            drop(store);
            store = self.recover_twice(bytes, before).await?;
        }
        if self.work.plan.has(Operation::Read) {
            self.read_any(&store, whole).await?;
        }
        store.close().await;
        Ok(())
    }

    /// As many as were asked for, or as its time and three quarters of the disk allow. Gives how many of the first ones are
    /// whole, one behind the other.
    async fn append_all(&self, store: &Store<Core>) -> anyhow::Result<u64> {
        self.say("appending");
        let end = self.end_of(Operation::Append);
        let floor = free_bytes(store) / 4;
        let goes_on = |begun| begun < self.work.records && Instant::now() < end && free_bytes(store) > floor;
        let whole = Cell::new(u64::MAX);
        let measured = self.repeat(self.in_flight(), goes_on, async || {
            let blob = store.new_blob();
            let had_room = had_room(self.append(store, blob).await)?;
            if !had_room {
                whole.set(whole.get().min(blob.sequence));
            }
            Ok(had_room)
        });
        let measured = measured.await?;
        let records = measured.operations;
        let whole = whole.get().min(records);
        ensure!(whole > 0, "the disk has no room for a blob: see --capacity");
        let bytes = space(store)?.used_bytes;
        let bytes_per_record = bytes as f64 / records as f64;
        self.seen(Figures::Appended(Appended { records, measured, bytes, bytes_per_record }));
        Ok(whole)
    }

    /// As after a clean stop, then with every footer destroyed; gives the store of the second start.
    async fn recover_twice(&self, bytes: u64, before: u64) -> anyhow::Result<Store<Core>> {
        let (store, found) = self.start("footers", before).await?;
        store.close().await;
        drop(store);
        let extents = u32::try_from((bytes - extent_offset(0, 0)) / self.extent_bytes())?;
        self.destroy_footers(extents).await?;
        let (store, scanned) = self.start("a full scan", before).await?;
        ensure!(scanned == found, "the scan finds other records");
        Ok(store)
    }

    /// Starts as a node does, and tells what that took; how many records it found.
    async fn start(&self, from: &'static str, before: u64) -> anyhow::Result<(Store<Core>, u64)> {
        self.say(format!("recovering from {from}"));
        let (recovered, took) = self.recover().await?;
        let RecoveryReport { extents, extents_scanned, scanned_bytes, records, .. } = recovered.report.clone();
        let store = self.open(recovered);
        let stats = store.stats();
        self.seen(Figures::Recovered(Recovery {
            from,
            seconds: took.as_secs_f64(),
            records,
            extents,
            extents_scanned,
            scanned_bytes,
            index_entries: stats.index_entries,
            index_bytes: stats.index_bytes,
            grown_bytes: resident_bytes().saturating_sub(before),
        }));
        Ok((store, records))
    }

    /// Without its last unit a footer is none.
    async fn destroy_footers(&self, extents: u32) -> anyhow::Result<()> {
        let extent_bytes = self.extent_bytes();
        let bytes = u32::try_from(extent_bytes)?;
        for extent in 0..extents {
            let mut buffer = self.core.buffer(Reserve::Foreground).await;
            buffer[..UNIT_BYTES].fill(0);
            let at = extent_offset(extent, bytes) + extent_bytes - UNIT_BYTES as u64;
            self.device.write(at, buffer, 0..UNIT_BYTES).await.0?;
        }
        Ok(self.device.flush().await?)
    }

    /// Reads whole blobs among the first `count`, any of them.
    async fn read_any(&self, store: &Store<Core>, count: u64) -> anyhow::Result<()> {
        let random = RefCell::new(Random::new(1));
        let last = self.end_of(Operation::Read);
        for (step, in_flight) in READS_IN_FLIGHT.into_iter().enumerate() {
            self.say(format!("reading, {in_flight} in flight"));
            let end = Self::end_of_step(last, READS_IN_FLIGHT.len() - step);
            let goes_on = |begun| begun < self.work.records && Instant::now() < end;
            let measured = self.repeat(in_flight, goes_on, async || {
                let blob = Self::blob(random.borrow_mut().below(count));
                let mut offset = 0;
                while offset < self.work.size {
                    offset += store.read(blob, offset..self.work.size).await?.range.len() as u64;
                }
                Ok(true)
            });
            self.seen(Figures::Read(Read { in_flight, measured: measured.await? }));
        }
        Ok(())
    }
}

/// 0 when the kernel does not say.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096
}
