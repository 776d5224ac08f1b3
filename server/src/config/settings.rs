//! Where settings come from: flags, variables, defaults; and which names there are.

use std::fmt::Write as _;

use clap::Args;

use super::value::{self, Takes};
use super::{ConfigError, Environment};
use crate::auth::Secret;
use crate::metadata::postgres::Database;

/// The flags of `anvil dev`, `anvil server` and `anvil config check`. They stay text until [`super::Config::read`], so
/// that a wrong flag and a wrong variable are told in the same words.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// Directory of identity, credentials and the metadata index [env: ANVIL_DATA_DIR, default: anvil-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// A disk: a directory or block device, with the most that it may take. Repeat it for several [env: ANVIL_DISKS,
    /// separated by commas; default: a disk inside the data directory]
    #[arg(long = "disk", value_name = "PATH[:SIZE]")]
    pub disks: Vec<String>,
    /// A storage class and how its objects are spread: k data and m parity shards, each on a disk of its own. Repeat it
    /// for several [env: ANVIL_STORAGE_CLASSES, separated by commas; default: STANDARD by the number of disks, from
    /// 1+0 on one to 4+2 on six]
    #[arg(long = "storage-class", value_name = "NAME=K+M")]
    pub storage_classes: Vec<String>,
    /// Address for clients [env: HTTP_BIND_ADDR, default: 127.0.0.1:50051 for dev, 0.0.0.0:50051 for server]
    #[arg(long, value_name = "HOST:PORT")]
    pub http_bind_addr: Option<String>,
    /// A second address for clients [env: GRPC_BIND_ADDR or API_LISTEN_ADDR]
    #[arg(long, value_name = "HOST:PORT", alias = "api-listen-addr")]
    pub grpc_bind_addr: Option<String>,
    /// Certificate for clients that come with TLS, in PEM, with those that lead to its root behind it; read again at
    /// SIGHUP [env: ANVIL_TLS_CERT]
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<String>,
    /// Its private key, in PEM [env: ANVIL_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// Refuses clients that come without TLS [env: ANVIL_TLS_ONLY, true or false]
    #[arg(long)]
    pub tls_only: bool,
    /// From where administrators may come: loopback, tls (from anywhere with TLS too) or anywhere [env:
    /// ANVIL_ADMIN_FROM, default: loopback]
    #[arg(long, value_name = "WHERE")]
    pub admin_from: Option<String>,
    /// From which networks /metrics may be read. Repeat it for several [env: ANVIL_METRICS_ALLOW, separated by commas;
    /// default: loopback and private ranges]
    #[arg(long, value_name = "NETWORK")]
    pub metrics_allow: Vec<String>,
    /// Requests per minute that one address may send without valid credentials, or off; what everybody may read is not
    /// counted [env: ANVIL_LIMIT_ANONYMOUS, default: 120]
    #[arg(long, value_name = "COUNT")]
    pub limit_anonymous: Option<String>,
    /// Tokens per minute that may be asked for from one address, and for one app, or off [env: ANVIL_LIMIT_LOGINS,
    /// default: 10]
    #[arg(long, value_name = "COUNT")]
    pub limit_logins: Option<String>,
    /// Requests per minute of one app, or off [env: ANVIL_LIMIT_APPS, default: off]
    #[arg(long, value_name = "COUNT")]
    pub limit_apps: Option<String>,
    /// A proxy, or a network of them, whose X-Forwarded-For says for whom it speaks. Repeat it for several [env:
    /// ANVIL_TRUSTED_PROXIES, separated by commas; default: none]
    #[arg(long, value_name = "NETWORK")]
    pub trusted_proxies: Vec<String>,
    /// How long a client's connection may be silent between two requests [env: ANVIL_IDLE_TIMEOUT, default: 75s]
    #[arg(long, value_name = "DURATION")]
    pub idle_timeout: Option<String>,
    /// The region that requests are signed for [env: REGION, default: us-east-1]
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// Host names in front of which a bucket may stand, separated by commas, each with a port where only that counts
    /// [env: ANVIL_DOMAIN, default: none; buckets stand in the path]
    #[arg(long, value_name = "NAME[:PORT]")]
    pub domain: Option<String>,
    /// Access key to use instead of one that is made [env: ANVIL_DEV_ACCESS_KEY]
    #[arg(long, value_name = "KEY")]
    pub access_key: Option<String>,
    /// Its secret; other users of the host can see flags, so prefer the variable [env: ANVIL_DEV_SECRET_KEY]
    #[arg(long, value_name = "SECRET")]
    pub secret_key: Option<String>,
    /// Encrypts what is written from now on; the keys are wrapped with ANVIL_SECRET_ENCRYPTION_KEY, which has no flag because
    /// other users of the host can see flags [env: ANVIL_ENCRYPT_AT_REST, true or false]
    #[arg(long)]
    pub encrypt_at_rest: bool,
    /// Engine cores, one pinned thread each [env: ANVIL_CORES, default: all CPUs, at most 4 for dev]
    #[arg(long, value_name = "COUNT")]
    pub cores: Option<String>,
    /// The core that does the metadata's work too [env: ANVIL_CONTROL_CORE, default: the last]
    #[arg(long, value_name = "CORE")]
    pub control_core: Option<String>,
    /// Memory for object data in flight, over all cores [env: ANVIL_BUFFER_MEMORY, default: 32MiB per core]
    #[arg(long, value_name = "SIZE")]
    pub buffer_memory: Option<String>,
    /// For how long deleted data is kept for those who read it; a full disk shortens it [env: ANVIL_RECLAIM_DELAY,
    /// default: 5m]
    #[arg(long, value_name = "DURATION")]
    pub reclaim_delay: Option<String>,
    /// For how long a multipart upload may take; afterwards it is aborted, and its parts are deleted. 0 lets uploads stay for ever
    /// [env: ANVIL_UPLOAD_EXPIRY, default: 7d]
    #[arg(long, value_name = "DURATION")]
    pub upload_expiry: Option<String>,
    /// How fast each disk's records are read and verified in the background: a size per second, or off
    /// [env: ANVIL_SCRUB_RATE, default: 16MiB]
    #[arg(long, value_name = "SIZE")]
    pub scrub_rate: Option<String>,
    /// How often that begins anew with a disk's first record [env: ANVIL_SCRUB_EVERY, default: 30d]
    #[arg(long, value_name = "DURATION")]
    pub scrub_every: Option<String>,
    /// How fast shards that are lost or damaged are made again: a size per second, over all cores [env:
    /// ANVIL_REPAIR_RATE, default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub repair_rate: Option<String>,
    /// I/O driver: auto, uring or blocking [env: ANVIL_IO, default: auto]
    #[arg(long, value_name = "DRIVER")]
    pub io: Option<String>,
    /// Form of the log lines on stderr: text or json [env: ANVIL_LOG_FORMAT, default: text; RUST_LOG says which]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Migrates the databases and makes the region in them, where that was not done yet; a node without a database needs
    /// nothing of it [env: INIT_CLUSTER, true or false]
    #[arg(long)]
    pub init_cluster: bool,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Flag,
    Variable,
    Default,
}

