//! One connection at a time, made anew when it is lost: what works on a database.
//!
//! While the database is away, a lane answers at once that it is, and tries again after a while that grows and that no two
//! nodes share.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::address::Database;
use super::session::{Session, SessionError};

/// A connection, or when the next one may be tried.
pub(super) struct Lane {
    database: Rc<Database>,
    session: Option<Session>,
    not_before: Instant,
    failures: u32,
    /// How often the database had been reached when this lane failed to.
    reached_before: u64,
}

impl Lane {
    pub(super) fn new(database: Rc<Database>) -> Self {
        Self { database, session: None, not_before: Instant::now(), failures: 0, reached_before: 0 }
    }

    /// Whether a connection must be made before anything can be asked.
    pub(super) fn is_down(&self) -> bool {
        self.session.as_ref().is_none_or(Session::is_closed)
    }

    /// The connection; made when there is none and it is time. `None` while the database is away.
    pub(super) async fn session(&mut self) -> Option<&Session> {
        if self.is_down() {
            self.session = None;
            // Where another lane has reached it meanwhile, nobody waits for the end of the pause.
            if Instant::now() < self.not_before && self.database.times_reached() == self.reached_before {
                return None;
            }
            match Session::open(&self.database).await {
                Ok(session) => {
                    self.session = Some(session);
                    self.failures = 0;
                }
                Err(error) => {
                    self.lost(&error);
                    return None;
                }
            }
        }
        self.session.as_ref()
    }

    /// Gives the connection up. The next one may be tried at once: often the database is there again.
    pub(super) fn give_up(&mut self) {
        self.session = None;
    }

    fn lost(&mut self, error: &SessionError) {
        // One line per outage and lane, not one per try.
        if self.failures == 0 {
            tracing::error!(%error, place = self.database.place(), "no connection to the metadata");
        }
        self.not_before = Instant::now() + jittered(PAUSE_MIN * 2_u32.pow(self.failures.min(DOUBLINGS)));
        self.failures += 1;
        self.reached_before = self.database.times_reached();
    }
}

/// Between half of it and all of it, so that the nodes of a cluster do not come back in step.
pub(super) fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness there is no jitter; nothing else depends on it.
    let _ = getrandom::fill(&mut byte);
    pause / 2 + pause / 2 * u32::from(byte[0]) / 255
}

/// After the first failure, and twice as long after each further one, `DOUBLINGS` times.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const DOUBLINGS: u32 = 5;
