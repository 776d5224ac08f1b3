//! What is done for each kind of task, a slice at a time. A slice may be repeated: it does what is still to be done.

use std::time::Duration;

use anvil_model::access::Command;
use anvil_model::ids::{BucketId, UploadId};
use anvil_model::io::World as _;
use anvil_model::object::BucketName;
use anvil_model::time::WallTime;
use anvil_node::Node;
use anvil_node::emptying::Emptied;
use anvil_node::metadata::MetadataError;
use anvil_runtime::Core;

use super::task::{NewTask, Report, Task};
use crate::access::{AccessKeeper, By, KeepError};

/// Deletes a closed bucket with all that it holds.
pub const DELETE_BUCKET: &str = "delete-bucket";
/// Aborts uploads that began too long ago.
pub const EXPIRE_UPLOADS: &str = "expire-uploads";
/// Forgets denials of tokens that have ended by themselves.
pub const PRUNE_DENYLIST: &str = "prune-denylist";

/// Compares the rows of blobs with what a node's disks have.
pub const SWEEP: &str = "sweep";
/// Reads and verifies every record of a node's disks.
pub const SCRUB: &str = "scrub";
/// Makes again what a node has lost.
pub const REPAIR: &str = "repair";

const KINDS: [&str; 6] = [DELETE_BUCKET, EXPIRE_UPLOADS, PRUNE_DENYLIST, SWEEP, SCRUB, REPAIR];
/// The chores of a node's disks: each is that node's to do.
const CHORES: [&str; 3] = [SWEEP, SCRUB, REPAIR];

/// How often uploads are looked at, at least.
const UPLOADS_EVERY_MAX: Duration = Duration::from_hours(1);
/// How often denials are looked at. They are bounded, and each new one takes along what has ended.
const DENIALS_EVERY: Duration = Duration::from_hours(1);
/// A node that starts has better things to do.
const REGULAR_AFTER: Duration = Duration::from_mins(5);
/// After an outage of the metadata that says nothing of its end.
const SOON: Duration = Duration::from_secs(1);
/// While who may do what cannot be had.
const LATER: Duration = Duration::from_secs(30);

/// Whether this program does such tasks. Those of a newer one wait for it.
#[must_use]
pub fn is_known(kind: &str) -> bool {
    KINDS.contains(&kind)
}

/// The kinds that this program does.
#[must_use]
pub fn kinds() -> &'static [&'static str] {
    &KINDS
}

/// The kinds of which a node does only those about itself.
#[must_use]
pub fn chores() -> &'static [&'static str] {
    &CHORES
}

/// Whether such a task is the node's own, and comes back.
#[must_use]
pub fn is_regular(kind: &str) -> bool {
    matches!(kind, EXPIRE_UPLOADS | PRUNE_DENYLIST) || CHORES.contains(&kind)
}

/// The task that deletes a bucket.
#[must_use]
pub fn delete_bucket(bucket: BucketId, name: &BucketName) -> NewTask {
    NewTask { kind: DELETE_BUCKET, about: format!("{bucket}/{}", name.as_str()), priority: 20 }
}

/// The tasks that every node has, each with how long after a start it is added.
#[must_use]
pub fn regular(upload_expiry: Option<Duration>) -> Vec<(Duration, NewTask)> {
    let uploads = NewTask { kind: EXPIRE_UPLOADS, about: String::new(), priority: 10 };
    let denials = NewTask { kind: PRUNE_DENYLIST, about: String::new(), priority: 10 };
    let uploads = upload_expiry.map(|expiry| (expiry.min(REGULAR_AFTER), uploads));
    uploads.into_iter().chain([(REGULAR_AFTER, denials)]).collect()
}

/// An upload is aborted at most a 24th of its time late.
fn uploads_every(expiry: Duration) -> Duration {
    (expiry / 24).clamp(SOON, UPLOADS_EVERY_MAX)
}

/// Does a slice of a task.
pub trait Jobs {
    /// What it came to.
    fn slice(&self, task: &Task) -> impl Future<Output = Report>;
}

/// The jobs of a node.
pub struct NodeJobs<'n> {
    /// The stories.
    pub node: &'n Node<Core>,
    /// After which time uploads that nobody completed are aborted; `None` for never.
    pub upload_expiry: Option<Duration>,
    /// Who may do what.
    pub access: &'n AccessKeeper,
}

