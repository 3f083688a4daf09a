//! Users' secrets from the server, by a query of the configuration's (`auth_query`).
//!
//! It is asked as one role (`auth_user`), on connections of its own, which no client's request or setting ever reaches.
//! Answers are remembered for a while, by the database that was asked.

pub mod advice;
mod cache;
mod channel;
mod error;
mod line;
mod metrics;
mod missing;
mod room;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use prometheus::Registry;

use self::{
    cache::Ttl,
    channel::Channel,
    line::{Answer, Line},
    metrics::Metrics,
    missing::Missing,
    room::Room,
};
pub use self::{channel::QUERY_LIMIT, error::QueryError};
use crate::{
    auth::{
        flow::Learned,
        secret::Secret,
        server_login::ServerCredential,
        source::{Found, Freshness, LookUpError, LookingUp, SecretSource},
    },
    fault::SqlState,
    lifecycle::Tasks,
    pool::{Pools, register::Register},
    server::{self, Target},
};

/// What is asked, as whom, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuthKey {
    /// The database, as clients name it.
    pub database: Arc<str>,
    /// `auth_user`
    pub user: Arc<str>,
    /// `auth_query`
    pub query: Arc<str>,
}

/// How it is asked; replaced as a whole by a reload.
#[derive(Debug, Clone)]
pub struct AuthPlan {
    /// Where, and as whom.
    pub target: Arc<Target>,
    /// The secret of that role, where it is configured.
    pub secret: Option<Secret>,
    /// Whether the configuration has chosen the database. Otherwise clients have, and may well name one that does not
    /// exist.
    pub is_chosen: bool,
    /// Whether clients may make its name up: the configuration does not have it.
    pub is_open: bool,
    /// `server_lifetime`
    pub lifetime: Duration,
    /// `auth_query_ttl`
    pub ttl: Duration,
    /// `auth_query_negative_ttl`
    pub negative_ttl: Duration,
    /// How long a server that is away is tried again.
    pub patience: Duration,
    /// `server_login_retry`
    pub retry: Duration,
}

/// Says how users of a database are looked up.
pub trait AuthCatalog: Send + Sync {
    /// What is asked about users of a database; `None` where they are not looked up.
    fn auth_key(&self, database: &str) -> Option<AuthKey>;

    /// Whether a user of a database is let in by what is found.
    fn is_believed(&self, database: &str, user: &str) -> bool;

    /// How it is asked; `None` when the database is gone or nobody is to be asked that.
    fn auth_plan(&self, key: &AuthKey) -> Option<AuthPlan>;
}

/// All look-ups of the process.
pub struct AuthQueries {
    catalog: ArcSwap<Box<dyn AuthCatalog>>,
    channels: DashMap<AuthKey, Arc<Channel>>,
    missing: Mutex<Missing>,
    room: Arc<Room<Line>>,
    metrics: Metrics,
    /// Where others see the connections.
    register: Arc<Register>,
    tasks: Tasks,
}

