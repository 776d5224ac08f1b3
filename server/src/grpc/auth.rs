//! `anvil.v1.AuthService`.

use anvil_model::io::World as _;
use anvil_proto::v1;

use super::access::LIFETIME_SECONDS;
use super::call::{Call, Wire};
use super::methods::methods;
use super::services::Services;
use super::status::Status;

methods! {
    "anvil.v1.AuthService":
    GetAccessToken,
}

impl Method {
    pub(super) async fn call<W: Wire>(self, services: &Services, call: &mut Call<'_, W>) -> Result<(), Status> {
        match self {
            Self::GetAccessToken => {
                let v1::GetAccessTokenRequest { client_id, client_secret, scopes } = call.only_message().await?;
                let world = services.node.world();
                services.gate.admission.login_of(&client_id, world.now())?;
                let random = u128::from(world.random()) << 64 | u128::from(world.random());
                let now = world.wall_clock();
                let access_token = services.gate.tokens.give(&client_id, &client_secret, scopes, now, random)?;
                call.answer(&v1::GetAccessTokenResponse { access_token, expires_in: LIFETIME_SECONDS }).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_service_is_served() {
        let declared = super::super::methods::declared(include_str!("../../../proto/anvil/v1/auth.proto"));
        assert_eq!(declared, Method::NAMES);
    }
}
