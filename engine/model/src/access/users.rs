//! The people who administrate, and their roles: what a change does to them.
//!
//! **Invariant:** nobody gives, or takes from somebody, more than what his own role allows.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::admin::{AdminPattern, AdminRights};
use super::state::{Refused, State, check_name, check_room};
use crate::time::WallTime;

/// Somebody who administrates with a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Where he is written to.
    pub email: String,
    /// The name of what he may do.
    pub role: String,
    /// Of his password.
    pub password: PasswordHash,
    /// Another number with each password, never given twice: tokens of an earlier one are good no more.
    pub credential: u64,
    /// When he was made.
    pub created_at: WallTime,
}

/// A role beside those that every node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// What it allows.
    pub actions: Vec<AdminPattern>,
    /// When it was made.
    pub created_at: WallTime,
}

/// A password as it is kept, in the words of the PHC string format; opaque here.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordHash(pub String);

/// What changes of a user; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in the rows")]
pub struct UserChange {
    pub email: Option<String>,
    pub role: Option<String>,
    pub password: Option<PasswordHash>,
}

/// Bounds of the state.
const USERS_MAX: usize = 1_000;
const ROLES_MAX: usize = 100;
const ROLE_ACTIONS_MAX: usize = 100;
/// RFC 5321, 4.5.3.1.3, without the brackets.
const EMAIL_BYTES_MAX: usize = 254;

impl State {
    /// What a role allows.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn role(&self, name: &str) -> Result<AdminRights, Refused> {
        let own = || self.roles.get(name).map(|role| AdminRights::new(role.actions.clone()));
        AdminRights::built_in(name).or_else(own).ok_or_else(|| Refused::NoSuchRole(name.to_owned()))
    }

    /// A user, and what he may do.
    #[must_use]
    pub fn user(&self, username: &str) -> Option<(&User, AdminRights)> {
        let user = self.users.get(username)?;
        // A role that a newer version wrote allows nothing here.
        Some((user, self.role(&user.role).unwrap_or_default()))
    }

    pub(super) fn create_user(&mut self, name: &str, user: User, by: Option<&str>) -> Result<(), Refused> {
        check_name(name)?;
        check_email(&user.email)?;
        self.check_covers(by, &user.role)?;
        if self.users.contains_key(name) {
            return Err(Refused::UserExists(name.to_owned()));
        }
        check_room(self.users.len(), USERS_MAX, "users")?;
        self.users.insert(name.to_owned(), user);
        Ok(())
    }

    pub(super) fn update_user(&mut self, name: &str, change: &UserChange, by: Option<&str>) -> Result<(), Refused> {
        let mut user = self.found_user(name)?.clone();
        self.check_covers(by, &user.role)?;
        if let Some(email) = &change.email {
            check_email(email)?;
            user.email.clone_from(email);
        }
        if let Some(role) = &change.role {
            self.check_covers(by, role)?;
            user.role.clone_from(role);
        }
        if let Some(password) = &change.password {
            user.password = password.clone();
            user.credential = self.revision + 1;
        }
        self.users.insert(name.to_owned(), user);
        Ok(())
    }

    pub(super) fn delete_user(&mut self, name: &str, by: Option<&str>) -> Result<(), Refused> {
        let role = self.found_user(name)?.role.clone();
        self.check_covers(by, &role)?;
        self.users.remove(name);
        Ok(())
    }

    pub(super) fn create_role(
        &mut self,
        name: &str,
        actions: &[AdminPattern],
        by: Option<&str>,
        at: WallTime,
    ) -> Result<(), Refused> {
        check_name(name)?;
        if actions.is_empty() || actions.len() > ROLE_ACTIONS_MAX {
            return Err(Refused::RoleSize);
        }
        if self.role(name).is_ok() {
            return Err(Refused::RoleExists(name.to_owned()));
        }
        check_room(self.roles.len(), ROLES_MAX, "roles")?;
        self.roles.insert(name.to_owned(), Role { actions: actions.to_vec(), created_at: at });
        self.check_covers(by, name)
    }

    pub(super) fn delete_role(&mut self, name: &str, by: Option<&str>) -> Result<(), Refused> {
        if AdminRights::built_in(name).is_some() {
            return Err(Refused::BuiltInRole(name.to_owned()));
        }
        self.check_covers(by, name)?;
        if self.users.values().any(|user| user.role == name) {
            return Err(Refused::RoleInUse(name.to_owned()));
        }
        self.roles.remove(name);
        Ok(())
    }

    fn found_user(&self, name: &str) -> Result<&User, Refused> {
        self.users.get(name).ok_or_else(|| Refused::NoSuchUser(name.to_owned()))
    }

    /// Whether who asks may do all that this role may. The node's own app, which is nobody's user, may do everything.
    fn check_covers(&self, by: Option<&str>, role: &str) -> Result<(), Refused> {
        let wanted = self.role(role)?;
        let held = match by {
            None => AdminRights::all(),
            Some(by) => self.user(by).map(|(_, rights)| rights).unwrap_or_default(),
        };
        if held.cover(&wanted) { Ok(()) } else { Err(Refused::BeyondRole(role.to_owned())) }
    }
}

