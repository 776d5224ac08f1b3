//! A window of a blob in one pool buffer: a slot per shard, each with room for a record's header and the cell behind it.
//!
//! Payload is received into the cells of the data shards, parity is computed into those behind them, and the buffer is split
//! into slots, which go to as many disks. A read mirrors it. So no byte is copied, and a stripe has all that it needs
//! when it has one buffer.

use std::ops::Range;

use anvil_erasure::{Code, DATA_MAX, Kernel, PARITY_MAX};
use anvil_model::geometry;
use anvil_model::io::Buffer;
use anvil_model::limits::{BUFFER_ALIGNMENT, RECORD_HEADER_BYTES_MAX};
use anvil_model::profile::Profile;

/// How the cells of a window lie in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stripe {
    profile: Profile,
    window_length: usize,
}

impl Stripe {
    /// Of a window of so many bytes of a blob.
    pub(crate) fn new(profile: Profile, window_length: usize) -> Self {
        Self { profile, window_length }
    }

    /// Bytes of the blob.
    pub(crate) fn window_length(self) -> usize {
        self.window_length
    }

    /// How the blob is spread.
    pub(crate) fn profile(self) -> Profile {
        self.profile
    }

    /// Bytes of each cell.
    pub(crate) fn cell_bytes(self) -> usize {
        geometry::cell_bytes(self.profile, self.window_length)
    }

    /// Which bytes of the window a data cell holds.
    pub(crate) fn held(self, shard: u8) -> Range<usize> {
        geometry::cell_range(self.profile, self.window_length, shard)
    }

    /// Where bytes of the window lie in the buffer, in order, one range per cell.
    pub(crate) fn spans(self, window: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        (0..self.profile.data).filter_map(move |shard| {
            let held = self.held(shard);
            let (start, end) = (window.start.max(held.start), window.end.min(held.end));
            let cell = self.cell_at(shard);
            (start < end).then(|| cell + start - held.start..cell + end - held.start)
        })
    }

    /// Puts `bytes` where the first bytes of the window lie.
    pub(crate) fn scatter(self, bytes: &[u8], buffer: &mut [u8]) {
        let mut rest = bytes;
        for span in self.spans(0..bytes.len()) {
            let (here, behind) = rest.split_at(span.len());
            buffer[span].copy_from_slice(here);
            rest = behind;
        }
    }

