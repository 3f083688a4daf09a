//! Keeping pools from serving, and having their server connections replaced, by order of an administrator (PgBouncer's
//! PAUSE, SUSPEND, RESUME, DISABLE, ENABLE and RECONNECT).

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Pool, Pools, state::Service};
use crate::{
    server::{Duty, Vitals},
    types::{DatabaseName, PoolKey},
};

/// Why an order is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HaltError {
    /// All are halted already.
    #[error("already suspended/paused")]
    Already,
    /// There is nothing to go on with.
    #[error("pooler is not paused/suspended")]
    NotHalted,
    /// The same of one database.
    #[error("database {0} is not paused")]
    NotPaused(String),
    /// Pools that are paused cannot be suspended.
    #[error("cannot suspend with paused databases")]
    PausedDatabases,
}

/// Whether all pools are halted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Halted {
    /// No.
    #[default]
    No,
    /// Who asks waits, and connections are kept.
    Suspended,
    /// Who asks waits, and connections are closed as they come back.
    Paused,
}

/// What administrators have ordered.
#[derive(Debug, Default)]
pub(super) struct Halts(Mutex<Orders>);

#[derive(Debug, Default)]
struct Orders {
    all: Halted,
    paused: BTreeSet<DatabaseName>,
    disabled: BTreeSet<DatabaseName>,
}

impl Orders {
    fn service(&self, database: &DatabaseName) -> Service {
        match self.all {
            Halted::Paused => Service::Paused,
            _ if self.paused.contains(database) => Service::Paused,
            Halted::Suspended => Service::Suspended,
            Halted::No => Service::Open,
        }
    }
}

