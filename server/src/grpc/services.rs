//! Which methods there are, and who may call them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anvil_model::io::World as _;
use anvil_model::time::{Moment, WallTime};
use anvil_node::Node;
use anvil_runtime::Core;
use futures_util::future::{Either, select};

use super::access::{Asker, Tokens};
use super::call::{Call, Calls, Wire};
use super::frame::Encoding;
use super::status::{Code, Status};
use super::token::{Administrator, Authority};
use super::{admin, auth, bidi_write, bucket, health, object, reflection, users};
use crate::access::{self, AccessKeeper, By};
use crate::admission::Admission;
use crate::disk_control::DiskControl;
use crate::http::Head;
use crate::regions::Regions;
use crate::routes::{Readiness, Ready};
use crate::tasks::TaskKeeper;
use crate::telemetry::RepairBoard;

/// The gRPC services of one core.
pub struct Services {
    pub(super) node: Node<Core>,
    pub(super) disks: Arc<DiskControl>,
    pub(super) repair: Arc<RepairBoard>,
    pub(super) keeper: Arc<AccessKeeper>,
    pub(super) tasks: Arc<TaskKeeper>,
    pub(super) regions: Regions,
    pub(super) readiness: Arc<Readiness>,
    pub(super) gate: Gate,
    /// For writes that are gathered.
    pub(super) slices: bidi_write::Room,
}

/// What administrators look after.
#[derive(Debug)]
pub struct Keepers {
    /// The disks.
    pub disks: Arc<DiskControl>,
    /// What is being made again.
    pub repair: Arc<RepairBoard>,
    /// Who may do what.
    pub access: Arc<AccessKeeper>,
    /// What is done in the background.
    pub tasks: Arc<TaskKeeper>,
    /// The regions.
    pub regions: Regions,
}

/// Who is let in.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Who may administrate.
    pub authority: Arc<Authority>,
    /// Which app asks.
    pub tokens: Arc<Tokens>,
    /// Whether it comes too often.
    pub admission: Arc<Admission>,
}

impl Gate {
    fn administrator(&self, head: &Head, is_tls: bool, now: Now) -> Result<Administrator, Status> {
        self.authority.check(head, is_tls, now.wall).map_err(|refusal| self.refusal(refusal, head, now))
    }

    /// Somebody who wants to log in.
    fn stranger(&self, head: &Head, is_tls: bool, now: Now) -> Result<(), Status> {
        self.authority.check_origin(head, is_tls).map_err(|refusal| self.refusal(refusal, head, now))?;
        Ok(self.admission.login_from(head, now.moment)?)
    }

    fn asker(&self, head: &Head, now: Now) -> Result<Asker, Status> {
        let asker = self.tokens.check(head, now.wall).map_err(|refusal| self.refusal(refusal, head, now))?;
        self.admission.app(asker.app(), now.moment)?;
        Ok(asker)
    }

    /// What is told to whom is not let in: too many strangers and guesses are refused as such. What is true of a token that
    /// was good is told each time.
    fn refusal(&self, refusal: Status, head: &Head, now: Now) -> Status {
        let is_of_nobody = refusal.code == Code::Unimplemented
            || matches!(refusal.reason, "TOKEN_MISSING" | "TOKEN_WRONG" | "ADMIN_FROM_ELSEWHERE");
        if !is_of_nobody {
            return refusal;
        }
        self.admission.anonymous(head, now.moment).map_or_else(Status::from, |()| refusal)
    }
}

/// When a call came, by both clocks.
#[derive(Clone, Copy)]
struct Now {
    wall: WallTime,
    moment: Moment,
}

/// How soon such a call notices.
pub(super) const LOOKED_EVERY: Duration = Duration::from_secs(1);

/// Everything that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Admin(admin::Method),
    Auth(auth::Method),
    Bucket(bucket::Method),
    Object(object::Method),
    Health(health::Method),
    Reflection(reflection::Method),
}

impl Method {
    fn find(path: &str) -> Option<Self> {
        (object::Method::find(path).map(Self::Object))
            .or_else(|| bucket::Method::find(path).map(Self::Bucket))
            .or_else(|| admin::Method::find(path).map(Self::Admin))
            .or_else(|| auth::Method::find(path).map(Self::Auth))
            .or_else(|| health::Method::find(path).map(Self::Health))
            .or_else(|| reflection::find(path).map(Self::Reflection))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Admin(method) => method.name(),
            Self::Auth(method) => method.name(),
            Self::Bucket(method) => method.name(),
            Self::Object(method) => method.name(),
            Self::Health(method) => method.name(),
            Self::Reflection(method) => method.name(),
        }
    }

    fn streams(self) -> bool {
        match self {
            Self::Admin(_) | Self::Auth(_) | Self::Bucket(_) => false,
            Self::Object(method) => method.streams(),
            Self::Health(method) => method.streams(),
            Self::Reflection(method) => method.streams(),
        }
    }
}

