//! The requests of one connection, one after the other.

use std::cell::Cell;
use std::time::Duration;

use anvil_model::io::World;
use anvil_model::time::Moment;
use anvil_runtime::Buffer;
use anvil_store::Piece;
use futures_util::future::{Either, select};

use super::answer::{Extras, encode_head};
use super::body::{Body, CONTINUE, Receiving};
use super::head::{Refusal, Request, Scan, Scanner, parse};
use super::wire::{Patience, SendError, Wire};
use super::{IDLE_BYTES_MAX, LARGE_HEADS_MAX};
use crate::http::{
    Head, Outgoing, Pieces, ReceiveError, Response, Service, call, first_piece, request_id, retry_after,
};
use crate::listener::Frontdoor;
use crate::telemetry::{Exchange, Protocol};

/// Serves a connection until its client or the node wants no more of it.
pub(crate) async fn serve<S: Service>(door: &Frontdoor<S>, mut wire: Wire) {
    let _speaks = door.counters.speaks(Protocol::Http1);
    let mut out = Vec::new();
    loop {
        let arrival = match next_request(door, &mut wire).await {
            Ok(Some(arrival)) => arrival,
            Ok(None) => return,
            Err(refusal) => return refuse(door, wire, refusal).await,
        };
        wire.rest();
        match exchange(door, &mut wire, &mut out, arrival).await {
            Kept::Open => {}
            Kept::Closing => return wire.linger(door.settings.linger_timeout, door.settings.linger_bytes_max).await,
            Kept::Broken => return,
        }
    }
}

/// A head that came, and when its first byte did.
struct Arrival<'a> {
    request: Request,
    began: Moment,
    /// Counts the memory of a large head until its request is answered.
    _large: Option<LargeHead<'a>>,
}

/// A place among the heads that are larger than what every connection may keep.
struct LargeHead<'a>(&'a Cell<usize>);

impl<'a> LargeHead<'a> {
    fn admit(count: &'a Cell<usize>) -> Option<Self> {
        (count.get() < LARGE_HEADS_MAX).then(|| {
            count.set(count.get() + 1);
            Self(count)
        })
    }
}

impl Drop for LargeHead<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What becomes of the connection.
enum Kept {
    /// Another request may come.
    Open,
    /// The answer said that the connection closes, or too much of the body is left.
    Closing,
    /// Nothing can be sent any more.
    Broken,
}

/// Waits for the next head; `None` when the client is gone or silent, or the node stops.
async fn next_request<'a, S: Service>(door: &'a Frontdoor<S>, wire: &mut Wire) -> Result<Option<Arrival<'a>>, Refusal> {
    let mut scanner = Scanner::default();
    let mut large = None;
    let mut began = None;
    loop {
        if !wire.pending().is_empty() {
            began = began.or_else(|| Some(door.core.now()));
            if let Scan::Head { start, end } = scanner.scan(wire.pending())? {
                let request = parse(&wire.pending()[start..end])?;
                wire.consume(end);
                return Ok(began.map(|began| Arrival { request, began, _large: large }));
            }
            if large.is_none() && wire.pending().len() > IDLE_BYTES_MAX {
                large = Some(LargeHead::admit(&door.large_heads).ok_or(FULL)?);
            }
        }
        let received = match began {
            None => wait_idle(door, wire).await,
            Some(began) => {
                let left = door.settings.head_timeout.saturating_sub(door.core.now().since(began));
                wire.receive_within(left).await
            }
        };
        match received {
            Ok(1..) => {}
            Err(ReceiveError::TimedOut) if began.is_some() => return Err(SLOW_HEAD),
            _ => return Ok(None),
        }
    }
}

/// Waits between two requests, when the node may stop any time.
async fn wait_idle<S: Service>(door: &Frontdoor<S>, wire: &mut Wire) -> Result<usize, ReceiveError> {
    wire.rest();
    let received = std::pin::pin!(wire.receive_within(door.settings.idle_timeout));
    match select(received, std::pin::pin!(door.stopping())).await {
        Either::Left((received, _)) => received,
        Either::Right(_) => Ok(0),
    }
}

