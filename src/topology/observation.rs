//! What servers are seen to do, whoever sees it. It beats what anybody else says about them.

use std::cmp::Ordering;

use crate::types::Endpoint;

/// Something that happened on a connection to a server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// Somebody has logged in.
    Opened {
        /// The server.
        endpoint: Endpoint,
        /// What it is.
        seen: Seen,
    },
    /// Nobody could log in.
    Failed {
        /// The server.
        endpoint: Endpoint,
        /// How.
        failure: Failure,
    },
    /// It has ended an idle connection, telling so (57P01).
    Dropped {
        /// The server.
        endpoint: Endpoint,
    },
    /// A connection for writing has found out that its server is a standby now.
    Demoted {
        /// The server.
        endpoint: Endpoint,
    },
}

impl Observation {
    /// The server.
    pub(super) fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Opened { endpoint, .. }
            | Self::Failed { endpoint, .. }
            | Self::Dropped { endpoint }
            | Self::Demoted { endpoint } => endpoint,
        }
    }
}

/// What a server has said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Not in recovery; on this timeline, where that was asked.
    Primary {
        /// The timeline that it writes.
        timeline: Option<Timeline>,
    },
    /// In recovery (`in_hot_standby`, `pg_is_in_recovery()`).
    Standby,
}

/// A timeline of a database system. Those of different systems, such as the one before an upgrade and the one after it,
/// do not follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeline {
    /// `system_identifier` of `pg_control_system()`
    pub system: u64,
    /// Counts promotions and recoveries.
    pub number: u32,
}

impl PartialOrd for Timeline {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.system == other.system).then(|| self.number.cmp(&other.number))
    }
}

/// Why nobody could log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// 57P03, 57P01: it is shutting down, starting up or recovering. If there are connections to it, it is shutting down.
    CannotConnectNow,
    /// Refused, reset or unreachable.
    Unreachable,
    /// No answer in time.
    Silent,
}
