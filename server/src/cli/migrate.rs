//! `anvil migrate`: the schemas of both databases.

use clap::Subcommand;

use super::{Failure, print};
use crate::config::{Environment, databases};
use crate::metadata::postgres::schema::{GLOBAL, REGIONAL, SchemaError, Status, migrate};

#[derive(Debug, Subcommand)]
pub(super) enum MigrateCommand {
    /// Runs the migrations that have not run yet, each in a transaction
    Up,
    /// Prints what is applied where; the exit code is 1 when something is pending
    Status,
}

pub(super) fn run(command: &MigrateCommand) -> Result<(), Failure> {
    let environment = Environment::of_process().map_err(Failure::usage)?;
    let databases = databases(&environment).map_err(Failure::usage)?;
    let both = [(databases.global, GLOBAL), (databases.regional, REGIONAL)];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::run)?;
    let work = async {
        let mut pending = 0;
        for (database, schema) in both {
            if matches!(command, MigrateCommand::Up) {
                migrate(&database, schema).await?;
            }
            let status = Status::of(&database, schema).await?;
            pending += status.pending();
            // A reader that went away hears no more; the migrations go on.
            let _ = print(&status.lines());
        }
        Ok::<_, SchemaError>(pending)
    };
    match tokio::task::LocalSet::new().block_on(&runtime, work).map_err(Failure::run)? {
        0 => Ok(()),
        1 => Err(Failure::run("1 migration is pending: run `anvil migrate up`")),
        pending => Err(Failure::run(format!("{pending} migrations are pending: run `anvil migrate up`"))),
    }
}
