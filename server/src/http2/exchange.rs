//! One request and its answer.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use anvil_model::io::World;
use anvil_model::time::Moment;
use futures_util::future::{Either, select};
use h2::RecvStream;
use h2::server::SendResponse;
use http::request::Parts;

use super::answer::Answer;
use super::body::Body;
use super::call::{self, Caller};
use super::chunk::Chunk;
use super::head::{Request, read};
use crate::grpc::request::is_grpc;
use crate::http::{Head, Response, Service, call, first_piece, request_id};
use crate::http1::{Refusal, within};
use crate::listener::Frontdoor;
use crate::telemetry;

/// A request on its way to its answer.
pub(super) type Exchange = Pin<Box<dyn Future<Output = ()>>>;

/// Serves a request until it is answered, or its client takes it back. It has the memory that its kind needs: a call that
/// streams may wait for hours.
pub(super) fn exchange<S: Service>(
    door: Rc<Frontdoor<S>>,
    caller: Caller,
    request: http::Request<RecvStream>,
    respond: SendResponse<Chunk>,
) -> Exchange {
    let (began, peer) = (door.core.now(), caller.peer);
    let (parts, stream) = request.into_parts();
    let request_id = request_id(door.core.random());
    match read(&parts, stream.is_end_stream()) {
        Ok(request) if claims_grpc(&request) => {
            Box::pin(call::serve(door, began, caller, request, request_id, stream, respond))
        }
        Ok(request) => Box::pin(serve(door, began, peer, request, request_id, stream, respond)),
        Err(refusal) => {
            Box::pin(refuse(door, began, head_of_parts(&parts, peer, request_id), refusal, stream, respond))
        }
    }
}

/// Answers what is no request, or cannot be served.
async fn refuse<S: Service>(
    door: Rc<Frontdoor<S>>,
    began: Moment,
    head: Head,
    refusal: Refusal,
    stream: RecvStream,
    mut respond: SendResponse<Chunk>,
) {
    let Refusal { status, code, message } = refusal;
    let response = door.service.refusal(status, code, message, &head.request_id);
    answer(&door, began, &head, "Refused", response, &mut respond).await;
    drain(&door, stream).await;
}

async fn serve<S: Service>(
    door: Rc<Frontdoor<S>>,
    began: Moment,
    peer: SocketAddr,
    request: Request,
    request_id: String,
    stream: RecvStream,
    respond: SendResponse<Chunk>,
) {
    let door = &*door;
    let respond = RefCell::new(respond);
    let mut body = Body::new(door.core.clone(), stream, &respond, &request, &door.settings);
    let head = head_of(request, peer, request_id);
    let in_flight = door.counters.in_flight();
    let served = async {
        let (mut response, _) = call(&*door.service, &door.counters, &head, &mut body).await;
        let first = match head.method.as_str() {
            "HEAD" => None,
            _ => first_piece(&*door.service, &mut response, &head.request_id).await,
        };
        (response, first)
    };
    let taken_back = std::future::poll_fn(|context| respond.borrow_mut().poll_reset(context));
    let served = match select(std::pin::pin!(served), taken_back).await {
        Either::Left((served, _)) => Some(served),
        Either::Right(_) => None,
    };
    let received_bytes = body.received;
    let rest = body.into_rest();
    let told = match served {
        None => Told {
            status: CLIENT_CLOSED_REQUEST,
            answered: door.core.now(),
            received_bytes,
            sent_bytes: 0,
            complete: false,
        },
        Some((response, first)) => {
            let mut answer = Answer::new(door, &head.request_id);
            let sent = answer.send(&mut respond.into_inner(), &head.method, response, first).await;
            Told::by(&answer, received_bytes, sent.is_ok())
        }
    };
    drop(in_flight);
    record(door, began, &head, door.service.operation(&head), told);
    if let Some(rest) = rest {
        drain(door, rest).await;
    }
}

/// Takes what is left of a body behind its answer, for a while. `h2` resets the stream of a body that nobody takes, with
/// NO_ERROR, and there are clients that then throw the answer away (curl 7.88), although RFC 9113 (8.1) forbids it.
pub(super) async fn drain<S: Service>(door: &Frontdoor<S>, mut stream: RecvStream) {
    let read = async {
        let mut left = door.settings.linger_bytes_max;
        while left > 0 {
            let Some(Ok(frame)) = stream.data().await else { return };
            // It fails only for more than what came.
            let _ = stream.flow_control().release_capacity(frame.len());
            left = left.saturating_sub(frame.len() as u64);
        }
    };
    within(&door.core, door.settings.linger_timeout, read).await;
}

async fn answer<S: Service>(
    door: &Frontdoor<S>,
    began: Moment,
    head: &Head,
    operation: &'static str,
    response: Response<S::Pieces>,
    respond: &mut SendResponse<Chunk>,
) {
    let mut answer = Answer::new(door, &head.request_id);
    let sent = answer.send(respond, &head.method, response, None).await;
    let told = Told::by(&answer, 0, sent.is_ok());
    record(door, began, head, operation, told);
}

/// What became of a request.
pub(super) struct Told {
    pub(super) status: u16,
    /// When.
    pub(super) answered: Moment,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    pub(super) complete: bool,
}

impl Told {
    fn by<S>(answer: &Answer<'_, S>, received_bytes: u64, complete: bool) -> Self {
        let &Answer { status, began, sent_bytes, .. } = answer;
        Self { status, answered: began, received_bytes, sent_bytes, complete }
    }
}

/// A request that was taken back before it was answered, in metrics and logs; nobody is sent this status (nginx's word).
const CLIENT_CLOSED_REQUEST: u16 = 499;

pub(super) fn record<S: Service>(door: &Frontdoor<S>, began: Moment, head: &Head, operation: &'static str, told: Told) {
    door.counters.record(&telemetry::Exchange {
        head,
        operation,
        status: told.status,
        received_bytes: told.received_bytes,
        sent_bytes: told.sent_bytes,
        first_byte: told.answered.since(began),
        duration: door.core.now().since(began),
        complete: told.complete,
    });
}

pub(super) fn head_of(request: Request, peer: SocketAddr, request_id: String) -> Head {
    let Request { method, path, query, headers, .. } = request;
    Head { method, path, query, headers, peer, request_id }
}

/// For the log: of what is no request.
fn head_of_parts(parts: &Parts, peer: SocketAddr, request_id: String) -> Head {
    Head {
        method: parts.method.as_str().to_owned(),
        path: "-".to_owned(),
        query: None,
        headers: Vec::new(),
        peer,
        request_id,
    }
}

/// Whether it is a call, of whatever kind of gRPC.
fn claims_grpc(request: &Request) -> bool {
    request.headers.iter().any(|(name, value)| name == "content-type" && is_grpc(value))
}
