//! A call whose messages come and go one by one.

use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::time::Duration;

use anvil_proto::Message;
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use tokio::time::timeout;

use super::super::frame::{Messages, encode};
use super::{CallError, outcome};

/// A call under way. Who drops it before its end takes it back.
#[derive(Debug)]
pub struct Call {
    endpoint: String,
    requests: SendStream<Bytes>,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    Awaited(ResponseFuture),
    Coming(RecvStream, Messages),
    Ended,
}

/// How long one end may be silent, or take nothing: an order may have to wait for a disk.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// How long a reason is waited for after a stream broke.
const REASON_TIME_MAX: Duration = Duration::from_secs(2);

impl Call {
    pub(super) fn new(endpoint: String, (response, requests): (ResponseFuture, SendStream<Bytes>)) -> Self {
        Self { endpoint, requests, answer: Answer::Awaited(response) }
    }

    /// Sends a message, once the node takes it.
    ///
    /// # Errors
    /// When the node refused meanwhile, or is gone.
    pub async fn send(&mut self, message: &impl Message) -> Result<(), CallError> {
        let mut frame = Bytes::from(encode(message).map_err(|status| self.unreachable(status))?);
        while !frame.is_empty() {
            if let Err(error) = self.push(&mut frame).await {
                return Err(self.why(error).await);
            }
        }
        Ok(())
    }

    /// Sends as much as the node's window holds.
    async fn push(&mut self, frame: &mut Bytes) -> Result<(), CallError> {
        self.requests.reserve_capacity(frame.len());
        while self.requests.capacity() == 0 {
            let room = silence(poll_fn(|context| self.requests.poll_capacity(context))).await;
            match room.ok_or_else(|| self.unreachable("it takes nothing"))? {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(self.unreachable(error)),
                None => return Err(self.unreachable("it closed the stream")),
            }
        }
        let piece = frame.split_to(self.requests.capacity().min(frame.len()));
        self.requests.send_data(piece, false).map_err(|error| self.unreachable(error))
    }

    /// Says that no more messages come.
    ///
    /// # Errors
    /// When the node refused meanwhile, or is gone.
    pub async fn close(&mut self) -> Result<(), CallError> {
        let closed = self.requests.send_data(Bytes::new(), true);
        match closed.map_err(|error| self.unreachable(error)) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.why(error).await),
        }
    }

    /// The next message; `None` when the call ended with success.
    ///
    /// # Errors
    /// With the node's own status, or when it is gone.
    pub async fn next<R: Message + Default>(&mut self) -> Result<Option<R>, CallError> {
        if let Answer::Awaited(response) = &mut self.answer {
            let response = silence(response).await.ok_or_else(|| self.unreachable("it does not answer"))?;
            let (head, body) = response.map_err(|error| self.unreachable(error))?.into_parts();
            if let Some(outcome) = outcome(&head.headers) {
                self.answer = Answer::Ended;
                return outcome.map(|()| None);
            }
            if head.status != http::StatusCode::OK {
                return Err(self.unreachable(format!("it answers with {}, not as a node does", head.status)));
            }
            self.answer = Answer::Coming(body, Messages::default());
        }
        let endpoint = &self.endpoint;
        let Answer::Coming(body, messages) = &mut self.answer else { return Ok(None) };
        loop {
            if let Some(message) = messages.take().map_err(|status| unreachable(endpoint, status))? {
                return R::decode(message).map(Some).map_err(|error| unreachable(endpoint, error));
            }
            let Some(bytes) = silence(body.data()).await.ok_or_else(|| unreachable(endpoint, "it is silent"))? else {
                break;
            };
            let bytes = bytes.map_err(|error| unreachable(endpoint, error))?;
            // It fails only for more than what came.
            let _ = body.flow_control().release_capacity(bytes.len());
            messages.push(bytes);
        }
        let trailers = silence(body.trailers()).await.ok_or_else(|| unreachable(endpoint, "it is silent"))?;
        let trailers = trailers.map_err(|error| unreachable(endpoint, error))?.unwrap_or_default();
        let outcome = outcome(&trailers).unwrap_or_else(|| Err(unreachable(endpoint, "its answer has no status")));
        if outcome.is_ok() && !messages.is_empty() {
            return Err(unreachable(endpoint, "its answer ends in the middle of a message"));
        }
        self.answer = Answer::Ended;
        outcome.map(|()| None)
    }

    /// The one message of an answer that has no more.
    ///
    /// # Errors
    /// As [`Self::next`], and when there is none.
    pub async fn only<R: Message + Default>(&mut self) -> Result<R, CallError> {
        let answer = self.next().await?;
        let answer = answer.ok_or_else(|| self.unreachable("its answer has no message"))?;
        match self.next::<R>().await? {
            None => Ok(answer),
            Some(_) => Err(self.unreachable("it answers more than was asked")),
        }
    }

    /// Why the node takes no more: what it says itself, if it does.
    async fn why(&mut self, error: CallError) -> CallError {
        match timeout(REASON_TIME_MAX, self.next::<()>()).await {
            Ok(Err(refused @ CallError::Refused { .. })) => refused,
            _ => error,
        }
    }

    fn unreachable(&self, what: impl Display) -> CallError {
        unreachable(&self.endpoint, what)
    }
}

/// `None` when nothing happens for too long.
async fn silence<T>(waiting: impl Future<Output = T>) -> Option<T> {
    timeout(SILENCE_MAX, waiting).await.ok()
}

fn unreachable(endpoint: &str, what: impl Display) -> CallError {
    CallError::Unreachable { endpoint: endpoint.to_owned(), what: what.to_string() }
}