fn check_email(text: &str) -> Result<(), Refused> {
    let is_sound = text.len() <= EMAIL_BYTES_MAX && text.chars().all(|c| !c.is_control() && !c.is_whitespace());
    let has_two_parts = text.rsplit_once('@').is_some_and(|(local, host)| !local.is_empty() && !host.is_empty());
    if is_sound && has_two_parts { Ok(()) } else { Err(Refused::Email(text.chars().take(EMAIL_BYTES_MAX).collect())) }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::admin::AdminArea;
    use super::super::state::Command;
    use super::*;
    use crate::ids::TenantId;

    const OWN: TenantId = TenantId(1);
    const AT: WallTime = WallTime { unix_ms: 7 };

    /// A state after these words: `role keeper disk:* repair:read`, `user ann keeper`, `demote ann x`, `password ann`, ...;
    /// `by` says who asks.
    fn after(state: &State, by: Option<&str>, words: &str) -> Result<State, Refused> {
        let words: Vec<&str> = words.split(' ').collect();
        let by = by.map(str::to_owned);
        let password = || PasswordHash("$argon2id$x".to_owned());
        let command = match words[..] {
            ["user", name, role] => Command::CreateUser {
                username: name.to_owned(),
                email: "a@example.com".to_owned(),
                role: role.to_owned(),
                password: password(),
                by,
            },
            ["give", name, role] => Command::UpdateUser {
                username: name.to_owned(),
                change: UserChange { role: Some(role.to_owned()), ..UserChange::default() },
                by,
            },
            ["password", name] => Command::UpdateUser {
                username: name.to_owned(),
                change: UserChange { password: Some(password()), ..UserChange::default() },
                by,
            },
            ["delete", name] => Command::DeleteUser { username: name.to_owned(), by },
            ["role", name, ref actions @ ..] => Command::CreateRole {
                name: name.to_owned(),
                actions: actions.iter().map(|text| text.parse().unwrap()).collect(),
                by,
            },
            ["end", name] => Command::DeleteRole { name: name.to_owned(), by },
            _ => panic!("{words:?}"),
        };
        state.apply(&command, OWN, AT)
    }

    fn built(lines: &[&str]) -> State {
        lines.iter().fold(State::new(OWN, AT), |state, line| {
            after(&state, None, line).unwrap_or_else(|e| panic!("{line}: {e}"))
        })
    }

    #[test]
    fn a_user_may_do_what_his_role_says() {
        let state = built(&[
            "role keeper disk:* repair:read",
            "user ann SuperAdmin",
            "user bob ReadOnlyViewer",
            "user cem keeper",
        ]);
        let may = |name: &str, action| state.user(name).unwrap().1.allow(action);
        for area in AdminArea::ALL {
            assert!(may("ann", area.read()) && may("ann", area.write()));
            assert!(may("bob", area.read()) && !may("bob", area.write()));
        }
        assert!(may("cem", AdminArea::Disk.write()) && may("cem", AdminArea::Repair.read()));
        assert!(!may("cem", AdminArea::Repair.write()) && !may("cem", AdminArea::Tenant.read()));
        assert!(state.user("dan").is_none());
        let state = after(&state, None, "give cem ReadOnlyViewer").unwrap();
        assert!(!state.user("cem").unwrap().1.allow(AdminArea::Disk.write()));
    }

    #[test]
    fn nobody_gives_or_takes_more_than_he_has() {
        let state = built(&[
            "role keeper disk:* user:* role:*",
            "role watcher disk:read",
            "user ann keeper",
            "user boss SuperAdmin",
            "user bob watcher",
        ]);
        let ann = Some("ann");
        for words in [
            "user eve SuperAdmin",
            "user eve ReadOnlyViewer",
            "give ann SuperAdmin",
            "give bob ReadOnlyViewer",
            "give boss watcher",
            "password boss",
            "delete boss",
            "role mine *:*",
            "role mine disk:read tenant:read",
        ] {
            assert!(matches!(after(&state, ann, words), Err(Refused::BeyondRole(_))), "{words}");
        }
        for words in [
            "user eve watcher",
            "user eve keeper",
            "password bob",
            "delete bob",
            "give ann watcher",
            "role mine disk:read user:read",
        ] {
            assert!(after(&state, ann, words).is_ok(), "{words}");
        }
        assert!(matches!(after(&state, Some("gone"), "delete bob"), Err(Refused::BeyondRole(_))));
        assert!(after(&state, Some("boss"), "delete ann").is_ok());
    }

    #[test]
    fn another_password_or_user_of_the_name_is_another_credential() {
        let state = built(&["user ann SuperAdmin"]);
        let credential = |state: &State| state.users["ann"].credential;
        let first = credential(&state);
        let given = after(&state, None, "give ann ReadOnlyViewer").unwrap();
        assert_eq!(credential(&given), first);
        let second = after(&given, None, "password ann").unwrap();
        assert_ne!(credential(&second), first);
        let third = after(&after(&second, None, "delete ann").unwrap(), None, "user ann SuperAdmin").unwrap();
        assert!(![first, credential(&second)].contains(&credential(&third)));
        assert!(!format!("{third:?}").contains("argon2"), "no log shows it");
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let state = built(&["role keeper disk:*", "user ann keeper"]);
        let refused = |words: &str| after(&state, None, words).unwrap_err();
        assert_eq!(refused("user ann SuperAdmin"), Refused::UserExists("ann".to_owned()));
        assert_eq!(refused("user bob Nobody"), Refused::NoSuchRole("Nobody".to_owned()));
        assert_eq!(refused("give bob keeper"), Refused::NoSuchUser("bob".to_owned()));
        assert_eq!(refused("delete bob"), Refused::NoSuchUser("bob".to_owned()));
        assert_eq!(refused("role keeper disk:read"), Refused::RoleExists("keeper".to_owned()));
        assert_eq!(refused("role SuperAdmin disk:read"), Refused::RoleExists("SuperAdmin".to_owned()));
        assert_eq!(refused("role empty"), Refused::RoleSize);
        assert_eq!(refused("end keeper"), Refused::RoleInUse("keeper".to_owned()));
        assert_eq!(refused("end SuperAdmin"), Refused::BuiltInRole("SuperAdmin".to_owned()));
        assert_eq!(refused("end gone"), Refused::NoSuchRole("gone".to_owned()));
        assert!(after(&after(&state, None, "delete ann").unwrap(), None, "end keeper").is_ok());
        for email in ["", "ann", "@", "a@", "@b", "a b@c", "a\n@b", &format!("{}@b", "x".repeat(254))] {
            assert!(check_email(email).is_err(), "{email}");
        }
    }
}
