//! What a host should be set to, setting by setting, beside what it is set to.

use std::collections::BTreeSet;

use serde::Serialize;

use super::host::{Disk, Host};

/// A setting of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// Which setting, and of what.
    pub setting: String,
    /// What it is; absent when the host does not tell.
    pub is: Option<String>,
    /// What it should be.
    pub wanted: String,
    /// Whether it is so.
    pub verdict: Verdict,
    /// How we know.
    pub mark: Mark,
    /// What it is good for.
    pub why: &'static str,
    /// What sets it until the next start of the host, for root; none where it is not for one command.
    pub command: Option<String>,
}

/// Whether a setting is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is.
    Good,
    /// It is not.
    Differs,
    /// The host has no such setting, or does not tell it: a virtual machine has no governor.
    Unknown,
}

/// Where a recommendation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// Anvil does not run well, or at all, without it.
    Needed,
    /// We saw the difference (`tuning/README.md` has the command that shows it).
    Measured,
    /// What operators of storage engines set; measure it on your machine.
    Customary,
}

/// The oldest kernel: io_uring is asked for what it has since then.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Buffers of a core, as the server makes them by default.
const MEMLOCK_PER_CORE: u64 = 32 << 20;
/// Rings and what else is locked.
const MEMLOCK_MORE: u64 = 16 << 20;
const FILES_MIN: u64 = 65_536;
const BACKLOG_MIN: u64 = 4096;
/// Bandwidth times delay from 25 GbE on.
const SOCKET_BYTES_MIN: u64 = 16 << 20;

/// All that is to be said of a host.
#[must_use]
pub fn advise(host: &Host) -> Vec<Advice> {
    let mut all = vec![kernel(host), io_uring(host)];
    all.extend(limits(host));
    all.extend(cpus(host));
    all.extend(network(host));
    all.extend(host.disks.iter().flat_map(disk));
    all
}

fn row(setting: impl Into<String>, is: Option<String>, wanted: impl Into<String>, good: Option<bool>) -> Advice {
    let verdict = match good {
        Some(true) => Verdict::Good,
        Some(false) => Verdict::Differs,
        None => Verdict::Unknown,
    };
    Advice {
        setting: setting.into(),
        is,
        wanted: wanted.into(),
        verdict,
        mark: Mark::Customary,
        why: "",
        command: None,
    }
}

impl Advice {
    fn because(self, mark: Mark, why: &'static str) -> Self {
        Self { mark, why, ..self }
    }

    /// Offered only where something is to be set.
    fn by(self, command: impl Into<String>) -> Self {
        let command = (self.verdict == Verdict::Differs).then(|| command.into());
        Self { command, ..self }
    }
}

