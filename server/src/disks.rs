//! Which disks a node may use: what it finds at the paths that it was given against what it knows of itself.
//!
//! A path that held a disk of this node is never formatted: what looks blank there is a disk that is not mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anvil_model::geometry;
use anvil_model::ids::DiskId;
use anvil_model::io::World;
use anvil_model::limits::ROSTER_DISKS_MAX;
use anvil_model::profile::Profile;
use anvil_store::{
    DiskIdentity, FormatError, FormatOptions, IdentifyError, Identity as Content, Roster, enroll, extent_bytes, format,
    identify,
};

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
        "the disk at {path} is blank, but disk {disk} was there, and the profile {profile} cannot do without it: mount it \
         again"
    )]
    Wiped { path: PathBuf, disk: DiskId, profile: Profile },
    #[error("{missing}, and the profile {profile} can do without {spare} of the node's disks: name them again")]
    Missing { missing: MissingList, profile: Profile, spare: u8 },
    #[error("all disks that are there were given up: name those that took their places")]
    AllGivenUp,
    #[error("a node has at most {ROSTER_DISKS_MAX} disks, those that are missing included: name fewer")]
    TooMany,
    #[error("{path} holds disk {disk}, and so does another path: one is a copy of the other; start with the original")]
    Cloned { path: PathBuf, disk: DiskId },
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// A disk that the node knows, and that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingDisk {
    /// Which.
    pub disk: DiskId,
    /// Where it was seen last; empty when only the other disks know of it.
    pub path: PathBuf,
}

impl MissingDisk {
    /// What people know it by.
    #[must_use]
    pub fn label(&self) -> String {
        if self.path.as_os_str().is_empty() { self.disk.to_string() } else { self.path.display().to_string() }
    }
}

impl fmt::Display for MissingDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk {}", self.disk)?;
        if self.path.as_os_str().is_empty() { Ok(()) } else { write!(f, ", last seen at {},", self.path.display()) }
    }
}

/// All that are not there, for people.
#[derive(Debug)]
pub struct MissingList(pub Vec<MissingDisk>);

impl fmt::Display for MissingList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, missing) in self.0.iter().enumerate() {
            let between = if index > 0 { " and " } else { "" };
            write!(f, "{between}{missing}")?;
        }
        write!(f, " {} missing", if self.0.len() == 1 { "is" } else { "are" })
    }
}

/// The disks of a node at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Those that are there, by their place in the list of paths.
    pub here: Vec<(usize, DiskId)>,
    /// Those that are not, and that the node does without.
    pub missing: Vec<MissingDisk>,
    /// How blobs are stored when nobody says otherwise.
    pub standard: Profile,
    /// What the node knows of itself, as it was kept.
    pub identity: Identity,
}

