//! Many ranges of one object on one stream.
//!
//! A few ranges are read at a time, each a piece ahead of what is sent, so that the disks are busy and the memory is
//! bounded; the others wait in the order in which they were asked for. When the client takes its time, all that was read
//! ahead is given back, and read again later.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::pin::pin;

use anvil_node::get::{Found, Reader, StreamError};
use anvil_node::metadata::query::ReadFrom;
use anvil_proto::v1;
use anvil_runtime::{Buffer, Core};
use anvil_store::Piece;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _, select_biased};

use super::access::Asker;
use super::call::{Call, Next, Wait, Wire};
use super::object::{ends_early, open};
use super::services::Services;
use super::status::{Code, Status};
use super::{chunk, words};

/// Ranges that may be asked for and not answered.
const RANGES_MAX: usize = 100;
/// Ranges that are read at once.
const READS_MAX: usize = 8;

/// A range that is being read.
struct Reading {
    read_id: u64,
    left: Range<u64>,
    reader: Reader<Core>,
}

/// A piece of a range, or why there is none.
type Came = (Reading, Option<Result<Piece<Buffer>, StreamError>>);

pub(super) async fn serve<W: Wire>(services: &Services, asker: &Asker, call: &mut Call<'_, W>) -> Result<(), Status> {
    let first = call.message::<v1::BidiReadRequest>().await?.unwrap_or_default();
    let spec = first.spec.ok_or_else(|| unexpected("the first message names the object"))?;
    let (bucket, key) = (&spec.bucket_name, &spec.object_key);
    let from = ReadFrom::Start(0);
    let found = open(services, asker, (bucket, key), spec.preconditions.as_ref(), Some(from)).await?;
    let object = v1::bidi_read_response::Part::Object(words::info(bucket, key, &found));
    call.answer(&v1::BidiReadResponse { part: Some(object) }).await?;

    let mut session = Session::new(services, found);
    let mut reads = FuturesUnordered::new();
    let mut is_open = true;
    session.ask(first.ranges)?;
    loop {
        while session.active.len() < READS_MAX
            && let Some(range) = session.waiting.pop_front()
        {
            match session.begin(range) {
                Ok(reading) => reads.push(next(reading)),
                Err((read_id, status)) => session.end(call, read_id, Err(status)).await?,
            }
        }
        if reads.is_empty() && !is_open {
            return Ok(());
        }
        let came = if !is_open {
            reads.next().await
        } else if reads.is_empty() {
            let asked = pin!(call.next(Wait::Idly));
            is_open = match select(asked, pin!(services.stopping())).await {
                Either::Left((asked, _)) => session.hear(asked?)?,
                Either::Right((status, _)) => return Err(status),
            };
            None
        } else {
            select_biased! {
                came = reads.next() => came,
                asked = call.next(Wait::Idly).fuse() => {
                    is_open = session.hear(asked?)?;
                    None
                }
            }
        };
        let Some(came) = came else { continue };
        let mut is_slow = false;
        let rest = || {
            reads.clear();
            is_slow = true;
        };
        let more = session.send(call, came, rest).await?;
        match more {
            _ if is_slow => reads.extend(session.again().into_iter().map(next)),
            Some(reading) => reads.push(next(reading)),
            None => {}
        }
    }
}

async fn next(mut reading: Reading) -> Came {
    let piece = reading.reader.next().await;
    (reading, piece)
}

struct Session<'s> {
    services: &'s Services,
    found: Found,
    waiting: VecDeque<v1::ReadRange>,
    /// What is left of those that are read.
    active: BTreeMap<u64, Range<u64>>,
    unanswered: BTreeSet<u64>,
}

impl<'s> Session<'s> {
    fn new(services: &'s Services, found: Found) -> Self {
        Self { services, found, waiting: VecDeque::new(), active: BTreeMap::new(), unanswered: BTreeSet::new() }
    }

    /// Takes a message; false when there are none any more.
    fn hear(&mut self, asked: Next<v1::BidiReadRequest>) -> Result<bool, Status> {
        match asked {
            Next::End => Ok(false),
            Next::Later => Ok(true),
            Next::Message(v1::BidiReadRequest { spec: Some(_), .. }) => {
                Err(unexpected("only the first message names an object"))
            }
            Next::Message(v1::BidiReadRequest { spec: None, ranges }) => self.ask(ranges).map(|()| true),
        }
    }

    fn ask(&mut self, ranges: Vec<v1::ReadRange>) -> Result<(), Status> {
        for range in ranges {
            if self.unanswered.len() == RANGES_MAX {
                let message = format!("at most {RANGES_MAX} ranges may be asked for and not answered");
                return Err(Status::new(Code::ResourceExhausted, "TOO_MANY_RANGES", message));
            }
            if !self.unanswered.insert(range.read_id) {
                let message = "an unanswered range has this read_id already";
                return Err(
                    Status::new(Code::InvalidArgument, "READ_ID_IN_USE", message).about("read_id", range.read_id)
                );
            }
            self.waiting.push_back(range);
        }
        Ok(())
    }

    fn begin(&mut self, range: v1::ReadRange) -> Result<Reading, (u64, Status)> {
        let v1::ReadRange { read_id, offset, length } = range;
        let left = words::range(offset, length, self.found.size).map_err(|status| (read_id, status))?;
        self.active.insert(read_id, left.clone());
        Ok(self.reading(read_id, left))
    }

    fn reading(&self, read_id: u64, left: Range<u64>) -> Reading {
        Reading { read_id, reader: self.services.node.read(&self.found, left.clone()), left }
    }

    /// All that are read, from where they are.
    fn again(&self) -> Vec<Reading> {
        self.active.iter().map(|(read_id, left)| self.reading(*read_id, left.clone())).collect()
    }

    /// Sends what came of a range; gives it back when there is more of it. `rest` gives back what was read of the others.
    async fn send<W: Wire>(
        &mut self,
        call: &mut Call<'_, W>,
        came: Came,
        rest: impl FnOnce(),
    ) -> Result<Option<Reading>, Status> {
        let (mut reading, piece) = came;
        let Reading { read_id, ref mut left, ref mut reader } = reading;
        match piece {
            None if left.is_empty() => self.end(call, read_id, Ok(())).await.map(|()| None),
            None => self.end(call, read_id, Err(ends_early())).await.map(|()| None),
            Some(Err(error)) => self.end(call, read_id, Err(error.into())).await.map(|()| None),
            Some(Ok(piece)) => {
                let head = chunk::of_range(read_id, left.start, &piece.buffer[piece.range.clone()]);
                left.start += piece.range.len() as u64;
                self.active.insert(read_id, left.clone());
                let rest = || {
                    reader.rest();
                    rest();
                };
                call.answer_piece(head, piece, rest).await?;
                if left.is_empty() {
                    self.end(call, read_id, Ok(())).await?;
                    return Ok(None);
                }
                Ok(Some(reading))
            }
        }
    }

    async fn end<W: Wire>(
        &mut self,
        call: &mut Call<'_, W>,
        read_id: u64,
        outcome: Result<(), Status>,
    ) -> Result<(), Status> {
        self.unanswered.remove(&read_id);
        self.active.remove(&read_id);
        let error = outcome.err().map(|status| status.to_wire(&call.head.request_id));
        let part = Some(v1::bidi_read_response::Part::End(v1::RangeEnd { read_id, error }));
        call.answer(&v1::BidiReadResponse { part }).await
    }
}

fn unexpected(message: &str) -> Status {
    Status::new(Code::InvalidArgument, "UNEXPECTED_MESSAGE", message)
}
