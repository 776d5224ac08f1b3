//! Goal: dashboard and alerts speak of what a node tells. Method: every name in `docs/monitoring` is held against the page
//! of a real node; a real Prometheus reads the node and the rules, and is asked every expression; promtool runs the
//! rules over made-up series.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::daemon::{Daemon, free_address, repository};
use crate::support::clients::{find, run};
use crate::support::node::{Node, scratch};

/// Names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.filter(|word| word.starts_with("anvil_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// Names by which the numbers of a page are asked for. A family without numbers now has at least its type there.
fn told(page: &str) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for (name, kind) in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')) {
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        told.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    told
}

/// The values of all fields of this name, wherever they stand.
fn fields<'a>(json: &'a Value, name: &str, found: &mut Vec<&'a str>) {
    match json {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(text) if key == name => found.push(text),
                    value => fields(value, name, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| fields(value, name, found)),
        _ => {}
    }
}

/// The whole answer to a GET.
fn get(prometheus: SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(prometheus).unwrap();
    write!(stream, "GET {target} HTTP/1.0\r\nHost: {prometheus}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Asks Prometheus; gives its answer's data.
fn ask(prometheus: SocketAddr, path: &str, query: Option<&str>) -> Value {
    let mut target = path.to_owned();
    if let Some(query) = query {
        target += "?query=";
        for byte in query.bytes() {
            if byte.is_ascii_alphanumeric() { target.push(byte.into()) } else { write!(target, "%{byte:02X}").unwrap() }
        }
    }
    let answer = get(prometheus, &target);
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut json: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(json["status"], "success", "{query:?}: {body}");
    json["data"].take()
}

fn start(directory: &Path, node: SocketAddr) -> Daemon {
    let given = fs::read_to_string(repository("docs/monitoring/prometheus.yml")).unwrap();
    // As it is given, but for the node's address and the patience of a test.
    let mut configuration = given.clone();
    for (from, to) in
        [("127.0.0.1:50051", node.to_string()), ("scrape_interval: 15s", "scrape_interval: 1s".to_owned())]
    {
        assert_eq!(given.matches(from).count(), 1, "{from}");
        configuration = configuration.replace(from, &to);
    }
    fs::write(directory.join("prometheus.yml"), configuration).unwrap();
    fs::copy(repository("docs/monitoring/alerts.yml"), directory.join("alerts.yml")).unwrap();
    let address = free_address();
    let daemon = Daemon::start("prometheus", directory, address, |command| {
        command.arg("--config.file=prometheus.yml").arg("--storage.tsdb.path=prometheus");
        command.arg(format!("--web.listen-address={address}"));
    });
    // It listens before it has read its configuration.
    let begun = Instant::now();
    while !get(address, "/-/ready").contains(" 200 OK") {
        assert!(begun.elapsed() < Duration::from_secs(60), "Prometheus does not become ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon
}

#[test]
fn dashboard_and_alerts_speak_of_what_a_node_tells() {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    let mut client = node.client();
    client.put("/bucket", b"").unwrap().succeeded();
    client.put("/bucket/key", &[7; 5000]).unwrap().succeeded();
    client.get("/bucket/key").unwrap().succeeded();
    assert_eq!(client.get("/bucket/none").unwrap().status(), 404);

    let read = |name: &str| fs::read_to_string(repository("docs/monitoring").join(name)).unwrap();
    let (dashboard, rules) = (read("dashboard.json"), read("alerts.yml"));
    let told = told(&node.metrics());
    let mut counted = 0;
    for text in [&dashboard, &rules, &read("alerts_test.yml")] {
        for name in names(text) {
            assert!(told.contains(&name), "{name} is on no node's page");
            counted += 1;
        }
    }
    assert!(counted > 60, "only {counted} names were found");

    let prometheus = start(scratch.path(), node.address);
    let begun = Instant::now();
    loop {
        let up = ask(
            prometheus.address,
            "/api/v1/query",
            Some("min_over_time(anvil_ready[1m]) and count_over_time(up[1m]) > 2"),
        );
        if up["result"].as_array().is_some_and(|series| !series.is_empty()) {
            break;
        }
        let targets = || ask(prometheus.address, "/api/v1/targets", None);
        assert!(begun.elapsed() < Duration::from_secs(60), "the node is not read: {}", targets());
        client.get("/bucket/key").unwrap().succeeded();
        std::thread::sleep(Duration::from_millis(100));
    }
    let loaded = ask(prometheus.address, "/api/v1/rules", None);
    let mut expressions = Vec::new();
    fields(&loaded, "query", &mut expressions);
    assert!(expressions.len() > 20, "{loaded}");

    let board: Value = serde_json::from_str(&dashboard).unwrap();
    let mut panels = Vec::new();
    fields(&board, "expr", &mut panels);
    let mut empty = BTreeSet::new();
    for panel in &panels {
        let expression =
            panel.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("${datasource}", "prometheus");
        assert!(!expression.contains('$'), "{expression} has a variable that this test does not know");
        let answer = ask(prometheus.address, "/api/v1/query", Some(&expression));
        if answer["result"].as_array().unwrap().is_empty() {
            empty.insert(*panel);
        }
    }
    println!(
        "{} expressions of the dashboard, {} of the rules; {} of the dashboard have no series on a node at rest",
        panels.len(),
        expressions.len(),
        empty.len()
    );
    // A node at rest has no database and has just started, and loses nothing.
    let may_be_empty = ["anvil_database_up", "process_start_time", "anvil_disk_missing", "anvil_disk_lost"];
    for panel in empty {
        assert!(may_be_empty.iter().any(|name| panel.contains(name)), "{panel} finds no series on a node that serves");
    }
    node.stop();
}

/// Each rule fires on the series that it is meant for, and not on those beside them.
#[test]
fn alerts_fire_when_they_should() {
    let promtool = |words: [&str; 3]| {
        let mut command = Command::new(find("promtool"));
        command.args(words).current_dir(repository("docs/monitoring"));
        println!("{}", run(&mut command));
    };
    promtool(["check", "rules", "alerts.yml"]);
    promtool(["test", "rules", "alerts_test.yml"]);
    promtool(["check", "config", "prometheus.yml"]);
}
