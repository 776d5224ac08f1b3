//! Which methods there are, and who may call them.

use std::sync::Arc;

use anvil_model::io::World as _;
use anvil_node::Node;
use anvil_runtime::Core;

use super::admin;
use super::call::{Call, Wire};
use super::status::{Code, Status};
use super::token::Authority;
use crate::access::AccessKeeper;
use crate::disk_control::DiskControl;
use crate::http::Head;
use crate::telemetry::RepairBoard;

/// The gRPC services of one core.
pub struct Services {
    pub(super) node: Node<Core>,
    pub(super) disks: Arc<DiskControl>,
    pub(super) repair: Arc<RepairBoard>,
    pub(super) keeper: Arc<AccessKeeper>,
    authority: Arc<Authority>,
}

impl Services {
    /// The services on this core.
    #[must_use]
    pub fn new(
        node: Node<Core>,
        disks: Arc<DiskControl>,
        repair: Arc<RepairBoard>,
        keeper: Arc<AccessKeeper>,
        authority: Arc<Authority>,
    ) -> Self {
        Self { node, disks, repair, keeper, authority }
    }

    /// Serves a call to its end. Reads no message before it knows who asks for what.
    ///
    /// # Errors
    /// With the status that the call ends with.
    pub async fn serve<W: Wire>(&self, head: &Head, is_tls: bool, wire: &mut W) -> Result<(), Status> {
        let method = admin::Method::find(&head.path).ok_or_else(|| unknown(&head.path))?;
        let administrator = self.authority.check(head, is_tls, self.node.world().wall_clock())?;
        let mut call = Call::new(head, wire);
        method.call(self, administrator, &mut call).await
    }
}

/// The name that a call is counted by.
#[must_use]
pub fn operation(path: &str) -> &'static str {
    admin::Method::find(path).map_or("Other", admin::Method::name)
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
