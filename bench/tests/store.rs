//! Goal: `anvil-bench store` finds again what it appended, shows what it saw of every operation, and leaves nothing behind. Method:
//! the real binary, for a moment: blobs are so few that every step ends with the last of them, however busy the machine is.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{is_empty, leaves_nothing_when_interrupted, scratch};

mod support;

fn bench(paths: &[&Path]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anvil-bench"));
    command.arg("store").args(paths);
    command
}

/// The document of a run that has all the time it needs.
fn measured(paths: &[&Path], arguments: &[&str]) -> Value {
    let output = bench(paths).args(arguments).args(["--duration", "5m", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(paths.iter().all(|path| is_empty(path)));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn array<'a>(report: &'a Value, name: &str) -> &'a Vec<Value> {
    report[name].as_array().unwrap()
}

/// So many operations with blobs of this size, whose figures agree with each other.
fn check_measured(seen: &Value, operations: u64, blob_bytes: f64) {
    assert_eq!(seen["operations"], operations, "{seen}");
    let [seconds, rate, bytes] =
        ["seconds", "operations_per_second", "bytes_per_second"].map(|name| seen[name].as_f64().unwrap());
    assert!((rate * seconds - operations as f64).abs() < 1e-3, "{seen}");
    assert!((bytes - rate * blob_bytes).abs() <= bytes * 1e-6, "{seen}");
    let latency = ["p50", "p99", "max"].map(|name| seen["latency_ns"][name].as_u64().unwrap());
    // No disk does anything within a microsecond.
    assert!(latency.is_sorted() && latency[0] > 1000, "{seen}");
}

#[test]
fn both_ways_of_starting_find_everything() {
    let scratch = scratch();
    let arguments = ["--records", "3000", "--capacity", "1GiB", "--operation", "recover"];
    let report = measured(&[scratch.path()], &arguments);
    assert_eq!(report["appended"]["records"], 3000, "starting needs what is appended");
    let recoveries = array(&report, "recoveries");
    assert_eq!(recoveries.len(), 2);
    for recovery in recoveries {
        assert!(recovery["records"].as_u64().unwrap() >= 3000 && recovery["index_entries"] == 3000, "{recovery}");
    }
    assert_eq!(recoveries[1]["extents_scanned"], recoveries[1]["extents"], "no footer is left");
    assert!(array(&report, "reads").is_empty() && report["reclaim"].is_null(), "nobody asked for them");
}

#[test]
fn every_operation_is_measured_on_every_path() {
    let (one, two) = (scratch(), scratch());
    let report = measured(&[one.path(), two.path()], &["--records", "3000", "--size", "4000", "--capacity", "256MiB"]);
    let more = array(&report, "more_disks");
    assert_eq!((report["path"].as_str(), more.len()), (one.path().to_str(), 1));
    for disk in [&report, &more[0]] {
        check_measured(&disk["appended"], 3000, 4000.0);
        assert!(disk["appended"]["bytes"].as_u64().unwrap() > 3000 * 4000);
        assert_eq!(array(disk, "recoveries").len(), 2);
        let reads = array(disk, "reads");
        assert_eq!(reads.iter().map(|read| read["in_flight"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 32]);
        reads.iter().for_each(|read| check_measured(read, 3000, 4000.0));
        let commits = array(disk, "group_commits");
        assert_eq!(commits.iter().map(|commit| commit["writers"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 16, 256]);
        for commit in commits {
            check_measured(commit, 3000, 4000.0);
            // Each blob asks for one flush, alone or with others, and some may be of the store itself.
            let flushes = commit["flushes"].as_f64().unwrap();
            let asked = commit["per_flush"].as_f64().unwrap() * flushes;
            assert!(flushes >= 1.0 && (2999.0..3100.0).contains(&asked), "{commit}");
        }
        let alone = commits[0]["per_flush"].as_f64().unwrap();
        assert!((1.0..1.1).contains(&alone) && commits[2]["per_flush"].as_f64().unwrap() > alone, "{commits:?}");
        check_reclaim(&disk["reclaim"], 4000);
        assert!(disk["reclaim"]["moved_bytes"].as_u64().unwrap() > 0, "no extent dies wholly by itself");
    }
}

/// A disk's worth was overwritten, more was written than that, and all of it came back.
fn check_reclaim(reclaim: &Value, blob_bytes: u64) {
    let bytes = |name: &str| reclaim[name].as_u64().unwrap();
    let (capacity, payload) = (bytes("capacity_bytes"), bytes("payload_bytes"));
    assert_eq!(reclaim["used_up"], true);
    assert!(bytes("written_bytes") >= capacity, "{reclaim}");
    check_measured(reclaim, payload / blob_bytes, blob_bytes as f64);
    assert!(bytes("written_bytes") > payload + bytes("moved_bytes"), "{reclaim}");
    assert!(reclaim["write_amplification"].as_f64().unwrap() > 1.0, "{reclaim}");
    assert!(bytes("freed_bytes") > 0 && reclaim["freed_bytes_per_second"].as_f64().unwrap() > 0.0, "{reclaim}");
    let emptied = &reclaim["emptied"];
    assert!(emptied["bytes_per_second"].as_f64().unwrap() > 0.0, "{emptied}");
    let (back, left) = (emptied["bytes"].as_u64().unwrap(), emptied["used_bytes_after"].as_u64().unwrap());
    assert!(back > left && left < capacity / 4, "only open extents are in use: {emptied}");
}

#[test]
fn large_blobs_are_measured_too() {
    let scratch = scratch();
    // Two cells and a part of one.
    let size = (2 << 20) + 1000;
    let report = measured(&[scratch.path()], &["--records", "40", "--size", &size.to_string(), "--capacity", "256MiB"]);
    check_measured(&report["appended"], 40, size as f64);
    assert!(report["recoveries"][1]["records"].as_u64().unwrap() >= 3 * 40, "each has three cells");
    array(&report, "reads").iter().for_each(|read| check_measured(read, 40, size as f64));
    let writers: Vec<_> = array(&report, "group_commits").iter().map(|commit| commit["writers"].clone()).collect();
    assert_eq!(writers, [1], "more of them would not fit");
    check_reclaim(&report["reclaim"], size);
}

/// When appends end for want of room, the rest goes on with what is there.
#[test]
fn a_disk_that_is_too_small_is_measured_as_far_as_it_goes() {
    let scratch = scratch();
    let arguments = ["--records", "100000", "--size", "64KiB", "--capacity", "256MiB", "--operation", "read"];
    let report = measured(&[scratch.path()], &arguments);
    let records = report["appended"]["records"].as_u64().unwrap();
    assert!((1000..4000).contains(&records), "{records}");
    assert_eq!(array(&report, "reads").len(), 2);
}

#[test]
fn ctrl_c_ends_the_run_and_leaves_nothing() {
    let scratch = scratch();
    let arguments =
        ["--records", "100000000", "--capacity", "4GiB", "--operation", "group-commit", "--duration", "10m"];
    // The header comes when the directory is made.
    leaves_nothing_when_interrupted(bench(&[scratch.path()]).args(arguments), scratch.path(), |_| true);
}

#[test]
fn a_refusal_is_one_sentence() {
    let scratch = scratch();
    let path = scratch.path().to_str().unwrap();
    for (arguments, says) in [
        (vec!["/no/such/path"], "does not exist"),
        (vec![path, "--size", "0"], "--size is 0 B: take 1 byte to 16 MiB"),
        (vec![path, "--size", "17MiB"], "--size is 17 MiB: take 1 byte to 16 MiB"),
        (vec![path, "--capacity", "8MiB"], "--capacity is 8 MiB: take at least 256 MiB"),
        (vec![path, "--size", "8MiB", "--capacity", "256MiB"], "--capacity is 256 MiB: take at least 512 MiB"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_anvil-bench")).arg("store").args(&arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text.contains(says) && text.lines().count() == 1, "{arguments:?}: {text}");
    }
    assert!(is_empty(scratch.path()));
}
