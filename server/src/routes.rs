//! What is answered in front of S3: the health of the node and its metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::grpc::Services;
use crate::grpc::call::Calls;
use crate::grpc::request::is_grpc;
use crate::http::{Head, Incoming, Outgoing, Response, Service};
use crate::metadata::postgres::DatabaseRole;
use crate::s3::Domains;
use crate::telemetry::{Metrics, MetricsAllow};

/// Whether the node wants requests. Shared by all cores.
#[derive(Debug)]
pub struct Readiness {
    stage: AtomicU8,
    /// In the order of [`DatabaseRole`]; never set by a node without databases.
    away: [AtomicBool; 2],
}

/// What `/ready` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// The disks are read, or the metadata replayed.
    Starting,
    /// Requests are served.
    Serving,
    /// The node stops: running requests finish, others go elsewhere.
    Stopping,
    /// A database does not answer, or is not the one that it was. Without the regional one, requests are answered with 503.
    Without(DatabaseRole),
}

impl Default for Readiness {
    fn default() -> Self {
        Self { stage: AtomicU8::new(STARTING), away: Default::default() }
    }
}

impl Readiness {
    /// What it is now.
    #[must_use]
    pub fn now(&self) -> Ready {
        match self.stage.load(Ordering::Relaxed) {
            STARTING => Ready::Starting,
            STOPPING => Ready::Stopping,
            _ if !self.is_there(DatabaseRole::Regional) => Ready::Without(DatabaseRole::Regional),
            _ if !self.is_there(DatabaseRole::Global) => Ready::Without(DatabaseRole::Global),
            _ => Ready::Serving,
        }
    }

    /// Whether a database answers, as was said last.
    #[must_use]
    pub fn is_there(&self, role: DatabaseRole) -> bool {
        !self.away[role as usize].load(Ordering::Relaxed)
    }

    /// Says whether a database answers. It counts while the node serves, and is remembered before.
    pub fn database(&self, role: DatabaseRole, there: bool) {
        self.away[role as usize].store(!there, Ordering::Relaxed);
    }

    /// The node serves from now on.
    pub fn serve(&self) {
        self.stage.store(SERVING, Ordering::Relaxed);
    }

    /// The node stops from now on.
    pub fn stop(&self) {
        self.stage.store(STOPPING, Ordering::Relaxed);
    }
}

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const STOPPING: u8 = 2;

/// S3 with the reserved paths in front of it: `/ready`, `/metrics`, and `/` for those who show no credentials.
#[derive(Debug)]
pub struct Routes<S> {
    s3: S,
    domains: Arc<Domains>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    metrics_allow: Arc<MetricsAllow>,
    grpc: Services,
}

impl<S> Routes<S> {
    /// Puts the reserved paths in front of `s3`, and `grpc` beside it.
    pub fn new(
        s3: S,
        grpc: Services,
        domains: Arc<Domains>,
        readiness: Arc<Readiness>,
        metrics: Arc<Metrics>,
        metrics_allow: Arc<MetricsAllow>,
    ) -> Self {
        Self { s3, domains, readiness, metrics, metrics_allow, grpc }
    }

    /// A bucket that is named by the host has all paths to itself.
    fn route(&self, head: &Head) -> Route {
        if self.domains.bucket(head).is_some() { Route::S3 } else { route(head) }
    }
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Health,
    Ready,
    Metrics,
    /// gRPC over HTTP/1.1.
    Grpc,
    /// A method that a reserved path does not take: no bucket has its name.
    Reserved,
    S3,
}

fn route(head: &Head) -> Route {
    let reads = matches!(head.method.as_str(), "GET" | "HEAD");
    // S3 has no POST of such a body; over HTTP/2 a call does not come this way.
    if head.method == "POST" && head.header("content-type").is_some_and(|kind| is_grpc(kind.as_bytes())) {
        return Route::Grpc;
    }
    match head.path.as_str() {
        "/" if reads && !shows_credentials(head) => Route::Health,
        "/ready" if reads => Route::Ready,
        "/metrics" if reads => Route::Metrics,
        "/ready" | "/metrics" | "/ready/" | "/metrics/" => Route::Reserved,
        _ => Route::S3,
    }
}

/// SigV4 and SigV2, in the header or in the query. Whether they are true is for S3 to find out.
fn shows_credentials(head: &Head) -> bool {
    let in_header = head.headers.iter().any(|(name, _)| name == "authorization");
    let parameters = head.query.iter().flat_map(|query| query.split('&'));
    in_header
        || parameters
            .map(|parameter| parameter.split('=').next().unwrap_or_default())
            .any(|name| ["X-Amz-Algorithm", "X-Amz-Signature", "Signature", "AWSAccessKeyId"].contains(&name))
}

impl<S: Service> Service for Routes<S> {
    type Pieces = S::Pieces;

