//! The other end of a call: what the command line asks a node with. Runs on tokio, one connection per client.
//! [`Call`] is a call whose messages come and go one by one.

mod stream;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anvil_proto::Message;
use anvil_proto::rpc::{ErrorInfo, Status as WireStatus};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::status::{self, Code};
use crate::tls::ALPN_HTTP2;

pub use stream::Call;

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    is_tls: bool,
    host: String,
    port: u16,
}

/// Why a call had no answer. Each text is one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The text names no node.
    #[error("{0:?} is no endpoint: http://HOST:PORT or https://HOST:PORT is meant")]
    Endpoint(String),
    /// Nobody is there, or does not speak as a node does.
    #[error("cannot reach a node at {endpoint}: {what}")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// What happened.
        what: String,
    },
    /// The node answered, and not with success.
    #[error("the node refuses: {message} ({})", code.name())]
    Refused {
        /// Why, for everybody.
        code: Code,
        /// Why, for programs; empty when the node did not say.
        reason: String,
        /// Why, for people.
        message: String,
    },
}

/// How long the node may take: an order may have to wait for a disk.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What may be under way to this end: enough for 10 Gbit/s over 3 ms, and all that a slow reader costs.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const FRAME_BYTES_MAX: u32 = 256 << 10;
/// Of a page that is asked for by people.
const PAGE_BYTES_MAX: usize = 4096;

impl std::str::FromStr for Endpoint {
    type Err = CallError;

    fn from_str(text: &str) -> Result<Self, CallError> {
        let wrong = || CallError::Endpoint(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let is_tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(wrong()),
        };
        let authority: http::uri::Authority = rest.trim_end_matches('/').parse().map_err(|_| wrong())?;
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let host = authority.host().to_owned();
        if host.is_empty() || authority.as_str().contains('@') { Err(wrong()) } else { Ok(Self { is_tls, host, port }) }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}:{}", if self.is_tls { "https" } else { "http" }, self.host, self.port)
    }
}

/// A connection to a node. A clone uses the same one.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    requests: SendRequest<Bytes>,
}

impl Client {
    /// Connects. `roots` are the certificates that may vouch for a node with TLS; without them, those of the system.
    ///
    /// # Errors
    /// When nobody is there, or is not believed.
    pub async fn connect(endpoint: Endpoint, roots: Option<&Path>) -> Result<Self, CallError> {
        let connected = timeout(CONNECT_TIMEOUT, connect(&endpoint, roots)).await;
        let requests = match connected {
            Ok(Ok(requests)) => requests,
            Ok(Err(what)) => return Err(CallError::Unreachable { endpoint: endpoint.to_string(), what }),
            Err(_) => {
                let what = "it does not answer".to_owned();
                return Err(CallError::Unreachable { endpoint: endpoint.to_string(), what });
            }
        };
        Ok(Self { endpoint, requests })
    }

    /// Calls a method that takes and gives one message.
    ///
    /// # Errors
    /// With the node's own status, or when there was no answer.
    pub async fn call<M: Message, R: Message + Default>(
        &mut self,
        path: &str,
        token: &str,
        message: &M,
    ) -> Result<R, CallError> {
        let exchange = async {
            let mut call = self.start(path, token, Some(CALL_TIMEOUT)).await?;
            call.send(message).await?;
            call.close().await?;
            call.only().await
        };
        let called = timeout(CALL_TIMEOUT, exchange).await;
        called.unwrap_or_else(|_| Err(self.unreachable("it does not answer")))
    }

    /// Begins a call whose messages stream, of whatever length.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn open(&mut self, path: &str, token: &str) -> Result<Call, CallError> {
        self.start(path, token, None).await
    }

    async fn start(&mut self, path: &str, token: &str, within: Option<Duration>) -> Result<Call, CallError> {
        let Endpoint { host, port, .. } = &self.endpoint;
        let scheme = if self.endpoint.is_tls { "https" } else { "http" };
        let mut request = Request::post(format!("{scheme}://{host}:{port}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", concat!("anvil/", env!("CARGO_PKG_VERSION")));
        if let Some(within) = within {
            request = request.header("grpc-timeout", format!("{}S", within.as_secs()));
        }
        // AuthService takes none.
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(()).map_err(|error| self.unreachable(error))?;
        let ready = timeout(CALL_TIMEOUT, poll_fn(|context| self.requests.poll_ready(context))).await;
        ready.map_err(|_| self.unreachable("it does not answer"))?.map_err(|error| self.unreachable(error))?;
        let begun = self.requests.send_request(request, false).map_err(|error| self.unreachable(error))?;
        Ok(Call::new(self.endpoint.to_string(), begun))
    }

    /// Asks for one of the node's pages for machines: the status, and the beginning of what it says.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn get(&mut self, path: &str) -> Result<(u16, String), CallError> {
        let Endpoint { host, port, .. } = &self.endpoint;
        let scheme = if self.endpoint.is_tls { "https" } else { "http" };
        let request = Request::get(format!("{scheme}://{host}:{port}{path}"));
        let request = request.body(()).map_err(|error| self.unreachable(error))?;
        poll_fn(|context| self.requests.poll_ready(context)).await.map_err(|error| self.unreachable(error))?;
        let (response, _) = self.requests.send_request(request, true).map_err(|error| self.unreachable(error))?;
        let (head, mut body) = response.await.map_err(|error| self.unreachable(error))?.into_parts();
        let mut said = Vec::new();
        // What a page says beyond that is not waited for.
        while let Some(bytes) = body.data().await {
            said.extend_from_slice(&bytes.map_err(|error| self.unreachable(error))?);
            if said.len() >= PAGE_BYTES_MAX {
                break;
            }
        }
        Ok((head.status.as_u16(), String::from_utf8_lossy(&said).into_owned()))
    }

    fn unreachable(&self, what: impl ToString) -> CallError {
        CallError::Unreachable { endpoint: self.endpoint.to_string(), what: what.to_string() }
    }
}

