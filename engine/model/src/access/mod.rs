//! Who may do what: apps of tenants, what was granted to them, and the one decision about a request.
//!
//! - [`action`] and [`pattern`]: the words of a grant; [`mod@decide`]: the decision over them.
//! - [`state`]: tenants, apps, grants and public buckets, and what a change does to them.
//!
//! Knows no secret but sealed ones, no protocol and no storage. Called by whoever authenticates, for every request, and by
//! whoever keeps the state, for every change.
//!
//! **Invariants**
//! - What no grant and no public bucket allows is denied.
//! - A grant reaches only what belongs to the tenant of its app, whatever its resource says.

pub mod action;
pub mod decide;
pub mod pattern;
pub mod state;

pub use action::{Action, ActionPattern, Family, InvalidAction};
pub use decide::{Grant, Identity, Permit, Resource, Rights, decide, decide_somewhere};
pub use pattern::{InvalidPattern, Pattern};
pub use state::{App, AppName, AuditRecord, Command, GivenGrant, PublicBucket, Refused, State, Tenant};
