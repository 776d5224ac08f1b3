//! `anvil tune`: what this host is set to, beside what it should be.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::tenants::table;
use super::{Failure, print};
use crate::config::{Config, Environment, Flags, Form};
use crate::tune::advice::{Advice, Verdict, advise};
use crate::tune::host::Host;

#[derive(Debug, Subcommand)]
pub(super) enum TuneCommand {
    /// Says what is set on this host, what is recommended, and why; changes nothing
    Check {
        #[command(flatten)]
        named: NamedDisks,
        /// The exit code is 1 when something differs
        #[arg(long)]
        strict: bool,
        /// As one JSON document, for programs
        #[arg(long)]
        json: bool,
    },
    /// Prints the commands that set what differs, for root and until the next start of the host
    Apply {
        #[command(flatten)]
        named: NamedDisks,
        /// Print them, and run nothing
        #[arg(long, required = true)]
        dry_run: bool,
    },
}

#[derive(Args, Debug)]
pub(super) struct NamedDisks {
    /// A disk of the node, again for several [env: ANVIL_DISKS; default: the data directory's]
    #[arg(long = "disk", value_name = "PATH")]
    disks: Vec<String>,
}

pub(super) fn run(command: TuneCommand) -> Result<(), Failure> {
    match command {
        TuneCommand::Check { named, strict, json } => check(&advice(named)?, strict, json),
        TuneCommand::Apply { named, dry_run: _ } => print(&commands(&advice(named)?)),
    }
}

fn advice(NamedDisks { disks }: NamedDisks) -> Result<Vec<Advice>, Failure> {
    let environment = Environment::of_process().map_err(Failure::usage)?;
    let flags = Flags { disks, ..Flags::default() };
    let checked = Config::read(Form::Server, &flags, &environment).map_err(Failure::usage)?;
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let disks: Vec<PathBuf> = checked.config.disks.iter().map(|disk| absolute(&disk.path)).collect();
    Ok(advise(&Host::read(Path::new("/"), &disks)))
}

fn check(all: &[Advice], strict: bool, json: bool) -> Result<(), Failure> {
    let text = if json {
        serde_json::to_string_pretty(all).expect("it is made of texts") + "\n"
    } else {
        let rows = all.iter().map(row).collect();
        table(&["", "SETTING", "IS", "WANTED", "HOW WE KNOW", "WHY"], rows)
    };
    print(&text)?;
    let differing = all.iter().filter(|advice| advice.verdict == Verdict::Differs).count();
    match differing {
        0 => Ok(()),
        _ if !strict => Ok(()),
        _ => Err(Failure::run(format!("{differing} of {} settings differ", all.len()))),
    }
}

fn row(advice: &Advice) -> Vec<String> {
    let sign = match advice.verdict {
        Verdict::Good => "ok",
        Verdict::Differs => "differs",
        Verdict::Unknown => "?",
    };
    let mark = format!("{:?}", advice.mark).to_lowercase();
    let is = advice.is.clone().unwrap_or_else(|| "not told".to_owned());
    vec![sign.to_owned(), advice.setting.clone(), is, advice.wanted.clone(), mark, advice.why.to_owned()]
}

/// What a shell would run, each with its reason.
fn commands(all: &[Advice]) -> String {
    let mut script = String::new();
    for advice in all.iter().filter(|advice| advice.verdict == Verdict::Differs) {
        let Advice { setting, is, wanted, why, command, .. } = advice;
        let is = is.as_deref().unwrap_or("not told");
        writeln!(script, "# {setting}: {is}, wanted {wanted}: {why}").expect("a String takes everything");
        if let Some(command) = command {
            writeln!(script, "{command}").expect("a String takes everything");
        }
    }
    script
}
