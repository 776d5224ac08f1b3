//! The life of a connection: requests come, run side by side, and the connection is seen off.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use anvil_model::io::World;
use anvil_model::time::Moment;
use futures_util::future::Either;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use h2::server::{Builder, Connection};
use h2::{Ping, PingPong, Reason};

use super::call::Caller;
use super::chunk::Chunk;
use super::exchange::{Exchange, exchange};
use super::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, SEND_BUFFER_BYTES, SMALL_FRAME_BYTES, SMALL_WINDOW_BYTES,
    STREAM_WINDOW_BYTES, STREAMS_MAX,
};
use crate::http::Service;
use crate::http1::{HEAD_BYTES_MAX, Patience, Settings, within};
use crate::listener::Frontdoor;
use crate::telemetry::Protocol;
use crate::transport::{Health, SEND_BYTES_MAX, Stream};

/// Serves a connection until its client or the node wants no more of it.
///
/// A block and no function that is async, which would keep two places for what it is given: this state is the largest part of
/// what an idle connection costs beside what is `h2`'s.
pub(crate) fn serve<S: Service>(
    door: &Rc<Frontdoor<S>>,
    mut stream: Box<Stream>,
    peer: SocketAddr,
) -> impl Future<Output = ()> {
    stream.send_from(Rc::clone(&door.http2.lent));
    async move {
        let _speaks = door.counters.speaks(Protocol::Http2);
        let window = door.http2.window.take(CONNECTION_WINDOW_BYTES as usize);
        let (health, is_tls) = (stream.health(), stream.is_tls());
        // On the heap: what is over has no place in the state of an idle connection.
        let Some(mut connection) = Box::pin(shake_hands(door, stream, window.is_some())).await else { return };
        let mut watch = Watch::new(door.core.now(), health);
        let mut requests = Requests::default();
        let mut stopping = pin!(door.stopping());
        let mut tick = pin!(door.core.sleep(pause(&door.settings)));
        loop {
            let event = poll_fn(|context| {
                if requests.poll_ended(context).is_ready() {
                    return Poll::Ready(Either::Right(Event::Ended));
                }
                if let Poll::Ready(asked) = connection.poll_accept(context) {
                    return Poll::Ready(Either::Left(asked));
                }
                if watch.leaving_since.is_none() && stopping.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Either::Right(Event::Stop));
                }
                tick.as_mut().poll(context).map(|()| Either::Right(Event::Tick))
            });
            match event.await {
                Either::Right(Event::Ended) if requests.is_empty() => watch.quiet_since = door.core.now(),
                Either::Right(Event::Ended) => {}
                Either::Left(Some(Ok((request, respond)))) => {
                    requests.push(exchange(Rc::clone(door), Caller { peer, is_tls }, request, respond));
                }
                Either::Left(Some(Err(error))) => {
                    tracing::debug!(%peer, %error, "an HTTP/2 connection ends");
                    return;
                }
                Either::Left(None) => return,
                Either::Right(Event::Stop) => watch.leave(&mut connection, door.core.now()),
                Either::Right(Event::Tick) => {
                    if !watch.look(&mut connection, door.core.now(), requests.is_empty(), &door.settings) {
                        return;
                    }
                    requests.rest();
                    tick.set(door.core.sleep(pause(&door.settings)));
                }
            }
        }
    }
}

/// What a connection waits for beside requests.
enum Event {
    /// A request has ended.
    Ended,
    /// The node stops.
    Stop,
    /// It is time to look after the connection.
    Tick,
}

/// The requests that run. A connection is without any most of the time: then it keeps no memory for them.
#[derive(Default)]
struct Requests {
    /// Each on the heap by itself: the set keeps a place of the size of one for as long as it lives.
    running: Option<FuturesUnordered<Exchange>>,
}

impl Requests {
    fn push(&mut self, exchange: Exchange) {
        self.running.get_or_insert_default().push(exchange);
    }

    fn is_empty(&self) -> bool {
        self.running.as_ref().is_none_or(FuturesUnordered::is_empty)
    }

