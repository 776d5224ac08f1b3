//! Dropping the future of each kind of operation at each of its awaits, with data in flight: no buffer, descriptor or
//! operation is left over, and what comes after it is right.

mod common;

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use anvil_model::io::{Device as _, Reserve, World};
use anvil_model::limits::BUFFER_BYTES;
use anvil_runtime::net::{Connection, Listener};
use anvil_runtime::{Buffer, Core, Disk, DiskOptions};
use tempfile::TempDir;

use common::{alone, open_files, pattern, pattern_bytes, poll_some, run_one, settled};

/// More polls than any operation here needs to complete.
const POLLS_MAX: usize = 12;
const MIB: u64 = 1 << 20;

/// Runs `case` with every number of polls, several times each; after each the core must have everything back.
fn at_every_await<F, Fut>(case: F)
where
    F: Fn(Core, usize) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let _alone = alone();
    check_at_every_await(case);
}

fn check_at_every_await<F, Fut>(case: F)
where
    F: Fn(Core, usize) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let before = open_files();
    let case = std::sync::Arc::new(case);
    run_one(move |core| {
        let case = std::sync::Arc::clone(&case);
        async move {
            settled(&core, 1).await;
            let files = open_files();
            for polls in 0..POLLS_MAX {
                for _ in 0..8 {
                    case(core.clone(), polls).await;
                    settled(&core, 1).await;
                    assert_eq!(open_files(), files, "after {polls} polls");
                }
            }
        }
    });
    assert_eq!(open_files(), before);
}

fn with_disk<F, Fut>(case: F)
where
    F: Fn(Core, usize, anvil_runtime::Device) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    // First, because making and removing a directory opens it.
    let _alone = alone();
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_owned();
    check_at_every_await(move |core, polls| {
        let options = DiskOptions { create: true, reserve_percent: 0, ..DiskOptions::default() };
        let disk = Disk::open(&path, &options).unwrap_or_else(|error| panic!("{error}"));
        let device = disk.device(&core);
        let case = case(core, polls, device.clone());
        async move {
            device.grow(4 * MIB).await.unwrap();
            drop(device);
            case.await;
        }
    });
}

async fn buffer(core: &Core) -> Buffer {
    core.buffer(Reserve::Foreground).await
}

/// Writes `mark` everywhere in the first MiB and reads it back.
async fn check_disk(core: &Core, device: &anvil_runtime::Device, mark: u8) {
    let mut out = buffer(core).await;
    out.fill(mark);
    let (result, mut back) = device.write(0, out, 0..1 << 20).await;
    result.unwrap();
    back.fill(!mark);
    let (result, back) = device.read(0, back, 0..1 << 20).await;
    result.unwrap();
    assert!(back[..1 << 20].iter().all(|&byte| byte == mark));
}

#[test]
fn reads() {
    with_disk(|core, polls, device| async move {
        check_disk(&core, &device, 1).await;
        let read = device.read(0, buffer(&core).await, 0..1 << 20);
        if let Some((result, buffer)) = poll_some(&core, polls, read).await {
            result.unwrap();
            assert!(buffer[..1 << 20].iter().all(|&byte| byte == 1));
        }
        check_disk(&core, &device, 2).await;
    });
}

#[test]
fn writes() {
    with_disk(|core, polls, device| async move {
        check_disk(&core, &device, 1).await;
        let mut out = buffer(&core).await;
        out.fill(9);
        // A cancelled write may have happened in any part, but only where it was to.
        drop(poll_some(&core, polls, device.write(MIB, out, 4096..4096 + (1 << 20))).await);
        settled(&core, 1).await;
        let (result, read) = device.read(0, buffer(&core).await, 0..1 << 20).await;
        result.unwrap();
        assert!(read[..1 << 20].iter().all(|&byte| byte == 1));
        drop(read);
        check_disk(&core, &device, 3).await;
    });
}

#[test]
fn flushes() {
    with_disk(|core, polls, device| async move {
        check_disk(&core, &device, 1).await;
        if let Some(result) = poll_some(&core, polls, device.flush()).await {
            result.unwrap();
        }
        device.flush().await.unwrap();
    });
}

#[test]
fn growth() {
    with_disk(|core, polls, device| async move {
        let size = device.size_bytes();
        let grown = poll_some(&core, polls, device.grow(size + 2 * MIB)).await;
        assert_eq!(device.size_bytes(), if grown.is_some() { size + 2 * MIB } else { size });
        // The turn to grow is free again, and nothing of the attempt is in the way.
        device.grow(size + 3 * MIB).await.unwrap();
        assert_eq!(device.size_bytes(), size + 3 * MIB);
        let (result, read) = device.read(size, buffer(&core).await, 0..1 << 20).await;
        result.unwrap();
        assert!(read[..1 << 20].iter().all(|&byte| byte == 0));
    });
}

