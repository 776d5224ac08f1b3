//! What every protocol of the frontend turns bytes into, and makes answers from: HTTP/1.1 and HTTP/2 speak the same
//! types.

mod call;
mod date;
mod first_piece;
mod forwarded;
mod request_id;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anvil_model::io::World;
use anvil_node::get::{Reader, StreamError};
use anvil_runtime::{Buffer, Core};
use anvil_store::Piece;

use crate::grpc::call::{Calls, NoCalls};
pub(crate) use call::call;
pub(crate) use date::DateCache;
pub(crate) use first_piece::{NO_KEY, first_piece, retry_after};
pub(crate) use forwarded::forwarded_address;
pub(crate) use request_id::request_id;

/// A request's head, as received: nothing is decoded or normalised.
#[derive(Clone, Debug)]
pub struct Head {
    /// `GET`, `PUT`, ...
    pub method: String,
    /// The path of the target, percent-encoded as received; begins with `/`.
    pub path: String,
    /// What follows the first `?`, percent-encoded as received.
    pub query: Option<String>,
    /// Names in lower case, values without surrounding white space, in the order of arrival.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Who is connected.
    pub peer: SocketAddr,
    /// Names this request in logs and answers (`x-amz-request-id`).
    pub request_id: String,
}

impl Head {
    /// The value of a header that is there exactly once and is visible ASCII or UTF-8; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name);
        let (_, value) = values.next()?;
        if values.next().is_some() {
            return None;
        }
        std::str::from_utf8(value).ok()
    }

    /// The host that the client named: `:authority` or `Host`.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.header("host")
    }
}

/// Why body bytes did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The client closed or broke the connection before the end.
    #[error("the client went away before the end of the body")]
    Disconnected,
    /// Too few bytes in too much time.
    #[error("the body came too slowly")]
    TimedOut,
    /// The transfer coding is broken.
    #[error("the transfer coding of the body is malformed")]
    Malformed,
}

/// The body of a request as it comes off the connection, without its transfer coding.
pub trait Incoming {
    /// Bytes in all, when the client said so (`Content-Length`); `None` for `Transfer-Encoding: chunked`.
    fn length(&self) -> Option<u64>;
    /// Receives into `buffer[range]` until it is full, the body ends, or its bytes come too slowly for a buffer to wait
    /// (50 ms); gives how many came. When they are fewer than asked, [`Self::read`] finds out why, without a buffer that
    /// waits. The first call of any of these answers `Expect: 100-continue`.
    fn fill(
        &mut self,
        buffer: Buffer,
        range: Range<usize>,
    ) -> impl Future<Output = (Result<usize, ReceiveError>, Buffer)>;
    /// Appends some bytes, at least 1 and at most `max`, to `into`; 0 at the end of the body.
    fn read(&mut self, into: &mut Vec<u8>, max: usize) -> impl Future<Output = Result<usize, ReceiveError>>;
    /// True when [`Self::read`] has an outcome that it need not wait for, now or before a buffer has waited for too long.
    fn comes_soon(&mut self) -> impl Future<Output = bool>;
}

/// How long a buffer of the pool waits for bytes of a body, beside what they need at [`FAST_BYTES_PER_SECOND_MIN`]. A
/// client that needs longer is slow: its bytes are kept in ordinary memory, and the buffer serves others.
pub(crate) const STALL_TIME: Duration = Duration::from_millis(50);
/// The slowest body that a buffer waits for.
pub(crate) const FAST_BYTES_PER_SECOND_MIN: u64 = 4 << 20;
/// How long a buffer waits for a client to take its bytes. What is not taken is read again later, in small pieces, which
/// costs little more.
pub(crate) const OFFER_TIME: Duration = Duration::from_millis(20);

/// An answer. `P` is where the bytes of objects come from: the node's reader, but for tests.
#[derive(Debug)]
pub struct Response<P = Reader<Core>> {
    /// Status code.
    pub status: u16,
    /// Names in the case to be sent. `Date`, `Server`, `Content-Length`, `Connection` and the request ids are added
    /// by the protocol.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// What follows.
    pub body: Outgoing<P>,
}

/// The body of an answer.
pub enum Outgoing<P = Reader<Core>> {
    /// Nothing: `Content-Length: 0` (or none at all for 204 and 304).
    Empty,
    /// Nothing follows, but this length is announced: the answer to a HEAD.
    Announced(u64),
    /// These bytes.
    Bytes(Vec<u8>),
    /// The bytes of an object's range: `length` of them. An error in the middle breaks the connection.
    Object {
        /// Bytes in all.
        length: u64,
        /// Where they come from.
        reader: P,
    },
}

impl<P> std::fmt::Debug for Outgoing<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Announced(length) => write!(f, "Announced({length})"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Object { length, .. } => write!(f, "Object({length})"),
        }
    }
}

/// The bytes of an answer, piece by piece.
pub trait Pieces {
    /// The next piece, in order; `None` after the last.
    fn next(&mut self) -> impl Future<Output = Option<Result<Piece<Buffer>, StreamError>>>;
    /// The client takes its time: gives back what was read ahead. It will be read again when it is asked for.
    fn rest(&mut self) {}
    /// Gives back the last `untaken` bytes, which come again, and from now on gives small pieces: the caller copies
    /// them, so that no buffer of the pool waits for the client.
    fn slow_down(&mut self, untaken: u64);
    /// The client takes its bytes as fast as they come.
    fn speed_up(&mut self);
}

impl<W: World<Buffer = Buffer>> Pieces for Reader<W> {
    fn next(&mut self) -> impl Future<Output = Option<Result<Piece<Buffer>, StreamError>>> {
        Self::next(self)
    }

    fn rest(&mut self) {
        Self::rest(self);
    }

    fn slow_down(&mut self, untaken: u64) {
        Self::slow_down(self, untaken);
    }

    fn speed_up(&mut self) {
        Self::speed_up(self);
    }
}

/// What answers requests. One value serves all connections of a core.
pub trait Service: 'static {
    /// Where the bytes of its objects come from.
    type Pieces: Pieces;

    /// Answers a request. What it leaves of the body is the protocol's to get rid of.
    fn call<I: Incoming>(&self, head: &Head, body: &mut I) -> impl Future<Output = Response<Self::Pieces>>;

    /// The answer to what is no request, or none that may be served: `code` as in S3's errors, `message` one sentence.
    fn refusal(&self, status: u16, code: &str, message: &str, request_id: &str) -> Response<Self::Pieces>;

    /// What answers gRPC; `None` when nothing does.
    fn grpc(&self) -> Option<&impl Calls> {
        None::<&NoCalls>
    }

    /// What the request asks for, by its name in the API of AWS (`PutObject`), for metrics and logs. A name that is
    /// not one of [`OPERATIONS`](crate::telemetry::OPERATIONS) counts as `Other`.
    fn operation(&self, head: &Head) -> &'static str {
        let _ = head;
        "Other"
    }
}
