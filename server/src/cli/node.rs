//! `anvil dev` and `anvil server`: from a configuration to a running node, and what its operator is told.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use anvil_model::ids::CoreId;
use anvil_node::encryption::OperatorKey;
use anvil_runtime::DiskOptions;

use super::Failure;
use crate::access::sealing::{Sealer, SealingKey};
use crate::admission::Admission;
use crate::auth::{Authenticator, Ring};
use crate::config::{Config, DiskChoice, Environment, Flags, Form};
use crate::credentials::Credentials;
use crate::data_dir::DataDir;
use crate::disks::MissingList;
use crate::grpc::{Authority, Gate, Sessions, Tokens, access};
use crate::http1::Settings;
use crate::identity::Identity;
use crate::metadata::postgres::cluster::{self, Databases};
use crate::start::{self, AccessPlan, DiskPlan, MetadataPlan, Plan, Ready};
use crate::tls::Tls;

/// Runs a node until it is told to stop.
pub(super) fn run(form: Form, flags: &Flags) -> Result<(), Failure> {
    let environment = Environment::of_process().map_err(Failure::usage)?;
    let checked = Config::read(form, flags, &environment).map_err(Failure::usage)?;
    let config = checked.config;
    let runtime = config.runtime(&anvil_runtime::available_cpus()).map_err(Failure::usage)?;
    let _log = crate::telemetry::init(config.log_format).map_err(Failure::usage)?;
    for warning in checked.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(warning) = crate::descriptors::provide_for(runtime.cpus.len() * Settings::default().connections_max) {
        tracing::warn!("{warning}");
    }
    let tls = config.tls.map(|tls| Tls::open(tls.files, tls.only)).transpose().map_err(Failure::usage)?.map(Arc::new);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let data = DataDir::open(&config.data_dir).map_err(Failure::run)?;
    super::metadata::check_finished(&data)?;
    let metadata = metadata_plan(config.databases, &data, &config.region, config.init_cluster)?;
    let tenant = match &metadata {
        MetadataPlan::Embedded => None,
        MetadataPlan::Database { place, .. } => Some(place.tenant),
    };
    let credentials = Credentials::open(&data, config.credentials, tenant).map_err(Failure::run)?;
    let directory = credentials.directory();
    let authenticator = Arc::new(Authenticator::new(config.region.clone(), directory.clone()));
    let token_secret = access::secret(&data, config.token_secret).map_err(Failure::run)?;
    let ring = Ring::new(directory.clone(), token_secret);
    let sessions = Sessions::new(directory.clone(), ring.clone());
    let authority = Arc::new(Authority::new(directory.clone(), sessions, config.admin_from));
    let tokens = Arc::new(Tokens::new(directory.clone(), ring));
    let admission = Arc::new(Admission::new(config.limits));
    let gate = Gate { authority, tokens, admission };
    let sealer = Arc::new(sealer(&config.encryption.keys, &metadata, &data)?);
    let access = AccessPlan { directory, sealer, own: credentials.tenant, ttl: config.cache_ttl };
    let disks = disk_plans(&config.disks, &data)?;
    let last_core = u16::try_from(runtime.cpus.len() - 1).expect("the configuration bounds the cores");
    let host = CoreId(config.control_core.unwrap_or(last_core));
    let plan = Plan {
        data,
        disks,
        listen: config.listen,
        region: config.region.clone(),
        classes: config.classes,
        domains: config.domains,
        tls,
        idle_timeout: config.idle_timeout,
        authenticator,
        gate,
        encryption: config.encryption,
        metrics_allow: Arc::new(config.metrics_allow),
        access,
        runtime,
        host,
        reclaim_delay: config.reclaim_delay,
        upload_expiry: config.upload_expiry,
        scrub: config.scrub,
        metadata,
        repair_bytes_per_second: config.repair_rate.bytes,
    };
    start::run(plan, |ready| announce(scheme, &config.region, &credentials, ready)).map_err(Failure::run)
}

/// Where the metadata is: a node that began with the one kind does not go on with the other, because it would not see what
/// it holds.
fn metadata_plan(
    databases: Option<Databases>,
    data: &DataDir,
    region: &str,
    init: bool,
) -> Result<MetadataPlan, Failure> {
    match databases {
        Some(databases) => {
            let place = cluster::join(&databases, data, region, init).map_err(Failure::run)?;
            tracing::info!(node = %place.node, database = databases.regional.place(), "the metadata is in PostgreSQL");
            Ok(MetadataPlan::Database { databases: Box::new(databases), place })
        }
        None if cluster::is_of_a_database(data).map_err(Failure::run)? => Err(Failure::run(
            "the metadata of this node is in PostgreSQL: set GLOBAL_DATABASE_URL and REGIONAL_DATABASE_URL as before",
        )),
        None => Ok(MetadataPlan::Embedded),
    }
}

/// What secrets of apps are sealed with: the operator's keys. A node that has none, and no database that others read too,
/// keeps one of its own; what that one sealed stays good when the operator gives others.
fn sealer(keys: &[OperatorKey], metadata: &MetadataPlan, data: &DataDir) -> Result<Sealer, Failure> {
    let mut keys: Vec<SealingKey> = keys.iter().map(SealingKey::of_operator).collect();
    if matches!(metadata, MetadataPlan::Embedded) {
        keys.push(SealingKey::of_node(data).map_err(Failure::run)?);
    }
    Ok(Sealer::new(keys))
}

/// Disks are known by their absolute paths, so that a start from another directory finds the same ones. Nothing is made at
/// a path that held a disk: what is missing there is not mounted.
fn disk_plans(choices: &[DiskChoice], data: &DataDir) -> Result<Vec<DiskPlan>, Failure> {
    let known = Identity::read(data).map_err(Failure::run)?;
    let known: BTreeSet<_> =
        known.iter().flat_map(|identity| identity.known().chain(identity.lost.clone())).map(|disk| disk.path).collect();
    let plan = |choice: &DiskChoice| {
        let path = std::path::absolute(&choice.path)?;
        let capacity_bytes = choice.capacity.map(|size| size.bytes);
        let create = !known.contains(&path);
        Ok(DiskPlan { path, options: DiskOptions { capacity_bytes, create, ..DiskOptions::default() } })
    };
    let plans: io::Result<Vec<DiskPlan>> = choices.iter().map(plan).collect();
    plans.map_err(|error| Failure::run(format!("cannot find the current directory: {error}")))
}

/// Tells on stdout how clients get in, once they can. The log goes to stderr.
fn announce(scheme: &str, region: &str, credentials: &Credentials, ready: &Ready) {
    let Ready { addresses, missing, standard } = ready;
    let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let promise = match standard.parity {
        0 if standard.data == 1 => "every byte is on one disk, and lost with it".to_owned(),
        0 => "every object is lost with any one of its disks".to_owned(),
        1 => "any one disk may be lost".to_owned(),
        parity => format!("any {parity} disks may be lost"),
    };
    let (version, addressed) = (env!("CARGO_PKG_VERSION"), all.join(" and "));
    let mut head = format!("# Anvil {version} serves S3 on {addressed}. Profile {standard}: {promise}.\n");
    if !missing.is_empty() {
        head += &format!("# {}: mount or adopt, or replace (`anvil admin disk`).\n", MissingList(missing.clone()));
    }
    let lines = credentials.paste_lines(scheme, addresses[0], region);
    // A node whose stdout is closed serves all the same.
    let _ = super::print(&(head + &lines));
}
