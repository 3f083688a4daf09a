//! What look-ups count. Without names: those are a stranger's to choose.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::QueryError;
use crate::auth::source::Found;

#[derive(Debug, Clone)]
pub(super) struct Metrics {
    pub(super) connections: IntGauge,
    pub(super) hits: IntCounter,
    found: IntCounter,
    unknown: IntCounter,
    failed: IntCounter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let connections = IntGauge::new(
            "auth_query_connections",
            "Server connections of auth_user, which count towards no pool",
        )?;
        let queries = IntCounterVec::new(
            Opts::new("auth_queries_total", "Users that were looked up on a server"),
            &["result"],
        )?;
        let hits = IntCounter::new(
            "auth_cache_hits_total",
            "Users of whom a look-up of before was good enough",
        )?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(queries.clone()))?;
        registry.register(Box::new(hits.clone()))?;
        let result = |result| queries.with_label_values(&[result]);
        Ok(Self {
            connections,
            hits,
            found: result("found"),
            unknown: result("unknown"),
            failed: result("failed"),
        })
    }

    pub(super) fn count(&self, outcome: &Result<Found, QueryError>) {
        match outcome {
            Ok(Found::Secret(_)) => self.found.inc(),
            Ok(_) => self.unknown.inc(),
            Err(_) => self.failed.inc(),
        }
    }
}
