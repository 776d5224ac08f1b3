//! The door of one core: accepts connections, looks at their first bytes, hands them to a protocol, and sees them off
//! when the node stops. A connection stays on the core where the runtime placed it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anvil_model::io::World;
use anvil_runtime::net::{Connection, Listener};
use anvil_runtime::{Core, Task};
use futures_util::future::{Either, join_all, ready, select};
use tokio::sync::{Notify, Semaphore};

use crate::http::{DateCache, ReceiveError, Service};
use crate::http1::{self, Patience, Refusal, Settings, Wire};
use crate::http2;
use crate::telemetry::{self, CoreCounters};
use crate::tls::Tls;

/// The listening sockets of one core, not yet served.
#[derive(Debug)]
pub struct Frontend {
    core: Core,
    listeners: Vec<Listener>,
}

impl Frontend {
    /// Listens on every one of these addresses (one that is there twice counts once). Other cores may listen on the
    /// same; port 0 takes a free one.
    ///
    /// # Errors
    /// Names the address that cannot be had.
    pub fn bind(core: &Core, addresses: &[SocketAddr]) -> Result<Self, BindError> {
        let mut listeners = Vec::new();
        for (at, &address) in addresses.iter().enumerate() {
            if address.port() != 0 && addresses[..at].contains(&address) {
                continue;
            }
            listeners.push(Listener::bind(core, address).map_err(|source| BindError { address, source })?);
        }
        Ok(Self { core: core.clone(), listeners })
    }

    /// Where it listens, in the order of the addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(Listener::local_addr).collect()
    }

    /// Serves until `stop` completes; then accepts no more, closes idle connections, lets running requests finish for
    /// at most [`Settings::stop_timeout`], and ends.
    pub async fn serve<S: Service>(
        mut self,
        service: Rc<S>,
        settings: Settings,
        counters: Arc<CoreCounters>,
        stop: impl Future<Output = ()>,
    ) {
        let door = Rc::new(Frontdoor::new(self.core, service, settings, counters));
        {
            let accepting = join_all(self.listeners.iter_mut().map(|listener| accept(&door, listener)));
            select(std::pin::pin!(accepting), std::pin::pin!(stop)).await;
        }
        drop(self.listeners);
        door.stop().await;
    }
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// Which.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// What the connections of a core share.
pub(crate) struct Frontdoor<S> {
    pub(crate) core: Core,
    pub(crate) service: Rc<S>,
    pub(crate) settings: Settings,
    pub(crate) counters: Arc<CoreCounters>,
    pub(crate) dates: RefCell<DateCache>,
    pub(crate) http2: http2::Shares,
    /// TLS handshakes that may run at once: each costs the core a signature.
    handshakes: Semaphore,
    /// Large heads that are in memory, see [`http1::LARGE_HEADS_MAX`].
    pub(crate) large_heads: Cell<usize>,
    guests: Guests,
    stopping: Cell<bool>,
    stop: Notify,
}

/// The tasks of the open connections. Their number is the length of the map; a task takes itself out at its end.
#[derive(Default)]
struct Guests {
    tasks: RefCell<BTreeMap<u64, Task>>,
    next_id: Cell<u64>,
    /// Connections that are being refused for want of room.
    refusing: Cell<usize>,
    emptied: Notify,
}

/// Connections that may be told at once that there is no room; beyond them they are closed without a word.
const REFUSING_MAX: usize = 64;
/// TLS handshakes of a core at once; others wait, for no longer than a head may take.
const HANDSHAKES_MAX: usize = 64;

impl<S: Service> Frontdoor<S> {
    fn new(core: Core, service: Rc<S>, settings: Settings, counters: Arc<CoreCounters>) -> Self {
        Self {
            core,
            service,
            settings,
            counters,
            dates: RefCell::default(),
            http2: http2::Shares::default(),
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            large_heads: Cell::default(),
            guests: Guests::default(),
            stopping: Cell::new(false),
            stop: Notify::new(),
        }
    }

    /// The node stops: no further request is begun.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Completes when the node stops.
    pub(crate) fn stopping(&self) -> impl Future<Output = ()> {
        // First, so that nothing is missed in between.
        let notified = self.stop.notified();
        if self.is_stopping() { Either::Left(ready(())) } else { Either::Right(notified) }
    }

    async fn stop(&self) {
        self.stopping.set(true);
        self.stop.notify_waiters();
        let emptied = async {
            loop {
                let notified = self.guests.emptied.notified();
                if self.guests.tasks.borrow().is_empty() {
                    return;
                }
                notified.await;
            }
        };
        if http1::within(&self.core, self.settings.stop_timeout, emptied).await.is_none() {
            let count = self.guests.tasks.borrow().len();
            tracing::warn!(count, "connections are closed in the middle of their requests");
        }
        // Taken out first: a task that is dropped takes itself out of the map.
        let tasks = self.guests.tasks.take();
        drop(tasks);
    }
}

