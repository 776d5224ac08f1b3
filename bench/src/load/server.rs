//! The process that serves, seen from outside: its CPU and memory (proc(5)).

use std::fs;

use anyhow::Context;
use serde::Serialize;

/// A process that is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pid: u32,
}

/// What is known of it from the beginning.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServerContext {
    pub(crate) pid: u32,
    /// Its name, as the kernel keeps it: 15 bytes.
    pub(crate) name: String,
    /// How many threads it has.
    pub(crate) threads: Option<u32>,
    /// The CPUs that it may use, such as `0-3`.
    pub(crate) cpus_allowed: Option<String>,
}

/// What a process has used since it began.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Usage {
    pub(crate) user_seconds: f64,
    pub(crate) system_seconds: f64,
    /// Of its threads that are alive: they slept, or were taken off their CPU.
    pub(crate) voluntary_switches: u64,
    pub(crate) involuntary_switches: u64,
    /// Bytes that it made the kernel read from and write to disks (proc_pid_io(5)); pages of the page cache count when
    /// they are made dirty, not when they are written. `None` without the right to look.
    pub(crate) read_bytes: Option<u64>,
    pub(crate) written_bytes: Option<u64>,
}

impl Usage {
    pub(crate) fn cpu_seconds(self) -> f64 {
        self.user_seconds + self.system_seconds
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        let difference = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Self {
            user_seconds: self.user_seconds - earlier.user_seconds,
            system_seconds: self.system_seconds - earlier.system_seconds,
            voluntary_switches: self.voluntary_switches.saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self.involuntary_switches.saturating_sub(earlier.involuntary_switches),
            read_bytes: difference(self.read_bytes, earlier.read_bytes),
            written_bytes: difference(self.written_bytes, earlier.written_bytes),
        }
    }
}

impl Server {
    /// Watches this process, which runs.
    pub(crate) fn watch(pid: u32) -> anyhow::Result<Self> {
        let server = Self { pid };
        server.usage().with_context(|| format!("the server's process {pid} cannot be watched"))?;
        Ok(server)
    }

    pub(crate) fn context(self) -> anyhow::Result<ServerContext> {
        let status = self.read("status")?;
        let value = |name: &str| field(&status, name).map(str::to_owned);
        Ok(ServerContext {
            pid: self.pid,
            name: value("Name").unwrap_or_default(),
            threads: value("Threads").and_then(|count| count.parse().ok()),
            cpus_allowed: value("Cpus_allowed_list"),
        })
    }

    /// What all its threads have used, also those that ended; switches only of those that are alive.
    pub(crate) fn usage(self) -> anyhow::Result<Usage> {
        let (user_seconds, system_seconds) =
            parse_cpu(&self.read("stat")?).context("the kernel's stat line has another form")?;
        let io = self.read("io").unwrap_or_default();
        let (voluntary_switches, involuntary_switches) = self.switches();
        let count = |text: &str, name: &str| field(text, name)?.parse().ok();
        Ok(Usage {
            user_seconds,
            system_seconds,
            voluntary_switches,
            involuntary_switches,
            read_bytes: count(&io, "read_bytes"),
            written_bytes: count(&io, "write_bytes"),
        })
    }

    /// The most memory that it ever had resident.
    pub(crate) fn peak_resident_bytes(self) -> anyhow::Result<u64> {
        let status = self.read("status")?;
        let value = field(&status, "VmHWM").context("the kernel does not say VmHWM")?;
        let kib: u64 = value.trim_end_matches(" kB").parse().context("VmHWM has no value")?;
        Ok(kib << 10)
    }

    fn switches(self) -> (u64, u64) {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok()).fold(
            (0, 0),
            |sum, status| {
                let count = |name: &str| field(&status, name).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
                (sum.0 + count("voluntary_ctxt_switches"), sum.1 + count("nonvoluntary_ctxt_switches"))
            },
        )
    }

    fn read(self, name: &str) -> std::io::Result<String> {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid))
    }
}

/// The value behind `name:` in a file of lines.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Fields 14 and 15, counted from behind the name, which may hold anything (proc_pid_stat(5)).
fn parse_cpu(stat: &str) -> Option<(f64, f64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut seconds = || Some(fields.next()?.parse::<u32>().ok().map(f64::from)? / TICKS_PER_SECOND);
    Some((seconds()?, seconds()?))
}

/// USER_HZ, which is 100 on every architecture that Anvil runs on.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_read_behind_a_name_with_spaces_and_brackets() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 4 0 100";
        assert_eq!(parse_cpu(stat), Some((2.5, 0.5)));
        assert!(parse_cpu("12 (a) S 1").is_none());
    }

    #[test]
    fn this_process_has_cpu_and_memory() {
        let server = Server::watch(std::process::id()).unwrap();
        let usage = server.usage().unwrap();
        assert!(usage.cpu_seconds() >= 0.0 && usage.voluntary_switches + usage.involuntary_switches > 0);
        assert!(server.context().unwrap().threads.unwrap() >= 1);
        assert!(server.peak_resident_bytes().unwrap() > 1 << 20);
        assert!(Server::watch(u32::MAX).is_err());
    }
}
