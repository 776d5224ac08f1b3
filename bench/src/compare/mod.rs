//! `anvil-bench compare`: the same load against several S3 servers on this machine, in turn, and the ratios of what it cost.
//!
//! How a server is started stands in a small file (`bench/peers/`). Each turn starts it anew on an empty directory of the same
//! disk, loads it, ends it and removes what it wrote. Rounds go over all loads and servers, each beginning with another server:
//! what disturbs the machine for a while disturbs all. Ratios are those of the same round, and their spread is shown.

mod recipe;
mod report;
mod server;
mod warp;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::clock;
use crate::host::Medium;
use crate::load;
use crate::run::{Bar, Run, RunArgs};
use crate::s3::{self, Limits, Operation, Plan, Promise, Sizes};
use crate::target::Target;
use recipe::Recipe;
use report::{Report, Turn};
use server::Running;

/// What to compare.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Files that say how each server is started; ratios are to the last of them
    #[arg(required = true, value_name = "FILE")]
    servers: Vec<PathBuf>,
    /// A directory on the disk that the servers store on; a new directory in it is used and removed
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// What is done, and with objects of which size: put, get, head, list, delete, multipart, or mixed (45 get, 30 head,
    /// 15 put, 10 delete)
    #[arg(long, value_name = "OPERATION:SIZE", default_values = LOADS)]
    load: Vec<Load>,
    /// Connections, and so the most requests in flight
    #[arg(long, default_value_t = 8, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// What a PUT promises of its body
    #[arg(long, value_enum, default_value_t = Promise::Signed)]
    payload: Promise,
    /// Operations to begin each second (open loop); by default each begins when the one before it has ended
    #[arg(long, value_parser = load::rate, value_name = "OPERATIONS")]
    rate: Option<f64>,
    /// How often each load goes to each server
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// The CPUs of the servers, each of which may use all of them; by default all that this process may use
    #[arg(long, value_delimiter = ',', value_name = "CPU")]
    server_cpu: Vec<usize>,
    /// Drives MinIO's `warp` too, which must be on the PATH, with the same operation and size
    #[arg(long)]
    warp: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// One load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Load {
    /// As the command line says it.
    name: String,
    mix: Vec<(Operation, u32)>,
    sizes: Sizes,
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (operation, sizes) =
            text.split_once(':').ok_or_else(|| format!("`{text}` is not a load such as put:64KiB"))?;
        let mix = match operation {
            "mixed" => MIXED.to_vec(),
            one => vec![load::share(one)?],
        };
        Ok(Self { name: text.to_owned(), mix, sizes: sizes.parse()? })
    }
}

impl Load {
    /// Objects that are there before it begins: so many that they do not fit into anybody's small caches, in the time there is.
    fn objects(&self) -> u64 {
        (PREPARED_BYTES / self.sizes.bytes_max().max(1)).clamp(OBJECTS_MIN, OBJECTS_MAX)
    }

    fn plan(&self, args: &Args) -> Plan {
        let mut plan = Plan {
            mix: self.mix.clone(),
            connections: args.connections,
            sizes: self.sizes.clone(),
            payload: args.payload,
            objects: 0,
            rate: args.rate,
            part_bytes: PART_BYTES,
        };
        plan.objects = if plan.reads() { self.objects() } else { 0 };
        plan
    }
}

/// Compares, and prints what was seen.
///
/// # Errors
/// One sentence; [`Interrupted`](crate::signals::Interrupted) after Ctrl-C. No server runs on, and nothing that they wrote is
/// left behind, in either case.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let recipes = args.servers.iter().map(|path| Recipe::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    for (index, recipe) in recipes.iter().enumerate() {
        ensure!(
            recipes[..index].iter().all(|other| other.name != recipe.name),
            "two servers are named {}",
            recipe.name
        );
    }
    let warp = if args.warp { Some(warp::find()?) } else { None };
    let run = args.run.begin("compare")?;
    let server_cpus = if args.server_cpu.is_empty() { run.cpus().to_vec() } else { args.server_cpu.clone() };
    let is_allowed = server_cpus.iter().all(|cpu| run.cpus().contains(cpu));
    ensure!(is_allowed, "this process may not use all of the CPUs {server_cpus:?}, only {:?}", run.cpus());
    let target = Target::claim(&args.data, false)?;
    run.print_header();
    let medium = Medium::look(&args.data);
    if run.is_for_people() {
        medium.print("disk", &args.data);
    }
    let turns = Comparison { args, run: &run, bar: run.bar(), target: &target, server_cpus, warp }.turns(&recipes);
    target.remove()?;
    let names = recipes.iter().map(|recipe| recipe.name.clone()).collect();
    let about = recipes.iter().map(Recipe::about).collect();
    let loads = args.load.iter().map(|load| load.name.clone()).collect();
    let report = Report::new(about, medium, args.connections, args.payload, turns?, names, loads);
    run.finish(&report, Report::print)
}

