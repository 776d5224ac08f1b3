//! Samples of every case by turns, until the time is over: what disturbs the machine for a while then disturbs all alike.

use anyhow::ensure;

use super::report::Row;
use super::streams::{Code, Digested, Streams};
use crate::run::Run;
use crate::sample::Sample;

/// Every case that there is.
pub(super) struct Plan {
    /// As many as the widest case has streams.
    bytes: Vec<Vec<u8>>,
    cases: Vec<Case>,
}

/// Some streams of one code.
struct Case {
    what: Digested,
    code: &'static str,
    lanes: u16,
    streams: Streams,
    samples: Vec<Sample>,
}

impl Plan {
    /// # Errors
    /// When two codes give different values.
    pub(super) fn new(whats: &[Digested], lanes: &[u16], step_bytes: usize, codes: &[Code]) -> anyhow::Result<Self> {
        let widest = usize::from(lanes.iter().copied().max().unwrap_or(1));
        let byte = |stream: usize, at: usize| (at * 31 + stream * 7 + (at >> 8)).to_le_bytes()[0];
        let bytes: Vec<Vec<u8>> =
            (0..widest).map(|stream| (0..step_bytes).map(|at| byte(stream, at)).collect()).collect();
        let mut cases = Vec::new();
        for &what in whats {
            let mut known = None;
            for code in codes {
                for &lanes in lanes {
                    let Some(streams) = code.begin(what, usize::from(lanes)) else { continue };
                    let mut trial = streams.clone();
                    trial.update(&bytes);
                    let first = trial.finish().swap_remove(0);
                    let agreed = known.get_or_insert_with(|| first.clone());
                    ensure!(first == *agreed, "{} gives another value of {what:?} than the others", code.name());
                    cases.push(Case { what, code: code.name(), lanes, streams, samples: Vec::new() });
                }
            }
        }
        ensure!(!cases.is_empty(), "none of these codes has one of these digests");
        Ok(Self { bytes, cases })
    }
}

/// Measures until the time is over or the user ends it. There is a row for each case that had its turn.
pub(super) fn run(mut plan: Plan, run: &Run) -> anyhow::Result<Vec<Row>> {
    let bar = run.bar();
    'rounds: loop {
        for case in &mut plan.cases {
            if run.is_over() {
                break 'rounds;
            }
            case.sample(&plan.bytes)?;
            bar.tick();
        }
    }
    Ok(plan.cases.into_iter().filter_map(Case::row).collect())
}

impl Case {
    fn sample(&mut self, bytes: &[Vec<u8>]) -> anyhow::Result<()> {
        let bytes = &bytes[..usize::from(self.lanes)];
        let of_all = f64::from(self.lanes) * f64::from(u32::try_from(bytes[0].len())?);
        let streams = &mut self.streams;
        let sample = Sample::take(of_all, |turns| {
            (0..turns).for_each(|_| streams.update(bytes));
            Ok(())
        })?;
        self.samples.push(sample);
        Ok(())
    }

    fn row(mut self) -> Option<Row> {
        let quartile = Sample::lower_quartile(&mut self.samples)?;
        Some(Row {
            algorithm: self.what,
            code: self.code,
            lanes: self.lanes,
            samples: self.samples.len(),
            gigabytes_per_second: quartile.gigabytes_per_second(),
            cycles_per_byte: quartile.cycles_per_byte,
            gigahertz: quartile.gigahertz,
        })
    }
}
