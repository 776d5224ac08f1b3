//! A window of payload comes in, at the pace of its client and at nobody else's cost, and is hashed while it is in cache.
//!
//! Pool buffers are few, and what is in one is on its way to the disk: a client holds one only while its bytes come
//! as fast as they are taken. What comes slowly is gathered in ordinary memory, of which a core gives all slow windows
//! together [`GATHERED_BYTES_MAX`], and gets a pool buffer when it is whole. When that memory is used up, slow windows
//! grow only as others make room, and the one that has been at it for longest is given up; so the slowest of too many
//! clients are told to come back, and neither a fast one nor the one that was slow for a moment is.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use anvil_model::io::{Reserve, World};
use anvil_model::time::Moment;
use futures_util::FutureExt as _;
use tokio::sync::Notify;

use crate::Node;
use crate::body::Body;
use crate::digests::Digests;
use crate::put::PutError;
use crate::stripe::Stripe;

/// How a write's windows have come so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Nothing came yet.
    Unknown,
    /// The last window came as fast as it was taken.
    Fast,
    /// It did not.
    Slow,
}

/// The windows that are being gathered on one core. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathering {
    windows: Rc<RefCell<Windows>>,
    /// A window left.
    room: Rc<Notify>,
    /// One or more were given up.
    given_up: Rc<Notify>,
}

/// In the order in which they began. `bytes` is what all of them hold.
#[derive(Debug, Default)]
struct Windows {
    held: BTreeMap<u64, Held>,
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
struct Held {
    bytes: usize,
    began: Moment,
    /// Its memory is wanted for others.
    given_up: bool,
}

/// A window that is being gathered. Leaves the count when dropped.
struct Gathered {
    gathering: Gathering,
    number: u64,
    bytes: Vec<u8>,
}

/// The window was given up for others.
struct GivenUp;

impl<W: World> Node<W> {
    /// The next window of a body, which owes as many bytes, in the data cells of a stripe, digested.
    pub(crate) async fn receive_window<B: Body<W::Buffer>>(
        &self,
        body: &mut B,
        digests: &mut Digests<W>,
        stripe: Stripe,
        pace: &mut Pace,
    ) -> Result<W::Buffer, PutError<B::Error>> {
        let length = stripe.window_length();
        if *pace == Pace::Slow {
            let began = self.world.now();
            let mut gathered = Gathered::begin(&self.gathering, Vec::new(), began);
            gathered.fill(&self.world, body, length).await?;
            if self.world.now().since(began) <= FAST_WINDOW_MAX {
                *pace = Pace::Fast;
            }
            let buffer = self.in_buffer(stripe, &gathered.bytes).await;
            return digested(body, digests, buffer, stripe, 0..length).await;
        }

        // Who has only announced something gets no buffer for it.
        let mut lead = Vec::new();
        if *pace == Pace::Unknown {
            let wanted = length.min(LEAD_BYTES);
            while lead.len() < wanted {
                let left = wanted - lead.len();
                body.read(&mut lead, left).await.map_err(PutError::Body)?;
            }
        }
        let (mut at, mut hashed) = (lead.len(), 0);
        let mut buffer = self.in_buffer(stripe, &lead).await;
        drop(lead);
        loop {
            if at == length || at - hashed >= PIECE_BYTES {
                buffer = digested(body, digests, buffer, stripe, hashed..at).await?;
                hashed = at;
            }
            let Some(span) = stripe.spans(at..length.min(hashed + PIECE_BYTES)).next() else {
                *pace = Pace::Fast;
                return Ok(buffer);
            };
            let wanted = span.len();
            let (filled, filled_buffer) = body.fill(buffer, span).await;
            buffer = filled_buffer;
            let came = filled.map_err(PutError::Body)?;
            at += came;
            if came < wanted {
                break;
            }
        }

        *pace = Pace::Slow;
        let here = stripe.gather(at, &buffer);
        drop(buffer);
        let mut gathered = Gathered::begin(&self.gathering, here, self.world.now());
        gathered.fill(&self.world, body, length).await?;
        let buffer = self.in_buffer(stripe, &gathered.bytes).await;
        digested(body, digests, buffer, stripe, hashed..length).await
    }

