//! The commands of people and scripts who use a store: `anvil configure`, `auth`, `bucket` and `object`. They speak gRPC to a
//! node (docs/CLIENT.md).
//!
//! - [`profile`]: which node, and as whom. [`session`]: connections to it, its token, what is tried again.
//! - [`place`]: what the words of a command name. [`put`] and [`get`]: how bytes travel; [`sync`]: many files and objects.
//!
//! **Invariants**
//! - No more than [`session::STREAMS`] parts of objects are in memory or on their way at once, whatever the sizes.
//! - A file has its name only when all of its bytes are there and were found good.
//! - What a command began and could not finish is taken back, also after Ctrl-C, as far as the node can be reached.

mod auth;
mod bucket;
mod configure;
mod get;
mod object;
mod place;
mod profile;
mod put;
mod session;
mod sync;
mod token_cache;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{Failure, print};

pub(super) use auth::AuthCommand;
pub(super) use bucket::BucketCommand;
pub(super) use configure::ConfigureArgs;
pub(super) use object::ObjectCommand;
pub(super) use token_cache::TokenCache;

pub(super) use auth::run as auth;
pub(super) use bucket::run as bucket;
pub(super) use configure::run as configure;
pub(super) use object::run as object;

/// Which node is asked, and how its answer is printed.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Common {
    /// The profile that `anvil configure` wrote; it counts more than variables then [env: ANVIL_PROFILE, default: default]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The node: http://HOST:PORT or https://HOST:PORT [env: ANVIL_ENDPOINT]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// The certificates that vouch for an https endpoint, in PEM; without it, those of the system [env: ANVIL_CA_FILE]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How the answer is printed
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

impl Common {
    fn tell(&self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.output {
            Output::Json => print(&format!("{:#}\n", json())),
            Output::Text => print(&text()),
        }
    }
}

/// A time as JSON and tables show it.
fn time(timestamp: Option<anvil_proto::Timestamp>) -> Option<jiff::Timestamp> {
    let anvil_proto::Timestamp { seconds, nanos } = timestamp?;
    jiff::Timestamp::new(seconds, nanos).ok()
}

fn time_text(timestamp: Option<anvil_proto::Timestamp>) -> String {
    time(timestamp).map_or_else(|| "-".to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
