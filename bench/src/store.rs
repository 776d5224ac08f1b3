//! `anvil-bench store`: how long a start takes, and how much memory, with as many small blobs as one likes on a disk.
//!
//! Appends them through the real store and runtime, on one core; then recovers the disk as a start does, first from the
//! footers, then with all footers destroyed, so that every extent is read whole. Makes a directory of its own in the path
//! and removes it again.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anvil_model::format::{UNIT_BYTES, extent_offset};
use anvil_model::ids::{DiskId, Incarnation, NodeId, TenantId};
use anvil_model::io::{Device as _, Reserve, World as _};
use anvil_model::limits::SMALL_BLOB_BYTES_MAX;
use anvil_model::profile::Profile;
use anvil_model::time::WallTime;
use anvil_runtime::{Core, Device, Disk, Options, available_cpus};
use anvil_store::{
    FormatOptions, Origin, Recovered, RecoveryReport, SmallCopy, Store, extent_bytes, format, mail, recover,
};
use anyhow::{Context, ensure};
use futures_util::future::try_join_all;

use crate::host::Host;
use crate::signals::{self, Interrupted};
use crate::target::Target;
use crate::units;

/// What to fill the disk with.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// A directory on the disk to measure
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Blobs to append
    #[arg(long, default_value_t = 1_000_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    records: u64,
    /// Bytes of each blob, at most 64KiB
    #[arg(long, default_value = "100", value_parser = units::size, value_name = "SIZE")]
    size: u64,
    /// What the disk may grow to
    #[arg(long, default_value = "15GiB", value_parser = units::size, value_name = "SIZE")]
    capacity: u64,
    /// The CPU that does the work; by default the first that this process may use
    #[arg(long, value_name = "CPU")]
    cpu: Option<usize>,
}

/// Appends that wait at once, and share their writes.
const APPENDS_AT_ONCE: usize = 1000;
const DISK: DiskId = DiskId(1);

/// Appends, recovers twice, and prints what was seen.
///
/// # Errors
/// One sentence; [`Interrupted`] after Ctrl-C. Nothing that the run made is left behind in either case.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!((1..=SMALL_BLOB_BYTES_MAX as u64).contains(&args.size), "--size is 1 to {SMALL_BLOB_BYTES_MAX} bytes");
    let cpus = available_cpus();
    let cpu = args.cpu.or_else(|| cpus.first().copied()).context("this process may use no CPU")?;
    ensure!(cpus.contains(&cpu), "this process may not use CPU {cpu}, only {cpus:?}");
    let interrupted = signals::catch().context("cannot catch signals")?;
    let target = Target::claim(&args.path, false)?;
    Host::look(cpu, cpus.len()).print();
    let disk = target.open(args.capacity)?;
    let options = Options { cpus: vec![cpu], abort_on_panic: false, ..Options::default() };
    let (sender, result) = mpsc::channel();
    let work = Work { args: args.clone(), disk, interrupted: Arc::clone(&interrupted) };
    let cores = anvil_runtime::start(options, move |core| {
        let (work, sender) = (work.clone(), sender.clone());
        async move {
            // The main thread waits for it, or has gone.
            sender.send(work.measure(&core).await).ok();
        }
    })?;
    let measured = result.recv().context("the core has ended")?;
    cores.join()?;
    target.remove()?;
    measured
}

#[derive(Clone)]
struct Work {
    args: Args,
    disk: Disk,
    interrupted: Arc<AtomicBool>,
}

