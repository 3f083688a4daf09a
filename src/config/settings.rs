//! The settings as the rest of the program uses them: complete, validated, with defaults filled in.
//!
//! Each component receives its own part and never the whole (only `app` sees [`Settings`]).

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;

use super::Network;
pub use super::kubernetes::{ClusterRef, Kubernetes, Servers};
use super::observation::{Fleet, Http, Metrics, Traces};
use crate::types::{PoolMode, Role, TlsMode};

/// Everything that a configuration file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `[listen]`
    pub listen: Listen,
    /// `[auth]`
    pub auth: Auth,
    /// `[pool]`
    pub pool: Pool,
    /// `[databases.NAME]`; the key `*` stands for every database that is not named.
    pub databases: BTreeMap<String, Database>,
    /// `[users.NAME]`
    pub users: BTreeMap<String, User>,
    /// `[server_tls]`
    pub server_tls: ServerTls,
    /// `[http]`; no section, no HTTP server.
    pub http: Option<Http>,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[fleet]`; no section, no other replicas.
    pub fleet: Option<Fleet>,
    /// `[traces]`; no section, no traces.
    pub traces: Option<Traces>,
    /// `[kubernetes]`
    pub kubernetes: Kubernetes,
    /// `[tcp]`
    pub tcp: TcpSides,
    /// `[log]`
    pub log: Log,
    /// `[shutdown]`
    pub shutdown: Shutdown,
    /// `[process]`
    pub process: Process,
}

/// Where clients connect.
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    /// `address`: at least one.
    pub addresses: Vec<ListenAddress>,
    /// `unix_socket_mode`
    pub unix_socket_mode: u32,
    /// `unix_socket_group`; the process's own when absent.
    pub unix_socket_group: Option<String>,
    /// `listen_backlog`
    pub listen_backlog: NonZeroU32,
    /// `max_client_conn`
    pub max_client_conn: NonZeroUsize,
    /// `max_unauthenticated_clients`: connections that have not logged in; `max_client_conn` by default.
    pub max_unauthenticated_clients: NonZeroUsize,
    /// `client_login_timeout`; zero is no limit.
    pub client_login_timeout: Duration,
    /// `max_packet_size`: how long one message of a client or a server may be.
    pub max_packet_size: u32,
    /// `tls`
    pub tls: ClientTls,
}

/// One listening address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// `"0.0.0.0:6432"`, `"[::]:6432"`
    Tcp(SocketAddr),
    /// `"unix:/run/pgweir"` (a directory; the file in it is `.s.PGSQL.<port>`, port of the first TCP
    /// address or 6432) or `"unix:/run/pgweir/.s.PGSQL.6432"`; here always the path of the socket file.
    Unix(PathBuf),
}

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClientTls {
    /// `mode` (PgBouncer's `client_tls_sslmode`); `disable` when there is no certificate.
    pub mode: TlsMode,
    /// `cert_file` and `key_file`: the certificate chain, leaf first, and its private key, both PEM.
    pub identity: Option<Identity>,
    /// `client_ca_file`: the CAs that sign client certificates.
    pub client_ca_file: Option<PathBuf>,
    /// `crl_file`: the certificates that those CAs have revoked.
    pub crl_file: Option<PathBuf>,
    /// `protocols`
    pub protocols: TlsProtocols,
}

/// A certificate chain and its private key.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// PEM, leaf first.
    pub cert_file: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key_file: PathBuf,
}

/// Which TLS versions are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum TlsProtocols {
    /// TLS 1.2 and 1.3.
    #[default]
    #[serde(rename = "secure")]
    Secure,
    /// TLS 1.3 only.
    #[serde(rename = "tlsv1.3")]
    Tls13,
}

/// How clients prove who they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    /// `auth_type`; `hba` also where there is only an `hba_file`.
    pub auth_type: AuthType,
    /// `hba_file` (PgBouncer's `auth_hba_file`); there is one if and only if `auth_type` is `hba`.
    pub hba_file: Option<PathBuf>,
    /// `ident_file` (PgBouncer's `auth_ident_file`): the maps that lines of the HBA file name.
    pub ident_file: Option<PathBuf>,
    /// `ldap_ca_file`: the CAs that sign the certificates of LDAP servers.
    pub ldap_ca_file: Option<PathBuf>,
    /// `users_file` (PgBouncer's `auth_file`)
    pub users_file: Option<PathBuf>,
    /// `allow_plaintext_password`: whether `auth_type = "password"` may be asked for without TLS.
    pub allow_plaintext_password: bool,
    /// What is done about those who guess.
    pub failures: FailureLimits,
    /// `admin_users`: who may give orders to the pooler through its virtual databases; nobody if empty.
    pub admin_users: Vec<String>,
    /// `stats_users`: who may look at the pooler through its virtual databases; nobody if empty.
    pub stats_users: Vec<String>,
    /// `auth_user` and what goes with it.
    pub look_up: AuthQuery,
}

/// How the secrets of users are looked up on the server.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthQuery {
    /// `auth_user`: the role that asks; nobody is looked up without it.
    pub user: Option<String>,
    /// `auth_query`
    pub query: String,
    /// `auth_database`: where it is asked, by its name here; empty is the client's own database.
    pub database: String,
    /// `auth_query_ttl`: how long an answer is remembered; zero is not at all.
    pub ttl: Duration,
    /// `auth_query_negative_ttl`: the same for the answer that there is no such user, or no secret.
    pub negative_ttl: Duration,
}

/// What a database has instead of `[auth]`'s.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatabaseAuth {
    /// `auth_user`
    pub user: Option<String>,
    /// `auth_query`
    pub query: Option<String>,
    /// `auth_database`
    pub database: Option<String>,
}

/// How many failed log-ins are too many.
#[derive(Debug, Clone, PartialEq)]
pub struct FailureLimits {
    /// `max_auth_failures` of a user from one address within a minute; `None` is no limit, and no delay either.
    pub max_failures: Option<NonZeroU32>,
    /// `auth_failure_block`: how long more log-ins are refused then; zero only delays.
    pub block: Duration,
    /// `trusted_networks`: addresses that say nothing about who is behind them.
    pub trusted: Vec<Network>,
}

/// The authentication methods (PgBouncer's `auth_type`, PostgreSQL's `pg_hba.conf` methods).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthType {
    /// Anyone is whom they say; the user must still be known when there is a users file.
    Trust,
    /// The password in clear (PgBouncer's `plain`).
    #[serde(alias = "plain")]
    Password,
    /// MD5, or SCRAM for users whose secret is a SCRAM verifier, as PostgreSQL does.
    Md5,
    /// SCRAM-SHA-256.
    #[default]
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// The client certificate's common name is the user.
    Cert,
    /// The operating system's name of the process at the other end of a unix socket is the user.
    Peer,
    /// As the lines of `hba_file` say.
    Hba,
}

/// Defaults of every pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// `mode` (PgBouncer's `pool_mode`)
    pub mode: PoolMode,
    /// `default_pool_size`: server connections per pool.
    pub default_pool_size: NonZeroUsize,
    /// `min_pool_size`: server connections kept open, at most the pool's size.
    pub min_pool_size: usize,
    /// `reserve_pool_size`: server connections beyond the pool's size, for clients that have waited long.
    pub reserve_pool_size: usize,
    /// `reserve_pool_timeout`: how long a client has waited then; zero never opens a reserve.
    pub reserve_pool_timeout: Duration,
    /// `max_db_connections`: server connections of all pools of one database.
    pub max_db_connections: Option<NonZeroUsize>,
    /// `max_user_connections`: server connections of all pools of one user.
    pub max_user_connections: Option<NonZeroUsize>,
    /// `server_connection_budget`: server connections of all pools of all replicas.
    pub server_connection_budget: Option<NonZeroUsize>,
    /// `max_db_client_connections`: clients of one database.
    pub max_db_client_connections: Option<NonZeroUsize>,
    /// `max_user_client_connections`: clients of one user.
    pub max_user_client_connections: Option<NonZeroUsize>,
    /// `query_wait_timeout`: how long a client waits for a server connection; zero is no limit.
    pub query_wait_timeout: Duration,
    /// `query_wait_notify`: after how long a client that waits is told so; zero is never.
    pub query_wait_notify: Duration,
    /// `query_timeout` and its like; zero is no limit.
    pub timeouts: Timeouts<Duration>,
    /// `hold_timeout`: how long requests wait for a primary before they are refused.
    pub hold_timeout: Duration,
    /// `server_connect_timeout`: TCP, TLS and log-in together; never zero.
    pub server_connect_timeout: Duration,
    /// `dns_max_ttl`: how often the host names of connections are looked up again; zero is never.
    pub dns_max_ttl: Duration,
    /// `max_server_logins`: log-ins under way at once to one server, for all pools together.
    pub max_server_logins: NonZeroUsize,
    /// `server_login_retry`: the longest pause before a failed connect is repeated; never zero.
    pub server_login_retry: Duration,
    /// `primary_check_interval`: how often a primary in use is asked whether it takes connections, and one that is away is
    /// looked for; zero is never.
    pub primary_check_interval: Duration,
    /// `log_min_duration_statement`: a query that takes as long is logged; none is if that is not set, and all are with zero.
    pub log_min_duration_statement: Option<Duration>,
    /// `server_check_delay`: a server connection idle for longer is checked before it is used.
    pub server_check_delay: Duration,
    /// `server_check_query`: with which query; `None` (`""`) never checks, `<empty>` is the empty query.
    pub server_check_query: Option<String>,
    /// `server_idle_timeout`: an idle server connection is closed after it; zero is never.
    pub server_idle_timeout: Duration,
    /// `server_lifetime`: an idle server connection older than it is closed; zero is never.
    pub server_lifetime: Duration,
    /// `server_reset_query`: what cleans a server connection after a client of a session pool; may be empty.
    pub server_reset_query: String,
    /// `server_reset_query_always`: after every transaction of the other pools as well.
    pub server_reset_query_always: bool,
    /// `server_round_robin`: idle server connections are used in turns.
    pub server_round_robin: bool,
    /// `max_prepared_statements`: of clients, on one server connection; zero passes named statements on untouched.
    pub max_prepared_statements: usize,
    /// `prepared_statement_cache_size`: bytes of the texts that no client holds any more, for all pools together.
    pub prepared_statement_cache_size: usize,
    /// `session_state`
    pub session_state: SessionState,
    /// `max_pin_duration`: how long a client keeps a server connection that it cannot leave; zero is no limit.
    pub max_pin_duration: Duration,
    /// `function_scan_interval`: how often the functions of a database are looked at; zero is never.
    pub function_scan_interval: Duration,
    /// `allow_replication`: whether replication connections are passed through.
    pub allow_replication: bool,
}

/// What becomes of session state that cannot be taken to another server connection: SQL `PREPARE`, `LISTEN`, temporary
/// tables, cursors `WITH HOLD`, advisory locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// Its client keeps the server connection until it is gone.
    #[default]
    Pin,
    /// It is gone when the transaction ends.
    Reset,
    /// It is gone, and its client is disconnected.
    Reject,
}

/// What a database's `user` logs in to servers with, instead of what the users file has for it.
#[derive(Clone, PartialEq, Eq)]
pub enum ServerPassword {
    /// `password_file`
    File(PathBuf),
    /// It is written in a `pgbouncer.ini`.
    Written(Arc<str>),
}

impl fmt::Debug for ServerPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Written(_) => f.write_str("Written(..)"),
        }
    }
}

/// One `[databases.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// `hosts` or `cluster`
    pub servers: Servers,
    /// `role`
    pub role: Role,
    /// `fall_back_to_primary`: where there is no standby, `ro` takes the primary.
    pub fall_back_to_primary: bool,
    /// `replica_cluster`: the cluster is a replica of another one, and its primary a standby.
    pub replica_cluster: bool,
    /// `dbname`: the name on the server; the client's own when absent.
    pub dbname: Option<String>,
    /// `user`: the role that logs in to the server for every client; the client's own when absent.
    pub user: Option<String>,
    /// `password_file`
    pub password: Option<ServerPassword>,
    /// `auth_user`, `auth_query` and `auth_database`
    pub auth: DatabaseAuth,
    /// `pool_size`
    pub pool_size: Option<NonZeroUsize>,
    /// `min_pool_size`
    pub min_pool_size: Option<usize>,
    /// `reserve_pool_size`
    pub reserve_pool_size: Option<usize>,
    /// `max_db_connections`; `Some(None)` lifts the limit of `[pool]`.
    pub max_db_connections: Option<Option<NonZeroUsize>>,
    /// `max_db_client_connections`, likewise.
    pub max_db_client_connections: Option<Option<NonZeroUsize>>,
    /// `pool_mode`
    pub pool_mode: Option<PoolMode>,
    /// `query_timeout` and its like.
    pub timeouts: Timeouts<Option<Duration>>,
    /// `load_balance_hosts`
    pub load_balance_hosts: LoadBalance,
    /// `server_lifetime`
    pub server_lifetime: Option<Duration>,
    /// `connect_query`: what the pooler runs on every new server connection.
    pub connect_query: Option<String>,
    /// `application_name`, `client_encoding`, `datestyle` and `timezone`: what server connections are opened with, for
    /// clients that do not ask for another.
    pub startup: Vec<(String, String)>,
    /// `max_prepared_statements`
    pub max_prepared_statements: Option<usize>,
    /// `session_state`
    pub session_state: Option<SessionState>,
    /// `max_pin_duration`
    pub max_pin_duration: Option<Duration>,
    /// `allow_replication`
    pub allow_replication: Option<bool>,
}

