//! Goal: `anvil-bench net` measures every case with every runtime, and ends what it started. Method: the real binary, for a
//! moment, over loopback. Figures of a debug build mean nothing, so only their sums are looked at.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anvil-bench"));
    command.arg("net").args(arguments);
    command
}

#[test]
fn every_case_is_measured_with_every_runtime() {
    let arguments = ["--runtime", "anvil,threads", "--size", "200,100000", "--connections", "1,4", "--rounds", "1"];
    let output = bench(&arguments).args(["--duration", "3s", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    // Two sizes of echo, and two streams; on one connection and on four; by two runtimes.
    assert_eq!(rows.len(), 4 * 2 * 2);
    for row in rows {
        let (rate, bytes) = (row["messages_per_second"].as_f64().unwrap(), row["bytes_per_second"].as_f64().unwrap());
        assert!(rate > 0.0 && bytes > 0.0, "{row}");
        let is_echo = row["operation"] == "echo";
        if is_echo {
            let size = row["message_bytes"].as_f64().unwrap();
            assert!((bytes / rate / size - 1.0).abs() < 1e-6, "{row}");
        }
        assert_eq!(is_echo, row["cpu_ns_per_byte"].is_null() && !row["cpu_us_per_request"].is_null(), "{row}");
    }
}

#[test]
fn a_server_on_another_host_is_measured_until_it_is_ended() {
    let mut server = bench(&["--listen", "127.0.0.1:0", "--duration", "10m"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap();
    let arguments = ["--connect", address, "--connections", "2", "--rounds", "1", "--duration", "1s", "--json"];
    let output = bench(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["rows"].as_array().unwrap().len(), 3);
    assert!(report["rows"].as_array().unwrap().iter().all(|row| row["runtime"] == "anvil"));
    kill(Pid::from_raw(i32::try_from(server.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(130));
    let output = bench(&["--connect", address]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("nobody serves at") && text.lines().count() == 1, "{text}");
}
