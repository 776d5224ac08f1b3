//! Goal: `anvil-bench grpc` counts what happens and sees what goes wrong, the same with the peer of tonic as with a node. Method: the
//! real binary against itself as the peer, and against the node that `ANVIL_TEST_BINARY` names, where it names one.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

/// A server in a process of its own, ended when dropped.
struct Server {
    process: Child,
    endpoint: String,
    access_key: String,
    secret_key: String,
}

impl Server {
    fn peer() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anvil-bench"));
        command.args(["grpc-peer", "--listen", "127.0.0.1:0", "--size-max", "4MiB", "--duration", "10m"]);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let endpoint = format!("http://{}", line.trim().strip_prefix("listening on ").unwrap());
        Self { process, endpoint, access_key: "somebody".to_owned(), secret_key: "very-secret".to_owned() }
    }

    /// `anvil dev`, which prints its credentials when it serves.
    fn node(binary: &Path, data_dir: &Path) -> Self {
        let mut command = Command::new(binary);
        command.args(["dev", "--http-bind-addr", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
        // All runs ask for a token from one address.
        command.envs([("ANVIL_LIMIT_ANONYMOUS", "off"), ("ANVIL_LIMIT_LOGINS", "off")]);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let names = ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        let mut values = [const { None }; 3];
        for line in BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok) {
            let Some(assignments) = line.trim().strip_prefix("export ") else { continue };
            for (name, value) in assignments.split_whitespace().filter_map(|assignment| assignment.split_once('=')) {
                if let Some(at) = names.iter().position(|other| *other == name) {
                    values[at] = Some(value.trim_matches(['\'', '"']).to_owned());
                }
            }
            if values.iter().all(Option::is_some) {
                break;
            }
        }
        let [endpoint, access_key, secret_key] = values.map(|value| value.expect("a node prints them"));
        Self { process, endpoint, access_key, secret_key }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anvil-bench"));
        command.args(["grpc", &self.endpoint]).args(arguments);
        command.env("AWS_ACCESS_KEY_ID", &self.access_key).env("AWS_SECRET_ACCESS_KEY", &self.secret_key);
        let output = command.output().unwrap();
        let said = [&output.stdout[..], &output.stderr].concat();
        assert!(!String::from_utf8_lossy(&said).contains(&self.secret_key), "the secret is shown");
        output
    }

    fn report(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a run that has no success says of its errors.
    fn failure(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The peer, and a node where there is one.
fn with_each_server(test: impl Fn(&Server)) {
    test(&Server::peer());
    match std::env::var_os("ANVIL_TEST_BINARY") {
        None => println!("ANVIL_TEST_BINARY names no node: only the peer was asked"),
        Some(binary) => {
            let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            test(&Server::node(binary.as_ref(), &data.path().join("node")));
        }
    }
}

#[test]
fn every_operation_is_counted_once_and_nothing_stays() {
    with_each_server(|server| {
        let pid = server.process.id().to_string();
        // Bytes and objects that each moves. Chunks, ranges and windows are crossed, and sizes end within them.
        for (operation, size, bytes, objects) in [
            ("get-object", "2500001", 2_500_001, 1),
            ("bidi-read", "2500001", 20 * 70_001, 20),
            ("write-object", "2500001", 2_500_001, 1),
            ("write-object", "0", 0, 1),
            ("head-object", "4KiB", 0, 1),
            ("batch-get", "4KiB", 7 * 4096, 7),
            ("put-object", "4KiB", 4096, 1),
            ("delete-object", "4KiB", 0, 1),
        ] {
            let report = server.report(&[
                "--operation",
                operation,
                "--size",
                size,
                "--objects",
                "40",
                "--count",
                "40",
                "--connections",
                "2",
                "--streams",
                "5",
                "--ranges",
                "20",
                "--range-size",
                "70001",
                "--batch",
                "7",
                "--chunk-size",
                "400KiB",
                "--server-pid",
                &pid,
            ]);
            let rows = report["rows"].as_array().unwrap();
            assert_eq!((rows.len(), &rows[0]["operation"]), (1, &json!(operation)), "{report}");
            let (row, seconds) = (&rows[0], report["seconds"].as_f64().unwrap());
            assert_eq!((row["operations"].as_u64(), &row["errors"]), (Some(40), &json!({})), "{report}");
            assert_eq!(row["bytes"].as_u64(), Some(40 * bytes), "{report}");
            let counted = row["objects_per_second"].as_f64().unwrap() * seconds;
            assert!((counted - f64::from(40 * objects)).abs() < 0.01, "{report}");
            assert!(report["server"]["cpu_us_per_operation"].as_f64().unwrap() >= 0.0);
            let gone =
                server.failure(&["--operation", "head-object", "--prepared", "--objects", "40", "--count", "40"]);
            assert!(gone.contains("40 head-object: NOT_FOUND"), "{gone}");
        }
    });
}

#[test]
fn mixes_sizes_and_rates_go_together() {
    with_each_server(|server| {
        let mix = "get-object=40,head-object=30,batch-get=10,put-object=10,write-object=5,delete-object=5";
        let arguments = ["--operation", mix, "--size", "1k=1,100k=1,1MiB=1", "--objects", "20", "--batch", "3"];
        let report = server.report(&[&arguments[..], &["--streams", "4", "--count", "400"]].concat());
        let rows = report["rows"].as_array().unwrap();
        assert!(rows.len() == 6 && rows.iter().all(|row| row["errors"] == json!({})), "{report}");
        assert_eq!(rows.iter().map(|row| row["operations"].as_u64().unwrap()).sum::<u64>(), 400);

        let arguments = ["--operation", "put-object", "--size", "10", "--rate", "100", "--duration", "2s"];
        let open = server.report(&arguments);
        let (done, left) = (open["rows"][0]["operations"].as_u64().unwrap(), open["not_begun"].as_u64().unwrap());
        assert!((198..=201).contains(&(done + left)), "{done} and {left} of 200");
        assert!(!open["rows"][0]["late_us"].is_null());
    });
}

#[test]
fn other_bytes_than_were_put_are_seen() {
    with_each_server(|server| {
        let at = ["--prefix", "rot/", "--objects", "2", "--count", "2"];
        server.report(&[&["--operation", "put-object", "--size", "300k", "--keep"], &at[..]].concat());
        for operation in ["get-object", "batch-get"] {
            let arguments = ["--operation", operation, "--size", "200k", "--prepared", "--keep"];
            let said = server.failure(&[&arguments[..], &at].concat());
            assert!(said.contains(&format!("2 {operation}: other bytes than were put")), "{said}");
        }
        // The ranges that the larger object would have, and this one has not.
        let arguments = ["--operation", "bidi-read", "--size", "1MiB", "--range-size", "500k", "--prepared", "--keep"];
        let said = server.failure(&[&arguments[..], &at].concat());
        assert!(said.contains("2 bidi-read: "), "{said}");
    });
}

#[test]
fn a_refusal_is_one_sentence() {
    let server = Server::peer();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{nobody}");
    for (endpoint, arguments, says) in [
        ("https://localhost", &["--operation", "get-object"][..], "must begin with http://"),
        (&*nobody, &["--operation", "get-object"], "cannot be used: connection: "),
        (&*server.endpoint, &["--operation", "get-object,get-object"], "is there twice"),
        (&*server.endpoint, &["--operation", "put-object", "--size", "2MiB"], "at most 1 MiB for put-object"),
        (&*server.endpoint, &["--operation", "bidi-read", "--size", "4k"], "at least --range-size"),
        (&*server.endpoint, &["--operation", "write-object", "--chunk-size", "1"], "--chunk-size is 4 KiB to 2 MiB"),
        (&*server.endpoint, &["--operation", "put-object", "--prepared"], "says nothing to writes alone"),
        (
            &*server.endpoint,
            &["--operation", "write-object", "--size", "5MiB", "--count", "1"],
            "no operation succeeded",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anvil-bench"));
        command.args(["grpc", endpoint]).args(arguments);
        let output = command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b").output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text.contains(says) && text.lines().count() == 1, "{arguments:?}: {text}");
    }
}
