//! Goal: one store by every protocol. Method: real clients (curl, boto3) and signed requests on raw HTTP/2 connections
//! against the real binary, with TLS and without.

#[allow(dead_code)]
#[path = "http2/client.rs"]
mod client;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use client::{Client, Outcome, PROTOCOL_ERROR};
use support::clients::{python, run};
use support::node::{self, Node, Options, scratch};
use support::s3::{Body, Chunked, Flaw};

/// A certificate for 127.0.0.1 with its key.
fn certificate(directory: &Path) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

fn start(directory: &Path) -> (Node, PathBuf) {
    let (certificate, key) = certificate(directory);
    let words = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let options = Options { arguments: words.map(str::to_owned).to_vec(), ..Options::default() };
    (Node::start_with(&directory.join("data"), &options), certificate)
}

#[test]
fn real_clients_see_one_store_by_every_protocol() {
    let scratch = scratch();
    let (node, certificate) = start(scratch.path());
    println!("{}", run(python(&node, "protocols.py").arg(certificate).arg(scratch.path())));
    node.stop();
}

/// A request of the test's own S3 client, sent on a stream.
fn ask(node: &Node, client: &mut Client, method: &str, path: &str, body: Body<'_>, cut: usize) -> Outcome {
    let prepared = node.client().prepare(method, path, &[], &[], body);
    let authority = node.address.to_string();
    let mut fields = vec![(":method", method), (":scheme", "http"), (":path", prepared.target.as_str())];
    fields.push((":authority", authority.as_str()));
    fields.extend(prepared.headers.iter().filter(|(name, _)| name != "host").map(|(n, v)| (n.as_str(), v.as_str())));
    client.ask(&fields, &prepared.body[..prepared.body.len() - cut])
}

#[test]
fn a_body_that_is_cut_or_forged_on_a_stream_never_becomes_visible() {
    const CHUNK: usize = 48 << 10;
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    let mut client = Client::connect(node.address);
    client.ping();
    let created = ask(&node, &mut client, "PUT", "/bucket", Body::Signed(b""), 0);
    assert_eq!(created.answer().0, 200);
    let bytes: Vec<u8> = (0..4 * CHUNK).map(|at| (at % 251) as u8).collect();
    let chunked = |flaw| Body::Chunked(Chunked { bytes: &bytes, chunk_bytes: CHUNK, flaw });
    let get = |client: &mut Client| ask(&node, client, "GET", "/bucket/key", Body::Signed(b""), 0);

    for flaw in [Flaw::ChangedByte, Flaw::SwappedChunks, Flaw::ForgedEnd] {
        let (status, text) = ask(&node, &mut client, "PUT", "/bucket/key", chunked(flaw), 0).answer();
        assert!(status == 403 && text.contains("<Code>SignatureDoesNotMatch</Code>"), "{flaw:?}: {status} {text}");
        assert_eq!(get(&mut client).answer().0, 404, "{flaw:?}");
    }
    // The stream ends before the body has.
    for cut in [1, CHUNK] {
        let outcome = ask(&node, &mut client, "PUT", "/bucket/key", chunked(Flaw::None), cut);
        assert_eq!(outcome, Outcome::Reset(PROTOCOL_ERROR), "{cut}");
        assert_eq!(get(&mut client).answer().0, 404, "{cut}");
    }
    assert_eq!(ask(&node, &mut client, "PUT", "/bucket/key", chunked(Flaw::None), 0).answer().0, 200);
    assert_eq!(get(&mut client), Outcome::Answer { status: 200, body: bytes.clone() });
    assert_eq!(node.client().get("/bucket/key").unwrap().succeeded().body, bytes, "by HTTP/1.1 too");
    // A signature is for the host that was named.
    let prepared = node.client().prepare("GET", "/bucket/key", &[], &[], Body::Signed(b""));
    let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":path", "/bucket/key"), (":authority", "other")];
    fields.extend(prepared.headers.iter().filter(|(name, _)| name != "host").map(|(n, v)| (n.as_str(), v.as_str())));
    let (status, text) = client.ask(&fields, b"").answer();
    assert!(status == 403 && text.contains("<Code>SignatureDoesNotMatch</Code>"), "{status} {text}");
    node.stop();
}

#[test]
fn a_start_with_files_of_no_use_says_why() {
    let scratch = scratch();
    let (certificate, key) = certificate(scratch.path());
    let absent = scratch.path().join("absent.pem");
    for (certificate, key, says) in [(&absent, &key, "absent.pem"), (&certificate, &certificate, "no private key")] {
        let mut command = Command::new(node::anvil());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANVIL_")) {
            command.env_remove(name);
        }
        let output = command
            .args(["dev", "--http-bind-addr", "127.0.0.1:0", "--data-dir"])
            .arg(scratch.path().join("data"))
            .arg("--tls-cert")
            .arg(certificate)
            .arg("--tls-key")
            .arg(key)
            .output()
            .unwrap();
        let sentence = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{sentence}");
        assert!(sentence.contains(says) && sentence.trim_end().lines().count() == 1, "{sentence}");
    }
}
