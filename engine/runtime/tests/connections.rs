//! TCP: bytes arrive whole and in order, whichever way they are received, and a shortage passes.

mod common;

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anvil_model::io::{Reserve, World};
use anvil_model::limits::BUFFER_BYTES;
use anvil_runtime::net::{Connection, Listener, Received};
use anvil_runtime::{Core, Options};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use common::{options, pattern, pattern_bytes, run, run_one, settled, wait_until};

fn listen(core: &Core) -> Listener {
    Listener::bind(core, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
}

/// A connection to a peer that is an ordinary blocking socket.
async fn pair(core: &Core) -> (Connection, TcpStream) {
    let mut listener = listen(core);
    let peer = TcpStream::connect(listener.local_addr()).unwrap();
    let (connection, address) = listener.accept().await.unwrap();
    assert_eq!(address, peer.local_addr().unwrap());
    (connection, peer)
}

/// What goes to an echo comes back, over both of the peer's ways to send.
#[test]
fn an_echo_answers() {
    run_one(|core| async move {
        let mut listener = listen(&core);
        let address = listener.local_addr();
        let serving = core.clone();
        let _server = core.spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let core = serving.clone();
                anvil_model::io::Task::detach(serving.spawn(async move {
                    connection.set_nodelay(true).unwrap();
                    loop {
                        let received = connection.receive().await.unwrap();
                        if received.is_empty() {
                            break;
                        }
                        let bytes = received.to_vec();
                        drop(received);
                        let count = bytes.len();
                        connection.send(bytes, 0..count).await.0.unwrap();
                    }
                    connection.shutdown().unwrap();
                    drop(core);
                }));
            }
        });
        let connection = Connection::connect(&core, address).await.unwrap();
        let (mut reader, mut writer) = connection.split();
        let total = 300_000;
        let sending = core.spawn(async move {
            let (result, _) = writer.send(pattern_bytes(0, total), 0..total).await;
            result.unwrap();
            writer.shutdown().unwrap();
        });
        let mut seen = 0;
        loop {
            let received = reader.receive().await.unwrap();
            if received.is_empty() {
                break;
            }
            assert!(received.iter().zip(seen..).all(|(&byte, index)| byte == pattern(index)));
            seen += received.len();
        }
        assert_eq!(seen, total);
        drop(sending);
    });
}

/// A peer that reads nothing gets no more than the limit beside what its own socket takes, and all of it when it reads.
#[test]
fn a_peer_that_does_not_read_is_not_sent_much() {
    const UNSENT_BYTES_MAX: usize = 128 << 10;
    const ALL_BYTES: usize = 8 << 20;
    run_one(|core| async move {
        let (mut connection, mut peer) = pair(&core).await;
        connection.set_unsent_max(UNSENT_BYTES_MAX as u32).unwrap();
        let (mut bytes, mut sent) = (pattern_bytes(0, ALL_BYTES), 0);
        loop {
            let (result, returned) = connection.send_within(bytes, sent..ALL_BYTES, Duration::from_millis(200)).await;
            let taken = result.unwrap();
            (bytes, sent) = (returned, sent + taken);
            if taken == 0 {
                break;
            }
        }
        // What the peer's socket takes is up to its kernel: 64 KiB at first, hardly more for who does not read.
        assert!((UNSENT_BYTES_MAX / 2..1 << 20).contains(&sent), "{sent} bytes are in the sockets");
        let reading = thread::spawn(move || {
            let mut read = Vec::new();
            peer.read_to_end(&mut read).unwrap();
            read
        });
        let (result, bytes) = connection.send(bytes, sent..ALL_BYTES).await;
        result.unwrap();
        connection.shutdown().unwrap();
        drop(connection);
        assert!(reading.join().unwrap() == bytes, "other bytes came");
    });
}

/// A head and a body arrive as one stream, also with an empty head, an empty body, and a body larger than what the
/// socket takes at once.
#[test]
fn a_head_goes_with_its_body() {
    run_one(|core| async move {
        let (mut connection, mut peer) = pair(&core).await;
        let reading = thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all
        });
        let mut expected = Vec::new();
        for (head, range) in
            [(100, 4096..BUFFER_BYTES), (0, 10..20), (50, 7..7), (0, 0..0), (1, BUFFER_BYTES - 1..BUFFER_BYTES)]
        {
            let mut body = core.buffer(Reserve::Foreground).await;
            body.copy_from_slice(&pattern_bytes(head, BUFFER_BYTES));
            expected.extend(vec![b'h'; head]);
            expected.extend(&body[range.clone()]);
            let (result, returned, _body) = connection.send_with_head(vec![b'h'; head], body, range).await;
            result.unwrap();
            assert_eq!(returned.len(), head);
        }
        drop(connection);
        assert!(reading.join().unwrap() == expected);
    });
}

