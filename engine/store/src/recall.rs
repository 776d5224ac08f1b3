//! Open extents are taken back from the cores that fill them: when a disk has no other room, and when what is in one is
//! dead and nobody gives it more.
//!
//! The disk's home asks, one extent at a time. The core that fills it reserves nothing more there and hands it over when
//! its writes are done. One that is dead for a good part gets its footer, so that reclaim finds it; any other goes to
//! whoever needs room next. So neither the open extents of idle cores nor their garbage keep a disk full.

use std::rc::Rc;

use anvil_model::format::SMALL_RECORD_BYTES_MAX;
use anvil_model::ids::CoreId;
use anvil_model::io::World;
use tokio::sync::oneshot;

use crate::account::{Account, AccountStage, Tally};
use crate::extent::{OpenExtent, has_room};
use crate::index::Place;
use crate::mail::Message;
use crate::space::{Lane, Partial, Space};
use crate::store::Inner;

/// Where the extent of a recall goes. Nothing comes when it is not open there any more.
pub(crate) type Heir = oneshot::Sender<Result<Partial, Spared>>;

/// It was given to somebody who waits for it, and has not been used yet. The next recall gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spared;

impl Space {
    /// The open extent to take back for a request that nothing else can fulfil: the deadest.
    pub(crate) fn recall_for(&self, core: CoreId, lane: Lane) -> Option<u32> {
        let extent_bytes = self.extent_bytes();
        let helps = |account: &Account, in_partial: bool| {
            account.is_mostly_dead(extent_bytes, 0.0, true)
                || !in_partial && lane != Lane::Log && account.holder != Some((core, lane))
        };
        self.recallable()
            .filter(|(_, account)| !matches!(account.holder, Some((_, Lane::Moved))))
            .filter(|(_, account)| helps(account, account.holder.is_none()))
            .max_by_key(|(extent, account)| (account.dead.bytes, *extent))
            .map(|(extent, _)| extent)
    }

    /// The open extent with the most garbage, and how much that is.
    pub(crate) fn open_garbage(&self) -> Option<(u32, u64)> {
        let dead = self.recallable().map(|(extent, account)| (extent, account.dead.bytes));
        dead.filter(|(_, dead)| *dead > 0).max_by_key(|(extent, dead)| (*dead, *extent))
    }

    /// Open extents that were not asked for since more of them died.
    fn recallable(&self) -> impl Iterator<Item = (u32, &Account)> {
        let open = self.accounts.extents.iter().filter(|(_, account)| account.stage == AccountStage::Open);
        let new = open.filter(|(_, account)| account.recalled_at.is_none_or(|dead| dead < account.dead.bytes));
        let at_hand = |extent| self.partial.iter().any(|partial| partial.header.name.extent == extent);
        new.filter(move |(extent, account)| account.holder.is_some() || at_hand(**extent))
            .map(|(extent, account)| (*extent, account))
    }

    /// An extent came back. Given when it is to be sealed: much of it is dead, or it has no room for anything.
    fn note_recalled(&mut self, partial: Partial) -> Option<Partial> {
        let extent_bytes = self.extent_bytes();
        let (free_share, urgent) = (self.free_share(), self.is_low());
        let name = partial.header.name;
        let Some(account) = self.accounts.of(name.extent, name.incarnation) else { return Some(partial) };
        account.holder = None;
        account.written = Tally::default();
        for entry in &partial.entries {
            account.written.add(1, Place::of(0, 0, entry).record_bytes());
        }
        let has_room = has_room(extent_bytes, partial.tail, partial.entries.len(), SMALL_RECORD_BYTES_MAX, 1);
        if !has_room || account.is_mostly_dead(extent_bytes, free_share, urgent) {
            return Some(partial);
        }
        self.partial.push(partial);
        None
    }
}

impl<W: World> Inner<W> {
    /// Takes an open extent of a disk whose home is here back. Ends when requests for room have been looked at again.
    pub(crate) fn recall(self: &Rc<Self>, disk: u16, extent: u32) -> oneshot::Receiver<()> {
        let (done, ended) = oneshot::channel();
        let account = {
            let mut space = self.space(disk).borrow_mut();
            space.recalling = true;
            let account = space.accounts.extents.get_mut(&extent).expect("it was found there");
            account.recalled_at = Some(account.dead.bytes);
            *account
        };
        let inner = Rc::clone(self);
        self.start(async move {
            inner.recall_extent(disk, extent, account).await;
            inner.space(disk).borrow_mut().recalling = false;
            inner.serve_space(disk);
            inner.disk(disk).wake_reclaim();
            // Nobody waits when the store closes.
            let _ = done.send(());
        });
        ended
    }

    async fn recall_extent(self: &Rc<Self>, disk: u16, extent: u32, account: Account) {
        let (heir, came) = oneshot::channel();
        match account.holder {
            None => {
                if let Some(partial) = self.space(disk).borrow_mut().take_this_partial(extent) {
                    drop(heir.send(Ok(partial)));
                }
            }
            Some((core, _)) if core == self.core => self.answer_recall(disk, extent, account.incarnation, heir),
            Some((core, _)) => {
                let message = Message::Recall { disk, extent, incarnation: account.incarnation, heir };
                // A core that is gone drops the heir with the message.
                let _ = self.addresses[usize::from(core.0)].send(message).await;
            }
        }
        let partial = match came.await {
            Ok(Ok(partial)) => partial,
            Ok(Err(Spared)) => {
                if let Some(account) = self.space(disk).borrow_mut().accounts.of(extent, account.incarnation) {
                    account.recalled_at = None;
                }
                return;
            }
            // It was full just now, or a write to it failed.
            Err(_) => return,
        };
        let to_seal = self.space(disk).borrow_mut().note_recalled(partial);
        if let Some(partial) = to_seal {
            let open = OpenExtent::resume(disk, Lane::Large, self.disk(disk).extent_bytes, partial);
            if let Err(error) = self.seal(&open).await {
                tracing::warn!(extent, %error, "an extent got no footer");
            }
        }
    }

    /// Hands over an extent that is filled here, when its writes are done.
    pub(crate) fn answer_recall(self: &Rc<Self>, disk: u16, extent: u32, incarnation: u64, heir: Heir) {
        let lanes = [Lane::Large, Lane::Small, Lane::Moved];
        let found = lanes.into_iter().find_map(|lane| {
            let mut lane = self.disk(disk).lane(lane).borrow_mut();
            let place = lane.place_of(extent, incarnation)?;
            if place.as_ref().is_some_and(|open| open.is_spared()) {
                return Some(None);
            }
            Some(place.take())
        });
        match found {
            Some(Some(open)) => self.hand_over(&open, heir),
            Some(None) => drop(heir.send(Err(Spared))),
            None => {}
        }
    }
}
