//! The decision: may this request do that?

use std::sync::Arc;

use super::action::{Action, ActionPattern};
use super::pattern::Pattern;
use crate::ids::TenantId;

/// Something that an app may do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// What.
    pub action: ActionPattern,
    /// On what, among what belongs to the app's tenant.
    pub resource: Pattern,
}

/// All that an app may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Everything within its tenant: the node's own app.
    All,
    /// What was granted to it.
    Granted(Arc<[Grant]>),
}

/// An app, as authentication found it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose app it is.
    pub tenant: TenantId,
    /// What it may do there.
    pub rights: Rights,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// All buckets of the tenant.
    Buckets,
    /// A bucket.
    Bucket(&'a str),
    /// The keys of a bucket that begin with a prefix, which may be empty.
    Keys {
        /// Its name.
        bucket: &'a str,
        /// What they begin with.
        prefix: &'a str,
    },
    /// An object.
    Object {
        /// The name of its bucket.
        bucket: &'a str,
        /// Its key.
        key: &'a str,
    },
}

/// A request may go on, in the name of one tenant and of no other: what it reaches there is looked up as this tenant's.
/// Only [`decide`] and [`decide_somewhere`] make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    tenant: TenantId,
    public: bool,
}

impl Permit {
    /// In whose name.
    #[must_use]
    pub fn tenant(self) -> TenantId {
        self.tenant
    }

    /// Whether it is for everybody, because the bucket is public, and not of a grant.
    #[must_use]
    pub fn is_public(self) -> bool {
        self.public
    }
}

/// Decides over a request of `who`, which is `None` for one without credentials. `public_owner` is the tenant of the bucket
/// that the request names, where everybody may read that bucket's objects. `None` is no.
#[must_use]
pub fn decide(
    who: Option<&Identity>,
    action: Action,
    resource: Resource<'_>,
    public_owner: Option<TenantId>,
) -> Option<Permit> {
    let public = match (action, resource) {
        (Action::ObjectRead, Resource::Object { .. }) => public_owner.map(|tenant| Permit { tenant, public: true }),
        _ => None,
    };
    let granted = who.filter(|who| who.rights.allow(action, resource));
    match (granted, public) {
        // Grants count in the app's own tenant, and this bucket is another one's.
        (Some(who), Some(public)) if public.tenant != who.tenant => Some(public),
        (Some(who), _) => Some(Permit { tenant: who.tenant, public: false }),
        (None, public) => public,
    }
}

/// Decides over a request of which it is not known yet what all it is about: whether there is anything on which it may do
/// this. Each thing that it then names is [decided](decide) by itself.
#[must_use]
pub fn decide_somewhere(who: Option<&Identity>, action: Action) -> Option<Permit> {
    let who = who.filter(|who| who.rights.allow_somewhere(action))?;
    Some(Permit { tenant: who.tenant, public: false })
}

impl Rights {
    /// Whether something of this is allowed by a grant.
    #[must_use]
    pub fn allow(&self, action: Action, resource: Resource<'_>) -> bool {
        let Self::Granted(grants) = self else { return true };
        let mut grants = grants.iter().filter(|grant| grant.action.allows(action));
        match resource {
            // A star is the name of all buckets, which only stars match.
            Resource::Buckets => grants.any(|grant| grant.resource.matches("*")),
            Resource::Bucket(bucket) => grants.any(|grant| grant.resource.matches(bucket)),
            Resource::Keys { bucket, prefix } => {
                let keys = format!("{bucket}/{prefix}*");
                grants.any(|grant| grant.resource.matches(bucket) || grant.resource.matches(&keys))
            }
            Resource::Object { bucket, key } => {
                let object = format!("{bucket}/{key}");
                grants.any(|grant| grant.resource.matches(&object))
            }
        }
    }

    /// Whether one grant allows all of these actions on all of these resources.
    #[must_use]
    pub fn cover(&self, action: ActionPattern, resource: &Pattern) -> bool {
        match self {
            Self::All => true,
            Self::Granted(grants) => {
                grants.iter().any(|grant| grant.action.covers(action) && grant.resource.covers(resource))
            }
        }
    }

