//! What the kernel says of the process, and the size of the metadata index. Control looks now and then, because these
//! are system calls that no core should make.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::metrics::{Metrics, Sample, SampleKind, float};

/// How old the figures on the page may be.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// The latest figures of the process.
#[derive(Debug)]
pub struct ProcessFigures {
    /// The metadata index and the files beside it.
    index: Vec<PathBuf>,
    latest: Mutex<Figures>,
}

/// What cannot be had is missing from the page, never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Figures {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    open_fds: Option<u64>,
    fds_max: Option<u64>,
    index_bytes: u64,
}

impl ProcessFigures {
    /// Puts them on the page of `metrics`; `index` is the file of the metadata index.
    #[must_use]
    pub fn watched_by(metrics: &Metrics, index: &Path) -> Arc<Self> {
        let beside = |suffix: &str| {
            let mut name = index.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let figures = Arc::new(Self { index: ["", "-wal", "-shm"].map(beside).to_vec(), latest: Mutex::default() });
        let (process, node) = (Arc::clone(&figures), Arc::clone(&figures));
        metrics.watch_process(move || process.latest().samples());
        metrics.watch(move || {
            let help = "Size of the metadata index on disk";
            vec![Sample::gauge("metadata_index_bytes", help, float(node.latest().index_bytes))]
        });
        figures
    }

    /// Looks again and again, for as long as the future is polled by control.
    pub async fn keep_looking(&self) {
        loop {
            *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Figures::look(&self.index);
            tokio::time::sleep(LOOKED_AT_EVERY).await;
        }
    }

    fn latest(&self) -> Figures {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Figures {
    fn look(index: &[PathBuf]) -> Self {
        let read = |name: &str| fs::read_to_string(Path::new("/proc/self").join(name)).unwrap_or_default();
        let status = read("status");
        let kib = |name: &str| Some(1024 * word(&status, name, 0)?);
        let descriptors = fs::read_dir("/proc/self/fd").ok();
        Self {
            cpu_seconds: cpu_seconds(&read("stat")),
            resident_bytes: kib("VmRSS:"),
            virtual_bytes: kib("VmSize:"),
            // One of them is the directory that is read.
            open_fds: descriptors.map(|entries| (entries.count() as u64).saturating_sub(1)),
            fds_max: word(&read("limits"), "Max open files", 0),
            index_bytes: index.iter().filter_map(|path| fs::metadata(path).ok()).map(|file| file.len()).sum(),
        }
    }

    fn samples(&self) -> Vec<Sample> {
        let sample = |name, help, kind, value: Option<f64>| Sample {
            name,
            help,
            kind,
            values: value.into_iter().map(|value| (Vec::new(), value)).collect(),
        };
        let gauge = |name, help, value: Option<u64>| sample(name, help, SampleKind::Gauge, value.map(float));
        let cpu = "User and system time of all threads";
        vec![
            sample("process_cpu_seconds", cpu, SampleKind::Counter, self.cpu_seconds),
            gauge("process_resident_memory_bytes", "Memory that is resident", self.resident_bytes),
            gauge("process_virtual_memory_bytes", "Memory that is mapped", self.virtual_bytes),
            gauge("process_open_fds", "File descriptors that are open", self.open_fds),
            gauge("process_max_fds", "File descriptors that may be open", self.fds_max),
        ]
    }
}

/// The number behind a name at the beginning of a line.
fn word(text: &str, name: &str, position: usize) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().nth(position)?.parse().ok()
}

/// Fields 14 and 15, counted from behind the name, which may hold anything (proc_pid_stat(5)).
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11).map(str::parse::<u32>);
    let (user, system) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

/// USER_HZ, which is 100 on every architecture that Anvil runs on.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_this_process() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("index");
        fs::write(&file, [0; 100]).unwrap();
        let figures = Figures::look(&[file, scratch.path().join("none")]);
        assert!(figures.resident_bytes.unwrap() > 1 << 20 && figures.resident_bytes <= figures.virtual_bytes);
        assert!(figures.open_fds.unwrap() >= 3 && figures.open_fds < figures.fds_max);
        assert!(figures.cpu_seconds.is_some());
        assert_eq!(figures.index_bytes, 100);
        assert_eq!(cpu_seconds("12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20"), Some(3.0));
    }

    #[test]
    fn what_is_not_known_is_not_on_the_page() {
        let metrics = Metrics::new(1);
        let figures = ProcessFigures::watched_by(&metrics, Path::new("/none"));
        *figures.latest.lock().unwrap() = Figures { open_fds: Some(7), ..Figures::default() };
        let page = metrics.render();
        assert!(page.contains("\nprocess_open_fds 7.0\n") && !page.contains("\nprocess_max_fds "), "{page}");
        assert!(page.contains("\nanvil_metadata_index_bytes 0.0\n"), "{page}");
    }
}
