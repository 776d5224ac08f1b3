//! The part of `anvil.v1.AdminService` that is about regions.

use std::time::Duration;

use anvil_proto::v1;

use super::services::Services;
use super::status::{Code, Status};
use crate::access::By;
use crate::metadata::postgres::registry::Region;
use crate::regions::RegionError;

/// These methods, for one call.
pub(super) struct RegionsOf<'a> {
    pub(super) services: &'a Services,
    pub(super) by: By,
}

impl RegionsOf<'_> {
    pub(super) async fn list(&self, _: v1::ListRegionsRequest) -> Result<v1::ListRegionsResponse, Status> {
        let regions = self.services.regions.list().await?;
        Ok(v1::ListRegionsResponse { regions: regions.into_iter().map(told).collect() })
    }

    pub(super) async fn create(
        &self,
        v1::CreateRegionRequest { name }: v1::CreateRegionRequest,
    ) -> Result<v1::CreateRegionResponse, Status> {
        let Services { regions, keeper, node, .. } = self.services;
        let made = regions.make(&name).await;
        let outcome = made.as_ref().err().map_or_else(|| "ok".to_owned(), ToString::to_string);
        keeper.note(node, &self.by, "region create", name.clone(), &outcome).await;
        made?;
        let region = regions.list().await?.into_iter().find(|region| region.name == name);
        Ok(v1::CreateRegionResponse { region: region.map(told) })
    }
}

fn told(Region { name, joined, buckets }: Region) -> v1::Region {
    v1::Region { name, joined, buckets }
}

impl From<RegionError> for Status {
    fn from(error: RegionError) -> Self {
        let message = error.to_string();
        match error {
            RegionError::Name(_) => Self::new(Code::InvalidArgument, "INVALID_REQUEST", message),
            RegionError::Alone(_) => Self::new(Code::FailedPrecondition, "ONE_REGION", message),
            RegionError::Away(_) => Self::new(Code::Unavailable, "REGIONS_AWAY", message).retry_after(SOON),
        }
    }
}

const SOON: Duration = Duration::from_secs(1);
