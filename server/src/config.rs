//! What the operator wants: flags and environment variables become one [`Config`], or one sentence that says what is
//! wrong.
//!
//! A flag counts more than its variable; an empty variable counts as unset. Flags and names are those of
//! `docs/OPERATIONS.md`.

mod settings;
mod value;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anvil_model::geometry;
use anvil_model::limits::BUFFER_BYTES;
use anvil_model::profile::Profile;
use anvil_node::classes::Classes;
use anvil_node::encryption::OperatorKey;
use anvil_node::metadata::rows::StorageClass;
use anvil_runtime::{Io, Options};
use anvil_store::{Rate, ScrubOptions};

use crate::admission::Limits;
use crate::auth::Secret;
use crate::grpc::AdminFrom;
use crate::metadata::postgres::cluster::Databases;
use crate::s3::Domains;
use crate::telemetry::{LogFormat, METRICS_ALLOW_DEFAULT, MetricsAllow};
use crate::tls::CertificateFiles;
pub use settings::Flags;
use settings::{Reader, Source};
pub use value::{DiskChoice, Size};

/// Everything that a start needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which command it is for.
    pub form: Form,
    /// Identity, credentials and the metadata index; and the disk, when no other is named.
    pub data_dir: PathBuf,
    /// Where the bytes go; at least one.
    pub disks: Vec<DiskChoice>,
    /// How objects are spread over the disks, by storage class; each class has disks enough.
    pub classes: ClassChoice,
    /// Where clients connect: one or two addresses, each of which speaks everything.
    pub listen: Vec<SocketAddr>,
    /// Who the node is for clients that come with TLS, if the operator said.
    pub tls: Option<TlsChoice>,
    /// From where administrators may come.
    pub admin_from: AdminFrom,
    /// From where the page of metrics may be read.
    pub metrics_allow: MetricsAllow,
    /// How often somebody may come.
    pub limits: Limits,
    /// How long a client's connection may be silent between two requests.
    pub idle_timeout: Duration,
    /// The region that requests must be signed for.
    pub region: String,
    /// Host names in front of which buckets stand; none for buckets in the path alone.
    pub domains: Domains,
    /// Credentials that the operator chose; otherwise they are made at the first start.
    pub credentials: Option<ChosenCredentials>,
    /// Whether new objects are encrypted, and with what the keys are wrapped.
    pub encryption: EncryptionChoice,
    /// Engine cores, if the operator chose: 1 to [`CORES_MAX`].
    pub cores: Option<u16>,
    /// Which core does the metadata's work too, if the operator chose.
    pub control_core: Option<u16>,
    /// Memory for object data in flight, over all cores, if the operator chose.
    pub buffer_memory: Option<Size>,
    /// For how long deleted data is kept for those who read it.
    pub reclaim_delay: Duration,
    /// For how long an upload may take before it is aborted; `None` for as long as it likes.
    pub upload_expiry: Option<Duration>,
    /// How the records of the disks are verified in the background; `None` when they are not.
    pub scrub: Option<ScrubOptions>,
    /// Bytes of shards that are made again per second, over all cores.
    pub repair_rate: Size,
    /// What tokens for programs are signed with, if not a secret of the node's own.
    pub token_secret: Option<Secret>,
    /// Which I/O driver.
    pub io: Io,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where the metadata is, if not on the node's disks.
    pub databases: Option<Databases>,
    /// Whether they are made what they must be first.
    pub init_cluster: bool,
    /// For how long what was read of the global database may be used when that does not answer.
    pub cache_ttl: Duration,
}

/// What the operator wants of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsChoice {
    /// Where the certificate is.
    pub files: CertificateFiles,
    /// Clients without TLS are refused.
    pub only: bool,
}

/// What the operator wants of encryption at rest.
#[derive(Clone, Debug, Default)]
pub struct EncryptionChoice {
    /// What the disks' keys are wrapped with, and secrets of apps are sealed with; the first one wraps new ones. None when the operator gave none.
    pub keys: Vec<OperatorKey>,
    /// New objects are encrypted; then there is a key.
    pub encrypt: bool,
}

