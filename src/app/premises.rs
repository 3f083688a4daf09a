//! What the admin console is told about the configuration, and what it orders.

use std::{collections::BTreeSet, num::NonZeroUsize, sync::Arc};

use super::{certificates, prepare::Prepared, serve::Reception};
use crate::{
    admin::{
        Asking, CertificateView, DatabaseView, Directive, HostView, Premises, ReplicaView, SettingView,
        UserView,
    },
    config::{self, Database, KEYS, LoadBalance, Servers, Settings, Values},
    lifecycle::Phase,
    status::document::Replica,
    topology::Cluster,
    types::{Endpoint, PoolMode},
};

/// What is in force, for whoever looks.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) settings: Arc<Settings>,
    pub(super) prepared: Arc<Prepared>,
    /// What the file and the console have said.
    pub(super) values: Arc<Values>,
}

impl Premises for Reception {
    fn databases(&self, used: &[&str]) -> Vec<DatabaseView> {
        let known = self.known.load();
        let settings = &known.settings;
        let named = settings.databases.keys().map(String::as_str);
        let names: BTreeSet<_> = named
            .filter(|name| *name != "*")
            .chain(used.iter().copied())
            .collect();
        names
            .into_iter()
            .filter(|name| !config::RESERVED_NAMES.contains(name))
            .filter_map(|name| Some(database_view(name, settings.database(name)?, settings)))
            .collect()
    }

    fn users(&self, used: &[&str]) -> Vec<UserView> {
        let known = self.known.load();
        let mut names: BTreeSet<&str> = used.iter().copied().collect();
        names.extend(known.settings.users.keys().map(String::as_str));
        if let Some(users) = &known.prepared.users {
            names.extend(users.iter().map(|(name, _)| name));
        }
        names
            .into_iter()
            .map(|name| user_view(name, &known.settings))
            .collect()
    }

    fn settings(&self) -> Vec<SettingView> {
        let (known, defaults) = (self.known.load(), config::defaults());
        let globals = KEYS.iter().filter(|key| key.is_global());
        globals
            .map(|key| {
                let path = key.path();
                let default = defaults.get(&path).cloned();
                SettingView {
                    value: known.values.get(&path).cloned().or_else(|| default.clone()),
                    default,
                    pgbouncer: key.pgbouncer.first().copied(),
                    changeable: key.is_changeable(),
                    key: path,
                }
            })
            .collect()
    }

    fn certificates(&self) -> Vec<CertificateView> {
        certificates::views(&self.known.load().prepared)
    }

    fn hosts(&self) -> Vec<HostView> {
        let (ttl, hosts) = self.clusters.names().known();
        let view = |(name, addresses)| HostView { name, ttl, addresses };
        hosts.into_iter().map(view).collect()
    }

    fn clusters(&self) -> Vec<Arc<Cluster>> {
        self.clusters.all()
    }

    fn replicas(&self) -> Asking<'_> {
        Box::pin(async {
            let Some(roll_call) = self.roll_call.get() else {
                return Vec::new();
            };
            roll_call.take().await.into_iter().map(replica_view).collect()
        })
    }

    fn logging_in(&self) -> usize {
        self.door.newcomers().0
    }

    fn direct(&self, directive: Directive) {
        // Nobody listens any more when the process ends; then the directive is dropped, which says so.
        drop(self.directives.send(directive));
    }

    fn is_shutting_down(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }
}

fn replica_view(replica: Replica) -> ReplicaView {
    ReplicaView {
        name: replica.name,
        is_own: replica.own,
        version: replica.version,
        phase: replica.phase,
        clients: replica.clients,
        waiting: replica.waiting,
        active: replica.active,
        transactions_per_second: replica.transactions_per_second,
        error: replica.error,
    }
}

fn database_view(name: &str, database: &Database, settings: &Settings) -> DatabaseView {
    let pool = settings.pool_settings(database, database.user.as_deref().unwrap_or_default());
    let (host, port, several) = match &database.servers {
        Servers::Hosts(hosts) => {
            let names: Vec<_> = hosts.iter().map(host).collect();
            let port = hosts.iter().find_map(port);
            (names.join(","), port, hosts.len() > 1)
        }
        Servers::Cluster(cluster) => (cluster.to_string(), Some(5432), false),
    };
    DatabaseView {
        name: name.to_owned(),
        host: Some(host),
        port: port.unwrap_or_default(),
        dbname: database.dbname.as_deref().unwrap_or(name).to_owned(),
        force_user: database.user.clone(),
        pool_size: pool.size.get(),
        min_pool_size: pool.min_size,
        reserve_pool_size: pool.reserve_size,
        server_lifetime: pool.server_lifetime,
        pool_mode: database.pool_mode.map(PoolMode::as_str),
        load_balance_hosts: several.then_some(match database.load_balance_hosts {
            LoadBalance::Disable => "disable",
            LoadBalance::RoundRobin => "round-robin",
        }),
        max_connections: pool.max_db_connections.map_or(0, NonZeroUsize::get),
        max_client_connections: settings.max_db_clients(name).map_or(0, NonZeroUsize::get),
    }
}

fn user_view(name: &str, settings: &Settings) -> UserView {
    let own = settings.users.get(name);
    let limit = own.and_then(|own| own.max_user_connections);
    let limit = limit.unwrap_or(settings.pool.max_user_connections);
    UserView {
        name: name.to_owned(),
        pool_size: own.and_then(|own| Some(own.pool_size?.get())),
        reserve_pool_size: own.and_then(|own| own.reserve_pool_size),
        pool_mode: own.and_then(|own| Some(own.pool_mode?.as_str())),
        max_connections: limit.map_or(0, NonZeroUsize::get),
        max_client_connections: settings.max_user_clients(name).map_or(0, NonZeroUsize::get),
    }
}

fn host(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Tcp { host, .. } => host.clone(),
        Endpoint::Unix(path) => path.parent().unwrap_or(path).display().to_string(),
    }
}

fn port(endpoint: &Endpoint) -> Option<u16> {
    match endpoint {
        Endpoint::Tcp { port, .. } => Some(*port),
        Endpoint::Unix(path) => path.extension()?.to_str()?.parse().ok(),
    }
}
