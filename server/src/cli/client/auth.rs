//! `anvil auth`: tokens for other programs.

use clap::Subcommand;
use serde_json::json;

use super::Common;
use super::session::{Session, run_session};
use crate::cli::Failure;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AuthCommand {
    /// Prints a token for other programs, good for some minutes
    GetToken {
        /// What it is to be good for: `object:read|bucket/prefix/*`; all that the app may do when none is given
        #[arg(long = "scope", value_name = "ACTION|RESOURCE")]
        scopes: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
}

pub(in crate::cli) fn run(command: AuthCommand) -> Result<(), Failure> {
    let AuthCommand::GetToken { scopes, common } = command;
    run_session(&common, async |session: &Session| {
        let answer = session.line().token_for(scopes).await.map_err(Failure::run)?;
        common.tell(
            || json!({ "access_token": answer.access_token, "expires_in": answer.expires_in }),
            || format!("{}\n", answer.access_token),
        )
    })
}
