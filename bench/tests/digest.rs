//! Goal: `anvil-bench digest` measures every case it was asked for, and says in one sentence what it cannot do. Method: the
//! real binary, for a moment. Figures of a debug build mean nothing, so only their sums are looked at.

use std::process::Command;

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anvil-bench"));
    command.arg("digest").args(arguments);
    command
}

#[test]
fn every_case_is_measured() {
    // All codes agree on the values, or the run fails.
    let output = bench(&["--lanes", "1,3,9", "--step", "1000", "--duration", "4s", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["host"]["kernel"].as_str().unwrap().contains('.'));
    let rows = report["rows"].as_array().unwrap();
    for algorithm in ["md5", "sha256", "sha1", "crc32", "crc32c", "crc64nvme", "blake3"] {
        for lanes in [1, 3, 9] {
            assert!(rows.iter().any(|row| row["algorithm"] == algorithm && row["lanes"] == lanes), "{algorithm}");
        }
    }
    for row in rows {
        let figure = |name: &str| row[name].as_f64().unwrap();
        assert!(figure("samples") >= 1.0, "{row}");
        let gigahertz = figure("gigabytes_per_second") * figure("cycles_per_byte");
        assert!(gigahertz > 0.0 && (gigahertz / figure("gigahertz") - 1.0).abs() < 1e-6, "{row}");
    }
}

#[test]
fn a_run_ends_in_its_time_and_prints_a_table() {
    let begun = std::time::Instant::now();
    let output = bench(&["--algorithm", "md5", "--code", "portable,md-5", "--duration", "3s"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    // Far below the default of a minute, however busy the machine is.
    assert!(begun.elapsed().as_secs() < 30);
    for title in ["machine ", "kernel ", "md5        portable ", "md5        md-5 "] {
        assert!(text.lines().any(|line| line.starts_with(title)), "{title}: {text}");
    }
}

#[test]
fn a_refusal_is_one_sentence() {
    for (arguments, says) in [
        (["--code", "abacus", "--lanes", "1"], "there is no `abacus` here, only server, "),
        (["--cpu", "99999", "--lanes", "1"], "may not use CPU 99999"),
        (["--step", "2MiB", "--lanes", "1"], "--step is not between"),
        (["--code", "ring", "--algorithm", "md5"], "none of these codes"),
    ] {
        let output = bench(&arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text.contains(says) && text.lines().count() == 1, "{arguments:?}: {text}");
    }
    for wrong in [["--lanes", "0"], ["--lanes", "65"], ["--algorithm", "md6"], ["--step", "x"]] {
        let output = bench(&wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}
