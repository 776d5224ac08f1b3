//! What a history will be like, drawn from its seed before it begins.

use std::ops::RangeInclusive;
use std::time::Duration;

use anvil_model::geometry;
use anvil_model::profile::Profile;
use anvil_node::metadata::batch::Limits;
use anvil_store::{EXTENTS_MIN, Rate, ScrubOptions};

use super::answers::Tolerance;
use super::fates::{Misfortune, Order};
use crate::disk::{DiskOptions, Faults};
use crate::life::SimOptions;
use crate::random::Random;

/// A history to be.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) sim: SimOptions,
    pub(super) disk: DiskOptions,
    pub(super) disks: usize,
    /// How blobs are spread, as the operator wants it.
    pub(super) profile: Profile,
    /// Those of the disks that something happens to, if to single ones: all through the history, so that what the others
    /// hold is all that can be relied on.
    pub(super) victims: Vec<usize>,
    pub(super) extent_bytes: u64,
    pub(super) limits: Limits,
    pub(super) keys: usize,
    /// Most objects are about as large as a window.
    pub(super) large: bool,
    pub(super) tolerance: Tolerance,
    pub(super) lives: Vec<LifePlan>,
}

/// One life of it.
#[derive(Clone, Debug)]
pub(super) struct LifePlan {
    pub(super) cores: u16,
    pub(super) clients: u32,
    /// Per client.
    pub(super) operations: u32,
    /// When it ends, if it has not ended by itself.
    pub(super) cut: Cut,
    pub(super) end: End,
    /// Everything is read before the clients come.
    pub(super) verify_first: bool,
    /// The stores are closed properly when all is done.
    pub(super) close: bool,
    pub(super) faults: Faults,
    /// Of a million batches of changes, so many meet a bad line.
    pub(super) lossy_share: u32,
    /// How the disks are kept; absent in a life that leaves that to the next one.
    pub(super) upkeep: Option<UpkeepPlan>,
    /// How all records are read and verified, if they are.
    pub(super) scrub: Option<ScrubOptions>,
    /// A bit of an object turns over when all is done: scrub must name it.
    pub(super) rot: bool,
    /// What becomes of single disks.
    pub(super) misfortunes: Vec<Misfortune>,
    /// The same once the victims have changed.
    misfortunes_after: Vec<Misfortune>,
    /// In this life others become victims, of these as many of the first as can be, once what the former ones held is made
    /// again.
    pub(super) turns: Option<Vec<usize>>,
    /// What administrators do.
    pub(super) orders: Vec<Order>,
    /// When all is done more disks are lost, as many as can be.
    pub(super) loses_more: bool,
    /// What the operator wants of encryption, in the histories that have a secret.
    pub(super) encryption: Option<EncryptionPlan>,
}

/// The operator has two secrets all through a history; which one wraps keys, and whether new blobs are encrypted, may change
/// between lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct EncryptionPlan {
    /// Of the two, 0 or 1.
    pub(super) wraps: u8,
    pub(super) encrypts: bool,
}

/// How the disks are kept in a life. All of it is much faster than in the world, as lives are much shorter.
#[derive(Clone, Copy, Debug)]
pub(super) struct UpkeepPlan {
    pub(super) reclaim_delay: Duration,
    pub(super) look_every: Duration,
    pub(super) sweep_every: Duration,
}

/// When a life is cut short.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    Never,
    /// At this step.
    AtStep(u64),
    /// So many steps after this flush of the start began, or after this one since clients came: where most is at stake.
    InFlush {
        serving: bool,
        flush: u64,
        steps: u64,
    },
    /// So many steps after the first record was moved, or the first extent given back, since clients came.
    InReclaim {
        steps: u64,
    },
}

/// How a life ends, also one that was done.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Kill,
    PowerCut,
}

