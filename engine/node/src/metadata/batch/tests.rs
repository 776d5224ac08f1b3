//! The service on metadata that waits to be told to answer, in a world that has only a clock and tasks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, pending, poll_fn};
use std::ops::{Deref, DerefMut, Range};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anvil_model::ids::{BucketId, CoreId, Generation, TenantId, UploadId, WriteId};
use anvil_model::io::{Buffer, Device, DeviceError, Geometry, Reserve, Task};
use anvil_model::object::{Key, WriteConditions};
use anvil_model::time::{Moment, WallTime};
use futures_util::FutureExt;
use tokio::sync::Semaphore;

use super::super::client::{COMMIT_ANSWER_WAIT, COMMIT_DEADLINE, Client, LOOK_UP_DEADLINE};
use super::super::mutation::{BucketRef, Change, Mutation, Outcome};
use super::super::query::{Answer, Query};
use super::*;

/// A clock that stands still until the test lets it run. There are no disks.
#[derive(Clone, Default)]
struct Clock {
    nanos: Rc<Cell<u64>>,
}

struct Never;

impl Deref for Never {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &[]
    }
}

impl DerefMut for Never {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut []
    }
}

impl Buffer for Never {
    fn split_to(&mut self, _: usize) -> Self {
        unreachable!("there are no buffers")
    }
    fn unsplit(self, _: Self) -> Self {
        self
    }
}

impl Task for Never {
    fn detach(self) {}
}

#[derive(Clone)]
struct NoDevice;

impl Device for NoDevice {
    type Buffer = Never;
    fn geometry(&self) -> Geometry {
        unreachable!("there are no disks")
    }
    fn size_bytes(&self) -> u64 {
        unreachable!("there are no disks")
    }
    fn read(
        &self,
        _: u64,
        _: Never,
        _: Range<usize>,
    ) -> impl Future<Output = (Result<(), DeviceError>, Never)> + 'static {
        pending()
    }
    fn write(
        &self,
        _: u64,
        _: Never,
        _: Range<usize>,
    ) -> impl Future<Output = (Result<(), DeviceError>, Never)> + 'static {
        pending()
    }
    fn flush(&self) -> impl Future<Output = Result<(), DeviceError>> + 'static {
        pending()
    }
    fn grow(&self, _: u64) -> impl Future<Output = Result<(), DeviceError>> + 'static {
        pending()
    }
}

impl World for Clock {
    type Buffer = Never;
    type Device = NoDevice;
    type Task = Never;

    fn core(&self) -> CoreId {
        CoreId(0)
    }
    fn core_count(&self) -> u16 {
        1
    }
    fn now(&self) -> Moment {
        Moment { nanos: self.nanos.get() }
    }
    fn wall_clock(&self) -> WallTime {
        WallTime { unix_ms: 0 }
    }
    fn random(&self) -> u64 {
        4
    }
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let (clock, until) = (self.clone(), self.now() + duration);
        // The test polls everything whenever it has changed something, so nobody needs a waker.
        poll_fn(move |_| if clock.now() >= until { Poll::Ready(()) } else { Poll::Pending })
    }
    fn spawn(&self, _: impl Future<Output = ()> + 'static) -> Never {
        unreachable!("the service spawns nothing")
    }
    fn buffer(&self, _: Reserve) -> impl Future<Output = Never> + 'static {
        pending()
    }
}

/// Metadata that notes what arrives and answers a batch when it is let go.
struct Slow {
    commits: RefCell<Vec<Vec<Mutation>>>,
    look_ups: RefCell<Vec<usize>>,
    commits_let_go: Semaphore,
    look_ups_let_go: Semaphore,
    /// The answer to every commit is lost; whether it happened is what was asked for.
    loses_answers: Cell<bool>,
    known: RefCell<BTreeMap<WriteId, Outcome>>,
}

impl Slow {
    fn new() -> Self {
        Self {
            commits: RefCell::default(),
            look_ups: RefCell::default(),
            commits_let_go: Semaphore::new(0),
            look_ups_let_go: Semaphore::new(0),
            loses_answers: Cell::default(),
            known: RefCell::default(),
        }
    }
}

