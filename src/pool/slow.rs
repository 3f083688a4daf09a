//! The log of slow queries: how long one may take before it is worth a line, and the line.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::server::{Connection, Vitals};

/// Nothing takes longer.
const NEVER: u64 = u64::MAX;

/// `log_min_duration_statement`, to be read for every query.
#[derive(Debug)]
pub(super) struct SlowAfter(AtomicU64);

impl SlowAfter {
    pub(super) fn new(limit: Option<Duration>) -> Self {
        let after = Self(AtomicU64::new(NEVER));
        after.set(limit);
        after
    }

    pub(super) fn set(&self, limit: Option<Duration>) {
        let micros = limit.map_or(NEVER, |limit| u64::try_from(limit.as_micros()).unwrap_or(NEVER));
        self.0.store(micros, Ordering::Relaxed);
    }

    /// Whether a text may be wanted.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) != NEVER
    }

    /// Whether a query that has taken so long is slow.
    pub(super) fn is_over(&self, took: Duration) -> bool {
        took >= Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// Whose query it was, from before its server connection is another's.
pub(super) struct Reporter {
    vitals: Arc<Vitals>,
    client_pid: i32,
}

impl Reporter {
    pub(super) fn new(connection: &Connection) -> Self {
        let vitals = connection.vitals().clone();
        Self {
            client_pid: vitals.client(),
            vitals,
        }
    }

    /// Logs a slow query.
    pub(super) fn report(&self, took: Duration, text: Option<&str>) {
        let span = self.vitals.target.span(&self.vitals.address.endpoint);
        span.in_scope(|| {
            // Quoted: whoever reads line by line is not to be deceived by what a client has written.
            tracing::info!(
                target: "pgweir::slow_query",
                duration_ms = took.as_secs_f64() * 1000.0,
                client_pid = self.client_pid,
                server_pid = self.vitals.pid,
                query = ?text.unwrap_or_default(),
                "slow query"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_every_query_and_nothing_is_none() {
        let after = SlowAfter::new(None);
        assert!(!after.is_set() && !after.is_over(Duration::from_secs(1 << 30)));
        after.set(Some(Duration::from_millis(250)));
        assert!(after.is_set() && after.is_over(Duration::from_millis(250)));
        assert!(!after.is_over(Duration::from_micros(249_999)));
        after.set(Some(Duration::ZERO));
        assert!(after.is_over(Duration::ZERO));
    }
}
