//! One of the callers of a connection and what it does: an operation, its answer, the next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anvil_proto::v1::{self, batch_get_response, bidi_read_response, get_object_response, write_object_request};
use bytes::Bytes;

use super::Plan;
use super::channel::{Call, Channel, Failure};
use super::message::frame;
use super::operation::Operation;
use super::payload::Payloads;
use super::session::Session;
use crate::load::{Pace, Random, Success, Tally, draw};

/// What all workers of a phase share.
#[derive(Debug)]
pub(super) struct Phase<'a> {
    pub(super) session: &'a Session,
    pub(super) plan: &'a Plan,
    pub(super) payloads: &'a Payloads,
    /// How often each operation is chosen, in parts of their sum.
    pub(super) mix: &'a [(Operation, u32)],
    /// Objects 0 to here exist, or will (deletions take them one by one). For writes: how many different keys they have, 0
    /// for a new one each.
    pub(super) objects: u64,
    /// The number that the next new object gets, or the next to delete.
    pub(super) next: &'a AtomicU64,
    pub(super) pace: &'a Pace<'a>,
}

impl Phase<'_> {
    /// True when deletions take the objects that were there, and not those of this run.
    fn deletes_only(&self) -> bool {
        matches!(self.mix, [(Operation::DeleteObject, _)])
    }

    fn writes_only(&self) -> bool {
        self.mix.iter().all(|(operation, _)| operation.writes())
    }

    /// What puts an object in a mix that has to.
    fn writer(&self) -> Operation {
        self.plan.writer()
    }
}

/// The state of one caller.
#[derive(Debug)]
pub(super) struct Worker<'a> {
    phase: &'a Phase<'a>,
    channel: &'a Channel<'a>,
    random: Random,
    /// Objects that this worker has put and not deleted, in a mix.
    own: VecDeque<u64>,
    tally: Tally<Operation>,
}

/// What an operation moved, and the call that it was.
struct Done {
    bytes: u64,
    objects: u64,
    call: Call,
}

impl<'a> Worker<'a> {
    pub(super) fn new(phase: &'a Phase<'a>, channel: &'a Channel<'a>, seed: u64) -> Self {
        Self { phase, channel, random: Random::new(seed), own: VecDeque::new(), tally: Tally::default() }
    }

    /// Works until the phase is over.
    pub(super) async fn run(mut self) -> Tally<Operation> {
        while let Some(intended) = self.phase.pace.begin_async().await {
            let Some((operation, number)) = self.choose() else { break };
            let late = intended.elapsed();
            match self.perform(operation, number).await {
                Ok(Done { bytes, objects, call }) => {
                    let latency = intended.elapsed();
                    let first_byte = call.first_byte.map_or(latency, |moment| moment - intended);
                    self.tally.succeeded(operation, &Success { bytes, objects, latency, first_byte, late });
                }
                Err(Failure { code, breaks }) => {
                    self.tally.failed(operation, code);
                    if breaks {
                        self.channel.forget().await;
                        tokio::time::sleep(AFTER_BREAK).await;
                    }
                }
            }
        }
        self.tally
    }

    /// What comes next; `None` when there is nothing left to do it to.
    fn choose(&mut self) -> Option<(Operation, u64)> {
        let phase = self.phase;
        let mut operation = draw(phase.mix, &mut self.random);
        // In a mix everybody deletes what it has put itself, and puts when there is nothing: what others read stays.
        if operation == Operation::DeleteObject && !phase.deletes_only() && self.own.is_empty() {
            operation = phase.writer();
        }
        let number = match operation {
            Operation::WriteObject | Operation::PutObject => {
                let number = phase.next.fetch_add(1, Ordering::Relaxed);
                if phase.writes_only() && phase.objects > 0 { number % phase.objects } else { number }
            }
            Operation::DeleteObject if phase.deletes_only() => {
                Some(phase.next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < phase.objects)?
            }
            Operation::DeleteObject => self.own.pop_front().expect("asked above"),
            _ => self.random.below(phase.objects),
        };
        Some((operation, number))
    }

