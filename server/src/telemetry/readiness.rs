//! What `/ready` tells, as samples: an alert need not ask it itself.

use std::sync::Arc;

use super::metrics::{Metrics, Sample, SampleKind};
use crate::metadata::postgres::DatabaseRole;
use crate::routes::{Readiness, Ready};

/// Puts it on the page of `metrics`; with databases, whether each of them answers, too.
pub fn watch_readiness(metrics: &Metrics, readiness: Arc<Readiness>, has_databases: bool) {
    let roles = if has_databases { &[DatabaseRole::Global, DatabaseRole::Regional][..] } else { &[] };
    let one = |yes: bool| f64::from(u8::from(yes));
    metrics.watch(move || {
        let up = |&role: &DatabaseRole| (vec![("database", role.name().to_owned())], one(readiness.is_there(role)));
        vec![
            Sample::gauge("ready", "1 while /ready answers 200", one(readiness.now() == Ready::Serving)),
            // A region has one node in this version: nobody joins it, and nobody leaves.
            Sample::gauge("cluster_nodes", "Nodes of the cluster that this one knows, itself among them", 1.0),
            Sample {
                name: "cluster_changes",
                help: "Nodes that joined or left the cluster",
                kind: SampleKind::Counter,
                values: vec![(Vec::new(), 0.0)],
            },
            Sample {
                name: "database_up",
                help: "1 while the database answers",
                kind: SampleKind::Gauge,
                values: roles.iter().map(up).collect(),
            },
        ]
    });
}