/// How the reading side takes the next bytes.
#[derive(Clone, Copy, Debug)]
enum Step {
    Receive,
    ReceiveInto(usize),
    Fill(usize),
    /// Starts to fill, and is dropped after some polls.
    DropFill(usize, usize),
    DropReceiveInto(usize, usize),
    DropReceive(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Receive),
        2 => (1..20_000_usize).prop_map(Step::ReceiveInto),
        2 => (1..20_000_usize).prop_map(Step::Fill),
        1 => (1..20_000_usize, 0..6_usize).prop_map(|(count, polls)| Step::DropFill(count, polls)),
        1 => (1..20_000_usize, 0..6_usize).prop_map(|(count, polls)| Step::DropReceiveInto(count, polls)),
        1 => (0..6_usize).prop_map(Step::DropReceive),
    ]
}

/// Takes one step; gives the bytes it got, `None` at the end of the stream.
async fn take(core: &Core, connection: &mut Connection, step: Step) -> Option<Vec<u8>> {
    const AT: usize = 100;
    let cut = |(result, buffer): (std::io::Result<usize>, anvil_runtime::Buffer), wanted: usize, all: bool| {
        let count = result.unwrap();
        assert!(count <= wanted);
        let ended = if all { count < wanted } else { count == 0 };
        (!ended || count > 0).then(|| buffer[AT..AT + count].to_vec())
    };
    let bytes = |received: Received| (!received.is_empty()).then(|| received.to_vec());
    match step {
        Step::Receive => bytes(connection.receive().await.unwrap()),
        Step::ReceiveInto(count) => {
            let buffer = core.buffer(Reserve::Foreground).await;
            cut(connection.receive_into(buffer, AT..AT + count).await, count, false)
        }
        Step::Fill(count) => {
            let buffer = core.buffer(Reserve::Foreground).await;
            cut(connection.fill(buffer, AT..AT + count).await, count, true)
        }
        Step::DropFill(count, polls) => {
            let buffer = core.buffer(Reserve::Foreground).await;
            let filling = connection.fill(buffer, AT..AT + count);
            match common::poll_some(core, polls, filling).await {
                Some(outcome) => cut(outcome, count, true),
                None => Some(Vec::new()),
            }
        }
        Step::DropReceiveInto(count, polls) => {
            let buffer = core.buffer(Reserve::Foreground).await;
            let receiving = connection.receive_into(buffer, AT..AT + count);
            match common::poll_some(core, polls, receiving).await {
                Some(outcome) => cut(outcome, count, false),
                None => Some(Vec::new()),
            }
        }
        Step::DropReceive(polls) => match common::poll_some(core, polls, connection.receive()).await {
            Some(received) => bytes(received.unwrap()),
            None => Some(Vec::new()),
        },
    }
}

/// However a stream is cut by the sender and by the reader, and however often the reader changes between its two ways
/// to receive or gives up on the way, every byte comes once and in order.
#[test]
fn the_two_ways_to_receive_hand_over_every_byte() {
    const TOTAL: usize = 150_000;
    run_one(|core| async move {
        let mut runner =
            TestRunner::new(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() });
        let strategy = (
            proptest::collection::vec(any_step(), 1..12),
            proptest::collection::vec(1..30_000_usize, 1..8),
            proptest::collection::vec(any::<bool>(), 8),
        );
        for _ in 0..60 {
            let (mut steps, pieces, pauses) = strategy.new_tree(&mut runner).unwrap().current();
            // One that does not give up, or the plan could have no end.
            steps.push(Step::Receive);
            let (mut connection, mut peer) = pair(&core).await;
            peer.set_nodelay(true).unwrap();
            let (plan, waits) = (pieces.clone(), pauses.clone());
            let writing = thread::spawn(move || {
                let mut sent = 0;
                for (piece, pause) in plan.iter().cycle().zip(waits.iter().cycle()) {
                    let count = (*piece).min(TOTAL - sent);
                    peer.write_all(&pattern_bytes(sent, count)).unwrap();
                    sent += count;
                    if *pause {
                        thread::yield_now();
                    }
                    if sent == TOTAL {
                        return;
                    }
                }
            });
            let mut seen = 0;
            for step in steps.iter().cycle() {
                let Some(bytes) = take(&core, &mut connection, *step).await else { break };
                for byte in bytes {
                    assert_eq!(byte, pattern(seen), "byte {seen} with {steps:?} of {pieces:?} {pauses:?}");
                    seen += 1;
                }
                // A step that gave up must not spin without letting anything arrive.
                core.yield_now().await;
            }
            writing.join().unwrap();
            assert_eq!(seen, TOTAL, "{steps:?} of {pieces:?} {pauses:?}");
            drop(connection);
            settled(&core, 1).await;
        }
    });
}

