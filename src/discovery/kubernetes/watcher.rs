//! The three sources of one cluster, side by side, and what they have come to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::{
    Resource,
    client::{Client, ClientError, Query},
    index::Index,
    metrics::Families,
    source::Source,
};
use crate::{config::ClusterRef, lifecycle::Tasks, topology::Facts};

/// Who is told the facts: each time that they have changed, one after the other.
pub type Sink = Arc<dyn Fn(Facts) + Send + Sync>;

/// What the sources have in common.
#[derive(Clone)]
pub(super) struct Board {
    state: Arc<Mutex<State>>,
    sink: Sink,
}

struct State {
    index: Index,
    told: Facts,
    up: [bool; Resource::ALL.len()],
}

/// Watches a cluster until `stop` is cancelled.
///
/// # Errors
/// Its namespace is not known.
pub fn spawn(
    tasks: &Tasks,
    client: &Client,
    cluster: &ClusterRef,
    sink: Sink,
    metrics: &Families,
    stop: CancellationToken,
) -> Result<(), ClientError> {
    let namespace = client.namespace(cluster)?;
    let name = format!("{namespace}/{}", cluster.name);
    let board = Board::new(&cluster.name, sink);
    let source = |resource| Source {
        client: client.clone(),
        query: Query {
            resource,
            namespace: namespace.clone(),
            cluster: cluster.name.clone(),
        },
        board: board.clone(),
        metrics: metrics.of(&name, resource),
        cluster: name.clone(),
    };
    for resource in Resource::ALL {
        let (source, stop) = (source(resource), stop.clone());
        tasks.spawn("kubernetes watch", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = source.run() => {}
            }
        });
    }
    Ok(())
}

impl Board {
    pub(super) fn new(cluster: &str, sink: Sink) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                index: Index::new(cluster),
                told: Facts::default(),
                up: [false; Resource::ALL.len()],
            })),
            sink,
        }
    }

    /// Changes what is known, and tells what has become of it. The lock is held meanwhile, so that what is told last is
    /// what is so.
    pub(super) fn change(&self, change: impl FnOnce(&mut Index)) {
        let mut state = self.lock();
        change(&mut state.index);
        let facts = state.index.facts();
        if facts != state.told {
            state.told = facts.clone();
            (self.sink)(facts);
        }
    }

    /// Whether a source works; what it was before.
    pub(super) fn set_up(&self, resource: Resource, is_up: bool) -> bool {
        std::mem::replace(&mut self.lock().up[resource as usize], is_up)
    }

    /// Does without a source, if there is another that works. Without slices there would be no servers.
    pub(super) fn give_up(&self, resource: Resource) {
        let others_work = self.lock().up.contains(&true);
        if others_work && resource != Resource::EndpointSlices {
            self.change(|index| index.forget(resource));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Facts are made anew of the whole index each time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
