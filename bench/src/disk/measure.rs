//! The measuring itself, on one thread of a back end.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anvil_model::limits::RECORD_PAYLOAD_BYTES_MAX;
use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::back_end::Disk;
use super::durable::{DURABLE_BYTES, Durable};
use super::plan::{Operation, Order, Phase, Plan};
use super::report::Row;
use crate::latency::{Latency, buckets};

/// Bytes by which the disk is grown and filled at a time.
pub(super) const FILL_STEP_BYTES: u64 = 64 << 20;
/// Writes in flight while the disk is filled.
pub(super) const FILL_DEPTH: usize = 8;

/// What is to be measured.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Where it is done.
    pub(super) cpu: usize,
    pub(super) plan: Plan,
    /// Bytes to fill and use, a multiple of [`FILL_STEP_BYTES`] and of every block.
    pub(super) size: u64,
    /// Time for everything.
    pub(super) share: Duration,
    /// Where writes go that are durable at once; there when the plan has any.
    pub(super) durable: Option<Arc<Durable>>,
    pub(super) interrupted: Arc<AtomicBool>,
    pub(super) events: Sender<Event>,
}

impl Job {
    /// One for each operation in flight, and those to fill the disk from.
    pub(super) fn buffers(&self) -> usize {
        self.plan.depth_max() + FILL_DEPTH + 1
    }
}

/// What the measuring thread tells the one that talks to the user.
#[derive(Debug)]
pub(super) enum Event {
    /// The disk is filled: so far.
    Prepared { size_bytes: u64, buffers_registered: Option<bool> },
    /// Something begins.
    Begun { what: String },
    /// Time passes.
    Tick,
    /// A phase is over: one row, or one for each kind of operation in it.
    Measured(Vec<Row>),
    /// All is done, or the disk failed. Nothing follows; a back end may keep tasks, and so this channel, for ever.
    Ended(io::Result<()>),
}

/// Prepares the disk and makes all measurements, until done or interrupted.
pub(super) async fn run<D: Disk>(disk: D, job: Job) {
    let result = prepare_and_measure(&disk, &job).await;
    tell(&job.events, Event::Ended(result));
}

async fn prepare_and_measure<D: Disk>(disk: &D, job: &Job) -> io::Result<()> {
    let begun = Instant::now();
    let size = fill(disk, job).await?;
    tell(&job.events, Event::Prepared { size_bytes: size, buffers_registered: disk.buffers_registered() });
    let phases = job.plan.phases();
    for (index, phase) in phases.iter().enumerate() {
        if job.interrupted.load(Ordering::Relaxed) {
            break;
        }
        // What earlier phases took too long is shared by those to come.
        let left = job.share.saturating_sub(begun.elapsed());
        let phases_left = u32::try_from(phases.len() - index).expect("a plan is short");
        let time = (left / phases_left).max(PHASE_TIME_MIN);
        tell(&job.events, Event::Begun { what: format!("{phase} ({} of {})", index + 1, phases.len()) });
        let rows = measure(disk, job, *phase, size, time).await?;
        tell(&job.events, Event::Measured(rows));
    }
    Ok(())
}

/// Grows the disk step by step and writes incompressible bytes over all of it, so that reads find data and writes need
/// no allocation. Stops early when a third of the time is gone; gives the bytes that may be used.
async fn fill<D: Disk>(disk: &D, job: &Job) -> io::Result<u64> {
    let deadline = Instant::now() + job.share / 3;
    tell(&job.events, Event::Begun { what: "filling".to_owned() });
    let mut filled = 0;
    while filled < job.size && (filled == 0 || Instant::now() < deadline) && !job.interrupted.load(Ordering::Relaxed) {
        let until = filled + FILL_STEP_BYTES;
        if disk.size_bytes() < until {
            disk.grow(until).await?;
        }
        let cursor = Rc::new(Cell::new(filled));
        run_lanes(disk, FILL_DEPTH, |seed| {
            let (disk, cursor) = (disk.clone(), Rc::clone(&cursor));
            async move {
                let mut random = seed_of(filled, seed);
                let mut buffer = random_buffer(&disk, &mut random).await;
                while cursor.get() < until {
                    let offset = cursor.replace(cursor.get() + RECORD_PAYLOAD_BYTES_MAX as u64);
                    stamp(D::bytes(&mut buffer), next_random(&mut random));
                    let (result, returned) = disk.write(offset, buffer, RECORD_PAYLOAD_BYTES_MAX).await;
                    buffer = returned;
                    result?;
                }
                Ok(())
            }
        })
        .await?;
        filled = until;
        tell(&job.events, Event::Tick);
    }
    disk.flush().await?;
    Ok(filled)
}

