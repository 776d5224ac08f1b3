//! Blobs that are made durable one by one, by many writers at once, who share their flushes.

use std::time::Instant;

use anvil_runtime::Core;
use anvil_store::Store;
use anyhow::Context;

use super::bench::{Bench, DISK, free_bytes, had_room, space};
use super::plan::Operation;
use super::report::{Figures, GroupCommit};

const WRITERS: [usize; 3] = [1, 16, 256];
/// Of the disk, what all writers have in flight takes at most this part.
const IN_FLIGHT_SHARE: u64 = 8;
/// Of the time of a number of writers, what goes by before anything counts: the first extents are made then.
const WARM_UP_SHARE: u32 = 10;

impl Bench {
    pub(super) async fn group_commit(&self) -> anyhow::Result<()> {
        let store = self.begin().await?;
        let last = self.end_of(Operation::GroupCommit);
        let most = self.capacity_bytes() / IN_FLIGHT_SHARE / self.work.size;
        let steps: Vec<_> = WRITERS.into_iter().filter(|&writers| writers as u64 <= most).collect();
        for (step, &writers) in steps.iter().enumerate() {
            let steps_left = steps.len() - step;
            self.say(format!("committing, {writers} at once"));
            let end = Self::end_of_step(last, steps_left);
            // The others need room too, and what is in flight has some behind them.
            let floor = free_bytes(&store) / (steps_left as u64 + 1) * steps_left as u64;
            self.commit(&store, writers, end, floor).await?;
        }
        store.close().await;
        Ok(())
    }

    async fn commit(&self, store: &Store<Core>, writers: usize, end: Instant, floor: u64) -> anyhow::Result<()> {
        let durable = async || {
            let had_room = had_room(self.append(store, store.new_blob()).await)?;
            if had_room {
                store.flush(&[DISK]).await.context("cannot flush")?;
            }
            Ok(had_room)
        };
        let now = Instant::now();
        let warm = now + end.saturating_duration_since(now) / WARM_UP_SHARE;
        let has_room = || free_bytes(store) > floor;
        let warm_up = self.work.records / u64::from(WARM_UP_SHARE);
        self.repeat(writers, |begun| begun < warm_up && Instant::now() < warm && has_room(), durable).await?;
        let before = space(store)?;
        let goes_on = |begun| begun < self.work.records && Instant::now() < end && has_room();
        let measured = self.repeat(writers, goes_on, durable).await?;
        let after = space(store)?;
        let flushes = after.flushes - before.flushes;
        let per_flush = (after.flush_requests - before.flush_requests) as f64 / flushes.max(1) as f64;
        self.seen(Figures::GroupCommit(GroupCommit { writers, measured, flushes, per_flush }));
        Ok(())
    }
}