/// What the fields at the end of a call say; `None` when they say nothing.
fn outcome(fields: &HeaderMap) -> Option<Result<(), CallError>> {
    let text = |name| fields.get(name).and_then(|value| value.to_str().ok());
    let code = Code::of(text(status::STATUS)?.parse().unwrap_or(u32::MAX));
    if code == Code::Ok {
        return Some(Ok(()));
    }
    let message = status::decode_message(text(status::MESSAGE).unwrap_or_default());
    let reason = text(status::DETAILS).and_then(reason).unwrap_or_default();
    Some(Err(CallError::Refused { code, reason, message }))
}

/// The reason among the details, which may come with padding or without (PROTOCOL-HTTP2.md, "-bin").
fn reason(details: &str) -> Option<String> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&alphabet::STANDARD, config).decode(details).ok()?;
    let status = WireStatus::decode(bytes.as_slice()).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.ErrorInfo"))?;
    ErrorInfo::decode(info.value.as_slice()).ok().map(|info| info.reason)
}

async fn connect(endpoint: &Endpoint, roots: Option<&Path>) -> Result<SendRequest<Bytes>, String> {
    let text = |error: std::io::Error| error.to_string();
    let host = endpoint.host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, endpoint.port)).await.map_err(text)?.collect();
    let stream = TcpStream::connect(addresses.as_slice()).await.map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    if !endpoint.is_tls {
        return speak(stream).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(tls_config(roots)?).connect(name, stream).await.map_err(text)?;
    speak(stream).await
}

/// Shakes hands, and lets the connection run by itself.
async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<SendRequest<Bytes>, String> {
    let shaken = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .enable_push(false)
        .handshake(stream)
        .await;
    let (requests, connection) = shaken.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        // What breaks a connection is told by its calls.
        let _ = connection.await;
    });
    Ok(requests)
}

fn tls_config(roots: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut store = RootCertStore::empty();
    match roots {
        Some(path) => {
            let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
                store.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
            }
        }
        // Among those of a system there may be some that nobody can read; the others count.
        None => drop(store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if store.is_empty() {
        return Err("no certificate vouches for an https endpoint here: name some with --ca-file, in PEM".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_scheme_and_a_host() {
        for (text, expected) in [
            ("http://127.0.0.1:50051", "http://127.0.0.1:50051"),
            ("https://node.example.com/", "https://node.example.com:443"),
            ("http://[::1]:7", "http://[::1]:7"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), expected);
        }
        for wrong in ["", "127.0.0.1:50051", "ftp://a", "http://", "http://a b", "http://key:secret@a:1", "http://a/b"]
        {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_end_of_a_call_is_read() {
        let status = super::super::Status::new(Code::NotFound, "NO_SUCH_DISK", "no \u{fc}");
        let mut fields = HeaderMap::new();
        assert_eq!(outcome(&fields), None);
        for (name, value) in status.fields("R") {
            fields.insert(name, value.parse().unwrap());
        }
        let (code, reason) = (Code::NotFound, "NO_SUCH_DISK".to_owned());
        assert_eq!(outcome(&fields), Some(Err(CallError::Refused { code, reason, message: "no \u{fc}".to_owned() })));
        fields.insert("grpc-status", "0".parse().unwrap());
        assert_eq!(outcome(&fields), Some(Ok(())));
        fields.insert("grpc-status", "x".parse().unwrap());
        assert!(matches!(outcome(&fields), Some(Err(CallError::Refused { code: Code::Unknown, .. }))));
    }
}
