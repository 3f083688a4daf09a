//! Averages over the last period: two samples of what the pools have done, and what has been added since.
//!
//! It has no clock; whoever samples says when it is.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    pool::{Pools, Sums},
    types::{DatabaseName, PoolKey},
};

/// The samples from which averages are taken.
#[derive(Debug)]
pub struct Sampler(Mutex<Samples>);

/// The last two samples. An average is over what was added since the older one, so that it is never over less than a
/// period.
#[derive(Debug)]
struct Samples {
    older: Sample,
    newer: Sample,
}

#[derive(Debug, Clone)]
struct Sample {
    taken: Instant,
    pools: BTreeMap<PoolKey, Sums>,
}

/// What the pools of one database, or all, have done: since they were made, and on average of late.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Statistics {
    pub(super) totals: Sums,
    /// What was added, and in which time.
    added: Sums,
    period: Duration,
}

impl Sampler {
    /// Counts from now on.
    pub fn new(now: Instant) -> Self {
        let none = Sample {
            taken: now,
            pools: BTreeMap::new(),
        };
        Self(Mutex::new(Samples {
            older: none.clone(),
            newer: none,
        }))
    }

    /// Takes a sample; to be called once in every `stats_period`.
    pub fn sample(&self, pools: &Pools, now: Instant) {
        self.take(sums(pools), now);
    }

    fn take(&self, pools: BTreeMap<PoolKey, Sums>, now: Instant) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = Sample { taken: now, pools };
        samples.older = std::mem::replace(&mut samples.newer, newest);
    }

    /// What the pools of each database have done.
    pub(super) fn by_database(&self, pools: &Pools, now: Instant) -> BTreeMap<DatabaseName, Statistics> {
        self.compare(sums(pools), now)
    }

    fn compare(&self, pools: BTreeMap<PoolKey, Sums>, now: Instant) -> BTreeMap<DatabaseName, Statistics> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let period = now.saturating_duration_since(samples.older.taken);
        let mut databases = BTreeMap::<_, Statistics>::new();
        for (key, sums) in pools {
            let before = samples.older.pools.get(&key).copied().unwrap_or_default();
            let database = databases.entry(key.database).or_default();
            database.totals += sums;
            database.added += sums.since(&before);
            database.period = period;
        }
        databases
    }
}

fn sums(pools: &Pools) -> BTreeMap<PoolKey, Sums> {
    let pools = pools.all();
    pools
        .iter()
        .map(|pool| (pool.key().clone(), pool.sums()))
        .collect()
}

impl Statistics {
    /// Both together.
    pub(super) fn add(&mut self, other: &Self) {
        self.totals += other.totals;
        self.added += other.added;
        self.period = other.period;
    }

    /// The averages as PgBouncer has them: counts and bytes per second, times per transaction, query and assignment.
    pub(super) fn averages(&self) -> [u64; 12] {
        let micros = self.period.as_micros();
        let per_second = |count: u64| {
            let rate = (u128::from(count) * 1_000_000).checked_div(micros);
            u64::try_from(rate.unwrap_or_default()).unwrap_or(u64::MAX)
        };
        let each = |time: u64, count: u64| time.checked_div(count).unwrap_or_default();
        let added = &self.added;
        let mut averages = added.values().map(per_second);
        let times = [
            each(added.transaction_time, added.transactions),
            each(added.query_time, added.queries),
            each(added.wait_time, added.assignments),
        ];
        for (average, time) in averages.iter_mut().skip(5).zip(times) {
            *average = time;
        }
        averages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Role;

    fn pools(transactions: u64) -> BTreeMap<PoolKey, Sums> {
        let key = PoolKey {
            database: "d".into(),
            user: "u".into(),
            role: Role::ReadWrite,
        };
        let totals = Sums {
            transactions,
            assignments: transactions,
            transaction_time: transactions * 300,
            wait_time: transactions * 20,
            ..Sums::default()
        };
        BTreeMap::from([(key, totals)])
    }

    /// Total and average of transactions per second; average duration and wait.
    fn shown(sampler: &Sampler, transactions: u64, now: Instant) -> [u64; 4] {
        let all = sampler.compare(pools(transactions), now);
        let statistics = &all[&"d".into()];
        let averages = statistics.averages();
        [
            statistics.totals.transactions,
            averages[1],
            averages[5],
            averages[7],
        ]
    }

    #[test]
    fn an_average_is_over_the_last_one_to_two_periods() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let sampler = Sampler::new(start);
        assert_eq!(shown(&sampler, 0, start), [0; 4], "nothing was done in no time");
        assert_eq!(shown(&sampler, 100, at(10)), [100, 10, 300, 20]);
        sampler.take(pools(600), at(60));
        assert_eq!(shown(&sampler, 600, at(60)), [600, 10, 300, 20]);
        sampler.take(pools(600), at(120));
        assert_eq!(
            shown(&sampler, 600, at(120)),
            [600, 0, 0, 0],
            "the last period was quiet"
        );
        sampler.take(pools(12_600), at(180));
        assert_eq!(shown(&sampler, 12_600, at(180)), [12_600, 200, 300, 20]);
    }

    #[test]
    fn a_pool_that_was_made_again_counts_from_nothing() {
        let start = Instant::now();
        let sampler = Sampler::new(start);
        for _ in 0..2 {
            sampler.take(pools(1_000), start);
        }
        let [total, average, ..] = shown(&sampler, 10, start + Duration::from_secs(10));
        assert_eq!((total, average), (10, 0));
    }
}