    /// Whether the action is allowed on anything at all.
    #[must_use]
    pub fn allow_somewhere(&self, action: Action) -> bool {
        match self {
            Self::All => true,
            Self::Granted(grants) => grants.iter().any(|grant| grant.action.allows(action)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: TenantId = TenantId(1);
    const B: TenantId = TenantId(2);

    fn grant(action: &str, resource: &str) -> Grant {
        Grant { action: action.parse().unwrap(), resource: resource.parse().unwrap() }
    }

    fn app(tenant: TenantId, grants: &[(&str, &str)]) -> Identity {
        let grants = grants.iter().map(|(action, resource)| grant(action, resource)).collect();
        Identity { tenant, rights: Rights::Granted(grants) }
    }

    /// A resource of the kind that the action is asked for.
    fn usual(action: Action) -> Resource<'static> {
        match action {
            Action::BucketList => Resource::Buckets,
            Action::BucketCreate | Action::BucketDelete | Action::BucketRead | Action::BucketWrite => {
                Resource::Bucket("docs")
            }
            Action::ObjectList => Resource::Keys { bucket: "docs", prefix: "a/" },
            _ => Resource::Object { bucket: "docs", key: "a/b" },
        }
    }

    /// Goal: each action is allowed by its own grant, its family's and that of all, and by nothing else. Method: all grants
    /// of one action against all actions.
    #[test]
    fn every_action_needs_a_grant_of_its_own() {
        for &action in Action::ALL {
            for &other in Action::ALL {
                let who = app(A, &[(other.text(), "*")]);
                assert_eq!(
                    decide(Some(&who), action, usual(action), None).is_some(),
                    action == other,
                    "{action} with {other}"
                );
            }
            for family in ["bucket:*", "object:*", "policy:*"] {
                let allowed = action.text().starts_with(family.trim_end_matches('*'));
                let who = app(A, &[(family, "*")]);
                assert_eq!(
                    decide(Some(&who), action, usual(action), None).is_some(),
                    allowed,
                    "{action} with {family}"
                );
            }
            assert!(decide(Some(&app(A, &[("*", "*")])), action, usual(action), None).is_some(), "{action}");
            assert!(decide(Some(&app(A, &[])), action, usual(action), None).is_none(), "{action} with nothing");
            assert!(decide(None, action, usual(action), None).is_none(), "{action} by nobody");
        }
    }

    #[test]
    fn a_resource_is_matched_by_what_it_is() {
        let allowed =
            |grants: &[(&str, &str)], action, resource| decide(Some(&app(A, grants)), action, resource, None).is_some();
        let object = |key| Resource::Object { bucket: "docs", key };
        let keys = |prefix| Resource::Keys { bucket: "docs", prefix };
        let reads = |resource, key| allowed(&[("object:read", resource)], Action::ObjectRead, object(key));
        assert!(reads("docs/a/*", "a/b") && reads("docs/*", "a/b") && reads("d*", "a/b"));
        assert!(!reads("docs", "a/b") && !reads("docs/a", "a/b") && !reads("docs/b/*", "a/b"));
        let lists = |resource, prefix| allowed(&[("object:list", resource)], Action::ObjectList, keys(prefix));
        assert!(lists("docs", "") && lists("docs", "a/") && lists("docs/*", "") && lists("docs/a/*", "a/b"));
        // What begins with `a` is more than what begins with `a/`.
        assert!(!lists("docs/a/*", "") && !lists("docs/a/*", "a") && !lists("docs/a/b", "a/b") && !lists("other", ""));
        let makes = |resource| allowed(&[("bucket:create", resource)], Action::BucketCreate, Resource::Bucket("docs"));
        assert!(makes("docs") && makes("do*") && makes("*") && !makes("docs/*") && !makes("other"));
        let counts = |resource| allowed(&[("bucket:list", resource)], Action::BucketList, Resource::Buckets);
        assert!(counts("*") && !counts("docs") && !counts("d*"));
    }

    #[test]
    fn a_public_bucket_is_read_by_everybody_and_no_more() {
        for &action in Action::ALL {
            for who in [None, Some(&app(B, &[("*", "*")])), Some(&app(A, &[]))] {
                let permit = decide(who, action, usual(action), Some(A));
                if action == Action::ObjectRead {
                    assert_eq!(permit, Some(Permit { tenant: A, public: true }), "{action} by {who:?}");
                } else {
                    assert_ne!(permit.map(Permit::tenant), Some(A), "{action} by {who:?}");
                }
            }
        }
        let own = decide(Some(&app(A, &[("*", "*")])), Action::ObjectRead, usual(Action::ObjectRead), Some(A));
        assert_eq!(own, Some(Permit { tenant: A, public: false }), "a grant counts as one in a public bucket too");
    }

    fn grants() -> impl Strategy<Value = Vec<Grant>> {
        let action =
            prop::sample::select(vec!["*", "bucket:*", "object:*", "object:read", "object:list", "bucket:create"]);
        let grant = (action, "[ab*/]{1,4}").prop_map(|(action, resource)| grant(action, &resource));
        prop::collection::vec(grant, 0..4)
    }

    proptest! {
        /// Goal: no request gets anything without a grant that names it, and never in another tenant's name. Method: any
        /// grants against any object, and a second opinion that looks at each grant by itself.
        #[test]
        fn nothing_is_had_without_a_grant(
            grants in grants(), action in prop::sample::select(Action::ALL.to_vec()), bucket in "[ab]{1,2}", key in "[ab/]{1,3}",
        ) {
            let who = Identity { tenant: A, rights: Rights::Granted(grants.clone().into()) };
            let resource = Resource::Object { bucket: &bucket, key: &key };
            let object = format!("{bucket}/{key}");
            let granted = grants.iter().any(|grant| grant.action.allows(action) && grant.resource.matches(&object));
            let permit = decide(Some(&who), action, resource, None);
            prop_assert_eq!(permit.map(Permit::tenant), granted.then_some(A));
            // In another tenant's name there is nothing but reading what is public.
            let public = decide(Some(&who), action, resource, Some(B)).filter(|permit| permit.tenant() == B);
            prop_assert_eq!(public.is_some_and(Permit::is_public), action == Action::ObjectRead);
            prop_assert_eq!(decide(None, action, resource, None), None);
        }

        /// A list shows no key that a grant of lists does not name.
        #[test]
        fn a_list_shows_what_is_granted(resource in "[ab*/]{1,5}", prefix in "[ab/]{0,2}", rest in "[ab/]{1,3}") {
            let rights = Rights::Granted([grant("object:list", &resource)].into());
            let key = format!("{prefix}{rest}");
            if rights.allow(Action::ObjectList, Resource::Keys { bucket: "a", prefix: &prefix }) {
                let named = grant("object:list", &resource).resource;
                let object = format!("a/{key}");
                prop_assert!(named.matches("a") || named.matches(&object));
            }
        }
    }
}
