//! How many clients there are and may be: of everybody, of databases and of users that have a limit.

use std::sync::{Arc, Weak};

use prometheus::{
    Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{
    app::{guests::Used, serve::Reception},
    metrics::{self, Kind, OTHER, Shown},
};

const CONNECTIONS: Shown = Shown::new(
    "client_connections",
    "Clients that are logged in, those of the admin console and those that are about to be greeted among them",
    Kind::Gauge,
);
const MOST: Shown = Shown::new(
    "max_client_connections",
    "Clients that may be logged in (max_client_conn)",
    Kind::Gauge,
);
const MOST_NEWCOMERS: Shown = Shown::new(
    "max_unauthenticated_clients",
    "Connections that may be there without having logged in",
    Kind::Gauge,
);
const DATABASE: [Shown; 2] = [
    Shown::new(
        "database_clients",
        "Clients of a database that has a limit for them",
        Kind::Gauge,
    ),
    Shown::new(
        "database_max_clients",
        "Clients that a database may have (max_db_client_connections)",
        Kind::Gauge,
    ),
];
const USER: [Shown; 2] = [
    Shown::new(
        "user_clients",
        "Clients of a user who has a limit for them",
        Kind::Gauge,
    ),
    Shown::new(
        "user_max_clients",
        "Clients that a user may have (max_user_client_connections)",
        Kind::Gauge,
    ),
];
const STATEMENTS: Shown = Shown::new(
    "prepared_statements",
    "Different prepared statements that are remembered for all clients",
    Kind::Gauge,
);
const STATEMENT_BYTES: Shown = Shown::new(
    "prepared_statement_bytes",
    "What prepared statements take, for all clients",
    Kind::Gauge,
);
const MOST_STATEMENT_BYTES: Shown = Shown::new(
    "prepared_statement_cache_bytes",
    "Beyond this, statements that no client has are forgotten (prepared_statement_cache_size)",
    Kind::Gauge,
);
const NUMBERS: [&Shown; 6] = [
    &CONNECTIONS,
    &MOST,
    &MOST_NEWCOMERS,
    &STATEMENTS,
    &STATEMENT_BYTES,
    &MOST_STATEMENT_BYTES,
];

/// The families.
pub(in crate::app) struct ClientMetrics {
    reception: Weak<Reception>,
    descriptions: Vec<Desc>,
}

impl ClientMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// One of that name is registered already.
    pub(in crate::app) fn register(
        reception: &Arc<Reception>,
        registry: &Registry,
    ) -> prometheus::Result<()> {
        let descriptions = metrics::descriptions(NUMBERS.into_iter().chain(&DATABASE).chain(&USER))?;
        registry.register(Box::new(Self {
            reception: Arc::downgrade(reception),
            descriptions,
        }))
    }
}

impl Collector for ClientMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(reception) = self.reception.upgrade() else {
            return Vec::new();
        };
        let (door, statements) = (&reception.door, reception.pools.statements());
        let counts = statements.counts();
        let numbers = [
            door.slots.taken(),
            door.slots.limit(),
            door.newcomers().1,
            counts.statements,
            counts.bytes,
            statements.limit(),
        ];
        let one = |(shown, count): (&Shown, usize)| shown.family(vec![shown.value(Vec::new(), count as f64)]);
        let mut families: Vec<_> = NUMBERS.into_iter().zip(numbers).map(one).collect();
        let most = reception.pools.families().max_series();
        families.extend(of("database", &reception.guests.databases(), &DATABASE, most));
        families.extend(of("user", &reception.guests.users(), &USER, most));
        families.into_iter().flatten().collect()
    }
}

/// Those that are fullest by themselves, all others as one.
fn of(label: &str, all: &[Used], [clients, limit]: &[Shown; 2], most: usize) -> [Option<MetricFamily>; 2] {
    let (named, rest) = all.split_at(all.len().min(most));
    let labels = |name: &str| metrics::labels([label], [name]);
    let mut used: Vec<_> = named
        .iter()
        .map(|of| clients.value(labels(&of.name), of.clients as f64))
        .collect();
    if !rest.is_empty() {
        let sum: usize = rest.iter().map(|of| of.clients).sum();
        used.push(clients.value(labels(OTHER), sum as f64));
    }
    let limits = named
        .iter()
        .map(|of| limit.value(labels(&of.name), of.limit as f64));
    [clients.family(used), limit.family(limits.collect())]
}
