//! The measuring side: blocking threads, because only the server's cost is judged.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::protocol::{CPU_ANSWER_BYTES, Operation, Purpose, READY};
use crate::latency::Latency;
use crate::units;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) operation: Operation,
    pub(super) message_bytes: usize,
    pub(super) connections: u16,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = units::show_size(self.message_bytes as u64);
        write!(f, "{} of {size} on {} connections", self.operation, self.connections)
    }
}

/// What was seen of it once.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) seconds: f64,
    /// Of the server's process.
    pub(super) cpu_ns: u64,
    /// Requests that were answered; pieces of streams.
    pub(super) messages: u64,
    /// In one direction.
    pub(super) bytes: u64,
    /// Of `echo`, as the client sees it.
    pub(super) latency_ns: Option<Latency>,
}

/// Works on all connections for `time`.
pub(super) fn measure(address: SocketAddr, case: Case, time: Duration, interrupted: &AtomicBool) -> io::Result<Sample> {
    let connections = (0..case.connections).map(|_| open(address, case)).collect::<io::Result<Vec<_>>>()?;
    let (_, cpu_before) = cpu(address)?;
    let begun = Instant::now();
    let is_over = || begun.elapsed() >= time || interrupted.load(Ordering::Relaxed);
    let results: Vec<io::Result<Seen>> = std::thread::scope(|scope| {
        let is_over = &is_over;
        let workers: Vec<_> =
            connections.into_iter().map(|stream| scope.spawn(move || work(stream, case, is_over))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    let (_, cpu_after) = cpu(address)?;
    let mut sum = Seen::new();
    for seen in results {
        let seen = seen?;
        sum.messages += seen.messages;
        sum.bytes += seen.bytes;
        sum.latency_ns.add(&seen.latency_ns).expect("a histogram grows to what is added");
    }
    Ok(Sample {
        seconds,
        cpu_ns: cpu_after.saturating_sub(cpu_before),
        messages: sum.messages,
        bytes: sum.bytes,
        latency_ns: (!sum.latency_ns.is_empty()).then(|| Latency::of(&sum.latency_ns)),
    })
}

/// Name and CPU time of the server.
pub(super) fn cpu(address: SocketAddr) -> io::Result<(String, u64)> {
    let mut stream = connect(address)?;
    stream.write_all(&Purpose::Cpu.encode())?;
    let mut answer = [0; CPU_ANSWER_BYTES];
    stream.read_exact(&mut answer)?;
    let (cpu, name) = answer.split_at(8);
    let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
    Ok((name, u64::from_le_bytes(cpu.try_into().expect("eight bytes"))))
}

struct Seen {
    messages: u64,
    bytes: u64,
    latency_ns: Histogram<u64>,
}

impl Seen {
    fn new() -> Self {
        Self { messages: 0, bytes: 0, latency_ns: Histogram::new(3).expect("three digits are valid") }
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, SILENCE_MAX)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    Ok(stream)
}

/// A connection whose server is ready.
fn open(address: SocketAddr, case: Case) -> io::Result<TcpStream> {
    let mut stream = connect(address)?;
    let Case { operation, message_bytes, .. } = case;
    stream.write_all(&Purpose::Measure { operation, message_bytes }.encode())?;
    let mut ready = [0];
    stream.read_exact(&mut ready)?;
    if ready != [READY] {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no server of anvil-bench"));
    }
    Ok(stream)
}

fn work(mut stream: TcpStream, case: Case, is_over: &impl Fn() -> bool) -> io::Result<Seen> {
    let mut buffer = vec![7; case.message_bytes];
    let mut seen = Seen::new();
    // Once at least, however late its turn comes on a busy machine.
    loop {
        match case.operation {
            Operation::Echo => {
                let begun = Instant::now();
                stream.write_all(&buffer)?;
                stream.read_exact(&mut buffer)?;
                let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                seen.latency_ns.record(nanos).expect("a histogram grows to what is recorded");
                seen.bytes += case.message_bytes as u64;
            }
            Operation::Upload => {
                stream.write_all(&buffer)?;
                seen.bytes += case.message_bytes as u64;
            }
            Operation::Download => match stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => seen.bytes += count as u64,
            },
        }
        seen.messages += 1;
        if is_over() {
            break;
        }
    }
    if case.operation == Operation::Upload {
        // The server ends the connection when all has come.
        stream.shutdown(Shutdown::Write)?;
        while stream.read(&mut buffer)? > 0 {}
    }
    Ok(seen)
}

/// For how long nothing may be sent or received.
const SILENCE_MAX: Duration = Duration::from_secs(30);
