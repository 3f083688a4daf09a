//! What has been counted lately: a sample every few seconds, for a quarter of an hour. Pure; time is passed in.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::{
    document::{QuantileSeries, Quantiles, Rates, Series},
    quantile::quantile,
};
use crate::{metrics::Buckets, pool::Totals, types::PoolKey};

/// How far samples are apart.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// A quarter of an hour.
const SAMPLES: usize = 180;
/// What is called the last minute, in samples.
const MINUTE: usize = 12;
/// A pool's last minute is known to this, so that it costs five readings.
const STEP: Duration = Duration::from_secs(15);
const STEPS: usize = 5;
/// More pools than this are measured together only.
const MEASURED_POOLS: usize = 256;

/// One look at everything that is counted.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Of each pool.
    pub(super) pools: Vec<(PoolKey, Totals)>,
    pub(super) clients: usize,
    pub(super) waiting: usize,
    pub(super) active: usize,
    pub(super) servers: usize,
    /// CPU time of the process since its start.
    pub(super) cpu_seconds: Option<f64>,
}

/// The last samples.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    samples: VecDeque<Sample>,
    pools: HashMap<PoolKey, Track>,
    last: Option<(Instant, Option<f64>)>,
}

/// What happened between two readings, and what stood where at the second.
#[derive(Debug)]
struct Sample {
    seconds: f64,
    new: Totals,
    cpu_seconds: Option<f64>,
    clients: usize,
    waiting: usize,
    active: usize,
    servers: usize,
}

/// One pool's readings.
#[derive(Debug)]
struct Track {
    last: Totals,
    at: Instant,
    /// Earlier ones, oldest first.
    steps: VecDeque<(Instant, Totals)>,
}

impl Recorder {
    /// Takes a reading.
    pub(super) fn record(&mut self, reading: Reading, now: Instant) {
        let is_first = self.last.is_none();
        let new = self.follow(reading.pools, now);
        let before = self.last.replace((now, reading.cpu_seconds));
        let Some((then, cpu_before)) = before.filter(|_| !is_first) else {
            return;
        };
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        let cpu = reading.cpu_seconds.zip(cpu_before);
        self.samples.push_back(Sample {
            seconds: now.saturating_duration_since(then).as_secs_f64(),
            new,
            cpu_seconds: cpu.map(|(now, before)| now - before),
            clients: reading.clients,
            waiting: reading.waiting,
            active: reading.active,
            servers: reading.servers,
        });
    }

    /// The last minute of all pools.
    pub(super) fn minute(&self) -> Rates {
        let (mut seconds, mut new) = (0.0, Totals::default());
        for sample in self.samples.iter().rev().take(MINUTE) {
            seconds += sample.seconds;
            new.add(&sample.new);
        }
        rates(seconds, &new)
    }

    /// The last minute of one pool, if it is measured by itself.
    pub(super) fn minute_of(&self, pool: &PoolKey) -> Option<Rates> {
        let track = self.pools.get(pool)?;
        let (then, before) = track.steps.front()?;
        let seconds = track.at.saturating_duration_since(*then).as_secs_f64();
        Some(rates(seconds, &track.last.since(before)))
    }

    /// How many CPUs the process has used in the last minute.
    pub(super) fn cpus(&self) -> Option<f64> {
        let (mut seconds, mut used) = (0.0, 0.0);
        for sample in self.samples.iter().rev().take(MINUTE) {
            seconds += sample.seconds;
            used += sample.cpu_seconds?;
        }
        (seconds > 0.0).then(|| rounded(used / seconds))
    }

