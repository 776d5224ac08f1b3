//! The task queue, as samples. The worker publishes what it saw last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anvil_model::time::WallTime;

use super::metrics::{Metrics, Sample, SampleKind, float};
use crate::tasks::jobs;
use crate::tasks::task::{Task, TaskState};

/// What the worker of a node saw and did.
#[derive(Debug, Default)]
pub struct TaskFigures {
    kinds: Mutex<BTreeMap<&'static str, OfKind>>,
}

/// Of the tasks of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct OfKind {
    pending: u64,
    running: u64,
    failed: u64,
    /// For how long the one that waits for longest has been due.
    oldest_ms: u64,
    finished: u64,
    failures: u64,
}

/// Kinds that this program does not know are one, so that what others write adds no labels.
const OTHER: &str = "other";

impl TaskFigures {
    /// Puts them on the page of `metrics`.
    #[must_use]
    pub fn watched_by(metrics: &Metrics) -> Arc<Self> {
        let figures = Arc::new(Self::default());
        let watched = Arc::clone(&figures);
        metrics.watch(move || watched.samples());
        figures
    }

    /// These are all tasks now.
    pub fn publish(&self, tasks: &[Task], now: WallTime) {
        let mut kinds = self.lock();
        for of in kinds.values_mut() {
            *of = OfKind { finished: of.finished, failures: of.failures, ..OfKind::default() };
        }
        for task in tasks {
            let of = kinds.entry(label(&task.kind)).or_default();
            match task.state {
                TaskState::Pending => {
                    of.pending += 1;
                    of.oldest_ms = of.oldest_ms.max(now.unix_ms.saturating_sub(task.not_before.unix_ms));
                }
                TaskState::Running(_) => of.running += 1,
                TaskState::Failed => of.failed += 1,
            }
        }
    }

    /// A task of this kind was done.
    pub fn finished(&self, kind: &str) {
        self.lock().entry(label(kind)).or_default().finished += 1;
    }

    /// A slice of a task of this kind failed.
    pub fn failed(&self, kind: &str) {
        self.lock().entry(label(kind)).or_default().failures += 1;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, OfKind>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn samples(&self) -> Vec<Sample> {
        let kinds = self.lock();
        let of = |kind: &'static str| kinds.get(kind).copied().unwrap_or_default();
        let all: Vec<(&'static str, OfKind)> =
            jobs::kinds().iter().copied().chain([OTHER]).map(|kind| (kind, of(kind))).collect();
        let states = [
            ("pending", (|of| of.pending) as fn(&OfKind) -> u64),
            ("running", |of| of.running),
            ("failed", |of| of.failed),
        ];
        let by_state = |(kind, of): &(&'static str, OfKind)| {
            let (kind, of) = (*kind, *of);
            states.map(|(state, read)| (vec![("kind", kind.to_owned()), ("state", state.to_owned())], float(read(&of))))
        };
        let by_kind = |name, help, kind, read: fn(&OfKind) -> f64| Sample {
            name,
            help,
            kind,
            values: all.iter().map(|(kind, of)| (vec![("kind", (*kind).to_owned())], read(of))).collect(),
        };
        vec![
            Sample {
                name: "queued_tasks",
                help: "Tasks of the queue by kind and state",
                kind: SampleKind::Gauge,
                values: all.iter().flat_map(by_state).collect(),
            },
            by_kind(
                "task_oldest_seconds",
                "For how long the task that waits for longest has been due",
                SampleKind::Gauge,
                |of| float(of.oldest_ms) / 1000.0,
            ),
            by_kind("tasks_finished", "Tasks that were done", SampleKind::Counter, |of| float(of.finished)),
            by_kind("task_failures", "Slices of tasks that failed", SampleKind::Counter, |of| float(of.failures)),
        ]
    }
}

fn label(kind: &str) -> &'static str {
    jobs::kinds().iter().copied().find(|known| *known == kind).unwrap_or(OTHER)
}
