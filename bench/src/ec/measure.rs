//! Samples of every case by turns, until the time is over: what disturbs the machine for a while then disturbs all alike.

use anvil_model::profile::Profile;
use anyhow::{Context, ensure};

use super::Operation;
use super::library::{Coder, Library};
use super::report::Row;
use super::stripe::Stripe;
use crate::run::Run;
use crate::sample::Sample;

/// What is measured: every task of every library with every shape of stripe.
pub(super) struct Plan {
    pub(super) shapes: Vec<(Profile, usize)>,
    pub(super) libraries: Vec<Library>,
    operations: Vec<Operation>,
}

/// One thing to do with a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Encode,
    Rebuild { lost: u8 },
    Verify,
}

/// One case and what was seen of it.
struct Case {
    profile: Profile,
    cell_bytes: usize,
    library: &'static str,
    task: Task,
    samples: Vec<Sample>,
}

impl Plan {
    pub(super) fn new(shapes: &[(Profile, usize)], operations: &[Operation], libraries: Vec<Library>) -> Self {
        Self { shapes: shapes.to_vec(), libraries, operations: operations.to_vec() }
    }

    /// In the order of the tables.
    pub(super) fn tasks(&self, profile: Profile) -> Vec<Task> {
        let asked = |operation| self.operations.contains(&operation);
        let lost = 1..=profile.parity.min(profile.data);
        let encode = asked(Operation::Encode).then_some(Task::Encode);
        let rebuild = lost.filter(|_| asked(Operation::Rebuild)).map(|lost| Task::Rebuild { lost });
        let verify = asked(Operation::Verify).then_some(Task::Verify);
        encode.into_iter().chain(rebuild).chain(verify).collect()
    }
}

/// Measures until the time is over or the user ends it. There is a row for each case that had its turn.
pub(super) fn run(plan: &Plan, run: &Run) -> anyhow::Result<Vec<Row>> {
    let bar = run.bar();
    let mut stripes: Vec<Stripe> = plan.shapes.iter().map(|(profile, bytes)| Stripe::new(*profile, *bytes)).collect();
    let mut cases = Vec::new();
    for &(profile, cell_bytes) in &plan.shapes {
        for library in plan.libraries.iter().map(Library::name) {
            let case = |task| Case { profile, cell_bytes, library, task, samples: Vec::new() };
            cases.extend(plan.tasks(profile).into_iter().map(case));
        }
    }
    let is_over = || run.is_over();
    let mut round = 0;
    while !is_over() {
        let mut turns = cases.iter_mut();
        for stripe in &mut stripes {
            let tasks = plan.tasks(stripe.profile());
            for library in &plan.libraries {
                let mut coder = library.coder(stripe)?;
                if round == 0 {
                    check(&mut *coder, stripe).with_context(|| format!("{} cannot be measured", library.name()))?;
                } else {
                    coder.encode(stripe, 1)?;
                }
                for (task, case) in tasks.iter().zip(turns.by_ref()) {
                    if is_over() {
                        break;
                    }
                    case.samples.push(sample(&mut *coder, stripe, *task)?);
                    bar.tick();
                }
                if is_over() {
                    break;
                }
            }
            if is_over() {
                break;
            }
        }
        round += 1;
    }
    bar.finish();
    Ok(cases.into_iter().filter_map(Case::row).collect())
}

/// Refuses a library that gives wrong bytes.
fn check(coder: &mut dyn Coder, stripe: &mut Stripe) -> anyhow::Result<()> {
    let profile = stripe.profile();
    coder.encode(stripe, 1)?;
    ensure!(coder.verify(stripe, 1)?, "parity of {profile} is not what was encoded");
    for lost in 1..=profile.parity.min(profile.data) {
        let mut cells = stripe.cells();
        let lost_cells = &mut cells[..usize::from(lost)];
        let before: Vec<Vec<u8>> = lost_cells.iter().map(|cell| cell.to_vec()).collect();
        lost_cells.iter_mut().for_each(|cell| cell.fill(0));
        coder.rebuild(stripe, lost, 1)?;
        let same = stripe.cells().iter().zip(&before).all(|(cell, before)| **cell == **before);
        ensure!(same, "{lost} lost cells of {profile} come back with other bytes");
    }
    Ok(())
}

fn sample(coder: &mut dyn Coder, stripe: &mut Stripe, task: Task) -> anyhow::Result<Sample> {
    let bytes = f64::from(stripe.profile().data) * f64::from(u32::try_from(stripe.cell_bytes())?);
    Sample::take(bytes, |turns| perform(coder, stripe, task, turns))
}

fn perform(coder: &mut dyn Coder, stripe: &mut Stripe, task: Task, times: u32) -> anyhow::Result<()> {
    match task {
        Task::Encode => coder.encode(stripe, times),
        Task::Rebuild { lost } => coder.rebuild(stripe, lost, times),
        Task::Verify => {
            ensure!(coder.verify(stripe, times)?, "parity is not what was encoded");
            Ok(())
        }
    }
}

impl Case {
    fn row(mut self) -> Option<Row> {
        let quartile = Sample::lower_quartile(&mut self.samples)?;
        Some(Row {
            operation: match self.task {
                Task::Encode => Operation::Encode,
                Task::Rebuild { .. } => Operation::Rebuild,
                Task::Verify => Operation::Verify,
            },
            lost: if let Task::Rebuild { lost } = self.task { lost } else { 0 },
            profile: self.profile.to_string(),
            cell_bytes: self.cell_bytes,
            library: self.library,
            samples: self.samples.len(),
            gigabytes_per_second: quartile.gigabytes_per_second(),
            cycles_per_byte: quartile.cycles_per_byte,
            gigahertz: quartile.gigahertz,
        })
    }
}
