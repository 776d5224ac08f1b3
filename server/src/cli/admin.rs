//! `anvil admin`: asks a running node by gRPC. What it does to the metadata of a node that does not run is in `metadata`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anvil_model::time::WallTime;
use anvil_proto::v1;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::client::TokenCache;
use super::keys::{self, MintTokenArgs, RevokeTokenArgs, RotateKeyArgs};
use super::quotas::{self, ListBuckets, UpdateBucket};
use super::regions::{self, RegionCommand};
use super::tasks::{self, TaskCommand};
use super::tenants::{self, AppCommand, AuditCommand, BucketArgument, PolicyCommand, TenantCommand};
use super::users::{self, LoginArgs, RoleCommand, UserCommand};
use super::{Failure, print};
use crate::auth::Secret;
use crate::config::{Environment, PORT, Size};
use crate::credentials::Credentials;
use crate::grpc::admin::PREFIX;
use crate::grpc::client::Client;
use crate::grpc::token;

#[derive(Debug, Subcommand)]
pub(super) enum AdminCommand {
    /// The disks of a node
    #[command(subcommand)]
    Disk(DiskCommand),
    /// The repair of lost and damaged shards
    #[command(subcommand)]
    Repair(RepairCommand),
    /// The settings of buckets
    #[command(subcommand, alias = "buckets")]
    Bucket(BucketCommand),
    /// Regions, which share tenants, apps and the names of buckets
    #[command(subcommand, alias = "regions")]
    Region(RegionCommand),
    /// Tenants, the owners of buckets and apps
    #[command(subcommand, alias = "tenants")]
    Tenant(TenantCommand),
    /// Apps, the programs of a tenant, each with a client id and a secret
    #[command(subcommand, alias = "apps")]
    App(AppCommand),
    /// What apps may do
    #[command(subcommand, alias = "policies")]
    Policy(PolicyCommand),
    /// Logs in as a user: what follows is asked as him, until the token ends
    Login(LoginArgs),
    /// Forgets the token of the last login on this host
    Logout(Common),
    /// People who administrate with a password
    #[command(subcommand, alias = "users")]
    User(UserCommand),
    /// What users may do
    #[command(subcommand, alias = "roles")]
    Role(RoleCommand),
    /// The work that goes on in the background
    #[command(subcommand, alias = "tasks")]
    Task(TaskCommand),
    /// Other keys for secrets or tokens, while the node serves
    RotateKey(RotateKeyArgs),
    /// Prints a token for an app
    MintToken(MintTokenArgs),
    /// Denies a token, of an app or of a user, before it has ended
    RevokeToken(RevokeTokenArgs),
    /// Lists the tokens that are denied
    Denylist(Common),
    /// Forgets denials of tokens that have ended by themselves
    PruneDenylist(Common),
    /// What the node knows of tenants, apps and users, and how current that is
    CacheStats(Common),
    /// What administrators did
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The storage classes of a node
    #[command(subcommand)]
    StorageClass(StorageClassCommand),
    /// The metadata of a node that does not run
    #[command(subcommand)]
    Metadata(super::metadata::MetadataCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum DiskCommand {
    /// Lists the disks that the node knows
    List(Common),
    /// Takes a disk out of use: nothing more is written to it
    Offline(OneDisk),
    /// Lets a disk that is offline take writes again
    Online(OneDisk),
    /// Gives a disk up for good, and puts a blank one into its place
    Replace {
        #[command(flatten)]
        one: OneDisk,
        /// Where the blank one is, a directory or block device; without it, where the lost one was
        #[arg(long, value_name = "PATH")]
        path: Option<PathBuf>,
    },
    /// Takes a disk of this cluster into use that was moved here or has come back
    Adopt {
        /// Where it is
        #[arg(value_name = "PATH")]
        path: PathBuf,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum RepairCommand {
    /// Says how far it is
    Status {
        /// Goes on until nothing is left to repair
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum BucketCommand {
    /// Lists the buckets, of all tenants or of one, with what they hold and how much they may
    List(ListBuckets),
    /// Shows a bucket, with what it holds and how much it may
    Show {
        #[command(flatten)]
        bucket: BucketArgument,
        #[command(flatten)]
        common: Common,
    },
    /// Changes the configuration of a bucket, or how much it may hold
    Update(UpdateBucket),
    /// Deletes an empty bucket; with --force whatever it holds
    Delete {
        #[command(flatten)]
        bucket: BucketArgument,
        /// Nobody sees it any more from now on; its objects and uploads are deleted in the background
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Lets everybody read the objects of a bucket, with --allow; without it, not any more
    SetPublicAccess {
        #[command(flatten)]
        bucket: BucketArgument,
        /// Everybody may
        #[arg(long)]
        allow: bool,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum StorageClassCommand {
    /// Lists the storage classes and how their objects are spread
    List(Common),
}

#[derive(Debug, Args)]
pub(super) struct OneDisk {
    /// Its id, or the path where it is or was
    #[arg(value_name = "DISK")]
    disk: String,
    #[command(flatten)]
    common: Common,
}

/// How the node is reached.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Common {
    /// The node: http://HOST:PORT or https://HOST:PORT [env: ANVIL_ENDPOINT, default: port 50051 of this host]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// The certificates that vouch for an https endpoint, in PEM [env: ANVIL_CA_FILE]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The node's data directory, where its credentials are; ANVIL_ADMIN_TOKEN counts more, and so do ANVIL_DEV_ACCESS_KEY with
    /// ANVIL_DEV_SECRET_KEY [env: ANVIL_DATA_DIR, default: the token of `anvil admin login`, or else anvil-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    /// How the answer is printed
    #[arg(long, value_name = "FORM", value_enum, conflicts_with = "json")]
    output: Option<Output>,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

pub(super) fn run(command: AdminCommand) -> Result<(), Failure> {
    match command {
        AdminCommand::Disk(command) => disk(command),
        AdminCommand::Metadata(command) => super::metadata::run(command),
        AdminCommand::Repair(RepairCommand::Status { watch, common }) => repair(watch, &common),
        AdminCommand::Bucket(BucketCommand::List(arguments)) => quotas::list_buckets(arguments),
        AdminCommand::Bucket(BucketCommand::Show { bucket, common }) => quotas::show_bucket(bucket, &common),
        AdminCommand::Bucket(BucketCommand::Update(arguments)) => quotas::update_bucket(arguments),
        AdminCommand::Bucket(BucketCommand::SetPublicAccess { bucket, allow, common }) => {
            tenants::set_public_access(bucket, allow, &common)
        }
        AdminCommand::Bucket(BucketCommand::Delete { bucket, force, common }) => {
            tasks::delete_bucket(bucket, force, &common)
        }
        AdminCommand::Task(command) => tasks::task(command),
        AdminCommand::Region(command) => regions::region(command),
        AdminCommand::Tenant(command) => tenants::tenant(command),
        AdminCommand::App(command) => tenants::app(command),
        AdminCommand::Policy(command) => tenants::policy(command),
        AdminCommand::Login(arguments) => users::login(arguments),
        AdminCommand::Logout(common) => users::logout(&common),
        AdminCommand::User(command) => users::user(command),
        AdminCommand::Role(command) => users::role(command),
        AdminCommand::RotateKey(arguments) => keys::rotate(&arguments),
        AdminCommand::MintToken(arguments) => keys::mint(arguments),
        AdminCommand::RevokeToken(arguments) => keys::revoke(arguments),
        AdminCommand::Denylist(common) => keys::denylist(&common),
        AdminCommand::PruneDenylist(common) => keys::prune(&common),
        AdminCommand::CacheStats(common) => keys::cache_stats(&common),
        AdminCommand::Audit(AuditCommand::List { max, common }) => tenants::audit(max, &common),
        AdminCommand::StorageClass(StorageClassCommand::List(common)) => {
            let response: v1::ListStorageClassesResponse =
                Node::open(&common)?.ask("ListStorageClasses", &v1::ListStorageClassesRequest {})?;
            let classes = response.storage_classes;
            let profile = |class: &v1::StorageClass| format!("{}+{}", class.data_shards, class.parity_shards);
            let in_json = |class: &v1::StorageClass| json!({ "name": class.name, "profile": profile(class) });
            let in_text = |class: &v1::StorageClass| format!("{:<32} {}\n", class.name, profile(class));
            tell(
                &common,
                || json!(classes.iter().map(in_json).collect::<Vec<_>>()),
                || classes.iter().map(in_text).collect(),
            )
        }
    }
}

fn disk(command: DiskCommand) -> Result<(), Failure> {
    let (common, disk) = match command {
        DiskCommand::List(common) => {
            let response: v1::ListDisksResponse = Node::open(&common)?.ask("ListDisks", &v1::ListDisksRequest {})?;
            let disks = response.disks;
            return tell(&common, || json!(disks.iter().map(disk_to_json).collect::<Vec<_>>()), || table(&disks));
        }
        DiskCommand::Offline(OneDisk { disk, common }) => {
            let request = v1::OfflineDiskRequest { disk: named(&disk)? };
            let response: v1::OfflineDiskResponse = Node::open(&common)?.ask("OfflineDisk", &request)?;
            (common, response.disk)
        }
        DiskCommand::Online(OneDisk { disk, common }) => {
            let request = v1::OnlineDiskRequest { disk: named(&disk)? };
            let response: v1::OnlineDiskResponse = Node::open(&common)?.ask("OnlineDisk", &request)?;
            (common, response.disk)
        }
        DiskCommand::Replace { one: OneDisk { disk, common }, path } => {
            let path = path.map(|path| absolute(&path)).transpose()?.unwrap_or_default();
            let request = v1::ReplaceDiskRequest { disk: named(&disk)?, path };
            let response: v1::ReplaceDiskResponse = Node::open(&common)?.ask("ReplaceDisk", &request)?;
            (common, response.disk)
        }
        DiskCommand::Adopt { path, common } => {
            let request = v1::AdoptDiskRequest { path: absolute(&path)? };
            let response: v1::AdoptDiskResponse = Node::open(&common)?.ask("AdoptDisk", &request)?;
            (common, response.disk)
        }
    };
    let disk = disk.unwrap_or_default();
    tell(&common, || disk_to_json(&disk), || table(std::slice::from_ref(&disk)))
}

fn repair(watch: bool, common: &Common) -> Result<(), Failure> {
    let mut node = Node::open(common)?;
    let mut ask = || node.ask::<_, v1::RepairStatusResponse>("RepairStatus", &v1::RepairStatusRequest {});
    let mut status = ask()?;
    if watch {
        let repaired_before = status.repaired_bytes;
        let bar = bar();
        while left(&status).0 > 0 {
            let done = status.repaired_bytes - repaired_before.min(status.repaired_bytes);
            bar.set_length(done + left(&status).1);
            bar.set_position(done);
            bar.set_message(status.remaining_seconds.map_or_else(|| "waiting".to_owned(), in_words));
            std::thread::sleep(WATCHED_EVERY);
            status = ask()?;
        }
        bar.finish_and_clear();
    }
    tell(common, || repair_to_json(&status), || repair_to_text(&status))
}

/// How often a watcher asks; the node's figures are a second old.
const WATCHED_EVERY: Duration = Duration::from_secs(1);

/// Shown on stderr when that is a terminal.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("repair {wide_bar} {binary_bytes}/{binary_total_bytes}, {msg} left");
    ProgressBar::new(0).with_style(style.expect("the template is sound"))
}

/// Shards and bytes.
fn left(status: &v1::RepairStatusResponse) -> (u64, u64) {
    status.remaining.iter().fold((0, 0), |(shards, bytes), of| (shards + of.shards, bytes + of.bytes))
}

fn in_words(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{:02}s", seconds % 60),
        _ => format!("{hours}h{minutes:02}m"),
    }
}

fn repair_to_json(status: &v1::RepairStatusResponse) -> Value {
    let remaining = status.remaining.iter().map(|of| {
        let disk = if of.disk.is_empty() { Value::Null } else { json!(of.disk) };
        json!({ "disk": disk, "shards": of.shards, "bytes": of.bytes })
    });
    json!({
        "repaired_shards": status.repaired_shards,
        "repaired_bytes": status.repaired_bytes,
        "failed_attempts": status.failed_attempts,
        "remaining": remaining.collect::<Vec<_>>(),
        "bytes_per_second": status.bytes_per_second,
        "remaining_seconds": status.remaining_seconds,
        "narrow_objects": status.narrow_objects,
        "respread_objects": status.respread_objects,
    })
}

fn repair_to_text(status: &v1::RepairStatusResponse) -> String {
    let (shards, bytes) = left(status);
    let mut text = format!("repaired: {} shards, {}\n", status.repaired_shards, rounded(status.repaired_bytes));
    for of in &status.remaining {
        let of_what = if of.disk.is_empty() { "shards without a disk".to_owned() } else { format!("disk {}", of.disk) };
        text += &format!("remaining: {} shards, {}, of {of_what}\n", of.shards, rounded(of.bytes));
    }
    let end =
        status.remaining_seconds.map_or_else(|| "not known".to_owned(), |seconds| format!("in {}", in_words(seconds)));
    match shards {
        0 => text += "remaining: nothing\n",
        _ => text += &format!("end: {end} ({} at {}/s)\n", rounded(bytes), rounded(status.bytes_per_second)),
    }
    if status.respread_objects > 0 {
        text += &format!("spread anew: {} objects or parts\n", status.respread_objects);
    }
    if status.narrow_objects > 0 {
        text += &format!(
            "narrower than their class: {} objects or parts, until there are disks enough\n",
            status.narrow_objects
        );
    }
    if status.failed_attempts > 0 {
        text += &format!("failed attempts: {}; the node's log names the shards\n", status.failed_attempts);
    }
    text
}

/// A disk as the node takes it: an id as it is, a path from where the operator stands.
fn named(disk: &str) -> Result<String, Failure> {
    let is_id = disk.parse::<anvil_model::ids::DiskId>().is_ok();
    if is_id { Ok(disk.to_owned()) } else { absolute(Path::new(disk)) }
}

fn absolute(path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let text = absolute.into_os_string().into_string();
    text.map_err(|path| Failure::usage(format!("{} is not UTF-8, and cannot be sent", path.display())))
}

pub(super) fn tell(
    common: &Common,
    json: impl FnOnce() -> Value,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    if common.json || common.output == Some(Output::Json) { print(&format!("{:#}\n", json())) } else { print(&text()) }
}

fn state_word(disk: &v1::Disk) -> &'static str {
    match disk.state() {
        v1::DiskState::Unspecified => "unknown",
        v1::DiskState::Online => "online",
        v1::DiskState::Offline => "offline",
        v1::DiskState::Missing => "missing",
        v1::DiskState::Lost => "lost",
    }
}

fn disk_to_json(disk: &v1::Disk) -> Value {
    json!({
        "id": disk.id,
        "path": disk.path,
        "state": state_word(disk),
        "error": if disk.error.is_empty() { Value::Null } else { json!(disk.error) },
        "capacity_bytes": disk.capacity_bytes,
        "used_bytes": disk.used_bytes,
        "remaining_shards": disk.remaining_shards,
        "remaining_bytes": disk.remaining_bytes,
        "slow": disk.slow,
    })
}

fn table(disks: &[v1::Disk]) -> String {
    let mut lines = format!("{:<32} {:<8} {:>10} {:>10}  PATH\n", "DISK", "STATE", "CAPACITY", "USED");
    for disk in disks {
        let (capacity, used) = (rounded(disk.capacity_bytes), rounded(disk.used_bytes));
        let slow = if disk.slow { "much slower than the others: read last" } else { "" };
        let lost = match (disk.state(), disk.remaining_shards) {
            (v1::DiskState::Lost, shards) => {
                format!("{shards} shards, {}, to be made again", rounded(disk.remaining_bytes))
            }
            _ => String::new(),
        };
        let why = [lost.as_str(), disk.error.as_str(), slow];
        let why: Vec<&str> = why.into_iter().filter(|text| !text.is_empty()).collect();
        let why = if why.is_empty() { String::new() } else { format!("  ({})", why.join("; ")) };
        let (id, state, path) = (&disk.id, state_word(disk), &disk.path);
        lines += &format!("{id:<32} {state:<8} {capacity:>10} {used:>10}  {path}{why}\n");
    }
    lines
}

/// To three digits, in powers of 1024.
fn rounded(bytes: u64) -> String {
    let units = ["TiB", "GiB", "MiB", "KiB"].iter().zip([40, 30, 20, 10]);
    let unit = units.into_iter().find(|(_, shift)| bytes >= 1 << shift);
    unit.map_or_else(
        || Size { bytes }.to_string(),
        |(name, shift)| format!("{:.1}{name}", bytes as f64 / f64::powi(2.0, shift)),
    )
}

/// A node that can be asked.
pub(super) struct Node {
    runtime: tokio::runtime::Runtime,
    client: Client,
    bearer: Bearer,
}

/// As whom a node is asked. No `Debug`: it holds secrets.
enum Bearer {
    /// As its own app.
    App { access_key: String, secret: Secret },
    /// As a user who logged in.
    User(String),
    /// As nobody.
    Stranger,
}

impl Node {
    pub(super) fn open(common: &Common) -> Result<Self, Failure> {
        let environment = Environment::of_process().map_err(Failure::usage)?;
        let bearer = bearer(common, &environment)?;
        Self::connect(common, &environment, bearer)
    }

    /// The same, as nobody.
    pub(super) fn stranger(common: &Common) -> Result<Self, Failure> {
        let environment = Environment::of_process().map_err(Failure::usage)?;
        Self::connect(common, &environment, Bearer::Stranger)
    }

    fn connect(common: &Common, environment: &Environment, bearer: Bearer) -> Result<Self, Failure> {
        let endpoint = endpoint(common, environment).parse().map_err(Failure::usage)?;
        let roots = common.ca_file.clone().or_else(|| environment.value("ANVIL_CA_FILE").map(PathBuf::from));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::run)?;
        let client = runtime.block_on(Client::connect(endpoint, roots.as_deref())).map_err(Failure::run)?;
        Ok(Self { runtime, client, bearer })
    }

    pub(super) fn ask<M, R>(&mut self, method: &str, request: &M) -> Result<R, Failure>
    where
        M: anvil_proto::Message,
        R: anvil_proto::Message + Default,
    {
        let token = match &self.bearer {
            Bearer::App { access_key, secret } => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let now = WallTime { unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) };
                let mut random = [0; 16];
                getrandom::fill(&mut random).map_err(Failure::run)?;
                token::make(access_key, secret, now, u128::from_le_bytes(random))
            }
            Bearer::User(token) => token.clone(),
            Bearer::Stranger => String::new(),
        };
        let path = format!("{PREFIX}{method}");
        self.runtime.block_on(self.client.call(&path, &token, request)).map_err(Failure::run)
    }
}

fn endpoint(common: &Common, environment: &Environment) -> String {
    let named = common.endpoint.as_deref().or_else(|| environment.value("ANVIL_ENDPOINT")).map(str::to_owned);
    named.unwrap_or_else(|| format!("http://127.0.0.1:{PORT}"))
}

/// Where the token of a user lies who logged in to this node.
pub(super) fn kept_token(common: &Common) -> Result<TokenCache, Failure> {
    let environment = Environment::of_process().map_err(Failure::usage)?;
    Ok(TokenCache::named(&format!("admin\n{}", endpoint(common, &environment)), &environment))
}

/// The node's own app from the environment, or from its data directory when that was named; else who logged in; else the
/// data directory that there may be.
fn bearer(common: &Common, environment: &Environment) -> Result<Bearer, Failure> {
    if let Some(token) = environment.value("ANVIL_ADMIN_TOKEN") {
        return Ok(Bearer::User(token.to_owned()));
    }
    let is_named = common.data_dir.is_some()
        || ["ANVIL_DEV_ACCESS_KEY", "ANVIL_DEV_SECRET_KEY", "ANVIL_DATA_DIR"]
            .iter()
            .any(|name| environment.value(name).is_some());
    if !is_named && let Some((token, _)) = kept_token(common)?.read() {
        return Ok(Bearer::User(token));
    }
    let (access_key, secret) = credentials(common, environment)?;
    Ok(Bearer::App { access_key, secret })
}

/// From the environment, or from the data directory of the node.
fn credentials(common: &Common, environment: &Environment) -> Result<(String, Secret), Failure> {
    let (key, secret) = (environment.value("ANVIL_DEV_ACCESS_KEY"), environment.value("ANVIL_DEV_SECRET_KEY"));
    match (key, secret) {
        (Some(key), Some(secret)) => {
            let secret =
                Secret::new(secret).map_err(|error| Failure::usage(format!("ANVIL_DEV_SECRET_KEY: {error}")))?;
            return Ok((key.to_owned(), secret));
        }
        (None, None) => {}
        _ => return Err(Failure::usage("set both ANVIL_DEV_ACCESS_KEY and ANVIL_DEV_SECRET_KEY, or neither")),
    }
    let named = common.data_dir.clone().or_else(|| environment.value("ANVIL_DATA_DIR").map(PathBuf::from));
    let directory = named.unwrap_or_else(|| "anvil-data".into());
    match Credentials::of_directory(&directory).map_err(Failure::run)? {
        Some(credentials) => Ok((credentials.access_key, credentials.secret)),
        None => Err(Failure::usage(format!(
            "there are no credentials in {}: name the node's data directory with --data-dir, set ANVIL_DEV_ACCESS_KEY and \
             ANVIL_DEV_SECRET_KEY, or log in with `anvil admin login`",
            directory.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_repair_is_told() {
        let of = |disk: &str| v1::RemainingRepair { disk: disk.to_owned(), shards: 2, bytes: 3 << 20 };
        let mut status = v1::RepairStatusResponse {
            repaired_shards: 5,
            repaired_bytes: 1 << 20,
            failed_attempts: 1,
            remaining: vec![of(""), of("d1")],
            bytes_per_second: 1 << 10,
            remaining_seconds: Some(6144),
            narrow_objects: 3,
            respread_objects: 0,
        };
        let expected = "repaired: 5 shards, 1.0MiB\nremaining: 2 shards, 3.0MiB, of shards without a disk\n\
                        remaining: 2 shards, 3.0MiB, of disk d1\nend: in 1h42m (6.0MiB at 1.0KiB/s)\n\
                        narrower than their class: 3 objects or parts, until there are disks enough\n\
                        failed attempts: 1; the node's log names the shards\n";
        assert_eq!(repair_to_text(&status), expected);
        status.remaining.clear();
        assert!(repair_to_text(&status).contains("remaining: nothing\n"));
        assert_eq!([in_words(59), in_words(61), in_words(7260)], ["59s", "1m01s", "2h01m"]);
    }

    #[test]
    fn a_table_says_why_a_disk_is_offline() {
        let disk = v1::Disk {
            id: "0".repeat(32),
            path: "/a".to_owned(),
            state: v1::DiskState::Offline.into(),
            error: "gone".to_owned(),
            capacity_bytes: 3 << 40,
            used_bytes: 1536,
            ..v1::Disk::default()
        };
        let slow = v1::Disk { slow: true, error: String::new(), state: v1::DiskState::Online.into(), ..disk.clone() };
        let text = table(&[disk, slow]);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        let id = "0".repeat(32);
        assert_eq!(lines[0], format!("{id} offline      3.0TiB     1.5KiB  /a  (gone)"));
        let why = "much slower than the others: read last";
        assert_eq!(lines[1], format!("{id} online       3.0TiB     1.5KiB  /a  ({why})"));
    }
}