/// What all turns have in common.
struct Comparison<'a> {
    args: &'a Args,
    run: &'a Run,
    bar: Bar,
    target: &'a Target,
    server_cpus: Vec<usize>,
    warp: Option<PathBuf>,
}

impl Comparison<'_> {
    /// All that there was time for: rounds that the user has ended are left out.
    fn turns(&self, recipes: &[Recipe]) -> anyhow::Result<Vec<Turn>> {
        let Args { load: loads, rounds, .. } = self.args;
        let tools = 1 + u32::from(self.warp.is_some());
        let mut left = u32::try_from(recipes.len() * loads.len())?.saturating_mul(rounds * tools);
        let mut turns = Vec::new();
        for round in 0..*rounds {
            for load in loads {
                for index in 0..recipes.len() {
                    let recipe = &recipes[(index + round as usize) % recipes.len()];
                    for with_warp in [false, true] {
                        if with_warp && self.warp.is_none() {
                            continue;
                        }
                        if self.run.is_interrupted() {
                            return Ok(turns);
                        }
                        let tool = if with_warp { "warp" } else { "anvil-bench" };
                        self.bar.say(format!(
                            "round {} of {rounds}: {} on {} by {tool}",
                            round + 1,
                            load.name,
                            recipe.name
                        ));
                        let time = (self.run.left() / left.max(1)).max(TURN_TIME_MIN);
                        left = left.saturating_sub(1);
                        let turn = self.turn(recipe, load, round, with_warp, time);
                        match turn.with_context(|| format!("{} of {} cannot be measured", load.name, recipe.name)) {
                            Ok(turn) => turns.push(turn),
                            // What was measured before is shown.
                            Err(_) if self.run.is_interrupted() => return Ok(turns),
                            Err(error) => return Err(error),
                        }
                    }
                }
            }
        }
        Ok(turns)
    }

    fn turn(&self, recipe: &Recipe, load: &Load, round: u32, with_warp: bool, time: Duration) -> anyhow::Result<Turn> {
        self.target.empty()?;
        clock::pin_to(&self.server_cpus)?;
        let running = Running::start(recipe, self.target.file(&recipe.name)?, self.run);
        // Those that load it run elsewhere.
        match self.args.run.cpu() {
            Some(cpu) => clock::pin(cpu)?,
            None => clock::pin_to(self.run.cpus())?,
        }
        let running = running?;
        let plan = load.plan(self.args);
        let turn = if with_warp {
            let program = self.warp.as_deref().expect("asked before");
            let before = running.watch()?;
            let seen = warp::drive(program, &running, load, &plan, self.target.file("warp")?, time)?;
            Turn::by_warp(recipe, &load.name, round, &seen, running.used_since(&before)?)
        } else {
            let limits = Limits { duration: time, count: None, prepared: false, keep: true };
            let report = s3::measure(&running.endpoint, &plan, limits, self.run, &self.bar)?;
            Turn::by_us(recipe, &load.name, round, report)
        };
        running.stop()?;
        self.target.empty()?;
        Ok(turn)
    }
}

/// What is asked for when nothing is said.
const LOADS: [&str; 11] = [
    "put:10MiB",
    "get:10MiB",
    "put:1MiB",
    "get:1MiB",
    "put:64KiB",
    "get:64KiB",
    "put:4KiB",
    "get:4KiB",
    "mixed:64KiB",
    "list:4KiB",
    "head:4KiB",
];
/// The shares of warp's `mixed`.
const MIXED: [(Operation, u32); 4] =
    [(Operation::Get, 45), (Operation::Head, 30), (Operation::Put, 15), (Operation::Delete, 10)];
const PREPARED_BYTES: u64 = 256 << 20;
const OBJECTS_MIN: u64 = 20;
const OBJECTS_MAX: u64 = 2000;
const PART_BYTES: u64 = 8 << 20;
const TURN_TIME_MIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_read() {
        let load: Load = "mixed:4KiB..64KiB".parse().unwrap();
        assert_eq!((load.mix.len(), load.sizes.choices().len()), (4, 5));
        let load: Load = "put:10MiB".parse().unwrap();
        assert_eq!((load.mix[0], load.objects()), ((Operation::Put, 1), 25));
        for load in LOADS {
            load.parse::<Load>().unwrap();
        }
        for wrong in ["put", "fetch:1KiB", "put:", ":1KiB"] {
            assert!(wrong.parse::<Load>().is_err(), "{wrong}");
        }
    }
}