/// The two ways to run a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `anvil dev`: on loopback, modest.
    Dev,
    /// `anvil server`: on all addresses, with all cores.
    Server,
}

/// An access key with its secret, as the operator gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenCredentials {
    /// Names the app.
    pub access_key: String,
    /// Proves it.
    pub secret: Secret,
}

/// One sentence that names the setting, what it got and what it takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// A configuration with what is worth telling the operator about it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// Sentences.
    pub warnings: Vec<String>,
    /// `NAME=value  # where from`, one line per setting, secrets hidden.
    pub listing: String,
}

/// The environment of the process, as text.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// That of this process. Variables that are not text are left out, unless they are ours.
    ///
    /// # Errors
    /// When the value of a variable that Anvil reads is not UTF-8.
    pub fn of_process() -> Result<Self, ConfigError> {
        let mut variables = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(variables.insert(name, value)),
                Err(_) if settings::is_known(&name) => {
                    return Err(ConfigError(format!("{name} has a value that is not UTF-8 text, and takes text")));
                }
                Err(_) => {}
            }
        }
        Ok(Self { variables })
    }

    /// An environment of these variables.
    #[must_use]
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self { variables: variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }

    /// The value of a variable that is set and not empty.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// The databases that the environment names, for commands that need nothing else.
///
/// # Errors
/// With one sentence for what is wrong or missing.
pub fn databases(environment: &Environment) -> Result<Databases, ConfigError> {
    let flags = Flags::default();
    read_databases(&mut Reader::new(&flags, environment))?.ok_or_else(|| {
        ConfigError("GLOBAL_DATABASE_URL and REGIONAL_DATABASE_URL are not set: they name the databases".to_owned())
    })
}

impl Config {
    /// Reads flags and environment.
    ///
    /// # Errors
    /// With one sentence for the first setting that is wrong or missing.
    pub fn read(form: Form, flags: &Flags, environment: &Environment) -> Result<Checked, ConfigError> {
        let mut reader = Reader::new(flags, environment);
        let data_dir = reader.text(flags.data_dir.as_deref(), &["ANVIL_DATA_DIR"], value::path, "anvil-data")?;
        let disks = read_disks(&mut reader, &data_dir)?;
        let classes = read_classes(&mut reader, disks.len())?;
        let listen = read_listen(form, &mut reader)?;
        let tls = read_tls(&mut reader)?;
        let admin_from =
            reader.text(flags.admin_from.as_deref(), &["ANVIL_ADMIN_FROM"], value::admin_from, "loopback")?;
        let metrics_allow = read_metrics_allow(&mut reader)?;
        let limits = read_limits(&mut reader)?;
        let flag = flags.idle_timeout.as_deref();
        let idle_timeout = reader.text(flag, &["ANVIL_IDLE_TIMEOUT"], value::idle_timeout, "75s")?;
        let region = reader.text(flags.region.as_deref(), &["REGION"], value::region, "us-east-1")?;
        let domains = reader.optional(flags.domain.as_deref(), &["ANVIL_DOMAIN"], value::domains)?.unwrap_or_default();
        let credentials = read_credentials(&mut reader)?;
        let encryption = read_encryption(&mut reader)?;
        let cores = reader.optional(flags.cores.as_deref(), &["ANVIL_CORES"], value::cores)?;
        let control_core = reader.optional(flags.control_core.as_deref(), &["ANVIL_CONTROL_CORE"], value::core)?;
        check_control_core(cores, control_core)?;
        let memory = reader.optional(flags.buffer_memory.as_deref(), &["ANVIL_BUFFER_MEMORY"], value::buffer_memory)?;
        let flag = flags.reclaim_delay.as_deref();
        let reclaim_delay = reader.text(flag, &["ANVIL_RECLAIM_DELAY"], value::duration, "5m")?;
        let flag = flags.upload_expiry.as_deref();
        let upload_expiry = reader.text(flag, &["ANVIL_UPLOAD_EXPIRY"], value::duration, "7d")?;
        let scrub = read_scrub(&mut reader)?;
        let flag = flags.repair_rate.as_deref();
        let repair_rate = reader.text(flag, &["ANVIL_REPAIR_RATE"], value::repair_rate, "256MiB")?;
        let token_secret = read_token_secret(&mut reader)?;
        let io = reader.text(flags.io.as_deref(), &["ANVIL_IO"], value::io, "auto")?;
        let log_format = reader.text(flags.log_format.as_deref(), &["ANVIL_LOG_FORMAT"], value::log_format, "text")?;
        reader.text(None, &["RUST_LOG"], value::log_filter, "info")?;
        let databases = read_databases(&mut reader)?;
        let init_cluster = flags.init_cluster.then_some("true");
        let init_cluster = reader.optional(init_cluster, &["INIT_CLUSTER"], value::yes_or_no)?.unwrap_or(false);
        if init_cluster && databases.is_none() {
            reader.warn("--init-cluster has no effect: a node without a database needs nothing of it");
        }
        let cache_ttl = reader.text(None, &["METADATA_CACHE_TTL_SECS"], value::seconds, "300")?;
        reader.warn_of_unused();
        let config = Self {
            form,
            data_dir,
            disks,
            classes,
            listen,
            tls,
            admin_from,
            metrics_allow,
            limits,
            idle_timeout,
            region,
            domains,
            credentials,
            encryption,
            cores,
            control_core,
            buffer_memory: memory,
            reclaim_delay,
            upload_expiry: Some(upload_expiry).filter(|expiry| !expiry.is_zero()),
            scrub,
            repair_rate,
            token_secret,
            io,
            log_format,
            databases,
            init_cluster,
            cache_ttl,
        };
        let (warnings, listing) = reader.finish();
        Ok(Checked { config, warnings, listing })
    }
}

