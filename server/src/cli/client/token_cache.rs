//! The token that one command leaves for the next: a node gives only so many a minute, and a shell's loop would ask for one with
//! each command. It lies where only its owner may read, as the profile with the secret does, and is of use for some minutes.
//! A cache: what cannot be read or kept is got anew.

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::profile::Profile;
use crate::config::Environment;

/// Where the token of a profile lies; nowhere without a home.
#[derive(Debug)]
pub(in crate::cli) struct TokenCache(Option<PathBuf>);

#[derive(Deserialize, Serialize)]
struct Kept {
    token: String,
    /// Of the clock on the wall, in seconds since 1970.
    until: u64,
}

impl TokenCache {
    /// Below `$XDG_CACHE_HOME` or `~/.cache` (XDG Base Directory Specification), by what the token was got with.
    pub(super) fn of(profile: &Profile, environment: &Environment) -> Self {
        let Profile { endpoint, client_id, client_secret, .. } = profile;
        Self::named(&format!("{endpoint}\n{client_id}\n{}", client_secret.expose()), environment)
    }

    /// The same for whatever tells one token from others.
    pub(in crate::cli) fn named(whose: &str, environment: &Environment) -> Self {
        let home = || environment.value("HOME").map(|home| Path::new(home).join(".cache"));
        let directory = environment.value("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        let name: String =
            anvil_digest::sha256(whose.as_bytes())[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        Self(directory.map(|directory| directory.join("anvil/tokens").join(name)))
    }

    /// A token that is still good, and for how long.
    pub(in crate::cli) fn read(&self) -> Option<(String, Duration)> {
        let Kept { token, until } = serde_json::from_slice(&fs::read(self.0.as_ref()?).ok()?).ok()?;
        let left = until.checked_sub(seconds_now()).filter(|left| (1..=LEFT_MAX_SECONDS).contains(left))?;
        Some((token, Duration::from_secs(left)))
    }

    /// Keeps a token that is good for so long.
    pub(in crate::cli) fn keep(&self, token: &str, good_for: Duration) {
        let Some(path) = &self.0 else { return };
        let kept = Kept { token: token.to_owned(), until: seconds_now() + good_for.as_secs() };
        let new = path.with_extension(std::process::id().to_string());
        let write = || {
            let directory = path.parent().expect("a file has a directory");
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec(&kept)?)?;
            fs::rename(&new, path)
        };
        if write().is_err() {
            // The next command gets one of its own.
            let _ = fs::remove_file(&new);
        }
    }

    /// The node does not take it any more.
    pub(in crate::cli) fn forget(&self) {
        if let Some(path) = &self.0 {
            // It may be gone already.
            let _ = fs::remove_file(path);
        }
    }
}

/// No token is good for longer, whatever a clock says that was set meanwhile.
const LEFT_MAX_SECONDS: u64 = 3600;

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_kept_for_its_owner_while_it_is_good() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("anvil/tokens/x");
        let cache = TokenCache(Some(path.clone()));
        assert_eq!(cache.read(), None);
        cache.keep("a", Duration::from_secs(100));
        let (token, left) = cache.read().unwrap();
        assert!(token == "a" && (90..=100).contains(&left.as_secs()), "{left:?}");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        cache.keep("b", Duration::ZERO);
        assert_eq!(cache.read(), None, "it is old");
        cache.keep("c", Duration::from_secs(2 * LEFT_MAX_SECONDS));
        assert_eq!(cache.read(), None, "a clock was set");
        fs::write(&path, b"{").unwrap();
        assert_eq!(cache.read(), None);
        cache.forget();
        assert!(!path.exists() && fs::read_dir(path.parent().unwrap()).unwrap().next().is_none());
        TokenCache(None).keep("d", Duration::from_secs(9));
    }
}