/// Finds out what is at each path, formats what is blank and new, and gives the disks' ids. Where a path has no device,
/// the system has none: that is forgiven where a disk was. What the node knows of itself is durable in `data`, and on the
/// disks, before a disk is used. As many may be missing as the profile `standard` has parity; where nobody chose one, it is
/// that of all disks that the node knows, so that it does not become a narrower one because some of them are missing.
///
/// # Errors
/// When one of them must not be used, or more that the node knows are missing than its profile can do without.
///
/// # Panics
/// When the lists differ in length.
pub async fn take<W: World>(
    world: &W,
    data: &DataDir,
    paths: &[PathBuf],
    devices: &[Option<W::Device>],
    standard: Option<Profile>,
) -> Result<Taken, DiskError> {
    assert_eq!(paths.len(), devices.len(), "a device for each path");
    let mut found = Vec::with_capacity(paths.len());
    for device in devices {
        found.push(match device {
            Some(device) => Some(identify(world, device).await),
            None => None,
        });
    }
    let mut identity = match Identity::read(data)? {
        Some(identity) => identity,
        None => first_identity(world, paths, &found),
    };
    identity.follow(&newest_roster(&identity, &found));
    let places = check(&identity, paths, found)?;
    let seen: BTreeSet<DiskId> = places.iter().filter_map(|(_, place)| place.disk()).collect();
    let missing: Vec<MissingDisk> = identity.known().filter(|known| !seen.contains(&known.disk)).collect();
    // Any blank path may be the one where such a disk is not mounted.
    let anywhere = missing.iter().any(|missing| missing.path.as_os_str().is_empty());
    let is_here = |place: &Place| matches!(place, Place::Ours(_)) || matches!(place, Place::New if !anywhere);
    let known = places.iter().filter(|(_, place)| is_here(place)).count() + missing.len();
    let standard = standard.unwrap_or_else(|| geometry::default_profile(known.max(1)));
    if missing.len() > usize::from(standard.parity) || !places.iter().any(|(_, place)| is_here(place)) {
        return Err(too_few(missing, standard, &places, paths));
    }
    if known > ROSTER_DISKS_MAX {
        return Err(DiskError::TooMany);
    }
    identity.write(data)?;

    let mut here = Vec::with_capacity(paths.len());
    for &(index, ref place) in &places {
        let path = &paths[index];
        match (place, &devices[index]) {
            (&Place::Ours(disk), _) => here.push((index, disk)),
            (Place::New, Some(_)) if anywhere => {
                tracing::error!(path = %path.display(), "the path is blank, and a disk is missing: it is left alone");
            }
            (Place::New, Some(device)) => {
                here.push((index, format_blank(world, path, device, identity.cluster).await?));
            }
            (Place::New | Place::Lost { .. } | Place::GivenUp, _) => {}
        }
    }
    let before = identity.roster();
    identity.disks = here.iter().map(|&(index, disk)| (paths[index].clone(), disk)).collect();
    identity.missing = missing.clone();
    let changed = identity.roster() != before;
    identity.generation += u64::from(changed || before.is_none());
    identity.write(data)?;
    let roster = identity.roster();
    for &(index, disk) in &here {
        let device = devices[index].as_ref().expect("what is here was opened");
        // Recovery finds out whether the node can do without it.
        if let Err(error) = enroll(world, device, &roster).await {
            tracing::error!(%disk, %error, "the disk was not told which disks there are");
        }
    }
    for MissingDisk { disk, path } in &missing {
        tracing::error!(%disk, path = %path.display(), "a disk is missing; going on without it");
    }
    Ok(Taken { here, missing, standard, identity })
}

/// What a path is good for.
enum Place {
    /// A disk of this node.
    Ours(DiskId),
    /// Blank, and never used.
    New,
    /// A disk of this node was seen here last, and what is here now is none. It is not touched.
    Lost { disk: DiskId, blank: bool },
    /// A disk that was given up is or was here. It is not touched.
    GivenUp,
}

impl Place {
    fn disk(&self) -> Option<DiskId> {
        if let Self::Ours(disk) = *self { Some(disk) } else { None }
    }
}

/// Says what is wrong in the words that help most.
fn too_few(missing: Vec<MissingDisk>, profile: Profile, places: &[(usize, Place)], paths: &[PathBuf]) -> DiskError {
    if let [MissingDisk { disk, .. }] = missing[..]
        && let Some(index) = places.iter().find_map(|(index, place)| match *place {
            Place::Lost { disk: lost, blank: true } if lost == disk => Some(*index),
            _ => None,
        })
    {
        return DiskError::Wiped { path: paths[index].clone(), disk, profile };
    }
    if missing.is_empty() {
        return DiskError::AllGivenUp;
    }
    DiskError::Missing { missing: MissingList(missing), profile, spare: profile.parity }
}

type Identified = Option<Result<Content, IdentifyError>>;

