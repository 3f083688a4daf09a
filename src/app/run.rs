//! A pooler from its first to its last moment.

use std::{
    io,
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{Arc, OnceLock, atomic::AtomicU32},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, UnboundedReceiver},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    budget::{self, BudgetPage, Budgeting},
    cancels::{self, CancelPage, Cancels},
    certificates::Expiries,
    clusters::Clusters,
    drain,
    guests::Guests,
    housekeeping, leave,
    metrics::{CancelMetrics, ClientMetrics, CompatibilityMetrics, LoginMetrics, RuntimeMetrics, Runtimes},
    prepare::{Digest, PrepareError, prepare},
    reload::{InForce, policy},
    replicas::Replicas,
    roll_call::RollCall,
    serve::{self, Reception},
    sights::Sights,
    site::site,
    warnings::{warn, warn_of_remarks},
    watch::{FileMetrics, Watch},
    workers::{self, Workers},
};
use crate::{
    admin::{Directive, Sampler, Shutdown},
    auth::{RandomUnavailable, mock::MockSecrets},
    config::{ListenAddress, Loaded, Overlay, Settings, Source},
    discovery::kubernetes,
    fleet::Own,
    lifecycle::{self, Action, Phase, PhaseSender, Signal, Signals, Tasks},
    net::{BindError, BindOptions, Listener, Tuning},
    pool::{Families, Pools, auth_query::AuthQueries},
    server::{Logins, statements::Interner},
    session::Table,
    startup::Door,
    status::{Reporter, Start},
    telemetry::{
        Registry,
        http::{self, Guard, Site},
        logging::{Level, Logging},
    },
    traces::Tracer,
};

/// How long background tasks may take to stop.
const STOP: Duration = Duration::from_secs(2);

