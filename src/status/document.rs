//! What `/status.json` says: the shape that the page and `pgweir top` read. Times are seconds, moments are seconds since
//! 1970, sizes are bytes; what is not known is `null`.
//!
//! It has no secret and no text of a query, and knows nobody who could tell one.

use serde::{Deserialize, Serialize};

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What a person should know first, the worst first.
    pub notices: Vec<Notice>,
    /// The process.
    pub process: Process,
    /// Clients of the whole process.
    pub clients: Clients,
    /// Server connections of all pools.
    pub servers: Servers,
    /// `server_connection_budget`, where there is one.
    pub budget: Option<Budget>,
    /// The last minute of all pools.
    pub minute: Rates,
    /// The last minutes of all pools, bit by bit.
    pub series: Series,
    /// The clusters, by name.
    pub clusters: Vec<Cluster>,
    /// The pools, those with the most to do first.
    pub pools: Vec<Pool>,
    /// How many more pools there are.
    pub pools_left_out: usize,
    /// The transactions that have been open for longest.
    pub transactions: Vec<Session>,
    /// Where clients wait for a server connection, and for what; the longest wait first.
    pub queues: Vec<Queue>,
    /// What keeps server connections with their clients.
    pub pins: Vec<Pin>,
    /// Certificates and CRLs in force, those that end first first.
    pub certificates: Vec<Certificate>,
    /// The last errors and warnings, the last one first.
    pub errors: Vec<Message>,
    /// All replicas of the fleet, if there is one and whoever asks is none of them.
    #[serde(default)]
    pub fleet: Option<Vec<Replica>>,
}

/// A sentence about how things stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// How bad it is.
    pub level: Level,
    /// The same in a word or two.
    pub title: String,
    /// What there is to know.
    pub text: String,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// All is well.
    Good,
    /// Somebody should look.
    Warn,
    /// Somebody has to act.
    Bad,
}

/// The process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// The version of pgweir.
    pub version: String,
    /// The machine or pod that it runs on.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// `starting`, `running`, `draining` or `stopped`
    pub phase: String,
    /// The time of this answer.
    pub now: f64,
    /// When it was started.
    pub started: f64,
    /// Data workers.
    pub workers: usize,
    /// CPU seconds that it has used in each second of the last ones.
    pub cpus: Option<f64>,
    /// Resident memory.
    pub memory_bytes: Option<f64>,
    /// Open file descriptors.
    pub open_files: Option<f64>,
    /// How many it may have.
    pub max_open_files: Option<f64>,
}

/// Clients of the whole process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clients {
    /// Logged in.
    pub connected: usize,
    /// `max_client_conn`
    pub limit: usize,
    /// Waiting for a server connection.
    pub waiting: usize,
    /// Not logged in yet.
    pub logging_in: usize,
    /// `max_unauthenticated_clients`
    pub logging_in_limit: usize,
    /// Keeping a server connection between transactions.
    pub pinned: usize,
}

/// Server connections.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Servers {
    /// Working for a client.
    pub active: usize,
    /// Ready for one.
    pub idle: usize,
    /// Being opened, or being checked after a rest.
    pub connecting: usize,
    /// How many there may be.
    pub limit: usize,
}

/// A replica's part of the server connections that all replicas together may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// How many it has, those being opened and closed among them.
    pub connections: usize,
    /// How many it may have now.
    pub allowance: usize,
    /// `server_connection_budget`
    pub whole: usize,
}

/// What happened in a stretch of time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// How long it was.
    pub seconds: f64,
    /// Transactions a second.
    pub transactions_per_second: f64,
    /// Queries a second; a batch up to its Sync is one.
    pub queries_per_second: f64,
    /// Errors a second that clients were told.
    pub errors_per_second: f64,
    /// Bytes a second from clients.
    pub received_bytes_per_second: f64,
    /// Bytes a second to clients.
    pub sent_bytes_per_second: f64,
    /// How long servers worked for a query.
    pub query_seconds: Quantiles,
    /// How long a server connection was lent.
    pub transaction_seconds: Quantiles,
    /// How long clients waited for one.
    pub wait_seconds: Quantiles,
}

/// Three quantiles.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half are not above this.
    pub p50: Option<f64>,
    /// 95 of 100.
    pub p95: Option<f64>,
    /// 99 of 100.
    pub p99: Option<f64>,
}

/// The last minutes, oldest first; all lists are of one length.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Series {
    /// The time of the last of them.
    pub until: f64,
    /// How far they are apart.
    pub interval_seconds: f64,
    /// How many there are at most.
    pub capacity: usize,
    /// Transactions a second.
    pub transactions_per_second: Vec<f64>,
    /// Queries a second; a batch up to its Sync is one.
    pub queries_per_second: Vec<f64>,
    /// Errors a second that clients were told.
    pub errors_per_second: Vec<f64>,
    /// Bytes a second from clients.
    pub received_bytes_per_second: Vec<f64>,
    /// Bytes a second to clients.
    pub sent_bytes_per_second: Vec<f64>,
    /// Clients.
    pub clients: Vec<usize>,
    /// Clients that wait.
    pub waiting: Vec<usize>,
    /// Server connections at work.
    pub active: Vec<usize>,
    /// All server connections.
    pub servers: Vec<usize>,
    /// How long servers worked for a query.
    pub query_seconds: QuantileSeries,
    /// How long a server connection was lent.
    pub transaction_seconds: QuantileSeries,
    /// How long clients waited for one.
    pub wait_seconds: QuantileSeries,
}

