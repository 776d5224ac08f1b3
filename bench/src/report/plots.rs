//! Which plots each suite's document gives.

use serde_json::Value;

use super::Document;
use super::chart::Chart;
use crate::units::show_size;

/// Suites whose documents are understood.
pub(super) const SUITES: &[&str] = &["disk", "ec", "store", "digest", "s3", "grpc", "compare", "net"];

/// All plots that have something to show.
pub(super) fn plots(document: &Document) -> Vec<Chart> {
    let value = &document.value;
    let charts = match &*document.suite {
        "disk" => disk(value),
        "ec" => ec(value),
        "store" => store(value),
        "digest" => digest(value),
        "s3" | "grpc" => s3(value),
        "compare" => compare(value),
        _ => net(value),
    };
    charts.into_iter().filter(|chart| !chart.is_empty()).collect()
}

fn lines(title: impl Into<String>, unit: &str) -> Chart {
    Chart { title: title.into(), unit: unit.to_owned(), ..Chart::default() }
}

fn bars(title: impl Into<String>, unit: &str) -> Chart {
    Chart { bars: true, ..lines(title, unit) }
}

fn on_logarithms(chart: Chart) -> Chart {
    Chart { logarithmic: true, ..chart }
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value["rows"].as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

fn size(value: &Value) -> String {
    show_size(value.as_u64().unwrap_or(0))
}

/// Puts a figure where there is one.
fn put(chart: &mut Chart, series: &str, place: &str, value: &Value, divided_by: f64) {
    if let Some(value) = value.as_f64() {
        chart.put(series, place, value / divided_by);
    }
}

const MIB: f64 = 1_048_576.0;
const PERCENTILES: [&str; 6] = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];

fn percentiles(chart: &mut Chart, series: &str, latency: &Value, divided_by: f64) {
    for percentile in PERCENTILES {
        put(chart, series, percentile, &latency[percentile], divided_by);
    }
}

fn disk(value: &Value) -> Vec<Chart> {
    let disks = || value["disks"].as_array().into_iter().flatten();
    let several = disks().count() > 1;
    let mut throughput = on_logarithms(lines("Throughput over the size of a block", "MiB/s"));
    let mut operations = on_logarithms(lines("Operations over the size of a block", "operations/s"));
    let mut cpu = on_logarithms(lines("CPU of an operation over the size of a block", "CPU us"));
    let mut latency = on_logarithms(lines("Latency", "us"));
    for disk in disks() {
        let of = if several { format!("{} {}: ", text(&disk["path"]), text(&disk["back_end"])) } else { String::new() };
        for row in rows(disk) {
            let series = format!("{of}{} {}, {} in flight", text(&row["order"]), text(&row["operation"]), row["depth"]);
            let place = size(&row["block_bytes"]);
            put(&mut throughput, &series, &place, &row["bytes_per_second"], MIB);
            put(&mut operations, &series, &place, &row["operations_per_second"], 1.0);
            put(&mut cpu, &series, &place, &row["cpu_us_per_operation"], 1.0);
            percentiles(&mut latency, &format!("{series}, {place}"), &row["latency_ns"], 1e3);
        }
    }
    vec![throughput, operations, cpu, latency]
}

fn ec(value: &Value) -> Vec<Chart> {
    let mut charts: Vec<Chart> = Vec::new();
    for row in rows(value) {
        let lost = row["lost"].as_u64().filter(|lost| *lost > 0);
        let lost = lost.map_or_else(String::new, |lost| format!(", {lost} lost"));
        let title = format!("{}{lost}, cells of {}", text(&row["operation"]), size(&row["cell_bytes"]));
        let index = charts.iter().position(|chart| chart.title == title).unwrap_or_else(|| {
            charts.push(bars(title, "GB/s of data cells"));
            charts.len() - 1
        });
        put(&mut charts[index], text(&row["library"]), text(&row["profile"]), &row["gigabytes_per_second"], 1.0);
    }
    charts
}

fn store(value: &Value) -> Vec<Chart> {
    let mut time = bars("A start", "seconds");
    for recovery in value["recoveries"].as_array().into_iter().flatten() {
        put(&mut time, "recovery", text(&recovery["from"]), &recovery["seconds"], 1.0);
    }
    vec![time]
}

fn digest(value: &Value) -> Vec<Chart> {
    let mut charts: Vec<Chart> = Vec::new();
    for row in rows(value) {
        let title = format!("{} over streams that go in step", text(&row["algorithm"]));
        let index = charts.iter().position(|chart| chart.title == title).unwrap_or_else(|| {
            charts.push(lines(title, "GB/s of all streams"));
            charts.len() - 1
        });
        put(&mut charts[index], text(&row["code"]), &row["lanes"].to_string(), &row["gigabytes_per_second"], 1.0);
    }
    charts
}

fn s3(value: &Value) -> Vec<Chart> {
    let mut latency = on_logarithms(lines("Latency", "us"));
    let mut first_byte = on_logarithms(lines("To the first byte", "us"));
    let mut operations = bars("Operations", "operations/s");
    for row in rows(value) {
        let operation = text(&row["operation"]);
        percentiles(&mut latency, operation, &row["latency_us"], 1.0);
        percentiles(&mut first_byte, operation, &row["first_byte_us"], 1.0);
        put(&mut operations, "operations", operation, &row["operations_per_second"], 1.0);
    }
    vec![latency, first_byte, operations]
}

fn compare(value: &Value) -> Vec<Chart> {
    const FIGURES: [(&str, &str, &str); 7] = [
        ("operations_per_second", "Operations", "operations/s"),
        ("mib_per_second", "Throughput", "MiB/s"),
        ("p99_us", "Latency, p99", "us"),
        ("cpu_us_per_operation", "CPU of an operation", "CPU us"),
        ("cpu_seconds_per_gib", "CPU of a GiB", "CPU s"),
        ("peak_resident_mib", "Peak memory", "MiB"),
        ("flushes_per_operation", "Flushes of an operation", "flushes"),
    ];
    let mut charts = Vec::new();
    for (name, title, unit) in FIGURES {
        let mut chart = on_logarithms(bars(format!("{title}, median of the rounds"), unit));
        for row in rows(value) {
            let series = format!("{} by {}", text(&row["server"]), text(&row["tool"]));
            put(&mut chart, &series, text(&row["load"]), &row["figures"][name]["value"]["median"], 1.0);
        }
        charts.push(chart);
    }
    charts
}

fn net(value: &Value) -> Vec<Chart> {
    let mut request = bars("CPU of a request", "CPU us");
    let mut byte = bars("CPU of a stream", "CPU ns per KiB");
    let mut latency = on_logarithms(lines("Latency of a request", "us"));
    for row in rows(value) {
        let connections = &row["connections"];
        let place = format!("{} {}, {connections} connections", text(&row["operation"]), size(&row["message_bytes"]));
        let runtime = text(&row["runtime"]);
        put(&mut request, runtime, &place, &row["cpu_us_per_request"]["median"], 1.0);
        put(&mut byte, runtime, &place, &row["cpu_ns_per_byte"]["median"], 1.0 / 1024.0);
        percentiles(&mut latency, &format!("{runtime}, {place}"), &row["latency_ns"], 1e3);
    }
    vec![request, byte, latency]
}
