//! Goal: `anvil-bench s3` counts what happens and sees what goes wrong. Method: the real binary against a toy endpoint
//! in this process.

mod toy;

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use toy::{Fault, Toy};

trait Bench {
    fn bench(&self, arguments: &[&str]) -> Command;

    fn run(&self, arguments: &[&str]) -> Output {
        self.bench(arguments).output().unwrap()
    }

    fn report(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Bench for Toy {
    fn bench(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anvil-bench"));
        command.arg("s3").arg(format!("http://{}", self.address)).args(arguments);
        command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "very-secret");
        command
    }
}

fn row<'a>(report: &'a serde_json::Value, operation: &str) -> &'a serde_json::Value {
    report["rows"].as_array().unwrap().iter().find(|row| row["operation"] == operation).unwrap()
}

#[test]
fn every_operation_is_counted_once_and_nothing_stays() {
    let toy = Toy::start(Fault::None);
    let mix = "get=45,head=30,put=15,delete=10,list=5";
    let pid = std::process::id().to_string();
    let arguments = ["--operation", mix, "--size", "10k", "--objects", "20", "--count", "500", "--connections", "4"];
    let report = toy.report(&[&arguments[..], &["--server-pid", &pid]].concat());
    let counted: u64 = report["rows"].as_array().unwrap().iter().map(|row| row["operations"].as_u64().unwrap()).sum();
    assert_eq!(counted, 500);
    for operation in ["get", "head", "put", "delete", "list"] {
        let row = row(&report, operation);
        let count = row["operations"].as_u64().unwrap();
        assert!(count > 0 && row["errors"].as_object().unwrap().is_empty(), "{row}");
        let latency =
            ["p50", "p90", "p99", "p99.9", "p99.99", "max"].map(|name| row["latency_us"][name].as_u64().unwrap());
        assert!(latency.is_sorted() && latency[5] > 0, "{row}");
        if matches!(operation, "get" | "put") {
            assert_eq!(row["bytes"], count * 10240);
        }
    }
    assert!(
        row(&report, "list")["objects_per_second"].as_f64() > row(&report, "list")["operations_per_second"].as_f64()
    );
    assert!(report["server"]["cpu_us_per_operation"].as_f64().unwrap() >= 0.0);
    let shelf = toy.shelf.lock().unwrap();
    assert_eq!(shelf.requests["PUT"], 20 + row(&report, "put")["operations"].as_u64().unwrap());
    assert_eq!(shelf.requests["GET"], row(&report, "get")["operations"].as_u64().unwrap());
    assert_eq!(shelf.objects.keys().collect::<Vec<_>>(), ["/anvil-bench"], "only the bucket stays");
}

