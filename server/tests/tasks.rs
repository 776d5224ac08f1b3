//! Goal: what goes on in the background ends well, whatever ends the node: a bucket that is deleted by force is gone for clients at
//! once, and all that it held a while later; uploads that nobody completes go. Method: the real binary, `anvil admin`, SIGKILL in
//! the middle, without a database and with PostgreSQL.

mod support;

use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::command::{complaint, told};
use support::node::{self, Node, Options, scratch};
use support::postgres::Postgres;
use support::s3::{Body, Client};

const OBJECTS: usize = 4000;
const OBJECT_BYTES: usize = 16 << 10;
/// The machine may be busy with other tests.
const DONE_WITHIN: Duration = Duration::from_secs(120);

fn ask(node: &Node, data: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(node::anvil());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANVIL_")) {
        command.env_remove(name);
    }
    command
        .arg("admin")
        .args(words)
        .arg("--endpoint")
        .arg(node.endpoint())
        .arg("--data-dir")
        .arg(data)
        .output()
        .unwrap()
}

fn told_json(node: &Node, data: &Path, words: &[&str]) -> Value {
    serde_json::from_str(&told(ask(node, data, &[words, &["--json"]].concat()))).unwrap()
}

/// The task of a kind, if there is one.
fn task(node: &Node, data: &Path, kind: &str) -> Option<Value> {
    let tasks = told_json(node, data, &["task", "list"]);
    tasks.as_array().unwrap().iter().find(|task| task["kind"] == kind).cloned()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < DONE_WITHIN, "{what}: not within {DONE_WITHIN:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn status(client: &mut Client, method: &str, path: &str) -> u16 {
    client.request(method, path, &[], &[], Body::Signed(b"")).unwrap().status()
}

fn fill(node: &Node, bucket: &str) {
    node.client().put(&format!("/{bucket}"), b"").unwrap().succeeded();
    thread::scope(|scope| {
        for first in 0..8 {
            scope.spawn(move || {
                let mut client = node.client();
                let bytes = vec![u8::try_from(first).unwrap(); OBJECT_BYTES];
                for number in (first..OBJECTS).step_by(8) {
                    client.put(&format!("/{bucket}/folder {}/{number}", number % 10), &bytes).unwrap().succeeded();
                }
            });
        }
    });
}

fn begin_upload(client: &mut Client, path: &str) -> String {
    let begun = client.request("POST", path, &[("uploads", "")], &[], Body::Signed(b"")).unwrap().succeeded();
    let upload = begun.elements("UploadId").remove(0);
    client.put_part(path, &upload, 1, Body::Signed(&[7; 1000])).unwrap().succeeded();
    upload
}

fn uploads(client: &mut Client, bucket: &str) -> Vec<String> {
    let listed = client.request("GET", &format!("/{bucket}"), &[("uploads", "")], &[], Body::Signed(b"")).unwrap();
    listed.succeeded().elements("UploadId")
}

