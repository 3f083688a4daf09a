//! How long things took.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds in seconds: from a hand-over within the process to a client that has waited for minutes.
pub const BOUNDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
    120.0,
];
/// The same in microseconds.
const MICROS: [u64; BOUNDS.len()] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    120_000_000,
];

/// Durations by how long they were, and their sum. Observing one adds to two atomics.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// What a histogram has counted: how many durations up to each bound and above the one before, and beyond all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Buckets {
    /// The counts.
    pub counts: [u64; BOUNDS.len() + 1],
    /// The sum of all durations in microseconds.
    pub micros: u64,
}

impl Histogram {
    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        // Rounded: cut off, what is short would be nothing.
        let rest = (u64::from(duration.subsec_nanos()) + 500) / 1000;
        let micros = duration.as_secs().saturating_mul(1_000_000).saturating_add(rest);
        let at = MICROS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        if micros > 0 {
            self.micros.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// What has been counted so far.
    pub fn buckets(&self) -> Buckets {
        let mut read = Buckets {
            micros: self.micros.load(Ordering::Relaxed),
            ..Buckets::default()
        };
        for (count, bucket) in read.counts.iter_mut().zip(&self.buckets) {
            *count = bucket.load(Ordering::Relaxed);
        }
        read
    }

    /// Counts all that another has counted.
    pub fn add(&self, other: &Buckets) {
        for (bucket, count) in self.buckets.iter().zip(other.counts) {
            bucket.fetch_add(count, Ordering::Relaxed);
        }
        self.micros.fetch_add(other.micros, Ordering::Relaxed);
    }

    /// How many durations.
    pub fn count(&self) -> u64 {
        self.buckets().count()
    }

    /// Their sum in microseconds.
    pub fn micros(&self) -> u64 {
        self.micros.load(Ordering::Relaxed)
    }
}

impl Buckets {
    /// How many durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Counts all that another has counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.wrapping_add(more);
        }
        self.micros = self.micros.wrapping_add(other.micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_lists_of_bounds_are_one() {
        for (seconds, micros) in BOUNDS.iter().zip(MICROS) {
            assert!((seconds * 1e6 - micros as f64).abs() < 1e-6, "{seconds} {micros}");
        }
    }

    #[test]
    fn a_duration_is_in_the_bucket_of_its_bound() {
        let histogram = Histogram::default();
        for nanos in [0, 100_000, 100_499, 100_500, 120_000_000_000, 120_000_001_000] {
            histogram.observe(Duration::from_nanos(nanos));
        }
        let Buckets { counts, micros } = histogram.buckets();
        assert_eq!((counts[0], counts[1], counts[15], counts[16]), (3, 1, 1, 1));
        assert_eq!(histogram.count(), 6);
        assert_eq!(micros, 100 + 100 + 101 + 120_000_000 + 120_000_001);
    }

    #[test]
    fn what_another_has_counted_is_added() {
        let (one, other) = (Histogram::default(), Histogram::default());
        one.observe(Duration::from_secs(1));
        other.observe(Duration::from_secs(1));
        other.observe(Duration::MAX);
        one.add(&other.buckets());
        assert_eq!(one.count(), 3);
        assert_eq!(one.buckets().counts[12], 2);
    }
}
