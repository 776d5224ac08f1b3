//! XFS on a loop device with direct I/O, gone again at the end whatever happens.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system of its own.
#[derive(Debug)]
pub(crate) struct LoopDisk {
    device: String,
    mount: PathBuf,
}

impl LoopDisk {
    /// Makes one in files below `directory`; `None`, and says why on stdout, where this machine does not let us.
    pub(crate) fn make(directory: &Path, bytes: u64) -> Option<Self> {
        Self::try_make(directory, bytes).map_err(|reason| println!("LEFT OUT: {reason}")).ok()
    }

    fn try_make(directory: &Path, bytes: u64) -> Result<Self, String> {
        let (image, mount) = (directory.join("image"), directory.join("mount"));
        File::create(&image).and_then(|file| file.set_len(bytes)).map_err(|error| error.to_string())?;
        std::fs::create_dir(&mount).map_err(|error| error.to_string())?;
        let device = run(Command::new("losetup").args(["--direct-io=on", "--find", "--show"]).arg(&image))?;
        // From here on dropping it cleans up.
        let disk = Self { device: device.trim().to_owned(), mount };
        run(Command::new("mkfs.xfs").args(["-q", &disk.device]))?;
        disk.mount(&[])?;
        Ok(disk)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mount
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