/// Deletes a bucket of thousands of objects by force, with kills in between.
fn a_bucket_goes(data: &Path, options: &Options) {
    let mut node = Node::start_with(data, options);
    let empty = node.metric("anvil_disk_used_bytes");
    fill(&node, "full");
    let mut client = node.client();
    client.put("/neighbour", b"").unwrap().succeeded();
    client.put("/neighbour/key", b"stays").unwrap().succeeded();
    begin_upload(&mut client, "/full/an upload");
    // The metric is some moments behind.
    let full = until("the objects take space", || {
        let full = node.metric("anvil_disk_used_bytes");
        (full - empty > (OBJECTS * OBJECT_BYTES) as f64).then_some(full)
    });

    let refused = complaint(&ask(&node, data, &["bucket", "delete", "full"]), 1);
    assert!(refused.contains("holds objects"), "{refused}");
    assert!(complaint(&ask(&node, data, &["bucket", "delete", "--force", "missing"]), 1).contains("NOT_FOUND"));
    assert!(complaint(&ask(&node, data, &["bucket", "delete", "--force", "anvil-system"]), 1).contains("NOT_FOUND"));
    let deleted = told_json(&node, data, &["bucket", "delete", "full", "--force"]);
    let id = deleted["task"].as_u64().unwrap();
    for (method, path) in [("HEAD", "/full"), ("GET", "/full/folder 1/1"), ("DELETE", "/full/folder 1/1")] {
        assert_eq!(status(&mut client, method, path), 404, "{method} {path}");
    }
    assert_eq!(client.put("/full/new", b"x").unwrap().status(), 404);
    assert_eq!(client.get("/").unwrap().succeeded().elements("Name"), ["neighbour"]);

    for slices in [1, 3] {
        let taken = until("a slice", || {
            let task = task(&node, data, "delete-bucket")?;
            (task["slices"].as_u64()? >= slices).then_some(task)
        });
        assert_eq!(taken["id"].as_u64(), Some(id));
        node.kill();
        node = Node::start_with(data, options);
        assert_eq!(status(&mut node.client(), "HEAD", "/full"), 404, "it does not come back");
        let taken = client_put_status(&node, "/full");
        assert_eq!(taken, 409, "it was killed in the middle: the name is still taken");
    }
    let again = told_json(&node, data, &["bucket", "delete", "full", "--force"]);
    assert_eq!(again["task"].as_u64(), Some(id), "there is one task for a bucket");
    until("the bucket is gone", || task(&node, data, "delete-bucket").is_none().then_some(()));
    assert!(node.metric("anvil_tasks_finished_total") >= 1.0);
    until("the space is back", || {
        let left = node.metric("anvil_disk_used_bytes") - empty;
        (left < 0.25 * (full - empty)).then_some(())
    });
    let mut client = node.client();
    client.put("/full", b"").unwrap().succeeded();
    assert_eq!(client.list("full").unwrap(), []);
    assert_eq!(uploads(&mut client, "full"), Vec::<String>::new());
    assert_eq!(client.get("/neighbour/key").unwrap().succeeded().body, b"stays");
    let audit = told(ask(&node, data, &["audit", "list"]));
    assert!(audit.contains("bucket delete --force"), "{audit}");
    told(ask(&node, data, &["bucket", "delete", "full"]));
    assert_eq!(status(&mut client, "HEAD", "/full"), 404);
    node.stop();
}

fn client_put_status(node: &Node, path: &str) -> u16 {
    node.client().put(path, b"").unwrap().status()
}

fn arguments(data: &Path) -> Vec<String> {
    let disk = format!("{}:256MiB", data.join("disk").display());
    ["--reclaim-delay", "0", "--cores", "2", "--disk", &disk].map(str::to_owned).to_vec()
}

#[test]
fn a_bucket_is_emptied_across_kills() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    a_bucket_goes(&data, &Options { arguments: arguments(&data), ..Options::default() });
}

#[test]
fn a_bucket_in_postgresql_is_emptied_across_kills() {
    let (server, scratch) = (Postgres::start(), scratch());
    let data = scratch.path().join("data");
    a_bucket_goes(&data, &in_postgresql(&server, arguments(&data)));
}

/// A new cluster on databases of its own.
fn in_postgresql(server: &Postgres, mut arguments: Vec<String>) -> Options {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let url = server.url("postgres");
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        for database in ["anvil_global", "anvil_regional"] {
            client.simple_query(&format!("CREATE DATABASE {database}")).await.unwrap();
        }
        drop(client);
        driver.await.unwrap().unwrap();
    });
    let url = |variable: &str, database| (variable.to_owned(), server.url(database));
    let environment = vec![url("GLOBAL_DATABASE_URL", "anvil_global"), url("REGIONAL_DATABASE_URL", "anvil_regional")];
    arguments.push("--init-cluster".to_owned());
    Options { arguments, environment, ..Options::default() }
}

/// Tasks of a kind that this life of the node has brought to their end.
fn finished(node: &Node, kind: &str) -> f64 {
    let sample = format!("anvil_tasks_finished_total{{kind=\"{kind}\"}} ");
    let page = node.metrics();
    let line = page.lines().find_map(|line| line.strip_prefix(&sample)).unwrap_or_else(|| panic!("no {sample}"));
    line.parse().unwrap()
}

