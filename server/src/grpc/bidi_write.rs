//! Writes that survive their connections and their node.
//!
//! Such a write is an upload in parts whose parts the node itself appends: bytes are gathered until there are
//! [`SLICE_BYTES`] of them, or a flush, the finish or some time asks for it; then they become a part. So what is durable,
//! when it expires and how it is given up is what uploads in parts have: `docs/adr/0012-resumable-writes.md`.
//!
//! **Invariants**
//! - What a flush was answered for is in parts, and no part is ever replaced: of two writers one goes on, and the other one is
//!   told so.
//! - All writes of a core together gather at most [`GATHERED_WRITES_MAX`] slices, and each for at most [`SLICE_TIME_MAX`].

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anvil_model::access::Action;
use anvil_model::io::World as _;
use anvil_model::limits::PART_NUMBER_MAX;
use anvil_model::object::{Checksum, ChecksumAlgorithm, ChecksumType};
use anvil_model::time::Moment;
use anvil_node::metadata::mutation::Written;
use anvil_node::metadata::query::Progress;
use anvil_node::multipart::{CreateUpload, UploadName};
use anvil_node::put::Stored;
use anvil_proto::v1;
use anvil_proto::v1::bidi_write_request::Part;
use anvil_proto::v1::bidi_write_response::Part as Answer;
use bytes::{Buf as _, Bytes};
use futures_util::future::{Either, select};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::Asker;
use super::call::{Call, Next, Wait, Wire};
use super::chunk::crc32c;
use super::incoming::InMemory;
use super::multipart::named;
use super::object::{Allowed, allowed};
use super::rope::Rope;
use super::services::Services;
use super::status::{Code, Status};
use super::words;

/// Bytes that are gathered before they become a part: as many as S3 asks of one, and few enough to be in memory.
const SLICE_BYTES: usize = 8 << 20;
/// For how long they are gathered.
const SLICE_TIME_MAX: Duration = Duration::from_secs(10);
/// Writes of one core that gather at once; the others wait until one of these has written its slice.
pub(super) const GATHERED_WRITES_MAX: usize = 8;
/// For how long they wait.
const TURN_TIME_MAX: Duration = Duration::from_secs(30);
/// By what a finish is held to its bytes.
const SUM: (ChecksumAlgorithm, ChecksumType) = (ChecksumAlgorithm::Crc32c, ChecksumType::FullObject);

/// Room for the slices that a core gathers. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(GATHERED_WRITES_MAX)))
    }
}

pub(super) async fn serve<W: Wire>(services: &Services, asker: &Asker, call: &mut Call<'_, W>) -> Result<(), Status> {
    let first = call.message::<v1::BidiWriteRequest>().await?.and_then(|message| message.part);
    let (upload, progress) = match first {
        Some(Part::Spec(spec)) => (begin(services, asker, spec).await?, None),
        Some(Part::Resume(v1::ResumeWrite { bucket_name, object_key, upload_id })) => {
            let upload = named(asker, &bucket_name, &object_key, &upload_id)?;
            let progress = progress(services, upload.clone()).await?;
            (upload, Some(progress))
        }
        _ => return Err(unexpected("the first message is the spec, or says which write goes on")),
    };
    let upload_id = upload.upload.to_string();
    let mut writing = Writing::new(services, upload, progress.as_ref());
    let persisted_size = writing.persisted;
    answer(call, Answer::Beginning(v1::WriteBeginning { upload_id, persisted_size })).await?;
    loop {
        match writing.next(call).await? {
            Heard::Chunk(chunk) => writing.take(chunk).await?,
            Heard::Flush => {
                writing.persist().await?;
                let persisted_size = writing.persisted;
                answer(call, Answer::Progress(v1::WriteProgress { persisted_size })).await?;
            }
            Heard::Nothing => writing.persist().await?,
            Heard::Finish(finish) => {
                let done = writing.finish(finish).await?;
                return answer(call, Answer::Done(done)).await;
            }
            Heard::Cancel => return Ok(services.node.abort_upload(writing.upload).await?),
        }
    }
}

pub(super) async fn query<W: Wire>(services: &Services, asker: &Asker, call: &mut Call<'_, W>) -> Result<(), Status> {
    let v1::QueryWriteRequest { bucket_name, object_key, upload_id } = call.only_message().await?;
    let upload = named(asker, &bucket_name, &object_key, &upload_id)?;
    let progress = progress(services, upload).await?;
    let done = progress
        .completed
        .map(|done| told(Stored { etag: done.etag, checksum: done.checksum, size: done.size }, done.written));
    call.answer(&v1::QueryWriteResponse { persisted_size: progress.size, done }).await
}

