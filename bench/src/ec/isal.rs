//! Intel's ISA-L, loaded when the run begins if the system has it: nothing is linked against it, and nothing but this
//! comparison needs it. Its field is Anvil's, so that it works with Anvil's matrix and must give the same parity.
//!
//! Its tables for a matrix, and those for a loss, are made once and before the timing, as from a cache.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::hint::black_box;

use anvil_erasure::Code;
use anyhow::{Context, ensure};

use super::library;
use super::stripe::Stripe;

// `void ec_init_tables(int k, int rows, unsigned char *a, unsigned char *gftbls)`
// SAFETY: who calls it has rows * k bytes at the third pointer and room for 32 * k * rows at the fourth.
type InitTables = unsafe extern "C" fn(c_int, c_int, *mut u8, *mut u8);
// `int gf_invert_matrix(unsigned char *in, unsigned char *out, const int n)`
// SAFETY: who calls it has n * n bytes at either pointer, and needs those of the first no more.
type InvertMatrix = unsafe extern "C" fn(*mut u8, *mut u8, c_int) -> c_int;
// `void ec_encode_data(int len, int k, int rows, unsigned char *gftbls, unsigned char **data, unsigned char **coding)`
// SAFETY: who calls it has the tables of `ec_init_tables`, and k and rows pointers to `len` bytes each.
type EncodeData = unsafe extern "C" fn(c_int, c_int, c_int, *mut u8, *const *const u8, *const *mut u8);

/// The library's functions (erasure_code.h), and the library that must stay as long as they do.
pub(super) struct Isal {
    init_tables: InitTables,
    invert_matrix: InvertMatrix,
    encode_data: EncodeData,
    _library: libloading::Library,
}

/// ISA-L with one matrix.
pub(super) struct Coder<'a> {
    isal: &'a Isal,
    data: usize,
    parity: usize,
    /// k+m rows of k factors, the first k of them those of the identity.
    matrix: Vec<u8>,
    encode_tables: Vec<u8>,
    /// For so many lost cells.
    rebuild_tables: Vec<(u8, Vec<u8>)>,
}

impl Isal {
    /// Nothing if the system has no such library.
    pub(super) fn load() -> Option<Self> {
        // SAFETY: the library's initialisers only choose its functions by what the CPU has.
        let library = unsafe { libloading::Library::new("libisal.so.2") }.ok()?;
        // SAFETY: these have the types of erasure_code.h, and are used only while the library is loaded.
        unsafe {
            Some(Self {
                init_tables: *library.get::<InitTables>(b"ec_init_tables\0").ok()?,
                invert_matrix: *library.get::<InvertMatrix>(b"gf_invert_matrix\0").ok()?,
                encode_data: *library.get::<EncodeData>(b"ec_encode_data\0").ok()?,
                _library: library,
            })
        }
    }

    pub(super) fn coder(&self, code: &Code) -> anyhow::Result<Coder<'_>> {
        let (data, parity) = (code.data(), code.parity());
        let identity = (0..data).flat_map(|row| (0..data).map(move |column| u8::from(row == column)));
        let factors = (0..parity).flat_map(|i| (0..data).map(move |j| (i, j))).map(|(i, j)| code.factor(i, j));
        let matrix: Vec<u8> = identity.chain(factors).collect();
        let (data, parity) = (usize::from(data), usize::from(parity));
        let mut coder =
            Coder { isal: self, data, parity, encode_tables: Vec::new(), matrix, rebuild_tables: Vec::new() };
        coder.encode_tables = coder.tables(&coder.matrix[data * data..]);
        for lost in 1..=parity.min(data) {
            let tables = coder.rebuild_tables(lost)?;
            coder.rebuild_tables.push((u8::try_from(lost)?, tables));
        }
        Ok(coder)
    }
}

impl Coder<'_> {
    /// The tables of rows of k factors.
    fn tables(&self, rows: &[u8]) -> Vec<u8> {
        let mut rows = rows.to_vec();
        let mut tables = vec![0; 32 * rows.len()];
        // SAFETY: there are k factors in each row, and 32 bytes of tables for each factor.
        unsafe {
            (self.isal.init_tables)(
                int(self.data),
                int(rows.len() / self.data),
                rows.as_mut_ptr(),
                tables.as_mut_ptr(),
            );
        }
        tables
    }

    /// The tables that make the first `lost` data cells from the k cells behind them.
    fn rebuild_tables(&self, lost: usize) -> anyhow::Result<Vec<u8>> {
        let mut present = self.matrix[lost * self.data..][..self.data * self.data].to_vec();
        let mut inverse = vec![0; present.len()];
        // SAFETY: both are square, with k rows.
        let singular = unsafe { (self.isal.invert_matrix)(present.as_mut_ptr(), inverse.as_mut_ptr(), int(self.data)) };
        ensure!(singular == 0, "ISA-L finds no inverse for {lost} lost cells");
        Ok(self.tables(&inverse[..lost * self.data]))
    }

    /// Each output from k inputs, `times` times over.
    fn multiply(&self, tables: &[u8], inputs: &[&[u8]], outputs: &mut [&mut [u8]], times: u32) {
        let length = inputs[0].len();
        assert!(inputs.len() == self.data && tables.len() == 32 * self.data * outputs.len());
        assert!(
            inputs.iter().all(|input| input.len() == length) && outputs.iter().all(|output| output.len() == length)
        );
        let from: Vec<*const u8> = inputs.iter().map(|input| input.as_ptr()).collect();
        let to: Vec<*mut u8> = outputs.iter_mut().map(|output| output.as_mut_ptr()).collect();
        let mut tables = tables.to_vec();
        for _ in 0..times {
            let (from, to) = black_box((from.as_ptr(), to.as_ptr()));
            // SAFETY: there are k inputs and as many outputs as the tables have rows, all of one length.
            unsafe {
                (self.isal.encode_data)(int(length), int(self.data), int(outputs.len()), tables.as_mut_ptr(), from, to);
            }
        }
    }
}

impl library::Coder for Coder<'_> {
    fn encode(&mut self, stripe: &mut Stripe, times: u32) -> anyhow::Result<()> {
        let (data, mut parity) = stripe.halves();
        self.multiply(&self.encode_tables, &data, &mut parity, times);
        Ok(())
    }

    fn rebuild(&mut self, stripe: &mut Stripe, lost: u8, times: u32) -> anyhow::Result<()> {
        let (_, tables) =
            self.rebuild_tables.iter().find(|(count, _)| *count == lost).context("too many cells are lost")?;
        let mut cells = stripe.cells();
        let others = cells.split_off(usize::from(lost));
        let present: Vec<&[u8]> = others.into_iter().map(|cell| &*cell).take(self.data).collect();
        self.multiply(tables, &present, &mut cells, times);
        Ok(())
    }

    /// It has no such function: encodes into other cells and compares.
    fn verify(&mut self, stripe: &mut Stripe, times: u32) -> anyhow::Result<bool> {
        let mut expected = vec![vec![0; stripe.cell_bytes()]; self.parity];
        let mut expected: Vec<&mut [u8]> = expected.iter_mut().map(Vec::as_mut_slice).collect();
        let (data, parity) = stripe.halves();
        Ok((0..times).all(|_| {
            self.multiply(&self.encode_tables, &data, &mut expected, 1);
            expected == parity
        }))
    }
}

fn int(number: usize) -> c_int {
    c_int::try_from(number).expect("cells and matrices are small")
}
