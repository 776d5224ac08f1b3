//! How fast background work may go.

use std::cell::Cell;
use std::time::Duration;

use anvil_model::io::World;
use anvil_model::time::Moment;

/// So many bytes per second, and so many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub bytes_per_second: u64,
    /// What may go at once when nothing went before.
    pub burst_bytes: u64,
}

/// Spends a [`Rate`].
#[derive(Debug)]
pub(crate) struct Budget {
    rate: Rate,
    /// When all that was spent is paid for, in nanoseconds of the world's clock.
    paid_at: Cell<u64>,
}

impl Budget {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, paid_at: Cell::new(0) }
    }

    /// Waits until so many more bytes are within the rate.
    pub(crate) async fn spend<W: World>(&self, world: &W, bytes: u64) {
        let Moment { nanos: now } = world.now();
        let burst = self.nanos(self.rate.burst_bytes);
        let paid_at = self.paid_at.get().max(now.saturating_sub(burst)) + self.nanos(bytes);
        self.paid_at.set(paid_at);
        if paid_at > now {
            world.sleep(Duration::from_nanos(paid_at - now)).await;
        }
    }

    fn nanos(&self, bytes: u64) -> u64 {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate.bytes_per_second.max(1));
        u64::try_from(nanos).unwrap_or(u64::MAX / 4)
    }
}