/// What goes wrong beside crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accidents {
    None,
    LossyLine,
    DeviceErrors,
    Full,
    Damage,
    Rot,
    /// To as many disks as the profile bears losses.
    Loss,
    /// To more.
    Ruin,
}

/// The least extent, one that holds a window and little else, and larger ones.
const EXTENT_BYTES: [u64; 4] = [EXTENT_BYTES_MIN, EXTENT_BYTES_MIN, 3 << 20, 8 << 20];
const EXTENT_BYTES_MIN: u64 = (1 << 20) + (64 << 10);

/// One disk, and as many as every default profile wants.
const DISKS: [usize; 10] = [1, 1, 2, 2, 3, 3, 4, 4, 5, 6];

/// What an operator may choose instead of that.
const PROFILES: [Profile; 12] = [
    profile(1, 0),
    profile(1, 0),
    profile(2, 0),
    profile(1, 1),
    profile(1, 2),
    profile(2, 1),
    profile(1, 3),
    profile(2, 2),
    profile(3, 1),
    profile(2, 3),
    profile(3, 2),
    profile(3, 3),
];

const fn profile(data: u8, parity: u8) -> Profile {
    Profile { data, parity }
}

/// Batches that meet a bad line, of a million.
const LOSSY_SHARE: u32 = 250_000;

/// Of an operation of a disk, at most: a fast SSD, a busy one, a hard disk.
const LATENCY_NANOS: [u64; 3] = [20_000, 300_000, 5_000_000];

/// Fewer buffers than these, and an operation could wait for itself.
const BUFFERS_MIN: usize = 4;
const BUFFERS_RESERVED_MIN: usize = 2;

impl Plan {
    pub(super) fn draw(random: &mut Random) -> Self {
        let disks = *random.pick(&DISKS);
        let profile = Self::draw_profile(random, disks);
        let accidents = match random.below(100) {
            0..24 => Accidents::None,
            24..36 => Accidents::LossyLine,
            36..46 => Accidents::DeviceErrors,
            46..51 => Accidents::Full,
            51..54 => Accidents::Damage,
            54..56 => Accidents::Rot,
            56..94 if profile.parity > 0 => Accidents::Loss,
            56..90 => Accidents::None,
            _ => Accidents::Ruin,
        };
        let tight = random.one_in(3);
        let life_count = random.between(2, 4);
        let mut lives: Vec<LifePlan> = (0..life_count).map(|_| LifePlan::draw(random, accidents)).collect();
        // Two more without a crash: what was found stays found.
        for last in lives.iter_mut().rev().take(1) {
            last.cut = Cut::Never;
            last.operations /= 2;
            last.close = true;
        }
        lives.push(LifePlan::quiet(random));
        let rots = accidents == Accidents::Rot;
        let last = lives.len() - 1;
        // A stream aside: what else a seed draws is what it was before there was scrub.
        let mut aside = Random::new(!random.clone().next());
        for (number, life) in lives.iter_mut().enumerate() {
            life.rot = rots && number == last;
            life.scrub = (life.rot || aside.one_in(4)).then(|| draw_scrub(&mut aside));
        }
        let (bearable, bad_line) = (usize::from(profile.parity), accidents == Accidents::Loss && random.one_in(5));
        let victims = match accidents {
            Accidents::Loss => Self::draw_victims(random, disks, 1..=bearable),
            Accidents::Ruin => Self::draw_victims(random, disks, bearable + 1..=disks),
            _ => Vec::new(),
        };
        for life in &mut lives {
            if bad_line && life.clients > 0 {
                life.lossy_share = LOSSY_SHARE;
            }
            life.misfortunes = victims.iter().filter_map(|disk| Misfortune::draw(random, *disk)).collect();
        }
        if accidents == Accidents::Loss {
            Self::draw_turn(&mut aside, &mut lives, &victims, disks);
        }
        for life in &mut lives {
            life.loses_more = !life.rot && aside.one_in(2);
            if accidents == Accidents::Loss && aside.one_in(2) {
                let disk = aside.index(disks);
                life.orders.push(Order::draw(&mut aside, disk));
            }
        }
        // Rot is planted where plain bytes are found.
        if !rots && aside.one_in(2) {
            lives.iter_mut().for_each(|life| life.encryption = Some(EncryptionPlan::draw(&mut aside)));
        }
        let large = random.one_in(5);
        let extent_bytes = *random.pick(&EXTENT_BYTES);
        Self {
            sim: SimOptions {
                buffers: if tight { BUFFERS_MIN } else { 16 },
                buffers_reserved: if tight { BUFFERS_RESERVED_MIN } else { 6 },
                ..SimOptions::default()
            },
            disk: Self::draw_disk(random, accidents, extent_bytes),
            disks,
            profile,
            victims,
            extent_bytes,
            limits: Self::draw_limits(random, tight),
            keys: random.index(6) + 1,
            large,
            tolerance: Tolerance {
                reads_fail: matches!(accidents, Accidents::DeviceErrors | Accidents::Ruin),
                writes_fail: matches!(accidents, Accidents::DeviceErrors | Accidents::Loss | Accidents::Ruin),
                full: matches!(accidents, Accidents::Full | Accidents::Loss | Accidents::Ruin),
                damage: matches!(accidents, Accidents::Damage | Accidents::Ruin),
                closing: false,
            },
            lives,
        }
    }

