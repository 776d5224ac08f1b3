//! The app of a node without a database: one tenant, one app, its access key and secret; and how clients are told.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anvil_model::ids::TenantId;
use serde::{Deserialize, Serialize};

use crate::auth::{Credential, Directory, Secret};
use crate::config::ChosenCredentials;
use crate::data_dir::{self, DataDir, DataDirError, FILE_VERSION};

/// The tenant and the app of this node, with the credentials of the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The owner of all buckets here.
    pub tenant: TenantId,
    /// The app's client id.
    pub access_key: String,
    /// The app's client secret.
    pub secret: Secret,
}

/// The file that they are kept in.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    tenant: TenantId,
    tenant_name: String,
    app_name: String,
    access_key: String,
    secret_key: String,
}

impl Credentials {
    /// Those that the operator chose, those of the last start, or new ones; durable when this returns. They are of
    /// `tenant`, where a database gives one.
    ///
    /// # Errors
    /// When the data directory cannot be read or written.
    pub fn open(
        data: &DataDir,
        chosen: Option<ChosenCredentials>,
        tenant: Option<TenantId>,
    ) -> Result<Self, DataDirError> {
        let tenant = tenant.unwrap_or(TENANT);
        let kept = Self::read(data)?.map(|kept| Self { tenant, ..kept });
        let credentials = match (chosen, &kept) {
            (Some(ChosenCredentials { access_key, secret }), _) => Self { tenant, access_key, secret },
            (None, Some(kept)) => return Ok(kept.clone()),
            (None, None) => Self { tenant, access_key: new_access_key(), secret: new_secret() },
        };
        if kept.as_ref() != Some(&credentials) {
            data.write(FILE, &credentials.to_kept())?;
        }
        Ok(credentials)
    }

    /// Those in the data directory of a node that may be running; `None` when there are none.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn of_directory(path: &Path) -> Result<Option<Self>, DataDirError> {
        let Some(kept) = data_dir::read(&path.join(FILE))? else { return Ok(None) };
        Self::from_kept(kept, path).map(Some)
    }

    /// The directory that requests are authenticated with.
    #[must_use]
    pub fn directory(&self) -> Directory {
        let credential = Credential::own(self.secret.clone(), self.tenant);
        Directory::new([(self.access_key.clone(), credential)])
    }

    /// Lines to paste into a shell: the environment of AWS's tools, and a first command for three other clients.
    #[must_use]
    pub fn paste_lines(&self, scheme: &str, address: SocketAddr, region: &str) -> String {
        let endpoint = format!("{scheme}://{}", reachable(address));
        let (key, secret) = (quoted(&self.access_key), quoted(self.secret.expose()));
        let mut lines = String::new();
        let mut line = |text: &str| writeln!(lines, "{text}").expect("a String takes everything");
        line(&format!("export AWS_ACCESS_KEY_ID={key}"));
        line(&format!("export AWS_SECRET_ACCESS_KEY={secret}"));
        line(&format!("export AWS_ENDPOINT_URL={endpoint}"));
        line(&format!("export AWS_DEFAULT_REGION={region}"));
        line("# With these lines the AWS CLI and boto3 work as they are: aws s3 mb s3://first");
        line(&format!("mc alias set anvil {endpoint} {key} {secret}"));
        line(&format!(
            "rclone config create anvil s3 provider=Other endpoint={endpoint} region={region} access_key_id={key} \
             secret_access_key={secret}"
        ));
        line("python3 -c 'import boto3; print(boto3.client(\"s3\").list_buckets()[\"Buckets\"])'");
        lines
    }

    fn read(data: &DataDir) -> Result<Option<Self>, DataDirError> {
        let Some(kept) = data.read::<Kept>(FILE)? else { return Ok(None) };
        Self::from_kept(kept, data.path()).map(Some)
    }

    fn from_kept(kept: Kept, directory: &Path) -> Result<Self, DataDirError> {
        let damaged = |what| DataDirError::Damaged { path: directory.join(FILE), what };
        let secret = Secret::new(&kept.secret_key).map_err(|error| damaged(error.to_string()))?;
        Ok(Self { tenant: kept.tenant, access_key: kept.access_key, secret })
    }

    fn to_kept(&self) -> Kept {
        Kept {
            version: FILE_VERSION,
            tenant: self.tenant,
            tenant_name: "default".to_owned(),
            app_name: "default".to_owned(),
            access_key: self.access_key.clone(),
            secret_key: self.secret.expose().to_owned(),
        }
    }
}