/// One request and its answer.
async fn exchange<S: Service>(door: &Frontdoor<S>, wire: &mut Wire, out: &mut Vec<u8>, arrival: Arrival<'_>) -> Kept {
    let Arrival { request, began, _large } = arrival;
    let mut body = Body::new(request.body, request.expects_continue, &door.settings);
    let head = Head {
        method: request.method,
        path: request.path,
        query: request.query,
        headers: request.headers,
        peer: wire.peer,
        request_id: request_id(door.core.random()),
    };
    let in_flight = door.counters.in_flight();
    let mut receiving = Receiving { wire, body: &mut body };
    let (response, panicked) = call(&*door.service, &door.counters, &head, &mut receiving).await;

    body.skip_pending(wire);
    let drains = !body.is_complete() && body.is_worth_draining(door.settings.drain_bytes_max);
    let body_ends = body.is_complete() || drains;
    let close = !request.keep_alive || door.is_stopping() || body.failure.is_some() || !body_ends || panicked;
    let mut answer = Answer::new(door, wire, out, &head.request_id, close);
    answer.continues = body.awaits_nothing;
    let result = answer.send(&head.method, response).await;
    let (status, sent_bytes, first_byte) = (answer.status, answer.sent_bytes, answer.began.since(began));
    drop(in_flight);
    door.counters.record(&Exchange {
        head: &head,
        operation: door.service.operation(&head),
        status,
        received_bytes: body.received,
        sent_bytes,
        first_byte,
        duration: door.core.now().since(began),
        complete: result.is_ok(),
    });
    match result {
        Err(SendError) => Kept::Broken,
        Ok(()) if close => Kept::Closing,
        Ok(()) if drains && !body.drain(wire, door.settings.drain_timeout).await => Kept::Closing,
        Ok(()) => Kept::Open,
    }
}

/// Answers what is no request, or cannot be served, and closes.
pub(crate) async fn refuse<S: Service>(door: &Frontdoor<S>, mut wire: Wire, refusal: Refusal) {
    let began = door.core.now();
    let head = Head {
        method: "-".to_owned(),
        path: "-".to_owned(),
        query: None,
        headers: Vec::new(),
        peer: wire.peer,
        request_id: request_id(door.core.random()),
    };
    let Refusal { status, code, message } = refusal;
    let mut response = door.service.refusal(status, code, message, &head.request_id);
    if status == 503 {
        response.headers.push(retry_after());
    }
    let mut out = Vec::new();
    let mut answer = Answer::new(door, &mut wire, &mut out, &head.request_id, true);
    let result = answer.send("-", response).await;
    let (status, sent_bytes, first_byte) = (answer.status, answer.sent_bytes, answer.began.since(began));
    door.counters.record(&Exchange {
        head: &head,
        operation: "Refused",
        status,
        received_bytes: 0,
        sent_bytes,
        first_byte,
        duration: door.core.now().since(began),
        complete: result.is_ok(),
    });
    if result.is_ok() {
        wire.linger(door.settings.linger_timeout, door.settings.linger_bytes_max).await;
    }
}

/// An answer on its way out.
struct Answer<'a, S: Service> {
    door: &'a Frontdoor<S>,
    wire: &'a mut Wire,
    /// Memory for heads, used again by the next answer.
    out: &'a mut Vec<u8>,
    request_id: &'a str,
    close: bool,
    /// `100 Continue` goes in front.
    continues: bool,
    patience: Patience,
    /// When its first byte was ready to be sent.
    began: Moment,
    /// What the client was told.
    status: u16,
    /// Bytes of the body that were sent.
    sent_bytes: u64,
}

impl<'a, S: Service> Answer<'a, S> {
    fn new(door: &'a Frontdoor<S>, wire: &'a mut Wire, out: &'a mut Vec<u8>, request_id: &'a str, close: bool) -> Self {
        let patience = Patience::new(door.settings.send_grace, door.settings.send_bytes_per_second_min);
        let began = door.core.now();
        Self { door, wire, out, request_id, close, continues: false, patience, began, status: 0, sent_bytes: 0 }
    }

    /// Sends the answer to a request with this method.
    async fn send(&mut self, method: &str, mut response: Response<S::Pieces>) -> Result<(), SendError> {
        let is_head = method == "HEAD";
        let first = if is_head { None } else { first_piece(&*self.door.service, &mut response, self.request_id).await };
        self.status = response.status;
        self.encode(&response);
        let has_no_body = is_head || matches!(response.status, 100..=199 | 204 | 304);
        match response.body {
            _ if has_no_body => self.send_head().await,
            Outgoing::Empty | Outgoing::Announced(0) => self.send_head().await,
            Outgoing::Announced(_) => {
                // Nothing can be sent that the client would not take for the body: the answer breaks off.
                tracing::error!(request_id = self.request_id, method, "a length is announced and nothing follows");
                self.send_head().await?;
                Err(SendError)
            }
            Outgoing::Bytes(bytes) => self.send_bytes(bytes).await,
            Outgoing::Object { length, reader } => match first {
                Some(first) => self.send_object(length, first, reader).await,
                None => self.send_head().await,
            },
        }
    }

