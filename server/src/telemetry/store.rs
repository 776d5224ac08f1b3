//! What the store knows of itself, as samples. Its figures live on its cores; each core publishes a copy now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use anvil_model::ids::DiskId;
use anvil_model::io::{DeviceError, World};
use anvil_model::time::WallTime;
use anvil_node::Node;
use anvil_node::hedge::DiskReads;
use anvil_store::{DiskSpace, DiskStats, Stats, Store};

use super::metrics::{Metrics, Sample, SampleKind, float};
use crate::disk_control::{DiskReport, DiskState};
use crate::disks::MissingDisk;

/// How old the figures on the page may be.
const PUBLISHED_EVERY: Duration = Duration::from_secs(1);

/// The latest figures of each core's share of the store.
#[derive(Debug)]
pub struct StoreFigures {
    cores: Vec<Mutex<Stats>>,
    /// What each core read for clients, and from which disk.
    reads: Vec<Mutex<Reads>>,
    /// Nothing until it is known which is which.
    names: Mutex<DiskNames>,
}

/// What the node knows of its disks.
#[derive(Clone, Debug, Default)]
pub struct DiskNames {
    /// What the operator calls those that are there.
    pub here: Vec<(DiskId, String)>,
    /// Those that are not there.
    pub missing: Vec<MissingDisk>,
    /// Those that were given up.
    pub lost: Vec<MissingDisk>,
    /// Those that were given up in this life, and that nothing is to be made again of: nobody hears of them any more.
    pub forgotten: BTreeSet<DiskId>,
}

/// What a core read for clients.
#[derive(Clone, Debug, Default)]
struct Reads {
    disks: Vec<(DiskId, DiskReads)>,
    decoded_bytes: u64,
}

impl StoreFigures {
    /// Puts figures for so many cores on the page of `metrics`.
    #[must_use]
    pub fn watched_by(metrics: &Metrics, core_count: u16) -> Arc<Self> {
        let cores = (0..core_count).map(|_| Mutex::default()).collect();
        let reads = (0..core_count).map(|_| Mutex::default()).collect();
        let figures = Arc::new(Self { cores, reads, names: Mutex::default() });
        let watched = Arc::clone(&figures);
        metrics.watch(move || watched.samples());
        figures
    }

    /// Says what each disk is called on the page, until then by its id, and which are missing.
    pub fn name(&self, names: DiskNames) {
        *self.names() = names;
    }

    fn names(&self) -> MutexGuard<'_, DiskNames> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the figures of this core, for as long as the future is polled.
    pub async fn publish<W: World>(&self, world: &W, store: &Store<W>) {
        loop {
            self.set(usize::from(world.core().0), store.stats());
            world.sleep(PUBLISHED_EVERY).await;
        }
    }

    /// Publishes what this core reads for clients, for as long as the future is polled.
    pub async fn publish_reads<W: World>(&self, node: &Node<W>) {
        let core = usize::from(node.world().core().0);
        loop {
            set(&self.reads[core], Reads { disks: node.disk_reads(), decoded_bytes: node.decoded_bytes() });
            node.world().sleep(PUBLISHED_EVERY).await;
        }
    }

    fn set(&self, core: usize, stats: Stats) {
        set(&self.cores[core], stats);
    }

