//! Blobs that are overwritten on a small disk, until all of it was used and room comes only from what is given back; at the
//! end all are given up.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anvil_model::ids::BlobId;
use anvil_model::io::World as _;
use anvil_runtime::Core;
use anvil_store::{ReclaimOptions, Store};

use super::bench::{Bench, free_bytes, had_room, space};
use super::plan::Operation;
use super::report::{Emptied, Figures, Measured, Reclaim};
use crate::load::Random;

/// What the disk may grow to: so little that it is used up within a run, and enough for extents of several windows.
pub(super) const CAPACITY_BYTES_MAX: u64 = 512 << 20;
/// How long a write that found no room waits before it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// How often the end of reclaim is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Blobs whose end is taken note of at once.
const GONE_AT_ONCE: usize = 16;

/// Blobs that nobody has given up.
struct Live {
    blobs: Vec<BlobId>,
    random: Random,
}

impl Bench {
    pub(super) async fn reclaim(&self) -> anyhow::Result<()> {
        let store = self.begin().await?;
        store.start_reclaim(ReclaimOptions::default());
        let live = RefCell::new(Live { blobs: Vec::new(), random: Random::new(2) });
        let capacity = self.capacity_bytes();
        let last = self.end_of(Operation::Reclaim);

        self.say("filling half of a small disk");
        let end = Self::end_of_step(last, 4);
        let filled = self.write(&store, end, &live, || free_bytes(&store) > capacity / 2).await?;
        let blob_bytes = store.stats().disks[0].appended_bytes / filled.operations.max(1);
        let until = |bytes: u64| move |begun: u64| begun * blob_bytes < bytes;

        self.say("overwriting until it is used up");
        let end = Self::end_of_step(last, 3);
        let settled = self.overwrite(&store, end, &live, until(capacity / 2)).await?;
        let used_up = settled.operations * blob_bytes >= capacity / 2;

        self.say("overwriting");
        let end = Self::end_of_step(last, 2);
        let before = store.stats().disks.remove(0);
        let measured = self.overwrite(&store, end, &live, until(capacity)).await?;
        let after = store.stats().disks.remove(0);

        self.say("waiting for the space of all blobs");
        let emptied = self.give_up(&store, live.into_inner().blobs, last).await?;
        let written_bytes = after.appended_bytes - before.appended_bytes;
        let payload_bytes = measured.operations * self.work.size;
        let reclaimed = |stats: anvil_store::DiskStats| stats.space.unwrap_or_default().reclaimed;
        let (before, after) = (reclaimed(before), reclaimed(after));
        let freed_bytes = (after.extents - before.extents) * self.extent_bytes();
        self.seen(Figures::Reclaim(Reclaim {
            capacity_bytes: capacity,
            used_up,
            measured,
            payload_bytes,
            written_bytes,
            write_amplification: written_bytes as f64 / payload_bytes.max(1) as f64,
            moved_bytes: after.moved_bytes - before.moved_bytes,
            freed_bytes,
            freed_bytes_per_second: freed_bytes as f64 / measured.seconds,
            emptied,
        }));
        store.close().await;
        Ok(())
    }

    /// Appends blobs and keeps them.
    async fn write(
        &self,
        store: &Store<Core>,
        end: Instant,
        live: &RefCell<Live>,
        goes_on: impl Fn() -> bool,
    ) -> anyhow::Result<Measured> {
        let goes_on = |_| Instant::now() < end && goes_on();
        self.repeat(self.in_flight(), goes_on, async || {
            let Some(blob) = self.append_patiently(store, end).await? else { return Ok(false) };
            live.borrow_mut().blobs.push(blob);
            Ok(true)
        })
        .await
    }

    /// Appends blobs, and gives up another one for each.
    async fn overwrite(
        &self,
        store: &Store<Core>,
        end: Instant,
        live: &RefCell<Live>,
        goes_on: impl Fn(u64) -> bool,
    ) -> anyhow::Result<Measured> {
        let goes_on = |begun| Instant::now() < end && goes_on(begun);
        self.repeat(self.in_flight(), goes_on, async || {
            let Some(blob) = self.append_patiently(store, end).await? else { return Ok(false) };
            let Live { blobs, random } = &mut *live.borrow_mut();
            blobs.push(blob);
            let other = random.below(blobs.len() as u64);
            store.release(blobs.swap_remove(other as usize));
            drop(store.gone(GONE_AT_ONCE));
            Ok(true)
        })
        .await
    }

    /// Asks for room again and again, as a client does; `None` when its time is over.
    async fn append_patiently(&self, store: &Store<Core>, end: Instant) -> anyhow::Result<Option<BlobId>> {
        let blob = store.new_blob();
        while !had_room(self.append(store, blob).await)? {
            self.check()?;
            if Instant::now() >= end {
                // Windows of it may be there.
                store.release(blob);
                return Ok(None);
            }
            self.core.sleep(ASK_AGAIN).await;
        }
        Ok(Some(blob))
    }

    /// Gives all blobs up and waits until no extent but those that are open is in use, or the time is over.
    async fn give_up(&self, store: &Store<Core>, blobs: Vec<BlobId>, end: Instant) -> anyhow::Result<Emptied> {
        let before = space(store)?;
        let began = Instant::now();
        blobs.into_iter().for_each(|blob| store.release(blob));
        let mut after = space(store)?;
        while after.sealed_extents > 0 && Instant::now() < end {
            self.check()?;
            self.core.sleep(LOOK_EVERY).await;
            after = space(store)?;
        }
        let seconds = began.elapsed().as_secs_f64();
        let bytes = before.used_bytes.saturating_sub(after.used_bytes);
        let bytes_per_second = bytes as f64 / seconds;
        Ok(Emptied { seconds, bytes, bytes_per_second, used_bytes_after: after.used_bytes })
    }
}
