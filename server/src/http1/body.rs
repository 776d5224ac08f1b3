//! A request's body, freed of its transfer coding.

use std::ops::Range;
use std::time::Duration;

use anvil_runtime::Buffer;

use super::chunked::{ChunkedDecoder, Step};
use super::head::BodyLength;
use super::settings::Settings;
use super::wire::{Patience, Wire};
use crate::http::{FAST_BYTES_PER_SECOND_MIN, Incoming, ReceiveError, STALL_TIME};

/// Where a body is. Lives as long as its request.
#[derive(Debug)]
pub(crate) struct Body {
    framing: Framing,
    length: Option<u64>,
    /// The client waits for `100 Continue` before it sends anything.
    awaits_continue: bool,
    /// The client waits for `100 Continue` although it has nothing to send. RFC 9110 (10.1.1) lets a server leave it out
    /// then, but botocore takes the next answer of the connection for a copy of the one that came without.
    pub(crate) awaits_nothing: bool,
    patience: Patience,
    /// For how long a buffer of the pool may still wait for bytes.
    haste: Patience,
    /// Payload bytes given out.
    pub(crate) received: u64,
    /// What went wrong. The connection cannot be used for another request then.
    pub(crate) failure: Option<ReceiveError>,
}

/// Says that the body may come.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[derive(Debug)]
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(ChunkedDecoder),
}

/// One receive straight into a buffer asks for at most this much, so that a client that falls silent is noticed before
/// a whole window's time is over.
const FILL_BYTES_MAX: usize = 256 << 10;

impl Body {
    pub(crate) fn new(length: BodyLength, expects_continue: bool, settings: &Settings) -> Self {
        let framing = match length {
            BodyLength::Known(length) => Framing::Length(length),
            BodyLength::Chunked => Framing::Chunked(ChunkedDecoder::new()),
        };
        Self {
            awaits_continue: expects_continue && length != BodyLength::Known(0),
            awaits_nothing: expects_continue && length == BodyLength::Known(0),
            framing,
            length: if let BodyLength::Known(length) = length { Some(length) } else { None },
            patience: Patience::new(settings.body_grace, settings.body_bytes_per_second_min),
            haste: Patience::new(STALL_TIME, FAST_BYTES_PER_SECOND_MIN),
            received: 0,
            failure: None,
        }
    }

    /// The whole body was taken off the wire.
    pub(crate) fn is_complete(&self) -> bool {
        match &self.framing {
            Framing::Length(left) => *left == 0,
            Framing::Chunked(decoder) => decoder.ended(),
        }
    }

    /// Throws away what is here already, without waiting.
    pub(crate) fn skip_pending(&mut self, wire: &mut Wire) {
        while self.failure.is_none() {
            match self.step(wire) {
                Ok(Step::Data(left)) if !wire.pending().is_empty() => {
                    let count = at_most(left, wire.pending().len());
                    self.take(count as u64);
                    wire.consume(count);
                }
                Ok(_) => return,
                Err(failure) => self.failure = Some(failure),
            }
        }
    }

    /// True when so little is left to come, and surely comes, that it is better read than the connection closed.
    pub(crate) fn is_worth_draining(&self, bytes_max: u64) -> bool {
        match self.framing {
            Framing::Length(left) => self.failure.is_none() && !self.awaits_continue && left <= bytes_max,
            Framing::Chunked(_) => false,
        }
    }

    /// Reads what is left; false when it does not come in time.
    pub(crate) async fn drain(&mut self, wire: &mut Wire, limit: Duration) -> bool {
        let core = wire.core.clone();
        let read = async {
            loop {
                self.skip_pending(wire);
                if self.failure.is_some() || self.is_complete() {
                    return;
                }
                if !matches!(wire.receive().await, Ok(1..)) {
                    self.failure = Some(ReceiveError::Disconnected);
                }
            }
        };
        super::wire::within(&core, limit, read).await;
        self.failure.is_none() && self.is_complete()
    }

    /// Reads the coding from what is pending until payload, the end, or nothing more is there.
    fn step(&mut self, wire: &mut Wire) -> Result<Step, ReceiveError> {
        match &mut self.framing {
            Framing::Length(0) => Ok(Step::End),
            Framing::Length(left) => Ok(Step::Data(*left)),
            Framing::Chunked(decoder) => {
                let (used, step) = decoder.step(wire.pending()).map_err(|_| ReceiveError::Malformed)?;
                wire.consume(used);
                Ok(step)
            }
        }
    }

    fn take(&mut self, count: u64) {
        match &mut self.framing {
            Framing::Length(left) => *left -= count,
            Framing::Chunked(decoder) => decoder.take(count),
        }
    }