/// Reads settings one after the other and notes what it read.
pub(super) struct Reader<'a> {
    pub(super) flags: &'a Flags,
    environment: &'a Environment,
    warnings: Vec<String>,
    listing: String,
}

impl<'a> Reader<'a> {
    pub(super) fn new(flags: &'a Flags, environment: &'a Environment) -> Self {
        Self { flags, environment, warnings: Vec::new(), listing: String::new() }
    }

    /// A setting with a default.
    pub(super) fn text<T>(
        &mut self,
        flag: Option<&str>,
        names: &[&str],
        parse: fn(&str) -> Result<T, Takes>,
        default: &str,
    ) -> Result<T, ConfigError> {
        let (text, source) = self.find(flag, names)?.unwrap_or((default, Source::Default));
        let value = parse(text).map_err(|takes| wrong(names[0], text, &takes))?;
        self.list_line(names[0], text, source);
        Ok(value)
    }

    /// A setting without a default.
    pub(super) fn optional<T>(
        &mut self,
        flag: Option<&str>,
        names: &[&str],
        parse: fn(&str) -> Result<T, Takes>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((text, source)) = self.find(flag, names)? else { return Ok(None) };
        let value = parse(text).map_err(|takes| wrong(names[0], text, &takes))?;
        self.list_line(names[0], text, source);
        Ok(Some(value))
    }

