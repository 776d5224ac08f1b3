//! Who may do what: apps of tenants, what was granted to them, and the one decision about a request.
//!
//! - [`action`] and [`pattern`]: the words of a grant; [`mod@decide`]: the decision over them.
//! - [`state`]: tenants, apps, grants and public buckets, and what a change does to them.
//! - [`admin`] and [`users`]: the same for those who administrate; the decision is [`AdminRights::allow`]. [`tokens`]: what
//!   tokens are signed with, and which are denied.
//!
//! Knows no secret but sealed ones, no protocol and no storage. Called by whoever authenticates, for every request, and by
//! whoever keeps the state, for every change.
//!
//! **Invariants**
//! - What no grant and no public bucket allows is denied.
//! - A grant reaches only what belongs to the tenant of its app, whatever its resource says.

pub mod action;
pub mod admin;
pub mod decide;
pub mod pattern;
pub mod state;
pub mod tokens;
pub mod users;

pub use action::{Action, ActionPattern, Family, InvalidAction};
pub use admin::{
    AdminAction, AdminArea, AdminPattern, AdminRights, AdminVerb, InvalidAdminAction, READ_ONLY_VIEWER, SUPER_ADMIN,
};
pub use decide::{Grant, Identity, Permit, Resource, Rights, decide, decide_somewhere};
pub use pattern::{InvalidPattern, Pattern};
pub use state::{App, AppName, AuditRecord, Command, GivenGrant, PublicBucket, Refused, State, Tenant};
pub use tokens::{NewTokenKey, Resealed, TokenKey};
pub use users::{PasswordHash, Role, User, UserChange};