fn listen(core: &Core) -> Listener {
    Listener::bind(core, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
}

async fn pair(core: &Core) -> (Connection, TcpStream) {
    let mut listener = listen(core);
    let peer = TcpStream::connect(listener.local_addr()).unwrap();
    (listener.accept().await.unwrap().0, peer)
}

/// No connection is lost by a dropped accept; those that nobody fetched are closed with the listener.
#[test]
fn accepts() {
    at_every_await(|core, polls| async move {
        let mut listener = listen(&core);
        let mut peers: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(listener.local_addr()).unwrap()).collect();
        let mut accepted: Vec<Connection> = Vec::new();
        accepted.extend(poll_some(&core, polls, listener.accept()).await.map(|outcome| outcome.unwrap().0));
        while accepted.len() < 2 {
            accepted.push(listener.accept().await.unwrap().0);
        }
        drop(listener);
        settled(&core, 1).await;
        // The third is closed by nobody's hand but the listener's.
        peers[2].set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let ended = peers[2].read(&mut [0]);
        let closed = match &ended {
            Ok(count) => *count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        };
        assert!(closed, "{ended:?}");
        for (mut connection, peer) in accepted.into_iter().zip(&mut peers) {
            peer.write_all(b"hello").unwrap();
            assert_eq!(*connection.receive().await.unwrap(), *b"hello");
        }
    });
}

#[test]
fn connects() {
    at_every_await(|core, polls| async move {
        let mut listener = listen(&core);
        let address = listener.local_addr();
        let attempt = poll_some(&core, polls, Connection::connect(&core, address)).await;
        let mut connection = Connection::connect(&core, address).await.unwrap();
        connection.send(b"hello".to_vec(), 0..5).await.0.unwrap();
        // The first one, if it got through, has sent nothing.
        drop(attempt);
        let text = loop {
            let (mut accepted, _) = listener.accept().await.unwrap();
            if let Ok(received) = accepted.receive().await
                && !received.is_empty()
            {
                break received.to_vec();
            }
        };
        assert_eq!(text, b"hello");
    });
}

/// Which receive is dropped.
#[derive(Clone, Copy)]
enum Receive {
    Small,
    Into,
    Fill,
}

/// Bytes keep coming while receives are dropped; none is lost or repeated.
fn receives(kind: Receive) {
    at_every_await(move |core, polls| async move {
        const PIECE: usize = 5_000;
        let (mut connection, mut peer) = pair(&core).await;
        let mut sent = 0;
        let mut seen = 0;
        for round in 0..4 {
            peer.write_all(&pattern_bytes(sent, PIECE)).unwrap();
            sent += PIECE;
            let mut got: Vec<u8> = Vec::new();
            match kind {
                Receive::Small => {
                    let received = poll_some(&core, polls, connection.receive()).await;
                    got.extend(received.iter().flat_map(|received| received.as_ref().unwrap().iter()));
                }
                Receive::Into => {
                    let receiving = connection.receive_into(buffer(&core).await, 10..10 + 2 * PIECE);
                    if let Some((count, buffer)) = poll_some(&core, polls, receiving).await {
                        got.extend(&buffer[10..10 + count.unwrap()]);
                    }
                }
                Receive::Fill => {
                    // More than was sent: it cannot complete, and has bytes when it is dropped.
                    let filling = connection.fill(buffer(&core).await, 10..10 + 6 * PIECE);
                    assert!(poll_some(&core, polls, filling).await.is_none());
                }
            }
            // Change the way to receive now and then.
            if round == 1 && seen + got.len() < sent {
                got.extend(connection.receive().await.unwrap().iter());
            }
            for byte in got {
                assert_eq!(byte, pattern(seen), "byte {seen}");
                seen += 1;
            }
        }
        let left = sent - seen;
        if left > 0 {
            let (result, buffer) = connection.fill(buffer(&core).await, 0..left).await;
            assert_eq!(result.unwrap(), left);
            assert!(buffer[..left] == pattern_bytes(seen, left));
        }
        // The last one is dropped with the connection while it waits.
        drop(poll_some(&core, polls, connection.receive()).await);
    });
}

#[test]
fn small_receives() {
    receives(Receive::Small);
}

#[test]
fn receives_into_buffers() {
    receives(Receive::Into);
}

#[test]
fn fills() {
    receives(Receive::Fill);
}

/// A receive into a buffer that is dropped gives the buffer back, although the peer says nothing.
#[test]
fn a_dropped_receive_gives_its_buffer_back() {
    at_every_await(|core, polls| async move {
        let (mut connection, mut peer) = pair(&core).await;
        let waiting = connection.receive_into(buffer(&core).await, 0..100);
        assert!(poll_some(&core, polls, waiting).await.is_none());
        settled(&core, 1).await;
        peer.write_all(b"late").unwrap();
        assert_eq!(*connection.receive().await.unwrap(), *b"late");
    });
}

