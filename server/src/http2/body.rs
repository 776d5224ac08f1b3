//! A request's body as its handler sees it: DATA frames, whose window grows as they are taken.

use std::cell::RefCell;
use std::ops::Range;
use std::task::Poll;

use anvil_model::io::World;
use anvil_runtime::{Buffer, Core};
use bytes::{Buf, Bytes};
use h2::RecvStream;
use h2::server::SendResponse;

use super::chunk::Chunk;
use crate::http::{FAST_BYTES_PER_SECOND_MIN, Incoming, ReceiveError, STALL_TIME};
use crate::http1::{Patience, Settings, within};

/// Where a body is.
pub(super) struct Body<'a> {
    core: Core,
    stream: RecvStream,
    /// Says `100 Continue`.
    respond: &'a RefCell<SendResponse<Chunk>>,
    /// The client waits for `100 Continue` before it sends anything.
    awaits_continue: bool,
    length: Option<u64>,
    /// Came and was not taken.
    frame: Bytes,
    patience: Patience,
    /// For how long a buffer of the pool may still wait for bytes.
    haste: Patience,
    /// Bytes given out.
    pub(super) received: u64,
    failure: Option<ReceiveError>,
}

impl<'a> Body<'a> {
    pub(super) fn new(
        core: Core,
        stream: RecvStream,
        respond: &'a RefCell<SendResponse<Chunk>>,
        request: &super::head::Request,
        settings: &Settings,
    ) -> Self {
        Self {
            core,
            stream,
            respond,
            awaits_continue: request.expects_continue,
            length: request.length,
            frame: Bytes::new(),
            patience: Patience::new(settings.body_grace, settings.body_bytes_per_second_min),
            haste: Patience::new(STALL_TIME, FAST_BYTES_PER_SECOND_MIN),
            received: 0,
            failure: None,
        }
    }

    /// What may still come; `None` when the client was not asked to send it.
    pub(super) fn into_rest(self) -> Option<RecvStream> {
        (!self.awaits_continue).then_some(self.stream)
    }

    /// Has the next bytes in `frame`; there are none only at the end of the body. `h2` has seen to it that the frames
    /// are together as long as the client said.
    async fn frame_ahead(&mut self) -> Result<(), ReceiveError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        while self.frame.is_empty() {
            match self.next_frame().await {
                Ok(Some(frame)) => self.frame = frame,
                // Trailer fields, if any, are of no use to S3 and are dropped with the stream.
                Ok(None) => break,
                Err(failure) => {
                    self.failure = Some(failure);
                    return Err(failure);
                }
            }
        }
        Ok(())
    }

    /// Like [`Self::frame_ahead`]; false when that would have to be waited for longer than a buffer may wait.
    async fn frame_soon(&mut self) -> Result<bool, ReceiveError> {
        let core = self.core.clone();
        let limit = self.haste.limit(0);
        match within(&core, limit, self.frame_ahead()).await {
            Some(came) => came.map(|()| true),
            None => {
                self.patience.account(0, limit);
                self.haste.account(0, limit);
                Ok(false)
            }
        }
    }

    async fn next_frame(&mut self) -> Result<Option<Bytes>, ReceiveError> {
        let began = self.core.now();
        let limit = self.patience.limit(0);
        let frame = within(&self.core, limit, async {
            if let Poll::Ready(frame) = futures_util::poll!(std::pin::pin!(self.stream.data())) {
                return frame;
            }
            if std::mem::take(&mut self.awaits_continue) {
                // When it cannot be sent, the body will not come, which is noticed anyway.
                let _ = self.respond.borrow_mut().send_informational(interim());
            }
            self.stream.data().await
        });
        let frame = match frame.await {
            None => return Err(ReceiveError::TimedOut),
            Some(None) => return Ok(None),
            Some(Some(Err(_))) => return Err(ReceiveError::Disconnected),
            Some(Some(Ok(frame))) => frame,
        };
        let waited = self.core.now().since(began);
        self.patience.account(frame.len(), waited);
        self.haste.account(frame.len(), waited);
        Ok(Some(frame))
    }

    /// The client may send as many more.
    fn taken(&mut self, count: usize) {
        self.received += count as u64;
        // It fails only for more than what came.
        let _ = self.stream.flow_control().release_capacity(count);
    }
}

fn interim() -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::CONTINUE;
    response
}

impl Incoming for Body<'_> {
    fn length(&self) -> Option<u64> {
        self.length
    }

    async fn fill(&mut self, mut buffer: Buffer, range: Range<usize>) -> (Result<usize, ReceiveError>, Buffer) {
        assert!(range.start <= range.end && range.end <= buffer.len(), "the range lies in the buffer");
        let mut at = range.start;
        while at < range.end {
            match self.frame_soon().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(failure) => return (Err(failure), buffer),
            }
            let count = self.frame.len().min(range.end - at);
            if count == 0 {
                break;
            }
            self.frame.copy_to_slice(&mut buffer[at..at + count]);
            self.taken(count);
            at += count;
        }
        (Ok(at - range.start), buffer)
    }

    async fn read(&mut self, into: &mut Vec<u8>, max: usize) -> Result<usize, ReceiveError> {
        self.frame_ahead().await?;
        let count = self.frame.len().min(max);
        into.extend_from_slice(&self.frame.split_to(count));
        self.taken(count);
        Ok(count)
    }

    async fn comes_soon(&mut self) -> bool {
        // A failure is an outcome that is not waited for.
        self.frame_soon().await.unwrap_or(true)
    }
}
