//! The sending half of a polled stream: what is written is gathered while the kernel sends what was gathered before.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anvil_model::io::World;
use anvil_model::time::Moment;
use anvil_runtime::Core;
use anvil_runtime::net::{Pieces, Writer};

/// What is gathered, at most; as much may be with the kernel besides.
pub(crate) const SEND_BYTES_MAX: usize = 128 << 10;

pub(super) struct Outgoing {
    core: Core,
    state: State,
    gathered: Pieces,
    /// Memory of the last send, for the next.
    spare: Pieces,
}

enum State {
    Idle(Writer),
    Sending { since: Moment, sent: Pin<Box<dyn Future<Output = Sent>>> },
    Broken,
}

struct Sent {
    writer: Writer,
    result: io::Result<()>,
    pieces: Pieces,
}

impl Outgoing {
    pub(super) fn new(core: Core, writer: Writer) -> Self {
        Self { core, state: State::Idle(writer), gathered: Pieces::default(), spare: Pieces::default() }
    }

    /// Since when the kernel has been waiting for the client to take what it sends.
    pub(super) fn sending_since(&self) -> Option<Moment> {
        match self.state {
            State::Sending { since, .. } => Some(since),
            State::Idle(_) | State::Broken => None,
        }
    }

    /// Where to put more, once there is room.
    pub(super) fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(&mut Pieces, usize)>> {
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
    pub(super) fn gathered(&mut self) -> &mut Pieces {
        &mut self.gathered
    }

    /// Sends on; ready when nothing is left to send.
    pub(super) fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.state {
                State::Broken => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                State::Sending { sent, .. } => {
                    let Sent { writer, result, pieces } = ready!(sent.as_mut().poll(context));
                    self.state = if result.is_ok() { State::Idle(writer) } else { State::Broken };
                    self.spare = pieces;
                    self.spare.clear();
                    result?;
                }
                State::Idle(_) if self.gathered.is_empty() => {
                    // While nothing is sent nothing is kept: most connections are idle most of the time.
                    self.gathered = Pieces::default();
                    self.spare = Pieces::default();
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
        let pieces = std::mem::replace(&mut self.gathered, std::mem::take(&mut self.spare));
        let sent = Box::pin(async move {
            let (result, pieces) = writer.send_pieces(pieces).await;
            Sent { writer, result, pieces }
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
