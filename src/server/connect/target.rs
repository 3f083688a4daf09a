//! Where to connect, as whom, and how.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::Span;

use crate::{
    config::{LoadBalance, Tcp},
    routing::Wish,
    server::{logins::Logins, names::Names},
    tls::Connector,
    topology::{Cluster, Topology},
    types::{Endpoint, Role},
};

/// Where to connect, as whom, and what is expected there.
#[derive(Debug)]
pub struct Target {
    /// The servers.
    pub cluster: Arc<Cluster>,
    /// Which of them will do.
    pub wish: Wish,
    /// The role that logs in.
    pub user: String,
    /// The database's name on the server.
    pub database: String,
    /// Settings that connections are opened with.
    pub startup: Vec<(String, String)>,
    /// What is run on every connection before it is used.
    pub connect_query: Option<String>,
    /// TLS, and how much of it.
    pub connector: Arc<Connector>,
    /// The name that servers' certificates have where it is not the name that is dialled, as with a pod's address. One
    /// in the connector's settings goes before it.
    pub server_name: Option<String>,
    /// How connections are opened.
    pub options: ConnectOptions,
    /// The places for log-ins at each server.
    pub logins: Arc<Logins>,
    /// What host names stand for.
    pub names: Arc<Names>,
    /// How many connections have been begun.
    pub begun: AtomicUsize,
}

/// How connections are opened. When it changes, those that are open are as good as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectOptions {
    /// For one endpoint: socket, TLS and log-in together.
    pub timeout: Duration,
    /// What sockets are tuned with.
    pub tcp: Tcp,
    /// In which order endpoints are tried.
    pub load_balance: LoadBalance,
    /// How long a message of the server may be after the log-in.
    pub max_packet_size: u32,
}

impl Target {
    /// The span of what is logged about a connection to `endpoint`.
    pub fn span(&self, endpoint: &Endpoint) -> Span {
        tracing::info_span!("server", server = %endpoint, db = %self.database, user = %self.user)
    }

    /// The same for a client's own connection, which is opened with what the client has asked for and left alone.
    #[must_use]
    pub fn for_one_client(&self, asked: Vec<(String, String)>) -> Self {
        let mut startup = self.startup.clone();
        startup.retain(|(name, _)| !asked.iter().any(|(other, _)| name.eq_ignore_ascii_case(other)));
        startup.extend(asked);
        Self {
            cluster: self.cluster.clone(),
            wish: self.wish.clone(),
            user: self.user.clone(),
            database: self.database.clone(),
            startup,
            connect_query: None,
            connector: self.connector.clone(),
            server_name: self.server_name.clone(),
            options: ConnectOptions {
                max_packet_size: u32::MAX,
                ..self.options
            },
            logins: self.logins.clone(),
            names: self.names.clone(),
            begun: AtomicUsize::new(self.begun.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// The same for one of its servers only.
    #[must_use]
    pub fn at(&self, endpoint: &Endpoint, now: Instant) -> Self {
        Self {
            cluster: Cluster::only(endpoint, now),
            wish: self.wish.clone(),
            user: self.user.clone(),
            database: self.database.clone(),
            startup: self.startup.clone(),
            connect_query: self.connect_query.clone(),
            connector: self.connector.clone(),
            server_name: self.server_name.clone(),
            options: self.options,
            logins: self.logins.clone(),
            names: self.names.clone(),
            begun: AtomicUsize::default(),
        }
    }

    /// The servers in the order in which the next connection tries them.
    pub(super) fn in_turn(&self, topology: &Topology) -> Vec<Endpoint> {
        let begun = self.begun.fetch_add(1, Ordering::Relaxed);
        let servers = &topology.servers;
        // Of those that have equally many connections another is the first each time.
        let load = |endpoint: &Endpoint| {
            let place = servers.iter().position(|server| server.endpoint == *endpoint);
            self.cluster.load(endpoint).open() * servers.len()
                + (place.unwrap_or_default() + begun) % servers.len().max(1)
        };
        let mut endpoints = self.wish.candidates(topology, load);
        if topology.is_leaving && self.wish.role != Role::ReadWrite {
            endpoints.sort_by_key(|endpoint| topology.primary.as_ref() == Some(endpoint));
        }
        if topology.is_shared && self.wish.role == Role::ReadWrite {
            let first = begun % endpoints.len().max(1);
            endpoints.rotate_left(first);
        }
        endpoints
    }

    /// What a server has to be at this moment.
    pub fn role(&self, topology: &Topology) -> Role {
        match self.wish.role {
            Role::ReadWrite if topology.is_replica => Role::Any,
            Role::ReadOnly if self.wish.fall_back => Role::Any,
            role => role,
        }
    }

    /// Whether connections for `other` are as good as connections for this, if perhaps made with certificates that
    /// were replaced since.
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || (Arc::ptr_eq(&self.cluster, &other.cluster)
                && self.wish == other.wish
                && self.user == other.user
                && self.database == other.database
                && self.startup == other.startup
                && self.connect_query == other.connect_query
                && self.server_name == other.server_name
                && (Arc::ptr_eq(&self.connector, &other.connector)
                    || self.connector.is_like(&other.connector)))
    }

    /// Whether connections for `other`, which is the same, are also opened in the same way.
    pub fn opens_like(&self, other: &Self) -> bool {
        self.options == other.options
            && Arc::ptr_eq(&self.logins, &other.logins)
            && Arc::ptr_eq(&self.connector, &other.connector)
    }
}
