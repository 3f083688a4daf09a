//! What a pool counts, and the families that show it. A transaction touches a few atomics of its pool's own.
//!
//! Names of databases and users may be for strangers to choose: only so many pools have series of their own, and all
//! others are shown as one.

mod collect;
mod limits;
mod reading;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::{Registry, core::Desc};

pub(super) use self::limits::LimitMetrics;
use super::state::{Counts, Limits};
use crate::{
    fault::{Blame, SqlState},
    metrics::{Counter, Errors, Gauge, Histogram, OTHER, Shares},
    server::{Opening, pins::Pin},
    types::{DatabaseName, PoolKey, Role, UserName},
};

/// The metric families of all pools. Clones are one.
#[derive(Debug, Clone)]
pub struct Families(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pools: Mutex<BTreeMap<PoolKey, Arc<Metrics>>>,
    shares: Shares<PoolKey>,
    databases: Shares<DatabaseName>,
    users: Shares<UserName>,
    /// What pools without series of their own have counted that are gone, by role.
    gone: Mutex<BTreeMap<Role, Arc<Metrics>>>,
    descriptions: Vec<Desc>,
}

impl Families {
    /// Registers the families; the registry adds the prefix `pgweir_`. So many pools have series of their own.
    ///
    /// # Errors
    /// A family of that name is registered already.
    pub fn new(registry: &Registry, max_series: usize) -> prometheus::Result<Self> {
        let families = Self(Arc::new(Inner {
            pools: Mutex::default(),
            shares: Shares::new(max_series),
            databases: Shares::new(max_series),
            users: Shares::new(max_series),
            gone: Mutex::default(),
            descriptions: collect::descriptions()?,
        }));
        registry.register(Box::new(families.clone()))?;
        Ok(families)
    }

    /// So many pools have series of their own from now on; those that have some keep them.
    pub fn set_max_series(&self, max_series: usize) {
        self.0.shares.set_limit(max_series);
        self.0.databases.set_limit(max_series);
        self.0.users.set_limit(max_series);
    }

    /// So many.
    pub fn max_series(&self) -> usize {
        self.0.shares.limit()
    }

    /// The metrics of one pool.
    pub(super) fn pool(&self, key: &PoolKey) -> Arc<Metrics> {
        let metrics = Arc::new(Metrics::default());
        let before = self.pools().insert(key.clone(), metrics.clone());
        if let Some(before) = before {
            self.settle(key, &before);
        }
        if self.0.shares.claim(key) {
            self.0.databases.claim(&key.database);
            self.0.users.claim(&key.user);
        }
        metrics
    }

    /// Forgets a pool that is gone.
    pub(super) fn forget(&self, key: &PoolKey) {
        let gone = self.pools().remove(key);
        if let Some(gone) = gone {
            self.settle(key, &gone);
        }
        self.0.shares.give_up(key);
        let left = self.pools();
        let is_left = |pool: &PoolKey| self.0.shares.has(pool);
        self.0
            .databases
            .retain(|name| left.keys().any(|pool| pool.database == *name && is_left(pool)));
        self.0
            .users
            .retain(|name| left.keys().any(|pool| pool.user == *name && is_left(pool)));
    }

    /// What all pools have counted: those that have series of their own, and, under the names of the others, all that
    /// have not, those among them that are gone too.
    pub fn all(&self) -> Vec<(PoolKey, Arc<Metrics>)> {
        // The lock is that of pools that come and go; none of their own is taken.
        let pools = self.pools().clone();
        let named = |(key, metrics): (PoolKey, Arc<Metrics>)| match self.0.shares.has(&key) {
            true => (key, metrics),
            false => (others(key.role), metrics),
        };
        let mut all: Vec<_> = pools.into_iter().map(named).collect();
        let gone = self.gone();
        all.extend(
            gone.iter()
                .map(|(role, metrics)| (others(*role), metrics.clone())),
        );
        all
    }

    /// Whether this database has series of its own.
    pub fn names_database(&self, name: &DatabaseName) -> bool {
        self.0.databases.has(name)
    }

    /// What a pool among the others has counted stays counted: a sum that became smaller would look like a restart.
    fn settle(&self, key: &PoolKey, gone: &Metrics) {
        if !self.0.shares.has(key) {
            self.gone().entry(key.role).or_default().absorb(gone);
        }
    }

    fn gone(&self) -> MutexGuard<'_, BTreeMap<Role, Arc<Metrics>>> {
        self.0.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<PoolKey, Arc<Metrics>>> {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those that have no series of their own.
fn others(role: Role) -> PoolKey {
    PoolKey {
        database: OTHER.into(),
        user: OTHER.into(),
        role,
    }
}

/// What one pool counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Clients logged in.
    pub clients: Gauge,
    /// Clients that wait for a server connection.
    pub waiting: Gauge,
    /// Server connections that are being opened or checked.
    pub connecting: Gauge,
    /// Server connections that nobody uses.
    pub idle: Gauge,
    /// Server connections that are lent.
    pub active: Gauge,
    pub(super) size: Gauge,
    pub(super) min_size: Gauge,
    pub(super) reserve_size: Gauge,
    /// Transactions that servers have ended.
    pub transactions: Counter,
    /// Bytes from clients.
    pub received: Counter,
    /// Bytes from servers.
    pub sent: Counter,
    pub(super) connects: Counter,
    pub(super) connect_failures: Counter,
    /// Clients whose server connection stays with them between transactions.
    pub pinned: Gauge,
    pins: [Counter; Pin::ALL.len()],
    /// Uses of prepared statements that the server connection had.
    pub prepared_hits: Counter,
    /// Uses of prepared statements that it had not.
    pub prepared_misses: Counter,
    /// Prepared statements that had to go for another.
    pub prepared_evictions: Counter,
    /// Parse messages of clients.
    pub client_parses: Counter,
    /// Parse messages that servers were sent for clients.
    pub server_parses: Counter,
    /// Bind messages of clients.
    pub binds: Counter,
    /// How long clients waited for a server connection; no time for those that did not.
    pub wait: Histogram,
    /// How long servers worked for what clients asked at once: a query, or a batch up to its Sync.
    pub query: Histogram,
    /// How long a server connection was lent: for a transaction, or for a session in session mode.
    pub transaction: Histogram,
    /// How long it took until a server was there to log in to.
    pub(super) connect: Histogram,
    /// How long the log-in to a server took.
    pub(super) login: Histogram,
    errors: Errors,
}

impl Metrics {
    /// Counts a reason that begins to keep a server connection with its client.
    pub fn count_pin(&self, pin: Pin) {
        for (counter, kind) in self.pins.iter().zip(Pin::ALL) {
            if kind == pin {
                counter.inc();
            }
        }
    }