    async fn perform(&mut self, operation: Operation, number: u64) -> Result<Done, Failure> {
        let authorization = self.phase.session.authorization(self.channel).await?;
        let call = self.channel.start(operation.path(), Some(authorization)).await?;
        match operation {
            Operation::GetObject => self.get(call, number).await,
            Operation::BidiRead => self.read_ranges(call, number).await,
            Operation::WriteObject => self.write(call, number).await,
            Operation::HeadObject => self.head(call, number).await,
            Operation::BatchGet => self.get_batch(call).await,
            Operation::PutObject => self.put(call, number).await,
            Operation::DeleteObject => self.delete(call, number).await,
        }
    }

    async fn get(&self, mut call: Call, number: u64) -> Result<Done, Failure> {
        let (bucket_name, object_key) = self.name(number);
        let request = v1::GetObjectRequest { bucket_name, object_key, ..v1::GetObjectRequest::default() };
        call.end(frame(&request))?;
        let content = self.phase.payloads.content(number);
        let mut at = 0;
        while let Some(answer) = call.next::<v1::GetObjectResponse>().await? {
            if let Some(get_object_response::Part::Chunk(chunk)) = answer.part {
                compare(&content, at, &chunk.content)?;
                at += chunk.content.len();
            }
        }
        check(at == content.len(), OTHER_BYTES)?;
        Ok(Done { bytes: at as u64, objects: 1, call })
    }

    async fn read_ranges(&mut self, mut call: Call, number: u64) -> Result<Done, Failure> {
        let Plan { ranges: count, range_bytes, .. } = *self.phase.plan;
        let content = self.phase.payloads.content(number);
        let (bucket_name, object_key) = self.name(number);
        let spec = v1::BidiReadSpec { bucket_name, object_key, preconditions: None };
        let last = content.len() as u64 - range_bytes;
        let ranges: Vec<_> = (0..u64::from(count))
            .map(|read_id| {
                let offset = self.random.below(last + 1).cast_signed();
                v1::ReadRange { read_id, offset, length: range_bytes }
            })
            .collect();
        // Where each of them goes on.
        let mut at: Vec<u64> = ranges.iter().map(|range| range.offset.cast_unsigned()).collect();
        call.end(frame(&v1::BidiReadRequest { spec: Some(spec), ranges: ranges.clone() }))?;
        let (mut ended, mut bytes) = (0, 0);
        while let Some(answer) = call.next::<v1::BidiReadResponse>().await? {
            match answer.part {
                Some(bidi_read_response::Part::Chunk(chunk)) => {
                    let at = usize::try_from(chunk.read_id).ok().and_then(|index| at.get_mut(index));
                    let at = at.filter(|at| **at == chunk.offset).ok_or_else(|| Failure::of(OTHER_BYTES))?;
                    compare(&content, usize::try_from(*at).unwrap_or(usize::MAX), &chunk.content)?;
                    *at += chunk.content.len() as u64;
                    bytes += chunk.content.len() as u64;
                }
                Some(bidi_read_response::Part::End(end)) => {
                    check(end.error.is_none(), "a range that is not whole")?;
                    ended += 1;
                }
                _ => {}
            }
        }
        let are_whole = ranges.iter().zip(&at).all(|(range, at)| at - range.offset.cast_unsigned() == range_bytes);
        check(ended == count && are_whole, OTHER_BYTES)?;
        Ok(Done { bytes, objects: u64::from(count), call })
    }

    async fn write(&mut self, mut call: Call, number: u64) -> Result<Done, Failure> {
        let (bucket_name, object_key) = self.name(number);
        let size = self.phase.payloads.content(number).len() as u64;
        let spec = v1::WriteObjectSpec { bucket_name, object_key, size, ..v1::WriteObjectSpec::default() };
        call.send(frame(&v1::WriteObjectRequest { part: Some(write_object_request::Part::Spec(spec)) })).await?;
        for message in self.phase.payloads.messages(number) {
            call.send(message.clone()).await?;
        }
        call.end(Bytes::new())?;
        let answer = call.next::<v1::WriteObjectResponse>().await?;
        check(answer.is_some_and(|answer| answer.size == size), "an object of another size")?;
        call.finish().await?;
        self.own.push_back(number);
        Ok(Done { bytes: size, objects: 1, call })
    }

