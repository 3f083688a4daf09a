//! The fleet as the configuration has it, and the service that it may be found by.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Kubernetes, ServiceRef, Settings},
    discovery::kubernetes::{self, Client, ClientError, Families, Pod},
    fault::chain,
    fleet::{Answer, AskError, Fleet, Found, Own, Question, Replica, budget::Roll},
    lifecycle::Tasks,
    server,
    telemetry::http::{FAN_OUT, Guard},
};

/// A replica that does something for this one may take as long as a server that is asked to cancel, and a moment.
const ORDER_LIMIT: Duration = server::cancel::TIMEOUT.saturating_add(Duration::from_secs(1));
/// What ports of a service are called that lead to the HTTP server.
const PORT_NAMES: [&str; 2] = ["http", "metrics"];

/// The replicas of this pooler, this one among them.
#[derive(Debug)]
pub(super) struct Replicas {
    fleet: Arc<Fleet>,
    is_set: AtomicBool,
    watched: Mutex<Option<Watched>>,
    guard: Arc<Guard>,
    tasks: Tasks,
    watches: Families,
}

/// A service that is watched for as long as this lives.
#[derive(Debug)]
struct Watched {
    service: ServiceRef,
    api: Kubernetes,
    stop: CancellationToken,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Replicas {
    /// The replicas by `settings`, of one whose HTTP server is bound to `bound`. Others are shown what `guard` asks for.
    pub(super) fn new(
        bound: SocketAddr,
        guard: Arc<Guard>,
        tasks: Tasks,
        watches: Families,
        settings: &Settings,
    ) -> Arc<Self> {
        let own = Own::new(bound, Own::host_name());
        let replicas = Arc::new(Self {
            fleet: Arc::new(Fleet::new(own, Vec::new(), Duration::ZERO)),
            is_set: AtomicBool::new(false),
            watched: Mutex::default(),
            guard,
            tasks,
            watches,
        });
        replicas.apply(settings);
        replicas
    }

    /// Goes by other settings.
    pub(super) fn apply(&self, settings: &Settings) {
        let fleet = settings.fleet.as_ref();
        self.is_set.store(fleet.is_some(), Ordering::Relaxed);
        if let Some(fleet) = fleet {
            self.fleet.set(fleet.replicas.clone(), fleet.timeout);
        }
        let service = fleet.and_then(|fleet| fleet.service.as_ref());
        let api = Kubernetes {
            zone: None,
            ..settings.kubernetes.clone()
        };
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = match (&*watched, service) {
            (Some(watched), Some(service)) => watched.service == *service && watched.api == api,
            (None, None) => true,
            _ => false,
        };
        if is_same {
            return;
        }
        *watched = None;
        self.fleet.seek(service.is_some());
        if let Some(service) = service {
            match self.watch(service, api) {
                Ok(new) => *watched = Some(new),
                Err(error) => {
                    tracing::error!(
                        service = service.name,
                        error = chain(&error),
                        "cannot follow a service"
                    );
                }
            }
        }
    }

    /// Whether the settings name a fleet.
    pub(super) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// Asks all replicas for what is at `path`, as an `Accept` header wants it; `own` is what is there at this one. They
    /// ask nobody else for it. Bounded in time and in size.
    pub(super) async fn ask_all(
        &self,
        path: &str,
        accept: Option<&str>,
        own: impl Future<Output = Bytes> + Send,
    ) -> Vec<Answer> {
        let mut question = Question::new(path);
        if let Some(accept) = accept {
            question = question.with("accept", accept);
        }
        let question = self.of_ours(question).await;
        self.fleet.ask_all(&question, own).await
    }

    /// Has any other replica do what is to be done at `path`. Whether one has; bounded in time.
    pub(super) async fn order_any(&self, path: &str, body: String) -> bool {
        let order = self.of_ours(Question::order(path, body)).await;
        self.fleet.order_any(&order, ORDER_LIMIT).await
    }

    /// All others, and how far it is known who they are.
    pub(super) fn others(&self) -> (Vec<Replica>, Roll) {
        self.fleet.others()
    }

    /// Tells when there may be others than before.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.fleet.changes()
    }

    /// Tells another one something. Bounded in time and in size.
    pub(super) async fn tell(&self, replica: Replica, path: &str, body: String) -> Result<Bytes, AskError> {
        let order = self.of_ours(Question::order(path, body)).await;
        replica.order(&order, self.fleet.timeout()).await
    }

    /// A question as replicas ask each other.
    async fn of_ours(&self, question: Question) -> Question {
        let question = question.with(FAN_OUT, "1");
        match self.guard.credentials().await {
            Ok(Some(credentials)) => question.with("authorization", &credentials),
            Ok(None) => question,
            // They will refuse, and are shown as silent.
            Err(error) => {
                tracing::error!(%error, "nothing to show to other replicas");
                question
            }
        }
    }

    fn watch(&self, service: &ServiceRef, api: Kubernetes) -> Result<Watched, ClientError> {
        let client = Client::new(&api)?;
        let stop = self.tasks.stop_token().child_token();
        let fleet = self.fleet.clone();
        let pods = Arc::new(move |pods: Vec<Pod>| {
            fleet.find(pods.iter().map(|pod| found(pod, fleet.port())).collect());
        });
        kubernetes::spawn_service(&self.tasks, &client, service, pods, &self.watches, &stop)?;
        Ok(Watched {
            service: service.clone(),
            api,
            stop,
        })
    }
}

/// All replicas are alike: one whose port has no name has the port of this one.
fn found(pod: &Pod, own_port: u16) -> Found {
    let port = pod.ports.iter().find(|(name, _)| PORT_NAMES.contains(&&**name));
    let port = port.map_or(own_port, |(_, port)| *port);
    Found {
        name: pod.name.clone(),
        address: SocketAddr::new(pod.address, port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_the_one_that_is_called_so() {
        let pod = |ports: &[(&str, u16)]| Pod {
            name: "a".into(),
            address: "10.0.0.1".parse().unwrap(),
            ports: ports.iter().map(|(name, port)| ((*name).into(), *port)).collect(),
        };
        let port = |ports| found(&pod(ports), 9127).address.port();
        assert_eq!(port(&[("pgweir", 6432), ("metrics", 9000)]), 9000);
        assert_eq!(port(&[("pgweir", 6432)]), 9127);
        assert_eq!(port(&[]), 9127);
    }
}
