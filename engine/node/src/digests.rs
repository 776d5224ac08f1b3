//! The digests of all payloads of a core, computed together.
//!
//! One stream of MD5 takes a chain of additions per byte, and leaves most of a core idle; eight streams in wide registers
//! take hardly longer than one. So nobody hashes alone here: what is to be digested becomes a *job*, which owns its bytes
//! and its digests, and one task per core takes the jobs of all connections a turn at a time, as many in step as there
//! are. Whoever gave a job gets bytes and digests back when it is done.
//!
//! - A turn is short ([`TURN_BYTES`]), and other tasks of the core run between two turns.
//! - In a turn every digest of a job takes the same bytes, which the first one has pulled into the cache.
//! - A batch that is not full waits for those who are about to bring more, but no job waits for longer than [`WAIT`], and
//!   who is alone does not wait at all. Nobody is waited for who took long the last time.
//! - A job whose giver has gone is dropped before the next turn.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::{Deref, Range};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use anvil_digest::{Algorithm, Digest, Kernel, update_many};
use anvil_model::io::{Task, World};
use anvil_model::object::{Checksum, ChecksumAlgorithm, ChecksumType};
use anvil_model::time::Moment;
use futures_util::FutureExt as _;
use tokio::sync::{Notify, oneshot};

use crate::body::{Body, Span};
use crate::payload::digest_algorithm;

/// One core's queue. Clones are the same.
pub(crate) struct DigestQueue<W: World> {
    queue: Rc<Queue<W>>,
}

impl<W: World> Clone for DigestQueue<W> {
    fn clone(&self) -> Self {
        Self { queue: Rc::clone(&self.queue) }
    }
}

impl<W: World> DigestQueue<W> {
    pub(crate) fn new(world: W, kernel: Kernel) -> Self {
        let queue = Queue {
            world,
            kernel,
            jobs: RefCell::default(),
            runs: Cell::new(false),
            round: Cell::new(0),
            expected: Cell::new(0),
            enough: Notify::new(),
        };
        Self { queue: Rc::new(queue) }
    }

    /// The digests that every payload gets, and the one that its client asked for, over `length` bytes.
    pub(crate) fn begin(&self, client: Option<ChecksumAlgorithm>, length: u64) -> Digests<W> {
        let client = client.filter(|&algorithm| algorithm != ChecksumAlgorithm::Crc64Nvme);
        let algorithms = [Algorithm::Md5, Algorithm::Crc64Nvme].into_iter().chain(client.map(digest_algorithm));
        Digests {
            queue: Rc::clone(&self.queue),
            client,
            digests: algorithms.map(Digest::new).collect(),
            length,
            taken: 0,
            is_prompt: true,
            away: None,
        }
    }
}

/// The digests of one payload under way.
pub(crate) struct Digests<W: World> {
    queue: Rc<Queue<W>>,
    /// `None` when the client's algorithm is CRC64NVME or none.
    client: Option<ChecksumAlgorithm>,
    /// MD5, CRC64NVME, and the client's. Empty while a job has them.
    digests: Vec<Digest>,
    /// Payload bytes in all, and so far.
    length: u64,
    taken: u64,
    /// Whether its last job came soon after it had the one before back.
    is_prompt: bool,
    away: Option<Away>,
}

/// What a payload is, by its digests.
pub(crate) struct Digested {
    pub(crate) md5: [u8; 16],
    pub(crate) crc64nvme: u64,
    /// Of the client's algorithm, or CRC64NVME when it named none.
    pub(crate) checksum: Checksum,
}

impl<W: World> Digests<W> {
    /// Takes the next payload of `body`, which lies in `pieces` of `buffer`, in their order; computes and checks what
    /// the body was promised of it, too.
    pub(crate) async fn payload_in_buffer<B: Body<W::Buffer>>(
        &mut self,
        body: &mut B,
        buffer: W::Buffer,
        pieces: Vec<Range<usize>>,
    ) -> Result<W::Buffer, B::Error> {
        let (bytes, spans) = self.take(Bytes::Pool(buffer), pieces, body.undigested()).await;
        body.digested(spans)?;
        let Bytes::Pool(buffer) = bytes else { unreachable!("a job gives back what it got") };
        Ok(buffer)
    }

