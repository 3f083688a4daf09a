//! Every pool of the process, by what it is for.

use std::{hash::Hash, sync::Arc};

use arc_swap::ArcSwap;
use dashmap::{DashMap, mapref::multiple::RefMulti};

use super::{
    Catalog, Commons, Families, Pool,
    halt::Halts,
    metrics::LimitMetrics,
    quota::{Limit, Quota, Scope},
    register::{Register, ServerView},
};
use crate::{
    lifecycle::Tasks,
    server::statements::Interner,
    traces::Tracer,
    types::{DatabaseName, PoolKey, UserName},
};

/// Every pool of the process. A pool is made when its first client logs in.
pub struct Pools {
    pools: DashMap<PoolKey, Arc<Pool>>,
    catalog: ArcSwap<Box<dyn Catalog>>,
    /// What the pools of one database share, and those of one user.
    databases: DashMap<DatabaseName, Arc<Quota>>,
    users: DashMap<UserName, Arc<Quota>>,
    /// What all of them share.
    budget: Arc<Quota>,
    families: Families,
    commons: Commons,
    pub(super) halts: Halts,
}

impl Pools {
    /// No pools yet. Their prepared statements are kept in `statements`, their transactions shown to `tracer`.
    pub fn new(
        catalog: Box<dyn Catalog>,
        families: Families,
        statements: Arc<Interner>,
        tracer: Arc<Tracer>,
        tasks: Tasks,
    ) -> Self {
        Self {
            pools: DashMap::new(),
            catalog: ArcSwap::from_pointee(catalog),
            databases: DashMap::new(),
            users: DashMap::new(),
            budget: Quota::new(Scope::Budget),
            families,
            commons: Commons {
                register: Arc::default(),
                statements,
                tracer,
                tasks,
            },
            halts: Halts::default(),
        }
    }

    /// The pool for a client; `None` when there is no such database.
    pub fn get(&self, database: &str, user: &str) -> Option<Arc<Pool>> {
        let catalog = self.catalog.load();
        let key = catalog.pool(database, user)?;
        if let Some(pool) = self.pools.get(&key) {
            return Some(pool.clone());
        }
        let plan = catalog.plan(&key)?;
        let pool = self.pools.entry(key.clone()).or_insert_with(|| {
            let metrics = self.families.pool(&key);
            let quotas = [
                quota(&self.databases, &key.database, Scope::Database),
                quota(&self.users, &key.user, Scope::User),
                self.budget.clone(),
            ];
            Pool::new(key.clone(), plan, metrics, quotas, self.commons.clone())
        });
        let pool = pool.clone();
        // A halt in this moment has seen all pools but this one.
        pool.set_service(self.halts.service(&key.database));
        // A reload in this moment has seen all pools but this one.
        let now = self.catalog.load();
        if !Arc::ptr_eq(&now, &catalog) {
            match now.plan(&key) {
                Some(plan) => pool.replan(plan),
                None => pool.retire(),
            }
        }
        Some(pool)
    }

    /// Has the registry show what they share.
    ///
    /// # Errors
    /// A family of that name is registered already.
    pub fn register_metrics(self: &Arc<Self>, registry: &prometheus::Registry) -> prometheus::Result<()> {
        let metrics = LimitMetrics::new(Arc::downgrade(self), self.families.clone())?;
        registry.register(Box::new(metrics))
    }

    /// Where all server connections are entered.
    pub(super) fn register(&self) -> &Arc<Register> {
        &self.commons.register
    }

    /// Who is shown their transactions.
    pub fn tracer(&self) -> &Tracer {
        &self.commons.tracer
    }

    /// What they count.
    pub fn families(&self) -> &Families {
        &self.families
    }

    /// The server connections of each database, and the most that it may have.
    pub fn databases_used(&self) -> Vec<(DatabaseName, (usize, Option<Limit>))> {
        let usage = |entry: RefMulti<'_, DatabaseName, Arc<Quota>>| (entry.key().clone(), entry.usage());
        self.databases.iter().map(usage).collect()
    }

    /// The same of each user.
    pub(super) fn users_used(&self) -> Vec<(UserName, (usize, Option<Limit>))> {
        let usage = |entry: RefMulti<'_, UserName, Arc<Quota>>| (entry.key().clone(), entry.usage());
        self.users.iter().map(usage).collect()
    }

    /// The same of all pools together.
    pub fn used(&self) -> (usize, Option<Limit>) {
        self.budget.usage()
    }

    /// Bounds the server connections of all pools together. Those beyond the limit are closed: idle ones at once, busy
    /// ones as they come back.
    pub fn limit(&self, limit: Option<Limit>) {
        if self.budget.limit() != limit {
            self.budget.resize(limit);
            Pool::shed(&self.budget);
        }
    }

    /// The pool of this key, if there is one.
    pub fn find(&self, key: &PoolKey) -> Option<Arc<Pool>> {
        self.pools.get(key).map(|pool| pool.clone())
    }

    /// The prepared statements of all of them.
    pub fn statements(&self) -> &Arc<Interner> {
        &self.commons.statements
    }

    /// The pools there are now.
    pub fn all(&self) -> Vec<Arc<Pool>> {
        let mut pools: Vec<_> = self.pools.iter().map(|entry| entry.value().clone()).collect();
        pools.sort_by(|a, b| a.key().cmp(b.key()));
        pools
    }

    /// Every server connection as it is now, and every attempt to open one.
    pub fn servers(&self) -> Vec<ServerView> {
        let mut views = self.commons.register.views();
        for view in &mut views {
            view.close_needed = match (self.find(&view.pool), &view.vitals) {
                _ if view.is_look_up => false,
                (Some(pool), Some(vitals)) => pool.needs_close(vitals),
                (None, Some(_)) => true,
                (_, None) => false,
            };
        }
        views
    }

    /// Goes by a new catalog. Pools whose database is gone are ended.
    pub fn reload(&self, catalog: Box<dyn Catalog>) {
        self.catalog.store(Arc::new(catalog));
        let catalog = self.catalog.load();
        self.pools.retain(|key, pool| match catalog.plan(key) {
            Some(plan) => {
                pool.replan(plan);
                true
            }
            None => {
                tracing::info!(db = %key.database, user = %key.user, "the pool's database is gone");
                pool.retire();
                self.families.forget(key);
                false
            }
        });
    }

    /// Ends every pool.
    pub fn close(&self) {
        for pool in self.all() {
            pool.close();
        }
    }

    /// Drops the pools that nobody uses, so that a stream of made-up database names leaves nothing.
    pub fn drop_unused(&self) {
        self.pools.retain(|key, pool| {
            // The registry's own handle is the only one, and no server connection is left or under way.
            let unused = Arc::strong_count(pool) == 1 && pool.counts().servers() == 0;
            if unused {
                self.families.forget(key);
            }
            !unused
        });
        // Whoever counts towards a limit holds it.
        self.databases.retain(|_, quota| Arc::strong_count(quota) > 1);
        self.users.retain(|_, quota| Arc::strong_count(quota) > 1);
    }
}

fn quota<N: Clone + Eq + Hash>(quotas: &DashMap<N, Arc<Quota>>, name: &N, scope: Scope) -> Arc<Quota> {
    let quota = quotas.entry(name.clone()).or_insert_with(|| Quota::new(scope));
    quota.clone()
}

impl std::fmt::Debug for Pools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pools")
            .field("pools", &self.pools.len())
            .finish_non_exhaustive()
    }
}
