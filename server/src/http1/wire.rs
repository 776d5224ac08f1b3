//! A connection with the bytes that came too early, and patience with whoever is on its other end.

use std::net::SocketAddr;
use std::ops::Range;
use std::task::Poll;
use std::time::Duration;

use anvil_model::io::World;
use anvil_runtime::net::{Connection, SendBytes};
use anvil_runtime::{Buffer, Core};
use futures_util::future::{Either, select};

use super::IDLE_BYTES_MAX;
use crate::http::{OFFER_TIME, ReceiveError};
use crate::transport::{Stream, Transport};

/// The output of `future`, or `None` when it takes longer than `limit`: then the future is dropped.
pub(crate) async fn within<T>(core: &Core, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    // What is ready at once, as most is, needs no timer.
    if let Poll::Ready(output) = futures_util::poll!(&mut future) {
        return Some(output);
    }
    match select(future, std::pin::pin!(core.sleep(limit))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(((), _)) => None,
    }
}

/// How long the other end may still be waited for. Time spent waiting takes from it; bytes that come give back, at
/// the slowest rate that is bearable, but never more than the grace it began with: a fast beginning buys no long
/// silence later.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    left: Duration,
    grace: Duration,
    bytes_per_second_min: u64,
}

impl Patience {
    pub(crate) fn new(grace: Duration, bytes_per_second_min: u64) -> Self {
        assert!(bytes_per_second_min > 0, "a rate of nothing waits for ever");
        Self { left: grace, grace, bytes_per_second_min }
    }

    /// How long `bytes` may take.
    pub(crate) fn limit(&self, bytes: usize) -> Duration {
        self.left + self.earned(bytes)
    }

    /// Accounts for `bytes` that took `waited`.
    pub(crate) fn account(&mut self, bytes: usize, waited: Duration) {
        self.left = self.limit(bytes).saturating_sub(waited).min(self.grace);
    }

    fn earned(&self, bytes: usize) -> Duration {
        Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / self.bytes_per_second_min)
    }
}

/// A connection, and what was received from it and not used yet.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) core: Core,
    /// Who is connected.
    pub(crate) peer: SocketAddr,
    transport: Transport,
    input: Vec<u8>,
    /// Of `input`, the bytes that are used already.
    used: usize,
}

/// The client is gone, or does not take its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SendError;

impl Wire {
    pub(crate) fn new(core: Core, connection: Connection, peer: SocketAddr) -> Self {
        Self { core, peer, transport: Transport::Plain(connection), input: Vec::new(), used: 0 }
    }

    /// A wire over TLS.
    pub(crate) fn over_tls(core: Core, stream: Stream, peer: SocketAddr) -> Self {
        Self { core, peer, transport: Transport::Tls(Box::new(stream)), input: Vec::new(), used: 0 }
    }

    /// The same connection for those who poll, with what is pending. Only a plain one becomes another.
    pub(crate) fn into_stream(mut self, linger: (Duration, u64)) -> Stream {
        match self.transport {
            Transport::Plain(connection) => {
                self.input.drain(..self.used);
                Stream::plain(self.core, connection, self.input, linger)
            }
            Transport::Tls(stream) => *stream,
        }
    }

