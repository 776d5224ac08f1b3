//! Cells of any lengths, cut into runs of columns over which the same cells take part.

use crate::{DATA_MAX, Kernel, PARITY_MAX};

/// The factors of one output, one for each input.
pub(crate) type Row = [u8; DATA_MAX];

/// One run of columns: inputs and outputs of one length that is not zero.
pub(crate) struct Run<'a, 'b> {
    /// At least one.
    pub(crate) inputs: &'a [&'b [u8]],
    /// `factors[j][i]` is the factor of input j in output i.
    pub(crate) factors: &'a [[u8; PARITY_MAX]],
}

impl Run<'_, '_> {
    /// Whether the output `i` is the plain sum of all inputs.
    pub(crate) fn is_sum(&self, i: usize) -> bool {
        self.factors.iter().all(|factors| factors[i] == 1)
    }
}

/// Writes each output: the sum of the inputs, each times its factor in the output's row. Cells may have different
/// lengths; an input counts as zero behind its end.
pub(crate) fn combine(kernel: Kernel, rows: &[Row], inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
    let mut from = 0;
    while let Some(to) = end_of_run(from, inputs, outputs) {
        let mut live_inputs: [&[u8]; DATA_MAX] = [&[]; DATA_MAX];
        let mut live_outputs: [&mut [u8]; PARITY_MAX] = [(); PARITY_MAX].map(|()| <&mut [u8]>::default());
        let mut factors = [[0; PARITY_MAX]; DATA_MAX];
        let (mut input_count, mut output_count) = (0, 0);
        for (column, input) in inputs.iter().enumerate().filter(|(_, input)| input.len() >= to) {
            live_inputs[input_count] = &input[from..to];
            let taking_part = rows.iter().zip(outputs.iter()).filter(|(_, output)| output.len() >= to);
            for (factor, (row, _)) in factors[input_count].iter_mut().zip(taking_part) {
                *factor = row[column];
            }
            input_count += 1;
        }
        for output in outputs.iter_mut().filter(|output| output.len() >= to) {
            live_outputs[output_count] = &mut output[from..to];
            output_count += 1;
        }
        let run = Run { inputs: &live_inputs[..input_count], factors: &factors[..input_count] };
        fill(kernel, &run, &mut live_outputs[..output_count]);
        from = to;
    }
}

/// Where the first cell ends behind `from`; nothing if no output goes so far.
fn end_of_run(from: usize, inputs: &[&[u8]], outputs: &[&mut [u8]]) -> Option<usize> {
    let output_end = outputs.iter().map(|output| output.len()).filter(|end| *end > from).min()?;
    let input_ends = inputs.iter().map(|input| input.len()).filter(|end| *end > from);
    Some(input_ends.fold(output_end, usize::min))
}

fn fill(kernel: Kernel, run: &Run<'_, '_>, outputs: &mut [&mut [u8]]) {
    match run.inputs {
        [] => outputs.iter_mut().for_each(|output| output.fill(0)),
        // Copies: a profile 1+m, and the first data cell alone, whose factors are ones.
        [only] if (0..outputs.len()).all(|i| run.is_sum(i)) => {
            outputs.iter_mut().for_each(|output| output.copy_from_slice(only));
        }
        _ => kernel.run(run, outputs),
    }
}
