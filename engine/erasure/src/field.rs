//! The field GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1: bytes, added by XOR.

/// The polynomial that products are reduced by.
const POLYNOMIAL: u16 = 0x11d;

/// For every factor its products with 0..16 and with 0, 16, 32, ..., 240: what one byte shuffle looks up for the low and
/// for the high half of a byte.
pub(crate) static NIBBLES: NibbleTables = NibbleTables(nibble_tables());

/// Aligned, so that the tables of one factor never lie in two cache lines.
#[repr(align(64))]
pub(crate) struct NibbleTables(pub(crate) [[u8; 32]; 256]);

/// For every factor the 8x8 bit matrix that multiplies by it, as `GF2P8AFFINEQB` takes it.
pub(crate) static BIT_MATRICES: [u64; 256] = bit_matrices();

static INVERSES: [u8; 256] = inverses();

/// The product of two elements.
pub(crate) fn multiply(a: u8, b: u8) -> u8 {
    let table = &NIBBLES.0[usize::from(a)];
    table[usize::from(b & 15)] ^ table[16 + usize::from(b >> 4)]
}

/// The element whose product with `a` is one.
///
/// # Panics
/// If `a` is zero.
pub(crate) fn inverse(a: u8) -> u8 {
    assert!(a != 0, "zero has no inverse");
    INVERSES[usize::from(a)]
}

/// The product, bit by bit; what the tables are made with when this crate is compiled.
const fn product(a: u8, b: u8) -> u8 {
    let (mut shifted, mut product, mut bit) = (a as u16, 0u16, 0);
    while bit < 8 {
        if b >> bit & 1 == 1 {
            product ^= shifted;
        }
        shifted <<= 1;
        if shifted & 0x100 != 0 {
            shifted ^= POLYNOMIAL;
        }
        bit += 1;
    }
    product as u8
}

const fn nibble_tables() -> [[u8; 32]; 256] {
    let mut tables = [[0; 32]; 256];
    let mut factor = 0;
    while factor < 256 {
        let mut nibble = 0;
        while nibble < 16 {
            tables[factor][nibble] = product(factor as u8, nibble as u8);
            tables[factor][16 + nibble] = product(factor as u8, (nibble as u8) << 4);
            nibble += 1;
        }
        factor += 1;
    }
    tables
}

/// Byte 7 - i of a matrix says which bits of the other factor add up to bit i of the product (Intel SDM, GF2P8AFFINEQB).
const fn bit_matrices() -> [u64; 256] {
    let mut matrices = [0; 256];
    let mut factor = 0;
    while factor < 256 {
        let mut bit = 0;
        while bit < 8 {
            let column = product(factor as u8, 1 << bit);
            let mut row = 0;
            while row < 8 {
                matrices[factor] |= ((column >> row & 1) as u64) << (8 * (7 - row) + bit);
                row += 1;
            }
            bit += 1;
        }
        factor += 1;
    }
    matrices
}

const fn inverses() -> [u8; 256] {
    let mut inverses = [0; 256];
    let mut a = 1;
    while a < 256 {
        // Every element but zero has the order 255 or a divisor of it: a^254 is its inverse.
        let (mut power, mut count) = (1, 0);
        while count < 254 {
            power = product(power, a as u8);
            count += 1;
        }
        inverses[a] = power;
        a += 1;
    }
    inverses
}
