//! A disk that outlives processes: what is on it, what would be left of it, and when it errs.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::iter;
use std::ops::Range;
use std::rc::Rc;

use anvil_model::io::{DeviceError, Geometry};

use crate::counters::counters;
use crate::device::SimDevice;
use crate::image::Image;
use crate::random::Random;
use crate::world::{SimBuffer, SimWorld};

/// What a power cut leaves whole or not at all: the sector that every drive writes atomically.
pub(crate) const ATOM_BYTES: usize = 512;

/// How a disk is made.
#[derive(Clone, Copy, Debug)]
pub struct DiskOptions {
    /// See [`Geometry::unit_bytes`].
    pub unit_bytes: u32,
    /// See [`Geometry::capacity_bytes_max`].
    pub capacity_bytes_max: u64,
    /// Room that there really is; growing beyond it fails with [`DeviceError::NoSpace`]. May be less than the
    /// capacity, when others use the same file system.
    pub space_bytes: u64,
    /// See [`Geometry::volatile_cache`]. Only said: writes need a flush either way.
    pub volatile_cache: bool,
    /// A read or write takes up to so many nanoseconds, and now and then 20 times as many.
    pub latency_nanos_max: u64,
    /// The same for a flush, and a quarter of what growing takes.
    pub flush_nanos_max: u64,
    /// Flushes complete and make nothing durable. No code survives this: it is for proving that tests notice.
    pub flush_lies: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            unit_bytes: 4096,
            capacity_bytes_max: 1 << 40,
            space_bytes: 1 << 40,
            volatile_cache: true,
            latency_nanos_max: 300_000,
            flush_nanos_max: 300_000,
            flush_lies: false,
        }
    }
}

/// How often a disk errs, per million operations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A read fails with EIO.
    pub read_error: u32,
    /// A write fails with EIO after any part of it was written.
    pub write_error: u32,
    /// A write fails for lack of room, as on a file system that copies on write.
    pub write_no_space: u32,
    /// A flush fails with EIO after a part of what it covers became durable.
    pub flush_error: u32,
    /// Growing fails with EIO.
    pub grow_error: u32,
    /// A write says that it succeeded and went to another place.
    pub misdirected_write: u32,
    /// A write says that it succeeded and one bit of it is wrong.
    pub write_bit_flip: u32,
    /// A read returns one wrong bit; the next one is right.
    pub read_bit_flip: u32,
    /// Not a share: every operation takes so many times as long. 0 is 1.
    pub slow_times: u32,
}

/// What a device is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read bytes.
    Read,
    /// Write bytes.
    Write,
    /// Make writes durable.
    Flush,
    /// Make the disk larger.
    Grow,
}

/// What a disk was asked and did, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Reads that were completed, well or not.
    pub reads: u64,
    /// Writes that were begun.
    pub writes_begun: u64,
    /// Writes that were completed, well or not.
    pub writes: u64,
    /// Flushes that were begun.
    pub flushes_begun: u64,
    /// Flushes that were completed, well or not.
    pub flushes: u64,
    /// Bytes of all completed writes.
    pub written_bytes: u64,
    /// What went wrong with it.
    pub injected: Injected,
}

counters! {
    /// What went wrong with a disk, or with all disks of many histories.
    pub struct Injected {
        /// Operations that failed with EIO, or because there was no disk.
        pub errors: u64,
        /// Operations that failed for lack of room.
        pub no_space: u64,
        /// Bits that were wrong: at rest, written, or read.
        pub bit_flips: u64,
        /// Writes that went to another place.
        pub misdirected: u64,
        /// Writes that no flush covered and that a crash dropped.
        pub lost_writes: u64,
        /// Of such writes, those of which a part was left.
        pub torn_writes: u64,
    }
}

/// The durable bytes of a disk at one moment.
#[derive(Clone, Default)]
pub struct Saved {
    size: u64,
    image: Image,
}

