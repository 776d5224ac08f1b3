//! A thousand slow clients cost nobody else: heads that trickle, bodies that trickle and stop, answers that are hardly
//! read, all at once, while others put and get objects of 1 MiB beside them. Rounds with and without the slow clients
//! alternate, so that both see the same machine, and each pair of rounds has its own ratio: what else the machine does
//! hits some of them, what slow clients cost hits all, so that the median of the pairs is judged.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::content::Content;
use support::node::{Node, Options, scratch};
use support::s3::Body;

const SLOW_CLIENTS: usize = 1000;
const OBJECT_BYTES: usize = 1 << 20;
const FAST_CLIENTS: usize = 2;
/// Pairs of rounds, one without slow clients and one with all of them.
const PAIRS: usize = 5;
/// PUTs, and as many GETs, of a fast client in a round.
const EXCHANGES: usize = 100;
/// What slow readers ask for: more than the sockets between them and the server hold.
const LARGE_BYTES: u64 = 32 << 20;
/// The p99 with slow clients may be so many times that without.
const RATIO_MAX: f64 = 2.0;
/// Latencies below this are not told apart: one turn of the scheduler on a busy machine.
const NOTICEABLE: Duration = Duration::from_millis(20);
/// For how long the slow clients may keep the node busy with what it owes them at first.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(60);
/// Who waits this long has been starved.
const LATENCY_MAX: Duration = Duration::from_secs(20);

#[test]
fn a_thousand_slow_clients_cost_nobody_else() {
    let directory = scratch();
    let node = Node::start_with(&directory.path().join("data"), &Options::default());
    let mut client = node.client();
    client.put("/slow", b"").unwrap().succeeded();
    let large = Content { seed: 1, length: LARGE_BYTES };
    client.put("/slow/large", &large.bytes()).unwrap().succeeded();

    measure(&node); // Both sides get warm.
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        let alone = measure(&node);
        let slow = Crowd::gather(&node);
        let beside = measure(&node);
        let left = slow.disperse();
        assert!(left >= SLOW_CLIENTS * 9 / 10, "only {left} slow clients were there to the end");
        pairs.push((alone, beside));
    }
    compare("PUT", &mut pairs, |latencies| &mut latencies.puts);
    compare("GET", &mut pairs, |latencies| &mut latencies.gets);
    let memory = node.memory_bytes("VmHWM");
    println!("peak memory of the node: {} MiB", memory >> 20);
    assert!(memory < 512 << 20, "the slow clients take {memory} bytes");
    node.stop();
}

/// Prints the latencies of all pairs and judges them.
fn compare(name: &str, pairs: &mut [(Latencies, Latencies)], of: fn(&mut Latencies) -> &mut Vec<Duration>) {
    let mut ratios = Vec::new();
    for (alone, beside) in pairs {
        let (alone, beside) = (of(alone), of(beside));
        let [p50, p99] = [50, 99].map(|percent| (percentile(alone, percent), percentile(beside, percent)));
        println!(
            "{name} p50 {:.2?} without, {:.2?} with {SLOW_CLIENTS} slow clients; p99 {:.2?}, {:.2?}",
            p50.0, p50.1, p99.0, p99.1
        );
        ratios.push(p99.1.max(NOTICEABLE).as_secs_f64() / p99.0.max(NOTICEABLE).as_secs_f64());
        assert!(beside.iter().all(|&latency| latency < LATENCY_MAX), "a fast client was starved");
    }
    ratios.sort_unstable_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!("{name} ratios of p99: {ratios:.2?}");
    assert!(median <= RATIO_MAX, "{name}: the p99 is {median:.2} times what it is without slow clients");
}

#[derive(Default)]
struct Latencies {
    puts: Vec<Duration>,
    gets: Vec<Duration>,
}

fn percentile(latencies: &mut [Duration], percent: usize) -> Duration {
    latencies.sort_unstable();
    latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)]
}