    fn encode(&mut self, response: &Response<S::Pieces>) {
        let length = match &response.body {
            Outgoing::Empty => 0,
            Outgoing::Announced(length) | Outgoing::Object { length, .. } => *length,
            Outgoing::Bytes(bytes) => bytes.len() as u64,
        };
        let has_length = !matches!(response.status, 100..=199 | 204 | 304);
        let mut dates = self.door.dates.borrow_mut();
        let extras = Extras {
            date: dates.at(self.door.core.wall_clock()),
            request_id: self.request_id,
            host_id: &self.door.settings.host_id,
            length: has_length.then_some(length),
            close: self.close,
        };
        self.began = self.door.core.now();
        self.out.clear();
        if self.continues {
            self.out.extend_from_slice(CONTINUE);
        }
        encode_head(self.out, response.status, &response.headers, extras);
    }

    async fn send_head(&mut self) -> Result<(), SendError> {
        let out = std::mem::take(self.out);
        let length = out.len();
        *self.out = self.wire.send(out, 0..length, &mut self.patience).await?;
        self.out.truncate(0);
        self.out.shrink_to(IDLE_BYTES_MAX);
        Ok(())
    }

    async fn send_bytes(&mut self, bytes: Vec<u8>) -> Result<(), SendError> {
        let length = bytes.len();
        if length <= COPIED_BYTES_MAX {
            self.out.extend_from_slice(&bytes);
            self.send_head().await?;
        } else {
            self.send_head().await?;
            self.wire.send(bytes, 0..length, &mut self.patience).await?;
        }
        self.sent_bytes += length as u64;
        Ok(())
    }

    async fn send_object(&mut self, length: u64, first: Piece<Buffer>, mut reader: S::Pieces) -> Result<(), SendError> {
        let mut left = self.remainder(length, &first)?;
        let count = first.range.len();
        let out = std::mem::take(self.out);
        let offered = self.wire.offer_with_head(out, first.buffer, first.range, &mut self.patience).await?;
        let (mut taken, out) = offered;
        *self.out = out;
        // Pieces in a row that a slow client took at once; `None` while it is not slow.
        let mut streak = None;
        let mut streak_min = STREAK_MIN;
        let mut untaken = count - taken;
        loop {
            self.sent_bytes += taken as u64;
            let settled = untaken == 0 && self.wire.settles_soon().await?;
            if !settled {
                left += untaken as u64;
                reader.slow_down(untaken as u64);
                // Who reads in bursts is soon taken for slow for good.
                if streak.replace(0).is_none() {
                    streak_min = streak_min.saturating_mul(2);
                }
                self.wire.settle(&mut self.patience).await?;
            }
            if left == 0 {
                return Ok(());
            }
            let piece = match reader.next().await {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => {
                    tracing::error!(request_id = self.request_id, left, %error, "an answer breaks off");
                    return Err(SendError);
                }
                None => {
                    tracing::error!(request_id = self.request_id, left, "an object ends too early");
                    return Err(SendError);
                }
            };
            left = self.remainder(left, &piece)?;
            let count = piece.range.len();
            taken = match &mut streak {
                None => self.wire.offer(piece.buffer, piece.range, &mut self.patience).await?,
                Some(pieces) => {
                    // No buffer of the pool waits for this client any more.
                    let bytes = piece.buffer[piece.range].to_vec();
                    drop(piece.buffer);
                    let began = self.door.core.now();
                    self.wire.send(bytes, 0..count, &mut self.patience).await?;
                    let at_once = self.door.core.now().since(began) <= AT_ONCE_MAX;
                    *pieces = if at_once { *pieces + 1 } else { 0 };
                    if *pieces == streak_min {
                        reader.speed_up();
                        streak = None;
                    }
                    count
                }
            };
            untaken = count - taken;
        }
    }

    /// What is left to send behind `piece`. More than was announced would be taken for the next answer.
    fn remainder(&self, left: u64, piece: &Piece<Buffer>) -> Result<u64, SendError> {
        left.checked_sub(piece.range.len() as u64).ok_or_else(|| {
            tracing::error!(request_id = self.request_id, "an object is longer than its answer says");
            SendError
        })
    }
}

/// A body of at most this many bytes goes behind its head in the same memory and the same send.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// A slow client that takes twice as many pieces (2 MiB) at once, one after the other, is slow no more; when it turns
/// out that it is, twice as many.
const STREAK_MIN: u32 = 16;
/// A small piece that is taken within this time is taken at once.
const AT_ONCE_MAX: Duration = Duration::from_millis(2);

/// There is no room for this now.
pub(crate) const FULL: Refusal = Refusal { status: 503, code: "SlowDown", message: "Please reduce your request rate." };

const SLOW_HEAD: Refusal = Refusal {
    status: 408,
    code: "RequestTimeout",
    message: "Your socket connection to the server was not read from or written to within the timeout period.",
};