    fn reads(&self) -> Vec<Reads> {
        self.reads.iter().map(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// Whether a core reads this disk last, because it is much slower than the others.
    fn is_slow(&self, disk: DiskId) -> bool {
        self.reads().iter().flat_map(|reads| &reads.disks).any(|(id, reads)| *id == disk && reads.slow)
    }

    /// What the cores say of each disk, by path.
    #[must_use]
    pub fn disks(&self) -> Vec<DiskReport> {
        let cores: Vec<_> =
            self.cores.iter().map(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect();
        let report = |(disk, name): &(DiskId, String)| {
            let shares = cores.iter().flat_map(|core| &core.disks).filter(|share| share.disk == *disk);
            let space = shares.clone().find_map(|share| share.space).unwrap_or_default();
            let error = shares.clone().find_map(|share| share.failed);
            DiskReport {
                disk: *disk,
                path: name.into(),
                state: if error.is_some() { DiskState::Offline } else { DiskState::Online },
                error: error.filter(|error| *error != DeviceError::Offline).map(|error| error.to_string()),
                capacity_bytes: space.capacity_bytes,
                used_bytes: space.used_bytes,
                slow: self.is_slow(*disk),
            }
        };
        let DiskNames { here, missing, lost, .. } = self.names().clone();
        let away = |away: MissingDisk, state| DiskReport {
            disk: away.disk,
            path: away.path,
            state,
            error: None,
            capacity_bytes: 0,
            used_bytes: 0,
            slow: false,
        };
        let mut disks: Vec<_> = here.iter().map(report).collect();
        disks.extend(missing.into_iter().map(|missing| away(missing, DiskState::Missing)));
        disks.extend(lost.into_iter().map(|lost| away(lost, DiskState::Lost)));
        disks.sort_by(|a, b| a.path.cmp(&b.path));
        disks
    }

    fn samples(&self) -> Vec<Sample> {
        let cores = self.cores.iter().map(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let names = self.names().clone();
        let mut samples = samples(&cores.collect::<Vec<_>>(), &names);
        samples.extend(read_samples(&self.reads(), &names.here));
        samples.push(Sample {
            name: "disk_missing",
            help: "1 for a disk that the node knows and that is not there",
            kind: SampleKind::Gauge,
            values: names.missing.iter().map(|away| (vec![("disk", away.label())], 1.0)).collect(),
        });
        samples.push(Sample {
            name: "disk_lost",
            help: "1 for a disk that was given up, by its id, until all that it held is made again",
            kind: SampleKind::Gauge,
            values: names.lost.iter().map(|lost| (vec![("disk", lost.disk.to_string())], 1.0)).collect(),
        });
        samples
    }
}

fn samples(cores: &[Stats], names: &DiskNames) -> Vec<Sample> {
    use SampleKind::{Counter, Gauge};
    let all = cores.iter().flat_map(|core| &core.disks).map(|disk| disk.disk);
    let disks: BTreeSet<DiskId> = all.filter(|disk| !names.forgotten.contains(disk)).collect();
    let called = |id: DiskId| {
        names.here.iter().find(|(named, _)| *named == id).map_or_else(|| id.to_string(), |(_, name)| name.clone())
    };
    let per_disk = |name, help, kind, value: &dyn Fn(&[&DiskStats]) -> u64| Sample {
        name,
        help,
        kind,
        values: disks
            .iter()
            .map(|id| {
                let shares: Vec<_> =
                    cores.iter().flat_map(|core| &core.disks).filter(|disk| disk.disk == *id).collect();
                (vec![("disk", called(*id))], float(value(&shares)))
            })
            .collect(),
    };
    let sum = |name, help, read: fn(&DiskStats) -> u64| {
        per_disk(name, help, Counter, &|shares| shares.iter().map(|share| read(share)).sum())
    };
    let space = |name, help, kind, read: fn(&DiskSpace) -> u64| {
        per_disk(name, help, kind, &|shares| {
            shares.iter().filter_map(|share| share.space).map(|space| read(&space)).sum()
        })
    };
    let index_entries = cores.iter().map(|core| core.index_entries).sum();
    let index_bytes = cores.iter().map(|core| core.index_bytes).sum();
    let released_blobs = cores.iter().map(|core| core.released_blobs).sum();
    let contested_blobs = cores.iter().map(|core| core.contested_blobs).sum();
    vec![
        Sample::gauge("store_index_entries", "Entries of the index", float(index_entries)),
        Sample::gauge("store_index_bytes", "Memory of the index", float(index_bytes)),
        Sample::gauge("store_released_blobs", "Blobs that were released and still take space", float(released_blobs)),
        Sample::gauge(
            "store_contested_blobs",
            "Blobs with records at more places than they need, until their rows are asked",
            float(contested_blobs),
        ),
        sum("store_appends", "Appends that completed", |s| s.appends),
        sum("store_appended_bytes", "Bytes that appends wrote, headers and padding included", |s| s.appended_bytes),
        sum("store_append_writes", "Device writes that appends took", |s| s.writes),
        space("store_flushes", "Flushes of the device", Counter, |s| s.flushes),
        space("store_flush_requests", "Requests that these flushes served", Counter, |s| s.flush_requests),
        space("disk_capacity_bytes", "What the disk may grow to", Gauge, |s| s.capacity_bytes),
        space("disk_prepared_bytes", "Taken from the file system or device", Gauge, |s| s.prepared_bytes),
        space("disk_used_bytes", "In extents that hold records", Gauge, |s| s.used_bytes),
        space("disk_free_extents", "Prepared extents that are free", Gauge, |s| s.free_extents),
        space("disk_sealed_extents", "Extents that take no more appends", Gauge, |s| s.sealed_extents),
        space("disk_live_bytes", "Records in sealed extents that are needed", Gauge, |s| s.live_bytes),
        space("disk_dead_bytes", "Records in sealed extents that are not", Gauge, |s| s.dead_bytes),
        space("store_reclaimed_extents", "Extents that were given back", Counter, |s| s.reclaimed.extents),
        space("store_reclaim_damaged_records", "Damaged records that hold their extents back", Counter, |s| {
            s.reclaimed.damaged_records
        }),
        space("store_reclaim_moved_bytes", "Bytes moved to give their extents back", Counter, |s| {
            s.reclaimed.moved_bytes
        }),
        space("scrub_passes", "Passes of scrub that ended", Counter, |s| s.scrubbed.passes),
        space("scrub_pass_began_seconds", "When the last pass began, since 1970", Gauge, |s| {
            unix_seconds(s.scrubbed.pass_began)
        }),
        space("scrub_pass_ended_seconds", "When a pass ended last, since 1970", Gauge, |s| {
            unix_seconds(s.scrubbed.pass_ended)
        }),
        space(
            "scrub_pass_due_seconds",
            "When the next pass begins, since 1970; 0 while one is under way",
            Gauge,
            |s| unix_seconds(s.scrubbed.pass_due),
        ),
        space("scrub_next_extent", "The extent that comes next in this pass; 0 when none is under way", Gauge, |s| {
            s.scrubbed.next_extent.into()
        }),
        space("disk_extents", "Prepared extents, free ones included", Gauge, |s| s.extents),
        space("scrub_bytes", "Bytes that scrub read", Counter, |s| s.scrubbed.bytes),
        space("scrub_records", "Records that scrub found whole", Counter, |s| s.scrubbed.records),
        space("scrub_bad_records", "Damaged records that scrub or reclaim met", Counter, |s| s.scrubbed.bad_records),
        space("scrub_unclear_extents", "Extents whose footer and index do not agree", Counter, |s| {
            s.scrubbed.unclear_extents
        }),
        per_disk("disk_failed", "1 when nothing more is written to the disk", Gauge, &|shares| {
            u64::from(shares.iter().any(|share| share.failed.is_some()))
        }),
    ]
}

/// A page that is read at this very moment keeps the older figures: a core does not wait for it.
fn set<T>(slot: &Mutex<T>, value: T) {
    match slot.try_lock() {
        Ok(mut slot) => *slot = value,
        Err(TryLockError::Poisoned(slot)) => *slot.into_inner() = value,
        Err(TryLockError::WouldBlock) => {}
    }
}

fn read_samples(cores: &[Reads], names: &[(DiskId, String)]) -> Vec<Sample> {
    use SampleKind::{Counter, Gauge};
    let mut disks: BTreeMap<DiskId, DiskReads> = BTreeMap::new();
    for (disk, reads) in cores.iter().flat_map(|core| &core.disks) {
        let DiskReads { reads, hedged, outrun, slow } = *reads;
        let all = disks.entry(*disk).or_default();
        all.reads += reads;
        all.hedged += hedged;
        all.outrun += outrun;
        all.slow |= slow;
    }
    let per_disk = |name, help, kind, read: fn(&DiskReads) -> u64| {
        let value = |(disk, reads): (&DiskId, &DiskReads)| {
            let named = names.iter().find(|(id, _)| id == disk);
            let called = named.map_or_else(|| disk.to_string(), |(_, name)| name.clone());
            (vec![("disk", called)], float(read(reads)))
        };
        Sample { name, help, kind, values: disks.iter().map(value).collect() }
    };
    let decoded = float(cores.iter().map(|core| core.decoded_bytes).sum());
    vec![
        per_disk("cell_reads", "Reads of cells", Counter, |of| of.reads),
        per_disk("cell_reads_hedged", "Reads so late that others were asked for the bytes", Counter, |of| of.hedged),
        per_disk("cell_reads_outrun", "Late reads that others answered first", Counter, |of| of.outrun),
        per_disk("disk_slow", "1 when the disk is much slower than the others and read last", Gauge, |of| {
            u64::from(of.slow)
        }),
        Sample {
            kind: Counter,
            ..Sample::gauge("decoded_bytes", "Bytes made from other cells, for clients and for repairs", decoded)
        },
    ]
}

/// 0 for never.
fn unix_seconds(time: Option<WallTime>) -> u64 {
    time.map_or(0, |time| time.unix_ms / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_all_cores_are_added_up_disk_by_disk() {
        let metrics = Metrics::new(2);
        let figures = StoreFigures::watched_by(&metrics, 2);
        let away = MissingDisk { disk: DiskId(3), path: "/disks/3".into() };
        let lost = MissingDisk { disk: DiskId(4), path: "/disks/1".into() };
        let here = vec![(DiskId(1), "/disks/1".to_owned())];
        figures.name(DiskNames { here, missing: vec![away], lost: vec![lost], forgotten: [DiskId(5)].into() });
        let disk = |id, appends, space, failed| DiskStats {
            disk: DiskId(id),
            appends,
            appended_bytes: 0,
            writes: 0,
            space,
            failed,
        };
        let space = DiskSpace {
            capacity_bytes: 100,
            prepared_bytes: 50,
            used_bytes: 20,
            free_extents: 3,
            flushes: 9,
            ..DiskSpace::default()
        };
        let failed = Some(DeviceError::Gone);
        let disks = vec![disk(1, 2, Some(space), None), disk(2, 0, None, None), disk(5, 1, None, failed)];
        figures.set(0, Stats { index_entries: 5, index_bytes: 50, released_blobs: 0, contested_blobs: 0, disks });
        let disks = vec![disk(1, 3, None, None), disk(2, 0, None, failed)];
        figures.set(1, Stats { index_entries: 1, index_bytes: 10, released_blobs: 0, contested_blobs: 0, disks });
        let reads = |hedged, slow| DiskReads { reads: 10, hedged, outrun: 1, slow };
        set(&figures.reads[0], Reads { disks: vec![(DiskId(1), reads(2, false))], decoded_bytes: 5 });
        set(&figures.reads[1], Reads { disks: vec![(DiskId(1), reads(3, true))], decoded_bytes: 6 });
        let [disk, lost, away] = figures.disks().try_into().unwrap();
        assert_eq!((disk.slow, away.slow), (true, false));
        assert_eq!((away.disk, away.state), (DiskId(3), DiskState::Missing));
        assert_eq!((lost.disk, lost.state), (DiskId(4), DiskState::Lost));
        assert_eq!((disk.path.to_str(), disk.state, disk.used_bytes), (Some("/disks/1"), DiskState::Online, 20));
        let page = metrics.render();
        let (one, two) = ("/disks/1", DiskId(2));
        for line in [
            "anvil_store_index_entries 6.0".to_owned(),
            format!("anvil_store_appends_total{{disk=\"{one}\"}} 5.0"),
            format!("anvil_disk_used_bytes{{disk=\"{one}\"}} 20.0"),
            format!("anvil_store_flushes_total{{disk=\"{one}\"}} 9.0"),
            format!("anvil_cell_reads_hedged_total{{disk=\"{one}\"}} 5.0"),
            format!("anvil_cell_reads_outrun_total{{disk=\"{one}\"}} 2.0"),
            format!("anvil_disk_slow{{disk=\"{one}\"}} 1.0"),
            "anvil_decoded_bytes_total 11.0".to_owned(),
            format!("anvil_disk_failed{{disk=\"{one}\"}} 0.0"),
            format!("anvil_disk_failed{{disk=\"{two}\"}} 1.0"),
            "anvil_disk_missing{disk=\"/disks/3\"} 1.0".to_owned(),
            format!("anvil_disk_lost{{disk=\"{}\"}} 1.0", DiskId(4)),
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains(&DiskId(5).to_string()), "a disk that is forgotten fails no more:\n{page}");
    }
}
