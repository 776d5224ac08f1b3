//! `anvil-bench bare`: an HTTP server that does of a store's work only what none can leave out. A PUT's body goes from the socket
//! into buffers and from there by direct I/O into one file; a GET's comes back the same way. Nothing is verified, hashed,
//! copied, spread, flushed or remembered over its end: what a store costs more than this is the price of being one.
//!
//! Its bytes go by the same ring and the same pool of buffers as the server's.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use anvil_model::io::{Device as _, Reserve, Task as _, World};
use anvil_runtime::net::{Connection, Listener};
use anvil_runtime::{Buffer, Core, Device, Options};
use anyhow::{Context, ensure};
use futures_util::future::join;

use crate::run::RunArgs;
use crate::target::Target;
use crate::units;

/// What to serve.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// A directory on the disk; a new directory in it is used and removed
    path: PathBuf,
    /// Where it listens
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Bytes of its file, which are written ahead. When it is full, it begins anew: older objects then hold newer bytes
    #[arg(long, default_value = "1GiB", value_parser = units::size, value_name = "SIZE")]
    space: u64,
    #[command(flatten)]
    run: RunArgs,
}

/// Serves until `--duration` is over or the user ends it.
///
/// # Errors
/// One sentence; [`Interrupted`](crate::signals::Interrupted) after Ctrl-C. What it wrote is removed in either case.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.space >= SPACE_MIN, "--space is at least {} MiB", SPACE_MIN >> 20);
    let mut run = args.run.begin("bare")?;
    let target = Target::claim(&args.path, false)?;
    let disk = target.open(args.space)?;
    let options = Options {
        cpus: vec![run.one_cpu()],
        buffers_per_core: BUFFERS,
        progress_reserve: 1,
        abort_on_panic: false,
        ..Options::default()
    };
    let (listen, space) = (args.listen, args.space);
    let (bound, result) = mpsc::channel();
    // It runs until the process ends; nobody waits for it.
    anvil_runtime::start(options, move |core| {
        let (device, bound) = (disk.device(&core), bound.clone());
        async move {
            if let Err(error) = serve(core, device, listen, space, &bound).await {
                // Nobody listens when it had begun.
                bound.send(Err(error)).ok();
            }
        }
    })?;
    let address = result.recv().context("it has ended before it began")?.context("it cannot begin")?;
    let mut out = io::stdout();
    writeln!(out, "listening on {address}")?;
    out.flush()?;
    while !run.is_over() {
        std::thread::sleep(LOOK_EVERY);
    }
    target.remove()?;
    Ok(run.check()?)
}

async fn serve(
    core: Core,
    device: Device,
    address: SocketAddr,
    space: u64,
    bound: &Sender<io::Result<SocketAddr>>,
) -> io::Result<()> {
    device.grow(space).await.map_err(io::Error::other)?;
    let mut listener = Listener::bind(&core, address)?;
    bound.send(Ok(listener.local_addr())).ok();
    let bare = Rc::new(Bare { core: core.clone(), device, next: Cell::new(0), objects: RefCell::default() });
    loop {
        let (connection, _) = listener.accept().await?;
        let bare = Rc::clone(&bare);
        // A client that goes away is none of our business.
        core.spawn(async move { drop(bare.talk(connection).await) }).detach();
    }
}

struct Bare {
    core: Core,
    device: Device,
    /// Where the next object begins.
    next: Cell<u64>,
    objects: RefCell<HashMap<String, Place>>,
}

/// Where an object lies.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    length: u64,
}

/// What somebody asks, and the bytes of its body that came with it.
struct Request {
    method: String,
    path: String,
    length: u64,
    early: Vec<u8>,
}

