//! What blobs say they were, sorted: by key the objects, by upload the parts. Decides; reads nothing.

use std::collections::BTreeMap;

use anvil_model::geometry;
use anvil_model::ids::{BlobId, Incarnation, NodeId, TenantId, UploadId};
use anvil_model::limits::PART_NUMBER_MAX;
use anvil_model::object::{BucketName, Key};
use anvil_model::profile::Profile;
use anvil_model::time::WallTime;
use anvil_store::{Origin, OriginPayload, ReadError};

/// Lives of a node, at most. Each is opened again.
const LIVES_MAX: u32 = 1 << 20;

/// What a blob was called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Whose.
    pub tenant: TenantId,
    /// In which bucket.
    pub bucket: BucketName,
    /// Under which key.
    pub key: Key,
}

/// Why a blob becomes no row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// No record of it that can be read says where it comes from: its first window is lost, or all shards of it were made
    /// again by a program that did not know.
    #[error("it does not say what it was")]
    NoOrigin,
    /// Written by a program that did not say whether it is an object or a part, and how long it is.
    #[error("it does not say whether it was an object or a part of one")]
    Unsaid,
    /// It names a bucket, key, number or length that cannot be.
    #[error("what it says it was cannot be")]
    Impossible,
    /// Another node wrote it.
    #[error("another node wrote it")]
    Foreign,
    /// Bytes of it are missing or damaged beyond what its other shards can make up for; or it was never written to its end.
    #[error("it cannot be read to its end: {0}")]
    NotWhole(#[from] ReadError),
}

/// Whether a blob was an object or a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Which {
    Object,
    Part { upload: UploadId, number: u16 },
}

/// A blob that may be what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) blob: BlobId,
    pub(super) profile: Profile,
    pub(super) length: u64,
    pub(super) at: WallTime,
}

/// All blobs that say what they were. About 200 bytes and the key for each.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    wanted: BTreeMap<(Name, Which), Vec<Candidate>>,
    /// The latest life that wrote any blob, also of those that are left out; none when there is no blob.
    pub(super) newest: Option<Incarnation>,
}

impl Candidate {
    /// As the blob has it.
    pub(super) fn origin(&self, name: &Name, which: Which) -> Origin {
        let length = self.length;
        let payload = match which {
            Which::Object => OriginPayload::Object { length },
            Which::Part { upload, number } => OriginPayload::Part { length, upload, number },
        };
        let (bucket, key) = (name.bucket.as_str().to_owned(), name.key.as_str().to_owned());
        Origin { tenant: name.tenant, bucket, key, at: self.at, payload }
    }
}

impl Inventory {
    /// Enters a blob of `node`, or says why not.
    pub(super) fn enter(
        &mut self,
        node: NodeId,
        blob: BlobId,
        profile: Profile,
        origin: Option<&Origin>,
    ) -> Result<(), LeftOut> {
        if blob.node != node {
            return Err(LeftOut::Foreign);
        }
        if !(1..=LIVES_MAX).contains(&blob.incarnation.0) {
            return Err(LeftOut::Impossible);
        }
        self.newest = self.newest.max(Some(blob.incarnation));
        let origin = origin.ok_or(LeftOut::NoOrigin)?;
        let (which, length) = match origin.payload {
            OriginPayload::Unsaid => return Err(LeftOut::Unsaid),
            OriginPayload::Object { length } => (Which::Object, length),
            OriginPayload::Part { length, upload, number } => (Which::Part { upload, number }, length),
        };
        let possible_number = match which {
            Which::Object => true,
            Which::Part { number, .. } => (1..=PART_NUMBER_MAX).contains(&number),
        };
        let windows_max = u64::from(geometry::WINDOWS_MAX);
        let possible_length = (1..=geometry::window_bytes(profile) as u64 * windows_max).contains(&length);
        let bucket = BucketName::new(&origin.bucket).map_err(|_| LeftOut::Impossible)?;
        let key = Key::new(origin.key.clone().into_bytes()).map_err(|_| LeftOut::Impossible)?;
        if !possible_number || !possible_length {
            return Err(LeftOut::Impossible);
        }
        let name = Name { tenant: origin.tenant, bucket, key };
        let candidates = self.wanted.entry((name, which)).or_default();
        let candidate = Candidate { blob, profile, length, at: origin.at };
        // The newest in front, by its own clock; of one moment the one with the later id.
        let place = candidates.partition_point(|other| (other.at, other.blob) > (candidate.at, blob));
        candidates.insert(place, candidate);
        Ok(())
    }

