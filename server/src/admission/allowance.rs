//! The decision: so many requests per minute. A minute's worth may come at once; what was used comes back one by one, evenly.
//!
//! This is the "generic cell rate algorithm" (ITU-T I.371, annex A): of all that came, one number says everything. Crates
//! that have it (`governor`) keep it for each key in a map that grows with the keys; the formula is the small part of them.

use std::time::Duration;

use anvil_model::time::Moment;

/// So much at once, and so much every minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    /// From one request to the next, when they come evenly.
    interval_nanos: u64,
    /// What a whole allowance is worth.
    whole_nanos: u64,
}

/// What somebody has used: when the whole allowance will be there again, as nanoseconds of a [`Moment`]. What lies in the past
/// says that it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Used {
    pub(super) until_nanos: u64,
}

impl Allowance {
    pub(super) fn per_minute(requests: u32) -> Self {
        assert!((1..=super::PER_MINUTE_MAX).contains(&requests), "the configuration bounds it");
        let interval_nanos = MINUTE_NANOS / u64::from(requests);
        Self { interval_nanos, whole_nanos: interval_nanos * u64::from(requests) }
    }

    /// One request more: what is used then, or for how long to wait. The moment may lie a little before the last one, because
    /// cores look at the clock for themselves.
    pub(super) fn take(self, used: Used, now: Moment) -> Result<Used, Duration> {
        let until_nanos = used.until_nanos.max(now.nanos).saturating_add(self.interval_nanos);
        let beyond = until_nanos.saturating_sub(now.nanos.saturating_add(self.whole_nanos));
        if beyond == 0 { Ok(Used { until_nanos }) } else { Err(Duration::from_nanos(beyond)) }
    }
}

const MINUTE_NANOS: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: f64) -> Moment {
        Moment { nanos: 0 } + Duration::from_secs_f64(seconds)
    }

    /// Ten a minute: when each comes, and for how long it has to wait if it is refused.
    #[test]
    fn a_minutes_worth_comes_at_once_and_the_rest_evenly() {
        let allowance = Allowance::per_minute(10);
        let mut used = Used::default();
        let mut check = |seconds: f64, waits: Option<f64>| {
            let taken = allowance.take(used, at(seconds));
            assert_eq!(taken.err(), waits.map(Duration::from_secs_f64), "at {seconds} s");
            used = taken.unwrap_or(used);
        };
        for _ in 0..10 {
            check(1.0, None);
        }
        check(1.0, Some(6.0));
        check(1.0, Some(6.0));
        check(6.5, Some(0.5));
        check(7.0, None);
        check(7.0, Some(6.0));
        // A core whose clock was looked at a little earlier.
        check(6.9, Some(6.1));
        check(19.0, None);
        check(19.0, None);
        check(19.0, Some(6.0));
        // After a minute of silence everything is there again, and no more than that.
        for _ in 0..10 {
            check(600.0, None);
        }
        check(600.0, Some(6.0));
    }

    #[test]
    fn the_ends_of_time_are_no_trouble() {
        let allowance = Allowance::per_minute(1);
        let late = Moment { nanos: u64::MAX };
        assert!(allowance.take(Used::default(), late).is_ok());
        assert!(allowance.take(Used { until_nanos: u64::MAX }, Moment { nanos: 0 }).is_err());
        assert!(Allowance::per_minute(super::super::PER_MINUTE_MAX).interval_nanos > 0);
    }

    proptest! {
        /// Whatever comes when: in no span more is let in than the allowance and what comes back meanwhile; who is refused is
        /// let in when it has waited as told, and not a moment before; a refusal costs nothing.
        #[test]
        fn nobody_gets_more_and_waiting_helps(per_minute in 1u32..500, steps in prop::collection::vec(0u64..3_000_000_000, 1..300)) {
            let allowance = Allowance::per_minute(per_minute);
            let (mut used, mut now, mut admitted) = (Used::default(), Moment { nanos: 1 << 40 }, Vec::new());
            for step in steps {
                now = now + Duration::from_nanos(step);
                match allowance.take(used, now) {
                    Ok(next) => {
                        used = next;
                        admitted.push(now.nanos);
                    }
                    Err(wait) => {
                        prop_assert!(wait.as_nanos() > 0 && wait.as_nanos() <= u128::from(allowance.interval_nanos));
                        prop_assert!(allowance.take(used, now + wait).is_ok());
                        prop_assert!(allowance.take(used, now + (wait - Duration::from_nanos(1))).is_err());
                    }
                }
            }
            for (first, &began) in admitted.iter().enumerate() {
                for (last, &ended) in admitted.iter().enumerate().skip(first) {
                    let most = u64::from(per_minute) + (ended - began) / allowance.interval_nanos;
                    prop_assert!((last - first + 1) as u64 <= most, "{} in {} ns", last - first + 1, ended - began);
                }
            }
        }
    }
}