impl Metadata for Slow {
    async fn commit(&self, batch: Arc<[Mutation]>) -> Vec<Result<Outcome, MetadataError>> {
        self.commits.borrow_mut().push(batch.to_vec());
        self.commits_let_go.acquire().await.unwrap().forget();
        let answer = |_: &Mutation| {
            if self.loses_answers.get() { Err(MetadataError::Unknown) } else { Ok(Outcome::ObjectDeleted) }
        };
        batch.iter().map(answer).collect()
    }

    async fn look_up(&self, batch: Vec<Query>) -> Vec<Result<Answer, MetadataError>> {
        self.look_ups.borrow_mut().push(batch.len());
        self.look_ups_let_go.acquire().await.unwrap().forget();
        let answer = |query: &Query| match query {
            Query::Write(write) => Ok(Answer::Write(self.known.borrow().get(write).cloned())),
            _ => Ok(Answer::Blob(None)),
        };
        batch.iter().map(answer).collect()
    }
}

/// Everything together, polled by hand.
struct Bench {
    clock: Clock,
    metadata: Rc<Slow>,
    client: Client<Clock>,
    service: Pin<Box<dyn Future<Output = ()>>>,
}

const SMALL: Limits = Limits {
    queue: 16,
    mutations: 4,
    bytes: 1 << 20,
    mutations_per_target: usize::MAX,
    queries: 3,
    look_ups_in_flight: 2,
};

impl Bench {
    fn new(limits: Limits) -> Self {
        let (clock, metadata) = (Clock::default(), Rc::new(Slow::new()));
        let (mailboxes, inbox) = mailboxes(limits);
        let client = Client::new(clock.clone(), mailboxes);
        let service = Service::new(clock.clone(), Rc::clone(&metadata), inbox, limits);
        Self { clock, metadata, client, service: Box::pin(service.run()) }
    }

    /// Lets the service go as far as it can.
    fn settle(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..8 {
            assert!(self.service.as_mut().poll(&mut context).is_pending(), "a client is left");
        }
    }

    fn commit(&self, name: &str, write: u128) -> Pin<Box<dyn Future<Output = Result<Outcome, MetadataError>>>> {
        let bucket = BucketRef { id: BucketId(1), tenant: TenantId(1), generation: Generation(1) };
        let key = Key::new(name.as_bytes().to_vec()).unwrap();
        let change = Change::DeleteObject { bucket, key, conditions: WriteConditions::default() };
        let client = self.client.clone();
        let mut sent = Box::pin(async move { client.commit_as(Mutation { write: WriteId(write), change }).await });
        // Polled once, it has been sent, or was turned away.
        match poll(&mut sent) {
            Some(answer) => Box::pin(async { answer }),
            None => sent,
        }
    }

    fn look_up(&self) -> Pin<Box<dyn Future<Output = Result<Answer, MetadataError>>>> {
        let client = self.client.clone();
        let mut sent = Box::pin(async move { client.look_up(Query::Counters).await });
        assert!(poll(&mut sent).is_none());
        sent
    }

    /// The write ids of each batch that arrived so far.
    fn batches(&self) -> Vec<Vec<u128>> {
        let ids = |batch: &Vec<Mutation>| batch.iter().map(|mutation| mutation.write.0).collect();
        self.metadata.commits.borrow().iter().map(ids).collect()
    }

    fn let_a_commit_go(&mut self) {
        self.metadata.commits_let_go.add_permits(1);
        self.settle();
    }

    fn let_a_look_up_go(&mut self) {
        self.metadata.look_ups_let_go.add_permits(1);
        self.settle();
    }