/// Many connections that send more than there are receive buffers, and readers that come late: nobody starves, nobody
/// keeps the buffers from others, and no byte is lost.
#[test]
fn a_shortage_of_receive_buffers_passes() {
    let few = Options { receive_buffers_per_core: 2, receive_buffer_bytes: 512, ..options(1) };
    run(few, |core| async move {
        const CONNECTIONS: usize = 24;
        const BYTES: usize = 40_000;
        let done = Rc::new(Cell::new(0));
        let mut tasks = Vec::new();
        let mut peers = Vec::new();
        for number in 0..CONNECTIONS {
            let (mut connection, mut peer) = pair(&core).await;
            peers.push(thread::spawn(move || {
                peer.write_all(&pattern_bytes(number, BYTES)).unwrap();
                peer
            }));
            let (core, done) = (core.clone(), Rc::clone(&done));
            tasks.push(core.clone().spawn(async move {
                let mut seen = 0;
                while seen < BYTES {
                    let received = connection.receive().await.unwrap();
                    assert!(received.iter().zip(number + seen..).all(|(&byte, index)| byte == pattern(index)));
                    seen += received.len();
                    drop(received);
                    if number % 3 == 0 && seen < 3_000 {
                        core.sleep(Duration::from_millis(3)).await;
                    }
                }
                done.set(done.get() + 1);
            }));
        }
        wait_until(&core, "all connections", || done.get() == CONNECTIONS).await;
        for peer in peers {
            peer.join().unwrap();
        }
        drop(tasks);
        settled(&core, 1).await;
    });
}

/// A connection that nobody reads from holds few buffers, however much its peer sends; others go on.
#[test]
fn an_idle_reader_does_not_hold_the_buffers() {
    run_one(|core| async move {
        let mut idle = Vec::new();
        for _ in 0..8 {
            let (mut connection, mut peer) = pair(&core).await;
            peer.write_all(b"x").unwrap();
            assert_eq!(*connection.receive().await.unwrap(), *b"x");
            // The receive is armed now, and nobody asks for more.
            peer.set_nonblocking(true).unwrap();
            let written = peer.write(&pattern_bytes(0, 200_000)).unwrap();
            assert!(written > 100_000);
            idle.push((connection, peer, written));
        }
        let (mut connection, mut peer) = pair(&core).await;
        for round in 0..20 {
            peer.write_all(&[round]).unwrap();
            assert_eq!(*connection.receive().await.unwrap(), [round]);
        }
        assert!(core.stats().receive_spills.value() > 0);
        for (mut connection, _peer, written) in idle {
            let mut seen = 0;
            while seen < written {
                let received = connection.receive().await.unwrap();
                assert!(received.iter().zip(seen..).all(|(&byte, index)| byte == pattern(index)));
                seen += received.len();
            }
        }
    });
}

/// A connection that found no receive buffer goes on when one comes back, and one that gives up while it is its turn
/// passes the turn on.
#[test]
fn a_buffer_that_comes_back_wakes_who_waits() {
    let few = Options { receive_buffers_per_core: 2, receive_buffer_bytes: 512, ..options(1) };
    run(few, |core| async move {
        let mut pairs = Vec::new();
        for _ in 0..4 {
            let (connection, mut peer) = pair(&core).await;
            peer.write_all(b"hello").unwrap();
            pairs.push((connection, peer));
        }
        let mut waiting = pairs.split_off(2);
        let mut held = Vec::new();
        for (connection, _) in &mut pairs {
            held.push(connection.receive().await.unwrap());
        }
        assert_eq!(core.stats().receive_buffers_free.value(), 0);
        let seen = Rc::new(Cell::new(0));
        let mut tasks = Vec::new();
        for _ in 0..2 {
            let ((mut connection, peer), seen) = (waiting.remove(0), Rc::clone(&seen));
            tasks.push(core.spawn(async move {
                assert_eq!(*connection.receive().await.unwrap(), *b"hello");
                seen.set(seen.get() + 1);
                drop(peer);
            }));
        }
        core.sleep(Duration::from_millis(20)).await;
        assert_eq!(seen.get(), 0);
        // The first is called by the buffer that comes back, and goes away before it can answer.
        held.pop();
        drop(tasks.remove(0));
        wait_until(&core, "the second has its turn", || seen.get() == 1).await;
    });
}