    /// A setting that is shown to nobody.
    pub(super) fn secret(&mut self, flag: Option<&str>, name: &str) -> Result<Option<Secret>, ConfigError> {
        self.hidden(flag, name, value::secret)
    }

    /// The same for secrets of every kind.
    pub(super) fn hidden<T>(
        &mut self,
        flag: Option<&str>,
        name: &str,
        parse: fn(&str) -> Result<T, Takes>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((text, source)) = self.find(flag, &[name])? else { return Ok(None) };
        let secret = parse(text).map_err(|takes| ConfigError(format!("{name} is wrong, and takes {takes}")))?;
        self.list_line(name, "(hidden)", source);
        Ok(Some(secret))
    }

    /// A database's URL: a variable only, and never shown, because it may hold a password.
    pub(super) fn database(&mut self, name: &str, called: &'static str) -> Result<Option<Database>, ConfigError> {
        let Some((url, source)) = self.find(None, &[name])? else { return Ok(None) };
        let database = Database::parse(called, url).map_err(|wrong| {
            ConfigError(format!("{name} is wrong, and takes the URL of a PostgreSQL database: {wrong}"))
        })?;
        self.list_line(name, &database.place(), source);
        Ok(Some(database))
    }

    /// A setting with several values: repeated as a flag, separated by commas as a variable.
    pub(super) fn list<T>(
        &mut self,
        flags: &[String],
        name: &str,
        parse: fn(&str) -> Result<T, Takes>,
        default: &str,
    ) -> Result<Vec<T>, ConfigError> {
        let from_variable = self.environment.value(name).unwrap_or_default().split(',').map(str::trim);
        let (texts, source): (Vec<&str>, Source) = match flags {
            [] => (from_variable.filter(|text| !text.is_empty()).collect(), Source::Variable),
            flags => (flags.iter().map(String::as_str).collect(), Source::Flag),
        };
        let values: Result<Vec<_>, _> =
            texts.iter().map(|text| parse(text).map_err(|takes| wrong(name, text, &takes))).collect();
        match texts.as_slice() {
            [] => self.list_line(name, default, Source::Default),
            texts => self.list_line(name, &texts.join(","), source),
        }
        values
    }

    pub(super) fn warn(&mut self, sentence: &str) {
        self.warnings.push(sentence.to_owned());
    }

    pub(super) fn list_line(&mut self, name: &str, text: &str, source: Source) {
        let from = match source {
            Source::Flag => "flag",
            Source::Variable => "environment",
            Source::Default => "default",
        };
        writeln!(self.listing, "{name}={text}  # {from}").expect("a String takes everything");
    }

    /// Tells of variables that this version reads but cannot use, and of misspelt ones.
    pub(super) fn warn_of_unused(&mut self) {
        let set = |name: &&str| self.environment.value(name).is_some();
        let unused: Vec<&str> = CLUSTER_VARIABLES.iter().copied().filter(|name| set(name)).collect();
        if !unused.is_empty() {
            let (names, verb) = (unused.join(", "), if unused.len() == 1 { "has" } else { "have" });
            self.warnings.push(format!("{names} {verb} no effect: this version runs a single node without a cluster"));
        }
        let unknown = self.environment.variables.keys().filter(|name| name.starts_with("ANVIL_") && !is_known(name));
        let sentences: Vec<String> = unknown.map(|name| unknown_variable(name)).collect();
        self.warnings.extend(sentences);
    }

    pub(super) fn finish(self) -> (Vec<String>, String) {
        (self.warnings, self.listing)
    }

    /// The flag, or the variable under any of its names. Names that disagree are an error.
    fn find<'t>(&self, flag: Option<&'t str>, names: &[&str]) -> Result<Option<(&'t str, Source)>, ConfigError>
    where
        'a: 't,
    {
        let mut set = names.iter().filter_map(|name| Some((*name, self.environment.value(name)?)));
        let first = set.next();
        if let (Some((first, value)), Some((other, different))) =
            (first, set.find(|(_, v)| Some(*v) != first.map(|f| f.1)))
        {
            return Err(ConfigError(format!(
                "{first} is {value:?} and {other}, another name for it, is {different:?}: set one of them, or both alike"
            )));
        }
        match (flag, first) {
            (Some(flag), _) => Ok(Some((flag, Source::Flag))),
            (None, Some((_, value))) => Ok(Some((value, Source::Variable))),
            (None, None) => Ok(None),
        }
    }
}