impl Jobs for NodeJobs<'_> {
    async fn slice(&self, task: &Task) -> Report {
        let came_to = match task.kind.as_str() {
            DELETE_BUCKET => self.delete_bucket(task).await,
            EXPIRE_UPLOADS => self.expire_uploads(task).await,
            PRUNE_DENYLIST => return self.prune_denylist().await,
            other => Ok(Report::Failed(format!("this program knows no task {other}"))),
        };
        came_to.unwrap_or_else(|error| match error {
            MetadataError::Unavailable { retry_after } => Report::Later(retry_after),
            // What was sent is repeated, and finds itself done.
            MetadataError::Unknown => Report::Later(SOON),
            MetadataError::Refused(refusal) => Report::Failed(refusal.to_string()),
        })
    }
}

impl NodeJobs<'_> {
    async fn delete_bucket(&self, task: &Task) -> Result<Report, MetadataError> {
        let Some(bucket) = bucket_of(&task.about) else {
            return Ok(Report::Failed(format!("{:?} names no bucket", task.about)));
        };
        let Ok(from) = hex::decode(&task.position) else {
            return Ok(Report::Failed(format!("{:?} is no position", task.position)));
        };
        Ok(match self.node.empty_bucket(bucket, from).await? {
            Emptied::More { from, .. } => Report::More(hex::encode(from)),
            Emptied::Gone => Report::Done,
        })
    }

    async fn expire_uploads(&self, task: &Task) -> Result<Report, MetadataError> {
        let Some(expiry) = self.upload_expiry else { return Ok(Report::Done) };
        let after = u128::from_str_radix(&task.position, 16).ok().map(UploadId);
        let before = earlier(self.node.world().wall_clock(), expiry);
        let (expired, next) = self.node.expire_uploads(before, after).await?;
        if expired > 0 {
            tracing::info!(expired, "uploads that nobody completed were aborted");
        }
        Ok(next.map_or(Report::Again(uploads_every(expiry)), |upload| Report::More(format!("{:032x}", upload.0))))
    }
}

impl NodeJobs<'_> {
    /// Changes nothing, and leaves nothing in the audit, where no denial has ended.
    async fn prune_denylist(&self) -> Report {
        let now = self.node.world().wall_clock();
        let pruned = match self.access.known() {
            Ok(known) if !known.state.denied.values().any(|until| *until <= now) => Ok(()),
            Ok(_) => {
                let by = By { who: "task".to_owned(), user: None, from: "node".to_owned() };
                self.access.change(self.node, &by, Command::PruneDenylist).await.map(drop)
            }
            Err(error) => Err(error),
        };
        match pruned {
            Ok(()) => Report::Again(DENIALS_EVERY),
            Err(KeepError::Away(_) | KeepError::Unknown | KeepError::Busy) => Report::Later(LATER),
            Err(error) => Report::Failed(error.to_string()),
        }
    }
}

/// As [`delete_bucket`] says it.
fn bucket_of(about: &str) -> Option<BucketId> {
    about.split_once('/')?.0.parse().ok().map(BucketId)
}

fn earlier(now: WallTime, expiry: Duration) -> WallTime {
    let expiry_ms = u64::try_from(expiry.as_millis()).unwrap_or(u64::MAX);
    WallTime { unix_ms: now.unix_ms.saturating_sub(expiry_ms) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_found_again_in_what_its_task_is_about() {
        let task = delete_bucket(BucketId(42), &BucketName::new("my-bucket").unwrap());
        assert_eq!(task.about, "42/my-bucket");
        assert_eq!(bucket_of(&task.about), Some(BucketId(42)));
        for wrong in ["", "42", "x/my-bucket", "/my-bucket"] {
            assert_eq!(bucket_of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn uploads_are_looked_at_in_time() {
        let kinds = |expiry| regular(expiry).into_iter().map(|(_, task)| task.kind).collect::<Vec<_>>();
        assert_eq!(kinds(None), [PRUNE_DENYLIST], "uploads are never aborted");
        let week = Duration::from_hours(7 * 24);
        for (expiry, first, every) in [(1, 1, 1), (3600, 300, 150), (week.as_secs(), 300, 3600)] {
            let expiry = Duration::from_secs(expiry);
            let tasks = regular(Some(expiry));
            assert!(tasks.iter().all(|(_, task)| is_known(task.kind) && is_regular(task.kind)));
            let whole_seconds = (tasks[0].0.as_secs(), uploads_every(expiry).as_secs());
            assert_eq!(whole_seconds, (first, every), "{expiry:?}");
        }
    }
}
