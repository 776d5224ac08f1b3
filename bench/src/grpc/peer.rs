//! `anvil-bench grpc-peer`: the methods that `anvil-bench grpc` calls, served from memory with tonic, the gRPC server that most
//! programs in Rust use. It is what a node's figures are held against.
//!
//! It does less than a node does, so that what is left is tonic's own cost. All objects begin with the same bytes, which are the
//! ones that a load puts: of an object only its size is kept, and bytes that come are counted and let go. Nobody is asked for a
//! token, nothing is written to a disk, and no digest is computed while it serves: chunks of objects have their CRC32C from the
//! beginning, and ranges say 0.
//! It is set up as a node is: the same windows, frames and chunks.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use anvil_proto::v1::{self, batch_get_response, bidi_read_response, get_object_response, write_object_request};
use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::payload::crc32c;
use crate::load::random_bytes;
use crate::run::{Run, RunArgs};
use crate::units;
use services::auth_service_server::{AuthService, AuthServiceServer};
use services::bucket_service_server::{BucketService, BucketServiceServer};
use services::object_service_server::{ObjectService, ObjectServiceServer};

mod services {
    #![allow(unreachable_pub, unused_qualifications, reason = "it is made for any crate")]
    tonic::include_proto!("anvil.v1");
}

/// What to serve.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The largest object, at most 1GiB: so many bytes are made and kept
    #[arg(long, default_value = "64MiB", value_parser = units::size, value_name = "SIZE")]
    size_max: u64,
    /// Lets hyper choose the windows of what comes in by what is under way, instead of those of a node
    #[arg(long)]
    adaptive_window: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// Serves until `--duration` is over or the user ends it: on one thread with `--cpu`, otherwise on as many as there are CPUs.
///
/// # Errors
/// One sentence; [`Interrupted`](crate::signals::Interrupted) after Ctrl-C.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.size_max <= 1 << 30, "--size-max is at most 1 GiB");
    let run = args.run.begin("grpc-peer")?;
    run.pin()?;
    let shelf = Arc::new(Shelf::new(usize::try_from(args.size_max)?));
    let listener = TcpListener::bind(args.listen).with_context(|| format!("cannot listen on {}", args.listen))?;
    listener.set_nonblocking(true)?;
    let mut out = io::stdout();
    writeln!(out, "listening on {}", listener.local_addr()?)?;
    out.flush()?;
    let mut runtime = match args.run.cpu() {
        Some(_) => tokio::runtime::Builder::new_current_thread(),
        None => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build().context("cannot start threads")?;
    runtime.block_on(serve(&run, listener, shelf, args.adaptive_window)).context("cannot serve")?;
    Ok(run.check()?)
}

async fn serve(run: &Run, listener: TcpListener, shelf: Arc<Shelf>, has_adaptive_window: bool) -> anyhow::Result<()> {
    let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?).with_nodelay(Some(true));
    let serving = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_adaptive_window(Some(has_adaptive_window))
        .add_service(AuthServiceServer::from_arc(Arc::clone(&shelf)))
        .add_service(BucketServiceServer::from_arc(Arc::clone(&shelf)))
        .add_service(ObjectServiceServer::from_arc(shelf))
        .serve_with_incoming(incoming);
    let over = async {
        while !run.is_over() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    // Connections are not waited for: their clients measure no more.
    tokio::select! {
        result = serving => Ok(result?),
        () = over => Ok(()),
    }
}

/// The objects.
struct Shelf {
    /// What each of them begins with.
    content: Bytes,
    /// The chunks of an object of this size.
    chunks: Mutex<HashMap<u64, Arc<[v1::Chunk]>>>,
    objects: RwLock<HashMap<(String, String), Arc<Object>>>,
}

struct Object {
    info: v1::ObjectInfo,
    chunks: Arc<[v1::Chunk]>,
}

impl Shelf {
    fn new(size_max: usize) -> Self {
        Self { content: random_bytes(size_max).into(), chunks: Mutex::default(), objects: RwLock::default() }
    }

    fn object(&self, bucket: String, key: String) -> Result<Arc<Object>, Status> {
        let objects = self.objects.read().expect("nobody panics with it");
        objects.get(&(bucket, key)).cloned().ok_or_else(|| Status::not_found("there is no such object"))
    }

    fn put(&self, bucket: String, key: String, size: u64) -> Result<(), Status> {
        let chunks = self.chunks_of(size)?;
        let info = v1::ObjectInfo {
            bucket_name: bucket.clone(),
            object_key: key.clone(),
            size,
            etag: ETAG.to_owned(),
            generation: 1,
            last_modified: Some(moment()),
            checksum: Some(checksum()),
            metadata: Some(v1::ObjectMetadata::default()),
            storage_class: "STANDARD".to_owned(),
            parts_count: 0,
        };
        let mut objects = self.objects.write().expect("nobody panics with it");
        if objects.len() >= OBJECTS_MAX && !objects.contains_key(&(bucket.clone(), key.clone())) {
            return Err(Status::resource_exhausted("there are as many objects as this server keeps"));
        }
        objects.insert((bucket, key), Arc::new(Object { info, chunks }));
        Ok(())
    }

