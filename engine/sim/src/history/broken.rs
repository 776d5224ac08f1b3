//! Rules that are broken on purpose, outside of the code that keeps them: a history that does not fail then is blind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use anvil_model::format::{Extras, RecordHeader, Subject, UNIT_BYTES};
use anvil_model::ids::{CellId, DiskId};

use crate::disk::SimDisk;
use crate::index::IndexFile;

/// A rule without which a node loses what it acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenRule {
    /// What a flush has covered is durable. Broken: flushes do nothing.
    FlushedIsDurable,
    /// Parity is of the columns that it lies beside. Broken: each parity cell is that of columns further on, under good
    /// checksums.
    ParityOfItsColumns,
    /// What repair makes again is what was lost. Broken: only cells that are written to a second disk have wrong columns.
    MadeAgainAsItWas,
    /// A shard's place is changed only from the one that the change was decided on. Broken: the change is made to
    /// whatever place there is.
    MovesCompare,
}

/// By so much wrong columns are.
const SHIFT_BYTES: usize = 64;

impl BrokenRule {
    pub(super) fn break_it(self, disks: &[SimDisk], index: &IndexFile) {
        match self {
            Self::FlushedIsDurable => disks.iter().for_each(|disk| disk.set_flush_lies(true)),
            Self::MovesCompare => index.set_moves_blindly(true),
            Self::ParityOfItsColumns => tamper(disks, |header| match header.subject {
                Subject::Blob { profile, shard, .. } => profile.data > 1 && shard >= profile.data,
                Subject::Log { .. } => false,
            }),
            Self::MadeAgainAsItWas => {
                let first: RefCell<BTreeMap<CellId, DiskId>> = RefCell::default();
                tamper(disks, move |header| {
                    let Some(cell) = header.subject.cell().filter(|_| header.subject.profile().data > 1) else {
                        return false;
                    };
                    *first.borrow_mut().entry(cell).or_insert(header.name.disk) != header.name.disk
                });
            }
        }
    }
}

/// The payload of large records that are chosen is that of other columns, and their checksums say that it is right.
fn tamper(disks: &[SimDisk], chosen: impl Fn(&RecordHeader) -> bool + 'static) {
    let tamper = Rc::new(move |bytes: &mut [u8]| {
        let Some(Ok(header)) = bytes.get(..UNIT_BYTES).map(RecordHeader::decode) else { return };
        let start = header.payload_offset as usize;
        let payload = start..start + header.payload_bytes as usize;
        // A packed record has neighbours, and is a copy.
        if start != UNIT_BYTES || payload.end > bytes.len() || !chosen(&header) {
            return;
        }
        let encryption = header.encryption(&bytes[..UNIT_BYTES]);
        bytes[payload.clone()].rotate_left(SHIFT_BYTES.min(payload.len() - 1));
        let RecordHeader { name, offset, subject, payload_offset, window_bytes, .. } = header;
        let header = RecordHeader::new(name, offset, subject, payload_offset, &bytes[payload]);
        let extras = Extras { origin: None, encryption: encryption.as_ref() };
        header.of_window(window_bytes as usize).encode(extras, &mut bytes[..start]);
    });
    disks.iter().for_each(|disk| disk.set_tamper(tamper.clone()));
}
