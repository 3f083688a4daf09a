//! Accepting: what becomes of each connection.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc::UnboundedSender, watch};
use tokio_util::sync::CancellationToken;

use super::{
    budget::Budgeting,
    cancels::{self, Cancels},
    clusters::Clusters,
    guests::{Guests, Places},
    metrics::{CancelMetrics, LoginMetrics},
    premises::Known,
    roll_call::RollCall,
    workers::{Client, Workers},
};
use crate::{
    admin::{self, Console, Directive, Level, Sampler, Visitor},
    config::Settings,
    fault::{Fault, chain},
    lifecycle::{Phase, Tasks},
    net::{Listener, PeerAddress, Socket, Tuning},
    pool::{Pool, Pools, StartupSettings, auth_query::AuthQueries},
    session::{self, Arrival, Identity, Passage, SessionError, Table},
    startup::{self, Accepted, Door, Login, Policy, Slot, StartupError},
    tls::Stream,
    wire::stream::Framed,
};

/// What every connection is received with.
#[derive(Debug)]
pub(super) struct Reception {
    pub(super) policy: ArcSwap<Policy>,
    pub(super) login_timeout: ArcSwap<Duration>,
    pub(super) known: ArcSwap<Known>,
    pub(super) sampler: Arc<Sampler>,
    pub(super) directives: UnboundedSender<Directive>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) door: Door,
    pub(super) logins: LoginMetrics,
    pub(super) guests: Guests,
    pub(super) tuning: Tuning,
    pub(super) max_packet_size: AtomicU32,
    pub(super) table: Arc<Table>,
    pub(super) clusters: Arc<Clusters>,
    pub(super) pools: Arc<Pools>,
    pub(super) auth_queries: Arc<AuthQueries>,
    pub(super) workers: Workers,
    pub(super) cancels: CancelMetrics,
    pub(super) budget: Arc<Budgeting>,
    /// Who asks the replicas; empty where there is no HTTP server.
    pub(super) roll_call: OnceLock<Arc<RollCall>>,
    /// Who has them cancel something; empty there too.
    pub(super) others: OnceLock<Cancels>,
}

/// Accepts connections until `stop`. Each is received in a task of its own, unless it can be done with at once.
pub(super) async fn accept(
    mut listener: Listener,
    reception: Arc<Reception>,
    tasks: Tasks,
    stop: CancellationToken,
) {
    while let Some((socket, peer)) = stop.run_until_cancelled(listener.accept()).await {
        tasks.step_and_spawn("log-in", receive(socket, peer, reception.clone()));
    }
}

#[allow(
    clippy::cognitive_complexity,
    reason = "the branches are those of the macros that log"
)]
async fn receive(socket: Socket, peer: PeerAddress, reception: Arc<Reception>) {
    let begun = Instant::now();
    let (policy, timeout) = (reception.policy.load_full(), **reception.login_timeout.load());
    // Boxed: a log-in is large, and short compared with what it leads to. So is, here and below, what only few do: a task
    // is moved before it runs.
    match Box::pin(startup::accept(socket, peer, &policy, &reception.door, timeout)).await {
        Ok(Accepted::Session(login)) => {
            reception.logins.succeeded(begun.elapsed());
            begin_session(login, &reception).await;
        }
        Ok(Accepted::Cancel { key, stream }) => {
            Box::pin(cancels::cancel(&key, &reception)).await;
            // That it is closed is the answer.
            drop(stream);
        }
        Err(error) if error.is_departure() => {
            tracing::debug!(%peer, error = chain(&error), "connection left before log-in");
        }
        Err(error) if error.is_overload() => {
            reception.logins.failed(&error);
            tracing::debug!(%peer, error = chain(&error), "connection turned away");
        }
        Err(error) => {
            reception.logins.failed(&error);
            log_failure(&error, peer);
        }
    }
}

fn log_failure(error: &StartupError, peer: PeerAddress) {
    tracing::info!(
        %peer, sqlstate = %error.sqlstate(), blame = error.blame().as_str(),
        error = chain(error), hint = error.hint().as_deref(), "log-in failed"
    );
}