    /// Received and not used.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.input[self.used..]
    }

    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.pending().len(), "only what was received is used");
        self.used += count;
        if self.used == self.input.len() {
            self.used = 0;
            self.input.clear();
        }
    }

    /// Gives back memory before a wait of unknown length.
    pub(crate) fn rest(&mut self) {
        if self.input.is_empty() && self.input.capacity() > IDLE_BYTES_MAX {
            self.input = Vec::new();
        }
    }

    /// Adds what comes next to [`Self::pending`]; gives how many bytes, 0 at the end of the stream. Dropping the
    /// future loses nothing.
    pub(crate) async fn receive(&mut self) -> Result<usize, ReceiveError> {
        let received = self.transport.receive().await.map_err(|_| ReceiveError::Disconnected)?;
        if self.used > 0 {
            self.input.drain(..self.used);
            self.used = 0;
        }
        self.input.extend_from_slice(&received);
        Ok(received.len())
    }

    /// Appends what comes next to `into`, at most `max` bytes; what is more is pending then. Nothing may be pending
    /// before. For no longer than `patience` allows.
    pub(crate) async fn receive_onto(
        &mut self,
        into: &mut Vec<u8>,
        max: usize,
        haste: &mut Patience,
        patience: &mut Patience,
    ) -> Result<usize, ReceiveError> {
        assert!(self.pending().is_empty() && max > 0, "bytes keep their order");
        let began = self.core.now();
        let received = match within(&self.core, patience.limit(0), self.transport.receive()).await {
            Some(received) => received.map_err(|_| ReceiveError::Disconnected)?,
            None => return Err(ReceiveError::TimedOut),
        };
        let waited = self.core.now().since(began);
        haste.account(received.len(), waited);
        patience.account(received.len(), waited);
        let count = received.len().min(max);
        into.extend_from_slice(&received[..count]);
        self.input.extend_from_slice(&received[count..]);
        Ok(count)
    }

    /// Like [`Self::receive`], for no longer than `limit`.
    pub(crate) async fn receive_within(&mut self, limit: Duration) -> Result<usize, ReceiveError> {
        let core = self.core.clone();
        within(&core, limit, self.receive()).await.unwrap_or(Err(ReceiveError::TimedOut))
    }

    /// Like [`Self::receive`], for no longer than `patience` allows.
    pub(crate) async fn receive_patiently(
        &mut self,
        haste: &mut Patience,
        patience: &mut Patience,
    ) -> Result<usize, ReceiveError> {
        let began = self.core.now();
        let count = self.receive_within(patience.limit(0)).await?;
        let waited = self.core.now().since(began);
        haste.account(count, waited);
        patience.account(count, waited);
        Ok(count)
    }

    /// Waits for no longer than `haste` allows until more is pending; true at the end of the stream too.
    pub(crate) async fn comes_soon(&mut self, haste: &mut Patience, patience: &mut Patience) -> bool {
        if !self.pending().is_empty() {
            return true;
        }
        let began = self.core.now();
        let came = self.receive_within(haste.limit(0)).await;
        let (count, waited) = (*came.as_ref().unwrap_or(&0), self.core.now().since(began));
        haste.account(count, waited);
        patience.account(count, waited);
        came != Err(ReceiveError::TimedOut)
    }

    /// Receives straight into `buffer[range]`, which is not empty, until it is full, the stream ends, or `haste` is at
    /// its end. Nothing may be pending.
    pub(crate) async fn fill(
        &mut self,
        buffer: Buffer,
        range: Range<usize>,
        haste: &mut Patience,
        patience: &mut Patience,
    ) -> (Result<usize, ReceiveError>, Buffer) {
        assert!(self.pending().is_empty() && !range.is_empty(), "bytes keep their order");
        let began = self.core.now();
        let limit = haste.limit(range.len());
        let (result, buffer) = self.transport.fill_within(buffer, range, limit).await;
        let (count, waited) = (*result.as_ref().unwrap_or(&0), self.core.now().since(began));
        haste.account(count, waited);
        patience.account(count, waited);
        (result.map_err(|_| ReceiveError::Disconnected), buffer)
    }

    /// Sends what the client takes of `bytes[range]` in a moment ([`OFFER_TIME`]); says how many bytes that is.
    pub(crate) async fn offer(
        &mut self,
        bytes: Buffer,
        range: Range<usize>,
        patience: &mut Patience,
    ) -> Result<usize, SendError> {
        let began = self.core.now();
        let count = self.transport.offer(bytes, range, OFFER_TIME).await.map_err(|_| SendError)?;
        patience.account(count, self.core.now().since(began));
        Ok(count)
    }

    /// The same for `head` and `body[range]` together. The head is always sent, and comes back.
    pub(crate) async fn offer_with_head(
        &mut self,
        head: Vec<u8>,
        body: Buffer,
        range: Range<usize>,
        patience: &mut Patience,
    ) -> Result<(usize, Vec<u8>), SendError> {
        let began = self.core.now();
        let (result, head) = self.transport.offer_with_head(head, body, range, OFFER_TIME).await;
        let count = result.map_err(|_| SendError)?;
        patience.account(count, self.core.now().since(began));
        match count.checked_sub(head.len()) {
            Some(taken) => Ok((taken, head)),
            None => {
                let all = head.len();
                Ok((0, self.send(head, count..all, patience).await?))
            }
        }
    }

    /// Sends all of `bytes[range]` and gives `bytes` back.
    pub(crate) async fn send<B: SendBytes>(
        &mut self,
        bytes: B,
        range: Range<usize>,
        patience: &mut Patience,
    ) -> Result<B, SendError> {
        let began = self.core.now();
        let core = self.core.clone();
        let count = range.len();
        match within(&core, patience.limit(count), self.transport.send(bytes, range)).await {
            Some((Ok(()), bytes)) => {
                patience.account(count, core.now().since(began));
                Ok(bytes)
            }
            _ => Err(SendError),
        }
    }

    /// Waits a moment until the socket has all that was offered; false when it has not.
    pub(crate) async fn settles_soon(&mut self) -> Result<bool, SendError> {
        match within(&self.core, OFFER_TIME, self.transport.settle()).await {
            None => Ok(false),
            Some(settled) => settled.map(|()| true).map_err(|_| SendError),
        }
    }

    /// Waits until the socket has all that was offered.
    pub(crate) async fn settle(&mut self, patience: &mut Patience) -> Result<(), SendError> {
        let began = self.core.now();
        let core = self.core.clone();
        let settled = within(&core, patience.limit(0), self.transport.settle()).await;
        patience.account(0, core.now().since(began));
        settled.and_then(Result::ok).ok_or(SendError)
    }

    /// Closes so that the client sees what was sent last: says that nothing more comes, then reads until the client
    /// closes too, or has had its time. Closing with unread bytes would make the kernel send a reset, at which the
    /// client's kernel throws away what the client has not read yet (RFC 9112, 9.6).
    pub(crate) async fn linger(mut self, limit: Duration, bytes_max: u64) {
        let core = self.core.clone();
        if !matches!(within(&core, limit, self.transport.shutdown()).await, Some(Ok(()))) {
            return;
        }
        self.input = Vec::new();
        let read = async {
            let mut left = bytes_max;
            while left > 0 {
                match self.transport.receive().await {
                    Ok(received) if !received.is_empty() => left = left.saturating_sub(received.len() as u64),
                    _ => break,
                }
            }
        };
        within(&core, limit, read).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_with_silence_and_a_fast_beginning_buys_none() {
        let second = Duration::from_secs(1);
        let mut patience = Patience::new(10 * second, 1000);
        assert_eq!(patience.limit(2000), 12 * second);
        patience.account(1_000_000, second);
        assert_eq!(patience.limit(0), 10 * second);
        patience.account(1000, 4 * second);
        assert_eq!(patience.limit(0), 7 * second);
        patience.account(0, 100 * second);
        assert_eq!(patience.limit(0), Duration::ZERO);
        patience.account(1000, Duration::ZERO);
        assert_eq!(patience.limit(0), second);
    }
}