    /// All samples. `at` says what time it was.
    pub(super) fn series(&self, at: impl Fn(Instant) -> f64) -> Series {
        let each = |value: fn(&Sample) -> f64| self.samples.iter().map(value).collect();
        let count = |value: fn(&Sample) -> usize| self.samples.iter().map(value).collect();
        let per_second = |sample: &Sample, value| per(value, sample.seconds);
        let second = |value: fn(&Totals) -> u64| {
            let samples = self.samples.iter();
            samples
                .map(|sample| per_second(sample, value(&sample.new)))
                .collect()
        };
        let lengths: Vec<f64> = each(|sample| sample.seconds);
        let mean = lengths.iter().sum::<f64>() / lengths.len().max(1) as f64;
        Series {
            until: self.last.map_or(0.0, |(last, _)| at(last)),
            interval_seconds: if lengths.is_empty() {
                INTERVAL.as_secs_f64()
            } else {
                rounded(mean)
            },
            capacity: SAMPLES,
            transactions_per_second: second(|new| new.transactions),
            queries_per_second: second(|new| new.query.count()),
            errors_per_second: second(|new| new.errors),
            received_bytes_per_second: second(|new| new.received),
            sent_bytes_per_second: second(|new| new.sent),
            clients: count(|sample| sample.clients),
            waiting: count(|sample| sample.waiting),
            active: count(|sample| sample.active),
            servers: count(|sample| sample.servers),
            query_seconds: self.quantiles(|new| &new.query),
            transaction_seconds: self.quantiles(|new| &new.lent),
            wait_seconds: self.quantiles(|new| &new.wait),
        }
    }

    fn quantiles(&self, buckets: fn(&Totals) -> &Buckets) -> QuantileSeries {
        let of = |share| {
            let samples = self.samples.iter();
            samples
                .map(|sample| quantile(share, buckets(&sample.new)).map(rounded))
                .collect()
        };
        QuantileSeries {
            p50: of(0.5),
            p95: of(0.95),
            p99: of(0.99),
        }
    }

    /// What the pools have counted since the last reading. A pool that was not there then has begun at zero.
    fn follow(&mut self, pools: Vec<(PoolKey, Totals)>, now: Instant) -> Totals {
        let mut new = Totals::default();
        let mut followed = HashMap::with_capacity(pools.len());
        for (key, totals) in pools {
            let (steps, before) = match self.pools.remove(&key) {
                Some(track) => (track.steps, track.last),
                None => (VecDeque::new(), Totals::default()),
            };
            new.add(&totals.since(&before));
            let mut track = Track {
                last: totals,
                at: now,
                steps,
            };
            if followed.len() < MEASURED_POOLS {
                track.step();
            }
            followed.insert(key, track);
        }
        self.pools = followed;
        new
    }
}

impl Track {
    fn step(&mut self) {
        let is_due = self
            .steps
            .back()
            .is_none_or(|(then, _)| self.at.saturating_duration_since(*then) >= STEP);
        if is_due {
            if self.steps.len() == STEPS {
                self.steps.pop_front();
            }
            self.steps.push_back((self.at, self.last.clone()));
        }
    }
}

fn rates(seconds: f64, new: &Totals) -> Rates {
    let quantiles = |buckets| Quantiles {
        p50: quantile(0.5, buckets).map(rounded),
        p95: quantile(0.95, buckets).map(rounded),
        p99: quantile(0.99, buckets).map(rounded),
    };
    Rates {
        seconds: rounded(seconds),
        transactions_per_second: per(new.transactions, seconds),
        queries_per_second: per(new.query.count(), seconds),
        errors_per_second: per(new.errors, seconds),
        received_bytes_per_second: per(new.received, seconds),
        sent_bytes_per_second: per(new.sent, seconds),
        query_seconds: quantiles(&new.query),
        transaction_seconds: quantiles(&new.lent),
        wait_seconds: quantiles(&new.wait),
    }
}

fn per(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        rounded(count as f64 / seconds)
    } else {
        0.0
    }
}