/// In which order the hosts of a database are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadBalance {
    /// As they are listed.
    #[default]
    Disable,
    /// Each new connection begins with the next one.
    RoundRobin,
}

/// One `[users.NAME]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct User {
    /// `pool_size`
    pub pool_size: Option<NonZeroUsize>,
    /// `reserve_pool_size`
    pub reserve_pool_size: Option<usize>,
    /// `max_user_connections`; `Some(None)` lifts the limit of `[pool]`.
    pub max_user_connections: Option<Option<NonZeroUsize>>,
    /// `max_user_client_connections`, likewise.
    pub max_user_client_connections: Option<Option<NonZeroUsize>>,
    /// `pool_mode`
    pub pool_mode: Option<PoolMode>,
    /// `query_timeout` and its like.
    pub timeouts: Timeouts<Option<Duration>>,
    /// `max_prepared_statements`
    pub max_prepared_statements: Option<usize>,
    /// `max_pin_duration`
    pub max_pin_duration: Option<Duration>,
    /// `allow_replication`
    pub allow_replication: Option<bool>,
    /// `server_tls`: of connections that log in to servers as this user, instead of `[server_tls]`; complete.
    pub server_tls: Option<ServerTls>,
}

/// How long clients, their queries and their transactions may take: set in `[pool]`, and differently where a
/// database or a user says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts<T> {
    /// `query_timeout`: the server works on one query.
    pub query: T,
    /// `transaction_timeout`: a transaction is open, whatever happens in it.
    pub transaction: T,
    /// `idle_transaction_timeout`: the server waits for its client in the middle of a transaction.
    pub idle_transaction: T,
    /// `client_idle_timeout`: a client does nothing and is in no transaction.
    pub client_idle: T,
}