/// Why the pooler did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Files that the configuration names cannot be used.
    #[error("the configuration cannot be used")]
    Prepare(Vec<PrepareError>),
    /// A listener could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A runtime, thread or signal handler could not be had.
    #[error("the system refused")]
    System(#[from] io::Error),
    /// No random numbers.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// Metrics could not be registered.
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

/// Runs a pooler until a signal ends it. `configuration` is the digest of its files as they were before the settings
/// were read from them; `logging` is how the process logs.
///
/// # Errors
/// It could not start; nothing is left behind.
pub fn run(source: &Source, configuration: Digest, loaded: Loaded, logging: Logging) -> Result<(), RunError> {
    match lifecycle::raise_open_files() {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
    if let Err(error) = lifecycle::refuse_huge_pages() {
        tracing::debug!(%error, "memory may be kept in huge pages");
    }
    let workers = loaded.settings.process.workers.unwrap_or_else(workers::automatic);
    let mut runtime = match workers::control_threads(workers) {
        // With nobody to share tasks with, what makes sharing possible only costs.
        1 => tokio::runtime::Builder::new_current_thread(),
        several => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(several);
            runtime
        }
    };
    let runtime = runtime.thread_name("control").enable_all().build()?;
    let ended = runtime.block_on(async {
        let running = Running::start(source, configuration, loaded, logging).await?;
        running.until_end(source).await
    });
    runtime.shutdown_timeout(STOP);
    ended
}

struct Running {
    in_force: InForce,
    watch: Watch,
    reception: Arc<Reception>,
    tasks: Tasks,
    phase: PhaseSender,
    signals: Signals,
    directives: UnboundedReceiver<Directive>,
    stop_accepting: CancellationToken,
    stop_http: CancellationToken,
}

impl Running {
    async fn start(
        source: &Source,
        configuration: Digest,
        loaded: Loaded,
        logging: Logging,
    ) -> Result<Self, RunError> {
        let signals = Signals::listen()?;
        let started = SystemTime::now();
        let registry = Registry::new(env!("CARGO_PKG_VERSION"), started)?;
        let tasks = Tasks::new(Handle::current());
        let table = Arc::new(Table::default());
        let clusters = make_clusters(&registry, &tasks, &table)?;
        let mut in_force = put_in_force(configuration, loaded, logging.level, &registry, clusters)?;
        let settings = in_force.settings.clone();
        let tuning = Tuning::new(settings.tcp.clients);
        let listeners = bind(&settings, &tuning)?;
        let phase = PhaseSender::new();
        let pools = make_pools(&in_force, &registry, &tasks)?;
        let auth_queries = make_auth_queries(&in_force, &registry, &pools, &tasks)?;
        let (sender, directives) = mpsc::unbounded_channel();
        let count = settings.process.workers.unwrap_or_else(workers::automatic);
        let runtimes = watch_runtimes(&registry)?;
        let reception = Arc::new(Reception {
            policy: ArcSwap::from_pointee(policy(&in_force, &auth_queries)),
            login_timeout: ArcSwap::from_pointee(settings.listen.client_login_timeout),
            known: ArcSwap::from_pointee(in_force.known()),
            sampler: Arc::new(Sampler::new(Instant::now())),
            directives: sender,
            phase: phase.subscribe(),
            tuning,
            max_packet_size: AtomicU32::new(settings.listen.max_packet_size),
            door: Door::new(&settings.listen, registry.layers())?,
            logins: LoginMetrics::new(registry.layers())?,
            guests: Guests::new(settings.clone()),
            table,
            clusters: in_force.clusters.clone(),
            budget: Budgeting::new(pools.clone(), &settings)?,
            pools,
            auth_queries,
            workers: Workers::start(count, settings.process.scheduling, &runtimes, &tasks)?,
            cancels: CancelMetrics::new(registry.layers())?,
            roll_call: OnceLock::new(),
            others: OnceLock::new(),
        });
        watch_reception(&reception, &registry, &mut in_force)?;
        let (stop_accepting, stop_http) = (CancellationToken::new(), CancellationToken::new());
        let addresses = listeners.clients.iter().map(show).collect::<Vec<_>>().join(",");
        let http_address = listeners.http.as_ref().map(show);
        open_doors(listeners.clients, &reception, &tasks, &stop_accepting);
        if let Some(listener) = listeners.http {
            let start = Start {
                version: env!("CARGO_PKG_VERSION"),
                at: started,
                workers: count.get(),
                phase: phase.subscribe(),
                recent: logging.recent,
            };
            let site = make_site(&listener, &registry, &mut in_force, &reception, start, &tasks);
            tasks.spawn("http", http::serve(listener, site, stop_http.clone()));
        }
        housekeeping::begin(&reception, logging.throttle, &tasks);
        phase.advance(Phase::Running);
        say_ready(&addresses, http_address.as_deref(), count);
        Ok(Self {
            watch: make_watch(source, &registry)?,
            in_force,
            reception,
            tasks,
            phase,
            signals,
            directives,
            stop_accepting,
            stop_http,
        })
    }

    async fn until_end(mut self, source: &Source) -> Result<(), RunError> {
        let leaving = loop {
            let leaving = tokio::select! {
                signal = self.signals.next() => self.heed(signal, source).await,
                look = self.watch.next_look(&self.in_force.settings) => {
                    self.watch.follow(look, &mut self.in_force, &self.reception).await;
                    None
                }
                Some(directive) = self.directives.recv() => self.obey(directive, source).await,
            };
            if let Some(leaving) = leaving {
                break leaving;
            }
        };
        if self.leave(leaving, source).await.is_stop() {
            tracing::warn!("stopping at once");
        }
        self.end().await
    }

    /// Does what a signal asks for, unless that is to end.
    async fn heed(&mut self, signal: Signal, source: &Source) -> Option<Leaving> {
        match signal.action(self.phase.current()) {
            Action::Reload => {
                let outcome = self.in_force.reload(source, &self.reception).await;
                self.watch.note_reload(outcome);
                None
            }
            Action::Drain => {
                tracing::info!(signal = signal.as_str(), "draining");
                Some(Leaving::Drain)
            }
            Action::StopNow => Some(Leaving::Now),
            Action::Ignore => None,
        }
    }

    /// Does what the console asks for, unless that is to end.
    async fn obey(&mut self, directive: Directive, source: &Source) -> Option<Leaving> {
        match directive {
            Directive::Reload(reply) => {
                let outcome = self.in_force.reload(source, &self.reception).await;
                // Whoever has asked may be gone.
                drop(reply.send(outcome.problems()));
                self.watch.note_reload(outcome);
                None
            }
            Directive::Set { name, value, reply } => {
                drop(reply.send(self.in_force.set(&name, &value, source, &self.reception).await));
                None
            }
            Directive::Shutdown(how) => {
                tracing::info!(?how, "an administrator has ordered the shutdown");
                Some(how.into())
            }
        }
    }

    /// Lets everybody go, unless somebody has no time for that.
    async fn leave(&mut self, leaving: Leaving, source: &Source) -> Ended {
        if leaving == Leaving::Now {
            return Ended::Drained;
        }
        self.phase.advance(Phase::Draining);
        let (reception, stop_accepting) = (self.reception.clone(), self.stop_accepting.clone());
        let shutdown = self.in_force.settings.shutdown;
        let leave = async {
            if leaving == Leaving::Drain {
                sleep(shutdown.drain_delay).await;
            }
            stop_accepting.cancel();
            match leaving {
                Leaving::Drain => drain::see_off(shutdown, &reception.table).await,
                Leaving::Servers => leave::wait_for_servers(&reception).await,
                _ => leave::wait_for_clients(&reception).await,
            }
        };
        self.until_left(leave, source).await
    }

    /// Waits until everybody has left, or until somebody has no time for that.
    async fn until_left(&mut self, leave: impl Future<Output = ()>, source: &Source) -> Ended {
        tokio::pin!(leave);
        loop {
            tokio::select! {
                () = &mut leave => return Ended::Drained,
                signal = self.signals.next() => {
                    if self.heed(signal, source).await == Some(Leaving::Now) {
                        return Ended::Stopped;
                    }
                }
                Some(directive) = self.directives.recv() => {
                    if self.obey(directive, source).await == Some(Leaving::Now) {
                        return Ended::Stopped;
                    }
                }
            }
        }
    }

    async fn end(self) -> Result<(), RunError> {
        self.stop_accepting.cancel();
        self.reception.pools.close();
        self.reception.auth_queries.close();
        if let Some(replicas) = &self.in_force.replicas {
            self.reception.budget.leave(replicas).await;
        }
        self.phase.advance(Phase::Stopped);
        self.stop_http.cancel();
        self.tasks.shutdown(STOP).await;
        // Workers end with their last client; whoever has not left by now goes with the process.
        if self.reception.table.is_empty()
            && let Ok(reception) = Arc::try_unwrap(self.reception)
        {
            reception.workers.join();
        }
        tracing::info!("stopped");
        Ok(())
    }
}

fn make_clusters(
    registry: &Registry,
    tasks: &Tasks,
    table: &Arc<Table>,
) -> Result<Arc<Clusters>, prometheus::Error> {
    let watches = kubernetes::Families::new(registry.layers())?;
    let clusters = Arc::new(Clusters::new(tasks.clone(), table.clone(), watches));
    clusters.register_metrics(registry.layers())?;
    Ok(clusters)
}

fn make_watch(source: &Source, registry: &Registry) -> Result<Watch, prometheus::Error> {
    let files = FileMetrics::new(registry.layers(), SystemTime::now())?;
    Ok(Watch::new(source.clone(), files))
}

fn make_pools(
    in_force: &InForce,
    registry: &Registry,
    tasks: &Tasks,
) -> Result<Arc<Pools>, prometheus::Error> {
    let settings = &in_force.settings;
    let families = Families::new(registry.layers(), settings.metrics.max_series.get())?;
    let statements = Arc::new(Interner::new(settings.pool.prepared_statement_cache_size));
    let tracer = Tracer::new(registry.layers(), Own::host_name(), tasks.clone())?;
    tracer.follow(settings.traces.as_ref());
    let (catalog, tracer) = (Box::new(in_force.catalog()), Arc::new(tracer));
    let pools = Arc::new(Pools::new(catalog, families, statements, tracer, tasks.clone()));
    pools.register_metrics(registry.layers())?;
    Ok(pools)
}

fn make_auth_queries(
    in_force: &InForce,
    registry: &Registry,
    pools: &Pools,
    tasks: &Tasks,
) -> Result<Arc<AuthQueries>, prometheus::Error> {
    let catalog = Box::new(in_force.catalog());
    AuthQueries::new(catalog, registry.layers(), pools, tasks.clone())
}

fn watch_runtimes(registry: &Registry) -> Result<Runtimes, prometheus::Error> {
    let runtimes = Runtimes::default();
    runtimes.add("control".to_owned(), Handle::current());
    RuntimeMetrics::register(runtimes.clone(), registry.layers())?;
    Ok(runtimes)
}

/// Has what is known of clients shown, under others' names too.
fn watch_reception(
    reception: &Arc<Reception>,
    registry: &Registry,
    in_force: &mut InForce,
) -> Result<(), prometheus::Error> {
    ClientMetrics::register(reception, registry.layers())?;
    let wanted = in_force.settings.metrics.compatibility.clone();
    let compatibility = CompatibilityMetrics::register(reception, wanted, registry.foreign())?;
    in_force.compatibility = Some(compatibility);
    Ok(())
}

/// What the HTTP server shows, who keeps a record of it, and the replicas that it asks.
fn make_site(
    listener: &Listener,
    registry: &Registry,
    in_force: &mut InForce,
    reception: &Arc<Reception>,
    start: Start,
    tasks: &Tasks,
) -> Arc<Site> {
    // An HTTP server is always reached by TCP.
    let bound = match listener.local_address() {
        ListenAddress::Tcp(address) => *address,
        ListenAddress::Unix(_) => SocketAddr::from(([0; 4], 0)),
    };
    let watches = in_force.clusters.watches().clone();
    let guard = in_force.guard.clone();
    let replicas = Replicas::new(bound, guard.clone(), tasks.clone(), watches, &in_force.settings);
    in_force.replicas = Some(replicas.clone());
    let phase = start.phase.clone();
    let sights = Sights {
        reception: reception.clone(),
        certificates: in_force.expiries.list(),
    };
    let reporter = Arc::new(Reporter::new(sights, start));
    let (recording, stop) = (reporter.clone(), tasks.stop_token());
    tasks.spawn("record", async move {
        stop.run_until_cancelled(recording.keep_record()).await;
    });
    let roll_call = Arc::new(RollCall::new(replicas.clone(), &reporter));
    // The only one: there is one HTTP server.
    let _ = reception.roll_call.set(roll_call.clone());
    let _ = reception.others.set(Cancels::new(replicas.clone()));
    let (keeping, stop) = (
        reception.budget.clone().keep(replicas.clone()),
        tasks.stop_token(),
    );
    tasks.spawn("budget", async move {
        stop.run_until_cancelled(keeping).await;
    });
    let site = site(registry, reporter, replicas, roll_call, phase, guard)
        .with_order(cancels::PATH, Arc::new(CancelPage(reception.table.clone())))
        .with_order(budget::PATH, Arc::new(BudgetPage(reception.budget.clone())));
    Arc::new(site)
}

fn put_in_force(
    configuration: Digest,
    loaded: Loaded,
    level: Level,
    registry: &Registry,
    clusters: Arc<Clusters>,
) -> Result<InForce, RunError> {
    let Loaded {
        settings,
        values,
        remarks,
    } = loaded;
    let prepared = prepare(&settings).map_err(RunError::Prepare)?;
    let mocks = Arc::new(MockSecrets::random()?);
    let logins = Arc::new(Logins::new(settings.pool.max_server_logins));
    let mut expiries = Expiries::new(registry.layers())?;
    expiries.update(&prepared);
    warn(&settings, &prepared);
    warn_of_remarks(&remarks);
    clusters.follow(&settings);
    let auth = settings.http.as_ref().map(|http| http.auth.clone());
    Ok(InForce {
        guard: Arc::new(Guard::new(auth.unwrap_or_default())),
        replicas: None,
        compatibility: None,
        settings: Arc::new(settings),
        values: Arc::new(values),
        overlay: Overlay::default(),
        prepared: Arc::new(prepared),
        mocks,
        logins,
        clusters,
        level,
        configuration,
        expiries,
    })
}

/// How the process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// At once.
    Now,
    /// Clients are seen off between transactions.
    Drain,
    /// When no server connection is in use.
    Servers,
    /// When the last client has left.
    Clients,
}

