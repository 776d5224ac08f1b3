//! What clients did and saw, and whether any one order of it makes sense.
//!
//! Every value that is written is unique, so a read says which write it saw. Each operation took effect at one moment
//! between its begin and its end, if at all; an operation whose outcome nobody knows may have taken effect until the
//! life that it ran in was over, or never. From these intervals alone follows what a read may see:
//!
//! - a value whose write had begun, was not refused, and was not certainly replaced before the read began;
//! - nothing, when a deletion (or the beginning) is there that was not certainly followed by a write;
//! - generations that never go back, and one value per generation.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anvil_model::ids::Generation;

/// A number that is unique to a write and stands for its value.
pub(super) type Value = u64;

/// What happened to the keys of one bucket in one history.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Ticks at each begin and end, so that no two are at the same moment.
    clock: u64,
    operations: Vec<Operation>,
}

#[derive(Clone, Copy, Debug)]
struct Operation {
    key: usize,
    begin: u64,
    /// Absent while it runs.
    end: Option<u64>,
    /// The last moment at which it can have taken effect; absent as long as that is not known.
    latest: Option<u64>,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Write { after: State, fate: Fate, expected: Option<State> },
    Read { seen: Option<Seen> },
}

/// A key's value, or none.
type State = Option<Value>;

/// Whether a write happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was acknowledged.
    Done,
    /// Nothing happened, and nothing will.
    Refused,
    /// It may have happened, or may yet.
    Unknown,
}

/// What a read saw of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// No current version.
    Absent,
    /// Some version, not said which.
    Present,
    /// This one.
    Value(Value, Option<Generation>),
}

/// An operation that runs.
#[derive(Debug)]
#[must_use]
pub(super) struct Running(usize);

impl Record {
    /// A write begins that makes `value` the key's value; `None` deletes the key. Where `expected` is given, the write
    /// was asked to happen only over that: a value, or (the inner `None`) nothing.
    pub(super) fn begin_write(&mut self, key: usize, value: Option<Value>, expected: Option<Option<Value>>) -> Running {
        self.begin(key, What::Write { after: value, fate: Fate::Unknown, expected })
    }

    /// A read of a key begins.
    pub(super) fn begin_read(&mut self, key: usize) -> Running {
        self.begin(key, What::Read { seen: None })
    }

    /// A write ends.
    ///
    /// # Panics
    /// When it was a read.
    pub(super) fn end_write(&mut self, running: Running, outcome: Fate) {
        let now = self.tick();
        let operation = &mut self.operations[running.0];
        let What::Write { fate, .. } = &mut operation.what else { panic!("a read does not end as a write") };
        *fate = outcome;
        operation.end = Some(now);
        operation.latest = (outcome != Fate::Unknown).then_some(now);
    }

    /// A read ends; `None` when it gave no answer.
    ///
    /// # Panics
    /// When it was a write.
    pub(super) fn end_read(&mut self, running: Running, what: Option<Seen>) {
        let now = self.tick();
        let operation = &mut self.operations[running.0];
        let What::Read { seen } = &mut operation.what else { panic!("a write does not end as a read") };
        *seen = what;
        operation.end = Some(now);
        operation.latest = Some(now);
    }

    /// The life in which all these ran is over: whatever is not known to have happened cannot happen any more. Gives the
    /// values of the writes that it cut off.
    pub(super) fn life_ends(&mut self) -> Vec<Value> {
        let now = self.tick();
        let running = self.operations.iter().filter(|operation| operation.end.is_none());
        let cut_off = running.filter_map(|operation| match operation.what {
            What::Write { after, .. } => after,
            What::Read { .. } => None,
        });
        let cut_off = cut_off.collect();
        for operation in &mut self.operations {
            operation.end.get_or_insert(now);
            operation.latest.get_or_insert(now);
        }
        cut_off
    }

    /// How many operations were begun.
    #[must_use]
    pub(super) fn count(&self) -> usize {
        self.operations.len()
    }