impl<T> Timeouts<T> {
    /// The same with each value made into another.
    pub fn map<U>(self, make: impl Fn(T) -> U) -> Timeouts<U> {
        Timeouts {
            query: make(self.query),
            transaction: make(self.transaction),
            idle_transaction: make(self.idle_transaction),
            client_idle: make(self.client_idle),
        }
    }
}

impl Timeouts<Option<Duration>> {
    /// What is set here, and from `other` what is not.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            query: self.query.or(other.query),
            transaction: self.transaction.or(other.transaction),
            idle_transaction: self.idle_transaction.or(other.idle_transaction),
            client_idle: self.client_idle.or(other.client_idle),
        }
    }
}

/// TLS towards servers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServerTls {
    /// `mode` (PgBouncer's `server_tls_sslmode`)
    pub mode: TlsMode,
    /// `ca_file`: the CAs that sign server certificates; required by the two `verify-` modes.
    pub ca_file: Option<PathBuf>,
    /// `cert_file` and `key_file`: the client certificate shown to servers.
    pub identity: Option<Identity>,
    /// `crl_file`: the certificates that those CAs have revoked; looked at by the two `verify-` modes.
    pub crl_file: Option<PathBuf>,
    /// `server_name`: the name that `verify-full` looks for instead of the host, or of a cluster's `-rw` service.
    pub server_name: Option<String>,
    /// `protocols`
    pub protocols: TlsProtocols,
}