    async fn call<I: Incoming>(&self, head: &Head, body: &mut I) -> Response<S::Pieces> {
        match self.route(head) {
            Route::Health => text(200, PLAIN, "Anvil is up.\n".to_owned()),
            Route::Ready => match self.readiness.now() {
                Ready::Serving => text(200, PLAIN, "ready\n".to_owned()),
                Ready::Starting => text(503, PLAIN, "starting\n".to_owned()),
                Ready::Stopping => text(503, PLAIN, "stopping\n".to_owned()),
                Ready::Without(role) => text(503, PLAIN, format!("the {} database is away\n", role.name())),
            },
            Route::Metrics if !self.metrics_allow.admits(head) => {
                self.refusal(403, "AccessDenied", NOT_FROM_HERE, &head.request_id)
            }
            Route::Metrics => text(200, OPEN_METRICS, self.metrics.render()),
            Route::Grpc => self.refusal(415, "UnsupportedMediaType", GRPC, &head.request_id),
            Route::Reserved => self.refusal(405, "MethodNotAllowed", RESERVED, &head.request_id),
            Route::S3 => self.s3.call(head, body).await,
        }
    }

    fn refusal(&self, status: u16, code: &str, message: &str, request_id: &str) -> Response<S::Pieces> {
        self.s3.refusal(status, code, message, request_id)
    }

    fn grpc(&self) -> Option<&impl Calls> {
        Some(&self.grpc)
    }

    fn operation(&self, head: &Head) -> &'static str {
        match self.route(head) {
            Route::Health => "Health",
            Route::Ready => "Ready",
            Route::Metrics => "Metrics",
            Route::Reserved | Route::Grpc => "Refused",
            Route::S3 => self.s3.operation(head),
        }
    }
}

fn text<P>(status: u16, content_type: &'static str, text: String) -> Response<P> {
    let headers =
        vec![("Content-Type".into(), content_type.to_owned()), ("Cache-Control".into(), "no-store".to_owned())];
    Response { status, headers, body: Outgoing::Bytes(text.into_bytes()) }
}

const PLAIN: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const GRPC: &str = "gRPC takes HTTP/2, and this request came over HTTP/1.1.";
const NOT_FROM_HERE: &str = "ANVIL_METRICS_ALLOW says from where metrics are read, and this is from elsewhere.";
const RESERVED: &str = "This name is reserved: it can be read, and no bucket can have it.";

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, target: &str, headers: &[&str]) -> Head {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        Head {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
            headers: headers.iter().map(|&name| (name.to_owned(), Vec::new())).collect(),
            peer: "127.0.0.1:1".parse().unwrap(),
            request_id: "R".to_owned(),
        }
    }

    #[test]
    fn the_root_is_the_health_of_the_node_for_those_without_credentials() {
        assert_eq!(route(&head("GET", "/", &["host"])), Route::Health);
        assert_eq!(route(&head("HEAD", "/?x=1", &[])), Route::Health);
        assert_eq!(route(&head("GET", "/", &["authorization"])), Route::S3);
        for query in ["X-Amz-Algorithm=a", "x=1&X-Amz-Signature=b", "AWSAccessKeyId=a&Signature=b"] {
            assert_eq!(route(&head("GET", &format!("/?{query}"), &[])), Route::S3, "{query}");
        }
        assert_eq!(route(&head("POST", "/", &[])), Route::S3);
        assert_eq!(route(&head("GET", "/bucket", &[])), Route::S3);
    }

    #[test]
    fn reserved_names_can_be_read_and_nothing_else() {
        assert_eq!(route(&head("GET", "/ready", &["authorization"])), Route::Ready);
        assert_eq!(route(&head("HEAD", "/metrics", &[])), Route::Metrics);
        for (method, path) in [("PUT", "/ready"), ("PUT", "/metrics/"), ("DELETE", "/metrics"), ("GET", "/ready/")] {
            assert_eq!(route(&head(method, path, &[])), Route::Reserved, "{method} {path}");
        }
        assert_eq!(route(&head("GET", "/ready/key", &[])), Route::S3);
    }

    #[test]
    fn a_node_is_ready_when_it_serves_and_its_databases_answer() {
        let readiness = Readiness::default();
        let (regional, global) = (DatabaseRole::Regional, DatabaseRole::Global);
        assert_eq!(readiness.now(), Ready::Starting);
        readiness.database(regional, false);
        assert_eq!(readiness.now(), Ready::Starting, "it waits for the disks");
        readiness.serve();
        assert_eq!(readiness.now(), Ready::Without(regional), "as was said before");
        readiness.database(global, false);
        readiness.database(regional, true);
        assert_eq!(readiness.now(), Ready::Without(global));
        readiness.database(global, true);
        assert_eq!(readiness.now(), Ready::Serving);
        readiness.stop();
        readiness.database(global, true);
        assert_eq!(readiness.now(), Ready::Stopping);
    }
}
