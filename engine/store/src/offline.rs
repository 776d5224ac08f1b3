//! Looking at a disk that no node uses: what is there, and whether it is whole. Nothing is written, but where a log is given
//! up by order.

use std::collections::BTreeMap;

use anvil_model::format::{ExtentHeader, ExtentKind, Subject, Superblock, extent_offset};
use anvil_model::io::{Device, DeviceError, Reserve, World};
use anvil_model::profile::Profile;
use anvil_model::time::WallTime;

use crate::disk::{DiskIdentity, IdentifyError, Identity, Superblocks, identify, read_superblock};
use crate::index::Place;
use crate::scan::{Examined, ExtentPlace, Found, examine, rescue, restore_header};
use crate::scrub::BadRecord;
use crate::walk::{Walk, groups};

/// A disk to look at.
pub struct Inspection<'a, W: World> {
    world: &'a W,
    device: &'a W::Device,
    superblock: Superblock,
    identity: DiskIdentity,
}

/// Why a disk cannot be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// Blank, or somebody else's.
    #[error("it holds no Anvil disk")]
    NotOurs,
    /// It has become smaller than what was written to it.
    #[error("it has shrunk: {found_bytes} bytes are there, {needed_bytes} were in use")]
    Shrunk {
        /// What is there.
        found_bytes: u64,
        /// What must be there.
        needed_bytes: u64,
    },
    /// The superblock cannot be used.
    #[error(transparent)]
    Identify(#[from] IdentifyError),
}

/// What an extent is for the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExtentState {
    /// Never used, or given back.
    Free,
    /// Without a footer: it was being filled when the last life ended, or its footer was lost.
    Open,
    /// With its footer.
    Sealed,
}

/// What an extent holds, as far as header and footer tell; of an open one, as far as its records do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentReport {
    /// Which.
    pub extent: u32,
    /// Whether it is in use.
    pub state: ExtentState,
    /// Its place in the metadata log, if it belongs to that.
    pub log_sequence: Option<u64>,
    /// When it was put to use, by the clock on the wall.
    pub begun_at: Option<WallTime>,
    /// Its header was lost, and it was found by its records. A start restores it.
    pub header_lost: bool,
    /// Records, the damaged ones included.
    pub records: u64,
    /// Their bytes, headers and padding included.
    pub record_bytes: u64,
    /// Damaged when the footer was made, or now if there is none: torn by a crash and never acknowledged, or rotten.
    pub damaged: u64,
    /// The first and the last batch of the metadata log in it.
    pub log_numbers: Option<(u64, u64)>,
    /// Of the records those that are cells, by profile and shard.
    pub cells: BTreeMap<(Profile, u8), u64>,
}

/// An extent of which every record was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentVerdict {
    /// What it holds.
    pub report: ExtentReport,
    /// Records that are not whole, and were when the footer was made.
    pub bad: Vec<BadRecord>,
    /// Records that are not whole in an extent that was open, or were not when the footer was made: torn by a crash and
    /// never acknowledged, or rotten.
    pub doubtful: Vec<BadRecord>,
}

impl<'a, W: World> Inspection<'a, W> {
    /// Reads the superblock.
    ///
    /// # Errors
    /// When the device holds no disk that this program can read.
    pub async fn open(world: &'a W, device: &'a W::Device) -> Result<Self, InspectError> {
        let (Identity::Anvil(identity), Superblocks::Whole(superblock, _)) =
            (identify(world, device).await?, read_superblock(world, device).await?)
        else {
            return Err(InspectError::NotOurs);
        };
        let needed_bytes = extent_offset(superblock.extents_prepared, superblock.extent_bytes);
        let found_bytes = device.size_bytes();
        if found_bytes < needed_bytes {
            return Err(InspectError::Shrunk { found_bytes, needed_bytes });
        }
        Ok(Self { world, device, superblock, identity })
    }

    /// What the superblock says.
    #[must_use]
    pub fn identity(&self) -> &DiskIdentity {
        &self.identity
    }

    /// What an extent holds. Reads an open one whole.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Panics
    /// When the disk has no such extent.
    pub async fn extent(&self, extent: u32) -> Result<ExtentReport, DeviceError> {
        Ok(self.look(extent).await?.0)
    }

