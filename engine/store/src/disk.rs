//! A disk before the store runs on it: whose is it, and how a blank one becomes ours.

use anvil_model::format::{
    Damage, EXTENT_BYTES_MAX, EXTENT_BYTES_MIN, EXTENTS_OFFSET, FEATURES_INCOMPATIBLE, FEATURES_READ_ONLY,
    FORMAT_VERSION, KeyRing, Roster, SUPERBLOCK_OFFSETS, ScrubMark, Superblock, UNIT_BYTES,
};
use anvil_model::ids::DiskId;
use anvil_model::io::{Device, DeviceError, Reserve, World};
use anvil_model::limits::RECORD_BYTES_MAX;

/// The fewest extents that a disk may have room for: one of each lane, the reserve, and some to work with.
pub const EXTENTS_MIN: u64 = 8;

const EXTENT_BYTES_NORMAL: u64 = 64 << 20;
/// Below this the extents of a disk are smaller, and still so many that those which are kept free are a small part of it.
const CAPACITY_BYTES_NORMAL: u64 = 128 * EXTENT_BYTES_NORMAL;
/// Full records in an extent, below which its header and footer are a large part of it.
const WINDOWS_WANTED: u64 = 4;
/// What an extent holds beside full records: its header, and the footer of some hundred records.
const EXTENT_BYTES_EXTRA: u64 = 16 << 10;
/// The same where it has room for one full record, and should have some for small ones.
const EXTENT_BYTES_EXTRA_TINY: u64 = 64 << 10;

/// What the first bytes of a device say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Nothing but zeros where an owner would have left a mark, or a format that was cut short before its end.
    Blank,
    /// A disk of ours.
    Anvil(DiskIdentity),
    /// Somebody else's bytes.
    Foreign,
}

/// What a superblock says of its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskIdentity {
    /// Drawn when the disk was formatted.
    pub disk: DiskId,
    /// The cluster (or embedded node) that it was formatted for.
    pub cluster: u128,
    /// Size of every extent.
    pub extent_bytes: u64,
    /// Version of the format.
    pub format_version: u32,
    /// Extents that are allocated and zeroed.
    pub extents_prepared: u32,
    /// True when the last life ended with a clean close.
    pub clean: bool,
    /// The last start that it was there for.
    pub start: u64,
    /// The disks that it belonged to then.
    pub roster: Roster,
}

/// Why a disk was not identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentifyError {
    /// Ours once, but neither copy of the superblock is whole.
    #[error("both copies of the superblock are damaged")]
    Damaged,
    /// Written by a newer program.
    #[error("the disk has format version {found}, this program reads up to {newest}")]
    NewerFormat {
        /// On the disk.
        found: u32,
        /// Understood here.
        newest: u32,
    },
    /// Uses features that this program does not have.
    #[error("the disk uses features {0:#x} that this program does not have")]
    UnknownFeatures(u64),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// How a disk is to be formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatOptions {
    /// Its id, drawn at random by the caller.
    pub disk: DiskId,
    /// Whose it is: the cluster, or the embedded node.
    pub cluster: u128,
    /// Size of every extent; see [`extent_bytes`].
    pub extent_bytes: u64,
}

