//! Which core serves a new connection: the one with the fewest.
//!
//! The kernel spreads connections over the listening sockets of an address by a hash, which leaves cores idle when there
//! are few. So whoever accepts one gives it to the core that has the least to do among those that listen at the same
//! address; there it stays.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anvil_model::ids::CoreId;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::socket::Socket;
use crate::stats::CoreStats;

/// The listeners of all cores. Asked once per connection, so a lock costs nothing here.
#[derive(Debug)]
pub(crate) struct Placement {
    doors: Mutex<Doors>,
    stats: Arc<[Arc<CoreStats>]>,
}

#[derive(Debug, Default)]
struct Doors {
    by_address: BTreeMap<SocketAddr, Vec<Door>>,
    id_next: u64,
}

/// A listener that takes connections in.
#[derive(Debug)]
struct Door {
    id: u64,
    core: CoreId,
    inbox: Sender<Guest>,
}

/// An accepted connection on its way to its core, and who is on its other end.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) socket: Socket,
    pub(crate) peer: SocketAddr,
}

/// One open connection of a core, counted as long as this exists.
#[derive(Debug)]
pub(crate) struct Load {
    stats: Arc<CoreStats>,
}

impl Load {
    fn on(stats: &Arc<CoreStats>) -> Self {
        stats.connections_open.add(1);
        Self { stats: Arc::clone(stats) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stats.connections_open.subtract(1);
    }
}

/// A listener's entry, until it is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    placement: Arc<Placement>,
    address: SocketAddr,
    core: CoreId,
    id: u64,
    /// What other cores accepted for this one.
    pub(crate) inbox: Receiver<Guest>,
}

impl Placement {
    pub(crate) fn new(stats: Arc<[Arc<CoreStats>]>) -> Arc<Self> {
        Arc::new(Self { doors: Mutex::default(), stats })
    }

    /// From now on this core takes connections to `address`.
    pub(crate) fn enter(self: &Arc<Self>, address: SocketAddr, core: CoreId) -> Entry {
        let (sender, inbox) = mpsc::channel(INBOX_MAX);
        let mut doors = self.lock();
        let id = doors.id_next;
        doors.id_next += 1;
        doors.by_address.entry(address).or_default().push(Door { id, core, inbox: sender });
        drop(doors);
        Entry { placement: Arc::clone(self), address, core, id, inbox }
    }

    /// The place for one more connection, counted at once, so that the next one sees it. Among equals it is the core
    /// that does the least now, and then the one that asks.
    fn choose(&self, address: SocketAddr, here: CoreId) -> (Load, Option<Sender<Guest>>) {
        let doors = self.lock();
        let stats = |core: CoreId| &self.stats[usize::from(core.0)];
        let load = |door: &&Door| {
            let stats = stats(door.core);
            (stats.connections_open.value(), stats.operations_live.value(), door.core != here)
        };
        let chosen = doors.by_address.get(&address).and_then(|doors| doors.iter().min_by_key(load));
        match chosen {
            Some(door) if door.core != here => (Load::on(stats(door.core)), Some(door.inbox.clone())),
            _ => (Load::on(stats(here)), None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Doors> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Finds a place for a connection that was accepted here; gives it back if that is this core.
    pub(crate) fn place(&self, fd: OwnedFd, peer: SocketAddr) -> Option<Guest> {
        let (load, inbox) = self.placement.choose(self.address, self.core);
        let guest = Guest { socket: Socket::counted(fd, load), peer };
        let Some(inbox) = inbox else { return Some(guest) };
        // The other core is slow to take its connections in, or has just stopped listening.
        let refused = inbox.try_send(guest).err()?.into_inner();
        let here = &self.placement.stats[usize::from(self.core.0)];
        Some(Guest { socket: refused.socket.moved(Load::on(here)), peer })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut doors = self.placement.lock();
        if let Some(at) = doors.by_address.get_mut(&self.address) {
            at.retain(|door| door.id != self.id);
            if at.is_empty() {
                doors.by_address.remove(&self.address);
            }
        }
    }
}

/// Connections that wait to be taken in by a core; what is beyond stays with the core that accepted it.
const INBOX_MAX: usize = 64;
