//! `anvil admin login`, `logout`, `user` and `role`.

use std::io::{self, IsTerminal as _, Read as _};
use std::time::Duration;

use anvil_proto::v1;
use clap::{Args, Subcommand};
use console::Term;
use serde_json::{Value, json};

use super::Failure;
use super::admin::{Common, Node, kept_token, tell};
use super::tenants::{either, table, time};

#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// Who; the password is asked for on the terminal
    #[arg(value_name = "NAME", required_unless_present = "named")]
    username: Option<String>,
    /// The same, by flag
    #[arg(long = "username", value_name = "NAME", conflicts_with = "username")]
    named: Option<String>,
    /// Reads the password from stdin, not from the terminal
    #[arg(long)]
    password_stdin: bool,
    /// Prints the token, for ANVIL_ADMIN_TOKEN, and does not keep it
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Makes a user, who may do what his role says; his password is asked for on the terminal
    Create {
        #[command(flatten)]
        user: UserName,
        /// Where he is written to
        #[arg(long, value_name = "ADDRESS")]
        email: String,
        /// SuperAdmin, ReadOnlyViewer, or one of `anvil admin role list`
        #[arg(long, value_name = "ROLE")]
        role: String,
        /// Reads the password from stdin, not from the terminal
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Lists the users
    List(Common),
    /// Shows a user
    Show {
        #[command(flatten)]
        user: UserName,
        #[command(flatten)]
        common: Common,
    },
    /// Changes a user
    Update {
        #[command(flatten)]
        user: UserName,
        /// Where he is written to
        #[arg(long, value_name = "ADDRESS")]
        email: Option<String>,
        /// SuperAdmin, ReadOnlyViewer, or one of `anvil admin role list`
        #[arg(long, value_name = "ROLE")]
        role: Option<String>,
        /// Another password, read from stdin; who is logged in as him is so no more
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Deletes a user; who is logged in as him is so no more
    Delete {
        #[command(flatten)]
        user: UserName,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
pub(super) struct UserName {
    /// His name: 1 to 64 letters, digits, '.', '_' and '-'
    #[arg(value_name = "NAME", required_unless_present = "named")]
    name: Option<String>,
    /// The same, by flag
    #[arg(long = "username", alias = "name", value_name = "NAME", conflicts_with = "name")]
    named: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum RoleCommand {
    /// Makes a role
    Create {
        /// Its name: 1 to 64 letters, digits, '.', '_' and '-'
        #[arg(value_name = "NAME")]
        name: String,
        /// What it allows: disk:read, disk:*, *:read and the like. Repeat it for several
        #[arg(long = "action", value_name = "ACTION", required = true)]
        actions: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Lists the roles and what they allow
    List(Common),
    /// Deletes a role that no user has
    Delete {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

impl UserName {
    fn get(self) -> String {
        either(self.name, self.named)
    }
}

pub(super) fn login(arguments: LoginArgs) -> Result<(), Failure> {
    let LoginArgs { username, named, password_stdin, print, common } = arguments;
    let username = either(username, named);
    let password = password(password_stdin, false)?;
    let request = v1::LoginRequest { username: username.clone(), password };
    let v1::LoginResponse { access_token, expires_in, role } = Node::stranger(&common)?.ask("Login", &request)?;
    if print {
        return tell(
            &common,
            || json!({ "access_token": access_token, "expires_in": expires_in, "role": role }),
            || format!("{access_token}\n"),
        );
    }
    kept_token(&common)?.keep(&access_token, Duration::from_secs(expires_in.into()));
    tell(
        &common,
        || json!({ "username": username, "role": role, "expires_in": expires_in }),
        || format!("{username} is logged in as {role}, for {} minutes\n", expires_in / 60),
    )
}

pub(super) fn logout(common: &Common) -> Result<(), Failure> {
    kept_token(common)?.forget();
    tell(common, || json!({ "logged_out": true }), || "the token of this host is gone\n".to_owned())
}

pub(super) fn user(command: UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Create { user, email, role, password_stdin, common } => {
            let password = password(password_stdin, true)?;
            let request = v1::CreateUserRequest { username: user.get(), email, role, password };
            let response: v1::CreateUserResponse = Node::open(&common)?.ask("CreateUser", &request)?;
            tell_user(&common, &response.user.unwrap_or_default())
        }
        UserCommand::List(common) => {
            let users = all_users(&common)?;
            tell(&common, || users.iter().map(user_to_json).collect(), || users_table(&users))
        }
        UserCommand::Show { user, common } => {
            let name = user.get();
            let user = all_users(&common)?.into_iter().find(|user| user.username == name);
            tell_user(&common, &user.ok_or_else(|| Failure::run(format!("there is no user {name}")))?)
        }
        UserCommand::Update { user, email, role, password_stdin, common } => {
            if email.is_none() && role.is_none() && !password_stdin {
                return Err(Failure::usage("nothing is to change: name --email, --role or --password-stdin"));
            }
            let password = if password_stdin { Some(password(true, true)?) } else { None };
            let request = v1::UpdateUserRequest { username: user.get(), email, role, password };
            let response: v1::UpdateUserResponse = Node::open(&common)?.ask("UpdateUser", &request)?;
            tell_user(&common, &response.user.unwrap_or_default())
        }
        UserCommand::Delete { user, common } => {
            let name = user.get();
            let request = v1::DeleteUserRequest { username: name.clone() };
            let v1::DeleteUserResponse {} = Node::open(&common)?.ask("DeleteUser", &request)?;
            tell(&common, || json!({ "deleted": name }), || format!("user {name} is deleted\n"))
        }
    }
}

pub(super) fn role(command: RoleCommand) -> Result<(), Failure> {
    match command {
        RoleCommand::Create { name, actions, common } => {
            let request = v1::CreateRoleRequest { name, actions };
            let response: v1::CreateRoleResponse = Node::open(&common)?.ask("CreateRole", &request)?;
            let role = response.role.unwrap_or_default();
            tell(&common, || role_to_json(&role), || roles_table(std::slice::from_ref(&role)))
        }
        RoleCommand::List(common) => {
            let response: v1::ListRolesResponse = Node::open(&common)?.ask("ListRoles", &v1::ListRolesRequest {})?;
            let roles = response.roles;
            tell(&common, || roles.iter().map(role_to_json).collect(), || roles_table(&roles))
        }
        RoleCommand::Delete { name, common } => {
            let request = v1::DeleteRoleRequest { name: name.clone() };
            let v1::DeleteRoleResponse {} = Node::open(&common)?.ask("DeleteRole", &request)?;
            tell(&common, || json!({ "deleted": name }), || format!("role {name} is deleted\n"))
        }
    }
}

fn all_users(common: &Common) -> Result<Vec<v1::User>, Failure> {
    let response: v1::ListUsersResponse = Node::open(common)?.ask("ListUsers", &v1::ListUsersRequest {})?;
    Ok(response.users)
}

/// A password: from stdin, or typed, twice when it is a new one.
fn password(from_stdin: bool, is_new: bool) -> Result<String, Failure> {
    if from_stdin {
        let mut text = String::new();
        let read = io::stdin().take(PASSWORD_READ_MAX).read_to_string(&mut text);
        read.map_err(|error| Failure::usage(format!("stdin: {error}")))?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask for the password: give it to --password-stdin"));
    }
    let password = typed("Password: ")?;
    if is_new && typed("Once more: ")? != password {
        return Err(Failure::usage("these are two passwords"));
    }
    Ok(password)
}

/// More than a password may have.
const PASSWORD_READ_MAX: u64 = 1024;

fn typed(prompt: &str) -> Result<String, Failure> {
    let term = Term::stderr();
    term.write_str(prompt).map_err(Failure::run)?;
    term.read_secure_line().map_err(Failure::run)
}

fn tell_user(common: &Common, user: &v1::User) -> Result<(), Failure> {
    tell(common, || user_to_json(user), || users_table(std::slice::from_ref(user)))
}

fn user_to_json(user: &v1::User) -> Value {
    let v1::User { username, email, role, created_at_ms } = user;
    json!({ "username": username, "email": email, "role": role, "created_at": time(*created_at_ms) })
}

fn users_table(users: &[v1::User]) -> String {
    let row = |user: &v1::User| {
        let v1::User { username, email, role, created_at_ms } = user.clone();
        vec![username, email, role, time(created_at_ms)]
    };
    table(&["USER", "E-MAIL", "ROLE", "CREATED"], users.iter().map(row).collect())
}

fn role_to_json(role: &v1::Role) -> Value {
    json!({ "name": role.name, "actions": role.actions })
}

fn roles_table(roles: &[v1::Role]) -> String {
    let row = |role: &v1::Role| vec![role.name.clone(), role.actions.join(" ")];
    table(&["ROLE", "ACTIONS"], roles.iter().map(row).collect())
}