    /// Those of one size share them.
    fn chunks_of(&self, size: u64) -> Result<Arc<[v1::Chunk]>, Status> {
        let mut known = self.chunks.lock().expect("nobody panics with it");
        if let Some(chunks) = known.get(&size) {
            return Ok(Arc::clone(chunks));
        }
        let length = usize::try_from(size).ok().filter(|length| *length <= self.content.len());
        let length = length.ok_or_else(|| Status::invalid_argument("an object is larger than --size-max"))?;
        let starts = (0..length).step_by(CHUNK_BYTES_MAX);
        let chunk = |start: usize| {
            let content = self.content.slice(start..(start + CHUNK_BYTES_MAX).min(length));
            v1::Chunk { crc32c: Some(crc32c(&content)), content }
        };
        let chunks: Arc<[_]> = starts.map(chunk).collect();
        if known.len() < SIZES_MAX {
            known.insert(size, Arc::clone(&chunks));
        }
        Ok(chunks)
    }
}

/// The answers to one range of an object.
fn answers(content: &Bytes, size: u64, range: v1::ReadRange) -> Vec<Result<v1::BidiReadResponse, Status>> {
    let answer = |part| Ok(v1::BidiReadResponse { part: Some(part) });
    let v1::ReadRange { read_id, offset, length } = range;
    let Some(start) = u64::try_from(offset).ok().filter(|start| *start <= size) else {
        return vec![Err(Status::out_of_range("a range begins behind the end"))];
    };
    let end = if length == 0 { size } else { start.saturating_add(length).min(size) };
    let mut answers = Vec::new();
    for offset in (start..end).step_by(CHUNK_BYTES_MAX) {
        let until = (offset + CHUNK_BYTES_MAX as u64).min(end);
        // Below the length of the content, which is a usize.
        let content = content.slice(offset as usize..until as usize);
        let chunk = v1::RangeChunk { content, crc32c: 0, read_id, offset };
        answers.push(answer(bidi_read_response::Part::Chunk(chunk)));
    }
    answers.push(answer(bidi_read_response::Part::End(v1::RangeEnd { read_id, error: None })));
    answers
}

type Answers<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

#[tonic::async_trait]
impl AuthService for Shelf {
    async fn get_access_token(
        &self,
        _: Request<v1::GetAccessTokenRequest>,
    ) -> Result<Response<v1::GetAccessTokenResponse>, Status> {
        // As long as those of a node, which is what each call then carries.
        let access_token = "x".repeat(TOKEN_BYTES);
        Ok(Response::new(v1::GetAccessTokenResponse { access_token, expires_in: 900 }))
    }
}

#[tonic::async_trait]
impl BucketService for Shelf {
    async fn get_bucket(&self, _: Request<v1::GetBucketRequest>) -> Result<Response<v1::GetBucketResponse>, Status> {
        Ok(Response::new(v1::GetBucketResponse::default()))
    }

    async fn create_bucket(
        &self,
        _: Request<v1::CreateBucketRequest>,
    ) -> Result<Response<v1::CreateBucketResponse>, Status> {
        Ok(Response::new(v1::CreateBucketResponse::default()))
    }
}

#[tonic::async_trait]
impl ObjectService for Shelf {
    type GetObjectStream = Answers<v1::GetObjectResponse>;
    type BatchGetStream = Answers<v1::BatchGetResponse>;
    type BidiReadStream = Answers<v1::BidiReadResponse>;

    async fn head_object(
        &self,
        request: Request<v1::HeadObjectRequest>,
    ) -> Result<Response<v1::HeadObjectResponse>, Status> {
        let v1::HeadObjectRequest { bucket_name, object_key, .. } = request.into_inner();
        let object = self.object(bucket_name, object_key)?;
        Ok(Response::new(v1::HeadObjectResponse { object: Some(object.info.clone()) }))
    }

    /// The whole object, whatever range was asked for.
    async fn get_object(
        &self,
        request: Request<v1::GetObjectRequest>,
    ) -> Result<Response<Self::GetObjectStream>, Status> {
        let v1::GetObjectRequest { bucket_name, object_key, .. } = request.into_inner();
        let object = self.object(bucket_name, object_key)?;
        let length = object.info.size;
        let beginning = v1::ObjectBeginning { object: Some(object.info.clone()), offset: 0, length };
        let answer = |part| Ok(v1::GetObjectResponse { part: Some(part) });
        let first = stream::iter([answer(get_object_response::Part::Beginning(beginning))]);
        let chunks =
            (0..object.chunks.len()).map(move |at| answer(get_object_response::Part::Chunk(object.chunks[at].clone())));
        Ok(Response::new(first.chain(stream::iter(chunks)).boxed()))
    }

