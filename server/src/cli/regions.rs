//! `anvil admin region`.

use anvil_proto::v1;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Failure;
use super::admin::{Common, Node, tell};
use super::tenants::{either, table};

#[derive(Debug, Subcommand)]
pub(super) enum RegionCommand {
    /// Makes a region known, if it is not: its first node joins it without --init-cluster
    Create(OneRegion),
    /// Lists the regions
    List(Common),
    /// Shows a region
    Show(OneRegion),
}

#[derive(Debug, Args)]
pub(super) struct OneRegion {
    /// Its name: 1 to 63 letters, digits and hyphens
    #[arg(required_unless_present = "named")]
    name: Option<String>,
    /// The same
    #[arg(long = "name", id = "named", value_name = "NAME", conflicts_with = "name")]
    named: Option<String>,
    #[command(flatten)]
    common: Common,
}

pub(super) fn region(command: RegionCommand) -> Result<(), Failure> {
    match command {
        RegionCommand::Create(OneRegion { name, named, common }) => {
            let request = v1::CreateRegionRequest { name: either(name, named) };
            let response: v1::CreateRegionResponse = Node::open(&common)?.ask("CreateRegion", &request)?;
            let region = response.region.unwrap_or_default();
            let told = match region.joined {
                true => format!("region {} is there\n", region.name),
                false => format!("region {} is known; its first node joins it\n", region.name),
            };
            tell(&common, || to_json(&region), || told)
        }
        RegionCommand::List(common) => {
            let regions = all(&common)?;
            tell(&common, || regions.iter().map(to_json).collect(), || to_table(&regions))
        }
        RegionCommand::Show(OneRegion { name, named, common }) => {
            let name = either(name, named);
            let region = all(&common)?.into_iter().find(|region| region.name == name);
            let region = region.ok_or_else(|| Failure::run(format!("there is no region {name}")))?;
            tell(&common, || to_json(&region), || to_table(std::slice::from_ref(&region)))
        }
    }
}

fn all(common: &Common) -> Result<Vec<v1::Region>, Failure> {
    let response: v1::ListRegionsResponse = Node::open(common)?.ask("ListRegions", &v1::ListRegionsRequest {})?;
    Ok(response.regions)
}

fn to_json(region: &v1::Region) -> Value {
    json!({ "name": region.name, "joined": region.joined, "buckets": region.buckets })
}

fn to_table(regions: &[v1::Region]) -> String {
    let row = |region: &v1::Region| {
        let state = if region.joined { "joined" } else { "awaited" };
        let buckets = region.buckets.map_or_else(|| "-".to_owned(), |count| count.to_string());
        vec![region.name.clone(), state.to_owned(), buckets]
    };
    table(&["REGION", "STATE", "BUCKETS"], regions.iter().map(row).collect())
}
