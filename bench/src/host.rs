//! What a figure was measured on. Whatever the system does not tell is `unknown`, never guessed.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The machine, its kernel and the CPU that did the work.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Host {
    /// Vendor and model of the machine or hypervisor.
    pub(crate) machine: String,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// The CPU's name.
    pub(crate) cpu_model: String,
    /// The CPU that does the measured work; `null` when it is not kept on one.
    pub(crate) cpu: Option<usize>,
    /// CPUs that this process may use.
    pub(crate) cpu_count: usize,
    /// The frequency governor of that CPU, or of the first.
    pub(crate) governor: String,
    /// Memory of the machine.
    pub(crate) memory_bytes: Option<u64>,
    /// What else ran when it began: processes that were ready to run, on average over a minute (proc_loadavg(5)).
    pub(crate) load_average: Option<f64>,
    /// When it began.
    pub(crate) time: String,
    /// Which build of anvil-bench.
    pub(crate) version: &'static str,
    /// True when built without optimisation: the CPU figures then mean nothing.
    pub(crate) debug_build: bool,
    /// The command line.
    pub(crate) command: Vec<String>,
}

impl Host {
    /// Looks at this machine; `cpu` does the work, or any of `cpus`.
    pub(crate) fn look(cpu: Option<usize>, cpus: &[usize]) -> Self {
        let one = cpu.or_else(|| cpus.first().copied()).unwrap_or(0);
        let dmi = |name| line(Path::new("/sys/class/dmi/id").join(name));
        let machine: Vec<String> = ["sys_vendor", "product_name"].into_iter().filter_map(dmi).collect();
        Self {
            machine: if machine.is_empty() { unknown() } else { machine.join(" ") },
            kernel: line("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            cpu_model: cpu_model().unwrap_or_else(unknown),
            cpu,
            cpu_count: cpus.len(),
            governor: line(format!("/sys/devices/system/cpu/cpu{one}/cpufreq/scaling_governor"))
                .unwrap_or_else(unknown),
            memory_bytes: memory_bytes(),
            load_average: line("/proc/loadavg").and_then(|line| line.split(' ').next()?.parse().ok()),
            time: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            version: env!("CARGO_PKG_VERSION"),
            debug_build: cfg!(debug_assertions),
            command: std::env::args().collect(),
        }
    }

    /// Prints what a run was made on.
    pub(crate) fn print(&self) {
        println!("machine   {}, Linux {}", self.machine, self.kernel);
        let cpu = self
            .cpu
            .map_or_else(|| format!("any of {}", self.cpu_count), |cpu| format!("CPU {cpu} of {}", self.cpu_count));
        println!("cpu       {} ({cpu}), governor {}", self.cpu_model, self.governor);
        let load = self.load_average.map_or_else(unknown, |load| format!("{load:.1}"));
        println!("time      {}, load average {load}", self.time);
        println!("command   {} (version {})", self.command.join(" "), self.version);
        if self.debug_build {
            println!("warning   built without optimisation: CPU figures mean nothing, take --release");
        }
    }
}

fn memory_bytes() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 =
        info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// What holds the bytes of a path.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Medium {
    /// The file system's type, or `block device`.
    pub(crate) file_system: String,
    /// What is mounted there, or the device itself.
    pub(crate) source: String,
    /// The disk's model, where it has one.
    pub(crate) model: String,
    /// What the kernel says of the write cache: `write back` is volatile, `write through` is not.
    pub(crate) write_cache: String,
    /// The kernel's I/O scheduler for it.
    pub(crate) scheduler: String,
    /// True for spinning disks, where the kernel says so.
    pub(crate) rotational: Option<bool>,
    /// Whether completions can be polled for (`IORING_SETUP_IOPOLL`), where the kernel says so. Anvil's ring cannot: it has sockets
    /// and timers in it; glommio does it.
    pub(crate) polled: Option<bool>,
    /// Its directory in sysfs, where its counters are.
    #[serde(skip)]
    sysfs: Option<PathBuf>,
}

/// What a whole disk did since the kernel started, whoever asked for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct DeviceCounts {
    pub(crate) writes: u64,
    /// Bytes that the disk has taken.
    pub(crate) written_bytes: u64,
    /// Flushes of its cache; several that were asked for at once count once.
    pub(crate) flushes: u64,
}

