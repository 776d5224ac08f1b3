//! What a command of the `anvil` binary said.

use std::process::Output;

/// What it printed, having done as asked.
#[track_caller]
pub fn told(output: Output) -> String {
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The one sentence of a failure.
#[track_caller]
pub fn complaint(output: &Output, code: i32) -> String {
    let sentence = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{sentence}");
    assert!(sentence.starts_with("anvil: ") && sentence.trim_end().lines().count() == 1, "{sentence}");
    sentence
}
