//! The loop that all vector kernels share: one pass over the inputs, the sums of all outputs in registers.
#![allow(unsafe_code)]

use crate::combine::Run;
use crate::{DATA_MAX, PARITY_MAX};

/// What a set of instructions does with one register.
///
/// # Safety
/// Every function may be called only where the CPU has the set's instructions, and is inlined into a function that is
/// compiled for them.
pub(super) unsafe trait Lanes {
    /// Bytes in a register.
    const BYTES: usize;
    /// A register full of bytes.
    type Word: Copy;
    /// What multiplying takes of an input, made once for all outputs.
    type Operand: Copy;
    /// What multiplying takes of a factor.
    type Factor: Copy;

    /// All zeros.
    unsafe fn zero() -> Self::Word;
    /// Reads [`Self::BYTES`] bytes from where `from` points, aligned or not.
    unsafe fn load(from: *const u8) -> Self::Word;
    /// Writes [`Self::BYTES`] bytes.
    unsafe fn store(to: *mut u8, word: Self::Word);
    /// The sum of two words.
    unsafe fn add(a: Self::Word, b: Self::Word) -> Self::Word;
    /// Prepares an input.
    unsafe fn operand(word: Self::Word) -> Self::Operand;
    /// Prepares a factor.
    unsafe fn factor(factor: u8) -> Self::Factor;
    /// The product, added to `sum`.
    unsafe fn add_product(sum: Self::Word, factor: Self::Factor, operand: Self::Operand) -> Self::Word;
}

/// The pointers of a run: at most 16 inputs, and R outputs.
struct Pointers<'a, const R: usize> {
    inputs: &'a [*const u8],
    outputs: [*mut u8; R],
    factors: &'a [[u8; PARITY_MAX]],
    /// Bit j: all factors of input j are ones.
    plain_inputs: u32,
}

/// Runs over all columns, `U` registers at a time. `SUM` says that the first output is the plain sum of the inputs.
///
/// # Safety
/// As [`Lanes`]. There are R outputs, and all inputs and outputs have the same length.
#[inline(always)]
pub(super) unsafe fn sweep<L: Lanes, const R: usize, const U: usize, const SUM: bool>(
    run: &Run<'_, '_>,
    outputs: &mut [&mut [u8]],
) {
    let length = run.inputs[0].len();
    assert!(outputs.len() == R && run.inputs.len() <= DATA_MAX && run.factors.len() == run.inputs.len());
    assert!(run.inputs.iter().all(|input| input.len() == length));
    assert!(outputs.iter().all(|output| output.len() == length));
    let mut inputs = [std::ptr::null(); DATA_MAX];
    for (pointer, input) in inputs.iter_mut().zip(run.inputs) {
        *pointer = input.as_ptr();
    }
    let mut plain_inputs = 0;
    for (j, factors) in run.factors.iter().enumerate() {
        plain_inputs |= u32::from(factors[..R].iter().all(|factor| *factor == 1)) << j;
    }
    let pointers = Pointers {
        inputs: &inputs[..run.inputs.len()],
        outputs: std::array::from_fn(|i| outputs[i].as_mut_ptr()),
        factors: run.factors,
        plain_inputs,
    };
    let mut from = 0;
    while from + U * L::BYTES <= length {
        // SAFETY: the caller has the instructions; all cells have `length` bytes, and these end within them.
        unsafe { step::<L, R, U, SUM>(&pointers, from) };
        from += U * L::BYTES;
    }
    while from + L::BYTES <= length {
        // SAFETY: as above.
        unsafe { step::<L, R, 1, SUM>(&pointers, from) };
        from += L::BYTES;
    }
    if from == length {
        return;
    }
    if let Some(last) = length.checked_sub(L::BYTES) {
        // The last register overlaps what is done: outputs are never inputs, so the same bytes are written again.
        // SAFETY: as above.
        unsafe { step::<L, R, 1, SUM>(&pointers, last) };
    } else {
        // SAFETY: the caller has the instructions.
        unsafe { short::<L, R, SUM>(run, &pointers, outputs) };
    }
}

/// `U` registers of every output.
///
/// # Safety
/// As [`Lanes`]. All cells have `U * L::BYTES` bytes from `from` on.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "rows and registers are counted alike, and unrolled")]
unsafe fn step<L: Lanes, const R: usize, const U: usize, const SUM: bool>(cells: &Pointers<'_, R>, from: usize) {
    // SAFETY: the caller has the instructions, and all cells reach as far as is read and written here.
    unsafe {
        let mut sums = [[L::zero(); U]; R];
        for (j, input) in cells.inputs.iter().enumerate() {
            // Loops, since a closure would be compiled without the instructions.
            let mut words = [L::zero(); U];
            for u in 0..U {
                words[u] = L::load(input.add(from + u * L::BYTES));
            }
            if cells.plain_inputs >> j & 1 == 1 {
                for sum in &mut sums {
                    for u in 0..U {
                        sum[u] = L::add(sum[u], words[u]);
                    }
                }
                continue;
            }
            let mut operands = [L::operand(words[0]); U];
            for u in 1..U {
                operands[u] = L::operand(words[u]);
            }
            for i in 0..R {
                if SUM && i == 0 {
                    for u in 0..U {
                        sums[0][u] = L::add(sums[0][u], words[u]);
                    }
                } else {
                    let factor = L::factor(cells.factors.get_unchecked(j)[i]);
                    for u in 0..U {
                        sums[i][u] = L::add_product(sums[i][u], factor, operands[u]);
                    }
                }
            }
        }
        for i in 0..R {
            for u in 0..U {
                L::store(cells.outputs[i].add(from + u * L::BYTES), sums[i][u]);
            }
        }
    }
}

/// Cells shorter than a register, by way of copies that are as long as one.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn short<L: Lanes, const R: usize, const SUM: bool>(
    run: &Run<'_, '_>,
    cells: &Pointers<'_, R>,
    outputs: &mut [&mut [u8]],
) {
    const { assert!(L::BYTES <= 64, "a copy holds a register") }
    let mut copies = [[0_u8; 64]; DATA_MAX];
    let mut sums = [[0_u8; 64]; R];
    let mut inputs = [std::ptr::null(); DATA_MAX];
    for ((copy, pointer), input) in copies.iter_mut().zip(&mut inputs).zip(run.inputs) {
        copy[..input.len()].copy_from_slice(input);
        *pointer = copy.as_ptr();
    }
    let copied = Pointers {
        inputs: &inputs[..run.inputs.len()],
        outputs: std::array::from_fn(|i| sums[i].as_mut_ptr()),
        factors: cells.factors,
        plain_inputs: cells.plain_inputs,
    };
    // SAFETY: the caller has the instructions; all copies are as long as a register.
    unsafe { step::<L, R, 1, SUM>(&copied, 0) };
    for (output, sum) in outputs.iter_mut().zip(&sums) {
        output.copy_from_slice(&sum[..output.len()]);
    }
}
