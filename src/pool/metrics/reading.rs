//! What a pool has counted, at one moment.

use super::Metrics;
use crate::{
    metrics::{Buckets, Counter, Errors, Gauge, Histogram, Kind, Shown},
    server::pins::Pin,
};

/// The counters, in the order of [`counters`].
pub(super) const COUNTERS: [Shown; 11] = [
    counter("transactions_total", "Transactions that servers have ended"),
    counter("received_bytes_total", "Bytes received from clients for servers"),
    counter("sent_bytes_total", "Bytes received from servers for clients"),
    counter("server_connects_total", "Server connections opened"),
    counter(
        "server_connect_failures_total",
        "Attempts to open a server connection that failed",
    ),
    counter(
        "prepared_statement_hits_total",
        "Uses of a prepared statement that the server connection had",
    ),
    counter(
        "prepared_statement_misses_total",
        "Uses of a prepared statement that the server connection had to prepare first",
    ),
    counter(
        "prepared_statement_evictions_total",
        "Prepared statements that a server connection had to forget to make room",
    ),
    counter("client_parses_total", "Parse messages received from clients"),
    counter(
        "server_parses_total",
        "Parse messages sent to servers for clients",
    ),
    counter("binds_total", "Bind messages received from clients"),
];

/// The gauges, in the order of [`gauges`].
pub(super) const GAUGES: [Shown; 6] = [
    gauge("clients", "Clients that are logged in"),
    gauge("waiting_clients", "Clients that wait for a server connection"),
    gauge("pool_size", "Server connections that the pool may have"),
    gauge(
        "min_pool_size",
        "Server connections that are kept open although nobody needs them",
    ),
    gauge(
        "reserve_pool_size",
        "Server connections that the pool may have beyond its size for those who have waited long",
    ),
    gauge(
        "pinned_clients",
        "Clients whose server connection stays with them between transactions, for what is in their session",
    ),
];

/// The histograms, in the order of [`histograms`].
pub(super) const HISTOGRAMS: [Shown; 5] = [
    histogram("wait_seconds", "Time that clients waited for a server connection"),
    histogram(
        "query_seconds",
        "Time that servers worked for what clients asked at once: a query, or a batch up to its Sync",
    ),
    histogram(
        "transaction_seconds",
        "Time that a server connection was lent: for a transaction, or for a session in session mode",
    ),
    histogram(
        "server_connect_seconds",
        "Time until a server was there to log in to, with TLS where it is used",
    ),
    histogram("server_login_seconds", "Time that logging in to a server took"),
];

pub(super) const SERVERS: Shown = gauge("servers", "Server connections by state");
pub(super) const STATES: [&str; 3] = ["connecting", "idle", "active"];
pub(super) const PINS: Shown = counter(
    "pins_total",
    "Times that something began to keep a server connection with its client",
);
pub(super) const ERRORS: Shown = counter(
    "errors_total",
    "Errors that clients were told after their log-in, by the class of the SQLSTATE and by who has to act",
);

const fn counter(name: &'static str, help: &'static str) -> Shown {
    Shown::new(name, help, Kind::Counter)
}

const fn gauge(name: &'static str, help: &'static str) -> Shown {
    Shown::new(name, help, Kind::Gauge)
}

const fn histogram(name: &'static str, help: &'static str) -> Shown {
    Shown::new(name, help, Kind::Histogram)
}

fn counters(metrics: &Metrics) -> [&Counter; COUNTERS.len()] {
    [
        &metrics.transactions,
        &metrics.received,
        &metrics.sent,
        &metrics.connects,
        &metrics.connect_failures,
        &metrics.prepared_hits,
        &metrics.prepared_misses,
        &metrics.prepared_evictions,
        &metrics.client_parses,
        &metrics.server_parses,
        &metrics.binds,
    ]
}

fn gauges(metrics: &Metrics) -> [&Gauge; GAUGES.len()] {
    [
        &metrics.clients,
        &metrics.waiting,
        &metrics.size,
        &metrics.min_size,
        &metrics.reserve_size,
        &metrics.pinned,
    ]
}

fn histograms(metrics: &Metrics) -> [&Histogram; HISTOGRAMS.len()] {
    [
        &metrics.wait,
        &metrics.query,
        &metrics.transaction,
        &metrics.connect,
        &metrics.login,
    ]
}

/// One pool's numbers, or the sum of several pools'.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) counters: [u64; COUNTERS.len()],
    pub(super) gauges: [i64; GAUGES.len()],
    pub(super) histograms: [Buckets; HISTOGRAMS.len()],
    /// Server connections, by [`STATES`].
    pub(super) servers: [i64; STATES.len()],
    pub(super) pins: [u64; Pin::ALL.len()],
    pub(super) errors: Errors,
}

impl Reading {
    pub(super) fn of(metrics: &Metrics) -> Self {
        let errors = Errors::default();
        errors.add_all(&metrics.errors);
        Self {
            counters: counters(metrics).map(Counter::get),
            gauges: gauges(metrics).map(Gauge::get),
            histograms: histograms(metrics).map(Histogram::buckets),
            servers: [&metrics.connecting, &metrics.idle, &metrics.active].map(Gauge::get),
            pins: metrics.pins.each_ref().map(Counter::get),
            errors,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        let sum = |mine: &mut u64, theirs: &u64| *mine = mine.wrapping_add(*theirs);
        self.counters
            .iter_mut()
            .zip(&other.counters)
            .for_each(|(mine, theirs)| sum(mine, theirs));
        self.pins
            .iter_mut()
            .zip(&other.pins)
            .for_each(|(mine, theirs)| sum(mine, theirs));
        let gauges = self.gauges.iter_mut().chain(&mut self.servers);
        for (mine, theirs) in gauges.zip(other.gauges.iter().chain(&other.servers)) {
            *mine = mine.saturating_add(*theirs);
        }
        for (mine, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            mine.add(theirs);
        }
        self.errors.add_all(&other.errors);
    }
}

impl Metrics {
    /// Counts all that another has counted, and nothing of what is.
    pub(super) fn absorb(&self, other: &Self) {
        for (mine, theirs) in counters(self).iter().zip(counters(other)) {
            mine.inc_by(theirs.get());
        }
        for (mine, theirs) in histograms(self).iter().zip(histograms(other)) {
            mine.add(&theirs.buckets());
        }
        for (mine, theirs) in self.pins.iter().zip(&other.pins) {
            mine.inc_by(theirs.get());
        }
        self.errors.add_all(&other.errors);
    }
}
