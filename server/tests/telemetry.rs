//! Goal: what the node tells of itself can be read by machines, is documented, and holds no secret. Method: a real node,
//! a session with every kind of signature, then every line of `/metrics` and of the log.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anvil_digest::{hmac_sha256, sha256};
use support::node::{Node, Options, scratch};
use support::s3::{Answer, Body, Chunked, Client, Credentials, Flaw};

/// One family of the page, as OpenMetrics has it (OpenMetrics 1.0, "Text format").
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    /// Name and labels as they stand, and the value.
    samples: Vec<(String, String, f64)>,
}

impl Family {
    /// The name by which its numbers are asked for.
    fn queried(&self, name: &str) -> String {
        if self.kind == "counter" { format!("{name}_total") } else { name.to_owned() }
    }
}

/// Reads a page strictly: whatever is not as it should be fails the test.
fn parse(page: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    let mut current = String::new();
    let (lines, end) = page.strip_suffix('\n').unwrap().rsplit_once('\n').unwrap();
    assert_eq!(end, "# EOF");
    for line in lines.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            let family = Family { help: help.to_owned(), ..Family::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} is there twice");
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current);
            families.get_mut(name).unwrap().kind = kind.to_owned();
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').map_or((sample, ""), |(name, labels)| {
                (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}")))
            });
            let family = families.get_mut(&current).unwrap();
            let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} is not of {current}"));
            let allowed: &[&str] = match family.kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                kind => panic!("{kind} of {current}"),
            };
            assert!(allowed.contains(&suffix), "{line}");
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (name, value) = label.split_once('=').unwrap();
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
                assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
            }
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            family.samples.push((name.to_owned(), labels.to_owned(), value));
        }
    }
    families
}

/// Each series' buckets grow, and the last is the count.
fn check_histogram(name: &str, family: &Family) {
    let mut last = 0.0;
    for (sample, labels, value) in &family.samples {
        if sample.ends_with("_bucket") {
            assert!(*value >= last, "{name}{{{labels}}}");
            last = if labels.contains("le=\"+Inf\"") { 0.0 } else { *value };
        }
    }
    let sum = |suffix: &str, mark: &str| -> f64 {
        let of = family.samples.iter().filter(|(name, labels, _)| name.ends_with(suffix) && labels.contains(mark));
        of.map(|(.., value)| value).sum()
    };
    assert!((sum("_count", "") - sum("_bucket", "le=\"+Inf\"")).abs() < 0.5, "{name}");
}

fn value(families: &BTreeMap<String, Family>, name: &str, labels: &str) -> f64 {
    let samples = families.values().flat_map(|family| &family.samples);
    samples.filter(|(sample, has, _)| sample == name && has.contains(labels)).map(|(.., value)| value).sum()
}

/// The names in the table of docs/OPERATIONS.md.
fn documented() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/OPERATIONS.md");
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter(|row| row.starts_with("anvil_") || row.starts_with("process_"));
    names.map(|row| row.split(['`', '{']).next().unwrap().to_owned()).collect()
}

#[test]
fn the_page_is_well_formed_and_documented() {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    let mut client = node.client();
    client.put("/metrics-bucket", b"").unwrap().succeeded();
    client.put("/metrics-bucket/key", &[7; 5000]).unwrap().succeeded();
    client.get("/metrics-bucket/key").unwrap().succeeded();
    assert_eq!(client.get("/metrics-bucket/none").unwrap().status(), 404);

    // Some figures are published every second.
    let begun = Instant::now();
    let families = loop {
        let families = parse(&client.get("/metrics").unwrap().succeeded().text());
        let published = value(&families, "anvil_metadata_requests_total", "kind=\"commit\"") >= 2.0
            && value(&families, "anvil_store_appends_total", "") >= 3.0
            && value(&families, "process_resident_memory_bytes", "") > 0.0;
        if published {
            break families;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "the figures are not published: {families:#?}");
        std::thread::sleep(Duration::from_millis(20));
    };

    let named: BTreeSet<String> = families.iter().map(|(name, family)| family.queried(name)).collect();
    let documented = documented();
    let difference: Vec<_> = named.symmetric_difference(&documented).collect();
    assert!(difference.is_empty(), "on the page or in docs/OPERATIONS.md, but not in both: {difference:?}");
    for (name, family) in &families {
        assert!(!family.help.is_empty() && !family.kind.is_empty(), "{name}");
        if family.kind == "histogram" {
            assert!(name.ends_with("_seconds"), "{name}");
            check_histogram(name, family);
        }
    }
    for (name, labels, expected) in [
        ("anvil_requests_total", "operation=\"PutObject\",status=\"200\"", 1.0),
        ("anvil_requests_total", "operation=\"GetObject\",status=\"404\"", 1.0),
        ("anvil_request_duration_seconds_count", "operation=\"GetObject\"", 2.0),
        ("anvil_request_first_byte_seconds_count", "operation=\"PutObject\"", 1.0),
        ("anvil_request_received_bytes_total", "", 5000.0),
        ("anvil_requests_in_flight", "", 1.0),
        ("anvil_connections", "protocol=\"http1\"", 1.0),
    ] {
        let found = value(&families, name, labels);
        assert!((found - expected).abs() < 0.5, "{name}{{{labels}}} is {found}, not {expected}");
    }
    for name in ["anvil_disk_flush_seconds_count", "anvil_disk_written_bytes_total", "anvil_disk_used_bytes"] {
        assert!(value(&families, name, "disk=") > 0.0, "{name}");
    }
    assert!(value(&families, "anvil_metadata_index_bytes", "") > 0.0);
    node.stop();
}

