//! Where cancel requests were carried out.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// What is counted of cancel requests.
#[derive(Debug)]
pub(in crate::app) struct CancelMetrics {
    /// For a client of this replica.
    pub(in crate::app) here: IntCounter,
    /// Another replica has carried it out.
    pub(in crate::app) elsewhere: IntCounter,
    /// Nobody knows the client: it may have left, or the request is a guess.
    pub(in crate::app) unknown: IntCounter,
}

impl CancelMetrics {
    /// Registers the family.
    ///
    /// # Errors
    /// One of that name is registered already.
    pub(in crate::app) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Cancel requests, by where their client is: at this replica, elsewhere, or unknown to all";
        let requests = IntCounterVec::new(Opts::new("cancel_requests_total", help), &["client"])?;
        registry.register(Box::new(requests.clone()))?;
        Ok(Self {
            here: requests.with_label_values(&["here"]),
            elsewhere: requests.with_label_values(&["elsewhere"]),
            unknown: requests.with_label_values(&["unknown"]),
        })
    }
}
