//! The crate `reed-solomon-simd`: another code, whose parity Anvil could not read, measured for what it costs.
//!
//! It copies what it is given into memory of its own and leaves its results there. They are copied out of it once, after the
//! last turn.

use std::hint::black_box;

use anvil_model::profile::Profile;
use anyhow::Context;
use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

use super::library;
use super::stripe::Stripe;

/// Its encoder and decoder, with their memory.
pub(super) struct Coder {
    profile: Profile,
    encoder: ReedSolomonEncoder,
    decoder: ReedSolomonDecoder,
}

impl Coder {
    pub(super) fn new(stripe: &Stripe) -> anyhow::Result<Self> {
        let profile = stripe.profile();
        let (data, parity) = (usize::from(profile.data), usize::from(profile.parity));
        Ok(Self {
            profile,
            encoder: ReedSolomonEncoder::new(data, parity, stripe.cell_bytes())?,
            decoder: ReedSolomonDecoder::new(data, parity, stripe.cell_bytes())?,
        })
    }
}

impl library::Coder for Coder {
    fn encode(&mut self, stripe: &mut Stripe, times: u32) -> anyhow::Result<()> {
        let (data, mut parity) = stripe.halves();
        for turn in 1..=times {
            for cell in &data {
                self.encoder.add_original_shard(black_box(cell))?;
            }
            let result = self.encoder.encode()?;
            for (to, from) in parity.iter_mut().zip(result.recovery_iter()).filter(|_| turn == times) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn rebuild(&mut self, stripe: &mut Stripe, lost: u8, times: u32) -> anyhow::Result<()> {
        let (data, lost) = (usize::from(self.profile.data), usize::from(lost));
        let mut cells = stripe.cells();
        let others = cells.split_off(lost);
        for turn in 1..=times {
            for (number, cell) in (lost..data + lost).zip(&others) {
                if number < data {
                    self.decoder.add_original_shard(number, black_box(cell))?;
                } else {
                    self.decoder.add_recovery_shard(number - data, black_box(cell))?;
                }
            }
            let result = self.decoder.decode()?;
            for (number, to) in cells.iter_mut().enumerate().filter(|_| turn == times) {
                to.copy_from_slice(result.restored_original(number).context("a cell was not restored")?);
            }
        }
        Ok(())
    }

    fn verify(&mut self, stripe: &mut Stripe, times: u32) -> anyhow::Result<bool> {
        let (data, parity) = stripe.halves();
        let mut same = true;
        for _ in 0..times {
            for cell in &data {
                self.encoder.add_original_shard(black_box(cell))?;
            }
            let result = self.encoder.encode()?;
            same &= result.recovery_iter().zip(&parity).all(|(made, there)| *made == **there);
        }
        Ok(same)
    }
}