/// A round: every fast client puts and gets its objects, and compares them.
fn measure(node: &Node) -> Latencies {
    let mut all = Latencies::default();
    let fast: Vec<JoinHandle<Latencies>> = (0..FAST_CLIENTS)
        .map(|number| {
            let mut client = node.client();
            thread::spawn(move || {
                let mut latencies = Latencies::default();
                let path = format!("/slow/fast-{number}");
                for turn in 0..EXCHANGES {
                    let bytes = Content { seed: turn as u64, length: OBJECT_BYTES as u64 }.bytes();
                    let began = Instant::now();
                    client.put(&path, &bytes).unwrap().succeeded();
                    latencies.puts.push(began.elapsed());
                    let began = Instant::now();
                    let answer = client.get(&path).unwrap().succeeded();
                    latencies.gets.push(began.elapsed());
                    assert!(answer.body == bytes, "other bytes come back");
                }
                latencies
            })
        })
        .collect();
    for client in fast {
        let Latencies { puts, gets } = client.join().unwrap();
        all.puts.extend(puts);
        all.gets.extend(gets);
    }
    all
}

/// The slow clients, driven by one thread that goes from one to the next.
struct Crowd {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Crowd {
    /// Connects all of them and waits until each has made its first slow step, and the node has done what it can for
    /// them: a thousand that arrive at once are work like any other.
    fn gather(node: &Node) -> Self {
        let slow: Vec<Slow> = (0..SLOW_CLIENTS).map(|number| Slow::begin(node, number)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (begun, all_begun) = channel();
        let thread = thread::spawn(move || crawl(slow, &stopped, &begun));
        all_begun.recv().unwrap();
        let began = Instant::now();
        let mut sent = sent_bytes(node);
        loop {
            thread::sleep(Duration::from_millis(500));
            let now = sent_bytes(node);
            if now - sent < SETTLED_BYTES {
                break;
            }
            sent = now;
            assert!(began.elapsed() < SETTLE_TIME_MAX, "the node is still sending to clients that hardly read");
        }
        Self { stop, thread }
    }

    /// Ends them; gives how many were still being served.
    fn disperse(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// What the slow readers take in half a second, generously, and the page that says so.
const SETTLED_BYTES: f64 = (8 << 20) as f64;

fn sent_bytes(node: &Node) -> f64 {
    let metrics = node.metrics();
    let lines = metrics.lines().filter(|line| line.starts_with("anvil_socket_sent_bytes_total"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[derive(Clone, Copy)]
enum Kind {
    /// Sends a head, byte by byte.
    Head,
    /// Sends some of its body at once, the rest in pieces with long pauses.
    Body,
    /// Asks for an object and reads it in pieces with long pauses.
    Reader,
}

struct Slow {
    kind: Kind,
    stream: TcpStream,
}

impl Slow {
    fn begin(node: &Node, number: usize) -> Self {
        let kind = [Kind::Head, Kind::Body, Kind::Reader][number % 3];
        let mut stream = connect(node.address);
        match kind {
            Kind::Head => stream.write_all(b"PUT /slow/never HTTP/1.1\r\nHost: ").unwrap(),
            Kind::Body => {
                let content = Content { seed: 0, length: 3 << 20 };
                let body = Body::Streamed { content, offset: 0, length: content.length };
                let head = node.client().head_of("PUT", &format!("/slow/body-{number}"), &[], body);
                stream.write_all(head.as_bytes()).unwrap();
                // From nothing at all to most of a window, and into the second one.
                let sent = [0, 1, 1000, 100_000, 300_000, 1_100_000][number / 3 % 6];
                stream.write_all(&vec![b'x'; sent]).unwrap();
            }
            Kind::Reader => {
                let head = node.client().head_of("GET", "/slow/large", &[], Body::Signed(b""));
                stream.write_all(head.as_bytes()).unwrap();
            }
        }
        stream.set_nonblocking(true).unwrap();
        Self { kind, stream }
    }

    /// A little more; false when the server has closed.
    fn crawl(&mut self) -> bool {
        let mut buffer = [0; 8 << 10];
        let result = match self.kind {
            Kind::Head => self.stream.write(b"a"),
            Kind::Body => self.stream.write(&buffer[..2000]),
            Kind::Reader => match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                result => result,
            },
        };
        match result {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(30)).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Each client moves a little about once in a second, until it is time to stop.
fn crawl(mut slow: Vec<Slow>, stop: &AtomicBool, begun: &Sender<()>) -> usize {
    let pause = Duration::from_secs(1) / u32::try_from(slow.len()).unwrap();
    let mut alive = vec![true; slow.len()];
    while !stop.load(Ordering::Relaxed) {
        for (client, alive) in slow.iter_mut().zip(&mut alive) {
            *alive = *alive && client.crawl();
            thread::sleep(pause);
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        // Nobody listens any more behind the first time.
        begun.send(()).ok();
    }
    alive.into_iter().filter(|&alive| alive).count()
}
