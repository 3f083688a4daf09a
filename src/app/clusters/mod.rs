//! The clusters that the configuration names, each once, however many databases are in it.

mod metrics;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use self::metrics::TopologyMetrics;
use crate::{
    config::{ClusterRef, Database, Kubernetes, LoadBalance, Servers, Settings},
    discovery::kubernetes::{self, Client, ClientError, Families, Sink},
    fault::chain,
    lifecycle::Tasks,
    routing::Wish,
    server::Names,
    session::{Order, Table},
    topology::{Cluster, Rules, Services},
    types::Endpoint,
};

/// How often it is tried to make what asks Kubernetes.
const RETRY: Duration = Duration::from_secs(5);
/// The port of CloudNativePG's services.
const POSTGRES_PORT: u16 = 5432;

/// What makes two databases' servers the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Spec {
    Hosts {
        hosts: Vec<Endpoint>,
        is_shared: bool,
    },
    Kubernetes {
        cluster: ClusterRef,
        api: Kubernetes,
        is_replica: bool,
    },
}

/// The clusters in use, kept from one reload to the next.
#[derive(Debug)]
pub(super) struct Clusters {
    known: Mutex<HashMap<Spec, Known>>,
    /// Those that the configuration in force names.
    configured: Mutex<Vec<Arc<Cluster>>>,
    names: Arc<Names>,
    tasks: Tasks,
    table: Arc<Table>,
    watches: Families,
}

#[derive(Debug)]
struct Known {
    cluster: Arc<Cluster>,
    stop: CancellationToken,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Clusters {
    /// None yet. The clients of `table` are told when another server is the primary.
    pub(super) fn new(tasks: Tasks, table: Arc<Table>, watches: Families) -> Self {
        let names = Arc::new(Names::system());
        let (keep, stop) = (names.clone(), tasks.stop_token());
        tasks.spawn("names", async move {
            stop.run_until_cancelled(keep.keep()).await;
        });
        Self {
            known: Mutex::default(),
            configured: Mutex::default(),
            names,
            tasks,
            table,
            watches,
        }
    }

    /// Has the registry show them.
    pub(super) fn register_metrics(self: &Arc<Self>, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(TopologyMetrics::new(self.clone())?))
    }

    /// What is counted of what Kubernetes says.
    pub(super) fn watches(&self) -> &Families {
        &self.watches
    }

    /// What the names of their hosts stand for.
    pub(super) fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Follows the clusters that the configuration names, whether anybody uses them or not: who comes in the middle of a
    /// failover, or while the API server is away, has use for what was heard before.
    pub(super) fn follow(&self, settings: &Settings) {
        let databases = settings.databases.values();
        let now = databases.map(|database| self.of(database, settings)).collect();
        *self.configured.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// The servers of a database.
    pub(super) fn of(&self, database: &Database, settings: &Settings) -> Arc<Cluster> {
        let rules = Rules {
            hold_timeout: settings.pool.hold_timeout,
            is_replica: database.replica_cluster,
        };
        let spec = match &database.servers {
            Servers::Hosts(hosts) => Spec::Hosts {
                hosts: hosts.clone(),
                is_shared: database.load_balance_hosts == LoadBalance::RoundRobin,
            },
            Servers::Cluster(cluster) => Spec::Kubernetes {
                cluster: cluster.clone(),
                // Where this pooler is does not matter to who asks.
                api: Kubernetes {
                    zone: None,
                    ..settings.kubernetes.clone()
                },
                is_replica: database.replica_cluster,
            },
        };
        self.names.set_max_ttl(settings.pool.dns_max_ttl);
        let now = Instant::now();
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&spec) {
            known.cluster.set_rules(rules, now);
            return known.cluster.clone();
        }
        let known = self.begin(&spec, rules, now);
        let cluster = known.cluster.clone();
        all.insert(spec, known);
        cluster
    }

    /// All of them, by name.
    pub(super) fn all(&self) -> Vec<Arc<Cluster>> {
        let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = all.values().map(|known| known.cluster.clone()).collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Forgets those that nothing refers to any more.
    pub(super) fn drop_unused(&self) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // The registry and the cluster's clock hold one each.
        all.retain(|_, known| Arc::strong_count(&known.cluster) > 2);
    }

