//! What a host is set to, as `/proc` and `/sys` tell it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The host, as far as it told. What it did not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Of the kernel: `6.12.3-amd64`.
    pub kernel: Option<String>,
    /// CPUs that are online.
    pub cpu_count: usize,
    /// Kernel settings by their dotted names.
    pub sysctls: BTreeMap<String, String>,
    /// Limits of this process by the names in `/proc/self/limits`, soft; absent when there is none.
    pub limits: BTreeMap<String, Option<u64>>,
    /// The frequency governors of all CPUs.
    pub governors: BTreeSet<String>,
    /// Idle states that take more than [`IDLE_LATENCY_MAX_US`] to leave and are allowed.
    pub deep_idle_states: BTreeSet<String>,
    /// The mode of transparent huge pages.
    pub huge_pages: Option<String>,
    /// Whether a daemon moves interrupts between CPUs.
    pub irqbalance: bool,
    /// The disks that were named, in that order.
    pub disks: Vec<Disk>,
}

/// A disk of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// As it was named.
    pub path: PathBuf,
    /// The block device that it is or lies on: `nvme0n1`. Absent where there is none, as on tmpfs.
    pub device: Option<String>,
    /// The I/O scheduler of that device.
    pub scheduler: Option<String>,
    /// The type and options of the file system that it lies on; absent for a block device.
    pub file_system: Option<(String, BTreeSet<String>)>,
}

/// An idle state that takes longer to leave is deep.
pub const IDLE_LATENCY_MAX_US: u64 = 10;