impl Halts {
    pub(super) fn service(&self, database: &DatabaseName) -> Service {
        self.lock().service(database)
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pools {
    /// Has requests wait, those for `database` or all, and closes server connections as they come back.
    ///
    /// # Errors
    /// All are halted already.
    pub fn pause(&self, database: Option<&str>) -> Result<(), HaltError> {
        let mut orders = self.halts.lock();
        if orders.all != Halted::No {
            return Err(HaltError::Already);
        }
        match database {
            Some(database) => drop(orders.paused.insert(database.into())),
            None => orders.all = Halted::Paused,
        }
        drop(orders);
        self.carry_out();
        Ok(())
    }

    /// Has all requests wait, and keeps server connections as they are.
    ///
    /// # Errors
    /// Something is halted already.
    pub fn suspend(&self) -> Result<(), HaltError> {
        let mut orders = self.halts.lock();
        if orders.all != Halted::No {
            return Err(HaltError::Already);
        }
        if !orders.paused.is_empty() {
            return Err(HaltError::PausedDatabases);
        }
        orders.all = Halted::Suspended;
        drop(orders);
        self.carry_out();
        Ok(())
    }

    /// Goes on, with `database` or with everything.
    ///
    /// # Errors
    /// There is nothing to go on with.
    pub fn resume(&self, database: Option<&str>) -> Result<(), HaltError> {
        let mut orders = self.halts.lock();
        match database {
            Some(database) => {
                if !orders.paused.remove(&DatabaseName::from(database)) {
                    return Err(HaltError::NotPaused(database.to_owned()));
                }
            }
            None if orders.all == Halted::No && orders.paused.is_empty() => return Err(HaltError::NotHalted),
            None => {
                orders.all = Halted::No;
                orders.paused.clear();
            }
        }
        drop(orders);
        self.carry_out();
        Ok(())
    }

    /// Whether everything is halted.
    pub fn halted(&self) -> Halted {
        self.halts.lock().all
    }

    /// Whether requests for this database wait until somebody resumes.
    pub fn is_paused(&self, database: &str) -> bool {
        self.halts.service(&database.into()) == Service::Paused
    }

    /// Refuses new clients of a database, or does so no more.
    pub fn disable(&self, database: &str, disabled: bool) {
        let mut orders = self.halts.lock();
        if disabled {
            orders.disabled.insert(database.into());
        } else {
            orders.disabled.remove(&DatabaseName::from(database));
        }
    }

    /// Whether new clients of a database are refused.
    pub fn is_disabled(&self, database: &str) -> bool {
        self.halts.lock().disabled.contains(&DatabaseName::from(database))
    }

    /// Has the server connections of a database, or all, closed as they come back.
    pub fn reconnect(&self, database: Option<&str>) {
        let now = Instant::now();
        for pool in self.of(database) {
            pool.renewal.begin(now);
            pool.ring();
        }
    }

    /// Whether a database, or all, have no server connection left, but for those that are being opened.
    pub fn are_empty(&self, database: Option<&str>) -> bool {
        let is_apart = |vitals: &Arc<Vitals>| vitals.duty() == Duty::Apart;
        self.of(database)
            .iter()
            .all(|pool| pool.lock().is_empty_of_servers())
            && !self.servers().iter().any(|server| {
                database.is_none_or(|database| server.pool.database.as_str() == database)
                    && server.vitals.as_ref().is_some_and(is_apart)
            })
    }

    /// Whether no server connection is a client's.
    pub fn are_at_rest(&self) -> bool {
        self.all().iter().all(|pool| pool.counts().active == 0)
    }

    /// The pools of a database, or all.
    pub fn of(&self, database: Option<&str>) -> Vec<Arc<Pool>> {
        let mut pools = self.all();
        pools.retain(|pool| database.is_none_or(|database| pool.key().database.as_str() == database));
        pools
    }

    /// After how long without use a connection of this pool has to prove itself; `None` if it never has to.
    pub fn check_delay(&self, key: &PoolKey) -> Option<Duration> {
        let plan = self.find(key)?.plan();
        let settings = &plan.settings;
        settings
            .server_check_query
            .is_some()
            .then_some(settings.server_check_delay)
    }

    fn carry_out(&self) {
        for pool in self.all() {
            pool.set_service(self.halts.service(&pool.key().database));
        }
    }
}

impl Pool {
    /// Serves in this way from now on.
    pub(super) fn set_service(&self, service: Service) {
        self.lock().set_service(service);
        // It closes idle connections, or gives them to those who wait.
        self.ring();
    }

    /// Whether a connection was opened before the last RECONNECT.
    pub(super) fn is_stale(&self, vitals: &Vitals) -> bool {
        self.renewal.is_before(vitals.opened)
    }

    /// Whether a connection will not be used again.
    pub(super) fn needs_close(&self, vitals: &Vitals) -> bool {
        self.is_stale(vitals) || !self.plan().target.is_same(&vitals.target) || vitals.has_moved()
    }
}

/// Since when connections have to be newer.
#[derive(Debug)]
pub(super) struct Renewal {
    start: Instant,
    /// In nanoseconds after the start; zero while every connection is good.
    since: AtomicU64,
}

impl Default for Renewal {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            since: AtomicU64::new(0),
        }
    }
}

impl Renewal {
    fn nanoseconds(&self, moment: Instant) -> u64 {
        let nanoseconds = moment.saturating_duration_since(self.start).as_nanos();
        u64::try_from(nanoseconds).unwrap_or(u64::MAX).max(1)
    }

    fn begin(&self, now: Instant) {
        self.since.store(self.nanoseconds(now), Ordering::Relaxed);
    }

    fn is_before(&self, opened: Instant) -> bool {
        match self.since.load(Ordering::Relaxed) {
            0 => false,
            since => self.nanoseconds(opened) <= since,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_goes_before_one() {
        let mut orders = Orders::default();
        let (one, other) = (DatabaseName::from("one"), DatabaseName::from("other"));
        orders.paused.insert(one.clone());
        assert_eq!(
            [orders.service(&one), orders.service(&other)],
            [Service::Paused, Service::Open]
        );
        orders.all = Halted::Suspended;
        assert_eq!(
            [orders.service(&one), orders.service(&other)],
            [Service::Paused, Service::Suspended]
        );
        orders.all = Halted::Paused;
        assert_eq!(orders.service(&other), Service::Paused);
    }

    #[test]
    fn only_connections_from_before_are_stale() {
        let renewal = Renewal::default();
        let at = |seconds| renewal.start + Duration::from_secs(seconds);
        assert!(!renewal.is_before(at(1)));
        renewal.begin(at(2));
        assert!(renewal.is_before(at(1)) && renewal.is_before(at(2)) && !renewal.is_before(at(3)));
    }
}