/// A node without a data directory is a new one, or one whose data directory was lost: then its disks tell its cluster.
fn first_identity<W: World>(world: &W, paths: &[PathBuf], found: &[Identified]) -> Identity {
    let known = paths.iter().zip(found).find_map(|(path, content)| match content {
        Some(Ok(Content::Anvil(known))) => Some((path, known.cluster)),
        _ => None,
    });
    let cluster = match known {
        Some((path, cluster)) => {
            tracing::warn!(path = %path.display(), "this data directory is new; taking the node's identity from its disks");
            cluster
        }
        None => random_id(world),
    };
    Identity { cluster, disks: BTreeMap::new(), missing: Vec::new(), lost: Vec::new(), generation: 0 }
}

/// The newest that the disks of this cluster have.
fn newest_roster(identity: &Identity, found: &[Identified]) -> Roster {
    let rosters = found.iter().filter_map(|content| match content {
        Some(Ok(Content::Anvil(known))) if known.cluster == identity.cluster => Some(&known.roster),
        _ => None,
    });
    rosters.max_by_key(|roster| roster.generation).cloned().unwrap_or_default()
}

/// What everything that was found may be used for, before anything is written.
fn check(identity: &Identity, paths: &[PathBuf], found: Vec<Identified>) -> Result<Vec<(usize, Place)>, DiskError> {
    let mut seen = BTreeSet::new();
    let mut places = Vec::with_capacity(paths.len());
    for (index, (path, content)) in paths.iter().zip(found).enumerate() {
        let was = identity.known().find(|known| known.path == *path).map(|known| known.disk);
        let was_given_up = identity.lost.iter().any(|lost| lost.path == *path);
        let lost = |disk, blank| Place::Lost { disk, blank };
        let path = path.clone();
        let place = match (content, was) {
            (Some(Ok(Content::Anvil(known))), _) if known.cluster != identity.cluster => {
                return Err(DiskError::ForeignCluster { path, found: known.cluster, expected: identity.cluster });
            }
            (Some(Ok(Content::Anvil(known))), was) if is_given_up(identity, &known) => {
                tracing::error!(
                    path = %path.display(), disk = %known.disk,
                    "the disk was given up, and what it held is made again elsewhere: it is left alone; empty it, or do \
                     not name it"
                );
                was.map_or(Place::GivenUp, |disk| lost(disk, false))
            }
            (Some(Ok(Content::Anvil(known))), _) => {
                if !seen.insert(known.disk) {
                    return Err(DiskError::Cloned { path, disk: known.disk });
                }
                Place::Ours(known.disk)
            }
            (Some(Ok(Content::Blank | Content::Foreign) | Err(_)) | None, None) if was_given_up => {
                tracing::error!(path = %path.display(), "a disk that was given up was there: it is left alone");
                Place::GivenUp
            }
            (Some(Ok(Content::Blank)), None) => Place::New,
            (Some(Ok(Content::Blank)), Some(disk)) => lost(disk, true),
            (Some(Ok(Content::Foreign)), None) => return Err(DiskError::ForeignData { path }),
            (Some(Ok(Content::Foreign)), Some(disk)) => {
                tracing::error!(path = %path.display(), %disk, "what is there is not Anvil's: it is left alone");
                lost(disk, false)
            }
            (Some(Err(source)), None) => return Err(DiskError::Identify { path, source }),
            (Some(Err(error)), Some(disk)) => {
                tracing::error!(path = %path.display(), %disk, %error, "the disk cannot be read");
                lost(disk, false)
            }
            (None, Some(disk)) => lost(disk, false),
            (None, None) => unreachable!("a disk that cannot be opened is forgiven only where one was"),
        };
        places.push((index, place));
    }
    Ok(places)
}

/// A disk was given up when the newest roster says so, or does not know it any more though the disk knew a roster.
pub(crate) fn is_given_up(identity: &Identity, disk: &DiskIdentity) -> bool {
    let is_member = identity.known().any(|known| known.disk == disk.disk);
    let is_lost = identity.lost.iter().any(|lost| lost.disk == disk.disk);
    is_lost || !is_member && !disk.roster.is_none()
}

/// Makes a blank device a disk of the cluster, which belongs to no roster yet.
pub(crate) async fn format_blank<W: World>(
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