/// Whether Anvil reads this variable.
pub(super) fn is_known(name: &str) -> bool {
    [OWN_VARIABLES, CLUSTER_VARIABLES, DATABASE_VARIABLES].iter().any(|names| names.contains(&name))
}

fn wrong(name: &str, got: &str, takes: &str) -> ConfigError {
    ConfigError(format!("{} is {got:?}, and takes {takes}", with_flag(name)))
}

/// `HTTP_BIND_ADDR (or --http-bind-addr)`.
fn with_flag(name: &str) -> String {
    let flag = match name {
        "RUST_LOG" => return name.to_owned(),
        "ANVIL_DISKS" => "disk".to_owned(),
        "ANVIL_STORAGE_CLASSES" => "storage-class".to_owned(),
        name => name.trim_start_matches("ANVIL_").trim_start_matches("DEV_").to_lowercase().replace('_', "-"),
    };
    format!("{name} (or --{flag})")
}

fn unknown_variable(name: &str) -> String {
    let close = OWN_VARIABLES.iter().chain(CLUSTER_VARIABLES).find(|known| distance(name, known) <= 2);
    let hint = close.map(|known| format!("; did you mean {known}?")).unwrap_or_default();
    format!("{name} is set, and Anvil knows no variable of this name{hint}")
}

/// Letters to insert, remove or change to get from one word to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, a) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, b) in to.bytes().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

const OWN_VARIABLES: &[&str] = &[
    "ANVIL_DATA_DIR",
    "ANVIL_DISKS",
    "ANVIL_STORAGE_CLASSES",
    "HTTP_BIND_ADDR",
    "GRPC_BIND_ADDR",
    "API_LISTEN_ADDR",
    "ANVIL_TLS_CERT",
    "ANVIL_TLS_KEY",
    "ANVIL_TLS_ONLY",
    "ANVIL_ADMIN_FROM",
    "ANVIL_METRICS_ALLOW",
    "ANVIL_LIMIT_ANONYMOUS",
    "ANVIL_LIMIT_LOGINS",
    "ANVIL_LIMIT_APPS",
    "ANVIL_TRUSTED_PROXIES",
    "ANVIL_IDLE_TIMEOUT",
    "REGION",
    "ANVIL_DOMAIN",
    "ANVIL_DEV_ACCESS_KEY",
    "ANVIL_DEV_SECRET_KEY",
    "ANVIL_ENCRYPT_AT_REST",
    "ANVIL_SECRET_ENCRYPTION_KEY",
    "ANVIL_CORES",
    "ANVIL_CONTROL_CORE",
    "ANVIL_BUFFER_MEMORY",
    "ANVIL_RECLAIM_DELAY",
    "ANVIL_UPLOAD_EXPIRY",
    "ANVIL_SCRUB_RATE",
    "ANVIL_SCRUB_EVERY",
    "ANVIL_REPAIR_RATE",
    "ANVIL_IO",
    "ANVIL_ENDPOINT",
    "ANVIL_CA_FILE",
    "ANVIL_PROFILE",
    "ANVIL_CLIENT_ID",
    "ANVIL_CLIENT_SECRET",
    "ANVIL_ADMIN_TOKEN",
    "ANVIL_LOG_FORMAT",
    "METADATA_CACHE_TTL_SECS",
    "INIT_CLUSTER",
    "JWT_SECRET",
    "RUST_LOG",
];

const DATABASE_VARIABLES: &[&str] = &["GLOBAL_DATABASE_URL", "REGIONAL_DATABASE_URL"];

/// Of clusters: known, so that one environment serves every version, and without effect on a single node.
const CLUSTER_VARIABLES: &[&str] = &[
    "ANVIL_CLUSTER_SECRET",
    "CLUSTER_SECRET",
    "QUIC_BIND_ADDR",
    "CLUSTER_LISTEN_ADDR",
    "PUBLIC_ADDRS",
    "PUBLIC_CLUSTER_ADDRS",
    "PUBLIC_GRPC_ADDR",
    "PUBLIC_API_ADDR",
    "ENABLE_MDNS",
    "BOOTSTRAP_ADDRS",
];
