//! Hostile requests to the real binary, signed where a stranger's would be refused at the door: bodies that break off,
//! chunks that are forged, documents that explode, paths that climb. Each is refused once and clearly, changes nothing
//! that is stored, and costs no memory that stays.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use support::content::Content;
use support::node::{Node, scratch};
use support::s3::{Body, Chunked, Client, Flaw};

/// What must still be stored behind everything.
const KEPT: &[u8] = b"as it was";

#[test]
fn hostile_requests_are_refused_and_change_nothing() {
    let directory = scratch();
    let node = Node::start(&directory.path().join("data"));
    let mut client = node.client();
    client.put("/hostile", b"").unwrap().succeeded();
    for key in ["/hostile/kept", "/hostile/broken", "/hostile/forged"] {
        client.put(key, KEPT).unwrap().succeeded();
    }
    // What everything needs once: the pool, the threads, the caches.
    client.put("/hostile/warm", &Content { seed: 1, length: 8 << 20 }.bytes()).unwrap().succeeded();
    let before = node.memory_bytes("VmRSS");

    bodies_that_break_off(&node, &mut client);
    forged_chunks(&node, &mut client);
    documents(&mut client);
    paths(&node, &mut client);
    strangers(&node);

    for key in ["/hostile/kept", "/hostile/broken", "/hostile/forged"] {
        assert_eq!(client.get(key).unwrap().succeeded().body, KEPT, "{key}");
    }
    let grown = node.memory_bytes("VmRSS").saturating_sub(before);
    assert!(grown < 96 << 20, "{grown} bytes of memory are not given back");
    node.stop();
}

/// A connection on which anything can be sent.
struct Raw(TcpStream);

