//! A gRPC call on a stream: the bytes of its messages come and go, and a status ends it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use anvil_model::io::World;
use anvil_model::time::Moment;
use anvil_runtime::Buffer;
use anvil_store::Piece;
use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::answer::{Answer, unique};
use super::chunk::Chunk;
use super::exchange::{Told, drain, head_of, record};
use super::head::Request;
use crate::grpc::call::{Calls as _, Received, Wait, Wire};
use crate::grpc::frame::malformed;
use crate::grpc::request::{ENCODINGS, Refusal, Terms, read};
use crate::grpc::{Code, Status, services};
use crate::http::{FAST_BYTES_PER_SECOND_MIN, Head, STALL_TIME, Service};
use crate::http1::{Patience, within};
use crate::listener::Frontdoor;

/// How long a call may take whose client does not say.
const CALL_TIME_MAX: Duration = Duration::from_secs(600);
/// The same for one whose messages stream: what keeps it going is that they do.
const STREAM_TIME_MAX: Duration = Duration::from_hours(24);

/// Who calls, as far as the connection tells.
pub(super) struct Caller {
    pub(super) peer: SocketAddr,
    pub(super) is_tls: bool,
}

/// Serves a call until its status is sent, or its client takes it back.
pub(super) async fn serve<S: Service>(
    door: Rc<Frontdoor<S>>,
    began: Moment,
    caller: Caller,
    request: Request,
    request_id: String,
    stream: RecvStream,
    respond: SendResponse<Chunk>,
) {
    let door = &*door;
    let head = head_of(request, caller.peer, request_id);
    let in_flight = door.counters.in_flight();
    let (respond, sending) = (RefCell::new(respond), RefCell::new(Sending::NotBegun));
    let mut call = Call::new(door, &head, stream, &respond, &sending);
    let outcome = match read(&head) {
        Err(refusal) => Some(Err(refusal)),
        Ok(terms) => {
            let most = if services::streams(&head.path) { STREAM_TIME_MAX } else { CALL_TIME_MAX };
            let limit = terms.timeout.unwrap_or(most).min(most);
            let served = within(&door.core, limit, run(door, &head, caller.is_tls, terms, &mut call));
            let taken_back = std::future::poll_fn(|context| match &mut *sending.borrow_mut() {
                Sending::NotBegun => respond.borrow_mut().poll_reset(context).map(drop),
                Sending::Begun(stream) => stream.poll_reset(context).map(drop),
                // Who sends hears of it.
                Sending::Lent => Poll::Pending,
            });
            match select(pin!(served), taken_back).await {
                Either::Left((served, _)) => Some(served.unwrap_or_else(|| Err(late())).map_err(Refusal::from)),
                Either::Right(_) => None,
            }
        }
    };
    drop(in_flight);
    let answered = door.core.now();
    let told = call.end(outcome, answered);
    let stream = call.stream;
    let operation = services::operation(&head.path);
    record(door, began, &head, operation, told);
    drain(door, stream).await;
}

/// A bug that a method meets ends its call and nothing else.
async fn run<S: Service>(
    door: &Frontdoor<S>,
    head: &Head,
    is_tls: bool,
    terms: Terms,
    call: &mut Call<'_, S>,
) -> Result<(), Status> {
    let Some(services) = door.service.grpc() else { return Err(services::unknown(&head.path)) };
    match AssertUnwindSafe(services.serve(head, is_tls, terms.encoding, call)).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(panic) => {
            door.counters.panicked(panic.as_ref(), &head.request_id);
            Err(Status::internal())
        }
    }
}

fn late() -> Status {
    Status::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the call took longer than its client waits")
}

/// How far an answer is.
enum Sending {
    NotBegun,
    Begun(SendStream<Chunk>),
    /// Bytes are being sent.
    Lent,
}

/// The stream of an answer while bytes are sent. It goes back also when the sending is given up, for the status.
struct Lent<'c> {
    cell: &'c RefCell<Sending>,
    stream: Option<SendStream<Chunk>>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            *self.cell.borrow_mut() = Sending::Begun(stream);
        }
    }
}

/// A call's stream, and how far its answer is.
struct Call<'a, S> {
    door: &'a Frontdoor<S>,
    head: &'a Head,
    stream: RecvStream,
    respond: &'a RefCell<SendResponse<Chunk>>,
    sending: &'a RefCell<Sending>,
    answer: Answer<'a, S>,
    patience: Patience,
    /// For how long a buffer of the pool may still wait for bytes.
    haste: Patience,
    received_bytes: u64,
}

impl<'a, S: Service> Call<'a, S> {
    fn new(
        door: &'a Frontdoor<S>,
        head: &'a Head,
        stream: RecvStream,
        respond: &'a RefCell<SendResponse<Chunk>>,
        sending: &'a RefCell<Sending>,
    ) -> Self {
        let answer = Answer::new(door, &head.request_id);
        let patience = Patience::new(door.settings.body_grace, door.settings.body_bytes_per_second_min);
        let haste = Patience::new(STALL_TIME, FAST_BYTES_PER_SECOND_MIN);
        Self { door, head, stream, respond, sending, answer, patience, haste, received_bytes: 0 }
    }