    /// Whether what was seen can be.
    ///
    /// # Errors
    /// With what cannot be, and all that happened to that key.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut keys: BTreeMap<usize, Vec<Operation>> = BTreeMap::new();
        for operation in &self.operations {
            keys.entry(operation.key).or_default().push(*operation);
        }
        for (key, operations) in keys {
            KeyRecord::new(&operations).check().map_err(|problem| explain(key, &problem, &operations))?;
        }
        Ok(())
    }

    fn begin(&mut self, key: usize, what: What) -> Running {
        let begin = self.tick();
        self.operations.push(Operation { key, begin, end: None, latest: None, what });
        Running(self.operations.len() - 1)
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

fn explain(key: usize, problem: &str, operations: &[Operation]) -> String {
    let mut text = format!("key {key}: {problem}");
    for Operation { begin, end, latest, what, .. } in operations {
        write!(text, "\n  {begin} to {end:?}, latest {latest:?}: {what:?}").expect("a string takes everything");
    }
    text
}

/// The operations of one key.
struct KeyRecord {
    effects: Vec<Effect>,
    reads: Vec<Read>,
}

/// A write that took effect, or may have.
struct Effect {
    after: State,
    certain: bool,
    earliest: u64,
    latest: u64,
    generation: Option<Generation>,
}

struct Read {
    begin: u64,
    end: u64,
    seen: Seen,
}

impl KeyRecord {
    fn new(operations: &[Operation]) -> Self {
        let mut record = Self { effects: Vec::new(), reads: Vec::new() };
        // The beginning: nothing is there.
        record.effects.push(Effect { after: None, certain: true, earliest: 0, latest: 0, generation: None });
        for &Operation { begin, end, latest, what, .. } in operations {
            let (end, latest) = (end.unwrap_or(u64::MAX), latest.unwrap_or(u64::MAX));
            match what {
                What::Write { fate: Fate::Refused, .. } | What::Read { seen: None } => {}
                What::Write { after, fate, expected } => {
                    let certain = fate == Fate::Done;
                    record.effects.push(Effect { after, certain, earliest: begin, latest, generation: None });
                    if let (true, Some(expected)) = (certain, expected) {
                        let seen = expected.map_or(Seen::Absent, |value| Seen::Value(value, None));
                        record.reads.push(Read { begin, end: latest, seen });
                    }
                }
                What::Read { seen: Some(seen) } => record.reads.push(Read { begin, end, seen }),
            }
        }
        record.learn();
        record
    }

    /// What a read saw did happen, at the latest when the read ended.
    fn learn(&mut self) {
        for read in &self.reads {
            let Seen::Value(value, generation) = read.seen else { continue };
            for effect in self.effects.iter_mut().filter(|effect| effect.after == Some(value)) {
                effect.certain = true;
                effect.latest = effect.latest.min(read.end);
                effect.generation = effect.generation.or(generation);
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        for read in &self.reads {
            let seen = |effect: &Effect| match read.seen {
                Seen::Absent => effect.after.is_none(),
                Seen::Present => effect.after.is_some(),
                Seen::Value(value, _) => effect.after == Some(value),
            };
            if !self.effects.iter().any(|effect| seen(effect) && self.may_see(read, effect)) {
                return Err(format!("a read from {} to {} cannot have seen {:?}", read.begin, read.end, read.seen));
            }
        }
        self.check_generations()
    }

    /// Whether `effect` can have been the last one when the read looked.
    fn may_see(&self, read: &Read, effect: &Effect) -> bool {
        let replaced = |other: &Effect| {
            let matters = match read.seen {
                Seen::Present => other.after.is_none(),
                Seen::Absent => other.after.is_some(),
                Seen::Value(..) => true,
            };
            matters && other.certain && effect.latest < other.earliest && other.latest < read.begin
        };
        effect.earliest < read.end && !self.effects.iter().any(replaced)
    }

    fn check_generations(&self) -> Result<(), String> {
        let mut values: BTreeMap<Generation, Value> = BTreeMap::new();
        let mut generations: BTreeMap<Value, Generation> = BTreeMap::new();
        let mut seen: Vec<(&Read, Generation)> = Vec::new();
        for read in &self.reads {
            if let Seen::Value(value, Some(generation)) = read.seen {
                let one_value = *values.entry(generation).or_insert(value) == value;
                let one_generation = *generations.entry(value).or_insert(generation) == generation;
                if !one_value || !one_generation {
                    return Err(format!("value {value} and generation {generation} do not belong to each other alone"));
                }
                seen.push((read, generation));
            }
        }
        for (read, generation) in &seen {
            let back = seen.iter().find(|(later, lower)| read.end < later.begin && lower < generation);
            if let Some((later, lower)) = back {
                return Err(format!("generation {lower} was seen at {} after {generation}", later.begin));
            }
        }
        for first in &self.effects {
            for second in &self.effects {
                let back = first.generation.zip(second.generation).is_some_and(|(first, second)| first >= second);
                if back && first.latest < second.earliest {
                    return Err(format!("{:?} has a generation not below that of {:?}", first.after, second.after));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A put, a delete or a read that begins and ends before the next one does.
    fn put(record: &mut Record, value: Value, fate: Fate) {
        let write = record.begin_write(0, Some(value), None);
        record.end_write(write, fate);
    }

    fn delete(record: &mut Record, fate: Fate) {
        let write = record.begin_write(0, None, None);
        record.end_write(write, fate);
    }

    fn read(record: &mut Record, seen: Seen) {
        let read = record.begin_read(0);
        record.end_read(read, Some(seen));
    }

    fn value(value: Value) -> Seen {
        Seen::Value(value, None)
    }

    #[test]
    fn an_acknowledged_write_must_be_seen_and_a_refused_one_must_not() {
        let mut record = Record::default();
        put(&mut record, 1, Fate::Done);
        read(&mut record, value(1));
        assert_eq!(record.check(), Ok(()));
        put(&mut record, 2, Fate::Refused);
        read(&mut record, value(1));
        assert_eq!(record.check(), Ok(()));
        read(&mut record, value(2));
        record.check().unwrap_err();

        let mut record = Record::default();
        put(&mut record, 1, Fate::Done);
        read(&mut record, Seen::Absent);
        record.check().unwrap_err();

        let mut record = Record::default();
        read(&mut record, value(7));
        record.check().unwrap_err();
    }

    #[test]
    fn a_replaced_or_deleted_value_never_returns() {
        let mut record = Record::default();
        put(&mut record, 1, Fate::Done);
        put(&mut record, 2, Fate::Done);
        read(&mut record, value(1));
        record.check().unwrap_err();

        let mut record = Record::default();
        put(&mut record, 1, Fate::Done);
        delete(&mut record, Fate::Done);
        read(&mut record, Seen::Absent);
        assert_eq!(record.check(), Ok(()));
        read(&mut record, value(1));
        record.check().unwrap_err();
    }

    #[test]
    fn an_unknown_write_may_come_late_but_not_in_another_life() {
        let mut record = Record::default();
        put(&mut record, 1, Fate::Unknown);
        put(&mut record, 2, Fate::Done);
        read(&mut record, value(2));
        read(&mut record, value(1));
        assert_eq!(record.check(), Ok(()), "the first came after the second");
        record.life_ends();
        read(&mut record, value(1));
        assert_eq!(record.check(), Ok(()));
        put(&mut record, 3, Fate::Done);
        read(&mut record, value(1));
        record.check().unwrap_err();

        let mut record = Record::default();
        put(&mut record, 1, Fate::Unknown);
        read(&mut record, Seen::Absent);
        record.life_ends();
        put(&mut record, 2, Fate::Done);
        read(&mut record, value(1));
        record.check().unwrap_err();
    }

    #[test]
    fn what_was_once_seen_is_certain() {
        let mut record = Record::default();
        put(&mut record, 1, Fate::Done);
        put(&mut record, 2, Fate::Unknown);
        read(&mut record, value(2));
        read(&mut record, value(1));
        record.check().unwrap_err();

        let mut record = Record::default();
        put(&mut record, 1, Fate::Unknown);
        read(&mut record, value(1));
        read(&mut record, Seen::Absent);
        record.check().unwrap_err();
    }

    #[test]
    fn concurrent_writes_may_end_up_in_either_order() {
        for winner in [1, 2] {
            let mut record = Record::default();
            let first = record.begin_write(0, Some(1), None);
            let second = record.begin_write(0, Some(2), None);
            record.end_write(first, Fate::Done);
            record.end_write(second, Fate::Done);
            read(&mut record, value(winner));
            assert_eq!(record.check(), Ok(()));
            read(&mut record, Seen::Absent);
            record.check().unwrap_err();
        }
    }

    #[test]
    fn generations_grow_and_belong_to_one_value() {
        let at = |value, generation| Seen::Value(value, Some(Generation(generation)));
        let two = || {
            let mut record = Record::default();
            let first = record.begin_write(0, Some(1), None);
            let second = record.begin_write(0, Some(2), None);
            record.end_write(first, Fate::Done);
            record.end_write(second, Fate::Done);
            record
        };
        let mut record = two();
        read(&mut record, at(1, 5));
        read(&mut record, at(2, 6));
        assert_eq!(record.check(), Ok(()));
        let mut record = two();
        read(&mut record, at(1, 5));
        read(&mut record, at(2, 4));
        record.check().unwrap_err();
        let mut record = two();
        read(&mut record, at(1, 5));
        read(&mut record, at(2, 5));
        record.check().unwrap_err();
    }

    #[test]
    fn a_condition_is_a_look_at_what_was_there() {
        let mut record = Record::default();
        put(&mut record, 1, Fate::Done);
        let write = record.begin_write(0, Some(2), Some(None));
        record.end_write(write, Fate::Done);
        record.check().unwrap_err();

        let mut record = Record::default();
        put(&mut record, 1, Fate::Done);
        let write = record.begin_write(0, Some(2), Some(Some(1)));
        record.end_write(write, Fate::Done);
        read(&mut record, value(2));
        assert_eq!(record.check(), Ok(()));
        read(&mut record, Seen::Present);
        assert_eq!(record.check(), Ok(()));
    }
}