/// What a connection's socket takes beside what is on its way. Else the kernel keeps up to 4 MiB for each client that
/// does not read: a thousand downloads that hang would be read from the disks for megabytes each, and take the host's
/// memory for sockets from all others.
const UNSENT_BYTES_MAX: u32 = 512 << 10;

async fn accept<S: Service>(door: &Rc<Frontdoor<S>>, listener: &mut Listener) {
    loop {
        match listener.accept().await {
            Ok((connection, peer)) => admit(door, connection, peer),
            Err(error) => {
                tracing::error!(address = %listener.local_addr(), %error, "the listener failed");
                return;
            }
        }
    }
}

fn admit<S: Service>(door: &Rc<Frontdoor<S>>, connection: Connection, peer: SocketAddr) {
    // Answers are sent whole; waiting for more to send along would only delay them.
    if connection.set_nodelay(true).is_err() || connection.set_unsent_max(UNSENT_BYTES_MAX).is_err() {
        return;
    }
    let guests = &door.guests;
    let is_full = guests.tasks.borrow().len() >= door.settings.connections_max + guests.refusing.get();
    if is_full {
        door.counters.connection_refused();
        if guests.refusing.get() >= REFUSING_MAX {
            return;
        }
    }
    let id = guests.next_id.get();
    guests.next_id.set(id + 1);
    let place = Place::take(Rc::clone(door), id, is_full);
    // On the heap, and gone when it is known what the client speaks: the task stays as large as it begins.
    let wire = Box::new(Wire::new(door.core.clone(), connection, peer));
    let task = door.core.spawn(async move {
        let life = if is_full {
            Some(refused(&place.door, *wire, http1::FULL))
        } else {
            Box::pin(greet(&place.door, *wire)).await
        };
        if let Some(life) = life {
            life.await;
        }
    });
    guests.tasks.borrow_mut().insert(id, task);
}

/// A connection's place among the guests, given up when its task ends, however it ends.
struct Place<S: Service> {
    door: Rc<Frontdoor<S>>,
    id: u64,
    is_refused: bool,
}

impl<S: Service> Place<S> {
    fn take(door: Rc<Frontdoor<S>>, id: u64, is_refused: bool) -> Self {
        door.guests.refusing.update(|count| count + usize::from(is_refused));
        Self { door, id, is_refused }
    }
}

impl<S: Service> Drop for Place<S> {
    fn drop(&mut self) {
        let guests = &self.door.guests;
        guests.refusing.update(|count| count - usize::from(self.is_refused));
        // The task that runs this is dropped here: it has no further await.
        let task = guests.tasks.borrow_mut().remove(&self.id);
        drop(task);
        if guests.tasks.borrow().is_empty() {
            guests.emptied.notify_waiters();
        }
    }
}

/// A connection from when it is known what it speaks. A connection may be idle for long: it has the memory that its protocol
/// needs, and nothing of the others'.
type Life<'d> = Pin<Box<dyn Future<Output = ()> + 'd>>;

/// Finds out what a new connection speaks; `None` when it has ended.
async fn greet<S: Service>(door: &Rc<Frontdoor<S>>, mut wire: Wire) -> Option<Life<'_>> {
    let began = door.core.now();
    let unknown = door.counters.speaks(telemetry::Protocol::Unknown);
    let protocol = loop {
        if let Some(protocol) = sniff(wire.pending()) {
            break protocol;
        }
        let left = door.settings.head_timeout.saturating_sub(door.core.now().since(began));
        let received = {
            let received = std::pin::pin!(wire.receive_within(left));
            match select(received, std::pin::pin!(door.stopping())).await {
                Either::Left((received, _)) => received,
                Either::Right(_) => return None,
            }
        };
        match received {
            Ok(1..) => {}
            // A request that ends, or stops, inside what looks like a preface is for HTTP/1.1 to refuse.
            Err(ReceiveError::TimedOut) if !wire.pending().is_empty() => break Protocol::Http1,
            _ => return None,
        }
    };
    drop(unknown);
    let tls = door.settings.tls.as_ref();
    let is_refused = tls.is_some_and(|tls| tls.is_only());
    Some(match (protocol, tls) {
        (Protocol::Http1, _) if is_refused => refused(door, wire, PLAIN),
        (Protocol::Http1, _) => Box::pin(http1::serve(door, wire)),
        (Protocol::Http2, _) if is_refused => Box::pin(turn_http2_away(door, wire)),
        (Protocol::Http2, _) => {
            let peer = wire.peer;
            Box::pin(http2::serve(door, Box::new(wire.into_stream(linger(door))), peer))
        }
        (Protocol::Tls, None) => refused(door, wire, TLS),
        (Protocol::Tls, Some(tls)) => {
            let left = door.settings.head_timeout.saturating_sub(door.core.now().since(began));
            return greet_by_tls(door, wire, tls, left).await;
        }
    })
}

