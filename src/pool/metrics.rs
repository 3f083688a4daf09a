//! What a pool counts. Handles are looked up once per pool; a transaction only touches atomics.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::state::Counts;
use crate::{server::pins::Pin, types::PoolKey};

/// Upper bounds in seconds: from a hand-over within the process to a client that has waited for minutes.
const SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
    120.0,
];
const POOL: [&str; 3] = ["database", "user", "role"];
const POOL_REASON: [&str; 4] = ["database", "user", "role", "reason"];
const POOL_STATE: [&str; 4] = ["database", "user", "role", "state"];

/// The metric families of all pools.
#[derive(Debug, Clone)]
pub struct Families {
    clients: IntGaugeVec,
    waiting: IntGaugeVec,
    servers: IntGaugeVec,
    size: IntGaugeVec,
    transactions: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    connects: IntCounterVec,
    connect_failures: IntCounterVec,
    pinned: IntGaugeVec,
    pins: IntCounterVec,
    prepared_hits: IntCounterVec,
    prepared_misses: IntCounterVec,
    prepared_evictions: IntCounterVec,
    wait: HistogramVec,
    transaction: HistogramVec,
}

impl Families {
    /// Registers the families; the registry adds the prefix `pgweir_`.
    ///
    /// # Errors
    /// A family of that name is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let counter = |name: &str, help: &str| {
            let family = IntCounterVec::new(Opts::new(name, help), &POOL)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let histogram = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            let family = HistogramVec::new(options, &POOL)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        Ok(Self {
            clients: gauge("clients", "Clients that are logged in", &POOL)?,
            waiting: gauge(
                "waiting_clients",
                "Clients that wait for a server connection",
                &POOL,
            )?,
            servers: gauge("servers", "Server connections by state", &POOL_STATE)?,
            size: gauge("pool_size", "Server connections that the pool may have", &POOL)?,
            transactions: counter("transactions_total", "Transactions that servers have ended")?,
            received: counter("received_bytes_total", "Bytes received from clients for servers")?,
            sent: counter("sent_bytes_total", "Bytes received from servers for clients")?,
            connects: counter("server_connects_total", "Server connections opened")?,
            connect_failures: counter(
                "server_connect_failures_total",
                "Attempts to open a server connection that failed",
            )?,
            pinned: gauge(
                "pinned_clients",
                "Clients whose server connection stays with them between transactions, for what is in their session",
                &POOL,
            )?,
            pins: {
                let family = IntCounterVec::new(
                    Opts::new(
                        "pins_total",
                        "Times that something began to keep a server connection with its client",
                    ),
                    &POOL_REASON,
                )?;
                registry.register(Box::new(family.clone()))?;
                family
            },
            prepared_hits: counter(
                "prepared_statement_hits_total",
                "Uses of a prepared statement that the server connection had",
            )?,
            prepared_misses: counter(
                "prepared_statement_misses_total",
                "Uses of a prepared statement that the server connection had to prepare first",
            )?,
            prepared_evictions: counter(
                "prepared_statement_evictions_total",
                "Prepared statements that a server connection had to forget to make room",
            )?,
            wait: histogram("wait_seconds", "Time that clients waited for a server connection")?,
            transaction: histogram(
                "transaction_seconds",
                "Time that a server connection was lent: for a transaction, or for a session in session mode",
            )?,
        })
    }

    /// The handles of one pool.
    pub(super) fn pool(&self, key: &PoolKey) -> Metrics {
        let pool = labels(key);
        let state = |state| {
            self.servers
                .with_label_values(&[pool[0], pool[1], pool[2], state])
        };
        Metrics {
            clients: self.clients.with_label_values(&pool),
            waiting: self.waiting.with_label_values(&pool),
            connecting: state("connecting"),
            idle: state("idle"),
            active: state("active"),
            size: self.size.with_label_values(&pool),
            transactions: self.transactions.with_label_values(&pool),
            received: self.received.with_label_values(&pool),
            sent: self.sent.with_label_values(&pool),
            connects: self.connects.with_label_values(&pool),
            connect_failures: self.connect_failures.with_label_values(&pool),
            pinned: self.pinned.with_label_values(&pool),
            pins: Pin::ALL.map(|pin| {
                self.pins
                    .with_label_values(&[pool[0], pool[1], pool[2], pin.as_str()])
            }),
            prepared_hits: self.prepared_hits.with_label_values(&pool),
            prepared_misses: self.prepared_misses.with_label_values(&pool),
            prepared_evictions: self.prepared_evictions.with_label_values(&pool),
            wait: self.wait.with_label_values(&pool),
            transaction: self.transaction.with_label_values(&pool),
        }
    }

    /// Forgets a pool that is gone.
    pub(super) fn forget(&self, key: &PoolKey) {
        let pool = labels(key);
        for state in ["connecting", "idle", "active"] {
            let _ = self
                .servers
                .remove_label_values(&[pool[0], pool[1], pool[2], state]);
        }
        for pin in Pin::ALL {
            let _ = self
                .pins
                .remove_label_values(&[pool[0], pool[1], pool[2], pin.as_str()]);
        }
        for family in [&self.clients, &self.waiting, &self.size, &self.pinned] {
            let _ = family.remove_label_values(&pool);
        }
        for family in [
            &self.transactions,
            &self.received,
            &self.sent,
            &self.connects,
            &self.connect_failures,
            &self.prepared_hits,
            &self.prepared_misses,
            &self.prepared_evictions,
        ] {
            let _ = family.remove_label_values(&pool);
        }
        for family in [&self.wait, &self.transaction] {
            let _ = family.remove_label_values(&pool);
        }
    }
}

fn labels(key: &PoolKey) -> [&str; 3] {
    [key.database.as_str(), key.user.as_str(), key.role.as_str()]
}

/// The handles of one pool.
#[derive(Debug)]
pub struct Metrics {
    /// Clients logged in.
    pub clients: IntGauge,
    pub(super) waiting: IntGauge,
    pub(super) connecting: IntGauge,
    pub(super) idle: IntGauge,
    pub(super) active: IntGauge,
    pub(super) size: IntGauge,
    /// Transactions that servers have ended.
    pub transactions: IntCounter,
    /// Bytes from clients.
    pub received: IntCounter,
    /// Bytes from servers.
    pub sent: IntCounter,
    pub(super) connects: IntCounter,
    pub(super) connect_failures: IntCounter,
    /// Clients whose server connection stays with them between transactions.
    pub pinned: IntGauge,
    pins: [IntCounter; Pin::ALL.len()],
    /// Uses of prepared statements that the server connection had.
    pub prepared_hits: IntCounter,
    /// Uses of prepared statements that it had not.
    pub prepared_misses: IntCounter,
    /// Prepared statements that had to go for another.
    pub prepared_evictions: IntCounter,
    /// Seconds that clients waited for a server connection; zero for those that did not.
    pub wait: Histogram,
    /// Seconds that a server connection was lent: for a transaction, or for a session in session mode.
    pub transaction: Histogram,
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

    pub(super) fn show(&self, counts: Counts) {
        for (gauge, count) in [
            (&self.waiting, counts.waiting),
            (&self.connecting, counts.connecting),
            (&self.idle, counts.idle),
            (&self.active, counts.active),
        ] {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
