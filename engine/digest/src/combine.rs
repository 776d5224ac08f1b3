//! Checksums of bytes one behind the other, from the checksums of each.
//!
//! A CRC is a remainder of polynomials over GF(2). Bytes that come behind shift what was before by `x` to the power of their
//! bits, which is a product modulo its polynomial (Mark Adler, "crc32_combine" of zlib 1.2.12). The powers for 1, 2, 4, ...
//! bytes are computed with the program, so a length costs one product for each of its bits that are set, of 30 to 60 ns each;
//! squaring matrices takes 50 to 80 us (`crc-fast` 1.10, both on a busy Xeon).

use crate::crc::{number, value};
use crate::{Algorithm, Value};

/// The checksum of `a` and `b` one behind the other, from the checksum of each and the length of the second. So the
/// checksum of an object is computed from those of its parts without reading a byte.
///
/// `a` and `b` are big-endian values of `algorithm`, as [`Value`] holds them.
///
/// # Panics
/// When `algorithm` is not a CRC, or a value does not have its length.
#[must_use]
pub fn combine(algorithm: Algorithm, a: &[u8], b: &[u8], length_of_b: u64) -> Value {
    let (a, b) = (number(algorithm, a), number(algorithm, b));
    let combined = match algorithm {
        Algorithm::Crc32 => CRC32.shift(a << HALF, length_of_b) >> HALF,
        Algorithm::Crc32c => CRC32C.shift(a << HALF, length_of_b) >> HALF,
        Algorithm::Crc64Nvme => CRC64NVME.shift(a, length_of_b),
        Algorithm::Md5 | Algorithm::Sha1 | Algorithm::Sha256 => panic!("only CRCs can be combined"),
    };
    value(algorithm, combined ^ b)
}

/// Values of 32 bits are in the upper half of a word.
const HALF: u32 = 32;

// By the catalogue (reveng), reflected: the highest bit is the coefficient of 1.
static CRC32: Modulus = Modulus::of_32_bits(0xedb8_8320);
static CRC32C: Modulus = Modulus::of_32_bits(0x82f6_3b78);
static CRC64NVME: Modulus = Modulus::new(Polynomial { bits: 0x9a6c_9329_ac4b_c9b5, last: 0 });

#[derive(Clone, Copy)]
struct Polynomial {
    /// Those of 32 bits with the coefficient of x^32 behind them; that of x^64 has no place.
    bits: u64,
    /// Where a remainder has its last coefficient.
    last: u32,
}

struct Modulus {
    polynomial: Polynomial,
    /// `x` to the power of the bits of 1, 2, 4, ... bytes.
    powers: [u64; 64],
}

impl Modulus {
    const fn of_32_bits(polynomial: u64) -> Self {
        Self::new(Polynomial { bits: polynomial << HALF | 1 << (HALF - 1), last: HALF })
    }

    const fn new(polynomial: Polynomial) -> Self {
        let mut powers = [X_TO_THE_8TH; 64];
        let mut index = 1;
        while index < powers.len() {
            powers[index] = product(polynomial, powers[index - 1], powers[index - 1]);
            index += 1;
        }
        Self { polynomial, powers }
    }

    /// What a remainder becomes when so many bytes follow.
    fn shift(&self, mut remainder: u64, mut bytes: u64) -> u64 {
        while bytes != 0 {
            remainder = product(self.polynomial, remainder, self.powers[bytes.trailing_zeros() as usize]);
            bytes &= bytes - 1;
        }
        remainder
    }
}

const X_TO_THE_8TH: u64 = 1 << (63 - 8);

/// Masks take the place of branches, which nobody could foretell.
const fn product(polynomial: Polynomial, mut a: u64, mut b: u64) -> u64 {
    let mut product = 0;
    while a != 0 {
        product ^= b & (a >> 63).wrapping_neg();
        a <<= 1;
        let overflows = b >> polynomial.last & 1;
        b = (b >> 1) ^ (polynomial.bits & overflows.wrapping_neg());
    }
    product
}