/// Where a client on this host reaches a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./+=:".contains(&b));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// 20 characters, as AWS's; of them 16 random ones out of 32, or 80 bits.
fn new_access_key() -> String {
    format!("ANVL{}", random_text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16))
}

/// 32 random letters and digits behind a prefix that tells what it is: 160 bits.
pub(crate) fn new_client_id() -> String {
    format!("app_{}", random_text(b"abcdefghijklmnopqrstuvwxyz234567", 32))
}

/// 40 characters, as AWS's, out of 64: 240 bits. Without characters that a shell or an URL would have to quote.
pub(crate) fn new_secret() -> Secret {
    let text = random_text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._", 40);
    Secret::new(&text).expect("40 visible characters are a secret")
}

/// `alphabet` has a power of two of letters, so that each is as likely as the others.
fn random_text(alphabet: &[u8], length: usize) -> String {
    assert!(alphabet.len().is_power_of_two() && alphabet.len() <= 256, "letters are drawn from whole bytes");
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes.iter().map(|&byte| char::from(alphabet[usize::from(byte) % alphabet.len()])).collect()
}

/// The only tenant of a node without a database. Buckets belong to it by this number, so credentials may change.
pub(crate) const TENANT: TenantId = TenantId(1);
const FILE: &str = "credentials.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn open(data: &DataDir, chosen: Option<(&str, &str)>) -> Credentials {
        let chosen = chosen.map(|(access_key, secret)| ChosenCredentials {
            access_key: access_key.to_owned(),
            secret: Secret::new(secret).unwrap(),
        });
        Credentials::open(data, chosen, None).unwrap()
    }

    #[test]
    fn credentials_are_made_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(directory.path()).unwrap();
        let first = open(&data, None);
        assert_eq!(open(&data, None), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(open(&DataDir::open(other.path()).unwrap(), None), first, "every node has its own");
        assert_eq!((first.access_key.len(), first.secret.expose().len()), (20, 40));
        assert!(first.directory().find_own(&first.access_key).is_some());
    }

    #[test]
    fn chosen_credentials_are_taken_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(directory.path()).unwrap();
        open(&data, None);
        let chosen = open(&data, Some(("mine", "my-secret-key")));
        assert_eq!(chosen.access_key, "mine");
        assert_eq!(open(&data, None), chosen);
    }

    #[test]
    fn the_lines_can_be_pasted() {
        let secret = Secret::new("it's$HOME`x`").unwrap();
        let credentials = Credentials { tenant: TENANT, access_key: "mine".to_owned(), secret };
        let lines = credentials.paste_lines("http", "0.0.0.0:50051".parse().unwrap(), "eu-west-1");
        let expected = "export AWS_ACCESS_KEY_ID=mine\n\
            export AWS_SECRET_ACCESS_KEY='it'\\''s$HOME`x`'\n\
            export AWS_ENDPOINT_URL=http://127.0.0.1:50051\n\
            export AWS_DEFAULT_REGION=eu-west-1\n";
        assert!(lines.starts_with(expected), "{lines}");
        let script = format!("set -eu\n{}printf %s \"$AWS_SECRET_ACCESS_KEY\"", &expected);
        let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "it's$HOME`x`");
        assert!(lines.contains("\nmc alias set anvil http://127.0.0.1:50051 mine "));
        assert!(lines.contains("\nrclone config create anvil s3 "));
        assert!(lines.contains("\npython3 -c "));
    }

    #[test]
    fn an_address_for_all_is_reached_by_loopback() {
        for (address, expected) in [("[::]:1", "[::1]:1"), ("0.0.0.0:2", "127.0.0.1:2"), ("10.0.0.1:3", "10.0.0.1:3")] {
            assert_eq!(reachable(address.parse().unwrap()).to_string(), expected);
        }
    }
}
