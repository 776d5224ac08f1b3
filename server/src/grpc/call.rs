//! A call as a method sees it.

use anvil_proto::Message;
use anvil_runtime::Buffer;
use anvil_store::Piece;
use bytes::Bytes;

use super::frame::{Encoding, Messages, encode, malformed};
use super::rope::Rope;
use super::status::Status;
use crate::http::Head;

/// Brings the bytes of a call, and takes those of its answer.
pub trait Wire {
    /// What came next. May be dropped and asked again: nothing is lost.
    fn receive(&mut self, wait: Wait) -> impl Future<Output = Result<Received, Status>>;
    /// Sends bytes. The first ones make the answer one that began well; a status ends it in any case.
    fn send(&mut self, bytes: Vec<u8>) -> impl Future<Output = Result<(), Status>>;
    /// Sends bytes and a piece behind them, uncopied while the client takes it at once. When it does not, the piece leaves
    /// its buffer, and `rest` gives back what else was read for this answer.
    fn send_piece(
        &mut self,
        bytes: Vec<u8>,
        piece: Piece<Buffer>,
        rest: impl FnOnce(),
    ) -> impl Future<Output = Result<(), Status>>;
}

/// Answers calls.
pub trait Calls: 'static {
    /// Serves a call to its end; `is_tls` says whether others may have read it on its way.
    fn serve<W: Wire>(
        &self,
        head: &Head,
        is_tls: bool,
        encoding: Encoding,
        wire: &mut W,
    ) -> impl Future<Output = Result<(), Status>>;
}

/// Answers none. There is no value of it.
#[derive(Clone, Copy, Debug)]
pub enum NoCalls {}

impl Calls for NoCalls {
    async fn serve<W: Wire>(&self, _: &Head, _: bool, _: Encoding, _: &mut W) -> Result<(), Status> {
        match *self {}
    }
}

/// For how long bytes are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// As long as a message may take that was announced.
    Patiently,
    /// As long as a buffer of the pool may wait; [`Received::Later`] behind that.
    Briefly,
    /// As long as the call lasts: the client has nothing to send.
    Idly,
}

/// What came of waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Bytes.
    Bytes(Bytes),
    /// The end of what the client sends.
    End,
    /// Nothing yet.
    Later,
}

/// A message, or why there is none.
#[derive(Clone, Debug)]
pub enum Next<M> {
    /// A message.
    Message(M),
    /// There is none any more.
    End,
    /// None yet; only of [`Wait::Briefly`].
    Later,
}

/// A call whose caller is believed.
#[derive(Debug)]
pub struct Call<'a, W> {
    /// What was said beside the messages.
    pub head: &'a Head,
    wire: &'a mut W,
    messages: Messages,
}

impl<'a, W: Wire> Call<'a, W> {
    /// The call that comes over `wire`, its messages written so.
    pub fn new(head: &'a Head, encoding: Encoding, wire: &'a mut W) -> Self {
        Self { head, wire, messages: Messages::of(encoding) }
    }

    /// The next message; `None` when there is none any more.
    ///
    /// # Errors
    /// When it does not come, is too large, or is not of its type.
    pub async fn message<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        match self.next(Wait::Patiently).await? {
            Next::Message(message) => Ok(Some(message)),
            Next::End => Ok(None),
            Next::Later => unreachable!("a message is waited for"),
        }
    }

    /// The next message, waited for in this way. May be dropped and asked again.
    ///
    /// # Errors
    /// As [`Self::message`].
    pub async fn next<M: Message + Default>(&mut self, wait: Wait) -> Result<Next<M>, Status> {
        Ok(match self.next_bytes(wait).await? {
            Next::Message(bytes) => Next::Message(M::decode(bytes).map_err(|_| not_taken())?),
            Next::End => Next::End,
            Next::Later => Next::Later,
        })
    }

    /// Like [`Self::next`], for those who read messages themselves.
    ///
    /// # Errors
    /// When it does not come or is too large.
    pub async fn next_bytes(&mut self, wait: Wait) -> Result<Next<Rope>, Status> {
        loop {
            if let Some(message) = self.messages.take()? {
                return Ok(Next::Message(message));
            }
            // A message that has begun is owed.
            let wait = if wait == Wait::Idly && !self.messages.is_empty() { Wait::Patiently } else { wait };
            match self.wire.receive(wait).await? {
                Received::Bytes(bytes) => self.messages.push(bytes),
                Received::Later => return Ok(Next::Later),
                Received::End if self.messages.is_empty() => return Ok(Next::End),
                Received::End => return Err(malformed("the call ends within a message")),
            }
        }
    }

    /// The message of a method that takes one.
    ///
    /// # Errors
    /// As [`Self::message`], and when there is none or another one.
    pub async fn only_message<M: Message + Default>(&mut self) -> Result<M, Status> {
        let message = self.message().await?.ok_or_else(|| malformed("the call has no message"))?;
        match self.message::<M>().await? {
            None => Ok(message),
            Some(_) => Err(malformed("the call has more than one message")),
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When it is too large, or the client does not take it.
    pub async fn answer(&mut self, message: &impl Message) -> Result<(), Status> {
        self.wire.send(encode(message)?).await
    }

    /// Sends a message whose last field is the bytes of a piece; `head` is the message without them.
    ///
    /// # Errors
    /// When the client does not take it.
    pub async fn answer_piece(
        &mut self,
        head: Vec<u8>,
        piece: Piece<Buffer>,
        rest: impl FnOnce(),
    ) -> Result<(), Status> {
        self.wire.send_piece(head, piece, rest).await
    }
}

/// A message is not of its type.
#[must_use]
pub fn not_taken() -> Status {
    malformed("a message is not what its method takes")
}