    /// How much payload comes next, 0 at the end; receives until the coding says so.
    async fn payload_ahead(&mut self, wire: &mut Wire) -> Result<u64, ReceiveError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.answer_expectation(wire).await?;
        loop {
            match self.step(wire)? {
                Step::Data(left) => return Ok(left),
                Step::End => return Ok(0),
                Step::More => self.receive(wire).await?,
            }
        }
    }

    /// Like [`Self::payload_ahead`]; `None` when that would have to be waited for.
    async fn payload_soon(&mut self, wire: &mut Wire) -> Result<Option<u64>, ReceiveError> {
        loop {
            if let Some(failure) = self.failure {
                return Err(failure);
            }
            self.answer_expectation(wire).await?;
            match self.step(wire)? {
                Step::Data(left) => return Ok(Some(left)),
                Step::End => return Ok(Some(0)),
                Step::More if wire.comes_soon(&mut self.haste, &mut self.patience).await => {
                    // Something came, or the stream has ended: either is here at once.
                    if wire.pending().is_empty() {
                        return Err(ReceiveError::Disconnected);
                    }
                }
                Step::More => return Ok(None),
            }
        }
    }

    async fn receive(&mut self, wire: &mut Wire) -> Result<(), ReceiveError> {
        match wire.receive_patiently(&mut self.haste, &mut self.patience).await? {
            0 => Err(ReceiveError::Disconnected),
            _ => Ok(()),
        }
    }

    async fn answer_expectation(&mut self, wire: &mut Wire) -> Result<(), ReceiveError> {
        if !std::mem::take(&mut self.awaits_continue) || !wire.pending().is_empty() {
            return Ok(());
        }
        let line = CONTINUE.to_vec();
        let length = line.len();
        wire.send(line, 0..length, &mut self.patience).await.map_err(|_| ReceiveError::Disconnected)?;
        Ok(())
    }

    async fn read(&mut self, wire: &mut Wire, into: &mut Vec<u8>, max: usize) -> Result<usize, ReceiveError> {
        let ahead = self.payload_ahead(wire).await?;
        if ahead == 0 || max == 0 {
            return Ok(0);
        }
        let wanted = at_most(ahead, max);
        let count = if wire.pending().is_empty() {
            wire.receive_onto(into, wanted, &mut self.haste, &mut self.patience).await?
        } else {
            let count = wanted.min(wire.pending().len());
            into.extend_from_slice(&wire.pending()[..count]);
            wire.consume(count);
            count
        };
        if count == 0 {
            return Err(ReceiveError::Disconnected);
        }
        self.take(count as u64);
        self.received += count as u64;
        Ok(count)
    }

    async fn fill(
        &mut self,
        wire: &mut Wire,
        mut buffer: Buffer,
        range: Range<usize>,
    ) -> (Result<usize, ReceiveError>, Buffer) {
        let mut at = range.start;
        while at < range.end {
            let ahead = match self.payload_soon(wire).await {
                Ok(Some(0) | None) => break,
                Ok(Some(ahead)) => at_most(ahead, range.end - at),
                Err(failure) => return (Err(failure), buffer),
            };
            let pending = ahead.min(wire.pending().len());
            let (count, stalled) = if pending > 0 {
                buffer[at..at + pending].copy_from_slice(&wire.pending()[..pending]);
                wire.consume(pending);
                (pending, false)
            } else {
                let wanted = ahead.min(FILL_BYTES_MAX);
                let (result, returned) = wire.fill(buffer, at..at + wanted, &mut self.haste, &mut self.patience).await;
                buffer = returned;
                match result {
                    Ok(count) => (count, count < wanted),
                    Err(failure) => return (Err(failure), buffer),
                }
            };
            at += count;
            self.take(count as u64);
            self.received += count as u64;
            if stalled {
                break;
            }
        }
        (Ok(at - range.start), buffer)
    }
}

/// The body of a request as its handler sees it.
pub(crate) struct Receiving<'a> {
    pub(crate) wire: &'a mut Wire,
    pub(crate) body: &'a mut Body,
}

impl Incoming for Receiving<'_> {
    fn length(&self) -> Option<u64> {
        self.body.length
    }

    async fn fill(&mut self, buffer: Buffer, range: Range<usize>) -> (Result<usize, ReceiveError>, Buffer) {
        assert!(range.start <= range.end && range.end <= buffer.len(), "the range lies in the buffer");
        let (result, buffer) = self.body.fill(self.wire, buffer, range).await;
        if let Err(failure) = result {
            self.body.failure = Some(failure);
        }
        (result, buffer)
    }

    async fn read(&mut self, into: &mut Vec<u8>, max: usize) -> Result<usize, ReceiveError> {
        let result = self.body.read(self.wire, into, max).await;
        if let Err(failure) = result {
            self.body.failure = Some(failure);
        }
        result
    }

    async fn comes_soon(&mut self) -> bool {
        match self.body.payload_soon(self.wire).await {
            Ok(Some(0)) => true,
            Ok(Some(_)) => self.wire.comes_soon(&mut self.body.haste, &mut self.body.patience).await,
            Ok(None) => false,
            Err(failure) => {
                self.body.failure = Some(failure);
                true
            }
        }
    }
}

fn at_most(left: u64, count: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(count)
}