    async fn send_chunk(&mut self, chunk: Chunk, rest: impl FnOnce()) -> Result<(), Status> {
        let sending = self.sending.replace(Sending::Lent);
        let stream = match sending {
            Sending::Begun(stream) => stream,
            Sending::NotBegun | Sending::Lent => {
                let head = self.response_head(200);
                self.respond.borrow_mut().send_response(head, false).map_err(|_| gone())?
            }
        };
        let mut lent = Lent { cell: self.sending, stream: Some(stream) };
        let stream = lent.stream.as_mut().expect("it goes back when this is dropped");
        self.answer.send_chunk(stream, chunk, false, rest).await.map_err(|_| gone())
    }

    /// Sends the status. `None`: the client took the call back.
    fn end(&mut self, outcome: Option<Result<(), Refusal>>, answered: Moment) -> Told {
        let (received_bytes, sent_bytes) = (self.received_bytes, self.answer.sent_bytes);
        let Some(outcome) = outcome else {
            let status = Code::Cancelled.http_status();
            return Told { status, answered, received_bytes, sent_bytes, complete: false };
        };
        let (http_status, fields, code) = match &outcome {
            Ok(()) => (200, vec![("grpc-status", "0".to_owned())], Code::Ok),
            Err(Refusal { http_status, status }) => (*http_status, status.fields(&self.head.request_id), status.code),
        };
        let status = if http_status == 200 { code.http_status() } else { http_status };
        let complete = match self.sending.replace(Sending::Lent) {
            Sending::Begun(mut sending) => sending.send_trailers(to_map(&fields)).is_ok(),
            Sending::NotBegun | Sending::Lent => {
                // "Trailers-Only": the status stands in the head, and nothing follows.
                let mut head = self.response_head(http_status);
                head.headers_mut().extend(to_map(&fields));
                self.respond.borrow_mut().send_response(head, true).is_ok()
            }
        };
        Told { status, answered, received_bytes, sent_bytes, complete }
    }

    fn response_head(&self, status: u16) -> http::Response<()> {
        let mut head = http::Response::new(());
        *head.status_mut() = StatusCode::from_u16(status).expect("one of three");
        let headers = head.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-accept-encoding", HeaderValue::from_static(ENCODINGS));
        headers.insert("x-request-id", unique(&self.head.request_id));
        head
    }
}

impl<S: Service> Wire for Call<'_, S> {
    async fn receive(&mut self, wait: Wait) -> Result<Received, Status> {
        let slow = || Status::new(Code::DeadlineExceeded, "TOO_SLOW", "the messages of the call come too slowly");
        // What is here was not waited for, and needs no clock.
        let here = match futures_util::poll!(pin!(self.stream.data())) {
            Poll::Ready(frame) => Some(frame),
            Poll::Pending => None,
        };
        let (frame, waited) = match here {
            Some(frame) => (Some(frame), Duration::ZERO),
            None => {
                let began = self.door.core.now();
                let limit = match wait {
                    Wait::Patiently => self.patience.limit(0),
                    Wait::Briefly => self.patience.limit(0).min(self.haste.limit(0)),
                    Wait::Idly => STREAM_TIME_MAX,
                };
                let frame = within(&self.door.core, limit, self.stream.data()).await;
                (frame, self.door.core.now().since(began))
            }
        };
        let count = frame.as_ref().and_then(|frame| frame.as_ref()?.as_ref().ok()).map_or(0, |frame| frame.len());
        if wait != Wait::Idly {
            self.patience.account(count, waited);
            self.haste.account(count, waited);
        }
        match frame {
            None if wait == Wait::Briefly => Ok(Received::Later),
            None => Err(slow()),
            Some(None) => Ok(Received::End),
            Some(Some(Err(_))) => Err(malformed("the call broke off")),
            Some(Some(Ok(frame))) => {
                self.received_bytes += frame.len() as u64;
                // It fails only for more than what came.
                let _ = self.stream.flow_control().release_capacity(frame.len());
                Ok(Received::Bytes(frame))
            }
        }
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), Status> {
        self.send_chunk(bytes.into(), || {}).await
    }

    async fn send_piece(&mut self, bytes: Vec<u8>, piece: Piece<Buffer>, rest: impl FnOnce()) -> Result<(), Status> {
        self.send_chunk(Chunk::of(bytes, piece, &self.door.http2.lent), rest).await
    }
}

fn gone() -> Status {
    Status::new(Code::Cancelled, "NOT_TAKEN", "the client does not take the answer")
}

fn to_map(fields: &[(&'static str, String)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, String)| {
        let value = HeaderValue::from_str(value).expect("digits, percent-encoded text or Base64");
        (HeaderName::from_static(name), value)
    };
    fields.iter().map(field).collect()
}