impl Services {
    /// The services on this core.
    #[must_use]
    pub fn new(node: Node<Core>, keepers: Keepers, readiness: Arc<Readiness>, gate: Gate) -> Self {
        let Keepers { disks, repair, access: keeper, tasks, regions } = keepers;
        Self { node, disks, repair, keeper, tasks, regions, readiness, gate, slices: bidi_write::Room::default() }
    }

    /// Ends when the node stops: for calls that would wait for their clients until then.
    pub(super) async fn stopping(&self) -> Status {
        while self.readiness.now() != Ready::Stopping {
            self.node.world().sleep(LOOKED_EVERY).await;
        }
        Status::new(Code::Unavailable, "STOPPING", "the node stops").retry_after(LOOKED_EVERY)
    }

    /// Ends when an app may not do any more what it was allowed: what runs for long is not asked about with each chunk, but
    /// by the clock.
    async fn revoked(&self, asker: &Asker) -> Status {
        loop {
            self.node.world().sleep(LOOKED_EVERY).await;
            if let Err(status) = self.gate.tokens.still(asker) {
                return status;
            }
        }
    }
}

impl Calls for Services {
    /// Reads no message before it knows who asks for what.
    async fn serve<W: Wire>(&self, head: &Head, is_tls: bool, encoding: Encoding, wire: &mut W) -> Result<(), Status> {
        let Self { gate, node, .. } = self;
        let now = Now { wall: node.world().wall_clock(), moment: node.world().now() };
        // A call that streams may wait for hours: what the other methods need is no part of its state.
        let method = Method::find(&head.path).ok_or_else(|| gate.refusal(unknown(&head.path), head, now))?;
        let mut call = Call::new(head, encoding, wire);
        match method {
            Method::Admin(method) => match method.needs() {
                None => {
                    gate.stranger(head, is_tls, now)?;
                    Box::pin(users::login(self, &mut call)).await
                }
                Some(action) => {
                    let administrator = gate.administrator(head, is_tls, now)?;
                    // Of whom a user is changed says the message.
                    let asks_itself = method == admin::Method::UpdateUser;
                    if !asks_itself && let Err(denied) = administrator.check(action) {
                        access::log(&self.by(&administrator, head), method.name(), "", &denied.message);
                        return Err(denied);
                    }
                    Box::pin(method.call(self, administrator, &mut call)).await
                }
            },
            Method::Auth(auth::Method::GetAccessToken) => {
                gate.admission.login_from(head, now.moment)?;
                auth::give_token(self, &mut call).await
            }
            Method::Auth(method) => Box::pin(method.call(self, gate.asker(head, now)?, &mut call)).await,
            Method::Bucket(method) => Box::pin(method.call(self, gate.asker(head, now)?, &mut call)).await,
            Method::Object(method) => {
                let asker = gate.asker(head, now)?;
                let served = method.call(self, &asker, &mut call);
                if !method.streams() {
                    return served.await;
                }
                match select(served, pin!(self.revoked(&asker))).await {
                    Either::Left((outcome, _)) => outcome,
                    Either::Right((status, _)) => Err(status),
                }
            }
            // As `/ready`.
            Method::Health(method) => method.call(self, &mut call).await,
            Method::Reflection(method) => {
                gate.admission.anonymous(head, now.moment)?;
                method.call(self, &mut call).await
            }
        }
    }
}

impl Services {
    /// Who makes a change, and from where.
    pub(super) fn by(&self, administrator: &Administrator, head: &Head) -> By {
        let Administrator { who, user, .. } = administrator;
        By { who: who.clone(), user: user.clone(), from: self.gate.admission.client(head).to_string() }
    }
}

/// The name that a call is counted by.
#[must_use]
pub fn operation(path: &str) -> &'static str {
    Method::find(path).map_or("Other", Method::name)
}

/// Whether the messages of a call stream.
#[must_use]
pub fn streams(path: &str) -> bool {
    Method::find(path).is_some_and(Method::streams)
}

/// Nobody serves this path.
#[must_use]
pub fn unknown(path: &str) -> Status {
    Status::new(Code::Unimplemented, "UNKNOWN_METHOD", format!("this node has no method {path}"))
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Services")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_counted_by_its_name() {
        let files = [
            ("anvil.v1.AdminService", include_str!("../../../proto/anvil/v1/admin.proto")),
            ("anvil.v1.AuthService", include_str!("../../../proto/anvil/v1/auth.proto")),
            ("anvil.v1.BucketService", include_str!("../../../proto/anvil/v1/bucket.proto")),
            ("anvil.v1.ObjectService", include_str!("../../../proto/anvil/v1/object.proto")),
            ("grpc.health.v1.Health", include_str!("../../../proto/grpc/health/v1/health.proto")),
        ];
        for (service, file) in files {
            for method in super::super::methods::declared(file) {
                assert_eq!(operation(&format!("/{service}/{method}")), method);
                assert!(crate::telemetry::OPERATIONS.contains(&method), "{method}");
            }
        }
        assert!(streams("/anvil.v1.ObjectService/GetObject") && !streams("/anvil.v1.ObjectService/HeadObject"));
        assert_eq!(operation("/anvil.v1.ObjectService/getObject"), "Other");
    }
}