fn read_disks(reader: &mut Reader<'_>, data_dir: &Path) -> Result<Vec<DiskChoice>, ConfigError> {
    let default = data_dir.join("disk");
    let chosen = reader.list(&reader.flags.disks, "ANVIL_DISKS", value::disk, &default.display().to_string())?;
    for (index, disk) in chosen.iter().enumerate() {
        if chosen[..index].iter().any(|other| other.path == disk.path) {
            let path = disk.path.display();
            return Err(ConfigError(format!("--disk or ANVIL_DISKS names {path} twice, and takes each disk once")));
        }
    }
    if chosen.is_empty() { Ok(vec![DiskChoice { path: default, capacity: None }]) } else { Ok(chosen) }
}

/// How objects are spread, as far as the operator said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassChoice {
    /// `STANDARD`; else it goes by the number of disks that the node knows.
    pub standard: Option<Profile>,
    /// The others.
    pub named: Vec<(StorageClass, Profile)>,
}

impl ClassChoice {
    /// All of them, with this for `STANDARD`.
    #[must_use]
    pub fn with_standard(&self, standard: Profile) -> Classes {
        let named = self.named.iter().cloned();
        named.fold(Classes::standard_only(standard), |classes, (class, profile)| classes.with(class, profile))
    }
}

fn read_classes(reader: &mut Reader<'_>, disks: usize) -> Result<ClassChoice, ConfigError> {
    let default = format!("STANDARD={}", geometry::default_profile(disks));
    let chosen = reader.list(&reader.flags.storage_classes, "ANVIL_STORAGE_CLASSES", value::class, &default)?;
    let mut choice = ClassChoice::default();
    for (index, value::ClassChoice { class, profile }) in chosen.iter().enumerate() {
        if chosen[..index].iter().any(|other| other.class == *class) {
            let sentence = format!(
                "--storage-class or ANVIL_STORAGE_CLASSES says twice what {class} is, and takes each class once"
            );
            return Err(ConfigError(sentence));
        }
        let needed = profile.shards();
        if usize::from(needed) > disks {
            return Err(ConfigError(format!(
                "--storage-class or ANVIL_STORAGE_CLASSES says {class}={profile}, which takes {needed} disks, and there \
                 are {disks}: name more disks, or a narrower profile"
            )));
        }
        match class {
            StorageClass::Standard => choice.standard = Some(*profile),
            StorageClass::Named(_) => choice.named.push((class.clone(), *profile)),
        }
    }
    Ok(choice)
}

