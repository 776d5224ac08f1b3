//! One connection and what it does: an operation, its answer, the next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::connection::{Answer, Connection};
use super::payload::{Payload, Random};
use super::request::{Operation, Target};
use super::tally::{Success, Tally};

/// What all workers of a phase share.
#[derive(Debug)]
pub(super) struct Phase<'a> {
    pub(super) target: &'a Target,
    pub(super) payload: &'a Payload,
    /// How often each operation is chosen, in parts of their sum.
    pub(super) mix: &'a [(Operation, u32)],
    /// Objects 0 to here exist, or will (deletions take them one by one). For puts: how many different keys they
    /// have, 0 for a new one each.
    pub(super) objects: u64,
    /// Operations that may still be begun.
    pub(super) left: &'a AtomicU64,
    /// The number that the next new object gets, or the next to delete.
    pub(super) next: &'a AtomicU64,
    /// Nothing more is begun from here on.
    pub(super) deadline: Option<Instant>,
    pub(super) interrupted: &'a AtomicBool,
}

impl Phase<'_> {
    fn may_begin(&self) -> bool {
        !self.interrupted.load(Ordering::Relaxed)
            && self.deadline.is_none_or(|deadline| Instant::now() < deadline)
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// True when deletions take the objects that were there, and not those of this run.
    fn deletes_only(&self) -> bool {
        matches!(self.mix, [(Operation::Delete, _)])
    }
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Worker<'a> {
    phase: &'a Phase<'a>,
    connection: Option<Connection>,
    random: Random,
    /// Objects that this worker has put and not deleted, in a mix.
    own: VecDeque<u64>,
    /// Where the listing goes on.
    continuation: Option<String>,
    tally: Tally,
}

/// An operation that is decided upon.
struct Step {
    operation: Operation,
    number: u64,
}

impl<'a> Worker<'a> {
    pub(super) fn new(phase: &'a Phase<'a>, seed: u64) -> Self {
        Self {
            phase,
            connection: None,
            random: Random::new(seed),
            own: VecDeque::new(),
            continuation: None,
            tally: Tally::default(),
        }
    }

    /// Works until the phase is over.
    pub(super) fn run(mut self) -> Tally {
        while self.phase.may_begin() {
            let Some(step) = self.choose() else { break };
            match self.perform(&step) {
                Ok(success) => self.tally.succeeded(step.operation, &success),
                Err(Failure { code, breaks }) => {
                    self.tally.failed(step.operation, code);
                    if breaks {
                        self.connection = None;
                        std::thread::sleep(AFTER_BREAK);
                    }
                }
            }
        }
        self.tally
    }

    /// What comes next; `None` when there is nothing left to do it to.
    fn choose(&mut self) -> Option<Step> {
        let phase = self.phase;
        let mut operation = self.draw();
        // In a mix everybody deletes what it has put itself, and puts when there is nothing: what others read stays.
        if operation == Operation::Delete && !phase.deletes_only() && self.own.is_empty() {
            operation = Operation::Put;
        }
        let number = match operation {
            Operation::Put => {
                let number = phase.next.fetch_add(1, Ordering::Relaxed);
                let is_alone = phase.mix.len() == 1;
                if is_alone && phase.objects > 0 { number % phase.objects } else { number }
            }
            Operation::Get | Operation::Head => self.random.below(phase.objects),
            Operation::List => 0,
            Operation::Delete if phase.deletes_only() => {
                Some(phase.next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < phase.objects)?
            }
            Operation::Delete => self.own.pop_front().expect("asked above"),
        };
        Some(Step { operation, number })
    }

    fn draw(&mut self) -> Operation {
        let mix = self.phase.mix;
        if let [(only, _)] = mix {
            return *only;
        }
        let sum: u32 = mix.iter().map(|(_, share)| share).sum();
        let mut drawn = self.random.below(u64::from(sum));
        for &(operation, share) in mix {
            match drawn.checked_sub(u64::from(share)) {
                None => return operation,
                Some(rest) => drawn = rest,
            }
        }
        unreachable!("a number below the sum falls into a share")
    }