/// Three quantiles over time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct QuantileSeries {
    /// Half are not above this.
    pub p50: Vec<Option<f64>>,
    /// 95 of 100.
    pub p95: Vec<Option<f64>>,
    /// 99 of 100.
    pub p99: Vec<Option<f64>>,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// `namespace/name`, or the hosts.
    pub name: String,
    /// `serving`, `limping`, `holding` or `degraded`
    pub phase: String,
    /// Why it is not serving, in a word.
    pub reason: Option<String>,
    /// The same in a sentence.
    pub explanation: Option<String>,
    /// Since when.
    pub since: f64,
    /// How many primaries there were, and doubts about one.
    pub generation: u64,
    /// The primary, or the server that was it last.
    pub primary: Option<String>,
    /// Any server may be written to: there is no primary to follow.
    pub shared: bool,
    /// Clients that wait for the primary.
    pub held_clients: usize,
    /// Its servers.
    pub members: Vec<Member>,
    /// The last changes, the last one first.
    pub history: Vec<Change>,
}

/// A server of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The pod's name, or the endpoint.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Its zone.
    pub zone: Option<String>,
    /// `primary`, `standby`, or not known.
    pub role: Option<String>,
    /// `ready`, `failing`, `not_accepting` or `leaving`
    pub state: String,
    /// It is the one that writers are sent to.
    pub primary: bool,
    /// Connections to it.
    pub connections: usize,
    /// Those that work for a client.
    pub active: usize,
}

/// A change of a cluster's primary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When it was.
    pub at: f64,
    /// The phase that began.
    pub phase: String,
    /// Why.
    pub reason: Option<String>,
    /// The same in a sentence.
    pub explanation: Option<String>,
    /// The primary by then.
    pub primary: Option<String>,
    /// How long requests had waited for a primary.
    pub held_seconds: Option<f64>,
    /// How many clients did.
    pub held_clients: usize,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// The database as clients name it.
    pub database: String,
    /// The role that logs in to the server.
    pub user: String,
    /// `rw`, `ro` or `r`
    pub role: String,
    /// `session`, `transaction` or `statement`
    pub mode: String,
    /// The cluster.
    pub cluster: String,
    /// Clients logged in.
    pub clients: usize,
    /// Those that wait for a server connection.
    pub waiting: usize,
    /// Its server connections.
    pub servers: Servers,
    /// Clients that keep a server connection between transactions.
    pub pinned: usize,
    /// The last minute; not measured if there are very many pools.
    pub minute: Option<Rates>,
}

/// A session in the middle of a transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// The process id that the client was told.
    pub pid: i32,
    /// Its database.
    pub database: String,
    /// Its user.
    pub user: String,
    /// What it calls itself.
    pub application: String,
    /// Where it comes from.
    pub address: String,
    /// What it is doing.
    pub state: String,
    /// For how long the transaction has been open.
    pub seconds: f64,
    /// What keeps its server connection with it.
    pub pins: Vec<String>,
}

/// Clients that wait for a server connection of one pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// The pool's database.
    pub database: String,
    /// The pool's user.
    pub user: String,
    /// What kind of server it is for: `rw`, `ro` or `r`
    pub role: String,
    /// How many wait.
    pub waiting: usize,
    /// What they wait for.
    pub waits_for: String,
    /// Those who have waited longest.
    pub clients: Vec<Waiter>,
}

/// A client that waits for a server connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiter {
    /// The process id that it was told.
    pub pid: i32,
    /// Its database.
    pub database: String,
    /// Its user.
    pub user: String,
    /// What it calls itself.
    pub application: String,
    /// Where it comes from.
    pub address: String,
    /// How long it has waited.
    pub seconds: f64,
}

/// A reason that keeps server connections with their clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// `temp`, `listen`, ...
    pub reason: String,
    /// Clients for which it does so now.
    pub clients: usize,
    /// How many times it has begun to.
    pub total: u64,
}

/// A replica of the fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replica {
    /// The name of its pod, or its address.
    pub name: String,
    /// It is the one that answers.
    pub own: bool,
    /// Why nothing is known of it, if nothing is.
    pub error: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Its phase.
    pub phase: Option<String>,
    /// Clients logged in.
    pub clients: usize,
    /// Clients that wait.
    pub waiting: usize,
    /// Server connections that work for a client.
    pub active: usize,
    /// Its part of `server_connection_budget`, where there is one.
    pub budget: Option<Budget>,
    /// Transactions a second in the last minute.
    pub transactions_per_second: f64,
}

/// A certificate or a CRL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The setting that has brought it here.
    pub setting: String,
    /// Whose it is.
    pub subject: String,
    /// `certificate` or `crl`
    pub kind: String,
    /// Until when it is good.
    pub not_after: i64,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The first time.
    pub first: f64,
    /// The last time.
    pub last: f64,
    /// How many times.
    pub count: u64,
    /// `error`, `warning`, or `refusal` for what only a client was told.
    pub kind: String,
    /// What has happened.
    pub message: String,
    /// Why.
    pub error: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The code that the client got.
    pub sqlstate: Option<String>,
    /// `client`, `server` or `pooler`
    pub blame: Option<String>,
    /// Whose it was.
    pub database: Option<String>,
    /// Whose it was.
    pub user: Option<String>,
    /// The cluster that it is about.
    pub cluster: Option<String>,
}

/// A pooler that does well, for tests.
#[cfg(test)]
pub(crate) fn sample() -> Status {
    let text = include_str!("sample.json");
    serde_json::from_str(text).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let status = sample();
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    }
}