/// A disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    pub(crate) state: Rc<RefCell<DiskState>>,
}

pub(crate) struct DiskState {
    pub(crate) options: DiskOptions,
    pub(crate) faults: Faults,
    pub(crate) scripted: VecDeque<(Operation, DeviceError)>,
    pub(crate) gone: bool,
    tamper: Option<Tamper>,
    pub(crate) random: Random,
    pub(crate) counts: DiskCounts,
    pub(crate) size: u64,
    /// What reads see.
    live: Image,
    /// What a power cut leaves at least.
    durable: Image,
    /// Completed and not yet covered by a flush, oldest first.
    unflushed: VecDeque<Landed>,
    landed_next: u64,
    pub(crate) writing: BTreeMap<u64, Writing>,
    pub(crate) growing: BTreeMap<u64, u64>,
    operation_next: u64,
}

struct Landed {
    number: u64,
    offset: u64,
    bytes: Vec<u8>,
    /// A flush that covered it failed: no other flush of this process covers it.
    forsaken: bool,
}

impl Landed {
    fn overlaps(&self, other: &Self) -> bool {
        let end = |landed: &Self| landed.offset + landed.bytes.len() as u64;
        self.offset < end(other) && other.offset < end(self)
    }
}

/// What somebody does to the bytes of a write on their way to the medium.
pub type Tamper = Rc<dyn Fn(&mut [u8])>;

/// A write that the device still owns.
pub(crate) struct Writing {
    pub(crate) offset: u64,
    pub(crate) buffer: SimBuffer,
    pub(crate) range: Range<usize>,
}

impl SimDisk {
    pub(crate) fn new(options: DiskOptions, random: Random) -> Self {
        let unit = options.unit_bytes;
        assert!(unit.is_power_of_two() && (512..=4096).contains(&unit), "{unit} is no unit of a disk");
        let state = DiskState {
            options,
            faults: Faults::default(),
            scripted: VecDeque::new(),
            gone: false,
            tamper: None,
            random,
            counts: DiskCounts::default(),
            size: 0,
            live: Image::default(),
            durable: Image::default(),
            unflushed: VecDeque::new(),
            landed_next: 0,
            writing: BTreeMap::new(),
            growing: BTreeMap::new(),
            operation_next: 0,
        };
        Self { state: Rc::new(RefCell::new(state)) }
    }

    /// Opens the disk on a core of the process that runs.
    #[must_use]
    pub fn open(&self, world: &SimWorld) -> SimDevice {
        SimDevice { disk: self.clone(), executor: Rc::clone(&world.kernel.executor) }
    }

    /// From now on the disk errs so often.
    pub fn set_faults(&self, faults: Faults) {
        self.state.borrow_mut().faults = faults;
    }

    /// The next operation of this kind that completes fails like this. Repeated calls queue up.
    pub fn fail_next(&self, operation: Operation, error: DeviceError) {
        self.state.borrow_mut().scripted.push_back((operation, error));
    }

    /// From now on every operation fails with [`DeviceError::Gone`], or none any more.
    pub fn set_gone(&self, gone: bool) {
        self.state.borrow_mut().gone = gone;
    }

    /// From now on there is so much room; see [`DiskOptions::space_bytes`].
    pub fn set_space_bytes(&self, space_bytes: u64) {
        self.state.borrow_mut().options.space_bytes = space_bytes;
    }

    /// From now on flushes lie, or not; see [`DiskOptions::flush_lies`].
    pub fn set_flush_lies(&self, flush_lies: bool) {
        self.state.borrow_mut().options.flush_lies = flush_lies;
    }

    /// From now on the bytes of every write pass through here before they land: for proving that tests notice.
    pub fn set_tamper(&self, tamper: Tamper) {
        self.state.borrow_mut().tamper = Some(tamper);
    }

    /// What the disk did so far.
    #[must_use]
    pub fn counts(&self) -> DiskCounts {
        self.state.borrow().counts
    }

