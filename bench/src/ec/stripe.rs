//! A stripe in memory, as the server lays it out.

use anvil_model::profile::Profile;

/// Cells begin at multiples of this, and the room before each is as long: that of a record's header.
const ALIGNMENT: usize = 4096;

/// k+m cells of one length.
pub(super) struct Stripe {
    profile: Profile,
    cell_bytes: usize,
    buffer: Vec<u8>,
    begin: usize,
}

impl Stripe {
    /// With bytes in its data cells that repeat nowhere near, and zeros as parity.
    pub(super) fn new(profile: Profile, cell_bytes: usize) -> Self {
        let slice_bytes = ALIGNMENT + cell_bytes.next_multiple_of(ALIGNMENT);
        let buffer = vec![0; ALIGNMENT + usize::from(profile.shards()) * slice_bytes];
        let begin = buffer.as_ptr().align_offset(ALIGNMENT);
        let mut stripe = Self { profile, cell_bytes, buffer, begin };
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for byte in stripe.cells().into_iter().take(usize::from(profile.data)).flatten() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = state.to_be_bytes()[0];
        }
        stripe
    }

    pub(super) fn profile(&self) -> Profile {
        self.profile
    }

    pub(super) fn cell_bytes(&self) -> usize {
        self.cell_bytes
    }

    /// All cells, the data cells first.
    pub(super) fn cells(&mut self) -> Vec<&mut [u8]> {
        let slice_bytes = ALIGNMENT + self.cell_bytes.next_multiple_of(ALIGNMENT);
        let slices = self.buffer[self.begin..].chunks_exact_mut(slice_bytes).take(usize::from(self.profile.shards()));
        slices.map(|slice| &mut slice[ALIGNMENT..][..self.cell_bytes]).collect()
    }

    /// The data cells to read and the parity cells to write.
    pub(super) fn halves(&mut self) -> (Vec<&[u8]>, Vec<&mut [u8]>) {
        let data = usize::from(self.profile.data);
        let mut cells = self.cells();
        let parity = cells.split_off(data);
        (cells.into_iter().map(|cell| &*cell).collect(), parity)
    }
}