impl DeviceCounts {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            writes: self.writes.saturating_sub(earlier.writes),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            flushes: self.flushes.saturating_sub(earlier.flushes),
        }
    }

    /// The fields of the kernel's block/stat.rst: writes are the fifth, sectors (of 512 bytes) the seventh, flushes the
    /// sixteenth.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<u64> = stat.split_whitespace().map_while(|field| field.parse().ok()).collect();
        Some(Self { writes: *fields.get(4)?, written_bytes: fields.get(6)? * 512, flushes: *fields.get(15)? })
    }
}

impl Medium {
    /// Looks at what is below `path`, which exists.
    pub(crate) fn look(path: &Path) -> Self {
        let (file_system, source) = mount(path).unwrap_or_else(|| (unknown(), unknown()));
        let disk = block_device(path, &source);
        let attribute = |name: &str| disk.as_ref().and_then(|disk| line(disk.join(name)));
        Self {
            file_system,
            source,
            model: attribute("device/model").unwrap_or_else(unknown),
            write_cache: attribute("queue/write_cache").unwrap_or_else(unknown),
            scheduler: attribute("queue/scheduler").unwrap_or_else(unknown),
            rotational: attribute("queue/rotational").map(|value| value == "1"),
            polled: attribute("queue/io_poll").map(|value| value == "1"),
            sysfs: disk,
        }
    }

    /// What the disk has done so far; `None` where the kernel does not count it.
    pub(crate) fn counts(&self) -> Option<DeviceCounts> {
        DeviceCounts::parse(&fs::read_to_string(self.sysfs.as_ref()?.join("stat")).ok()?)
    }

    /// Prints it, one line.
    pub(crate) fn print(&self, of: &str, path: &Path) {
        let rotational = if self.rotational == Some(true) { ", rotational says the kernel" } else { "" };
        println!("{of:<9} {} on {} ({}{rotational})", path.display(), self.source, self.file_system);
        let polled = match self.polled {
            Some(true) => ", can be polled",
            Some(false) => ", cannot be polled",
            None => "",
        };
        println!("          model {}, scheduler {}, cache {}{polled}", self.model, self.scheduler, self.write_cache);
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn cpu_model() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let (_, model) = info.lines().find(|line| line.starts_with("model name"))?.split_once(':')?;
    Some(model.trim().to_owned())
}

/// Type and source of the mount that holds `path`: the longest mount point above it (proc(5), mountinfo).
fn mount(path: &Path) -> Option<(String, String)> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device()) {
        return Some(("block device".to_owned(), path.display().to_string()));
    }
    let path = path.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let point = PathBuf::from(left.split(' ').nth(4)?.replace("\\040", " "));
            let mut right = right.split(' ');
            Some((point, right.next()?.to_owned(), right.next()?.to_owned()))
        })
        .filter(|(point, ..)| path.starts_with(point))
        // Later mounts hide earlier ones at the same point; max_by_key takes the last of equals.
        .max_by_key(|(point, ..)| point.components().count())
        .map(|(_, file_system, source)| (file_system, source))
}

/// The whole disk's directory in sysfs. A file system's own device number is asked first, then the name of what is
/// mounted (btrfs and others have numbers of their own).
fn block_device(path: &Path, source: &str) -> Option<PathBuf> {
    let metadata = fs::metadata(path).ok()?;
    let number = if metadata.file_type().is_block_device() { metadata.rdev() } else { metadata.dev() };
    let by_number =
        PathBuf::from(format!("/sys/dev/block/{}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number)));
    let by_name = Path::new("/sys/class/block").join(Path::new(source).file_name()?);
    let device = by_number.canonicalize().or_else(|_| by_name.canonicalize()).ok()?;
    let whole = if device.join("partition").exists() { device.parent()?.to_owned() } else { device };
    whole.join("queue").exists().then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_a_disk_are_read() {
        let stat = "  1 2 3 4 50 6 70 8 0 10 11 12 13 14 15 160 17\n";
        let counts = DeviceCounts::parse(stat).unwrap();
        assert_eq!(counts, DeviceCounts { writes: 50, written_bytes: 70 * 512, flushes: 160 });
        assert_eq!(counts.since(DeviceCounts { flushes: 100, ..counts }).flushes, 60);
        assert_eq!(DeviceCounts::parse("1 2 3"), None, "a kernel that does not count flushes");
    }
}