/// One phase: a warm-up that is not counted, then `depth` lanes that each keep one operation in flight.
async fn measure<D: Disk>(disk: &D, job: &Job, phase: Phase, size: u64, time: Duration) -> io::Result<Vec<Row>> {
    let tally = Rc::new(Tally::new());
    disk.spawn(keep_time(disk.clone(), Rc::clone(&tally), job.clone(), time));
    let cursor = Rc::new(Cell::new(0));
    let result = run_lanes(disk, phase.depth as usize, |seed| {
        let (disk, tally, cursor, durable) = (disk.clone(), Rc::clone(&tally), Rc::clone(&cursor), job.durable.clone());
        async move { lane(&disk, &tally, phase, size, &cursor, durable.as_deref(), seed).await }
    })
    .await;
    // After an error nothing else ends the time.
    tally.over.set(true);
    result?;
    let flush_begun = Instant::now();
    let flushes = matches!(phase.operation, Operation::Write | Operation::Mixed);
    if flushes {
        // What the device has taken into a volatile cache is written before the next phase, and told.
        disk.flush().await?;
    }
    Ok(tally.rows(phase, flushes.then(|| flush_begun.elapsed())))
}

async fn lane<D: Disk>(
    disk: &D,
    tally: &Tally,
    phase: Phase,
    size: u64,
    cursor: &Cell<u64>,
    durable: Option<&Durable>,
    seed: usize,
) -> io::Result<()> {
    let mut random = seed_of(phase.block_bytes, seed);
    let mut buffer = random_buffer(disk, &mut random).await;
    let length = usize::try_from(phase.block_bytes).expect("a block fits in a buffer");
    let size = if phase.operation == Operation::Dsync { DURABLE_BYTES } else { size };
    let mut let_in = Instant::now();
    while !tally.over.get() {
        let offset = match phase.order {
            Order::Sequential => {
                let offset = cursor.get();
                let next = offset + phase.block_bytes;
                cursor.set(if next + phase.block_bytes > size { 0 } else { next });
                offset
            }
            Order::Random => next_random(&mut random) % (size / phase.block_bytes) * phase.block_bytes,
        };
        let operation = match phase.operation {
            Operation::Mixed if next_random(&mut random) % 100 < MIXED_READS => Operation::MixedRead,
            Operation::Mixed => Operation::MixedWrite,
            other => other,
        };
        if !matches!(operation, Operation::Read | Operation::MixedRead) {
            stamp(D::bytes(&mut buffer), random.wrapping_add(offset));
        }
        let mut begun = Instant::now();
        let (result, returned) = match operation {
            Operation::Read | Operation::MixedRead => disk.read(offset, buffer, length).await,
            Operation::Write | Operation::MixedWrite => disk.write(offset, buffer, length).await,
            Operation::Mixed => unreachable!("each of them is one or the other"),
            Operation::Dsync => {
                let durable = durable.expect("there for such a phase");
                (durable.write(offset, &D::bytes(&mut buffer)[..length]), buffer)
            }
            Operation::Flush => {
                let (written, returned) = disk.write(offset, buffer, length).await;
                begun = Instant::now();
                (if written.is_ok() { disk.flush().await } else { written }, returned)
            }
        };
        buffer = returned;
        result?;
        tally.count(operation, begun.elapsed());
        if operation == Operation::Dsync && let_in.elapsed() >= TURN_EVERY {
            // Who keeps the time is on this thread too, and runs when it waits.
            disk.sleep(Duration::from_micros(1)).await;
            let_in = Instant::now();
        }
    }
    Ok(())
}

/// Opens and closes the time that is counted, and tells the user that it passes.
async fn keep_time<D: Disk>(disk: D, tally: Rc<Tally>, job: Job, time: Duration) {
    let end = Instant::now() + time;
    disk.sleep((time / 10).min(WARM_UP_MAX)).await;
    tally.open();
    while Instant::now() < end && !job.interrupted.load(Ordering::Relaxed) && !tally.over.get() {
        disk.sleep(TICK.min(end.saturating_duration_since(Instant::now()))).await;
        tell(&job.events, Event::Tick);
    }
    tally.close();
}

/// What a phase has seen. Operations count when they end within the time that is counted.
struct Tally {
    histogram: RefCell<Histogram<u64>>,
    /// Of the writes of a mixed load: the other one is of its reads.
    writes: RefCell<Histogram<u64>>,
    opened: Cell<Option<(Instant, Duration)>>,
    closed: Cell<Option<(Instant, Duration)>>,
    over: Cell<bool>,
}