async fn begin_session(login: Box<Login>, reception: &Arc<Reception>) {
    let Login {
        mut stream,
        peer,
        user,
        database,
        settings,
        replication,
        minor,
        credential,
        known_since,
        slot,
    } = *login;
    let mut identity = Identity {
        client: reception.table.next_client(),
        database: database.as_str().into(),
        user: user.as_str().into(),
        peer,
    };
    let entry = match reception.table.enter(minor) {
        Ok(entry) => entry,
        Err(error) => return turn_away(stream, &identity, error.into(), reception).await,
    };
    if admin::DATABASES.contains(&database.as_str()) {
        let visitor = Visitor {
            stream,
            level: level(&reception.known.load().settings, &identity),
            application_name: application_name(&settings),
            identity,
            entry,
            slot,
        };
        return Box::pin(visit(visitor, reception)).await;
    }
    let pool = match find_pool(&database, &user, reception) {
        Ok(pool) => pool,
        Err(error) => return turn_away(stream, &identity, error, reception).await,
    };
    let slot = match reception.guests.seat(slot, &database, &user) {
        Ok(places) => places,
        Err(error) => return turn_away(stream, &identity, error, reception).await,
    };
    // One copy of the names for all clients of a pool.
    identity.database = pool.key().database.clone();
    if pool.key().user == identity.user {
        identity.user = pool.key().user.clone();
        pool.learn(credential, known_since);
    }
    let stream_ref = stream.get_ref();
    tracing::debug!(
        client = %identity.client, db = %identity.database, user = %identity.user, %peer,
        tls = stream_ref.tls_version(), "client logged in"
    );
    stream.shrink();
    let mut arrival = Arrival {
        stream,
        identity,
        startup: StartupSettings::default(),
        pool,
        entry,
        slot,
    };
    if replication {
        return Box::pin(begin_passage(arrival, settings, reception)).await;
    }
    arrival.startup = StartupSettings::new(settings);
    let limit = reception.max_packet_size.load(Ordering::Relaxed);
    arrival.stream.splitter().set_limit(limit);
    reception.workers.deal(welcome(arrival).await);
}

/// Most need no server to begin with.
async fn welcome(arrival: Arrival<Places>) -> Client {
    match Box::new(arrival).welcome().await {
        Ok(welcomed) => Client::Welcomed(welcomed),
        Err(arrival) => Client::Arrived(arrival),
    }
}

fn find_pool(database: &str, user: &str, reception: &Reception) -> Result<Arc<Pool>, SessionError> {
    if reception.pools.is_disabled(database) {
        return Err(SessionError::Disabled(database.to_owned()));
    }
    let pool = reception.pools.get(database, user);
    pool.ok_or_else(|| SessionError::NoDatabase(database.to_owned()))
}

async fn turn_away(stream: Framed<Stream>, identity: &Identity, error: SessionError, reception: &Reception) {
    reception.logins.failed(&error);
    Box::pin(session::turn_away(stream, identity, error)).await;
}

async fn visit(visitor: Visitor<Slot>, reception: &Arc<Reception>) {
    let console = Console {
        pools: reception.pools.clone(),
        table: reception.table.clone(),
        sampler: reception.sampler.clone(),
        premises: reception.clone(),
    };
    console.serve(visitor).await;
}

fn application_name(settings: &[(String, String)]) -> String {
    let name = settings.iter().find(|(name, _)| name == "application_name");
    name.map(|(_, value)| value.clone()).unwrap_or_default()
}

/// What somebody may do on the console.
fn level(settings: &Settings, identity: &Identity) -> Level {
    let is_among = |users: &[String]| users.iter().any(|user| user == identity.user.as_str());
    if is_among(&settings.auth.admin_users) {
        Level::Admin
    } else if is_among(&settings.auth.stats_users) {
        Level::Stats
    } else {
        Level::Nothing
    }
}

/// Gives a client a server connection of its own, if it may have one.
async fn begin_passage(arrival: Arrival<Places>, asked: Vec<(String, String)>, reception: &Reception) {
    if !arrival.pool.plan().settings.allow_replication {
        let Arrival { stream, identity, .. } = arrival;
        let error = SessionError::Replication {
            database: identity.database.to_string(),
            user: identity.user.to_string(),
        };
        return turn_away(stream, &identity, error, reception).await;
    }
    if let Some(passage) = Passage::open(arrival, asked).await {
        reception.workers.deal(Client::Passage(passage));
    }
}
