//! Goal: whatever comes as a call, one clear status answers it, and the node and the connection go on. Method: heads and
//! bytes of all kinds over `h2`, then a good call on the same connection.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anvil::auth::Secret;
use anvil::grpc::status::decode_message;
use anvil::grpc::token;
use anvil_model::time::WallTime;
use anvil_proto::Message as _;
use anvil_proto::v1::{GetAccessTokenRequest, GetAccessTokenResponse, ListDisksResponse, OfflineDiskRequest};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use h2::client::SendRequest;
use http::{HeaderMap, Request};

use crate::support::node::{Node, Options, scratch};
use crate::support::postgres::Postgres;
use crate::support::relay::Relay;

const LIST: &str = "/anvil.v1.AdminService/ListDisks";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const OFFLINE: &str = "/anvil.v1.AdminService/OfflineDisk";
/// Longer than anything takes that works.
const TOO_LONG: Duration = Duration::from_secs(60);

/// What a call came to.
#[derive(Debug)]
struct End {
    http: u16,
    /// `grpc-status`, from the head or the trailers.
    status: u32,
    message: String,
    /// The head had the status: nothing else came.
    trailers_only: bool,
    accepts: Option<String>,
    body: Vec<u8>,
}

struct Caller {
    requests: SendRequest<Bytes>,
    bearer: String,
}

impl Caller {
    async fn connect(node: &Node) -> Self {
        let stream = tokio::net::TcpStream::connect(node.address).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async move { connection.await.unwrap() });
        let secret = Secret::new(&node.credentials.secret_key).unwrap();
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let now = WallTime { unix_ms: unix_ms.try_into().unwrap() };
        let bearer = format!("Bearer {}", token::make(&node.credentials.access_key, &secret, now, 1));
        Self { requests, bearer }
    }

    /// A call with these fields besides the usual ones; one of the same name takes the usual one's place.
    async fn call(&mut self, path: &str, fields: &[(&str, &str)], body: &[u8], ends: bool) -> End {
        let usual = [("content-type", "application/grpc"), ("te", "trailers"), ("authorization", &self.bearer)];
        let usual = usual.into_iter().filter(|(name, _)| !fields.iter().any(|(other, _)| other == name));
        let mut request = Request::builder().method("POST").uri(format!("http://node{path}"));
        for (name, value) in usual.chain(fields.iter().copied()).filter(|(name, _)| *name != ":method") {
            request = request.header(name, value);
        }
        if let Some((_, method)) = fields.iter().find(|(name, _)| *name == ":method") {
            request = request.method(*method);
        }
        std::future::poll_fn(|context| self.requests.poll_ready(context)).await.unwrap();
        let (response, mut stream) = self.requests.send_request(request.body(()).unwrap(), false).unwrap();
        stream.send_data(Bytes::copy_from_slice(body), ends).unwrap();
        let ended = async {
            let (head, mut body) = response.await.unwrap().into_parts();
            let mut bytes = Vec::new();
            while let Some(some) = body.data().await {
                let some = some.unwrap();
                body.flow_control().release_capacity(some.len()).unwrap();
                bytes.extend_from_slice(&some);
            }
            let trailers = body.trailers().await.unwrap();
            let trailers_only = head.headers.contains_key("grpc-status");
            let end: &HeaderMap = if trailers_only { &head.headers } else { trailers.as_ref().unwrap() };
            let text = |fields: &HeaderMap, name| fields.get(name).map(|value| value.to_str().unwrap().to_owned());
            End {
                http: head.status.as_u16(),
                status: text(end, "grpc-status").unwrap().parse().unwrap(),
                message: text(end, "grpc-message").unwrap_or_default(),
                trailers_only,
                accepts: text(&head.headers, "grpc-accept-encoding"),
                body: bytes,
            }
        };
        let ended = tokio::time::timeout(TOO_LONG, ended).await.expect("every call ends");
        drop(stream);
        ended
    }

    async fn works(&mut self) {
        let end = self.call(LIST, &[], &[0; 5], true).await;
        assert_eq!((end.http, end.status, end.trailers_only), (200, 0, false), "{end:?}");
        assert_eq!(ListDisksResponse::decode(&end.body[5..]).unwrap().disks.len(), 1);
    }
}