impl Raw {
    fn connect(node: &Node) -> Self {
        let stream = TcpStream::connect(node.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(stream)
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The server may have closed already, which is for the answer to say.
        let _ = self.0.write_all(bytes.as_ref());
    }

    /// Everything that comes until the server closes.
    fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Sends `bytes` and says that nothing more comes: there is one answer, with this status and code, and the end.
#[track_caller]
fn refused(node: &Node, bytes: &[u8], status: u16, code: &str) {
    let mut raw = Raw::connect(node);
    raw.send(bytes);
    let _ = raw.0.shutdown(Shutdown::Write);
    let answer = raw.rest();
    let about = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "one answer and no other to {about:?}: {answer}");
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{about:?}: {answer}");
    assert!(answer.contains(&format!("<Code>{code}</Code>")), "{about:?}: {answer}");
}

fn bodies_that_break_off(node: &Node, client: &mut Client) {
    for length in [1000, 100_000, 3_000_000] {
        let content = Content { seed: 2, length };
        let bytes = content.bytes();
        for share in [0, 1, 50, 99] {
            let sent = &bytes[..bytes.len() * share / 100];
            for key in ["/hostile/broken", "/hostile/never"] {
                let head = client.head_of("PUT", key, &[], Body::Streamed { content, offset: 0, length });
                refused(node, &[head.as_bytes(), sent].concat(), 400, "IncompleteBody");
                // The same without a word of farewell.
                Raw::connect(node).send([head.as_bytes(), sent].concat());
            }
        }
        // All of it, but not what was signed.
        let head = client.head_of("PUT", "/hostile/broken", &[], Body::Signed(&vec![b'x'; bytes.len()]));
        refused(node, &[head.as_bytes(), &bytes].concat(), 400, "XAmzContentSHA256Mismatch");
    }
    assert_eq!(client.get("/hostile/never").unwrap().status(), 404);
    // Who has left is noticed: then there are this client's connection, and the one that asks.
    let began = Instant::now();
    let connections = || {
        let metrics = node.metrics();
        let lines = metrics.lines().filter(|line| line.starts_with("anvil_connections{"));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().expect("a number")).sum::<f64>()
    };
    while connections() > 2.0 {
        assert!(began.elapsed() < Duration::from_secs(20), "{} connections are left", connections());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn forged_chunks(node: &Node, client: &mut Client) {
    // The payload is a request that its sender may make: who falls out of step in the body deletes the object. Behind
    // the body stands another, which is answered as ever, or not at all.
    let hidden = client.head_of("DELETE", "/hostile/kept", &[], Body::Signed(b""));
    let next = client.head_of("GET", "/hostile/kept", &[], Body::Signed(b""));
    for length in [50_000, 500_000, 2_500_000] {
        let bytes: Vec<u8> = hidden.bytes().cycle().take(length).collect();
        for flaw in [Flaw::ChangedByte, Flaw::SwappedChunks, Flaw::ForgedEnd, Flaw::MissingChunk] {
            for key in ["/hostile/forged", "/hostile/never"] {
                // Not a multiple of the hidden request's length, so that no two chunks are the same.
                let mut whole = client.chunked_request(key, Chunked { bytes: &bytes, chunk_bytes: 16 << 10, flaw });
                whole.extend_from_slice(next.as_bytes());
                let mut raw = Raw::connect(node);
                raw.send(&whole);
                let _ = raw.0.shutdown(Shutdown::Write);
                let answers = raw.rest();
                let (first, second) = answers.split_once("</Error>").expect("a refusal");
                let forged = first.starts_with("HTTP/1.1 403 ") && first.contains("<Code>SignatureDoesNotMatch");
                // Signatures are seen with their window: a body that ends too early within it is refused for that first.
                let too_short = first.starts_with("HTTP/1.1 400 ") && first.contains("<Code>IncompleteBody");
                assert!(forged || too_short && matches!(flaw, Flaw::MissingChunk), "{flaw:?}: {first}");
                let as_ever = second.starts_with("HTTP/1.1 200 ") && second.as_bytes().ends_with(KEPT);
                assert!(second.is_empty() || as_ever, "{flaw:?}: {second}");
            }
        }
        // Sound, but cut off in the middle of a chunk, of a size line, and before the last line's end.
        let sound = Chunked { bytes: &bytes, chunk_bytes: 16 << 10, flaw: Flaw::None };
        for key in ["/hostile/forged", "/hostile/never"] {
            let whole = client.chunked_request(key, sound);
            for left in [1, 30, 90, 20_000] {
                refused(node, &whole[..whole.len() - left], 400, "IncompleteBody");
            }
        }
    }
    assert_eq!(client.get("/hostile/never").unwrap().status(), 404);
}

fn documents(client: &mut Client) {
    let created = client.request("POST", "/hostile/upload", &[("uploads", "")], &[], Body::Signed(b"")).unwrap();
    let upload = created.succeeded().elements("UploadId").remove(0);
    let billion: String =
        (0..30).map(|level| format!("<!ENTITY e{} \"{}\">", level + 1, format!("&e{level};").repeat(10))).collect();
    for root in ["Delete", "CompleteMultipartUpload", "CreateBucketConfiguration"] {
        let explosive = [
            format!("<!DOCTYPE r [<!ENTITY e0 \"ha\">{billion}]><{root}>&e30;</{root}>"),
            format!("<!DOCTYPE r SYSTEM \"http://127.0.0.1:1/evil.dtd\"><{root}/>"),
            format!("<!DOCTYPE r [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><{root}>&x;</{root}>"),
            format!("<{root}>&undefined;</{root}>"),
            format!("<{root}>{}", "<Object>".repeat(20_000)),
            format!("<{root}>{}{}</{root}>", "<a>".repeat(10_000), "</a>".repeat(10_000)),
            format!("<{root} {}><Evil/></{root}>", (0..5000).map(|i| format!("a{i}=\"b\" ")).collect::<String>()),
            format!("<{root}>\u{0}</{root}>"),
            format!("<{root}><![CDATA["),
            format!("<?xml version=\"1.0\" encoding=\"UTF-16\"?><{root}"),
            String::new(),
        ];
        let mut ask = |document: &[u8]| {
            let (method, path, query) = match root {
                "Delete" => ("POST", "/hostile", ("delete", "")),
                "CompleteMultipartUpload" => ("POST", "/hostile/upload", ("uploadId", upload.as_str())),
                _ => ("PUT", "/hostile-other", ("", "")),
            };
            let query = if query.0.is_empty() { &[][..] } else { &[query][..] };
            client.request(method, path, query, &[], Body::Signed(document)).unwrap()
        };
        for document in &explosive {
            if root == "CreateBucketConfiguration" && document.is_empty() {
                continue;
            }
            let answer = ask(document.as_bytes());
            let code = answer.elements("Code").concat();
            // A bucket's configuration may have 64 KiB; the other documents are larger.
            let too_long = document.len() > 64 << 10 && code == "MaxMessageLengthExceeded";
            assert!(answer.status() == 400, "{root} {document:.60}: {}", answer.text());
            assert!(code == "MalformedXML" || too_long, "{root} {document:.60}: {}", answer.text());
        }
        // Larger than any such document may be.
        let answer = ask(&vec![b' '; 8 << 20]);
        assert_eq!(
            (answer.status(), answer.elements("Code")),
            (400, vec!["MaxMessageLengthExceeded".to_owned()]),
            "{root}"
        );
    }
    assert_eq!(client.get("/hostile-other").unwrap().status(), 404, "no bucket came of it");
}

fn paths(node: &Node, client: &mut Client) {
    // A path is decoded once and never normalised: these are keys like others, each its own.
    let keys =
        ["..", "../kept", "a/../kept", "./kept", "/kept", "a//b", "%2e%2e/kept", "kept/", "kept/.", "\\..\\kept"];
    for key in keys {
        let path = format!("/hostile/{key}");
        client.put(&path, key.as_bytes()).unwrap().succeeded();
    }
    for key in keys {
        assert_eq!(client.get(&format!("/hostile/{key}")).unwrap().succeeded().body, key.as_bytes(), "{key}");
    }
    let listed = client.list("hostile").unwrap();
    assert!(keys.iter().all(|key| listed.iter().any(|(listed, _)| listed == key)), "{listed:?}");
    // A byte that C's strings end at is a key's byte or is refused; it never ends the key.
    let answer = client.put("/hostile/kept\0.png", b"other").unwrap();
    assert!([200, 400].contains(&answer.status()), "{}", answer.text());
    for target in ["/hostile/%", "/hostile/%f", "/hostile/%zz", "/hostile/%ff", "/hostile/k?a=%", "/hostile/k?a=%ff%"] {
        for authorization in ["", "Authorization: AWS4-HMAC-SHA256 Credential=a/b/c/s3/aws4_request\r\n"] {
            let mut raw = Raw::connect(node);
            raw.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{authorization}\r\n"));
            let answer = raw.rest();
            let status = answer.split(' ').nth(1).unwrap_or_default();
            assert!(["400", "403"].contains(&status), "{target}: {answer}");
        }
    }
}

/// Without credentials nothing of a body is taken, however large or strange.
fn strangers(node: &Node) {
    for head in [
        "PUT /hostile/kept HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000000\r\n\r\n",
        "PUT /hostile/kept HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n",
        "POST /hostile?delete HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n",
    ] {
        refused(node, &[head.as_bytes(), &vec![b'x'; 1 << 20]].concat(), 403, "AccessDenied");
    }
}