    /// Bytes that may be addressed.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.state.borrow().size
    }

    /// The bytes as a reader would see them now.
    #[must_use]
    pub fn bytes(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.state.borrow().live.read(offset, &mut bytes);
        bytes
    }

    /// Where these bytes lie now, ascending, but for places that overlap.
    #[must_use]
    pub fn find(&self, needle: &[u8]) -> Vec<u64> {
        let mut places = Vec::new();
        for run in self.state.borrow().live.written() {
            let bytes =
                self.bytes(run.start, usize::try_from(run.end - run.start).expect("a disk of a history is small"));
            places.extend(memchr::memmem::find_iter(&bytes, needle).map(|at| run.start + at as u64));
        }
        places
    }

    /// Puts bytes on the disk from outside, durable at once, growing it as needed.
    pub fn overwrite(&self, offset: u64, bytes: &[u8]) {
        let mut state = self.state.borrow_mut();
        state.live.write(offset, bytes);
        state.durable.write(offset, bytes);
        let unit = u64::from(state.options.unit_bytes);
        state.size = state.size.max((offset + bytes.len() as u64).next_multiple_of(unit));
    }

    /// Turns one bit of the medium over. `bit` is 0 to 7.
    pub fn flip_bit(&self, offset: u64, bit: u8) {
        let mut state = self.state.borrow_mut();
        state.live.flip(offset, bit);
        state.durable.flip(offset, bit);
    }

    /// Turns over so many bits of the medium, each somewhere in what was written.
    pub fn rot(&self, bits: u32) {
        let mut state = self.state.borrow_mut();
        for _ in 0..bits {
            let DiskState { random, durable, .. } = &mut *state;
            let Some(offset) = durable.somewhere(random) else { return };
            let bit = u8::try_from(random.below(8)).expect("a bit of a byte");
            state.live.flip(offset, bit);
            state.durable.flip(offset, bit);
            state.counts.injected.bit_flips += 1;
        }
    }

    /// What is durable now.
    #[must_use]
    pub fn save(&self) -> Saved {
        let state = self.state.borrow();
        Saved { size: state.size, image: state.durable.clone() }
    }

    /// Puts the bytes of another moment onto the disk, as whoever restores an old image does; [`Saved::default`] makes it
    /// blank.
    ///
    /// # Panics
    /// When a process uses the disk.
    pub fn restore(&self, saved: &Saved) {
        let mut state = self.state.borrow_mut();
        assert!(state.writing.is_empty() && state.growing.is_empty(), "a disk is exchanged between two lives");
        state.unflushed.clear();
        state.size = saved.size;
        state.durable = saved.image.clone();
        state.live = saved.image.clone();
    }

    /// Another disk with the durable bytes of this one.
    pub(crate) fn copy(&self, random: Random) -> Self {
        let state = self.state.borrow();
        let copy = Self::new(state.options, random);
        {
            let mut other = copy.state.borrow_mut();
            other.size = state.size;
            other.durable = state.durable.clone();
            other.live = state.durable.clone();
        }
        copy
    }

    /// Makes the disk what a process leaves that ends without a word.
    pub(crate) fn kill(&self) {
        let dropped = self.state.borrow_mut().settle_in_flight();
        // Outside of the borrow: a buffer that returns may be given to the next who waits.
        drop(dropped);
    }

    /// Makes the disk what a power cut leaves of it.
    pub(crate) fn power_cut(&self) {
        let mut state = self.state.borrow_mut();
        let dropped = state.settle_in_flight();
        while let Some(Landed { offset, bytes, .. }) = state.unflushed.pop_front() {
            for part in state.fate_of(bytes.len()) {
                state.durable.write(offset + part.start as u64, &bytes[part]);
            }
        }
        state.live = state.durable.clone();
        drop(state);
        drop(dropped);
    }
}