fn with_node(test: impl AsyncFnOnce(&mut Caller, &Node)) {
    let scratch = scratch();
    let node = Node::start(&scratch.path().join("data"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut caller = Caller::connect(&node).await;
        test(&mut caller, &node).await;
        caller.works().await;
    });
    drop(runtime);
    node.stop();
}

#[test]
fn heads_that_are_no_call_are_refused() {
    with_node(async |caller, _| {
        for (fields, http, status) in [
            (&[("content-type", "application/grpc-web")][..], 415, 12),
            (&[("content-type", "application/grpc+json")], 415, 12),
            (&[(":method", "PUT")], 405, 12),
            (&[("grpc-encoding", "deflate")], 200, 12),
            (&[("grpc-timeout", "soon")], 200, 3),
            (&[("grpc-timeout", "1S"), ("grpc-timeout", "2S")], 200, 3),
            (&[("authorization", "Bearer x")], 200, 16),
        ] {
            let end = caller.call(LIST, fields, &[0; 5], true).await;
            assert_eq!((end.http, end.status, end.trailers_only), (http, status, true), "{fields:?}: {end:?}");
            assert!(end.accepts.as_deref() == Some("identity,gzip") && !end.message.is_empty(), "{end:?}");
            caller.works().await;
        }
        for path in ["/anvil.v1.AdminService/Nothing", "/anvil.v1.AdminService", "/", "/a/b/c?d", "/bucket/key"] {
            let end = caller.call(path, &[], &[0; 5], true).await;
            assert_eq!((end.http, end.status), (200, 12), "{path}: {end:?}");
        }
    });
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    with_node(async |caller, _| {
        let whole = [&[0, 0, 0, 0, 2][..], &OfflineDiskRequest { disk: String::new() }.encode_to_vec()].concat();
        for (body, status) in [
            (&b""[..], 13),
            (&[0], 13),
            (&[0, 0, 0, 0, 9, 1], 13),
            // Compressed without an encoding; a flag that is none; not of its type; two where one is meant.
            (&[1, 0, 0, 0, 0], 13),
            (&[7, 0, 0, 0, 0], 13),
            (&[0, 0, 0, 0, 3, 0x0a, 0x7f, b'x'], 13),
            (&[0, 0, 0, 0, 3, 0x0a, 1, 0xff], 13),
            (&[0; 10], 13),
            (&whole, 13),
            // Too large, as the first five bytes say already.
            (&[0, 0, 0x40, 0, 1], 8),
            (&[0, 0xff, 0xff, 0xff, 0xff], 8),
        ] {
            let end = caller.call(OFFLINE, &[], body, true).await;
            assert_eq!((end.http, end.status, end.trailers_only), (200, status, true), "{body:?}: {end:?}");
        }
        // Refused before the rest comes, which it never will.
        let end = caller.call(OFFLINE, &[], &[0, 0xff, 0xff, 0xff, 0xff], false).await;
        assert_eq!(end.status, 8, "{end:?}");
        caller.works().await;
    });
}

#[test]
fn a_call_ends_at_its_deadline() {
    with_node(async |caller, _| {
        // Its message never comes.
        let end = caller.call(LIST, &[("grpc-timeout", "50m")], &[0, 0], false).await;
        assert_eq!((end.status, end.trailers_only), (4, true), "{end:?}");
        let end = caller.call(LIST, &[("grpc-timeout", "30S")], &[0; 5], true).await;
        assert_eq!(end.status, 0, "{end:?}");
        // Behind the first message of its answer.
        let end = caller.call(WATCH, &[("grpc-timeout", "500m")], &[0; 5], true).await;
        assert_eq!((end.http, end.status, end.trailers_only), (200, 4, false), "{end:?}");
        assert_eq!(end.body, [0, 0, 0, 0, 2, 8, 1]);
    });
}