/// Options of TCP sockets. What is not set has a default of its own on each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSides {
    /// Towards clients.
    pub clients: Tcp,
    /// Towards servers.
    pub servers: Tcp,
}

impl Default for TcpSides {
    fn default() -> Self {
        Self {
            clients: Tcp::default(),
            servers: Tcp::towards_servers(),
        }
    }
}

/// Options of a TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// `tcp_keepalive`: whether the kernel probes a peer that says nothing.
    pub keepalive: bool,
    /// `tcp_keepidle`: for how long it says nothing before that.
    pub keepidle: Duration,
    /// `tcp_keepintvl`: between two probes.
    pub keepintvl: Duration,
    /// `tcp_keepcnt`: unanswered probes that end the connection.
    pub keepcnt: u32,
    /// `tcp_user_timeout`: for how long what was sent may stay unacknowledged; zero is the kernel's limit.
    pub user_timeout: Duration,
    /// `tcp_socket_buffer`: bytes of the send and the receive buffer; zero leaves them to the kernel.
    pub socket_buffer: usize,
}

impl Default for Tcp {
    /// Towards clients: one that is gone without a word is noticed in a minute and a half. There is no user timeout,
    /// because Linux counts a peer that lives and does not read (a closed window) as well, and a client may have reason
    /// not to read for minutes.
    fn default() -> Self {
        Self {
            keepalive: true,
            keepidle: Duration::from_secs(60),
            keepintvl: Duration::from_secs(10),
            keepcnt: 3,
            user_timeout: Duration::ZERO,
            socket_buffer: 0,
        }
    }
}

