//! What a pool has counted since it was made, as numbers that can be compared with earlier ones.

use super::metrics::Metrics;
use crate::metrics::Buckets;

/// Counters and histograms at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Transactions that servers have ended.
    pub transactions: u64,
    /// Errors that clients were told.
    pub errors: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes from servers.
    pub sent: u64,
    /// How long clients waited for a server connection.
    pub wait: Buckets,
    /// How long servers worked for what clients asked at once.
    pub query: Buckets,
    /// How long server connections were lent.
    pub lent: Buckets,
}

impl Totals {
    /// What of this is new. A counter that has become smaller has begun again.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            transactions: grown(self.transactions, before.transactions),
            errors: grown(self.errors, before.errors),
            received: grown(self.received, before.received),
            sent: grown(self.sent, before.sent),
            wait: new_in(&self.wait, &before.wait),
            query: new_in(&self.query, &before.query),
            lent: new_in(&self.lent, &before.lent),
        }
    }

    /// Adds another pool's.
    pub fn add(&mut self, other: &Self) {
        self.transactions += other.transactions;
        self.errors += other.errors;
        self.received += other.received;
        self.sent += other.sent;
        self.wait.add(&other.wait);
        self.query.add(&other.query);
        self.lent.add(&other.lent);
    }
}

impl Metrics {
    /// What the pool has counted so far.
    pub fn totals(&self) -> Totals {
        Totals {
            transactions: self.transactions.get(),
            errors: self.errors().total(),
            received: self.received.get(),
            sent: self.sent.get(),
            wait: self.wait.buckets(),
            query: self.query.buckets(),
            lent: self.transaction.buckets(),
        }
    }
}

fn new_in(now: &Buckets, before: &Buckets) -> Buckets {
    let mut new = *now;
    for (count, before) in new.counts.iter_mut().zip(before.counts) {
        *count = grown(*count, before);
    }
    new.micros = grown(now.micros, before.micros);
    new
}

fn grown(now: u64, before: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_new_is_what_was_counted_since() {
        let metrics = Metrics::default();
        metrics.transactions.inc_by(5);
        metrics.wait.observe(Duration::from_millis(3));
        let before = metrics.totals();
        metrics.transactions.inc_by(2);
        metrics.wait.observe(Duration::from_millis(700));
        let new = metrics.totals().since(&before);
        assert_eq!((new.transactions, new.wait.count()), (2, 1));
        assert_eq!(new.wait.micros, 700_000);
    }

    #[test]
    fn a_pool_that_was_made_again_counts_from_zero() {
        let count = |transactions| Totals {
            transactions,
            ..Totals::default()
        };
        assert_eq!(count(7).since(&count(5)).transactions, 2);
        assert_eq!(count(3).since(&count(5)).transactions, 3);
    }
}
