//! Work that the cores of a node do for their disks when they are let: scrub, the sweep, repair.
//!
//! A core that has something to do asks for a turn, and waits for it. Who hands out turns, a server's task queue, is told that
//! the chore is wanted, lets the cores in, and is told when the last of them has ended. A round is what happens between.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

/// One chore of a node. One for all cores; cheap to clone, and to send to a core. By default nobody hands out turns: every core
/// has one as soon as it asks.
#[derive(Clone, Debug, Default)]
pub struct Chore {
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    state: watch::Sender<State>,
    told: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that wait for a turn or have one.
    cores: u32,
    /// Who asks now has a turn.
    open: bool,
    came_to: CameTo,
}

/// What a round came to: the worst of what its turns came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CameTo {
    /// All was done that could be done.
    #[default]
    Done,
    /// It ended early, by no fault of its own: the metadata was away.
    Interrupted,
    /// It ended early, for this reason. One sentence.
    Failed(String),
}

/// A core's part of a round, or its wait for one. Ends when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Turn {
    shared: Option<Arc<Shared>>,
}

impl Chore {
    /// A chore whose turns are handed out. `told` is notified when it is wanted, and when a round has ended.
    #[must_use]
    pub fn by_turns(told: Arc<Notify>) -> Self {
        Self { shared: Some(Arc::new(Shared { state: watch::Sender::default(), told })) }
    }

    /// Asks for a turn, and waits for it.
    pub async fn turn(&self) -> Turn {
        let turn = Turn { shared: self.shared.clone() };
        if let Some(shared) = &self.shared {
            shared.state.send_modify(|state| state.cores += 1);
            shared.told.notify_one();
            shared.state.subscribe().wait_for(|state| state.open).await.expect("this holds the sender");
        }
        turn
    }

    /// Whether a core waits for a turn or has one.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.state.borrow().cores > 0)
    }

    /// Lets in those that wait, and those that come before the last one has ended. Says whether there is anybody.
    pub fn open(&self) -> bool {
        let Some(shared) = &self.shared else { return false };
        shared.state.send_if_modified(|state| {
            if !state.open && state.cores > 0 {
                (state.open, state.came_to) = (true, CameTo::Done);
            }
            state.open
        })
    }

    /// What the last round came to; `None` while one is under way.
    #[must_use]
    pub fn ended(&self) -> Option<CameTo> {
        let state = self.shared.as_ref()?.state.borrow();
        (!state.open).then(|| state.came_to.clone())
    }
}

impl Turn {
    /// Ends it, and says what it came to.
    pub fn end(self, came_to: CameTo) {
        if let Some(shared) = &self.shared {
            shared.state.send_modify(|state| {
                if state.came_to < came_to {
                    state.came_to = came_to;
                }
            });
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else { return };
        shared.state.send_modify(|state| {
            state.cores = state.cores.checked_sub(1).expect("each turn was asked for");
            state.open &= state.cores > 0;
        });
        shared.told.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn had(chore: &Chore) -> Turn {
        let Poll::Ready(turn) = poll(pin!(chore.turn())) else { panic!("there is nothing to wait for") };
        turn
    }

    #[test]
    fn where_nobody_hands_out_turns_all_have_one() {
        let chore = Chore::default();
        let (one, other) = (had(&chore), had(&chore));
        assert!(!chore.is_wanted() && chore.ended().is_none());
        one.end(CameTo::Interrupted);
        drop(other);
    }

    #[test]
    fn a_round_lasts_until_the_last_turn_has_ended() {
        let told = Arc::new(Notify::new());
        let chore = Chore::by_turns(Arc::clone(&told));
        assert!(!chore.open());
        assert_eq!(chore.ended(), Some(CameTo::Done), "nobody wants it");
        let mut first = Box::pin(chore.turn());
        assert!(poll(first.as_mut()).is_pending() && chore.is_wanted());
        assert!(poll(pin!(told.notified())).is_ready());
        assert!(chore.open());
        let Poll::Ready(first) = poll(first.as_mut()) else { panic!("it is let in") };
        let second = had(&chore);
        assert_eq!(chore.ended(), None);
        first.end(CameTo::Failed("no".to_owned()));
        assert_eq!(chore.ended(), None, "there is another");
        second.end(CameTo::Interrupted);
        assert_eq!(chore.ended(), Some(CameTo::Failed("no".to_owned())));
        assert!(poll(pin!(told.notified())).is_ready() && !chore.is_wanted());
        // The next round is another one.
        let mut third = Box::pin(chore.turn());
        assert!(poll(third.as_mut()).is_pending());
        assert!(chore.open());
        drop(third);
        assert_eq!(chore.ended(), Some(CameTo::Done), "who does not wait any more has ended");
    }
}