    fn perform(&mut self, step: &Step) -> Result<Success, Failure> {
        let Phase { target, payload, .. } = self.phase;
        let began = Instant::now();
        let (mut bytes, mut objects) = (0, 1);
        let answer = match step.operation {
            Operation::Put => {
                bytes = payload.content.len() as u64;
                let head = target.object("PUT", step.number, Some(payload));
                let (answer, _) = self.exchange(&head, payload.wire(), false)?;
                self.own.push_back(step.number);
                answer
            }
            Operation::Get => {
                let head = target.object("GET", step.number, None);
                let (answer, is_same) = self.compare(&head)?;
                bytes = answer.body_bytes;
                if !is_same {
                    return Err(Failure { code: "other bytes than were put".to_owned(), breaks: false });
                }
                answer
            }
            Operation::Head => self.exchange(&target.object("HEAD", step.number, None), b"", true)?.0,
            Operation::Delete => self.exchange(&target.object("DELETE", step.number, None), b"", false)?.0,
            Operation::List => {
                let head = target.list(self.continuation.as_deref());
                let (answer, page) = self.exchange(&head, b"", false)?;
                let page = String::from_utf8_lossy(&page);
                objects = page.matches("<Key>").count() as u64;
                self.continuation = element(&page, "NextContinuationToken").map(str::to_owned);
                answer
            }
        };
        Ok(Success { bytes, objects, latency: began.elapsed(), first_byte: answer.first_byte - began })
    }

    /// A request whose answer is small; with the answer, its body.
    fn exchange(&mut self, head: &str, body: &[u8], is_head: bool) -> Result<(Answer, Vec<u8>), Failure> {
        let mut kept = Vec::new();
        let sink = &mut |piece: &[u8]| kept.extend_from_slice(&piece[..piece.len().min(KEPT_BYTES_MAX)]);
        let answer = self.send(head, body, is_head, sink)?;
        check(&answer, &kept)?;
        Ok((answer, kept))
    }

    /// A request whose answer is an object; with the answer, whether it is the one that was put.
    fn compare(&mut self, head: &str) -> Result<(Answer, bool), Failure> {
        let content = &self.phase.payload.content;
        let (mut at, mut is_same, mut beginning) = (0, true, Vec::new());
        let sink = &mut |piece: &[u8]| {
            is_same &= content.get(at..at + piece.len()) == Some(piece);
            at += piece.len();
            if !is_same {
                beginning.extend_from_slice(&piece[..piece.len().min(KEPT_BYTES_MAX.saturating_sub(beginning.len()))]);
            }
        };
        let answer = self.send(head, b"", false, sink)?;
        check(&answer, &beginning)?;
        Ok((answer, is_same && at == content.len()))
    }

    fn send(&mut self, head: &str, body: &[u8], is_head: bool, sink: &mut dyn FnMut(&[u8])) -> Result<Answer, Failure> {
        let broken = |error: std::io::Error| Failure { code: format!("connection: {error}"), breaks: true };
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(self.phase.target.address).map_err(broken)?),
        };
        let answer = connection.exchange(head.as_bytes(), body, is_head, sink).map_err(broken)?;
        if !answer.keep_alive {
            self.connection = None;
        }
        Ok(answer)
    }
}

/// Why an operation did not succeed.
#[derive(Debug)]
struct Failure {
    code: String,
    /// The connection is of no more use.
    breaks: bool,
}

fn check(answer: &Answer, body: &[u8]) -> Result<(), Failure> {
    if (200..300).contains(&answer.status) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(body);
    let code = element(&text, "Code").unwrap_or("without a code");
    Err(Failure { code: format!("{} {code}", answer.status), breaks: false })
}

/// The text of the first element of this name, if it needs no unescaping.
pub(super) fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once('<')?;
    Some(text)
}

/// A server that is gone is not asked again at once.
const AFTER_BREAK: Duration = Duration::from_millis(100);
/// More of an answer than a page of keys needs is not kept.
const KEPT_BYTES_MAX: usize = 4 << 20;
