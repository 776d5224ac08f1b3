//! The code of one profile: its matrix, encoding, and what is solved to rebuild.

use crate::combine::{Row, combine};
use crate::field::{inverse, multiply};
use crate::{DATA_MAX, Kernel, PARITY_MAX};

/// Encodes and rebuilds the stripes of one profile `k+m`. Small, `Copy`, and made anew in well under a microsecond.
///
/// Cells are numbered through a stripe: `0..k` are data, `k..k+m` parity. A cell may be shorter than others: what is
/// missing behind its end counts as zero, and is neither read nor written.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    data: usize,
    parity: usize,
    /// `matrix[i][j]` is the factor of data cell j in parity cell i. The first row and the first column are ones.
    matrix: [Row; PARITY_MAX],
    kernel: Kernel,
}

/// Some of the k cells that a rebuild starts from, in the order of its columns.
struct Present<'a, 'b> {
    cells: &'a [(u8, &'b [u8])],
}

impl Code {
    /// The code with `data` cells in 1..=16 and `parity` cells in 0..=4.
    ///
    /// # Panics
    /// If either is outside its range, or this CPU lacks what `kernel` needs.
    #[must_use]
    pub fn new(data: u8, parity: u8, kernel: Kernel) -> Self {
        let (data, parity) = (usize::from(data), usize::from(parity));
        assert!((1..=DATA_MAX).contains(&data), "{data} data cells");
        assert!(parity <= PARITY_MAX, "{parity} parity cells");
        assert!(kernel.is_available(), "this CPU cannot run the kernel {}", kernel.name());
        Self { data, parity, matrix: matrix(data), kernel }
    }

    /// Data cells of a stripe: k.
    #[must_use]
    pub fn data(&self) -> u8 {
        u8::try_from(self.data).expect("at most 16")
    }

    /// Parity cells of a stripe: m.
    #[must_use]
    pub fn parity(&self) -> u8 {
        u8::try_from(self.parity).expect("at most 4")
    }

    /// What does the work.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// The factor of data cell `data` in parity cell `parity` (counted from 0), as the format fixes it.
    ///
    /// # Panics
    /// If the code has no such cell.
    #[must_use]
    pub fn factor(&self, parity: u8, data: u8) -> u8 {
        assert!(usize::from(parity) < self.parity && usize::from(data) < self.data, "no such cell");
        self.matrix[usize::from(parity)][usize::from(data)]
    }

    /// Writes all parity cells of a stripe. Each has the length of the longest data cell; a shorter parity cell gets as much
    /// as fits, a longer one ends in zeros.
    ///
    /// # Panics
    /// If there are not k data and m parity cells.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        assert_eq!(data.len(), self.data, "data cells");
        assert_eq!(parity.len(), self.parity, "parity cells");
        combine(self.kernel, &self.matrix[..self.parity], data, parity);
    }

    /// Whether the parity cells are those of the data cells.
    ///
    /// # Panics
    /// If there are not k data and m parity cells.
    #[must_use]
    pub fn verify(&self, data: &[&[u8]], parity: &[&[u8]]) -> bool {
        /// Bytes that are encoded at a time: they stay in the first-level cache.
        const WINDOW_BYTES: usize = 2048;
        assert_eq!(data.len(), self.data, "data cells");
        assert_eq!(parity.len(), self.parity, "parity cells");
        let length = parity.iter().map(|cell| cell.len()).max().unwrap_or(0);
        let mut bytes = [[0; WINDOW_BYTES]; PARITY_MAX];
        (0..length).step_by(WINDOW_BYTES).all(|from| {
            let mut windows: [&[u8]; DATA_MAX] = [&[]; DATA_MAX];
            for (window, cell) in windows.iter_mut().zip(data) {
                *window = range(cell, from, WINDOW_BYTES);
            }
            let mut expected = bytes.each_mut().map(|bytes| &mut bytes[..]);
            for (expected, cell) in expected.iter_mut().zip(parity) {
                let length = range(cell, from, WINDOW_BYTES).len();
                *expected = &mut std::mem::take(expected)[..length];
            }
            self.encode(&windows[..self.data], &mut expected[..self.parity]);
            expected.iter().zip(parity).all(|(expected, cell)| **expected == *range(cell, from, WINDOW_BYTES))
        })
    }

    /// Writes the bytes of the cell `lost`, data or parity, into `into`, from exactly k other cells, each with its number.
    /// All are of the same range of columns, which may be any. As many bytes are made as `into` has.
    ///
    /// # Panics
    /// If there are not k different cells of this code, or `lost` is one of them or none of the code.
    pub fn rebuild(&self, lost: u8, present: &[(u8, &[u8])], into: &mut [u8]) {
        self.rebuild_all(&[lost], present, &mut [into]);
    }

    /// As [`Self::rebuild`], for several cells in one pass over what is present: `into[n]` is the cell `lost[n]`.
    ///
    /// # Panics
    /// As [`Self::rebuild`], and if more than m cells are asked for, or `lost` and `into` differ in length.
    pub fn rebuild_all(&self, lost: &[u8], present: &[(u8, &[u8])], into: &mut [&mut [u8]]) {
        assert_eq!(lost.len(), into.len(), "cells that are lost, and where they go");
        assert!(lost.len() <= self.parity, "{} cells are more than the parity gives", lost.len());
        let mut inputs: [&[u8]; DATA_MAX] = [&[]; DATA_MAX];
        for (input, (_, cell)) in inputs.iter_mut().zip(present) {
            *input = cell;
        }
        let rows = self.rows_of(lost, &Present::checked(self, lost, present));
        combine(self.kernel, &rows[..lost.len()], &inputs[..self.data], into);
    }

    /// For each lost cell its factors in terms of the cells that are present.
    ///
    /// With e data cells missing there are e parity cells present, hence e equations. They are solved at each call
    /// rather than remembered: that takes some 20 multiplications for one missing cell and 320 for four of sixteen.
    fn rows_of(&self, lost: &[u8], present: &Present<'_, '_>) -> [Row; PARITY_MAX] {
        let missing = present.missing(self.data);
        let solved = self.solve(&missing, present);
        let mut rows = [[0; DATA_MAX]; PARITY_MAX];
        for (row, lost) in rows.iter_mut().zip(lost) {
            let lost = usize::from(*lost);
            if lost < self.data {
                let equation = missing.iter().position(|number| *number == lost).expect("a lost cell is not present");
                *row = solved[equation];
                continue;
            }
            // A parity cell: its own row, with the solution in the place of what is missing.
            let own = &self.matrix[lost - self.data];
            for (factor, (number, _)) in row.iter_mut().zip(present.cells) {
                *factor = own.get(usize::from(*number)).copied().unwrap_or(0);
            }
            for (number, solution) in missing.iter().zip(&solved) {
                add_multiple(row, solution, own[*number]);
            }
        }
        rows
    }

    /// The missing data cells in terms of those present, one row each: Gauss-Jordan elimination. No pivot is ever zero,
    /// since every square part of a Cauchy matrix, also after its rows and columns are scaled, has an inverse.
    fn solve(&self, missing: &Missing, present: &Present<'_, '_>) -> [Row; PARITY_MAX] {
        let mut left = [[0; PARITY_MAX]; PARITY_MAX];
        let mut right = [[0; DATA_MAX]; PARITY_MAX];
        let parities =
            present.cells.iter().map(|(number, _)| usize::from(*number)).filter(|number| *number >= self.data);
        let count = missing.iter().count();
        for (equation, parity) in parities.enumerate() {
            let own = &self.matrix[parity - self.data];
            for (unknown, number) in missing.iter().enumerate() {
                left[equation][unknown] = own[*number];
            }
            for (factor, (number, _)) in right[equation].iter_mut().zip(present.cells) {
                let number = usize::from(*number);
                *factor = if number < self.data { own[number] } else { u8::from(number == parity) };
            }
        }
        for pivot in 0..count {
            let scale = inverse(left[pivot][pivot]);
            left[pivot].iter_mut().for_each(|factor| *factor = multiply(*factor, scale));
            right[pivot].iter_mut().for_each(|factor| *factor = multiply(*factor, scale));
            let (pivot_left, pivot_right) = (left[pivot], right[pivot]);
            for other in (0..count).filter(|other| *other != pivot) {
                let factor = left[other][pivot];
                add_multiple(&mut left[other], &pivot_left, factor);
                add_multiple(&mut right[other], &pivot_right, factor);
            }
        }
        right
    }
}