/// A receive that the kernel has not seen yet when its connection is dropped does not reach another file that got the
/// same number.
#[test]
fn an_operation_never_reaches_another_file() {
    let _alone = alone();
    run_one(|core| async move {
        let (mut dropped, _peer) = pair(&core).await;
        let (other, mut sender) = {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (listener.accept().unwrap().0, sender)
        };
        sender.write_all(b"for the other").unwrap();
        settled(&core, 1).await;
        {
            let mut receiving = std::pin::pin!(dropped.receive());
            let polled = poll_fn(|context| Poll::Ready(receiving.as_mut().poll(context))).await;
            assert!(polled.is_pending());
        }
        drop(dropped);
        // Each takes the lowest number that is free: one of them the number in question, if that is free.
        let mut others: Vec<TcpStream> = (0..20).map(|_| other.try_clone().unwrap()).collect();
        settled(&core, 1).await;
        others[0].set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut text = [0; 13];
        others[0].read_exact(&mut text).unwrap();
        assert_eq!(text, *b"for the other");
    });
}

/// The same for an accept: the listener that gets the number of a dropped one keeps its connections.
#[test]
fn an_accept_never_reaches_another_listener() {
    let _alone = alone();
    run_one(|core| async move {
        let other = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let _peer = TcpStream::connect(other.local_addr().unwrap()).unwrap();
        let mut dropped = listen(&core);
        settled(&core, 1).await;
        {
            let mut accepting = std::pin::pin!(dropped.accept());
            let polled = poll_fn(|context| Poll::Ready(accepting.as_mut().poll(context))).await;
            assert!(polled.is_pending());
        }
        drop(dropped);
        let others: Vec<_> = (0..20).map(|_| other.try_clone().unwrap()).collect();
        settled(&core, 1).await;
        others[0].set_nonblocking(true).unwrap();
        assert!(others[0].accept().is_ok(), "somebody else took its connection");
    });
}

/// Waiting for the peer to go away takes nothing from who receives, and can be given up.
#[test]
fn hang_ups() {
    at_every_await(|core, polls| async move {
        let (mut connection, mut peer) = pair(&core).await;
        peer.write_all(b"last words").unwrap();
        assert!(poll_some(&core, polls, connection.hung_up()).await.is_none(), "the peer is there");
        let hung_up = connection.hung_up();
        drop(peer);
        hung_up.await;
        assert_eq!(*connection.receive().await.unwrap(), *b"last words");
        connection.hung_up().await;
    });
}

/// What a dropped send left in the stream is a prefix, and nothing follows it.
fn sends(with_head: bool) {
    at_every_await(move |core, polls| async move {
        let (mut connection, mut peer) = pair(&core).await;
        let mut body = buffer(&core).await;
        let head = pattern_bytes(0, 1000);
        body.copy_from_slice(&pattern_bytes(if with_head { 1000 } else { 0 }, BUFFER_BYTES));
        // Fill the socket first, so that the send cannot complete by itself.
        let started = Rc::new(Cell::new(false));
        let finished = {
            let started = Rc::clone(&started);
            let sending = async {
                started.set(true);
                if with_head {
                    connection.send_with_head(head, body, 0..BUFFER_BYTES).await.0
                } else {
                    connection.send(body, 0..BUFFER_BYTES).await.0
                }
            };
            poll_some(&core, polls, sending).await
        };
        let after = connection.send(b"after".to_vec(), 0..5).await.0;
        match (&finished, started.get()) {
            (Some(Ok(())), _) | (None, false) => after.unwrap(),
            (None, true) => assert_eq!(after.unwrap_err().kind(), ErrorKind::BrokenPipe),
            (Some(Err(error)), _) => panic!("{error}"),
        }
        drop(connection);
        settled(&core, 1).await;
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        let all = all.strip_suffix(b"after").unwrap_or(&all);
        assert!(all.iter().enumerate().all(|(index, &byte)| byte == pattern(index)), "not a prefix");
    });
}

#[test]
fn sends_of_one_piece() {
    sends(false);
}

#[test]
fn sends_with_a_head() {
    sends(true);
}

/// Waiting for buffers and for time holds nothing when it is dropped.
#[test]
fn waits() {
    at_every_await(|core, polls| async move {
        let mut all = Vec::new();
        for _ in 0..core.stats().buffers_total.value() {
            all.push(core.buffer(Reserve::Progress).await);
        }
        assert!(poll_some(&core, polls, core.buffer(Reserve::Foreground)).await.is_none());
        assert!(poll_some(&core, polls, core.buffer(Reserve::Progress)).await.is_none());
        assert!(poll_some(&core, polls, core.sleep(Duration::from_secs(3600))).await.is_none());
        drop(all);
        drop(buffer(&core).await);
    });
}

/// All of the above on the blocking driver.
#[test]
fn also_without_io_uring() {
    common::also_without_io_uring();
}