    /// The same for payload in ordinary memory.
    pub(crate) async fn payload_in_memory<B: Body<W::Buffer>>(
        &mut self,
        body: &mut B,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, B::Error> {
        let all = 0..payload.len();
        let (bytes, spans) = self.take(Bytes::Memory(payload), vec![all], body.undigested()).await;
        body.digested(spans)?;
        let Bytes::Memory(payload) = bytes else { unreachable!("a job gives back what it got") };
        Ok(payload)
    }

    /// Takes bytes that nothing was promised of.
    pub(crate) async fn buffer(&mut self, buffer: W::Buffer, pieces: Vec<Range<usize>>) {
        self.take(Bytes::Pool(buffer), pieces, Vec::new()).await;
    }

    pub(crate) fn finish(mut self) -> Digested {
        let mut values = std::mem::take(&mut self.digests).into_iter().map(Digest::finish);
        let mut next = || values.next().expect("no job has them any more");
        let md5 = next()[..].try_into().expect("an MD5 has 16 bytes");
        let crc64nvme = next();
        let (algorithm, value) = match self.client {
            Some(algorithm) => (algorithm, next()),
            None => (ChecksumAlgorithm::Crc64Nvme, crc64nvme),
        };
        Digested {
            md5,
            crc64nvme: u64::from_be_bytes(crc64nvme[..].try_into().expect("a CRC64 has 8 bytes")),
            checksum: Checksum { algorithm, of: ChecksumType::FullObject, value: value.to_vec() },
        }
    }

    async fn take(
        &mut self,
        bytes: Bytes<W::Buffer>,
        pieces: Vec<Range<usize>>,
        spans: Vec<Span>,
    ) -> (Bytes<W::Buffer>, Vec<Span>) {
        if let Some(away) = self.away.take() {
            self.is_prompt = self.queue.came(&away);
        }
        let length = pieces.iter().map(Range::len).sum();
        let own = std::mem::take(&mut self.digests);
        let (own_count, before) = (own.len(), self.taken);
        let whole = own.into_iter().map(|digest| Stretch { range: 0..length, digest });
        let promised = spans.into_iter().map(|Span { start, length, digest }| {
            let start = usize::try_from(start - before).expect("spans lie in the bytes that were given last");
            let end = start + usize::try_from(length).expect("spans lie in the bytes that were given last");
            Stretch { range: start..end, digest }
        });
        let work = Work { bytes, pieces, stretches: whole.chain(promised).collect(), whole_count: own_count };
        assert!(work.stretches.iter().all(|stretch| stretch.range.end <= length), "spans lie in these bytes");

        let mut done = if length < ALONE_BYTES { work.at_once() } else { self.queue.submit(work).await };

        self.taken += length as u64;
        if self.taken < self.length {
            self.away = Some(self.queue.went(self.is_prompt));
        }
        let promised = done.stretches.split_off(own_count);
        self.digests = done.stretches.into_iter().map(|stretch| stretch.digest).collect();
        let spans = promised.into_iter().map(|Stretch { range, digest }| Span {
            start: before + range.start as u64,
            length: range.len() as u64,
            digest,
        });
        (done.bytes, spans.collect())
    }
}

impl<W: World> Drop for Digests<W> {
    fn drop(&mut self) {
        if let Some(away) = self.away.take() {
            self.queue.came(&away);
        }
    }
}

/// A payload that has its job back, and will bring the next one or end.
struct Away {
    since: Moment,
    /// The round of the queue in which it counts as expected; `None` for who is not waited for.
    expected_in: Option<u64>,
}

/// Memory that a job owns.
enum Bytes<B> {
    Pool(B),
    Memory(Vec<u8>),
}

impl<B: Deref<Target = [u8]>> Deref for Bytes<B> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Pool(buffer) => buffer,
            Self::Memory(bytes) => bytes,
        }
    }
}

/// Bytes, and digests that are to take them.
struct Work<B> {
    bytes: Bytes<B>,
    /// Where in `bytes` the payload is, one piece behind the other.
    pieces: Vec<Range<usize>>,
    stretches: Vec<Stretch>,
    /// So many of them, the first ones, take all of the payload.
    whole_count: usize,
}

/// A digest and the payload that it is to take, counted from the first of the job's.
struct Stretch {
    range: Range<usize>,
    digest: Digest,
}

