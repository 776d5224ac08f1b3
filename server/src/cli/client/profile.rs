//! Which node is asked, and as whom: profiles in a file, the environment, and flags.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Common;
use crate::auth::Secret;
use crate::cli::Failure;
use crate::config::{Environment, PORT};
use crate::grpc::client::Endpoint;

/// A node, and who asks it.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    pub(super) endpoint: Endpoint,
    pub(super) client_id: String,
    pub(super) client_secret: Secret,
    /// Those of the system when there are none.
    pub(super) ca_file: Option<PathBuf>,
}

/// What is kept of a profile. No `Debug`: it holds a secret.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca_file: Option<PathBuf>,
}

/// The file of profiles.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profiles {
    #[serde(default)]
    pub(super) profiles: BTreeMap<String, Kept>,
}

/// The profile that counts when none is named.
pub(super) const DEFAULT: &str = "default";

impl Profile {
    /// A flag counts most, then a profile that a flag names, then variables, then the profile of a variable or `default`.
    pub(super) fn find(common: &Common, environment: &Environment) -> Result<Self, Failure> {
        let path = path(environment)?;
        let named = common.profile.as_deref().or_else(|| environment.value("ANVIL_PROFILE"));
        let kept = Profiles::read(&path)?.profiles.remove(named.unwrap_or(DEFAULT));
        if let (None, Some(name)) = (&kept, named) {
            let path = path.display();
            return Err(Failure::usage(format!(
                "{path} has no profile {name:?}: `anvil configure --profile {name}` makes it"
            )));
        }
        Self::of(common, environment, kept.unwrap_or_default())
    }

    fn of(common: &Common, environment: &Environment, kept: Kept) -> Result<Self, Failure> {
        let variable = |names: [&str; 2]| names.iter().find_map(|name| environment.value(name)).map(str::to_owned);
        let choose = |kept: Option<String>, names| {
            if common.profile.is_some() { kept.or_else(|| variable(names)) } else { variable(names).or(kept) }
        };
        let missing = |what: &str, names: [&str; 2]| {
            let [name, _] = names;
            Failure::usage(format!("there is no {what}: `anvil configure` asks for it, or set {name}"))
        };
        let endpoint = common.endpoint.clone().or_else(|| choose(kept.endpoint, ENDPOINT_NAMES));
        let endpoint = endpoint.unwrap_or_else(|| format!("http://127.0.0.1:{PORT}"));
        let client_id = choose(kept.client_id, ID_NAMES).ok_or_else(|| missing("client id", ID_NAMES))?;
        let secret = choose(kept.client_secret, SECRET_NAMES).ok_or_else(|| missing("client secret", SECRET_NAMES))?;
        let ca_file = choose(kept.ca_file.map(|path| path.to_string_lossy().into_owned()), ["ANVIL_CA_FILE"; 2]);
        Ok(Self {
            endpoint: endpoint.parse().map_err(Failure::usage)?,
            client_id,
            client_secret: Secret::new(&secret)
                .map_err(|error| Failure::usage(format!("the client secret is wrong: {error}")))?,
            ca_file: common.ca_file.clone().or_else(|| ca_file.map(PathBuf::from)),
        })
    }
}

const ENDPOINT_NAMES: [&str; 2] = ["ANVIL_ENDPOINT", "AWS_ENDPOINT_URL"];
const ID_NAMES: [&str; 2] = ["ANVIL_CLIENT_ID", "AWS_ACCESS_KEY_ID"];
const SECRET_NAMES: [&str; 2] = ["ANVIL_CLIENT_SECRET", "AWS_SECRET_ACCESS_KEY"];

/// Where profiles are kept (XDG Base Directory Specification).
pub(super) fn path(environment: &Environment) -> Result<PathBuf, Failure> {
    let home = || environment.value("HOME").map(|home| Path::new(home).join(".config"));
    let directory = environment.value("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    let directory =
        directory.ok_or_else(|| Failure::usage("neither XDG_CONFIG_HOME nor HOME is set: profiles have no place"))?;
    Ok(directory.join("anvil/config.toml"))
}

impl Profiles {
    /// None where there is no file.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let wrong = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(wrong(&error)),
        };
        // Not all that the parser says: it shows the line, which may be that of a secret.
        toml::from_str(&text).map_err(|error| wrong(&error.message().trim_end()))
    }

    /// Replaces the file as a whole, for the eyes of its owner alone.
    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = toml::to_string(self).map_err(Failure::run)?;
        let wrong = |error| Failure::run(format!("{}: {error}", path.display()));
        let directory = path.parent().expect("a file has a directory");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(wrong)?;
        let new = path.with_extension(format!("toml.{}", std::process::id()));
        let written = (|| {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)
        })();
        written.map_err(|error| {
            // What could not be written cannot always be removed either; the first failure is told.
            let _ = fs::remove_file(&new);
            wrong(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        let text = |text: &str| Some(text.to_owned());
        Kept {
            endpoint: text("http://kept:1"),
            client_id: text("kept"),
            client_secret: text("kept-secret"),
            ca_file: None,
        }
    }

    #[track_caller]
    fn check(common: &Common, variables: &[(&str, &str)], endpoint: &str, client_id: &str) {
        let found = Profile::of(common, &Environment::of(variables.iter().copied()), kept()).unwrap();
        assert_eq!((found.endpoint.to_string().as_str(), found.client_id.as_str()), (endpoint, client_id));
    }

    #[test]
    fn flags_then_a_named_profile_then_variables_count() {
        let none = Common::default();
        let named = Common { profile: Some("a".to_owned()), ..Common::default() };
        let flag = Common { endpoint: Some("http://flag:3".to_owned()), ..Common::default() };
        let variables =
            [("ANVIL_ENDPOINT", "http://own:2"), ("AWS_ACCESS_KEY_ID", "aws"), ("AWS_ENDPOINT_URL", "http://aws:4")];
        check(&none, &[], "http://kept:1", "kept");
        check(&none, &variables, "http://own:2", "aws");
        check(&named, &variables, "http://kept:1", "kept");
        check(&flag, &variables, "http://flag:3", "aws");
    }

    #[test]
    fn what_is_missing_or_wrong_is_said_without_the_secret() {
        let of = |kept| Profile::of(&Common::default(), &Environment::of([]), kept).unwrap_err().sentence;
        assert!(of(Kept::default()).contains("ANVIL_CLIENT_ID"));
        assert!(of(Kept { client_secret: None, ..kept() }).contains("ANVIL_CLIENT_SECRET"));
        let sentence = of(Kept { client_secret: Some("sh rt".to_owned()), ..kept() });
        assert!(sentence.contains("visible ASCII") && !sentence.contains("sh rt"), "{sentence}");
    }
}
