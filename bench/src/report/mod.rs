//! `anvil-bench report`: saved JSON documents as one page with plots, which needs no network and no script.

mod chart;
mod page;
mod plots;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde_json::Value;

/// What to show.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Documents that other suites printed with --json
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The page; stdout by default
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// One of the documents.
struct Document {
    /// As the page names it.
    name: String,
    suite: String,
    value: Value,
}

/// Writes the page.
///
/// # Errors
/// One sentence that names the file that is no such document.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let documents = args.files.iter().map(Document::read).collect::<anyhow::Result<Vec<_>>>()?;
    let page = page::write(&documents);
    match &args.output {
        None => println!("{page}"),
        Some(path) => fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?,
    }
    Ok(())
}

impl Document {
    fn read(path: &PathBuf) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let value: Value =
            serde_json::from_str(&text).with_context(|| format!("{} is no JSON document", path.display()))?;
        let suite = value["suite"].as_str().unwrap_or_default().to_owned();
        ensure!(
            plots::SUITES.contains(&&*suite) && value["host"].is_object(),
            "{} is no document that a suite of anvil-bench printed with --json",
            path.display()
        );
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok(Self { name, suite, value })
    }
}