impl<B: Deref<Target = [u8]>> Work<B> {
    fn at_once(mut self) -> Self {
        let Self { bytes, pieces, stretches, .. } = &mut self;
        for Stretch { range, digest } in stretches {
            let mut at = range.start;
            while at < range.end {
                let step = step(bytes, pieces, at..range.end);
                digest.update(step);
                at += step.len();
            }
        }
        self
    }
}

/// The payload of `range`, as far as it lies in one piece; at least one byte.
fn step<'a>(bytes: &'a [u8], pieces: &[Range<usize>], range: Range<usize>) -> &'a [u8] {
    let mut before = 0;
    for piece in pieces {
        if range.start < before + piece.len() {
            let start = piece.start + range.start - before;
            let length = range.len().min(piece.end - start);
            return &bytes[start..start + length];
        }
        before += piece.len();
    }
    unreachable!("a stretch lies in the pieces of its job")
}

struct Job<B> {
    work: Work<B>,
    /// How far each stretch is, in the order of `work`.
    taken: Vec<usize>,
    /// When it is not made to wait any longer.
    due: Moment,
    done: oneshot::Sender<Work<B>>,
}

impl<B: Deref<Target = [u8]>> Job<B> {
    fn is_done(&self) -> bool {
        self.work.stretches.iter().zip(&self.taken).all(|(stretch, &taken)| taken == stretch.range.len())
    }

    /// Adds what is to be done next: the same bytes for every digest of all of the payload, and as many bytes of what
    /// was promised of stretches of it, which `at_once` of them share.
    fn next_steps<'a>(&'a mut self, bytes_max: usize, at_once: usize, steps: &mut Vec<(&'a mut Digest, &'a [u8])>) {
        let Self { work: Work { bytes, pieces, stretches, whole_count }, taken, .. } = self;
        let (whole, promised) = stretches.split_at_mut(*whole_count);
        let (whole_taken, promised_taken) = taken.split_at_mut(*whole_count);
        for (Stretch { range, digest }, taken) in whole.iter_mut().zip(whole_taken) {
            let at = range.start + *taken;
            if at < range.end {
                let step = step(bytes, pieces, at..range.end.min(at + bytes_max));
                *taken += step.len();
                steps.push((digest, step));
            }
        }
        let mut left = bytes_max;
        for (Stretch { range, digest }, taken) in promised.iter_mut().zip(promised_taken) {
            let at = range.start + *taken;
            if at < range.end && left > 0 {
                let step = step(bytes, pieces, at..range.end.min(at + left.min(bytes_max / at_once)));
                *taken += step.len();
                left -= step.len();
                steps.push((digest, step));
            }
        }
    }
}

/// What the digests of a core share.
struct Queue<W: World> {
    world: W,
    kernel: Kernel,
    /// In the order in which they came.
    jobs: RefCell<VecDeque<Job<W::Buffer>>>,
    /// Whether the task is there that takes them.
    runs: Cell<bool>,
    /// Counts how often those who were expected did not come.
    round: Cell<u64>,
    /// Payloads that are [away](Away) since this round began, and are likely to come back soon.
    expected: Cell<usize>,
    /// As many jobs are here as are worth waiting for.
    enough: Notify,
}

impl<W: World> Queue<W> {
    async fn submit(self: &Rc<Self>, work: Work<W::Buffer>) -> Work<W::Buffer> {
        let (done, receive) = oneshot::channel();
        let taken = vec![0; work.stretches.len()];
        self.jobs.borrow_mut().push_back(Job { work, taken, due: self.world.now() + WAIT, done });
        if self.runs.replace(true) {
            self.tell_when_enough();
        } else {
            self.world.spawn(run(Rc::clone(self))).detach();
        }
        receive.await.expect("every job of one who waits is done")
    }

    /// A payload is no longer expected: it has come, or ended. Says whether that was soon.
    fn came(&self, away: &Away) -> bool {
        if away.expected_in == Some(self.round.get()) {
            self.expected.set(self.expected.get() - 1);
            self.tell_when_enough();
        }
        self.world.now().since(away.since) <= PROMPT_MAX
    }

    /// A payload has its job back and will bring the next one.
    fn went(&self, is_prompt: bool) -> Away {
        let expected_in = is_prompt.then(|| self.round.get());
        if is_prompt {
            self.expected.set(self.expected.get() + 1);
        }
        Away { since: self.world.now(), expected_in }
    }

