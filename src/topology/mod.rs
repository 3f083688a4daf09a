//! Which servers a cluster has, which of them is the primary, and whether it may be used now. Pure values and decisions;
//! time is passed in.
//!
//! It opens no connection, watches nothing and knows no pool.

mod cluster;
mod facts;
mod history;
mod machine;
mod observation;
mod reading;

use std::{
    fmt,
    time::{Duration, Instant},
};

pub use self::{
    cluster::{Cluster, Load, Scout},
    facts::{ClusterFacts, ClusterPhase, Condition, Facts, Fenced, Instance, LeaseFacts, Services},
    history::Change,
    machine::Rules,
    observation::{Failure, Observation, Seen, Timeline},
};
use crate::types::Endpoint;

/// What is known of a cluster at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Counts every change of anything here.
    pub version: u64,
    /// Counts the primaries, and the doubts about one. A connection of an older one has to prove itself.
    pub generation: u64,
    /// Whether the primary may be used.
    pub phase: Phase,
    /// Since when.
    pub since: Instant,
    /// The primary, or the server that was it last. As soon as another is, that one.
    pub primary: Option<Endpoint>,
    /// The primary is the one that goes, or has gone.
    pub is_leaving: bool,
    /// Where the primary may be found while it is looked for, best first.
    pub candidates: Vec<Endpoint>,
    /// All servers, in order of their names or as they were configured.
    pub servers: Vec<Server>,
    /// The way to the servers while nobody lists them.
    pub services: Option<Services>,
    /// Another address of the primary, from when its own was not known: it is not lent any more, and what works there
    /// may go on.
    pub alias: Option<Endpoint>,
    /// Any of them may be written to (`load_balance_hosts`): there is no primary to follow.
    pub is_shared: bool,
    /// The primary is a standby itself, and that is as it should be.
    pub is_replica: bool,
    /// What whoever connects to the primary is to ask it for, if anything.
    pub timeline_asked: Option<TimelineAsked>,
    /// How the last change of the primary, or its last absence, went.
    pub last_hold: Option<Hold>,
}

/// The timeline that a primary is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimelineAsked {
    /// An earlier one of the same system will not do.
    pub at_least: Option<Timeline>,
}

/// Whether the primary may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is.
    Serving,
    /// It is there for those who have a connection, and others cannot be opened.
    Limping(Reason),
    /// Requests wait for it.
    Holding(Reason),
    /// They have waited for too long: they are refused until it is there.
    Degraded(Reason),
}

/// Why the primary may not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing has been heard of the cluster since the pooler was started.
    Unknown,
    /// A switchover is in progress.
    Switchover,
    /// The primary has failed and is being replaced.
    Failover,
    /// The primary is being restarted.
    Restart,
    /// The primary's pod is being deleted.
    Terminating,
    /// The service of the primary has no endpoint that is ready.
    NoEndpoint,
    /// The server takes no connections (57P03).
    NotAccepting,
    /// The server cannot be reached.
    Unreachable,
    /// The server does not answer.
    Silent,
    /// The server is a standby.
    NotWritable,
    /// A new primary has been promoted and is not announced yet.
    Promoting,
    /// The primary is fenced.
    Fenced,
    /// The cluster is hibernated.
    Hibernated,
    /// The cluster is a replica of another one, and nothing says that this is wanted.
    ReplicaCluster,
}

/// One server of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The pod's name, or the endpoint.
    pub name: Box<str>,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Its zone, where that is known.
    pub zone: Option<Box<str>>,
    /// What it is good for.
    pub state: ServerState,
    /// The last that a connection to it has shown.
    pub seen: Option<Seen>,
}

/// Whether a server can be used for reading, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerState {
    /// It can.
    Ready,
    /// No connection could be opened lately. Those that are open are good.
    Failing,
    /// Kubernetes says that it is not ready. It is used where no other is.
    NotReady,
    /// It takes no connections (57P03); those that are open are to be closed as they become idle.
    NotAccepting,
    /// Its pod is being deleted.
    Leaving,
}

/// A time in which requests waited for the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Who was the primary.
    pub from: Option<Endpoint>,
    /// Who is.
    pub to: Endpoint,
    /// Why.
    pub reason: Reason,
    /// How long it took.
    pub took: Duration,
}

impl ServerState {
    /// All of them, best first.
    pub const ALL: [Self; 5] = [
        Self::Ready,
        Self::Failing,
        Self::NotReady,
        Self::NotAccepting,
        Self::Leaving,
    ];

    /// The word that metrics and `SHOW TOPOLOGY` use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Failing => "failing",
            Self::NotReady => "not_ready",
            Self::NotAccepting => "not_accepting",
            Self::Leaving => "leaving",
        }
    }
}

impl Phase {
    /// The word that logs, metrics and `SHOW TOPOLOGY` use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Limping(_) => "limping",
            Self::Holding(_) => "holding",
            Self::Degraded(_) => "degraded",
        }
    }

    /// Why it is not serving.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Serving => None,
            Self::Limping(reason) | Self::Holding(reason) | Self::Degraded(reason) => Some(reason),
        }
    }

    /// Whether connections to the primary may be lent: those that are open are good even while others cannot be opened.
    pub fn is_open(self) -> bool {
        match self {
            Self::Serving | Self::Limping(_) => true,
            Self::Holding(_) => false,
            Self::Degraded(reason) => matches!(reason, Reason::Unreachable | Reason::Silent),
        }
    }
}

impl Reason {
    /// All of them, in their order.
    pub const ALL: [Self; 14] = [
        Self::Unknown,
        Self::Switchover,
        Self::Failover,
        Self::Restart,
        Self::Terminating,
        Self::NoEndpoint,
        Self::NotAccepting,
        Self::Unreachable,
        Self::Silent,
        Self::NotWritable,
        Self::Promoting,
        Self::Fenced,
        Self::Hibernated,
        Self::ReplicaCluster,
    ];

    /// The word that logs, metrics and `SHOW TOPOLOGY` use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Switchover => "switchover",
            Self::Failover => "failover",
            Self::Restart => "restart",
            Self::Terminating => "terminating",
            Self::NoEndpoint => "no_endpoint",
            Self::NotAccepting => "not_accepting",
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::NotWritable => "not_writable",
            Self::Promoting => "promoting",
            Self::Fenced => "fenced",
            Self::Hibernated => "hibernated",
            Self::ReplicaCluster => "replica_cluster",
        }
    }
}

/// What a client is told.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "nothing is known of the cluster yet",
            Self::Switchover => "a switchover is in progress",
            Self::Failover => "the primary has failed and is being replaced",
            Self::Restart => "the primary is being restarted",
            Self::Terminating => "the primary's pod is being deleted",
            Self::NoEndpoint => "the service of the primary has no endpoint that is ready",
            Self::NotAccepting => "the primary takes no connections",
            Self::Unreachable => "the primary cannot be reached",
            Self::Silent => "the primary does not answer",
            Self::NotWritable => "the server that was the primary is a standby",
            Self::Promoting => "the new primary is not announced yet",
            Self::Fenced => "the primary is fenced",
            Self::Hibernated => "the cluster is hibernated",
            Self::ReplicaCluster => "the cluster is a replica of another cluster",
        })
    }
}

impl Topology {
    /// The server that listens there.
    pub fn server(&self, endpoint: &Endpoint) -> Option<&Server> {
        self.servers.iter().find(|server| server.endpoint == *endpoint)
    }
}
