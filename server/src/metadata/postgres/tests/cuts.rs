//! Connections that end at any message, and nodes that are in each other's way.

mod proxy;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anvil_model::object::WriteConditions;
use anvil_node::metadata::Refusal;
use anvil_node::metadata::mutation::Change;
use anvil_node::metadata::suite::{Dice, histories};

use super::writer::{Writer, audit};
use super::*;
use proxy::{Point, Proxy, Side};

/// A node's metadata behind a proxy, on a database that holds nothing.
fn behind_a_proxy() -> (Proxy, String, Postgres, PostgresThread) {
    let server = server();
    let proxy = Proxy::start(server.port());
    let (name, seen) = fresh_named();
    let url = format!("postgres://postgres@127.0.0.1:{}/{name}?sslmode=disable", proxy.port());
    let regional = Database::parse("regional", &url).unwrap();
    let databases = Databases { global: Database::parse("global", &server.url(&name)).unwrap(), regional };
    let (postgres, thread) =
        Postgres::start(databases, NodeId(1), seen, Box::new(|_, _| {}), Box::new(|_| {})).unwrap();
    (proxy, name, postgres, thread)
}

/// Goal: whenever a connection ends while a batch is committed, what became of it is found out: what was acknowledged is there,
/// what was said not to have happened did not, and nothing happens twice. Method: a proxy that cuts the connection of the
/// commit before the n-th message of either side, or in the midst of it, for every n, on a connection that has its statements
/// prepared and on a new one. Each batch replaces a version, makes or deletes another one, and shares the first one's bytes.
#[test]
fn a_commit_is_cut_at_every_message() {
    let (proxy, name, postgres, thread) = behind_a_proxy();
    let (mut rounds, mut cuts) = (0_usize, 0_usize);
    let begun = Instant::now();
    block_on(async {
        let mut writer = Writer::open(&postgres, 1).await;
        let bucket = writer.create_bucket().await;
        let mut round = async |writer: &mut Writer<'_, Postgres>, point: Option<Point>| {
            rounds += 1;
            let kept = writer.object();
            let etag = kept.etag.clone();
            let second = if rounds.is_multiple_of(2) {
                writer.delete(bucket, "b")
            } else {
                let object = writer.object();
                writer.put(bucket, "b", object, WriteConditions { absent: true, ..WriteConditions::default() })
            };
            let batch =
                vec![writer.put(bucket, "a", kept, WriteConditions::default()), second, writer.copy(bucket, "a", "c")];
            proxy.arm(point);
            let outcomes = writer.send_all(batch).await;
            let was_cut = proxy.disarm();
            cuts += usize::from(was_cut);
            // `absent` holds and the deleted key is there, unless something of a round before was lost or made twice.
            assert!(outcomes.iter().all(Result::is_ok), "{point:?}: {outcomes:?}");
            if point.is_some() {
                assert_eq!(writer.etag_of("a").await.as_ref(), Some(&etag), "{point:?}");
                assert_eq!(writer.etag_of("b").await.is_some(), !rounds.is_multiple_of(2), "{point:?}");
            }
            was_cut
        };
        for prepared in [true, false] {
            for from in [Side::Client, Side::Server] {
                for half in [false, true] {
                    for message in 0.. {
                        if prepared {
                            round(&mut writer, None).await;
                        } else {
                            proxy.cut_writers();
                        }
                        if !round(&mut writer, Some(Point { reads: false, from, message, half })).await {
                            assert!(message > 20, "a commit has more than {message} messages from each side");
                            break;
                        }
                    }
                }
            }
        }
        println!("{cuts} cuts in {rounds} rounds and {:.1?}: {:?}", begun.elapsed(), writer.seen);
        let seen = writer.seen;
        assert!(seen.found > 0 && seen.sent_again > 0, "cuts on both sides of a commit: {seen:?}");
        assert!(seen.longest < Duration::from_secs(10), "no waiter is stuck: {seen:?}");
        let (live, garbage) = with_tokio(audit(server(), &name, bucket.id));
        assert_eq!(garbage + live, rounds + rounds.div_ceil(2), "each blob is claimed once");
    });
    drop(postgres);
    thread.join();
}

/// Metadata whose connections are cut at random while they are used.
struct Cutting<'p> {
    inner: Postgres,
    proxy: &'p Proxy,
    dice: RefCell<Dice>,
    cuts: RefCell<usize>,
}

impl Cutting<'_> {
    fn arm(&self, reads: bool, once_in: usize, messages: usize) {
        let mut dice = self.dice.borrow_mut();
        let point = Point {
            reads,
            from: *dice.pick(&[Side::Client, Side::Server]),
            message: dice.below(messages),
            half: dice.one_in(2),
        };
        self.proxy.arm(dice.one_in(once_in).then_some(point));
    }

    fn disarm(&self) {
        *self.cuts.borrow_mut() += usize::from(self.proxy.disarm());
    }
}

impl Metadata for Cutting<'static> {
    async fn commit(&self, batch: Arc<[Mutation]>) -> Vec<Result<Outcome, MetadataError>> {
        self.arm(false, 1, 60);
        let outcomes = self.inner.commit(batch).await;
        self.disarm();
        outcomes
    }

    async fn look_up(&self, queries: Vec<Query>) -> Vec<Result<Answer, MetadataError>> {
        self.arm(true, 8, 20);
        let answers = self.inner.look_up(queries).await;
        self.disarm();
        answers
    }
}

