//! The long command: what it was broken off in is done again, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const COUNT: &str = "60";

fn campaign(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anvil-sim"));
    command.args(["--from", "7", "--count", COUNT, "--slice", "10", "--jobs", "2", "--state"]).arg(state);
    command
}

/// Goal: a campaign that is killed at any moment comes to what an undisturbed one comes to. Method: both are run over the same
/// seeds; the sums and the trace of all histories are compared.
#[test]
fn a_campaign_goes_on_where_it_was_broken_off() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("campaign-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let (whole, broken) = (directory.join("whole"), directory.join("broken"));
    assert!(campaign(&whole).stdout(Stdio::null()).status().unwrap().success());

    let mut first = campaign(&broken).stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while !broken.exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "ten histories take too long");
        std::thread::sleep(Duration::from_millis(5));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    let output = campaign(&broken).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("histories are done; going on with --from"), "{told}");
    assert_eq!(fs::read_to_string(&broken).unwrap(), fs::read_to_string(&whole).unwrap());
    fs::remove_dir_all(&directory).unwrap();
}