/// The numbers of the data cells that are not present, ascending.
struct Missing {
    numbers: [usize; PARITY_MAX],
    count: usize,
}

impl Missing {
    fn iter(&self) -> std::slice::Iter<'_, usize> {
        self.numbers[..self.count].iter()
    }
}

impl<'a, 'b> Present<'a, 'b> {
    /// Refuses what no caller may ask.
    fn checked(code: &Code, lost: &[u8], cells: &'a [(u8, &'b [u8])]) -> Self {
        assert_eq!(cells.len(), code.data, "cells that are present");
        let mut seen = 0_u32;
        for number in cells.iter().map(|(number, _)| number).chain(lost) {
            assert!(usize::from(*number) < code.data + code.parity, "no cell has the number {number}");
            assert!(seen >> number & 1 == 0, "cell {number} is given twice");
            seen |= 1 << number;
        }
        Self { cells }
    }

    fn missing(&self, data: usize) -> Missing {
        let mut missing = Missing { numbers: [0; PARITY_MAX], count: 0 };
        for number in (0..data).filter(|number| !self.cells.iter().any(|(cell, _)| usize::from(*cell) == *number)) {
            missing.numbers[missing.count] = number;
            missing.count += 1;
        }
        missing
    }
}

/// The matrix for `data` cells: 1 / (x + y) with x = data + i for parity cell i and y = j for data cell j, each column then
/// scaled so that the first row is ones, each row then so that the first column is ones.
///
/// A row does not depend on how many there are: the parity cells of `k+m` are the first m of `k+4`.
fn matrix(data: usize) -> [Row; PARITY_MAX] {
    let cauchy = |i: usize, j: usize| inverse(u8::try_from((data + i) ^ j).expect("below 32"));
    let mut matrix = [[0; DATA_MAX]; PARITY_MAX];
    for (i, row) in matrix.iter_mut().enumerate() {
        for (j, factor) in row[..data].iter_mut().enumerate() {
            *factor = multiply(cauchy(i, j), inverse(cauchy(0, j)));
        }
        let scale = inverse(row[0]);
        row.iter_mut().for_each(|factor| *factor = multiply(*factor, scale));
    }
    matrix
}

/// Adds `row` times `factor` to `sum`.
fn add_multiple<const N: usize>(sum: &mut [u8; N], row: &[u8; N], factor: u8) {
    for (sum, element) in sum.iter_mut().zip(row) {
        *sum ^= multiply(*element, factor);
    }
}

/// As much of `length` bytes from `from` on as the cell has.
fn range(cell: &[u8], from: usize, length: usize) -> &[u8] {
    let cell = cell.get(from..).unwrap_or(&[]);
    &cell[..cell.len().min(length)]
}
