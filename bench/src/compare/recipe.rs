//! How a server is started: a small TOML file that says what it is, and nothing of a machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

/// A server that can be started. In every text stand for themselves: `{data}`, an empty directory of its own; `{address}`, where
/// it is to listen, and `{port}` of it; `{spare_address}`, another one; `{access_key}` and `{secret_key}`, drawn anew for each
/// start.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipe {
    /// What the tables call it.
    pub(super) name: String,
    /// The program, found on the PATH, and its arguments. Secrets belong into `env` or `files`: arguments can be seen by all.
    pub(super) command: Vec<String>,
    /// The secret may stand among the arguments: for programs that have no other way.
    #[serde(default)]
    pub(super) secret_in_arguments: bool,
    /// Added to the environment.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// Directories that are made before, below `{data}`.
    #[serde(default)]
    pub(super) directories: Vec<String>,
    /// Files that are written before, below `{data}`: their names and contents.
    #[serde(default)]
    pub(super) files: BTreeMap<String, String>,
    /// Commands that are run, one after the other, when it listens: where keys or layouts have to be made.
    #[serde(default)]
    pub(super) setup: Vec<Vec<String>>,
    /// Where S3 clients connect.
    #[serde(default = "endpoint")]
    pub(super) endpoint: String,
    /// The region that requests are signed for.
    #[serde(default = "region")]
    pub(super) region: String,
    /// A command that prints its version.
    #[serde(default)]
    pub(super) version: Vec<String>,
    /// What a 200 means, in a sentence, from its documentation or source.
    pub(super) durability: String,
    /// It has Anvil's metrics.
    #[serde(default)]
    pub(super) metrics: bool,
}

fn endpoint() -> String {
    "http://{address}".to_owned()
}

fn region() -> String {
    "us-east-1".to_owned()
}

/// What the report says of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct About {
    pub(super) name: String,
    /// The first line that it printed when it was asked; `unknown` when it was not, or did not answer.
    pub(super) version: String,
    /// With its places as they stand in the file.
    pub(super) command: Vec<String>,
    pub(super) durability: String,
}

impl Recipe {
    /// # Errors
    /// One sentence that names the file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} does not say how to start a server", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        // Its own errors draw the place over several lines.
        let recipe: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
            anyhow::anyhow!("line {line}: {}", error.message())
        })?;
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
                && !name.starts_with('.')
        };
        ensure!(is_name(&recipe.name), "`name` takes letters, digits, and any of - _ .");
        ensure!(!recipe.command.is_empty(), "`command` is empty");
        ensure!(recipe.setup.iter().all(|command| !command.is_empty()), "`setup` has an empty command");
        ensure!(recipe.files.keys().all(|name| is_name(name)), "`files` takes plain names");
        let texts = || recipe.command.iter().chain(recipe.setup.iter().flatten());
        ensure!(
            recipe.secret_in_arguments || !texts().any(|text| text.contains("{secret_key}")),
            "a secret stands among the arguments, where all can see it: it belongs into `env` or `files`"
        );
        Ok(recipe)
    }

    pub(super) fn about(&self) -> About {
        let version = || {
            let (program, arguments) = self.version.split_first()?;
            let output = Command::new(program).args(arguments).output().ok()?;
            String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
        };
        About {
            name: self.name.clone(),
            version: version().unwrap_or_else(|| "unknown".to_owned()),
            command: self.command.clone(),
            durability: self.durability.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_of_this_repository_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                names.push(Recipe::read(&path).unwrap().name);
            }
        }
        names.sort();
        assert!(names.contains(&"anvil".to_owned()) && names.contains(&"minio".to_owned()), "{names:?}");
    }

    #[test]
    fn what_is_no_recipe_is_refused_in_one_sentence() {
        let good = "name = \"a\"\ncommand = [\"b\"]\ndurability = \"c\"\n";
        assert!(Recipe::parse(good).is_ok());
        for (text, says) in [
            ("", "name"),
            ("name = 1", "line 1"),
            (&good.replace("\"b\"", ""), "`command` is empty"),
            (&good.replace("\"a\"", "\"../a\""), "`name` takes"),
            (&good.replace("\"b\"", "\"b\", \"--key={secret_key}\""), "a secret"),
            (&format!("{good}commnd = 1"), "commnd"),
        ] {
            let error = format!("{:#}", Recipe::parse(text).unwrap_err());
            assert!(error.contains(says) && error.lines().count() == 1, "{text}: {error}");
        }
    }
}