    /// The first `count` bytes of the window.
    pub(crate) fn gather(self, count: usize, buffer: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count);
        self.spans(0..count).for_each(|span| bytes.extend_from_slice(&buffer[span]));
        bytes
    }

    /// Fills up the data cells with zeros.
    pub(crate) fn pad(self, buffer: &mut [u8]) {
        for shard in 0..self.profile.data {
            let (at, held) = (self.cell_at(shard), self.held(shard).len());
            buffer[at + held..at + self.cell_bytes()].fill(0);
        }
    }

    /// The data cells, in their order.
    pub(crate) fn data_cells(self, buffer: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
        let cell = RECORD_HEADER_BYTES_MAX..RECORD_HEADER_BYTES_MAX + self.cell_bytes();
        let slots = buffer.chunks_exact_mut(self.slot_bytes()).take(self.profile.data.into());
        slots.map(move |slot| &mut slot[cell.clone()])
    }

    /// Computes the parity cells of data cells that are padded.
    pub(crate) fn encode(self, kernel: Kernel, buffer: &mut [u8]) {
        let Profile { data, parity } = self.profile;
        let cell_bytes = self.cell_bytes();
        if parity == 0 {
            return;
        }
        let cell = RECORD_HEADER_BYTES_MAX..RECORD_HEADER_BYTES_MAX + cell_bytes;
        let (data_slots, parity_slots) = buffer.split_at_mut(usize::from(data) * self.slot_bytes());
        let mut data_cells: [&[u8]; DATA_MAX] = [&[]; DATA_MAX];
        for (slot, into) in data_slots.chunks_exact(self.slot_bytes()).zip(&mut data_cells) {
            *into = &slot[cell.clone()];
        }
        let mut parity_cells: [&mut [u8]; PARITY_MAX] = Default::default();
        for (slot, into) in parity_slots.chunks_exact_mut(self.slot_bytes()).zip(&mut parity_cells) {
            *into = &mut slot[cell.clone()];
        }
        let code = Code::new(data, parity, kernel);
        code.encode(&data_cells[..data.into()], &mut parity_cells[..parity.into()]);
    }

    /// A view per shard, in their order.
    pub(crate) fn split<B: Buffer>(self, mut buffer: B) -> Vec<B> {
        let shards = usize::from(self.profile.shards());
        let mut slots = Vec::with_capacity(shards);
        for _ in 1..shards {
            slots.push(buffer.split_to(self.slot_bytes()));
        }
        slots.push(buffer);
        slots
    }

    /// Where columns of a cell lie in the cell's slot.
    #[expect(clippy::unused_self, reason = "of all stripes alike, today")]
    pub(crate) fn in_slot(self, columns: &Range<usize>) -> Range<usize> {
        RECORD_HEADER_BYTES_MAX + columns.start..RECORD_HEADER_BYTES_MAX + columns.end
    }

    fn slot_bytes(self) -> usize {
        RECORD_HEADER_BYTES_MAX + self.cell_bytes().next_multiple_of(BUFFER_ALIGNMENT)
    }

    fn cell_at(self, shard: u8) -> usize {
        usize::from(shard) * self.slot_bytes() + RECORD_HEADER_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use anvil_model::limits::BUFFER_BYTES;

    use super::*;

    /// Goal: payload comes out of the cells as it went in, whatever the profile and length, and parity is of those cells.
    /// Method: scatter, encode, and compare with the code over cells cut by hand.
    #[test]
    fn cells_hold_the_window_and_its_parity() {
        for (data, parity) in [(1, 0), (1, 2), (2, 2), (4, 2), (3, 1), (16, 4)] {
            let profile = Profile { data, parity };
            let most = geometry::window_bytes(profile);
            for length in [1, 2, 15, 16, 17, 4097, 99_999, most - 1, most] {
                let stripe = Stripe::new(profile, length);
                let payload: Vec<u8> = (0..length).map(|at| (at * 31 % 251) as u8).collect();
                let mut buffer = vec![0xee; BUFFER_BYTES];
                stripe.scatter(&payload, &mut buffer);
                stripe.pad(&mut buffer);
                stripe.encode(Kernel::Naive, &mut buffer);
                assert_eq!(stripe.gather(length, &buffer), payload, "{profile} of {length}");
                let middle: Vec<u8> = stripe.spans(length / 3..length).flat_map(|span| buffer[span].to_vec()).collect();
                assert_eq!(middle, payload[length / 3..]);

                let cell_bytes = stripe.cell_bytes();
                let mut padded = payload;
                padded.resize(cell_bytes * usize::from(data), 0);
                let cells: Vec<&[u8]> = padded.chunks(cell_bytes).collect();
                let mut expected = vec![vec![0; cell_bytes]; parity.into()];
                let mut into: Vec<&mut [u8]> = expected.iter_mut().map(Vec::as_mut_slice).collect();
                Code::new(data, parity, Kernel::Naive).encode(&cells, &mut into);
                let all = cells.into_iter().chain(expected.iter().map(Vec::as_slice));
                for (cell, expected) in stripe.data_cells(&mut buffer).zip(padded.chunks(cell_bytes)) {
                    assert!(cell == expected, "data cells of {profile} of {length}");
                }
                for (shard, cell) in (0..).zip(all) {
                    let at = stripe.cell_at(shard);
                    assert_eq!(&buffer[at..at + cell_bytes], cell, "shard {shard} of {profile} of {length}");
                }
            }
        }
    }
}