/// The kernel settings that are read.
pub const SYSCTLS: [&str; 4] =
    ["kernel.io_uring_disabled", "net.core.somaxconn", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"];

impl Host {
    /// Reads the host whose file systems are below `root`, which is `/`. What cannot be read is left out.
    #[must_use]
    pub fn read(root: &Path, disks: &[PathBuf]) -> Self {
        let text = |path: &str| read(&root.join(path));
        let sysctl = |name: &&str| Some(((*name).to_owned(), text(&format!("proc/sys/{}", name.replace('.', "/")))?));
        let cpus: Vec<PathBuf> = children(&root.join("sys/devices/system/cpu"))
            .into_iter()
            .filter(|path| name_of(path).strip_prefix("cpu").is_some_and(|number| number.parse::<u32>().is_ok()))
            .collect();
        let runs = |process: &PathBuf| read(&process.join("comm")).as_deref() == Some("irqbalance");
        Self {
            kernel: text("proc/sys/kernel/osrelease"),
            cpu_count: cpus.len(),
            sysctls: SYSCTLS.iter().filter_map(sysctl).collect(),
            limits: text("proc/self/limits").map(|text| limits(&text)).unwrap_or_default(),
            governors: cpus.iter().filter_map(|cpu| read(&cpu.join("cpufreq/scaling_governor"))).collect(),
            deep_idle_states: cpus.iter().flat_map(|cpu| deep_idle_states(cpu)).collect(),
            huge_pages: text("sys/kernel/mm/transparent_hugepage/enabled").and_then(|text| chosen(&text)),
            irqbalance: children(&root.join("proc")).iter().any(runs),
            disks: disks.iter().map(|path| Disk::read(root, path)).collect(),
        }
    }
}

impl Disk {
    fn read(root: &Path, path: &Path) -> Self {
        let mut disk = Self { path: path.to_owned(), ..Self::default() };
        // A directory that is not made yet will be on the file system of the one above it.
        let Some(there) = path.ancestors().find_map(|path| fs::metadata(path).ok()) else { return disk };
        let is_block = there.file_type().is_block_device();
        let number = if is_block { there.rdev() } else { there.dev() };
        let number = format!("{}:{}", major(number), minor(number));
        if !is_block {
            disk.file_system = read(&root.join("proc/self/mountinfo")).and_then(|mounts| mounted(&mounts, &number));
        }
        let Ok(mut device) = fs::canonicalize(root.join("sys/dev/block").join(&number)) else { return disk };
        if device.join("partition").exists() {
            device.pop();
        }
        disk.scheduler = read(&device.join("queue/scheduler")).and_then(|text| chosen(&text));
        disk.device = Some(name_of(&device).to_owned());
        disk
    }
}

/// Major and minor number as the kernel's `dev_t` of 64 bits holds them (glibc, `gnu_dev_major`).
fn major(number: u64) -> u64 {
    (number >> 8) & 0xfff | (number >> 32) & !0xfff
}

fn minor(number: u64) -> u64 {
    number & 0xff | (number >> 12) & !0xff
}

fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

fn children(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Of `always [madvise] never` the one in brackets.
fn chosen(text: &str) -> Option<String> {
    let word = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    Some(word?.to_owned())
}

/// The soft limits in `/proc/PID/limits` (proc(5)), whose columns are at fixed places.
fn limits(text: &str) -> BTreeMap<String, Option<u64>> {
    const NAME_END: usize = 26;
    let limit = |line: &str| {
        let (name, values) = line.split_at_checked(NAME_END)?;
        let soft = values.split_whitespace().next()?;
        let soft = if soft == "unlimited" { None } else { Some(soft.parse().ok()?) };
        Some((name.trim().to_owned(), soft))
    };
    text.lines().skip(1).filter_map(limit).collect()
}

/// Type and options of the file system with this number (proc(5), `/proc/PID/mountinfo`).
fn mounted(mounts: &str, number: &str) -> Option<(String, BTreeSet<String>)> {
    mounts.lines().find_map(|line| {
        let (before, behind) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(2);
        let is_it = before.next()? == number;
        let options = before.nth(2)?.split(',').map(str::to_owned).collect();
        is_it.then_some((behind.split(' ').next()?.to_owned(), options))
    })
}

fn deep_idle_states(cpu: &Path) -> Vec<String> {
    let deep = |state: &PathBuf| {
        let latency: u64 = read(&state.join("latency"))?.parse().ok()?;
        let is_allowed = read(&state.join("disable"))? == "0";
        (latency > IDLE_LATENCY_MAX_US && is_allowed).then(|| read(&state.join("name")))?
    };
    children(&cpu.join("cpuidle")).iter().filter_map(deep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A host with two CPUs, made of files.
    #[test]
    fn a_host_is_read_from_its_files() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        put(root, "proc/sys/kernel/osrelease", "6.12.3-amd64\n");
        put(root, "proc/sys/net/core/somaxconn", "128\n");
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max locked memory         8388608              unlimited            bytes     \n\
                      Max core file size        unlimited            unlimited            bytes     \n";
        put(root, "proc/self/limits", limits);
        put(root, "proc/17/comm", "irqbalance\n");
        put(root, "sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
        for cpu in ["cpu0", "cpu1", "cpufreq"] {
            let state = |name: &str| format!("sys/devices/system/cpu/{cpu}/{name}");
            put(root, &state("cpufreq/scaling_governor"), "powersave\n");
            for (number, name, latency) in [(0, "POLL", 0), (1, "C1", 2), (2, "C6", 133)] {
                put(root, &state(&format!("cpuidle/state{number}/name")), name);
                put(root, &state(&format!("cpuidle/state{number}/latency")), &latency.to_string());
                put(root, &state(&format!("cpuidle/state{number}/disable")), "0\n");
            }
        }
        let number = fs::metadata(root).unwrap().dev();
        let number = format!("{}:{}", major(number), minor(number));
        put(root, "sys/block/nvme3n1/queue/scheduler", "none [mq-deadline]\n");
        put(root, "sys/block/nvme3n1/nvme3n1p2/partition", "2\n");
        fs::create_dir_all(root.join("sys/dev/block")).unwrap();
        let device = root.join("sys/block/nvme3n1/nvme3n1p2");
        std::os::unix::fs::symlink(device, root.join("sys/dev/block").join(&number)).unwrap();
        put(root, "proc/self/mountinfo", &format!("31 22 {number} / /x rw,noatime shared:7 - xfs /dev/nvme3n1p2 rw\n"));

        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<BTreeSet<_>>();
        let path = root.join("not/there/yet");
        let disk = Disk {
            path: path.clone(),
            device: Some("nvme3n1".to_owned()),
            scheduler: Some("mq-deadline".to_owned()),
            file_system: Some(("xfs".to_owned(), words(&["rw", "noatime"]))),
        };
        let expected = Host {
            kernel: Some("6.12.3-amd64".to_owned()),
            cpu_count: 2,
            sysctls: [("net.core.somaxconn".to_owned(), "128".to_owned())].into(),
            limits: [("Max locked memory".to_owned(), Some(8 << 20)), ("Max core file size".to_owned(), None)].into(),
            governors: words(&["powersave"]),
            deep_idle_states: words(&["C6"]),
            huge_pages: Some("madvise".to_owned()),
            irqbalance: true,
            disks: vec![disk],
        };
        assert_eq!(Host::read(root, &[path]), expected);
        assert_eq!(Host::read(&root.join("nothing"), &[]), Host::default());
    }
}
