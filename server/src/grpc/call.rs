//! A call as a method sees it.

use anvil_proto::Message;
use bytes::Bytes;

use super::frame::{Messages, encode, malformed};
use super::status::Status;
use crate::http::Head;

/// Brings the bytes of a call, and takes those of its answer.
pub trait Wire {
    /// What came next; `None` at the end of what the client sends.
    fn receive(&mut self) -> impl Future<Output = Result<Option<Bytes>, Status>>;
    /// Sends bytes. The first ones make the answer one that began well; a status ends it in any case.
    fn send(&mut self, bytes: Vec<u8>) -> impl Future<Output = Result<(), Status>>;
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
    /// The call that comes over `wire`.
    pub fn new(head: &'a Head, wire: &'a mut W) -> Self {
        Self { head, wire, messages: Messages::default() }
    }

    /// The next message; `None` when there is none any more.
    ///
    /// # Errors
    /// When it does not come, is too large, or is not of its type.
    pub async fn message<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.messages.take()? {
                let decoded = M::decode(message);
                return decoded.map(Some).map_err(|_| malformed("a message is not what its method takes"));
            }
            match self.wire.receive().await? {
                Some(bytes) => self.messages.push(&bytes),
                None if self.messages.is_empty() => return Ok(None),
                None => return Err(malformed("the call ends within a message")),
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
}
