//! The process that serves, seen from outside: its CPU and memory (proc(5)), and the counters of its disks.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde::Serialize;

use super::connection::Connection;

/// A process that is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pid: u32,
}

/// CPU that a process has used.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Cpu {
    pub(super) user_seconds: f64,
    pub(super) system_seconds: f64,
}

impl Cpu {
    pub(super) fn total_seconds(self) -> f64 {
        self.user_seconds + self.system_seconds
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            user_seconds: self.user_seconds - earlier.user_seconds,
            system_seconds: self.system_seconds - earlier.system_seconds,
        }
    }
}

impl Server {
    /// Watches this process, which runs.
    pub(super) fn watch(pid: u32) -> anyhow::Result<Self> {
        let server = Self { pid };
        server.cpu().with_context(|| format!("--server-pid {pid} cannot be watched"))?;
        Ok(server)
    }

    /// User and system time of all its threads, also those that ended.
    pub(super) fn cpu(self) -> anyhow::Result<Cpu> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        parse_cpu(&stat).context("the kernel's stat line has another form")
    }

    /// The most memory that it ever had resident.
    pub(super) fn peak_resident_bytes(self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("the kernel does not say VmHWM")?;
        let kib: u64 = line.split_whitespace().nth(1).context("VmHWM has no value")?.parse()?;
        Ok(kib << 10)
    }
}

/// Fields 14 and 15, counted from behind the name, which may hold anything (proc_pid_stat(5)).
fn parse_cpu(stat: &str) -> Option<Cpu> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut seconds = || Some(fields.next()?.parse::<u32>().ok().map(f64::from)? / TICKS_PER_SECOND);
    Some(Cpu { user_seconds: seconds()?, system_seconds: seconds()? })
}

/// USER_HZ, which is 100 on every architecture that Anvil runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the server's disks did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct DiskCounts {
    pub(super) reads: u64,
    pub(super) read_bytes: u64,
    pub(super) writes: u64,
    pub(super) written_bytes: u64,
    pub(super) flushes: u64,
}

impl DiskCounts {
    /// Reads them from the node's `/metrics`.
    ///
    /// # Errors
    /// When the endpoint shows no such metrics.
    pub(super) fn read(address: SocketAddr) -> anyhow::Result<Self> {
        let mut page = Vec::new();
        let head = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\n\r\n");
        let answer = Connection::open(address)?
            .exchange(head.as_bytes(), b"", false, &mut |bytes| page.extend_from_slice(bytes))
            .context("cannot read /metrics")?;
        ensure!(answer.status == 200, "/metrics answers {}", answer.status);
        Ok(Self::parse(&String::from_utf8_lossy(&page)))
    }

    fn parse(page: &str) -> Self {
        let sum = |name: &str| {
            let name = format!("anvil_disk_{name}_total{{");
            let values = page.lines().filter(|line| line.starts_with(&name)).filter_map(|line| line.rsplit(' ').next());
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts below 2^53")]
            values.filter_map(|value| value.parse::<f64>().ok()).map(|value| value as u64).sum()
        };
        Self {
            reads: sum("reads"),
            read_bytes: sum("read_bytes"),
            writes: sum("writes"),
            written_bytes: sum("written_bytes"),
            flushes: sum("flushes"),
        }
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            reads: self.reads.saturating_sub(earlier.reads),
            read_bytes: self.read_bytes.saturating_sub(earlier.read_bytes),
            writes: self.writes.saturating_sub(earlier.writes),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            flushes: self.flushes.saturating_sub(earlier.flushes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_read_behind_a_name_with_spaces_and_brackets() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 4 0 100";
        let cpu = parse_cpu(stat).unwrap();
        assert_eq!((cpu.user_seconds, cpu.system_seconds), (2.5, 0.5));
        assert!(parse_cpu("12 (a) S 1").is_none());
    }

    #[test]
    fn this_process_has_cpu_and_memory() {
        let server = Server::watch(std::process::id()).unwrap();
        assert!(server.cpu().unwrap().total_seconds() >= 0.0);
        assert!(server.peak_resident_bytes().unwrap() > 1 << 20);
        assert!(Server::watch(u32::MAX).is_err());
    }

    #[test]
    fn disks_are_added_up() {
        let page = "anvil_disk_flushes_total{disk=\"a\"} 3.0\nanvil_disk_flushes_total{disk=\"b c\"} 4\nanvil_disk_reads_total{disk=\"a\"} 1\n";
        let counts = DiskCounts::parse(page);
        assert_eq!((counts.flushes, counts.reads, counts.writes), (7, 1, 0));
        assert_eq!(counts.since(DiskCounts { flushes: 2, ..counts }).flushes, 5);
    }
}
