//! Goal: a quota holds over S3 and gRPC, is shown beside what is held, and neither a SIGKILL nor a refusal moves what is held away
//! from what a list adds up to. Method: the real binary and `anvil admin`, without a database and with PostgreSQL.

mod support;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::command::{complaint, told};
use support::node::{self, Node, Options, scratch};
use support::postgres::Postgres;
use support::s3::{Body, Client};

fn ask(node: &Node, data: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(node::anvil());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANVIL_")) {
        command.env_remove(name);
    }
    command.arg("admin").args(words).arg("--endpoint").arg(node.endpoint()).arg("--data-dir").arg(data);
    command.output().unwrap()
}

fn told_json(node: &Node, data: &Path, words: &[&str]) -> Value {
    serde_json::from_str(&told(ask(node, data, &[words, &["--output", "json"]].concat()))).unwrap()
}

fn usage(node: &Node, data: &Path, bucket: &str) -> Value {
    told_json(node, data, &["bucket", "show", bucket])["usage"].take()
}

fn held(objects: usize, object_bytes: usize, upload_bytes: usize) -> Value {
    json!({ "objects": objects, "object_bytes": object_bytes, "upload_bytes": upload_bytes })
}

/// The code and the quota of a refused PUT.
fn refused(client: &mut Client, path: &str, body: &[u8]) -> (u16, Vec<String>, Vec<String>) {
    let answer = client.put(path, body).unwrap();
    (answer.status(), answer.elements("Code"), answer.elements("Quota"))
}

fn by(quota: &str) -> (u16, Vec<String>, Vec<String>) {
    (403, vec!["QuotaExceeded".to_owned()], vec![quota.to_owned()])
}

/// What `anvil object put`, which asks by gRPC, says of a refusal.
fn put_by_grpc(node: &Node, data: &Path, bytes: &[u8]) -> String {
    let home = data.join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("file"), bytes).unwrap();
    let anvil = |words: &[&str]| {
        let mut command = Command::new(node::anvil());
        command.env_clear().env("HOME", &home).current_dir(&home).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (endpoint, key) = (node.endpoint(), &node.credentials.access_key);
    let mut configure = anvil(&["configure", "--endpoint", &endpoint, "--client-id", key, "--secret-stdin"]);
    writeln!(configure.stdin.take().unwrap(), "{}", node.credentials.secret_key).unwrap();
    told(configure.wait_with_output().unwrap());
    complaint(&anvil(&["object", "put", "file", "s3://other/k"]).wait_with_output().unwrap(), 1)
}

const KIB: usize = 1 << 10;