    fn is_enough(&self) -> bool {
        self.expected.get() == 0 || self.jobs.borrow().len() >= JOBS_ENOUGH
    }

    fn tell_when_enough(&self) {
        if self.is_enough() {
            self.enough.notify_waiters();
        }
    }

    /// Waits for those who are expected, but not for long. Who did not come is not waited for again.
    async fn gather(&self) {
        let Some(due) = self.jobs.borrow().front().map(|job| job.due) else { return };
        let left = due.since(self.world.now());
        if self.is_enough() || left.is_zero() {
            return;
        }
        let mut enough = std::pin::pin!(self.enough.notified().fuse());
        let mut over = std::pin::pin!(self.world.sleep(left).fuse());
        futures_util::select_biased! {
            () = enough => {},
            () = over => {
                self.round.set(self.round.get() + 1);
                self.expected.set(0);
            }
        }
    }

    /// Takes a step of every digest of the first jobs, and gives back those that are done.
    fn turn(&self) {
        let mut jobs = self.jobs.borrow_mut();
        jobs.retain(|job| !job.done.is_closed());
        let count = jobs.len().min(JOBS_PER_TURN);
        let step_bytes = (TURN_BYTES / count.max(1)).clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
        let at_once = (self.kernel.lanes(Algorithm::Sha256) / count.max(1)).max(1);
        let mut steps = Vec::new();
        for job in jobs.range_mut(..count) {
            job.next_steps(step_bytes, at_once, &mut steps);
        }
        update_many(&self.kernel, &mut steps);
        for _ in 0..count {
            let job = jobs.pop_front().expect("it was counted");
            if job.is_done() {
                // Nobody is there for what comes too late, and it is dropped.
                let _ = job.done.send(job.work);
            } else {
                jobs.push_back(job);
            }
        }
    }
}

/// Takes turns until nothing is left.
async fn run<W: World>(queue: Rc<Queue<W>>) {
    loop {
        queue.gather().await;
        queue.turn();
        if queue.jobs.borrow().is_empty() {
            queue.runs.set(false);
            return;
        }
        give_turn().await;
    }
}

