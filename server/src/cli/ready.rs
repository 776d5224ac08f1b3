//! `anvil ready`: asks a node whether it is, for those who watch over a container or wait for a start and have no other
//! HTTP client at hand.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::time::timeout;

use super::{Failure, print};
use crate::config::{Environment, PORT};
use crate::grpc::client::{CallError, Client, Endpoint};

#[derive(Args, Debug)]
pub(super) struct ReadyArgs {
    /// The node: http://HOST:PORT or https://HOST:PORT [env: ANVIL_ENDPOINT, default: port 50051 of this host]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// The certificates that vouch for an https endpoint, in PEM [env: ANVIL_CA_FILE]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// Prints what `/ready` says; a failure when that is not 200, or nobody answers in time.
pub(super) fn run(arguments: &ReadyArgs) -> Result<(), Failure> {
    let environment = Environment::of_process().map_err(Failure::usage)?;
    let default = format!("http://127.0.0.1:{PORT}");
    let endpoint = arguments.endpoint.as_deref().or_else(|| environment.value("ANVIL_ENDPOINT")).unwrap_or(&default);
    let endpoint: Endpoint = endpoint.parse().map_err(Failure::usage)?;
    let roots = arguments.ca_file.clone().or_else(|| environment.value("ANVIL_CA_FILE").map(PathBuf::from));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::run)?;
    let asking = async {
        let mut client = Client::connect(endpoint.clone(), roots.as_deref()).await?;
        client.get("/ready").await
    };
    let late = || CallError::Unreachable { endpoint: endpoint.to_string(), what: "it does not answer".to_owned() };
    let answer = runtime.block_on(async { timeout(ASKED_TIME_MAX, asking).await }).unwrap_or_else(|_| Err(late()));
    let (status, said) = answer.map_err(Failure::run)?;
    match status {
        200 => print(&said),
        _ => Err(Failure::run(format!("the node is not ready: {status} {}", said.trim_end()))),
    }
}

/// A node that is asked whether it is ready has nothing to wait for.
const ASKED_TIME_MAX: Duration = Duration::from_secs(4);