    /// Mostly the one that a node chooses by itself.
    fn draw_profile(random: &mut Random, disks: usize) -> Profile {
        if random.one_in(3) {
            let fits = |profile: &&Profile| usize::from(profile.shards()) <= disks;
            let others: Vec<&Profile> = PROFILES.iter().filter(fits).collect();
            return **random.pick(&others);
        }
        geometry::default_profile(disks)
    }

    /// In some histories the victims change in the middle: they are away for a life, and others suffer from then on.
    fn draw_turn(random: &mut Random, lives: &mut [LifePlan], victims: &[usize], disks: usize) {
        if !random.one_in(2) {
            return;
        }
        let turns = random.between(1, lives.len() as u64 - 2) as usize;
        let mut candidates: Vec<usize> = (0..disks).collect();
        (1..disks).rev().for_each(|last| candidates.swap(last, random.index(last + 1)));
        for life in &mut lives[turns..] {
            life.misfortunes_after = candidates.iter().filter_map(|disk| Misfortune::draw(random, *disk)).collect();
        }
        let life = &mut lives[turns];
        life.misfortunes = victims.iter().map(|disk| Misfortune::missing(*disk)).collect();
        life.upkeep.get_or_insert_with(|| UpkeepPlan::draw(random));
        life.turns = Some(candidates);
    }

    /// Any of the disks, in the order of their numbers.
    fn draw_victims(random: &mut Random, disks: usize, count: RangeInclusive<usize>) -> Vec<usize> {
        let mut left: Vec<usize> = (0..disks).collect();
        let count = random.between(*count.start() as u64, *count.end() as u64);
        let mut victims: Vec<usize> = (0..count).map(|_| left.swap_remove(random.index(left.len()))).collect();
        victims.sort_unstable();
        victims
    }

    fn draw_disk(random: &mut Random, accidents: Accidents, extent_bytes: u64) -> DiskOptions {
        let extents = if accidents == Accidents::Full { EXTENTS_MIN + random.below(8) } else { 2000 };
        let capacity_bytes_max = (1 << 20) + extents * extent_bytes;
        // The operator may have allowed more than there is.
        let missing = if accidents == Accidents::Full && random.one_in(2) { random.below(3) } else { 0 };
        DiskOptions {
            unit_bytes: *random.pick(&[512, 4096]),
            capacity_bytes_max,
            space_bytes: capacity_bytes_max - missing * extent_bytes,
            volatile_cache: random.one_in(2),
            latency_nanos_max: *random.pick(&LATENCY_NANOS),
            flush_nanos_max: *random.pick(&LATENCY_NANOS),
            flush_lies: false,
        }
    }

