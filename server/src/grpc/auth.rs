//! `anvil.v1.AuthService`: tokens, and what apps of one tenant allow one another.

use anvil_model::access::{Action, ActionPattern, AppName, Command, Pattern, PublicBucket, Resource};
use anvil_model::io::World as _;
use anvil_proto::v1;

use super::access::{Asker, LIFETIME_SECONDS};
use super::call::{Call, Wire};
use super::methods::methods;
use super::services::Services;
use super::status::Status;
use super::tenants::{read_action, read_resource};
use super::words;
use crate::access::By;
use crate::http::Head;

methods! {
    "anvil.v1.AuthService":
    GetAccessToken,
    GrantAccess,
    RevokeAccess,
    SetPublicAccess,
}

/// Gives a token to whoever knows a secret.
pub(super) async fn give_token<W: Wire>(services: &Services, call: &mut Call<'_, W>) -> Result<(), Status> {
    let v1::GetAccessTokenRequest { client_id, client_secret, scopes } = call.only_message().await?;
    let world = services.node.world();
    services.gate.admission.login_of(&client_id, world.now())?;
    let random = u128::from(world.random()) << 64 | u128::from(world.random());
    let now = world.wall_clock();
    let access_token = services.gate.tokens.give(&client_id, &client_secret, scopes, now, random)?;
    call.answer(&v1::GetAccessTokenResponse { access_token, expires_in: LIFETIME_SECONDS }).await
}

impl Method {
    /// All methods that ask for a token.
    pub(super) async fn call<W: Wire>(
        self,
        services: &Services,
        asker: Asker,
        call: &mut Call<'_, W>,
    ) -> Result<(), Status> {
        match self {
            Self::GetAccessToken => give_token(services, call).await,
            Self::GrantAccess => {
                let v1::GrantAccessRequest { app_name, action, resource } = call.only_message().await?;
                let (action, resource) = (read_action(&action)?, read_resource(&resource)?);
                asker.may_share(Action::PolicyGrant, Some(action), &resource)?;
                let app = neighbour(services, &asker, app_name)?;
                let by = passed_on_by(services, &asker);
                change(services, &asker, call.head, Command::Grant { app, action, resource, by }).await?;
                call.answer(&v1::GrantAccessResponse {}).await
            }
            Self::RevokeAccess => {
                let v1::RevokeAccessRequest { app_name, action, resource } = call.only_message().await?;
                let (action, resource): (ActionPattern, Pattern) = (read_action(&action)?, read_resource(&resource)?);
                asker.may_share(Action::PolicyRevoke, None, &resource)?;
                let app = neighbour(services, &asker, app_name)?;
                let by = passed_on_by(services, &asker);
                change(services, &asker, call.head, Command::Revoke { app, action, resource, by }).await?;
                call.answer(&v1::RevokeAccessResponse {}).await
            }
            Self::SetPublicAccess => {
                let v1::SetPublicAccessRequest { bucket_name, allow } = call.only_message().await?;
                set_public(services, &asker, call.head, &bucket_name, allow).await?;
                call.answer(&v1::SetPublicAccessResponse {}).await
            }
        }
    }
}

/// Lets everybody read a bucket of the asker's tenant, or not any more.
pub(super) async fn set_public(
    services: &Services,
    asker: &Asker,
    head: &Head,
    bucket: &str,
    public: bool,
) -> Result<(), Status> {
    let caller = asker.may(Action::BucketWrite, Resource::Bucket(bucket))?;
    let name = words::bucket_name(bucket)?;
    let info = services.node.head_bucket(caller, name.clone()).await?;
    let bucket = PublicBucket { name, tenant: caller.tenant };
    change(services, asker, head, Command::SetPublic { id: info.id, bucket, public }).await
}

/// An app of the asker's own tenant.
fn neighbour(services: &Services, asker: &Asker, name: String) -> Result<AppName, Status> {
    let known = services.keeper.known()?;
    Ok(AppName { tenant: Some(known.state.tenant_name(asker.tenant()).to_owned()), name })
}

/// In whose name something is granted. The node's own app, which is no app of the state and may do everything in its tenant,
/// says it as an administrator does; all others can pass on only what was granted to them.
fn passed_on_by(services: &Services, asker: &Asker) -> Option<String> {
    (!services.gate.tokens.is_own(asker)).then(|| asker.app().to_owned())
}

async fn change(services: &Services, asker: &Asker, head: &Head, command: Command) -> Result<(), Status> {
    let by = By { who: asker.app().to_owned(), user: None, from: services.gate.admission.client(head).to_string() };
    Ok(services.keeper.change(&services.node, &by, command).await.map(drop)?)
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
