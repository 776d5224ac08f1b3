//! Which disks a node may use: what it finds at the paths that it was given against what it knows of itself.
//!
//! A path that held a disk of this node is never formatted: what looks blank there is a disk that is not mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anvil_model::ids::DiskId;
use anvil_model::io::World;
use anvil_store::{FormatError, FormatOptions, IdentifyError, Identity as Content, extent_bytes, format, identify};

use crate::data_dir::{DataDir, DataDirError};
use crate::identity::Identity;

/// Why the disks cannot be used. Each text is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum DiskError {
    #[error("the disk at {path} cannot be read: {source}")]
    Identify { path: PathBuf, source: IdentifyError },
    #[error("the disk at {path} cannot be formatted: {source}")]
    Format { path: PathBuf, source: FormatError },
    #[error("{path} holds data that is not Anvil's: empty it, or name another path")]
    ForeignData { path: PathBuf },
    #[error(
        "the disk at {path} belongs to another cluster ({found:032x}; this node's is {expected:032x}): name another \
         path, or start with the data directory of that cluster"
    )]
    ForeignCluster { path: PathBuf, found: u128, expected: u128 },
    #[error(
        "the disk at {path} is blank, but disk {disk} was there: mount it again, or give its data up for lost and \
         start with another data directory"
    )]
    Wiped { path: PathBuf, disk: DiskId },
    #[error("disk {disk}, last seen at {path}, is missing, and the profile 1+0 cannot do without it: name it again")]
    Missing { path: PathBuf, disk: DiskId },
    #[error("{path} holds disk {disk}, and so does another path: one is a copy of the other; start with the original")]
    Cloned { path: PathBuf, disk: DiskId },
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// Finds out what is at each path, formats what is blank and new, and gives the disks' ids in the order of the paths.
/// What the node knows of itself is durable in `data` before a disk is used.
///
/// # Errors
/// When one of them must not be used, or one that the node knows is missing.
pub async fn take<W: World>(
    world: &W,
    data: &DataDir,
    paths: &[PathBuf],
    devices: &[W::Device],
) -> Result<Vec<DiskId>, DiskError> {
    assert_eq!(paths.len(), devices.len(), "a device for each path");
    let mut found = Vec::with_capacity(paths.len());
    for (path, device) in paths.iter().zip(devices) {
        let content = identify(world, device).await;
        found.push(content.map_err(|source| DiskError::Identify { path: path.clone(), source })?);
    }
    let mut identity = match Identity::read(data)? {
        Some(identity) => identity,
        None => first_identity(world, paths, &found),
    };
    check(&identity, paths, &found)?;
    identity.write(data)?;

    let mut disks = Vec::with_capacity(paths.len());
    for ((path, device), content) in paths.iter().zip(devices).zip(&found) {
        let disk = match content {
            Content::Anvil(known) => known.disk,
            _ => format_blank(world, path, device, identity.cluster).await?,
        };
        disks.push(disk);
    }
    identity.disks = paths.iter().cloned().zip(disks.iter().copied()).collect();
    identity.write(data)?;
    Ok(disks)
}

/// A node without a data directory is a new one, or one whose data directory was lost: then its disks tell its cluster.
fn first_identity<W: World>(world: &W, paths: &[PathBuf], found: &[Content]) -> Identity {
    let known = paths.iter().zip(found).find_map(|(path, content)| match content {
        Content::Anvil(known) => Some((path, known.cluster)),
        _ => None,
    });
    let cluster = match known {
        Some((path, cluster)) => {
            tracing::warn!(path = %path.display(), "this data directory is new; taking the node's identity from its disks");
            cluster
        }
        None => random_id(world),
    };
    Identity { cluster, disks: BTreeMap::new() }
}

/// Whether everything that was found may be used, before anything is written.
fn check(identity: &Identity, paths: &[PathBuf], found: &[Content]) -> Result<(), DiskError> {
    let mut seen = BTreeSet::new();
    for (path, content) in paths.iter().zip(found) {
        let path = path.clone();
        match content {
            Content::Blank => {
                if let Some(&disk) = identity.disks.get(&path) {
                    return Err(DiskError::Wiped { path, disk });
                }
            }
            Content::Foreign => return Err(DiskError::ForeignData { path }),
            Content::Anvil(known) if known.cluster != identity.cluster => {
                return Err(DiskError::ForeignCluster { path, found: known.cluster, expected: identity.cluster });
            }
            Content::Anvil(known) => {
                if !seen.insert(known.disk) {
                    return Err(DiskError::Cloned { path, disk: known.disk });
                }
            }
        }
    }
    match identity.disks.iter().find(|(_, disk)| !seen.contains(disk)) {
        Some((path, &disk)) => Err(DiskError::Missing { path: path.clone(), disk }),
        None => Ok(()),
    }
}

async fn format_blank<W: World>(
    world: &W,
    path: &Path,
    device: &W::Device,
    cluster: u128,
) -> Result<DiskId, DiskError> {
    use anvil_model::io::Device as _;
    let disk = DiskId(random_id(world));
    let options = FormatOptions { disk, cluster, extent_bytes: extent_bytes(device.geometry().capacity_bytes_max) };
    let formatted = format(world, device, options).await;
    formatted.map_err(|source| DiskError::Format { path: path.to_owned(), source })?;
    tracing::info!(path = %path.display(), %disk, "formatted");
    Ok(disk)
}

fn random_id<W: World>(world: &W) -> u128 {
    u128::from(world.random()) << 64 | u128::from(world.random())
}