/// The answer to a GET of the page with one more header.
fn metrics_with(node: &Node, header: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(node.address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\n{header}\r\nConnection: close\r\n\r\n", node.address).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Goal: strangers do not read how much is stored, not through a proxy either, and probes are answered to everybody.
/// Method: nodes that take their readers from other networks, and the headers of proxies.
#[test]
fn metrics_are_read_from_networks_that_were_named() {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    assert!(metrics_with(&node, "X-Other: 8.8.8.8").ends_with("# EOF\n"), "loopback may, by default");
    assert!(metrics_with(&node, "X-Forwarded-For: 10.1.2.3").starts_with("HTTP/1.1 200 "));
    for header in ["X-Forwarded-For: 8.8.8.8", "X-Real-IP: 8.8.8.8", "Forwarded: for=8.8.8.8"] {
        let answer = metrics_with(&node, header);
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("<Code>AccessDenied</Code>"), "{answer}");
        assert!(!answer.contains("anvil_"), "{answer}");
    }
    assert!(node.ready_answer().ends_with("\r\n\r\nready\n"), "{}", node.ready_answer());
    assert!((node.metric("anvil_ready") - 1.0).abs() < 0.1);
    node.stop();

    let arguments = ["--metrics-allow", "192.0.2.0/24", "--metrics-allow", "2001:db8::/32"].map(str::to_owned).to_vec();
    let node = Node::start_with(&scratch.path().join("data"), &Options { arguments, ..Options::default() });
    let answer = node.client().get("/metrics").unwrap();
    assert_eq!((answer.status(), answer.text().contains("<Code>AccessDenied</Code>")), (403, true));
    assert!(metrics_with(&node, "X-Forwarded-For: 192.0.2.1").starts_with("HTTP/1.1 403 "), "nobody names himself in");
    assert_eq!(node.ready(), 200);
    node.stop();
}

/// Goal: a container is watched over without another program. Method: `anvil ready` beside a node, and beside none.
#[test]
fn a_node_is_asked_whether_it_is_ready() {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    let endpoint = node.endpoint();
    let ask = || {
        let mut command = std::process::Command::new(support::node::anvil());
        command.args(["ready", "--endpoint", &endpoint]).env_remove("ANVIL_CA_FILE").output().unwrap()
    };
    let answer = ask();
    assert_eq!((answer.status.code(), answer.stdout.as_slice()), (Some(0), &b"ready\n"[..]), "{answer:?}");
    node.stop();
    let answer = ask();
    let said = String::from_utf8_lossy(&answer.stderr);
    assert!(answer.status.code() == Some(1) && said.contains("cannot reach a node"), "{answer:?}");
}

/// A URL with its signature in the query (S3 API reference, "Authenticating Requests: Using Query Parameters").
fn presign(node: &Node, credentials: &Credentials, path: &str) -> (Vec<(String, String)>, String) {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let scope = format!("{}/us-east-1/s3/aws4_request", &time[..8]);
    let credential = format!("{}/{scope}", credentials.access_key);
    let mut query: Vec<(String, String)> = [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", &credential),
        ("X-Amz-Date", &time),
        ("X-Amz-Expires", "60"),
        ("X-Amz-SignedHeaders", "host"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    let encoded = query.iter().map(|(name, value)| format!("{name}={}", value.replace('/', "%2F")));
    let encoded = encoded.collect::<Vec<_>>().join("&");
    let canonical = format!("GET\n{path}\n{encoded}\nhost:{}\n\nhost\nUNSIGNED-PAYLOAD", node.address);
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex::encode(sha256(canonical.as_bytes())));
    let first = hmac_sha256(format!("AWS4{}", credentials.secret_key).as_bytes(), &time.as_bytes()[..8]);
    let key = ["us-east-1", "s3", "aws4_request"].iter().fold(first, |key, word| hmac_sha256(&key, word.as_bytes()));
    let signature = hex::encode(hmac_sha256(&key, text.as_bytes()));
    query.push(("X-Amz-Signature".to_owned(), signature.clone()));
    (query, signature)
}

/// A GET without any credentials but those of the query.
fn get_plainly(node: &Node, path: &str, query: &[(String, String)]) -> String {
    use std::io::{Read, Write};
    let query: Vec<String> =
        query.iter().map(|(name, value)| format!("{name}={}", value.replace('/', "%2F"))).collect();
    let mut stream = std::net::TcpStream::connect(node.address).unwrap();
    write!(stream, "GET {path}?{} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", query.join("&"), node.address)
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A session that sends secrets in every way: gives the answer to a PUT.
fn session(node: &Node) -> Answer {
    let mut client = node.client();
    client.put("/log-bucket", b"").unwrap().succeeded();
    let put = client.put("/log-bucket/a key\u{7}\"\\ü", b"hello").unwrap().succeeded();
    let chunked = Chunked { bytes: &[1; 200], chunk_bytes: 100, flaw: Flaw::ForgedEnd };
    assert_eq!(client.request("PUT", "/log-bucket/c", &[], &[], Body::Chunked(chunked)).unwrap().status(), 403);
    client.put("/log-bucket/key", b"hello").unwrap().succeeded();
    let (query, _) = presign(node, &node.credentials, "/log-bucket/key");
    let answer = get_plainly(node, "/log-bucket/key", &query);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    let wrong = Credentials { secret_key: "wrong".to_owned(), ..node.credentials.clone() };
    let (query, _) = presign(node, &wrong, "/log-bucket/key");
    assert!(get_plainly(node, "/log-bucket/key", &query).starts_with("HTTP/1.1 403"));
    assert_eq!(Client::new(node.address, wrong).get("/log-bucket/key").unwrap().status(), 403);
    put
}

/// A run of 64 hexadecimal digits: what a signature looks like.
fn shows_a_signature(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_hexdigit()).any(|run| run.len() >= 64)
}

#[test]
fn every_line_of_the_log_is_json_and_no_secret_is_in_it() {
    let scratch = scratch();
    for format in ["json", "text"] {
        let data = scratch.path().join(format);
        let options = Options {
            prefix: vec!["env".to_owned(), "RUST_LOG=trace".to_owned()],
            arguments: vec!["--log-format".to_owned(), format.to_owned()],
            ..Options::default()
        };
        let node = Node::start_with(&data, &options);
        let secret = node.credentials.secret_key.clone();
        let put = session(&node);
        node.stop();
        let log = fs::read_to_string(data.with_extension("log")).unwrap();
        assert!(!log.contains(&secret), "the log shows the secret key");
        for line in log.lines() {
            assert!(!shows_a_signature(line), "{line}");
            assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        }
        assert!(log.contains("X-Amz-Signature=***") && log.contains("X-Amz-Expires=60"));
        if format == "text" {
            assert!(log.lines().any(|line| line.contains("anvil::access") && line.contains("operation=\"PutObject\"")));
            continue;
        }
        let lines: Vec<serde_json::Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        for line in &lines {
            assert!(line["timestamp"].is_string() && line["level"].is_string() && line["target"].is_string(), "{line}");
        }
        let request_id = put.head.header("x-amz-request-id").unwrap();
        let mut access = lines.iter().filter(|line| line["target"] == "anvil::access");
        let line = access.find(|line| line["request_id"] == request_id).expect("each request has its line");
        assert_eq!(
            (&line["operation"], &line["method"], &line["status"]),
            (&"PutObject".into(), &"PUT".into(), &200.into())
        );
        assert_eq!((&line["received_bytes"], &line["query"]), (&5.into(), &"".into()));
        assert_eq!(line["path"], "/log-bucket/a%20key%07%22%5C%C3%BC");
        assert!(line["duration_us"].as_u64() >= line["first_byte_us"].as_u64(), "{line}");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    }
}
