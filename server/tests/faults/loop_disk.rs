//! File systems on loop devices with direct I/O, gone again at the end whatever happens.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system of its own.
#[derive(Debug)]
pub(crate) struct LoopDisk {
    device: String,
    mount: PathBuf,
}

/// What is made on a loop device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Xfs,
    /// Becomes read-only when it meets an error.
    Ext4,
}

impl LoopDisk {
    /// Makes one with XFS in files below `directory`; `None`, and says why on stdout, where this machine does not let us.
    pub(crate) fn make(directory: &Path, bytes: u64) -> Option<Self> {
        Self::make_with(directory, bytes, FileSystem::Xfs)
    }

    /// The same with another file system.
    pub(crate) fn make_with(directory: &Path, bytes: u64, file_system: FileSystem) -> Option<Self> {
        Self::try_make(directory, bytes, file_system).map_err(|reason| println!("LEFT OUT: {reason}")).ok()
    }

    fn try_make(directory: &Path, bytes: u64, file_system: FileSystem) -> Result<Self, String> {
        let (image, mount) = (directory.join("image"), directory.join("mount"));
        File::create(&image).and_then(|file| file.set_len(bytes)).map_err(|error| error.to_string())?;
        std::fs::create_dir(&mount).map_err(|error| error.to_string())?;
        let device = run(Command::new("losetup").args(["--direct-io=on", "--find", "--show"]).arg(&image))?;
        // From here on dropping it cleans up.
        let disk = Self { device: device.trim().to_owned(), mount };
        match file_system {
            FileSystem::Xfs => run(Command::new("mkfs.xfs").args(["-q", &disk.device]))?,
            FileSystem::Ext4 => run(Command::new("mkfs.ext4").args(["-q", "-e", "remount-ro", &disk.device]))?,
        };
        disk.mount(&[])?;
        Ok(disk)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// The name of its block device below `/sys/block`.
    pub(crate) fn device_name(&self) -> &str {
        self.device.trim_start_matches("/dev/")
    }

    pub(crate) fn mount(&self, options: &[&str]) -> Result<(), String> {
        run(Command::new("mount").args(options).arg(&self.device).arg(&self.mount)).map(drop)
    }

    pub(crate) fn unmount(&self, options: &[&str]) -> Result<(), String> {
        run(Command::new("umount").args(options).arg(&self.mount)).map(drop)
    }

    /// What a power cut leaves: from now on every operation fails, and what was not flushed is gone. A mount recovers.
    pub(crate) fn shut_down(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.mount)).expect("XFS shuts down");
    }

    /// What an error in its own structures makes of ext4, whoever writes to it at that moment.
    pub(crate) fn become_read_only(&self) {
        let switch = format!("/sys/fs/ext4/{}/trigger_fs_error", self.device_name());
        std::fs::write(switch, "1").expect("ext4 takes an error by order");
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        self.unmount(&["--lazy", "--quiet"]).ok();
        // The device goes when its last user does.
        if let Err(error) = run(Command::new("losetup").args(["--detach", &self.device])) {
            eprintln!("{} is left behind: {error}", self.device);
        }
    }
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
