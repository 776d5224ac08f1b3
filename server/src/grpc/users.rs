//! The part of `anvil.v1.AdminService` that is about those who administrate: logging in, users and their roles.

use anvil_model::access::{AdminPattern, AdminRights, Command, READ_ONLY_VIEWER, SUPER_ADMIN, UserChange};
use anvil_model::io::World as _;
use anvil_proto::v1;

use super::call::{Call, Wire};
use super::services::Services;
use super::session::LIFETIME_SECONDS;
use super::status::{Code, Status};
use super::tenants::TenantsOf;
use crate::access::{By, KeepError, log};

/// Gives a token for a password. Who comes was looked at, and how often; whose password it is says the message.
pub(super) async fn login<W: Wire>(services: &Services, call: &mut Call<'_, W>) -> Result<(), Status> {
    let v1::LoginRequest { username, password } = call.only_message().await?;
    let world = services.node.world().clone();
    let admission = &services.gate.admission;
    admission.login_of(&format!("user:{username}"), world.now())?;
    let kept = services.keeper.known()?.state.users.get(&username).cloned();
    let hash = kept.as_ref().map(|user| user.password.clone());
    let fits = services.keeper.passwords().check(password, hash).await.map_err(KeepError::from)?;
    let from = admission.client(call.head).to_string();
    let by = By { who: format!("user:{username}"), user: Some(username.clone()), from };
    let Some(user) = kept.filter(|_| fits) else {
        // Only in the log: a stranger's guesses would push everything else out of the audit. Not even there the name, in
        // whose place people type passwords.
        log(&By { who: "user".to_owned(), ..by }, "login", "", "wrong user or password");
        let message = "no user has this name and this password";
        return Err(Status::new(Code::Unauthenticated, "CREDENTIALS_WRONG", message));
    };
    services.keeper.note(&services.node, &by, "login", user.role.clone(), "ok").await;
    let random = u128::from(world.random()) << 64 | u128::from(world.random());
    let access_token = services.gate.authority.sessions().give(&username, &user, world.wall_clock(), random)?;
    call.answer(&v1::LoginResponse { access_token, expires_in: LIFETIME_SECONDS, role: user.role }).await
}

impl TenantsOf<'_> {
    pub(super) async fn create_user(&self, request: v1::CreateUserRequest) -> Result<v1::CreateUserResponse, Status> {
        let v1::CreateUserRequest { username, email, role, password } = request;
        let password = self.services.keeper.passwords().hash(password).await.map_err(KeepError::from)?;
        let by = self.by.user.clone();
        let known = self.change(Command::CreateUser { username: username.clone(), email, role, password, by }).await?;
        let user = known.state.users.get(&username).map(|kept| user(&username, kept));
        Ok(v1::CreateUserResponse { user })
    }

    pub(super) fn list_users(&self, _: v1::ListUsersRequest) -> Result<v1::ListUsersResponse, Status> {
        let known = self.known()?;
        Ok(v1::ListUsersResponse { users: known.state.users.iter().map(|(name, kept)| user(name, kept)).collect() })
    }

    pub(super) async fn update_user(&self, request: v1::UpdateUserRequest) -> Result<v1::UpdateUserResponse, Status> {
        let v1::UpdateUserRequest { username, email, role, password } = request;
        let password = match password {
            None => None,
            Some(password) => Some(self.services.keeper.passwords().hash(password).await.map_err(KeepError::from)?),
        };
        let (change, by) = (UserChange { email, role, password }, self.by.user.clone());
        let known = self.change(Command::UpdateUser { username: username.clone(), change, by }).await?;
        let user = known.state.users.get(&username).map(|kept| user(&username, kept));
        Ok(v1::UpdateUserResponse { user })
    }

    pub(super) async fn delete_user(
        &self,
        v1::DeleteUserRequest { username }: v1::DeleteUserRequest,
    ) -> Result<v1::DeleteUserResponse, Status> {
        self.change(Command::DeleteUser { username, by: self.by.user.clone() }).await?;
        Ok(v1::DeleteUserResponse {})
    }

    pub(super) async fn create_role(&self, request: v1::CreateRoleRequest) -> Result<v1::CreateRoleResponse, Status> {
        let v1::CreateRoleRequest { name, actions } = request;
        let read = |text: &String| {
            let wrong = |error: anvil_model::access::InvalidAdminAction| {
                Status::new(Code::InvalidArgument, "INVALID_ACTION", error.to_string()).about("action", text)
            };
            text.parse::<AdminPattern>().map_err(wrong)
        };
        let actions: Vec<AdminPattern> = actions.iter().map(read).collect::<Result<_, _>>()?;
        let told = role(&name, &actions);
        self.change(Command::CreateRole { name, actions, by: self.by.user.clone() }).await?;
        Ok(v1::CreateRoleResponse { role: Some(told) })
    }

    pub(super) fn list_roles(&self, _: v1::ListRolesRequest) -> Result<v1::ListRolesResponse, Status> {
        let known = self.known()?;
        let built_in = [SUPER_ADMIN, READ_ONLY_VIEWER];
        let built_in = built_in.map(|name| role(name, AdminRights::built_in(name).unwrap_or_default().patterns()));
        let own = known.state.roles.iter().map(|(name, kept)| role(name, &kept.actions));
        Ok(v1::ListRolesResponse { roles: built_in.into_iter().chain(own).collect() })
    }

    pub(super) async fn delete_role(
        &self,
        v1::DeleteRoleRequest { name }: v1::DeleteRoleRequest,
    ) -> Result<v1::DeleteRoleResponse, Status> {
        self.change(Command::DeleteRole { name, by: self.by.user.clone() }).await?;
        Ok(v1::DeleteRoleResponse {})
    }
}

fn user(username: &str, kept: &anvil_model::access::User) -> v1::User {
    v1::User {
        username: username.to_owned(),
        email: kept.email.clone(),
        role: kept.role.clone(),
        created_at_ms: kept.created_at.unix_ms,
    }
}

fn role(name: &str, actions: &[AdminPattern]) -> v1::Role {
    v1::Role { name: name.to_owned(), actions: actions.iter().map(ToString::to_string).collect() }
}