impl AuthQueries {
    /// Nothing is known yet. The registry adds the prefix `pgweir_`. Connections are shown among those of `pools`.
    ///
    /// # Errors
    /// A metric of one of the names is registered already.
    pub fn new(
        catalog: Box<dyn AuthCatalog>,
        registry: &Registry,
        pools: &Pools,
        tasks: Tasks,
    ) -> prometheus::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            catalog: ArcSwap::from_pointee(catalog),
            channels: DashMap::new(),
            missing: Mutex::default(),
            room: Arc::new(Room::new()),
            metrics: Metrics::new(registry)?,
            register: pools.register().clone(),
            tasks,
        }))
    }

    /// Goes by a new catalog. What is asked otherwise than before is asked anew.
    pub fn reload(&self, catalog: Box<dyn AuthCatalog>) {
        self.catalog.store(Arc::new(catalog));
        self.missing().clear();
        let catalog = self.catalog.load();
        self.channels.retain(|key, channel| {
            let kept = catalog.auth_plan(key).is_some_and(|plan| channel.replan(plan));
            if !kept {
                channel.close();
            }
            kept
        });
    }

    /// Closes connections that have not been used for long, and forgets what is too old.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.missing().drop_expired(now);
        self.channels.retain(|_, channel| {
            channel.sweep(now);
            Arc::strong_count(channel) > 1 || !channel.is_unused()
        });
    }

    /// Closes all connections.
    pub fn close(&self) {
        self.channels.retain(|_, channel| {
            channel.close();
            false
        });
    }

    async fn find(&self, database: &str, user: &str, freshness: Freshness) -> Result<Found, QueryError> {
        let missing = || QueryError::NoClientDatabase(database.to_owned());
        if self.missing().has(database, Instant::now()) {
            return Err(missing());
        }
        let Some((channel, is_own)) = self.channel(database)? else {
            return Ok(Found::NotAsked);
        };
        if !self.catalog.load().is_believed(database, user) {
            tracing::info!(
                user,
                db = database,
                "not looked up: pgweir can log in as this role by itself, and the client has chosen the database; \
                 list it in users_file, or set auth_database"
            );
            return Ok(Found::WithoutSecret);
        }
        let found = channel.look_up(user, freshness).await;
        found.map_err(|error| match error.server_code() {
            // What PostgreSQL says too; it is not for whoever looks after auth_query.
            Some(SqlState::INVALID_CATALOG_NAME) if is_own => {
                let now = Instant::now();
                self.missing().note(database, now + channel.negative_ttl(), now);
                missing()
            }
            _ => error,
        })
    }

    fn missing(&self) -> MutexGuard<'_, Missing> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel for a client's database, and whether it is to that very database.
    fn channel(&self, database: &str) -> Result<Option<(Arc<Channel>, bool)>, QueryError> {
        let catalog = self.catalog.load();
        let Some(key) = catalog.auth_key(database) else {
            return Ok(None);
        };
        let is_own = &*key.database == database;
        if let Some(channel) = self.channels.get(&key) {
            return Ok(Some((channel.clone(), is_own)));
        }
        let Some(plan) = catalog.auth_plan(&key) else {
            return Err(QueryError::NoDatabase(key.database.as_ref().to_owned()));
        };
        let make = || {
            let (room, metrics, tasks) = (self.room.clone(), self.metrics.clone(), self.tasks.clone());
            Channel::new(key.clone(), plan, room, metrics, self.register.clone(), tasks)
        };
        let channel = self.channels.entry(key.clone()).or_insert_with(make).clone();
        // A reload in this moment has seen all channels but this one.
        let now = self.catalog.load();
        let is_current = Arc::ptr_eq(&now, &catalog);
        if !is_current && !now.auth_plan(&key).is_some_and(|plan| channel.replan(plan)) {
            self.channels
                .remove_if(&key, |_, present| Arc::ptr_eq(present, &channel));
            channel.close();
        }
        Ok(Some((channel, is_own)))
    }
}

impl SecretSource for AuthQueries {
    fn look_up<'a>(&'a self, database: &'a str, user: &'a str, freshness: Freshness) -> LookingUp<'a> {
        Box::pin(async move {
            let found = self.find(database, user, freshness).await;
            found.map_err(LookUpError::new)
        })
    }
}

/// Looks a user up once, on a connection of its own.
///
/// # Errors
/// `auth_user` cannot log in, or the query cannot be asked or was not answered in time.
pub async fn look_up_once(plan: &AuthPlan, query: &str, user: &str) -> Result<Found, QueryError> {
    let connecting = server::connect(&plan.target, &plan.credential()).await;
    let mut connection = connecting.map_err(|error| QueryError::Connect(error.into()))?;
    let asking = tokio::time::timeout(QUERY_LIMIT, line::ask(&mut connection, query, user));
    let answer = asking.await.map_err(|_| QueryError::Timeout(QUERY_LIMIT))?;
    connection.say_goodbye();
    match answer {
        Answer::Said(outcome) => outcome,
        Answer::Lost(error) => Err(QueryError::Query(error.into())),
    }
}

impl AuthPlan {
    /// What the role that asks logs in with, beside its certificate.
    fn credential(&self) -> ServerCredential {
        ServerCredential {
            secret: self.secret.clone(),
            learned: Learned::Nothing,
        }
    }

    /// Within which a look-up has an answer or has failed.
    fn limit(&self) -> Duration {
        self.patience + self.target.options.timeout + QUERY_LIMIT
    }

    fn times(&self) -> Ttl {
        Ttl {
            positive: self.ttl,
            negative: self.negative_ttl,
        }
    }

    /// Whether connections and answers under `other` are as good as under this.
    fn is_same(&self, other: &Self) -> bool {
        self.target.is_same(&other.target) && self.secret == other.secret
    }
}

impl std::fmt::Debug for AuthQueries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthQueries")
            .field("channels", &self.channels.len())
            .finish_non_exhaustive()
    }
}