fn kernel(host: &Host) -> Advice {
    let version = |text: &str| {
        let mut parts = text.split(['.', '-', '+']).map(str::parse::<u32>);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    let good = host.kernel.as_deref().and_then(version).map(|version| version >= KERNEL_MIN);
    row("kernel", host.kernel.clone(), format!("{}.{} or newer", KERNEL_MIN.0, KERNEL_MIN.1), good)
        .because(Mark::Needed, "what io_uring is asked for")
}

fn io_uring(host: &Host) -> Advice {
    let name = "kernel.io_uring_disabled";
    let is = host.sysctls.get(name).cloned();
    let good = is.as_deref().map(|is| is == "0");
    row(name, is, "0", good)
        .because(Mark::Needed, "without io_uring each disk operation goes through a thread (--io blocking)")
        .by(format!("sysctl -w {name}=0"))
}

fn limits(host: &Host) -> Vec<Advice> {
    let limit = |name: &str, setting: &str, least: Option<u64>, wanted: String| {
        let is = host.limits.get(name);
        let said = is.map(|is| is.map_or("unlimited".to_owned(), |is| is.to_string()));
        let good = is.map(|is| match least {
            Some(least) => is.is_none_or(|is| is >= least),
            None => *is == Some(0),
        });
        row(setting, said, wanted, good)
    };
    let memlock = MEMLOCK_PER_CORE * host.cpu_count as u64 + MEMLOCK_MORE;
    vec![
        limit("Max locked memory", "memlock of this shell", Some(memlock), format!("{memlock} bytes or more"))
            .because(Mark::Measured, "buffers are registered with the kernel; systemd: LimitMEMLOCK=infinity"),
        limit("Max open files", "nofile of this shell", Some(FILES_MIN), format!("{FILES_MIN} or more"))
            .because(Mark::Customary, "a descriptor per connection; systemd: LimitNOFILE=65536"),
        limit("Max core file size", "core dumps of this shell", None, "0".to_owned())
            .because(Mark::Customary, "a dump holds objects and secrets; systemd: LimitCORE=0"),
    ]
}

fn cpus(host: &Host) -> Vec<Advice> {
    let listed = |words: &BTreeSet<String>| words.iter().cloned().collect::<Vec<_>>().join(", ");
    let governors = (!host.governors.is_empty()).then(|| listed(&host.governors));
    let steady = governors.as_deref().map(|governors| governors == "performance");
    let deep = Some(listed(&host.deep_idle_states)).filter(|deep| !deep.is_empty());
    let shallow = deep.as_ref().map(|_| false);
    let daemon = if host.irqbalance { "runs" } else { "does not run" };
    let pages = host.huge_pages.clone();
    let on_request = pages.as_deref().map(|pages| pages == "madvise");
    vec![
        row("frequency governor", governors, "performance", steady)
            .because(Mark::Customary, "a core that sleeps between requests wakes at a low clock")
            .by("cpupower frequency-set -g performance"),
        row("deep idle states", deep, "none, where latency counts", shallow)
            .because(Mark::Customary, "waking from them takes longer than a read of NVMe")
            .by("cpupower idle-set -D 10"),
        row("irqbalance", Some(daemon.to_owned()), "does not run", Some(!host.irqbalance))
            .because(Mark::Customary, "an interrupt on another core is a second one between cores")
            .by("systemctl disable --now irqbalance"),
        row("transparent huge pages", pages, "madvise", on_request)
            .because(Mark::Customary, "no stalls while the kernel makes room for them")
            .by("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
    ]
}

fn network(host: &Host) -> Vec<Advice> {
    let backlog = "net.core.somaxconn";
    let is = host.sysctls.get(backlog).cloned();
    let good = is.as_deref().and_then(|is| is.parse().ok()).map(|is: u64| is >= BACKLOG_MIN);
    let backlog = row(backlog, is, format!("{BACKLOG_MIN} or more"), good)
        .because(Mark::Customary, "bursts of new connections")
        .by(format!("sysctl -w {backlog}={BACKLOG_MIN}"));
    let buffers = ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"].map(|name| {
        let is = host.sysctls.get(name).map(|is| is.split_whitespace().collect::<Vec<_>>().join(" "));
        let parts: Option<Vec<&str>> = is.as_deref().map(|is| is.split(' ').collect());
        let most = parts.as_ref().and_then(|parts| parts.get(2)?.parse().ok());
        let set = match parts.as_deref() {
            Some([least, usual, ..]) => format!("sysctl -w {name}=\"{least} {usual} {SOCKET_BYTES_MIN}\""),
            _ => String::new(),
        };
        let good = most.map(|most: u64| most >= SOCKET_BYTES_MIN);
        row(name, is.clone(), format!("third value {SOCKET_BYTES_MIN} or more from 25 GbE on"), good)
            .because(Mark::Customary, "bandwidth times delay")
            .by(set)
    });
    std::iter::once(backlog).chain(buffers).collect()
}

