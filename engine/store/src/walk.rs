//! The records of one extent, read a buffer at a time and verified: for reclaim and scrub.

use std::ops::Range;

use anvil_model::format::{ExtentName, FooterEntry, RecordHeader, UNIT_BYTES, extent_offset, in_units};
use anvil_model::io::{Device, DeviceError, World};
use anvil_model::limits::RECORD_BYTES_MAX;

/// Bytes between two records that are read along rather than reading twice.
const GAP_BYTES_MAX: usize = 128 << 10;

/// An extent, and the device that it is on.
pub(crate) struct Walk<'a, W: World> {
    pub(crate) device: &'a W::Device,
    pub(crate) name: ExtentName,
    pub(crate) extent_bytes: u32,
}

/// Records that are read at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Which of the entries that were given.
    pub(crate) entries: Range<usize>,
    /// Where the bytes begin in the extent, in whole units.
    pub(crate) start: usize,
    /// How many there are, in whole units; at most a buffer.
    pub(crate) length: usize,
}

/// Divides records, in the order of their offsets, into groups.
pub(crate) fn groups(entries: &[FooterEntry]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let start = entry.offset as usize;
        let start_unit = start - start % UNIT_BYTES;
        let end = in_units(end_of(entry));
        if let Some(group) = groups.last_mut()
            && start <= group.start + group.length + GAP_BYTES_MAX
            && end <= group.start + RECORD_BYTES_MAX
        {
            group.entries.end = index + 1;
            group.length = group.length.max(end - group.start);
        } else {
            groups.push(Group { entries: index..index + 1, start: start_unit, length: end - start_unit });
        }
    }
    groups
}

fn end_of(entry: &FooterEntry) -> usize {
    entry.offset as usize + entry.payload_offset as usize + entry.payload_bytes as usize
}

impl<W: World> Walk<'_, W> {
    /// Reads a group into the beginning of `buffer` and says of each of its records whether it is whole: its header, or
    /// nothing. What seems damaged is read once more, in case it was damaged on the way.
    pub(crate) async fn read(
        &self,
        entries: &[FooterEntry],
        group: &Group,
        buffer: W::Buffer,
    ) -> Result<(W::Buffer, Vec<Option<RecordHeader>>), DeviceError> {
        let at = extent_offset(self.name.extent, self.extent_bytes);
        let (read, mut buffer) = self.device.read(at + group.start as u64, buffer, 0..group.length).await;
        let readable = match read {
            Ok(()) => true,
            Err(DeviceError::Io(_)) => false,
            Err(error) => return Err(error),
        };
        let mut headers = Vec::with_capacity(group.entries.len());
        for entry in &entries[group.entries.clone()] {
            let mut header = if readable { self.verify(entry, &buffer, group) } else { None };
            if header.is_none() {
                let start = entry.offset as usize - group.start;
                let units = start - start % UNIT_BYTES..in_units(end_of(entry) - group.start);
                let from = at + (group.start + units.start) as u64;
                let (read, filled) = self.device.read(from, buffer, units).await;
                buffer = filled;
                header = match read {
                    Ok(()) => self.verify(entry, &buffer, group),
                    Err(DeviceError::Io(_)) => None,
                    Err(error) => return Err(error),
                };
            }
            headers.push(header);
        }
        Ok((buffer, headers))
    }

    fn verify(&self, entry: &FooterEntry, bytes: &[u8], group: &Group) -> Option<RecordHeader> {
        let start = entry.offset as usize - group.start;
        let end = end_of(entry) - group.start;
        let header = RecordHeader::decode(&bytes[start..end]).ok()?;
        let mine = (header.name, header.offset, header.subject) == (self.name, entry.offset, entry.subject)
            && (header.payload_offset, header.payload_bytes) == (entry.payload_offset, entry.payload_bytes)
            && header.verifies_all(&bytes[start + entry.payload_offset as usize..end]);
        mine.then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use anvil_model::format::Subject;
    use anvil_model::ids::{BlobId, Incarnation, NodeId};
    use anvil_model::profile::Profile;

    use super::*;

    fn entry(offset: usize, bytes: usize) -> FooterEntry {
        let blob = BlobId { node: NodeId(1), incarnation: Incarnation(1), sequence: offset as u64 };
        FooterEntry {
            subject: Subject::Blob { blob, profile: Profile::SINGLE, shard: 0, window: 0 },
            offset: u32::try_from(offset).unwrap(),
            payload_offset: 96,
            payload_bytes: u32::try_from(bytes - 96).unwrap(),
            damaged: false,
        }
    }

    #[test]
    fn every_record_is_read_once_and_no_group_is_more_than_a_buffer() {
        let mut at = UNIT_BYTES;
        let mut entries = Vec::new();
        for index in 0..200_usize {
            let bytes = 200 + index * 7919 % 60_000;
            entries.push(entry(at, bytes));
            at = (at + bytes).next_multiple_of(8) + if index % 50 == 0 { 1 << 20 } else { 0 };
        }
        let groups = groups(&entries);
        let mut next = 0;
        for group in &groups {
            assert_eq!(group.entries.start, next);
            next = group.entries.end;
            assert!(group.start.is_multiple_of(UNIT_BYTES) && group.length.is_multiple_of(UNIT_BYTES));
            assert!(group.length <= RECORD_BYTES_MAX);
            for entry in &entries[group.entries.clone()] {
                assert!(entry.offset as usize >= group.start && end_of(entry) <= group.start + group.length);
            }
        }
        assert_eq!(next, entries.len());
        assert!(groups.len() < 20, "{} reads for {at} bytes", groups.len());
    }
}