    /// How many times this reason has begun to keep a server connection.
    pub fn pins(&self, pin: Pin) -> u64 {
        let all = self.pins.iter().zip(Pin::ALL);
        all.filter(|(_, kind)| *kind == pin)
            .map(|(counter, _)| counter.get())
            .sum()
    }

    pub(super) fn note_opened(&self, opening: Opening) {
        self.connects.inc();
        self.connect.observe(opening.connect);
        self.login.observe(opening.login);
    }

    /// Counts an error that a client of the pool is told.
    pub fn count_error(&self, code: SqlState, blame: Blame) {
        self.errors.count(code, blame);
    }

    /// The errors that clients of the pool were told.
    pub fn errors(&self) -> &Errors {
        &self.errors
    }

    pub(super) fn show(&self, counts: Counts) {
        self.waiting.set_count(counts.waiting);
        self.connecting.set_count(counts.connecting);
        self.idle.set_count(counts.idle);
        self.active.set_count(counts.active);
    }

    pub(super) fn show_limits(&self, limits: Limits) {
        self.size.set_count(limits.size.get());
        self.min_size.set_count(limits.min);
        self.reserve_size.set_count(limits.reserve);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::proto::MetricFamily;

    use super::*;

    fn key(user: &str) -> PoolKey {
        PoolKey {
            database: "shop".into(),
            user: user.into(),
            role: Role::ReadWrite,
        }
    }

    /// The values of a family by user.
    fn values(registry: &Registry, name: &str) -> BTreeMap<String, f64> {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let value = |metric: &prometheus::proto::Metric| {
            metric.get_counter().get_value()
                + metric.get_gauge().get_value()
                + metric.get_histogram().get_sample_count() as f64
        };
        let user = |metric: &prometheus::proto::Metric| {
            let labels = metric.get_label().iter();
            let mut users = labels.filter(|label| label.name() == "user");
            users.next().unwrap().value().to_owned()
        };
        let metrics = family.get_metric().iter();
        metrics.map(|metric| (user(metric), value(metric))).collect()
    }

    #[test]
    fn beyond_the_limit_all_are_other_and_their_counts_never_shrink() {
        let registry = Registry::new();
        let families = Families::new(&registry, 2).unwrap();
        let all: Vec<_> = ["a", "b", "c", "d"]
            .iter()
            .map(|user| families.pool(&key(user)))
            .collect();
        for (metrics, count) in all.iter().zip(1..) {
            metrics.transactions.inc_by(count);
            metrics.clients.set(10);
            metrics.wait.observe(Duration::from_millis(1));
        }
        let of = |pairs: &[(&str, f64)]| -> BTreeMap<String, f64> {
            pairs
                .iter()
                .map(|(user, value)| ((*user).to_owned(), *value))
                .collect()
        };
        assert_eq!(
            values(&registry, "transactions_total"),
            of(&[("a", 1.0), ("b", 2.0), ("other", 7.0)])
        );
        assert_eq!(
            values(&registry, "clients"),
            of(&[("a", 10.0), ("b", 10.0), ("other", 20.0)])
        );
        families.forget(&key("c"));
        assert_eq!(values(&registry, "transactions_total")["other"], 7.0);
        assert_eq!(values(&registry, "clients")["other"], 10.0);
        assert_eq!(values(&registry, "wait_seconds")["other"], 2.0);
        // A place that is free is for the next pool that is made.
        families.forget(&key("a"));
        families.pool(&key("e"));
        let transactions = values(&registry, "transactions_total");
        assert_eq!(transactions, of(&[("b", 2.0), ("e", 0.0), ("other", 7.0)]));
    }

    #[test]
    fn errors_and_pins_have_their_kinds() {
        let registry = Registry::new();
        let families = Families::new(&registry, 2).unwrap();
        let metrics = families.pool(&key("a"));
        metrics.count_error(SqlState::SYNTAX_ERROR, Blame::Client);
        metrics.count_pin(Pin::Listen);
        let families = registry.gather();
        let labels = |name: &str, value: f64| -> Vec<String> {
            let family: &MetricFamily = families.iter().find(|family| family.name() == name).unwrap();
            let metrics = family.get_metric().iter();
            let found = metrics.filter(|metric| (metric.get_counter().get_value() - value).abs() < 0.1);
            let labels =
                found.flat_map(|metric| metric.get_label().iter().map(|label| label.value().to_owned()));
            labels.collect()
        };
        assert_eq!(labels("errors_total", 1.0), ["client", "42", "shop", "rw", "a"]);
        assert_eq!(labels("pins_total", 1.0), ["shop", "listen", "rw", "a"]);
        assert_eq!(labels("pins_total", 0.0).len(), 4 * 6);
    }
}
