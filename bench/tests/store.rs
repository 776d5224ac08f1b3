//! Goal: `anvil-bench store` finds again what it appended, and leaves nothing behind. Method: the real binary, for a moment.

use std::fs;
use std::process::Command;

#[test]
fn both_ways_of_starting_find_everything() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_anvil-bench"))
        .arg("store")
        .arg(scratch.path())
        .args(["--records", "3000", "--capacity", "1GiB", "--duration", "1m", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["appended"]["records"], 3000);
    let recoveries = report["recoveries"].as_array().unwrap();
    assert_eq!(recoveries.len(), 2);
    for recovery in recoveries {
        assert!(recovery["records"].as_u64().unwrap() >= 3000 && recovery["index_entries"] == 3000, "{recovery}");
    }
    assert_eq!(recoveries[1]["extents_scanned"], recoveries[1]["extents"], "no footer is left");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}
