//! The index of the embedded metadata in maps: the twin of SQLite, which is on a file and has threads of its own.
//!
//! What may happen, as with SQLite in WAL mode and `synchronous=NORMAL`: every operation takes a while; a transaction
//! that was committed survives a kill, and a power cut takes back any number of the last ones, or the whole file is
//! deleted. A transaction is never torn.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anvil_model::io::World;
use anvil_model::time::WallTime;
use anvil_node::metadata::decide::{self, Decision};
use anvil_node::metadata::embedded::{Index, IndexError};
use anvil_node::metadata::log::Batch;
use anvil_node::metadata::mutation::{Change, LostShard, Mutation};
use anvil_node::metadata::query::{self, Answer, Query};
use anvil_node::metadata::rows::{Counters, Rows};
use anvil_node::metadata::{MetadataError, Refusal};

use crate::random::Random;
use crate::rows::MemoryRows;
use crate::world::SimWorld;

/// The file that the index is in. It outlives processes; clones are the same file.
#[derive(Clone)]
pub struct IndexFile {
    state: Rc<RefCell<State>>,
}

struct State {
    random: Random,
    committed: MemoryRows,
    /// What a power cut may fall back to, oldest first.
    older: VecDeque<MemoryRows>,
    /// The transaction of the process that lives.
    open: Option<MemoryRows>,
    /// A shard is moved from wherever it is.
    moves_blindly: bool,
}

const OPERATION_NANOS_MAX: u64 = 200_000;
/// One commit in so many makes all before it safe from a power cut.
const CHECKPOINT_ONE_IN: u64 = 10;
/// One power cut in so many takes the whole file.
const LOST_ONE_IN: u64 = 12;

impl IndexFile {
    /// A file without rows.
    #[must_use]
    pub fn new(random: Random) -> Self {
        let (committed, older) = (MemoryRows::new(0), VecDeque::new());
        let state = State { random, committed, older, open: None, moves_blindly: false };
        Self { state: Rc::new(RefCell::new(state)) }
    }

    /// Opens the file in a process.
    #[must_use]
    pub fn open(&self, world: &SimWorld) -> SimIndex {
        SimIndex { world: world.clone(), file: self.clone() }
    }

    /// From now on a change of a shard's place is made wherever the shard is, and not compared with what its sender saw: for
    /// proving that tests notice.
    pub fn set_moves_blindly(&self, blindly: bool) {
        self.state.borrow_mut().moves_blindly = blindly;
    }

    /// The rows that are committed.
    #[must_use]
    pub fn rows(&self) -> MemoryRows {
        self.state.borrow().committed.clone()
    }

    /// Deletes the file.
    pub fn delete(&self) {
        let mut state = self.state.borrow_mut();
        state.committed = MemoryRows::new(0);
        state.older.clear();
        state.open = None;
    }

    /// What is left when the process was killed.
    pub fn kill(&self) {
        self.state.borrow_mut().open = None;
    }

    /// What is left after a power cut.
    pub fn power_cut(&self) {
        self.kill();
        let mut state = self.state.borrow_mut();
        let State { random, older, committed, .. } = &mut *state;
        let kept = random.index(older.len() + 1);
        if let Some(rows) = older.get(kept) {
            *committed = rows.clone();
        }
        older.clear();
        if random.one_in(LOST_ONE_IN) {
            drop(state);
            self.delete();
        }
    }
}

impl State {
    /// The changes as they are to be decided.
    fn taken(&self, rows: &MemoryRows, mutations: &[Mutation]) -> Vec<Mutation> {
        let mut mutations = mutations.to_vec();
        for mutation in mutations.iter_mut().filter(|_| self.moves_blindly) {
            let (Change::MoveShard { blob, shard, from, .. }
            | Change::LoseShard(LostShard { blob, shard, disk: from, .. })) = &mut mutation.change
            else {
                continue;
            };
            let row = rows.blob(*blob).expect("rows in maps can always be had");
            if let Some(place) = row.and_then(|row| row.places.get(usize::from(*shard)).copied()) {
                *from = place;
            }
        }
        mutations
    }

    fn commit(&mut self, rows: MemoryRows) {
        if self.random.one_in(CHECKPOINT_ONE_IN) {
            self.older.clear();
        }
        self.older.push_back(std::mem::replace(&mut self.committed, rows));
    }
}

/// The file, opened.
pub struct SimIndex {
    world: SimWorld,
    file: IndexFile,
}

impl SimIndex {
    /// Time passes as on a thread of its own, before and after `operation`.
    async fn run<T>(&self, operation: impl FnOnce(&mut State) -> T) -> T {
        let nanos = || self.file.state.borrow_mut().random.below(OPERATION_NANOS_MAX);
        self.world.sleep(Duration::from_nanos(nanos())).await;
        let value = operation(&mut self.file.state.borrow_mut());
        self.world.sleep(Duration::from_nanos(nanos())).await;
        value
    }
}

impl Index for SimIndex {
    async fn counters(&self) -> Result<Counters, IndexError> {
        Ok(self.run(|state| state.committed.counters()).await?)
    }

    async fn reset(&self, lineage: u128) -> Result<(), IndexError> {
        self.run(|state| state.commit(MemoryRows::new(lineage))).await;
        Ok(())
    }

    async fn replay(&self, batches: Vec<Batch>) -> Result<(), IndexError> {
        let replayed = self.run(|state| {
            let mut rows = state.committed.clone();
            for Batch { header, mutations } in batches {
                let mutations = state.taken(&rows, &mutations);
                decide::replay(&mut rows, &Batch { header, mutations })?;
            }
            state.commit(rows);
            Ok(())
        });
        replayed.await
    }

    async fn decide(
        &self,
        batch: Arc<[Mutation]>,
        range: Range<usize>,
        number: u64,
        now: WallTime,
    ) -> Result<Decision, IndexError> {
        let decided = self.run(|state| {
            assert!(state.open.is_none(), "one transaction at a time");
            let mut rows = state.committed.clone();
            let taken = state.taken(&rows, &batch[range]);
            let decision = decide::decide(&mut rows, &taken, number, now)?;
            state.open = Some(rows);
            Ok(decision)
        });
        decided.await
    }

    async fn commit(&self) -> Result<(), IndexError> {
        let committed = self.run(|state| {
            let rows = state.open.take().expect("a transaction is open");
            state.commit(rows);
        });
        committed.await;
        Ok(())
    }

    async fn rollback(&self) -> Result<(), IndexError> {
        self.run(|state| state.open = None).await;
        Ok(())
    }

    async fn look_up(&self, batch: Vec<Query>) -> Vec<Result<Answer, MetadataError>> {
        let answered = self.run(|state| {
            let answer = |query| match query::look_up(&state.committed, query) {
                Ok(answer) => answer.map_err(Refusal::into),
                Err(error) => panic!("rows in maps can always be had: {error}"),
            };
            batch.iter().map(answer).collect()
        });
        answered.await
    }
}
