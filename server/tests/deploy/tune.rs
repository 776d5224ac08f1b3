//! Goal: `anvil tune` tells the truth of this host, and changes nothing. Method: its own figures against the files that they
//! come from.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::node::{anvil, scratch};

fn tune(words: &[&str]) -> Output {
    let scratch = scratch();
    let mut command = Command::new(anvil());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANVIL_")) {
        command.env_remove(name);
    }
    command.arg("tune").args(words).arg("--disk").arg(scratch.path().join("disk"));
    command.output().expect("the binary can be started")
}

#[test]
fn a_host_is_compared_and_left_alone() {
    let read = |path: &str| fs::read_to_string(path).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let told = tune(&["check", "--json"]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    let find = |setting: &str| told.as_array().unwrap().iter().find(|row| row["setting"] == setting).unwrap();
    assert_eq!(find("kernel")["is"], read("/proc/sys/kernel/osrelease"));
    let backlog = "/proc/sys/net/core/somaxconn";
    let before = read(backlog);
    assert_eq!(find("net.core.somaxconn")["is"], before);
    let is_good = before.parse::<u64>().unwrap() >= 4096;
    assert_eq!(find("net.core.somaxconn")["verdict"], if is_good { "good" } else { "differs" });

    let differing = told.as_array().unwrap().iter().filter(|row| row["verdict"] == "differs").count();
    let strict = tune(&["check", "--strict"]);
    assert_eq!(strict.status.code(), Some(i32::from(differing > 0)));
    let script = tune(&["apply", "--dry-run"]);
    let script = String::from_utf8(script.stdout).unwrap();
    assert_eq!(script.lines().filter(|line| line.starts_with("# ")).count(), differing, "{script}");
    assert_eq!(read(backlog), before);
    assert_eq!(tune(&["apply"]).status.code(), Some(2), "nothing is applied by accident");
}
