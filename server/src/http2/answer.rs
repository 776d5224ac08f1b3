//! An answer on its way out.

use std::borrow::Cow;
use std::task::{Poll, ready};

use anvil_model::io::World;
use anvil_model::time::Moment;
use anvil_runtime::Buffer;
use anvil_store::Piece;
use bytes::Buf;
use futures_util::future::{Either, select};
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::{CONTENT_LENGTH, DATE, HeaderName, HeaderValue, SERVER};
use http::{HeaderMap, StatusCode};

use super::chunk::Chunk;
use super::{Grant, SEND_BUFFER_BYTES, STALL_MAX};
use crate::http::{Outgoing, Pieces, Response};
use crate::http1::{Patience, within};
use crate::listener::Frontdoor;

pub(super) struct Answer<'a, S> {
    door: &'a Frontdoor<S>,
    request_id: &'a str,
    patience: Patience,
    /// When its first byte was ready to be sent.
    pub(super) began: Moment,
    /// What the client was told.
    pub(super) status: u16,
    /// Bytes of the body that were sent.
    pub(super) sent_bytes: u64,
}

/// The answer is not whole: the client does not take it, took it back, or its bytes cannot be had.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken;

impl<'a, S: crate::http::Service> Answer<'a, S> {
    pub(super) fn new(door: &'a Frontdoor<S>, request_id: &'a str) -> Self {
        let patience = Patience::new(door.settings.send_grace, door.settings.send_bytes_per_second_min);
        Self { door, request_id, patience, began: door.core.now(), status: 0, sent_bytes: 0 }
    }

    /// Sends the answer, of whose object the first piece was had already.
    pub(super) async fn send(
        &mut self,
        respond: &mut SendResponse<Chunk>,
        method: &str,
        response: Response<S::Pieces>,
        first: Option<Piece<Buffer>>,
    ) -> Result<(), Broken> {
        self.status = response.status;
        self.began = self.door.core.now();
        let head = self.head(&response);
        let has_no_body = method == "HEAD" || matches!(response.status, 100..=199 | 204 | 304);
        let ends = |respond: &mut SendResponse<Chunk>, head| match respond.send_response(head, true) {
            Ok(_) => Ok(()),
            Err(_) => Err(Broken),
        };
        match response.body {
            _ if has_no_body => ends(respond, head),
            Outgoing::Empty | Outgoing::Announced(0) => ends(respond, head),
            Outgoing::Announced(_) => {
                tracing::error!(request_id = self.request_id, method, "a length is announced and nothing follows");
                respond.send_reset(Reason::INTERNAL_ERROR);
                Err(Broken)
            }
            Outgoing::Bytes(bytes) if bytes.is_empty() => ends(respond, head),
            Outgoing::Bytes(bytes) => {
                let mut stream = respond.send_response(head, false).map_err(|_| Broken)?;
                let sent = self.send_chunk(&mut stream, bytes.into(), true, || {}).await;
                self.settle(stream, sent)
            }
            Outgoing::Object { length, mut reader } => match first {
                None => ends(respond, head),
                Some(first) => {
                    let mut stream = respond.send_response(head, false).map_err(|_| Broken)?;
                    let sent = self.send_object(&mut stream, length, first, &mut reader).await;
                    self.settle(stream, sent)
                }
            },
        }
    }

