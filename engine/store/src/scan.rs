//! What one extent holds, read from the disk: its header, its footer, or all of it.

use anvil_model::format::{
    ExtentHeader, ExtentKind, ExtentName, FOOTER_ENTRY_BYTES, FooterEntry, FooterTrailer, RECORD_MAGIC, RecordHeader,
    Subject, UNIT_BYTES, checksum, extent_offset, footer_bytes, in_units,
};
use anvil_model::ids::DiskId;
use anvil_model::io::{Device, DeviceError, Reserve, World};
use anvil_model::limits::RECORD_BYTES_MAX;

/// Records begin at multiples of this.
const STEP: usize = 8;
/// An unused unit, to be skipped at the speed of memory.
const ZEROS: [u8; UNIT_BYTES] = [0; UNIT_BYTES];

/// An extent's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExtentPlace {
    pub(crate) disk: DiskId,
    pub(crate) extent: u32,
    pub(crate) extent_bytes: u32,
}

/// An extent, as far as its header tells.
pub(crate) enum Examined {
    Used(Found),
    /// It was given back.
    Free,
    /// No header of this extent. When `blank`, not the first record's place either shows any trace of use.
    Unknown {
        blank: bool,
    },
}

/// An extent that holds records.
pub(crate) struct Found {
    pub(crate) header: ExtentHeader,
    /// By their offsets.
    pub(crate) entries: Vec<FooterEntry>,
    /// Absent when the extent has a footer.
    pub(crate) open: Option<Tail>,
    /// Its footer says that appends may go on here, once it is overwritten.
    pub(crate) resumes_at: Option<u32>,
}

impl Found {
    /// Appends may go on in it, in this life or in the next one.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some() || self.resumes_at.is_some()
    }
}

/// Where an extent without a footer ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Behind the last record, in units.
    pub(crate) records_end: u32,
    /// Behind the last byte that is not zero, in units.
    pub(crate) zeros_start: u32,
    /// A unit could not be read: another time it may be, and who knows what is in it.
    pub(crate) unreadable: bool,
}

/// Looks at the header, then takes the footer or else scans.
pub(crate) async fn examine<W: World>(
    world: &W,
    device: &W::Device,
    place: ExtentPlace,
) -> Result<Examined, DeviceError> {
    let extent = Extent { world, device, place };
    let (buffer, whole) = extent.read(0, 2 * UNIT_BYTES).await?;
    let decoded = ExtentHeader::decode(&buffer[..UNIT_BYTES]).ok().filter(|header| place.is_of(header.name));
    let blank = whole && buffer[..UNIT_BYTES] == ZEROS && buffer[UNIT_BYTES..2 * UNIT_BYTES] == ZEROS;
    drop(buffer);
    let Some(header) = decoded else {
        return Ok(Examined::Unknown { blank });
    };
    if header.kind == ExtentKind::Free {
        return Ok(Examined::Free);
    }
    if let Some(footer) = extent.footer().await?
        && (footer.header.name, footer.header.kind) == (header.name, header.kind)
    {
        return Ok(Examined::Used(Found { header, ..footer }));
    }
    let scan = extent.scan(Some(header.name.incarnation)).await?;
    Ok(Examined::Used(scan.found(header)))
}

/// Looks for what an extent without a whole header holds: its footer says it all, and each record says enough.
pub(crate) async fn rescue<W: World>(
    world: &W,
    device: &W::Device,
    place: ExtentPlace,
) -> Result<Option<Found>, DeviceError> {
    let extent = Extent { world, device, place };
    if let Some(found) = extent.footer().await? {
        return Ok(Some(found));
    }
    if let Some(header) = extent.header_at_the_end().await? {
        // The extent was used before, and holds records of former lives as well.
        let scan = extent.scan(Some(header.name.incarnation)).await?;
        return Ok((!scan.entries.is_empty()).then(|| scan.found(header)));
    }
    let scan = extent.scan(None).await?;
    let Some(incarnation) = scan.incarnation else {
        return Ok(None);
    };
    let first = scan.entries.first().expect("an incarnation comes from a record");
    let kind = match first.subject {
        Subject::Blob { .. } => ExtentKind::Data,
        Subject::Log { sequence, .. } => ExtentKind::Log { sequence },
    };
    let name = ExtentName { disk: place.disk, extent: place.extent, incarnation };
    Ok(Some(scan.found(ExtentHeader { name, kind, begun_at: world.wall_clock() })))
}

/// Writes a header anew that was lost or damaged, as it was.
pub(crate) async fn restore_header<W: World>(
    world: &W,
    device: &W::Device,
    place: ExtentPlace,
    header: &ExtentHeader,
) -> Result<(), DeviceError> {
    let mut buffer = world.buffer(Reserve::Progress).await;
    header.encode(&mut buffer[..UNIT_BYTES]);
    let (written, buffer) = device.write(place.offset(), buffer, 0..UNIT_BYTES).await;
    drop(buffer);
    written
}