fn disk(disk: &Disk) -> Vec<Advice> {
    let path = disk.path.display();
    let mut all = Vec::new();
    if let Some((kind, options)) = &disk.file_system {
        let known = ["xfs", "ext4"].contains(&kind.as_str());
        let named = row(format!("file system of {path}"), Some(kind.clone()), "xfs or ext4", Some(known));
        all.push(named.because(Mark::Customary, "one preallocated file per disk, written with direct I/O"));
        let lazy = options.contains("noatime");
        let said = if lazy { "noatime" } else { "times of access are kept" };
        let times = row(format!("mount of {path}"), Some(said.to_owned()), "noatime", Some(lazy));
        all.push(times.because(Mark::Customary, "no write for a read; in /etc/fstab"));
    }
    let device = disk.device.as_deref().unwrap_or("?");
    let scheduler = disk.scheduler.clone();
    let good = scheduler.as_deref().map(|scheduler| scheduler == "none");
    let queue = row(format!("I/O scheduler of {device}, for {path}"), scheduler, "none", good);
    all.push(
        queue
            .because(Mark::Customary, "an NVMe device reorders better than the kernel")
            .by(format!("echo none > /sys/block/{device}/queue/scheduler")),
    );
    all
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn good_host() -> Host {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let disk = Disk {
            path: PathBuf::from("/mnt/a"),
            device: Some("nvme0n1".to_owned()),
            scheduler: Some("none".to_owned()),
            file_system: Some(("xfs".to_owned(), words(&["rw", "noatime"]))),
        };
        let sysctls = [
            ("kernel.io_uring_disabled", "0"),
            ("net.core.somaxconn", "4096"),
            ("net.ipv4.tcp_rmem", "4096\t131072\t16777216"),
            ("net.ipv4.tcp_wmem", "4096\t16384\t33554432"),
        ];
        let limits = [("Max locked memory", None), ("Max open files", Some(65_536)), ("Max core file size", Some(0))];
        Host {
            kernel: Some("6.1.0-28-amd64".to_owned()),
            cpu_count: 8,
            sysctls: sysctls.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            limits: limits.map(|(name, value)| (name.to_owned(), value)).into(),
            governors: words(&["performance"]),
            deep_idle_states: words(&[]),
            huge_pages: Some("madvise".to_owned()),
            irqbalance: false,
            disks: vec![disk],
        }
    }

    #[test]
    fn a_host_that_is_set_up_gets_no_advice() {
        let differing: Vec<_> =
            advise(&good_host()).into_iter().filter(|advice| advice.verdict == Verdict::Differs).collect();
        assert_eq!(differing, []);
        assert!(advise(&good_host()).iter().all(|advice| advice.command.is_none() && !advice.why.is_empty()));
    }

    fn limit(host: &mut Host, name: &str, value: Option<u64>) {
        host.limits.insert(name.to_owned(), value);
    }

    fn sysctl(host: &mut Host, name: &str, value: &str) {
        host.sysctls.insert(name.to_owned(), value.to_owned());
    }

    /// Each setting, made wrong alone, is the one that is named, with what sets it.
    #[test]
    fn what_is_wrong_is_named_alone() {
        type Change = fn(&mut Host);
        let cases: [(Change, &str, Option<&str>); 12] = [
            (|host| host.kernel = Some("5.15.0".to_owned()), "kernel", None),
            (
                |host| sysctl(host, "kernel.io_uring_disabled", "2"),
                "kernel.io_uring_disabled",
                Some("sysctl -w kernel.io_uring_disabled=0"),
            ),
            (
                // A byte less than eight cores need.
                |host| limit(host, "Max locked memory", Some((272 << 20) - 1)),
                "memlock of this shell",
                None,
            ),
            (|host| limit(host, "Max open files", Some(1024)), "nofile of this shell", None),
            (|host| limit(host, "Max core file size", None), "core dumps of this shell", None),
            (
                |host| host.governors = ["performance".to_owned(), "powersave".to_owned()].into(),
                "frequency governor",
                Some("cpupower frequency-set -g performance"),
            ),
            (
                |host| host.deep_idle_states = ["C6".to_owned()].into(),
                "deep idle states",
                Some("cpupower idle-set -D 10"),
            ),
            (|host| host.irqbalance = true, "irqbalance", Some("systemctl disable --now irqbalance")),
            (
                |host| host.huge_pages = Some("always".to_owned()),
                "transparent huge pages",
                Some("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
            ),
            (
                |host| sysctl(host, "net.ipv4.tcp_rmem", "4096\t131072\t6291456"),
                "net.ipv4.tcp_rmem",
                Some("sysctl -w net.ipv4.tcp_rmem=\"4096 131072 16777216\""),
            ),
            (
                |host| host.disks[0].scheduler = Some("mq-deadline".to_owned()),
                "I/O scheduler of nvme0n1, for /mnt/a",
                Some("echo none > /sys/block/nvme0n1/queue/scheduler"),
            ),
            (
                |host| host.disks[0].file_system = Some(("xfs".to_owned(), ["relatime".to_owned()].into())),
                "mount of /mnt/a",
                None,
            ),
        ];
        for (change, setting, command) in cases {
            let mut host = good_host();
            change(&mut host);
            let differing: Vec<_> =
                advise(&host).into_iter().filter(|advice| advice.verdict == Verdict::Differs).collect();
            let named: Vec<_> = differing.iter().map(|advice| advice.setting.as_str()).collect();
            assert_eq!(named, [setting]);
            assert_eq!(differing[0].command.as_deref(), command, "{setting}");
        }
    }

    #[test]
    fn what_the_host_does_not_tell_is_unknown() {
        let host = Host { disks: vec![Disk { path: PathBuf::from("/a"), ..Disk::default() }], ..Host::default() };
        let told: Vec<_> = advise(&host).into_iter().filter(|advice| advice.verdict != Verdict::Unknown).collect();
        assert_eq!(told.iter().map(|advice| advice.setting.as_str()).collect::<Vec<_>>(), ["irqbalance"]);
    }
}