impl Tally {
    fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3).expect("the bounds are valid");
        Self {
            writes: RefCell::new(histogram.clone()),
            histogram: RefCell::new(histogram),
            opened: Cell::new(None),
            closed: Cell::new(None),
            over: Cell::new(false),
        }
    }

    fn open(&self) {
        self.opened.set(Some((Instant::now(), cpu_time())));
    }

    fn close(&self) {
        self.closed.set(Some((Instant::now(), cpu_time())));
        self.over.set(true);
    }

    fn count(&self, operation: Operation, latency: Duration) {
        if self.opened.get().is_some() && !self.over.get() {
            let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            let histogram = if operation == Operation::MixedWrite { &self.writes } else { &self.histogram };
            histogram.borrow_mut().saturating_record(nanos.max(1));
        }
    }

    fn rows(&self, phase: Phase, flush_after: Option<Duration>) -> Vec<Row> {
        let (all, writes) = (self.histogram.borrow(), self.writes.borrow());
        let of = |operation| Phase { operation, ..phase };
        let ended = all.len() + writes.len();
        match phase.operation {
            Operation::Mixed => vec![
                self.row(of(Operation::MixedRead), &all, ended, None),
                self.row(of(Operation::MixedWrite), &writes, ended, flush_after),
            ],
            _ => vec![self.row(phase, &all, ended, flush_after)],
        }
    }

    /// `ended`: all operations that shared the CPU.
    #[expect(clippy::cast_precision_loss, reason = "figures for people have few digits")]
    fn row(&self, phase: Phase, histogram: &Histogram<u64>, ended: u64, flush_after: Option<Duration>) -> Row {
        let (opened, cpu_before) = self.opened.get().expect("a phase ends when its time is closed");
        let (closed, cpu_after) = self.closed.get().expect("a phase ends when its time is closed");
        let seconds = closed.duration_since(opened).as_secs_f64().max(f64::MIN_POSITIVE);
        let operations = histogram.len();
        let cpu = cpu_after.saturating_sub(cpu_before);
        Row {
            phase,
            operations,
            seconds,
            operations_per_second: operations as f64 / seconds,
            bytes_per_second: match phase.operation {
                Operation::Flush => None,
                _ => Some((operations * phase.block_bytes) as f64 / seconds),
            },
            cpu_us_per_operation: (ended > 0).then(|| cpu.as_secs_f64() * 1e6 / ended as f64),
            latency_ns: (operations > 0).then(|| Latency::of(histogram)),
            histogram_ns: buckets(histogram, BUCKET_NANOS_MIN),
            flush_after_ns: flush_after.map(|flush| u64::try_from(flush.as_nanos()).unwrap_or(u64::MAX)),
        }
    }
}

/// Runs `count` lanes side by side on this thread until all have ended; the first error ends the wait.
async fn run_lanes<D: Disk, Fut>(disk: &D, count: usize, lane: impl Fn(usize) -> Fut) -> io::Result<()>
where
    Fut: Future<Output = io::Result<()>> + 'static,
{
    let (ended, mut endings) = tokio::sync::mpsc::channel(count);
    for index in 0..count {
        let (ended, lane) = (ended.clone(), lane(index));
        disk.spawn(async move {
            let result = lane.await;
            ended.send(result).await.ok(); // nobody listens after the first error
        });
    }
    drop(ended);
    while let Some(result) = endings.recv().await {
        result?;
    }
    Ok(())
}

/// A buffer of bytes that no device can compress.
async fn random_buffer<D: Disk>(disk: &D, random: &mut u64) -> D::Buffer {
    let mut buffer = disk.buffer().await;
    for chunk in D::bytes(&mut buffer).chunks_exact_mut(8) {
        chunk.copy_from_slice(&next_random(random).to_le_bytes());
    }
    buffer
}

/// Of the random numbers of a lane; another one for each lane of each phase and each process.
fn seed_of(phase: u64, lane: usize) -> u64 {
    let process = u64::from(std::process::id());
    (phase ^ process << 32).wrapping_add(lane as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// Makes a block differ from the ones written before, for devices that store equal blocks once.
fn stamp(buffer: &mut [u8], value: u64) {
    for block in buffer.chunks_mut(4096) {
        block[..8].copy_from_slice(&value.to_le_bytes());
    }
}

/// xorshift64* (Vigna 2016): `state` is not zero.
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// User and system time of all threads of this process, those of the kernel's I/O workers included.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage(2) of the process itself cannot fail");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).expect("CPU time is not negative"))
}

pub(super) fn tell(events: &Sender<Event>, event: Event) {
    // The listener lives until the thread has ended; if it is gone, so is the process.
    events.send(event).ok();
}

/// Below this a phase says nothing.
const PHASE_TIME_MIN: Duration = Duration::from_millis(100);
const WARM_UP_MAX: Duration = Duration::from_millis(500);
/// Of 100 operations of a mixed load.
const MIXED_READS: u64 = 70;
/// The first bucket of a histogram that is shown: 1.024 us.
const BUCKET_NANOS_MIN: u64 = 1024;
/// How often a lane that blocks its thread lets others have it.
const TURN_EVERY: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(100);
/// A minute: longer is shown as a minute.
const LATENCY_NANOS_MAX: u64 = 60_000_000_000;