fn quotas_hold(data: &Path, options: &Options) {
    let mut node = Node::start_with(data, options);
    let mut client = node.client();
    client.put("/bucket", b"").unwrap().succeeded();
    client.put("/other", b"").unwrap().succeeded();
    let set =
        told_json(&node, data, &["bucket", "update", "bucket", "--quota-bytes", "100KiB", "--quota-objects", "3"]);
    assert_eq!(set["quota"], json!({ "bytes": 100 * KIB, "objects": 3 }));
    client.put("/bucket/a", &vec![1; 60 * KIB]).unwrap().succeeded();
    assert_eq!(refused(&mut client, "/bucket/b", &vec![2; 41 * KIB]), by("bucket-bytes"));
    client.put("/bucket/b", &vec![2; 40 * KIB]).unwrap().succeeded();
    client.put("/bucket/c", b"").unwrap().succeeded();
    assert_eq!(refused(&mut client, "/bucket/d", b""), by("bucket-objects"));
    let full = held(3, 100 * KIB, 0);
    assert_eq!(usage(&node, data, "bucket"), full);

    // The quota and what is held are there behind a SIGKILL, and once.
    node.kill();
    node = Node::start_with(data, options);
    client = node.client();
    assert_eq!(usage(&node, data, "bucket"), full);
    assert_eq!(refused(&mut client, "/bucket/d", b""), by("bucket-objects"));
    client.put("/bucket/a", &vec![3; 60 * KIB]).unwrap().succeeded();
    client.put("/bucket/a", &vec![3; 10 * KIB]).unwrap().succeeded();
    client.delete("/bucket/b").unwrap().succeeded();
    assert_eq!(usage(&node, data, "bucket"), held(2, 10 * KIB, 0));
    client.put("/bucket/b", &vec![2; 90 * KIB]).unwrap().succeeded();

    // Parts count before they are an object; one stays, over a SIGKILL, and goes with its upload.
    let changed = told_json(&node, data, &["bucket", "update", "bucket", "--quota-bytes", "none"]);
    assert_eq!(changed["quota"], json!({ "bytes": null, "objects": 3 }));
    let begun = client.request("POST", "/bucket/b", &[("uploads", "")], &[], Body::Signed(b"")).unwrap().succeeded();
    let upload = begun.elements("UploadId").remove(0);
    client.put_part("/bucket/b", &upload, 1, Body::Signed(&vec![4; 20 * KIB])).unwrap().succeeded();
    node.kill();
    node = Node::start_with(data, options);
    client = node.client();
    assert_eq!(usage(&node, data, "bucket"), held(3, 100 * KIB, 20 * KIB));

    // A part that is a copy is refused as one that comes from a client, and may replace one of its size.
    told(ask(&node, data, &["bucket", "update", "bucket", "--quota-bytes", "121KiB"]));
    let mut copy_part = |number: &str, bytes: &str| {
        let query = [("partNumber", number), ("uploadId", upload.as_str())];
        let from = [("x-amz-copy-source", "/bucket/b"), ("x-amz-copy-source-range", bytes)];
        client.request("PUT", "/bucket/b", &query, &from, Body::Signed(b"")).unwrap()
    };
    let too_much = copy_part("2", "bytes=0-2047");
    assert_eq!((too_much.status(), too_much.elements("Code")), (403, vec!["QuotaExceeded".to_owned()]));
    copy_part("1", "bytes=0-20479").succeeded();
    assert_eq!(usage(&node, data, "bucket"), held(3, 100 * KIB, 20 * KIB));
    told(ask(&node, data, &["bucket", "update", "bucket", "--quota-bytes", "none"]));

    // A tenant's is over all buckets.
    let tenant = told_json(&node, data, &["bucket", "show", "bucket"])["tenant_name"].as_str().unwrap().to_owned();
    told(ask(&node, data, &["tenant", "update", &tenant, "--quota-bytes", "130KiB"]));
    assert_eq!(refused(&mut client, "/other/k", &vec![5; 11 * KIB]), by("tenant-bytes"));
    let by_grpc = put_by_grpc(&node, data, &vec![5; 11 * KIB]);
    assert!(by_grpc.contains("RESOURCE_EXHAUSTED") && by_grpc.contains("tenant's quota of 133120 bytes"), "{by_grpc}");
    client.put("/other/k", &vec![5; 10 * KIB]).unwrap().succeeded();
    let query = [("uploadId", upload.as_str())];
    client.request("DELETE", "/bucket/b", &query, &[], Body::Signed(b"")).unwrap().succeeded();
    client.put("/other/l", &vec![5; 20 * KIB]).unwrap().succeeded();
    let shown = told_json(&node, data, &["tenant", "show", &tenant]);
    assert_eq!((&shown["usage"], &shown["quota"]["bytes"]), (&held(5, 130 * KIB, 0), &json!(130 * KIB)));
    let listed = told_json(&node, data, &["bucket", "list", "--tenant-name", &tenant]);
    let names: Vec<&str> = listed.as_array().unwrap().iter().filter_map(|bucket| bucket["name"].as_str()).collect();
    assert_eq!(names, ["bucket", "other"]);

    let missing = complaint(&ask(&node, data, &["bucket", "show", "nobody"]), 1);
    assert!(missing.contains("NOT_FOUND"), "{missing}");
    let own = complaint(&ask(&node, data, &["bucket", "update", "anvil-system", "--quota-bytes", "1"]), 1);
    assert!(own.contains("NOT_FOUND"), "{own}");
    let nothing = complaint(&ask(&node, data, &["bucket", "update", "bucket"]), 2);
    assert!(nothing.contains("--quota-bytes"), "{nothing}");
    let wrong = ask(&node, data, &["bucket", "update", "bucket", "--quota-objects", "many"]);
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(wrong.status.code() == Some(2) && said.contains("it takes a number, or none"), "{said}");
    let audit = told(ask(&node, data, &["audit", "list"]));
    for words in ["bucket quota of bytes 102400 quota of objects 3", "quota of bytes 133120", "tenant update"] {
        assert!(audit.contains(words), "{words}: {audit}");
    }
    node.stop();
}

#[test]
fn quotas_hold_without_a_database() {
    let scratch = scratch();
    let data = scratch.path().join("data");
    quotas_hold(&data, &Options::default());
    // Quotas and what is held follow from the log.
    let mut rebuild = Command::new(node::anvil());
    rebuild.args(["admin", "metadata", "rebuild", "--data-dir"]).arg(&data).env_remove("ANVIL_DATA_DIR");
    assert!(told(rebuild.output().unwrap()).contains("says what the log says"));
}

#[test]
fn quotas_hold_in_postgresql() {
    let (server, scratch) = (Postgres::start(), scratch());
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
    let arguments = vec!["--init-cluster".to_owned()];
    quotas_hold(&scratch.path().join("data"), &Options { arguments, environment, ..Options::default() });
}