    async fn head(&self, mut call: Call, number: u64) -> Result<Done, Failure> {
        let (bucket_name, object_key) = self.name(number);
        call.end(frame(&v1::HeadObjectRequest { bucket_name, object_key, preconditions: None }))?;
        let object = call.next::<v1::HeadObjectResponse>().await?.and_then(|answer| answer.object);
        let size = self.phase.payloads.content(number).len() as u64;
        check(object.is_some_and(|object| object.size == size), "an object of another size")?;
        call.finish().await?;
        Ok(Done { bytes: 0, objects: 1, call })
    }

    async fn get_batch(&mut self, mut call: Call) -> Result<Done, Failure> {
        let phase = self.phase;
        let numbers: Vec<u64> = (0..phase.plan.batch).map(|_| self.random.below(phase.objects)).collect();
        let object_keys = numbers.iter().map(|number| phase.plan.key(*number)).collect();
        call.end(frame(&v1::BatchGetRequest { bucket_name: phase.plan.bucket.clone(), object_keys }))?;
        let mut bytes = 0;
        for (index, number) in (0..).zip(&numbers) {
            let answer = call.next::<v1::BatchGetResponse>().await?;
            let Some(v1::BatchGetResponse { index: said, outcome: Some(outcome) }) = answer else {
                return Err(Failure::of("fewer objects than were asked for"));
            };
            let batch_get_response::Outcome::Object(object) = outcome else {
                return Err(Failure::of("an object that cannot be had"));
            };
            check(said == index && object.content == phase.payloads.content(*number), OTHER_BYTES)?;
            bytes += object.content.len() as u64;
        }
        call.finish().await?;
        Ok(Done { bytes, objects: numbers.len() as u64, call })
    }

    async fn put(&mut self, mut call: Call, number: u64) -> Result<Done, Failure> {
        let (bucket_name, object_key) = self.name(number);
        let content = self.phase.payloads.content(number);
        let size = content.len() as u64;
        let request = v1::PutObjectRequest { bucket_name, object_key, content, ..v1::PutObjectRequest::default() };
        call.end(frame(&request))?;
        let answer = call.next::<v1::PutObjectResponse>().await?;
        check(answer.is_some_and(|answer| answer.size == size), "an object of another size")?;
        call.finish().await?;
        self.own.push_back(number);
        Ok(Done { bytes: size, objects: 1, call })
    }

    async fn delete(&self, mut call: Call, number: u64) -> Result<Done, Failure> {
        let (bucket_name, object_key) = self.name(number);
        call.end(frame(&v1::DeleteObjectRequest { bucket_name, object_key, preconditions: None }))?;
        check(call.next::<v1::DeleteObjectResponse>().await?.is_some(), "an answer without a message")?;
        call.finish().await?;
        Ok(Done { bytes: 0, objects: 1, call })
    }

    /// Bucket and key of object `number`.
    fn name(&self, number: u64) -> (String, String) {
        (self.phase.plan.bucket.clone(), self.phase.plan.key(number))
    }
}

fn compare(content: &[u8], at: usize, piece: &[u8]) -> Result<(), Failure> {
    let expected = at.checked_add(piece.len()).and_then(|end| content.get(at..end));
    check(expected == Some(piece), OTHER_BYTES)
}

fn check(is_so: bool, otherwise: &str) -> Result<(), Failure> {
    if is_so { Ok(()) } else { Err(Failure::of(otherwise)) }
}

const OTHER_BYTES: &str = "other bytes than were put";
/// A server that is gone is not asked again at once.
const AFTER_BREAK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_held_against_its_place() {
        assert!(compare(b"abcdef", 2, b"cd").is_ok() && compare(b"abcdef", 6, b"").is_ok());
        for (at, piece) in [(2, &b"cx"[..]), (3, b"cd"), (5, b"fg"), (7, b""), (usize::MAX, b"a")] {
            assert_eq!(compare(b"abcdef", at, piece).unwrap_err().code, OTHER_BYTES, "{at}");
        }
    }
}