    /// Reads every record of an extent.
    ///
    /// # Errors
    /// When the device fails other than by a unit that cannot be read.
    ///
    /// # Panics
    /// When the disk has no such extent.
    pub async fn verify(&self, extent: u32) -> Result<ExtentVerdict, DeviceError> {
        let (report, found) = self.look(extent).await?;
        let mut verdict = ExtentVerdict { report, bad: Vec::new(), doubtful: Vec::new() };
        let Some(Found { header, mut entries, open, .. }) = found else {
            return Ok(verdict);
        };
        entries.sort_unstable_by_key(|entry| entry.offset);
        let walk = Walk::<W> { device: self.device, name: header.name, extent_bytes: self.superblock.extent_bytes };
        for group in groups(&entries) {
            let buffer = self.world.buffer(Reserve::Foreground).await;
            let (buffer, headers) = walk.read(&entries, &group, buffer).await?;
            drop(buffer);
            for (entry, _) in entries[group.entries.clone()].iter().zip(headers).filter(|(_, header)| header.is_none())
            {
                let disk = self.superblock.disk;
                let bad = BadRecord { disk, extent, offset: entry.offset, subject: entry.subject };
                let doubtful = open.is_some() || entry.damaged;
                if doubtful { verdict.doubtful.push(bad) } else { verdict.bad.push(bad) }
            }
        }
        Ok(verdict)
    }

    /// Gives back all extents of the metadata log, durably: what was in them is never found again. For a log that cannot be
    /// used any more and is in the way of another one. Gives how many there were.
    ///
    /// # Errors
    /// When the device fails. Some may be given back then.
    pub async fn give_up_log(&self) -> Result<u32, DeviceError> {
        let Superblock { disk, extent_bytes, extents_prepared, .. } = self.superblock;
        let mut given = 0;
        for extent in 0..extents_prepared {
            let (_, found) = self.look(extent).await?;
            let Some(header) = found.map(|found| found.header) else { continue };
            if let ExtentKind::Log { .. } = header.kind {
                let free =
                    ExtentHeader { name: header.name, kind: ExtentKind::Free, begun_at: self.world.wall_clock() };
                let place = ExtentPlace { disk, extent, extent_bytes };
                restore_header(self.world, self.device, place, &free).await?;
                given += 1;
            }
        }
        self.device.flush().await?;
        Ok(given)
    }

    async fn look(&self, extent: u32) -> Result<(ExtentReport, Option<Found>), DeviceError> {
        let Superblock { disk, extent_bytes, extents_prepared, .. } = self.superblock;
        assert!(extent < extents_prepared, "extent {extent} of {extents_prepared}");
        let place = ExtentPlace { disk, extent, extent_bytes };
        let (found, header_lost) = match examine(self.world, self.device, place).await? {
            Examined::Used(found) => (Some(found), false),
            Examined::Free | Examined::Unknown { blank: true } => (None, false),
            Examined::Unknown { blank: false } => (rescue(self.world, self.device, place).await?, true),
        };
        let mut report = ExtentReport {
            extent,
            state: ExtentState::Free,
            log_sequence: None,
            begun_at: None,
            header_lost: header_lost && found.is_some(),
            records: 0,
            record_bytes: 0,
            damaged: 0,
            log_numbers: None,
            cells: BTreeMap::new(),
        };
        if let Some(found) = &found {
            report.take(found);
        }
        Ok((report, found))
    }
}

impl ExtentReport {
    fn take(&mut self, found: &Found) {
        self.state = if found.open.is_some() { ExtentState::Open } else { ExtentState::Sealed };
        self.begun_at = Some(found.header.begun_at);
        if let ExtentKind::Log { sequence } = found.header.kind {
            self.log_sequence = Some(sequence);
        }
        for entry in &found.entries {
            self.records += 1;
            self.record_bytes += Place::of(0, self.extent, entry).record_bytes();
            self.damaged += u64::from(entry.damaged);
            match entry.subject {
                Subject::Blob { profile, shard, .. } => *self.cells.entry((profile, shard)).or_default() += 1,
                Subject::Log { number, .. } => {
                    let (first, last) = self.log_numbers.unwrap_or((number, number));
                    self.log_numbers = Some((first.min(number), last.max(number)));
                }
            }
        }
    }
}
