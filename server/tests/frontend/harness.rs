//! A frontend with a service for tests, and a client that sees every byte.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anvil::http::{Head, Incoming, Outgoing, Pieces, ReceiveError, Response, Service};
use anvil::http1::Settings;
use anvil::listener::Frontend;
use anvil::telemetry::{CoreCounters, Metrics};
use anvil_model::ids::CoreId;
use anvil_model::io::{Reserve, World};
use anvil_model::limits::BUFFER_BYTES;
use anvil_node::get::StreamError;
use anvil_runtime::{Buffer, Core, Cores, Options, available_cpus, start};
use anvil_store::{Piece, ReadError};
use tokio::sync::{Notify, watch};

/// Longer than anything takes that works; a test that waits this long fails.
pub(crate) const TOO_LONG: Duration = Duration::from_secs(60);

/// A running frontend of one core.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// The second address that it listens on.
    pub(crate) other_address: SocketAddr,
    pub(crate) counters: Arc<CoreCounters>,
    pub(crate) metrics: Arc<Metrics>,
    /// Lets requests to `/gate` be answered.
    pub(crate) gate: Arc<Notify>,
    /// How many requests wait at the gate.
    pub(crate) at_gate: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
    cores: Option<Cores>,
}

impl Server {
    pub(crate) fn start(settings: Settings) -> Self {
        let metrics = Arc::new(Metrics::new(1));
        let counters = metrics.core(CoreId(0));
        let gate = Arc::new(Notify::new());
        let (stop, stopped) = watch::channel(false);
        let (arrived, at_gate) = watch::channel(0);
        let (bound, addresses) = channel();
        let options = Options {
            cpus: available_cpus()[..1].to_vec(),
            buffers_per_core: 4,
            progress_reserve: 1,
            receive_buffers_per_core: 16,
            abort_on_panic: false,
            ..Options::default()
        };
        let (gate_of_core, counters_of_core) = (Arc::clone(&gate), Arc::clone(&counters));
        let cores = start(options, move |core| {
            let service =
                Echo { core: core.clone(), gate: Arc::clone(&gate_of_core), arrived: RefCell::new(arrived.clone()) };
            let (settings, counters) = (settings.clone(), Arc::clone(&counters_of_core));
            let (bound, mut stopped) = (bound.clone(), stopped.clone());
            async move {
                let frontend = Frontend::bind(&core, &["127.0.0.1:0".parse().unwrap(); 2]).unwrap();
                bound.send(frontend.addresses()).unwrap();
                let stop = async move {
                    let _ = stopped.wait_for(|&stopped| stopped).await;
                };
                frontend.serve(Rc::new(service), settings, counters, stop).await;
            }
        })
        .unwrap();
        let addresses = addresses.recv_timeout(TOO_LONG).unwrap();
        let (address, other_address) = (addresses[0], addresses[1]);
        Self { address, other_address, counters, metrics, gate, at_gate, stop, cores: Some(cores) }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Connects, sends these bytes, and gives the answer.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.answer()
    }

    /// Says that the node stops, without waiting.
    pub(crate) fn stop(&self) {
        self.stop.send(true).unwrap();
    }

    /// Waits until the frontend has ended.
    pub(crate) fn join(mut self) {
        self.cores.take().unwrap().join().unwrap();
    }

    /// Waits until `holds`.
    pub(crate) fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < TOO_LONG, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(cores) = self.cores.take() {
            self.stop();
            // A panic of the core fails the test, unless it is failing already.
            let joined = cores.join();
            assert!(std::thread::panicking() || joined.is_ok(), "{joined:?}");
        }
    }
}

/// Settings under which a test that should not time out does not, and stopping takes no time.
pub(crate) fn patient() -> Settings {
    Settings { stop_timeout: Duration::from_millis(200), linger_timeout: Duration::from_secs(2), ..Settings::default() }
}

/// The other end of a connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
}

/// An answer as it was sent.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TOO_LONG)).unwrap();
        stream.set_write_timeout(Some(TOO_LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, input: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// The next answer, with the body that its head announces.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        answer.body = self.bytes(length);
        answer
    }

    /// The next head, and no more.
    pub(crate) fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.input.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.receive() > 0,
                "the connection ends inside a head: {:?}",
                String::from_utf8_lossy(&self.input)
            );
        };
        let head = String::from_utf8(self.input.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: Vec::new() }
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.input.len() < count {
            assert!(self.receive() > 0, "the connection ends {} bytes too early", count - self.input.len());
        }
        self.input.drain(..count).collect()
    }

    /// What comes until the server closes. A reset fails the test.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.receive() > 0 {}
        std::mem::take(&mut self.input)
    }

    /// The server has closed, in good order, and sent nothing more.
    pub(crate) fn assert_closed(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }

    /// Reads and throws away until the connection ends in whatever way; gives how many bytes came.
    pub(crate) fn discard(&mut self) -> u64 {
        let mut count = self.input.len() as u64;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return count,
                Ok(some) => count += some as u64,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn shutdown(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    fn receive(&mut self) -> usize {
        let mut buffer = [0; 64 << 10];
        let count = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result.unwrap(),
            }
        };
        self.input.extend_from_slice(&buffer[..count]);
        count
    }
}

/// The service: what it does stands in the path.
struct Echo {
    core: Core,
    gate: Arc<Notify>,
    arrived: RefCell<watch::Sender<usize>>,
}

impl Service for Echo {
    type Pieces = Pattern;

