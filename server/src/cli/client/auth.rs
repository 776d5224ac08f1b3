//! `anvil auth`: tokens for other programs, and what the app passes on.

use anvil_proto::v1;
use clap::{Args, Subcommand};
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
    /// Allows another app of the same tenant something that this one may do itself
    Grant(Shared),
    /// Takes back what was granted so, and what was passed on from it
    Revoke(Shared),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Shared {
    /// The other app
    #[arg(long, value_name = "APP")]
    app_name: String,
    /// What: object:read, object:*, * and the like
    #[arg(long, value_name = "ACTION")]
    action: String,
    /// On what: a bucket, or bucket/key; * stands for any characters
    #[arg(long, value_name = "RESOURCE")]
    resource: String,
    #[command(flatten)]
    common: Common,
}

pub(in crate::cli) fn run(command: AuthCommand) -> Result<(), Failure> {
    match command {
        AuthCommand::GetToken { scopes, common } => run_session(&common, async |session: &Session| {
            let answer = session.line().token_for(scopes).await.map_err(Failure::run)?;
            common.tell(
                || json!({ "access_token": answer.access_token, "expires_in": answer.expires_in }),
                || format!("{}\n", answer.access_token),
            )
        }),
        AuthCommand::Grant(Shared { app_name, action, resource, common }) => {
            run_session(&common, async |session: &Session| {
                let (said, told) = (said(&app_name, "may", &action, &resource), json(&app_name, &action, &resource));
                let request = v1::GrantAccessRequest { app_name, action, resource };
                let _: v1::GrantAccessResponse = session.line().ask("AuthService/GrantAccess", &request).await?;
                common.tell(|| told, || said)
            })
        }
        AuthCommand::Revoke(Shared { app_name, action, resource, common }) => {
            run_session(&common, async |session: &Session| {
                let (said, told) =
                    (said(&app_name, "may not any more", &action, &resource), json(&app_name, &action, &resource));
                let request = v1::RevokeAccessRequest { app_name, action, resource };
                let _: v1::RevokeAccessResponse = session.line().ask_once("AuthService/RevokeAccess", &request).await?;
                common.tell(|| told, || said)
            })
        }
    }
}

fn said(app: &str, may: &str, action: &str, resource: &str) -> String {
    format!("app {app} {may}: {action} on {resource}\n")
}

fn json(app: &str, action: &str, resource: &str) -> serde_json::Value {
    json!({ "app_name": app, "action": action, "resource": resource })
}