    /// Ready when one has ended; never while none runs.
    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.running.as_mut().map(|running| running.poll_next_unpin(context)) {
            Some(Poll::Ready(Some(()))) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// Gives memory back, before a wait of unknown length.
    fn rest(&mut self) {
        self.running.take_if(|running| running.is_empty());
    }
}

async fn shake_hands<S: Service>(
    door: &Frontdoor<S>,
    stream: Box<Stream>,
    has_large_window: bool,
) -> Option<Connection<Box<Stream>, Chunk>> {
    let handshake = builder(has_large_window).handshake(stream);
    within(&door.core, door.settings.head_timeout, handshake).await?.ok()
}

fn builder(has_large_window: bool) -> Builder {
    let (stream, connection, frame) = if has_large_window {
        (STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX)
    } else {
        (SMALL_WINDOW_BYTES, SMALL_WINDOW_BYTES, SMALL_FRAME_BYTES)
    };
    let mut builder = Builder::new();
    builder
        .initial_window_size(stream)
        .initial_connection_window_size(connection)
        .max_frame_size(frame)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_local_error_reset_streams(Some(RESETS_MAX));
    builder
}

/// Streams that were broken off because of what the client sent, at most, over a connection's life.
const RESETS_MAX: usize = 256;

/// Looks after a connection from time to time: does the client take what it is sent, is it there at all, and is there
/// any use in the connection.
struct Watch {
    health: Rc<Health>,
    /// Since when no request has run.
    quiet_since: Moment,
    /// Since when the client has been told to go.
    leaving_since: Option<Moment>,
    pings: Option<PingPong>,
    received_bytes: u64,
    /// When something came last.
    received_at: Moment,
    pinged: bool,
}

impl Watch {
    fn new(now: Moment, health: Rc<Health>) -> Self {
        Self {
            health,
            quiet_since: now,
            leaving_since: None,
            pings: None,
            received_bytes: 0,
            received_at: now,
            pinged: false,
        }
    }

    /// Asks the client to go once its requests are answered.
    fn leave(&mut self, connection: &mut Connection<Box<Stream>, Chunk>, now: Moment) {
        if self.leaving_since.is_none() {
            self.leaving_since = Some(now);
            connection.graceful_shutdown();
        }
    }

    /// False when the connection is to be closed at once.
    fn look(
        &mut self,
        connection: &mut Connection<Box<Stream>, Chunk>,
        now: Moment,
        is_quiet: bool,
        settings: &Settings,
    ) -> bool {
        let send_max = Patience::new(settings.send_grace, settings.send_bytes_per_second_min).limit(SEND_BYTES_MAX);
        let sending_since = self.health.sending_since.get();
        if sending_since.is_some_and(|since| now.since(since) > send_max) {
            return false;
        }
        if is_quiet {
            self.look_at_quiet(connection, now, settings);
        }
        self.leaving_since.is_none_or(|since| !is_quiet || now.since(since) < 2 * settings.linger_timeout + GO_TIMEOUT)
            && self.is_there(connection, now, is_quiet)
    }

    fn look_at_quiet(&mut self, connection: &mut Connection<Box<Stream>, Chunk>, now: Moment, settings: &Settings) {
        match self.leaving_since {
            None if now.since(self.quiet_since) >= settings.idle_timeout => self.leave(connection, now),
            // It was asked politely, and does not even answer.
            Some(since) if now.since(since) >= GO_TIMEOUT => connection.abrupt_shutdown(Reason::NO_ERROR),
            _ => {}
        }
    }

    /// While requests run and nothing comes, asks whether anybody is there. False when nobody is.
    fn is_there(&mut self, connection: &mut Connection<Box<Stream>, Chunk>, now: Moment, is_quiet: bool) -> bool {
        let received_bytes = self.health.received_bytes.get();
        if received_bytes != self.received_bytes || is_quiet {
            self.received_bytes = received_bytes;
            self.received_at = now;
            self.pinged = false;
        }
        let silent = now.since(self.received_at);
        if silent >= PING_AFTER && !self.pinged {
            // Made only now: few connections ever need one.
            self.pings = self.pings.take().or_else(|| connection.ping_pong());
            self.pinged = self.pings.as_mut().is_some_and(|pings| pings.send_ping(Ping::opaque()).is_ok());
        }
        silent < PING_AFTER + PONG_TIMEOUT
    }
}

/// How long between two looks: often enough for the shortest of the times.
fn pause(settings: &Settings) -> Duration {
    let shortest = settings.idle_timeout.min(settings.send_grace).min(settings.linger_timeout);
    (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(1))
}

/// How long a client that was asked to go, and has no request running, may take.
const GO_TIMEOUT: Duration = Duration::from_secs(1);
/// For how long nothing may come while requests run before the client is asked whether it is there, and how long it may
/// take to answer.
const PING_AFTER: Duration = Duration::from_secs(30);
const PONG_TIMEOUT: Duration = Duration::from_secs(20);