    async fn call<I: Incoming>(&self, head: &Head, body: &mut I) -> Response<Pattern> {
        let number = || head.query.as_deref().unwrap_or_default().parse().unwrap();
        let body = match head.path.as_str() {
            "/echo" => match read_all(body).await {
                Ok(bytes) => Outgoing::Bytes(bytes),
                Err(failure) => return self.failed(failure, head),
            },
            "/sum" => match sum_up(&self.core, body).await {
                Ok((length, sum)) => Outgoing::Bytes(format!("{length} {sum}").into_bytes()),
                Err(failure) => return self.failed(failure, head),
            },
            "/show" => Outgoing::Bytes(show(head).into_bytes()),
            "/object" => self.object(number(), number(), Ending::Whole),
            "/broken" => self.object(number(), number() / 2, Ending::Whole),
            "/failing" => self.object(number(), number() / 2, Ending::Error),
            "/announced" => Outgoing::Announced(number()),
            "/bytes" => Outgoing::Bytes(vec![b'x'; usize::try_from(number()).unwrap()]),
            "/bug" => panic!("a bug in the service"),
            "/unread" => Outgoing::Bytes(b"unread".to_vec()),
            "/gate" => {
                self.arrived.borrow().send_modify(|count| *count += 1);
                self.gate.notified().await;
                Outgoing::Bytes(b"open".to_vec())
            }
            "/status" => {
                return Response {
                    status: u16::try_from(number()).unwrap(),
                    headers: Vec::new(),
                    body: Outgoing::Empty,
                };
            }
            _ => return self.refusal(404, "NoSuchKey", "", &head.request_id),
        };
        Response { status: 200, headers: vec![("X-Test".into(), "yes".to_owned())], body }
    }

    fn refusal(&self, status: u16, code: &str, message: &str, request_id: &str) -> Response<Pattern> {
        let text = format!("{code} {request_id} {message}");
        Response { status, headers: Vec::new(), body: Outgoing::Bytes(text.into_bytes()) }
    }
}

impl Echo {
    fn failed(&self, failure: ReceiveError, head: &Head) -> Response<Pattern> {
        self.refusal(400, &format!("{failure:?}"), "", &head.request_id)
    }

    fn object(&self, length: u64, given: u64, ending: Ending) -> Outgoing<Pattern> {
        Outgoing::Object {
            length,
            reader: Pattern { core: self.core.clone(), at: 0, end: given, ending, piece_bytes: BUFFER_BYTES - 4096 },
        }
    }
}

async fn read_all<I: Incoming>(body: &mut I) -> Result<Vec<u8>, ReceiveError> {
    let mut bytes = Vec::new();
    while body.read(&mut bytes, 1000).await? > 0 {}
    Ok(bytes)
}

/// Receives through pool buffers, none of which waits for a slow client, and gives the length with the sum of all bytes
/// times their position.
async fn sum_up<I: Incoming>(core: &Core, body: &mut I) -> Result<(u64, u64), ReceiveError> {
    let (mut length, mut sum) = (0, 0_u64);
    let mut take = |bytes: &[u8]| {
        sum = sum.wrapping_add(weighted(bytes, length));
        length += bytes.len() as u64;
    };
    loop {
        let buffer = core.buffer(Reserve::Foreground).await;
        let (received, buffer) = body.fill(buffer, 4096..BUFFER_BYTES).await;
        let count = received?;
        take(&buffer[4096..4096 + count]);
        drop(buffer);
        if count == BUFFER_BYTES - 4096 {
            continue;
        }
        let mut slow = Vec::new();
        if body.read(&mut slow, 1000).await? == 0 {
            return Ok((length, sum));
        }
        take(&slow);
    }
}

/// The sum of all bytes times their position.
pub(crate) fn weighted(bytes: &[u8], offset: u64) -> u64 {
    (offset..).zip(bytes).fold(0, |sum, (at, &byte)| sum.wrapping_add((at + 1).wrapping_mul(u64::from(byte))))
}

/// A byte of the pattern that bodies are made of.
pub(crate) fn pattern(at: u64) -> u8 {
    u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xff).unwrap()
}

fn show(head: &Head) -> String {
    let headers = head.headers.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value)));
    format!("{} {} {:?} {}", head.method, head.path, head.query, headers.collect::<Vec<_>>().join("&"))
}

/// The bytes of an object for tests.
pub(crate) struct Pattern {
    core: Core,
    at: u64,
    end: u64,
    ending: Ending,
    piece_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Whole,
    Error,
}

impl Pieces for Pattern {
    async fn next(&mut self) -> Option<Result<Piece<Buffer>, StreamError>> {
        if self.at == self.end {
            let error = ReadError::Closing;
            return (self.ending == Ending::Error).then_some(Err(StreamError::Read(error)));
        }
        let mut buffer = self.core.buffer(Reserve::Foreground).await;
        let count = usize::try_from(self.end - self.at).unwrap().min(self.piece_bytes);
        let range = 4096..4096 + count;
        for (at, byte) in (self.at..).zip(&mut buffer[range.clone()]) {
            *byte = pattern(at);
        }
        self.at += count as u64;
        Some(Ok(Piece { buffer, range }))
    }

    fn slow_down(&mut self, untaken: u64) {
        self.at -= untaken;
        self.piece_bytes = 64 << 10;
    }

    fn speed_up(&mut self) {
        self.piece_bytes = BUFFER_BYTES - 4096;
    }
}
