//! Goal: `anvil-bench ec` measures every case it was asked for, and says in one sentence what it cannot do. Method: the
//! real binary, for a moment. Figures of a debug build mean nothing, so only their sums are looked at.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anvil-bench"));
    command.arg("ec").args(arguments);
    command
}

#[test]
fn every_case_is_measured() {
    // With all libraries that there are; each is compared with what was lost before it is timed.
    let arguments = ["--profile", "2+1,4+2", "--cell", "4KiB,64", "--duration", "4s", "--json"];
    let output = bench(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["host"]["kernel"].as_str().unwrap().contains('.'));
    let libraries = report["libraries"].as_array().unwrap();
    assert!(libraries.contains(&"naive".into()) && libraries.contains(&report["kernel"]), "{libraries:?}");
    let rows = report["rows"].as_array().unwrap();
    // Of 2+1: encode, one lost, verify; of 4+2 two lost besides; each with two cells.
    assert_eq!(rows.len(), libraries.len() * 2 * (3 + 4));
    for row in rows {
        let figure = |name: &str| row[name].as_f64().unwrap();
        assert!(figure("samples") >= 1.0, "{row}");
        let gigahertz = figure("gigabytes_per_second") * figure("cycles_per_byte");
        assert!(gigahertz > 0.0 && (gigahertz / figure("gigahertz") - 1.0).abs() < 1e-6, "{row}");
    }
}

#[test]
fn a_run_ends_in_its_time_and_prints_tables() {
    let begun = std::time::Instant::now();
    let arguments = ["--profile", "2+2", "--cell", "4KiB", "--library", "naive", "--duration", "500ms"];
    let output = bench(&arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    // Far below the default of a minute, however busy the machine is.
    assert!(begun.elapsed().as_secs() < 30);
    for title in ["machine ", "kernel ", "encode ", "rebuild 1 lost ", "rebuild 2 lost ", "verify "] {
        assert!(text.lines().any(|line| line.starts_with(title)), "{title}: {text}");
    }
}

#[test]
fn ctrl_c_prints_what_was_seen() {
    let arguments = ["--profile", "2+1", "--cell", "4KiB", "--library", "naive", "--duration", "10m"];
    let mut run = bench(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("figures ")));
    kill(Pid::from_raw(i32::try_from(run.id()).unwrap()), Signal::SIGINT).unwrap();
    // The last line: how many samples there were, if the signal left time for one.
    let last = lines.map(Result::unwrap).last().unwrap();
    assert!(last.contains("samples in each place") || last.contains("Nothing was measured"), "{last}");
    assert_eq!(run.wait().unwrap().code(), Some(130));
}

#[test]
fn a_refusal_is_one_sentence() {
    for (arguments, says) in [
        (["--profile", "4+0"], "4+0 has no parity"),
        (["--cpu", "99999"], "may not use CPU 99999"),
        (["--library", "abacus"], "there is no `abacus` here, only naive"),
    ] {
        let output = bench(&arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text.contains(says) && text.lines().count() == 1, "{arguments:?}: {text}");
    }
    for wrong in [["--profile", "17+1"], ["--cell", "100"], ["--cell", "2MiB"], ["--cell", "0"]] {
        let output = bench(&wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}