    async fn put_object(
        &self,
        request: Request<v1::PutObjectRequest>,
    ) -> Result<Response<v1::PutObjectResponse>, Status> {
        let v1::PutObjectRequest { bucket_name, object_key, content, .. } = request.into_inner();
        let size = content.len() as u64;
        self.put(bucket_name, object_key, size)?;
        let (etag, checksum, last_modified) = (ETAG.to_owned(), Some(checksum()), Some(moment()));
        Ok(Response::new(v1::PutObjectResponse { etag, size, checksum, generation: 1, last_modified }))
    }

    async fn write_object(
        &self,
        request: Request<Streaming<v1::WriteObjectRequest>>,
    ) -> Result<Response<v1::WriteObjectResponse>, Status> {
        let mut requests = request.into_inner();
        let Some(write_object_request::Part::Spec(spec)) = requests.message().await?.and_then(|first| first.part)
        else {
            return Err(Status::invalid_argument("the spec comes first"));
        };
        let mut came = 0;
        while let Some(message) = requests.message().await? {
            match message.part {
                Some(write_object_request::Part::Chunk(chunk)) => came += chunk.content.len() as u64,
                Some(write_object_request::Part::Finish(finish)) if finish.size == came && spec.size == came => {
                    self.put(spec.bucket_name, spec.object_key, came)?;
                    let (etag, checksum, last_modified) = (ETAG.to_owned(), Some(checksum()), Some(moment()));
                    let answer = v1::WriteObjectResponse { etag, size: came, checksum, generation: 1, last_modified };
                    return Ok(Response::new(answer));
                }
                _ => return Err(Status::invalid_argument("chunks come next, and the finish with their size")),
            }
        }
        Err(Status::invalid_argument("the finish is missing"))
    }

    async fn delete_object(
        &self,
        request: Request<v1::DeleteObjectRequest>,
    ) -> Result<Response<v1::DeleteObjectResponse>, Status> {
        let v1::DeleteObjectRequest { bucket_name, object_key, .. } = request.into_inner();
        self.objects.write().expect("nobody panics with it").remove(&(bucket_name, object_key));
        Ok(Response::new(v1::DeleteObjectResponse {}))
    }

    async fn batch_get(&self, request: Request<v1::BatchGetRequest>) -> Result<Response<Self::BatchGetStream>, Status> {
        let v1::BatchGetRequest { bucket_name, object_keys } = request.into_inner();
        let objects = object_keys.into_iter().map(|key| self.object(bucket_name.clone(), key));
        let objects = objects.collect::<Result<Vec<_>, _>>()?;
        let answers = (0..).zip(objects).map(|(index, object)| {
            let v1::Chunk { content, crc32c } = object.chunks.first().cloned().unwrap_or_default();
            let object =
                v1::SmallObject { object: Some(object.info.clone()), content, crc32c: crc32c.unwrap_or_default() };
            Ok(v1::BatchGetResponse { index, outcome: Some(batch_get_response::Outcome::Object(object)) })
        });
        Ok(Response::new(stream::iter(answers).boxed()))
    }

    async fn bidi_read(
        &self,
        request: Request<Streaming<v1::BidiReadRequest>>,
    ) -> Result<Response<Self::BidiReadStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.unwrap_or_default();
        let spec = first.spec.ok_or_else(|| Status::invalid_argument("the spec comes first"))?;
        let object = self.object(spec.bucket_name, spec.object_key)?;
        let content = self.content.clone();
        let info = bidi_read_response::Part::Object(object.info.clone());
        let beginning = stream::iter([Ok(v1::BidiReadResponse { part: Some(info) })]);
        let ranges = stream::iter(first.ranges.into_iter().map(Ok)).chain(requests.flat_map(|message| match message {
            Ok(message) => stream::iter(message.ranges.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(status) => stream::iter(vec![Err(status)]),
        }));
        let answers = ranges.flat_map(move |range| {
            stream::iter(match range {
                Ok(range) => answers(&content, object.info.size, range),
                Err(status) => vec![Err(status)],
            })
        });
        Ok(Response::new(beginning.chain(answers).boxed()))
    }
}

fn checksum() -> v1::Checksum {
    let (algorithm, r#type) = (v1::ChecksumAlgorithm::Crc64nvme, v1::ChecksumType::FullObject);
    v1::Checksum { algorithm: algorithm.into(), value: Bytes::from_static(&[0; 8]), r#type: r#type.into() }
}

/// What all of them were written at.
const fn moment() -> anvil_proto::Timestamp {
    anvil_proto::Timestamp { seconds: 1_700_000_000, nanos: 123_000_000 }
}

/// As many characters as an MD5 has.
const ETAG: &str = "0123456789abcdef0123456789abcdef";
const TOKEN_BYTES: usize = 300;
/// As in the node: `server/http2` and `engine/node`.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const FRAME_BYTES_MAX: u32 = 256 << 10;
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Some GiB of names, at most.
const OBJECTS_MAX: usize = 4_000_000;
const SIZES_MAX: usize = 64;
const LOOK_EVERY: Duration = Duration::from_millis(50);