    fn wait(&mut self, duration: Duration) {
        self.clock.nanos.set((self.clock.now() + duration).nanos);
        self.settle();
    }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = Context::from_waker(Waker::noop());
    match future.poll_unpin(&mut context) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn unavailable<T>() -> Option<Result<T, MetadataError>> {
    Some(Err(MetadataError::Unavailable { retry_after: RETRY_AFTER }))
}

/// While a batch is in flight the next one fills; a batch is in the order of keys and no longer than allowed.
#[test]
fn a_batch_fills_while_another_is_in_flight() {
    let mut bench = Bench::new(SMALL);
    let mut waiting = vec![bench.commit("m", 1)];
    bench.settle();
    assert_eq!(bench.batches(), [vec![1]], "a lone request waits for nobody");
    waiting.extend([("d", 2), ("a", 3), ("c", 4), ("a", 5), ("b", 6)].map(|(key, write)| bench.commit(key, write)));
    bench.settle();
    assert_eq!(bench.batches().len(), 1, "one batch is in flight at a time");
    assert!(waiting.iter_mut().all(|commit| poll(commit).is_none()));
    bench.let_a_commit_go();
    assert_eq!(bench.batches()[1..], [vec![3, 5, 4, 2]], "by key, and by arrival within a key");
    assert_eq!(poll(&mut waiting[0]), Some(Ok(Outcome::ObjectDeleted)));
    bench.let_a_commit_go();
    assert_eq!(bench.batches()[2..], [vec![6]], "four at most");
    bench.let_a_commit_go();
    assert!(waiting[1..].iter_mut().all(|commit| poll(commit) == Some(Ok(Outcome::ObjectDeleted))));
}

/// Bytes close a batch too, and a mutation that is too large for any is alone.
#[test]
fn a_batch_is_bounded_in_bytes() {
    let mut bench = Bench::new(Limits { bytes: 600, ..SMALL });
    let _first = bench.commit("first", 1);
    bench.settle();
    let long = "l".repeat(900);
    let _waiting = [("a", 2), ("b", 3), ("c", 4), (long.as_str(), 5)].map(|(key, write)| bench.commit(key, write));
    for _ in 0..4 {
        bench.let_a_commit_go();
    }
    assert_eq!(bench.batches()[1..], [vec![2, 3], vec![4], vec![5]]);
}

/// Where a key fits only once into a batch, its writes wait for one another in order, and for nobody else.
#[test]
fn a_hot_key_delays_only_itself() {
    let mut bench = Bench::new(Limits { mutations_per_target: 1, ..SMALL });
    let _first = bench.commit("first", 0);
    bench.settle();
    let mut hot = [1, 2, 3].map(|write| bench.commit("hot", write));
    let _cold = [("a", 10), ("b", 11), ("z", 12)].map(|(key, write)| bench.commit(key, write));
    bench.let_a_commit_go();
    bench.let_a_commit_go();
    bench.let_a_commit_go();
    // The third waited when half a batch of its key was waiting already.
    assert_eq!(bench.batches()[1..], [vec![10, 11, 1, 12], vec![2]]);
    assert_eq!(poll(&mut hot[2]), unavailable());
    assert_eq!(poll(&mut hot[0]), Some(Ok(Outcome::ObjectDeleted)));
}

/// A full queue turns callers away at once.
#[test]
fn a_full_queue_answers_early() {
    let mut bench = Bench::new(Limits { queue: 2, ..SMALL });
    let mut waiting: Vec<_> = (0..3).map(|write| bench.commit("k", write)).collect();
    assert_eq!(poll(&mut waiting[2]), unavailable());
    bench.settle();
    bench.let_a_commit_go();
    assert_eq!(poll(&mut waiting[0]), Some(Ok(Outcome::ObjectDeleted)));
}

/// A commit that nobody waits for is left out while it is not sent; once sent it happens.
#[test]
fn a_cancel_takes_back_only_what_is_not_sent() {
    let mut bench = Bench::new(SMALL);
    let sent = bench.commit("a", 1);
    bench.settle();
    let not_sent = bench.commit("b", 2);
    let kept = bench.commit("c", 3);
    drop(sent);
    drop(not_sent);
    bench.let_a_commit_go();
    assert_eq!(bench.batches(), [vec![1], vec![3]]);
    drop(kept);
}

/// A commit that waited too long is not sent; the caller of one that was sent learns that it is unknown.
#[test]
fn deadlines_hold_before_and_after_sending() {
    let mut bench = Bench::new(SMALL);
    let mut sent = bench.commit("a", 1);
    bench.settle();
    let _late = bench.commit("b", 2);
    bench.wait(COMMIT_ANSWER_WAIT);
    assert_eq!(poll(&mut sent), None, "it asks what became of it");
    bench.let_a_commit_go();
    assert_eq!(bench.batches(), [vec![1]], "the late one is not sent");
    let mut look_up = bench.look_up();
    bench.settle();
    bench.wait(LOOK_UP_DEADLINE);
    assert_eq!(poll(&mut look_up), unavailable());
}

/// Look-ups go on while a commit is in flight, in batches of their own, a bounded number at a time.
#[test]
fn look_ups_do_not_wait_for_commits() {
    let mut bench = Bench::new(SMALL);
    let _commit = bench.commit("k", 1);
    let mut waiting: Vec<_> = (0..8).map(|_| bench.look_up()).collect();
    bench.settle();
    assert_eq!(*bench.metadata.look_ups.borrow(), [3, 3], "two batches of three, and the rest waits");
    bench.let_a_look_up_go();
    assert_eq!(*bench.metadata.look_ups.borrow(), [3, 3, 2]);
    bench.let_a_look_up_go();
    bench.let_a_look_up_go();
    assert!(waiting.iter_mut().all(|look_up| poll(look_up).is_some_and(|answer| answer.is_ok())));
    assert_eq!(bench.batches(), [vec![1]], "the commit still is in flight");
}

/// An unknown commit is asked for by its write id: found it is an answer, otherwise it stays unknown.
#[test]
fn an_unknown_commit_is_asked_for() {
    let mut bench = Bench::new(SMALL);
    bench.metadata.loses_answers.set(true);
    bench.metadata.look_ups_let_go.add_permits(1000);
    let mut happened = bench.commit("a", 1);
    let mut lost = bench.commit("b", 2);
    bench.settle();
    bench.let_a_commit_go();
    assert_eq!((poll(&mut happened), poll(&mut lost)), (None, None));
    let outcome = Outcome::OrphansClaimed(3);
    bench.metadata.known.borrow_mut().insert(WriteId(1), outcome.clone());
    let (mut first, mut second) = (None, None);
    for _ in 0..60 {
        bench.wait(Duration::from_millis(100));
        first = first.or_else(|| poll(&mut happened));
        second = second.or_else(|| poll(&mut lost));
        if first.is_some() && second.is_some() {
            break;
        }
    }
    assert_eq!(first, Some(Ok(outcome)));
    assert_eq!(second, Some(Err(MetadataError::Unknown)));
    assert_eq!(bench.batches(), [vec![1, 2]], "nothing is sent twice");
}

/// Goal: a change is answered within its deadline, whatever does not answer. Method: the answer to the commit is lost, or late,
/// and no look-up is answered.
#[test]
fn an_unknown_commit_is_given_up_in_time() {
    const STEP: Duration = Duration::from_millis(50);
    for loses_answers in [true, false] {
        let mut bench = Bench::new(SMALL);
        bench.metadata.loses_answers.set(loses_answers);
        let mut commit = bench.commit("a", 1);
        bench.settle();
        if loses_answers {
            bench.let_a_commit_go();
        }
        let mut answer = None;
        for _ in 0..COMMIT_DEADLINE.as_millis() / STEP.as_millis() {
            answer = answer.or_else(|| poll(&mut commit));
            bench.wait(STEP);
        }
        assert!(!bench.metadata.look_ups.borrow().is_empty(), "it was asked for");
        assert_eq!(answer.or_else(|| poll(&mut commit)), Some(Err(MetadataError::Unknown)));
    }
}

/// The service ends when nobody is left who could ask, after the last answer.
#[test]
fn it_ends_with_its_last_client() {
    let mut bench = Bench::new(SMALL);
    let mut commit = bench.commit("a", 1);
    bench.settle();
    let upload = bench.client.new_upload();
    assert_eq!(upload, UploadId(4 << 64 | 4));
    let Bench { metadata, client, service, .. } = bench;
    drop(client);
    let mut service = pin!(service);
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.as_mut().poll(&mut context).is_pending());
    metadata.commits_let_go.add_permits(1);
    let _ = service.as_mut().poll(&mut context);
    assert_eq!(poll(&mut commit), Some(Ok(Outcome::ObjectDeleted)));
    drop(commit);
    assert!(service.as_mut().poll(&mut context).is_ready());
}
