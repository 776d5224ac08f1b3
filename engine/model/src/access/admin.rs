//! What administrators may do: an area of `AdminService`, to read or to write; and roles, which are sets of that.
//!
//! The words share nothing with those of apps: what an app was granted, `*` included, is never anything of these.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an administrator asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "named as in AdminService")]
pub enum AdminArea {
    Disk,
    Repair,
    StorageClass,
    Bucket,
    Tenant,
    App,
    Policy,
    User,
    Role,
    Token,
    Key,
    Cache,
    Task,
    Region,
    Audit,
}

/// Whether something is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminVerb {
    /// Looks, and changes nothing.
    Read,
    /// Changes something, or gives something away.
    Write,
}

/// One thing that an administrator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdminAction {
    /// What it is about.
    pub area: AdminArea,
    /// Whether it changes something.
    pub verb: AdminVerb,
}

/// A set of actions: `disk:write`, `disk:*`, `*:read`, `*:*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AdminPattern {
    /// Every area when there is none, also those of later versions.
    area: Option<AdminArea>,
    /// Both when there is none.
    verb: Option<AdminVerb>,
}

/// What somebody may do as an administrator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminRights(Vec<AdminPattern>);

/// The text names no set of administrators' actions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an administrator's action is AREA:read, AREA:write or AREA:*, AREA being * or one of {areas}, and {text:?} is none",
    areas = areas()
)]
pub struct InvalidAdminAction {
    text: String,
}

/// The role that may do everything.
pub const SUPER_ADMIN: &str = "SuperAdmin";
/// The role that may look at everything and change nothing.
pub const READ_ONLY_VIEWER: &str = "ReadOnlyViewer";

impl AdminArea {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Disk,
        Self::Repair,
        Self::StorageClass,
        Self::Bucket,
        Self::Tenant,
        Self::App,
        Self::Policy,
        Self::User,
        Self::Role,
        Self::Token,
        Self::Key,
        Self::Cache,
        Self::Task,
        Self::Region,
        Self::Audit,
    ];

    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Repair => "repair",
            Self::StorageClass => "storage-class",
            Self::Bucket => "bucket",
            Self::Tenant => "tenant",
            Self::App => "app",
            Self::Policy => "policy",
            Self::User => "user",
            Self::Role => "role",
            Self::Token => "token",
            Self::Key => "key",
            Self::Cache => "cache",
            Self::Task => "task",
            Self::Region => "region",
            Self::Audit => "audit",
        }
    }

    /// Looking at it.
    #[must_use]
    pub const fn read(self) -> AdminAction {
        AdminAction { area: self, verb: AdminVerb::Read }
    }

    /// Changing it.
    #[must_use]
    pub const fn write(self) -> AdminAction {
        AdminAction { area: self, verb: AdminVerb::Write }
    }
}

impl AdminVerb {
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl AdminPattern {
    /// Every action.
    pub const ALL: Self = Self { area: None, verb: None };
    /// Every one that changes nothing.
    pub const READ: Self = Self { area: None, verb: Some(AdminVerb::Read) };

    fn allows(self, action: AdminAction) -> bool {
        self.area.is_none_or(|area| area == action.area) && self.verb.is_none_or(|verb| verb == action.verb)
    }

    fn covers(self, other: Self) -> bool {
        (self.area.is_none() || self.area == other.area) && (self.verb.is_none() || self.verb == other.verb)
    }
}

impl AdminRights {
    /// Every one of these.
    #[must_use]
    pub fn new(patterns: impl Into<Vec<AdminPattern>>) -> Self {
        Self(patterns.into())
    }

    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![AdminPattern::ALL])
    }

    /// Those of a role that every node has; `None` for another one.
    #[must_use]
    pub fn built_in(role: &str) -> Option<Self> {
        match role {
            SUPER_ADMIN => Some(Self::all()),
            READ_ONLY_VIEWER => Some(Self(vec![AdminPattern::READ])),
            _ => None,
        }
    }

    /// What they are.
    #[must_use]
    pub fn patterns(&self) -> &[AdminPattern] {
        &self.0
    }

    /// The decision: whether this may be done.
    #[must_use]
    pub fn allow(&self, action: AdminAction) -> bool {
        self.0.iter().any(|pattern| pattern.allows(action))
    }

    /// Whether nobody gets more with `other` than with these.
    #[must_use]
    pub fn cover(&self, other: &Self) -> bool {
        other.0.iter().all(|wanted| self.0.iter().any(|held| held.covers(*wanted)))
    }
}