/// The databases that the environment names: both, or none.
///
/// # Errors
/// When one is missing, or no URL.
fn read_databases(reader: &mut Reader<'_>) -> Result<Option<Databases>, ConfigError> {
    let global = reader.database("GLOBAL_DATABASE_URL", "global")?;
    let regional = reader.database("REGIONAL_DATABASE_URL", "regional")?;
    let lacks = |sentence: &str| Err(ConfigError(sentence.to_owned()));
    match (global, regional) {
        (Some(global), Some(regional)) => Ok(Some(Databases { global, regional })),
        (None, None) => Ok(None),
        (Some(_), None) => lacks("GLOBAL_DATABASE_URL is set and REGIONAL_DATABASE_URL is not: set both, or neither"),
        (None, Some(_)) => lacks("REGIONAL_DATABASE_URL is set and GLOBAL_DATABASE_URL is not: set both, or neither"),
    }
}

fn read_scrub(reader: &mut Reader<'_>) -> Result<Option<ScrubOptions>, ConfigError> {
    let ScrubOptions { rate, every } = ScrubOptions::default();
    let Flags { scrub_rate, scrub_every, .. } = reader.flags;
    let default = Size { bytes: rate.bytes_per_second }.to_string();
    let chosen = reader.text(scrub_rate.as_deref(), &["ANVIL_SCRUB_RATE"], value::scrub_rate, &default)?;
    let default = format!("{}d", every.as_secs() / 86_400);
    let every = reader.text(scrub_every.as_deref(), &["ANVIL_SCRUB_EVERY"], value::scrub_every, &default)?;
    Ok(chosen.map(|Size { bytes }| ScrubOptions { rate: Rate { bytes_per_second: bytes, ..rate }, every }))
}

/// Both addresses speak everything; one that is set alone is the only one.
fn read_listen(form: Form, reader: &mut Reader<'_>) -> Result<Vec<SocketAddr>, ConfigError> {
    let host = match form {
        Form::Dev => Ipv4Addr::LOCALHOST,
        Form::Server => Ipv4Addr::UNSPECIFIED,
    };
    let default = SocketAddr::new(IpAddr::V4(host), PORT);
    let flags = reader.flags;
    let http = reader.optional(flags.http_bind_addr.as_deref(), &["HTTP_BIND_ADDR"], value::address)?;
    let grpc =
        reader.optional(flags.grpc_bind_addr.as_deref(), &["GRPC_BIND_ADDR", "API_LISTEN_ADDR"], value::address)?;
    let mut listen: Vec<SocketAddr> = http.into_iter().chain(grpc).collect();
    if listen.is_empty() {
        reader.list_line("HTTP_BIND_ADDR", &default.to_string(), Source::Default);
        listen.push(default);
    }
    listen.dedup();
    Ok(listen)
}

fn read_tls(reader: &mut Reader<'_>) -> Result<Option<TlsChoice>, ConfigError> {
    let flags = reader.flags;
    let certificate = reader.optional(flags.tls_cert.as_deref(), &["ANVIL_TLS_CERT"], value::file)?;
    let key = reader.optional(flags.tls_key.as_deref(), &["ANVIL_TLS_KEY"], value::file)?;
    let only = flags.tls_only.then_some("true");
    let only = reader.optional(only, &["ANVIL_TLS_ONLY"], value::yes_or_no)?.unwrap_or(false);
    let lacks = |sentence: &str| Err(ConfigError(sentence.to_owned()));
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsChoice { files: CertificateFiles { certificate, key }, only })),
        (None, None) if only => lacks("ANVIL_TLS_ONLY is true and ANVIL_TLS_CERT is not set: name a certificate"),
        (None, None) => Ok(None),
        (Some(_), None) => lacks("ANVIL_TLS_CERT is set and ANVIL_TLS_KEY is not: set both, or neither"),
        (None, Some(_)) => lacks("ANVIL_TLS_KEY is set and ANVIL_TLS_CERT is not: set both, or neither"),
    }
}