    async fn in_buffer(&self, stripe: Stripe, bytes: &[u8]) -> W::Buffer {
        let mut buffer = self.world.buffer(Reserve::Foreground).await;
        stripe.scatter(bytes, &mut buffer);
        buffer
    }
}

/// Digests a part of the window, together with what others bring at this moment.
async fn digested<W: World, B: Body<W::Buffer>>(
    body: &mut B,
    digests: &mut Digests<W>,
    buffer: W::Buffer,
    stripe: Stripe,
    part: Range<usize>,
) -> Result<W::Buffer, PutError<B::Error>> {
    let pieces = stripe.spans(part).collect();
    digests.payload_in_buffer(body, buffer, pieces).await.map_err(PutError::Body)
}

impl Gathering {
    async fn until_given_up(&self, number: u64) {
        loop {
            let given_up = self.given_up.notified();
            if self.windows.borrow().held[&number].given_up {
                return;
            }
            given_up.await;
        }
    }
}

impl Windows {
    /// The one that began first, of those that may still go on.
    fn oldest(&mut self) -> Option<&mut Held> {
        self.held.values_mut().find(|held| !held.given_up)
    }

    /// Bytes that stay held.
    fn kept_bytes(&self) -> usize {
        self.held.values().filter(|held| !held.given_up).map(|held| held.bytes).sum()
    }
}

impl Gathered {
    /// Begins with bytes that are here already. Never waits: they had to leave a pool buffer.
    fn begin(gathering: &Gathering, bytes: Vec<u8>, began: Moment) -> Self {
        let number = {
            let mut windows = gathering.windows.borrow_mut();
            let number = windows.next;
            windows.next += 1;
            windows.held.insert(number, Held { bytes: 0, began, given_up: false });
            number
        };
        let count = bytes.len();
        let gathered = Self { gathering: gathering.clone(), number, bytes };
        gathered.grown(count);
        gathered
    }

    /// Gathers until there are `length` bytes.
    async fn fill<W: World, B: Body<W::Buffer>>(
        &mut self,
        world: &W,
        body: &mut B,
        length: usize,
    ) -> Result<(), PutError<B::Error>> {
        while self.bytes.len() < length {
            self.room(world).await.map_err(|GivenUp| PutError::TooSlow)?;
            let wanted = (length - self.bytes.len()).min(STEP_BYTES);
            let came = {
                let mut given_up = std::pin::pin!(self.gathering.until_given_up(self.number).fuse());
                let mut read = std::pin::pin!(body.read(&mut self.bytes, wanted).fuse());
                futures_util::select_biased! {
                    came = read => came.map_err(PutError::Body)?,
                    () = given_up => return Err(PutError::TooSlow),
                }
            };
            assert!(came > 0, "a body gives what it declared or an error");
            self.grown(came);
        }
        Ok(())
    }

    /// Accounts for bytes that came.
    fn grown(&self, count: usize) {
        let mut windows = self.gathering.windows.borrow_mut();
        windows.bytes += count;
        windows.held.get_mut(&self.number).expect("it is counted until it is dropped").bytes += count;
        if windows.bytes <= 2 * GATHERED_BYTES_MAX {
            return;
        }
        // Windows that fell out of the fast way cannot wait for room; the oldest ones make it.
        while windows.kept_bytes() > 2 * GATHERED_BYTES_MAX
            && let Some(oldest) = windows.oldest()
        {
            oldest.given_up = true;
        }
        drop(windows);
        self.gathering.given_up.notify_waiters();
    }

    /// Waits until there is room for more. When there is none for long, the oldest window is given up.
    async fn room<W: World>(&self, world: &W) -> Result<(), GivenUp> {
        loop {
            let room = self.gathering.room.notified();
            let given_up = self.gathering.given_up.notified();
            let wait = {
                let mut windows = self.gathering.windows.borrow_mut();
                if windows.held[&self.number].given_up {
                    return Err(GivenUp);
                }
                if windows.bytes < GATHERED_BYTES_MAX {
                    return Ok(());
                }
                let oldest = windows.oldest().expect("this one is not given up");
                let wait = GATHER_TIME.saturating_sub(world.now().since(oldest.began));
                oldest.given_up = wait.is_zero();
                wait
            };
            if wait.is_zero() {
                self.gathering.given_up.notify_waiters();
                continue;
            }
            let mut room = std::pin::pin!(room.fuse());
            let mut given_up = std::pin::pin!(given_up.fuse());
            let mut over = std::pin::pin!(world.sleep(wait).fuse());
            futures_util::select_biased! {
                () = given_up => {}
                () = room => {}
                () = over => {}
            }
        }
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        let mut windows = self.gathering.windows.borrow_mut();
        let held = windows.held.remove(&self.number).expect("it is dropped once");
        windows.bytes -= held.bytes;
        drop(windows);
        self.gathering.room.notify_waiters();
    }
}

/// What all slow windows of a core may hold together: as much as a pool of 32 buffers. Windows that just became slow may
/// hold as much again until older ones have made room.
const GATHERED_BYTES_MAX: usize = 32 << 20;
/// How long a slow window is safe from being given up, however little memory is left.
const GATHER_TIME: Duration = Duration::from_secs(10);
/// Bytes that must have come before a write gets its first buffer.
const LEAD_BYTES: usize = 64 << 10;
/// What is hashed at once: little enough that eight of them are still in the cache of the second level when the lanes are
/// full. A gain of a tenth to a fifth beside whole windows, at eight uploads.
const PIECE_BYTES: usize = 64 << 10;
/// What a slow window asks for at once, so that it waits for room often enough.
const STEP_BYTES: usize = 64 << 10;
/// A window that is gathered in this time could have been taken as it came.
const FAST_WINDOW_MAX: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anvil_sim::{Sim, SimBuffer, SimOptions, SimWorld};

