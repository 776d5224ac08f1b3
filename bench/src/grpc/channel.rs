//! One connection, and the calls on it: HTTP/2 as clients of gRPC speak it.

use std::fmt::Display;
use std::future::poll_fn;
use std::time::{Duration, Instant};

use anvil_proto::Message;
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Request};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::message::{Messages, frame, status};
use super::session::Session;

/// A connection, which is made when it is needed and again when it broke.
#[derive(Debug)]
pub(super) struct Channel<'a> {
    session: &'a Session,
    requests: Mutex<Option<SendRequest<Bytes>>>,
}

/// Why an operation did not succeed.
#[derive(Debug)]
pub(super) struct Failure {
    /// What is counted.
    pub(super) code: String,
    /// The connection is of no more use.
    pub(super) breaks: bool,
}

impl Failure {
    pub(super) fn of(code: impl Into<String>) -> Self {
        Self { code: code.into(), breaks: false }
    }

    fn broken(error: impl Display) -> Self {
        Self { code: format!("connection: {error}"), breaks: true }
    }

    /// A stream that was reset leaves the connection as it is.
    fn from_h2(error: &h2::Error) -> Self {
        if error.is_reset() { Self::of(format!("stream: {error}")) } else { Self::broken(error) }
    }
}

impl<'a> Channel<'a> {
    pub(super) fn new(session: &'a Session) -> Self {
        Self { session, requests: Mutex::default() }
    }

    /// The next call has a connection of its own again.
    pub(super) async fn forget(&self) {
        *self.requests.lock().await = None;
    }

    /// Calls a method that takes and gives one message.
    pub(super) async fn call<R: Message + Default>(
        &self,
        path: &'static str,
        authorization: Option<HeaderValue>,
        message: &impl Message,
    ) -> Result<R, Failure> {
        let mut call = self.start(path, authorization).await?;
        call.end(frame(message))?;
        let answer = call.next().await?.ok_or_else(|| Failure::of("an answer without a message"))?;
        call.finish().await?;
        Ok(answer)
    }

    /// Begins a call.
    pub(super) async fn start(&self, path: &'static str, authorization: Option<HeaderValue>) -> Result<Call, Failure> {
        let mut request = Request::post(format!("http://{}{path}", self.session.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", concat!("anvil-bench/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(()).map_err(|_| Failure::of("a request that is none"))?;
        let mut requests = self.requests().await?.ready().await.map_err(|error| Failure::from_h2(&error))?;
        let (response, stream) = requests.send_request(request, false).map_err(|error| Failure::from_h2(&error))?;
        Ok(Call { stream, answer: Answer::Awaited(response), messages: Messages::default(), first_byte: None })
    }

    async fn requests(&self) -> Result<SendRequest<Bytes>, Failure> {
        let mut requests = self.requests.lock().await;
        if let Some(requests) = &*requests {
            return Ok(requests.clone());
        }
        let made = timeout(CONNECT_TIME_MAX, self.connect()).await;
        let made = made.unwrap_or_else(|_| Err(Failure::broken("nobody answers")))?;
        Ok(requests.insert(made).clone())
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, Failure> {
        let stream = TcpStream::connect(self.session.address).await.map_err(Failure::broken)?;
        stream.set_nodelay(true).map_err(Failure::broken)?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(self.session.frame_bytes)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(Failure::broken)?;
        // What breaks a connection is told by its calls.
        tokio::spawn(async move { drop(connection.await) });
        Ok(requests)
    }
}

/// A call under way.
#[derive(Debug)]
pub(super) struct Call {
    stream: SendStream<Bytes>,
    answer: Answer,
    messages: Messages,
    /// When the first bytes of the answer came.
    pub(super) first_byte: Option<Instant>,
}

#[derive(Debug)]
enum Answer {
    Awaited(ResponseFuture),
    Coming(RecvStream),
    Ended,
}

impl Call {
    /// Sends a message, once the server takes it.
    pub(super) async fn send(&mut self, mut message: Bytes) -> Result<(), Failure> {
        while !message.is_empty() {
            self.stream.reserve_capacity(message.len());
            let granted = match poll_fn(|context| self.stream.poll_capacity(context)).await {
                Some(Ok(granted)) => granted.min(message.len()),
                Some(Err(error)) => return Err(self.why(Failure::from_h2(&error)).await),
                None => return Err(self.why(Failure::of("the server takes no more")).await),
            };
            if let Err(error) = self.stream.send_data(message.split_to(granted), false) {
                return Err(self.why(Failure::from_h2(&error)).await);
            }
        }
        Ok(())
    }

    /// Sends the last message, without waiting for room: it is small.
    pub(super) fn end(&mut self, message: Bytes) -> Result<(), Failure> {
        self.stream.send_data(message, true).map_err(|error| Failure::from_h2(&error))
    }

    /// The next message; `None` when the call has ended with success.
    pub(super) async fn next<R: Message + Default>(&mut self) -> Result<Option<R>, Failure> {
        loop {
            if let Some(message) = self.messages.take().map_err(Failure::of)? {
                return R::decode(message).map(Some).map_err(|_| Failure::of("a message that cannot be read"));
            }
            match &mut self.answer {
                Answer::Awaited(response) => {
                    let (head, body) = response.await.map_err(|error| Failure::from_h2(&error))?.into_parts();
                    if head.status != http::StatusCode::OK {
                        return Err(Failure::of(format!("HTTP {}", head.status.as_u16())));
                    }
                    self.answer = Answer::Coming(body);
                    // An answer without messages says its status at once ("Trailers-Only").
                    if let Some(Err(code)) = status(&head.headers) {
                        return Err(Failure::of(code));
                    }
                }
                Answer::Coming(body) => match body.data().await {
                    Some(bytes) => {
                        let bytes = bytes.map_err(|error| Failure::from_h2(&error))?;
                        self.first_byte.get_or_insert_with(Instant::now);
                        body.flow_control().release_capacity(bytes.len()).map_err(|error| Failure::from_h2(&error))?;
                        self.messages.push(&bytes);
                    }
                    None => {
                        let fields = body.trailers().await.map_err(|error| Failure::from_h2(&error))?;
                        self.answer = Answer::Ended;
                        let said = fields.as_ref().and_then(status);
                        said.unwrap_or_else(|| Err("an answer without a status".to_owned())).map_err(Failure::of)?;
                        if !self.messages.is_empty() {
                            return Err(Failure::of("an answer that ends in the middle of a message"));
                        }
                    }
                },
                Answer::Ended => return Ok(None),
            }
        }
    }

    /// The end of an answer that has no more messages.
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        match self.next::<()>().await? {
            None => Ok(()),
            Some(()) => Err(Failure::of("more messages than were asked for")),
        }
    }

    /// Why the server takes no more: what it says itself, if it does.
    async fn why(&mut self, failure: Failure) -> Failure {
        match timeout(REASON_TIME_MAX, self.next::<()>()).await {
            Ok(Err(said)) if !said.breaks => said,
            _ => failure,
        }
    }
}

/// What may be under way to this end: more than a server has ready at once.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
const REASON_TIME_MAX: Duration = Duration::from_secs(2);