    /// An answer that breaks off must not look like a whole one.
    fn settle(&self, mut stream: SendStream<Chunk>, sent: Result<(), Broken>) -> Result<(), Broken> {
        if sent.is_err() {
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        sent
    }

    fn head(&self, response: &Response<S::Pieces>) -> http::Response<()> {
        let mut head = http::Response::new(());
        *head.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = head.headers_mut();
        let now = self.door.core.wall_clock();
        add(headers, DATE, self.door.dates.borrow_mut().at(now));
        headers.insert(SERVER, HeaderValue::from_static("Anvil"));
        headers.insert(HeaderName::from_static("x-amz-request-id"), unique(self.request_id));
        add(headers, HeaderName::from_static("x-amz-id-2"), &self.door.settings.host_id);
        for (name, value) in &response.headers {
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => add(headers, name, value),
                Err(_) => tracing::error!(request_id = self.request_id, ?name, "no name of a header"),
            }
        }
        let length = match &response.body {
            Outgoing::Empty => 0,
            Outgoing::Announced(length) | Outgoing::Object { length, .. } => *length,
            Outgoing::Bytes(bytes) => bytes.len() as u64,
        };
        if !matches!(response.status, 100..=199 | 204 | 304) {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        head
    }

    async fn send_object(
        &mut self,
        stream: &mut SendStream<Chunk>,
        length: u64,
        first: Piece<Buffer>,
        reader: &mut S::Pieces,
    ) -> Result<(), Broken> {
        let mut left = length;
        let mut next = Some(first);
        while left > 0 {
            let piece = match next.take() {
                Some(piece) => piece,
                None => self.next_piece(stream, left, reader).await?,
            };
            // More than was announced would be a lie about the length.
            left = left.checked_sub(piece.range.len() as u64).ok_or_else(|| {
                tracing::error!(request_id = self.request_id, "an object is longer than its answer says");
                Broken
            })?;
            let chunk = Chunk::of(Vec::new(), piece, &self.door.http2.lent);
            self.send_chunk(stream, chunk, left == 0, || reader.rest()).await?;
        }
        Ok(())
    }

    /// The next piece, unless the client takes its request back.
    async fn next_piece(
        &self,
        stream: &mut SendStream<Chunk>,
        left: u64,
        reader: &mut S::Pieces,
    ) -> Result<Piece<Buffer>, Broken> {
        let reset = std::future::poll_fn(|context| stream.poll_reset(context));
        let next = match select(std::pin::pin!(reader.next()), reset).await {
            Either::Left((next, _)) => next,
            Either::Right(_) => return Err(Broken),
        };
        match next {
            Some(Ok(piece)) => return Ok(piece),
            Some(Err(error)) => tracing::error!(request_id = self.request_id, left, %error, "an answer breaks off"),
            None => tracing::error!(request_id = self.request_id, left, "an object ends too early"),
        }
        Err(Broken)
    }

    /// Sends a part of the body as the client's window lets it. When the client takes its time, the buffer of the core's
    /// pool is given back, and with `rest` whatever else was read for this answer.
    pub(super) async fn send_chunk(
        &mut self,
        stream: &mut SendStream<Chunk>,
        mut chunk: Chunk,
        is_last: bool,
        rest: impl FnOnce(),
    ) -> Result<(), Broken> {
        let mut rest = Some(rest);
        let mut _stalled: Option<Grant<'_>> = None;
        while chunk.has_remaining() {
            stream.reserve_capacity(chunk.remaining().min(SEND_BUFFER_BYTES));
            let stalls = stream.capacity() == 0
                && chunk.is_pooled()
                && within(&self.door.core, STALL_MAX, more_capacity(stream)).await.is_none();
            if stalls {
                if let Some(rest) = rest.take() {
                    rest();
                }
                if let Some(grant) = self.door.http2.stalled.take(chunk.remaining()) {
                    chunk.move_to_heap();
                    _stalled = Some(grant);
                }
            }
            let count = self.capacity(stream).await?.min(chunk.remaining());
            let part = chunk.split_to(count);
            stream.send_data(part, is_last && !chunk.has_remaining()).map_err(|_| Broken)?;
            self.sent_bytes += count as u64;
        }
        Ok(())
    }

    /// How much the client takes now, at least 1, for as long as there is patience with it.
    async fn capacity(&mut self, stream: &mut SendStream<Chunk>) -> Result<usize, Broken> {
        if stream.capacity() == 0 {
            let began = self.door.core.now();
            within(&self.door.core, self.patience.limit(0), more_capacity(stream)).await.ok_or(Broken)??;
            self.patience.account(stream.capacity(), self.door.core.now().since(began));
        }
        Ok(stream.capacity())
    }
}

/// Waits until there is more capacity than none.
async fn more_capacity(stream: &mut SendStream<Chunk>) -> Result<(), Broken> {
    std::future::poll_fn(|context| {
        loop {
            match ready!(stream.poll_capacity(context)) {
                Some(Ok(0)) => {}
                Some(Ok(_)) => return Poll::Ready(Ok(())),
                Some(Err(_)) | None => return Poll::Ready(Err(Broken)),
            }
        }
    })
    .await
}

/// An id that never comes again: the table of fields that do has no place for it (RFC 7541, 6.2.3).
pub(super) fn unique(request_id: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(request_id).expect("an id is of letters and digits");
    value.set_sensitive(true);
    value
}

/// Control characters in values, which no frame may hold, become spaces; they can come from a query
/// (`response-content-type`).
fn add(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let is_bad = |b: u8| (b < b' ' && b != b'\t') || b == 0x7f;
    let clean: Cow<'_, [u8]> = if value.bytes().any(is_bad) {
        value.bytes().map(|b| if is_bad(b) { b' ' } else { b }).collect()
    } else {
        value.as_bytes().into()
    };
    let value = HeaderValue::from_bytes(&clean).expect("it has no control characters any more");
    headers.append(name, value);
}
