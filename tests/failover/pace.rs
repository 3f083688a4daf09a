//! How long everybody takes for what they do.

use std::time::Duration;

/// The waits of an operator, its instance managers and Kubernetes.
#[derive(Debug)]
pub(super) struct Pace {
    /// A change of the `Cluster` object until an instance manager or the operator has seen it.
    pub(super) notice: Duration,
    /// How often a standby's instance manager looks whether its WAL receiver is down.
    pub(super) receiver_poll: Duration,
    /// How often it tries to get the lease.
    pub(super) lease_poll: Duration,
    /// For how long a lease must not have been renewed, if its holder has not let go of it.
    pub(super) lease_age: Duration,
    /// From the new primary's word in the `Cluster` object until the labels, and with them the slices, say it too.
    pub(super) relabel: Duration,
    /// The same, where the operator is late.
    pub(super) late_relabel: Duration,
    /// How long what is said may take to everybody who listens, and to the last transaction on the wrong server.
    pub(super) hearsay: Duration,
    /// Until a silent node's pods are not ready any more.
    pub(super) node_grace: Duration,
    /// For how long the node is silent after another has taken over.
    pub(super) node_away: Duration,
    /// `smartShutdownTimeout`
    pub(super) smart_shutdown: Duration,
    /// The load before the first event, and after the last.
    pub(super) calm: Duration,
    /// How long a first commit behind all that is waited for.
    pub(super) recovery: Duration,
}

/// As `CloudNativePG` and Kubernetes are by default.
pub(super) const REAL: Pace = Pace {
    notice: Duration::from_millis(100),
    receiver_poll: Duration::from_secs(1),
    lease_poll: Duration::from_secs(2),
    lease_age: Duration::from_secs(15),
    relabel: Duration::from_secs(1),
    late_relabel: Duration::from_secs(10),
    hearsay: Duration::from_millis(500),
    node_grace: Duration::from_secs(45),
    node_away: Duration::from_secs(30),
    smart_shutdown: Duration::from_secs(180),
    calm: Duration::from_secs(2),
    recovery: Duration::from_secs(150),
};

/// The same order in a few seconds.
pub(super) const QUICK: Pace = Pace {
    notice: Duration::from_millis(50),
    receiver_poll: Duration::from_millis(200),
    lease_poll: Duration::from_millis(400),
    lease_age: Duration::from_millis(1500),
    relabel: Duration::from_millis(500),
    late_relabel: Duration::from_millis(2500),
    hearsay: Duration::from_millis(500),
    node_grace: Duration::from_secs(3),
    node_away: Duration::from_secs(4),
    smart_shutdown: Duration::from_secs(8),
    calm: Duration::from_millis(500),
    recovery: Duration::from_secs(30),
};