    fn draw_limits(random: &mut Random, tight: bool) -> Limits {
        if tight {
            let mutations = random.index(3) + 1;
            Limits { queue: 2, mutations, bytes: 1, mutations_per_target: 1, queries: 1, look_ups_in_flight: 1 }
        } else {
            Limits::EMBEDDED
        }
    }
}

impl Cut {
    fn draw(random: &mut Random) -> Self {
        match random.below(10) {
            0 => Self::AtStep(random.between(1, 1 << 7)),
            1 | 2 => Self::AtStep(random.between(1, 1 << 12)),
            3 => Self::InReclaim { steps: random.below(300) },
            4 => Self::InFlush { serving: false, flush: random.between(1, 20), steps: random.below(8) },
            _ => Self::InFlush { serving: true, flush: random.between(1, 16), steps: random.below(8) },
        }
    }
}

impl UpkeepPlan {
    fn draw(random: &mut Random) -> Self {
        let mut millis = |from, to| Duration::from_millis(random.between(from, to));
        Self { reclaim_delay: millis(0, 40), look_every: millis(1, 20), sweep_every: millis(1, 60) }
    }
}

impl EncryptionPlan {
    fn draw(random: &mut Random) -> Self {
        Self { wraps: u8::from(random.one_in(2)), encrypts: !random.one_in(4) }
    }
}

fn draw_scrub(random: &mut Random) -> ScrubOptions {
    let bytes_per_second = random.between(16 << 20, 512 << 20);
    let rate = Rate { bytes_per_second, burst_bytes: 4 << 20 };
    ScrubOptions { rate, every: Duration::from_millis(random.between(100, 2000)) }
}

impl LifePlan {
    fn draw(random: &mut Random, accidents: Accidents) -> Self {
        Self {
            cores: *random.pick(&[1, 2, 2, 3, 4]),
            clients: u32::try_from(random.between(1, 6)).expect("few"),
            operations: u32::try_from(random.between(4, 24)).expect("few"),
            cut: Cut::draw(random),
            end: if random.one_in(3) { End::Kill } else { End::PowerCut },
            verify_first: random.one_in(2),
            close: random.one_in(2),
            faults: Self::draw_faults(random, accidents),
            lossy_share: if accidents == Accidents::LossyLine { LOSSY_SHARE } else { 0 },
            upkeep: (!random.one_in(4)).then(|| UpkeepPlan::draw(random)),
            scrub: None,
            rot: false,
            misfortunes: Vec::new(),
            misfortunes_after: Vec::new(),
            turns: None,
            orders: Vec::new(),
            loses_more: false,
            encryption: None,
        }
    }

    /// What the life is like once the victims have changed.
    pub(super) fn turn(&mut self) {
        self.turns = None;
        self.misfortunes = std::mem::take(&mut self.misfortunes_after);
    }

    fn quiet(random: &mut Random) -> Self {
        Self {
            clients: 0,
            cut: Cut::Never,
            faults: Faults::default(),
            lossy_share: 0,
            ..Self::draw(random, Accidents::None)
        }
    }

    fn draw_faults(random: &mut Random, accidents: Accidents) -> Faults {
        let mut share =
            |max: u64| if random.one_in(2) { u32::try_from(random.below(max)).expect("below a million") } else { 0 };
        match accidents {
            Accidents::DeviceErrors => Faults {
                read_error: share(30_000),
                write_error: share(40_000),
                write_no_space: share(10_000),
                flush_error: share(60_000),
                grow_error: share(300_000),
                ..Faults::default()
            },
            Accidents::Damage => Faults {
                misdirected_write: share(20_000),
                write_bit_flip: share(60_000),
                read_bit_flip: share(20_000),
                ..Faults::default()
            },
            _ => Faults::default(),
        }
    }
}
