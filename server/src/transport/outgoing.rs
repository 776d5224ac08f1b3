//! The sending half of a polled stream: what is written is gathered in one piece of memory while the kernel sends
//! another.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anvil_model::io::World;
use anvil_model::time::Moment;
use anvil_runtime::Core;
use anvil_runtime::net::Writer;

/// What is gathered, at most; as much may be with the kernel besides.
pub(crate) const SEND_BYTES_MAX: usize = 128 << 10;

pub(super) struct Outgoing {
    core: Core,
    state: State,
    gathered: Vec<u8>,
    /// Memory of the last send, for the next.
    spare: Vec<u8>,
}

enum State {
    Idle(Writer),
    Sending { since: Moment, sent: Pin<Box<dyn Future<Output = Sent>>> },
    Broken,
}

struct Sent {
    writer: Writer,
    result: io::Result<()>,
    bytes: Vec<u8>,
}

impl Outgoing {
    pub(super) fn new(core: Core, writer: Writer) -> Self {
        Self { core, state: State::Idle(writer), gathered: Vec::new(), spare: Vec::new() }
    }

    /// Since when the kernel has been waiting for the client to take what it sends.
    pub(super) fn sending_since(&self) -> Option<Moment> {
        match self.state {
            State::Sending { since, .. } => Some(since),
            State::Idle(_) | State::Broken => None,
        }
    }

    /// Where to put more, once there is room.
    pub(super) fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(&mut Vec<u8>, usize)>> {
        if self.gathered.len() >= SEND_BYTES_MAX {
            // When what was gathered is on its way, its place is free, and the sending is not waited for.
            if self.poll_progress(context)?.is_pending() && self.gathered.len() >= SEND_BYTES_MAX {
                return Poll::Pending;
            }
        }
        let room = SEND_BYTES_MAX - self.gathered.len();
        Poll::Ready(Ok((&mut self.gathered, room)))
    }

    /// Like [`Self::poll_room`] for those who keep the bound themselves.
    pub(super) fn gathered(&mut self) -> &mut Vec<u8> {
        &mut self.gathered
    }

    /// Sends on; ready when nothing is left to send.
    pub(super) fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.state {
                State::Broken => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                State::Sending { sent, .. } => {
                    let Sent { writer, result, bytes } = ready!(sent.as_mut().poll(context));
                    self.state = if result.is_ok() { State::Idle(writer) } else { State::Broken };
                    self.spare = bytes;
                    self.spare.clear();
                    result?;
                }
                State::Idle(_) if self.gathered.is_empty() => {
                    // While nothing is sent nothing is kept: most connections are idle most of the time.
                    self.gathered = Vec::new();
                    self.spare = Vec::new();
                    return Poll::Ready(Ok(()));
                }
                State::Idle(_) => self.start(),
            }
        }
    }

    fn start(&mut self) {
        let State::Idle(mut writer) = std::mem::replace(&mut self.state, State::Broken) else {
            unreachable!("the caller looked")
        };
        let bytes = std::mem::replace(&mut self.gathered, std::mem::take(&mut self.spare));
        let sent = Box::pin(async move {
            let length = bytes.len();
            let (result, bytes) = writer.send(bytes, 0..length).await;
            Sent { writer, result, bytes }
        });
        self.state = State::Sending { since: self.core.now(), sent };
    }

    /// Tells the peer that nothing more comes. Everything must be sent.
    pub(super) fn shutdown(&self) -> io::Result<()> {
        match &self.state {
            State::Idle(writer) => writer.shutdown(),
            State::Sending { .. } | State::Broken => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}