impl ExtentPlace {
    fn offset(&self) -> u64 {
        extent_offset(self.extent, self.extent_bytes)
    }

    fn is_of(&self, name: ExtentName) -> bool {
        (name.disk, name.extent) == (self.disk, self.extent)
    }
}

struct Extent<'a, W: World> {
    world: &'a W,
    device: &'a W::Device,
    place: ExtentPlace,
}

/// What a scan saw.
#[derive(Default)]
struct Scan {
    /// Given, or that of the first record.
    incarnation: Option<u64>,
    entries: Vec<FooterEntry>,
    records_end: usize,
    used_end: usize,
    /// There are bytes that are neither zero nor of a whole record.
    unexplained: bool,
    unreadable: bool,
}

/// How a chunk was left.
enum Next {
    /// Go on at this offset of the extent.
    At(usize),
    /// A record lies across the chunk's end: read again from the unit that it begins in.
    Again(usize),
}

impl<W: World> Extent<'_, W> {
    /// What the footer says, when it is whole, of this extent and not out of date.
    async fn footer(&self) -> Result<Option<Found>, DeviceError> {
        let extent_bytes = self.place.extent_bytes as usize;
        let (buffer, _) = self.read(extent_bytes - UNIT_BYTES, UNIT_BYTES).await?;
        let trailer = FooterTrailer::decode(&buffer[..UNIT_BYTES]);
        drop(buffer);
        let Ok(trailer) = trailer else {
            return Ok(None);
        };
        let count = trailer.entry_count as usize;
        // Compared before anything is sized by it.
        let fits = count <= extent_bytes / FOOTER_ENTRY_BYTES && footer_bytes(count) <= extent_bytes - UNIT_BYTES;
        if !fits || !self.place.is_of(trailer.header.name) {
            return Ok(None);
        }
        let mut covered = vec![0; trailer.covered_bytes()];
        let start = extent_bytes - footer_bytes(count);
        for (index, chunk) in covered.chunks_mut(RECORD_BYTES_MAX).enumerate() {
            let (buffer, _) = self.read(start + index * RECORD_BYTES_MAX, in_units(chunk.len())).await?;
            chunk.copy_from_slice(&buffer[..chunk.len()]);
        }
        if checksum(&covered) != trailer.entries_checksum {
            return Ok(None);
        }
        let entries: Result<Vec<_>, _> =
            covered.chunks_exact(FOOTER_ENTRY_BYTES).take(count).map(FooterEntry::decode).collect();
        let inside = |entry: &FooterEntry| {
            let end = u64::from(entry.offset) + u64::from(entry.payload_offset) + u64::from(entry.payload_bytes);
            end <= start as u64
        };
        let Some(entries) = entries.ok().filter(|entries| entries.iter().all(inside)) else {
            return Ok(None);
        };
        let FooterTrailer { header, tail, .. } = trailer;
        let behind_all =
            |tail: u32| entries.iter().all(|entry| entry.offset + entry.payload_offset + entry.payload_bytes <= tail);
        let resumes_at = Some(tail).filter(|&tail| tail > 0 && (tail as usize) < start && behind_all(tail));
        match resumes_at {
            Some(tail) if self.holds_record(header.name.incarnation, tail as usize).await? => Ok(None),
            _ => Ok(Some(Found { header, entries, open: None, resumes_at })),
        }
    }

    /// A record of this life begins there. Where a footer says that appends may go on, that cannot be: it is overwritten
    /// before they do, and that write was lost.
    async fn holds_record(&self, incarnation: u64, offset: usize) -> Result<bool, DeviceError> {
        let (buffer, _) = self.read(offset, UNIT_BYTES).await?;
        let scan = Scan { incarnation: Some(incarnation), ..Scan::default() };
        Ok(scan.record_at(&self.place, &buffer[..UNIT_BYTES], offset).is_some())
    }

    /// The copy of its header that an extent keeps in its last unit, from its second life on and where a footer was
    /// overwritten, until the footer is there.
    async fn header_at_the_end(&self) -> Result<Option<ExtentHeader>, DeviceError> {
        let (buffer, _) = self.read(self.place.extent_bytes as usize - UNIT_BYTES, UNIT_BYTES).await?;
        let decoded = ExtentHeader::decode(&buffer[..UNIT_BYTES]).ok();
        Ok(decoded.filter(|header| self.place.is_of(header.name) && header.kind != ExtentKind::Free))
    }

    /// Reads everything behind the header. What could not be explained is read once more: it may have been damaged on
    /// the way.
    async fn scan(&self, incarnation: Option<u64>) -> Result<Scan, DeviceError> {
        let first = self.scan_once(incarnation).await?;
        if !first.unexplained {
            return Ok(first);
        }
        let second = self.scan_once(incarnation).await?;
        Ok(if second.whole_records() >= first.whole_records() { second } else { first })
    }

    async fn scan_once(&self, incarnation: Option<u64>) -> Result<Scan, DeviceError> {
        // The copy of the header is no trace of a record: the last unit is never for one.
        let copy = self.header_at_the_end().await?;
        let has_copy = copy.is_some_and(|header| Some(header.name.incarnation) == incarnation);
        let end = self.place.extent_bytes as usize - if has_copy { UNIT_BYTES } else { 0 };
        let mut scan = Scan { incarnation, records_end: UNIT_BYTES, used_end: UNIT_BYTES, ..Scan::default() };
        let mut at = UNIT_BYTES;
        while at < end {
            let start = at - at % UNIT_BYTES;
            let length = RECORD_BYTES_MAX.min(end - start);
            let (buffer, whole) = self.read(start, length).await?;
            scan.unexplained |= !whole;
            scan.unreadable |= !whole;
            let last = start + length == end;
            at = match scan.take(&self.place, &buffer[..length], start, at - start, last) {
                Next::At(next) => next,
                Next::Again(next) => {
                    assert!(next - next % UNIT_BYTES > start, "each read begins behind the one before");
                    next
                }
            };
        }
        Ok(scan)
    }

    /// Reads a part of the extent. A unit that cannot be read comes as 0xff, which is part of no record and not free;
    /// false is returned beside it.
    async fn read(&self, start: usize, length: usize) -> Result<(W::Buffer, bool), DeviceError> {
        let at = self.place.offset() + start as u64;
        let buffer = self.world.buffer(Reserve::Progress).await;
        let (read, mut buffer) = self.device.read(at, buffer, 0..length).await;
        match read {
            Ok(()) => return Ok((buffer, true)),
            Err(DeviceError::Io(_)) => {}
            Err(error) => return Err(error),
        }
        let mut whole = true;
        for unit in (0..length).step_by(UNIT_BYTES) {
            let range = unit..unit + UNIT_BYTES;
            let (read, filled) = self.device.read(at + unit as u64, buffer, range.clone()).await;
            buffer = filled;
            match read {
                Ok(()) => {}
                Err(DeviceError::Io(_)) => {
                    buffer[range].fill(0xff);
                    whole = false;
                }
                Err(error) => return Err(error),
            }
        }
        Ok((buffer, whole))
    }
}

