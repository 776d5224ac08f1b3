//! Who this node is, kept in its data directory: the cluster it belongs to and the disks it has formatted.
//!
//! Nothing here is secret, and nothing that the disks could not tell; it is what lets a node notice that a disk is
//! missing, blank where it was not, or another cluster's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anvil_model::ids::{DiskId, NodeId};
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
        Ok(kept.map(|Kept { cluster, disks, missing, .. }| {
            let missing = missing.into_iter().map(|(disk, path)| MissingDisk { disk, path }).collect();
            Self { cluster, disks, missing }
        }))
    }

    /// Keeps it, durably, instead of what was there.
    ///
    /// # Errors
    /// When it cannot be written; then the old one is still there.
    pub fn write(&self, data: &DataDir) -> Result<(), DataDirError> {
        let missing = self.missing.iter().map(|away| (away.disk, away.path.clone())).collect();
        let disks = self.disks.clone();
        data.write(FILE_NAME, &Kept { version: FILE_VERSION, cluster: self.cluster, disks, missing })
    }

    /// All disks that belong to this node, with the paths at which they were seen last.
    pub fn known(&self) -> impl Iterator<Item = MissingDisk> {
        let here = self.disks.iter().map(|(path, &disk)| MissingDisk { disk, path: path.clone() });
        here.chain(self.missing.iter().cloned())
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
        let identity = Identity { cluster: u128::MAX - 42, disks, missing };
        identity.write(&data).unwrap();
        assert_eq!(Identity::read(&data).unwrap(), Some(identity));
    }
}