impl Tcp {
    /// One that is gone without a word is noticed in ten seconds, whether there is something on the way to it or from it.
    /// With a user timeout it is that, and not the count of probes, that ends a connection.
    pub fn towards_servers() -> Self {
        Self {
            keepidle: Duration::from_secs(5),
            keepintvl: Duration::from_secs(2),
            user_timeout: Duration::from_secs(10),
            ..Self::default()
        }
    }
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Log {
    /// `format`
    pub format: LogFormat,
    /// `level`: `error`, `warn`, `info`, `debug`, `trace`, or directives as `pgweir::pool=debug,info`.
    pub level: LogLevel,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// A filter in `tracing-subscriber`'s directive syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevel(pub String);

impl Default for LogLevel {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

/// What SIGTERM does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shutdown {
    /// `drain_delay`: after readiness went off, how long new connections are still taken.
    pub drain_delay: Duration,
    /// `drain_timeout`: how long clients may finish their transactions after that.
    pub drain_timeout: Duration,
}

/// The process itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Process {
    /// `workers`: threads that relay; `None` (`"auto"`) sizes them from the CPU quota.
    pub workers: Option<NonZeroUsize>,
    /// `scheduling`: how the kernel schedules those threads.
    pub scheduling: Scheduling,
    /// `file_check_interval`: how often it is looked whether a file has changed; zero is never.
    pub file_check_interval: Duration,
    /// `stats_period`: over how long the console's averages are taken.
    pub stats_period: Duration,
}

/// How the kernel schedules the threads that relay (sched(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduling {
    /// `SCHED_BATCH`: they do not interrupt others when they are woken.
    #[default]
    Batch,
    /// As the process was started.
    Inherit,
}
