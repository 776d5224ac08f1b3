//! `anvil configure`: writes a profile.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::PathBuf;

use clap::Args;
use console::Term;

use super::profile::{self, Profiles};
use crate::auth::Secret;
use crate::cli::{Failure, print};
use crate::config::{Environment, PORT};
use crate::grpc::client::Endpoint;

#[derive(Args, Debug)]
pub(in crate::cli) struct ConfigureArgs {
    /// The name of the profile
    #[arg(long, value_name = "NAME", default_value = profile::DEFAULT)]
    profile: String,
    /// The node: http://HOST:PORT or https://HOST:PORT; asked for on a terminal when it is not given
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Who asks: the app's client id, its access key in S3; asked for on a terminal when it is not given
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Reads the client secret from stdin, not from the terminal
    #[arg(long)]
    secret_stdin: bool,
    /// The certificates that vouch for an https endpoint, in PEM; without it, those of the system
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

pub(in crate::cli) fn run(arguments: ConfigureArgs) -> Result<(), Failure> {
    let environment = Environment::of_process().map_err(Failure::usage)?;
    let path = profile::path(&environment)?;
    let mut profiles = Profiles::read(&path)?;
    let kept = profiles.profiles.entry(arguments.profile.clone()).or_default();
    let default = kept.endpoint.clone().unwrap_or_else(|| format!("http://127.0.0.1:{PORT}"));
    let endpoint = match arguments.endpoint {
        Some(endpoint) => endpoint,
        None if is_asked() => asked(&format!("Endpoint [{default}]: "))?.unwrap_or(default),
        None => default,
    };
    let _: Endpoint = endpoint.parse().map_err(Failure::usage)?;
    let client_id = match arguments.client_id {
        Some(id) => Some(id),
        None if is_asked() => {
            let hint = kept.client_id.as_ref().map(|id| format!(" [{id}]")).unwrap_or_default();
            asked(&format!("Client id{hint}: "))?.or_else(|| kept.client_id.clone())
        }
        None => kept.client_id.clone(),
    };
    let client_id = client_id.filter(|id| !id.is_empty());
    let client_id = client_id.ok_or_else(|| Failure::usage("there is no client id: name it with --client-id"))?;
    let secret = if arguments.secret_stdin {
        let mut text = String::new();
        io::stdin()
            .take(SECRET_READ_MAX)
            .read_to_string(&mut text)
            .map_err(|error| Failure::usage(format!("stdin: {error}")))?;
        text.trim_end_matches(['\r', '\n']).to_owned()
    } else if is_asked() {
        let term = Term::stderr();
        term.write_str("Client secret: ").map_err(Failure::run)?;
        term.read_secure_line().map_err(Failure::run)?
    } else {
        return Err(Failure::usage("there is no terminal to ask for the client secret: give it to --secret-stdin"));
    };
    Secret::new(&secret).map_err(|error| Failure::usage(format!("the client secret is wrong: {error}")))?;
    kept.endpoint = Some(endpoint);
    kept.client_id = Some(client_id);
    kept.client_secret = Some(secret);
    if let Some(file) = arguments.ca_file {
        let absolute =
            std::path::absolute(&file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
        kept.ca_file = Some(absolute);
    }
    profiles.write(&path)?;
    print(&format!("profile {} is in {}\n", arguments.profile, path.display()))
}

/// More than a secret may have.
const SECRET_READ_MAX: u64 = 1024;

fn is_asked() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// What was typed, when it was anything.
fn asked(prompt: &str) -> Result<Option<String>, Failure> {
    let term = Term::stderr();
    term.write_str(prompt).map_err(Failure::run)?;
    let line = term.read_line().map_err(Failure::run)?;
    let typed = line.trim();
    Ok(if typed.is_empty() { None } else { Some(typed.to_owned()) })
}