impl DiskState {
    pub(crate) fn geometry(&self) -> Geometry {
        Geometry {
            unit_bytes: self.options.unit_bytes,
            capacity_bytes_max: self.options.capacity_bytes_max,
            volatile_cache: self.options.volatile_cache,
        }
    }

    pub(crate) fn operation(&mut self) -> u64 {
        self.operation_next += 1;
        self.operation_next
    }

    pub(crate) fn latency_nanos(&mut self, operation: Operation) -> u64 {
        let max = match operation {
            Operation::Read | Operation::Write => self.options.latency_nanos_max.max(1),
            Operation::Flush => self.options.flush_nanos_max.max(1),
            Operation::Grow => self.options.flush_nanos_max.max(1) * 4,
        };
        let slow = if self.random.one_in(100) { 20 } else { 1 };
        1 + self.random.below(max * slow) * u64::from(self.faults.slow_times.max(1))
    }

    /// The error that a test asked for, or that chance brings.
    pub(crate) fn error(&mut self, operation: Operation) -> Option<DeviceError> {
        let error = self.draw_error(operation);
        match error {
            Some(DeviceError::NoSpace) => self.counts.injected.no_space += 1,
            Some(_) => self.counts.injected.errors += 1,
            None => {}
        }
        error
    }

    fn draw_error(&mut self, operation: Operation) -> Option<DeviceError> {
        const EIO: DeviceError = DeviceError::Io(5);
        if self.gone {
            return Some(DeviceError::Gone);
        }
        if self.scripted.front().is_some_and(|(scripted, _)| *scripted == operation) {
            return self.scripted.pop_front().map(|(_, error)| error);
        }
        let share = match operation {
            Operation::Read => self.faults.read_error,
            Operation::Write => self.faults.write_error,
            Operation::Flush => self.faults.flush_error,
            Operation::Grow => self.faults.grow_error,
        };
        if self.random.per_million(share) {
            return Some(EIO);
        }
        let no_space = operation == Operation::Write && self.random.per_million(self.faults.write_no_space);
        no_space.then_some(DeviceError::NoSpace)
    }

    /// What a read of these bytes returns: of a write in flight, any sectors.
    pub(crate) fn read(&mut self, offset: u64, bytes: &mut [u8]) {
        self.live.read(offset, bytes);
        let end = offset + bytes.len() as u64;
        for writing in self.writing.values() {
            for part in (0..writing.range.len()).step_by(ATOM_BYTES) {
                let at = writing.offset + part as u64;
                if at >= offset && at < end && self.random.one_in(2) {
                    let start = usize::try_from(at - offset).expect("within the bytes");
                    let from = writing.range.start + part;
                    bytes[start..start + ATOM_BYTES].copy_from_slice(&writing.buffer[from..from + ATOM_BYTES]);
                }
            }
        }
        if !bytes.is_empty() && self.random.per_million(self.faults.read_bit_flip) {
            self.flip_one_bit(bytes);
        }
    }

    /// A write that the device says is done.
    pub(crate) fn land_whole(&mut self, writing: &Writing) {
        let mut bytes = self.bytes_of(writing);
        let mut offset = writing.offset;
        if self.random.per_million(self.faults.write_bit_flip) {
            self.flip_one_bit(&mut bytes);
        }
        if self.random.per_million(self.faults.misdirected_write) {
            let unit = u64::from(self.options.unit_bytes);
            let places = (self.size - bytes.len() as u64) / unit + 1;
            offset = self.random.below(places) * unit;
            self.counts.injected.misdirected += 1;
        }
        self.land(offset, bytes);
    }

    /// A write of which nobody knows how much happened.
    pub(crate) fn land_some(&mut self, writing: &Writing) {
        let bytes = self.bytes_of(writing);
        for part in self.fate_of(bytes.len()) {
            let offset = writing.offset + part.start as u64;
            self.land(offset, bytes[part].to_vec());
        }
    }

