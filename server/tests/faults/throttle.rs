//! A disk that answers as slowly as one likes, by the kernel's own brake on a block device for a group of processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::support::node::Node;

/// A control group whose reads from one block device are few. Gone when dropped, once its node has ended.
#[derive(Debug)]
pub(crate) struct Throttle {
    group: PathBuf,
}

impl Throttle {
    /// Lets the node read so often per second from this block device; `None`, and says why on stdout, where the kernel does
    /// not let us.
    pub(crate) fn reads(node: &Node, device: &str, per_second: u32) -> Option<Self> {
        Self::try_reads(node, device, per_second).map_err(|reason| println!("LEFT OUT: {reason}")).ok()
    }

    fn try_reads(node: &Node, device: &str, per_second: u32) -> Result<Self, String> {
        let number = fs::read_to_string(format!("/sys/block/{device}/dev")).map_err(|error| error.to_string())?;
        let number = number.trim();
        let name = format!("anvil-test-{}", node.pid());
        let root = Path::new("/sys/fs/cgroup");
        let (group, limit, rule) = if root.join("blkio").exists() {
            let rule = format!("{number} {per_second}");
            (root.join("blkio").join(name), "blkio.throttle.read_iops_device", rule)
        } else {
            write(&root.join("cgroup.subtree_control"), "+io")?;
            (root.join(name), "io.max", format!("{number} riops={per_second}"))
        };
        fs::create_dir(&group).map_err(|error| format!("{}: {error}", group.display()))?;
        let throttle = Self { group };
        write(&throttle.group.join(limit), &rule)?;
        write(&throttle.group.join("cgroup.procs"), &node.pid().to_string())?;
        Ok(throttle)
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        // A process that has ended leaves its group a moment later.
        for _ in 0..100 {
            if fs::remove_dir(&self.group).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} is left behind", self.group.display());
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
