//! What the replicas say of themselves in short: asked once for all who ask within a moment, be it the status page or the
//! console.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use super::{replicas::Replicas, sights::Sights};
use crate::{
    fleet,
    status::{Reporter, document::Replica},
    telemetry::http::JSON,
};

/// What the replicas have said is good for so long: many who look cost as much as one.
const FRESH: Duration = Duration::from_secs(2);

/// Asks the replicas, this one among them.
#[derive(Debug)]
pub(super) struct RollCall {
    replicas: Arc<Replicas>,
    /// What this one says. Whoever has that has the console, which has this.
    reporter: Weak<Reporter<Sights>>,
    last: Mutex<Option<(Instant, Vec<Replica>)>>,
}

impl RollCall {
    pub(super) fn new(replicas: Arc<Replicas>, reporter: &Arc<Reporter<Sights>>) -> Self {
        Self {
            replicas,
            reporter: Arc::downgrade(reporter),
            last: Mutex::default(),
        }
    }

    /// Whether the settings name a fleet.
    pub(super) fn is_wanted(&self) -> bool {
        self.replicas.is_set()
    }

    /// What they say. Bounded in time.
    pub(super) async fn take(&self) -> Vec<Replica> {
        // Whoever asks meanwhile waits for the same answers.
        let mut last = self.last.lock().await;
        let known = last.take().filter(|(then, _)| then.elapsed() < FRESH);
        let known = match known {
            Some(known) => known,
            None => (Instant::now(), self.ask().await),
        };
        let replicas = known.1.clone();
        *last = Some(known);
        replicas
    }

    async fn ask(&self) -> Vec<Replica> {
        let Some(reporter) = self.reporter.upgrade() else {
            return Vec::new();
        };
        let own = async { reporter.json() };
        let answers = self.replicas.ask_all("/status.json", Some(JSON), own).await;
        let replica = |answer: fleet::Answer| {
            let said = answer.said.as_ref().map(|text| &**text);
            Replica::new(&answer.replica, answer.is_own, said.map_err(ToString::to_string))
        };
        answers.into_iter().map(replica).collect()
    }
}
