//! MinIO's `warp`, the load that S3 stores are measured with: every kind of it, without an error.

use crate::support::clients::{find, is_installed, run};
use crate::support::node::{Node, Options, scratch};
use std::process::Command;

/// How long each load lasts when `ANVIL_TEST_WARP_SECONDS` does not say it.
const SECONDS: &str = "3";

/// More than any load writes in its time.
const DISK: &str = "4GiB";

/// Each kind with its own settings.
const LOADS: [&[&str]; 8] = [
    &["put", "--obj.size", "1MiB"],
    &["get", "--obj.size", "1MiB", "--objects", "100"],
    &["mixed", "--obj.size", "1MiB", "--objects", "100"],
    &["stat", "--obj.size", "1KiB", "--objects", "500"],
    &["list", "--obj.size", "1KiB", "--objects", "500"],
    &["delete", "--obj.size", "1KiB", "--objects", "2000", "--batch", "100"],
    &["multipart", "--parts", "10", "--part.size", "5MiB"],
    &["multipart-put", "--parts", "4", "--part.size", "5MiB", "--part.concurrent", "2"],
];

#[test]
fn every_kind_of_load_runs_without_an_error() {
    if !is_installed("warp") {
        println!("LEFT OUT: warp is not on the PATH.");
        return;
    }
    let scratch = scratch();
    let data = scratch.path().join("data");
    // What a load leaves is given back while the next one runs.
    let disk = format!("{}:{DISK}", data.join("disk").display());
    let arguments = ["--reclaim-delay", "0", "--disk", &disk].map(str::to_owned).to_vec();
    let node = Node::start_with(&data, &Options { arguments, ..Options::default() });
    let seconds = std::env::var("ANVIL_TEST_WARP_SECONDS").unwrap_or_else(|_| SECONDS.to_owned());
    let help = run(Command::new(find("warp")).args(["put", "--help"]));
    let with_checksums: &[&[&str]] =
        if help.contains("--checksum") { &[&[], &["--checksum", "CRC32C"]] } else { &[&[]] };
    for load in LOADS {
        for extra in with_checksums {
            let mut command = Command::new(find("warp"));
            command
                .current_dir(scratch.path())
                .args(load)
                .args(["--host", &node.address.to_string(), "--bucket", "warp", "--region", "us-east-1"])
                .args(["--access-key", &node.credentials.access_key, "--secret-key", &node.credentials.secret_key])
                .args(["--duration", &format!("{seconds}s"), "--concurrent", "4", "--no-color"])
                .args(*extra);
            let printed = until_it_ends(&mut command);
            let errors: Vec<&str> = printed.lines().filter(|line| line.to_lowercase().contains("error")).collect();
            assert!(errors.is_empty(), "warp {load:?} {extra:?}: {errors:?}");
            println!("warp {} {}: no error", load[0], extra.join(" "));
        }
    }
    node.stop();
}

/// What it printed. When it prepares objects with checksums, warp 1.3.1 now and then writes one map from two goroutines, and
/// Go ends it: no fault of the node, and it is begun again.
fn until_it_ends(command: &mut Command) -> String {
    for _ in 0..CRASHES_MAX {
        let output = command.output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || !complaint.contains("fatal error: concurrent map") {
            assert!(output.status.success(), "{command:?} ended with {}\n{complaint}", output.status);
            return String::from_utf8_lossy(&output.stdout).into_owned();
        }
        println!("warp crashed by itself: {}", complaint.lines().next().unwrap_or_default());
    }
    panic!("{command:?} crashes all the time");
}

const CRASHES_MAX: u32 = 8;
