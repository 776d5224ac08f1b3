//! One connection and what it does: an operation, its answer, the next.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::connection::{Answer, Connection};
use super::payload::{Payload, Payloads};
use super::request::{Operation, Request, Target};
use crate::load::{Pace, Random, Success, Tally, draw};

/// What all workers of a phase share.
#[derive(Debug)]
pub(super) struct Phase<'a> {
    pub(super) target: &'a Target,
    pub(super) payloads: &'a Payloads,
    /// How often each operation is chosen, in parts of their sum.
    pub(super) mix: &'a [(Operation, u32)],
    /// Objects 0 to here exist, or will (deletions take them one by one). For puts: how many different keys they
    /// have, 0 for a new one each.
    pub(super) objects: u64,
    /// The number that the next new object gets, or the next to delete.
    pub(super) next: &'a AtomicU64,
    pub(super) pace: &'a Pace<'a>,
}

impl Phase<'_> {
    /// True when deletions take the objects that were there, and not those of this run.
    fn deletes_only(&self) -> bool {
        matches!(self.mix, [(Operation::Delete, _)])
    }

    fn writes_only(&self) -> bool {
        self.mix.iter().all(|(operation, _)| operation.writes())
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
    /// Bodies whose chunks are signed.
    scratch: Vec<u8>,
    tally: Tally<Operation>,
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
            scratch: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Works until the phase is over.
    pub(super) fn run(mut self) -> Tally<Operation> {
        while let Some(intended) = self.phase.pace.begin() {
            let Some(step) = self.choose() else { break };
            match self.perform(&step, intended) {
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
        let mut operation = draw(phase.mix, &mut self.random);
        // In a mix everybody deletes what it has put itself, and puts when there is nothing: what others read stays.
        if operation == Operation::Delete && !phase.deletes_only() && self.own.is_empty() {
            operation = Operation::Put;
        }
        let number = match operation {
            Operation::Put | Operation::Multipart => {
                let number = phase.next.fetch_add(1, Ordering::Relaxed);
                if phase.writes_only() && phase.objects > 0 { number % phase.objects } else { number }
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

    fn perform(&mut self, step: &Step, intended: Instant) -> Result<Success, Failure> {
        let Phase { target, payloads, .. } = self.phase;
        let late = intended.elapsed();
        let (mut bytes, mut objects) = (0, 1);
        let number = step.number;
        let answer = match step.operation {
            Operation::Put => {
                let payload = payloads.body(number);
                bytes = payload.content().len() as u64;
                let answer = self.exchange(target.object("PUT", number, Some(payload)), Some(payload))?.0;
                self.own.push_back(number);
                answer
            }
            Operation::Multipart => {
                let answer = self.multipart(number)?;
                bytes = payloads.body(number).content().len() as u64;
                self.own.push_back(number);
                answer
            }
            Operation::Get => {
                let answer = self.compare(target.object("GET", number, None), payloads.body(number).content())?;
                bytes = answer.body_bytes;
                answer
            }
            Operation::Head => self.exchange(target.object("HEAD", number, None), None)?.0,
            Operation::Delete => self.exchange(target.object("DELETE", number, None), None)?.0,
            Operation::List => {
                let (answer, page) = self.exchange(target.list(self.continuation.as_deref()), None)?;
                objects = page.matches("<Key>").count() as u64;
                self.continuation = element(&page, "NextContinuationToken").map(str::to_owned);
                answer
            }
        };
        let first_byte = answer.first_byte - intended;
        Ok(Success { bytes, objects, latency: intended.elapsed(), first_byte, late })
    }

    /// A whole upload in parts, one after the other; the answer to its completion.
    fn multipart(&mut self, number: u64) -> Result<Answer, Failure> {
        let target = self.phase.target;
        let (_, created) = self.exchange(target.create_upload(number), None)?;
        let upload = element(&created, "UploadId").ok_or_else(|| Failure::of("an upload without an id"))?;
        self.put_parts(number, upload).inspect_err(|_| {
            // What is left of it takes room; that this fails too is no news.
            self.exchange(target.end_upload("DELETE", number, upload, None), None).ok();
        })
    }

    fn put_parts(&mut self, number: u64, upload: &str) -> Result<Answer, Failure> {
        let Phase { target, payloads, .. } = self.phase;
        let mut list = "<CompleteMultipartUpload>".to_owned();
        for (index, payload) in payloads.parts(number).iter().enumerate() {
            let part = index + 1;
            let (answer, _) = self.exchange(target.part(number, upload, part, payload), Some(payload))?;
            let etag = answer.etag.ok_or_else(|| Failure::of("a part without an ETag"))?;
            write!(list, "<Part><PartNumber>{part}</PartNumber><ETag>{}</ETag></Part>", etag.replace('"', "&quot;"))
                .expect("a String takes everything");
        }
        list.push_str("</CompleteMultipartUpload>");
        let payload = Payload::of(list.into_bytes());
        let (answer, says) =
            self.exchange(target.end_upload("POST", number, upload, Some(&payload)), Some(&payload))?;
        // A completion may begin with 200 and end with an error (S3 API reference, CompleteMultipartUpload).
        match element(&says, "Code") {
            Some(code) => Err(Failure::of(&format!("200 with {code}"))),
            None => Ok(answer),
        }
    }

    /// A request whose answer is small; with the answer, its body.
    fn exchange(&mut self, request: Request, payload: Option<&Payload>) -> Result<(Answer, String), Failure> {
        let mut kept = Vec::new();
        let sink = &mut |piece: &[u8]| {
            kept.extend_from_slice(&piece[..piece.len().min(KEPT_BYTES_MAX.saturating_sub(kept.len()))]);
        };
        let answer = self.send(request, payload, sink)?;
        let text = String::from_utf8_lossy(&kept).into_owned();
        check(&answer, &text)?;
        Ok((answer, text))
    }

    /// A request whose answer is an object, which has to be `content`.
    fn compare(&mut self, request: Request, content: &[u8]) -> Result<Answer, Failure> {
        let (mut at, mut is_same, mut beginning) = (0, true, Vec::new());
        let sink = &mut |piece: &[u8]| {
            is_same &= content.get(at..at + piece.len()) == Some(piece);
            at += piece.len();
            if !is_same {
                beginning.extend_from_slice(&piece[..piece.len().min(KEPT_BYTES_MAX.saturating_sub(beginning.len()))]);
            }
        };
        let answer = self.send(request, None, sink)?;
        check(&answer, &String::from_utf8_lossy(&beginning))?;
        if is_same && at == content.len() { Ok(answer) } else { Err(Failure::of("other bytes than were put")) }
    }

    fn send(
        &mut self,
        mut request: Request,
        payload: Option<&Payload>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<Answer, Failure> {
        let broken = |error: std::io::Error| Failure { code: format!("connection: {error}"), breaks: true };
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(self.phase.target.address).map_err(broken)?),
        };
        let body = payload.map_or(&[][..], |payload| payload.wire(&mut request.chain, &mut self.scratch));
        let answer = connection.exchange(request.head.as_bytes(), body, request.is_head, sink).map_err(broken)?;
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

impl Failure {
    fn of(code: &str) -> Self {
        Self { code: code.to_owned(), breaks: false }
    }
}

fn check(answer: &Answer, body: &str) -> Result<(), Failure> {
    if (200..300).contains(&answer.status) {
        return Ok(());
    }
    let code = element(body, "Code").unwrap_or("without a code");
    Err(Failure::of(&format!("{} {code}", answer.status)))
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
