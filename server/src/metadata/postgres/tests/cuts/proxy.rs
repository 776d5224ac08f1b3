//! Stands between a node and its database, knows where messages begin (PostgreSQL documentation, "Message Formats"), and cuts a
//! connection where it is told to.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// Where the next transaction's connection is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// Whether it is a transaction that reads, or one that changes something.
    pub(super) reads: bool,
    /// Whose message does not arrive.
    pub(super) from: Side,
    /// Which, counted from the one that begins the transaction.
    pub(super) message: usize,
    /// Whether half of it does.
    pub(super) half: bool,
}

pub(super) struct Proxy {
    port: u16,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    point: Option<Point>,
    was_cut: bool,
    stopped: bool,
    connections: BTreeMap<usize, Connection>,
}

struct Connection {
    ends: [TcpStream; 2],
    /// Whether the transaction reads, and its messages so far, by side; `None` before the first one.
    counted: Option<(bool, [usize; 2])>,
}

/// What becomes of a message.
enum Fate {
    Arrives,
    /// This many of its bytes do, and the connection ends.
    Cut(usize),
}

impl Proxy {
    pub(super) fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let client = client.unwrap();
                if of_thread.lock().unwrap().stopped {
                    return;
                }
                // A server that takes no connection ends the client's, as it would without a proxy.
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                connect(&of_thread, number, client, server);
            }
        });
        Self { port, shared }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts the connection of the next transaction there, if anywhere.
    pub(super) fn arm(&self, point: Option<Point>) {
        let mut shared = self.shared.lock().unwrap();
        (shared.point, shared.was_cut) = (point, false);
    }

    /// Cuts no more. Whether it did since it was armed.
    pub(super) fn disarm(&self) -> bool {
        let mut shared = self.shared.lock().unwrap();
        shared.point = None;
        shared.was_cut
    }

    /// Ends the connections over which something was changed.
    pub(super) fn cut_writers(&self) {
        let shared = self.shared.lock().unwrap();
        let writers = shared.connections.values().filter(|connection| matches!(connection.counted, Some((false, _))));
        writers.for_each(Connection::end);
    }

    /// Takes no more connections.
    pub(super) fn stop(&self) {
        let mut shared = self.shared.lock().unwrap();
        shared.stopped = true;
        shared.connections.values().for_each(Connection::end);
        drop(shared);
        // The thread looks when somebody comes.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Connection {
    fn end(&self) {
        for end in &self.ends {
            // It may have ended already.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn connect(shared: &Arc<Mutex<Shared>>, number: usize, client: TcpStream, server: TcpStream) {
    for end in [&client, &server] {
        end.set_nodelay(true).unwrap();
    }
    let ends = [client.try_clone().unwrap(), server.try_clone().unwrap()];
    shared.lock().unwrap().connections.insert(number, Connection { ends, counted: None });
    for (side, from, to) in
        [(Side::Client, client.try_clone().unwrap(), server.try_clone().unwrap()), (Side::Server, server, client)]
    {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // An end of either side is the end of both.
            let _ = carry(&shared, number, side, from, to);
            if let Some(connection) = shared.lock().unwrap().connections.remove(&number) {
                connection.end();
            }
        });
    }
}

fn carry(shared: &Mutex<Shared>, number: usize, side: Side, from: TcpStream, mut to: TcpStream) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    // The first message of a client has no letter before its length.
    let mut letter = usize::from(side == Side::Server);
    loop {
        let mut message = vec![0; letter + 4];
        from.read_exact(&mut message)?;
        let length = u32::from_be_bytes(message[letter..].try_into().unwrap());
        message.resize(letter + usize::try_from(length).unwrap(), 0);
        from.read_exact(&mut message[letter + 4..])?;
        letter = 1;
        let fate = shared.lock().unwrap().fate(number, side, &message);
        match fate {
            Fate::Arrives => to.write_all(&message)?,
            Fate::Cut(arrives) => return to.write_all(&message[..arrives]),
        }
    }
}

impl Shared {
    fn fate(&mut self, number: usize, side: Side, message: &[u8]) -> Fate {
        let Some(connection) = self.connections.get_mut(&number) else { return Fate::Cut(0) };
        if side == Side::Client && message[0] == b'Q' {
            let begins = message[5..].starts_with(b"BEGIN");
            if begins {
                let reads = message.windows(9).any(|bytes| bytes == b"READ ONLY".as_slice());
                connection.counted = Some((reads, [0, 0]));
            }
        }
        let Some((reads, counted)) = &mut connection.counted else { return Fate::Arrives };
        let counted = &mut counted[side as usize];
        let this = *counted;
        *counted += 1;
        match self.point {
            Some(point) if (point.reads, point.from, point.message) == (*reads, side, this) => {
                (self.point, self.was_cut) = (None, true);
                Fate::Cut(if point.half { message.len() / 2 } else { 0 })
            }
            _ => Fate::Arrives,
        }
    }
}
