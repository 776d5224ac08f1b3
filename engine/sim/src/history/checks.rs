//! What is demanded of a node when hardly anything else happens: that all reads, that writes go on, that there is room again.

use std::time::Duration;

use anvil_model::io::World;
use anvil_node::get::StreamError;
use anvil_node::metadata::client::RETRY_AFTER;
use anvil_store::ReadError;

use super::client::{Client, value_in};
use super::record::Seen;

/// Questions to the metadata, at most, for which it has no room.
const VERIFY_ATTEMPTS: u32 = 60;
/// How often a write is tried after everything was deleted, a second apart.
const ROOM_ATTEMPTS: u32 = 120;

impl Client {
    /// Reads everything that is there, wholly, and demands an answer: at a moment when hardly anything else happens.
    ///
    /// Gives the number of objects that were read.
    pub(super) async fn verify(mut self) -> u64 {
        let mut read = 0;
        self.list().await;
        for key in 0..self.shared.keys {
            self.answered(key).await;
            let Some(found) = self.open(key).await else { continue };
            match self.read(&found, 0..found.size).await {
                Ok(()) => read += 1,
                Err(StreamError::Read(_)) if self.shared.may_be_lost(value_in(&found.headers)) => {}
                // A change that was sent long ago may still come.
                Err(StreamError::Read(ReadError::Missing(_))) => self.must_be_replaced(key, &found).await,
                Err(error) => {
                    let excused = self.shared.tolerance.get().damage || error == StreamError::Gone;
                    assert!(excused, "value {} cannot be read: {error:?}", value_in(&found.headers));
                }
            }
        }
        read
    }

    /// Reads everything that is there while more is lost than can be: what is read is right, and what is not says so. Gives
    /// how many objects that are.
    pub(super) async fn read_what_is_left(mut self) -> u64 {
        let mut named = 0;
        for key in 0..self.shared.keys {
            let Some(found) = self.open(key).await else { continue };
            match self.read(&found, 0..found.size).await {
                Ok(()) | Err(StreamError::Gone) => {}
                Err(StreamError::Read(ReadError::Device(_) | ReadError::Missing(_) | ReadError::Corrupt(_))) => {
                    named += 1
                }
                Err(error) => panic!("value {} is lost, and this is said of it: {error:?}", value_in(&found.headers)),
            }
        }
        named
    }

    /// Writes until that goes on: what failed is left behind.
    pub(super) async fn goes_on(self) {
        for _ in 0..ROOM_ATTEMPTS {
            if self.attempt(0, 1 << 16, None, None).await {
                return;
            }
            self.world.sleep(Duration::from_secs(1)).await;
        }
        panic!("a node with enough disks takes no writes");
    }

    /// Deletes everything, which a full disk must take, and writes until that goes on.
    pub(super) async fn make_room(mut self) {
        for key in 0..self.shared.keys {
            self.delete(key).await;
        }
        let pending = self.shared.pending.take();
        for upload in pending {
            self.abort(upload).await;
        }
        for _ in 0..ROOM_ATTEMPTS {
            if self.attempt(0, 1 << 16, None, None).await {
                self.shared.reach(|reached| reached.recovered += reached.full);
                return;
            }
            self.world.sleep(Duration::from_secs(1)).await;
        }
        // Extents that cores have open are not given back, dead or not, and those of the log never: see ADR 0002.
        self.shared.reach(|reached| reached.stayed_full += 1);
    }

    /// What a key is, asked for until the metadata has room for the question.
    async fn answered(&mut self, key: usize) -> Seen {
        for _ in 0..VERIFY_ATTEMPTS {
            if let Some(seen) = self.seen(key).await {
                return seen;
            }
            self.world.sleep(RETRY_AFTER).await;
        }
        panic!("a node that has nothing to do does not answer");
    }
}