async fn begin(services: &Services, asker: &Asker, spec: v1::BidiWriteSpec) -> Result<UploadName, Status> {
    let Allowed { caller, bucket, key } = allowed(asker, Action::ObjectWrite, &spec.bucket_name, &spec.object_key)?;
    let create = CreateUpload {
        caller,
        bucket: bucket.clone(),
        key: key.clone(),
        headers: words::headers(spec.metadata)?,
        checksum: Some(SUM),
        storage_class: words::storage_class(&spec.storage_class, services.node.classes())?,
    };
    let upload = services.node.create_upload(create).await?;
    Ok(UploadName { caller, bucket, key, upload })
}

async fn progress(services: &Services, upload: UploadName) -> Result<Progress, Status> {
    let progress = services.node.write_progress(upload).await?;
    if progress.checksum != Some(SUM) || !progress.is_in_order {
        let message = "the upload is none of BidiWrite: it has another checksum, or parts that were not appended";
        return Err(Status::new(Code::FailedPrecondition, "NOT_RESUMABLE", message));
    }
    Ok(progress)
}

async fn answer<W: Wire>(call: &mut Call<'_, W>, part: Answer) -> Result<(), Status> {
    call.answer(&v1::BidiWriteResponse { part: Some(part) }).await
}

fn told(Stored { etag, checksum, size }: Stored, written: Written) -> v1::WriteObjectResponse {
    v1::WriteObjectResponse {
        etag: etag.0,
        size,
        checksum: Some(words::told_checksum(&checksum)),
        generation: written.generation.0,
        last_modified: words::timestamp(written.last_modified),
    }
}

/// What a client said, or that it was quiet for long.
enum Heard {
    Chunk(v1::WriteChunk),
    Flush,
    Finish(v1::BidiWriteFinish),
    Cancel,
    Nothing,
}

/// A write under way.
struct Writing<'s> {
    services: &'s Services,
    upload: UploadName,
    /// Parts that are there.
    parts: u16,
    /// Bytes of them.
    persisted: u64,
    /// Bytes behind them, since when, and the right to have them in memory.
    gathered: Rope,
    turn: Option<(Moment, OwnedSemaphorePermit)>,
}

impl<'s> Writing<'s> {
    fn new(services: &'s Services, upload: UploadName, progress: Option<&Progress>) -> Self {
        let (parts, persisted) = progress.map_or((0, 0), |progress| (progress.parts, progress.size));
        Self { services, upload, parts, persisted, gathered: Rope::default(), turn: None }
    }

    /// Where the next byte belongs.
    fn position(&self) -> u64 {
        self.persisted + self.gathered.remaining() as u64
    }

    /// What the client says next. What is gathered waits only so long for it, and a node that stops does not wait.
    async fn next<W: Wire>(&mut self, call: &mut Call<'_, W>) -> Result<Heard, Status> {
        let world = self.services.node.world();
        let heard = {
            let quiet = async {
                match &self.turn {
                    Some((since, _)) => {
                        world.sleep(SLICE_TIME_MAX.saturating_sub(world.now().since(*since))).await;
                        Heard::Nothing
                    }
                    None => std::future::pending().await,
                }
            };
            let (quiet, stopping) = (pin!(quiet), pin!(self.services.stopping()));
            let message = pin!(call.next::<v1::BidiWriteRequest>(Wait::Idly));
            match select(message, select(quiet, stopping)).await {
                Either::Left((message, _)) => Ok(message?),
                Either::Right((Either::Left((heard, _)), _)) => return Ok(heard),
                Either::Right((Either::Right((status, _)), _)) => Err(status),
            }
        };
        match heard {
            Err(stopping) => {
                self.persist().await?;
                Err(stopping)
            }
            Ok(Next::End) => {
                let message = "the call ended without a finish: the write goes on with another one";
                Err(Status::new(Code::InvalidArgument, "UNFINISHED", message))
            }
            Ok(Next::Later) => unreachable!("only those hear so who wait briefly"),
            Ok(Next::Message(v1::BidiWriteRequest { part })) => match part {
                Some(Part::Chunk(chunk)) => Ok(Heard::Chunk(chunk)),
                Some(Part::Flush(_)) => Ok(Heard::Flush),
                Some(Part::Finish(finish)) => Ok(Heard::Finish(finish)),
                Some(Part::Cancel(_)) => Ok(Heard::Cancel),
                Some(Part::Spec(_) | Part::Resume(_)) | None => {
                    Err(unexpected("only the first message names the write, and each further one says something"))
                }
            },
        }
    }