    fn begin(&self, spec: &Spec, rules: Rules, now: Instant) -> Known {
        let stop = self.tasks.stop_token().child_token();
        let cluster = match spec {
            Spec::Hosts { hosts, is_shared } => Cluster::fixed(hosts.clone(), *is_shared, rules, now),
            Spec::Kubernetes { cluster, api, .. } => {
                let services = services(cluster, api);
                let discovered = Cluster::discovered(&cluster.to_string(), services, rules, now);
                let watch = Watch {
                    name: cluster.clone(),
                    api: api.clone(),
                    cluster: Arc::downgrade(&discovered),
                    tasks: self.tasks.clone(),
                    families: self.watches.clone(),
                };
                let (tasks, stop) = (&self.tasks, stop.clone());
                tasks.spawn("kubernetes", watch.begin(stop));
                discovered
            }
        };
        self.tasks.spawn(
            "topology",
            follow(cluster.clone(), self.table.clone(), stop.clone()),
        );
        Known { cluster, stop }
    }
}

/// Has Kubernetes' word reach a cluster.
struct Watch {
    name: ClusterRef,
    api: Kubernetes,
    cluster: Weak<Cluster>,
    tasks: Tasks,
    families: Families,
}

impl Watch {
    /// Tries until it can be begun: the files that lead to the API server may come later.
    async fn begin(self, stop: CancellationToken) {
        let mut last = String::new();
        while let Err(error) = self.try_begin(&stop) {
            let error = chain(&error);
            if error != last {
                tracing::error!(cluster = %self.name, error, "cannot follow a cluster");
                last = error;
            }
            let pause = tokio::time::sleep(RETRY);
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    fn try_begin(&self, stop: &CancellationToken) -> Result<(), ClientError> {
        let client = Client::new(&self.api)?;
        let cluster = self.cluster.clone();
        let sink: Sink = Arc::new(move |facts| {
            if let Some(cluster) = cluster.upgrade() {
                cluster.learn(facts, Instant::now());
            }
        });
        kubernetes::spawn(&self.tasks, &client, &self.name, sink, &self.families, stop)
    }
}

/// What a database's clients want of its cluster.
pub(super) fn wish(database: &Database, settings: &Settings) -> Wish {
    Wish {
        role: database.role,
        fall_back: database.fall_back_to_primary,
        zone: settings.kubernetes.zone.as_deref().map(Into::into),
        in_order: database.servers.cluster().is_none() && database.load_balance_hosts == LoadBalance::Disable,
    }
}

/// The name that the certificates of a database's servers have, where it is not the one that is dialled: a cluster's
/// pods are dialled by their addresses, and every one has the name of the service.
pub(super) fn server_name(database: &Database) -> Option<String> {
    let cluster = database.servers.cluster()?;
    Some(format!("{}-rw", cluster.name))
}

/// The services of a cluster, as CloudNativePG names them. Without a namespace they are looked for in the pod's own.
fn services(cluster: &ClusterRef, api: &Kubernetes) -> Services {
    let namespace = cluster.namespace.as_ref().or(api.namespace.as_ref());
    let service = |suffix: &str| Endpoint::Tcp {
        host: match namespace {
            Some(namespace) => format!("{}-{suffix}.{namespace}.svc", cluster.name),
            None => format!("{}-{suffix}", cluster.name),
        },
        port: POSTGRES_PORT,
    };
    Services {
        rw: service("rw"),
        ro: service("ro"),
        r: service("r"),
    }
}

/// Has a cluster decide what time decides, and ends what works on a server that is the primary no more.
async fn follow(cluster: Arc<Cluster>, table: Arc<Table>, stop: CancellationToken) {
    let mut changes = cluster.changes();
    let mut primary = None;
    loop {
        let now = cluster.topology().primary.clone();
        if primary.is_some() && primary != now {
            table.tell_all(|| Order::LookAtServer);
        }
        primary = now;
        let due = cluster.tick(Instant::now());
        let wait = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = wait => {}
            () = cluster.rescheduled() => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}