    use super::*;
    use crate::body::Trailer;

    const WINDOW_BYTES: usize = 1 << 20;

    /// Gives what it is asked for until so many bytes are left; then nothing ever comes.
    struct Stalls {
        left: Rc<Cell<usize>>,
        stalls_at: usize,
    }

    impl Body<SimBuffer> for Stalls {
        type Error = ();

        fn length(&self) -> u64 {
            unreachable!("the window is said")
        }

        async fn fill(&mut self, _: SimBuffer, _: Range<usize>) -> (Result<usize, ()>, SimBuffer) {
            unreachable!("what is slow is not filled into buffers")
        }

        async fn read(&mut self, into: &mut Vec<u8>, max: usize) -> Result<usize, ()> {
            if self.left.get() == self.stalls_at {
                std::future::pending::<()>().await;
            }
            let count = max.min(self.left.get() - self.stalls_at);
            self.left.set(self.left.get() - count);
            into.resize(into.len() + count, 7);
            Ok(count)
        }

        async fn collect(&mut self) -> Result<Vec<u8>, ()> {
            unreachable!("the body is not small")
        }

        async fn finish(&mut self) -> Result<Trailer, ()> {
            unreachable!("nobody gets this far")
        }
    }

    async fn gather(world: SimWorld, gathering: Gathering, here: usize, stalls_at: usize) -> Result<(), PutError<()>> {
        let mut gathered = Gathered::begin(&gathering, vec![7; here], world.now());
        let mut body = Stalls { left: Rc::new(Cell::new(WINDOW_BYTES - here)), stalls_at };
        let result = gathered.fill(&world, &mut body, WINDOW_BYTES).await;
        assert!(result.is_err() || gathered.bytes == vec![7; WINDOW_BYTES]);
        result
    }

    /// More windows than there is memory for stop one byte before their end. Those that come as fast as they are taken
    /// are made room for, after the time that a slow one is safe, by the oldest, one each.
    #[test]
    fn the_oldest_slow_windows_make_room_for_those_that_move() {
        let life = Sim::new(1, SimOptions::default()).start(1);
        let gathering = Gathering::default();
        let stalled: Vec<_> = (0..GATHERED_BYTES_MAX / WINDOW_BYTES + 5)
            .map(|_| {
                let gathering = gathering.clone();
                life.spawn(0, |world| gather(world, gathering, 0, 1))
            })
            .collect();
        life.run_for(GATHER_TIME / 2);
        assert!(stalled.iter().all(|window| !window.is_done()), "nobody is given up who has had no time");
        let held = gathering.windows.borrow().bytes;
        assert!((GATHERED_BYTES_MAX..GATHERED_BYTES_MAX + WINDOW_BYTES).contains(&held), "{held}");

        let moving = {
            let gathering = gathering.clone();
            life.spawn(0, |world| gather(world, gathering, 0, 0))
        };
        life.run_for(GATHER_TIME);
        assert_eq!(moving.take(), Some(Ok(())));
        let given_up = stalled.iter().filter(|window| window.take() == Some(Err(PutError::TooSlow))).count();
        assert!((1..10).contains(&given_up), "{given_up} had to go for one");
        life.kill();
    }

    /// Windows that fall out of the fast way bring their bytes along, and are never made to wait with a buffer.
    #[test]
    fn windows_that_just_became_slow_are_bounded_too() {
        let life = Sim::new(1, SimOptions::default()).start(1);
        let gathering = Gathering::default();
        let stalled: Vec<_> = (0..3 * GATHERED_BYTES_MAX / WINDOW_BYTES)
            .map(|_| {
                let gathering = gathering.clone();
                life.spawn(0, |world| gather(world, gathering, WINDOW_BYTES - 1, 1))
            })
            .collect();
        life.run_for(Duration::from_millis(1));
        assert!(gathering.windows.borrow().bytes <= 2 * GATHERED_BYTES_MAX);
        let kept = stalled.iter().filter(|window| !window.is_done()).count();
        assert!((60..70).contains(&kept), "no more are given up than must be: {kept} stay");
        life.kill();
        drop(stalled);
        assert_eq!(gathering.windows.borrow().bytes, 0, "memory is given back, however a window ends");
    }
}