#[test]
fn each_promise_is_sent_as_such() {
    let toy = Toy::start(Fault::None);
    for (promise, sent) in [
        ("unsigned", "UNSIGNED-PAYLOAD"),
        ("trailer", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ("signed-chunks", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("signed-trailer", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
        ("signed", ""),
    ] {
        toy.report(&["--operation", "put", "--payload", promise, "--size", "100k", "--count", "3"]);
        let said = toy.shelf.lock().unwrap().content_sha256.last().unwrap().clone();
        assert!(said == sent || (sent.is_empty() && said.len() == 64), "{promise}: {said}");
    }
}

#[test]
fn objects_of_several_sizes_go_in_parts_and_come_back() {
    let toy = Toy::start(Fault::None);
    // The middle one ends with a part, the largest in one.
    let sizes = "1k=1,5MiB=1,11MiB=1";
    let arguments = ["--size", sizes, "--part-size", "5MiB", "--prefix", "p/", "--duration", "60s"];
    let put = toy.report(&[&arguments[..], &["--operation", "multipart", "--count", "12", "--keep"]].concat());
    assert_eq!(
        (row(&put, "multipart")["operations"].as_u64(), &put["rows"][0]["errors"]),
        (Some(12), &serde_json::json!({}))
    );
    {
        let shelf = toy.shelf.lock().unwrap();
        assert!(shelf.parts.is_empty());
        let mut lengths: Vec<usize> = shelf.objects.values().map(Vec::len).filter(|length| *length > 0).collect();
        lengths.sort_unstable();
        lengths.dedup();
        assert_eq!(lengths, [1 << 10, 5 << 20, 11 << 20]);
    }
    // Each is compared with what it was: its size is known from its number.
    let reads = ["--operation", "get", "--prepared", "--objects", "12", "--count", "30"];
    let got = toy.report(&[&arguments[..], &reads].concat());
    assert_eq!(
        (row(&got, "get")["operations"].as_u64(), &got["rows"][0]["errors"]),
        (Some(30), &serde_json::json!({}))
    );
    assert_eq!(toy.shelf.lock().unwrap().objects.len(), 1, "prepared ones are deleted too");
}

/// A server that stalls answers a closed loop's few waiting requests late; those that would have come meanwhile do not come,
/// and are not seen to wait. At a rate they do.
#[test]
fn at_a_rate_a_stall_is_seen_by_all_who_would_have_come() {
    let slow = |report: &serde_json::Value| row(report, "put")["latency_us"]["p90"].as_u64().unwrap() > 100_000;
    let arguments = ["--operation", "put", "--size", "100", "--connections", "2"];
    // 50 operations are due within the half second, of 200: a quarter of all.
    let open = Toy::start(Fault::Stall).report(&[&arguments[..], &["--rate", "100", "--duration", "2s"]].concat());
    assert!(slow(&open), "{open}");
    let (done, left) = (row(&open, "put")["operations"].as_u64().unwrap(), open["not_begun"].as_u64().unwrap());
    assert!((198..=201).contains(&(done + left)), "{done} and {left} of 200");
    assert!(row(&open, "put")["late_us"]["max"].as_u64().unwrap() > 100_000);
    let closed = Toy::start(Fault::Stall).report(&[&arguments[..], &["--count", "200"]].concat());
    assert!(!slow(&closed), "{closed}");
    assert!(row(&closed, "put")["late_us"].is_null() && closed["not_begun"] == 0);
}

#[test]
fn what_goes_wrong_is_seen() {
    let toy = Toy::start(Fault::Rot);
    let output = toy.run(&["--operation", "get", "--size", "1k", "--objects", "2", "--count", "10"]);
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(out.contains("10 get: other bytes than were put"), "{out}");
    assert_eq!((output.status.code(), err.as_str()), (Some(1), "anvil-bench: no operation succeeded\n"));
    assert!(!out.contains("very-secret"));

    let toy = Toy::start(Fault::Refuse);
    let output = toy.run(&["--operation", "put", "--size", "1k", "--count", "10"]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("10 put: 503 SlowDown"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn ctrl_c_ends_the_run_with_what_it_has_seen_and_leaves_nothing() {
    let toy = Toy::start(Fault::None);
    let arguments = ["--operation", "put", "--size", "1k", "--duration", "10m"];
    let run = toy.bench(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    while toy.shelf.lock().unwrap().objects.len() < 10 {
        std::thread::yield_now();
    }
    kill(Pid::from_raw(i32::try_from(run.id()).unwrap()), Signal::SIGINT).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8(output.stdout).unwrap().contains("\nput "));
    assert_eq!(toy.shelf.lock().unwrap().objects.len(), 1);
}

#[test]
fn a_refusal_is_one_sentence() {
    let toy = Toy::start(Fault::None);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (endpoint, arguments, says) in [
        ("https://localhost", vec!["--operation", "get"], "must begin with http://"),
        (&*format!("http://{nobody}"), vec!["--operation", "get"], "cannot connect to"),
        (&*format!("http://{}", toy.address), vec!["--operation", "get,get"], "is there twice"),
        (&*format!("http://{}", toy.address), vec!["--operation", "put=0"], "has a share of 0"),
        (&*format!("http://{}", toy.address), vec!["--operation", "put", "--bucket", "a/b"], "not a bucket's name"),
        (&*format!("http://{}", toy.address), vec!["--operation", "multipart", "--part-size", "1k"], "at least 5 MiB"),
        (&*format!("http://{}", toy.address), vec!["--operation", "put", "--duration", "0"], "--duration is zero"),
        (
            &*format!("http://{}", toy.address),
            vec!["--operation", "put", "--server-pid", "4294967295"],
            "4294967295 cannot be watched",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anvil-bench"));
        command.args(["s3", endpoint]).args(&arguments);
        let output = command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b").output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text.contains(says) && text.lines().count() == 1, "{arguments:?}: {text}");
    }
    for wrong in [["--size", "2GiB"], ["--size", "4k=0"], ["--rate", "0"], ["--rate", "fast"]] {
        let output = toy.run(&[&["--operation", "put"], &wrong[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    let output = toy.bench(&["--operation", "get"]).env_remove("AWS_SECRET_ACCESS_KEY").output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("must be set"));
}
