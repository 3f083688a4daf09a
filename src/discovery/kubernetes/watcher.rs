//! The sources of one thing, side by side, and what they have come to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::{
    Resource,
    client::{Client, ClientError, Query},
    event::Object,
    index::Index,
    metrics::Families,
    source::Source,
};
use crate::{config::ClusterRef, lifecycle::Tasks, topology::Facts};

/// Who is told the facts: each time that they have changed, one after the other.
pub type Sink = Arc<dyn Fn(Facts) + Send + Sync>;

/// What has been said of something, object by object, and what that comes to.
pub(super) trait Knowledge: Send + 'static {
    /// What it comes to.
    type Facts: Clone + Default + PartialEq + Send;

    /// An object is there, new or changed.
    fn apply(&mut self, object: Object);
    /// An object is gone.
    fn delete(&mut self, resource: Resource, name: &str);
    /// These are all objects that there are.
    fn reset(&mut self, resource: Resource, objects: Vec<Object>);
    /// Nothing is known any more of objects of this kind.
    fn forget(&mut self, resource: Resource);
    /// What all of it comes to.
    fn facts(&self) -> Self::Facts;
}

/// What the sources of one thing have in common.
pub(super) struct Board<K: Knowledge> {
    state: Arc<Mutex<State<K>>>,
    sink: Arc<dyn Fn(K::Facts) + Send + Sync>,
}

struct State<K: Knowledge> {
    index: K,
    told: K::Facts,
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
    stop: &CancellationToken,
) -> Result<(), ClientError> {
    let namespace = client.namespace(cluster.namespace.as_deref())?;
    let name = format!("{namespace}/{}", cluster.name);
    let board = Board::new(Index::new(&cluster.name), sink);
    for resource in Resource::ALL {
        let query = Query {
            resource,
            namespace: namespace.clone(),
            services: Index::services(&cluster.name).into(),
            object: cluster.name.clone(),
        };
        follow(tasks, client, query, board.clone(), metrics, &name, stop);
    }
    Ok(())
}

/// Keeps a board current with one kind of object until `stop` is cancelled. `name` is for people.
#[allow(clippy::too_many_arguments, reason = "each of them is somebody else's")]
pub(super) fn follow<K: Knowledge>(
    tasks: &Tasks,
    client: &Client,
    query: Query,
    board: Board<K>,
    metrics: &Families,
    name: &str,
    stop: &CancellationToken,
) {
    let source = Source {
        client: client.clone(),
        metrics: metrics.of(name, query.resource),
        query,
        board,
        cluster: name.to_owned(),
    };
    let stop = stop.clone();
    tasks.spawn("kubernetes watch", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = source.run() => {}
        }
    });
}

impl<K: Knowledge> Clone for Board<K> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            sink: self.sink.clone(),
        }
    }
}

impl<K: Knowledge> Board<K> {
    pub(super) fn new(index: K, sink: Arc<dyn Fn(K::Facts) + Send + Sync>) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                index,
                told: K::Facts::default(),
                up: [false; Resource::ALL.len()],
            })),
            sink,
        }
    }

    /// Changes what is known, and tells what has become of it. The lock is held meanwhile, so that what is told last is
    /// what is so.
    pub(super) fn change(&self, change: impl FnOnce(&mut K)) {
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

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        // Facts are made anew of the whole index each time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::discovery::kubernetes::event::List;

    fn objects(resource: Resource, items: &serde_json::Value) -> Vec<Object> {
        let list = json!({
            "kind": resource.list_kind(), "metadata": { "resourceVersion": "1" }, "items": items,
        });
        List::parse(resource, list.to_string().as_bytes())
            .unwrap()
            .objects
    }

    fn board() -> (Board<Index>, Arc<Mutex<Vec<Facts>>>) {
        let told: Arc<Mutex<Vec<Facts>>> = Arc::default();
        let sink = {
            let told = Arc::clone(&told);
            Arc::new(move |facts| told.lock().unwrap().push(facts))
        };
        (Board::new(Index::new("pg"), sink), told)
    }

    #[test]
    fn the_same_facts_are_told_once() {
        let (board, told) = board();
        let lease = json!([{ "metadata": { "name": "pg" }, "spec": { "holderIdentity": "pg-1" } }]);
        for _ in 0..3 {
            board.change(|index| index.reset(Resource::Leases, objects(Resource::Leases, &lease)));
        }
        assert_eq!(told.lock().unwrap().len(), 1);
    }

    #[test]
    fn what_may_not_be_read_any_more_is_forgotten_if_others_are_heard() {
        let (board, told) = board();
        let lease = json!([{ "metadata": { "name": "pg" } }]);
        board.change(|index| index.reset(Resource::EndpointSlices, Vec::new()));
        board.change(|index| index.reset(Resource::Leases, objects(Resource::Leases, &lease)));
        let last = || told.lock().unwrap().last().cloned().unwrap();
        // The API server refuses everybody: it has just been started.
        board.give_up(Resource::Leases);
        assert!(last().lease.is_some());
        assert!(!board.set_up(Resource::Clusters, true));
        board.give_up(Resource::EndpointSlices);
        assert!(last().slices_known, "without slices there are no servers");
        board.give_up(Resource::Leases);
        assert_eq!(last().lease, None);
    }
}
