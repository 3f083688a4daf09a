//! Why a client got no server connection.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use super::{Limit, Scope};
use crate::{
    fault::{Blame, Fault, SqlState, chain},
    server::ConnectError,
    topology::Reason,
    types::PoolKey,
};

/// Why a client got no server connection.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseError {
    /// `query_wait_timeout` passed and the pool was full all the time.
    #[error("no server connection became free within {waited:?} ({limit})")]
    Timeout {
        /// The pool.
        pool: PoolKey,
        /// The limit.
        waited: Duration,
        /// What there was not enough of.
        limit: LimitReached,
        /// Its server connections that are lent.
        active: usize,
        /// Clients still waiting.
        waiting: usize,
    },
    /// `query_wait_timeout` passed and no server could be reached; or a server has refused for good.
    #[error("no server connection could be opened")]
    Connect(#[source] Arc<ConnectError>),
    /// There is no primary, and has been none for longer than requests wait.
    #[error("no primary of {cluster} since {since:?}: {reason}")]
    Held {
        /// The cluster.
        cluster: Box<str>,
        /// Why.
        reason: Reason,
        /// For how long it has been so.
        since: Duration,
        /// What the last attempt to find one came to.
        #[source]
        last: Option<Arc<ConnectError>>,
    },
    /// There is no room for a connection outside of the pool.
    #[error("no more server connections allowed ({0})")]
    Full(LimitReached),
    /// The pool's database has been removed from the configuration.
    #[error("the pool is going away")]
    Retired,
}

/// The limit that keeps clients waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitReached {
    /// `pool_size`, and what it is.
    PoolSize(usize),
    /// One that the pool shares with others, and what it is.
    Shared(Scope, Limit),
    /// An administrator has paused the database, or everything.
    Paused,
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoolSize(size) => write!(f, "pool_size = {size}"),
            Self::Shared(scope, limit) => write!(f, "{} = {limit}", scope.setting()),
            Self::Paused => f.write_str("paused by an administrator"),
        }
    }
}

impl Fault for LeaseError {
    fn blame(&self) -> Blame {
        match self {
            Self::Timeout { .. } | Self::Full(_) | Self::Retired => Blame::Pooler,
            Self::Held { .. } => Blame::Server,
            Self::Connect(error) => error.blame(),
        }
    }

    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Timeout { .. } | Self::Full(_) => SqlState::TOO_MANY_CONNECTIONS,
            Self::Connect(error) => error.sqlstate(),
            Self::Held { .. } | Self::Retired => SqlState::CANNOT_CONNECT_NOW,
        }
    }

    fn client_message(&self) -> Cow<'_, str> {
        match self {
            Self::Timeout { waited, .. } => {
                format!("no server connection became free within query_wait_timeout ({waited:?})").into()
            }
            Self::Connect(error) => error.client_message(),
            Self::Held { cluster, reason, .. } => format!("no primary of {cluster}: {reason}").into(),
            Self::Full(_) => self.to_string().into(),
            Self::Retired => "the database is no longer served by this pgweir".into(),
        }
    }

    fn detail(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Timeout {
                pool,
                limit,
                active,
                waiting,
                ..
            } => {
                let (of, more) = match limit {
                    LimitReached::PoolSize(size) => (format!(" of {size}"), String::new()),
                    LimitReached::Shared(..) => {
                        (String::new(), format!("; {limit} for all pools that share it"))
                    }
                    LimitReached::Paused => (String::new(), format!("; it is {limit}")),
                };
                Some(
                    format!(
                        "Pool \"{}\" of user \"{}\" has {active}{of} server connections in use and {waiting} clients waiting{more}.",
                        pool.database, pool.user
                    )
                    .into(),
                )
            }
            Self::Connect(error) => error.detail(),
            Self::Held { since, last, .. } => {
                let last = last
                    .as_ref()
                    .map(|error| format!(" The last attempt: {}.", chain(&**error)));
                let since = since.as_secs_f64();
                Some(format!("It has been so for {since:.1} s.{}", last.unwrap_or_default()).into())
            }
            Self::Full(_) | Self::Retired => None,
        }
    }

    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Timeout { limit, .. } => {
                let setting = match limit {
                    LimitReached::PoolSize(_) => "pool_size",
                    LimitReached::Shared(scope, _) => scope.setting(),
                    LimitReached::Paused => return Some("RESUME on the admin console lets it go on.".into()),
                };
                Some(format!("Shorten transactions, or raise {setting} or query_wait_timeout.").into())
            }
            Self::Connect(error) => error.hint(),
            Self::Held { reason, .. } => Some(remedy(*reason).into()),
            Self::Full(_) | Self::Retired => None,
        }
    }
}

/// What to do when there is no primary.
fn remedy(reason: Reason) -> &'static str {
    match reason {
        Reason::Fenced => "Lift the fence (kubectl cnpg fencing off) to have the primary back.",
        Reason::Hibernated => "Wake the cluster up (kubectl cnpg hibernate off).",
        Reason::ReplicaCluster => {
            "Set replica_cluster = true for the database if its clients only read, or promote the cluster."
        }
        Reason::Unknown => "See pgweir's log for what the Kubernetes API answers.",
        _ => "Try again: pgweir goes on looking for the primary, and serves as soon as there is one.",
    }
}