impl fmt::Display for AdminAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.area.name(), self.verb.name())
    }
}

impl fmt::Display for AdminPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.area.map_or("*", AdminArea::name), self.verb.map_or("*", AdminVerb::name))
    }
}

impl FromStr for AdminPattern {
    type Err = InvalidAdminAction;

    fn from_str(text: &str) -> Result<Self, InvalidAdminAction> {
        let wrong = || InvalidAdminAction { text: text.chars().take(64).collect() };
        let (area, verb) = text.split_once(':').ok_or_else(wrong)?;
        let area = match area {
            "*" => None,
            name => Some(AdminArea::ALL.into_iter().find(|area| area.name() == name).ok_or_else(wrong)?),
        };
        let verb = match verb {
            "*" => None,
            "read" => Some(AdminVerb::Read),
            "write" => Some(AdminVerb::Write),
            _ => return Err(wrong()),
        };
        Ok(Self { area, verb })
    }
}

impl TryFrom<String> for AdminPattern {
    type Error = InvalidAdminAction;

    fn try_from(text: String) -> Result<Self, InvalidAdminAction> {
        text.parse()
    }
}

impl From<AdminPattern> for String {
    fn from(pattern: AdminPattern) -> Self {
        pattern.to_string()
    }
}

fn areas() -> String {
    AdminArea::ALL.map(AdminArea::name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(texts: &[&str]) -> AdminRights {
        AdminRights::new(texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for area in AdminArea::ALL {
            for action in [area.read(), area.write()] {
                let pattern: AdminPattern = action.to_string().parse().unwrap();
                assert_eq!(pattern.to_string(), action.to_string());
                let allowed = |other: AdminAction| pattern.allows(other);
                let others = AdminArea::ALL.into_iter().flat_map(|area| [area.read(), area.write()]);
                assert_eq!(others.filter(|other| allowed(*other)).collect::<Vec<_>>(), [action]);
            }
        }
        for text in ["disk:*", "*:read", "*:*"] {
            assert_eq!(text.parse::<AdminPattern>().unwrap().to_string(), text);
        }
        for wrong in ["", "*", "disk", "disk:", ":read", "disk:list", "object:read", "disk:read:write", "Disk:read"] {
            assert!(wrong.parse::<AdminPattern>().is_err(), "{wrong}");
        }
    }

    /// Goal: a set that covers another allows all that the other does. Method: every pair of sets of one pattern.
    #[test]
    fn who_covers_a_role_may_do_all_of_it() {
        let texts = ["*:*", "*:read", "*:write", "disk:*", "disk:read", "disk:write", "task:*", "task:write"];
        for held in texts {
            for wanted in texts {
                let (held, wanted) = (rights(&[held]), rights(&[wanted]));
                let every = AdminArea::ALL.into_iter().flat_map(|area| [area.read(), area.write()]);
                let allowed = every.filter(|action| wanted.allow(*action)).all(|action| held.allow(action));
                assert_eq!(held.cover(&wanted), allowed, "{held:?} {wanted:?}");
            }
        }
        assert!(rights(&["disk:read", "disk:write"]).cover(&rights(&["disk:read"])));
        assert!(!rights(&["disk:*"]).cover(&rights(&["disk:read", "task:read"])));
        assert!(rights(&[]).cover(&rights(&[])) && !rights(&[]).allow(AdminArea::Disk.read()));
    }
}
