//! `grpc.health.v1.Health`: what `/ready` says, for gRPC. Asks for no token, as `/ready` does not.

use anvil_model::io::World as _;
use anvil_proto::health::health_check_response::ServingStatus;
use anvil_proto::health::{HealthCheckRequest, HealthCheckResponse};

use super::call::{Call, Wire};
use super::methods::methods;
use super::services::{LOOKED_EVERY, Services};
use super::status::{Code, Status};
use crate::routes::Ready;

methods! {
    "grpc.health.v1.Health":
    Check,
    Watch streams,
}

const SERVICES: [&str; 5] =
    ["", "anvil.v1.AdminService", "anvil.v1.AuthService", "anvil.v1.BucketService", "anvil.v1.ObjectService"];

impl Method {
    pub(super) async fn call<W: Wire>(self, services: &Services, call: &mut Call<'_, W>) -> Result<(), Status> {
        let HealthCheckRequest { service } = call.only_message().await?;
        let is_known = SERVICES.contains(&service.as_str());
        match self {
            Self::Check if !is_known => {
                let message = "this node has no service of this name";
                Err(Status::new(Code::NotFound, "NO_SUCH_SERVICE", message).about("service", service))
            }
            Self::Check => call.answer(&told(services)).await,
            Self::Watch => {
                let mut last = None;
                loop {
                    let now = if is_known { told(services) } else { is(ServingStatus::ServiceUnknown) };
                    if last != Some(now) {
                        call.answer(&now).await?;
                        last = Some(now);
                    }
                    if services.readiness.now() == Ready::Stopping {
                        return Err(services.stopping().await);
                    }
                    services.node.world().sleep(LOOKED_EVERY).await;
                }
            }
        }
    }
}

fn told(services: &Services) -> HealthCheckResponse {
    is(match services.readiness.now() {
        Ready::Serving => ServingStatus::Serving,
        Ready::Starting | Ready::Stopping | Ready::Without(_) => ServingStatus::NotServing,
    })
}

fn is(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_service_is_served() {
        let declared = super::super::methods::declared(include_str!("../../../proto/grpc/health/v1/health.proto"));
        assert_eq!(declared, Method::NAMES);
    }
}