/// Why a disk was not formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The device holds something; only a blank one is formatted.
    #[error("the device is not blank")]
    NotBlank,
    /// The device may not grow to hold [`EXTENTS_MIN`] extents.
    #[error("the disk has room for {capacity_bytes} bytes, and {needed_bytes} are needed at least")]
    TooSmall {
        /// What the device may grow to.
        capacity_bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Reads whose disk this is. Writes nothing, but makes durable what it tells of: a node remembers its disks, and one that was
/// just being formatted when its process was killed must not be blank again after a power cut.
///
/// # Errors
/// When the disk is ours but damaged, newer, or cannot be read or flushed.
pub async fn identify<W: World>(world: &W, device: &W::Device) -> Result<Identity, IdentifyError> {
    let (superblock, roster) = match read_superblock(world, device).await? {
        Superblocks::Whole(superblock, roster) => (superblock, roster),
        Superblocks::Blank => return Ok(Identity::Blank),
        Superblocks::Foreign => return Ok(Identity::Foreign),
        Superblocks::Damaged => return Err(IdentifyError::Damaged),
    };
    device.flush().await?;
    Ok(Identity::Anvil(DiskIdentity {
        disk: superblock.disk,
        cluster: superblock.cluster,
        extent_bytes: superblock.extent_bytes.into(),
        format_version: superblock.format_version,
        extents_prepared: superblock.extents_prepared,
        clean: superblock.clean,
        start: superblock.start,
        roster,
    }))
}

/// Writes down on a disk, durably, which disks it belongs to. For a disk that no store has open; the others are told by
/// [`Store::enroll`](crate::Store::enroll).
///
/// # Errors
/// When the device holds no disk that this program can read, or fails.
pub async fn enroll<W: World>(world: &W, device: &W::Device, roster: &Roster) -> Result<(), IdentifyError> {
    let Superblocks::Whole(superblock, before) = read_superblock(world, device).await? else {
        return Err(IdentifyError::Damaged);
    };
    if before == *roster {
        return Ok(());
    }
    let superblock = Superblock { generation: superblock.generation + 1, ..superblock };
    Ok(write_superblock(world, device, &superblock, roster, async || device.flush().await).await?)
}

/// Makes a blank device ours. Allocates only the room of the superblocks; extents come when a store opens the disk.
///
/// # Errors
/// When the device is not blank, too small, or fails.
///
/// # Panics
/// When the extent size is not one that [`extent_bytes`] may return.
pub async fn format<W: World>(world: &W, device: &W::Device, options: FormatOptions) -> Result<(), FormatError> {
    let extent_bytes = u32::try_from(options.extent_bytes).expect("an extent is at most 1 GiB");
    assert!((EXTENT_BYTES_MIN..=EXTENT_BYTES_MAX).contains(&extent_bytes), "an extent of {extent_bytes} bytes");
    assert!((extent_bytes as usize).is_multiple_of(UNIT_BYTES), "an extent of {extent_bytes} bytes is not in units");
    let capacity_bytes = device.geometry().capacity_bytes_max;
    let needed_bytes = EXTENTS_OFFSET + EXTENTS_MIN * options.extent_bytes;
    if capacity_bytes < needed_bytes {
        return Err(FormatError::TooSmall { capacity_bytes, needed_bytes });
    }
    match read_superblock(world, device).await {
        Ok(Superblocks::Blank) => {}
        Err(IdentifyError::Device(error)) => return Err(error.into()),
        Ok(_) | Err(_) => return Err(FormatError::NotBlank),
    }
    if device.size_bytes() < EXTENTS_OFFSET {
        device.grow(EXTENTS_OFFSET).await?;
    }
    let superblock = Superblock {
        format_version: FORMAT_VERSION,
        features_compatible: 0,
        features_read_only: 0,
        features_incompatible: 0,
        generation: 1,
        disk: options.disk,
        cluster: options.cluster,
        extent_bytes,
        extents_prepared: 0,
        clean: true,
        formatted_at: world.wall_clock(),
        scrub: ScrubMark::default(),
        start: 0,
        start_id: 0,
        keys: KeyRing::default(),
    };
    Ok(write_superblock(world, device, &superblock, &Roster::default(), async || device.flush().await).await?)
}

/// The extent size that suits a disk of this capacity: 64 MiB; on disks below 8 GiB about a 128th of the disk, on those below
/// 512 MiB up to a 64th, but room for one full record at least.
#[must_use]
pub fn extent_bytes(capacity_bytes: u64) -> u64 {
    if capacity_bytes >= CAPACITY_BYTES_NORMAL {
        return EXTENT_BYTES_NORMAL;
    }
    let windows_of = |share: u64| capacity_bytes / share / RECORD_BYTES_MAX as u64;
    let windows = windows_of(128).max(windows_of(64).clamp(1, WINDOWS_WANTED));
    let extra = if windows == 1 { EXTENT_BYTES_EXTRA_TINY } else { EXTENT_BYTES_EXTRA };
    windows * RECORD_BYTES_MAX as u64 + extra
}

/// What lies where the superblocks should.
#[expect(clippy::large_enum_variant, reason = "one at a time, and seldom")]
pub(crate) enum Superblocks {
    /// The newer of those that are whole, of a format and with features that this program has; and the newer roster.
    Whole(Superblock, Roster),
    Blank,
    Foreign,
    /// Ours, but none is whole.
    Damaged,
}

pub(crate) async fn read_superblock<W: World>(world: &W, device: &W::Device) -> Result<Superblocks, IdentifyError> {
    let size = device.size_bytes();
    if size == 0 {
        return Ok(Superblocks::Blank);
    }
    let mut newest: Option<Superblock> = None;
    let mut roster = Roster::default();
    let mut begun = false;
    for offset in SUPERBLOCK_OFFSETS {
        if offset + UNIT_BYTES as u64 > size {
            continue;
        }
        let buffer = world.buffer(Reserve::Progress).await;
        let (read, buffer) = device.read(offset, buffer, 0..UNIT_BYTES).await;
        let found = read.map(|()| Superblock::decode(&buffer[..UNIT_BYTES]));
        if let Ok(Ok(_)) = found
            && let Ok(found) = Roster::decode(&buffer[..UNIT_BYTES])
            && found.generation > roster.generation
        {
            roster = found;
        }
        match found {
            Ok(Ok(found)) if newest.is_none_or(|newest| newest.generation < found.generation) => newest = Some(found),
            Ok(Ok(_) | Err(Damage::Absent)) => {}
            Ok(Err(Damage::Checksum | Damage::Impossible)) => begun = true,
            // The other copy may be readable.
            Err(DeviceError::Io(_)) => begun = true,
            Err(error) => return Err(error.into()),
        }
    }
    match newest {
        Some(superblock) => judge(superblock).map(|superblock| Superblocks::Whole(superblock, roster)),
        None => judge_without_superblock(world, device, begun).await,
    }
}

/// Writes both copies, one durable before the other is begun, so that one is whole at every moment. A change is in both
/// when this returns: the loss of either copy does not bring back what was before. `flush` flushes the device.
pub(crate) async fn write_superblock<W: World>(
    world: &W,
    device: &W::Device,
    superblock: &Superblock,
    roster: &Roster,
    flush: impl AsyncFn() -> Result<(), DeviceError>,
) -> Result<(), DeviceError> {
    // The first one last: a format that was cut short leaves its place blank.
    for offset in SUPERBLOCK_OFFSETS.into_iter().rev() {
        let mut buffer = world.buffer(Reserve::Progress).await;
        superblock.encode(&mut buffer[..UNIT_BYTES]);
        roster.encode(&mut buffer[..UNIT_BYTES]);
        let (written, buffer) = device.write(offset, buffer, 0..UNIT_BYTES).await;
        drop(buffer);
        written?;
        flush().await?;
    }
    Ok(())
}

fn judge(superblock: Superblock) -> Result<Superblock, IdentifyError> {
    if superblock.format_version > FORMAT_VERSION {
        return Err(IdentifyError::NewerFormat { found: superblock.format_version, newest: FORMAT_VERSION });
    }
    // A store always writes, so that it needs what is needed to write.
    let unknown =
        superblock.features_incompatible & !FEATURES_INCOMPATIBLE | superblock.features_read_only & !FEATURES_READ_ONLY;
    if unknown != 0 { Err(IdentifyError::UnknownFeatures(unknown)) } else { Ok(superblock) }
}

/// Neither copy is whole: is the device blank, ours but damaged (`begun`), or another's? Owners leave marks at the
/// beginning (file systems, partition tables, LVM) and at the end (GPT, md).
async fn judge_without_superblock<W: World>(
    world: &W,
    device: &W::Device,
    begun: bool,
) -> Result<Superblocks, IdentifyError> {
    let size = device.size_bytes();
    let length = size.min(EXTENTS_OFFSET);
    for offset in [0, size - length] {
        let length = usize::try_from(length).expect("at most a buffer");
        let buffer = world.buffer(Reserve::Progress).await;
        let (read, mut buffer) = device.read(offset, buffer, 0..length).await;
        read?;
        if offset == 0 && begun {
            // A format writes the second copy first: with nothing else there, it was cut short in that write.
            let second = usize::try_from(SUPERBLOCK_OFFSETS[1]).expect("within the first MiB");
            if let Some(unit) = buffer[..length].get_mut(second..second + UNIT_BYTES)
                && Superblock::begins(unit)
            {
                unit.fill(0);
            }
        }
        if buffer[..length].iter().any(|&byte| byte != 0) {
            return Ok(if begun { Superblocks::Damaged } else { Superblocks::Foreign });
        }
    }
    Ok(Superblocks::Blank)
}