fn refused<S: Service>(door: &Frontdoor<S>, wire: Wire, refusal: Refusal) -> Life<'_> {
    Box::pin(http1::refuse(door, wire, refusal))
}

fn linger<S>(door: &Frontdoor<S>) -> (Duration, u64) {
    (door.settings.linger_timeout, door.settings.linger_bytes_max)
}

/// Shakes hands within `left`, and finds out what the client chose.
async fn greet_by_tls<'d, S: Service>(
    door: &'d Rc<Frontdoor<S>>,
    wire: Wire,
    tls: &Tls,
    left: Duration,
) -> Option<Life<'d>> {
    let peer = wire.peer;
    let stream = wire.into_stream(linger(door));
    let shaken = http1::within(&door.core, left, async {
        let _turn = door.handshakes.acquire().await.ok()?;
        stream.accept_tls(tls.config()).await
    });
    let stream = match select(std::pin::pin!(shaken), std::pin::pin!(door.stopping())).await {
        Either::Left((Some(Some(stream)), _)) => stream,
        _ => return None,
    };
    Some(if stream.chose_http2() {
        Box::pin(http2::serve(door, Box::new(stream), peer))
    } else {
        Box::pin(http1::serve(door, Wire::over_tls(door.core.clone(), stream, peer)))
    })
}

/// What a client's first bytes say that it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
    Tls,
}

/// RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The type of a record that holds a handshake (RFC 8446, 5.1): no HTTP method begins with this byte.
const TLS_HANDSHAKE: u8 = 0x16;

/// `None` while the bytes could still become either.
fn sniff(bytes: &[u8]) -> Option<Protocol> {
    match bytes {
        [] => None,
        [TLS_HANDSHAKE, ..] => Some(Protocol::Tls),
        _ if bytes.starts_with(PREFACE) => Some(Protocol::Http2),
        _ if PREFACE.starts_with(bytes) => None,
        _ => Some(Protocol::Http1),
    }
}

/// Tells an HTTP/2 client in its own words that this port wants TLS.
async fn turn_http2_away<S: Service>(door: &Frontdoor<S>, mut wire: Wire) {
    let frames = http2_refusal();
    let length = frames.len();
    let mut patience = Patience::new(door.settings.send_grace, door.settings.send_bytes_per_second_min);
    if wire.send(frames, 0..length, &mut patience).await.is_ok() {
        wire.linger(door.settings.linger_timeout, door.settings.linger_bytes_max).await;
    }
}

/// The server's SETTINGS, which must come first, and GOAWAY with INADEQUATE_SECURITY (RFC 9113, 6.5, 6.8 and 7).
fn http2_refusal() -> Vec<u8> {
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const INADEQUATE_SECURITY: u32 = 0xc;
    let reason = b"this port wants TLS";
    let last_stream = 0_u32;
    let goaway = [&last_stream.to_be_bytes()[..], &INADEQUATE_SECURITY.to_be_bytes(), reason].concat();
    let frame = |kind: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("frames of a few bytes").to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
    };
    [frame(SETTINGS, &[]), frame(GOAWAY, &goaway)].concat()
}

const TLS: Refusal = Refusal {
    status: 400,
    code: "BadRequest",
    message: "This port speaks plain HTTP, and the request came with TLS: use an endpoint that begins with http://.",
};
const PLAIN: Refusal = Refusal {
    status: 400,
    code: "BadRequest",
    message: "This port wants TLS, and the request came without: use an endpoint that begins with https://.",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_protocol_as_soon_as_they_can() {
        for length in 0..PREFACE.len() {
            assert_eq!(sniff(&PREFACE[..length]), None);
        }
        assert_eq!(sniff(PREFACE), Some(Protocol::Http2));
        assert_eq!(sniff(&[PREFACE, b"\0"].concat()), Some(Protocol::Http2));
        assert_eq!(sniff(b"PU"), Some(Protocol::Http1));
        assert_eq!(sniff(b"PRI * HTTP/1.1"), Some(Protocol::Http1));
        assert_eq!(sniff(&[0x16, 3, 1]), Some(Protocol::Tls));
        assert_eq!(sniff(b"\r"), Some(Protocol::Http1));
    }

    #[test]
    fn an_http2_client_without_tls_gets_settings_and_goaway() {
        let frames = http2_refusal();
        assert_eq!(frames[..9], [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(frames[9..18], [0, 0, 27, 7, 0, 0, 0, 0, 0]);
        assert_eq!(frames[18..26], [0, 0, 0, 0, 0, 0, 0, 0xc]);
        assert_eq!(frames.len(), 18 + 27);
    }
}
