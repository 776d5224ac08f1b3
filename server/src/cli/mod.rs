//! The command line: what can be asked of the `anvil` binary.
//!
//! Exit codes: 0 as asked, 1 when a node could not start or died, did not do as asked, or a record is damaged, 2 when a flag or variable is wrong,
//! 130 when Ctrl-C ended a look at disks or a copy of objects.

mod admin;
mod client;
mod keys;
mod metadata;
mod migrate;
mod node;
mod offline;
mod quotas;
mod ready;
mod regions;
mod store;
mod tasks;
mod tenants;
mod tune;
mod users;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{Config, Environment, Flags, Form};

/// Anvil, an object store that speaks S3: one binary, from a laptop to a cluster.
///
/// Without a command it is `anvil server`.
#[derive(Debug, Parser)]
#[command(name = "anvil", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a node for development: on 127.0.0.1, with data under ./anvil-data, ready at once
    Dev(Flags),
    /// Runs a node: on all addresses, with all cores
    Server(Flags),
    /// Looks at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Looks at the disks of a node that is not running
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Migrates the databases that GLOBAL_DATABASE_URL and REGIONAL_DATABASE_URL name
    #[command(subcommand)]
    Migrate(migrate::MigrateCommand),
    /// Asks a running node, as its administrator; makes the metadata of one that does not run again
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    /// Keeps the endpoint, the client id and the secret of a node in a profile
    Configure(client::ConfigureArgs),
    /// Tokens for programs
    #[command(subcommand)]
    Auth(client::AuthCommand),
    /// The buckets of a running node
    #[command(subcommand)]
    Bucket(client::BucketCommand),
    /// The objects of a running node
    #[command(subcommand)]
    Object(client::ObjectCommand),
    /// Asks a node whether it is ready: the exit code is 0 when it is
    Ready(ready::ReadyArgs),
    /// Compares what this host is set to with what it should be
    #[command(subcommand)]
    Tune(tune::TuneCommand),
    /// Prints the version
    Version,
    /// Prints a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Prints what flags and environment come to, secrets hidden, or what is wrong with them
    Check {
        /// As `anvil dev` would see it, not `anvil server`
        #[arg(long)]
        dev: bool,
        #[command(flatten)]
        flags: Flags,
    },
}

/// Why a command did not succeed, with the exit code that says it to scripts.
#[derive(Debug)]
struct Failure {
    sentence: String,
    code: u8,
}

impl Failure {
    /// The operator can mend it by asking otherwise.
    fn usage(sentence: impl ToString) -> Self {
        Self { sentence: sentence.to_string(), code: 2 }
    }

    fn run(sentence: impl ToString) -> Self {
        Self { sentence: sentence.to_string(), code: 1 }
    }
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { command, flags } = Cli::parse();
    let result = match command {
        None => node::run(Form::Server, &flags),
        Some(Command::Server(flags)) => node::run(Form::Server, &flags),
        Some(Command::Dev(flags)) => node::run(Form::Dev, &flags),
        Some(Command::Config(ConfigCommand::Check { dev, flags })) => check(dev, &flags),
        Some(Command::Store(command)) => store::run(command),
        Some(Command::Migrate(command)) => migrate::run(&command),
        Some(Command::Admin(command)) => admin::run(command),
        Some(Command::Configure(arguments)) => client::configure(arguments),
        Some(Command::Auth(command)) => client::auth(command),
        Some(Command::Bucket(command)) => client::bucket(command),
        Some(Command::Object(command)) => client::object(command),
        Some(Command::Ready(arguments)) => ready::run(&arguments),
        Some(Command::Tune(command)) => tune::run(command),
        Some(Command::Version) => print(&format!("anvil {}\n", env!("CARGO_PKG_VERSION"))),
        Some(Command::Completions { shell }) => print(&completions(shell)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("anvil: {}", failure.sentence);
            ExitCode::from(failure.code)
        }
    }
}

fn check(dev: bool, flags: &Flags) -> Result<(), Failure> {
    let form = if dev { Form::Dev } else { Form::Server };
    let environment = Environment::of_process().map_err(Failure::usage)?;
    let checked = Config::read(form, flags, &environment).map_err(Failure::usage)?;
    let runtime = checked.config.runtime(&anvil_runtime::available_cpus()).map_err(Failure::usage)?;
    let cores = runtime.cpus.len();
    let memory = (cores * runtime.buffers_per_core * anvil_model::limits::BUFFER_BYTES) >> 20;
    print(&format!("{}# cores: {cores}, with {memory} MiB of buffers\n", checked.report()))
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "anvil", &mut script);
    String::from_utf8(script).expect("completion scripts are text")
}

/// Writes to stdout. A reader that has gone away, as `head` does, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::run(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_command_flags_are_those_of_the_server() {
        let cli = Cli::try_parse_from(["anvil", "--disk", "/a:1GiB", "--disk", "/b", "--init-cluster"]).unwrap();
        assert!(cli.command.is_none() && cli.flags.init_cluster);
        assert_eq!(cli.flags.disks, ["/a:1GiB", "/b"]);
        let dev = Cli::try_parse_from(["anvil", "dev", "--api-listen-addr", "127.0.0.1:1"]).unwrap();
        let Some(Command::Dev(flags)) = dev.command else { panic!("{dev:?}") };
        assert_eq!(flags.grpc_bind_addr.as_deref(), Some("127.0.0.1:1"));
    }

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
            let script = completions(shell);
            assert!(script.contains("completions") && script.contains("data-dir"), "{shell}");
        }
    }
}
