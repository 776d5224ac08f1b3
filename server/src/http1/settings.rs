//! Limits of connections that an operator or a test may want otherwise.

use std::sync::Arc;
use std::time::Duration;

use crate::tls::Tls;

/// How patient the frontend is, and how much it takes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections of one core; more are answered with 503 and closed.
    pub connections_max: usize,
    /// From the first byte of a head to its last.
    pub head_timeout: Duration,
    /// How long a connection may be silent between two requests.
    pub idle_timeout: Duration,
    /// How far a body may fall behind [`Self::body_bytes_per_second_min`].
    pub body_grace: Duration,
    /// The slowest body that is waited for. Only the time in which the server waits for bytes counts.
    pub body_bytes_per_second_min: u64,
    /// How far a client may fall behind [`Self::send_bytes_per_second_min`] when it takes an answer.
    pub send_grace: Duration,
    /// The slowest client that an answer is sent to.
    pub send_bytes_per_second_min: u64,
    /// What may be left of a request's body after its answer so that it is read, and the connection kept.
    pub drain_bytes_max: u64,
    /// How long reading that may take.
    pub drain_timeout: Duration,
    /// How long a connection that is being closed is read from, so that the client sees the answer and not a reset.
    pub linger_timeout: Duration,
    /// How many bytes that may be.
    pub linger_bytes_max: u64,
    /// How long running requests may take to finish once the node stops.
    pub stop_timeout: Duration,
    /// The value of `x-amz-id-2`: which node answered, in words that tell a stranger nothing.
    pub host_id: String,
    /// Who the node is, for clients that come with TLS; `None` when it has no certificate.
    pub tls: Option<Arc<Tls>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: 8192,
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            body_grace: Duration::from_secs(30),
            body_bytes_per_second_min: 4 << 10,
            send_grace: Duration::from_secs(30),
            send_bytes_per_second_min: 16 << 10,
            drain_bytes_max: 256 << 10,
            drain_timeout: Duration::from_secs(2),
            linger_timeout: Duration::from_secs(5),
            linger_bytes_max: 16 << 20,
            stop_timeout: Duration::from_secs(30),
            host_id: "anvil".to_owned(),
            tls: None,
        }
    }
}
