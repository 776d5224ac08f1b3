//! Who can encode, behind one interface.

use anvil_erasure::{Code, Kernel};
use std::hint::black_box;

#[cfg(target_arch = "x86_64")]
use super::isal::Isal;
#[cfg(feature = "reed-solomon-simd")]
use super::simd;
use super::stripe::Stripe;

/// An implementation that this machine can run.
#[derive(Clone)]
pub(super) enum Library {
    /// Anvil's code with one of its kernels.
    Anvil(Kernel),
    /// Intel's library, with Anvil's matrix.
    #[cfg(target_arch = "x86_64")]
    Isal(std::rc::Rc<Isal>),
    /// The crate: another code, over GF(2^16).
    #[cfg(feature = "reed-solomon-simd")]
    ReedSolomonSimd,
}

/// One implementation, ready for stripes of one shape. Does everything `times` times over.
pub(super) trait Coder {
    /// Parity cells from all data cells.
    fn encode(&mut self, stripe: &mut Stripe, times: u32) -> anyhow::Result<()>;
    /// The first `lost` data cells, from the other data cells and as many parity cells as are lost.
    fn rebuild(&mut self, stripe: &mut Stripe, lost: u8, times: u32) -> anyhow::Result<()>;
    /// Whether the parity cells are what [`Self::encode`] makes.
    fn verify(&mut self, stripe: &mut Stripe, times: u32) -> anyhow::Result<bool>;
}

impl Library {
    /// All that there are, Anvil's first.
    pub(super) fn found() -> Vec<Self> {
        let mut found: Vec<Self> = Kernel::available().into_iter().map(Self::Anvil).collect();
        #[cfg(target_arch = "x86_64")]
        found.extend(Isal::load().map(|isal| Self::Isal(std::rc::Rc::new(isal))));
        #[cfg(feature = "reed-solomon-simd")]
        found.push(Self::ReedSolomonSimd);
        found
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Anvil(kernel) => kernel.name(),
            #[cfg(target_arch = "x86_64")]
            Self::Isal(_) => "isal",
            #[cfg(feature = "reed-solomon-simd")]
            Self::ReedSolomonSimd => "reed-solomon-simd",
        }
    }

    /// Gets ready for stripes like this one.
    pub(super) fn coder(&self, stripe: &Stripe) -> anyhow::Result<Box<dyn Coder + '_>> {
        let profile = stripe.profile();
        Ok(match self {
            Self::Anvil(kernel) => Box::new(Code::new(profile.data, profile.parity, *kernel)),
            #[cfg(target_arch = "x86_64")]
            Self::Isal(isal) => Box::new(isal.coder(&Code::new(profile.data, profile.parity, Kernel::Naive))?),
            #[cfg(feature = "reed-solomon-simd")]
            Self::ReedSolomonSimd => Box::new(simd::Coder::new(stripe)?),
        })
    }
}

impl Coder for Code {
    fn encode(&mut self, stripe: &mut Stripe, times: u32) -> anyhow::Result<()> {
        let (data, mut parity) = stripe.halves();
        for _ in 0..times {
            Self::encode(self, black_box(&data), black_box(&mut parity));
        }
        Ok(())
    }

    fn rebuild(&mut self, stripe: &mut Stripe, lost: u8, times: u32) -> anyhow::Result<()> {
        let mut cells = stripe.cells();
        let others = cells.split_off(usize::from(lost));
        let present: Vec<(u8, &[u8])> =
            (lost..).zip(others).map(|(number, cell)| (number, &*cell)).take(usize::from(self.data())).collect();
        let lost: Vec<u8> = (0..lost).collect();
        for _ in 0..times {
            self.rebuild_all(black_box(&lost), black_box(&present), black_box(&mut cells));
        }
        Ok(())
    }

    fn verify(&mut self, stripe: &mut Stripe, times: u32) -> anyhow::Result<bool> {
        let (data, parity) = stripe.halves();
        let parity: Vec<&[u8]> = parity.into_iter().map(|cell| &*cell).collect();
        Ok((0..times).all(|_| Self::verify(self, black_box(&data), black_box(&parity))))
    }
}