    /// Takes the bytes of a chunk that are new.
    async fn take(&mut self, chunk: v1::WriteChunk) -> Result<(), Status> {
        let v1::WriteChunk { mut content, crc32c: promised, write_offset } = chunk;
        if promised.is_some_and(|promised| promised != crc32c(&content)) {
            let message = format!("the CRC32C of the chunk at {write_offset} is another one");
            return Err(invalid("CHECKSUM_MISMATCH", message));
        }
        if write_offset > self.position() {
            return Err(self.misplaced(format!("the chunk at {write_offset} leaves a gap")));
        }
        // What is in parts is compared by the checksum of the finish.
        let durable = count(self.persisted.saturating_sub(write_offset), content.len());
        content.advance(durable);
        if !self.repeats(&content, write_offset + durable as u64) {
            return Err(self.misplaced(format!("the chunk at {write_offset} says other bytes than came before")));
        }
        let known = count(self.position().saturating_sub(write_offset + durable as u64), content.len());
        content.advance(known);
        while !content.is_empty() {
            self.turn().await?;
            let room = SLICE_BYTES - self.gathered.remaining();
            self.gathered.push(content.split_to(content.len().min(room)));
            if self.gathered.remaining() == SLICE_BYTES {
                self.persist().await?;
            }
        }
        Ok(())
    }

    /// Whether bytes at an offset that is not in parts are those that are gathered there, as far as there are any.
    fn repeats(&self, content: &Bytes, offset: u64) -> bool {
        let behind = count(offset.saturating_sub(self.persisted), self.gathered.remaining());
        let mut gathered = self.gathered.clone();
        gathered.advance(behind);
        let count = content.len().min(gathered.remaining());
        gathered.copy_to_bytes(count) == content[..count]
    }

    /// Waits for the right to gather.
    async fn turn(&mut self) -> Result<(), Status> {
        if self.turn.is_some() {
            return Ok(());
        }
        let world = self.services.node.world();
        let turn = Arc::clone(&self.services.slices.0).acquire_owned();
        match select(pin!(turn), pin!(world.sleep(TURN_TIME_MAX))).await {
            Either::Left((permit, _)) => {
                self.turn = Some((world.now(), permit.expect("nobody closes it")));
                Ok(())
            }
            Either::Right(_) => {
                let message = "too many writes are under way at this moment";
                Err(Status::new(Code::Unavailable, "BUSY", message).retry_after(Duration::from_secs(1)))
            }
        }
    }

    /// Makes what is gathered durable.
    async fn persist(&mut self) -> Result<(), Status> {
        if self.gathered.remaining() > 0 {
            self.append().await?;
        }
        Ok(())
    }

    async fn append(&mut self) -> Result<(), Status> {
        if self.parts == PART_NUMBER_MAX {
            let message = format!("a write has at most {PART_NUMBER_MAX} slices: flush less often");
            return Err(Status::new(Code::ResourceExhausted, "TOO_MANY_SLICES", message));
        }
        let mut slice = InMemory::from(std::mem::take(&mut self.gathered));
        let stored = self.services.node.append_part(self.upload.clone(), self.parts + 1, &mut slice).await?;
        self.turn = None;
        self.parts += 1;
        self.persisted += stored.size;
        Ok(())
    }

    async fn finish(&mut self, finish: v1::BidiWriteFinish) -> Result<v1::WriteObjectResponse, Status> {
        let v1::BidiWriteFinish { size, crc32c, preconditions } = finish;
        let conditions = words::write_conditions(preconditions)?;
        let Some(crc32c) = crc32c else {
            return Err(invalid("CHECKSUM_MISSING", "the finish has the CRC32C of all bytes"));
        };
        if size != self.position() {
            let message = format!("{} bytes came, and the finish says {size}", self.position());
            return Err(invalid("SIZE_MISMATCH", message).about("announced", size).about("came", self.position()));
        }
        self.persist().await?;
        if size == 0 && self.parts == 0 {
            self.append().await?;
        }
        let (algorithm, of) = SUM;
        let checksum = Checksum { algorithm, of, value: crc32c.to_be_bytes().to_vec() };
        let (stored, written) =
            self.services.node.complete_write(self.upload.clone(), size, checksum, conditions).await?;
        Ok(told(stored, written))
    }

    fn misplaced(&self, message: String) -> Status {
        invalid("WRONG_OFFSET", message).about("expected", self.position())
    }
}

/// A number of bytes, as far as there are so many.
fn count(wanted: u64, most: usize) -> usize {
    usize::try_from(wanted).map_or(most, |wanted| wanted.min(most))
}

fn invalid(reason: &'static str, message: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, reason, message)
}

fn unexpected(message: &str) -> Status {
    invalid("UNEXPECTED_MESSAGE", message)
}
