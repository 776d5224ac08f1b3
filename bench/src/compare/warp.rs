//! MinIO's `warp`, where it is installed: another client's view of the same load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::Load;
use super::server::{Running, on_path};
use crate::s3::{Operation, Plan, Promise};
use crate::units;

/// Where it is.
///
/// # Errors
/// When it is not on the PATH.
pub(super) fn find() -> anyhow::Result<PathBuf> {
    on_path("warp").context("`warp` is not on the PATH, and --warp drives it")
}

/// What it printed, as far as it is used here.
#[derive(Clone, Debug, Deserialize)]
struct Printed {
    total: Total,
    #[serde(default)]
    by_op_type: std::collections::BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct Total {
    total_requests: u64,
    total_errors: u64,
    total_bytes: u64,
    start_time: String,
    end_time: String,
    throughput: Throughput,
}

/// Of the time that it counts: it leaves out the beginning and the end.
#[derive(Clone, Debug, Deserialize)]
struct Throughput {
    #[serde(default)]
    measure_duration_millis: u64,
    #[serde(default)]
    bytes: f64,
    #[serde(default)]
    ops: f64,
}

/// A load as warp saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) operations: u64,
    pub(super) errors: u64,
    pub(super) bytes: u64,
    pub(super) operations_per_second: f64,
    pub(super) bytes_per_second: f64,
    /// The slowest of those that it gives for each kind of operation and stretch of time. None when it gives none.
    pub(super) p99_us: Option<f64>,
}

/// Runs it for half of `time`; the rest is for what it prepares and removes.
pub(super) fn drive(
    program: &Path,
    running: &Running,
    load: &Load,
    plan: &Plan,
    home: PathBuf,
    time: Duration,
) -> anyhow::Result<Seen> {
    let [choice] = load.sizes.choices() else { bail!("warp takes one size, and {} has several", load.name) };
    let kind = match &load.mix[..] {
        [(Operation::Put, _)] => "put",
        [(Operation::Get, _)] => "get",
        [(Operation::Head, _)] => "stat",
        [(Operation::List, _)] => "list",
        [(Operation::Delete, _)] => "delete",
        [(Operation::Multipart, _)] => "multipart-put",
        _ => "mixed",
    };
    fs::create_dir_all(&home)?;
    let mut command = Command::new(program);
    command.args([kind, "--json", "--no-color", "--bucket", "warp", "--region", &running.access.region]);
    command.args(["--duration", &format!("{}s", (time.as_secs() / 2).max(2))]);
    command.args(["--concurrent", &plan.connections.to_string()]);
    match kind {
        "multipart-put" => {
            let parts = choice.bytes.div_ceil(plan.part_bytes).max(1);
            command.args(["--parts", &parts.to_string(), "--part.size", &plan.part_bytes.to_string()]);
        }
        _ => {
            command.args(["--obj.size", &choice.bytes.to_string()]);
            if kind != "put" {
                command.args(["--objects", &plan.objects.to_string()]);
            }
        }
    }
    // Signed chunks are what it does without a flag.
    if plan.payload == Promise::Unsigned && matches!(kind, "put" | "mixed" | "multipart-put") {
        command.arg("--disable-sha256-payload");
    }
    command.env("WARP_HOST", running.address.to_string());
    command.env("WARP_ACCESS_KEY", &running.access.access_key).env("WARP_SECRET_KEY", &running.access.secret_key);
    let output = command.current_dir(&home).stdin(Stdio::null()).output().context("warp cannot be run")?;
    ensure!(
        output.status.success(),
        "warp has failed: {}",
        String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it does not say why")
    );
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).with_context(|| {
        format!("what warp printed for {} of {} is not understood", kind, units::show_size(choice.bytes))
    })
}

/// Its one JSON document; lines for people may stand around it.
fn parse(text: &str) -> anyhow::Result<Seen> {
    let start = text.find("\n{").map_or_else(|| text.find('{'), |at| Some(at + 1)).context("there is no JSON")?;
    let document = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Printed>().next();
    let Printed { total, by_op_type } = document.context("there is no JSON")??;
    let mut p99_millis = Vec::new();
    by_op_type.values().for_each(|operation| collect(operation, "dur_99_millis", &mut p99_millis));
    let p99_us = p99_millis.into_iter().reduce(f64::max).map(|millis| millis * 1000.0);
    let Throughput { measure_duration_millis, bytes, ops } = total.throughput;
    #[expect(clippy::cast_precision_loss, reason = "figures are shown with a few digits")]
    let (seconds, operations, moved) = if measure_duration_millis > 0 {
        (measure_duration_millis as f64 / 1e3, ops, bytes)
    } else {
        // A short run: it has left out all of it.
        let moment = |text: &str| text.parse::<jiff::Timestamp>().context("warp's times have another form");
        let seconds = moment(&total.end_time)?.duration_since(moment(&total.start_time)?).as_secs_f64();
        (seconds, total.total_requests as f64, total.total_bytes as f64)
    };
    let per_second = |sum: f64| if seconds > 0.0 { sum / seconds } else { 0.0 };
    Ok(Seen {
        operations: total.total_requests,
        errors: total.total_errors,
        bytes: total.total_bytes,
        operations_per_second: per_second(operations),
        bytes_per_second: per_second(moved),
        p99_us,
    })
}

/// Every number of this name, wherever it stands.
fn collect(value: &Value, name: &str, found: &mut Vec<f64>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                match value.as_f64() {
                    Some(number) if field == name => found.push(number),
                    _ => collect(value, name, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, name, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(measured_millis: u64) -> String {
        format!(
            r#"warp: Preparing
{{"v": 2, "total": {{"total_requests": 30, "total_errors": 1, "total_bytes": 3000, "concurrency": 4,
  "start_time": "2026-11-21T22:42:10.5Z", "end_time": "2026-11-21T22:42:13.5+00:00",
  "throughput": {{"measure_duration_millis": {measured_millis}, "bytes": 1000, "objects": 10, "ops": 10}}}},
 "by_op_type": {{"PUT": {{"requests_by_client": {{"a": [{{"single_sized_requests": {{"dur_99_millis": 7}}}},
  {{"single_sized_requests": {{"dur_99_millis": 9.5, "first_byte": null}}}}]}}}}}}}}
Cleanup done
"#
        )
    }

    #[test]
    fn what_warp_prints_is_read() {
        let seen = parse(&printed(2000)).unwrap();
        assert_eq!((seen.operations, seen.errors, seen.bytes), (30, 1, 3000));
        assert_eq!((seen.operations_per_second, seen.bytes_per_second), (5.0, 500.0));
        assert_eq!(seen.p99_us, Some(9500.0));
        // It leaves out the beginning and the end, and so all of a short run.
        assert_eq!(parse(&printed(0)).unwrap().operations_per_second, 10.0);
        assert!(parse("warp: nothing").is_err());
    }
}
