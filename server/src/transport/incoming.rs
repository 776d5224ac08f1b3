//! The receiving half of a polled stream.

use std::io;
use std::task::{Context, Poll, ready};

use anvil_runtime::net::{Reader, Received};

/// Bytes from the socket, in order. Those that are here stay in the small buffer of the core that they came in, so that
/// nothing is copied but to where it is wanted.
pub(super) struct Incoming {
    reader: Reader,
    here: Here,
    /// Of what is here, the bytes that are used already.
    used: usize,
    /// Bytes given since the task last gave way to others.
    in_this_turn: usize,
    /// The peer sends nothing more.
    ended: bool,
    /// Received in all.
    pub(super) total_bytes: u64,
}

enum Here {
    Nothing,
    Ring(Received),
    Heap(Vec<u8>),
}

/// What one connection may read before the others of its core have a turn.
const TURN_BYTES_MAX: usize = 512 << 10;

impl Incoming {
    /// `early` are bytes that were received before.
    pub(super) fn new(reader: Reader, early: Vec<u8>) -> Self {
        Self { reader, here: Here::Heap(early), used: 0, in_this_turn: 0, ended: false, total_bytes: 0 }
    }

    /// What is here and not used.
    pub(super) fn here(&self) -> &[u8] {
        let bytes: &[u8] = match &self.here {
            Here::Nothing => &[],
            Here::Ring(received) => received,
            Here::Heap(bytes) => bytes,
        };
        &bytes[self.used..]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.used += count;
        self.in_this_turn += count;
        if self.here().is_empty() {
            self.here = Here::Nothing;
            self.used = 0;
        }
    }

    /// Waits until bytes are here; there are none only at the end of the stream.
    pub(super) fn poll_here(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.here().is_empty() {
            return Poll::Ready(Ok(()));
        }
        if std::mem::take(&mut self.in_this_turn) > TURN_BYTES_MAX {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let received = ready!(self.reader.poll_receive(context))?;
        self.total_bytes += received.len() as u64;
        self.ended = received.is_empty();
        self.here = Here::Ring(received);
        self.used = 0;
        Poll::Ready(Ok(()))
    }

    /// Everything that the peer has sent is here or used.
    pub(super) fn is_at_end(&self) -> bool {
        self.ended
    }

    /// Lets go of the core's buffer, before a wait for something else than bytes.
    pub(super) fn spill(&mut self) {
        if matches!(self.here, Here::Ring(_)) {
            self.here = Here::Heap(self.here().to_vec());
            self.used = 0;
        }
    }
}