/// The database does not answer: the call does, when its time is over, and nothing waits on.
#[test]
fn a_deadline_holds_for_the_database_too() {
    let (server, scratch) = (Postgres::start(), scratch());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) =
            tokio_postgres::connect(&server.url("postgres"), tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        for name in ["anvil_global", "anvil_regional"] {
            client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        }
        drop(client);
        driver.await.unwrap().unwrap();
    });
    let relay = Relay::to(server.port());
    let regional = format!("postgres://postgres@127.0.0.1:{}/anvil_regional", relay.port());
    let environment = [("GLOBAL_DATABASE_URL", server.url("anvil_global")), ("REGIONAL_DATABASE_URL", regional)];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let options = Options { arguments: vec!["--init-cluster".to_owned()], environment, ..Options::default() };
    let node = Node::start_with(&scratch.path().join("data"), &options);
    runtime.block_on(async {
        let mut caller = Caller::connect(&node).await;
        let (client_id, client_secret) = (node.credentials.access_key.clone(), node.credentials.secret_key.clone());
        let ask = GetAccessTokenRequest { client_id, client_secret, scopes: Vec::new() }.encode_to_vec();
        let given = caller.call("/anvil.v1.AuthService/GetAccessToken", &[], &framed(0, &ask), true).await;
        caller.bearer = format!("Bearer {}", GetAccessTokenResponse::decode(&given.body[5..]).unwrap().access_token);
        let buckets = async |caller: &mut Caller, timeout| {
            let fields = [("grpc-timeout", timeout)];
            caller.call("/anvil.v1.BucketService/ListBuckets", &fields, &framed(0, &[]), true).await.status
        };
        assert_eq!(buckets(&mut caller, "30S").await, 0);
        relay.stand_still(true);
        let status = buckets(&mut caller, "500m").await;
        // 14 from the moment when the node has noticed.
        assert!(matches!(status, 4 | 14), "{status}");
        while node.metric("anvil_requests_in_flight") > 1.0 {}
        relay.stand_still(false);
        let began = Instant::now();
        while buckets(&mut caller, "30S").await != 0 {
            assert!(began.elapsed() < TOO_LONG, "it is served again");
        }
    });
    drop(runtime);
    node.stop();
}

/// A message with its flag and length.
fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn messages_may_be_compressed_and_answers_are_what_every_client_reads() {
    with_node(async |caller, _| {
        let gzipped = [("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip,identity")];
        let disk = OfflineDiskRequest { disk: format!("/{}", "x".repeat(10_000)) }.encode_to_vec();
        for message in [framed(1, &gzip(&disk)), framed(0, &disk)] {
            let end = caller.call(OFFLINE, &gzipped, &message, true).await;
            assert_eq!((end.status, end.accepts.as_deref()), (5, Some("identity,gzip")), "it was read: {end:?}");
        }
        // The flag of each message says how the answer is written; it is 0 whatever the client takes.
        for accepts in ["gzip", "identity", "deflate,br", ""] {
            let end = caller.call(LIST, &[("grpc-accept-encoding", accepts)], &framed(0, &[]), true).await;
            assert_eq!((end.status, end.body[0]), (0, 0), "{accepts}: {end:?}");
        }
        // What is no gzip, and what is more than a message may be once it is undone.
        let end = caller.call(OFFLINE, &gzipped, &framed(1, &disk[..100]), true).await;
        assert_eq!(end.status, 13, "{end:?}");
        let bomb = gzip(&OfflineDiskRequest { disk: "x".repeat(64 << 20) }.encode_to_vec());
        assert!(bomb.len() < 1 << 20);
        let end = caller.call(OFFLINE, &gzipped, &framed(1, &bomb), true).await;
        assert_eq!(end.status, 8, "{end:?}");
    });
}

#[test]
fn metadata_of_bytes_and_messages_beyond_ascii_arrive() {
    with_node(async |caller, _| {
        // Both forms of Base64 are sent (PROTOCOL-HTTP2.md, "Binary-Header"), and several values of one name.
        let trace = [("trace-bin", "AAEC/w=="), ("trace-bin", "AAEC/w"), ("tags-bin", "AAEC,/////w")];
        let end = caller.call(LIST, &trace, &[0; 5], true).await;
        assert_eq!(end.status, 0, "{end:?}");
        let path = "/anvil.v1.AdminService/100%25%C3%A4";
        let end = caller.call(path, &[], &[0; 5], true).await;
        assert!(end.message.contains("100%2525%25C3%25A4"), "a percent sign is encoded: {end:?}");
        assert!(decode_message(&end.message).contains(path), "{end:?}");
    });
}

#[test]
fn a_call_over_http1_is_told_to_use_http2() {
    with_node(async |_, node| {
        let mut stream = TcpStream::connect(node.address).unwrap();
        stream.set_read_timeout(Some(TOO_LONG)).unwrap();
        let request = format!(
            "POST {LIST} HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 5\r\n\
             Connection: close\r\n\r\n\0\0\0\0\0"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 415 ") && answer.contains("gRPC takes HTTP/2"), "{answer}");
    });
}
