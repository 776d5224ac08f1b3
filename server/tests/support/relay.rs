//! A way to a TCP server that can be slow, or stand still. What was sent arrives in the end, in order and whole.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Listens on a port of 127.0.0.1 until it is dropped.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How long whatever the server sends is under way.
    delay_ms: AtomicU64,
    stands_still: AtomicBool,
    ended: AtomicBool,
}

impl Relay {
    /// A way to this port of 127.0.0.1.
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let state: Arc<State> = Arc::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.ended.load(Ordering::Relaxed) {
                    return;
                }
                // Where nobody listens the client finds its connection closed.
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                for end in [&client, &server] {
                    end.set_nodelay(true).expect("it is open");
                }
                let ends = |from: &TcpStream, to: &TcpStream| (from.try_clone().unwrap(), to.try_clone().unwrap());
                for (from_server, (from, to)) in [(false, ends(&client, &server)), (true, ends(&server, &client))] {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.carry(from, to, from_server));
                }
            }
        });
        Self { port, state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whatever the server sends from now on arrives so much later.
    pub fn delay(&self, delay: Duration) {
        self.state.delay_ms.store(u64::try_from(delay.as_millis()).expect("short"), Ordering::Relaxed);
    }

    /// Nothing arrives, in either direction, until it does again.
    pub fn stand_still(&self, stands_still: bool) {
        self.state.stands_still.store(stands_still, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        // The thread that listens hears of it.
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

impl State {
    fn carry(&self, mut from: TcpStream, mut to: TcpStream, from_server: bool) {
        from.set_read_timeout(Some(TICK)).expect("a time is taken");
        let mut bytes = vec![0; 64 << 10];
        while !self.ended.load(Ordering::Relaxed) {
            let count = match from.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            let read = Instant::now();
            // Looked at again and again, so that what is under way arrives when the delay ends.
            while !self.ended.load(Ordering::Relaxed) && self.is_under_way(read.elapsed(), from_server) {
                thread::sleep(TICK / 10);
            }
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    }

    fn is_under_way(&self, since: Duration, from_server: bool) -> bool {
        let delay = Duration::from_millis(self.delay_ms.load(Ordering::Relaxed));
        self.stands_still.load(Ordering::Relaxed) || from_server && since < delay
    }
}

const TICK: Duration = Duration::from_millis(20);
