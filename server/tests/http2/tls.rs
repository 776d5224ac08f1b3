//! TLS in front of both protocols, with a client of the same library, and with bytes that are no TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anvil::http1::Settings;
use anvil::tls::{CertificateFiles, Tls};
use rcgen::{CertifiedKey, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::client::*;
use crate::harness::{Server, TOO_LONG, patient, pattern, weighted};

/// A certificate in files, and the node that shows it.
struct Site {
    directory: TempDir,
    certificate: CertifiedKey<KeyPair>,
    tls: Arc<Tls>,
}

impl Site {
    fn new(only: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let at = |name| directory.path().join(name);
        write(&certificate, &at("cert.pem"), &at("key.pem"));
        let files = CertificateFiles { certificate: at("cert.pem"), key: at("key.pem") };
        let tls = Arc::new(Tls::open(files, only).unwrap());
        Self { directory, certificate, tls }
    }

    fn settings(&self) -> Settings {
        Settings { tls: Some(Arc::clone(&self.tls)), ..patient() }
    }

    fn client(&self, protocol: &str) -> ClientConfig {
        client_config(&self.certificate, &[protocol])
    }
}

fn write(certificate: &CertifiedKey<KeyPair>, cert: &std::path::Path, key: &std::path::Path) {
    std::fs::write(cert, certificate.cert.pem()).unwrap();
    std::fs::write(key, certificate.signing_key.serialize_pem()).unwrap();
}

fn client_config(certificate: &CertifiedKey<KeyPair>, protocols: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

fn connect(server: &Server, config: ClientConfig) -> StreamOwned<ClientConnection, TcpStream> {
    let socket = TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(TOO_LONG)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
}

/// Sends a request by HTTP/1.1 that closes the connection, and gives the whole answer.
fn ask(mut stream: impl Read + Write, head: &str, body: &[u8]) -> Vec<u8> {
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream.flush().unwrap();
    let mut answer = Vec::new();
    // Without a close_notify from the server this is an error.
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn both_protocols_and_no_tls_at_all_share_a_port() {
    const LENGTH: usize = 5 << 20;
    let site = Site::new(false);
    let server = Server::start(site.settings());
    let body: Vec<u8> = (0..LENGTH as u64).map(pattern).collect();

    let head = format!("PUT /sum HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {LENGTH}\r\n\r\n");
    let answer = ask(connect(&server, site.client("http/1.1")), &head, &body);
    assert!(answer.ends_with(format!("\r\n\r\n{LENGTH} {}", weighted(&body, 0)).as_bytes()));
    let head = format!("GET /object?{LENGTH} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let answer = ask(connect(&server, client_config(&site.certificate, &[])), &head, b"");
    assert!(answer.ends_with(&body), "a client without ALPN speaks HTTP/1.1");

    let mut client = Client::over(Box::new(connect(&server, site.client("h2"))), &[]);
    let stream = client.get(&format!("/object?{LENGTH}"));
    assert_eq!(client.outcome(stream), Outcome::Answer { status: 200, body: body.clone() });
    let stream = client.begin(&request("PUT", "/sum"), false);
    body[..1 << 20].chunks(16 << 10).for_each(|piece| client.data(stream, piece, false));
    client.data(stream, b"", true);
    assert_eq!(client.outcome(stream).answer().1, format!("{} {}", 1 << 20, weighted(&body[..1 << 20], 0)));

    assert_eq!(server.ask("GET /show HTTP/1.1\r\nHost: h\r\n\r\n").status, 200);
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask(&request("GET", "/bytes?1"), b"").answer().0, 200);
}

#[test]
fn a_node_that_wants_tls_only_says_so() {
    let site = Site::new(true);
    let server = Server::start(site.settings());
    let answer = server.ask("GET /show HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(answer.status == 400 && answer.text().contains("https://"), "{answer:?}");
    const INADEQUATE_SECURITY: u32 = 12;
    assert_eq!(Client::connect(server.address).rest(), Some(INADEQUATE_SECURITY));
    let answer = ask(connect(&server, site.client("http/1.1")), "GET /bytes?1 HTTP/1.0\r\nHost: h\r\n\r\n", b"");
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn a_renewed_certificate_is_shown_to_new_clients() {
    let site = Site::new(false);
    let server = Server::start(site.settings());
    let get = "GET /bytes?1 HTTP/1.0\r\nHost: h\r\n\r\n";
    let mut before = connect(&server, site.client("http/1.1"));
    before.conn.complete_io(&mut before.sock).unwrap();
    let renewed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    write(&renewed, &site.directory.path().join("cert.pem"), &site.directory.path().join("key.pem"));
    site.tls.reload().unwrap();
    let answer = ask(connect(&server, client_config(&renewed, &["http/1.1"])), get, b"");
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    assert!(ask(before, get, b"").starts_with(b"HTTP/1.1 200 "), "who was there before stays");
}

#[test]
fn a_handshake_that_fails_or_does_not_end_costs_nobody_else() {
    let site = Site::new(false);
    let server = Server::start(Settings { head_timeout: Duration::from_millis(300), ..site.settings() });
    // Half a hello.
    let mut half = server.connect();
    half.send([0x16, 3, 1, 2, 0, 1, 0, 1]);
    half.assert_closed();
    // What only begins like one gets an alert (RFC 8446, 6).
    let mut noise = server.connect();
    noise.send([&[0x16, 3, 1, 0, 200][..], &[0xff; 200]].concat());
    let alert = noise.rest();
    assert!(alert.len() >= 7 && alert[0] == 21, "{alert:?}");
    // A client that does not trust the certificate goes; one that speaks nothing that we speak is told.
    let stranger = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    for config in [client_config(&stranger, &["h2"]), client_config(&site.certificate, &["spdy/3"])] {
        let mut stream = connect(&server, config);
        assert!(stream.conn.complete_io(&mut stream.sock).is_err());
    }
    server.wait_until("all are gone", |server| server.counters.connections() == 0);
    let answer = ask(connect(&server, site.client("http/1.1")), "GET /bytes?1 HTTP/1.0\r\nHost: h\r\n\r\n", b"");
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn a_slow_or_cut_body_over_tls_is_refused_as_any_other() {
    let site = Site::new(false);
    let server = Server::start(Settings { body_grace: Duration::from_millis(300), ..site.settings() });
    let head = "PUT /sum HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc";
    let answer = ask(connect(&server, site.client("http/1.1")), head, b"");
    assert!(String::from_utf8_lossy(&answer).contains("TimedOut"));
    let mut cut = connect(&server, site.client("http/1.1"));
    cut.write_all(head.as_bytes()).unwrap();
    cut.sock.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    cut.read_to_end(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("Disconnected"));
}
