//! Goal: no byte is ever rebuilt wrong, by any kernel, and parity on disk means the same for ever. Method: all loss
//! patterns of all profiles; every kernel beside the naive one; the field beside one without tables; FORMAT.md.

use proptest::prelude::*;

use crate::field::{inverse, multiply};
use crate::{Code, DATA_MAX, Kernel, PARITY_MAX};

/// Multiplies by the definition: polynomials, divided by 0x11d with remainder. Shares no line with the crate.
fn by_division(a: u8, b: u8) -> u8 {
    let mut product = (0..8).filter(|bit| b & (1 << bit) != 0).fold(0_u32, |sum, bit| sum ^ (u32::from(a) << bit));
    for bit in (8..16).rev() {
        if product & (1 << bit) != 0 {
            product ^= 0x11d << (bit - 8);
        }
    }
    u8::try_from(product).unwrap()
}

/// The parity of one column, by definition.
fn parity_by_definition(code: &Code, column: &[u8]) -> Vec<u8> {
    let row = |i| (0_u8..).zip(column).fold(0, |sum, (j, byte)| sum ^ by_division(code.factor(i, j), *byte));
    (0..code.parity()).map(row).collect()
}

/// Bytes that repeat nowhere near, the same in every run.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[7]
    };
    (0..length).map(|_| next()).collect()
}

fn slices(cells: &[Vec<u8>]) -> Vec<&[u8]> {
    cells.iter().map(Vec::as_slice).collect()
}

fn slices_mut(cells: &mut [Vec<u8>]) -> Vec<&mut [u8]> {
    cells.iter_mut().map(Vec::as_mut_slice).collect()
}

/// All cells of a stripe: the data cells given, and parity cells of `length` behind them.
fn stripe(code: &Code, mut data: Vec<Vec<u8>>, length: usize) -> Vec<Vec<u8>> {
    let mut parity = vec![vec![0xee; length]; usize::from(code.parity())];
    code.encode(&slices(&data), &mut slices_mut(&mut parity));
    data.append(&mut parity);
    data
}

fn profiles() -> impl Iterator<Item = (u8, u8)> {
    (1..=16).flat_map(|data| (0..=4).map(move |parity| (data, parity)))
}

/// Every set of `count` cells out of `all`, as bits.
fn subsets(all: u8, count: u8) -> impl Iterator<Item = u32> {
    (0_u32..1 << all).filter(move |set| set.count_ones() == u32::from(count))
}

#[test]
fn the_field_is_that_of_its_polynomial() {
    for a in 0..=255_u8 {
        for b in 0..=255 {
            assert_eq!(multiply(a, b), by_division(a, b), "{a} times {b}");
        }
        assert!(a == 0 || by_division(a, inverse(a)) == 1, "1 / {a}");
    }
}

#[test]
fn matrices_are_those_of_the_format() {
    for data in 1..=16 {
        let code = Code::new(data, 4, Kernel::Naive);
        let cauchy = |i: u8, j: u8| (1..=255).find(|a| by_division(*a, (data + i) ^ j) == 1).unwrap();
        for i in 0..4 {
            assert_eq!((code.factor(0, data - 1), code.factor(i, 0)), (1, 1));
            for j in 0..data {
                // a[i][j] * a[0][0] ... without a division: scaled elements keep every cross ratio.
                let ours = by_division(code.factor(i, j), by_division(cauchy(0, j), cauchy(i, 0)));
                assert_eq!(ours, by_division(cauchy(i, j), cauchy(0, 0)), "k {data}, row {i}, column {j}");
            }
        }
    }
}