/// What a node does for its disks is seen as its tasks; a pass of scrub that takes minutes goes on after a kill.
fn disks_are_kept_across_kills(data: &Path, options: &Options) {
    let mut node = Node::start_with(data, options);
    until("the sweep of the start", || (finished(&node, "sweep") >= 1.0).then_some(()));
    until("passes over nothing", || (finished(&node, "scrub") >= 1.0).then_some(()));
    node.client().put("/bucket", b"").unwrap().succeeded();
    node.client().put("/bucket/key", &vec![7; 16 << 20]).unwrap().succeeded();
    for _ in 0..2 {
        let scrub = until("a long pass", || {
            let scrub = task(&node, data, "scrub").filter(|task| task["state"] == "running")?;
            // Whatever else is there has been read by then.
            (finished(&node, "scrub") >= 1.0 || node.metric("anvil_scrub_bytes_total") > 0.0).then_some(scrub)
        });
        assert_eq!(scrub["about"], "node 1");
        let refused = complaint(&ask(&node, data, &["task", "cancel", &scrub["id"].to_string()]), 1);
        assert!(refused.contains("FAILED_PRECONDITION") && refused.contains("come back"), "{refused}");
        node.kill();
        node = Node::start_with(data, options);
        until("the sweep of the start", || (finished(&node, "sweep") >= 1.0).then_some(()));
    }
    assert_eq!(finished(&node, "repair"), 0.0, "nothing is lost");
    node.stop();
}

fn slowly_scrubbed(data: &Path) -> Vec<String> {
    [arguments(data), ["--scrub-every", "1s", "--scrub-rate", "64KiB"].map(str::to_owned).to_vec()].concat()
}

#[test]
fn disks_are_kept_by_tasks() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    disks_are_kept_across_kills(&data, &Options { arguments: slowly_scrubbed(&data), ..Options::default() });
}

#[test]
fn disks_are_kept_by_tasks_in_postgresql() {
    let (server, scratch) = (Postgres::start(), scratch());
    let data = scratch.path().join("data");
    disks_are_kept_across_kills(&data, &in_postgresql(&server, slowly_scrubbed(&data)));
}

/// An upload goes when its time is over; one whose time is not over stays, also when somebody has a look in between.
#[test]
fn an_upload_that_nobody_completes_goes() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    let start = |expiry: &str| {
        let environment = vec![("ANVIL_UPLOAD_EXPIRY".to_owned(), expiry.to_owned())];
        Node::start_with(&data, &Options { environment, ..Options::default() })
    };
    let node = start("5s");
    let mut client = node.client();
    client.put("/bucket", b"").unwrap().succeeded();
    let upload = begin_upload(&mut client, "/bucket/key");
    until("the upload goes", || uploads(&mut client, "bucket").is_empty().then_some(()));
    let late = client.put_part("/bucket/key", &upload, 2, Body::Signed(b"late")).unwrap();
    assert_eq!((late.status(), late.elements("Code")), (404, vec!["NoSuchUpload".to_owned()]));
    node.stop();

    let node = start("7d");
    let mut client = node.client();
    let upload = begin_upload(&mut client, "/bucket/key");
    let before = task(&node, &data, "expire-uploads").expect("it was added by the node's first life");
    let id = before["id"].to_string();
    told(ask(&node, &data, &["task", "retry", &id]));
    until("somebody had a look", || {
        let now = told_json(&node, &data, &["task", "show", &id]);
        let looked = now["slices"].as_u64() > before["slices"].as_u64() && now["state"] == "pending";
        looked.then_some(())
    });
    assert_eq!(uploads(&mut client, "bucket"), [upload]);
    let refused = complaint(&ask(&node, &data, &["task", "cancel", &id]), 1);
    assert!(refused.contains("FAILED_PRECONDITION"), "{refused}");
    let refused = complaint(&ask(&node, &data, &["task", "retry", "999"]), 1);
    assert!(refused.contains("there is no task 999") && refused.contains("NOT_FOUND"), "{refused}");
    complaint(&ask(&node, &data, &["task", "show", "999"]), 1);
    let audit = told(ask(&node, &data, &["audit", "list"]));
    assert!(audit.contains("task retry") && audit.contains("task cancel"), "{audit}");
    node.stop();
}
