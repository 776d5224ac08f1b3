//! Goal: `anvil-bench disk` measures what it says and leaves nothing behind. Method: the real binary, for a moment, on a
//! directory of the target's file system.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{is_empty, leaves_nothing_when_interrupted, scratch};

mod support;

fn bench(paths: &[&Path]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anvil-bench"));
    command.arg("disk").args(paths).args(["--size", "64MiB", "--block-size", "4KiB,1MiB", "--depth", "1,8"]);
    command
}

#[test]
fn every_phase_is_measured_on_every_path() {
    let (one, two) = (scratch(), scratch());
    let output = bench(&[one.path(), two.path()]).args(["--duration", "9s", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["host"]["kernel"].as_str().unwrap().contains('.'));
    let disks = report["disks"].as_array().unwrap();
    assert_eq!(disks.len(), 2);
    for disk in disks {
        assert_eq!(disk["size_bytes"], 64 << 20);
        let rows = disk["rows"].as_array().unwrap();
        let combinations = 2 * 2 * 2;
        assert_eq!(rows.len(), (2 + 2) * combinations + 2, "read, write, both at once; flush and durable write");
        for row in rows {
            let (operations, seconds) = (row["operations"].as_f64().unwrap(), row["seconds"].as_f64().unwrap());
            let rate = row["operations_per_second"].as_f64().unwrap();
            assert!((rate - operations / seconds).abs() <= rate * 1e-6, "{row}");
            if operations > 0.0 {
                let latency = ["p50", "p90", "p99", "p99.9", "p99.99", "max"]
                    .map(|name| row["latency_ns"][name].as_u64().unwrap());
                assert!(latency.is_sorted() && latency[0] > 0, "{row}");
                assert!(row["cpu_us_per_operation"].as_f64().unwrap() > 0.0, "{row}");
                let buckets = row["histogram_ns"].as_array().unwrap();
                let counted: u64 = buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum();
                assert_eq!(counted, row["operations"].as_u64().unwrap(), "{row}");
            }
        }
        assert!(rows.iter().any(|row| row["operations"].as_u64().unwrap() > 0));
    }
    assert!(is_empty(one.path()) && is_empty(two.path()));
}

#[test]
fn every_back_end_does_the_same() {
    let scratch = scratch();
    let mut back_ends = vec!["uring", "uring-unregistered", "blocking"];
    back_ends.extend(cfg!(feature = "glommio").then_some("glommio"));
    back_ends.extend(cfg!(feature = "monoio").then_some("monoio"));
    let arguments = ["--back-end", &back_ends.join(","), "--order", "random", "--duration", "8s", "--json"];
    let output = bench(&[scratch.path()]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (index, back_end) in back_ends.iter().enumerate() {
        let disk = &report["disks"][index];
        assert_eq!(disk["back_end"], *back_end);
        // The others have none that could be registered, but glommio's.
        assert!(matches!(*back_end, "uring" | "glommio") || disk["buffers_registered"] == false, "{back_end}");
        let rows = disk["rows"].as_array().unwrap();
        assert!(rows.len() == 18 && rows.iter().any(|row| row["operations"].as_u64().unwrap() > 0), "{back_end}");
    }
    assert!(is_empty(scratch.path()));
}

#[test]
fn ctrl_c_ends_the_run_and_leaves_nothing() {
    let scratch = scratch();
    // The disk's line comes when it is filled: then the measuring begins.
    let tells = |line: &str| line.starts_with("disk ");
    leaves_nothing_when_interrupted(bench(&[scratch.path()]).args(["--duration", "10m"]), scratch.path(), tells);
}

#[test]
fn a_refusal_is_one_sentence() {
    let scratch = scratch();
    let file = scratch.path().join("file");
    fs::write(&file, "mine").unwrap();
    for (arguments, says) in [
        (vec![file.to_str().unwrap()], "is not a directory"),
        (vec!["/no/such/path"], "does not exist"),
        (vec![scratch.path().to_str().unwrap(), "--cpu", "99999"], "may not use CPU 99999"),
        (vec![scratch.path().to_str().unwrap(), "--size", "4KiB"], "--size is smaller"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_anvil-bench")).arg("disk").args(&arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text.contains(says) && text.lines().count() == 1, "{arguments:?}: {text}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}
