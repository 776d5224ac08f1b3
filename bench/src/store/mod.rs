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
use anvil_runtime::{Core, Device, Disk, Options};
use anvil_store::{
    FormatOptions, Origin, OriginPayload, Recovered, RecoveryReport, SmallCopy, Store, extent_bytes, format, mail,
    recover,
};
use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use serde::Serialize;

use crate::host::Medium;
use crate::run::RunArgs;
use crate::signals::Interrupted;
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
    #[command(flatten)]
    run: RunArgs,
}

/// What was seen.
#[derive(Clone, Debug, Serialize)]
struct Report {
    path: PathBuf,
    medium: Medium,
    blob_bytes: u64,
    appended: Appended,
    /// As after a clean stop, and with every footer destroyed. What the user's end left out is missing.
    recoveries: Vec<Recovery>,
}

/// Blobs that were appended, without a flush for each.
#[derive(Clone, Debug, Default, Serialize)]
struct Appended {
    /// Less than was asked for when that would have taken half of the time.
    records: u64,
    seconds: f64,
    /// Of the disk, in use.
    bytes: u64,
    bytes_per_record: f64,
}

/// A start.
#[derive(Clone, Debug, Serialize)]
struct Recovery {
    from: &'static str,
    seconds: f64,
    records: u64,
    extents: u64,
    extents_scanned: u64,
    scanned_bytes: u64,
    index_entries: u64,
    index_bytes: u64,
    /// By how much the process has grown since it began.
    grown_bytes: u64,
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
    let mut run = args.run.begin("store")?;
    let cpu = run.one_cpu();
    let target = Target::claim(&args.path, false)?;
    run.print_header();
    let bar = run.bar();
    let disk = target.open(args.capacity)?;
    let options = Options { cpus: vec![cpu], abort_on_panic: false, ..Options::default() };
    let (sender, events) = mpsc::channel();
    let work = Work {
        args: args.clone(),
        disk,
        half: run.duration() / 2,
        interrupted: Arc::clone(run.interrupted()),
        events: sender,
    };
    let cores = anvil_runtime::start(options, move |core| {
        let work = work.clone();
        async move {
            let result = work.measure(&core).await;
            work.tell(Event::Ended(result));
        }
    })?;
    let medium = Medium::look(&args.path);
    let mut report = Report {
        path: args.path.clone(),
        medium,
        blob_bytes: args.size,
        appended: Appended::default(),
        recoveries: Vec::new(),
    };
    let mut end = Ok(());
    for event in events {
        match event {
            Event::Doing(what) => bar.say(what),
            Event::Appended(appended) => report.appended = appended,
            Event::Recovered(recovery) => report.recoveries.push(recovery),
            Event::Ended(result) => end = result,
        }
    }
    cores.join()?;
    target.remove()?;
    bar.finish();
    match end {
        Err(error) if !error.is::<Interrupted>() => Err(error),
        _ => run.finish(&report, Report::print),
    }
}

/// What the core tells the thread that talks to the user.
enum Event {
    Doing(String),
    Appended(Appended),
    Recovered(Recovery),
    /// Nothing follows.
    Ended(anyhow::Result<()>),
}

#[derive(Clone)]
struct Work {
    args: Args,
    disk: Disk,
    /// Of the time that the whole run has.
    half: Duration,
    interrupted: Arc<AtomicBool>,
    events: mpsc::Sender<Event>,
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
        let records = self.append(&store, began).await?;
        let seconds = began.elapsed().as_secs_f64();
        let bytes = store.stats().disks[0].space.context("it is at home here")?.prepared_bytes;
        store.close().await;
        drop(store);
        self.tell(Event::Appended(Appended {
            records,
            seconds,
            bytes,
            bytes_per_record: bytes as f64 / records as f64,
        }));

        let found = self.start(core, &device, "footers", before).await?;
        let extents = u32::try_from((bytes - extent_offset(0, 0)) / extent_bytes).context("a few extents")?;
        destroy_footers(core, &device, extents, extent_bytes).await?;
        let scanned = self.start(core, &device, "a full scan", before).await?;
        ensure!(scanned == found, "the scan finds other records");
        Ok(())
    }

    /// Starts as a node does, and tells what that took; how many records it found.
    async fn start(&self, core: &Core, device: &Device, from: &'static str, before: u64) -> anyhow::Result<u64> {
        self.tell(Event::Doing(format!("recovering from {from}")));
        let (recovered, took) = self.recover(core).await?;
        let RecoveryReport { extents, extents_scanned, scanned_bytes, records, .. } = recovered.report.clone();
        let store = open(core, device, recovered);
        let stats = store.stats();
        self.tell(Event::Recovered(Recovery {
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
        store.close().await;
        Ok(records)
    }

    async fn recover(&self, core: &Core) -> anyhow::Result<(Recovered<Core>, Duration)> {
        self.check()?;
        let began = Instant::now();
        let recovered = recover(core, vec![(DISK, self.disk.device(core))], 1, 0).await?;
        Ok((recovered, began.elapsed()))
    }

    /// As many as were asked for, or as half of the time allows.
    async fn append(&self, store: &Store<Core>, began: Instant) -> anyhow::Result<u64> {
        let at = WallTime { unix_ms: 0 };
        let origin = Origin {
            tenant: TenantId(1),
            bucket: "bucket".into(),
            key: "a/key/like/others".into(),
            at,
            payload: OriginPayload::Object { length: 0 },
        };
        let size = usize::try_from(self.args.size)?;
        let mut done = 0;
        while done < self.args.records && (done == 0 || began.elapsed() < self.half) {
            self.check()?;
            let count = (self.args.records - done).min(APPENDS_AT_ONCE as u64);
            let appends = (0..count).map(|number| {
                let payload = Rc::new(vec![number as u8; size]);
                let copy =
                    SmallCopy { blob: store.new_blob(), profile: Profile::SINGLE, shard: 0, payload, encryption: None };
                store.append_small(DISK, Some(&origin), copy)
            });
            try_join_all(appends).await.context("the disk does not take them all: see --capacity")?;
            done += count;
            self.tell(Event::Doing(format!("appending {done}")));
        }
        Ok(done)
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.interrupted.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
    }

    fn tell(&self, event: Event) {
        // The listener lives until the core has ended.
        self.events.send(event).ok();
    }
}

impl Report {
    fn print(&self) {
        self.medium.print("disk", &self.path);
        let &Appended { records, seconds, bytes, bytes_per_record } = &self.appended;
        println!(
            "{records} blobs of {} bytes appended in {seconds:.2} s: {} on disk, {bytes_per_record:.0} bytes each",
            self.blob_bytes,
            units::show_size(bytes)
        );
        for recovery in &self.recoveries {
            let Recovery { from, seconds, records, extents, extents_scanned, .. } = recovery;
            let rate = recovery.scanned_bytes as f64 / seconds / f64::from(1 << 20);
            println!("recovered from {from} in {seconds:.2} s: {records} records in {extents} extents");
            println!("  {extents_scanned} extents read whole, {rate:.0} MiB/s");
            println!(
                "  index: {} entries, {:.1} bytes per record; the process has grown by {:.1} bytes per record",
                recovery.index_entries,
                recovery.index_bytes as f64 / *records as f64,
                recovery.grown_bytes as f64 / *records as f64,
            );
        }
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
