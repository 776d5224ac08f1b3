//! What multiplies and adds: one plain kernel, and one for each set of vector instructions. All give the same bytes.

mod naive;
#[cfg(target_arch = "x86_64")]
mod sweep;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::combine::Run;

/// A way to do the arithmetic, of those that this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Plain Rust on any CPU; what the others are compared with.
    Naive,
    /// 256-bit registers; two table look-ups by byte shuffle for each product.
    Avx2,
    /// 512-bit registers, likewise.
    Avx512,
    /// 256-bit registers; one `GF2P8AFFINEQB` for each product.
    Avx2Gfni,
    /// 512-bit registers, likewise.
    Avx512Gfni,
}

impl Kernel {
    const ALL: [Self; 5] = [Self::Naive, Self::Avx2, Self::Avx512, Self::Avx2Gfni, Self::Avx512Gfni];

    /// The kernel that the whole process profits from most.
    ///
    /// 512-bit registers are taken only together with GFNI. A CPU that has AVX-512 without GFNI is of Intel's first
    /// generations of it, where wide registers lower the clock of all that runs on the core (13 % on Cascade Lake, for a
    /// saving of 0.1 cycles per byte in this code alone). Ice Lake, Zen 4 and what came later keep their clock.
    #[must_use]
    pub fn best() -> Self {
        [Self::Avx512Gfni, Self::Avx2Gfni, Self::Avx2]
            .into_iter()
            .find(|kernel| kernel.is_available())
            .unwrap_or(Self::Naive)
    }

    /// All kernels that this CPU can run, the naive one first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|kernel| kernel.is_available()).collect()
    }

    /// The name for logs and tables, e.g. `avx512-gfni`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx2Gfni => "avx2-gfni",
            Self::Avx512Gfni => "avx512-gfni",
        }
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn is_available(self) -> bool {
        let avx2 = || is_x86_feature_detected!("avx2");
        let avx512 = || is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        let gfni = || is_x86_feature_detected!("gfni");
        match self {
            Self::Naive => true,
            Self::Avx2 => avx2(),
            Self::Avx512 => avx512(),
            Self::Avx2Gfni => avx2() && gfni(),
            Self::Avx512Gfni => avx512() && gfni(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn is_available(self) -> bool {
        self == Self::Naive
    }

    /// Writes every output, which have the length of the inputs. The kernel is available: [`crate::Code`] has asked.
    pub(crate) fn run(self, run: &Run<'_, '_>, outputs: &mut [&mut [u8]]) {
        match self {
            Self::Naive => naive::run(run, outputs),
            #[cfg(target_arch = "x86_64")]
            _ => x86::run(self, run, outputs),
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("only the naive kernel is available"),
        }
    }
}