fn read_metrics_allow(reader: &mut Reader<'_>) -> Result<MetricsAllow, ConfigError> {
    let (name, flags) = ("ANVIL_METRICS_ALLOW", &reader.flags.metrics_allow);
    let chosen = reader.list(flags, name, value::network, METRICS_ALLOW_DEFAULT)?;
    let default = || METRICS_ALLOW_DEFAULT.split(',').map(|text| text.parse().expect("the default is well-formed"));
    Ok(MetricsAllow::new(if chosen.is_empty() { default().collect() } else { chosen }))
}

fn read_limits(reader: &mut Reader<'_>) -> Result<Limits, ConfigError> {
    let Flags { limit_anonymous, limit_logins, limit_apps, trusted_proxies, .. } = reader.flags;
    let default = Limits::default();
    let mut limit = |flag: &Option<String>, name: &str, default: Option<u32>| {
        let default = default.map_or_else(|| "off".to_owned(), |limit| limit.to_string());
        reader.text(flag.as_deref(), &[name], value::per_minute, &default)
    };
    let anonymous = limit(limit_anonymous, "ANVIL_LIMIT_ANONYMOUS", default.anonymous)?;
    let logins = limit(limit_logins, "ANVIL_LIMIT_LOGINS", default.logins)?;
    let apps = limit(limit_apps, "ANVIL_LIMIT_APPS", default.apps)?;
    let trusted_proxies = reader.list(trusted_proxies, "ANVIL_TRUSTED_PROXIES", value::network, "")?;
    if trusted_proxies.iter().any(|network| network.prefix_len() == 0) {
        reader.warn(
            "ANVIL_TRUSTED_PROXIES names every address: whoever writes X-Forwarded-For chooses for whom it counts; name \
             the proxies alone",
        );
    }
    Ok(Limits { anonymous, logins, apps, trusted_proxies })
}

fn read_credentials(reader: &mut Reader<'_>) -> Result<Option<ChosenCredentials>, ConfigError> {
    let flags = reader.flags;
    let access_key = reader.optional(flags.access_key.as_deref(), &["ANVIL_DEV_ACCESS_KEY"], value::access_key)?;
    let secret = reader.secret(flags.secret_key.as_deref(), "ANVIL_DEV_SECRET_KEY")?;
    if flags.secret_key.is_some() {
        reader.warn("--secret-key shows the secret to every user of this host; set ANVIL_DEV_SECRET_KEY instead");
    }
    match (access_key, secret) {
        (Some(access_key), Some(secret)) => Ok(Some(ChosenCredentials { access_key, secret })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConfigError(
            "ANVIL_DEV_ACCESS_KEY is set and ANVIL_DEV_SECRET_KEY is not: set both, or neither".to_owned(),
        )),
        (None, Some(_)) => Err(ConfigError(
            "ANVIL_DEV_SECRET_KEY is set and ANVIL_DEV_ACCESS_KEY is not: set both, or neither".to_owned(),
        )),
    }
}

fn read_encryption(reader: &mut Reader<'_>) -> Result<EncryptionChoice, ConfigError> {
    let encrypt = reader.flags.encrypt_at_rest.then_some("true");
    let encrypt = reader.text(encrypt, &["ANVIL_ENCRYPT_AT_REST"], value::yes_or_no, "false")?;
    let keys = reader.hidden(None, "ANVIL_SECRET_ENCRYPTION_KEY", value::operator_keys)?.unwrap_or_default();
    if encrypt && keys.is_empty() {
        return Err(ConfigError(
            "ANVIL_ENCRYPT_AT_REST is true and ANVIL_SECRET_ENCRYPTION_KEY is not set: set it to 64 hexadecimal digits, \
             such as those of openssl rand -hex 32, and keep them where the disks are not"
                .to_owned(),
        ));
    }
    Ok(EncryptionChoice { keys, encrypt })
}

