//! What only whoever runs the process knows and can do: the configuration, and the life of the process.

use std::{fmt, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::command::Shutdown;
use crate::topology::Cluster;

/// Whoever runs the process.
pub trait Premises: fmt::Debug + Send + Sync {
    /// The databases that the configuration names, and those of `used` that it serves without naming them.
    fn databases(&self, used: &[&str]) -> Vec<DatabaseView>;

    /// The users that the configuration and the users file name, and those of `used`.
    fn users(&self, used: &[&str]) -> Vec<UserView>;

    /// Every setting that is not one database's or one user's.
    fn settings(&self) -> Vec<SettingView>;

    /// The certificates and revocation lists in use.
    fn certificates(&self) -> Vec<CertificateView>;

    /// The host names of server connections.
    fn hosts(&self) -> Vec<HostView>;

    /// The clusters.
    fn clusters(&self) -> Vec<Arc<Cluster>>;

    /// The replicas of this pooler, this one among them, each asked; none where there is no HTTP server to ask by.
    /// Bounded in time.
    fn replicas(&self) -> Asking<'_>;

    /// How many connections have not logged in yet.
    fn logging_in(&self) -> usize;

    /// Whether the process is about to end.
    fn is_shutting_down(&self) -> bool;

    /// Has something done by and by. It is answered through the directive; dropped, it will not be done.
    fn direct(&self, directive: Directive);
}

/// Replicas that are being asked.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Vec<ReplicaView>> + Send + 'a>>;

/// What is to be done with the process.
#[derive(Debug)]
pub enum Directive {
    /// Read the configuration again. Answered with what is wrong with it.
    Reload(oneshot::Sender<Result<(), Vec<String>>>),
    /// Change a setting until the configuration is read again.
    Set {
        /// As PgBouncer or the configuration file calls it.
        name: String,
        /// Text, as it was typed.
        value: String,
        /// How it went.
        reply: oneshot::Sender<Result<(), SetError>>,
    },
    /// End.
    Shutdown(Shutdown),
}

/// Why a setting was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetError {
    /// There is none of that name; one is like it.
    Unknown(Option<String>),
    /// It cannot be changed while the process runs.
    Fixed,
    /// The value is wrong: why, and what would be right.
    Value {
        /// Why.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The configuration file, to which the change would be applied, has mistakes of its own by now.
    File(Vec<String>),
}

/// A replica, as it shows itself.
#[derive(Debug, Clone, Default)]
pub struct ReplicaView {
    /// The pod's name, or the address.
    pub name: String,
    /// It is this one.
    pub is_own: bool,
    /// Its version.
    pub version: Option<String>,
    /// What it does: running, draining and so on.
    pub phase: Option<String>,
    /// How many clients it has.
    pub clients: usize,
    /// How many of them wait for a server connection.
    pub waiting: usize,
    /// How many server connections work for a client.
    pub active: usize,
    /// Over the last minute.
    pub transactions_per_second: f64,
    /// Why it says nothing.
    pub error: Option<String>,
}

/// A database, as the configuration has it.
#[derive(Debug, Clone, Default)]
pub struct DatabaseView {
    /// As clients name it.
    pub name: String,
    /// Hosts, or the cluster; separated by commas.
    pub host: Option<String>,
    /// The port of the first host.
    pub port: u16,
    /// As the server names it.
    pub dbname: String,
    /// The role that logs in to the server for every client.
    pub force_user: Option<String>,
    /// `pool_size`
    pub pool_size: usize,
    /// `min_pool_size`
    pub min_pool_size: usize,
    /// `reserve_pool_size`
    pub reserve_pool_size: usize,
    /// `server_lifetime`
    pub server_lifetime: Duration,
    /// `pool_mode`, where it has one of its own.
    pub pool_mode: Option<&'static str>,
    /// `load_balance_hosts`, where there are several.
    pub load_balance_hosts: Option<&'static str>,
    /// `max_db_connections`; zero is no limit.
    pub max_connections: usize,
    /// `max_db_client_connections`; zero is no limit.
    pub max_client_connections: usize,
}

/// A user, as the configuration has it.
#[derive(Debug, Clone, Default)]
pub struct UserView {
    /// Its name.
    pub name: String,
    /// `pool_size`, where it has one of its own; and so on.
    pub pool_size: Option<usize>,
    /// `reserve_pool_size`
    pub reserve_pool_size: Option<usize>,
    /// `pool_mode`
    pub pool_mode: Option<&'static str>,
    /// `max_user_connections`; zero is no limit.
    pub max_connections: usize,
    /// `max_user_client_connections`; zero is no limit.
    pub max_client_connections: usize,
}

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingView {
    /// `section.key`
    pub key: String,
    /// What PgBouncer calls it.
    pub pgbouncer: Option<&'static str>,
    /// As a configuration file would have it; absent where it is not set.
    pub value: Option<String>,
    /// The same where nothing is said.
    pub default: Option<String>,
    /// Whether SET and a reload can change it.
    pub changeable: bool,
}

/// A certificate, or a revocation list.
#[derive(Debug, Clone)]
pub struct CertificateView {
    /// The setting that has brought it here.
    pub setting: String,
    /// `certificate` or `crl`
    pub kind: &'static str,
    /// Whose it is.
    pub subject: String,
    /// Since when it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
}

/// A host name, and what it stands for.
#[derive(Debug, Clone)]
pub struct HostView {
    /// The name.
    pub name: String,
    /// In how long it is looked up again; zero is never.
    pub ttl: Duration,
    /// What was found last.
    pub addresses: Vec<IpAddr>,
}