/// Four digits: more are noise, and bytes.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10_f64.powf(3.0 - value.abs().log10().floor());
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Role;

    fn key(database: &str) -> PoolKey {
        PoolKey {
            database: database.into(),
            user: "app".into(),
            role: Role::ReadWrite,
        }
    }

    fn totals(transactions: u64) -> Totals {
        let mut totals = Totals {
            transactions,
            ..Totals::default()
        };
        totals.lent.counts[0] = transactions;
        totals
    }

    fn reading(pools: &[(&str, u64)]) -> Reading {
        Reading {
            pools: pools
                .iter()
                .map(|(name, count)| (key(name), totals(*count)))
                .collect(),
            clients: 3,
            ..Reading::default()
        }
    }

    fn close(value: f64, expected: f64) -> bool {
        (value - expected).abs() < 1e-9
    }

    #[test]
    fn rates_are_of_what_is_new() {
        let (mut recorder, start) = (Recorder::default(), Instant::now());
        let at = |samples: u32| start + INTERVAL * samples;
        recorder.record(reading(&[("a", 1000)]), at(0));
        assert!(recorder.series(|_| 0.0).clients.is_empty());
        recorder.record(reading(&[("a", 1050), ("b", 100)]), at(1));
        // One is gone, the other was made again.
        recorder.record(reading(&[("a", 10)]), at(2));
        let series = recorder.series(|_| 7.0);
        assert_eq!(series.transactions_per_second, [30.0, 2.0]);
        assert_eq!(series.clients, [3, 3]);
        assert!(close(series.until, 7.0) && close(series.interval_seconds, 5.0));
        assert_eq!(series.wait_seconds.p99, [None, None]);
        assert!(series.transaction_seconds.p50[0].is_some());
        let minute = recorder.minute();
        assert!(close(minute.transactions_per_second, 16.0), "{minute:?}");
    }

    #[test]
    fn a_minute_is_a_minute_and_nothing_grows() {
        let (mut recorder, start) = (Recorder::default(), Instant::now());
        for sample in 0..1000_u32 {
            let count = if sample < 900 {
                0
            } else {
                u64::from(sample - 900) * 50
            };
            recorder.record(reading(&[("a", count)]), start + INTERVAL * sample);
        }
        let minute = recorder.minute();
        assert!(close(minute.seconds, 60.0) && close(minute.transactions_per_second, 10.0));
        let of_pool = recorder.minute_of(&key("a")).unwrap();
        assert!((60.0..=75.0).contains(&of_pool.seconds), "{of_pool:?}");
        assert!(close(of_pool.transactions_per_second, 10.0), "{of_pool:?}");
        assert_eq!(recorder.samples.len(), SAMPLES);
        assert_eq!(recorder.pools[&key("a")].steps.len(), STEPS);
    }

    #[test]
    fn beyond_a_number_pools_are_counted_and_not_measured_alone() {
        let (mut recorder, start) = (Recorder::default(), Instant::now());
        let names: Vec<_> = (0..MEASURED_POOLS + 10).map(|index| index.to_string()).collect();
        for round in 0..2 {
            let pools: Vec<_> = names.iter().map(|name| (&**name, u64::from(round))).collect();
            recorder.record(reading(&pools), start + INTERVAL * round);
        }
        let measured = names
            .iter()
            .filter(|name| recorder.minute_of(&key(name)).is_some());
        assert_eq!(measured.count(), MEASURED_POOLS);
        let all = recorder.series(|_| 0.0).transactions_per_second[0];
        assert!(close(all, rounded(names.len() as f64 / 5.0)), "{all}");
    }

    #[test]
    fn cpu_time_is_of_the_last_minute() {
        let (mut recorder, start) = (Recorder::default(), Instant::now());
        for sample in 0..3_u32 {
            let reading = Reading {
                cpu_seconds: Some(f64::from(sample) * 2.5),
                ..Reading::default()
            };
            recorder.record(reading, start + INTERVAL * sample);
        }
        assert!(close(recorder.cpus().unwrap(), 0.5));
    }

    #[test]
    fn four_digits_are_kept() {
        assert!(close(rounded(123_456.0), 123_500.0));
        assert!(close(rounded(0.000_123_456), 0.000_123_5));
        assert!(close(rounded(0.0), 0.0) && close(rounded(f64::NAN), 0.0));
    }
}
