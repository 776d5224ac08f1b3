//! What `docs/monitoring` and `docs/deploy` give to operators does what it says, beside the real binary: Prometheus knows
//! every metric that is named there, S3 and gRPC go through Caddy and nginx, and `anvil tune` tells what the host is set to.

mod daemon;
mod monitoring;
mod proxies;
mod sandbox;
#[path = "../support/mod.rs"]
mod support;
mod tune;
