//! What can be allowed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// One thing that a request wants to do. Which operation needs which stands in `docs/OPERATIONS.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action {
            $($(#[$doc])* $name,)*
        }

        impl Action {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As grants write it: `family:verb`.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

actions! {
    /// Making a bucket of this name.
    BucketCreate = "bucket:create";
    /// Deleting an empty bucket.
    BucketDelete = "bucket:delete";
    /// Looking at a bucket and its settings, not at what is in it.
    BucketRead = "bucket:read";
    /// Changing the settings of a bucket.
    BucketWrite = "bucket:write";
    /// Listing the buckets of the tenant. Its resource is all of them.
    BucketList = "bucket:list";
    /// Reading an object, its metadata included.
    ObjectRead = "object:read";
    /// Storing an object, in one piece or in parts.
    ObjectWrite = "object:write";
    /// Deleting an object.
    ObjectDelete = "object:delete";
    /// Listing the keys of a bucket, its versions and uploads under way.
    ObjectList = "object:list";
    /// Passing on what one may do oneself.
    PolicyGrant = "policy:grant";
    /// Taking back what was passed on.
    PolicyRevoke = "policy:revoke";
}

impl Action {
    /// What stands before the colon.
    #[must_use]
    pub fn family(self) -> Family {
        let name = self.text().split(':').next().unwrap_or_default();
        *Family::ALL.iter().find(|family| family.text() == name).expect("each action is of a family")
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Actions on one kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum Family {
    Bucket,
    Object,
    Policy,
}

impl Family {
    const ALL: [Self; 3] = [Self::Bucket, Self::Object, Self::Policy];

    const fn text(self) -> &'static str {
        match self {
            Self::Bucket => "bucket",
            Self::Object => "object",
            Self::Policy => "policy",
        }
    }
}

/// The actions that a grant allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ActionPattern {
    /// `*`
    Any,
    /// All of a family: `object:*`.
    Family(Family),
    /// One.
    One(Action),
}

/// The text names no action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an action is one of bucket:create, bucket:delete, bucket:read, bucket:write, bucket:list, object:read, object:write, \
     object:delete, object:list, policy:grant and policy:revoke, or bucket:*, object:*, policy:* or *"
)]
pub struct InvalidAction;

impl ActionPattern {
    /// Whether it allows this action.
    #[must_use]
    pub fn allows(self, action: Action) -> bool {
        match self {
            Self::Any => true,
            Self::Family(family) => action.family() == family,
            Self::One(one) => one == action,
        }
    }

    /// Whether it allows all that `other` does.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Family(a), Self::Family(b)) => a == b,
            (_, Self::One(one)) => self.allows(one),
            _ => false,
        }
    }
}

impl fmt::Display for ActionPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Family(family) => write!(f, "{}:*", family.text()),
            Self::One(action) => action.fmt(f),
        }
    }
}

impl FromStr for ActionPattern {
    type Err = InvalidAction;

    fn from_str(text: &str) -> Result<Self, InvalidAction> {
        if text == "*" {
            return Ok(Self::Any);
        }
        match text.strip_suffix(":*") {
            Some(name) => Family::ALL.iter().find(|family| family.text() == name).map(|family| Self::Family(*family)),
            None => Action::ALL.iter().find(|action| action.text() == text).map(|action| Self::One(*action)),
        }
        .ok_or(InvalidAction)
    }
}

impl TryFrom<String> for ActionPattern {
    type Error = InvalidAction;

    fn try_from(text: String) -> Result<Self, InvalidAction> {
        text.parse()
    }
}

impl From<ActionPattern> for String {
    fn from(pattern: ActionPattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_read_as_it_is_written() {
        let all = Action::ALL.iter().map(|action| action.text());
        for text in all.chain(["*", "bucket:*", "object:*", "policy:*"]) {
            assert_eq!(text.parse::<ActionPattern>().unwrap().to_string(), text);
        }
        for wrong in ["", ":", ":*", "object", "object:", "object:Read", "object:*:*", "admin:*", "**", "*:read", " *"]
        {
            assert_eq!(wrong.parse::<ActionPattern>(), Err(InvalidAction), "{wrong:?}");
        }
    }

    /// The sentence of the error lists what there is.
    #[test]
    fn the_refusal_names_every_action() {
        let sentence = InvalidAction.to_string();
        for action in Action::ALL {
            assert!(sentence.contains(action.text()), "{action}");
        }
    }

    #[test]
    fn what_covers_allows_all_that_is_covered() {
        let mut patterns: Vec<ActionPattern> = Action::ALL.iter().map(|action| ActionPattern::One(*action)).collect();
        patterns.extend(["*", "bucket:*", "object:*", "policy:*"].map(|text| text.parse::<ActionPattern>().unwrap()));
        for a in &patterns {
            for b in &patterns {
                let allowed = Action::ALL.iter().all(|action| a.allows(*action) || !b.allows(*action));
                assert_eq!(a.covers(*b), allowed, "{a} over {b}");
            }
        }
    }
}