/// Goal: the same for every kind of change and any history. Method: the suite's random histories, which compare each outcome and
/// at the end every row with a model, over connections that are cut at random.
#[test]
fn histories_agree_with_a_map_over_connections_that_are_cut() {
    let seeds = std::env::var("ANVIL_CUT_SEEDS").map_or(2, |seeds| seeds.parse().unwrap());
    for seed in 1..=seeds {
        let begun = Instant::now();
        let (proxy, _, postgres, thread) = behind_a_proxy();
        let proxy: &'static Proxy = Box::leak(Box::new(proxy));
        let metadata =
            Cutting { inner: postgres, proxy, dice: RefCell::new(Dice::new(seed)), cuts: RefCell::default() };
        block_on(histories::random_histories_agree_with_a_map(&metadata));
        let cuts = metadata.cuts.take();
        println!("{cuts} cuts in {:.1?}", begun.elapsed());
        assert!(cuts > 200, "only {cuts} cuts");
        drop(metadata);
        thread.join();
        proxy.stop();
    }
}

/// Goal: nodes that write the same keys wait for each other and never fail for each other: no deadlock reaches a caller, and a
/// row that is refused is refused alone. Method: two nodes write, copy and delete a thousand keys in opposite order, each batch
/// with a condition that cannot hold; at the end every blob is held as its row says.
#[test]
fn nodes_write_the_same_keys_in_opposite_orders() {
    let (name, seen) = fresh_named();
    let start = || {
        let database = Database::parse("regional", &server().url(&name)).unwrap();
        let databases = Databases { global: database.clone(), regional: database };
        Postgres::start(databases, NodeId(1), seen, Box::new(|_, _| {}), Box::new(|_| {})).unwrap()
    };
    let (first, thread) = start();
    let bucket = block_on(async { Writer::open(&first, 1).await.create_bucket().await });
    drop(first);
    thread.join();
    let begun = Instant::now();
    let seen: Vec<_> = thread::scope(|scope| {
        let nodes = [1, 2].map(|node| {
            let start = &start;
            scope.spawn(move || {
                let (postgres, thread) = start();
                let seen = block_on(async {
                    let mut writer = Writer::open(&postgres, node).await;
                    for round in 0..ROUNDS {
                        for number in 0..KEYS / PER_BATCH {
                            one_batch(&mut writer, bucket, node, round, number).await;
                        }
                    }
                    writer.seen
                });
                drop(postgres);
                thread.join();
                seen
            })
        });
        nodes.map(|node| node.join().unwrap()).into()
    });
    let (live, garbage) = with_tokio(audit(server(), &name, bucket.id));
    let deadlocks = with_tokio(sql(
        server(),
        "postgres",
        &format!("SELECT deadlocks FROM pg_stat_database WHERE datname = '{name}'"),
    ));
    println!("{:.1?}, {live} blobs and {garbage} in the garbage, deadlocks {deadlocks:?}: {seen:?}", begun.elapsed());
    assert!(seen.iter().all(|seen| seen.unavailable + seen.found + seen.sent_again == 0), "{seen:?}");
    assert!(live > 0 && garbage > 0);
}

async fn one_batch(
    writer: &mut Writer<'_, Postgres>,
    bucket: anvil_node::metadata::mutation::BucketRef,
    node: u32,
    round: usize,
    number: usize,
) {
    let numbers = number * PER_BATCH..(number + 1) * PER_BATCH;
    let numbers: Vec<usize> =
        if node == 1 { numbers.collect() } else { numbers.map(|number| KEYS - 1 - number).collect() };
    let mut batch = Vec::new();
    for number in numbers {
        let name = format!("key{number:04}");
        batch.push(match (number + round) % 4 {
            0 => writer.copy(bucket, &name, &format!("key{:04}", (number * 7 + round) % KEYS)),
            1 => writer.delete(bucket, &name),
            _ => {
                let object = writer.object();
                writer.put(bucket, &name, object, WriteConditions::default())
            }
        });
    }
    let object = writer.object();
    let never =
        WriteConditions { etag: Some(anvil_model::object::Etag("never".to_owned())), ..WriteConditions::default() };
    batch.push(writer.put(bucket, "key0000", object, never));
    let changes: Vec<Change> = batch.iter().map(|mutation| mutation.change.clone()).collect();
    let mut outcomes = writer.send_all(batch).await;
    let refused = outcomes.pop().unwrap();
    let expected =
        [Refusal::PreconditionFailed, Refusal::NoSuchKey].map(|refusal| Err(MetadataError::Refused(refusal)));
    assert!(expected.contains(&refused), "{refused:?}");
    for (change, outcome) in changes.iter().zip(outcomes) {
        match (change, outcome) {
            (_, Ok(_)) => {}
            // The key that it would copy may be deleted, or be the key itself.
            (
                Change::CopyObject { .. },
                Err(MetadataError::Refused(Refusal::SourceChanged | Refusal::InvalidRequest(_))),
            ) => {}
            (change, outcome) => panic!("{change:?} came to {outcome:?}"),
        }
    }
}

const KEYS: usize = 1000;
const PER_BATCH: usize = 250;
const ROUNDS: usize = 6;