impl Scan {
    /// Finds the records of a chunk that was read from offset `start` of the extent, from `from` on in the chunk. Goes on
    /// behind holes: only a flush makes records durable, and several writes are in flight before it, so that a later
    /// one may be whole where an earlier one is torn.
    fn take(&mut self, place: &ExtentPlace, chunk: &[u8], start: usize, from: usize, last: bool) -> Next {
        let mut at = from;
        while at < chunk.len() {
            if at.is_multiple_of(UNIT_BYTES) && chunk[at..at + UNIT_BYTES] == ZEROS {
                at += UNIT_BYTES;
                continue;
            }
            let word = &chunk[at..at + STEP];
            if word == [0; STEP] {
                at += STEP;
                continue;
            }
            let crosses = |end: usize| end > chunk.len() && !last && at >= UNIT_BYTES;
            if word.starts_with(&RECORD_MAGIC) {
                if crosses(at + UNIT_BYTES) {
                    return Next::Again(start + at);
                }
                if let Some(header) = self.record_at(place, &chunk[at..], start + at) {
                    let payload = at + header.payload_offset as usize;
                    let end = payload + header.payload_bytes as usize;
                    if crosses(end) {
                        return Next::Again(start + at);
                    }
                    if let Some(payload) = chunk.get(payload..end) {
                        self.incarnation = Some(header.name.incarnation);
                        let damaged = !header.verifies_all(payload);
                        self.entries.push(FooterEntry { damaged, ..FooterEntry::of(&header) });
                        self.unexplained |= damaged;
                        at += header.record_bytes();
                        self.records_end = start + at;
                        self.used_end = start + at;
                        continue;
                    }
                }
            }
            self.unexplained = true;
            at += STEP;
            self.used_end = start + at;
        }
        Next::At(start + at)
    }

    fn whole_records(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.damaged).count()
    }

    /// The header of a record of this life of this extent that belongs at `offset`.
    fn record_at(&self, place: &ExtentPlace, bytes: &[u8], offset: usize) -> Option<RecordHeader> {
        let header = RecordHeader::decode(bytes).ok()?;
        let mine = place.is_of(header.name)
            && self.incarnation.is_none_or(|incarnation| incarnation == header.name.incarnation)
            && header.offset as usize == offset;
        mine.then_some(header)
    }

    fn found(self, header: ExtentHeader) -> Found {
        let units = |end: usize| u32::try_from(in_units(end)).expect("an extent is at most 1 GiB");
        let tail = Tail {
            records_end: units(self.records_end),
            zeros_start: units(self.used_end),
            unreadable: self.unreadable,
        };
        Found { header, entries: self.entries, open: Some(tail), resumes_at: None }
    }
}