impl Bare {
    async fn talk(&self, mut connection: Connection) -> io::Result<()> {
        connection.set_nodelay(true)?;
        while let Some(request) = request(&mut connection).await? {
            let object = self.objects.borrow().get(&request.path).copied();
            match (request.method.as_str(), object) {
                ("PUT", _) => {
                    let place = self.place(request.length)?;
                    self.put(&mut connection, place, request.early).await?;
                    self.objects.borrow_mut().insert(request.path, place);
                    answer(&mut connection, "200 OK\r\nETag: \"bare\"", 0).await?;
                }
                ("GET", Some(place)) => self.get(&mut connection, place).await?,
                ("HEAD", Some(place)) => answer(&mut connection, "200 OK", place.length).await?,
                ("DELETE", _) => {
                    self.objects.borrow_mut().remove(&request.path);
                    answer(&mut connection, "204 No Content", 0).await?;
                }
                _ => {
                    answer(&mut connection, "501 Not Implemented\r\nConnection: close", 0).await?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn place(&self, length: u64) -> io::Result<Place> {
        let room = length.next_multiple_of(WINDOW_BYTES as u64);
        let space = self.device.size_bytes();
        if room > space {
            return Err(io::Error::other("an object is larger than all space"));
        }
        let offset = if self.next.get() + room > space { 0 } else { self.next.get() };
        self.next.set(offset + room);
        Ok(Place { offset, length })
    }

    /// A window is written while the next one comes.
    async fn put(&self, connection: &mut Connection, place: Place, early: Vec<u8>) -> io::Result<()> {
        let mut early = early.as_slice();
        let mut full: Option<(Buffer, usize)> = None;
        let (mut received, mut written) = (0, 0);
        loop {
            let receiving = async {
                let count = window(place.length - received);
                if count == 0 {
                    return Ok(None);
                }
                let mut buffer = self.core.buffer(Reserve::Foreground).await;
                let (now, later) = early.split_at(early.len().min(count));
                buffer[..now.len()].copy_from_slice(now);
                early = later;
                let (result, buffer) = connection.fill(buffer, now.len()..count).await;
                if result? < count - now.len() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(Some((buffer, count)))
            };
            let writing = async {
                let Some((buffer, count)) = full.take() else { return Ok(0) };
                let unit = self.device.geometry().unit_bytes as usize;
                let all = 0..count.next_multiple_of(unit);
                self.device.write(place.offset + written, buffer, all).await.0.map_err(io::Error::other)?;
                Ok(count as u64)
            };
            let (next, count): (io::Result<_>, io::Result<u64>) = join(receiving, writing).await;
            written += count?;
            full = next?;
            match &full {
                Some((_, count)) => received += *count as u64,
                None => return Ok(()),
            }
        }
    }

    /// A window is read while the one before it leaves.
    async fn get(&self, connection: &mut Connection, place: Place) -> io::Result<()> {
        let unit = self.device.geometry().unit_bytes as usize;
        let read = async |from: u64| {
            let count = window(place.length - from);
            if count == 0 {
                return Ok(None);
            }
            let buffer = self.core.buffer(Reserve::Foreground).await;
            let all = 0..count.next_multiple_of(unit);
            let (result, buffer) = self.device.read(place.offset + from, buffer, all).await;
            result.map_err(io::Error::other)?;
            Ok::<_, io::Error>(Some((buffer, count)))
        };
        let Some((buffer, count)) = read(0).await? else { return answer(connection, "200 OK", 0).await };
        let mut sent = count as u64;
        let begin = async { connection.send_with_head(head("200 OK", place.length), buffer, 0..count).await.0 };
        let (result, mut next) = join(begin, read(sent)).await;
        result?;
        while let Some((buffer, count)) = next? {
            sent += count as u64;
            let (result, after) = join(async { connection.send(buffer, 0..count).await.0 }, read(sent)).await;
            result?;
            next = after;
        }
        Ok(())
    }
}

/// How much of what is left goes at once.
fn window(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(WINDOW_BYTES)
}

/// The next request; `None` when the client has ended.
async fn request(connection: &mut Connection) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    loop {
        let received = connection.receive().await?;
        if received.is_empty() {
            return Ok(None);
        }
        bytes.extend_from_slice(&received);
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(end) = parsed.parse(&bytes).map_err(io::Error::other)? else { continue };
        let is_length = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case("content-length");
        let length = match parsed.headers.iter().find(is_length) {
            Some(field) => std::str::from_utf8(field.value).ok().and_then(|digits| digits.parse().ok()),
            None => Some(0),
        };
        return Ok(Some(Request {
            method: parsed.method.unwrap_or_default().to_owned(),
            path: parsed.path.unwrap_or_default().split('?').next().unwrap_or_default().to_owned(),
            length: length.ok_or(io::ErrorKind::InvalidData)?,
            early: bytes.split_off(end),
        }));
    }
}

async fn answer(connection: &mut Connection, status: &str, length: u64) -> io::Result<()> {
    let head = head(status, length);
    let all = 0..head.len();
    connection.send(head, all).await.0
}

fn head(status: &str, length: u64) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

/// As in the server: what goes to the disk or comes from there at once.
const WINDOW_BYTES: usize = 1 << 20;
const SPACE_MIN: u64 = 64 << 20;
const HEAD_BYTES_MAX: usize = 128 << 10;
/// Two for each of 64 connections at once.
const BUFFERS: usize = 130;
const LOOK_EVERY: Duration = Duration::from_millis(50);