    /// How many blobs and bytes there are to read when the newest of each can be.
    pub(super) fn to_read(&self) -> (u64, u64) {
        let newest = self.wanted.values().filter_map(|candidates| candidates.first());
        newest.fold((0, 0), |(blobs, bytes), candidate| (blobs + 1, bytes + candidate.length))
    }

    /// What may come back, with the blobs that it may be, the newest in front.
    pub(super) fn into_wanted(self) -> impl Iterator<Item = (Name, Which, Vec<Candidate>)> {
        self.wanted.into_iter().map(|((name, which), candidates)| (name, which, candidates))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    fn blob(incarnation: u32, sequence: u64) -> BlobId {
        BlobId { node: NODE, incarnation: Incarnation(incarnation), sequence }
    }

    fn origin(key: &str, at: u64, payload: OriginPayload) -> Origin {
        let (bucket, key) = ("bucket".to_owned(), key.to_owned());
        Origin { tenant: TenantId(1), bucket, key, at: WallTime { unix_ms: at }, payload }
    }

    fn enter(inventory: &mut Inventory, blob: BlobId, origin: &Origin) -> Result<(), LeftOut> {
        inventory.enter(NODE, blob, Profile::SINGLE, Some(origin))
    }

    #[test]
    fn the_newest_blob_of_a_key_comes_first_and_parts_are_no_objects() {
        let mut inventory = Inventory::default();
        let object = OriginPayload::Object { length: 10 };
        let part = |number| OriginPayload::Part { length: 7, upload: UploadId(5), number };
        for (blob, origin) in [
            (blob(1, 1), origin("a", 100, object)),
            (blob(2, 1), origin("a", 300, object)),
            (blob(1, 9), origin("a", 200, object)),
            (blob(1, 8), origin("a", 300, object)),
            (blob(3, 1), origin("a", 400, part(2))),
            (blob(3, 2), origin("a", 500, part(1))),
        ] {
            enter(&mut inventory, blob, &origin).unwrap();
        }
        assert_eq!(inventory.to_read(), (3, 24));
        assert_eq!(inventory.newest, Some(Incarnation(3)));
        let found: Vec<_> = inventory
            .into_wanted()
            .map(|(_, which, candidates)| (which, candidates.iter().map(|one| one.blob).collect::<Vec<_>>()))
            .collect();
        let part = |number| Which::Part { upload: UploadId(5), number };
        assert_eq!(
            found,
            [
                (Which::Object, vec![blob(2, 1), blob(1, 8), blob(1, 9), blob(1, 1)]),
                (part(1), vec![blob(3, 2)]),
                (part(2), vec![blob(3, 1)]),
            ]
        );
    }

    #[test]
    fn what_cannot_be_told_is_left_out_and_its_life_is_not_used_again() {
        let mut inventory = Inventory::default();
        let object = OriginPayload::Object { length: 10 };
        let of = |change: &dyn Fn(&mut Origin)| {
            let mut origin = origin("a", 1, object);
            change(&mut origin);
            origin
        };
        let unsaid = of(&|origin| origin.payload = OriginPayload::Unsaid);
        assert_eq!(enter(&mut inventory, blob(7, 1), &unsaid), Err(LeftOut::Unsaid));
        for wrong in [
            of(&|origin| origin.bucket = "Not a bucket".to_owned()),
            of(&|origin| origin.key = String::new()),
            of(&|origin| origin.payload = OriginPayload::Object { length: 0 }),
            of(&|origin| origin.payload = OriginPayload::Object { length: u64::MAX }),
            of(&|origin| origin.payload = OriginPayload::Part { length: 1, upload: UploadId(1), number: 0 }),
        ] {
            assert_eq!(enter(&mut inventory, blob(8, 1), &wrong), Err(LeftOut::Impossible), "{wrong:?}");
        }
        assert_eq!(inventory.enter(NODE, blob(9, 1), Profile::SINGLE, None), Err(LeftOut::NoOrigin));
        assert_eq!(enter(&mut inventory, blob(u32::MAX, 1), &of(&|_| {})), Err(LeftOut::Impossible));
        let foreign = BlobId { node: NodeId(2), ..blob(1, 1) };
        assert_eq!(enter(&mut inventory, foreign, &of(&|_| {})), Err(LeftOut::Foreign));
        assert_eq!((inventory.newest, inventory.to_read()), (Some(Incarnation(9)), (0, 0)));
    }
}
