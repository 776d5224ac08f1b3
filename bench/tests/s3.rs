//! Goal: `anvil-bench s3` counts what happens and sees what goes wrong. Method: the real binary against a toy endpoint
//! in this process, which keeps objects in a map and can be told to misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Every GET has its last byte changed.
    Rot,
    /// Every PUT of an object is refused.
    Refuse,
}

/// Objects by path, and what was asked for.
#[derive(Default)]
struct Shelf {
    objects: BTreeMap<String, Vec<u8>>,
    requests: BTreeMap<String, u64>,
    content_sha256: Vec<String>,
}

struct Toy {
    address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
}

impl Toy {
    fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, shelf) = (listener.local_addr().unwrap(), Arc::<Mutex<Shelf>>::default());
        let served = Arc::clone(&shelf);
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shelf = Arc::clone(&served);
                std::thread::spawn(move || serve(stream.unwrap(), &shelf, fault));
            }
        });
        Self { address, shelf }
    }

    fn bench(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anvil-bench"));
        command.arg("s3").arg(format!("http://{}", self.address)).args(arguments);
        command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "very-secret");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.bench(arguments).output().unwrap()
    }

    fn report(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn serve(stream: TcpStream, shelf: &Mutex<Shelf>, fault: Fault) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let header = |name: &str| {
            lines[1..].iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
        };
        let mut body = vec![0; header("content-length").unwrap().parse().unwrap()];
        reader.read_exact(&mut body).ok()?;
        assert!(header("authorization").unwrap().starts_with("AWS4-HMAC-SHA256 Credential=a/"));
        let mut words = lines[0].split(' ');
        let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let is_object = path.trim_start_matches('/').contains('/') && !path.contains('?');
        let mut shelf = shelf.lock().unwrap();
        *shelf.requests.entry(method.clone()).or_default() += u64::from(is_object);
        let (status, answer) = match method.as_str() {
            "PUT" if is_object && fault == Fault::Refuse => (503, b"<Error><Code>SlowDown</Code></Error>".to_vec()),
            "PUT" => {
                shelf.content_sha256.push(header("x-amz-content-sha256").unwrap());
                shelf.objects.insert(path, body);
                (200, Vec::new())
            }
            "DELETE" => {
                shelf.objects.remove(&path);
                (204, Vec::new())
            }
            _ if path.contains("list-type=2") => {
                let keys = shelf.objects.keys().filter(|key| key.matches('/').count() > 1);
                (200, keys.map(|key| format!("<Key>{key}</Key>")).collect::<String>().into_bytes())
            }
            _ => match shelf.objects.get(&path) {
                None => (404, Vec::new()),
                Some(content) => {
                    let mut content = content.clone();
                    if fault == Fault::Rot
                        && let Some(last) = content.last_mut()
                    {
                        *last ^= 1;
                    }
                    (200, content)
                }
            },
        };
        drop(shelf);
        let mut bytes = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", answer.len()).into_bytes();
        if method != "HEAD" {
            bytes.extend_from_slice(&answer);
        }
        writer.write_all(&bytes).ok()?;
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
        let latency = ["p50", "p90", "p99", "p99.9", "max"].map(|name| row["latency_us"][name].as_u64().unwrap());
        assert!(latency.is_sorted() && latency[4] > 0, "{row}");
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
    for (promise, sent) in
        [("unsigned", "UNSIGNED-PAYLOAD"), ("trailer", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"), ("signed", "")]
    {
        toy.report(&["--operation", "put", "--payload", promise, "--size", "100k", "--count", "3"]);
        let said = toy.shelf.lock().unwrap().content_sha256.last().unwrap().clone();
        assert!(said == sent || (sent.is_empty() && said.len() == 64), "{promise}: {said}");
    }
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
        (&*format!("http://{}", toy.address), vec!["--operation", "put", "--size", "2GiB"], "at most 1 GiB"),
        (
            &*format!("http://{}", toy.address),
            vec!["--operation", "put", "--server-pid", "4294967295"],
            "--server-pid 4294967295 cannot be watched",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anvil-bench"));
        command.args(["s3", endpoint]).args(&arguments);
        let output = command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b").output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text.contains(says) && text.lines().count() == 1, "{arguments:?}: {text}");
    }
    let output = toy.bench(&["--operation", "get"]).env_remove("AWS_SECRET_ACCESS_KEY").output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("must be set"));
}
