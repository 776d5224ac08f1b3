//! Who this node is, kept in its data directory: the cluster it belongs to and the disks it has formatted.
//!
//! Nothing here is secret, and nothing that the disks could not tell; it is what lets a node notice that a disk is
//! missing, blank where it was not, or another cluster's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anvil_model::ids::{DiskId, NodeId};
use anvil_store::Roster;
use serde::{Deserialize, Serialize};

use crate::data_dir::{DataDir, DataDirError, FILE_VERSION};
use crate::disks::MissingDisk;

/// The embedded node's number; a cluster's database gives others.
pub const EMBEDDED_NODE: NodeId = NodeId(1);

/// What a node knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster, drawn at its first start; in the superblock of each of its disks.
    pub cluster: u128,
    /// The disks that this node has formatted or taken over, by the path at which they were seen last.
    pub disks: BTreeMap<PathBuf, DiskId>,
    /// Those that were not there at the last start.
    pub missing: Vec<MissingDisk>,
    /// Those that were given up, until nothing is to be made again because of them.
    pub lost: Vec<MissingDisk>,
    /// The generation of the roster that says so; 0 before there was one.
    pub generation: u64,
}

/// The file that it is kept in.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    cluster: u128,
    disks: BTreeMap<PathBuf, DiskId>,
    /// Absent where nothing is missing, and in files of programs that could not do without a disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    missing: Vec<(DiskId, PathBuf)>,
    /// Absent where none is lost, and in files of programs that could not give one up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lost: Vec<(DiskId, PathBuf)>,
    /// Absent in files of programs that knew no roster.
    #[serde(default)]
    generation: u64,
}

/// The file of the data directory that it is kept in.
pub(crate) const FILE_NAME: &str = "identity.json";

impl Identity {
    /// Reads what the directory holds; `None` before the first start.
    ///
    /// # Errors
    /// When there is one that cannot be read.
    pub fn read(data: &DataDir) -> Result<Option<Self>, DataDirError> {
        let kept = data.read::<Kept>(FILE_NAME)?;
        Ok(kept.map(|Kept { cluster, disks, missing, lost, generation, .. }| {
            let away = |list: Vec<(DiskId, PathBuf)>| {
                list.into_iter().map(|(disk, path)| MissingDisk { disk, path }).collect::<Vec<_>>()
            };
            Self { cluster, disks, missing: away(missing), lost: away(lost), generation }
        }))
    }

    /// Keeps it, durably, instead of what was there.
    ///
    /// # Errors
    /// When it cannot be written; then the old one is still there.
    pub fn write(&self, data: &DataDir) -> Result<(), DataDirError> {
        let away = |list: &[MissingDisk]| list.iter().map(|away| (away.disk, away.path.clone())).collect();
        let kept = Kept {
            version: FILE_VERSION,
            cluster: self.cluster,
            disks: self.disks.clone(),
            missing: away(&self.missing),
            lost: away(&self.lost),
            generation: self.generation,
        };
        data.write(FILE_NAME, &kept)
    }

    /// All disks that belong to this node, with the paths at which they were seen last.
    pub fn known(&self) -> impl Iterator<Item = MissingDisk> {
        let here = self.disks.iter().map(|(path, &disk)| MissingDisk { disk, path: path.clone() });
        here.chain(self.missing.iter().cloned())
    }

    /// What the disks are told of one another.
    #[must_use]
    pub fn roster(&self) -> Roster {
        let mut disks: Vec<DiskId> = self.known().map(|known| known.disk).collect();
        disks.sort_unstable();
        Roster { generation: self.generation, disks, lost: self.lost.iter().map(|lost| lost.disk).collect() }
    }

    /// Takes over what a disk says, if that is newer: the data directory may be new, or restored from a backup.
    pub fn follow(&mut self, roster: &Roster) {
        if roster.generation <= self.generation {
            return;
        }
        let seen: BTreeMap<DiskId, PathBuf> =
            self.known().chain(self.lost.clone()).map(|known| (known.disk, known.path)).collect();
        let named = |disk: &DiskId| MissingDisk { disk: *disk, path: seen.get(disk).cloned().unwrap_or_default() };
        self.missing = roster.disks.iter().map(named).collect();
        self.lost = roster.lost.iter().map(named).collect();
        self.disks = BTreeMap::new();
        self.generation = roster.generation;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_back_as_it_was_kept() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        assert_eq!(Identity::read(&data).unwrap(), None);
        let disks = BTreeMap::from([(PathBuf::from("/a b"), DiskId(7)), (PathBuf::from("/c"), DiskId(u128::MAX))]);
        let missing = vec![MissingDisk { disk: DiskId(9), path: "/away".into() }];
        let lost = vec![MissingDisk { disk: DiskId(8), path: PathBuf::new() }];
        let identity = Identity { cluster: u128::MAX - 42, disks, missing, lost, generation: 3 };
        identity.write(&data).unwrap();
        assert_eq!(Identity::read(&data).unwrap(), Some(identity));
    }

    #[test]
    fn a_file_of_a_program_without_rosters_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let text = format!(r#"{{"version":1,"cluster":7,"disks":{{"/a":{}}}}}"#, serde_json::json!(DiskId(5)));
        std::fs::write(dir.path().join(FILE_NAME), text).unwrap();
        let identity = Identity::read(&data).unwrap().unwrap();
        assert_eq!((identity.generation, identity.lost, identity.disks.len()), (0, vec![], 1));
    }

    #[test]
    fn the_newer_of_data_directory_and_disks_counts() {
        let known = |disk: u128, path: &str| MissingDisk { disk: DiskId(disk), path: path.into() };
        let mut identity = Identity {
            cluster: 1,
            disks: BTreeMap::from([("/a".into(), DiskId(1)), ("/b".into(), DiskId(2))]),
            missing: vec![known(3, "/c")],
            lost: Vec::new(),
            generation: 4,
        };
        let before = identity.clone();
        let roster = |generation, disks: &[u128], lost: &[u128]| {
            let ids = |list: &[u128]| list.iter().copied().map(DiskId).collect();
            Roster { generation, disks: ids(disks), lost: ids(lost) }
        };
        identity.follow(&roster(4, &[9], &[]));
        assert_eq!(identity, before);
        assert_eq!(identity.roster(), roster(4, &[1, 2, 3], &[]));
        let newer = roster(5, &[1, 3, 7], &[2]);
        identity.follow(&newer);
        let members: Vec<_> = identity.known().collect();
        assert_eq!(members, [known(1, "/a"), known(3, "/c"), known(7, "")]);
        assert_eq!((&identity.lost[..], identity.roster()), (&[known(2, "/b")][..], newer));
    }
}