/// A peer that breaks the connection is an error of the operation under way, and never a signal.
#[test]
fn a_broken_connection_is_an_error() {
    run_one(|core| async move {
        let (mut connection, peer) = pair(&core).await;
        drop(peer);
        assert!(connection.receive().await.unwrap().is_empty());
        assert!(connection.receive().await.unwrap().is_empty(), "the end stays the end");
        let buffer = core.buffer(Reserve::Foreground).await;
        assert_eq!(connection.fill(buffer, 0..100).await.0.unwrap(), 0);
        let error = loop {
            if let Err(error) = connection.send(vec![0; 4096], 0..4096).await.0 {
                break error;
            }
        };
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
        let again = connection.send(vec![0; 1], 0..1).await.0.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::BrokenPipe);
        let nobody = listen(&core).local_addr();
        let refused = Connection::connect(&core, nobody).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

/// Two cores listen on one address and both get connections.
#[test]
fn cores_share_an_address() {
    let (sender, addresses) = mpsc::channel();
    let address = Arc::new(OnceLock::new());
    let counts = Arc::new([const { std::sync::atomic::AtomicUsize::new(0) }; 2]);
    let counted = Arc::clone(&counts);
    let client = thread::spawn(move || {
        let address: SocketAddr = addresses.recv().unwrap();
        for _ in 0..200 {
            let mut stream = TcpStream::connect(address).unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
        }
    });
    run(options(2), move |core| {
        let (sender, address, counts) = (sender.clone(), Arc::clone(&address), Arc::clone(&counted));
        async move {
            let index = usize::from(core.core().0);
            let mut listener = if index == 0 {
                let listener = listen(&core);
                address.set(listener.local_addr()).unwrap();
                listener
            } else {
                wait_until(&core, "the first core listens", || address.get().is_some()).await;
                let listener = Listener::bind(&core, *address.get().unwrap()).unwrap();
                sender.send(listener.local_addr()).unwrap();
                listener
            };
            let counting = Arc::clone(&counts);
            let _server = core.spawn(async move {
                loop {
                    let (mut connection, _) = listener.accept().await.unwrap();
                    connection.send(vec![1], 0..1).await.0.unwrap();
                    counting[index].fetch_add(1, Relaxed);
                }
            });
            wait_until(&core, "200 connections", || counts.iter().map(|c| c.load(Relaxed)).sum::<usize>() == 200).await;
        }
    });
    client.join().unwrap();
    for count in counts.iter() {
        assert!(count.load(Relaxed) > 0, "{counts:?}");
    }
}

/// Connections are placed by load: two on two cores land on different ones, eight are four and four, and when those of
/// one core have closed, the next ones go there. The kernel's hash alone would do that once in many runs.
#[test]
fn connections_are_placed_by_load() {
    let (addresses, address) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopping, shared) = (Arc::clone(&stop), Arc::new(OnceLock::new()));
    let client = thread::spawn(move || {
        let address: SocketAddr = address.recv().unwrap();
        // Gives the connection and the core that it is on.
        let connect = || {
            let mut stream = TcpStream::connect(address).unwrap();
            let mut core = [0];
            stream.read_exact(&mut core).unwrap();
            (usize::from(core[0]), stream)
        };
        let count = |open: &[(usize, TcpStream)]| [0, 1].map(|core| open.iter().filter(|(on, _)| *on == core).count());
        let mut open: Vec<_> = (0..2).map(|_| connect()).collect();
        assert_eq!(count(&open), [1, 1]);
        open.extend((0..6).map(|_| connect()));
        assert_eq!(count(&open), [4, 4]);
        for core in [0, 1] {
            // The server closes a connection when its peer has, and then sends nothing more: wait for that.
            for (on, stream) in &mut open {
                if *on == core {
                    stream.shutdown(std::net::Shutdown::Write).unwrap();
                    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
                }
            }
            open.retain(|(on, _)| *on != core);
            open.extend((0..4).map(|_| connect()));
            assert_eq!(count(&open), [4, 4], "after those of core {core} had closed");
        }
        stopping.store(true, Relaxed);
    });
    run(options(2), move |core| {
        let (addresses, shared, stop) = (addresses.clone(), Arc::clone(&shared), Arc::clone(&stop));
        async move {
            let mut listener = if core.core().0 == 0 {
                let listener = listen(&core);
                shared.set(listener.local_addr()).unwrap();
                listener
            } else {
                wait_until(&core, "the first core listens", || shared.get().is_some()).await;
                let listener = Listener::bind(&core, *shared.get().unwrap()).unwrap();
                addresses.send(listener.local_addr()).unwrap();
                listener
            };
            let serving = core.clone();
            let _server = core.spawn(async move {
                loop {
                    let (mut connection, _) = listener.accept().await.unwrap();
                    let stats = serving.stats();
                    let id = u8::try_from(serving.core().0).unwrap();
                    anvil_model::io::Task::detach(serving.spawn(async move {
                        connection.send(vec![id], 0..1).await.0.unwrap();
                        assert!(connection.receive().await.unwrap().is_empty());
                        assert!(stats.connections_open.value() > 0);
                    }));
                }
            });
            wait_until(&core, "the client is done", || stop.load(Relaxed)).await;
        }
    });
    client.join().unwrap();
}

/// A receive with a limit gives its buffer back with what came until then, and no byte is lost between it and the
/// receives behind it, whatever they are.
#[test]
fn a_buffer_does_not_wait_for_a_slow_peer() {
    run_one(|core| async move {
        let (mut connection, mut peer) = pair(&core).await;
        let limit = Duration::from_millis(20);
        let mut at = 0;
        for (sent, again) in [(0, 1), (1, 70_000), (70_000, 3), (5000, 5000)] {
            let buffer = core.buffer(Reserve::Foreground).await;
            peer.write_all(&pattern_bytes(at, sent)).unwrap();
            let (result, buffer) = connection.fill_within(buffer, 100..BUFFER_BYTES, limit).await;
            assert_eq!(result.unwrap(), sent);
            assert!(buffer[100..100 + sent] == pattern_bytes(at, sent));
            drop(buffer);
            at += sent;

            peer.write_all(&pattern_bytes(at, again)).unwrap();
            let received = connection.receive().await.unwrap();
            assert!(*received == pattern_bytes(at, received.len()));
            at += received.len();
            let rest = again - received.len();
            drop(received);
            let buffer = core.buffer(Reserve::Foreground).await;
            let (result, buffer) = connection.fill_within(buffer, 0..rest, limit).await;
            assert_eq!(result.unwrap(), rest);
            assert!(buffer[..rest] == pattern_bytes(at, rest));
            at += rest;
        }
        drop(peer);
        let buffer = core.buffer(Reserve::Foreground).await;
        let (result, _) = connection.fill_within(buffer, 0..10, limit).await;
        assert_eq!(result.unwrap(), 0, "the end of the stream");
        drop(connection);
        settled(&core, 1).await;
    });
}

/// A send with a limit says exactly how much of it the peer will get, and the stream goes on from there.
#[test]
fn a_send_says_how_far_it_came() {
    run_one(|core| async move {
        let (mut connection, peer) = pair(&core).await;
        let limit = Duration::from_millis(20);
        let (mut sent, mut short) = (0, 0);
        // More than both sockets hold, with the head that goes in front of each third piece.
        for turn in 0..30 {
            let mut buffer = core.buffer(Reserve::Foreground).await;
            let head = if turn % 3 == 0 { pattern_bytes(sent, 1000) } else { Vec::new() };
            buffer.copy_from_slice(&pattern_bytes(sent + head.len(), BUFFER_BYTES));
            let all = head.len() + BUFFER_BYTES;
            let (result, buffer) = if head.is_empty() {
                connection.send_within(buffer, 0..BUFFER_BYTES, limit).await
            } else {
                let (result, _, buffer) = connection.send_with_head_within(head, buffer, 0..BUFFER_BYTES, limit).await;
                (result, buffer)
            };
            drop(buffer);
            let count = result.unwrap();
            short += usize::from(count < all);
            sent += count;
            if turn == 20 {
                // From here on there is somebody who reads.
                let mut reading = peer.try_clone().unwrap();
                thread::spawn(move || {
                    let mut all = Vec::new();
                    reading.read_to_end(&mut all).unwrap();
                    reading.write_all(&(all.len() as u64).to_le_bytes()).unwrap();
                    assert!(all == pattern_bytes(0, all.len()), "bytes are lost, doubled or exchanged");
                    reading.write_all(b"!").unwrap();
                });
            }
        }
        assert!(short > 5, "a peer that does not read is noticed: {short}");
        connection.shutdown().unwrap();
        let buffer = core.buffer(Reserve::Foreground).await;
        let (result, buffer) = connection.fill(buffer, 0..9).await;
        assert_eq!(result.unwrap(), 9, "the peer has read all, and found nothing wrong");
        assert_eq!((&buffer[..8], buffer[8]), (&(sent as u64).to_le_bytes()[..], b'!'));
        drop(peer);
    });
}

/// All of the above on the blocking driver.
#[test]
fn also_without_io_uring() {
    common::also_without_io_uring();
}