    fn bytes_of(&self, writing: &Writing) -> Vec<u8> {
        let mut bytes = writing.buffer[writing.range.clone()].to_vec();
        if let Some(tamper) = &self.tamper {
            tamper(&mut bytes);
        }
        bytes
    }

    fn land(&mut self, offset: u64, bytes: Vec<u8>) {
        self.live.write(offset, &bytes);
        self.unflushed.push_back(Landed { number: self.landed_next, offset, bytes, forsaken: false });
        self.landed_next += 1;
    }

    fn flip_one_bit(&mut self, bytes: &mut [u8]) {
        let position = self.random.index(bytes.len());
        bytes[position] ^= 1 << self.random.below(8);
        self.counts.injected.bit_flips += 1;
    }

    /// What a flush that begins now will cover.
    pub(crate) fn flush_bound(&self) -> u64 {
        self.landed_next
    }

    /// Makes the writes below `bound` durable. A flush that fails may have done so with the oldest of them, and forsakes
    /// the others.
    pub(crate) fn flush(&mut self, bound: u64, failed: bool) {
        if self.options.flush_lies {
            return;
        }
        let covered = self.unflushed.partition_point(|landed| landed.number < bound);
        let count = if failed { self.random.index(covered + 1) } else { covered };
        self.unflushed.iter_mut().take(covered).skip(count).for_each(|landed| landed.forsaken = true);
        let now: Vec<Landed> = self.unflushed.drain(..count).collect();
        let mut forsaken = Vec::new();
        for landed in now {
            if landed.forsaken {
                forsaken.push(landed);
                continue;
            }
            self.durable.write(landed.offset, &landed.bytes);
            // What is older than this must not come back over it.
            forsaken.retain(|older: &Landed| !older.overlaps(&landed));
        }
        forsaken.into_iter().rev().for_each(|landed| self.unflushed.push_front(landed));
    }

    /// Decides what became of operations whose process is gone.
    fn settle_in_flight(&mut self) -> BTreeMap<u64, Writing> {
        let writing = std::mem::take(&mut self.writing);
        for write in writing.values() {
            self.land_some(write);
        }
        self.unflushed.iter_mut().for_each(|landed| landed.forsaken = false);
        for (_, size) in std::mem::take(&mut self.growing) {
            let unit = u64::from(self.options.unit_bytes);
            let most = size.min(self.options.space_bytes / unit * unit);
            if most > self.size {
                self.size = match self.random.below(3) {
                    0 => self.size,
                    1 => most,
                    _ => self.size + self.random.below((most - self.size) / unit + 1) * unit,
                };
            }
        }
        writing
    }

    /// The parts of a write of so many bytes that reached the medium: all, none, or any sectors.
    fn fate_of(&mut self, length: usize) -> Vec<Range<usize>> {
        let atoms = length / ATOM_BYTES;
        let cut = self.random.index(atoms + 1) * ATOM_BYTES;
        let fate = self.random.below(6);
        self.counts.injected.lost_writes += u64::from((2..4).contains(&fate));
        self.counts.injected.torn_writes += u64::from(fate >= 4);
        match fate {
            0 | 1 => iter::once(0..length).collect(),
            2 | 3 => Vec::new(),
            4 if self.random.one_in(2) => iter::once(0..cut).collect(),
            4 => iter::once(cut..length).collect(),
            _ => self.any_atoms(atoms),
        }
    }

    fn any_atoms(&mut self, atoms: usize) -> Vec<Range<usize>> {
        let mut parts: Vec<Range<usize>> = Vec::new();
        for start in (0..atoms).map(|atom| atom * ATOM_BYTES) {
            if self.random.one_in(2) {
                continue;
            }
            match parts.last_mut() {
                Some(last) if last.end == start => last.end = start + ATOM_BYTES,
                _ => parts.push(start..start + ATOM_BYTES),
            }
        }
        parts
    }
}
