//! What a pool has done since it was made, as PgBouncer's statistics count it.

use std::{
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering},
};

use super::Pool;

/// What the metrics of a pool do not count: log-ins.
#[derive(Debug, Default)]
pub(super) struct Tally(AtomicU64);

/// Sums since a pool was made; times in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Times that a client was given a server connection.
    pub assignments: u64,
    /// Transactions that servers have ended.
    pub transactions: u64,
    /// Queries, or batches up to their Sync.
    pub queries: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes from servers.
    pub sent: u64,
    /// Time for which server connections were lent.
    pub transaction_time: u64,
    /// Time for which servers worked.
    pub query_time: u64,
    /// Time for which clients have waited for a server connection.
    pub wait_time: u64,
    /// Parse messages of clients.
    pub client_parses: u64,
    /// Parse messages that servers were sent for them.
    pub server_parses: u64,
    /// Bind messages of clients.
    pub binds: u64,
    /// Clients that have logged in.
    pub logins: u64,
}

impl Pool {
    /// Counts a client that has logged in.
    pub fn count_login(&self) {
        self.tally.0.fetch_add(1, Ordering::Relaxed);
    }

    /// What it has done.
    pub fn sums(&self) -> Sums {
        let metrics = &self.metrics;
        Sums {
            assignments: metrics.wait.count(),
            transactions: metrics.transactions.get(),
            queries: metrics.query.count(),
            received: metrics.received.get(),
            sent: metrics.sent.get(),
            transaction_time: metrics.transaction.micros(),
            query_time: metrics.query.micros(),
            wait_time: metrics.wait.micros(),
            client_parses: metrics.client_parses.get(),
            server_parses: metrics.server_parses.get(),
            binds: metrics.binds.get(),
            logins: self.tally.0.load(Ordering::Relaxed),
        }
    }
}

impl Sums {
    /// All of them, in the order in which PgBouncer shows them.
    pub fn values(&self) -> [u64; 12] {
        [
            self.assignments,
            self.transactions,
            self.queries,
            self.received,
            self.sent,
            self.transaction_time,
            self.query_time,
            self.wait_time,
            self.client_parses,
            self.server_parses,
            self.binds,
            self.logins,
        ]
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            assignments: self.assignments.saturating_sub(earlier.assignments),
            transactions: self.transactions.saturating_sub(earlier.transactions),
            queries: self.queries.saturating_sub(earlier.queries),
            received: self.received.saturating_sub(earlier.received),
            sent: self.sent.saturating_sub(earlier.sent),
            transaction_time: self.transaction_time.saturating_sub(earlier.transaction_time),
            query_time: self.query_time.saturating_sub(earlier.query_time),
            wait_time: self.wait_time.saturating_sub(earlier.wait_time),
            client_parses: self.client_parses.saturating_sub(earlier.client_parses),
            server_parses: self.server_parses.saturating_sub(earlier.server_parses),
            binds: self.binds.saturating_sub(earlier.binds),
            logins: self.logins.saturating_sub(earlier.logins),
        }
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.assignments += other.assignments;
        self.transactions += other.transactions;
        self.queries += other.queries;
        self.received += other.received;
        self.sent += other.sent;
        self.transaction_time += other.transaction_time;
        self.query_time += other.query_time;
        self.wait_time += other.wait_time;
        self.client_parses += other.client_parses;
        self.server_parses += other.server_parses;
        self.binds += other.binds;
        self.logins += other.logins;
    }
}
