//! HTTP/2 (RFC 9113) on one connection: its requests run side by side, on the core of the connection.
//!
//! Frames, HPACK, flow control and the answers to floods are the `h2` crate's; here are the limits that it is given, the
//! patience with whoever is on the other end, and the way between its messages and those of a
//! [`Service`](crate::http::Service). A window grows only as the service takes bytes off a body, so a slow store, or a
//! slow client, costs its own stream and nothing more. A request whose client takes it back (RST_STREAM) is dropped at
//! once.
//!
//! Memory of one connection, at most: what it was granted of [`WINDOW_BYTES_PER_CORE`] for bodies that came and were not
//! taken yet, a frame that is not complete, twice the transport's `SEND_BYTES_MAX`, and per stream a
//! head and [`SEND_BUFFER_BYTES`] of references to what the node's reader gave.

mod answer;
mod body;
mod call;
mod chunk;
mod connection;
mod exchange;
mod head;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

pub(crate) use connection::serve;

use crate::transport::Lent;

/// Requests of one connection that run at once. Low enough that a proxy with many clients opens several connections,
/// which land on several cores.
pub const STREAMS_MAX: u32 = 64;
/// What a client may send of one body before the service has taken any: at 10 Gbit/s, 0.8 ms of sending, more than a
/// round trip within a data centre takes.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same for all bodies of a connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// What the windows of all connections of a core may be. A connection that finds nothing left has the windows that the
/// protocol begins with, 64 KiB.
pub const WINDOW_BYTES_PER_CORE: usize = 128 << 20;
/// A frame that a client may send: a quarter of the cost per byte that frames of 16 KiB, the default, have is in the
/// frame. A connection without a large window is held to the default.
pub const FRAME_BYTES_MAX: u32 = 256 << 10;
/// What of an answer is with `h2` before the client's window lets it out.
pub const SEND_BUFFER_BYTES: usize = 256 << 10;
/// How long an answer may wait for its client's window before its bytes leave the buffer of the core's pool.
pub const STALL_MAX: Duration = Duration::from_millis(100);
/// The memory of a core that such bytes may go to. Those that find none left stay where they are.
pub const STALLED_BYTES_PER_CORE: usize = 64 << 20;

/// The windows that the protocol begins with (RFC 9113, 6.9.2) and its smallest limit of frames (4.2).
const SMALL_WINDOW_BYTES: u32 = (1 << 16) - 1;
const SMALL_FRAME_BYTES: u32 = 16 << 10;

const _: () = assert!(FRAME_BYTES_MAX <= STREAM_WINDOW_BYTES, "a whole frame fits a window");

/// What the HTTP/2 connections of a core share.
#[derive(Debug)]
pub(crate) struct Shares {
    window: Share,
    stalled: Share,
    lent: Rc<Lent>,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            window: Share::of(WINDOW_BYTES_PER_CORE),
            stalled: Share::of(STALLED_BYTES_PER_CORE),
            lent: Rc::default(),
        }
    }
}

/// Bytes that may be taken, and come back.
#[derive(Debug)]
struct Share {
    left_bytes: Cell<usize>,
}

/// Bytes that were taken.
#[derive(Debug)]
struct Grant<'a> {
    share: &'a Share,
    bytes: usize,
}

impl Share {
    const fn of(bytes: usize) -> Self {
        Self { left_bytes: Cell::new(bytes) }
    }

    fn take(&self, bytes: usize) -> Option<Grant<'_>> {
        self.left_bytes.set(self.left_bytes.get().checked_sub(bytes)?);
        Some(Grant { share: self, bytes })
    }
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        self.share.left_bytes.update(|left| left + self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_of_a_share_comes_back() {
        let share = Share::of(10);
        let first = share.take(6).unwrap();
        assert!(share.take(5).is_none());
        let second = share.take(4).unwrap();
        assert!(share.take(1).is_none());
        drop(first);
        drop(share.take(6).unwrap());
        drop(second);
        assert_eq!(share.left_bytes.get(), 10);
    }
}