/// The rows of the tables of FORMAT.md below "Erasure code", cell by cell.
fn format_rows(columns: &str) -> Vec<Vec<String>> {
    let text = include_str!("../../../docs/FORMAT.md");
    let (_, section) = text.split_once("\n## Erasure code\n").expect("FORMAT.md has the section");
    let (_, table) = section.split_once(columns).expect("FORMAT.md has the table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()).collect()
}

#[test]
fn format_has_these_matrices_and_stripes() {
    let rows = format_rows("| k | row 1 | row 2 | row 3 |");
    assert_eq!(rows.len(), DATA_MAX);
    for row in rows {
        let data: u8 = row[0].parse().unwrap();
        let code = Code::new(data, 4, Kernel::Naive);
        for (i, text) in (1..).zip(&row[1..]) {
            let ours: Vec<u8> = (0..data).map(|j| code.factor(i, j)).collect();
            assert_eq!(hex::encode(ours), *text, "k {data}, row {i}");
        }
    }
    let rows = format_rows("| profile | data cells | parity cells |");
    assert_eq!(rows.len(), 6);
    for row in rows {
        let (data, parity) = row[0].split_once('+').unwrap();
        let (data, parity) = (data.parse().unwrap(), parity.parse().unwrap());
        let cells = |text: &str| text.split(' ').map(|cell| hex::decode(cell).unwrap()).collect::<Vec<_>>();
        for kernel in Kernel::available() {
            let all = stripe(&Code::new(data, parity, kernel), cells(&row[1]), 8);
            assert_eq!(all[usize::from(data)..], cells(&row[2]), "{} with {}", row[0], kernel.name());
        }
    }
}

#[test]
fn any_k_cells_give_all_others() {
    let kernel = Kernel::best();
    let mut patterns = 0;
    for (data, parity) in profiles() {
        let code = Code::new(data, parity, kernel);
        // The cells end apart, within the range of a register and around it.
        let cells = (0..data).map(|j| noise(70 - usize::from(j % 3) * 3, u64::from(j) + 1)).collect();
        let all = stripe(&code, cells, 70);
        for set in subsets(data + parity, data) {
            let here = |number: &u8| set >> number & 1 == 1;
            let (present, lost): (Vec<u8>, Vec<u8>) = (0..data + parity).partition(here);
            // Not in the order of their numbers: reads end as they like.
            let present: Vec<_> =
                present.iter().rev().map(|number| (*number, &all[usize::from(*number)][..])).collect();
            let mut rebuilt: Vec<_> = lost.iter().map(|number| vec![0xee; all[usize::from(*number)].len()]).collect();
            code.rebuild_all(&lost, &present, &mut slices_mut(&mut rebuilt));
            for (number, rebuilt) in lost.iter().zip(&rebuilt) {
                assert_eq!(*rebuilt, all[usize::from(*number)], "{data}+{parity}, cell {number} from {set:b}");
            }
            patterns += 1;
        }
    }
    // The sum of (k+m choose k) over all k and m.
    assert_eq!(patterns, 26_328);
}

#[test]
fn one_cell_is_rebuilt_alone_in_any_range() {
    for kernel in Kernel::available() {
        for (data, parity) in [(2, 2), (4, 2), (8, 3), (16, 4)] {
            let code = Code::new(data, parity, kernel);
            let all = stripe(&code, (0..data).map(|j| noise(1000, u64::from(j) + 9)).collect(), 1000);
            for lost in 0..data + parity {
                for range in [0..1000, 0..0, 999..1000, 17..18, 64..128, 3..899] {
                    // The last cells of those that are left: as many parity cells as can be.
                    let others = (0..data + parity).rev().filter(|number| *number != lost).take(usize::from(data));
                    let present: Vec<_> =
                        others.map(|number| (number, &all[usize::from(number)][range.clone()])).collect();
                    let mut into = vec![0xee; range.len()];
                    code.rebuild(lost, &present, &mut into);
                    assert_eq!(into, all[usize::from(lost)][range], "{data}+{parity}, cell {lost}");
                }
            }
        }
    }
}

#[test]
fn a_changed_byte_is_seen_by_verify() {
    for kernel in Kernel::available() {
        let code = Code::new(4, 2, kernel);
        let all = stripe(&code, (0..4).map(|j| noise(3000 - j * 700, 3)).collect(), 3000);
        let verify = |all: &[Vec<u8>]| code.verify(&slices(&all[..4]), &slices(&all[4..]));
        assert!(verify(&all));
        for (cell, column) in [(0, 0), (3, 899), (4, 2999), (5, 0), (5, 1024), (4, 2047)] {
            let mut changed = all.clone();
            changed[cell][column] ^= 1;
            assert!(!verify(&changed), "cell {cell}, column {column}");
        }
    }
    assert!(Code::new(3, 0, Kernel::Naive).verify(&[b"a", b"", b"bc"], &[]));
}

#[test]
fn what_no_caller_may_ask_is_refused() {
    let code = Code::new(2, 2, Kernel::best());
    let cell: &[u8] = &[1, 2, 3];
    let rebuild = |lost: &[u8], present: &[u8]| {
        let present: Vec<_> = present.iter().map(|number| (*number, cell)).collect();
        let mut into = vec![vec![0; 3]; lost.len()];
        code.rebuild_all(lost, &present, &mut slices_mut(&mut into));
    };
    rebuild(&[0, 3], &[1, 2]);
    let refused: [(&[u8], &[u8]); 7] = [
        (&[0], &[1]),
        (&[0], &[1, 2, 3]),
        (&[0], &[1, 1]),
        (&[1], &[1, 2]),
        (&[4], &[1, 2]),
        (&[0], &[1, 255]),
        (&[0, 0], &[1, 2]),
    ];
    for (lost, present) in refused {
        let result = std::panic::catch_unwind(|| rebuild(lost, present));
        assert!(result.is_err(), "{lost:?} from {present:?}");
    }
    for (data, parity) in [(0, 1), (17, 0), (1, 5), (255, 255)] {
        assert!(std::panic::catch_unwind(|| Code::new(data, parity, Kernel::Naive)).is_err(), "{data}+{parity}");
    }
}

/// A stripe's shape: k, m, how far from an aligned address each cell begins, how long it is.
fn shapes() -> impl Strategy<Value = (u8, u8, Vec<(usize, usize)>, u64)> {
    let cells = prop::collection::vec((0..64_usize, 0..=300_usize), DATA_MAX + PARITY_MAX);
    // Half of all stripes have data cells of one length, as nearly all real ones.
    let cells = (cells, any::<bool>()).prop_map(|(mut cells, equal)| {
        let length = cells[0].1;
        cells.iter_mut().filter(|_| equal).for_each(|cell| cell.1 = length);
        cells
    });
    (1..=16_u8, 0..=4_u8, cells, any::<u64>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_kernel_encodes_as_the_definition((data, parity, cells, seed) in shapes()) {
        let offset_of = |cell: usize| cells[cell].0;
        let bytes: Vec<Vec<u8>> = (0_u64..).zip(&cells).map(|(j, (offset, length))| noise(offset + length, seed ^ j)).collect();
        let inputs: Vec<&[u8]> = (0..usize::from(data)).map(|j| &bytes[j][offset_of(j)..]).collect();
        let length = inputs.iter().map(|cell| cell.len()).max().unwrap();
        let columns = (0..length).map(|n| inputs.iter().map(|cell| cell.get(n).copied().unwrap_or(0)).collect::<Vec<_>>());
        let naive = Code::new(data, parity, Kernel::Naive);
        let expected: Vec<Vec<u8>> = columns.map(|column| parity_by_definition(&naive, &column)).collect();
        for kernel in Kernel::available() {
            let code = Code::new(data, parity, kernel);
            // A margin on both sides must stay as it is.
            let mut room: Vec<Vec<u8>> = (0..usize::from(parity)).map(|i| vec![0xee; offset_of(16 + i) + length + 64]).collect();
            let mut outputs: Vec<&mut [u8]> = (0..).zip(&mut room).map(|(i, room)| &mut room[offset_of(16 + i)..][..length]).collect();
            code.encode(&inputs, &mut outputs);
            for (i, room) in room.iter().enumerate() {
                let (before, rest) = room.split_at(offset_of(16 + i));
                let (output, behind) = rest.split_at(length);
                prop_assert!(before.iter().chain(behind).all(|byte| *byte == 0xee), "{} wrote beside a cell", kernel.name());
                for (n, byte) in output.iter().enumerate() {
                    prop_assert_eq!(*byte, expected[n][i], "{}, {}+{}, cell {}, column {}", kernel.name(), data, parity, i, n);
                }
            }
        }
    }

    #[test]
    fn every_kernel_rebuilds_what_was((data, parity, cells, seed) in shapes(), order in any::<u64>()) {
        let lengths = || cells[..usize::from(data)].iter().map(|(_, length)| *length);
        let length = lengths().max().unwrap();
        for kernel in Kernel::available() {
            let code = Code::new(data, parity, kernel);
            let all = stripe(&code, (0_u64..).zip(lengths()).map(|(j, length)| noise(length, seed ^ j)).collect(), length);
            let mut numbers: Vec<u8> = (0..data + parity).collect();
            numbers.sort_by_key(|number| (order ^ u64::from(*number)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (present, lost) = numbers.split_at(usize::from(data));
            let present: Vec<_> = present.iter().map(|number| (*number, &all[usize::from(*number)][..])).collect();
            let mut rebuilt: Vec<_> = lost.iter().map(|number| vec![0xee; all[usize::from(*number)].len()]).collect();
            code.rebuild_all(lost, &present, &mut slices_mut(&mut rebuilt));
            for (number, rebuilt) in lost.iter().zip(&rebuilt) {
                prop_assert_eq!(rebuilt, &all[usize::from(*number)], "{}, {}+{}, cell {}", kernel.name(), data, parity, number);
            }
        }
    }
}