/// What the environment of this process says of the operator's keys, for commands that read disks.
///
/// # Errors
/// With one sentence when they are wrong.
pub fn operator_keys() -> Result<Vec<OperatorKey>, ConfigError> {
    let (flags, environment) = (Flags::default(), Environment::of_process()?);
    let keys = Reader::new(&flags, &environment).hidden(None, "ANVIL_SECRET_ENCRYPTION_KEY", value::operator_keys)?;
    Ok(keys.unwrap_or_default())
}

/// Whoever guesses it is anybody, so that it is longer than other secrets must be.
fn read_token_secret(reader: &mut Reader<'_>) -> Result<Option<Secret>, ConfigError> {
    let secret = reader.secret(None, "JWT_SECRET")?;
    let is_weak = |secret: &Secret| secret.expose().len() < 32 || secret.expose().starts_with("must-be-");
    if secret.as_ref().is_some_and(is_weak) {
        let sentence = "JWT_SECRET is too weak, and takes 32 to 256 visible ASCII characters that nobody can guess";
        return Err(ConfigError(sentence.to_owned()));
    }
    Ok(secret)
}

fn check_control_core(cores: Option<u16>, control: Option<u16>) -> Result<(), ConfigError> {
    match (cores, control) {
        (Some(cores), Some(control)) if control >= cores => Err(ConfigError(format!(
            "ANVIL_CONTROL_CORE is {control}, and takes the number of a core, 0 to {}, when there are {cores}",
            cores - 1
        ))),
        _ => Ok(()),
    }
}

impl Checked {
    /// The listing with the warnings behind it, as `anvil config check` prints it.
    #[must_use]
    pub fn report(&self) -> String {
        let mut report = self.listing.clone();
        for warning in &self.warnings {
            writeln!(report, "# warning: {warning}").expect("a String takes everything");
        }
        report
    }
}

impl Config {
    /// The cores and their memory on a host with these CPUs.
    ///
    /// # Errors
    /// When a choice of the operator does not fit them.
    pub fn runtime(&self, cpus: &[usize]) -> Result<Options, ConfigError> {
        assert!(!cpus.is_empty(), "this thread runs on a CPU");
        let default = match self.form {
            Form::Dev => cpus.len().min(usize::from(DEV_CORES_MAX)),
            Form::Server => cpus.len().min(usize::from(CORES_MAX)),
        };
        let count = self.cores.map_or(default, usize::from);
        check_control_core(u16::try_from(count).ok(), self.control_core)?;
        let defaults = Options::default();
        let buffers_per_core = match self.buffer_memory {
            None => defaults.buffers_per_core,
            Some(memory) => buffers_per_core(memory, count)?,
        };
        let cpus = cpus.iter().copied().cycle().take(count).collect();
        Ok(Options { cpus, io: self.io, buffers_per_core, ..defaults })
    }
}

fn buffers_per_core(memory: Size, cores: usize) -> Result<usize, ConfigError> {
    let buffers = usize::try_from(memory.bytes).unwrap_or(usize::MAX) / BUFFER_BYTES / cores;
    if buffers >= BUFFERS_PER_CORE_MIN {
        return Ok(buffers);
    }
    let least = Size { bytes: (BUFFERS_PER_CORE_MIN * BUFFER_BYTES * cores) as u64 };
    let sentence =
        format!("ANVIL_BUFFER_MEMORY (or --buffer-memory) is {memory}, and takes at least {least} for {cores} cores");
    Err(ConfigError(sentence))
}

/// The port of clients.
pub const PORT: u16 = 50051;
/// Engine cores, at most: what blob ids and mailboxes are sized for.
pub const CORES_MAX: u16 = 1024;
/// `anvil dev` shares its host with other things.
const DEV_CORES_MAX: u16 = 4;
/// Below this a core could not write and read at once beside its reserve.
const BUFFERS_PER_CORE_MIN: usize = 8;

#[cfg(test)]
mod tests;