impl Work {
    async fn measure(&self, core: &Core) -> anyhow::Result<()> {
        let before = resident_bytes();
        let device = self.disk.device(core);
        let extent_bytes = extent_bytes(device.geometry().capacity_bytes_max);
        format(core, &device, FormatOptions { disk: DISK, cluster: 1, extent_bytes }).await?;
        let began = Instant::now();
        let store = open(core, &device, self.recover(core).await?.0);
        store.set_writer(NodeId(1), Incarnation(1));
        self.append(&store).await?;
        let appended = began.elapsed();
        let prepared = store.stats().disks[0].space.context("it is at home here")?.prepared_bytes;
        store.close().await;
        drop(store);
        let per_record = prepared as f64 / self.args.records as f64;
        println!(
            "{} blobs of {} bytes appended in {appended:.2?}: {} on disk, {per_record:.0} bytes each",
            self.args.records,
            self.args.size,
            units::show_size(prepared),
        );

        let (recovered, took) = self.recover(core).await?;
        let report = recovered.report.clone();
        let store = open(core, &device, recovered);
        let stats = store.stats();
        self.show("from footers", &report, took, prepared);
        println!(
            "  index: {} entries, {:.1} bytes per record; the process has grown by {:.1} bytes per record since it began",
            stats.index_entries,
            stats.index_bytes as f64 / self.args.records as f64,
            resident_bytes().saturating_sub(before) as f64 / self.args.records as f64,
        );
        store.close().await;
        drop(store);

        let extents = u32::try_from((prepared - extent_offset(0, 0)) / extent_bytes).context("a few extents")?;
        destroy_footers(core, &device, extents, extent_bytes).await?;
        let (recovered, took) = self.recover(core).await?;
        self.show("from a full scan", &recovered.report, took, prepared);
        ensure!(recovered.report.records == report.records, "the scan finds other records");
        Ok(())
    }

    async fn recover(&self, core: &Core) -> anyhow::Result<(Recovered<Core>, Duration)> {
        self.check()?;
        let began = Instant::now();
        let recovered = recover(core, vec![(DISK, self.disk.device(core))], 1, 0).await?;
        Ok((recovered, began.elapsed()))
    }

    async fn append(&self, store: &Store<Core>) -> anyhow::Result<()> {
        let at = WallTime { unix_ms: 0 };
        let origin = Origin { tenant: TenantId(1), bucket: "bucket".into(), key: "a/key/like/others".into(), at };
        let size = usize::try_from(self.args.size)?;
        let mut left = self.args.records;
        while left > 0 {
            self.check()?;
            let count = left.min(APPENDS_AT_ONCE as u64);
            let appends = (0..count).map(|number| {
                let payload = Rc::new(vec![number as u8; size]);
                let copy = SmallCopy { blob: store.new_blob(), profile: Profile::SINGLE, shard: 0, payload };
                store.append_small(DISK, Some(&origin), copy)
            });
            try_join_all(appends).await.context("the disk does not take them all: see --capacity")?;
            left -= count;
        }
        Ok(())
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.interrupted.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
    }

    fn show(&self, how: &str, report: &RecoveryReport, took: Duration, prepared: u64) {
        let RecoveryReport { extents, extents_scanned, scanned_bytes, records, .. } = report;
        let rate = *scanned_bytes as f64 / took.as_secs_f64() / f64::from(1 << 20);
        println!("recovered {how} in {took:.2?}: {records} records in {extents} extents");
        println!(
            "  {extents_scanned} extents read whole, {rate:.0} MiB/s; {} are prepared",
            units::show_size(prepared)
        );
    }
}

fn open(core: &Core, device: &Device, recovered: Recovered<Core>) -> Store<Core> {
    let (mut shares, _) = recovered.into_shares();
    let share = shares.pop().expect("one core has one share");
    let mail = mail(1).pop().expect("one core has one mailbox");
    Store::open(core.clone(), vec![(DISK, device.clone())], share, mail)
}

/// Without its last unit a footer is none.
async fn destroy_footers(core: &Core, device: &Device, extents: u32, extent_bytes: u64) -> anyhow::Result<()> {
    let bytes = u32::try_from(extent_bytes)?;
    for extent in 0..extents {
        let mut buffer = core.buffer(Reserve::Foreground).await;
        buffer[..UNIT_BYTES].fill(0);
        let at = extent_offset(extent, bytes) + extent_bytes - UNIT_BYTES as u64;
        device.write(at, buffer, 0..UNIT_BYTES).await.0?;
    }
    Ok(device.flush().await?)
}

/// 0 when the kernel does not say.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096
}