/// Lets the other tasks of this core run once.
async fn give_turn() {
    let mut given = false;
    poll_fn(|context| {
        if given {
            return Poll::Ready(());
        }
        given = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What is shorter is digested where it is: the way through the queue would cost as much.
const ALONE_BYTES: usize = 8 << 10;
/// Jobs that go in step; as many as the widest kernel has lanes.
const JOBS_PER_TURN: usize = 16;
/// Jobs that fill the registers of the ordinary kernel: it is not worth to wait for more.
const JOBS_ENOUGH: usize = 8;
/// Payload of one turn, of all jobs together: about 0.2 ms with SHA-256, and little enough to stay in the cache of the
/// second level while each digest takes it.
const TURN_BYTES: usize = 256 << 10;
/// Payload of one job in one turn.
const STEP_BYTES_MIN: usize = 16 << 10;
const STEP_BYTES_MAX: usize = 128 << 10;
/// How long a job waits for others.
const WAIT: Duration = Duration::from_micros(200);
/// Who takes longer than this for the next 64 KiB has a client that does not keep up: 64 MB/s. Longer than [`WAIT`], because
/// it has the core's work for all others in it.
const PROMPT_MAX: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    //! Goal: whatever shares the queue, everybody gets the digests of their own bytes and their own bytes back. Method:
    //! the false world, whose tasks run in the order of a seed.

    use std::future::Future;

    use anvil_model::io::Reserve;
    use anvil_sim::{Join, Life, Sim, SimBuffer, SimOptions, SimWorld};

    use super::*;
    use crate::body::Trailer;

    /// Lends a digest for each stretch of its payload, and keeps the values of what comes back.
    struct Lender {
        begun: u64,
        stretches: Vec<usize>,
        values: Rc<RefCell<Vec<String>>>,
    }

    impl Body<SimBuffer> for Lender {
        type Error = ();

        fn length(&self) -> u64 {
            unreachable!("nothing is received")
        }

        async fn fill(&mut self, _: SimBuffer, _: Range<usize>) -> (Result<usize, ()>, SimBuffer) {
            unreachable!("nothing is received")
        }

        async fn read(&mut self, _: &mut Vec<u8>, _: usize) -> Result<usize, ()> {
            unreachable!("nothing is received")
        }

        async fn collect(&mut self) -> Result<Vec<u8>, ()> {
            unreachable!("nothing is received")
        }

        fn undigested(&mut self) -> Vec<Span> {
            let spans = self.stretches.iter().map(|&stretch| {
                let (start, length) = (self.begun, stretch as u64);
                self.begun += length;
                Span { start, length, digest: Digest::new(Algorithm::Sha256) }
            });
            spans.collect()
        }

        fn digested(&mut self, spans: Vec<Span>) -> Result<(), ()> {
            self.values.borrow_mut().extend(spans.into_iter().map(|span| span.digest.finish().to_string()));
            Ok(())
        }

        async fn finish(&mut self) -> Result<Trailer, ()> {
            unreachable!("nothing is received")
        }
    }

    fn pieces(length: usize) -> Vec<Range<usize>> {
        let all = 0..length;
        vec![all]
    }

    fn byte(stream: usize, at: usize) -> u8 {
        (at.wrapping_mul(31) ^ (at >> 8) ^ stream).to_le_bytes()[0]
    }

    fn queue(life: &Life, kernel: Kernel) -> DigestQueue<SimWorld> {
        DigestQueue::new(life.world(0), kernel)
    }

    /// Some windows of a payload in pieces of a buffer; tells the MD5 of all, and the SHA-256 of every stretch.
    async fn upload(
        world: SimWorld,
        queue: DigestQueue<SimWorld>,
        stream: usize,
        windows: usize,
    ) -> (String, Vec<String>) {
        let pieces = vec![4096..104_096 + 13 * stream, 200_000..200_000, 300_000..500_007];
        let length: usize = pieces.iter().map(Range::len).sum();
        let stretches = vec![1, 70_000, length - 70_001];
        let values = Rc::default();
        let mut body = Lender { begun: 0, stretches, values: Rc::clone(&values) };
        let mut digests = queue.begin(None, (length * windows) as u64);
        for window in 0..windows {
            let mut buffer = world.buffer(Reserve::Foreground).await;
            let places: Vec<usize> = pieces.iter().cloned().flatten().collect();
            for (at, &place) in places.iter().enumerate() {
                buffer[place] = byte(stream, window * length + at);
            }
            let buffer = digests.payload_in_buffer(&mut body, buffer, pieces.clone()).await.unwrap();
            assert_eq!(buffer[4096], byte(stream, window * length), "the same bytes come back");
        }
        let md5 = digests.finish().md5;
        let values = values.borrow().clone();
        (md5.iter().map(|byte| format!("{byte:02x}")).collect(), values)
    }

    /// The same of bytes in a row.
    fn expected(stream: usize, windows: usize) -> (String, Vec<String>) {
        let length = 300_007 + 13 * stream;
        let bytes: Vec<u8> = (0..windows * length).map(|at| byte(stream, at)).collect();
        let of = |algorithm, bytes: &[u8]| {
            let mut digest = Digest::new(algorithm);
            digest.update(bytes);
            digest.finish().to_string()
        };
        let stretches = bytes.chunks(length).flat_map(|window| {
            [&window[..1], &window[1..70_001], &window[70_001..]].map(|stretch| of(Algorithm::Sha256, stretch))
        });
        (of(Algorithm::Md5, &bytes), stretches.collect())
    }

    fn spawn<T: 'static, F: Future<Output = T> + 'static>(life: &Life, task: impl FnOnce(SimWorld) -> F) -> Join<T> {
        life.spawn(0, task)
    }

    #[test]
    fn everybody_gets_their_own_digests_whoever_is_beside_them() {
        for seed in 0..4 {
            for kernel in [Kernel::SINGLE, Kernel::detect()] {
                let life = Sim::new(seed, SimOptions { buffers: 40, ..SimOptions::default() }).start(1);
                let queue = queue(&life, kernel);
                let uploads: Vec<_> = (0..[1, 2, 9, 18][usize::try_from(seed).unwrap()])
                    .map(|stream| {
                        let queue = queue.clone();
                        (stream, spawn(&life, move |world| upload(world, queue, stream, 1 + stream % 3)))
                    })
                    .collect();
                life.run_while(|| !uploads.iter().all(|(_, upload)| upload.is_done()));
                for (stream, upload) in uploads {
                    assert!(upload.take() == Some(expected(stream, 1 + stream % 3)), "seed {seed}, stream {stream}");
                }
                assert_eq!(queue.queue.expected.get(), 0, "nobody is expected who has ended");
                drop(queue);
                life.kill();
            }
        }
    }

    /// Uploads that are given up while their windows are in the queue leave nothing behind, and nobody waits for them.
    #[test]
    fn who_leaves_takes_nothing_along() {
        let life = Sim::new(3, SimOptions { buffers: 40, ..SimOptions::default() }).start(1);
        let queue = queue(&life, Kernel::SINGLE);
        let leaving = {
            let queue = queue.clone();
            spawn(&life, move |world| async move {
                let leaves = |after: u64| {
                    let (world, queue) = (world.clone(), queue.clone());
                    async move {
                        let mut work = std::pin::pin!(upload(world.clone(), queue, 1, 3).fuse());
                        let mut over = std::pin::pin!(world.sleep(Duration::from_micros(after)).fuse());
                        futures_util::select_biased! {
                            _ = work => {},
                            () = over => {},
                        }
                    }
                };
                futures_util::future::join_all((0..30).map(|number| leaves(10 * number))).await;
            })
        };
        let staying = {
            let queue = queue.clone();
            spawn(&life, move |world| upload(world, queue, 2, 3))
        };
        life.run_while(|| !(leaving.is_done() && staying.is_done()));
        assert!(staying.take() == Some(expected(2, 3)));
        life.run_for(Duration::from_millis(1));
        assert_eq!((queue.queue.expected.get(), queue.queue.jobs.borrow().len()), (0, 0));
        assert_eq!(life.buffers_out(), 0, "their buffers are back");
        drop(queue);
        life.kill();
    }

    /// Who comes, but always too late to share the lanes, costs nobody a wait for each of their pieces.
    #[test]
    fn who_is_never_prompt_is_not_waited_for() {
        let busy_takes = |late_pieces: u64| {
            let life = Sim::new(7, SimOptions { stalls: false, ..SimOptions::default() }).start(1);
            let queue = queue(&life, Kernel::SINGLE);
            let upload = |count: u64, pause: Duration| {
                let queue = queue.clone();
                spawn(&life, move |world| async move {
                    let mut digests = queue.begin(None, count << 16);
                    for _ in 0..count {
                        let buffer = world.buffer(Reserve::Foreground).await;
                        digests.buffer(buffer, pieces(1 << 16)).await;
                        world.sleep(pause).await;
                    }
                })
            };
            let began = life.world(0).now();
            let late = upload(late_pieces, 2 * PROMPT_MAX);
            let busy = upload(1000, PROMPT_MAX / 20);
            life.run_while(|| !busy.is_done());
            let took = life.world(0).now().since(began);
            life.run_while(|| !late.is_done());
            drop(queue);
            life.kill();
            took
        };
        let (alone, beside) = (busy_takes(0), busy_takes(50));
        assert!(beside < alone + 10 * WAIT, "{alone:?} alone, {beside:?} beside one who is late 50 times");
    }

    /// One that is expected and does not come costs the others one short wait, not one for each of their windows.
    #[test]
    fn who_does_not_come_is_waited_for_once() {
        let life = Sim::new(5, SimOptions { stalls: false, ..SimOptions::default() }).start(1);
        let queue = queue(&life, Kernel::SINGLE);
        let silent = {
            let queue = queue.clone();
            spawn(&life, move |world| async move {
                let mut digests = queue.begin(None, 1 << 30);
                let buffer = world.buffer(Reserve::Foreground).await;
                digests.buffer(buffer, pieces(100_000)).await;
                world.sleep(Duration::from_secs(1)).await;
                drop(digests);
            })
        };
        life.run_while(|| queue.queue.expected.get() == 0);
        let began = life.world(0).now();
        let busy = {
            let queue = queue.clone();
            spawn(&life, move |world| async move {
                let mut digests = queue.begin(None, 20 << 17);
                for _ in 0..20 {
                    let buffer = world.buffer(Reserve::Foreground).await;
                    digests.buffer(buffer, pieces(1 << 17)).await;
                }
            })
        };
        life.run_while(|| !busy.is_done());
        let took = life.world(0).now().since(began);
        assert!((WAIT..3 * WAIT).contains(&took), "{took:?}");
        life.run_while(|| !silent.is_done());
        drop(queue);
        life.kill();
    }
}