impl From<Shutdown> for Leaving {
    fn from(how: Shutdown) -> Self {
        match how {
            Shutdown::Immediate => Self::Now,
            Shutdown::WaitForServers => Self::Servers,
            Shutdown::WaitForClients => Self::Clients,
        }
    }
}

/// How draining ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Drained,
    Stopped,
}

impl Ended {
    fn is_stop(self) -> bool {
        self == Self::Stopped
    }
}

struct Listeners {
    clients: Vec<Listener>,
    http: Option<Listener>,
}

fn bind(settings: &Settings, tuning: &Tuning) -> Result<Listeners, BindError> {
    let options = BindOptions {
        backlog: settings.listen.listen_backlog,
        unix_socket_mode: settings.listen.unix_socket_mode,
        unix_socket_group: settings.listen.unix_socket_group.clone(),
        tuning: tuning.clone(),
    };
    let bind = |address: &ListenAddress| Listener::bind(address, &options);
    Ok(Listeners {
        clients: settings
            .listen
            .addresses
            .iter()
            .map(bind)
            .collect::<Result<_, _>>()?,
        http: settings
            .http
            .as_ref()
            .map(|http| bind(&ListenAddress::Tcp(http.address)))
            .transpose()?,
    })
}

fn show(listener: &Listener) -> String {
    match listener.local_address() {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Begins to accept clients.
fn open_doors(listeners: Vec<Listener>, reception: &Arc<Reception>, tasks: &Tasks, stop: &CancellationToken) {
    for listener in listeners {
        let accept = serve::accept(listener, reception.clone(), tasks.clone(), stop.clone());
        tasks.spawn("accept", accept);
    }
}

fn say_ready(addresses: &str, http: Option<&str>, workers: NonZeroUsize) {
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(addresses, http, workers, version, "ready");
}
